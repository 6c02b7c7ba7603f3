"""The HTTP API for money, version 1: documents with their transfers, remedies, balances, forecasts.

A buyer sees its own and chooses its remedy; another's document is to it as if it were not there. The operator sees
everything and names the buyer where one is needed. Amounts are integers in minor units.
"""

from __future__ import annotations

from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response as Plain

from meter.billing.arithmetic.cycle import Remedy
from meter.billing.documents import DocumentError, lines_csv
from meter.billing.sql.documents import Document, UnknownDocumentError
from meter.billing.sql.payments import PaymentError
from meter.book.sql.book import UnknownBuyerError
from meter.ledger.accounts import Account
from portal.documents.models import (
    Balance,
    Documents,
    DocumentWhole,
    ForecastShown,
    RemedyChoice,
    RemedyShown,
    shown_document,
    shown_forecast,
    shown_whole,
)
from portal.documents.service import DocumentsService
from portal.http.access import BuyerOrOperator, client, own_buyer
from portal.http.bodies import read_model
from portal.http.paging import Cursor, Limit, page, read_cursor
from portal.http.problems import ProblemError, documented
from portal.http.services import service
from portal.http.tokens import Scope, Token

_MAX_NAME = 64
_LIST = "documents"
_TYPES = {"html": "text/html; charset=utf-8", "pdf": "application/pdf", "csv": "text/csv; charset=utf-8"}
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # a document is a page of its own: nothing runs in it
_NOT_YOURS = "there is no such document, or it is another's"

Number = Annotated[str, InPath(min_length=1, max_length=32, description="Number of the document.")]
BuyerQuery = Annotated[str, Query(max_length=_MAX_NAME, description="For the operator: which buyer; empty: all.")]

_log = structlog.get_logger("portal")
routes = APIRouter(prefix="/v1")


@routes.get(
    "/documents", summary="Show documents", response_model=Documents, responses=documented(401, 403, 404, 422, 503)
)
async def get_documents(
    request: Request,
    token: BuyerOrOperator,
    *,
    buyer: BuyerQuery = "",
    series: Annotated[Literal["", "invoice", "credit_note", "statement"], Query(description="Only these.")] = "",
    is_open: Annotated[bool, Query(alias="open", description="Only what is still to be paid.")] = False,
    cursor: Cursor = "",
    limit: Limit = 200,
) -> Documents:
    """Show invoices, credit notes and statements, the newest first. For buyers their own, for the operator all."""
    name, before = _whose(token, buyer, needed=False), read_cursor(_LIST, cursor, int, str, int)
    start = None if before is None else (before[0], before[1], before[2])
    documents = service(request, DocumentsService)
    try:
        rows, following = await page(
            lambda most: documents.find_all(name, start, most, series=series, open_only=is_open),
            limit,
            _LIST,
            lambda row: row[1],
        )
    except UnknownBuyerError as error:
        raise ProblemError(404, str(error)) from error
    return Documents(documents=[shown_document(document) for document, _ in rows], next=following)


@routes.get(
    "/documents/{number}",
    summary="Show one document",
    response_model=DocumentWhole,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_document(request: Request, token: BuyerOrOperator, number: Number) -> DocumentWhole:
    """Show everything that a document says, and what is still open of it."""
    document = await _find(request, token, number)
    body = await service(request, DocumentsService).billing.body(number)
    return shown_whole(document, body)


@routes.get(
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
    token: BuyerOrOperator,
    number: Number,
    form: Annotated[Literal["html", "pdf", "csv"], Query(alias="format", description="CSV has its lines.")] = "pdf",
) -> Plain:
    """Get a document as HTML or PDF, always the same one, or its lines as CSV."""
    await _find(request, token, number)
    documents = service(request, DocumentsService)
    try:
        if form == "csv":
            content = lines_csv(await documents.billing.body(number)).encode()
        else:
            content = await documents.document_file(number, form)
    except DocumentError as error:
        raise ProblemError(503, str(error)) from error
    return _file(content, f"{number}.{form}", _TYPES[form])


@routes.get(
    "/documents/{number}/transfers",
    summary="Get the transfers behind a document",
    response_class=Plain,
    responses={
        200: {"description": "One line for each transfer.", "content": {_TYPES["csv"]: {}}},
        **documented(401, 403, 404, 422, 503),
    },
)
async def get_transfers(request: Request, token: BuyerOrOperator, number: Number) -> Plain:
    """Get the transfers of the week or month that a document is for, as CSV."""
    await _find(request, token, number)
    try:
        text = await service(request, DocumentsService).detail(number)
    except PaymentError as error:
        raise ProblemError(404, str(error)) from error
    return _file(text.encode(), f"{number}-transfers.csv", _TYPES["csv"])


@routes.get(
    "/remedy", summary="Show a remedy", response_model=RemedyShown, responses=documented(401, 403, 404, 422, 503)
)
async def get_remedy(request: Request, token: BuyerOrOperator, buyer: BuyerQuery = "") -> RemedyShown:
    """Show what a buyer gets for a week that falls short: its standing choice, and those it made for weeks."""
    return await _remedy(request, _whose(token, buyer, needed=True))


@routes.put(
    "/remedy",
    summary="Choose a remedy",
    response_model=RemedyShown,
    responses=documented(
        400,
        401,
        403,
        404,
        408,
        413,
        415,
        422,
        503,
        meanings={422: "The week's choice has closed, or a field is wrong."},
    ),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/RemedyChoice"}},
)
async def put_remedy(request: Request, token: BuyerOrOperator) -> RemedyShown:
    """Choose what a shortfall becomes, for good or for one week until its Tuesday noon. Body: a `RemedyChoice`."""
    body = await read_model(request, RemedyChoice)
    name = _whose(token, body.buyer, needed=True)
    origin = f"api:{client(request)}"
    try:
        await service(request, DocumentsService).billing.choose(name, body.remedy, body.week or "", token.name, origin)
    except UnknownBuyerError as error:
        raise ProblemError(404, str(error)) from error
    except PaymentError as error:
        raise ProblemError(422, str(error), errors=[("week", "its choice has closed")]) from error
    _log.info("remedy_chosen", buyer=name, remedy=body.remedy.value, week=body.week, by=token.name)
    return await _remedy(request, name)


@routes.get("/balance", summary="Show a balance", response_model=Balance, responses=documented(401, 403, 404, 422, 503))
async def get_balance(request: Request, token: BuyerOrOperator, buyer: BuyerQuery = "") -> Balance:
    """Show what a buyer owes, and what it is owed."""
    name = _whose(token, buyer, needed=True)
    try:
        held = (await service(request, DocumentsService).billing.balances(name))[name]
    except UnknownBuyerError as error:
        raise ProblemError(404, str(error)) from error
    return Balance(
        buyer=name,
        receivable_minor=held.get(Account.RECEIVABLE, 0),
        credits_minor=-held.get(Account.CREDITS, 0),
        prepaid_minor=-held.get(Account.PREPAID, 0),
        refunds_due_minor=-held.get(Account.REFUNDS_DUE, 0),
    )


@routes.get(
    "/forecast",
    summary="Foresee the running week",
    response_model=list[ForecastShown],
    responses=documented(401, 403, 404, 422, 503),
)
async def get_forecast(request: Request, token: BuyerOrOperator, buyer: BuyerQuery = "") -> list[ForecastShown]:
    """Foresee what the running week of each order comes to, from Wednesday on."""
    name = _whose(token, buyer, needed=False)
    try:
        rows = await service(request, DocumentsService).forecasts(name)
    except UnknownBuyerError as error:
        raise ProblemError(404, str(error)) from error
    return [shown_forecast(forecast) for forecast in rows]


def _whose(token: Token, buyer: str, *, needed: bool) -> str:
    """The buyer that is meant. Raises ProblemError 403 for another's, 422 where the operator has to name one."""
    buyer = own_buyer(token, buyer, "this token is of another buyer")
    if needed and not buyer:
        raise ProblemError(422, "which buyer?", errors=[("buyer", "is missing")])
    return buyer


async def _find(request: Request, token: Token, number: str) -> Document:
    try:
        document = await service(request, DocumentsService).billing.document(number)
    except UnknownDocumentError as error:
        raise ProblemError(404, _NOT_YOURS) from error
    if token.scope is Scope.BUYER and document.buyer != token.of:
        raise ProblemError(404, _NOT_YOURS)
    return document


async def _remedy(request: Request, buyer: str) -> RemedyShown:
    try:
        standing, made = await service(request, DocumentsService).billing.remedies(buyer)
    except UnknownBuyerError as error:
        raise ProblemError(404, str(error)) from error
    weeks = {choice["week"]: Remedy(choice["remedy"]) for choice in made if choice["week"] is not None}
    return RemedyShown(buyer=buyer, standing=standing, weeks=weeks)


def _file(content: bytes, name: str, kind: str) -> Plain:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Security-Policy": _PAGE_POLICY}
    return Plain(content, media_type=kind, headers=headers)
