"""The office for the book: what the API's routes for buyers, endpoints and orders stand on, a transaction each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import BuyerState, Order
from meter.billing.sql.pages import OrderRow, orders_after
from meter.book.sql.editing import (
    BookRules,
    Kept,
    Raw,
    Saved,
    find_buyer,
    find_buyers,
    put_buyer,
    set_own_state,
    switched,
    with_endpoint,
)
from meter.book.sql.orders import OrderStore, warnings_of
from meter.book.sql.stops import StateChange, set_state
from meter.mail.sql.recipients import order_warnings
from meter.store.clerk import Clerk

Expected = Callable[[str], bool]


class BookOffice:
    """Shows and changes buyers, their endpoints and their orders. `clock` gives aware UTC."""

    def __init__(
        self,
        engine: AsyncEngine,
        clerk: Clerk,
        rules: BookRules,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clerk = clerk
        self._rules = rules
        self._clock = clock
        self._orders = OrderStore(engine)

    async def buyers(self, after: str, limit: int) -> list[Kept]:
        """By name, those after that one."""
        now = self._clock()
        return await self._clerk.read(lambda connection: find_buyers(connection, now, after, limit))

    async def buyer(self, name: str) -> Kept:
        """Raises UnknownBuyerError."""
        now = self._clock()
        return await self._clerk.read(lambda connection: find_buyer(connection, name, now))

    async def put(self, name: str, raw: Raw, expected: Expected | None) -> Saved:
        """Create or replace a buyer. Raises what `put_buyer` raises."""
        return await self._change(name, lambda _: raw, expected)

    async def put_endpoint(self, buyer: str, name: str, raw: Raw | None, expected: Expected | None) -> Saved:
        """Create or replace an endpoint; None: take it away. Raises what `put_buyer` raises."""
        return await self._change(buyer, lambda before: with_endpoint(before, name, raw, buyer), expected)

    async def switch(self, buyer: str, name: str, *, enabled: bool) -> Saved:
        """Switch an endpoint on or off. Raises what `put_buyer` raises."""
        return await self._change(buyer, lambda before: switched(before, name, enabled=enabled, buyer=buyer), None)

    async def set_state(self, name: str, state: BuyerState, by: str, reason: str, *, own: bool) -> StateChange:
        """Pause or resume; what that came to. `own`: by the buyer itself.

        Raises UnknownBuyerError, StateRefusedError.
        """
        at_us = int(self._clock().timestamp() * 1_000_000)
        work = set_own_state if own else set_state
        return await self._clerk.write(
            lambda connection: work(connection, name, state, by=by, reason=reason, now_utc_us=at_us)
        )

    async def orders(self, buyer: str, after: tuple[str, str] | None, limit: int) -> list[OrderRow]:
        """With what they have come to, by buyer and week. Raises UnknownBuyerError."""
        now = self._clock()
        return await self._clerk.read(lambda connection: orders_after(connection, buyer, after, limit, now))

    async def order(self, order: Order, by: str, *, keep_make_up: bool) -> tuple[Order | None, tuple[str, ...]]:
        """Set an order; the one before, and what is seldom meant. Raises OrderError, UnknownBuyerError."""
        before = await self._orders.set(order, by, keep_make_up=keep_make_up)
        now = self._clock()
        kept = await self._clerk.read(lambda connection: find_buyer(connection, order.buyer, now))
        if not order.quantity:
            return before, ()
        unreachable = await self._clerk.read(
            lambda connection: order_warnings(kept.buyer, connection, has_mail=self._rules.has_mail)
        )
        return before, warnings_of(order, kept.buyer.terms, now.date()) + unreachable

    async def _change(self, name: str, change: Callable[[Raw | None], Raw], expected: Expected | None) -> Saved:
        now = self._clock()
        return await self._clerk.write(
            lambda connection: put_buyer(connection, name, change, self._rules, now, expected=expected)
        )
