"""Shortfalls made good on a Tuesday: a check, a credit, or make-up for the week that is invoiced then.

Each is settled once, in the transaction of that Tuesday's task: the row of its week says what became of it.
"""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Connection, insert, or_, select, update

from book.model import BuyerState
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import Line, Remedy, ShortfallRemedy, remedy
from meter.billing.arithmetic.drafts import remedy_text
from meter.billing.sql import documents
from meter.billing.sql.documents import BillingRun
from meter.book.sql.book import raise_version
from meter.book.sql.contracts import Contract, state_of
from meter.ledger.accounts import Account, Posting, Rule
from meter.ledger.sql.ledger import append
from meter.store.money_schema import billing_periods, refunds, remedies
from meter.store.schema import orders


def remedy_all(connection: Connection, contract: Contract, week: Week, run: BillingRun) -> list[str]:
    """Settle every shortfall that can be with this Tuesday's invoice; what became of them, in words."""
    buyer, at_us = contract.buyer.name, week.order_invoice_at
    query = select(billing_periods).where(
        billing_periods.c.buyer == buyer,
        or_(billing_periods.c.remedied_utc_us.is_(None), billing_periods.c.awaited_utc_us.is_(None)),
    )
    said = []
    for row in connection.execute(query.order_by(billing_periods.c.end_utc_us)).all():
        short_week = contract.week_from(row.period)
        if row.remedied_utc_us is None and short_week.remedy_closes_at <= at_us:
            line = Line(row.short_units, row.short_minor, row.short_counted)
            said.append(_remedy(connection, contract, row, line, what="remedied", week=week, run=run))
        if row.awaited_utc_us is None and _paid_before(connection, buyer, row.period, at_us):
            line = Line(row.awaiting_units, row.awaiting_minor, row.awaiting_counted)
            said.append(_remedy(connection, contract, row, line, what="awaited", week=week, run=run))
    return said


def _paid_before(connection: Connection, buyer: str, week: str, at_us: int) -> bool:
    query = select(orders.c.invoice).where(orders.c.buyer == buyer, orders.c.week == week)
    invoice = connection.execute(query).scalar_one_or_none()
    if invoice is None:
        return False
    paid_us = documents.find(connection, invoice).settled_utc_us
    return paid_us is not None and paid_us <= at_us


def _remedy(
    connection: Connection, contract: Contract, row: Any, line: Line, *, what: str, week: Week, run: BillingRun
) -> str:
    """Settle one shortfall; `what` is the column that says so: remedied, or awaited once its order was paid."""
    buyer, short_week = contract.buyer.name, contract.week_from(row.period)
    counts = orjson.loads(row.body)["counts"]
    settled_in = week.later(-2)  # the week on whose Tuesday this is
    choice = choice_of(connection, buyer, str(short_week), short_week.remedy_closes_at)
    if state_of(connection, buyer) is BuyerState.CANCELLED:
        choice = Remedy.REFUND  # there is no invoice more that could use a credit, nor a week
    settlement = remedy(choice, line, settled_in)
    key = f"remedy:{buyer}:{short_week}:{what}"
    to = {Remedy.CREDIT: Account.CREDITS, Remedy.REFUND: Account.REFUNDS_DUE}.get(settlement.remedy)
    if to is None:
        _add_make_up(connection, buyer, settlement, run)
    elif settlement.amount_minor:
        posting = Posting(
            key=key,
            buyer=buyer,
            rule=Rule.REMEDY,
            debit=Account.PREPAID,
            credit=to,
            asset=documents.find(connection, row.document).currency,
            amount=settlement.amount_minor,
            period=str(short_week),
            reason=remedy_text(settlement, str(short_week), counts),
            posted_utc_us=run.now_utc_us,
        )
        append(connection, [posting])
        if to is Account.REFUNDS_DUE:
            _add_refund(connection, key, settlement, posting, run)
    column = "remedy" if what == "remedied" else what
    columns = {column: settlement.remedy.value, f"{what}_utc_us": run.now_utc_us}
    this = (billing_periods.c.buyer == buyer, billing_periods.c.period == str(short_week))
    connection.execute(update(billing_periods).where(*this).values(**columns))
    return remedy_text(settlement, str(short_week), counts) + "."


def _add_make_up(connection: Connection, buyer: str, settlement: ShortfallRemedy, run: BillingRun) -> None:
    this = (orders.c.buyer == buyer, orders.c.week == str(settlement.order_week))
    moved = connection.execute(
        update(orders)
        .where(*this)
        .values(
            make_up=orders.c.make_up + settlement.counted,
            make_up_owed=orders.c.make_up_owed + settlement.counted,
            make_up_units=orders.c.make_up_units + settlement.units,
            make_up_minor=orders.c.make_up_minor + settlement.amount_minor,
            updated_utc_us=run.now_utc_us,
        )
    )
    if not moved.rowcount:
        connection.execute(
            insert(orders).values(
                buyer=buyer,
                week=str(settlement.order_week),
                quantity=0,
                make_up=settlement.counted,
                make_up_owed=settlement.counted,
                make_up_units=settlement.units,
                make_up_minor=settlement.amount_minor,
                updated_utc_us=run.now_utc_us,
            )
        )
    raise_version(connection)


def _add_refund(
    connection: Connection, key: str, settlement: ShortfallRemedy, posting: Posting, run: BillingRun
) -> None:
    connection.execute(
        insert(refunds).values(
            key=key,
            buyer=posting.buyer,
            week=posting.period,
            units=settlement.units,
            amount_minor=posting.amount,
            currency=posting.asset,
            due_on=settlement.due_on.isoformat(),
            created_utc_us=run.now_utc_us,
        )
    )


def choice_of(connection: Connection, buyer: str, week: str, before_us: int) -> Remedy | None:
    """A buyer's choice of remedy for a week: the one for that week itself, else the standing choice; None: nothing."""
    return chosen(connection, buyer, week, before_us) or chosen(connection, buyer, None, before_us)


def chosen(connection: Connection, buyer: str, week: str | None, before_us: int) -> Remedy | None:
    """The last choice made for a week, or with None the standing one; None where there was none."""
    mine = (remedies.c.buyer == buyer, remedies.c.at_utc_us < before_us)
    what = remedies.c.week.is_(None) if week is None else remedies.c.week == week
    query = select(remedies.c.remedy).where(*mine, what).order_by(remedies.c.id.desc()).limit(1)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else Remedy(found)
