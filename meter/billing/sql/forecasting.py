"""Forecasts over the store: the running week of each order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncEngine

from book.hours import open_times
from book.limits import binds, make_up_of, order_most
from book.model import BuyerState, Rating, Terms
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import DEFAULT_REMEDY, Prepaid, Remedy, WeekOrder, WeekResult, week_result
from meter.billing.arithmetic.forecast import Forecast, Progress, foresee, is_foreseeable
from meter.billing.arithmetic.units import SENT, WHOLE, CarriedUnits, bill_week
from meter.billing.sql.remedy import choice_of
from meter.billing.sql.weeks import as_invoiced, carried_units, frozen_order, terms_of, units_between
from meter.book.sql.contracts import Contract, read_contract, read_contracts
from meter.ledger.sql import periods
from meter.store.engine import reading
from meter.store.money_schema import billing_periods

EARLIER_WEEKS = 4


@dataclass(frozen=True, slots=True)
class OrderForecast:
    """The running week of one buyer. `forecast` is None before Wednesday; `remedy`: as things stand."""

    buyer: str
    week: str
    counts: str
    currency: str
    covered: int  # ordered, with the make-up
    remedy: Remedy
    counted: int
    forecast: Forecast | None


async def forecasts(engine: AsyncEngine, now_utc_us: int, buyer: str = "") -> list[OrderForecast]:
    """The running week of every buyer with an order for it or units in it, or of one. Raises UnknownBuyerError."""

    def work(connection: Connection) -> list[OrderForecast]:
        contracts = {buyer: read_contract(connection, buyer)} if buyer else read_contracts(connection)
        found = [_one(connection, one, now_utc_us) for one in contracts.values()]
        return [one for one in found if one is not None]

    async with reading(engine).connect() as connection:
        return await connection.run_sync(work)


def _one(connection: Connection, contract: Contract, now_utc_us: int) -> OrderForecast | None:
    week = contract.week_at(now_utc_us)
    if contract.terms_at(week.start_us).rating is not Rating.UNIT or contract.state is BuyerState.CANCELLED:
        return None
    buyer = contract.buyer
    frozen = frozen_order(connection, contract, week)
    terms = terms_of(connection, contract, week, frozen)
    carried, since = carried_units(connection, buyer.name)
    kinds = units_between(connection, buyer.name, since, now_utc_us + 1)
    if frozen is None and not any(kinds.values()):
        return None
    bought = as_invoiced(connection, frozen) if frozen else None
    week_end = _WeekEnd(
        week=week, terms=terms, bought=bought, kinds=kinds, carried=carried, kept=periods.kept_of(since)
    )
    counted = week_end(0).counted
    order = bought.order if bought else None
    times = open_times(buyer.hours, buyer.holidays, buyer.time_zone, week.start_us, week.end_us)
    progress = Progress(
        counted=counted,
        passed_us=times.passed(now_utc_us),
        open_us=times.total,
        earlier=_earlier(connection, buyer.name, week),
        most=order_most(terms, order) if binds(buyer, order) else None,
    )
    choice = choice_of(connection, buyer.name, str(week), now_utc_us + 1) or DEFAULT_REMEDY
    covered = order.quantity + make_up_of(terms, order) if order else 0
    foreseen = foresee(progress, covered, week_end) if is_foreseeable(week, now_utc_us) else None
    return OrderForecast(
        buyer=buyer.name,
        week=str(week),
        counts=terms.order_counts,
        currency=terms.currency,
        covered=covered,
        remedy=choice,
        counted=counted,
        forecast=foreseen,
    )


@dataclass(frozen=True, slots=True)
class _WeekEnd:
    """The running week closed as it will be, if so much more is delivered than so far, at the order's percentage."""

    week: Week
    terms: Terms
    bought: WeekOrder | None
    kinds: Mapping[str, Mapping[int, int]]
    carried: CarriedUnits
    kept: Prepaid

    def __call__(self, more: int) -> WeekResult:
        """`more` in what the order counts: connected transfers as sent, or units that are billed whole."""
        percent = self.terms.connected_percent if self.terms.order_counts == SENT else WHOLE
        connected = dict(self.kinds["connected"])
        connected[percent] = connected.get(percent, 0) + more
        units, _ = bill_week(self.carried, connected, self.kinds["failed"])
        return week_result(self.week, self.terms, self.bought, units, self.kept)


def _earlier(connection: Connection, buyer: str, week: Week) -> list[int]:
    query = select(billing_periods.c.body).where(
        billing_periods.c.buyer == buyer,
        periods.is_kind(periods.WEEK),
        billing_periods.c.period < str(week),
    )
    newest = query.order_by(billing_periods.c.period.desc()).limit(EARLIER_WEEKS)
    return [int(orjson.loads(body)["counted"]) for body in connection.execute(newest).scalars()]
