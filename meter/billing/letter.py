"""Documents by e-mail: the invoice, credit note or statement as PDF, its lines as CSV, and the transfers behind them.

The list of transfers goes along where it is not too long for a mail server; a longer one stands in the portal.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from meter.billing.documents import document_file, lines_csv, sample, shown
from meter.billing.sql import documents
from meter.billing.sql.detail import write_detail
from meter.mail.message import Addressees, Attachment, Letter, addressees
from meter.mail.sql.messages import BuyerMail, buyer_mail
from meter.outbox.delivery import NeverDeliverableError
from meter.store.clerk import Clerk
from meter.text import texts
from meter.text.hostile import one_line

KIND = "document"
TEMPLATE = "document_mail"
HOLD_KIND = "hold"
HOLD_TEMPLATE = "hold_notice"
MAX_DETAIL_BYTES = 5_000_000  # of the CSV; a third more in base64, and many servers take 10 MB


class DocumentComposer:
    """Makes the letter of one document: order `{"number": NUMBER, "to": [ADDRESS, ...]}`."""

    async def compose(self, order: Mapping[str, Any], clerk: Clerk) -> Letter:
        """The letter. Raises NeverDeliverableError where there is no such document, NobodyError without an address."""
        number = str(order.get("number", ""))
        document, body = await _read(number, clerk)
        who = await _recipients(order, document, clerk)
        name = one_line(number, 32).replace("/", "-")
        attachments = [
            Attachment(f"{name}.pdf", "application/pdf", await document_file(clerk, number, "pdf")),
            Attachment(f"{name}.csv", "text/csv", lines_csv(body).encode()),
        ]
        detail = await clerk.read(_detail, document, body)
        if detail is not None:
            attachments.append(Attachment(f"{name}-transfers.csv", "text/csv", detail))
        values = shown(body) | {"has_detail": detail is not None}
        return Letter(
            to=who.to,
            present=who.present,
            waits_for=who.waits_for,
            subject=texts.render(f"{TEMPLATE}.subject.jinja", values),
            text=texts.render(f"{TEMPLATE}.txt.jinja", values),
            html=texts.render(f"{TEMPLATE}.html.jinja", values),
            attachments=tuple(attachments),
            message_id=f"{number}.{KIND}",
            date_utc_us=document.issued_utc_us,
        )


class HoldComposer:
    """Makes the notice that an unpaid invoice has put its buyer on hold: order `{"number": ..., "to": [...]}`."""

    async def compose(self, order: Mapping[str, Any], clerk: Clerk) -> Letter:
        """The letter. Raises NeverDeliverableError where there is no such invoice, NobodyError without an address."""
        number = str(order.get("number", ""))
        document, body = await _read(number, clerk)
        values = shown(body)
        who = await _recipients(order, document, clerk)
        return Letter(
            to=who.to,
            present=who.present,
            waits_for=who.waits_for,
            subject=texts.render(f"{HOLD_TEMPLATE}.subject.jinja", values),
            text=texts.render(f"{HOLD_TEMPLATE}.txt.jinja", values),
            html="",
            attachments=(),
            message_id=f"{number}.{HOLD_KIND}",
            date_utc_us=document.held_utc_us or document.issued_utc_us,
        )


async def _recipients(order: Mapping[str, Any], document: documents.Document, clerk: Clerk) -> Addressees:
    """Those that the order names, else the buyer's present ones. Raises NobodyError where there are none."""
    buyer = await clerk.read(buyer_mail, document.buyer) or BuyerMail()
    return addressees(order, "billing_emails", document.buyer, buyer.billing_emails)


async def _read(number: str, clerk: Clerk) -> tuple[documents.Document, dict[str, Any]]:
    """A document and what it says. Raises NeverDeliverableError where there is none."""
    try:
        return await clerk.read(_find, number), await clerk.read(_body, number)
    except documents.UnknownDocumentError as error:
        raise NeverDeliverableError(str(error)) from error


def _find(connection: Any, number: str) -> documents.Document:
    return documents.find(connection, number)


def _body(connection: Any, number: str) -> dict[str, Any]:
    return documents.body(connection, number)


def _detail(connection: Any, document: documents.Document, body: Mapping[str, Any]) -> bytes | None:
    """The transfers behind the document's lines; None where there are none, or too many for an e-mail."""
    periods = sorted({line["opens"] for line in body["lines"] if line["opens"]})
    if not periods:
        return None
    text = _Limited(MAX_DETAIL_BYTES)
    count = sum(write_detail(connection, document.buyer, period, text) for period in periods)
    return text.getvalue().encode() if count and not text.is_full else None


class _Limited(io.StringIO):
    """Text up to a length; what is more is dropped, and `is_full` says so."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit
        self.is_full = False

    def write(self, text: str, /) -> int:
        self._left -= len(text)
        if self._left < 0:
            self.is_full = True
            return len(text)
        return super().write(text)


texts.add_sample(TEMPLATE, lambda: sample() | {"has_detail": True})
texts.add_sample(HOLD_TEMPLATE, sample)
