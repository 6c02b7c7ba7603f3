"""Billing against its sentences: no drift in any split, weeks that part time, money that is neither made nor lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from book.model import Order, Terms
from book.terms import presets
from meter.billing.arithmetic.calendar import Week, deadline_us, week_of
from meter.billing.arithmetic.cycle import Prepaid, Remedy, WeekOrder, make_up_units, remedy, week_result
from meter.billing.arithmetic.minutes import minute_charge
from meter.billing.arithmetic.units import (
    CarriedUnits,
    OrderedUnits,
    RunningUnits,
    WeekUnits,
    bill,
    bill_week,
    half_even,
    paid_in_advance,
)

ZONES = (
    "America/New_York", "Europe/London", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu", "Africa/Cairo",
    "America/Sao_Paulo", "Asia/Tehran", "America/St_Johns", "Pacific/Auckland", "UTC",
)  # fmt: skip
SENT = replace(presets()["westlake-fulfillment"], unit_price_minor=4_500)
TERMS = replace(SENT, order_counts="billed")
MINUTES = presets()["customer-success"]
FIRST = date(2026, 1, 5)
HOUR_US = 3_600_000_000
_zones = st.sampled_from(ZONES)
_mondays = st.integers(0, 700).map(lambda week: date(2018, 1, 1) + timedelta(weeks=week))
_instants = st.integers(1_514_764_800_000_000, 1_893_456_000_000_000)  # 2018 to 2030
_units = st.lists(st.tuples(st.sampled_from((93, 88, 100, 67, 1, 0)), st.integers(0, 40)), max_size=30)


def wall(at_us: int, zone: str) -> datetime:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).astimezone(ZoneInfo(zone))


def counted(entries: list[tuple[int, int]]) -> Counter[int]:
    found: Counter[int] = Counter()
    for percent, count in entries:
        found[percent] += count
    return found


def in_weeks(entries: list[tuple[int, int]], cuts: list[int]) -> list[list[tuple[int, int]]]:
    edges = [0, *sorted(min(cut, len(entries)) for cut in cuts), len(entries)]
    return [entries[start:end] for start, end in pairwise(edges)]


# units


@given(_units, st.lists(st.integers(0, 30), max_size=8))
@example([(93, 1)] * 30, list(range(30)))
def test_any_split_into_weeks_bills_the_floor_of_the_exact_share_all_along(
    entries: list[tuple[int, int]], cuts: list[int]
) -> None:
    carried, total, share = RunningUnits(), 0, Fraction(0)
    for week in in_weeks(entries, cuts):
        billed, carried = bill(carried, counted(week))
        total += billed
        share += sum((Fraction(percent, 100) * count for percent, count in week), Fraction(0))
        assert billed >= 0
        assert total <= share < total + 1
    assert (total, carried) == bill(RunningUnits(), counted(entries))


@given(_units, st.randoms(use_true_random=False), st.lists(st.integers(0, 30), max_size=8))
def test_in_any_order_the_same_is_billed(entries: list[tuple[int, int]], random: object, cuts: list[int]) -> None:
    shuffled = list(entries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    carried, total = RunningUnits(), 0
    for week in in_weeks(shuffled, cuts):
        billed, carried = bill(carried, counted(week))
        total += billed
    assert (total, carried) == bill(RunningUnits(), counted(entries))


@given(_units, st.lists(st.integers(0, 29), unique=True, max_size=30), st.lists(st.integers(0, 60), max_size=8))
def test_what_was_taken_back_leaves_no_trace(entries: list[tuple[int, int]], wrong: list[int], cuts: list[int]) -> None:
    taken_back = [entries[one] for one in wrong if one < len(entries)]
    kept = [entry for number, entry in enumerate(entries) if number not in wrong]
    carried, total = RunningUnits(), 0
    for week in in_weeks(entries + [(percent, -count) for percent, count in taken_back], cuts):
        billed, carried = bill(carried, counted(week))
        total += billed
    assert (total, carried) == bill(RunningUnits(), counted(kept))


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
@example(5, 2)
@example(-7, 2)
def test_rounding_is_to_the_nearest_and_of_two_to_the_even(numerator: int, denominator: int) -> None:
    rounded = half_even(numerator, denominator)
    distance = 2 * abs(numerator - rounded * denominator)
    assert distance <= denominator
    if distance == denominator:
        assert rounded % 2 == 0


# calendar


@given(_zones, _mondays)
@example("America/New_York", date(2026, 3, 2))
@example("America/New_York", date(2026, 10, 26))
@example("Asia/Tehran", date(2021, 3, 15))  # its end, Monday midnight, is left out: not one of its hours
@example("Asia/Tehran", date(2021, 3, 22))
def test_a_week_is_168_hours_and_what_the_clock_changed_in_it(zone: str, monday: date) -> None:
    week = Week(monday, zone)
    before, after = (wall(at - 1, zone).utcoffset() for at in (week.start_us, week.end_us))
    assert before is not None
    assert after is not None
    assert week.end_us - week.start_us == 168 * HOUR_US - (after - before) // timedelta(microseconds=1)


@given(_zones, _instants)
@example("America/Sao_Paulo", 1_541_300_400_000_000)
def test_weeks_part_time(zone: str, at_us: int) -> None:
    week = week_of(at_us, zone)
    assert week.start_us <= at_us < week.end_us
    assert week.end_us == week.later(1).start_us
    assert week_of(week.start_us, zone) == week_of(week.end_us - 1, zone) == week
    day = wall(at_us, zone).date()
    assert week.monday == day - timedelta(days=day.weekday())


@given(_zones, _instants, st.integers(0, 95))
@example("America/New_York", 1_793_512_800_000_000, 6)
@example("America/New_York", 1_772_953_200_000_000, 10)
@example("America/Havana", 1_699_160_400_000_000, 0)
def test_a_deadline_is_the_last_time_that_the_clock_shows_it_or_the_jump(zone: str, at_us: int, quarter: int) -> None:
    day, at = wall(at_us, zone).date(), time(quarter // 4, quarter % 4 * 15)
    deadline = deadline_us(day, at, zone)
    due = datetime.combine(day, at)
    around = at_us // (HOUR_US // 4)  # within the day, of 25 hours at most
    quarters = [one * (HOUR_US // 4) for one in range(around - 101, around + 101)]
    shows_it = [one for one in quarters if wall(one, zone).replace(tzinfo=None) == due]
    if shows_it:
        assert deadline == shows_it[-1]
    else:
        assert wall(deadline - 1, zone).replace(tzinfo=None) < due < wall(deadline, zone).replace(tzinfo=None)


# the cycle

_weeks = st.lists(
    st.tuples(
        st.integers(0, 60),  # quantity
        st.integers(0, 80),  # connected
        st.integers(0, 10),  # failed
        st.sampled_from(Remedy),
    ),
    min_size=1,
    max_size=12,
)


@given(
    st.builds(Order, st.just("acme"), st.just(FIRST.isoformat()), st.integers(0, 300), st.integers(0, 50)),
    st.integers(0, 999_999),
    st.builds(Prepaid, st.integers(0, 30), st.integers(0, 99_999)),
    st.integers(-50, 400),
    st.integers(0, 100),
    st.booleans(),
    st.sampled_from(("billed", "sent")),
)
def test_every_unit_is_covered_charged_owed_or_kept(  # noqa: PLR0917 - as hypothesis gives them
    order: Order, worth: int, kept: Prepaid, connected: int, failed: int, paid: bool, counts: str
) -> None:
    terms = replace(TERMS, order_counts=counts)
    units = WeekUnits(connected, failed, connected * 93 // 100, failed)
    kept = kept if kept.units else Prepaid()
    bought = bought_first(order, terms, worth if order.make_up else 0, paid=paid)
    result = week_result(Week(FIRST, TERMS.time_zone), terms, bought, units, kept)
    over, short, awaiting = result.overage, result.shortfall, result.awaiting
    had = bought.paid_units + bought.make_up.units + kept.units
    assert had + over.units - short.units - awaiting.units - result.kept.units == units.billed
    assert order.quantity + order.make_up + over.counted - short.counted - awaiting.counted == result.counted
    parts = (over, short, awaiting)
    assert min(min(one.units, one.amount_minor, one.counted) for one in parts) >= 0
    assert min(result.kept.units, result.kept.amount_minor, result.beyond_units) >= 0
    assert not over.counted or not short.counted + awaiting.counted
    assert result.beyond_units <= over.counted
    assert over.amount_minor == over.units * 4_500
    assert awaiting.counted <= (0 if paid else order.quantity)
    assert awaiting.units <= (0 if paid else bought.paid_units)
    assert result.kept.units or not result.kept.amount_minor
    if counts == "billed":
        assert (short.units, awaiting.units) == (short.counted, awaiting.counted)


def bought_first(order: Order, terms: Terms, worth: int, *, paid: bool) -> WeekOrder:
    """Of a buyer that ordered nothing before."""
    paid_units = paid_in_advance(terms.order_counts, order.quantity, terms.connected_percent, OrderedUnits())
    return WeekOrder(order, paid_units, Prepaid(make_up_units(order, terms), worth), paid)


@given(_weeks, st.lists(st.sampled_from(("billed", "sent")), min_size=12, max_size=12))
@example([(50, 0, 0, Remedy.MAKE_UP)] * 5, ["billed"] * 12)
@example([(50, 0, 0, Remedy.MAKE_UP)] * 5, ["sent"] * 12)
def test_over_any_weeks_a_buyer_pays_for_what_was_billed_and_what_is_still_to_come(
    weeks: list[tuple[int, int, int, Remedy]], counts: list[str]
) -> None:
    """Orders and overages, less checks and credits, are the price of the units billed, made up for later, and kept.

    Whatever the orders count, and if that changes from week to week.
    """
    carried, kept, ordered, money = CarriedUnits(), Prepaid(), OrderedUnits(), 0
    make_up: dict[date, tuple[int, int, int]] = {}
    for number, (quantity, connected, failed, choice) in enumerate(weeks):
        week, terms = Week(FIRST, TERMS.time_zone).later(number), replace(TERMS, order_counts=counts[number])
        units, carried = bill_week(carried, {93: connected}, {100: failed})
        owed, came, worth = make_up.pop(week.monday, (0, 0, 0))
        order = Order("acme", str(week), quantity, owed, owed, came)
        paid_units = paid_in_advance(terms.order_counts, quantity, 93, ordered)
        if counts[number] == "sent":
            ordered = OrderedUnits(ordered.hundredths + 93 * quantity, ordered.units + paid_units)
        result = week_result(week, terms, WeekOrder(order, paid_units, Prepaid(came, worth), paid=True), units, kept)
        kept = result.kept
        settled = remedy(choice, result.shortfall, week)
        money += paid_units * 4_500 + result.overage.amount_minor
        assert settled.amount_minor == settled.units * 4_500
        if choice is Remedy.MAKE_UP:
            make_up[settled.order_week.monday] = (settled.counted, settled.units, settled.amount_minor)
        else:
            money -= settled.amount_minor
    billed = sum(connected * 93 for _, connected, _, _ in weeks) // 100 + sum(failed for _, _, failed, _ in weeks)
    to_come = sum(came for _, came, _ in make_up.values()) + kept.units
    assert money == (billed + to_come) * 4_500
    assert kept.amount_minor == kept.units * 4_500


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 10_000), st.sampled_from(Remedy)), max_size=10),
    st.sampled_from(("billed", "sent")),
)
def test_at_any_prices_whoever_gets_nothing_gets_every_cent_back(
    weeks: list[tuple[int, int, Remedy]], counts: str
) -> None:
    paid = back = 0
    make_up: dict[date, tuple[int, int, int]] = {}
    ordered = OrderedUnits()
    for number, (quantity, price, choice) in enumerate([*weeks, (0, 1, Remedy.REFUND), (0, 1, Remedy.REFUND)]):
        week = Week(FIRST, TERMS.time_zone).later(number)
        owed, came, worth = make_up.pop(week.monday, (0, 0, 0))
        order = Order("acme", str(week), quantity, owed, owed, came)
        terms = replace(TERMS, unit_price_minor=price, order_counts=counts)
        paid_units = paid_in_advance(counts, quantity, 93, ordered)
        ordered = OrderedUnits(ordered.hundredths + 93 * quantity, ordered.units + paid_units)
        result = week_result(week, terms, WeekOrder(order, paid_units, Prepaid(came, worth), paid=True), WeekUnits())
        settled = remedy(choice, result.shortfall, week)
        paid += paid_units * price
        if choice is Remedy.MAKE_UP:
            make_up[settled.order_week.monday] = (settled.counted, settled.units, settled.amount_minor)
        else:
            back += settled.amount_minor
    assert back == paid


@given(st.lists(st.integers(0, 500), max_size=30))
def test_orders_that_count_as_sent_pay_in_advance_without_drift(quantities: list[int]) -> None:
    before = OrderedUnits()
    for quantity in quantities:
        units = paid_in_advance("sent", quantity, 93, before)
        assert abs(units * 100 - quantity * 93) < 100
        before = OrderedUnits(before.hundredths + quantity * 93, before.units + units)
    assert before.units == sum(quantities) * 93 // 100


# minutes


@given(
    st.sampled_from((1_000, 6_000, 30_000, 60_000)),
    st.lists(st.integers(1, 40), max_size=10),
    st.integers(0, 2_400_000),
    st.integers(0, 500),
)
def test_a_call_cut_between_increments_costs_the_same(
    increment: int, pieces: list[int], last_ms: int, price: int
) -> None:
    terms = replace(MINUTES, minute_increment_ms=increment, minute_price_minor=price)
    parts = [minute_charge(piece * increment, terms) for piece in pieces] + [minute_charge(last_ms, terms)]
    whole = minute_charge(sum(part.talk_ms for part in parts), terms)
    assert sum(part.increments for part in parts) == whole.increments
    assert sum(part.charged_ms for part in parts) == whole.charged_ms
    assert sum(part.amount_minor for part in parts) == whole.amount_minor


@given(st.integers(0, 10**8), st.integers(0, 10**8), st.integers(1_000, 120_000), st.integers(0, 300_000))
def test_charged_time_holds_the_talk_and_no_increment_that_was_not_started(
    talk_ms: int, more_ms: int, increment: int, minimum: int
) -> None:
    terms = replace(MINUTES, minute_increment_ms=increment, minute_minimum_ms=minimum)
    one, other, both = (
        minute_charge(talk_ms, terms),
        minute_charge(more_ms, terms),
        minute_charge(talk_ms + more_ms, terms),
    )
    assert talk_ms <= one.charged_ms < max(talk_ms, minimum) + increment
    assert one.charged_ms == one.increments * increment
    assert one.amount_minor == one.increments * 118
    assert (one.amount_minor == 0) is (talk_ms == 0)
    assert not talk_ms or one.charged_ms >= minimum
    assert one.increments <= both.increments <= one.increments + other.increments
