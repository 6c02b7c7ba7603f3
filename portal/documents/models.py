"""What the routes for documents, remedies, balances and forecasts take and give."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, Strict

from book.types import Monday
from meter.billing.arithmetic.cycle import Remedy
from meter.billing.sql.documents import Document
from meter.billing.sql.forecasting import OrderForecast
from portal.http.bodies import Body
from portal.http.paging import Next
from portal.http.values import MAX_NAME, whole_second


class DocumentShown(BaseModel):
    """An invoice, credit note or statement."""

    number: str
    kind: str = Field(description="`order`, `overage`, `setup`, `month`, `credit_note` or `week`.")
    buyer: str
    period: str | None = Field(description="The service week's Monday, or the month.")
    currency: str
    issued_at: datetime
    due_at: datetime | None = Field(description="Null: nothing is asked for.")
    total_minor: int
    applied_minor: int = Field(description="Open credits that it used.")
    open_minor: int = Field(description="What is still to be paid.")
    paid: bool


class Documents(BaseModel):
    """A page of documents, the newest first."""

    documents: list[DocumentShown]
    next: Next


class DocumentWhole(DocumentShown):
    """A document with everything that it says."""

    body: dict[str, Any] = Field(description="As it was frozen when it was issued: lines, sums, notes, figures.")


class RemedyChoice(Body):
    """What a buyer wants for a week that falls short."""

    remedy: Annotated[Remedy, Strict(False)] = Field(description="`refund`, `credit` or `make_up`.")
    week: Monday | None = Field(None, description="Only for the week of this Monday, until its Tuesday noon.")
    buyer: str = Field("", max_length=MAX_NAME, description="For the operator: which buyer.")


class RemedyShown(BaseModel):
    """A buyer's standing choice, and those for weeks."""

    buyer: str
    standing: Remedy
    weeks: dict[str, Remedy] = Field(description="By Monday; the last choice for each week.")


class Balance(BaseModel):
    """What stands between a buyer and the operator."""

    buyer: str
    receivable_minor: int = Field(description="Invoiced and not paid.")
    credits_minor: int = Field(description="Open credits, which the next order's invoice uses.")
    prepaid_minor: int = Field(description="Paid or invoiced for service that is still to come.")
    refunds_due_minor: int = Field(description="Checks that are to be sent.")


class ForecastShown(BaseModel):
    """The running week of an order: from Wednesday on what it will come to, with a range that holds four in five."""

    buyer: str
    week: str
    order: int = Field(description="Ordered, make-up included, in what the order counts.")
    counts: str = Field(description="What the order counts: `sent` live transfers, or `billed` units.")
    counted: int
    remedy: Remedy
    low: dict[str, int] | None
    expected: dict[str, int] | None
    high: dict[str, int] | None


BODIES: tuple[type[Body], ...] = (RemedyChoice,)


def shown_document(document: Document) -> DocumentShown:
    """A document without its body."""
    return DocumentShown(**_fields(document))


def shown_whole(document: Document, body: dict[str, Any]) -> DocumentWhole:
    """A document with its body."""
    return DocumentWhole(**_fields(document), body=body)


def shown_forecast(forecast: OrderForecast) -> ForecastShown:
    ends = ("low", "expected", "high")
    cases = {name: asdict(getattr(forecast.forecast, name)) if forecast.forecast else None for name in ends}
    return ForecastShown(
        buyer=forecast.buyer,
        week=forecast.week,
        order=forecast.covered,
        counts=forecast.counts,
        counted=forecast.counted,
        remedy=forecast.remedy,
        **cases,
    )


def _fields(document: Document) -> dict[str, Any]:
    names = ("number", "kind", "buyer", "period", "currency", "total_minor", "applied_minor", "open_minor")
    due_at = None if document.due_utc_us is None else whole_second(document.due_utc_us)
    times = {"issued_at": whole_second(document.issued_utc_us), "due_at": due_at}
    return {name: getattr(document, name) for name in names} | times | {"paid": document.settled_utc_us is not None}
