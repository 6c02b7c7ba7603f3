"""Parses the expiry of an entry or of a whole list: a day, through its end, or an instant.

A day is one of a contract's calendar (domain, section 10): of a buyer's list it ends where the buyer's terms have their
zone, of a global one where the operator has his. A time that does not say its distance to UTC is of the same clock.

Python's `fromisoformat` takes more than that, and ends entries too early: `2026-W48` is its Monday, `2026-11-30-05:00`
five o'clock on that day, and `2026113012` loses two digits. So what may be said is spelt out here.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from book.limits import midnight_us
from book.model import DEFAULT_TIME_ZONE

LAST_S = 2**32 - 1  # the last second of the Unix epoch that an entry's end may be, in 2106: 32 bits
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400_000_000
_DAY = r"[0-9]{4}(?:-[0-9]{2}-[0-9]{2}|[0-9]{4})"
_TIME = r"[0-9]{2}(?::?[0-9]{2}(?::?[0-9]{2}(?:[.,][0-9]{1,9})?)?)?"
_ISO_DAY = re.compile(_DAY, re.ASCII)
_ISO_TIME = re.compile(rf"{_DAY}[Tt ]{_TIME} ?(?:[Zz]|[+-][0-9]{{2}}(?::?[0-9]{{2}})?)?", re.ASCII)
LAST_DAY = (_EPOCH + timedelta(seconds=LAST_S)).date() - timedelta(days=1)  # the last one that ends by then


def end_us(text: str, zone: str = DEFAULT_TIME_ZONE) -> int:
    """The microsecond of the Unix epoch from which it no longer holds. Raises ValueError: no ISO 8601 date or time."""
    if _ISO_DAY.fullmatch(text):
        return day_end_us(date.fromisoformat(text), zone)
    if not _ISO_TIME.fullmatch(text):
        raise ValueError("neither an ISO date nor an ISO time")
    when = datetime.fromisoformat(text.upper().replace(" ", "T", 1).replace(" ", ""))
    return ((when if when.tzinfo is not None else when.replace(tzinfo=ZoneInfo(zone))) - _EPOCH) // _MICROSECOND


def day_end_us(day: date, zone: str) -> int:
    """The first instant of the following day, also where days have 23 or 25 hours."""
    if day == date.max:  # what many a program writes for ever
        return midnight_us(day, zone) + _DAY_US
    return midnight_us(day + timedelta(days=1), zone)
