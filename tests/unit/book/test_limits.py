"""Where an instant falls in the calendars of a buyer, what an order takes, and who is counted at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from book.hours import DAY_US
from book.limits import (
    CapWindow,
    OrderLimit,
    Usage,
    limits_for,
    midnight_us,
    order_limit,
    order_most,
    order_of,
    order_units,
    spans_at,
)
from book.model import Buyer, Caps, Order, OrderClauses, Terms

TERMS = Terms("westlake-fulfillment", order_counts="billed")
BUYER = Buyer("acme", "Acme", TERMS)
HOUR_US = 3_600_000_000


def us(text: str, zone: str = "America/New_York", fold: int = 0) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(local.astimezone(UTC).timestamp() * 1_000_000)


NOW = us("2026-06-03 14:20")  # a Wednesday


@pytest.mark.parametrize(
    ("at", "hour", "day", "month", "week"),
    [
        ("2026-06-03 14:20", "2026-06-03 14:00", "2026-06-03", "2026-06-01", "2026-06-01"),
        ("2026-06-01 00:00", "2026-06-01 00:00", "2026-06-01", "2026-06-01", "2026-06-01"),
        ("2026-05-31 23:59:59.999999", "2026-05-31 23:00", "2026-05-31", "2026-05-01", "2026-05-25"),
        ("2026-03-08 03:10", "2026-03-08 03:00", "2026-03-08", "2026-03-01", "2026-03-02"),
    ],
)
def test_spans_begin_by_the_wall_clock(at: str, hour: str, day: str, month: str, week: str) -> None:
    spans = spans_at(BUYER, us(at))
    assert (spans.hour_us, spans.day_us, spans.month_us) == (us(hour), us(day), us(month))
    assert (spans.week, spans.week_us) == (week, us(week))
    assert spans.week_us <= us(at) < spans.week_end_us


@pytest.mark.parametrize(("week", "hours"), [("2026-03-02", 167), ("2026-10-26", 169), ("2026-06-01", 168)])
def test_a_week_has_the_hours_that_it_has(week: str, hours: int) -> None:
    spans = spans_at(BUYER, us(f"{week} 12:00"))
    assert spans.week_end_us - spans.week_us == hours * HOUR_US


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    first, second = (spans_at(BUYER, us("2026-11-01 01:40", fold=fold)) for fold in (0, 1))
    assert second.hour_us - first.hour_us == HOUR_US
    assert first.day_us == second.day_us


def test_hours_of_a_buyer_and_weeks_of_its_terms_are_in_zones_of_their_own() -> None:
    buyer = replace(BUYER, time_zone="Asia/Kathmandu")
    spans = spans_at(buyer, us("2026-06-01 01:30", "Asia/Kathmandu"))  # Sunday in New York
    assert spans.hour_us == us("2026-06-01 01:00", "Asia/Kathmandu")
    assert spans.week == "2026-05-25"


def test_where_the_clock_leaves_out_midnight_a_day_begins_at_the_first_instant_of_it() -> None:
    day = datetime(2026, 3, 8).date()  # noqa: DTZ001 - a date: Havana goes from 23:59:59 to 01:00
    assert midnight_us(day, "America/Havana") == us("2026-03-08 01:00", "America/Havana")


@pytest.mark.parametrize(
    ("terms", "order", "most"),
    [
        (TERMS, Order("acme", "2026-06-01", 200), 220),
        (TERMS, Order("acme", "2026-06-01", 205, make_up=8), 233),  # 20.5 rounded down; a make-up has no overrun
        (replace(TERMS, overrun_percent=0), Order("acme", "2026-06-01", 200), 200),
        (TERMS, Order("acme", "2026-06-01", 9), 9),
        (TERMS, None, 0),
    ],
)
def test_how_far_an_order_goes(terms: Terms, order: Order | None, most: int) -> None:
    assert order_most(terms, order) == most


@pytest.mark.parametrize(
    ("counts", "connected", "failed", "units"),
    [
        ("billed", 207, 8, 200),  # the worked example of domain, section 6
        ("billed", 207, 15, 207),
        ("billed", 207, 0, 192),
        ("sent", 207, 0, 207),
        ("sent", 200, 7, 207),
        ("billed", 1, 0, 0),
    ],
)
def test_units_as_the_order_counts_them(counts: str, connected: int, failed: int, units: int) -> None:
    assert order_units(replace(TERMS, order_counts=counts), None, connected, failed) == units


def test_under_way_stands_for_a_whole_unit() -> None:
    limit = order_limit(TERMS, Order("acme", "2026-06-01", 10), spans_at(BUYER, NOW))
    assert limit.most == 11
    assert [limit.left(connected=10, failed=1, live=live) for live in (0, 1, 2)] == [1, 0, -1]


@pytest.mark.parametrize(
    ("buyer", "orders"),
    [
        (replace(BUYER, caps=Caps(hour=1)), ()),
        (replace(BUYER, caps=Caps(day=1)), ()),
        (replace(BUYER, caps=Caps(month=1)), ()),
        (replace(BUYER, caps=Caps(total=1)), ()),
        (replace(BUYER, caps=Caps(concurrent=1)), ()),
        (replace(BUYER, terms=replace(TERMS, concurrent_lines=3)), ()),
        (replace(BUYER, order_required=True), ()),
        (replace(BUYER, duplicate_days=30), ()),
        (BUYER, (Order("acme", "2026-06-01", 10),)),  # its pace needs the count
    ],
)
def test_who_is_counted(buyer: Buyer, orders: tuple[Order, ...]) -> None:
    assert limits_for(buyer, orders, "+12125550100", NOW) is not None


def test_who_has_no_limit_is_not() -> None:
    assert limits_for(BUYER, (), "+12125550100", NOW) is None


def test_limits_of_a_moment() -> None:
    buyer = replace(BUYER, caps=Caps(total=9, month=8, day=7, hour=6, concurrent=5), duplicate_days=2)
    limits = limits_for(replace(buyer, order_required=True), (Order("acme", "2026-06-01", 100, 3),), "+1", NOW)
    assert limits is not None
    assert limits.caps == (
        CapWindow("hour", 6, us("2026-06-03 14:00")),
        CapWindow("day", 7, us("2026-06-03")),
        CapWindow("month", 8, us("2026-06-01")),
        CapWindow("total", 9, 0),
    )
    assert limits.concurrent == 5
    assert limits.order == OrderLimit(113, us("2026-06-01"), 93, 100)
    assert limits.duplicate_since_us == NOW - 2 * DAY_US


@pytest.mark.parametrize("required", [True, False])
def test_every_order_binds_whether_one_is_required_or_not(required: bool) -> None:
    buyer = replace(BUYER, order_required=required)
    limits = limits_for(buyer, (Order("acme", "2026-06-01", 10),), "+12125550100", NOW)
    assert limits is not None
    assert limits.order == OrderLimit(11, us("2026-06-01"), 93, 100)
    assert (limits.caps, limits.concurrent, limits.duplicate_since_us) == ((), 0, None)


def test_without_an_order_only_who_needs_one_is_limited_and_a_make_up_alone_was_not_ordered() -> None:
    for orders in ((), (Order("acme", "2026-06-01", 0, make_up=8),)):
        needed = limits_for(replace(BUYER, order_required=True), orders, "+12125550100", NOW)
        assert needed is not None
        assert needed.order is not None
        assert needed.order.most == (8 if orders else 0)
        free = limits_for(replace(BUYER, duplicate_days=1), orders, "+12125550100", NOW)
        assert free is not None
        assert free.order is None


def test_an_invoiced_order_keeps_how_it_counts_and_how_far_it_runs_over() -> None:
    frozen = Order("acme", "2026-06-01", 10, clauses=OrderClauses("sent", 50))
    limit = order_limit(TERMS, frozen, spans_at(BUYER, NOW))
    assert (limit.most, limit.connected_percent) == (15, 100)
    assert order_units(TERMS, frozen, 10, 1) == 11
    made_up = replace(frozen, make_up=8, make_up_owed=8, make_up_units=7)
    assert order_most(TERMS, made_up) == 10 + 8 + 5
    assert order_most(TERMS, replace(made_up, clauses=OrderClauses("billed", 0))) == 10 + 7


def test_nobody_is_a_duplicate_without_a_number() -> None:
    limits = limits_for(replace(BUYER, duplicate_days=2), (), "", NOW)
    assert limits is not None
    assert limits.duplicate_since_us is None


def test_more_lines_than_the_terms_include_can_be_bought() -> None:
    included = replace(BUYER, terms=replace(TERMS, concurrent_lines=3))
    more = replace(included, caps=Caps(concurrent=8))
    found = [limits_for(one, (), "", NOW) for one in (included, more)]
    assert [one.concurrent for one in found if one is not None] == [3, 8]


def test_an_order_is_found_by_its_week() -> None:
    orders = tuple(Order("acme", week, 1) for week in ("2026-05-25", "2026-06-01", "2026-06-08"))
    assert order_of(orders, "2026-06-01") is orders[1]
    assert order_of(orders, "2026-06-15") is None


@pytest.mark.parametrize(
    ("later", "kept"),
    [
        ("2026-06-03 14:59", (1, 2, 3, 4, 5)),
        ("2026-06-03 15:00", (0, 2, 3, 4, 5)),
        ("2026-06-04 00:00", (0, 0, 3, 4, 5)),
        ("2026-06-08 00:00", (0, 0, 3, 4, 0)),
        ("2026-07-01 00:00", (0, 0, 0, 4, 0)),
    ],
)
def test_counts_of_what_is_over_are_dropped(later: str, kept: tuple[int, ...]) -> None:
    usage = Usage(spans_at(BUYER, NOW), hour=1, day=2, month=3, total=4, week_connected=5, live=1)
    now = usage.during(spans_at(BUYER, us(later)))
    assert (now.hour, now.day, now.month, now.total, now.week_connected) == kept
    assert now.live == 1
