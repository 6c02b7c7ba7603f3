"""Values that the routes of several nouns take and show: instants, counts, names in paths."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Path
from pydantic import WithJsonSchema

MAX_NAME = 64  # characters of a name or an id
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Moment = Annotated[datetime | None, WithJsonSchema({"type": ["string", "null"], "format": "date-time"})]
Count = Annotated[int | None, WithJsonSchema({"type": ["integer", "null"], "format": "int64"})]
BuyerName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="Name of the buyer.")]
TransferId = Annotated[str, Path(min_length=1, max_length=MAX_NAME, description="Its id.")]


def moment(utc_us: int) -> datetime:
    """Microseconds since 1970 as an instant in UTC, to the microsecond: what is shown can be asked for."""
    return _EPOCH + timedelta(microseconds=utc_us)


def whole_second(utc_us: int) -> datetime:
    """Microseconds since 1970 as an instant in UTC, without the fraction of its second."""
    return datetime.fromtimestamp(utc_us // 1_000_000, UTC)


def microseconds(at: datetime | None) -> int | None:
    """An instant in microseconds since 1970, as the store has it."""
    return None if at is None else (at - _EPOCH) // timedelta(microseconds=1)
