"""Replay's arithmetic: what a transfer comes to under other terms, and what a week comes to with its units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from book.model import Order, Rating, Terms
from book.terms import presets
from facts.fact import EndCause, Kind, Party
from facts.outcome import CountsAs, Reason, Verdict
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import Prepaid, WeekOrder
from meter.billing.arithmetic.units import CarriedUnits, RunningUnits
from meter.ledger.accounts import INCREMENT, UNIT
from meter.settling.replay import Charge, ReplayReport, Unit, WeekReplayed, charge_of, decide_under
from tests.facts_builder import WESTLAKE, Story, connected_story, endpoint, failed_story
from tests.store.money_tools import unit_posting

TERMS = replace(presets()["westlake-fulfillment"], unit_price_minor=4_500, order_counts="billed")
SENT_TERMS = replace(TERMS, order_counts="sent")
MINUTES = replace(TERMS, rating=Rating.MINUTE, minute_price_minor=118, minute_increment_ms=60_000)
WEEK = Week(date(2026, 6, 8), TERMS.time_zone)
CONNECTED, FAILED = Unit(UNIT, "connected", 1, 93), Unit(UNIT, "failed", 1, 100)

# --- one transfer ----------------------------------------------------------------------------------------------------


def declined_at(seconds: float, **start: Any) -> Story:
    return Story().start(**start).dial(1).ring(1, 1).decline(1, seconds).end(
        seconds, Party.BUYER, EndCause.LEGS_FAILED
    ).close()  # fmt: skip


def mixed() -> Story:
    """A secure trunk and one that is none."""
    return declined_at(5, endpoints=[endpoint(1), endpoint(2, secure=False)], buffer_ms=0)


def talked(seconds: float, **start: Any) -> Story:
    return Story().start(**start).dial(1).answer(1, 4).bridge(1, 4).hang_up(4 + seconds, Party.CALLER).close()


def interrupted(reached_s: int = 15, **start: Any) -> Story:
    """The router died amid the talk, when is not known to 2 s: only the fact proves that it lasted long enough."""
    story = Story().start(**start).dial(1).answer(1, 4).bridge(1, 4).add(Kind.TALK_REACHED_15S, 4.0 + reached_s, 1)
    return story.add(Kind.INTERRUPTED, 4.5 + reached_s, lag_ms=2_000).close()


def abandoned() -> Story:
    """The caller gave up while two plain numbers rang."""
    story = Story().start(kind="did").dial(1).ring(1, 1)
    return story.end(20, Party.CALLER, EndCause.CANCEL).cancelled(1, 20).close()


Case = tuple[str, Callable[[], Story], dict[str, Any], Verdict, Unit | None]
DECIDED: list[Case] = [
    ("the same terms, the same unit", connected_story, {}, Verdict.CONNECTED, CONNECTED),
    ("a failed one is at the failed percentage", failed_story, {"failed_percent": 90}, Verdict.FAILED,
     Unit(UNIT, "failed", 1, 90)),
    ("a connected one at the connected", connected_story, {"connected_percent": 88, "failed_percent": 90},
     Verdict.CONNECTED, Unit(UNIT, "connected", 1, 88)),
    ("40 s of talk, and 40 s are asked for", lambda: talked(40), {"talk_connected_ms": 40_000}, Verdict.CONNECTED,
     CONNECTED),
    ("40 s of talk, and a millisecond more is asked for", lambda: talked(40), {"talk_connected_ms": 40_001},
     Verdict.SHORT_CALL, None),
    ("10 s of talk, and 8 s are asked for", lambda: talked(10), {"talk_connected_ms": 8_000}, Verdict.CONNECTED,
     CONNECTED),
    ("talk that reached 15 s, and 15 s are asked for", interrupted, {}, Verdict.CONNECTED, CONNECTED),
    ("talk that reached 15 s is no proof of 20 s", interrupted, {"talk_connected_ms": 20_000}, Verdict.FAULT, None),
    ("talk that reached a minute, as its own terms asked, and a minute is asked for",
     lambda: interrupted(60, terms={**WESTLAKE, "talk_connected_ms": 60_000}), {"talk_connected_ms": 60_000},
     Verdict.CONNECTED, CONNECTED),
    ("declined at 5 s, within the buffer of a secure trunk", lambda: declined_at(5), {}, Verdict.WITHIN_BUFFER, None),
    ("the same without a buffer", lambda: declined_at(5), {"secure_buffer_ms": 0}, Verdict.FAILED, FAILED),
    ("declined at 5 s, and the buffer ends there", lambda: declined_at(5), {"secure_buffer_ms": 5_000}, Verdict.FAILED,
     FAILED),
    ("one endpoint is no secure trunk: no terms give it a buffer", mixed, {"secure_buffer_ms": 60_000}, Verdict.FAILED,
     FAILED),
    ("the buffer that was frozen is not the one asked for", lambda: declined_at(20, buffer_ms=30_000), {},
     Verdict.FAILED, FAILED),
    ("the caller gave up", abandoned, {}, Verdict.CALLER_ABANDONED, None),
    ("the caller gave up, and the terms let that count", abandoned, {"caller_abandon": "failed"},
     Verdict.CALLER_ABANDONED, FAILED),
]  # fmt: skip


@pytest.mark.parametrize(("what", "story", "clauses", "verdict", "unit"), DECIDED, ids=[row[0] for row in DECIDED])
def test_what_a_transfer_comes_to_under_terms(
    what: str, story: Callable[[], Story], clauses: dict[str, Any], verdict: Verdict, unit: Unit | None
) -> None:
    outcome, posted = decide_under(story().facts, replace(TERMS, **clauses))
    assert (outcome.verdict, posted) == (verdict, unit), what


def test_the_terms_under_which_it_was_made_do_not_decide() -> None:
    """Made under terms that counted an abandoned call, and asked under some that do not; and the other way round."""
    frozen = {**WESTLAKE, "talk_connected_ms": 60_000}
    outcome, unit = decide_under(talked(40, terms=frozen).facts, TERMS)
    assert (outcome.verdict, unit) == (Verdict.CONNECTED, CONNECTED)
    outcome, unit = decide_under(talked(40).facts, replace(TERMS, talk_connected_ms=60_000))
    assert (outcome.reason, unit) == (Reason.CALLER_ENDED, None)


def test_what_was_written_after_the_closing_fact_decides_nothing() -> None:
    late = failed_story().add(Kind.ANSWERED_LATE, 31.0, 2, code=200).add(Kind.TALK_REACHED_15S, 60.0, 2)
    assert decide_under(late.facts, TERMS) == decide_under(failed_story().facts, TERMS)


@pytest.mark.parametrize(
    ("what", "story", "clauses", "increments"),
    [
        ("a minute, exactly", lambda: talked(60), {}, 1),
        ("a minute and a millisecond", lambda: talked(60.001), {}, 2),
        ("by increments of 6 s", lambda: talked(13), {"minute_increment_ms": 6_000}, 3),
        ("at least the minimum", lambda: talked(1), {"minute_increment_ms": 6_000, "minute_minimum_ms": 30_000}, 5),
        ("a short call has talk, whatever its verdict", lambda: talked(3), {}, 1),
        ("nobody talked: no unit, though it counts as failed", failed_story, {}, 0),
    ],
)
def test_by_the_minute_the_talk_is_the_unit_and_no_percentage(
    what: str, story: Callable[[], Story], clauses: dict[str, Any], increments: int
) -> None:
    outcome, unit = decide_under(story().facts, replace(MINUTES, **clauses))
    assert unit == (Unit(INCREMENT, "call", increments, None, 118) if increments else None), what
    assert (outcome.talk_ms > 0) is bool(increments)


def test_a_posting_of_the_ledger_is_the_unit_that_it_posts() -> None:
    posting = unit_posting("t-1", "acme", "connected", 93, 0)
    assert Unit.of(posting) == CONNECTED
    assert Unit.of(replace(posting, units=-1)) == replace(CONNECTED, units=-1)
    assert Unit.of(replace(posting, unit=None)).kind == ""


# --- a week ----------------------------------------------------------------------------------------------------------


def charged(
    units: list[Unit],
    *,
    terms: Terms = TERMS,
    quantity: int = 0,
    paid_units: int = 0,
    hundredths: int = 0,
    kept: Prepaid | None = None,
    as_sent: bool = False,
) -> tuple[Charge, CarriedUnits, Prepaid]:
    order = WeekOrder(Order("acme", str(WEEK), quantity), paid_units or quantity, Prepaid(), paid=True)
    return charge_of(
        WEEK,
        units,
        CarriedUnits(connected=RunningUnits(hundredths, hundredths // 100)),
        terms=terms,
        bought=order if quantity else None,
        kept=kept or Prepaid(),
        as_sent=as_sent,
    )


def test_a_week_is_billed_by_percentage_and_carries_its_fraction_on() -> None:
    """207 connected at 93 % are 192.51, with 15 failed 207: 7 more than the 200 that were bought."""
    charge, after, kept = charged([CONNECTED] * 207 + [FAILED] * 15, quantity=200)
    assert charge == Charge(207, 15, 207, earned_minor=900_000, overage_minor=31_500)
    assert charge.total_minor == 931_500
    assert (after.connected.fraction, after.failed.fraction, kept) == (51, 0, Prepaid())
    again, then, _ = charged([CONNECTED] * 7, quantity=200, hundredths=51)
    assert (again.connected, again.billed) == (7, 7)  # 6.51 and the 0.51 of before
    assert then.connected.fraction == 2


def test_percentages_of_one_kind_run_into_one_sum() -> None:
    """Two at 50 % and one at 100 % are two; each by itself would be one and one."""
    half = replace(CONNECTED, percent=50)
    charge, after, _ = charged([half, replace(CONNECTED, percent=100), half])
    assert (charge.connected, charge.billed, after.connected.hundredths) == (3, 2, 200)
    charge, after, _ = charged([half, half, half])
    assert (charge.billed, after.connected.fraction) == (1, 50)


def test_a_unit_that_is_taken_back_is_one_less_and_no_more_than_that() -> None:
    charge, after, _ = charged([CONNECTED] * 3 + [replace(CONNECTED, units=-1)], quantity=2)
    assert (charge.connected, charge.billed, after.connected.hundredths) == (2, 1, 186)
    with pytest.raises(ValueError, match="taken back"):
        charged([replace(CONNECTED, units=-1)])


def test_minutes_cost_their_price_and_are_no_units() -> None:
    """A week with both: it changed from units to minutes."""
    increments = [Unit(INCREMENT, "call", 3, None, 118), Unit(INCREMENT, "email", 2, None, 100)]
    charge, after, _ = charged([*increments, FAILED])
    assert (charge.increments, charge.minutes_minor) == (5, 3 * 118 + 2 * 100)
    assert (charge.connected, charge.failed, charge.billed) == (0, 1, 1)
    assert charge.total_minor == charge.overage_minor + charge.minutes_minor == 4_500 + 554
    assert after.connected == RunningUnits()


def test_a_unit_without_a_percentage_or_a_price_costs_nothing() -> None:
    charge, _, _ = charged([replace(CONNECTED, percent=None), Unit(INCREMENT, "chat", 2, None, None)])
    assert charge == Charge(increments=2)


def test_units_kept_of_weeks_before_are_used_before_anything_is_charged() -> None:
    kept = Prepaid(2, 9_000)
    charge, _, left = charged([FAILED] * 13, quantity=10, kept=kept)
    assert (charge.overage_minor, left) == (4_500, Prepaid())
    charge, _, left = charged([FAILED] * 11, quantity=10, kept=kept)
    assert (charge.overage_minor, left) == (0, Prepaid(1, 4_500))


def test_a_week_of_before_decision_076_was_charged_for_what_was_sent() -> None:
    """200 sent of 200 ordered, 186 paid for: as it is reckoned now nothing is over, as then 14 were."""
    units = [CONNECTED] * 200
    now, carried, _ = charged(units, terms=SENT_TERMS, quantity=200, paid_units=186)
    then, carried_then, _ = charged(units, terms=SENT_TERMS, quantity=200, paid_units=186, as_sent=True)
    assert (now.overage_minor, then.overage_minor) == (0, 14 * 4_500)
    assert (now.billed, carried) == (then.billed, carried_then)  # the percentage moved the units all the same


# --- the report ------------------------------------------------------------------------------------------------------

WAS, OTHER = Charge(1, 0, 1, 4_500), Charge(1, 0, 1, 4_501)


@pytest.mark.parametrize(
    ("what", "differing", "weeks", "is_same"),
    [
        ("nothing to hold against each other", [], [], True),
        ("as it was", [], [(WAS, WAS)], True),
        ("a cent more", [], [(WAS, OTHER)], False),
        ("not settled yet: there is nothing that it could differ from", [], [(None, OTHER)], True),
        ("each week is right and a transfer is not", ["t-1"], [(WAS, WAS)], False),
        ("one right and one wrong", [], [(WAS, WAS), (OTHER, WAS)], False),
    ],
)
def test_a_replay_is_the_same_to_the_cent_or_it_is_not(
    what: str, differing: list[str], weeks: list[tuple[Charge | None, Charge]], is_same: bool
) -> None:
    replayed = [WeekReplayed("acme", f"week {n}", was, now) for n, (was, now) in enumerate(weeks)]
    report = ReplayReport(len(weeks), differing, replayed)
    assert report.is_same is is_same, what
    assert [week.was != week.now and week.was is not None for week in replayed].count(True) == len(report.wrong_weeks)


def test_the_money_is_told_by_buyer_over_its_settled_weeks() -> None:
    weeks = [
        WeekReplayed("acme", "2026-06-01", WAS, OTHER),
        WeekReplayed("bolt", "2026-06-01", Charge(minutes_minor=118), Charge(overage_minor=20)),
        WeekReplayed("acme", "2026-06-08", WAS, WAS),
        WeekReplayed("acme", "2026-06-15", None, OTHER),
    ]
    assert ReplayReport(weeks=weeks).by_buyer() == {"acme": (9_000, 9_001), "bolt": (118, 20)}


def test_a_free_outcome_posts_nothing() -> None:
    outcome, unit = decide_under(declined_at(5).facts, TERMS)
    assert (outcome.counts_as, unit) == (CountsAs.FREE, None)
