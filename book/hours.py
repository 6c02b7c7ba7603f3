"""Opening hours as text: `mon-fri 09:00-12:30`. Gaps between spans are the breaks.

A span that ends at or before its start goes over midnight. `24:00` ends a day. A buyer is open while the clock on its
wall shows a time within a span: where the clock is put forward the time left out is nobody's, where it is put back the
hour that comes twice counts twice. A holiday is closed from its midnight to the next, and no span begins on it: the
night shift of the evening before ends at midnight, that of the holiday itself does not take place.

Wall time is turned into instants a week at a time and kept, so that a look costs a bisection. Instants are integers in
microseconds UTC.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTE_US = 60 * 1_000_000
DAY_US = 24 * 60 * MINUTE_US
WEEK_US = 7 * DAY_US
QUARTER_US = 15 * MINUTE_US  # since 1972 every zone's offset, and every change of one, is a multiple of this
LOOK_AHEAD_WEEKS = 54  # how far the next opening is looked for: a year and its holidays
_DAY_MINUTES = 24 * 60
_CACHED = 4096  # weeks of buyers; one takes about 1 kB
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.date().toordinal()
_TEXT = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? ([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")


@dataclass(frozen=True, slots=True)
class Span:
    """Weekdays (0: Monday) and minutes of the local day, from `start` to before `end`; `end` <= `start`: overnight."""

    days: frozenset[int]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class OpenTimes:
    """The open spans between two instants, in order and apart; `before` is the open time before each of them."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    before: tuple[int, ...]
    total: int

    def is_open(self, at_us: int) -> bool:
        found = bisect_right(self.starts, at_us) - 1
        return found >= 0 and at_us < self.ends[found]

    def passed(self, at_us: int) -> int:
        """Open time before `at_us`, in microseconds."""
        found = bisect_right(self.starts, at_us) - 1
        return 0 if found < 0 else self.before[found] + min(at_us, self.ends[found]) - self.starts[found]

    def next_start(self, at_us: int) -> int | None:
        """The first opening after `at_us`."""
        found = bisect_right(self.starts, at_us)
        return self.starts[found] if found < len(self.starts) else None


@lru_cache(maxsize=_CACHED)
def parse_hours(text: str) -> Span:
    """Raises ValueError for what is not written like `mon-fri 09:00-12:30`."""
    found = _TEXT.fullmatch(text.strip().lower())
    if found is None or found[1] not in DAYS or (found[2] or found[1]) not in DAYS:
        raise ValueError(f"{text!r} is not written like 'mon-fri 09:00-12:30' or 'sat 10:00-14:00'")
    start, end = int(found[3]) * 60 + int(found[4]), int(found[5]) * 60 + int(found[6])
    if start >= _DAY_MINUTES or end > _DAY_MINUTES or int(found[4]) > 59 or int(found[6]) > 59:  # noqa: PLR2004
        raise ValueError(f"{text!r}: a time is past 24:00")
    first, last = DAYS.index(found[1]), DAYS.index(found[2] or found[1])
    days = frozenset((first + step) % 7 for step in range((last - first) % 7 + 1))
    return Span(days, start, end)


def _checked(text: str) -> str:
    parse_hours(text)
    return text.strip().lower()


OpeningHours = Annotated[str, AfterValidator(_checked)]

_ALWAYS = (Span(frozenset(range(7)), 0, _DAY_MINUTES),)


def is_open(hours: tuple[str, ...], holidays: tuple[str, ...], zone: str, at_us: int) -> bool:
    """Whether the wall clock of `zone` shows a time within `hours` (empty: any) on no holiday."""
    if not hours and not holidays:
        return True
    page = at_us // WEEK_US * WEEK_US
    return open_times(hours, holidays, zone, page, page + WEEK_US).is_open(at_us)


def next_opening(hours: tuple[str, ...], holidays: tuple[str, ...], zone: str, at_us: int) -> int | None:
    """The first instant after `at_us` at which it opens; None where it does not within a year."""
    page = at_us // WEEK_US * WEEK_US
    here = open_times(hours, holidays, zone, page, page + WEEK_US).next_start(at_us)
    return here if here is not None else _first_opening(hours, holidays, zone, page + WEEK_US)


def opens_in_words(hours: tuple[str, ...], holidays: tuple[str, ...], zone: str, at_us: int) -> str:
    """Such as `opens Monday 09:00 America/New_York`, with the date where that is more than six days away."""
    opening = next_opening(hours, holidays, zone, at_us)
    if opening is None:
        return "does not open within a year"
    return _opening_in_words(opening, zone, opening - at_us > 6 * DAY_US)


@lru_cache(maxsize=_CACHED)
def open_times(hours: tuple[str, ...], holidays: tuple[str, ...], zone: str, start_us: int, end_us: int) -> OpenTimes:
    """When it is open from `start_us` to before `end_us`. Raises ValueError for hours that cannot be read."""
    segments = offsets(zone, start_us, end_us)
    first, last = _local_day(start_us + segments[0][2]), _local_day(end_us + segments[-1][2])
    spans = [parse_hours(one) for one in hours] or _ALWAYS
    closed = frozenset(date.fromisoformat(one).toordinal() - _EPOCH_DAY for one in holidays)
    wall = list(_on_the_wall(spans, closed, first - 1, last))
    cut = ((max(start, low), min(end, high)) for low, high, start, end in _instants(wall, segments))
    return _joined(sorted((start, end) for start, end in cut if start < end))


@lru_cache(maxsize=_CACHED)
def offsets(zone: str, start_us: int, end_us: int) -> tuple[tuple[int, int, int], ...]:
    """(from, to, offset from UTC) of each stretch without a change of the clock. A day holds one change at most."""
    found: list[tuple[int, int, int]] = []
    since, at, offset = start_us, start_us, offset_us(zone, start_us)
    while at < end_us:
        later = min(at + DAY_US, end_us)
        if offset_us(zone, later) != offset:
            change = _change_between(zone, at, later, offset)
            found.append((since, change, offset))
            since, offset = change, offset_us(zone, later)
        at = later
    return (*found, (since, end_us, offset)) if since < end_us or not found else tuple(found)


def offset_us(zone: str, at_us: int) -> int:
    """How far the wall clock of `zone` is ahead of UTC at an instant."""
    local = (_EPOCH + timedelta(microseconds=at_us)).astimezone(ZoneInfo(zone))
    return int((local.utcoffset() or timedelta()) / timedelta(microseconds=1))


def _change_between(zone: str, low: int, high: int, offset: int) -> int:
    """The first quarter of an hour whose offset is not `offset` any more."""
    first, last = low // QUARTER_US, -(-high // QUARTER_US)
    while last - first > 1:
        middle = (first + last) // 2
        if offset_us(zone, middle * QUARTER_US) == offset:
            first = middle
        else:
            last = middle
    return last * QUARTER_US


def _on_the_wall(spans: Iterable[Span], closed: frozenset[int], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Spans in microseconds of wall time since 1 January 1970, day by day, holidays left out."""
    for day in range(first, last + 1):
        if day in closed:
            continue
        for span in spans:
            if (day + 3) % 7 in span.days:  # 1 January 1970 was a Thursday
                overnight = 0 if span.end > span.start else _DAY_MINUTES
                end = _DAY_MINUTES if overnight and day + 1 in closed else span.end + overnight
                yield day * DAY_US + span.start * MINUTE_US, day * DAY_US + end * MINUTE_US


def _instants(
    wall: list[tuple[int, int]], segments: tuple[tuple[int, int, int], ...]
) -> Iterator[tuple[int, int, int, int]]:
    for low, high, offset in segments:
        for start, end in wall:
            yield low, high, start - offset, end - offset


def _joined(spans: list[tuple[int, int]]) -> OpenTimes:
    starts: list[int] = []
    ends: list[int] = []
    for start, end in spans:
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    before, total = [], 0
    for start, end in zip(starts, ends, strict=True):
        before.append(total)
        total += end - start
    return OpenTimes(tuple(starts), tuple(ends), tuple(before), total)


def _local_day(wall_us: int) -> int:
    return wall_us // DAY_US


@lru_cache(maxsize=_CACHED)
def _first_opening(hours: tuple[str, ...], holidays: tuple[str, ...], zone: str, page: int) -> int | None:
    for week in range(LOOK_AHEAD_WEEKS):
        start = page + week * WEEK_US
        found = open_times(hours, holidays, zone, start, start + WEEK_US)
        if found.starts:
            return found.starts[0]
    return None


@lru_cache(maxsize=_CACHED)
def _opening_in_words(opening: int, zone: str, far: bool) -> str:
    local = (_EPOCH + timedelta(microseconds=opening)).astimezone(ZoneInfo(zone))
    return f"opens {local:%A} {f'{local:%Y-%m-%d} ' if far else ''}{local:%H:%M} {zone}"
