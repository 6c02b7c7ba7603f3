"""What the routes for credits and the page of signed links call: each call is one transaction of the store."""

from __future__ import annotations

import time
from collections.abc import Callable

from meter.book.sql.contracts import read_contract
from meter.credits.rules import Reason, ReasonBook
from meter.credits.sql.reading import CreditCandidate, CreditFilter, Request, find, find_all, see
from meter.credits.sql.requests import CreditApplication, Decision, ask, decide, re_review
from meter.store.clerk import Clerk
from meter.text.links import LinkOptions
from portal.http.services import Service


class CreditsService(Service):
    """Files, shows and decides requests. `links` None: nobody has a link, so no page. `clock`: microseconds UTC."""

    title = "service for credits"

    def __init__(
        self,
        clerk: Clerk,
        reasons: ReasonBook,
        links: LinkOptions | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._clerk = clerk
        self.reasons = reasons
        self.links = links
        self.clock = clock

    async def ask(self, transfer: str, buyer: str, asked: CreditApplication) -> Request:
        """File a request; `buyer` empty: whoever was billed. Raises CreditError, UnknownBuyerError."""
        now = self.clock()
        return await self._clerk.write(
            lambda connection: ask(connection, (transfer, buyer), asked, self.reasons, now)  # one transaction
        )

    async def decide(self, request: int, decision: Decision) -> Request:
        """Decide the oldest open request. Raises CreditError."""
        now = self.clock()
        return await self._clerk.write(lambda connection: decide(connection, request, decision, now))

    async def re_review(self, request: int, asked: CreditApplication) -> Request:
        """Put a decided request into the line once more. Raises CreditError."""
        now = self.clock()
        return await self._clerk.write(lambda connection: re_review(connection, request, asked, now))

    async def find(self, request: int) -> Request:
        """The request of this id. Raises CreditError."""
        return await self._clerk.read(lambda connection: find(connection, request))

    async def find_all(self, wanted: CreditFilter) -> list[Request]:
        return await self._clerk.read(lambda connection: find_all(connection, wanted))

    async def see(self, transfer: str, buyer: str) -> CreditCandidate:
        """A call as its buyer sees it. Raises UnknownBuyerError."""
        return await self._clerk.read(lambda connection: see(connection, transfer, buyer))

    async def reasons_of(self, buyer: str) -> tuple[str, dict[str, Reason]]:
        """A buyer's category and its reasons by name. Raises UnknownBuyerError."""
        contract = await self._clerk.read(lambda connection: read_contract(connection, buyer))
        category = contract.buyer.category
        return category, self.reasons.of(category)
