"""What the routes for orders call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import Order
from meter.billing.sql.pages import OrderRow, orders_after
from meter.book.sql.editing import find_buyer
from meter.book.sql.orders import OrderStore, warnings_of
from meter.mail.sql.recipients import order_warnings
from meter.store.clerk import Clerk
from portal.http.services import Service


class OrdersService(Service):
    """Shows and sets orders. `has_mail`: a buyer can be reached by e-mail. `clock` gives aware UTC."""

    title = "book"

    def __init__(
        self,
        engine: AsyncEngine,
        clerk: Clerk,
        *,
        has_mail: bool,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clerk = clerk
        self._has_mail = has_mail
        self._clock = clock
        self._orders = OrderStore(engine)

    async def find_all(self, buyer: str, after: tuple[str, str] | None, limit: int) -> list[OrderRow]:
        """Orders with their progress by buyer and week, those after `after`. Raises UnknownBuyerError."""
        now = self._clock()
        return await self._clerk.read(lambda connection: orders_after(connection, buyer, after, limit, now))

    async def set(self, order: Order, by: str, *, keep_make_up: bool) -> tuple[Order | None, tuple[str, ...]]:
        """Set an order; the one before it, and warnings. Raises OrderError, UnknownBuyerError."""
        before = await self._orders.set(order, by, keep_make_up=keep_make_up)
        now = self._clock()
        kept = await self._clerk.read(lambda connection: find_buyer(connection, order.buyer, now))
        if not order.quantity:
            return before, ()
        unreachable = await self._clerk.read(
            lambda connection: order_warnings(connection, kept.buyer, has_mail=self._has_mail)
        )
        return before, warnings_of(order, kept.buyer.terms, now.date()) + unreachable
