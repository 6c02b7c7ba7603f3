"""The HTTP API for orders and payments, version 1: what was bought for which week, and what came in for it.

The operator sets orders, sees everything, records payments and takes them back; a buyer sees its own. Amounts are
integers in minor units.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, Strict

from book.model import Order
from book.types import IsoDate
from meter.billing.sql.documents import UnknownDocumentError
from meter.billing.sql.pages import OrderRow, PaymentRow
from meter.billing.sql.payments import MAX_REFERENCE, METHODS, Payment, PaymentError
from meter.book.sql.book import UnknownBuyerError
from meter.book.sql.orders import MAX_UNITS, OrderError
from portal.http.access import BuyerOrOperator, OperatorToken, needed, own_buyer, services
from portal.http.bodies import Body, read_model
from portal.http.paging import Next, PageQuery, page, read_cursor
from portal.http.problems import ProblemError, documented
from portal.http.tables import ANSWER, csv_answer, wants_csv
from portal.http.tokens import Scope, Token
from portal.lists.models import Moment
from portal.transfers.models import moment

_MAX_NAME = 64
_OWN = "this token sees its own buyer's alone"

_log = structlog.get_logger("portal")
order_routes = APIRouter(prefix="/v1")


class OrderShown(BaseModel):
    """An order and what it has come to."""

    buyer: str
    week: str = Field(description="The Monday on which it begins.")
    quantity: int = Field(description="Bought, in what the order counts.")
    make_up: int = Field(description="Free on top, for what an earlier week fell short of.")
    counts: str = Field(description="What it counts: live transfers as `sent`, or units `billed`.")
    connected: int
    failed: int
    live: int = Field(description="Under way, and not counted yet.")
    units: int = Field(description="As the order counts them.")
    left: int = Field(description="Still to be delivered.")
    most: int = Field(description="With the overrun that is allowed; then the order is filled.")
    invoice: str = Field(description="Number of its invoice; empty: there is none yet. From then on it stays as it is.")


class Orders(BaseModel):
    """A page of orders, by buyer and week."""

    orders: list[OrderShown]
    next: Next


class OwnQuery(PageQuery):
    """Whose."""

    buyer: str = Field("", max_length=_MAX_NAME, description="Only this buyer's; a buyer's token sees its own alone.")


class OrderPut(Body):
    """An order for a week, in the place of the one before."""

    buyer: str = Field(min_length=1, max_length=_MAX_NAME)
    week: Annotated[IsoDate, Strict(False)] = Field(description="Monday on which the week begins, such as 2026-11-23.")
    quantity: int = Field(
        ge=0, le=MAX_UNITS, description="Bought: live transfers as sent, or billed units, as the terms say."
    )
    make_up: int | None = Field(
        None,
        ge=0,
        le=MAX_UNITS,
        description="Free on top; left out, it stays as it is.",
        json_schema_extra={"type": ["integer", "null"], "format": "int64"},
    )


class OrderSet(BaseModel):
    """What setting an order came to."""

    buyer: str
    week: str
    quantity: int
    make_up: int
    changed: bool = Field(description="False: it was so already.")
    warnings: list[str] = Field(description="What can be ordered and is seldom meant.")


class PaymentMade(Body):
    """Money that came."""

    buyer: str = Field(min_length=1, max_length=_MAX_NAME)
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

    buyer: str = Field(min_length=1, max_length=_MAX_NAME)
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


BODIES: tuple[type[Body], ...] = (OrderPut, PaymentMade, PaymentBack)
_ORDER_COLUMNS, _PAYMENT_COLUMNS = tuple(OrderShown.model_fields), tuple(PaymentShown.model_fields)


@order_routes.get(
    "/orders",
    summary="Show orders",
    response_model=Orders,
    responses={200: ANSWER, **documented(401, 403, 404, 422, 503)},
)
async def get_orders(request: Request, who: BuyerOrOperator, said: Annotated[OwnQuery, Query()]) -> Any:
    """Show orders with what they have come to, by buyer and week; as CSV where `Accept` names `text/csv`.

    For the operator all, for a buyer its own.
    """
    office, buyer = needed(services(request).book, "book"), own_buyer(who, said.buyer, _OWN)

    async def fetch(after: tuple[Any, ...] | None, limit: int) -> list[OrderRow]:
        try:
            return await office.orders(buyer, None if after is None else (after[0], after[1]), limit)
        except UnknownBuyerError as error:
            raise ProblemError(404, str(error)) from error

    start = read_cursor("orders", said.cursor, str, str)
    if wants_csv(request):
        return await csv_answer("orders", _ORDER_COLUMNS, fetch, key_of=_order_key, cells=_order_cells, start=start)
    found, following = await page(lambda limit: fetch(start, limit), said.limit, "orders", _order_key)
    return Orders(orders=[_shown_order(one) for one in found], next=following)


@order_routes.put(
    "/orders",
    summary="Set an order",
    response_model=OrderSet,
    responses=documented(
        400,
        401,
        403,
        404,
        408,
        413,
        415,
        503,
        said={422: "It is invoiced or settled, or a field is wrong: see `errors`."},
    ),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/OrderPut"}},
)
async def put_order(request: Request, who: OperatorToken) -> OrderSet:
    """Set a buyer's order for a week, in the place of the one before. Body: an `OrderPut`. For the operator.

    Routers have it within a second. Once it is invoiced, it stays as it is.
    """
    said = await read_model(request, OrderPut)
    order, keep = Order(said.buyer, said.week, said.quantity, said.make_up or 0), said.make_up is None
    office = needed(services(request).book, "book")
    try:
        before, warnings = await office.order(order, who.name, keep_make_up=keep)
    except UnknownBuyerError as error:
        raise ProblemError(404, str(error)) from error
    except OrderError as error:
        raise field_problem("the order cannot be set", error) from error
    make_up = before.make_up if keep and before is not None else order.make_up
    now = Order(order.buyer, order.week, order.quantity, make_up)
    return OrderSet(
        buyer=now.buyer,
        week=now.week,
        quantity=now.quantity,
        make_up=make_up,
        changed=before != now,
        warnings=list(warnings),
    )


@order_routes.get(
    "/payments",
    summary="Show payments",
    response_model=Payments,
    responses={200: ANSWER, **documented(401, 403, 404, 422, 503)},
)
async def get_payments(request: Request, who: BuyerOrOperator, said: Annotated[OwnQuery, Query()]) -> Any:
    """Show payments, the newest first; as CSV where `Accept` names `text/csv`.

    For the operator all, for a buyer its own.
    """
    money, buyer = services(request).money, own_buyer(who, said.buyer, _OWN)

    async def fetch(before: tuple[Any, ...] | None, limit: int) -> list[PaymentRow]:
        try:
            return await money.payments(buyer, None if before is None else before[0], limit)
        except UnknownBuyerError as error:
            raise ProblemError(404, str(error)) from error

    def cells(one: PaymentRow) -> list[Any]:
        shown = _shown_payment(one, who)
        return [getattr(shown, name) for name in _PAYMENT_COLUMNS]

    start = read_cursor("payments", said.cursor, int)
    if wants_csv(request):
        return await csv_answer(
            "payments", _PAYMENT_COLUMNS, fetch, key_of=lambda one: (one.id,), cells=cells, start=start
        )
    found, following = await page(lambda limit: fetch(start, limit), said.limit, "payments", lambda one: (one.id,))
    return Payments(payments=[_shown_payment(one, who) for one in found], next=following)


@order_routes.post(
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
async def post_payment(request: Request, response: Response, who: OperatorToken) -> PaymentKept:
    """Record money that came, once per reference; a hold for what it pays ends at once. Body: a `PaymentMade`.

    For the operator.
    """
    said = await read_model(request, PaymentMade)
    try:
        done = await services(request).money.billing.pay(Payment(**said.model_dump()), who.name)
    except (UnknownBuyerError, UnknownDocumentError) as error:
        raise ProblemError(404, str(error)) from error
    except PaymentError as error:
        raise field_problem("the payment cannot be recorded", error) from error
    if not done.new:
        response.status_code = 200
    _log.info("payment_recorded", buyer=said.buyer, settled=list(done.settled), new=done.new, by=who.name)
    return PaymentKept(
        new=done.new,
        applied=dict(done.applied),
        settled=list(done.settled),
        credit_minor=done.left_minor,
        released=done.released,
    )


@order_routes.post(
    "/payments/reversals",
    summary="Take a payment back",
    response_model=PaymentGone,
    responses=documented(400, 401, 403, 408, 413, 415, 422, 503),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/PaymentBack"}},
)
async def post_reversal(request: Request, who: OperatorToken) -> PaymentGone:
    """Take a payment back; its invoices are open again, and hold the buyer again where they are due.

    Body: a `PaymentBack`. For the operator.
    """
    said = await read_model(request, PaymentBack)
    try:
        opened = await services(request).money.billing.reverse_payment(
            said.buyer, said.reference, said.reason, who.name
        )
    except PaymentError as error:
        raise field_problem("the payment cannot be taken back", error) from error
    _log.info("payment_reversed", buyer=said.buyer, reopened=opened, by=who.name)
    return PaymentGone(buyer=said.buyer, reference=said.reference, reopened=opened)


def field_problem(detail: str, error: ValueError) -> ProblemError:
    """An error whose message begins with its field."""
    name, _, what = str(error).partition(": ")
    return ProblemError(422, detail, errors=[(name, what)])


def _order_key(one: OrderRow) -> tuple[str, str]:
    return one.progress.order.buyer, one.progress.order.week


def _order_cells(one: OrderRow) -> list[Any]:
    shown = _shown_order(one)
    return [getattr(shown, name) for name in _ORDER_COLUMNS]


def _shown_order(one: OrderRow) -> OrderShown:
    found = one.progress
    names = ("counts", "connected", "failed", "live", "units", "make_up", "left", "most")
    order = found.order
    return OrderShown(
        buyer=order.buyer,
        week=order.week,
        quantity=order.quantity,
        invoice=one.invoice,
        **{name: getattr(found, name) for name in names},
    )


def _shown_payment(one: PaymentRow, who: Token) -> PaymentShown:
    inside = who.scope is Scope.OPERATOR
    at = one.reversed_utc_us
    return PaymentShown(
        buyer=one.buyer,
        reference=one.reference,
        amount_minor=one.amount_minor,
        currency=one.currency,
        received_on=date.fromisoformat(one.received_on),
        method=one.method,
        document=one.document or "",
        recorded_at=moment(one.recorded_utc_us).replace(microsecond=0),
        by=one.by if inside else "",
        note=one.note if inside else "",
        reversed_at=None if at is None else moment(at).replace(microsecond=0),
        reversed_by=(one.reversed_by or "") if inside else "",
        reversed_why=one.reversed_why or "",
    )
