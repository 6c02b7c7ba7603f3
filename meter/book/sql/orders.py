"""Orders in the store: what each buyer bought for a week, and how far it has come.

Setting one raises the book's version, so every router has it within its next look. The count is that of the admissions
table: what the routers go by when they say `order_filled`. Business errors: `UnknownBuyerError`, `OrderError`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

import structlog
from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from book.limits import clauses_of, make_up_of, midnight_us, order_most, order_units, spans_at
from book.model import Book, Order, Terms
from book.terms import in_force
from meter.book.sql.book import BookStore, UnknownBuyerError, raise_version, read_buyer
from meter.book.sql.order_rows import COLUMNS, order_of_row
from meter.journal.sql.admissions import CONNECTED, FAILED, IS_UNIT, LIVE, admit_before
from meter.ledger.sql import periods
from meter.ledger.sql.ledger import lock_heads
from meter.store.engine import reading
from meter.store.schema import admissions, buyers, orders

MAX_UNITS = 1_000_000  # of one order: a slip of the keyboard, not a wish

_log = structlog.get_logger(__name__)


class OrderError(ValueError):
    """An order that cannot be: the message names the field."""


@dataclass(frozen=True, slots=True)
class OrderProgress:
    """An order and what it has come to. `units` and `make_up` as the order counts; what is under way is in `live`."""

    order: Order
    connected: int = 0
    failed: int = 0
    live: int = 0
    units: int = 0
    make_up: int = 0
    most: int = 0  # with the overrun: then it is filled, and the router admits no more
    counts: str = "sent"  # or `billed`

    @property
    def left(self) -> int:
        """The units still to be delivered; 0 once the order is fulfilled."""
        return max(0, self.order.quantity + self.make_up - self.units)


@dataclass(frozen=True, slots=True)
class OrderNow:
    """This week's order of a buyer, in units as the order counts them."""

    KINDS: ClassVar[tuple[str, ...]] = ("ordered", "delivered", "live", "most")

    buyer: str
    week: str  # ISO date of its Monday
    units: dict[str, int]  # by kind


class OrderStore:
    """Sets and lists orders."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def set(self, order: Order, by: str, *, keep_make_up: bool = False) -> Order | None:
        """Put the order in the place of the one for that week; returns that one. `keep_make_up`: its make-up stays.

        Raises OrderError where the week is no Monday, a figure is out of range, the order was invoiced, its week
        settled, or make-up that was paid for would be lost; UnknownBuyerError.
        """
        _check(order)
        async with self._engine.begin() as connection:
            before = await connection.run_sync(_set, order, time.time_ns() // 1000, keep_make_up)
        _log.info("order_set", buyer=order.buyer, week=order.week, quantity=order.quantity, by=by)
        return before

    async def list(self, buyer: str = "") -> list[OrderProgress]:
        """All orders, or those of one buyer, by buyer and week. Raises UnknownBuyerError."""
        book = await BookStore(self._engine).load()
        if buyer and buyer not in book.buyers:
            raise UnknownBuyerError(f"no buyer is called {buyer!r}")
        async with reading(self._engine).connect() as connection:
            return await connection.run_sync(_progress, book, buyer)


def warnings_of(order: Order, terms: Terms, today: date) -> tuple[str, ...]:
    """Warnings: orders that are valid and seldom intended."""
    if not order.quantity:
        return ()
    found = []
    if date.fromisoformat(order.week) + timedelta(days=7) <= today:
        found.append("that week is over; its order will be invoiced all the same")
    if not terms.unit_price_minor:
        found.append(f"terms {terms.name!r} name no price of a unit: this order will be invoiced at nothing")
    return tuple(found)


def _check(order: Order) -> None:
    try:
        monday = date.fromisoformat(order.week).weekday() == 0
    except ValueError as error:
        raise OrderError(f"week: {order.week!r} is not a date, such as 2026-06-01") from error
    if not monday:
        raise OrderError(f"week: {order.week} is not a Monday, on which every service week begins")
    for name, value in (("quantity", order.quantity), ("make_up", order.make_up)):
        if not 0 <= value <= MAX_UNITS:
            raise OrderError(f"{name}: {value} is not between 0 and {MAX_UNITS:,}")


def set_order(connection: Connection, order: Order, now_utc_us: int, *, keep_make_up: bool) -> bool:
    """`OrderStore.set` on a connection; whether it changed anything."""
    _check(order)
    before = _set(connection, order, now_utc_us, keep_make_up)
    kept = replace(order, make_up=before.make_up) if keep_make_up and before is not None else order
    return before != kept


def _set(connection: Connection, order: Order, now_utc_us: int, keep_make_up: bool) -> Order | None:
    if connection.execute(select(buyers.c.name).where(buyers.c.name == order.buyer)).first() is None:
        raise UnknownBuyerError(f"no buyer is called {order.buyer!r}")
    lock_heads(connection, [order.buyer])  # whoever invoices it holds the same row
    this = (orders.c.buyer == order.buyer, orders.c.week == order.week)
    columns = (orders.c.quantity, orders.c.make_up, orders.c.make_up_owed, orders.c.invoice)
    found = connection.execute(select(*columns).where(*this)).one_or_none()
    before = None if found is None else Order(order.buyer, order.week, found.quantity, found.make_up)
    if keep_make_up and before is not None:
        order = replace(order, make_up=before.make_up)
    if before == order:
        return before
    if found is not None:
        _check_may_change(order, found)
    _check_is_open(connection, order)
    content = {"quantity": order.quantity, "make_up": order.make_up, "updated_utc_us": now_utc_us}
    if before is None:
        _count_what_came_before(connection, order, now_utc_us)
        connection.execute(insert(orders).values(buyer=order.buyer, week=order.week, **content))
    else:
        connection.execute(update(orders).where(*this).values(**content))
    raise_version(connection)
    return before


def _count_what_came_before(connection: Connection, order: Order, now_utc_us: int) -> None:
    found = read_buyer(connection, order.buyer)
    terms = in_force(found[2], datetime.fromtimestamp(now_utc_us // 1_000_000, UTC)) if found is not None else None
    if terms is not None:
        admit_before(connection, order.buyer, *_span(order, terms), now_utc_us)


def _span(order: Order, terms: Terms) -> tuple[int, int]:
    """Where the order's week begins and ends, in microseconds UTC."""
    monday = date.fromisoformat(order.week)
    return midnight_us(monday, terms.time_zone), midnight_us(monday + timedelta(days=7), terms.time_zone)


def _check_may_change(order: Order, row: Any) -> None:
    if row.invoice:
        raise OrderError(f"week: the order for {order.week} was invoiced as {row.invoice}; cancel that first")
    if order.make_up < row.make_up_owed:
        raise OrderError(f"make_up: {row.make_up_owed} are owed for an earlier week and cannot become fewer")


def _check_is_open(connection: Connection, order: Order) -> None:
    """A week is closed once, and weeks in their order: what is ordered for one that was could never be billed."""
    last = periods.last(connection, order.buyer, periods.WEEK)
    if last is not None and order.week <= last.period:
        raise OrderError(f"week: {order.week} is over: the week of {last.period} is settled")


def _progress(connection: Connection, book: Book, buyer: str) -> list[OrderProgress]:
    query = select(*COLUMNS)
    if buyer:
        query = query.where(orders.c.buyer == buyer)
    rows = connection.execute(query.order_by(orders.c.buyer, orders.c.week)).all()
    return [progress_of(connection, book, order_of_row(row)) for row in rows]


def progress_of(connection: Connection, book: Book, order: Order) -> OrderProgress:
    """The progress of an order, by the admissions of its week."""
    buyer = book.buyers.get(order.buyer)
    terms = buyer.terms if buyer is not None else Terms("")  # its terms are not in force yet
    states = dict(_states(connection, order, terms))
    connected, failed, live = (states.get(state, 0) for state in (CONNECTED, FAILED, LIVE))
    return OrderProgress(
        order,
        connected,
        failed,
        live,
        units=order_units(terms, order, connected, failed),
        make_up=make_up_of(terms, order),
        most=order_most(terms, order),
        counts=clauses_of(terms, order).counts,
    )


def _states(connection: Connection, order: Order, terms: Terms) -> Sequence[tuple[str, int]]:
    at = admissions.c.admitted_utc_us
    since, until = _span(order, terms)
    query = select(admissions.c.state, func.count()).group_by(admissions.c.state)
    found = connection.execute(query.where(admissions.c.buyer == order.buyer, at >= since, at < until, IS_UNIT))
    return [(state, count) for state, count in found]


def orders_now(connection: Connection, book: Book, now_utc_us: int) -> list[OrderNow]:
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
