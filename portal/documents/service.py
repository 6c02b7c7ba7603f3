"""What the routes for documents, remedies, balances and forecasts call."""

from __future__ import annotations

import asyncio
import time

from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing.documents import document_file
from meter.billing.sql.documents import Document
from meter.billing.sql.forecasting import OrderForecast, forecasts
from meter.billing.sql.operations import BillingStore, detail_of
from meter.billing.sql.pages import IssuedKey, documents_before
from meter.store.clerk import Clerk
from portal.http.services import Service

AT_ONCE = 2  # documents drawn at the same time: each takes a core for a while


class DocumentsService(Service):
    """Shows documents, balances and forecasts, and keeps what buyers choose for a shortfall."""

    title = "service for documents"

    def __init__(self, engine: AsyncEngine, clerk: Clerk) -> None:
        self.billing = BillingStore(engine)
        self._engine = engine
        self._clerk = clerk
        self._drawing = asyncio.Semaphore(AT_ONCE)

    async def document_file(self, number: str, form: str) -> bytes:
        """A document as HTML or PDF. Raises DocumentError, UnknownDocumentError."""
        async with self._drawing:
            return await document_file(self._clerk, number, form)

    async def detail(self, number: str) -> str:
        """The transfers behind a document, as CSV: made off the loop. Raises PaymentError, UnknownDocumentError."""
        return await self._clerk.read(lambda connection: detail_of(connection, number))

    async def forecasts(self, buyer: str) -> list[OrderForecast]:
        """Forecasts of the running weeks of a buyer's orders; `buyer` empty: of all. Raises UnknownBuyerError."""
        return await forecasts(self._engine, time.time_ns() // 1000, buyer)

    async def find_all(
        self, buyer: str, before: IssuedKey | None, limit: int, *, series: str = "", open_only: bool = False
    ) -> list[tuple[Document, IssuedKey]]:
        """At most `limit` documents before `before`, the newest first, with their keys. Raises UnknownBuyerError."""
        return await self._clerk.read(
            lambda connection: documents_before(connection, buyer, before, limit, series=series, open_only=open_only)
        )
