"""The HTTP API for money, version 1: documents with their transfers, remedies, balances, forecasts.

A buyer sees its own and chooses its remedy; another's document is to it as if it were not there. The operator sees
everything and names the buyer where one is needed. Amounts are integers in minor units.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response as Plain
from pydantic import BaseModel, Field, Strict

from book.types import Monday
from meter.billing.arithmetic.cycle import Remedy
from meter.billing.documents import PaperError, lines_csv
from meter.billing.sql.documents import Document, UnknownDocumentError
from meter.billing.sql.forecasting import OrderForecast
from meter.billing.sql.payments import PaymentError
from meter.book.sql.book import UnknownBuyerError
from meter.ledger.accounts import Account
from portal.http.access import BuyerOrOperator, client, own_buyer, services
from portal.http.bodies import Body, read_model
from portal.http.paging import Cursor, Limit, Next, page, read_cursor
from portal.http.problems import ProblemError, documented
from portal.http.tokens import Scope, Token

_MAX_NAME = 64
_LIST = "documents"
_TYPES = {"html": "text/html; charset=utf-8", "pdf": "application/pdf", "csv": "text/csv; charset=utf-8"}
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # a document is a page of its own: nothing runs in it
_NOT_YOURS = "there is no such document, or it is another's"

Number = Annotated[str, InPath(min_length=1, max_length=32, description="Number of the document.")]
BuyerQuery = Annotated[str, Query(max_length=_MAX_NAME, description="For the operator: which buyer; empty: all.")]

_log = structlog.get_logger("portal")
money = APIRouter(prefix="/v1")


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
    buyer: str = Field("", max_length=_MAX_NAME, description="For the operator: which buyer.")


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


BODIES = (RemedyChoice,)


@money.get(
    "/documents", summary="Show documents", response_model=Documents, responses=documented(401, 403, 404, 422, 503)
)
async def get_documents(
    request: Request,
    who: BuyerOrOperator,
    *,
    buyer: BuyerQuery = "",
    series: Annotated[Literal["", "invoice", "credit_note", "statement"], Query(description="Only these.")] = "",
    is_open: Annotated[bool, Query(alias="open", description="Only what is still to be paid.")] = False,
    cursor: Cursor = "",
    limit: Limit = 200,
) -> Documents:
    """Show invoices, credit notes and statements, the newest first. For buyers their own, for the operator all."""
    name, before = _whose(who, buyer, needed=False), read_cursor(_LIST, cursor, int, str, int)
    start = None if before is None else (before[0], before[1], before[2])
    office = services(request).money
    try:
        found, following = await page(
            lambda most: office.documents(name, start, most, series=series, open_only=is_open),
            limit,
            _LIST,
            lambda one: one[1],
        )
    except UnknownBuyerError as error:
        raise ProblemError(404, str(error)) from error
    return Documents(documents=[DocumentShown(**_shown(one)) for one, _ in found], next=following)


@money.get(
    "/documents/{number}",
    summary="Show one document",
    response_model=DocumentWhole,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_document(request: Request, who: BuyerOrOperator, number: Number) -> DocumentWhole:
    """Show everything that a document says, and what is still open of it."""
    document = await _find(request, who, number)
    body = await services(request).money.billing.body(number)
    return DocumentWhole(**_shown(document), body=body)


@money.get(
    "/documents/{number}/file",
    summary="Get a document as a file",
    response_class=Plain,
    responses={
        200: {"description": "The document as it was issued.", "content": {kind: {} for kind in _TYPES.values()}},
        **documented(401, 403, 404, 422, 503),
    },
)
async def get_file(
    request: Request,
    who: BuyerOrOperator,
    number: Number,
    form: Annotated[Literal["html", "pdf", "csv"], Query(alias="format", description="CSV has its lines.")] = "pdf",
) -> Plain:
    """Get a document as HTML or PDF, always the same one, or its lines as CSV."""
    await _find(request, who, number)
    office = services(request).money
    try:
        if form == "csv":
            content = lines_csv(await office.billing.body(number)).encode()
        else:
            content = await office.paper(number, form)
    except PaperError as error:
        raise ProblemError(503, str(error)) from error
    return _file(content, f"{number}.{form}", _TYPES[form])


@money.get(
    "/documents/{number}/transfers",
    summary="Get the transfers behind a document",
    response_class=Plain,
    responses={
        200: {"description": "One line for each transfer.", "content": {_TYPES["csv"]: {}}},
        **documented(401, 403, 404, 422, 503),
    },
)
async def get_transfers(request: Request, who: BuyerOrOperator, number: Number) -> Plain:
    """Get the transfers of the week or month that a document is for, as CSV."""
    await _find(request, who, number)
    try:
        text = await services(request).money.detail(number)
    except PaymentError as error:
        raise ProblemError(404, str(error)) from error
    return _file(text.encode(), f"{number}-transfers.csv", _TYPES["csv"])


@money.get(
    "/remedy", summary="Show a remedy", response_model=RemedyShown, responses=documented(401, 403, 404, 422, 503)
)
async def get_remedy(request: Request, who: BuyerOrOperator, buyer: BuyerQuery = "") -> RemedyShown:
    """Show what a buyer gets for a week that falls short: its standing choice, and those it made for weeks."""
    return await _remedy(request, _whose(who, buyer, needed=True))


@money.put(
    "/remedy",
    summary="Choose a remedy",
    response_model=RemedyShown,
    responses=documented(
        400, 401, 403, 404, 408, 413, 415, 422, 503, said={422: "The week's choice has closed, or a field is wrong."}
    ),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/RemedyChoice"}},
)
async def put_remedy(request: Request, who: BuyerOrOperator) -> RemedyShown:
    """Choose what a shortfall becomes, for good or for one week until its Tuesday noon. Body: a `RemedyChoice`."""
    said = await read_model(request, RemedyChoice)
    name = _whose(who, said.buyer, needed=True)
    origin = f"api:{client(request)}"
    try:
        await services(request).money.billing.choose(name, said.remedy, said.week or "", who.name, origin)
    except UnknownBuyerError as error:
        raise ProblemError(404, str(error)) from error
    except PaymentError as error:
        raise ProblemError(422, str(error), errors=[("week", "its choice has closed")]) from error
    _log.info("remedy_chosen", buyer=name, remedy=said.remedy.value, week=said.week, by=who.name)
    return await _remedy(request, name)


@money.get("/balance", summary="Show a balance", response_model=Balance, responses=documented(401, 403, 404, 422, 503))
async def get_balance(request: Request, who: BuyerOrOperator, buyer: BuyerQuery = "") -> Balance:
    """Show what a buyer owes, and what it is owed."""
    name = _whose(who, buyer, needed=True)
    try:
        held = (await services(request).money.billing.balances(name))[name]
    except UnknownBuyerError as error:
        raise ProblemError(404, str(error)) from error
    return Balance(
        buyer=name,
        receivable_minor=held.get(Account.RECEIVABLE, 0),
        credits_minor=-held.get(Account.CREDITS, 0),
        prepaid_minor=-held.get(Account.PREPAID, 0),
        refunds_due_minor=-held.get(Account.REFUNDS_DUE, 0),
    )


@money.get(
    "/forecast",
    summary="Foresee the running week",
    response_model=list[ForecastShown],
    responses=documented(401, 403, 404, 422, 503),
)
async def get_forecast(request: Request, who: BuyerOrOperator, buyer: BuyerQuery = "") -> list[ForecastShown]:
    """Foresee what the running week of each order comes to, from Wednesday on."""
    name = _whose(who, buyer, needed=False)
    try:
        found = await services(request).money.forecasts(name)
    except UnknownBuyerError as error:
        raise ProblemError(404, str(error)) from error
    return [_foreseen(one) for one in found]


def _whose(who: Token, buyer: str, *, needed: bool) -> str:
    """The buyer that is meant. Raises ProblemError 403 for another's, 422 where the operator has to name one."""
    buyer = own_buyer(who, buyer, "this token is of another buyer")
    if needed and not buyer:
        raise ProblemError(422, "which buyer?", errors=[("buyer", "is missing")])
    return buyer


async def _find(request: Request, who: Token, number: str) -> Document:
    try:
        found = await services(request).money.billing.document(number)
    except UnknownDocumentError as error:
        raise ProblemError(404, _NOT_YOURS) from error
    if who.scope is Scope.BUYER and found.buyer != who.of:
        raise ProblemError(404, _NOT_YOURS)
    return found


async def _remedy(request: Request, buyer: str) -> RemedyShown:
    try:
        standing, made = await services(request).money.billing.remedies(buyer)
    except UnknownBuyerError as error:
        raise ProblemError(404, str(error)) from error
    weeks = {one["week"]: Remedy(one["remedy"]) for one in made if one["week"] is not None}
    return RemedyShown(buyer=buyer, standing=standing, weeks=weeks)


def _shown(one: Document) -> dict[str, Any]:
    names = ("number", "kind", "buyer", "period", "currency", "total_minor", "applied_minor", "open_minor")
    times = {"issued_at": _moment(one.issued_utc_us), "due_at": _moment(one.due_utc_us)}
    return {name: getattr(one, name) for name in names} | times | {"paid": one.settled_utc_us is not None}


def _moment(utc_us: int | None) -> datetime | None:
    return None if utc_us is None else datetime.fromtimestamp(utc_us // 1_000_000, UTC)


def _foreseen(one: OrderForecast) -> ForecastShown:
    ends = ("low", "expected", "high")
    cases = {name: asdict(getattr(one.forecast, name)) if one.forecast else None for name in ends}
    return ForecastShown(
        buyer=one.buyer,
        week=one.week,
        order=one.covered,
        counts=one.counts,
        counted=one.counted,
        remedy=one.remedy,
        **cases,
    )


def _file(content: bytes, name: str, kind: str) -> Plain:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Security-Policy": _PAGE_POLICY}
    return Plain(content, media_type=kind, headers=headers)
