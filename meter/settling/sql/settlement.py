"""The meter's transactions: reads the next closing facts, and settles them in one commit.

The cursor of a (router, boot) moves in the very transaction that writes outcomes, postings and outbox rows, and only
from where this meter read it; so a second meter, a kill or a replay settles nothing twice. The unique keys of the three
tables say the same again: a row that is there stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, and_, func, literal_column, select, update
from sqlalchemy.dialects import postgresql

from facts.fact import Fact
from meter.journal.rows import read_row
from meter.journal.sql.reading import CLOSED, histories
from meter.ledger.accounts import Posting
from meter.ledger.sql.ledger import append
from meter.per_minute.sql.interactions import askers
from meter.store.money_schema import interactions
from meter.store.schema import boots, facts, meter_cursors, outbox, outcomes

MAX_TRANSFERS = 12  # in one transaction: outcome, posting and two messages each, and the cursor: 49 rows
MANY_TRANSFERS = 120  # while there is a backlog: a commit costs as much as twelve do (docs/decisions/072)

Columns = dict[str, Any]


class CursorMovedError(RuntimeError):
    """Somebody else has settled this boot meanwhile; read again."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Transfers of one boot to settle next: closing facts in order, and every fact of their transfers."""

    router: str
    boot: str
    cursor: int
    closings: list[Fact]
    histories: dict[str, list[Fact]]


@dataclass(frozen=True, slots=True)
class SettledRows:
    """The rows that one transfer adds."""

    outcome: Columns
    posting: Posting | None = None
    messages: list[Columns] = field(default_factory=list)
    interaction: Columns | None = None  # of a buyer who pays by the minute
    ask: Columns | None = None  # the message that asks its caller for a rating; queued where the buyer wants that


def boots_due(connection: Connection) -> list[tuple[str, str, int]]:
    """Each (router, boot) with closing facts after its cursor, and the cursor."""
    cursor = func.coalesce(meter_cursors.c.seq, 0)
    this = and_(facts.c.router == boots.c.router, facts.c.boot == boots.c.boot)
    query = (
        select(boots.c.router, boots.c.boot, cursor)
        .outerjoin_from(
            boots,
            meter_cursors,
            and_(meter_cursors.c.router == boots.c.router, meter_cursors.c.boot == boots.c.boot),
        )
        .where(select(literal_column("1")).where(this, CLOSED, facts.c.seq > cursor).exists())
        .order_by(boots.c.started_utc_us)
    )
    return [(router, boot, seq) for router, boot, seq in connection.execute(query)]


def read_batch(connection: Connection, router: str, boot: str, cursor: int, limit: int = MAX_TRANSFERS) -> Batch:
    """The next closing facts of one boot, at most `limit`, and the facts of their transfers."""
    this = (facts.c.router == router, facts.c.boot == boot)
    query = select(facts).where(*this, CLOSED, facts.c.seq > cursor).order_by(facts.c.seq).limit(limit)
    closings = [read_row(row) for row in connection.execute(query)]
    found = histories(connection, router, boot, list({closing.transfer for closing in closings})) if closings else {}
    return Batch(router, boot, cursor, closings, found)


def write_batch(connection: Connection, batch: Batch, rows: Sequence[SettledRows]) -> set[str]:
    """Write everything and move the cursor; the transfers that were not settled before. Raises CursorMovedError."""
    _move_cursor(connection, batch)
    wanted = [one.outcome["transfer"] for one in rows]
    known = set(connection.execute(select(outcomes.c.transfer).where(outcomes.c.transfer.in_(wanted))).scalars())
    fresh = {one.outcome["transfer"]: one for one in rows if one.outcome["transfer"] not in known}
    _add(connection, outcomes, [one.outcome for one in fresh.values()])
    append(connection, [one.posting for one in fresh.values() if one.posting is not None])
    _add(connection, interactions, [one.interaction for one in fresh.values() if one.interaction is not None])
    asks = _asks(connection, list(fresh.values()))
    _add(connection, outbox, [message for one in fresh.values() for message in one.messages] + asks)
    return set(fresh)


def _asks(connection: Connection, rows: Sequence[SettledRows]) -> list[Columns]:
    """The questions to callers of those buyers who want them asked."""
    asking = [
        (one.interaction["buyer"], one.ask) for one in rows if one.ask is not None and one.interaction is not None
    ]
    wanted = askers(connection, {buyer for buyer, _ in asking})
    return [ask for buyer, ask in asking if buyer in wanted]


def _move_cursor(connection: Connection, batch: Batch) -> None:
    this = and_(meter_cursors.c.router == batch.router, meter_cursors.c.boot == batch.boot)
    last = batch.closings[-1].seq
    moved = connection.execute(
        update(meter_cursors).where(this, meter_cursors.c.seq == batch.cursor).values(seq=last)
    ).rowcount
    if moved:
        return
    if connection.execute(select(meter_cursors.c.seq).where(this)).first() is not None:
        raise CursorMovedError(f"the cursor of boot {batch.boot!r} is no longer at {batch.cursor}")
    _add(connection, meter_cursors, [{"router": batch.router, "boot": batch.boot, "seq": last}])


def _add(connection: Connection, table: Table, rows: list[Columns]) -> None:
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(postgresql.insert(table).on_conflict_do_nothing(), rows)
        return
    names = tuple(rows[0])
    connection.exec_driver_sql(_insert_or_keep(table.name, names), [tuple(map(row.__getitem__, names)) for row in rows])


@cache
def _insert_or_keep(table: str, names: tuple[str, ...]) -> str:
    """INSERT that leaves a row that is there as it is."""
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608 - our names
