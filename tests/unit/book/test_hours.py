"""Opening hours against the calendar: breaks, nights, holidays, and the days on which the clock changes."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from book.hours import DAY_US, is_open, next_opening, offset_us, open_times, opens_in_words

NEW_YORK = "America/New_York"
HOUR_US = 3_600_000_000
OFFICE = ("mon-fri 09:00-12:30", "mon-fri 13:00-18:00")
NIGHT = ("fri 22:00-06:00",)
EARLY = ("sun 00:30-02:30",)


def us(text: str, zone: str = NEW_YORK, fold: int = 0) -> int:
    """An instant by the wall clock of `zone`; `fold` 1: the second time that it shows this."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(local.astimezone(UTC).timestamp() * 1_000_000)


@pytest.mark.parametrize(
    ("hours", "at", "expected"),
    [
        ((), "2026-06-01 03:00", True),
        (OFFICE, "2026-06-01 08:59:59.999999", False),
        (OFFICE, "2026-06-01 09:00", True),
        (OFFICE, "2026-06-01 12:29:59.999999", True),
        (OFFICE, "2026-06-01 12:30", False),
        (OFFICE, "2026-06-01 13:00", True),
        (OFFICE, "2026-06-01 18:00", False),
        (OFFICE, "2026-06-06 10:00", False),
        (NIGHT, "2026-06-05 21:59", False),
        (NIGHT, "2026-06-05 22:00", True),
        (NIGHT, "2026-06-06 00:00", True),
        (NIGHT, "2026-06-06 05:59", True),
        (NIGHT, "2026-06-06 06:00", False),
        (NIGHT, "2026-06-05 05:00", False),
        (("sun 22:00-06:00",), "2026-06-01 05:00", True),  # into Monday
        (("sat-sun 00:00-24:00",), "2026-06-07 23:59:59", True),
        (("sat-sun 00:00-24:00",), "2026-06-08 00:00", False),
        (("fri-mon 10:00-11:00",), "2026-06-07 10:30", True),
        (("mon 00:00-00:00",), "2026-06-01 12:00", True),  # a whole day and no more
        (("mon 00:00-00:00",), "2026-06-02 00:00", False),
    ],
)
def test_open_by_the_wall_clock(hours: tuple[str, ...], at: str, expected: bool) -> None:
    assert is_open(hours, (), NEW_YORK, us(at)) is expected


@pytest.mark.parametrize(
    ("hours", "at", "expected"),
    [
        ((), "2026-07-03 00:00", False),
        ((), "2026-07-03 23:59:59", False),
        ((), "2026-07-04 00:00", True),
        (OFFICE, "2026-07-03 10:00", False),
        (OFFICE, "2026-07-02 10:00", True),
        (("thu 22:00-06:00",), "2026-07-02 23:59:59", True),  # the night before ends at midnight
        (("thu 22:00-06:00",), "2026-07-03 00:00", False),
        (NIGHT, "2026-07-03 23:00", False),  # the night of the holiday does not take place
        (NIGHT, "2026-07-04 03:00", False),
    ],
)
def test_a_holiday_is_closed_from_midnight_to_midnight(hours: tuple[str, ...], at: str, expected: bool) -> None:
    assert is_open(hours, ("2026-07-03",), NEW_YORK, us(at)) is expected


@pytest.mark.parametrize(
    ("at", "fold", "expected"),
    [
        ("2026-03-08 01:59", 0, True),
        ("2026-03-08 03:00", 0, False),  # 02:00 to 02:59 did not exist: 03:00 is past 02:30
        ("2026-11-01 00:30", 0, True),
        ("2026-11-01 01:30", 0, True),
        ("2026-11-01 01:30", 1, True),  # the hour that comes twice
        ("2026-11-01 02:29", 0, True),
        ("2026-11-01 02:30", 0, False),
    ],
)
def test_on_the_days_when_the_clock_changes(at: str, fold: int, expected: bool) -> None:
    assert is_open(EARLY, (), NEW_YORK, us(at, fold=fold)) is expected


@pytest.mark.parametrize(("day", "hours"), [("2026-03-08", 23), ("2026-11-01", 25), ("2026-06-07", 24)])
def test_a_day_has_the_hours_that_it_has(day: str, hours: int) -> None:
    start = us(f"{day} 00:00")
    whole = open_times(("sun 00:00-24:00",), (), NEW_YORK, start - DAY_US, start + 2 * DAY_US)
    assert whole.total == hours * HOUR_US


@pytest.mark.parametrize(("day", "hours"), [("2026-03-08", 1.5), ("2026-11-01", 3), ("2026-06-07", 2)])
def test_early_hours_on_such_a_day(day: str, hours: float) -> None:
    start = us(f"{day} 00:00")
    assert open_times(EARLY, (), NEW_YORK, start, start + DAY_US).total == hours * HOUR_US


def test_spans_that_touch_or_overlap_are_one() -> None:
    start = us("2026-06-01 00:00")
    found = open_times(("mon 09:00-12:00", "mon 12:00-13:00", "mon 10:00-11:00"), (), NEW_YORK, start, start + DAY_US)
    assert (found.starts, found.total) == ((us("2026-06-01 09:00"),), 4 * HOUR_US)


def test_open_time_that_has_passed() -> None:
    start = us("2026-06-01 00:00")
    week = open_times(OFFICE, (), NEW_YORK, start, start + 7 * DAY_US)
    at = [us(f"2026-06-01 {time}") for time in ("08:00", "10:00", "12:45", "13:30", "23:00")]
    assert [week.passed(one) / HOUR_US for one in at] == [0, 1, 3.5, 4, 8.5]
    assert week.passed(start + 7 * DAY_US) == week.total == 42.5 * HOUR_US


@pytest.mark.parametrize(
    ("hours", "at", "words"),
    [
        (OFFICE, "2026-06-01 12:40", "opens Monday 13:00 America/New_York"),
        (OFFICE, "2026-06-05 18:00", "opens Monday 09:00 America/New_York"),
        (("mon 09:00-10:00",), "2026-06-01 10:00", "opens Monday 2026-06-08 09:00 America/New_York"),
        (OFFICE, "2026-07-02 18:00", "opens Monday 09:00 America/New_York"),  # Friday is a holiday
        (EARLY, "2026-03-07 12:00", "opens Sunday 00:30 America/New_York"),
    ],
)
def test_when_it_opens_in_words(hours: tuple[str, ...], at: str, words: str) -> None:
    assert opens_in_words(hours, ("2026-07-03",), NEW_YORK, us(at)) == words


def test_a_night_in_the_gap_opens_as_the_clock_goes_forward() -> None:
    assert next_opening(("sun 02:30-05:00",), (), NEW_YORK, us("2026-03-08 01:00")) == us("2026-03-08 03:00")


def test_who_never_opens_is_told() -> None:
    first = date(2025, 12, 31).toordinal()
    never = tuple(date.fromordinal(first + day).isoformat() for day in range(400))
    assert opens_in_words((), never, NEW_YORK, us("2026-01-01 00:00")) == "does not open within a year"


@pytest.mark.parametrize(
    ("zone", "at", "offset"),
    [
        (NEW_YORK, "2026-01-01 00:00", -5),
        ("Asia/Kathmandu", "2026-01-01 00:00", 5.75),
        ("Australia/Lord_Howe", "2026-01-01 00:00", 11),
    ],
)
def test_offsets(zone: str, at: str, offset: float) -> None:
    assert offset_us(zone, us(at, zone)) == offset * HOUR_US
