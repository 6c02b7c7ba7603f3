"""Closed service weeks and months: rows of one table, told apart by what their period looks like.

What a period counts is decided by the end of the one before it: what was dialled since, and what was dialled before but
posted too late for it.
"""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, and_, func, select

from meter.billing.arithmetic.cycle import Prepaid
from meter.billing.arithmetic.units import WHOLE, CarriedUnits, RunningUnits
from meter.store.money_schema import billing_periods, postings

WEEK, MONTH = "week", "month"
_LENGTHS = {WEEK: len("2026-06-01"), MONTH: len("2026-06")}


class PeriodEnd(Protocol):
    """Where a closed period ends, in time and in its buyer's chain."""

    end_utc_us: int
    through_seq: int


def kind_of(period: str) -> str:
    """`week` for a Monday, `month` for a month."""
    return MONTH if len(period) == _LENGTHS[MONTH] else WEEK


def is_kind(kind: str) -> ColumnElement[bool]:
    """The condition for rows of one kind."""
    return func.length(billing_periods.c.period) == _LENGTHS[kind]


def find(connection: Connection, buyer: str, period: str) -> Any:
    """The row of a closed period; None where it is not closed."""
    query = select(billing_periods).where(billing_periods.c.buyer == buyer, billing_periods.c.period == period)
    return connection.execute(query).one_or_none()


def last(connection: Connection, buyer: str, kind: str, *, before_us: int | None = None) -> Any:
    """The row that was closed last, or of those that ended before an instant; None where there is none."""
    query = select(billing_periods).where(billing_periods.c.buyer == buyer, is_kind(kind))
    if before_us is not None:
        query = query.where(billing_periods.c.end_utc_us < before_us)
    return connection.execute(query.order_by(billing_periods.c.end_utc_us.desc()).limit(1)).one_or_none()


def carried_of(row: Any) -> CarriedUnits:
    """The units that a closed week carries on; nothing where there is none."""
    if row is None:
        return CarriedUnits()
    connected, failed = row.connected_hundredths, row.failed_hundredths
    return CarriedUnits(RunningUnits(connected, connected // WHOLE), RunningUnits(failed, failed // WHOLE))


def kept_of(row: Any) -> Prepaid:
    """Prepaid units that a closed week leaves over; nothing where there is none."""
    return Prepaid() if row is None else Prepaid(row.prepaid_units, row.prepaid_minor)


def spans(before: PeriodEnd | None, end_us: int) -> list[ColumnElement[bool]]:
    """Which postings a period counts that ends at `end_us`, one condition for each index that finds them."""
    at = postings.c.dialout_utc_us
    if before is None:
        return [at < end_us]
    late = and_(postings.c.seq > before.through_seq, at < before.end_utc_us)
    return [and_(at >= before.end_utc_us, at < end_us), late]
