"""The gauges' values in the store: the lag of settling, orders of the week, and open amounts."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from meter.journal.sql.reading import CLOSED
from meter.settling.sql.settlement import boots_due
from meter.store.money_schema import INVOICE_IS_OPEN, documents, ledger_heads, postings
from meter.store.schema import facts


@dataclass(frozen=True, slots=True)
class Money:
    """Invoices that are not paid: how many, and what they ask for, by currency, in hundredths of it."""

    unpaid: int
    unpaid_minor: dict[str, int]


def settle_lag(connection: Connection) -> int | None:
    """When the oldest closed transfer that has no outcome was closed, in microseconds UTC; None: all have one."""
    oldest: int | None = None
    for router, boot, cursor in boots_due(connection):
        this = (facts.c.router == router, facts.c.boot == boot, CLOSED, facts.c.seq > cursor)
        at = connection.execute(select(facts.c.utc_us).where(*this).order_by(facts.c.seq).limit(1)).scalar()
        if at is not None and (oldest is None or at < oldest):
            oldest = at
    return oldest


def newest_posting(connection: Connection) -> int | None:
    """When the newest posting was made, in microseconds UTC; None: there is none."""
    last = (postings.c.buyer == ledger_heads.c.buyer) & (postings.c.seq == ledger_heads.c.seq)
    query = select(func.max(postings.c.posted_utc_us)).select_from(ledger_heads.join(postings, last))
    return connection.execute(query).scalar()


def money_now(connection: Connection) -> Money:
    """Unpaid invoices."""
    asked = func.sum(documents.c.total_minor - documents.c.applied_minor)
    query = select(documents.c.currency, func.count(), asked).where(INVOICE_IS_OPEN).group_by(documents.c.currency)
    rows = connection.execute(query).all()
    return Money(sum(count for _, count, _ in rows), {currency: int(minor) for currency, _, minor in rows})
