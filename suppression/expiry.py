"""Until when an entry or a whole list holds, as people write it: a day, through its end in UTC, or an instant."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

LAST_S = 2**32 - 1  # the last second of the Unix epoch that an entry's end may be, in 2106: 32 bits
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_DAY = (_EPOCH + timedelta(seconds=LAST_S)).date() - timedelta(days=1)  # the last one that ends by then


def end_us(text: str) -> int:
    """The microsecond of the Unix epoch from which it no longer holds. Raises ValueError: no ISO 8601 date or time."""
    try:
        since = timedelta(days=date.fromisoformat(text).toordinal() + 1 - _EPOCH.toordinal())
    except ValueError:
        when = datetime.fromisoformat(text)
        since = (when if when.tzinfo is not None else when.replace(tzinfo=UTC)) - _EPOCH
    return since // timedelta(microseconds=1)
