"""The tasks of a service week, each one transaction: close it; on Tuesday, its remedy and the next order's invoice.

`close_week` freezes a week: the end of the buyer's chain at that moment says which units are in it, so a unit that is
posted later is, by its place in the chain, one of the next week's. Everything here is called again and again and done
once: the row of the period, the keys of the documents and the order's own invoice say that it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import orjson
from sqlalchemy import Connection, func, insert, select, update

from book.model import BuyerState, Order, Rating, Terms
from meter.billing.arithmetic.calendar import Week, deadline_us, local_day
from meter.billing.arithmetic.cycle import Prepaid, WeekOrder, WeekResult, make_up_units, week_result
from meter.billing.arithmetic.drafts import Draft, order_draft, overage_draft, week_draft, week_figures
from meter.billing.arithmetic.units import (
    SENT,
    WHOLE,
    CarriedUnits,
    OrderedUnits,
    WeekUnits,
    bill_week,
    paid_in_advance,
)
from meter.billing.sql import documents
from meter.billing.sql.documents import BillingRun
from meter.billing.sql.remedy import remedy_all
from meter.book.sql.book import raise_version, read_terms
from meter.book.sql.contracts import Contract, state_of
from meter.book.sql.order_rows import is_something, order_of_row
from meter.ledger.accounts import UNIT, Account, Posting, Rule
from meter.ledger.sql import periods
from meter.ledger.sql.ledger import append, lock_heads
from meter.store.money_schema import billing_periods, postings
from meter.store.schema import orders

_ORDER_DAYS = 2  # Tuesday to Thursday
_OVERAGE_DAYS = 1  # Monday to Tuesday


@dataclass(frozen=True, slots=True)
class FrozenOrder:
    """An order as it stands in the store; `terms` as it was invoiced, or as they are as its week begins."""

    order: Order
    terms: Terms
    make_up_minor: int
    invoice: str | None
    paid_units: int  # in advance; 0: not invoiced

    @property
    def delivered_against(self) -> Order:
        """What the week is held against: of an order that was never invoiced nothing was bought but its make-up."""
        return self.order if self.invoice else replace(self.order, quantity=0)

    @property
    def came_with(self) -> Prepaid:
        """The amount that its make-up brings along, in minor units."""
        return Prepaid(make_up_units(self.order, self.terms), self.make_up_minor)

    def bought(self, *, paid: bool) -> WeekOrder:
        """As its week is closed."""
        return WeekOrder(self.delivered_against, self.paid_units, self.came_with, paid)


def close_week(connection: Connection, contract: Contract, week: Week, run: BillingRun) -> list[str]:
    """Close a week that is over; the numbers of the documents that are new. Nothing where there is nothing in it."""
    buyer = contract.buyer.name
    through = lock_heads(connection, [buyer])[buyer][0]
    if periods.find(connection, buyer, str(week)) is not None:
        return []
    carried, since = carried_units(connection, buyer)
    if since is not None and week.end_us <= since.end_utc_us:
        return []  # it was empty when the weeks after it were closed: what came late is in one of those
    _check_order_of_weeks(connection, buyer, week)
    kinds = units_between(connection, buyer, since, week.end_us)
    frozen = frozen_order(connection, contract, week)
    if not any(kinds.values()) and frozen is None:
        return []
    units, after = bill_week(carried, kinds["connected"], kinds["failed"])
    terms = terms_of(connection, contract, week, frozen)
    bought = frozen.bought(paid=_is_paid(connection, frozen.invoice)) if frozen else None
    result = week_result(week, terms, bought, units, periods.kept_of(since))
    append(connection, [*_billed(buyer, week, units, run), *_earned(buyer, terms, result, run)])
    numbers: list[str] = []
    overage = None
    key = f"week:{buyer}:{week}"
    if result.overage.units:
        due = _due(week, run, week.overage_due_at, _OVERAGE_DAYS)
        draft = overage_draft(f"overage:{buyer}:{week}", contract.buyer, terms, result=result, units=units, due_us=due)
        total = _invoice(draft, Account.REVENUE)
        overage = _issue(connection, contract, run, draft, moves=[total], numbers=numbers)
    draft = week_draft(key, contract.buyer, terms, result=result, units=units, overage=overage)
    statement = _issue(connection, contract, run, draft, moves=[], numbers=numbers)
    short, waiting = result.shortfall, result.awaiting
    row = {
        "buyer": buyer,
        "period": str(week),
        "end_utc_us": week.end_us,
        "through_seq": through,
        "connected_hundredths": after.connected.hundredths,
        "failed_hundredths": after.failed.hundredths,
        "body": orjson.dumps(week_figures(result, units), option=orjson.OPT_SORT_KEYS),
        "short_counted": short.counted,
        "short_units": short.units,
        "short_minor": short.amount_minor,
        "awaiting_counted": waiting.counted,
        "awaiting_units": waiting.units,
        "awaiting_minor": waiting.amount_minor,
        "prepaid_units": result.kept.units,
        "prepaid_minor": result.kept.amount_minor,
        "document": statement,
        "overage": overage,
        "settled_utc_us": run.now_utc_us,
        "remedied_utc_us": None if short else run.now_utc_us,
        "awaited_utc_us": None if waiting else run.now_utc_us,
    }
    connection.execute(insert(billing_periods).values(**row))
    return numbers


def _check_order_of_weeks(connection: Connection, buyer: str, week: Week) -> None:
    """Weeks are closed in their order: one that could not be must not be passed over with its order prepaid."""
    done = select(billing_periods.c.period).where(billing_periods.c.buyer == buyer)
    query = select(orders.c.week).where(
        orders.c.buyer == buyer,
        orders.c.week < str(week),
        is_something(),
        orders.c.week.not_in(done),
    )
    before = connection.execute(query.order_by(orders.c.week).limit(1)).scalar_one_or_none()
    if before is not None:
        raise ValueError(f"week of {week}: the week of {before} is not settled yet")


def tuesday(connection: Connection, contract: Contract, week: Week, run: BillingRun) -> list[str]:
    """At noon: remedies of what fell short so far, then the invoice for the order of `week`, which begins in six days.

    Returns the numbers of the documents that are new.
    """
    buyer = contract.buyer.name
    lock_heads(connection, [buyer])
    notes = remedy_all(connection, contract, week, run)
    frozen = frozen_order(connection, contract, week)
    numbers: list[str] = []
    if frozen is None or frozen.invoice or state_of(connection, buyer) is BuyerState.CANCELLED:
        return numbers
    if not frozen.order.quantity:
        return numbers  # make-up alone: nothing is asked for, and what is ordered still gets its invoice
    if frozen.terms.rating is not Rating.UNIT:
        if notes:
            return numbers  # remedies do not wait for an order that cannot be invoiced: the next look tells of it
        raise ValueError(f"order of {week}: terms {frozen.terms.name!r} are not paid by the unit, but by the minute")
    bought = as_invoiced(connection, frozen)
    due = _due(week, run, week.order_due_at, _ORDER_DAYS)
    draft = order_draft(
        _order_key(connection, buyer, week),
        contract.buyer,
        frozen.terms,
        week=week,
        bought=bought,
        due_us=due,
        notes=notes,
    )
    total = _invoice(draft, Account.PREPAID)
    number = _issue(connection, contract, run, draft, moves=[total], numbers=numbers)
    connection.execute(
        update(orders)
        .where(orders.c.buyer == buyer, orders.c.week == str(week))
        .values(
            invoice=number,
            price_minor=frozen.terms.unit_price_minor,
            paid_units=bought.paid_units,
            connected_percent=frozen.terms.connected_percent,
            order_counts=frozen.terms.order_counts,
            overrun_percent=frozen.terms.overrun_percent,
            terms_name=frozen.terms.name,
            terms_version=frozen.terms.version,
        )
    )
    raise_version(connection)
    return numbers


def frozen_order(connection: Connection, contract: Contract, week: Week) -> FrozenOrder | None:
    """The order of a week, with the terms that it was invoiced by; None where nothing was ordered."""
    query = select(orders).where(orders.c.buyer == contract.buyer.name, orders.c.week == str(week))
    row = connection.execute(query).one_or_none()
    if row is None or not (row.quantity or row.make_up or row.make_up_units):
        return None
    terms = contract.terms_at(week.start_us)
    if row.invoice:
        named = [one for one in contract.versions if (one.name, one.version) == (row.terms_name, row.terms_version)]
        terms = named[0] if named else terms
        terms = replace(
            terms,
            unit_price_minor=row.price_minor,
            order_counts=row.order_counts,
            overrun_percent=row.overrun_percent,
            connected_percent=terms.connected_percent if row.connected_percent is None else row.connected_percent,
        )
    return FrozenOrder(order_of_row(row), terms, row.make_up_minor, row.invoice, row.paid_units or 0)


def as_invoiced(connection: Connection, frozen: FrozenOrder) -> WeekOrder:
    """An order as it was invoiced, or is going to be: what it pays in advance follows from all orders so far."""
    if frozen.invoice:
        return frozen.bought(paid=True)
    order, terms = frozen.order, frozen.terms
    mine = (orders.c.buyer == order.buyer, orders.c.invoice.is_not(None), orders.c.order_counts == SENT)
    query = select(func.sum(orders.c.quantity * orders.c.connected_percent), func.sum(orders.c.paid_units))
    hundredths, units = connection.execute(query.where(*mine, orders.c.connected_percent.is_not(None))).one()
    before = OrderedUnits(int(hundredths or 0), int(units or 0))
    paid_units = paid_in_advance(terms.order_counts, order.quantity, terms.connected_percent, before)
    return WeekOrder(order, paid_units, frozen.came_with, paid=True)


def carried_units(connection: Connection, buyer: str) -> tuple[CarriedUnits, periods.PeriodEnd | None]:
    """The units that the week closed last carries on, and where it ends; None where none was closed."""
    row = periods.last(connection, buyer, periods.WEEK)
    return periods.carried_of(row), row


def units_between(
    connection: Connection, buyer: str, since: periods.PeriodEnd | None, end_us: int
) -> dict[str, dict[int, int]]:
    """Units by kind and percentage: those of the week, and what was posted late to weeks before."""
    columns = (postings.c.unit, postings.c.percent)
    mine = (postings.c.buyer == buyer, postings.c.asset == UNIT, postings.c.dialout_utc_us.is_not(None))
    found: dict[str, dict[int, int]] = {"connected": {}, "failed": {}}
    for span in periods.spans(since, end_us):
        query = select(*columns, func.sum(postings.c.units)).where(*mine, span).group_by(*columns)
        for unit, percent, count in connection.execute(query):
            found[unit][percent] = found[unit].get(percent, 0) + int(count)
    return {unit: {percent: count for percent, count in by.items() if count} for unit, by in found.items()}


def unit_terms(contract: Contract, week: Week) -> Terms:
    """Of a week without an order: the terms as it begins; where these are by the minute, the first by the unit."""
    terms = contract.terms_at(week.start_us)
    if terms.rating is Rating.UNIT:
        return terms
    return next((one for one in contract.versions if one.rating is Rating.UNIT), terms)


def terms_of(connection: Connection, contract: Contract, week: Week, frozen: FrozenOrder | None) -> Terms:
    """The terms that price a week: as its order was invoiced, else as it began.

    Of a buyer that has gone over to a profile by the minute they are those with which its units were posted.
    """
    terms = frozen.terms if frozen else unit_terms(contract, week)
    if frozen is None and terms.rating is not Rating.UNIT:
        return _terms_of_units(connection, contract.buyer.name, week) or terms
    return terms


def _terms_of_units(connection: Connection, buyer: str, week: Week) -> Terms | None:
    """The terms of the newest unit up to the end of a week, as it was posted."""
    at = postings.c.dialout_utc_us
    query = select(postings.c.terms_name, postings.c.terms_version).where(
        postings.c.buyer == buyer, postings.c.asset == UNIT, at.is_not(None), at < week.end_us
    )
    row = connection.execute(query.order_by(at.desc()).limit(1)).one_or_none()
    return None if row is None else read_terms(connection, row.terms_name, row.terms_version)


def _is_paid(connection: Connection, invoice: str | None) -> bool:
    return invoice is not None and documents.find(connection, invoice).settled_utc_us is not None


def _billed(buyer: str, week: Week, units: WeekUnits, run: BillingRun) -> list[Posting]:
    """Whole units leave what is not billed yet; less than one stays there until the next week."""
    made = []
    for unit, count in (("connected", units.billed_connected), ("failed", units.billed_failed)):
        unbilled = Account(f"unbilled_{unit}")
        debit, credit = (Account.BILLED, unbilled) if count >= 0 else (unbilled, Account.BILLED)
        posting = Posting(
            key=f"week:{buyer}:{week}:{unit}",
            buyer=buyer,
            rule=Rule.BILLED,
            debit=debit,
            credit=credit,
            asset=UNIT,
            amount=abs(count) * WHOLE,
            unit=unit,
            units=count,
            period=str(week),
            posted_utc_us=run.now_utc_us,
        )
        made.append(posting)
    return [one for one in made if one.amount]


def _earned(buyer: str, terms: Terms, result: WeekResult, run: BillingRun) -> list[Posting]:
    """What was prepaid for the week and is neither short, waiting for its payment, nor kept is earned."""
    earned = result.earned_minor(terms.unit_price_minor)
    if not earned:
        return []
    debit, credit = (Account.PREPAID, Account.REVENUE) if earned > 0 else (Account.REVENUE, Account.PREPAID)
    posting = Posting(
        key=f"week:{buyer}:{result.week}:earned",
        buyer=buyer,
        rule=Rule.EARNED,
        debit=debit,
        credit=credit,
        asset=terms.currency,
        amount=abs(earned),
        period=str(result.week),
        posted_utc_us=run.now_utc_us,
    )
    return [posting]


def _order_key(connection: Connection, buyer: str, week: Week) -> str:
    """What an order's invoice is for; one that was cancelled leaves room for another."""
    before = documents.find_all(connection, buyer, kind="order", period=str(week))
    return f"order:{buyer}:{week}" + (f":{len(before) + 1}" if before else "")


def _invoice(draft: Draft, credit: Account) -> Posting:
    return Posting(
        key=f"{draft.key}:total",
        buyer=draft.buyer.name,
        rule=Rule.INVOICE,
        debit=Account.RECEIVABLE,
        credit=credit,
        asset=draft.terms.currency,
        amount=draft.total_minor,
        period=draft.period,
    )


def _issue(
    connection: Connection,
    contract: Contract,
    run: BillingRun,
    draft: Draft,
    *,
    moves: Sequence[Posting],
    numbers: list[str],
) -> str:
    issued = documents.issue(
        connection,
        draft,
        issuer=run.issuer,
        to=contract.documents_to,
        moves=moves,
        now_utc_us=run.now_utc_us,
    )
    if issued.new:
        numbers.append(issued.number)
    return issued.number


def _due(week: Week, run: BillingRun, scheduled_us: int, days: int) -> int:
    """The scheduled instant; for an invoice that comes late, as many days after it is issued."""
    issued = local_day(run.now_utc_us, week.zone)
    return max(scheduled_us, deadline_us(issued + timedelta(days=days), week.end_of_business, week.zone))
