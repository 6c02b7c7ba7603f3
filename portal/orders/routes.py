"""The HTTP API for orders, version 1: what was bought for which week.

The operator sets orders and sees everything; a buyer sees its own.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from book.model import Order
from meter.billing.sql.pages import OrderRow
from meter.book.sql.book import UnknownBuyerError
from meter.book.sql.orders import OrderError
from portal.http.access import OWN_ALONE, BuyerOrOperator, OperatorToken, OwnQuery, own_buyer
from portal.http.bodies import read_model
from portal.http.paging import page, read_cursor
from portal.http.problems import ProblemError, documented, field_problem
from portal.http.services import service
from portal.http.tables import ANSWER, csv_answer, wants_csv
from portal.orders.models import COLUMNS, OrderPut, Orders, OrderSet, cells, shown_order
from portal.orders.service import OrdersService

routes = APIRouter(prefix="/v1")


@routes.get(
    "/orders",
    summary="Show orders",
    response_model=Orders,
    responses={200: ANSWER, **documented(401, 403, 404, 422, 503)},
)
async def get_orders(request: Request, token: BuyerOrOperator, query: Annotated[OwnQuery, Query()]) -> Any:
    """Show orders with what they have come to, by buyer and week; as CSV where `Accept` names `text/csv`.

    For the operator all, for a buyer its own.
    """
    orders, buyer = service(request, OrdersService), own_buyer(token, query.buyer, OWN_ALONE)

    async def fetch(after: tuple[Any, ...] | None, limit: int) -> list[OrderRow]:
        try:
            return await orders.find_all(buyer, None if after is None else (after[0], after[1]), limit)
        except UnknownBuyerError as error:
            raise ProblemError(404, str(error)) from error

    start = read_cursor("orders", query.cursor, str, str)
    if wants_csv(request):
        return await csv_answer("orders", COLUMNS, fetch, key_of=_key, cells=cells, start=start)
    rows, following = await page(lambda limit: fetch(start, limit), query.limit, "orders", _key)
    return Orders(orders=[shown_order(row) for row in rows], next=following)


@routes.put(
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
        meanings={422: "It is invoiced or settled, or a field is wrong: see `errors`."},
    ),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/OrderPut"}},
)
async def put_order(request: Request, token: OperatorToken) -> OrderSet:
    """Set a buyer's order for a week, in the place of the one before. Body: an `OrderPut`. For the operator.

    Routers have it within a second. Once it is invoiced, it stays as it is.
    """
    body = await read_model(request, OrderPut)
    order, keep = Order(body.buyer, body.week, body.quantity, body.make_up or 0), body.make_up is None
    orders = service(request, OrdersService)
    try:
        before, warnings = await orders.set(order, token.name, keep_make_up=keep)
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


def _key(row: OrderRow) -> tuple[str, str]:
    return row.progress.order.buyer, row.progress.order.week
