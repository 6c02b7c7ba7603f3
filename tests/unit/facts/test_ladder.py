"""The account of a transfer: times from dial-out, who did what, and why the verdict is what it is."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from facts.fact import EndCause, Kind, Party
from facts.ladder import build_ladder, explain
from tests.facts_builder import UTC_0, Story, connected_story, failed_story


def test_each_leg_has_its_times_from_dial_out() -> None:
    story = (
        Story()
        .start(legs=2)
        .dial(1, at=0.0)
        .dial(2, at=0.010)
        .add(Kind.TRYING, 0.05, 1)
        .ring(1, 1.2)
        .ring(1, 1.9, code=183)
        .answer(1, 4.0)
        .bridge(1, 4.1)
        .cancelled(2, 4.2)
        .hang_up(16.0, Party.BUYER)
        .decline(1, 16.1, code=200, phrase="OK")
        .close()
    )
    ladder = build_ladder(story.facts)
    first, second = ladder.legs
    assert (first.sent_ms, first.trying_ms, first.ringing_ms, first.ringing_code) == (0, 50, 1_200, 180)
    assert (first.answered_ms, first.bridged_ms, first.ended_ms, first.late) == (4_000, 4_100, 16_100, False)
    assert (first.name, first.kind, first.secure) == ("desk-1", "trunk", True)
    assert (second.sent_ms, second.answered_ms, second.local, second.code) == (10, None, True, 487)
    assert (ladder.dialout_utc_us, ladder.settled) == (UTC_0, True)


def test_the_explanation_names_the_row_the_times_and_the_facts() -> None:
    assert build_ladder(failed_story().facts).explanation == (
        "failed, counted as failed, by row 10 of the table: nobody answered: at least one endpoint declined, after"
        " 30,000 ms from dial-out to the end, not less than the buffer of 15,000 ms. Facts: 2 (dialed), 3 (dialed),"
        " 4 (ringing), 5 (ringing), 6 (leg_ended), 7 (leg_ended), 8 (ended)."
    )


def test_the_clock_tells_every_fact_but_the_closing_one() -> None:
    rows = build_ladder(connected_story().facts).clock
    assert [(row.at_ms, row.who, row.what) for row in rows] == [
        (-50, "", "INVITE from the dialer"),
        (0, "desk-1", "INVITE sent"),
        (1_200, "desk-1", "180 Ringing"),
        (4_000, "desk-1", "answered, 200 OK"),
        (4_100, "desk-1", "caller and buyer can hear each other"),
        (19_000, "", "the talk has reached the connected threshold"),
        (44_000, "", "ended by the caller (bye)"),
    ]


def test_a_late_answer_is_told_as_late() -> None:
    story = Story().start(legs=2).dial(1, 2).answer(1, 4.0).add(Kind.ANSWERED_LATE, 4.05, 2, code=200, phrase="OK")
    ladder = build_ladder(story.facts)
    assert (ladder.legs[1].answered_ms, ladder.legs[1].late, ladder.settled) == (4_050, True, False)
    assert ladder.clock[-1].what == "answered too late, 200 OK: acknowledged and hung up"


def test_a_refused_transfer_has_a_plan_and_no_dial_out() -> None:
    ladder = build_ladder(Story().start(legs=2).add(Kind.REFUSED, reason="suppressed").facts)
    assert ladder.dialout_utc_us is None
    assert [leg.sent_ms for leg in ladder.legs] == [None, None]
    assert "row 1 of the table: no INVITE was sent (suppressed)" in ladder.explanation


def test_a_leg_that_no_plan_names_is_shown_by_its_number() -> None:
    ladder = build_ladder(Story().start(endpoints="junk").dial(3).facts)
    assert [(leg.leg, leg.name) for leg in ladder.legs] == [(3, "leg 3")]


def test_what_comes_after_the_closing_fact_explains_nothing() -> None:
    story = failed_story().add(Kind.TALK_REACHED_15S, 60.0)
    assert build_ladder(story.facts).outcome == build_ladder(failed_story().facts).outcome


def test_it_can_be_written_as_json() -> None:
    read = orjson.loads(orjson.dumps(build_ladder(failed_story().facts).as_dict()))
    assert read["outcome"]["verdict"] == "failed"
    assert read["legs"][0]["phrase"] == "Busy Here"
    assert read["clock"][0]["seq"] == 1


def test_of_no_facts_there_is_no_ladder() -> None:
    with pytest.raises(ValueError, match="facts: none were given"):
        build_ladder([])


@pytest.mark.parametrize("row", range(1, 12))
def test_every_row_of_the_table_can_be_explained(row: int) -> None:
    outcome = replace(build_ladder(failed_story().facts).outcome, row=row)
    said = explain(outcome, failed_story().facts)
    assert f"row {row} of the table: " in said
    assert "{" not in said


def test_ended_by_nobody_known_is_said_so() -> None:
    story = Story().start().dial(1).add(Kind.ENDED, 3.0).add(Kind.LEG_ENDED, 3.0, 1).end(4.0, Party.BUYER, EndCause.BYE)
    assert [row.what for row in build_ladder(story.facts).clock[2:4]] == [
        "ended by the unknown (unknown)",
        "leg ended by us",
    ]


def test_what_was_wrong_with_a_lead_is_told() -> None:
    story = Story().start(lead_problems=["lead.phone: not a phone number"])
    ladder = build_ladder(story.add(Kind.REFUSED, 0.0, reason="bad_number").close().facts)
    assert (ladder.lead_problems, ladder.outcome.reason.value) == (("lead.phone: not a phone number",), "bad_number")
