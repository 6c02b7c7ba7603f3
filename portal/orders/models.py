"""What the routes for orders take and give."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, Strict

from book.types import IsoDate
from meter.billing.sql.pages import OrderRow
from meter.book.sql.orders import MAX_UNITS
from portal.http.bodies import Body
from portal.http.paging import Next
from portal.http.values import MAX_NAME


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


class OrderPut(Body):
    """An order for a week, in the place of the one before."""

    buyer: str = Field(min_length=1, max_length=MAX_NAME)
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


BODIES: tuple[type[Body], ...] = (OrderPut,)
COLUMNS = tuple(OrderShown.model_fields)


def cells(row: OrderRow) -> list[Any]:
    shown = shown_order(row)
    return [getattr(shown, name) for name in COLUMNS]


def shown_order(row: OrderRow) -> OrderShown:
    progress = row.progress
    names = ("counts", "connected", "failed", "live", "units", "make_up", "left", "most")
    order = progress.order
    return OrderShown(
        buyer=order.buyer,
        week=order.week,
        quantity=order.quantity,
        invoice=row.invoice,
        **{name: getattr(progress, name) for name in names},
    )
