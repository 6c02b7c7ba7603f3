"""Which of JSON, CSV and a stream `Accept` prefers, and what a cell of a CSV holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import Request

from portal.http.tables import CSV, cell, prefers, wants_csv


def _asks(accept: str | None) -> Request:
    headers = [] if accept is None else [(b"accept", accept.encode())]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    ("accept", "is_wanted"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/csv", True),
        ("TEXT/CSV; header=present", True),
        ("text/csv, application/json", True),
        ("text/csv;q=0.4, application/json;q=0.5", False),
        ("text/csv;q=0.5, application/json;q=0.5", True),
        ("text/csv;q=0", False),
        ("text/csv;q=high", False),
    ],
)
def test_csv_is_sent_where_it_is_named_and_no_less_wanted_than_json(accept: str | None, is_wanted: bool) -> None:
    assert wants_csv(_asks(accept)) is is_wanted
    assert prefers(_asks(accept), CSV) is is_wanted


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "true"),
        (0, 0),
        (datetime(2026, 6, 2, 14, tzinfo=UTC), "2026-06-02T14:00:00Z"),
        ("=1+1", "'=1+1"),
        ("plain", "plain"),
    ],
)
def test_a_cell_is_run_by_no_spreadsheet(value: Any, shown: Any) -> None:
    assert cell(value) == shown
