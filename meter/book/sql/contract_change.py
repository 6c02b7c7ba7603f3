"""Refuses changes of a contract's currency and time zone while anything of it is open (domain, section 5).

All versions of a profile share both, always: a version comes into force on a day to come, and nobody knows what is open
then. So who changes them takes a profile of another name, once nothing is asked for, owed, or waiting to be billed.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, select

from book.model import Buyer, Terms
from meter.billing.arithmetic.units import WHOLE
from meter.book.plan import ImportPlan, StoredBook, title_of
from meter.book.sql.order_rows import is_something
from meter.ledger.accounts import INCREMENT, UNIT, Account
from meter.ledger.sql import ledger
from meter.store.money_schema import billing_periods
from meter.store.schema import orders

_FIXED = ("currency", "time_zone")
_OWED = {
    Account.RECEIVABLE: "unpaid invoices",
    Account.PREPAID: "service that is paid for",
    Account.CREDITS: "open credits",
    Account.REFUNDS_DUE: "checks to send",
}
_UNBILLED = {
    Account.UNBILLED_CONNECTED: (UNIT, WHOLE),
    Account.UNBILLED_FAILED: (UNIT, WHOLE),
    Account.UNBILLED_MINUTES: (INCREMENT, 1),
}


def change_faults(connection: Connection, plan: ImportPlan, stored: StoredBook) -> list[str]:
    """Why an import may not do what it would to contracts; none where all is well."""
    return [*_of_profiles(plan, stored), *_of_buyers(connection, plan, stored)]


def open_matters(connection: Connection, buyer: str, currency: str) -> list[str]:
    """The open matters of a contract, in words."""
    held = ledger.balances(connection, buyer, currency)
    found = [words for account, words in _OWED.items() if held.get(account)]
    for account, (asset, whole) in _UNBILLED.items():
        if abs(ledger.quantity(connection, buyer, account, asset)) >= whole:
            found.append("transfers that are not billed")
            break
    closed = select(billing_periods.c.period).where(billing_periods.c.buyer == buyer)
    query = select(orders.c.week).where(orders.c.buyer == buyer, is_something(), orders.c.week.not_in(closed))
    return found + [f"the order for {week}" for week in connection.execute(query.order_by(orders.c.week)).scalars()]


def _of_profiles(plan: ImportPlan, stored: StoredBook) -> Iterator[str]:
    """Versions of one profile that differ in what is fixed."""
    made = [one for one in (*plan.added, *plan.replaced) if isinstance(one, Terms)]
    versions = {**stored.terms, **{(one.name, one.version): one for one in made}}
    for one in made:
        others = [other for (name, _), other in versions.items() if name == one.name]
        for field in _FIXED:
            differing = sorted({getattr(other, field) for other in others} - {getattr(one, field)})
            if differing:
                yield (
                    f"{title_of(one)}: {field} is {getattr(one, field)}, other versions have {', '.join(differing)};"
                    " a contract keeps it, so this needs a profile of another name"
                )


def _of_buyers(connection: Connection, plan: ImportPlan, stored: StoredBook) -> Iterator[str]:
    """Buyers that go over to a profile in another currency or zone with something open."""
    for one in plan.replaced:
        if not isinstance(one, Buyer) or one.terms.name == stored.buyers[one.name].terms.name:
            continue
        had = stored.versions_of(stored.buyers[one.name].terms.name)
        for field in _FIXED:
            before = {getattr(version, field) for version in had}
            if before and getattr(one.terms, field) not in before:
                matters = open_matters(connection, one.name, had[0].currency)
                if matters:
                    changed = f"{', '.join(sorted(before))} to {getattr(one.terms, field)}"
                    yield f"{title_of(one)}: {field} cannot go from {changed} while there are {', '.join(matters)}"
