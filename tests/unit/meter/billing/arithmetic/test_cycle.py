"""Overage, shortfall and remedies of a week: the worked examples (domain, section 6), make-up, unpaid, overrun."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from book.model import Order, Terms
from book.terms import presets
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import (
    Line,
    Prepaid,
    Remedy,
    WeekOrder,
    WeekResult,
    make_up_units,
    remedy,
    week_result,
)
from meter.billing.arithmetic.units import CarriedUnits, OrderedUnits, WeekUnits, bill_week, paid_in_advance

SENT = replace(presets()["westlake-fulfillment"], unit_price_minor=4_500)
TERMS = replace(SENT, order_counts="billed")
WEEK = Week(date(2026, 6, 8), TERMS.time_zone)
ORDER = Order("acme", "2026-06-08", 200)
NOTHING = Line()
NOTHING_KEPT = Prepaid()


def units(billed: int) -> WeekUnits:
    return WeekUnits(billed, 0, billed, 0)


def settled(
    billed: int, *, quantity: int = 200, make_up: int = 0, worth: int = 0, paid: bool = True, percent: int = 10
) -> WeekResult:
    order = replace(ORDER, quantity=quantity, make_up=make_up)
    terms = replace(TERMS, overrun_percent=percent)
    return settle(terms, order, units(billed), paid=paid, worth=worth)


def settle(
    terms: Terms,
    order: Order | None,
    week: WeekUnits,
    *,
    paid: bool = True,
    worth: int = 0,
    kept: Prepaid = NOTHING_KEPT,
) -> WeekResult:
    """Held against the first order that a buyer ever had."""
    bought = None
    if order is not None:
        units_paid = paid_in_advance(terms.order_counts, order.quantity, terms.connected_percent, OrderedUnits())
        bought = WeekOrder(order, units_paid, Prepaid(make_up_units(order, terms), worth), paid)
    return week_result(WEEK, terms, bought, week, kept)


# "price 4,500 cents, order 200, 93 %, `billed`. Week: 207 connected (fraction carried in: 0) ..."


def example(failed: int, counts: str = "billed") -> WeekResult:
    week, _ = bill_week(CarriedUnits(), {93: 207}, {100: failed})
    assert week.billed_connected == 192
    terms = SENT if counts == "sent" else TERMS
    return settle(terms, ORDER, week)


def test_with_8_failed_200_are_billed_no_overage_no_shortfall() -> None:
    result = example(failed=8)
    assert (result.counted, result.overage, result.shortfall) == (200, NOTHING, NOTHING)


def test_with_15_failed_207_are_billed_7_over_31500_cents() -> None:
    result = example(failed=15)
    assert (result.counted, result.overage, result.shortfall) == (207, Line(7, 31_500, 7), NOTHING)


def test_with_0_failed_192_are_billed_8_short_credit_of_36000_or_a_check_or_8_on_top() -> None:
    result = example(failed=0)
    assert (result.counted, result.overage, result.shortfall) == (192, NOTHING, Line(8, 36_000, 8))
    credit, refund, make_up = (result.remedies[one] for one in (Remedy.CREDIT, Remedy.REFUND, Remedy.MAKE_UP))
    assert (credit.units, credit.amount_minor, credit.due_on) == (8, 36_000, date(2026, 6, 16))
    assert (refund.units, refund.amount_minor, refund.due_on) == (8, 36_000, date(2026, 6, 17))
    assert (make_up.units, make_up.due_on) == (8, date(2026, 6, 16))
    assert {one.order_week.monday for one in (credit, make_up)} == {date(2026, 6, 22)}


# "Worked example, `sent`: price 4,500 cents, order 200, 93 %: Tuesday's invoice 200 live transfers, 186 units, ..."


def test_207_sent_of_200_are_seven_live_transfers_over_six_units_27000_cents_051_carried() -> None:
    result = example(failed=0, counts="sent")
    assert (result.counts, result.counted, result.paid_units) == ("sent", 207, 186)
    assert (result.overage, result.shortfall, result.kept) == (Line(6, 27_000, 7), NOTHING, Prepaid())
    _, carried = bill_week(CarriedUnits(), {93: 207}, {})
    assert carried.connected.fraction == 51


def test_192_sent_of_200_are_eight_short_worth_eight_units_36000_cents_or_eight_on_top() -> None:
    week, _ = bill_week(CarriedUnits(), {93: 192}, {})
    result = settle(SENT, ORDER, week)
    assert (week.billed, result.overage, result.shortfall) == (178, NOTHING, Line(8, 36_000, 8))
    made_up = result.remedies[Remedy.MAKE_UP]
    assert (made_up.counted, made_up.units, made_up.amount_minor) == (8, 8, 36_000)


def test_180_connected_and_20_failed_are_on_target_and_owe_one_unit_in_full() -> None:
    week, carried = bill_week(CarriedUnits(), {93: 180}, {100: 20})
    result = settle(SENT, ORDER, week)
    assert (week.billed, carried.connected.fraction) == (187, 40)
    assert (result.overage, result.shortfall, result.earned_minor(4_500)) == (Line(1, 4_500, 0), NOTHING, 837_000)


def test_what_is_paid_for_and_not_needed_is_kept_and_used_before_anything_is_charged() -> None:
    cheap, _ = bill_week(CarriedUnits(), {88: 200}, {})  # the percentage fell in mid-week
    result = settle(SENT, ORDER, cheap)
    assert (result.shortfall, result.overage, result.kept) == (NOTHING, NOTHING, Prepaid(10, 45_000))
    assert result.earned_minor(4_500) == 176 * 4_500
    dear = replace(SENT, unit_price_minor=5_000)
    after = settle(dear, ORDER, WeekUnits(210, 0, 195, 0), kept=result.kept)  # nine more than were paid for
    assert (after.overage, after.prepaid_used, after.kept) == (Line(0, 0, 10), 9, Prepaid(1, 4_500))
    assert after.earned_minor(5_000) == 186 * 5_000 + 40_500


def test_a_shortfall_that_is_worth_nothing_is_named_all_the_same() -> None:
    week, _ = bill_week(CarriedUnits(), {93: 95}, {100: 100})  # 88 + 100 units: more than were paid for
    result = settle(SENT, ORDER, week)
    assert (result.overage, result.shortfall) == (Line(2, 9_000, 0), Line(0, 0, 5))
    assert result.remedies[Remedy.MAKE_UP].counted == 5


def test_a_present_is_free_whatever_the_order_counts() -> None:
    for terms in (SENT, TERMS):
        order = replace(ORDER, make_up=8)
        week, _ = bill_week(CarriedUnits(), {93: 208}, {})
        assert settle(terms, order, week).overage.units == 0


def test_a_make_up_goes_from_one_way_of_counting_to_the_other() -> None:
    order = replace(ORDER, make_up=8, make_up_owed=8, make_up_units=7)
    assert settle(SENT, order, WeekUnits(208, 0, 193, 0), worth=31_500).shortfall == NOTHING
    assert settle(TERMS, order, WeekUnits(222, 0, 207, 0), worth=31_500).shortfall == NOTHING
    assert settle(TERMS, order, WeekUnits(222, 0, 207, 0), worth=31_500).make_up == 7


def test_not_chosen_is_credit() -> None:
    short = Line(8, 36_000, 8)
    assert remedy(None, short, WEEK) == remedy(Remedy.CREDIT, short, WEEK)


def test_a_shortfall_settled_late_takes_the_dates_of_its_tuesday() -> None:
    late = remedy(Remedy.REFUND, Line(8, 36_000, 8), WEEK.later(2))
    assert (late.due_on, late.order_week.monday) == (date(2026, 7, 1), date(2026, 7, 6))


def test_nothing_short_is_nothing_to_remedy() -> None:
    assert {(one.units, one.amount_minor) for one in settled(200).remedies.values()} == {(0, 0)}


def test_a_unit_more_or_less_than_the_order() -> None:
    assert (settled(201).overage, settled(201).shortfall) == (Line(1, 4_500, 1), NOTHING)
    assert (settled(199).overage, settled(199).shortfall) == (NOTHING, Line(1, 4_500, 1))


def test_without_an_order_every_unit_is_over() -> None:
    result = settle(TERMS, None, units(3))
    assert (result.overage, result.shortfall, result.awaiting) == (Line(3, 13_500, 3), NOTHING, NOTHING)
    assert settle(TERMS, None, units(0)).overage == NOTHING


def test_the_price_is_the_one_of_the_order() -> None:
    dear = replace(TERMS, unit_price_minor=5_001)
    assert settle(dear, ORDER, units(203)).overage == Line(3, 15_003, 3)
    assert settle(dear, ORDER, units(197)).shortfall == Line(3, 15_003, 3)


# make-up


@pytest.mark.parametrize(
    ("billed", "over", "short"),
    [
        (208, NOTHING, NOTHING),
        (209, Line(1, 4_500, 1), NOTHING),
        (207, NOTHING, Line(1, 4_500, 1)),  # the eighth is still owed
        (200, NOTHING, Line(8, 36_000, 8)),
        (199, NOTHING, Line(9, 40_500, 9)),
    ],
)
def test_make_up_comes_on_top_and_is_owed_until_it_is_delivered(billed: int, over: Line, short: Line) -> None:
    result = settled(billed, make_up=8, worth=36_000)
    assert (result.overage, result.shortfall) == (over, short)


def test_a_make_up_not_delivered_is_worth_what_was_paid_for_it() -> None:
    # 8 units paid for at 4,000; the order at 4,500: two of the order and all on top are short
    assert settled(198, make_up=8, worth=32_000).shortfall == Line(10, 2 * 4_500 + 32_000, 10)
    assert settled(202, make_up=8, worth=32_000).shortfall == Line(6, 24_000, 6)


def test_a_part_of_a_make_up_is_rounded_half_even() -> None:
    assert settled(201, make_up=2, worth=101).shortfall == Line(1, 50, 1)
    assert settled(201, make_up=2, worth=103).shortfall == Line(1, 52, 1)


def test_a_make_up_given_as_a_present_can_be_made_up_for_but_not_paid_out() -> None:
    assert settled(200, make_up=5, worth=0).shortfall == Line(5, 0, 5)


def test_a_make_up_week_without_an_order_of_its_own() -> None:
    assert settled(5, quantity=0, make_up=8, worth=36_000).shortfall == Line(3, 13_500, 3)


# unpaid orders and holds


def test_what_an_unpaid_order_is_short_of_awaits_its_payment() -> None:
    result = settled(0, paid=False)
    assert (result.shortfall, result.awaiting, result.overage) == (NOTHING, Line(200, 900_000, 200), NOTHING)
    result = settled(150, paid=False)
    assert (result.shortfall, result.awaiting) == (NOTHING, Line(50, 225_000, 50))


def test_once_it_is_paid_that_is_its_shortfall() -> None:
    for billed in (0, 150, 200, 207):
        assert settled(billed, paid=True).shortfall == settled(billed, paid=False).awaiting


def test_a_shortfall_that_a_hold_caused_is_still_settled() -> None:
    # this week's order is paid; the hold came of another invoice
    assert settled(60).shortfall == Line(140, 630_000, 140)
    # this week's order is not paid, but what is on top of it was
    result = settled(0, make_up=8, worth=36_000, paid=False)
    assert (result.shortfall, result.awaiting) == (Line(8, 36_000, 8), Line(200, 900_000, 200))


def test_units_of_an_unpaid_order_are_on_its_own_invoice_and_no_overage() -> None:
    assert settled(200, paid=False).overage == NOTHING
    assert settled(203, paid=False).overage == Line(3, 13_500, 3)
    assert settled(203, make_up=8, worth=36_000, paid=False).shortfall == Line(5, 22_500, 5)


def test_more_taken_back_than_sent_is_owed_as_well() -> None:
    assert settled(-2).shortfall == Line(202, 909_000, 202)
    assert settled(-2, quantity=0).shortfall == Line(2, 9_000, 2)
    result = settled(-2, paid=False)  # those two were paid for in their week
    assert (result.shortfall, result.awaiting) == (Line(2, 9_000, 2), Line(200, 900_000, 200))


# overrun


@pytest.mark.parametrize(
    ("order", "percent", "billed", "over", "beyond"),
    [
        ((200, 0), 10, 220, 20, 0),
        ((200, 0), 10, 221, 21, 1),
        ((205, 0), 10, 226, 21, 1),  # 20.5 rounded down
        ((200, 8), 10, 228, 20, 0),  # the limit is of what was bought, and make-up comes before it
        ((200, 0), 0, 201, 1, 1),
    ],
)
def test_units_past_the_overrun_limit_are_invoiced_and_told(
    order: tuple[int, int], percent: int, billed: int, over: int, beyond: int
) -> None:
    result = settled(billed, quantity=order[0], make_up=order[1], percent=percent)
    assert (result.overage.units, result.beyond_units) == (over, beyond)


# what is refused


def test_an_order_of_another_week_is_refused() -> None:
    with pytest.raises(ValueError, match="the order is of the week of 2026-06-01, not of 2026-06-08"):
        settle(TERMS, replace(ORDER, week="2026-06-01"), units(0))


@pytest.mark.parametrize(("quantity", "make_up", "worth"), [(-1, 0, 0), (1, -1, 0), (1, 1, -1)])
def test_a_negative_figure_is_refused(quantity: int, make_up: int, worth: int) -> None:
    with pytest.raises(ValueError, match="none may be negative"):
        settled(0, quantity=quantity, make_up=make_up, worth=worth)


def test_money_for_no_make_up_is_refused() -> None:
    with pytest.raises(ValueError, match="4500 was paid for make-up, but the order has none"):
        settled(200, worth=4_500)


def test_an_unknown_way_of_counting_is_refused() -> None:
    with pytest.raises(ValueError, match="not 'heard'"):
        settle(replace(TERMS, order_counts="heard"), ORDER, units(0))
