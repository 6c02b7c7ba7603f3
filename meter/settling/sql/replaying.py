"""Replays the journal from the store: the transfers that each week counts, their facts, and their postings.

Only reads, in short transactions: a page of transfers at a time. What is compared is `meter.settling.replay`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import OrderClauses, Terms
from facts.fact import Fact, Kind, first_of
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import Prepaid, WeekOrder, make_up_units
from meter.billing.arithmetic.units import SENT, CarriedUnits, OrderedUnits, paid_in_advance
from meter.billing.sql.detail import Bounds, bounds_of, within
from meter.billing.sql.documents import find
from meter.billing.sql.weeks import FrozenOrder, frozen_order, terms_of, unit_terms
from meter.book.sql.book import UnknownBuyerError
from meter.book.sql.contracts import Contract, read_contracts
from meter.journal.rows import read_row
from meter.journal.sql.reading import facts_of_transfers
from meter.ledger.accounts import Posting, Rule
from meter.ledger.sql import periods
from meter.ledger.sql.ledger import OUTCOME_RULES, outcomes_posted, to_posting
from meter.settling.follower import SettleOptions, settle
from meter.settling.replay import Charge, ReplayReport, Unit, WeekReplayed, charge_of, decide_under
from meter.store.clerk import Clerk
from meter.store.money_schema import postings
from meter.store.schema import outcomes

PAGE = 400  # transfers read at a time

Versions = Mapping[str, Sequence[Terms]]  # of a profile, by its name


@dataclass(frozen=True, slots=True)
class _Week:
    """A week to replay: its order, what it inherits, and what the ledger has of it."""

    week: Week
    bounds: Bounds
    frozen: FrozenOrder | None
    bought: WeekOrder | None
    terms: Terms  # that price it, as they are
    carried: CarriedUnits
    kept: Prepaid
    was: Charge | None
    as_sent: bool = False  # settled by a release that charged for what was sent: before decision 076
    is_passed: bool = False  # it was empty as weeks after it were settled: what came late for it is in one of those


async def replay(
    engine: AsyncEngine, from_us: int, to_us: int, *, versions: Versions | None = None, buyer: str = ""
) -> ReplayReport:
    """Replay the service weeks that begin in `from_us` to before `to_us`; under `versions` terms where these are given.

    `versions` replaces profiles of the same name. Instants in microseconds UTC.
    """
    clerk = Clerk(engine)
    report = ReplayReport()
    try:
        contracts = await clerk.read(read_contracts)
        if buyer and buyer not in contracts:
            raise UnknownBuyerError(f"no buyer is called {buyer!r}")
        for name in [buyer] if buyer else sorted(contracts):
            await _replay_buyer(clerk, contracts[name], (from_us, to_us), versions, report)
    finally:
        await clerk.close()
    return report


async def _replay_buyer(
    clerk: Clerk, contract: Contract, span: tuple[int, int], versions: Versions | None, report: ReplayReport
) -> None:
    name = contract.buyer.name
    carried: CarriedUnits | None = None
    kept = Prepaid()
    ordered = OrderedUnits()  # under other terms: by the orders of the period
    changed = contract
    if versions is not None and contract.buyer.terms.name in versions:
        changed = replace(contract, versions=tuple(versions[contract.buyer.terms.name]))
    for week in _weeks(contract, *span):
        replayed = await clerk.read(_week_of, contract, week)
        if replayed.is_passed:
            continue
        units: list[Unit] = []
        terms = replayed.terms if changed is contract else unit_terms(changed, week)
        async for history, posted in _transfers(clerk, name, replayed.bounds):
            report.transfers += 1
            units += _again(history, posted, changed, contract, report)
        units += await clerk.read(_reversals, name, replayed.bounds)
        if not units and replayed.frozen is None and replayed.was is None:
            continue
        bought = replayed.bought
        if carried is None:
            carried, kept = replayed.carried, replayed.kept
        if changed is not contract and replayed.frozen is not None:
            bought, ordered = _bought_under(replayed.frozen, terms, ordered)
        as_sent = replayed.as_sent and changed is contract
        charge, carried, kept = charge_of(week, units, carried, terms=terms, bought=bought, kept=kept, as_sent=as_sent)
        report.weeks.append(WeekReplayed(name, str(week), replayed.was, charge))
        report.currency[name] = terms.currency


def _bought_under(frozen: FrozenOrder, terms: Terms, before: OrderedUnits) -> tuple[WeekOrder, OrderedUnits]:
    """An order as other terms would have invoiced it, and what orders come to with it."""
    order = replace(frozen.delivered_against, clauses=OrderClauses(terms.order_counts, terms.overrun_percent))
    paid_units = paid_in_advance(terms.order_counts, order.quantity, terms.connected_percent, before)
    if terms.order_counts == SENT:
        hundredths = before.hundredths + order.quantity * terms.connected_percent
        before = OrderedUnits(hundredths, before.units + paid_units)
    came_with = Prepaid(make_up_units(order, terms), frozen.make_up_minor)
    return WeekOrder(order, paid_units, came_with, paid=True), before


def _weeks(contract: Contract, from_us: int, to_us: int) -> Iterator[Week]:
    week = contract.week_at(from_us)
    if week.start_us < from_us:
        week = week.later(1)
    while week.start_us < to_us:
        yield week
        week = week.later(1)


def _again(
    history: Sequence[Fact], posted: Sequence[Posting], changed: Contract, contract: Contract, report: ReplayReport
) -> list[Unit]:
    """What a transfer posts; under the same terms it is held against what the ledger has."""
    closing = first_of(history, Kind.TRANSFER_CLOSED)
    if closing is None:  # of before this journal: what the ledger has is all there is
        return [Unit.of(one) for one in posted]
    if changed is contract:
        made = settle(history, closing, SettleOptions(), 0).rows.posting
        had = [Unit.of(one) for one in posted]
        now = [Unit.of(made)] if made is not None else []
        if now != had:
            report.differing.append(closing.transfer)
        return now
    dialed = first_of(history, Kind.DIALED) or history[0]
    _, unit = decide_under(history, changed.terms_at(dialed.utc_us))
    return [unit] if unit is not None else []


async def _transfers(clerk: Clerk, buyer: str, bounds: Bounds) -> AsyncIterator[tuple[list[Fact], list[Posting]]]:
    """(facts, postings) of each transfer that is in the period, free ones included; page by page."""
    names = await clerk.read(_names, buyer, bounds)
    for at in range(0, len(names), PAGE):
        page = names[at : at + PAGE]
        histories, posted = await clerk.read(_page, page)
        for name in page:
            yield histories.get(name, []), posted.get(name, [])


def _names(connection: Connection, buyer: str, bounds: Bounds) -> list[str]:
    posts = postings.c.rule.in_(OUTCOME_RULES)  # what was taken back is not decided again, and may be of a week before
    posted = connection.execute(select(postings.c.transfer).where(*within(buyer, bounds), posts)).scalars().all()
    at = outcomes.c.dialout_utc_us
    free = select(outcomes.c.transfer).where(
        outcomes.c.buyer == buyer, at >= bounds.start_us, at < bounds.end_us, outcomes.c.counts_as == "free"
    )
    return sorted({*(one for one in posted if one is not None), *connection.execute(free).scalars()})


def _page(connection: Connection, names: Sequence[str]) -> tuple[dict[str, list[Fact]], dict[str, list[Posting]]]:
    histories: dict[str, list[Fact]] = {}
    for row in connection.execute(facts_of_transfers(names)):
        fact = read_row(row)
        histories.setdefault(fact.transfer, []).append(fact)
    return histories, outcomes_posted(connection, names)


def _reversals(connection: Connection, buyer: str, bounds: Bounds) -> list[Unit]:
    """What people took back: no journal says so, and it stays taken back."""
    query = select(postings).where(*within(buyer, bounds), postings.c.rule == Rule.REVERSAL.value)
    return [Unit.of(to_posting(row)) for row in connection.execute(query)]


def _week_of(connection: Connection, contract: Contract, week: Week) -> _Week:
    name = contract.buyer.name
    bounds = bounds_of(connection, name, str(week))
    frozen = frozen_order(connection, contract, week)
    terms = terms_of(connection, contract, week, frozen)
    row = periods.find(connection, name, str(week))
    before = periods.last(connection, name, periods.WEEK, before_us=week.start_us + 1)
    carried, kept = periods.carried_of(before), periods.kept_of(before)
    is_paid = row is None or not (row.awaiting_units or row.awaiting_counted)
    bought = frozen.bought(paid=is_paid) if frozen else None
    if row is None:
        last = periods.last(connection, name, periods.WEEK)
        is_passed = last is not None and last.end_utc_us >= week.end_us
        return _Week(
            week=week,
            bounds=bounds,
            frozen=frozen,
            bought=bought,
            terms=terms,
            carried=carried,
            kept=kept,
            was=None,
            is_passed=is_passed,
        )
    body = orjson.loads(row.body)
    was = Charge(
        connected=body["sent_connected"],
        failed=body["sent_failed"],
        billed=body["billed_connected"] + body["billed_failed"],
        earned_minor=_earned(connection, name, str(week)),
        overage_minor=find(connection, row.overage).total_minor if row.overage else 0,
    )
    as_sent = body["counts"] == SENT and "paid_units" not in body
    if as_sent and frozen is not None and bought is not None:  # a present came with as many units as transfers
        bought = replace(bought, make_up=Prepaid(frozen.order.make_up, frozen.make_up_minor))
    return _Week(
        week=week,
        bounds=bounds,
        frozen=frozen,
        bought=bought,
        terms=terms,
        carried=carried,
        kept=kept,
        was=was,
        as_sent=as_sent,
    )


def _earned(connection: Connection, buyer: str, week: str) -> int:
    query = select(postings.c.credit, postings.c.amount).where(postings.c.key == f"week:{buyer}:{week}:earned")
    found = connection.execute(query).one_or_none()
    if found is None:
        return 0
    return int(found.amount) if found.credit == "revenue" else -int(found.amount)
