"""The dates of a service week, word for word from the domain, section 6, and where clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from book.limits import spans_of
from meter.billing.arithmetic.calendar import Week, deadline_us, week_of

NEW_YORK = "America/New_York"
HOUR_US = 3_600_000_000
JUNE_8 = Week(date(2026, 6, 8), NEW_YORK)


def utc(text: str) -> int:
    """Microseconds of an instant written in UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def shown(at_us: int, zone: str = NEW_YORK) -> str:
    """What calendar and clock on the wall show."""
    return f"{datetime.fromtimestamp(at_us // 1_000_000, UTC).astimezone(ZoneInfo(zone)):%a %-d %B %Y %H:%M}"


def test_the_example_of_the_domain() -> None:
    # "Tue 2 June 2026 invoice for the week 8 to 15 June; due Thu 4, 17:00."
    assert (shown(JUNE_8.start_us), shown(JUNE_8.end_us)) == ("Mon 8 June 2026 00:00", "Mon 15 June 2026 00:00")
    assert JUNE_8.order_invoice_on == date(2026, 6, 2)
    assert shown(JUNE_8.order_invoice_at) == "Tue 2 June 2026 12:00"
    assert JUNE_8.order_due_on == date(2026, 6, 4)
    assert shown(JUNE_8.order_due_at) == "Thu 4 June 2026 17:00"
    # "Mon 15: overage of that week, due Tue 16, 17:00."
    assert JUNE_8.overage_invoice_on == date(2026, 6, 15)
    assert JUNE_8.overage_due_on == date(2026, 6, 16)
    assert shown(JUNE_8.overage_due_at) == "Tue 16 June 2026 17:00"
    # "The remedy for its shortfall closes Tue 16 noon; then the invoice for 22 to 29 June runs, with the credit or the
    # make-up; a check is due Wed 17."
    assert shown(JUNE_8.remedy_closes_at) == "Tue 16 June 2026 12:00"
    next_invoiced = JUNE_8.make_up_week
    assert shown(next_invoiced.start_us) == "Mon 22 June 2026 00:00"
    assert shown(next_invoiced.end_us) == "Mon 29 June 2026 00:00"
    assert next_invoiced.order_invoice_at == JUNE_8.remedy_closes_at
    assert JUNE_8.check_due_on == date(2026, 6, 17)


def test_end_of_business_is_what_the_operator_says_and_noon_is_not() -> None:
    week = Week(date(2026, 6, 8), NEW_YORK, time(18, 30))
    assert shown(week.order_due_at) == "Thu 4 June 2026 18:30"
    assert shown(week.overage_due_at) == "Tue 16 June 2026 18:30"
    assert shown(week.remedy_closes_at) == "Tue 16 June 2026 12:00"
    assert week.make_up_week.end_of_business == time(18, 30)


def test_the_same_dates_in_another_zone_are_other_instants() -> None:
    berlin = Week(date(2026, 6, 8), "Europe/Berlin")
    assert shown(berlin.order_due_at, "Europe/Berlin") == "Thu 4 June 2026 17:00"
    assert berlin.order_due_at == utc("2026-06-04 15:00")


@pytest.mark.parametrize(
    ("monday", "hours", "start", "end"),
    [
        ("2026-03-02", 167, "2026-03-02 05:00", "2026-03-09 04:00"),
        ("2026-10-26", 169, "2026-10-26 04:00", "2026-11-02 05:00"),
        ("2026-06-08", 168, "2026-06-08 04:00", "2026-06-15 04:00"),
    ],
)
def test_a_week_has_the_hours_that_it_has(monday: str, hours: int, start: str, end: str) -> None:
    week = Week(date.fromisoformat(monday), NEW_YORK)
    assert (week.start_us, week.end_us) == (utc(start), utc(end))
    assert week.end_us - week.start_us == hours * HOUR_US


def test_due_times_stay_on_the_wall_over_a_change_of_the_clock() -> None:
    after_spring = Week(date(2026, 3, 9), NEW_YORK)  # the clock goes forward on Sunday 8 March
    assert after_spring.order_due_at == utc("2026-03-05 22:00")  # still winter: UTC-5
    assert after_spring.overage_due_at == utc("2026-03-17 21:00")
    assert Week(date(2026, 10, 26), NEW_YORK).remedy_closes_at == utc("2026-11-03 17:00")


@pytest.mark.parametrize("day", ["2026-06-07", "2026-06-09", "2026-06-14"])
def test_a_week_begins_on_a_monday_only(day: str) -> None:
    with pytest.raises(ValueError, match="is not a Monday"):
        Week(date.fromisoformat(day), NEW_YORK)


def test_a_week_is_named_as_orders_and_limits_name_it() -> None:
    at = utc("2026-06-10 12:00")
    assert str(week_of(at, NEW_YORK)) == "2026-06-08"
    assert str(week_of(at, NEW_YORK)) == spans_of(NEW_YORK, NEW_YORK, at // 900_000_000).week


@pytest.mark.parametrize(
    ("at", "monday"),
    [
        ("2026-06-08 04:00", "2026-06-08"),
        ("2026-06-08 03:59", "2026-06-01"),  # Monday already in UTC, Sunday still in New York
        ("2026-11-02 04:59", "2026-10-26"),
        ("2026-11-02 05:00", "2026-11-02"),
    ],
)
def test_an_instant_belongs_to_the_week_of_the_zone(at: str, monday: str) -> None:
    assert week_of(utc(at), NEW_YORK) == Week(date.fromisoformat(monday), NEW_YORK)


def test_the_last_microsecond_of_a_week_is_still_in_it() -> None:
    assert week_of(JUNE_8.end_us - 1, NEW_YORK) == JUNE_8
    assert week_of(JUNE_8.end_us, NEW_YORK) == JUNE_8.later(1)


def test_weeks_go_both_ways_and_stand_in_order() -> None:
    assert JUNE_8.later(-1).monday == date(2026, 6, 1)
    assert JUNE_8.later(-1) < JUNE_8 < JUNE_8.later(1)


def test_a_deadline_that_the_clock_leaves_out_is_the_jump() -> None:
    jump = utc("2026-03-08 07:00")
    day = date(2026, 3, 8)
    assert deadline_us(day, time(1, 59), NEW_YORK) == jump - 60_000_000
    for left_out in (time(2), time(2, 30), time(2, 59)):
        assert deadline_us(day, left_out, NEW_YORK) == jump
    assert deadline_us(day, time(3), NEW_YORK) == jump
    assert deadline_us(day, time(3, 1), NEW_YORK) == jump + 60_000_000


def test_a_deadline_that_comes_twice_is_the_second() -> None:
    day = date(2026, 11, 1)
    assert deadline_us(day, time(0, 59), NEW_YORK) == utc("2026-11-01 04:59")
    assert deadline_us(day, time(1), NEW_YORK) == utc("2026-11-01 06:00")
    assert deadline_us(day, time(1, 30), NEW_YORK) == utc("2026-11-01 06:30")
    assert deadline_us(day, time(2), NEW_YORK) == utc("2026-11-01 07:00")


def test_half_an_hour_is_a_change_too() -> None:
    lord_howe = "Australia/Lord_Howe"  # 02:00 to 02:30 in October, back in April
    assert deadline_us(date(2026, 10, 4), time(2, 10), lord_howe) == utc("2026-10-03 15:30")
    assert deadline_us(date(2026, 4, 5), time(1, 45), lord_howe) == utc("2026-04-04 15:15")


def test_a_noon_that_a_country_left_out() -> None:
    # Sudan went from 12:00 to 13:00 on Saturday 15 January 2000
    assert deadline_us(date(2000, 1, 15), time(12), "Africa/Khartoum") == utc("2000-01-15 10:00")
    assert deadline_us(date(2000, 1, 15), time(12, 30), "Africa/Khartoum") == utc("2000-01-15 10:00")


def test_a_day_that_a_country_left_out_is_over_as_it_jumps() -> None:
    # Samoa had no Friday 30 December 2011
    assert deadline_us(date(2011, 12, 30), time(17), "Pacific/Apia") == utc("2011-12-30 10:00")


def test_a_due_time_in_the_hour_that_comes_twice() -> None:
    # Egypt puts the clock back at the end of Thursday 30 October 2025: 23:00 to 24:00 comes twice
    week = Week(date(2025, 11, 3), "Africa/Cairo", time(23, 30))
    assert week.order_due_at == utc("2025-10-30 21:30")
    assert shown(week.order_due_at - HOUR_US, week.zone) == shown(week.order_due_at, week.zone)


def test_a_due_time_in_the_hour_that_is_left_out() -> None:
    # Iran went from 00:00 to 01:00 on Tuesday 22 March 2022
    week = Week(date(2022, 3, 14), "Asia/Tehran", time(0, 30))
    assert week.overage_due_at == utc("2022-03-21 20:30")
    assert shown(week.overage_due_at, week.zone) == "Tue 22 March 2022 01:00"


def test_a_monday_without_midnight_begins_with_the_jump() -> None:
    week = Week(date(2009, 6, 1), "Africa/Casablanca")  # from 00:00 to 01:00 on that Monday
    assert shown(week.start_us, week.zone) == "Mon 1 June 2009 01:00"
    assert shown(week.start_us - 60_000_000, week.zone) == "Sun 31 May 2009 23:59"
    assert week.later(-1).end_us == week.start_us
    assert week.end_us - week.start_us == 167 * HOUR_US


def test_a_monday_with_two_midnights_begins_with_the_first() -> None:
    week = Week(date(2001, 9, 24), "Asia/Jerusalem")  # from 01:00 back to 00:00 on that Monday
    assert week.start_us == utc("2001-09-23 21:00")
    assert week_of(week.start_us - 1, week.zone) == week.later(-1)
    assert week_of(week.start_us + HOUR_US + HOUR_US // 2, week.zone) == week
    assert week.end_us - week.start_us == 169 * HOUR_US


def test_two_years_of_dates_fall_on_their_weekdays() -> None:
    for number in range(105):
        week = JUNE_8.later(number)
        days = (week.order_invoice_on, week.order_due_on, week.overage_invoice_on, week.overage_due_on)
        assert [one.weekday() for one in (*days, week.check_due_on)] == [1, 3, 0, 1, 2]
        assert week.order_invoice_at < week.order_due_at < week.start_us < week.end_us
        assert week.end_us < week.remedy_closes_at < week.overage_due_at
        tuesday = week.overage_due_on
        assert week.make_up_week.monday - tuesday == timedelta(days=6)
