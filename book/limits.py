"""The limits of a buyer: its caps, its order of the running week, and the prospects that it has had before.

Pure. The same figures are asked for three times: by selection, from a snapshot that may be half a second old; by the
store, in the transaction that admits a transfer, where they are exact; and by people. A unit is counted from admission:
one that is under way is a unit until its outcome says that it is free.

Hours, days and months are those of the buyer's calendar, service weeks those of its terms (domain, section 6). All are
found by the instant of admission, which is dial-out but for milliseconds. Instants are in microseconds UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from book.hours import DAY_US, QUARTER_US
from book.model import Buyer, Order, OrderClauses, Terms

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
MAX_PHONE = 32  # characters, as the store keeps them; E.164 has 16. What is no such number is no prospect's name
_CACHED = 4096  # quarters of an hour, by pair of zones


@dataclass(frozen=True, slots=True)
class Spans:
    """The hour, day, month and service week that an instant falls in, by their beginnings; `week` as an order says."""

    hour_us: int
    day_us: int
    month_us: int
    week_us: int
    week_end_us: int
    week: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Units of one buyer: connected, failed and those under way. `spans` says of which hour, day, month and week."""

    spans: Spans | None = None
    hour: int = 0
    day: int = 0
    month: int = 0
    total: int = 0
    week_connected: int = 0
    week_failed: int = 0
    week_live: int = 0
    live: int = 0  # under way now, over all routers
    elsewhere: int = 0  # of these, in other routers

    def during(self, spans: Spans) -> Usage:
        """The same for an instant in `spans`: what belongs to an hour, day, month or week that is over is dropped."""
        before = self.spans
        if before is spans or before is None or before == spans:
            return self
        same_week = before.week_us == spans.week_us
        return replace(
            self,
            spans=spans,
            hour=self.hour if before.hour_us == spans.hour_us else 0,
            day=self.day if before.day_us == spans.day_us else 0,
            month=self.month if before.month_us == spans.month_us else 0,
            week_connected=self.week_connected if same_week else 0,
            week_failed=self.week_failed if same_week else 0,
            week_live=self.week_live if same_week else 0,
        )


@dataclass(frozen=True, slots=True)
class CapWindow:
    """At most `most` units admitted since `since_us`. `span` is `hour`, `day`, `month` or `total`."""

    span: str
    most: int
    since_us: int


@dataclass(frozen=True, slots=True)
class OrderLimit:
    """At most `most` units by the order's way of counting, among those admitted since `since_us`."""

    most: int
    since_us: int
    connected_percent: int
    failed_percent: int

    def left(self, connected: int, failed: int, live: int) -> int:
        """How many more transfers the order takes; those under way each stand for a whole unit."""
        return self.most - _units(connected, failed, self.connected_percent, self.failed_percent) - live


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that the store checks a new transfer of one buyer against; with `at_us` alone it is only counted."""

    at_us: int
    phone: str = ""
    concurrent: int = 0  # 0: any number at once
    caps: tuple[CapWindow, ...] = ()
    order: OrderLimit | None = None
    duplicate_since_us: int | None = None


def limits_for(buyer: Buyer, orders: tuple[Order, ...], phone: str, now_utc_us: int) -> Limits | None:
    """None for a buyer without cap, order or duplicate window: its transfers are not counted and cost nothing.

    A buyer with an order of this week is counted even where nothing limits it: the order's pace needs the count.
    """
    if not is_counted(buyer, orders):
        return None
    spans = spans_at(buyer, now_utc_us)
    order = order_of(orders, spans.week)
    plain = phone.removeprefix("+").isdigit() and phone.isascii() and len(phone) <= MAX_PHONE
    caps = buyer.caps
    windows = (
        CapWindow("hour", caps.hour, spans.hour_us),
        CapWindow("day", caps.day, spans.day_us),
        CapWindow("month", caps.month, spans.month_us),
        CapWindow("total", caps.total, 0),
    )
    return Limits(
        at_us=now_utc_us,
        phone=phone if plain else "",
        concurrent=concurrent_limit(buyer),
        caps=tuple(one for one in windows if one.most),
        order=order_limit(buyer.terms, order, spans) if binds(buyer, order) else None,
        duplicate_since_us=now_utc_us - buyer.duplicate_days * DAY_US if buyer.duplicate_days and plain else None,
    )


def is_counted(buyer: Buyer, orders: tuple[Order, ...]) -> bool:
    """Whether the store keeps a row of each of this buyer's transfers."""
    caps = buyer.caps
    capped = caps.hour or caps.day or caps.month or caps.total or concurrent_limit(buyer)
    return bool(capped or buyer.order_required or buyer.duplicate_days or orders)


def concurrent_limit(buyer: Buyer) -> int:
    """Transfers at once: the buyer's own figure, else the lines that its terms include (domain, section 9); 0: any."""
    included = buyer.terms.concurrent_lines
    return buyer.caps.concurrent or (included and included + buyer.extra_lines)


def binds(buyer: Buyer, order: Order | None) -> bool:
    """Whether the order of the running week limits a buyer: every order does (domain, section 6).

    `order_required` only says whether one is needed at all. A make-up alone was not ordered, and limits nobody who
    needs no order.
    """
    return buyer.order_required or (order is not None and order.quantity > 0)


def order_limit(terms: Terms, order: Order | None, spans: Spans) -> OrderLimit:
    """The order with its make-up and overrun; without an order nothing at all may be sent."""
    return OrderLimit(order_most(terms, order), spans.week_us, *_percents(terms, order))


def clauses_of(terms: Terms, order: Order | None) -> OrderClauses:
    """How an order counts and how far it may run over: as it was invoiced, else by the terms in force."""
    if order is not None and order.clauses is not None:
        return order.clauses
    return OrderClauses(terms.order_counts, terms.overrun_percent)


def make_up_of(terms: Terms, order: Order) -> int:
    """The make-up in what the order counts: live transfers, or the billed units that these came with."""
    if clauses_of(terms, order).counts == "sent":
        return order.make_up
    return order.make_up - order.make_up_owed + order.make_up_units


def order_overrun(terms: Terms, order: Order) -> int:
    """How far the week may run over what was bought, rounded down; a make-up has no overrun."""
    return order.quantity * clauses_of(terms, order).overrun_percent // 100


def order_most(terms: Terms, order: Order | None) -> int:
    """What the order counts up to until it is filled: bought, make-up, and the overrun of what was bought."""
    if order is None:
        return 0
    return order.quantity + make_up_of(terms, order) + order_overrun(terms, order)


def order_units(terms: Terms, order: Order | None, connected: int, failed: int) -> int:
    """Transfers of a week as its order counts them, rounded down (domain, sections 5 and 6).

    A week by itself: the fraction of a unit that the invoice carries over from earlier weeks is left to it.
    """
    return _units(connected, failed, *_percents(terms, order))


def _percents(terms: Terms, order: Order | None) -> tuple[int, int]:
    counts = clauses_of(terms, order).counts
    return (100, 100) if counts == "sent" else (terms.connected_percent, terms.failed_percent)


def _units(connected: int, failed: int, connected_percent: int, failed_percent: int) -> int:
    return connected * connected_percent // 100 + failed * failed_percent // 100


def order_of(orders: tuple[Order, ...], week: str) -> Order | None:
    """The order of a week, by the ISO date of its Monday. The newest stand last and are looked at first."""
    for one in reversed(orders):
        if one.week == week:
            return one
    return None


def spans_at(buyer: Buyer, at_us: int) -> Spans:
    """Where an instant falls in the buyer's calendar and in the weeks of its terms."""
    return spans_of(buyer.time_zone, buyer.terms.time_zone, at_us // QUARTER_US)


@lru_cache(maxsize=_CACHED)
def spans_of(zone: str, week_zone: str, quarter: int) -> Spans:
    """For quarters of an hour since 1970: no hour, day, month or week of any zone begins within one."""
    now = _EPOCH + timedelta(microseconds=quarter * QUARTER_US)
    local = now.astimezone(ZoneInfo(zone))
    there = now.astimezone(ZoneInfo(week_zone)).date()
    monday = there - timedelta(days=there.weekday())
    return Spans(
        hour_us=(quarter - local.minute // 15) * QUARTER_US,
        day_us=midnight_us(local.date(), zone),
        month_us=midnight_us(local.date().replace(day=1), zone),
        week_us=midnight_us(monday, week_zone),
        week_end_us=midnight_us(monday + timedelta(days=7), week_zone),
        week=monday.isoformat(),
    )


def midnight_us(day: date, zone: str) -> int:
    """The first instant of a day; where the clock leaves out midnight, the instant at which it does."""
    return (datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC) - _EPOCH) // _MICROSECOND
