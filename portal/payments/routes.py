"""The HTTP API for payments, version 1: what came in, and what of it was taken back.

The operator records payments, takes them back and sees everything; a buyer sees its own. Amounts are integers in minor
units.
"""

from __future__ import annotations

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, Response

from meter.billing.sql.documents import UnknownDocumentError
from meter.billing.sql.pages import PaymentRow
from meter.billing.sql.payments import Payment, PaymentError
from meter.book.sql.book import UnknownBuyerError
from portal.http.access import OWN_ALONE, BuyerOrOperator, OperatorToken, OwnQuery, own_buyer
from portal.http.bodies import read_model
from portal.http.paging import page, read_cursor
from portal.http.problems import ProblemError, documented, field_problem
from portal.http.services import service
from portal.http.tables import ANSWER, csv_answer, wants_csv
from portal.payments.models import (
    COLUMNS,
    PaymentBack,
    PaymentGone,
    PaymentKept,
    PaymentMade,
    Payments,
    cells,
    shown_payment,
)
from portal.payments.service import PaymentsService

_log = structlog.get_logger("portal")
routes = APIRouter(prefix="/v1")


@routes.get(
    "/payments",
    summary="Show payments",
    response_model=Payments,
    responses={200: ANSWER, **documented(401, 403, 404, 422, 503)},
)
async def get_payments(request: Request, token: BuyerOrOperator, query: Annotated[OwnQuery, Query()]) -> Any:
    """Show payments, the newest first; as CSV where `Accept` names `text/csv`.

    For the operator all, for a buyer its own.
    """
    payments, buyer = service(request, PaymentsService), own_buyer(token, query.buyer, OWN_ALONE)

    async def fetch(before: tuple[Any, ...] | None, limit: int) -> list[PaymentRow]:
        try:
            return await payments.find_all(buyer, None if before is None else before[0], limit)
        except UnknownBuyerError as error:
            raise ProblemError(404, str(error)) from error

    start = read_cursor("payments", query.cursor, int)
    if wants_csv(request):
        return await csv_answer(
            "payments",
            COLUMNS,
            fetch,
            key_of=lambda payment: (payment.id,),
            cells=lambda payment: cells(payment, token),
            start=start,
        )
    rows, following = await page(
        lambda limit: fetch(start, limit), query.limit, "payments", lambda payment: (payment.id,)
    )
    return Payments(payments=[shown_payment(payment, token) for payment in rows], next=following)


@routes.post(
    "/payments",
    summary="Record a payment",
    status_code=201,
    response_model=PaymentKept,
    responses={
        200: {"model": PaymentKept, "description": "It was recorded before, under the same reference."},
        201: {"description": "It is recorded."},
        **documented(400, 401, 403, 404, 408, 413, 415, 422, 503),
    },
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/PaymentMade"}},
)
async def post_payment(request: Request, response: Response, token: OperatorToken) -> PaymentKept:
    """Record money that came, once per reference; a hold for what it pays ends at once. Body: a `PaymentMade`.

    For the operator.
    """
    body = await read_model(request, PaymentMade)
    try:
        recorded = await service(request, PaymentsService).pay(Payment(**body.model_dump()), token.name)
    except (UnknownBuyerError, UnknownDocumentError) as error:
        raise ProblemError(404, str(error)) from error
    except PaymentError as error:
        raise field_problem("the payment cannot be recorded", error) from error
    if not recorded.new:
        response.status_code = 200
    _log.info("payment_recorded", buyer=body.buyer, settled=list(recorded.settled), new=recorded.new, by=token.name)
    return PaymentKept(
        new=recorded.new,
        applied=dict(recorded.applied),
        settled=list(recorded.settled),
        credit_minor=recorded.left_minor,
        released=recorded.released,
    )


@routes.post(
    "/payments/reversals",
    summary="Take a payment back",
    response_model=PaymentGone,
    responses=documented(400, 401, 403, 408, 413, 415, 422, 503),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/PaymentBack"}},
)
async def post_reversal(request: Request, token: OperatorToken) -> PaymentGone:
    """Take a payment back; its invoices are open again, and hold the buyer again where they are due.

    Body: a `PaymentBack`. For the operator.
    """
    body = await read_model(request, PaymentBack)
    try:
        reopened = await service(request, PaymentsService).reverse(body.buyer, body.reference, body.reason, token.name)
    except PaymentError as error:
        raise field_problem("the payment cannot be taken back", error) from error
    _log.info("payment_reversed", buyer=body.buyer, reopened=reopened, by=token.name)
    return PaymentGone(buyer=body.buyer, reference=body.reference, reopened=reopened)
