"""The outcome table, row by row, and the worked examples of the domain page word for word."""

from __future__ import annotations

from typing import Any

import pytest

from facts.fact import EndCause, Fact, Kind, Party
from facts.ladder import build_ladder
from facts.outcome import NOT_ATTEMPTED_REASONS, CountsAs, OutcomeTerms, Verdict, decide
from tests.facts_builder import WESTLAKE, Story

ROUTER, CALLER, BUYER = Party.ROUTER, Party.CALLER, Party.BUYER
TIMEOUT, FAILED, CANCEL = EndCause.RING_TIMEOUT, EndCause.LEGS_FAILED, EndCause.CANCEL


def one_leg(**start: Any) -> Story:
    """One endpoint dialled and ringing."""
    return Story().start(**start).dial(1).ring(1, 1.0)


def answered(at: float = 4.0, **start: Any) -> Story:
    return one_leg(**start).answer(1, at).bridge(1, at)


DID = {"secure": False, "kind": "did"}

WORKED = [
    ("answers at 4 s, buyer hangs up at 18.9 s -> talk 14.9 s -> failed", answered().hang_up(18.9, BUYER), "failed"),
    ("answers at 4 s, the buyer hangs up at 19.0 s -> connected", answered().hang_up(19.0, BUYER), "connected"),
    ("answers at 4 s, the caller hangs up at 19.0 s -> connected", answered().hang_up(19.0, CALLER), "connected"),
    (
        "all decline at 14.999 s -> within_buffer",
        one_leg().decline(1, 14.999).end(14.999, ROUTER, FAILED),
        "within_buffer",
    ),
    ("all decline at 15.000 s -> failed", one_leg().decline(1, 15.0).end(15.0, ROUTER, FAILED), "failed"),
    ("rings 30 s, ring timeout -> failed", one_leg().cancelled(1, 30.0).end(30.0, ROUTER, TIMEOUT), "failed"),
    ("rings 20 s, caller hangs up -> caller_abandoned", one_leg().end(20.0, CALLER, CANCEL), "caller_abandoned"),
    ("answers at 20 s, caller hangs up at 24 s -> short_call", answered(20.0).hang_up(24.0, CALLER), "short_call"),
    (
        "on a plain DID, rings, declines after 2 s -> failed",
        one_leg(**DID).decline(1, 2.0).end(2.0, ROUTER, FAILED),
        "failed",
    ),
]


@pytest.mark.parametrize(("story", "verdict"), [pytest.param(s, v, id=name) for name, s, v in WORKED])
def test_the_worked_examples_of_the_domain_page(story: Story, verdict: str) -> None:
    assert decide(story.facts).verdict == verdict


def test_the_first_worked_example_in_full() -> None:
    found = decide(answered().hang_up(18.9, BUYER).facts)
    assert (found.talk_ms, found.attempt_ms, found.buffer_ms, found.row) == (14_900, 18_900, 15_000, 7)
    assert (found.reason, found.counts_as) == ("buyer_abandoned", "failed")


def test_own_carrier_answers_503_after_300_ms_on_a_plain_did() -> None:
    story = Story().start(**DID).dial(1).decline(1, 0.3, 503, "Service Unavailable").end(0.3, ROUTER, FAILED)
    found = decide(story.facts)
    assert (found.verdict, found.reason, found.counts_as, found.row) == ("fault", "carrier_fault", "free", 4)


# What each row of the table gives: (story, row, verdict, reason, counts as).
ROWS = [
    (
        "row 1: refused before any INVITE",
        Story().start().add(Kind.REFUSED, reason="suppressed").end(0, ROUTER, EndCause.SHUTDOWN),
        (1, "not_attempted", "suppressed", "free"),
    ),
    (
        "row 1: the caller was gone before any INVITE",
        Story().start().end(0.1, CALLER, CANCEL),
        (1, "not_attempted", "caller_gone", "free"),
    ),
    (
        "row 1: a refusal of a reason nobody knows is a fault",
        Story().start().add(Kind.REFUSED, reason="bored").end(0, ROUTER, FAILED),
        (1, "not_attempted", "fault", "free"),
    ),
    (
        "row 2: the fact that talk reached 15 s is enough, whatever came after",
        answered().add(Kind.TALK_REACHED_15S, 19.0).add(Kind.INTERRUPTED, 19.0),
        (2, "connected", "answered", "connected"),
    ),
    (
        "row 2 stands above our own failure",
        answered().end(30.0, ROUTER, EndCause.MEDIA),
        (2, "connected", "answered", "connected"),
    ),
    (
        "row 3: our media failed before 15 s of talk",
        answered().end(10.0, ROUTER, EndCause.MEDIA),
        (3, "fault", "router_fault", "free"),
    ),
    (
        "row 3: the router died while it rang",
        one_leg().add(Kind.INTERRUPTED, 20.0),
        (3, "fault", "interrupted", "free"),
    ),
    (
        "row 3: the router died before dial-out: interrupted, never row 1",
        Story().start().add(Kind.INTERRUPTED),
        (3, "fault", "interrupted", "free"),
    ),
    (
        "row 5: declined within the buffer",
        one_leg().decline(1, 3.0).end(3.0, ROUTER, FAILED),
        (5, "within_buffer", "declined", "free"),
    ),
    (
        "row 5: rang out within the buffer",
        one_leg().cancelled(1, 10.0).end(10.0, ROUTER, TIMEOUT),
        (5, "within_buffer", "no_answer", "free"),
    ),
    (
        "row 5: the caller gave up within the buffer",
        one_leg().end(9.0, CALLER, CANCEL),
        (5, "within_buffer", "caller_gone", "free"),
    ),
    (
        "row 5: answered and hung up by the caller within the buffer",
        answered().hang_up(9.0, CALLER),
        (5, "within_buffer", "caller_ended", "free"),
    ),
    (
        "row 5: answered and hung up by the buyer within the buffer",
        answered().hang_up(9.0, BUYER),
        (5, "within_buffer", "buyer_abandoned", "free"),
    ),
    (
        "row 6: nothing ever came back",
        Story().start().dial(1).cancelled(1, 30.0).end(30.0, ROUTER, TIMEOUT),
        (6, "unreachable", "no_response", "free"),
    ),
    (
        "row 7: answered, the buyer left",
        answered().hang_up(16.0, BUYER),
        (7, "failed", "buyer_abandoned", "failed"),
    ),
    (
        "row 8: answered, the caller left",
        answered().hang_up(16.0, CALLER),
        (8, "short_call", "caller_ended", "free"),
    ),
    (
        "row 9: not answered, the caller gave up",
        one_leg().end(16.0, CALLER, CANCEL),
        (9, "caller_abandoned", "caller_gone", "free"),
    ),
    (
        "row 10: rang out",
        one_leg().cancelled(1, 30.0).end(30.0, ROUTER, TIMEOUT),
        (10, "failed", "no_answer", "failed"),
    ),
    (
        "row 10: one declined, one rang out: declined",
        Story().start(legs=2).dial(1, 2).ring(1).ring(2).decline(1, 8.0).cancelled(2, 30.0).end(30.0, ROUTER, TIMEOUT),
        (10, "failed", "declined", "failed"),
    ),
    (
        "row 10: a redirect is a decline",
        one_leg().decline(1, 20.0, 302, "Moved").end(20.0, ROUTER, FAILED),
        (10, "failed", "declined", "failed"),
    ),
    (
        "row 10: answered but not accepted by key counts as declined",
        one_leg().answer(1, 4.0, must_accept=True).end(30.0, ROUTER, TIMEOUT),
        (10, "failed", "declined", "failed"),
    ),
    ("row 11: facts that fit nothing", Story().start().dial(1), (11, "indeterminate", "unknown", "free")),
    ("row 11: no facts at all", Story(), (11, "indeterminate", "unknown", "free")),
]


@pytest.mark.parametrize(("story", "wanted"), [pytest.param(s, w, id=name) for name, s, w in ROWS])
def test_every_row_of_the_table(story: Story, wanted: tuple[int, str, str, str]) -> None:
    found = decide(story.facts)
    assert (found.row, found.verdict, found.reason, found.counts_as) == wanted


@pytest.mark.parametrize("reason", sorted(NOT_ATTEMPTED_REASONS))
def test_every_refusal_is_kept_as_its_reason(reason: str) -> None:
    found = decide(Story().start().add(Kind.REFUSED, reason=reason).facts)
    assert (found.verdict, found.reason) == (Verdict.NOT_ATTEMPTED, reason)


BOUNDS = [
    ("14,999 ms of talk is not connected", answered().hang_up(18.999, CALLER), "short_call", 14_999),
    ("15,000 ms of talk is connected", answered().hang_up(19.0, CALLER), "connected", 15_000),
    ("a lag of 1 ms takes the doubt from the talk", answered().hang_up(19.0, CALLER, lag_ms=1), "short_call", 14_999),
    ("a lag of 1 ms over the bound is paid by the excess", answered().hang_up(19.001, BUYER, 1), "connected", 15_000),
    ("a fraction of a millisecond rounds down", answered().hang_up(18.9999, CALLER), "short_call", 14_999),
]


@pytest.mark.parametrize(("story", "verdict", "talk_ms"), [pytest.param(s, v, t, id=name) for name, s, v, t in BOUNDS])
def test_the_bound_of_the_talk(story: Story, verdict: str, talk_ms: int) -> None:
    found = decide(story.facts)
    assert (found.verdict, found.talk_ms) == (verdict, talk_ms)


@pytest.mark.parametrize(
    ("at", "lag_ms", "verdict", "attempt_ms"),
    [
        pytest.param(14.999, 0, "within_buffer", 14_999, id="14,999 ms of attempt is within the buffer"),
        pytest.param(15.0, 0, "failed", 15_000, id="15,000 ms of attempt is past the buffer"),
        pytest.param(
            15.0, 1, "within_buffer", 14_999, id="the lag of the end is subtracted: the doubt goes to the buyer"
        ),
        pytest.param(15.5, 500, "failed", 15_000, id="a lag that leaves 15,000 ms changes nothing"),
    ],
)
def test_the_bound_of_the_buffer(at: float, lag_ms: int, verdict: str, attempt_ms: int) -> None:
    found = decide(one_leg().decline(1, at).end(at, ROUTER, FAILED, lag_ms).facts)
    assert (found.verdict, found.attempt_ms) == (verdict, attempt_ms)


def test_talk_from_the_bridge_where_the_endpoint_must_accept() -> None:
    story = one_leg().answer(1, 4.0, must_accept=True).add(Kind.ACCEPTED, 8.0, 1).bridge(1, 8.0).hang_up(22.0, BUYER)
    found = decide(story.facts)
    assert (found.talk_ms, found.verdict) == (14_000, "failed")


def test_a_487_of_our_own_cancel_is_no_decline() -> None:
    found = decide(one_leg().cancelled(1, 30.0).end(30.0, ROUTER, TIMEOUT).facts)
    assert found.reason == "no_answer"


def test_early_media_is_no_answer() -> None:
    found = decide(Story().start().dial(1).ring(1, 1.0, 183).cancelled(1, 30.0).end(30.0, ROUTER, TIMEOUT).facts)
    assert (found.verdict, found.reason, found.talk_ms) == ("failed", "no_answer", 0)


def test_a_late_answer_is_no_talk() -> None:
    story = one_leg().end(16.0, CALLER, CANCEL).add(Kind.ANSWERED_LATE, 16.1, 1, code=200)
    assert decide(story.facts).verdict == "caller_abandoned"


def test_an_end_on_our_side_that_is_told_before_its_fault_is_that_fault() -> None:
    """As a leg that had answered and was being asked for its key was written down, when our media dropped it."""
    asked = Story().start(legs=1).dial(1).ring(1, 1.0).add(Kind.ANSWERED, 4.0, 1, must_accept=True)
    dropped = asked.add(Kind.LEG_ENDED, 16.0, 1, code=500, phrase="", by="router", local=True)
    told = dropped.add(Kind.FAULT, 16.0, 1, what="media").end(16.0, ROUTER, FAILED)
    assert (decide(told.facts).verdict, decide(told.facts).counts_as) == ("fault", "free")


@pytest.mark.parametrize("ours", [(Kind.FAULT, {"what": "engine"}), (Kind.NOT_SENT, {"ours": True})])
def test_a_fault_of_ours_counts_on_a_leg_that_was_up_and_on_no_other(ours: tuple[Kind, dict[str, Any]]) -> None:
    kind, payload = ours
    begun = Story().start(legs=2).dial(1, 2).ring(1, 1.0).ring(2, 1.0)
    over = begun.decline(1, 16.0).add(kind, 16.5, 1, **payload).decline(2, 20.0).end(20.0, ROUTER, FAILED)
    assert (decide(over.facts).verdict, decide(over.facts).reason) == ("failed", "declined")
    begun = Story().start(legs=2).dial(1, 2).ring(1, 1.0).ring(2, 1.0)
    up = begun.decline(1, 16.0).add(kind, 16.5, 2, **payload).end(20.0, ROUTER, FAILED)
    assert (decide(up.facts).verdict, decide(up.facts).reason) == ("fault", "router_fault")


@pytest.mark.parametrize("code", [401, 403, 404, 407, 408, 484, 488, 500, 503, 599])
def test_every_code_of_the_own_carrier(code: int) -> None:
    story = Story().start(**DID).dial(1).decline(1, 0.5, code).end(0.5, ROUTER, FAILED)
    assert decide(story.facts).reason == "carrier_fault"


@pytest.mark.parametrize("code", range(101, 200))
def test_every_provisional_answer_before_the_own_carriers_503(code: int) -> None:
    """Also in facts of earlier releases, which called every one of them ringing."""
    story = Story().start(**DID).dial(1).ring(1, 0.2, code).decline(1, 0.5, 503).end(0.5, ROUTER, FAILED)
    assert decide(story.facts).reason == ("declined" if code in {180, 181, 182, 183} else "carrier_fault")
    ladder = build_ladder(story.facts)
    rang = code if code in {180, 181, 182, 183} else None
    assert (ladder.legs[0].ringing_code, ladder.legs[0].trying_ms) == (rang, None)


@pytest.mark.parametrize(
    "story",
    [
        pytest.param(
            Story().start(**DID).dial(1).decline(1, 0.5, 486).end(0.5, ROUTER, FAILED), id="busy is the buyer"
        ),
        pytest.param(Story().start(**DID).dial(1).decline(1, 0.5, 603).end(0.5, ROUTER, FAILED), id="603 is the buyer"),
        pytest.param(
            Story().start(**DID).dial(1).ring(1, 0.2).decline(1, 0.5, 503).end(0.5, ROUTER, FAILED), id="it rang before"
        ),
        pytest.param(
            Story().start(legs=2, **DID).dial(1, 2).decline(1, 0.5, 503).decline(2, 0.6, 486).end(0.6, ROUTER, FAILED),
            id="one leg was declined by the buyer",
        ),
        pytest.param(
            Story().start(secure=False).dial(1).decline(1, 0.5, 503).end(0.5, ROUTER, FAILED),
            id="a trunk is the buyer's",
        ),
    ],
)
def test_what_is_not_the_own_carriers_fault(story: Story) -> None:
    assert decide(story.facts).verdict == "failed"


def test_terms_may_count_unreachable_and_caller_abandon_as_failed() -> None:
    terms = WESTLAKE | {"unreachable": "failed", "caller_abandon": "failed"}
    silent = Story().start(terms=terms).dial(1).cancelled(1, 30.0).end(30.0, ROUTER, TIMEOUT)
    gone = one_leg(terms=terms).end(20.0, CALLER, CANCEL)
    assert [decide(one.facts).counts_as for one in (silent, gone)] == ["failed", "failed"]


def test_other_terms_can_be_tried_on_old_facts() -> None:
    facts = answered().hang_up(16.0, CALLER).facts
    assert decide(facts).counts_as == "free"
    assert decide(facts, OutcomeTerms(talk_connected_ms=12_000)).counts_as == CountsAs.CONNECTED


@pytest.mark.parametrize("terms", [None, 7, [], {"talk_connected_ms": "soon"}, {"unreachable": "perhaps"}])
def test_terms_that_cannot_be_read_are_the_presets(terms: object) -> None:
    found = decide(answered(terms=terms).hang_up(19.0, CALLER).facts)
    assert found.verdict == "connected"


def test_the_evidence_names_facts_that_are_there() -> None:
    facts: list[Fact] = answered().hang_up(16.0, BUYER).facts
    kinds = {fact.seq: fact.kind for fact in facts}
    assert [kinds[seq] for seq in decide(facts).evidence] == ["dialed", "ringing", "answered", "bridged", "ended"]
