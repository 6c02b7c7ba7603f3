"""An order as its row says."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, or_

from book.model import Order, OrderClauses
from meter.store.schema import orders

COLUMNS = (
    orders.c.buyer,
    orders.c.week,
    orders.c.quantity,
    orders.c.make_up,
    orders.c.make_up_owed,
    orders.c.make_up_units,
    orders.c.invoice,
    orders.c.order_counts,
    orders.c.overrun_percent,
)


def order_of_row(row: Any) -> Order:
    """Given a row with at least `COLUMNS`: what was bought, and once it is invoiced what is frozen."""
    clauses = OrderClauses(row.order_counts, row.overrun_percent) if row.invoice else None
    return Order(
        buyer=row.buyer,
        week=row.week,
        quantity=row.quantity,
        make_up=row.make_up,
        make_up_owed=row.make_up_owed,
        make_up_units=row.make_up_units,
        clauses=clauses,
    )


def is_something() -> ColumnElement[bool]:
    """The condition for rows with something to settle: bought, to be made up for, or paid for."""
    return or_(orders.c.quantity > 0, orders.c.make_up > 0, orders.c.make_up_units > 0)
