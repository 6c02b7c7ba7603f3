"""Opening hours against a slow reading of the same sentence: open where the wall clock shows a time within a span."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from book.hours import DAYS, QUARTER_US, is_open, open_times, parse_hours

ZONES = ("America/New_York", "Europe/London", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu", "UTC")
_quarters = st.integers(0, 95).map(lambda quarter: f"{quarter // 4:02}:{quarter % 4 * 15:02}")
_spans = st.builds(lambda first, last, a, b: f"{first}-{last} {a}-{b}", *[st.sampled_from(DAYS)] * 2, *[_quarters] * 2)
_days = st.integers(0, 729).map(lambda day: (date(2026, 1, 1) + timedelta(day)).isoformat())


def by_the_wall(hours: tuple[str, ...], holidays: tuple[str, ...], zone: str, at_us: int) -> bool:
    wall = datetime.fromtimestamp(at_us // 1_000_000, UTC).astimezone(ZoneInfo(zone))
    minute, today = wall.hour * 60 + wall.minute, wall.date()
    yesterday = today - timedelta(1)
    if today.isoformat() in holidays:
        return False
    for span in map(parse_hours, hours):
        overnight = span.end <= span.start
        began_today = today.weekday() in span.days and minute >= span.start and (overnight or minute < span.end)
        began_before = overnight and yesterday.weekday() in span.days and minute < span.end
        if began_today or (began_before and yesterday.isoformat() not in holidays):
            return True
    return not hours


@given(
    st.lists(_spans, max_size=4).map(tuple),
    st.lists(_days, max_size=3).map(tuple),
    st.sampled_from(ZONES),
    st.integers(0, 4 * 24 * 729),
)
@example(("sat-sun 01:30-01:15",), (), "America/New_York", 4 * 24 * 304)
def test_open_exactly_where_the_wall_clock_says(
    hours: tuple[str, ...], holidays: tuple[str, ...], zone: str, quarter: int
) -> None:
    start = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000 + quarter * QUARTER_US
    instants = [start + step * QUARTER_US for step in range(200)]
    expected = [by_the_wall(hours, holidays, zone, at) for at in instants]
    assert [is_open(hours, holidays, zone, at) for at in instants] == expected
    found = open_times(hours, holidays, zone, start, start + 200 * QUARTER_US)
    assert found.total == sum(expected) * QUARTER_US
    assert [found.passed(at) for at in instants] == [sum(expected[:n]) * QUARTER_US for n in range(200)]
