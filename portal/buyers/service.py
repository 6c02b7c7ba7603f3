"""What the routes for buyers and their endpoints call: each call is one transaction of the store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from book.model import BuyerState
from meter.book.sql.editing import (
    BookRules,
    BuyerRecord,
    ChangeResult,
    Raw,
    find_buyer,
    find_buyers,
    put_buyer,
    set_own_state,
    switched,
    with_endpoint,
)
from meter.book.sql.stops import StateChange, set_state
from meter.store.clerk import Clerk
from portal.http.services import Service

Expected = Callable[[str], bool]


class BuyersService(Service):
    """Shows and changes buyers and their endpoints. `clock` gives aware UTC."""

    title = "book"

    def __init__(
        self,
        clerk: Clerk,
        rules: BookRules,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clerk = clerk
        self._rules = rules
        self._clock = clock

    async def find_all(self, after: str, limit: int) -> list[BuyerRecord]:
        """At most `limit` buyers by name, those after the name `after`."""
        now = self._clock()
        return await self._clerk.read(lambda connection: find_buyers(connection, now, after, limit))

    async def find(self, name: str) -> BuyerRecord:
        """The buyer of this name. Raises UnknownBuyerError."""
        now = self._clock()
        return await self._clerk.read(lambda connection: find_buyer(connection, name, now))

    async def put(self, name: str, raw: Raw, expected: Expected | None) -> ChangeResult:
        """Create or replace a buyer. Raises what `put_buyer` raises."""
        return await self._change(name, lambda _: raw, expected)

    async def put_endpoint(self, buyer: str, name: str, raw: Raw | None, expected: Expected | None) -> ChangeResult:
        """Create or replace an endpoint; None: take it away. Raises what `put_buyer` raises."""
        return await self._change(buyer, lambda before: with_endpoint(before, name, raw, buyer), expected)

    async def switch(self, buyer: str, name: str, *, enabled: bool) -> ChangeResult:
        """Switch an endpoint on or off. Raises what `put_buyer` raises."""
        return await self._change(buyer, lambda before: switched(before, name, enabled=enabled, buyer=buyer), None)

    async def set_state(self, name: str, state: BuyerState, by: str, reason: str, *, own: bool) -> StateChange:
        """Pause or resume a buyer; its state before and after. `own`: the buyer itself asks.

        Raises UnknownBuyerError, StateRefusedError.
        """
        at_us = int(self._clock().timestamp() * 1_000_000)
        work = set_own_state if own else set_state
        return await self._clerk.write(
            lambda connection: work(connection, name, state, by=by, reason=reason, now_utc_us=at_us)
        )

    async def _change(self, name: str, change: Callable[[Raw | None], Raw], expected: Expected | None) -> ChangeResult:
        now = self._clock()
        return await self._clerk.write(
            lambda connection: put_buyer(connection, name, change, self._rules, now, expected=expected)
        )
