"""Orders in the store: what each buyer bought for a week, and how far it has come.

Setting one raises the book's version, so every router has it within its next look. The count is that of the admissions
table: what the routers go by when they say `order_filled`. Business errors: `UnknownBuyerError`, `OrderError`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from config.book import Book, Order, Terms
from config.limits import midnight_us, order_most, order_units
from meter.store import periods
from meter.store.admissions import CONNECTED, FAILED, IS_UNIT, LIVE
from meter.store.book import BookStore, UnknownBuyerError, raise_version
from meter.store.db import reading
from meter.store.ledger import lock_heads
from meter.store.schema import admissions, buyers, orders

MAX_UNITS = 1_000_000  # of one order: a slip of the keyboard, not a wish

_log = structlog.get_logger(__name__)


class OrderError(ValueError):
    """An order that cannot be: the message names the field."""


@dataclass(frozen=True, slots=True)
class OrderProgress:
    """An order and what it has come to. `units` as the order counts them; those under way are apart, in `live`."""

    order: Order
    connected: int = 0
    failed: int = 0
    live: int = 0
    units: int = 0
    most: int = 0  # units with the overrun: then it is filled
    counts: str = "billed"  # or `sent`

    @property
    def left(self) -> int:
        """Units still to be delivered; 0 once it is fulfilled."""
        return max(0, self.order.quantity + self.order.make_up - self.units)


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
    """What can be ordered and is seldom meant."""
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
    columns = (orders.c.quantity, orders.c.make_up, orders.c.make_up_minor, orders.c.invoice)
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
        connection.execute(insert(orders).values(buyer=order.buyer, week=order.week, **content))
    else:
        connection.execute(update(orders).where(*this).values(**content))
    raise_version(connection)
    return before


def _check_may_change(order: Order, found: Any) -> None:
    if found.invoice:
        raise OrderError(f"week: the order for {order.week} was invoiced as {found.invoice}; cancel that first")
    if found.make_up_minor and order.make_up < found.make_up:
        raise OrderError(f"make_up: {found.make_up} units were paid for in an earlier week and cannot become fewer")


def _check_is_open(connection: Connection, order: Order) -> None:
    """A week is settled once, and weeks in their order: what is ordered for one that was could never be billed."""
    last = periods.last(connection, order.buyer, periods.WEEK)
    if last is not None and order.week <= last.period:
        raise OrderError(f"week: {order.week} is over: the week of {last.period} is settled")


def _progress(connection: Connection, book: Book, buyer: str) -> list[OrderProgress]:
    query = select(orders.c.buyer, orders.c.week, orders.c.quantity, orders.c.make_up)
    if buyer:
        query = query.where(orders.c.buyer == buyer)
    rows = connection.execute(query.order_by(orders.c.buyer, orders.c.week)).all()
    return [progress_of(connection, book, Order(*row)) for row in rows]


def progress_of(connection: Connection, book: Book, order: Order) -> OrderProgress:
    """What an order has come to, by the admissions of its week."""
    buyer = book.buyers.get(order.buyer)
    terms = buyer.terms if buyer is not None else Terms("")  # its terms are not in force yet
    states = dict(_states(connection, order, terms))
    connected, failed, live = (states.get(state, 0) for state in (CONNECTED, FAILED, LIVE))
    units = order_units(terms, connected, failed)
    return OrderProgress(order, connected, failed, live, units, order_most(terms, order), terms.order_counts)


def _states(connection: Connection, order: Order, terms: Terms) -> Sequence[tuple[str, int]]:
    monday = date.fromisoformat(order.week)
    at = admissions.c.admitted_utc_us
    since, until = (midnight_us(monday + timedelta(days=days), terms.time_zone) for days in (0, 7))
    query = select(admissions.c.state, func.count()).group_by(admissions.c.state)
    found = connection.execute(query.where(admissions.c.buyer == order.buyer, at >= since, at < until, IS_UNIT))
    return [(state, count) for state, count in found]
