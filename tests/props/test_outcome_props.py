"""What holds of the outcome table whatever the facts: hypothesis makes them up, sensible or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from facts.fact import EndCause, Fact, Kind, Party
from facts.ladder import build_ladder
from facts.outcome import CountsAs, Reason, Verdict, decide
from tests.facts_builder import UTC_0, WESTLAKE, endpoint

JUNK = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
KEYS = ("reason", "code", "phrase", "by", "local", "header", "cause", "must_accept", "buffer_ms", "endpoints", "terms")


@st.composite
def payloads(draw: st.DrawFn) -> dict[str, Any]:
    """Payloads in which each key has a sensible value or junk."""
    sensible = {
        "reason": st.sampled_from(list(Reason)),
        "code": st.integers(100, 699),
        "by": st.sampled_from(list(Party)),
        "cause": st.sampled_from(list(EndCause)),
        "local": st.booleans(),
        "must_accept": st.booleans(),
        "buffer_ms": st.sampled_from([0, 15_000]),
        "endpoints": st.lists(
            st.builds(endpoint, st.integers(1, 4), kind=st.sampled_from(["trunk", "did"])), max_size=4
        ),
        "terms": st.just(WESTLAKE),
    }
    keys = draw(st.sets(st.sampled_from(KEYS), max_size=4))
    return {
        key: draw(sensible.get(key, JUNK) | JUNK if draw(st.booleans()) else sensible.get(key, JUNK)) for key in keys
    }


@st.composite
def histories(draw: st.DrawFn) -> list[Fact]:
    """Any facts in any order, on a clock that does not go back."""
    facts = []
    now = 0
    for seq in range(1, draw(st.integers(0, 12)) + 1):
        now += draw(st.integers(0, 20_000_000))
        kind = draw(st.sampled_from(list(Kind)))
        leg = draw(st.none() | st.integers(0, 4))
        lag = draw(st.sampled_from([0, 0, 1_000, 500_000]))
        facts.append(Fact("r", "b", seq, "t", kind, UTC_0 + now, now, lag, leg=leg, payload=draw(payloads())))
    return facts


def _planned(facts: list[Fact], buffer_ms: int) -> list[Fact]:
    start = Fact("r", "b", 0, "t", Kind.TRANSFER_STARTED, UTC_0, 0, payload={"buffer_ms": buffer_ms, "terms": WESTLAKE})
    return [start, *(fact for fact in facts if fact.kind is not Kind.TRANSFER_STARTED)]


@settings(max_examples=150, deadline=None)
@given(histories())
def test_any_facts_give_exactly_one_outcome_and_raise_nothing(facts: list[Fact]) -> None:
    found = decide(facts)
    assert found.verdict in Verdict
    assert found.reason in Reason
    assert 1 <= found.row <= 11
    assert found.talk_ms >= 0
    assert found.attempt_ms >= 0
    assert set(found.evidence) <= {fact.seq for fact in facts}
    assert decide(facts) == found  # the same facts, the same answer: that is replay


@settings(max_examples=80, deadline=None)
@given(histories())
def test_a_unit_is_only_for_what_is_connected_or_failed(facts: list[Fact]) -> None:
    found = decide(facts)
    if found.verdict is Verdict.CONNECTED:
        assert found.counts_as is CountsAs.CONNECTED
    elif found.verdict is Verdict.FAILED:
        assert found.counts_as is CountsAs.FAILED
    elif found.verdict not in (Verdict.UNREACHABLE, Verdict.CALLER_ABANDONED):
        assert found.counts_as is CountsAs.FREE


@settings(max_examples=120, deadline=None)
@given(histories(), st.integers(0, 60_000), st.integers(0, 60_000))
def test_a_longer_buffer_never_bills_what_was_free(facts: list[Fact], one: int, other: int) -> None:
    short, long = sorted((one, other))
    with_short, with_long = (decide(_planned(facts, buffer_ms)) for buffer_ms in (short, long))
    if with_short.counts_as is CountsAs.FREE:
        assert with_long.counts_as is CountsAs.FREE


@settings(max_examples=120, deadline=None)
@given(histories(), st.integers(0, 40))
def test_a_fault_of_ours_on_a_leg_that_is_over_changes_nothing(facts: list[Fact], place: int) -> None:
    facts = _planned(facts, 0)
    over = {fact.leg: at for at, fact in enumerate(facts) if fact.kind is Kind.LEG_ENDED and fact.leg}
    closed = next((at for at, fact in enumerate(facts) if fact.kind is Kind.TRANSFER_CLOSED), len(facts))
    for leg, ended_at in over.items():
        at = min(len(facts), ended_at + 1 + place)
        near = facts[at - 1]
        if near.mono_us == facts[ended_at].mono_us and facts[ended_at].payload.get("local") is True:
            continue  # that fault is why the leg ended
        fault = replace(near, kind=Kind.FAULT, leg=leg, payload={"what": "engine"})
        told = decide([*facts[:at], fault, *facts[at:]])
        was = decide(facts)
        if 1 not in (was.row, told.row) and at <= closed and near.kind not in (Kind.INTERRUPTED, Kind.ENDED):
            assert (told.verdict, told.counts_as) == (was.verdict, was.counts_as)


@settings(max_examples=80, deadline=None)
@given(histories(), st.integers(0, 2_000_000))
def test_more_doubt_never_bills_what_was_free(facts: list[Fact], lag_us: int) -> None:
    planned = _planned(facts, 15_000)
    doubtful = [replace(fact, lag_us=fact.lag_us + lag_us) for fact in planned]
    if decide(planned).counts_as is CountsAs.FREE:
        assert decide(doubtful).counts_as is not CountsAs.CONNECTED


@settings(max_examples=80, deadline=None)
@given(histories())
def test_a_crash_never_bills_more_than_what_was_earned(facts: list[Fact]) -> None:
    """Recovery appends `interrupted`: the result is free unless the talk had reached its 15 s."""
    open_facts = [fact for fact in _planned(facts, 0) if fact.kind not in (Kind.ENDED, Kind.TRANSFER_CLOSED)]
    last = open_facts[-1]
    crashed = [*open_facts, Fact("r", "b", 99, "t", Kind.INTERRUPTED, last.utc_us, last.mono_us, origin="recovery")]
    found = decide(crashed)
    assert found.counts_as in (CountsAs.FREE, CountsAs.CONNECTED)
    assert found.verdict in (Verdict.CONNECTED, Verdict.FAULT)


@settings(max_examples=80, deadline=None)
@given(histories().filter(bool))
def test_a_ladder_can_be_told_of_any_facts(facts: list[Fact]) -> None:
    ladder = build_ladder(facts)
    assert f"by row {ladder.outcome.row} of the table" in ladder.explanation
    assert ladder.as_dict()["transfer"] == "t"


@given(histories(), st.sampled_from([Kind.TRYING, Kind.RINGING]), st.integers(101, 199), st.integers(1, 4))
@settings(max_examples=500, deadline=None)
def test_a_provisional_answer_that_is_no_ringing_only_says_that_somebody_is_there(
    facts: list[Fact], kind: Kind, code: int, leg: int
) -> None:
    if code in {180, 181, 182, 183} or not facts:
        return
    more = replace(facts[0], kind=kind, leg=leg, payload={"code": code, "phrase": "Progress"})
    before, after = decide(_planned(facts, 0)), decide(_planned([more, *facts], 0))
    if before.row != 6:
        assert replace(after, evidence=()) == replace(before, evidence=())
