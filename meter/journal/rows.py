"""A fact as a row of the table `facts`, and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any

import orjson
from sqlalchemy import Connection, Dialect, insert

from facts.fact import Fact, Kind
from meter.store.schema import facts as facts_table

MAX_ROWS_BITS = 6  # 64 rows of 12 values in a statement: SQLite takes 32,766 values

Row = tuple[Any, ...]  # one fact in the order of the table's columns
SEQ = facts_table.c.keys().index("seq")
UTC_US = facts_table.c.keys().index("utc_us")
DIGEST = facts_table.c.keys().index("digest")

_KINDS = {kind.value: kind for kind in Kind}


def make_row(fact: Fact, previous: bytes) -> tuple[Fact, Row]:
    """The fact's row in the chain after the digest `previous`, and the fact itself, mended where it had to be."""
    try:
        digest = fact.digest(previous)
    except TypeError:
        fact = _mended(fact)
        digest = fact.digest(previous)
    return fact, (
        fact.router,
        fact.boot,
        fact.seq,
        fact.transfer,
        fact.kind.value,
        fact.utc_us,
        fact.mono_us,
        fact.lag_us,
        fact.origin,
        fact.leg,
        orjson.dumps(fact.payload, option=orjson.OPT_SORT_KEYS),
        digest,
    )


def insert_rows(connection: Connection, rows: list[Row]) -> None:
    """Insert rows of facts. The statement is compiled once, and the rows are the driver's own parameters already.

    On SQLite many rows go in one statement: `executemany` gives the interpreter's lock away and takes it back for every
    row, and beside a busy SIP loop each time may wait for it.
    """
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(_insert_for(connection.dialect), rows)
        return
    at = 0
    while at < len(rows):
        size = 1 << min(MAX_ROWS_BITS, (len(rows) - at).bit_length() - 1)  # few sizes, so few statements to compile
        chunk = rows[at : at + size]
        execute_bare(connection, _insert_many(connection.dialect, size), tuple(chain.from_iterable(chunk)))
        at += size


def execute_bare(connection: Connection, statement: str, values: Sequence[Any]) -> list[Any]:
    """Run a statement on SQLite inside the transaction that SQLAlchemy has begun, and fetch what it gives.

    On a plain connection the driver is asked directly, for a tenth of the price; an async engine's has to go around.
    """
    own = connection.connection.driver_connection
    if isinstance(own, sqlite3.Connection):
        return own.execute(statement, values).fetchall()
    found = connection.exec_driver_sql(statement, tuple(values))
    return list(found.all()) if found.returns_rows else []


@cache
def _insert_many(dialect: Dialect, rows: int) -> str:
    head, values = _insert_for(dialect).split(" VALUES ")
    return f"{head} VALUES {', '.join([values] * rows)}"


@cache
def _insert_for(dialect: Dialect) -> str:
    return str(insert(facts_table).compile(dialect=dialect))


def read_row(row: Sequence[Any]) -> Fact:
    """A row of the table as a fact. Raises ValueError for a kind or payload that this version cannot read."""
    router, boot, seq, transfer, kind, utc_us, mono_us, lag_us, origin, leg, payload, _ = row
    known = _KINDS.get(kind)
    if known is None:
        raise ValueError(f"kind: {kind!r} is not known to this version")
    return Fact(
        router=router,
        boot=boot,
        seq=seq,
        transfer=transfer,
        kind=known,
        utc_us=utc_us,
        mono_us=mono_us,
        lag_us=lag_us,
        origin=origin,
        leg=leg,
        payload=orjson.loads(payload),
    )


def _mended(fact: Fact) -> Fact:
    """The same fact with lone surrogates (bytes of the network that are not UTF-8) replaced."""
    return Fact(
        router=fact.router,
        boot=fact.boot,
        seq=fact.seq,
        transfer=_mend(fact.transfer),
        kind=fact.kind,
        utc_us=fact.utc_us,
        mono_us=fact.mono_us,
        lag_us=fact.lag_us,
        origin=fact.origin,
        leg=fact.leg,
        payload=_mend(fact.payload),
    )


def _mend(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_mend(key): _mend(one) for key, one in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [_mend(one) for one in value]
    return value
