"""What gauges show of the store: how far settling is behind, orders of the week, and money asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Connection, func, select

from book.limits import spans_at
from book.model import Book
from meter.billing.sql.documents import IS_OPEN
from meter.book.sql.order_rows import COLUMNS, order_of_row
from meter.book.sql.orders import progress_of
from meter.journal.sql.reading import CLOSED
from meter.settling.sql.settlement import boots_due
from meter.store.money_schema import buyer_states, documents, ledger_heads, postings
from meter.store.schema import buyers, facts, orders


@dataclass(frozen=True, slots=True)
class OrderNow:
    """This week's order of a buyer, in units as the order counts them."""

    KINDS: ClassVar[tuple[str, ...]] = ("ordered", "delivered", "live", "most")

    buyer: str
    week: str  # ISO date of its Monday
    units: dict[str, int]  # by kind


@dataclass(frozen=True, slots=True)
class Money:
    """Invoices that are not paid: how many, and what they ask for, by currency, in hundredths of it."""

    unpaid: int
    unpaid_minor: dict[str, int]


def settle_lag(connection: Connection) -> int | None:
    """When the oldest closed transfer that has no outcome was closed, in microseconds UTC; None: all have one."""
    oldest: int | None = None
    for router, boot, cursor in boots_due(connection):
        this = (facts.c.router == router, facts.c.boot == boot, CLOSED, facts.c.seq > cursor)
        at = connection.execute(select(facts.c.utc_us).where(*this).order_by(facts.c.seq).limit(1)).scalar()
        if at is not None and (oldest is None or at < oldest):
            oldest = at
    return oldest


def newest_posting(connection: Connection) -> int | None:
    """When the newest posting was made, in microseconds UTC; None: there is none."""
    last = (postings.c.buyer == ledger_heads.c.buyer) & (postings.c.seq == ledger_heads.c.seq)
    query = select(func.max(postings.c.posted_utc_us)).select_from(ledger_heads.join(postings, last))
    return connection.execute(query).scalar()


def orders_now(book: Book, now_utc_us: int, connection: Connection) -> list[OrderNow]:
    """The orders of the week that it is for each buyer."""
    found = []
    for name, buyer in sorted(book.buyers.items()):
        week = spans_at(buyer, now_utc_us).week
        this = (orders.c.buyer == name, orders.c.week == week)
        row = connection.execute(select(*COLUMNS).where(*this)).one_or_none()
        if row is None:
            continue
        now = progress_of(connection, book, order_of_row(row))
        ordered = now.order.quantity + now.make_up
        units = dict(zip(OrderNow.KINDS, (ordered, now.units, now.live, now.most), strict=True))
        found.append(OrderNow(name, week, units))
    return found


def buyers_since(connection: Connection) -> dict[str, tuple[str, int | None]]:
    """The state of every buyer, and since when; None: it never was in another."""
    since = (
        select(buyer_states.c.buyer, func.max(buyer_states.c.at_utc_us).label("at"))
        .where(buyer_states.c.before != buyer_states.c.after)
        .group_by(buyer_states.c.buyer)
        .subquery()
    )
    query = select(buyers.c.name, buyers.c.state, since.c.at).outerjoin(since, since.c.buyer == buyers.c.name)
    return {name: (state, at) for name, state, at in connection.execute(query.order_by(buyers.c.name))}


def money_now(connection: Connection) -> Money:
    """Unpaid invoices."""
    asked = func.sum(documents.c.total_minor - documents.c.applied_minor)
    query = select(documents.c.currency, func.count(), asked).where(IS_OPEN).group_by(documents.c.currency)
    rows = connection.execute(query).all()
    return Money(sum(count for _, count, _ in rows), {currency: int(minor) for currency, _, minor in rows})
