"""Random events in any order, doubled, late and lost: what must hold of the transfer machine whatever happens."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from facts.fact import Kind
from router.sip.port import EventKind
from router.transfer import machine
from router.transfer import model as m
from tests.leg_events import any_event

LEGS = 3
PLAN = m.Plan(legs=LEGS, buffer_ms=15_000, ring_timeout_ms=30_000, talk_connected_ms=15_000)

leg_events = st.builds(
    lambda leg, kind, code, local: ("leg", leg, kind, code, local),
    st.integers(0, LEGS + 1),
    st.sampled_from(list(EventKind)),
    st.sampled_from([100, 180, 183, 200, 302, 401, 486, 503, 603]),
    st.booleans(),
)
others = st.one_of(
    st.sampled_from([("admitted", ""), ("admitted", "on_hold"), ("store failed",), ("shutdown",)]),
    st.sampled_from([("timer", timer) for timer in m.Timer]),
)
steps = st.lists(st.tuples(st.integers(0, 20_000_000), st.one_of(leg_events, others)), max_size=40)


def event_of(what: tuple, at_us: int) -> m.Event:
    match what:
        case ("leg", leg, kind, code, local):
            return m.OnLeg(leg, any_event(kind, at_us, code=code, local=local))
        case ("admitted", refusal):
            return m.Admitted(at_us, refusal)
        case ("store failed",):
            return m.StoreFailed(at_us)
        case ("timer", timer):
            return m.Rang(at_us, timer)
    return m.Shutdown(at_us)


def play(script: list) -> tuple[m.State, list[m.Effect]]:
    state, effects = machine.step(machine.start(PLAN), m.Begin(1))
    at_us = 1
    for gap_us, what in script:
        at_us += gap_us
        state, more = machine.step(state, event_of(what, at_us))
        effects += more
    return state, effects


def emitted(effects: list[m.Effect], kind: Kind) -> list[m.Emit]:
    return [effect for effect in effects if isinstance(effect, m.Emit) and effect.kind is kind]


@settings(max_examples=600, deadline=None)
@given(steps)
def test_at_most_one_winner_and_at_most_one_end(script: list) -> None:
    _, effects = play(script)
    assert len(emitted(effects, Kind.ANSWERED)) <= 1
    assert sum(isinstance(effect, m.AnswerCaller) for effect in effects) <= 1
    assert sum(isinstance(effect, m.Close) for effect in effects) <= 1
    assert len(emitted(effects, Kind.ENDED)) <= 1


@settings(max_examples=600, deadline=None)
@given(steps)
def test_what_was_dialled_is_over_once_the_transfer_is(script: list) -> None:
    """Every leg of a closed transfer failed by itself or was hung up by us, and the dialer was told or had left."""
    state, effects = play(script)
    if not any(isinstance(effect, m.Close) for effect in effects):
        return
    assert state.phase is m.Phase.OVER
    hung_up = {effect.leg for effect in effects if isinstance(effect, m.HangUp)}
    ended = {effect.leg for effect in emitted(effects, Kind.LEG_ENDED)}
    ended |= {effect.leg for effect in emitted(effects, Kind.NOT_SENT)}
    for effect in effects:
        if isinstance(effect, m.Dial):
            assert effect.leg in hung_up | ended
    told = any(isinstance(effect, m.RejectCaller) for effect in effects) or 0 in hung_up
    assert told or state.caller_gone


@settings(max_examples=600, deadline=None)
@given(steps)
def test_nothing_is_dialled_before_the_store_said_yes_or_after_the_end(script: list) -> None:
    _, effects = play(script)
    names = [type(effect).__name__ for effect in effects]
    if "Dial" in names:
        assert names.index("Admit") < names.index("Dial")
    if "Close" in names:
        after = names[names.index("Close") + 1 :]
        assert not {"Dial", "AnswerCaller", "Bridge", "Close", "RingCaller"} & set(after)
    if "Dial" not in names:
        assert "AnswerCaller" not in names


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(0, 39))
def test_an_event_said_twice_changes_no_verdict(script: list, index: int) -> None:
    """Doubling an answer or an end of one leg never makes a second winner nor a second end."""
    if index < len(script):
        script = [*script[: index + 1], (0, script[index][1]), *script[index + 1 :]]
    _, effects = play(script)
    assert len(emitted(effects, Kind.ANSWERED)) <= 1
    assert len(emitted(effects, Kind.ENDED)) <= 1
