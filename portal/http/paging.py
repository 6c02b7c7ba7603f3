"""Pages of a list, one form everywhere: `next` of a page is the `cursor` of the one after it, null at the end.

A cursor says after which row the next page begins, by what orders the list, so rows that come in between neither push
another out nor bring one twice. It is opaque: base64url of a JSON array that begins with the list's name.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Query
from pydantic import BaseModel, Field, WithJsonSchema

from portal.http.problems import ProblemError

MAX_CURSOR = 400  # characters
MAX_PAGE = 1_000
_MAX_INT = (1 << 63) - 1  # what the store's integers hold
_NEXT = "`cursor` of the next page; null: this is the last one."

R = TypeVar("R")
Key = tuple[Any, ...]
Next = Annotated[str | None, WithJsonSchema({"type": ["string", "null"]}), Field(description=_NEXT)]
Cursor = Annotated[str, Query(max_length=MAX_CURSOR, description="`next` of the page before; empty: the first.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many on a page; a CSV has all.")]


class PageQuery(BaseModel):
    """Which page."""

    cursor: str = Field("", max_length=MAX_CURSOR, description="`next` of the page before; empty: the first.")
    limit: int = Field(100, ge=1, le=MAX_PAGE, description="How many on a page, 100 by default; a CSV has all.")


def write_cursor(name: str, key: Sequence[Any]) -> str:
    """The cursor after the row with this key, in the list of this name."""
    return encode([name, *key])


def encode(value: Sequence[Any]) -> str:
    """An array as base64url of JSON."""
    return base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")


def decode(text: str) -> list[Any]:
    """The array that `encode` was given. Raises ValueError."""
    values = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    if not isinstance(values, list):
        raise ValueError("is no array")  # noqa: TRY004 - of what came from outside
    return values


def read_cursor(name: str, text: str, *kinds: type[Any]) -> Key | None:
    """The key in a cursor, of these types; None for an empty one. Raises ProblemError 422."""
    if not text:
        return None
    try:
        values = decode(text)
    except ValueError as error:  # binascii's and orjson's are such
        raise _none_of_ours() from error
    if len(values) != len(kinds) + 1 or values[0] != name:
        raise _none_of_ours()
    key = tuple(values[1:])
    if any(not _is(value, kind) for value, kind in zip(key, kinds, strict=True)):
        raise _none_of_ours()
    return key


async def page(
    fetch: Callable[[int], Awaitable[Sequence[R]]], limit: int, name: str, key_of: Callable[[R], Sequence[Any]]
) -> tuple[Sequence[R], str | None]:
    """A page of at most `limit` rows, and the cursor after it; `fetch` is asked for one more, to see the end."""
    rows = await fetch(limit + 1)
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], write_cursor(name, key_of(rows[limit - 1]))


def _is(value: Any, kind: type[Any]) -> bool:
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and -_MAX_INT <= value <= _MAX_INT
    return isinstance(value, kind) and "\0" not in value


def _none_of_ours() -> ProblemError:
    return ProblemError(422, "the cursor is none of ours", errors=[("cursor", "is none of ours")])
