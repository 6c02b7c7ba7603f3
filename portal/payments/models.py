"""What the routes for payments take and give."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, Strict

from meter.billing.sql.pages import PaymentRow
from meter.billing.sql.payments import MAX_REFERENCE, METHODS
from portal.http.bodies import Body
from portal.http.paging import Next
from portal.http.tokens import Scope, Token
from portal.http.values import MAX_NAME, Moment, whole_second


class PaymentMade(Body):
    """Money that came."""

    buyer: str = Field(min_length=1, max_length=MAX_NAME)
    reference: str = Field(
        min_length=1, max_length=MAX_REFERENCE, description="Of the bank or check; the same one is kept once."
    )
    amount_minor: int = Field(gt=0, le=10**12)
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    received_on: Annotated[date, Strict(False)]
    document: str = Field("", max_length=32, description="Invoice it is for; empty: those due first.")
    method: Literal[METHODS] = Field("other", description="How it came.")  # type: ignore[valid-type]
    note: str = Field("", max_length=500)


class PaymentBack(Body):
    """A payment to be taken back, such as a check that bounced."""

    buyer: str = Field(min_length=1, max_length=MAX_NAME)
    reference: str = Field(min_length=1, max_length=MAX_REFERENCE, description="Of the payment.")
    reason: str = Field(min_length=1, max_length=500, description="Why.")


class PaymentKept(BaseModel):
    """What a payment did."""

    new: bool = Field(description="False: it was recorded before, and nothing has changed.")
    applied: dict[str, int] = Field(description="By invoice.")
    settled: list[str] = Field(description="Invoices that are now paid in full.")
    credit_minor: int = Field(description="What was left and is an open credit.")
    released: bool = Field(description="The buyer's hold is over.")


class PaymentGone(BaseModel):
    """What taking a payment back did."""

    buyer: str
    reference: str
    reopened: list[str] = Field(description="Invoices that are open again.")


class PaymentShown(BaseModel):
    """A payment. Buyers are not told `note`, `by` and `reversed_by`."""

    buyer: str
    reference: str
    amount_minor: int
    currency: str
    received_on: date
    method: str
    document: str = Field(description="Invoice that it was for; empty: those due first.")
    recorded_at: Moment
    by: str
    note: str
    reversed_at: Moment = Field(description="When it was taken back; null: it stands.")
    reversed_by: str
    reversed_why: str


class Payments(BaseModel):
    """A page of payments, the newest first."""

    payments: list[PaymentShown]
    next: Next


BODIES: tuple[type[Body], ...] = (PaymentMade, PaymentBack)
COLUMNS = tuple(PaymentShown.model_fields)


def cells(payment: PaymentRow, token: Token) -> list[Any]:
    """The row of a CSV, as this token may see it."""
    shown = shown_payment(payment, token)
    return [getattr(shown, name) for name in COLUMNS]


def shown_payment(payment: PaymentRow, token: Token) -> PaymentShown:
    inside = token.scope is Scope.OPERATOR
    at = payment.reversed_utc_us
    return PaymentShown(
        buyer=payment.buyer,
        reference=payment.reference,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        received_on=date.fromisoformat(payment.received_on),
        method=payment.method,
        document=payment.document or "",
        recorded_at=whole_second(payment.recorded_utc_us),
        by=payment.by if inside else "",
        note=payment.note if inside else "",
        reversed_at=None if at is None else whole_second(at),
        reversed_by=(payment.reversed_by or "") if inside else "",
        reversed_why=payment.reversed_why or "",
    )
