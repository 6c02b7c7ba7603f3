"""Exports the rows of money as CSV or JSON Lines, and the general journal for accountants.

A row has the columns of its table, times in microseconds UTC as they are kept, amounts in minor units beside their
currency. Bytes are hex, documents of JSON stand as JSON. In CSV a text that a spreadsheet would run gets an apostrophe
in front; JSON Lines have every value as it is. Rows are read in pages on one consistent view.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Column, Connection, Select, Table, select

from meter.billing.sql.detail import Sink
from meter.book.sql.contracts import read_contracts
from meter.store import money_schema as money
from meter.store import schema
from meter.store.money_schema import postings
from meter.text.hostile import is_formula
from meter.text.localised import decimal_text

FORMATS = ("csv", "jsonl")
JOURNAL = "journal"
JOURNAL_COLUMNS = ("date", "entry", "account", "buyer", "debit", "credit", "currency", "document", "memo")
_PAGE = 5_000
_UNITS = ("unit", "increment")  # assets that are no money


@dataclass(frozen=True, slots=True)
class Entity:
    """A table that can be exported: which column says when, for a span of time; which are left out."""

    table: Table
    at: str = ""
    skipped: tuple[str, ...] = ()

    @property
    def columns(self) -> list[Column[Any]]:
        return [column for column in self.table.columns if column.name not in self.skipped]


ENTITIES: dict[str, Entity] = {
    "buyers": Entity(schema.buyers, skipped=("document",)),
    "credits": Entity(money.credit_requests, "asked_utc_us"),
    "documents": Entity(money.documents, "issued_utc_us"),
    "interactions": Entity(money.interactions, "received_utc_us"),
    "orders": Entity(schema.orders, "updated_utc_us"),
    "payments": Entity(money.payments, "recorded_utc_us"),
    "periods": Entity(money.billing_periods, "settled_utc_us"),
    "postings": Entity(money.postings, "posted_utc_us"),
    "ratings": Entity(money.ratings, "at_utc_us"),
    "refunds": Entity(money.refunds, "created_utc_us"),
    "remedies": Entity(money.remedies, "at_utc_us"),
    "reports": Entity(money.reports, "issued_utc_us"),
    "states": Entity(money.buyer_states, "at_utc_us"),
    "terms": Entity(schema.terms),
    "transfers": Entity(schema.outcomes, "started_utc_us", ("evidence",)),
}


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """The selection of an export. Instants in microseconds UTC, from `from_us` to before `to_us`; None: no bound."""

    entity: str
    form: str = "csv"
    buyer: str = ""
    from_us: int | None = None
    to_us: int | None = None


class ExportError(ValueError):
    """Something that cannot be exported; the message says what can."""


def export(connection: Connection, wanted: ExportFilter, sink: Sink) -> int:
    """Write the rows, in CSV after a heading line; how many. Raises ExportError."""
    if wanted.form not in FORMATS:
        raise ExportError(f"format: {wanted.form!r} is none of {', '.join(FORMATS)}")
    if wanted.entity == JOURNAL:
        return _write(wanted, JOURNAL_COLUMNS, _journal(connection, wanted), sink)
    entity = ENTITIES.get(wanted.entity)
    if entity is None:
        raise ExportError(f"{wanted.entity!r} is none of {', '.join(sorted([*ENTITIES, JOURNAL]))}")
    names = [str(column.name) for column in entity.columns]
    return _write(wanted, names, _rows(connection, _query(entity, wanted)), sink)


def _query(entity: Entity, wanted: ExportFilter) -> Select[Any]:
    table = entity.table
    query = select(*entity.columns)
    if wanted.buyer and "buyer" in table.c:
        query = query.where(table.c.buyer == wanted.buyer)
    elif wanted.buyer and table is schema.buyers:
        query = query.where(table.c.name == wanted.buyer)
    elif wanted.buyer:
        raise ExportError(f"{wanted.entity} are not of one buyer")
    if wanted.from_us is not None or wanted.to_us is not None:
        if not entity.at:
            raise ExportError(f"{wanted.entity} have no time by which they could be chosen")
        at = table.c[entity.at]
        query = query.where(at >= (wanted.from_us or 0))
        query = query if wanted.to_us is None else query.where(at < wanted.to_us)
    return query.order_by(*table.primary_key.columns)


def _rows(connection: Connection, query: Select[Any]) -> Iterator[Sequence[Any]]:
    found = connection.execution_options(yield_per=_PAGE).execute(query)
    for page in found.partitions(_PAGE):
        for row in page:
            yield tuple(_plain(value) for value in row)


def _plain(value: Any) -> Any:
    """Bytes are JSON, or else a digest or a key."""
    if not isinstance(value, bytes):
        return value
    try:
        return orjson.Fragment(value) if value[:1] in b"{[" and orjson.loads(value) is not None else value.hex()
    except orjson.JSONDecodeError:
        return value.hex()


def _write(wanted: ExportFilter, names: Sequence[str], rows: Iterator[Sequence[Any]], sink: Sink) -> int:
    count = 0
    if wanted.form == "jsonl":
        for row in rows:
            sink.write(orjson.dumps(dict(zip(names, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE).decode())
            count += 1
        return count
    writer = csv.writer(sink, lineterminator="\r\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
        count += 1
    return count


def _cell(value: Any) -> Any:
    if isinstance(value, orjson.Fragment):
        return orjson.dumps(value).decode()
    if isinstance(value, str) and is_formula(value):
        return "'" + value  # nothing else is changed: what leaves can come back
    return value


def _journal(connection: Connection, wanted: ExportFilter) -> Iterator[Sequence[Any]]:
    """Two lines for each posting of money: what it debits and what it credits, to be read by any bookkeeping.

    The day is that of the contract's zone.
    """
    query = select(postings).where(postings.c.asset.not_in(_UNITS), postings.c.dialout_utc_us.is_(None))
    at = postings.c.posted_utc_us
    if wanted.buyer:
        query = query.where(postings.c.buyer == wanted.buyer)
    query = query if wanted.from_us is None else query.where(at >= wanted.from_us)
    query = query if wanted.to_us is None else query.where(at < wanted.to_us)
    found = connection.execution_options(yield_per=_PAGE).execute(query.order_by(at, postings.c.buyer, postings.c.seq))
    now_us = time.time_ns() // 1000
    zones = {name: ZoneInfo(one.terms_at(now_us).time_zone) for name, one in read_contracts(connection).items()}
    for page in found.partitions(_PAGE):
        for row in page:
            zone = zones.get(row.buyer, UTC)
            day = datetime.fromtimestamp(row.posted_utc_us // 1_000_000, zone).date().isoformat()
            amount = decimal_text(row.amount, row.asset)
            memo = row.reason or f"{row.rule} {row.period or ''}".strip()
            rest = (row.asset, row.document or "", memo)
            yield (day, row.key, row.debit, row.buyer, amount, "", *rest)
            yield (day, row.key, row.credit, row.buyer, "", amount, *rest)
