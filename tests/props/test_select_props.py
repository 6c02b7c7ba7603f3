"""Selection over random books: never a buyer that something speaks against, always the same from the same seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from book.hours import WEEK_US, is_open
from book.limits import Usage, limits_for, midnight_us, order_units, spans_at
from book.model import (
    Book,
    Buyer,
    BuyerState,
    Campaign,
    Caps,
    Endpoint,
    EndpointKind,
    MenuChoice,
    Order,
    Strategy,
    Terms,
)
from facts.answers import ScrubResult
from router.routing.selection import SelectionRequest, area_code, choose

TERMS = Terms("t", order_counts="billed")
MONDAY = midnight_us(datetime(2026, 6, 1, tzinfo=UTC).date(), TERMS.time_zone)
WEEK = "2026-06-01"
NAMES = ("ann", "bob", "cy", "dot")
HOURS = ((), ("mon-fri 09:00-18:00",), ("sat-sun 22:00-06:00", "wed 00:00-24:00"))

_few = st.integers(0, 4)
_endpoints = st.lists(
    st.builds(
        lambda rating, enabled: Endpoint(
            "", EndpointKind.TRUNK, "sip:a@b.invalid", enabled=enabled, rating_x100=rating
        ),
        st.integers(100, 500),
        st.booleans(),
    ),
    max_size=3,
).map(lambda some: tuple(replace(one, name=f"e{number}") for number, one in enumerate(some)))
_buyers = st.builds(
    Buyer,
    name=st.just(""),
    title=st.just(""),
    terms=st.sampled_from([TERMS, replace(TERMS, order_counts="sent", concurrent_lines=2)]),
    endpoints=_endpoints,
    state=st.sampled_from([BuyerState.ACTIVE] * 4 + list(BuyerState)),
    caps=st.builds(Caps, _few, _few, _few, _few, _few),
    hours=st.sampled_from(HOURS),
    holidays=st.sampled_from([(), ("2026-06-03",)]),
    allow_states=st.sampled_from([(), ("NY",)]),
    deny_states=st.sampled_from([(), ("CA",)]),
    allow_area_codes=st.sampled_from([(), ("212", "310")]),
    deny_area_codes=st.sampled_from([(), ("310",)]),
    order_required=st.booleans(),
)
_usage = st.builds(lambda *counts: counts, *[_few] * 9)


class Around:
    def __init__(self, usages: dict[str, Usage], live: dict[str, int], out: set[tuple[str, str]], listed: set[str]):
        self.usages, self.up, self.out, self.listed = usages, live, out, listed

    def usage(self, buyer: str) -> Usage:
        return self.usages.get(buyer, Usage())

    def live(self, buyer: str) -> int:
        return self.up.get(buyer, 0)

    def left_out(self, buyer: Buyer, endpoint: Endpoint) -> str:
        return "down" if (buyer.name, endpoint.name) in self.out else ""

    def scrub(self, buyer: str, phone: str) -> ScrubResult:
        return ScrubResult("suppressed" if buyer in self.listed else "")


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Book, SelectionRequest, Around]:
    buyers = {name: replace(draw(_buyers), name=name) for name in NAMES}
    menu = draw(st.sampled_from([(), (MenuChoice("1", ("bob", "ann")),)]))
    campaign = Campaign("c", NAMES, strategy=draw(st.sampled_from(Strategy)), menu=menu)
    orders = {name: (Order(name, WEEK, draw(st.integers(0, 6))),) for name in draw(st.sets(st.sampled_from(NAMES)))}
    now = MONDAY + draw(st.integers(0, WEEK_US - 1))
    usages = {name: Usage(spans_at(buyers[name], now), *draw(_usage)) for name in NAMES}
    question = SelectionRequest(
        "c",
        draw(st.sampled_from(["+12125550100", "+13105550100", "+442125550100", ""])),
        draw(st.sampled_from(["NY", "ca", ""])),
        now,
        draw(st.integers(0, 2**32)),
        draw(st.frozensets(st.sampled_from(NAMES), max_size=2)),
        draw(st.sampled_from(["", "1", "2"])),
    )
    out = draw(st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(["e0", "e1", "e2"]))))
    live = {name: draw(_few) for name in NAMES}
    around = Around(usages, live, out, draw(st.sets(st.sampled_from(NAMES), max_size=2)))
    return Book(1, buyers, {"c": campaign}, orders), question, around


def _order_leaves_room(buyer: Buyer, order: Order | None, week: int) -> bool:
    """Domain, section 6: an order binds, whether one is required or not."""
    if order is None or not order.quantity + order.make_up:
        return not buyer.order_required
    return (not buyer.order_required and not order.quantity) or week < order.quantity * 11 // 10 + order.make_up


def may_ring(book: Book, name: str, question: SelectionRequest, around: Around) -> bool:
    """The rules once more, each a line of its own and none shared with the code under test but the calendar's."""
    buyer, usage, caps = book.buyers[name], around.usages[name], book.buyers[name].caps
    mine = max(0, around.up[name] - (usage.live - usage.elsewhere))
    week = order_units(buyer.terms, None, usage.week_connected, usage.week_failed) + usage.week_live + mine
    order = book.orders.get(name)
    state, code = question.state.upper(), area_code(question.phone)
    lines = caps.concurrent or buyer.terms.concurrent_lines
    return (
        buyer.state is BuyerState.ACTIVE
        and name not in question.offered
        and _order_leaves_room(buyer, order[0] if order else None, week)
        and (not lines or around.up[name] + usage.elsewhere < lines)
        and (not caps.hour or usage.hour + mine < caps.hour)
        and (not caps.day or usage.day + mine < caps.day)
        and (not caps.month or usage.month + mine < caps.month)
        and (not caps.total or usage.total + mine < caps.total)
        and is_open(buyer.hours, buyer.holidays, buyer.time_zone, question.now_utc_us)
        and (not buyer.allow_states or state in buyer.allow_states)
        and state not in buyer.deny_states
        and (not buyer.allow_area_codes or code in buyer.allow_area_codes)
        and code not in buyer.deny_area_codes
        and any(one.enabled and (name, one.name) not in around.out for one in buyer.endpoints)
        and name not in around.listed
    )


@given(_cases())
@settings(max_examples=600)
def test_a_buyer_is_taken_exactly_where_nothing_speaks_against_it(case: tuple[Book, SelectionRequest, Around]) -> None:
    book, question, around = case
    campaign = book.campaigns["c"]
    named = campaign.buyers
    if campaign.menu and question.key:
        named = ("bob", "ann") if question.key == "1" else ()
    open_ones = [name for name in named if may_ring(book, name, question, around)]
    found = choose(book, question, around)
    assert (found.refusal == "") == bool(open_ones)
    if not open_ones:
        assert found.endpoints == ()
        assert {one.buyer for one in found.refusals} == set(named) - question.offered
        assert found.refusal == (found.refusals[0].reason if found.refusals else "no_buyer")
        return
    assert found.buyer is not None
    assert found.buyer.name in open_ones
    assert not {one.buyer for one in found.refusals} & set(open_ones)
    rings = [one for one in found.buyer.endpoints if one.enabled and (found.buyer.name, one.name) not in around.out]
    if campaign.strategy is Strategy.RATED:
        assert len(found.endpoints) == 1
        assert found.endpoints[0] in rings
    else:
        assert list(found.endpoints) == rings
    if campaign.strategy is not Strategy.DEFICIT:
        assert found.buyer.name == open_ones[0]


@given(_cases())
def test_the_same_question_gets_the_same_answer(case: tuple[Book, SelectionRequest, Around]) -> None:
    assert choose(*case) == choose(*case)


@pytest.mark.parametrize("seed", range(3))
def test_over_a_week_every_order_is_filled_at_its_own_pace(seed: int) -> None:
    """A thousand prospects come evenly over a week to three buyers with hours and sizes of their own."""
    dice = random.Random(seed)
    buyers = {
        "small": Buyer("small", "", TERMS, (Endpoint("e", EndpointKind.TRUNK, "sip:a@b"),), order_required=True),
        "big": Buyer("big", "", TERMS, (Endpoint("e", EndpointKind.TRUNK, "sip:a@b"),), order_required=True),
        "office": Buyer(
            "office",
            "",
            TERMS,
            (Endpoint("e", EndpointKind.TRUNK, "sip:a@b"),),
            order_required=True,
            hours=("mon-fri 08:00-20:00",),
        ),
    }
    orders = {"small": (Order("small", WEEK, 50),), "big": (Order("big", WEEK, 500),)}
    orders["office"] = (Order("office", WEEK, 200, make_up=20),)
    book = Book(1, buyers, {"c": Campaign("c", tuple(buyers))}, orders)
    had = {name: Counter[str]() for name in buyers}
    around = Around({}, {}, set(), set())
    half_way: dict[str, float] = {}
    for number in range(1_000):
        now = MONDAY + number * WEEK_US // 1_000
        for name, buyer in buyers.items():
            spans = spans_at(buyer, now)
            around.usages[name] = Usage(spans, week_connected=had[name]["connected"], week_failed=had[name]["failed"])
        found = choose(book, SelectionRequest("c", now_utc_us=now, seed=dice.randrange(2**32)), around)
        if found.buyer is not None and not found.refusal:
            had[found.buyer.name][dice.choice(["connected"] * 9 + ["failed"])] += 1
        if number == 500:
            for name in ("small", "big"):
                units = order_units(TERMS, None, had[name]["connected"], had[name]["failed"])
                half_way[name] = units / orders[name][0].quantity
    # 1,000 prospects are more than enough: each order is delivered, and none runs over by more than its tenth.
    for name, buyer in buyers.items():
        units = order_units(TERMS, None, had[name]["connected"], had[name]["failed"])
        limits = limits_for(buyer, orders[name], "", MONDAY)
        assert limits is not None
        assert limits.order is not None
        assert orders[name][0].quantity + orders[name][0].make_up <= units <= limits.order.most, (name, had)
    assert abs(half_way["small"] - half_way["big"]) < 0.05, "half-way both have had the same part of their orders"
    assert half_way["big"] > 0.45


def test_where_there_is_not_enough_for_all_each_gets_the_same_part_of_its_order() -> None:
    dice = random.Random(1)
    endpoint = Endpoint("e", EndpointKind.TRUNK, "sip:a@b")
    sizes = {"s": 40, "m": 160, "l": 400}
    buyers = {name: Buyer(name, "", TERMS, (endpoint,)) for name in sizes}
    orders = {name: (Order(name, WEEK, size),) for name, size in sizes.items()}
    book = Book(1, buyers, {"c": Campaign("c", tuple(buyers))}, orders)
    had = Counter[str]()
    for number in range(300):
        now = MONDAY + number * WEEK_US // 300
        usages = {name: Usage(spans_at(one, now), week_failed=had[name]) for name, one in buyers.items()}
        question = SelectionRequest("c", now_utc_us=now, seed=dice.randrange(2**32))
        found = choose(book, question, Around(usages, {}, set(), set()))
        assert found.buyer is not None
        had[found.buyer.name] += 1
    assert {name: round(had[name] / size, 1) for name, size in sizes.items()} == {"s": 0.5, "m": 0.5, "l": 0.5}


@given(st.lists(st.integers(100, 500), min_size=2, max_size=5), st.integers(0, 2**32))
@settings(max_examples=20)
def test_an_agents_share_follows_its_rating(ratings: list[int], seed: int) -> None:
    agents = tuple(
        Endpoint(f"a{number}", EndpointKind.TRUNK, "sip:a@b", rating_x100=rating)
        for number, rating in enumerate(ratings)
    )
    book = Book(1, {"b": Buyer("b", "", TERMS, agents)}, {"c": Campaign("c", ("b",), strategy=Strategy.RATED)})
    dice, around, calls = random.Random(seed), Around({}, {}, set(), set()), 2_000
    drawn = Counter(
        choose(book, SelectionRequest("c", now_utc_us=MONDAY, seed=dice.randrange(2**63)), around).endpoints[0].name
        for _ in range(calls)
    )
    for agent in agents:
        share = agent.rating_x100 / sum(ratings)
        deviation = (share * (1 - share) / calls) ** 0.5
        assert abs(drawn[agent.name] / calls - share) < 6 * deviation, drawn
