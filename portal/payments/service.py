"""What the routes for payments call."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing.sql.operations import BillingStore
from meter.billing.sql.pages import PaymentRow, payments_before
from meter.billing.sql.payments import Payment, PaymentResult
from meter.store.clerk import Clerk
from portal.http.services import Service


class PaymentsService(Service):
    """Shows payments, records them and takes them back."""

    title = "service for payments"

    def __init__(self, engine: AsyncEngine, clerk: Clerk) -> None:
        self._billing = BillingStore(engine)
        self._clerk = clerk

    async def find_all(self, buyer: str, before: int | None, limit: int) -> list[PaymentRow]:
        """At most `limit` payments with ids below `before`, the newest first. Raises UnknownBuyerError."""
        return await self._clerk.read(lambda connection: payments_before(connection, buyer, before, limit))

    async def pay(self, payment: Payment, by: str) -> PaymentResult:
        """Record a payment, once per reference. Raises PaymentError, UnknownBuyerError, UnknownDocumentError."""
        return await self._billing.pay(payment, by)

    async def reverse(self, buyer: str, reference: str, reason: str, by: str) -> list[str]:
        """Take a payment back; the invoices that are open again. Raises PaymentError."""
        return await self._billing.reverse_payment(buyer, reference, reason, by)
