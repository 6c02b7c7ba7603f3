"""Opening hours as people write them: `mon-fri 09:00-12:30`. Gaps between spans are the breaks.

A span that ends at or before its start goes over midnight. `24:00` ends a day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_TEXT = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? ([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")


@dataclass(frozen=True, slots=True)
class Span:
    """Weekdays (0: Monday) and minutes of the local day, from `start` to before `end`; `end` <= `start`: overnight."""

    days: frozenset[int]
    start: int
    end: int


@lru_cache(maxsize=4096)
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
