"""The office for money: what the API's routes stand on."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import Kind, first_of
from facts.ladder import Ladder, build_ladder
from facts.start_payload import buyer as buyer_of
from meter.billing.documents import paper
from meter.billing.sql.documents import Document
from meter.billing.sql.forecasting import OrderForecast, forecasts
from meter.billing.sql.operations import BillingStore, detail_of
from meter.billing.sql.pages import IssuedKey, PaymentRow, documents_before, payments_before
from meter.journal.sql.reading import facts_of
from meter.settling.sql.transfers import SettledTransfer, Wanted, settled
from meter.store.clerk import Clerk

AT_ONCE = 2  # documents drawn at the same time: each takes a core for a while


class MoneyOffice:
    """What the routes stand on."""

    def __init__(self, engine: AsyncEngine, clerk: Clerk) -> None:
        self.billing = BillingStore(engine)
        self._engine = engine
        self._clerk = clerk
        self._drawing = asyncio.Semaphore(AT_ONCE)

    async def paper(self, number: str, form: str) -> bytes:
        """A document as HTML or PDF. Raises PaperError, UnknownDocumentError."""
        async with self._drawing:
            return await paper(self._clerk, number, form)

    async def detail(self, number: str) -> str:
        """The transfers behind a document, as CSV: made off the loop. Raises PaymentError, UnknownDocumentError."""
        return await self._clerk.read(lambda connection: detail_of(connection, number))

    async def forecasts(self, buyer: str) -> list[OrderForecast]:
        """The running weeks. Raises UnknownBuyerError."""
        return await forecasts(self._engine, time.time_ns() // 1000, buyer)

    async def payments(self, buyer: str, before: int | None, limit: int) -> list[PaymentRow]:
        """The newest first, those before the one of that id. Raises UnknownBuyerError."""
        return await self._clerk.read(lambda connection: payments_before(connection, buyer, before, limit))

    async def documents(
        self, buyer: str, before: IssuedKey | None, limit: int, *, series: str = "", open_only: bool = False
    ) -> list[tuple[Document, IssuedKey]]:
        """The newest first, those before that one, each with its key. Raises UnknownBuyerError."""
        return await self._clerk.read(
            lambda connection: documents_before(connection, buyer, before, limit, series=series, open_only=open_only)
        )

    async def settled(self, wanted: Wanted, after: str, limit: int) -> list[SettledTransfer]:
        """Settled transfers after that one. Raises UnknownTransferError."""
        since = replace(wanted, after=after)
        return await self._clerk.read(lambda connection: settled(connection, since, limit))

    async def ladder(self, transfer: str, buyer: str) -> Ladder | None:
        """The account of a transfer, of this buyer where one is named; None where there is none."""
        facts = await self._clerk.read(lambda connection: facts_of(connection, transfer))
        started = first_of(facts, Kind.TRANSFER_STARTED)
        if started is None or (buyer and buyer_of(started) != buyer):
            return None
        return build_ladder(facts)
