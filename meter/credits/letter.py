"""The e-mail with the decision on a credit request, or on its re-review (domain, section 8).

It says what was decided and why, for which call, and what that comes to; it is made from the store when it is sent, and
says the same each time, for a decision never changes. The words of the buyer and of the reviewer go through
`meter.text.hostile`; dates are in the zone of the terms and written, like amounts, as the buyer's locale has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from meter.book.sql.book import UnknownBuyerError
from meter.credits.rules import CreditError, ReasonBook, State, load_reasons
from meter.credits.sql.reading import LetterSubject, read_told
from meter.credits.sql.requests import KIND
from meter.mail.message import Letter, addressees
from meter.outbox.delivery import NeverDeliverableError
from meter.store.clerk import Clerk
from meter.text import texts
from meter.text.hostile import one_line
from meter.text.localised import money_text, short_when_text, when_text

__all__ = ["KIND", "CreditComposer"]

TEMPLATE = "credit_decision"


class CreditComposer:
    """Makes the letter of one decision: order `{"id": ID, "to": [ADDRESS, ...]}`."""

    def __init__(self, reasons: ReasonBook | None = None) -> None:
        self._reasons = reasons or load_reasons()

    async def compose(self, order: Mapping[str, Any], clerk: Clerk) -> Letter:
        """The letter. Raises NeverDeliverableError where there is no such decision, NobodyError without an address."""
        request = order.get("id")
        if not isinstance(request, int):
            raise NeverDeliverableError("the order names no credit request")
        try:
            found = await clerk.read(lambda connection: read_told(connection, request))
        except (CreditError, UnknownBuyerError) as error:
            raise NeverDeliverableError(str(error)) from error
        if found.request.decided_utc_us is None:
            raise NeverDeliverableError(f"credit request {request} is not decided")
        who = addressees(order, "billing_emails", found.request.buyer, found.contract.documents_to)
        shown = _shown(found, self._reasons)
        return Letter(
            to=who.to,
            present=who.present,
            waits_for=who.waits_for,
            subject=texts.render(f"{TEMPLATE}.subject.jinja", shown),
            text=texts.render(f"{TEMPLATE}.txt.jinja", shown),
            html=texts.render(f"{TEMPLATE}.html.jinja", shown),
            attachments=(),
            message_id=f"credit-{found.request.id}.decision",
            date_utc_us=found.request.decided_utc_us,
        )


def _shown(subject: LetterSubject, reasons: ReasonBook) -> dict[str, Any]:
    """What the templates show; texts in one line each, the long ones as lists of lines."""
    request, buyer = subject.request, subject.contract.buyer
    zone = ZoneInfo(subject.contract.terms_at(subject.dialout_utc_us).time_zone)
    amount = abs(request.amount_minor or 0)
    return {
        "buyer": one_line(buyer.title or buyer.name, 200),
        "id": request.id,
        "of": request.first,
        "transfer": one_line(request.transfer, 64),
        "call_id": one_line(request.call_id, 64),
        "called": when_text(subject.dialout_utc_us, zone, buyer.locale),
        "called_short": short_when_text(subject.dialout_utc_us, zone, buyer.locale),
        "asked": when_text(request.asked_utc_us, zone, buyer.locale),
        "reason": one_line(reasons.title(request.reason), 200),
        "words": _lines(request.words),
        "approved": request.state is State.APPROVED,
        "taken_back": (request.amount_minor or 0) < 0,
        "amount": money_text(amount, request.currency, buyer.locale) if request.currency else "",
        "explanation": _lines(request.explanation or ""),
    }


def _lines(text: str) -> list[str]:
    return [line for one in text.splitlines() if (line := one_line(one))]


texts.add_sample(
    TEMPLATE,
    {
        "buyer": "Acme Solar",
        "id": 12,
        "of": None,
        "transfer": "01hzsample",
        "call_id": "01hzcall",
        "called": "June 2, 2026, 10:00:00 AM EDT",
        "called_short": "Jun 2, 2026, 10:00 AM EDT",
        "asked": "June 3, 2026, 9:00:00 AM EDT",
        "reason": "The prospect lives outside the agreed area",
        "words": ["She lives in Boston."],
        "approved": True,
        "taken_back": False,
        "amount": "$41.85",
        "explanation": ["The address on the lead is in Massachusetts."],
    },
)
