"""How attempts end, and what talk earns: the parts of the machine that its steps share, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from facts.fact import CALLER_LEG, EndCause, Kind, Party
from router.sip.port import EventKind
from router.transfer import model as m
from router.transfer.endings import after_leg, end_by_us, end_legs, leg_ended, parted
from router.transfer.talk import HOLD_US, UNHEARD_AGAIN_US, hold_lasts, minute, party, talk, vanished
from tests.memory import leg_event

MS_US, MINUTE_US = 1_000, 60_000_000
DIALED, RINGING, PLANNED, WON, ENDED = (
    m.LegPhase.DIALED, m.LegPhase.RINGING, m.LegPhase.PLANNED, m.LegPhase.WON, m.LegPhase.ENDED
)  # fmt: skip


def state(*legs: m.LegPhase, **more: Any) -> m.State:
    plan = m.Plan(len(legs), 15_000, 30_000, 15_000, rtp_timeout_ms=5_000)
    return m.State(plan, legs=legs, **{"phase": m.Phase.RINGING, "dialout_us": 1_000, **more})


def talking(**more: Any) -> m.State:
    given = {"phase": m.Phase.TALKING, "winner": 1, "talk_us": 2_000, "caller_answered": True, "bridged": True, **more}
    return state(WON, **given)


def ends(effects: list[m.Effect]) -> list[tuple[str, str]]:
    """Who ended it and why, of the facts that say so."""
    emits = [one for one in effects if isinstance(one, m.Emit) and one.kind is Kind.ENDED]
    return [((one.payload or {})["by"], (one.payload or {})["cause"]) for one in emits]


def kinds(effects: list[m.Effect]) -> list[Kind]:
    return [one.kind for one in effects if isinstance(one, m.Emit)]


# --- how an attempt ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "more", "by", "cause", "code"),
    [
        ("no INVITE left", {"dialout_us": 0}, Party.ROUTER, EndCause.TRANSPORT, 500),
        ("no INVITE left, whatever else is known", {"dialout_us": 0, "any_sent_final": True, "best_code": 486},
         Party.ROUTER, EndCause.TRANSPORT, 500),
        ("busy", {"any_sent_final": True, "best_code": 486}, Party.BUYER, EndCause.LEGS_FAILED, 486),
        ("declined everywhere: other buyers may answer", {"any_sent_final": True, "best_code": 603}, Party.BUYER,
         EndCause.LEGS_FAILED, 486),
        ("moved: not for the dialer to follow", {"any_sent_final": True, "best_code": 302}, Party.BUYER,
         EndCause.LEGS_FAILED, 480),
        ("credentials are between us and the trunk", {"any_sent_final": True, "best_code": 401}, Party.BUYER,
         EndCause.LEGS_FAILED, 480),
        ("one declined, and one rang out: the buyer has had its say", {"any_sent_final": True, "best_code": 486,
         "timed_out": True}, Party.BUYER, EndCause.LEGS_FAILED, 486),
        ("all rang out", {"timed_out": True}, Party.ROUTER, EndCause.RING_TIMEOUT, 480),
        ("nobody was reached", {}, Party.ROUTER, EndCause.LEGS_FAILED, 503),
    ],
)  # fmt: skip
def test_an_attempt_fails_with_its_last_leg(
    what: str, more: dict[str, Any], by: Party, cause: EndCause, code: int
) -> None:
    after, effects = after_leg(state(ENDED, ENDED, **more), [])
    assert after.phase is m.Phase.OVER
    assert ends(effects) == [(by, cause)], what
    assert effects[1:] == [m.Quiet(), m.RejectCaller(code), m.Close()], what


@pytest.mark.parametrize("phase", [m.Phase.ADMITTING, m.Phase.TALKING, m.Phase.PARTING, m.Phase.OVER])
def test_while_a_leg_lives_or_nothing_rings_a_legs_end_is_that_legs_alone(phase: m.Phase) -> None:
    note: list[m.Effect] = [m.Disarm(m.Timer.LEG_RING, 1)]
    for before in (state(ENDED, RINGING), state(ENDED, ENDED, phase=phase)):
        assert after_leg(before, note) == (before, note)


def test_a_leg_that_was_not_dialled_leaves_no_fact() -> None:
    after, effects = end_legs(state(RINGING, PLANNED, DIALED), [1, 2], "why")
    assert after.legs == (ENDED, ENDED, DIALED)
    assert [one for one in effects if isinstance(one, m.HangUp)] == [m.HangUp(1, "why"), m.HangUp(2, "why")]
    (fact,) = [one for one in effects if isinstance(one, m.Emit)]
    assert (fact.kind, fact.leg) == (Kind.LEG_ENDED, 1)
    assert (fact.payload or {})["local"] is True


@pytest.mark.parametrize(
    ("local", "named", "by"),
    [(False, None, "buyer"), (True, None, "router"), (True, Party.CALLER, "caller"), (False, Party.CALLER, "caller")],
)
def test_who_ended_a_leg_is_the_far_end_unless_it_was_local_or_is_said(
    local: bool, named: Party | None, by: str
) -> None:
    event = leg_event("t1-1", EventKind.FAILED, 5, code=486, phrase="Busy", local=local)
    payload = leg_ended(1, event, named).payload or {}  # type: ignore[arg-type]
    assert (payload["by"], payload["local"], payload["code"]) == (by, local, 486)


@pytest.mark.parametrize(
    ("gone", "answered", "told"),
    [
        (False, True, [m.HangUp(CALLER_LEG)]),
        (False, False, [m.RejectCaller(500)]),
        (True, True, []),
        (True, False, []),
    ],
)
def test_our_own_end_tells_the_caller_where_it_is_there(gone: bool, answered: bool, told: list[m.Effect]) -> None:
    before = state(RINGING, ENDED, caller_gone=gone, caller_answered=answered)
    note: list[m.Effect] = [m.Emit(Kind.FAULT)]
    after, effects = end_by_us(before, EndCause.SHUTDOWN, note)
    assert after.phase is m.Phase.OVER
    assert kinds(effects) == [Kind.FAULT, Kind.ENDED, Kind.LEG_ENDED]  # of the live leg alone
    assert effects[-len(told) - 2 :] == [m.Quiet(), *told, m.Close()]


@pytest.mark.parametrize("by", [Party.BUYER, Party.CALLER])
def test_a_parting_is_dated_when_the_buyer_hung_up_whoever_is_said_to_have_ended_it(by: Party) -> None:
    after, (fact, *rest) = parted(talking(phase=m.Phase.PARTING, parted_us=77, parted_lag_us=0), by)
    assert isinstance(fact, m.Emit)
    assert (fact.at_us, fact.lag_us, (fact.payload or {})["by"]) == (77, 0, by.value)
    assert (after.phase, rest) == (m.Phase.OVER, [m.Quiet(), m.Close()])


# --- what talk earns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "lag_us", "unheard", "again_us"),
    [
        ("certain", 0, (), 0),
        ("an end may have waited in the socket for longer than that", 40_000, (), 40_000),
        ("asked again no sooner than a millisecond later", 10, (), 1_000),
        ("a party is unheard: it may have ended before", 0, ((CALLER_LEG, 5),), UNHEARD_AGAIN_US),
    ],
)
@pytest.mark.parametrize(("step", "timer", "bound_us"), [(talk, m.Timer.TALK, 15_000 * MS_US),
                                                         (minute, m.Timer.MINUTE, MINUTE_US)])  # fmt: skip
def test_a_bound_is_on_the_record_once_it_is_certain(  # noqa: PLR0917 - a row of the table
    step: Any, timer: m.Timer, bound_us: int, what: str, lag_us: int, unheard: tuple[Any, ...], again_us: int
) -> None:
    at_us = 2_000 + bound_us
    after, effects = step(talking(unheard=unheard), m.Rang(at_us, timer, lag_us))
    if again_us:
        assert effects == [m.Arm(timer, at_us + again_us)], what
        assert after.minutes == 0
    else:
        assert kinds(effects) == [Kind.TALK_REACHED_15S if step is talk else Kind.TALK_MINUTE]
        assert effects[-1] == m.Arm(m.Timer.MINUTE, 2_000 + (1 if step is talk else 2) * MINUTE_US)


def test_a_hold_is_on_the_record_once_it_has_lasted_and_so_is_its_end() -> None:
    hold, back = (leg_event("in1", kind, at) for kind, at in ((EventKind.HELD, 1_000), (EventKind.RETRIEVED, 9_000)))
    held, effects = party(talking(), CALLER_LEG, hold) or pytest.fail("not of audio")
    assert effects == [m.Arm(m.Timer.HOLD, 1_000 + HOLD_US, CALLER_LEG)]
    assert party(held, CALLER_LEG, hold) == (held, []), "twice at once is one hold"
    assert party(held, CALLER_LEG, back) == (talking(), [m.Disarm(m.Timer.HOLD, CALLER_LEG)])  # a moment: no fact
    lasting, told = hold_lasts(held, m.Rang(1_000 + HOLD_US, m.Timer.HOLD, leg=CALLER_LEG))
    assert kinds(told) == [Kind.HELD]
    assert hold_lasts(lasting, m.Rang(9_000, m.Timer.HOLD, leg=CALLER_LEG))[1] == [], "told once"
    assert hold_lasts(held, m.Rang(9_000, m.Timer.HOLD, leg=1))[1] == [], "the other party's timer"
    after, effects = party(lasting, CALLER_LEG, back) or pytest.fail("not of audio")
    assert (after.holds, kinds(effects)) == ((), [Kind.RETRIEVED])
    assert party(after, CALLER_LEG, back) == (after, [])


@pytest.mark.parametrize("silent", [CALLER_LEG, 1])
def test_a_party_that_vanished_ended_the_transfer_at_its_last_packet(silent: int) -> None:
    unheard = leg_event("x", EventKind.UNHEARD, 40_000)
    quiet, effects = party(talking(), silent, unheard) or pytest.fail("not of audio")
    assert effects == [m.Arm(m.Timer.RTP, 40_000 + 5_000 * MS_US, silent)]
    assert party(quiet, silent, unheard) == (quiet, []), "the first silence counts"
    after, effects = vanished(quiet, m.Rang(9_999_999, m.Timer.RTP, leg=silent))
    assert ends(effects) == [("caller" if silent == CALLER_LEG else "buyer", EndCause.VANISHED)]
    dated = [one.at_us for one in effects if isinstance(one, m.Emit) and (one.kind is Kind.ENDED or one.leg == silent)]
    assert set(dated) == {40_000}
    hung_up = [one.leg for one in effects if isinstance(one, m.HangUp)]
    assert sorted(hung_up) == [CALLER_LEG, 1], "each once"
    assert (after.phase, after.live_legs) == (m.Phase.OVER, ())


@pytest.mark.parametrize("sign", [EventKind.HEARD, EventKind.RTP_STARTED])
def test_who_is_heard_again_has_not_vanished(sign: EventKind) -> None:
    quiet = talking(unheard=((CALLER_LEG, 40), (1, 50)))
    after, effects = party(quiet, 1, leg_event("x", sign, 60)) or pytest.fail("not of audio")
    assert (after.unheard, effects) == (((CALLER_LEG, 40),), [m.Disarm(m.Timer.RTP, 1)])
    assert vanished(after, m.Rang(99, m.Timer.RTP, leg=1)) == (after, [])


def test_where_silence_is_no_end_no_timer_is_set_and_others_audio_is_nobodys() -> None:
    never = talking()._replace(plan=talking().plan.__class__(1, 0, 30_000, 15_000))
    unheard = leg_event("x", EventKind.UNHEARD, 40)
    assert party(never, 1, unheard) == (never, [])
    loser = talking(winner=2)
    assert party(loser, 1, unheard) == (loser, [])
    assert party(talking(), 1, leg_event("x", EventKind.BYE, 40)) is None
