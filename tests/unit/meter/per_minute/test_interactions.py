"""Calls as interactions, reports of e-mails and chats, and the service levels: pure values in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from book.model import Channel
from facts.fact import EndCause, Kind, Party
from meter.per_minute.interactions import (
    MAX_TEXT,
    InteractionError,
    Reported,
    average_x100,
    half_even,
    mail_address,
    read_report,
)
from meter.per_minute.service_levels import Level, levels_of
from meter.settling.follower import SettleOptions, settle
from tests.facts_builder import UTC_0, WESTLAKE, Story, connected_story

MINUTE = WESTLAKE | {
    "name": "customer-success",
    "rating": "minute",
    "minute_price_minor": 118,
    "minute_increment_ms": 60_000,
    "minute_minimum_ms": 0,
}
NOW = UTC_0 + 3_600_000_000


def row_of(story: Story, **options: Any) -> dict[str, Any]:
    """The row that the story settles to."""
    made = settle(story.facts, story.facts[-1], SettleOptions(**options), NOW).rows.interaction
    assert made is not None
    return made


def begun(**start: Any) -> Story:
    return Story().start(terms=MINUTE, **start).dial(1)


def test_an_answered_call_has_all_its_figures() -> None:
    story = begun().ring(1, 1.2).answer(1, 4.0).bridge(1, 4.1).add(Kind.RECORDING_STARTED, 4.2, file="2026/t-1.wav")
    story.add(Kind.TALK_REACHED_15S, 19.0).hang_up(64.001, Party.CALLER).close()
    assert row_of(story) == {
        "id": "t-1",
        "buyer": "acme",
        "kind": "call",
        "reference": "t-1",
        "checksum": "",
        "agent": "desk-1",
        "customer": "+12125550123",
        "received_utc_us": UTC_0 - 50_000,
        "started_utc_us": UTC_0 + 4_000_000,
        "ended_utc_us": UTC_0 + 64_001_000,
        "handled_ms": 60_001,
        "resolved": True,
        "ring_to_answer_ms": 2_800,
        "longest_hold_ms": 0,
        "text": "",
        "recording": "2026/t-1.wav",
        "increments": 2,
        "amount_minor": 236,
        "currency": "USD",
        "created_utc_us": NOW,
    }


def test_the_winners_own_ringing_counts_and_its_own_name() -> None:
    story = Story().start(terms=MINUTE, legs=2).dial(1, 2).ring(1, 0.5).ring(2, 3.0).answer(2, 10.0)
    row = row_of(story.bridge(2, 10.1).hang_up(40.0, Party.BUYER).close())
    assert (row["agent"], row["ring_to_answer_ms"]) == ("desk-2", 7_000)


def test_what_is_no_ringing_starts_no_clock() -> None:
    story = begun().ring(1, 0.5, 199).ring(1, 3.0, 183).answer(1, 10.0).bridge(1, 10.1).hang_up(40.0, Party.CALLER)
    assert row_of(story.close())["ring_to_answer_ms"] == 7_000


def test_an_answer_without_ringing_is_an_answer_at_once() -> None:
    assert row_of(begun().answer(1, 2.0).bridge(1).hang_up(40.0, Party.CALLER).close())["ring_to_answer_ms"] == 0


def test_a_call_that_must_be_accepted_is_answered_by_its_bridge() -> None:
    story = begun().ring(1, 1.0).answer(1, 4.0, must_accept=True).add(Kind.ACCEPTED, 8.0, 1).bridge(1, 8.5)
    row = row_of(story.hang_up(28.5, Party.CALLER).close())
    assert (row["started_utc_us"], row["ring_to_answer_ms"], row["handled_ms"]) == (UTC_0 + 8_500_000, 7_500, 20_000)


def test_a_winner_that_left_in_the_commit_window_did_not_answer() -> None:
    story = Story().start(terms=MINUTE, legs=2).dial(1, 2).ring(1, 1.0).ring(2, 1.0).answer(1, 2.0).bridge(1, 2.1)
    story.add(Kind.RESUMED, 2.5, 1).answer(2, 9.0).bridge(2, 9.1)
    row = row_of(story.hang_up(30.0, Party.CALLER).close())
    assert (row["agent"], row["ring_to_answer_ms"], row["started_utc_us"]) == ("desk-2", 8_000, UTC_0 + 9_000_000)


def test_a_call_that_nobody_answered_is_one_too_and_free() -> None:
    row = row_of(begun().ring(1, 1.0).decline(1, 20.0).end(20.0, Party.ROUTER, EndCause.LEGS_FAILED).close())
    assert (row["started_utc_us"], row["agent"], row["resolved"]) == (None, "", False)
    assert (row["ring_to_answer_ms"], row["ended_utc_us"]) == (None, UTC_0 + 20_000_000)
    assert (row["increments"], row["amount_minor"]) == (0, 0)


def test_how_long_it_rang_until_the_caller_left_is_kept() -> None:
    row = row_of(begun().ring(1, 1.0).end(12.5, Party.CALLER, EndCause.CANCEL).close())
    assert (row["started_utc_us"], row["ring_to_answer_ms"]) == (None, 11_500)
    assert row_of(begun().end(3.0, Party.CALLER, EndCause.CANCEL).close())["ring_to_answer_ms"] == 0, "never rang"


def test_an_interrupted_call_lasts_to_its_last_durable_fact() -> None:
    story = begun().ring(1, 1.0).answer(1, 4.0).bridge(1, 4.1).add(Kind.TALK_REACHED_15S, 19.0)
    story.add(Kind.TALK_MINUTE, 64.0, minutes=1).add(Kind.TALK_MINUTE, 124.0, minutes=2)
    story.add(Kind.INTERRUPTED, 124.0, last_seq=7)
    row = row_of(story.close())
    assert (row["handled_ms"], row["increments"], row["amount_minor"]) == (120_000, 2, 236)
    assert row["ended_utc_us"] == UTC_0 + 124_000_000


def test_the_longest_hold_of_the_agent_counts_and_the_callers_does_not() -> None:
    story = begun().ring(1, 1.0).answer(1, 2.0).bridge(1, 2.1)
    story.add(Kind.HELD, 20.0, 1).add(Kind.RETRIEVED, 22.5, 1, held_ms=12_500)
    story.add(Kind.HELD, 30.0, 0).add(Kind.RETRIEVED, 60.0, 0, held_ms=40_000)
    assert row_of(story.hang_up(80.0, Party.CALLER).close())["longest_hold_ms"] == 12_500


def test_a_hold_that_is_on_lasts_to_the_end() -> None:
    story = begun().ring(1, 1.0).answer(1, 2.0).bridge(1, 2.1).add(Kind.HELD, 20.0, 1)
    assert row_of(story.hang_up(27.0, Party.CALLER).close())["longest_hold_ms"] == 17_000


@pytest.mark.parametrize(
    "start",
    [
        {"endpoints": "none", "phone": 7, "lead": [1], "campaign": {}},
        {"endpoints": [{"leg": "1"}, 5, {"leg": 1, "name": 9}], "phone": None, "lead": {"email": 3}},
    ],
)
def test_no_payload_stops_it(start: dict[str, Any]) -> None:
    story = Story().start(**{"terms": MINUTE | {"currency": 5, "minute_price_minor": "x"}, **start}).dial(1)
    story.add(Kind.RINGING, 1.0, 1, code="x").answer(1, 2.0).add(Kind.HELD, 13.0, 1)
    story.add(Kind.RETRIEVED, 14.0, 1, held_ms="long").add(Kind.RECORDING_STARTED, 14.0, file=["x"])
    row = row_of(story.end(20.0, Party.CALLER, EndCause.BYE).close(), ask_rating=True)
    assert (row["agent"], row["recording"], row["longest_hold_ms"], row["currency"]) == ("", "", 0, "")


def test_buyers_by_the_unit_have_no_interactions_nor_calls_that_nothing_rang_for() -> None:
    story = connected_story()
    assert settle(story.facts, story.facts[-1], SettleOptions(), NOW).rows.interaction is None
    refused = Story().start(terms=MINUTE).add(Kind.REFUSED, 0.0, reason="no_capacity").close()
    assert settle(refused.facts, refused.facts[-1], SettleOptions(), NOW).rows.interaction is None


def test_the_caller_is_asked_where_the_lead_has_an_address_and_somebody_answered() -> None:
    answered, unanswered = (connected_story(terms=MINUTE), begun().end(3.0, Party.CALLER, EndCause.CANCEL).close())
    ask = settle(answered.facts, answered.facts[-1], SettleOptions(ask_rating=True), NOW).rows.ask
    assert ask is not None
    assert (ask["key"], ask["message_id"]) == ("rating:t-1", "t-1.rating")
    assert b"jo@example.org" in ask["payload"]
    for story, options in ((answered, SettleOptions()), (unanswered, SettleOptions(ask_rating=True))):
        assert settle(story.facts, story.facts[-1], options, NOW).rows.ask is None
    mute = connected_story(terms=MINUTE, lead={"email": "no address\r\nBcc: x@y.example"})
    assert settle(mute.facts, mute.facts[-1], SettleOptions(ask_rating=True), NOW).rows.ask is None


# --- reports ---------------------------------------------------------------------------------------------------------

SAID = {
    "buyer": "acme",
    "kind": "email",
    "reference": "m-1",
    "received_at": "2026-06-02T10:00:00-04:00",
    "started_at": "2026-06-02T10:30:00-04:00",
    "ended_at": "2026-06-02T10:32:00.001-04:00",
    "resolved": True,
    "text": "Dear Jo",
    "customer": "jo@example.org",
    "agent": "ann",
}


def test_a_report_is_read_whole() -> None:
    made = read_report(SAID, NOW)
    assert (made.kind, made.reference, made.received_us) == (Channel.EMAIL, "m-1", UTC_0)
    assert made.ended_us - made.started_us == 120_001_000
    assert made.id == read_report({**SAID, "text": "other"}, NOW).id
    assert made.checksum != read_report({**SAID, "text": "other"}, NOW).checksum
    assert made.id != read_report({**SAID, "kind": "chat"}, NOW).id
    least = {name: value for name, value in SAID.items() if name not in ("text", "customer", "agent")}
    assert read_report(least, NOW).text == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("buyer", ""),
        ("buyer", 7),
        ("buyer", None),
        ("kind", "call"),
        ("kind", ["email"]),
        ("reference", "r" * 121),
        ("reference", "  "),
        ("reference", "a\0b"),
        ("received_at", "2026-06-02T10:00:00"),
        ("received_at", "yesterday"),
        ("received_at", 1_780_408_800),
        ("received_at", "0001-01-01T00:00:00+00:00"),
        ("started_at", "2026-06-02T09:59:59-04:00"),
        ("ended_at", "2026-06-02T10:29:59-04:00"),
        ("ended_at", "2026-06-02T15:01:01+00:00"),
        ("resolved", 1),
        ("text", "x" * (MAX_TEXT + 1)),
        ("text", "\ud800"),
        ("customer", "c" * 321),
        ("agent", {}),
        ("price", 3),
    ],
)
def test_a_report_that_cannot_be_names_its_field(field: str, value: object) -> None:
    with pytest.raises(InteractionError) as caught:
        assert read_report({**SAID, field: value}, NOW).ended_us <= NOW + 60_000_000
    assert caught.value.field == field


def test_addresses_are_told_from_other_text() -> None:
    assert mail_address("jo@example.org") == "jo@example.org"
    for text in ("", "+12125550123", "jo", "a@b\nBcc: c@d.example", 5, None, "x" * 400 + "@example.org"):
        assert mail_address(text) == ""


@pytest.mark.parametrize(("ratings", "expected"), [([], None), ([5], 500), ([1, 2, 2], 167), ([4] * 7 + [5], 412)])
def test_averages_are_rounded_half_even(ratings: list[int], expected: int | None) -> None:
    assert average_x100(ratings) == expected, "412.5 is as near to 413, and 412 is even"
    assert (half_even(5, 2), half_even(7, 2), half_even(-5, 2)) == (2, 4, -2)


# --- service levels --------------------------------------------------------------------------------------------------


@dataclass
class Call:
    """What the levels read."""

    ring_to_answer_ms: int | None = 3_000
    started_utc_us: int | None = 5
    longest_hold_ms: int = 0
    kind: Channel = Channel.CALL
    received_utc_us: int = 0
    ended_utc_us: int | None = 10


HOURS_6 = 6 * 3_600_000_000


@pytest.mark.parametrize(
    ("name", "one", "expected"),
    [
        ("answered_before_third_ring", Call(12_000), (1, 1)),
        ("answered_before_third_ring", Call(12_001), (0, 1)),
        ("answered_before_third_ring", Call(None, None), (0, 1)),
        ("answered_before_third_ring", Call(11_999, None), (0, 0)),
        ("answered_before_third_ring", Call(12_000, None), (0, 1)),
        ("answered_before_third_ring", Call(kind=Channel.EMAIL), (0, 0)),
        ("no_hold_above_10_s", Call(longest_hold_ms=10_000), (1, 1)),
        ("no_hold_above_10_s", Call(longest_hold_ms=10_001), (0, 1)),
        ("no_hold_above_10_s", Call(None, None), (0, 0)),
        ("email_within_6_h", Call(kind=Channel.EMAIL, ended_utc_us=HOURS_6), (1, 1)),
        ("email_within_6_h", Call(kind=Channel.EMAIL, ended_utc_us=HOURS_6 + 1), (0, 1)),
        ("email_within_6_h", Call(kind=Channel.EMAIL, ended_utc_us=None), (0, 1)),
        ("email_within_6_h", Call(kind=Channel.CHAT), (0, 0)),
    ],
)
def test_a_level_is_met_up_to_its_bound(name: str, one: Call, expected: tuple[int, int]) -> None:
    [found] = [level for level in levels_of([one]) if level.name == name]
    assert (found.met, found.of) == expected


def test_a_level_of_nothing_has_no_percentage() -> None:
    assert [level.percent_x10 for level in levels_of([])] == [None] * 3
    assert Level("x", 2, 3).percent_x10 == 667


def test_what_is_reported_is_not_shown_by_chance() -> None:
    assert "secret words" not in repr(Reported("acme", Channel.CHAT, "r", 1, 2, 3, True, "secret words"))
