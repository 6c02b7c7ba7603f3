"""Money for the command line and the portal: each method is one transaction. Amounts in minor units.

Business errors: `PaymentError`, `LedgerError`, `UnknownDocumentError`, `UnknownBuyerError`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing.arithmetic.cycle import DEFAULT_REMEDY, Remedy
from meter.billing.arithmetic.drafts import Issuer
from meter.billing.sql import documents, payments
from meter.billing.sql.detail import Sink, write_detail
from meter.billing.sql.documents import BillingRun, Document
from meter.billing.sql.export import ExportFilter, export
from meter.billing.sql.payments import Payment, PaymentError, PaymentResult
from meter.billing.sql.withheld import waits_for
from meter.book.sql.contracts import read_contract, read_contracts
from meter.ledger.accounts import Account, Posting
from meter.ledger.sql import ledger
from meter.mail.sql.messages import find_mail
from meter.mail.sql.recipients import hand_over, mark_handed, queue_again
from meter.store.engine import reading
from meter.store.money_schema import payments as payments_table
from meter.store.money_schema import remedies
from meter.store.schema import outbox

T = TypeVar("T")


def detail_of(connection: Connection, number: str) -> str:
    """The transfers of the week or month that a document is for, as CSV.

    Raises UnknownDocumentError, and PaymentError where it stands for none.
    """
    document = documents.find(connection, number)
    if not document.period:
        raise PaymentError(f"{number} stands for no transfers")
    text = io.StringIO()
    write_detail(connection, document.buyer, document.period, text)
    return text.getvalue()


class BillingStore:
    """Documents, payments, checks, remedies and balances."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._engine = engine
        self._clock = clock

    async def documents(
        self, buyer: str = "", *, series: str = "", open_only: bool = False, limit: int = 0
    ) -> list[Document]:
        """Documents in the order in which they were issued; with `limit` the newest. Raises UnknownBuyerError."""

        def work(connection: Connection) -> list[Document]:
            if buyer:
                read_contract(connection, buyer)
            return documents.find_all(connection, buyer, series=series, open_only=open_only, limit=limit)

        return await self._read(work)

    async def document(self, number: str) -> Document:
        """One document. Raises UnknownDocumentError."""
        return await self._read(lambda connection: documents.find(connection, number))

    async def body(self, number: str) -> dict[str, Any]:
        """The frozen body of a document. Raises UnknownDocumentError."""
        return await self._read(lambda connection: documents.body(connection, number))

    async def detail(self, number: str) -> str:
        """The transfers behind a document's lines, as CSV; of an order those of its week. Raises PaymentError."""

        return await self._read(lambda connection: detail_of(connection, number))

    async def send(self, number: str, to: Sequence[str]) -> list[str]:
        """Queue a document's e-mail again; whom it goes to.

        Raises PaymentError where there is nobody, or the e-mail is still on its way.
        """

        def work(connection: Connection) -> list[str]:
            document = documents.find(connection, number)
            wanted = list(to) or list(read_contract(connection, document.buyer).documents_to)
            if not wanted:
                raise PaymentError(f"--to: {document.buyer} has no address for documents")
            now = self._clock()
            this = (outbox.c.channel == "mail", outbox.c.message_id == f"{number}.document")
            there = connection.execute(select(outbox.c.id).where(*this)).one_or_none()
            if there is None:
                documents.queue_mail(connection, number, document.buyer, wanted, now)
                mark_handed(connection, f"{number}.document", now)  # it had left the outbox: it was sent long ago
                return wanted
            payload = {"kind": "document", "number": number, "to": wanted, **({"only": True} if to else {})}
            if not queue_again(connection, there.id, f"{number}.document", payload, now):
                raise PaymentError(f"{number}: its e-mail is still on its way; `baton mail list` shows it")
            return wanted

        return await self._write(work)

    async def hand_over(self, number: str, by: str) -> bool:
        """Note that a document was brought to its buyer otherwise; False where it was handed over already.

        Raises UnknownDocumentError.
        """
        now = self._clock()

        def work(connection: Connection) -> bool:
            documents.find(connection, number)
            row = find_mail(connection, f"{number}.document")
            return row is not None and hand_over(connection, row, by, now)

        return await self._write(work)

    async def cancel(self, number: str, reason: str, by: str, issuer: Issuer) -> str:
        """Cancel an order's invoice; the credit note's number. Raises PaymentError, UnknownDocumentError."""
        run = BillingRun(issuer, self._clock())
        return await self._write(lambda connection: payments.cancel(connection, number, reason=reason, by=by, run=run))

    async def pay(self, payment: Payment, by: str) -> PaymentResult:
        """Record a payment. Raises PaymentError, UnknownBuyerError, UnknownDocumentError."""
        return await self._write(lambda connection: payments.record(connection, payment, by, self._clock()))

    async def reverse_payment(self, buyer: str, reference: str, reason: str, by: str) -> list[str]:
        """Take a payment back; the invoices that are open again. Raises PaymentError."""
        now = self._clock()
        return await self._write(
            lambda connection: payments.reverse(connection, buyer, reference, reason=reason, by=by, now_utc_us=now)
        )

    async def payments(self, buyer: str = "") -> list[dict[str, Any]]:
        """Payments in the order in which they were recorded. Raises UnknownBuyerError."""
        query = select(payments_table).order_by(payments_table.c.id)
        if buyer:
            await self._read(lambda connection: read_contract(connection, buyer))
        return await self._rows(query.where(payments_table.c.buyer == buyer) if buyer else query)

    async def refunds(self, *, every: bool = False) -> list[dict[str, Any]]:
        """The worklist of checks; with `every` those that were sent too, and those that wait: `waits_for` says why."""

        def work(connection: Connection) -> list[dict[str, Any]]:
            rows = payments.refunds_due(connection, every=every)
            is_sent = [row.paid_utc_us is not None for row in rows]
            why = ["" if sent else waits_for(connection, row) for row, sent in zip(rows, is_sent, strict=True)]
            return [{**row._asdict(), "waits_for": one} for row, one in zip(rows, why, strict=True)]

        return await self._read(work)

    async def send_refund(self, refund: int, reference: str, by: str) -> None:
        """Write down that a check was sent. Raises PaymentError."""
        now = self._clock()
        await self._write(
            lambda connection: payments.pay_refund(connection, refund, reference=reference, by=by, now_utc_us=now)
        )

    async def pay_out(self, buyer: str, reason: str, by: str) -> int:
        """Turn open credits into a check; its amount. Raises PaymentError, UnknownBuyerError."""
        now = self._clock()
        return await self._write(
            lambda connection: payments.pay_out(connection, buyer, by=by, now_utc_us=now, reason=reason)
        )

    async def choose(self, buyer: str, remedy: Remedy, week: str, by: str, origin: str) -> None:
        """Set a buyer's remedy, for a week or, where that is empty, for good. Raises PaymentError."""
        now = self._clock()

        def work(connection: Connection) -> None:
            contract = read_contract(connection, buyer)
            chosen = contract.week_from(week) if week else None
            payments.choose(connection, buyer, remedy, week=chosen, by=by, origin=origin, now_utc_us=now)

        await self._write(work)

    async def remedies(self, buyer: str) -> tuple[Remedy, list[dict[str, Any]]]:
        """The standing remedy, and every choice that was made. Raises UnknownBuyerError."""

        def work(connection: Connection) -> list[dict[str, Any]]:
            read_contract(connection, buyer)
            query = select(remedies).where(remedies.c.buyer == buyer).order_by(remedies.c.id)
            return [row._asdict() for row in connection.execute(query)]

        made = await self._read(work)
        standing = [Remedy(one["remedy"]) for one in made if one["week"] is None]
        return (standing[-1] if standing else DEFAULT_REMEDY), made

    async def balances(self, buyer: str = "") -> dict[str, dict[Account, int]]:
        """The balance of each buyer's accounts of money. Raises UnknownBuyerError."""

        def work(connection: Connection) -> dict[str, dict[Account, int]]:
            contracts = read_contracts(connection) if not buyer else {buyer: read_contract(connection, buyer)}
            now = self._clock()
            return {
                name: ledger.balances(connection, name, one.terms_at(now).currency) for name, one in contracts.items()
            }

        return await self._read(work)

    async def postings(self, buyer: str, transfer: str = "") -> list[Posting]:
        """A buyer's postings of money, or all of one transfer. Raises UnknownBuyerError."""

        def work(connection: Connection) -> list[Posting]:
            read_contract(connection, buyer)
            if not transfer:
                return ledger.of_buyer(connection, buyer)
            return [one for one in ledger.of_transfer(connection, transfer) if one.buyer == buyer]

        return await self._read(work)

    async def reverse(self, key: str, reason: str, by: str) -> Posting:
        """Take a transfer's posting back. Raises LedgerError where that cannot be done."""
        now = self._clock()
        return await self._write(
            lambda connection: ledger.reverse_transfer(connection, key, reason=reason, by=by, now_utc_us=now)
        )

    async def export(self, wanted: ExportFilter, sink: Sink) -> int:
        """Write rows of the store; how many. Raises ExportError, UnknownBuyerError."""
        if wanted.buyer:
            await self._read(lambda connection: read_contract(connection, wanted.buyer))
        return await self._read(lambda connection: export(connection, wanted, sink))

    async def _rows(self, query: Any) -> list[dict[str, Any]]:
        return await self._read(lambda connection: [row._asdict() for row in connection.execute(query)])

    async def _read(self, work: Callable[[Connection], T]) -> T:
        async with reading(self._engine).connect() as connection:
            return await connection.run_sync(work)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)
