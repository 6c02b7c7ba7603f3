"""Baton's database, read by plain SQL while Baton runs: what it wrote down, not what its own code makes of it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from facts.start_payload import stored_start

_BUSY_S = 10.0


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """One outcome. Durations in ms."""

    transfer: str
    sip_call_id: str
    campaign: str
    verdict: str
    reason: str
    counts_as: str
    attempt_ms: int
    talk_ms: int


@dataclass(frozen=True, slots=True)
class FactRow:
    """One fact, without the fields that no measurement needs. Times in microseconds."""

    transfer: str
    kind: str
    leg: int | None
    mono_us: int
    lag_us: int
    utc_us: int
    payload: dict[str, Any]


class Store:
    """The SQLite file at `path`; every answer is one short read-only transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def settled(self) -> list[OutcomeRow]:
        columns = ", ".join(OutcomeRow.__slots__)
        return [OutcomeRow(*row) for row in self._all(f"SELECT {columns} FROM outcomes ORDER BY started_utc_us")]

    def settled_count(self) -> int:
        return self._one("SELECT count(*) FROM outcomes")

    def started(self) -> dict[str, str]:
        """Every transfer of which the journal has the beginning, with the dialer's Call-ID."""
        rows = self._all("SELECT transfer, payload FROM facts WHERE kind = 'transfer_started'")
        return {transfer: stored_start(payload).sip_call_id or "" for transfer, payload in rows}

    def open_count(self) -> int:
        """Transfers that were started and have no outcome."""
        return self._one(
            "SELECT count(*) FROM facts WHERE kind = 'transfer_started'"
            " AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.transfer = facts.transfer)"
        )

    def mails_waiting(self) -> int:
        return self._one("SELECT count(*) FROM outbox WHERE channel = 'mail' AND state = 'pending'")

    def facts(self, *kinds: str) -> list[FactRow]:
        """All facts of these kinds, in the order of the journal."""
        marks = ",".join("?" * len(kinds))
        rows = self._all(
            "SELECT transfer, kind, leg, mono_us, lag_us, utc_us, payload FROM facts"
            f" WHERE kind IN ({marks}) ORDER BY router, boot, seq",
            kinds,
        )
        return [FactRow(*(*row[:-1], orjson.loads(row[-1]))) for row in rows]

    def _one(self, query: str) -> int:
        return int(self._all(query)[0][0])

    def _all(self, query: str, values: Sequence[str] = ()) -> list[Any]:
        with self._connected() as connection:
            return connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=_BUSY_S)
        try:
            yield connection
        finally:
            connection.close()
