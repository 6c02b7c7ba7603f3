"""The tasks that billing has due at an instant: those of every buyer's weeks and months, in the order of time.

A task is a reason to look, not an order: `tasks.perform` reads again in its own transaction, so a task that was done
meanwhile does nothing. Nothing is remembered of which tasks ran; that follows from what is written, and so runs that
were missed are caught up with in order.

    SETTLE   a service week is over: its units, its overage, its statement
    TUESDAY  remedies close at noon, then the order of the week that begins six days later is invoiced
    SETUP    the one-time fee of a buyer who pays by the minute
    MONTH    a month of such a buyer is over
    HOLD     an invoice is due and not paid
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from sqlalchemy import Connection, and_, func, select

from book.model import BuyerState, Rating, Terms
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.months import Month, month_of
from meter.billing.sql.documents import IS_HANDED_OVER
from meter.billing.sql.withheld import count_due
from meter.book.sql.contracts import Contract
from meter.book.sql.order_rows import is_something
from meter.journal.sql.reading import CLOSED
from meter.ledger.accounts import INCREMENT, UNIT
from meter.ledger.sql.periods import kind_of
from meter.store.money_schema import INVOICE_IS_OPEN, billing_periods, documents, ledger_heads, postings
from meter.store.schema import book_version, boots, facts, meter_cursors, orders

LAG_US = 60_000_000  # a meter this far behind is lagging: with traffic there is always something not settled yet
LOOK_BACK_WEEKS = 520  # of an order or a transfer that was never billed


class TaskKind(IntEnum):
    """In the order in which those of the same instant are done."""

    SETTLE = 0
    TUESDAY = 1
    SETUP = 2
    MONTH = 3
    HOLD = 4


@dataclass(frozen=True, slots=True, order=True)
class DueTask:
    """One thing to do. `period`: a Monday, a month, or of a hold the invoice's number."""

    at_us: int
    kind: TaskKind
    buyer: str
    period: str


def due_tasks(
    connection: Connection, contracts: Mapping[str, Contract], now_utc_us: int, settle_after_us: int
) -> list[DueTask]:
    """Every task that is due by `now_utc_us`. Reads a few rows per buyer."""
    look = _Look(connection, now_utc_us, settle_after_us)
    found: set[DueTask] = set()
    for contract in contracts.values():
        found |= look.weeks(contract) | look.months(contract)
    found |= look.holds()
    return sorted(found)


def next_boundary(contracts: Mapping[str, Contract], after_utc_us: int, settle_after_us: int) -> int | None:
    """The next instant at which the calendar alone makes a task due: a week closed, a Tuesday noon, a month over."""
    found: set[int] = set()
    for contract in contracts.values():
        week = contract.week_at(after_utc_us)
        for one in (week.later(-1), week, week.later(1), week.later(2)):
            found |= {one.end_us + settle_after_us, one.order_invoice_at}
        month = month_of(after_utc_us, week.zone)
        found |= {month.end_us + settle_after_us, month.later(-1).end_us + settle_after_us}
    return min((at for at in found if at > after_utc_us), default=None)


@dataclass(frozen=True, slots=True)
class _Last:
    """Where the closed weeks, or months, of a buyer end."""

    period: str
    end_us: int
    through_seq: int


class _Look:
    """One look at the store, with what is read once for all buyers."""

    def __init__(self, connection: Connection, now_utc_us: int, settle_after_us: int) -> None:
        self._connection = connection
        self._now = now_utc_us
        self._over = now_utc_us - settle_after_us  # what ended by then may be settled
        self._heads = {row.buyer: row.seq for row in connection.execute(select(ledger_heads))}
        self._last = _last_periods(connection)
        self._orders = _unclosed_orders(connection)
        self._open = _open_weeks(connection)

    def weeks(self, contract: Contract) -> set[DueTask]:
        name = contract.buyer.name
        tasks: set[DueTask] = set()
        to_settle = {week for week in self._weeks_with_units(contract) if week.end_us <= self._over}
        for monday, invoiced in self._orders.get(name, []):
            week = contract.week_from(monday)
            if week.end_us <= self._over:
                to_settle.add(week)
            if not invoiced and week.order_invoice_at <= self._now and contract.state is not BuyerState.CANCELLED:
                tasks.add(DueTask(week.order_invoice_at, TaskKind.TUESDAY, name, str(week)))
        open_weeks = {contract.week_from(monday) for monday, since in self._open.get(name, []) if since is None}
        for week in to_settle | open_weeks:
            if week in to_settle:
                tasks.add(DueTask(week.end_us, TaskKind.SETTLE, name, str(week)))
            if week.remedy_closes_at <= self._now:
                tasks.add(DueTask(week.remedy_closes_at, TaskKind.TUESDAY, name, str(week.make_up_week)))
        for _, paid_us in self._open.get(name, []):
            if paid_us is not None:  # what awaited its payment is settled with the next Tuesday
                week = _tuesday_after(contract, paid_us)
                if week.order_invoice_at <= self._now:
                    tasks.add(DueTask(week.order_invoice_at, TaskKind.TUESDAY, name, str(week)))
        return tasks

    def months(self, contract: Contract) -> set[DueTask]:
        name, terms = contract.buyer.name, contract.terms_at(self._now)
        tasks = self._months_over(contract, terms)
        by_minute = terms.rating is Rating.MINUTE
        if by_minute and terms.setup_fee_minor and contract.state is BuyerState.ACTIVE and not self._is_set_up(name):
            first = min([self._now, *(one.at_us - 1 for one in tasks)])  # before the first month, caught up with or not
            tasks.add(DueTask(first, TaskKind.SETUP, name, ""))
        return tasks

    def _months_over(self, contract: Contract, terms: Terms) -> set[DueTask]:
        name, by_minute = contract.buyer.name, terms.rating is Rating.MINUTE
        tasks: set[DueTask] = set()
        last = self._last.get((name, "month"))
        if last is None and not any(one.rating is Rating.MINUTE for one in contract.versions):
            return tasks  # no index tells increments from units: looking for some would read all that it ever posted
        first, newest = self._span(name, INCREMENT, last)
        has_lines = by_minute and contract.buyer.extra_lines and contract.state is not BuyerState.CANCELLED
        if first is None and not (has_lines and last):
            return tasks
        month = month_of(first, terms.time_zone) if first is not None else Month(str(last and last.period), "").later(1)
        month = Month(month.name, terms.time_zone)
        while month.end_us <= self._over and (newest is None or month.start_us <= newest or has_lines):
            tasks.add(DueTask(month.end_us, TaskKind.MONTH, name, month.name))
            month = month.later(1)
        return tasks

    def holds(self) -> set[DueTask]:
        query = select(documents.c.due_utc_us, documents.c.buyer, documents.c.number)
        query = query.where(INVOICE_IS_OPEN, documents.c.held_utc_us.is_(None), documents.c.due_utc_us <= self._now)
        query = query.where(IS_HANDED_OVER)  # domain, section 6
        return {DueTask(due, TaskKind.HOLD, buyer, number) for due, buyer, number in self._connection.execute(query)}

    def _weeks_with_units(self, contract: Contract) -> list[Week]:
        """Weeks after the last closed one, from the first with a unit to the last; one for late units alone."""
        name = contract.buyer.name
        last = self._last.get((name, "week"))
        first, newest = self._span(name, UNIT, last)
        if first is None or newest is None:
            return []
        week = contract.week_at(first)
        if last is not None and week.end_us <= last.end_us:  # a late unit: with the week after the last closed one
            week = contract.week_at(last.end_us)
        found = [week]
        while found[-1].end_us <= newest and len(found) < LOOK_BACK_WEEKS:
            found.append(found[-1].later(1))
        return found

    def _is_set_up(self, buyer: str) -> bool:
        query = select(documents.c.number).where(documents.c.key == f"setup:{buyer}")
        return self._connection.execute(query).first() is not None

    def _span(self, buyer: str, asset: str, last: _Last | None) -> tuple[int | None, int | None]:
        """First and last dial-out of what is not settled yet."""
        if not self._heads.get(buyer):
            return None, None
        at = postings.c.dialout_utc_us
        mine = (postings.c.buyer == buyer, at.is_not(None), postings.c.asset == asset)
        end_us, through = (last.end_us, last.through_seq) if last else (0, 0)
        newer = and_(*mine, at >= end_us)
        first, newest = (
            self._connection.execute(select(at).where(newer).order_by(order).limit(1)).scalar()
            for order in (at, at.desc())
        )
        if last is not None and self._heads[buyer] > through:
            when = at + 0  # no index: by the chain these are a week's postings, by dial-out all that ever were
            fresh = (postings.c.buyer == buyer, postings.c.seq > through, postings.c.asset == asset)
            found = self._connection.execute(select(func.min(when)).where(*fresh, when < end_us)).scalar()
            if found is not None:
                return found, max(found, newest or found, end_us)
        return first, newest


@dataclass(frozen=True, slots=True)
class Signs:
    """Signs, cheap to read, of whether any task may be due."""

    book: int  # version: an order, a payment's release and a change of terms raise it
    is_behind: bool  # there are closing facts that the meter has not settled for a while
    due_us: int | None  # when the next open invoice that has not held its buyer falls due


def read_signs(connection: Connection, now_utc_us: int | None = None) -> Signs:
    """A handful of rows. Without an instant any closing fact that is not settled is one too many."""
    query = select(func.min(documents.c.due_utc_us)).where(INVOICE_IS_OPEN, documents.c.held_utc_us.is_(None))
    query = query.where(IS_HANDED_OVER)
    version = connection.execute(select(book_version.c.version)).scalar() or 0
    behind = is_behind(connection, None if now_utc_us is None else now_utc_us - LAG_US)
    return Signs(int(version), behind, connection.execute(query).scalar())


def is_behind(connection: Connection, before_us: int | None) -> bool:
    """Whether transfers closed by then are not counted yet; None: any."""
    cursor = func.coalesce(meter_cursors.c.seq, 0)
    of_boot = and_(meter_cursors.c.router == boots.c.router, meter_cursors.c.boot == boots.c.boot)
    waiting = (
        select(facts.c.seq)
        .where(facts.c.router == boots.c.router, facts.c.boot == boots.c.boot, CLOSED)
        .where(facts.c.seq > cursor)
    )
    if before_us is not None:
        waiting = waiting.where(facts.c.utc_us <= before_us)
    query = select(boots.c.boot).outerjoin_from(boots, meter_cursors, of_boot).where(waiting.exists())
    return connection.execute(query.limit(1)).first() is not None


def money_gauges(connection: Connection, now_utc_us: int) -> tuple[int, int]:
    """How many invoices are overdue, and how many checks are to be sent now."""
    overdue = select(func.count()).where(INVOICE_IS_OPEN, documents.c.due_utc_us <= now_utc_us)
    return int(connection.execute(overdue).scalar_one()), count_due(connection)


def _last_periods(connection: Connection) -> dict[tuple[str, str], _Last]:
    """By buyer, and `week` or `month`."""
    found: dict[tuple[str, str], _Last] = {}
    columns = (billing_periods.c.buyer, billing_periods.c.period, billing_periods.c.end_utc_us)
    is_month = func.length(billing_periods.c.period)
    newest = (
        select(billing_periods.c.buyer, is_month.label("length"), func.max(billing_periods.c.end_utc_us).label("end"))
        .group_by(billing_periods.c.buyer, is_month)
        .subquery()
    )
    query = select(*columns, billing_periods.c.through_seq).join(
        newest,
        and_(
            newest.c.buyer == billing_periods.c.buyer,
            newest.c.end == billing_periods.c.end_utc_us,
            newest.c.length == is_month,
        ),
    )
    for buyer, period, end_us, through in connection.execute(query):
        found[buyer, kind_of(period)] = _Last(period, end_us, through)
    return found


def _unclosed_orders(connection: Connection) -> dict[str, list[tuple[str, bool]]]:
    """By buyer: the weeks of orders that are not closed, and whether each was invoiced or is make-up alone."""
    joined = and_(billing_periods.c.buyer == orders.c.buyer, billing_periods.c.period == orders.c.week)
    query = (
        select(orders.c.buyer, orders.c.week, orders.c.quantity, orders.c.invoice)
        .outerjoin_from(orders, billing_periods, joined)
        .where(billing_periods.c.buyer.is_(None), is_something())
    )
    found: dict[str, list[tuple[str, bool]]] = {}
    for buyer, week, quantity, invoice in connection.execute(query.order_by(orders.c.buyer, orders.c.week)):
        found.setdefault(buyer, []).append((week, invoice is not None or not quantity))
    return found


def _open_weeks(connection: Connection) -> dict[str, list[tuple[str, int | None]]]:
    """By buyer: closed weeks whose shortfall waits for its remedy (None), or whose order was paid since (when)."""
    found: dict[str, list[tuple[str, int | None]]] = {}
    short = select(billing_periods.c.buyer, billing_periods.c.period).where(billing_periods.c.remedied_utc_us.is_(None))
    for buyer, period in connection.execute(short):
        found.setdefault(buyer, []).append((period, None))
    waiting: Any = (
        select(billing_periods.c.buyer, billing_periods.c.period, documents.c.settled_utc_us)
        .join(
            orders,
            and_(orders.c.buyer == billing_periods.c.buyer, orders.c.week == billing_periods.c.period),
        )
        .join(documents, documents.c.number == orders.c.invoice)
        .where(billing_periods.c.awaited_utc_us.is_(None), documents.c.settled_utc_us.is_not(None))
    )
    for buyer, period, paid_us in connection.execute(waiting):
        found.setdefault(buyer, []).append((period, paid_us))
    return found


def _tuesday_after(contract: Contract, at_us: int) -> Week:
    """The week whose order is invoiced on the first Tuesday noon at or after an instant."""
    week = contract.week_at(at_us)
    while week.order_invoice_at < at_us:
        week = week.later(1)
    return week
