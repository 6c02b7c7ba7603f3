"""Reads transfers: the facts of one, or a list of many, settled and open."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, literal_column, select
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import Fact, Kind
from facts.start_payload import stored_start
from meter.journal.rows import execute_bare, read_row
from meter.store.engine import reading
from meter.store.schema import boots, facts, outcomes

OPEN = "open"  # stands for the verdict of a transfer that has none yet
OPEN_WITHIN_US = 24 * 3600 * 1_000_000  # a transfer without outcome is looked for among those of the last day
MAX_LISTED = 10_000  # rows in one answer

# A literal, not a parameter: SQLite uses a partial index only where the statement itself says its condition.
STARTED = facts.c.kind == literal_column(f"'{Kind.TRANSFER_STARTED.value}'")
CLOSED = facts.c.kind == literal_column(f"'{Kind.TRANSFER_CLOSED.value}'")


_ALL_OF = f"SELECT {', '.join(facts.c.keys())} FROM facts WHERE transfer IN"  # noqa: S608 - names of columns
_IN_ORDER = "ORDER BY transfer, router, boot, seq"


@dataclass(frozen=True, slots=True)
class TransferRow:
    """One transfer in a list. `verdict` is `open` where there is no outcome yet. Times in microseconds UTC or ms."""

    transfer: str
    call_id: str
    dialer: str
    campaign: str
    buyer: str
    phone: str
    started_utc_us: int
    verdict: str = OPEN
    reason: str = ""
    counts_as: str = ""
    attempt_ms: int = 0
    talk_ms: int = 0
    buffer_ms: int = 0
    agreed: bool = True


async def read_transfer(engine: AsyncEngine, transfer: str) -> list[Fact]:
    """All facts of one transfer in their order; empty where there is none of that id."""
    async with reading(engine).connect() as connection:
        return await connection.run_sync(facts_of, transfer)


def facts_of(connection: Connection, transfer: str) -> list[Fact]:
    """`read_transfer`, on a connection."""
    found = connection.execute(
        select(facts).where(facts.c.transfer == transfer).order_by(facts.c.router, facts.c.boot, facts.c.seq)
    )
    return [read_row(row) for row in found]


def outcome_row(connection: Connection, transfer: str) -> dict[str, Any] | None:
    """The settled outcome of a transfer as its row; None: it has none yet."""
    row = connection.execute(select(outcomes).where(outcomes.c.transfer == transfer)).mappings().one_or_none()
    return None if row is None else {str(name): value for name, value in row.items()}


def facts_and_outcome(connection: Connection, transfer: str) -> tuple[list[Fact], dict[str, Any] | None]:
    """All facts of a transfer and its settled outcome, on one view."""
    return facts_of(connection, transfer), outcome_row(connection, transfer)


def histories(connection: Connection, router: str, boot: str, transfers: Sequence[str]) -> dict[str, list[Fact]]:
    """The facts of each transfer that this boot wrote, in their order."""
    found: dict[str, list[Fact]] = {transfer: [] for transfer in transfers}
    if connection.dialect.name == "sqlite":  # past SQLAlchemy's rows: these are most of what a meter reads
        marks = ", ".join("?" * len(transfers))
        rows: Sequence[Sequence[Any]] = execute_bare(connection, f"{_ALL_OF} ({marks}) {_IN_ORDER}", transfers)
    else:
        rows = connection.execute(facts_of_transfers(transfers)).all()
    for row in rows:
        fact = read_row(row)
        if fact.router == router and fact.boot == boot:
            found[fact.transfer].append(fact)
    return found


def facts_of_transfers(transfers: Sequence[str]) -> Select[Any]:
    """Router and boot stay out of the condition: SQLite would scan the whole boot instead of the transfers' index."""
    ordered = select(facts).where(facts.c.transfer.in_(transfers))
    return ordered.order_by(facts.c.transfer, facts.c.router, facts.c.boot, facts.c.seq)


async def list_transfers(
    engine: AsyncEngine, *, buyer: str = "", verdict: str = "", since_utc_us: int = 0, limit: int = 100
) -> list[TransferRow]:
    """The newest transfers first, at most `limit` (and never more than 10,000).

    `verdict` is a verdict's slug, `open`, or empty for all. Raises ValueError for a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"limit: {limit} is below 1")
    wanted = _TransferFilter(buyer, verdict, since_utc_us, min(limit, MAX_LISTED))
    async with reading(engine).connect() as connection:
        return await connection.run_sync(wanted.find)


@dataclass(frozen=True, slots=True)
class _TransferFilter:
    buyer: str
    verdict: str
    since_utc_us: int
    limit: int

    def find(self, connection: Connection) -> list[TransferRow]:
        found = [] if self.verdict == OPEN else self._settled(connection)
        if self.verdict in ("", OPEN):
            found += self._open(connection)
        return sorted(found, key=lambda row: (row.started_utc_us, row.transfer), reverse=True)[: self.limit]

    def _settled(self, connection: Connection) -> list[TransferRow]:
        columns = [outcomes.c[name] for name in TransferRow.__slots__]
        query = select(*columns).where(outcomes.c.started_utc_us >= self.since_utc_us)
        if self.buyer:
            query = query.where(outcomes.c.buyer == self.buyer)
        if self.verdict:
            query = query.where(outcomes.c.verdict == self.verdict)
        newest = query.order_by(outcomes.c.started_utc_us.desc()).limit(self.limit)
        return [TransferRow(*row) for row in connection.execute(newest)]

    def _open(self, connection: Connection) -> list[TransferRow]:
        found = []
        for row in self._started(connection):
            one = _open_row(row)
            if self.buyer in ("", one.buyer):
                found.append(one)
            if len(found) == self.limit:
                break
        return found

    def _started(self, connection: Connection) -> Iterator[Row[Any, Any, Any]]:
        """Started and without outcome, newest boot first; boot by boot, so that the index bounds each look."""
        since = self.since_utc_us or time.time_ns() // 1000 - OPEN_WITHIN_US
        for router, boot in connection.execute(
            select(boots.c.router, boots.c.boot).order_by(boots.c.started_utc_us.desc())
        ).all():
            yield from connection.execute(
                select(facts.c.transfer, facts.c.utc_us, facts.c.payload)
                .where(facts.c.router == router, facts.c.boot == boot, STARTED, facts.c.utc_us >= since)
                .where(~select(outcomes.c.transfer).where(outcomes.c.transfer == facts.c.transfer).exists())
                .order_by(facts.c.utc_us.desc())
            ).all()


def _open_row(row: Row[Any, Any, Any]) -> TransferRow:
    start = stored_start(row.payload)
    return TransferRow(
        transfer=row.transfer,
        call_id=start.call_id or "",
        dialer=start.dialer or "",
        campaign=start.campaign or "",
        buyer=start.buyer or "",
        phone=start.phone or "",
        started_utc_us=row.utc_us,
        buffer_ms=start.buffer_ms or 0,
    )
