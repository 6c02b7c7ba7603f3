"""Orders, payments and documents page by page, each in an order that nothing which comes later changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, select, tuple_

from book.model import Book, Buyer
from book.terms import in_force
from meter.billing.sql import documents as issued
from meter.billing.sql.documents import Document
from meter.book.sql.book import read_buyer
from meter.book.sql.contracts import read_contract
from meter.book.sql.order_rows import COLUMNS, order_of_row
from meter.book.sql.orders import OrderProgress, progress_of
from meter.store.money_schema import INVOICE_IS_OPEN, documents, payments
from meter.store.schema import orders

MOST = 5_000  # rows at once
IssuedKey = tuple[int, str, int]  # of a document: when it was issued, its series, its number in that


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order with what it has come to. `invoice` is empty until it is invoiced."""

    progress: OrderProgress
    invoice: str


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """A payment as it was recorded. Times in microseconds UTC; `reversed_utc_us` None: it stands."""

    id: int
    buyer: str
    document: str | None
    reference: str
    amount_minor: int
    currency: str
    received_on: str
    method: str
    note: str
    recorded_utc_us: int
    by: str
    reversed_utc_us: int | None
    reversed_by: str | None
    reversed_why: str | None


_PAYMENT = tuple(payments.c[name] for name in PaymentRow.__slots__)


def orders_after(
    connection: Connection, buyer: str, after: tuple[str, str] | None, limit: int, now: datetime
) -> list[OrderRow]:
    """By buyer and week, those after (buyer, week); of one buyer where one is named. Raises UnknownBuyerError."""
    query = select(*COLUMNS)
    if buyer:
        read_contract(connection, buyer)
        query = query.where(orders.c.buyer == buyer)
    if after is not None:
        query = query.where(tuple_(orders.c.buyer, orders.c.week) > after)
    rows = connection.execute(query.order_by(orders.c.buyer, orders.c.week).limit(min(limit, MOST))).all()
    book = Book(buyers={name: one for name in {row.buyer for row in rows} if (one := _priced(connection, name, now))})
    return [OrderRow(progress_of(connection, book, order_of_row(row)), row.invoice or "") for row in rows]


def payments_before(connection: Connection, buyer: str, before: int | None, limit: int) -> list[PaymentRow]:
    """The newest first, those recorded before the one of that id. Raises UnknownBuyerError."""
    query = select(*_PAYMENT)
    if buyer:
        read_contract(connection, buyer)
        query = query.where(payments.c.buyer == buyer)
    if before is not None:
        query = query.where(payments.c.id < before)
    rows = connection.execute(query.order_by(payments.c.id.desc()).limit(min(limit, MOST)))
    return [PaymentRow(*row) for row in rows]


def documents_before(
    connection: Connection,
    buyer: str,
    before: IssuedKey | None,
    limit: int,
    *,
    series: str = "",
    open_only: bool = False,
) -> list[tuple[Document, IssuedKey]]:
    """The newest first, those issued before (time, series, sequence), each with these three.

    Raises UnknownBuyerError.
    """
    key = (documents.c.issued_utc_us, documents.c.series, documents.c.sequence)
    query = select(documents.c.number, *key)
    if buyer:
        read_contract(connection, buyer)
        query = query.where(documents.c.buyer == buyer)
    if series:
        query = query.where(documents.c.series == series)
    if open_only:
        query = query.where(INVOICE_IS_OPEN)
    if before is not None:
        query = query.where(tuple_(*key) < before, documents.c.issued_utc_us <= before[0])
    rows = connection.execute(query.order_by(*(one.desc() for one in key)).limit(min(limit, MOST))).all()
    return [(issued.find(connection, number), (at, kind, sequence)) for number, at, kind, sequence in rows]


def _priced(connection: Connection, name: str, now: datetime) -> Buyer | None:
    """A buyer with the terms in force; None where there are none."""
    found = read_buyer(connection, name)
    terms = in_force(found[2], now) if found is not None else None
    if found is None or terms is None:
        return None
    return replace(found[0], terms=terms)
