"""Percentage without drift, reversals and late outcomes, and what units cost."""

from __future__ import annotations

import pytest

from meter.billing.arithmetic.units import (
    CarriedUnits,
    RunningUnits,
    WeekUnits,
    bill,
    bill_week,
    credit_minor,
    half_even,
    line_minor,
)


def test_a_hundred_sent_are_ninety_three_billed() -> None:
    assert bill(RunningUnits(), {93: 100}) == (93, RunningUnits(9300, 93))


def test_the_week_of_the_domain_leaves_a_fraction() -> None:
    billed, carried = bill(RunningUnits(), {93: 207})
    assert billed == 192
    assert carried.fraction == 51  # 192.51


def test_units_one_at_a_time_do_not_drift() -> None:
    carried, bills = RunningUnits(), []
    for _ in range(100):
        billed, carried = bill(carried, {93: 1})
        bills.append(billed)
    assert sum(bills) == 93
    assert bills[0] == 0
    assert set(bills) == {0, 1}


def test_a_week_without_units_bills_nothing_and_keeps_the_fraction() -> None:
    carried = RunningUnits(19_251, 192)
    assert bill(carried, {}) == (0, carried)


def test_terms_that_change_in_mid_week_leave_one_fraction() -> None:
    # 0.93 x 50 = 46.5 and 0.88 x 50 = 44: 90.5, not 46 + 44 with two fractions
    assert bill(RunningUnits(), {93: 50, 88: 50}) == (90, RunningUnits(9050, 90))
    assert bill(RunningUnits(9050, 90), {93: 50}) == (47, RunningUnits(13_700, 137))


def test_failed_units_are_billed_whole_unless_the_terms_say_less() -> None:
    week, carried = bill_week(CarriedUnits(), {93: 207}, {100: 8})
    assert week == WeekUnits(sent_connected=207, sent_failed=8, billed_connected=192, billed_failed=8)
    assert carried == CarriedUnits(RunningUnits(19_251, 192), RunningUnits(800, 8))
    week, carried = bill_week(carried, {}, {50: 3})
    assert (week.sent_failed, week.billed_failed, carried.failed.fraction) == (3, 1, 50)


def test_the_two_kinds_keep_fractions_of_their_own() -> None:
    week, _ = bill_week(CarriedUnits(), {50: 1}, {50: 1})
    assert (week.billed_connected, week.billed_failed) == (0, 0)


def test_a_reversal_takes_back_what_its_unit_brought() -> None:
    before = RunningUnits(19_251, 192)
    billed, after = bill(before, {93: 1})
    assert (billed, after.fraction) == (1, 44)
    assert bill(after, {93: -1}) == (-1, before)


def test_a_reversal_at_a_percentage_that_is_no_longer_in_force() -> None:
    _, carried = bill(RunningUnits(), {93: 100})
    billed, carried = bill(carried, {88: 10, 93: -1})
    assert (billed, carried) == (7, RunningUnits(10_087, 100))


def test_late_outcomes_in_a_piece_of_their_own_add_up_to_the_same() -> None:
    own, carried = bill(RunningUnits(4_270, 42), {93: 12})
    late, after = bill(carried, {93: 3, 88: 1})
    assert (own + late, after) == bill(RunningUnits(4_270, 42), {93: 15, 88: 1})


def test_more_taken_back_than_ever_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="93 hundredths of a unit more were taken back than ever counted"):
        bill(RunningUnits(), {93: -1})


@pytest.mark.parametrize(("hundredths", "billed"), [(9_300, 92), (9_300, 94), (0, 1), (100, 0)])
def test_a_sum_and_a_bill_that_do_not_belong_together_are_refused(hundredths: int, billed: int) -> None:
    with pytest.raises(ValueError, match=f"{billed} units were billed for {hundredths} hundredths"):
        RunningUnits(hundredths, billed)


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_percentage_is_from_0_to_100(percent: int) -> None:
    with pytest.raises(ValueError, match=f"{percent} is no percentage"):
        bill(RunningUnits(), {93: 1, percent: 1})
    with pytest.raises(ValueError, match=f"{percent} is no percentage"):
        credit_minor(4_500, percent)


def test_the_ends_of_that_range_are_percentages() -> None:
    assert bill(RunningUnits(), {0: 5, 100: 5}) == (5, RunningUnits(500, 5))
    assert (credit_minor(4_500, 0), credit_minor(4_500, 100)) == (0, 4_500)


def test_a_line_costs_its_units() -> None:
    assert line_minor(7, 4_500) == 31_500


def test_a_credit_is_the_price_by_the_percentage() -> None:
    assert credit_minor(4_500, 93) == 4_185
    assert credit_minor(4_500, 100) == 4_500  # a failed one


@pytest.mark.parametrize(
    ("price", "percent", "credit"),
    [(50, 93, 46), (50, 95, 48), (50, 97, 48), (50, 99, 50), (10, 93, 9), (10, 96, 10), (1, 50, 0), (3, 50, 2)],
)
def test_a_credit_is_rounded_half_even(price: int, percent: int, credit: int) -> None:
    assert credit_minor(price, percent) == credit


def test_half_even_below_nought_and_beyond_what_a_float_holds() -> None:
    assert [half_even(n, 2) for n in (-5, -3, -1, 1, 3, 5)] == [-2, -2, 0, 0, 2, 2]
    assert half_even(10**20 * 2 + 3, 2) == 10**20 + 2  # ends in 1.5: up to the even 2


def test_an_order_counts_what_was_billed_or_what_was_sent() -> None:
    week = WeekUnits(sent_connected=207, sent_failed=8, billed_connected=192, billed_failed=7)
    assert (week.counted("billed"), week.counted("sent")) == (199, 215)
    with pytest.raises(ValueError, match="not 'answered'"):
        week.counted("answered")
