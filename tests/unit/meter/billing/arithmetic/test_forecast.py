"""Forecasts: the distribution is what it says, the cases follow from it, and nothing is foreseen before Wednesday."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date

import pytest

from book.model import Order, Terms
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import Prepaid, Remedy, WeekOrder, WeekResult, week_result
from meter.billing.arithmetic.forecast import Forecast, Progress, foresee, is_foreseeable
from meter.billing.arithmetic.units import CarriedUnits, bill_week

TERMS = Terms("t", unit_price_minor=4_500, order_counts="billed")
SENT = replace(TERMS, order_counts="sent")
WEEK = Week(date(2026, 6, 8), TERMS.time_zone)
ORDER = Order("acme", "2026-06-08", 200)
WEEK_US = 7 * 24 * 3600 * 1_000_000
HALF = Progress(counted=100, passed_us=WEEK_US // 2, open_us=WEEK_US)


def ahead(progress: Progress, order: Order | None, terms: Terms = TERMS) -> Forecast:
    """Foreseen with all so far connected, and billed whole where the order counts what is billed."""
    percent = 93 if terms.order_counts == "sent" else 100
    bought = None
    if order is not None:
        bought = WeekOrder(order, order.quantity * percent // 100, Prepaid(), paid=True)

    def settle(more: int) -> WeekResult:
        units, _ = bill_week(CarriedUnits(), {percent: progress.counted + more}, {})
        return week_result(WEEK, terms, bought, units)

    return foresee(progress, order.quantity if order else 0, settle)


def test_an_order_that_counts_as_sent_is_foreseen_in_transfers_and_priced_in_units() -> None:
    found = ahead(Progress(192, WEEK_US, WEEK_US), ORDER, SENT).expected
    assert (found.units, found.shortfall_counted, found.shortfall_units, found.shortfall_minor) == (192, 8, 8, 36_000)
    found = ahead(Progress(207, WEEK_US, WEEK_US), ORDER, SENT).expected
    assert (found.overage_counted, found.overage_units, found.overage_minor) == (7, 6, 27_000)


def test_a_steady_half_week_foresees_as_much_again() -> None:
    found = ahead(HALF, ORDER)
    assert found.expected.units in (200, 201)
    assert found.low.units < 200 < found.high.units


def test_four_weeks_of_five_fall_in_the_range() -> None:
    """Weeks drawn with a known rate: how often is the rest of the week within the range that the first half gave?"""
    dice = random.Random(20_260_608)
    held = 0
    for _ in range(600):
        first, rest = (_poisson(dice, 80) for _ in range(2))
        found = ahead(replace(HALF, counted=first), None)
        held += found.low.units <= first + rest <= found.high.units
    assert 0.76 < held / 600 < 0.88


def _poisson(dice: random.Random, mean: float) -> int:
    count, total = 0, dice.expovariate(1.0)
    while total < mean:
        count += 1
        total += dice.expovariate(1.0)
    return count


def test_the_end_of_the_week_has_no_range_left() -> None:
    found = ahead(Progress(192, WEEK_US, WEEK_US), ORDER)
    assert found.low == found.expected == found.high
    assert (found.expected.shortfall_units, found.expected.shortfall_minor) == (8, 36_000)
    assert found.remedies == {Remedy.REFUND: (0, 36_000), Remedy.CREDIT: (0, 36_000), Remedy.MAKE_UP: (8, 0)}


def test_what_is_expected_over_has_its_price_and_the_routers_limit() -> None:
    found = ahead(replace(HALF, counted=150), ORDER)
    assert found.expected.overage_minor == found.expected.overage_units * 4_500 > 0
    limited = ahead(replace(HALF, counted=150, most=220), ORDER)
    assert limited.high.units == limited.expected.units == 220
    assert ahead(replace(HALF, counted=230, most=220), ORDER).low.units == 230  # what is there is there


def test_the_weeks_before_steady_a_slow_start_and_give_way_later() -> None:
    early = Progress(counted=2, passed_us=WEEK_US // 28, open_us=WEEK_US, earlier=(210, 190))
    alone = ahead(replace(early, earlier=()), ORDER).expected.units
    steadied = ahead(early, ORDER).expected.units
    assert alone < 80 < steadied < 200
    late = Progress(counted=40, passed_us=WEEK_US * 6 // 7, open_us=WEEK_US, earlier=(210, 190))
    assert ahead(late, ORDER).expected.units < 55


def test_nothing_yet_is_no_certainty_of_nothing() -> None:
    found = ahead(replace(HALF, counted=0), ORDER)
    assert found.low.units == 0
    assert found.high.units >= 1


def test_more_time_than_there_is_is_refused() -> None:
    with pytest.raises(ValueError, match="have passed"):
        ahead(Progress(0, 2, 1), ORDER)


def test_a_week_is_foreseen_from_wednesday_on() -> None:
    week = Week(date(2026, 6, 8), "America/New_York")
    wednesday = week.start_us + 2 * 24 * 3600 * 1_000_000
    assert [is_foreseeable(week, at) for at in (wednesday - 1, wednesday, week.end_us - 1, week.end_us)] == [
        False,
        True,
        True,
        False,
    ]
