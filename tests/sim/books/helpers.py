"""Helper processes, and stores as values: copied, and read whole to be compared."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
TABLES = (
    "postings",
    "ledger_heads",
    "documents",
    "document_series",
    "billing_periods",
    "orders",
    "refunds",
    "buyer_states",
    "buyer_stops",
    "buyers",
    "outbox",
)


@contextlib.contextmanager
def helper(mode: str) -> Iterator[subprocess.Popen[str]]:
    """A process of `tests.sim.books.once` that waits for its first line."""
    command = [sys.executable, "-m", "tests.sim.books.once", mode]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert answer(process) == "ready"
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def copy_store(source: Path, target: Path) -> Path:
    """A consistent copy in a file of its own, in WAL mode like every store."""
    with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(target)) as other:
        one.backup(other)
        other.execute("PRAGMA journal_mode=WAL")
    return target


def read_books(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of money, in a fixed order."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in TABLES}


def count(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def bill(path: Path) -> dict[tuple[str, str, str], list[tuple[Any, ...]]]:
    """What each buyer was billed, whatever number it got: by kind, buyer and period."""
    query = "SELECT kind, buyer, coalesce(period, ''), total_minor, applied_minor, due_utc_us FROM documents"
    found: dict[tuple[str, str, str], list[tuple[Any, ...]]] = {}
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        for kind, buyer, period, *values in connection.execute(f"{query} ORDER BY series, sequence"):
            found.setdefault((kind, buyer, period), []).append(tuple(values))
        for buyer, period, body in connection.execute("SELECT buyer, period, body FROM billing_periods"):
            found["figures", buyer, period] = [(body,)]
    return found
