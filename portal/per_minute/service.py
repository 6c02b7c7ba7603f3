"""What the routes and the pages of per-minute service call: each call is one transaction of the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from meter.book.sql.contracts import Contract, read_contract
from meter.per_minute.interactions import RatingKind, read_report
from meter.per_minute.sql.interactions import Interaction, InteractionFilter, add, find, find_all
from meter.per_minute.sql.ratings import file_rating
from meter.per_minute.sql.reports import Report, read, read_all
from meter.store.clerk import Clerk
from meter.text.links import LinkOptions
from portal.http.services import Service


class PerMinuteService(Service):
    """Keeps and shows interactions, files ratings, shows reports. `links` None: nobody is asked. `clock`: us UTC."""

    title = "per-minute service"

    def __init__(
        self,
        clerk: Clerk,
        links: LinkOptions | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._clerk = clerk
        self.links = links
        self._clock = clock

    async def add(self, given: Mapping[str, Any]) -> tuple[Interaction, bool]:
        """Keep and charge a report; whether it is new. Raises InteractionError."""
        now = self._clock()
        reported = read_report(given, now)
        ask = self.links is not None
        return await self._clerk.write(lambda connection: add(connection, reported, now, ask=ask))

    async def find(self, interaction: str, buyer: str = "") -> Interaction:
        """The interaction of this id; with `buyer`, only if it is that buyer's. Raises InteractionError."""
        return await self._clerk.read(lambda connection: find(connection, interaction, buyer))

    async def find_all(self, wanted: InteractionFilter) -> list[Interaction]:
        return await self._clerk.read(lambda connection: find_all(connection, wanted))

    async def rate(self, interaction: str, kind: RatingKind, rating: tuple[int, str, str]) -> Interaction:
        """File a rating: its value, its words and who rates. Raises InteractionError."""
        now = self._clock()
        return await self._clerk.write(lambda connection: file_rating(connection, interaction, kind, rating, now))

    async def contract(self, buyer: str) -> Contract:
        """A buyer's contract. Raises UnknownBuyerError."""
        return await self._clerk.read(lambda connection: read_contract(connection, buyer))

    async def report(self, buyer: str, day: str) -> Report:
        """The daily report of a day. Raises UnknownReportError."""
        return await self._clerk.read(lambda connection: read(connection, buyer, day))

    async def reports(self, buyer: str, limit: int, before: str, after: tuple[str, str] | None = None) -> list[Report]:
        """At most `limit` daily reports of days before `before`, the newest first, those after (day, buyer)."""
        return await self._clerk.read(lambda connection: read_all(connection, buyer, limit, before, after))
