"""Lists as CSV, where the request's `Accept` prefers it: read and sent page by page, however long they are.

The first page is read before the answer begins, so what fails then is a problem; what fails later breaks the answer
off, which a client sees. Text that a spreadsheet would run gets an apostrophe in front (`meter.text.hostile`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import structlog
from fastapi import Request
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import SQLAlchemyError

from meter.text.hostile import csv_cell

CSV = "text/csv"
CSV_PAGE = 2_000  # rows read at once: a few megabytes
_JSON = "application/json"

_log = structlog.get_logger("portal")
R = TypeVar("R")
K = TypeVar("K")
ANSWER: dict[str, Any] = {"content": {CSV: {"schema": {"type": "string"}}}}  # of a route's description, beside JSON


def wants_csv(request: Request) -> bool:
    """Whether CSV is named in `Accept` and no less wanted than JSON."""
    return prefers(request, CSV)


def prefers(request: Request, kind: str) -> bool:
    """Whether this media type is named in `Accept` and no less wanted than JSON (RFC 9110 section 12.5.1)."""
    wanted = _qualities(request.headers.get("accept", ""))
    return wanted.get(kind, 0.0) > 0 and wanted[kind] >= wanted.get(_JSON, 0.0)


async def csv_answer(
    name: str,
    columns: Sequence[str],
    fetch: Callable[[K | None, int], Awaitable[list[R]]],
    *,
    key_of: Callable[[R], K],
    cells: Callable[[R], Sequence[Any]],
    start: K | None = None,
) -> StreamingResponse:
    """All rows after `start` as a file. `fetch`: rows after a key, at most so many."""
    first = await fetch(start, CSV_PAGE)

    async def pages() -> AsyncIterator[str]:
        rows, done = first, False
        yield _lines([columns])
        while rows:
            yield _lines([[cell(value) for value in cells(row)] for row in rows])
            done = len(rows) < CSV_PAGE
            try:
                rows = [] if done else await fetch(key_of(rows[-1]), CSV_PAGE)
            except SQLAlchemyError as error:
                _log.error("store_failed", path=name, kind=type(error).__name__)
                raise

    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(pages(), media_type=f"{CSV}; charset=utf-8", headers=headers)


def cell(value: Any) -> Any:
    """A value as a cell: times in ISO 8601 UTC, nothing for what is not there."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return csv_cell(value) if isinstance(value, str) else value


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def _qualities(accept: str) -> dict[str, float]:
    """Media types that are named, and how much each is wanted; a quality that cannot be read is none."""
    qualities: dict[str, float] = {}
    for entry in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        qualities[kind] = float(quality) if quality.replace(".", "", 1).isdecimal() and quality.isascii() else 0.0
    return qualities
