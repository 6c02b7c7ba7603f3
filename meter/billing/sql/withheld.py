"""Withheld checks: the payment that they refund has not come, or was taken back (domain, section 6).

A check for what a week fell short of waits while the invoice of that week's order is open, as when its payment bounced
after the remedy; one for open credits while these are below nothing. It is on the worklist again once that is over.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, select

from meter.ledger.accounts import Account
from meter.ledger.sql import ledger
from meter.store.money_schema import INVOICE_IS_OPEN, documents, refunds
from meter.store.schema import orders


def waits_for(connection: Connection, refund: Any) -> str:
    """The reason for which a check is withheld, in words; empty: none. `refund`: its row."""
    if refund.week is None:
        held = ledger.balance(connection, refund.buyer, Account.CREDITS, refund.currency)
        return "open credits: what they came from was taken back" if held > 0 else ""
    of_order = and_(documents.c.number == orders.c.invoice, INVOICE_IS_OPEN)
    query = select(documents.c.number).join(orders, of_order)
    number = connection.execute(query.where(orders.c.buyer == refund.buyer, orders.c.week == refund.week)).scalar()
    return f"the payment of {number}" if number else ""


def count_due(connection: Connection) -> int:
    """Checks that can be sent now."""
    rows = connection.execute(select(refunds).where(refunds.c.paid_utc_us.is_(None))).all()
    return sum(not waits_for(connection, row) for row in rows)
