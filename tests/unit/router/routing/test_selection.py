"""Selection: what speaks against a buyer, in which order it is asked, and whom each strategy takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from book.limits import Usage, spans_at
from book.model import Book, Buyer, BuyerState, Campaign, Caps, Endpoint, MenuChoice, Order, Strategy, Terms
from facts.answers import ScrubResult
from facts.outcome import NOT_ATTEMPTED_REASONS
from router.routing.selection import REFUSAL_CODES, Selection, SelectionRequest, area_code, availability, choose
from tests.world import did, plain, secure

TERMS = Terms("westlake-fulfillment", order_counts="billed")
WEEK = "2026-06-01"
OFFICE = ("mon-fri 09:00-12:30", "mon-fri 13:00-18:00")


def us(text: str) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("America/New_York"))
    return round(local.astimezone(UTC).timestamp() * 1_000_000)


NOW = us("2026-06-03 14:20")  # a Wednesday


class Around:
    """`router.routing.selection.Surroundings` over dicts; counts what was asked of the lists."""

    def __init__(self) -> None:
        self.used: dict[str, Usage] = {}
        self.up: dict[str, int] = {}
        self.out: dict[str, str] = {}
        self.lists: dict[str, str] = {}
        self.scrubbed: list[str] = []

    def usage(self, buyer: str) -> Usage:
        return self.used.get(buyer, Usage())

    def live(self, buyer: str) -> int:
        return self.up.get(buyer, 0)

    def left_out(self, buyer: Buyer, endpoint: Endpoint) -> str:
        return self.out.get(endpoint.name, "")

    def scrub(self, buyer: str, phone: str) -> ScrubResult:
        self.scrubbed.append(buyer)
        return ScrubResult(self.lists.get(buyer, ""), hit="dnc" if buyer in self.lists else "")


def buyer(name: str = "acme", **more: Any) -> Buyer:
    return Buyer(name, name.title(), **{"terms": TERMS, "endpoints": (secure(1), secure(2)), **more})


def ask(around: Around, *buyers: Buyer, orders: dict[str, int] | None = None, **more: Any) -> Selection:
    fields = {name: more.pop(name) for name in tuple(more) if name in Campaign.__slots__}
    campaign = Campaign("leads", tuple(one.name for one in buyers), **fields)
    ordered = {name: (Order(name, WEEK, quantity),) for name, quantity in (orders or {}).items()}
    book = Book(1, {one.name: one for one in buyers}, {"leads": campaign}, ordered)
    question = {"dialled": "leads", "phone": "+12125550100", "state": "NY", "now_utc_us": NOW, **more}
    return choose(book, SelectionRequest(**question), around)


def used(**counts: int) -> Usage:
    return Usage(spans_at(buyer(), NOW), **counts)


def test_an_open_buyer_gets_the_call_on_all_its_endpoints() -> None:
    around = Around()
    found = ask(around, buyer(), seed=7)
    assert (found.buyer, found.refusal, found.refusals, found.seed) == (buyer(), "", (), 7)
    assert [one.name for one in found.endpoints] == ["trunk1", "trunk2"]
    assert (found.buffer_ms, found.ring_timeout_ms) == (15_000, 30_000)
    assert found.scrub == ScrubResult("")
    assert around.scrubbed == ["acme"]


Case = tuple[str, dict[str, Any], Callable[[Around], object], dict[str, Any], str, str]

REFUSED: list[Case] = [
    ("paused", {"state": BuyerState.PAUSED}, lambda _: 0, {}, "paused", "paused"),
    ("on hold", {"state": BuyerState.ON_HOLD}, lambda _: 0, {}, "on_hold", "on hold"),
    ("cancelled", {"state": BuyerState.CANCELLED}, lambda _: 0, {}, "no_buyer", "cancelled"),
    (
        "no order for this week",
        {"order_required": True},
        lambda _: 0,
        {"orders": {}},
        "order_filled",
        "no order for the week of 2026-06-01",
    ),
    (
        "the order with its overrun is used up",  # 10 and 1 over: floor(0.93 x 10) + 2
        {"order_required": True},
        lambda a: a.used.update(acme=used(week_connected=10, week_failed=2)),
        {"orders": {"acme": 10}},
        "order_filled",
        "11 units and 0 under way of 11 this week",
    ),
    (
        "an order binds also where none is required",
        {},
        lambda a: a.used.update(acme=used(week_failed=99)),
        {"orders": {"acme": 10}},
        "order_filled",
        "99 units and 0 under way of 11 this week",
    ),
    (
        "what is under way fills the order",
        {"order_required": True},
        lambda a: a.used.update(acme=used(week_connected=10, week_live=2)),
        {"orders": {"acme": 10}},
        "order_filled",
        "9 units and 2 under way of 11 this week",
    ),
    (
        "the snapshot does not know yet what is up here",
        {"order_required": True},
        lambda a: (a.used.update(acme=used(week_connected=10, week_live=1, live=1)), a.up.update(acme=2)),
        {"orders": {"acme": 10}},
        "order_filled",
        "9 units and 2 under way of 11 this week",
    ),
    (
        "counted as sent",
        {"order_required": True, "terms": replace(TERMS, order_counts="sent")},
        lambda a: a.used.update(acme=used(week_connected=11)),
        {"orders": {"acme": 10}},
        "order_filled",
        "11 units and 0 under way of 11 this week",
    ),
    (
        "hour",
        {"caps": Caps(hour=3)},
        lambda a: a.used.update(acme=used(hour=3)),
        {},
        "cap_reached",
        "3 of 3 this hour",
    ),
    ("day", {"caps": Caps(day=3)}, lambda a: a.used.update(acme=used(day=3)), {}, "cap_reached", "3 of 3 today"),
    (
        "month",
        {"caps": Caps(month=3)},
        lambda a: a.used.update(acme=used(month=4)),
        {},
        "cap_reached",
        "4 of 3 this month",
    ),
    (
        "total",
        {"caps": Caps(total=3)},
        lambda a: a.used.update(acme=used(total=3)),
        {},
        "cap_reached",
        "3 of 3 in all",
    ),
    ("at once", {"caps": Caps(concurrent=2)}, lambda a: a.up.update(acme=2), {}, "cap_reached", "2 of 2 at once"),
    (
        "at once, over several routers",
        {"caps": Caps(concurrent=3)},
        lambda a: (a.used.update(acme=used(live=3, elsewhere=2)), a.up.update(acme=1)),
        {},
        "cap_reached",
        "3 of 3 at once",
    ),
    (
        "the terms' lines",
        {"terms": replace(TERMS, concurrent_lines=1)},
        lambda a: a.up.update(acme=1),
        {},
        "cap_reached",
        "1 of 1 at once",
    ),
    (
        "break",
        {"hours": OFFICE},
        lambda _: 0,
        {"now_utc_us": us("2026-06-03 12:30")},
        "closed",
        "opens Wednesday 13:00 America/New_York",
    ),
    (
        "weekend",
        {"hours": OFFICE},
        lambda _: 0,
        {"now_utc_us": us("2026-06-06 12:00")},
        "closed",
        "opens Monday 09:00 America/New_York",
    ),
    (
        "holiday",
        {"holidays": ("2026-06-03",)},
        lambda _: 0,
        {},
        "closed",
        "opens Thursday 00:00 America/New_York",
    ),
    ("state not taken", {"allow_states": ("CA",)}, lambda _: 0, {}, "filtered", "state NY is not taken"),
    ("state excluded", {"deny_states": ("ny",)}, lambda _: 0, {}, "filtered", "state NY is excluded"),
    ("state missing", {"allow_states": ("NY",)}, lambda _: 0, {"state": " "}, "filtered", "no state is known"),
    ("area", {"allow_area_codes": ("310",)}, lambda _: 0, {}, "filtered", "area code 212 is not taken"),
    ("area excluded", {"deny_area_codes": ("212",)}, lambda _: 0, {}, "filtered", "area code 212 is excluded"),
    (
        "no area code abroad",
        {"allow_area_codes": ("212",)},
        lambda _: 0,
        {"phone": "+442125550100"},
        "filtered",
        "no area code is known",
    ),
    ("no endpoint", {"endpoints": ()}, lambda _: 0, {}, "no_endpoint", "no endpoint is enabled"),
    (
        "none enabled",
        {"endpoints": (replace(secure(), enabled=False),)},
        lambda _: 0,
        {},
        "no_endpoint",
        "no endpoint is enabled",
    ),
    (
        "none may ring",
        {},
        lambda a: a.out.update(trunk1="down", trunk2="busy"),
        {},
        "no_endpoint",
        "trunk1: down, trunk2: busy",
    ),
    ("suppressed", {}, lambda a: a.lists.update(acme="suppressed"), {}, "suppressed", "on list dnc"),
    (
        "unavailable",
        {},
        lambda a: a.lists.update(acme="suppression_unavailable"),
        {},
        "suppression_unavailable",
        "a suppression list cannot be consulted",
    ),
]


@pytest.mark.parametrize(
    ("fields", "given", "asked", "reason", "detail"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED]
)
def test_what_speaks_against_a_buyer(
    fields: dict[str, Any], given: Callable[[Around], object], asked: dict[str, Any], reason: str, detail: str
) -> None:
    around = Around()
    given(around)
    found = ask(around, buyer(**fields), **asked)
    assert (found.refusal, [(one.reason, one.detail) for one in found.refusals]) == (reason, [(reason, detail)])
    assert (found.endpoints, found.buyer) == ((), buyer(**fields))
    assert reason in REFUSAL_CODES
    assert reason in NOT_ATTEMPTED_REASONS
    assert bool(around.scrubbed) == reason.startswith("suppress"), "the lists are asked last"


PASSES: list[tuple[str, dict[str, Any], Callable[[Around], object], dict[str, Any]]] = [
    (
        "one unit is left of the order",
        {"order_required": True},
        lambda a: a.used.update(acme=used(week_connected=11)),  # floor(0.93 x 11) = 10 of 11
        {"orders": {"acme": 10}},
    ),
    ("below the cap", {"caps": Caps(hour=3)}, lambda a: a.used.update(acme=used(hour=2)), {}),
    (
        "full last hour",
        {"caps": Caps(hour=3)},
        lambda a: a.used.update(acme=used(hour=3)),
        {"now_utc_us": us("2026-06-03 15:00")},
    ),
    (
        "what is up here is in the count",
        {"caps": Caps(hour=3)},
        lambda a: (a.used.update(acme=used(hour=2, live=2)), a.up.update(acme=2)),
        {},
    ),
    ("one line free", {"caps": Caps(concurrent=2)}, lambda a: a.up.update(acme=1), {}),
    ("last microsecond", {"hours": OFFICE}, lambda _: 0, {"now_utc_us": us("2026-06-03 18:00") - 1}),
    ("the state that it takes", {"allow_states": ("ny",)}, lambda _: 0, {}),
    ("no state, where some are excluded", {"deny_states": ("CA",)}, lambda _: 0, {"state": ""}),
    ("abroad, where some areas are excluded", {"deny_area_codes": ("212",)}, lambda _: 0, {"phone": "+442125550100"}),
]


@pytest.mark.parametrize(("fields", "given", "asked"), [one[1:] for one in PASSES], ids=[one[0] for one in PASSES])
def test_what_does_not(fields: dict[str, Any], given: Callable[[Around], object], asked: dict[str, Any]) -> None:
    around = Around()
    given(around)
    assert ask(around, buyer(**fields), **asked).refusals == ()


@pytest.mark.parametrize(("dialled", "enabled"), [("nobody", True), ("leads", False)])
def test_a_campaign_that_is_not_there_or_off(dialled: str, enabled: bool) -> None:
    found = ask(Around(), buyer(), dialled=dialled, enabled=enabled)
    assert (found.refusal, found.campaign, found.buyer) == ("no_buyer", None, None)


def test_an_endpoint_that_may_not_ring_is_left_out_and_named() -> None:
    around = Around()
    around.out["trunk1"] = "unregistered"
    found = ask(around, buyer(endpoints=(secure(1), secure(2), replace(secure(3), enabled=False))))
    assert [one.name for one in found.endpoints] == ["trunk2"]
    assert found.left_out == (("trunk1", "unregistered"),)


def test_the_buffer_is_that_of_what_rings() -> None:
    around, mixed = Around(), buyer(endpoints=(secure(1), did(2)))
    assert ask(around, mixed).buffer_ms == 0
    around.out["did2"] = "no_carrier"
    assert ask(around, mixed).buffer_ms == 15_000


# --- several buyers ---


def test_by_priority_the_first_in_the_list_that_is_open() -> None:
    around = Around()
    around.lists["second"] = "suppressed"
    around.used["third"] = used(week_connected=1000)
    names = [buyer("first", state=BuyerState.PAUSED), buyer("second"), buyer("third"), buyer("fourth")]
    found = ask(around, *names, strategy=Strategy.PRIORITY)
    assert found.buyer is names[2]
    assert [(one.buyer, one.reason) for one in found.refusals] == [("first", "paused"), ("second", "suppressed")]
    assert around.scrubbed == ["second", "third"]
    assert [one.scrub and one.scrub.hit for one in found.refusals] == [None, "dnc"]
    assert [one.reason for one in found.scrubs] == ["suppressed", ""]


def test_who_is_refused_by_the_lists_alone_has_one_scrub() -> None:
    around = Around()
    around.lists["acme"] = "suppressed"
    found = ask(around, buyer())
    assert found.refusals[0].scrub is found.scrub
    assert found.scrubs == (found.scrub,)


def test_where_all_fail_the_reason_is_that_of_the_one_that_ranked_first() -> None:
    around = Around()
    around.used["ahead"] = used(week_connected=100)
    both = [buyer("ahead", state=BuyerState.PAUSED), buyer("behind", hours=("sun 10:00-11:00",))]
    found = ask(around, *both, orders={"ahead": 100, "behind": 100})
    assert (found.refusal, found.buyer) == ("closed", both[1])
    assert [one.reason for one in found.refusals] == ["closed", "paused"]
    found = ask(around, *both, orders={"ahead": 100, "behind": 100}, strategy=Strategy.PRIORITY)
    assert (found.refusal, found.buyer) == ("paused", both[0])


def test_the_one_furthest_behind_its_orders_pace() -> None:
    around = Around()
    around.used |= {"big": used(week_connected=110), "small": used(week_connected=4), "even": used(week_connected=43)}
    three = [buyer(name) for name in ("big", "small", "even")]
    found = ask(around, *three, orders={"big": 500, "small": 10, "even": 100})  # 2.6 of 7 days have passed: 37 %
    assert found.buyer is three[0]  # 20 % had, against 30 % and 39 %


def test_pace_goes_by_the_hours_in_which_a_buyer_is_open() -> None:
    around = Around()
    around.used |= {"early": used(week_connected=60), "late": used(week_connected=20)}
    both = [buyer("early", hours=("mon-wed 09:00-18:00",)), buyer("late", hours=("wed-sun 14:00-23:00",))]
    found = ask(around, *both, orders={"early": 100, "late": 100})
    assert found.buyer is both[0]  # 87 % of its time is over; of the other's 1 %


def test_what_is_under_way_counts_and_the_make_up_is_owed() -> None:
    around = Around()
    around.used |= {"a": used(week_failed=10, week_live=5, live=5), "b": used(week_failed=14)}
    around.up["a"] = 7
    both = [buyer("a"), buyer("b")]
    assert ask(around, *both, orders={"a": 100, "b": 100}).buyer is both[1]


def test_who_has_no_order_is_between_those_behind_and_those_ahead() -> None:
    around = Around()
    around.used |= {"ahead": used(week_connected=90), "behind": used(week_connected=1)}
    three = [buyer(name) for name in ("ahead", "none", "behind")]
    orders = {"ahead": 100, "behind": 100}
    assert ask(around, *three, orders=orders).buyer is three[2]
    assert ask(around, *three[:2], orders=orders).buyer is three[1]


def test_lots_decide_between_equals_and_the_seed_repeats_them() -> None:
    four = [buyer(name) for name in "abcd"]
    chosen = [ask(Around(), *four, seed=seed).buyer for seed in range(400)]
    assert chosen == [ask(Around(), *four, seed=seed).buyer for seed in range(400)]
    counts = [sum(one is each for one in chosen) for each in four]
    assert min(counts) > 60, counts  # 100 each; 60 is 4.6 standard deviations away


def test_by_rating_one_endpoint_of_the_first_open_buyer_rings() -> None:
    agents = (replace(plain(1), rating_x100=500), replace(plain(2), rating_x100=100), plain(3))
    around = Around()
    around.out["trunk3"] = "busy"
    two = [buyer("first", endpoints=agents), buyer("second")]
    chosen = [ask(around, *two, strategy=Strategy.RATED, seed=seed) for seed in range(600)]
    assert {one.buyer for one in chosen} == {two[0]}
    assert {len(one.endpoints) for one in chosen} == {1}
    names = [one.endpoints[0].name for one in chosen]
    assert 450 < names.count("trunk1") < 550  # 500 expected, 9.1 standard deviation
    assert names.count("trunk3") == 0
    assert {one.left_out for one in chosen} == {(("trunk3", "busy"),)}


MENU = (MenuChoice("1", ("sales",)), MenuChoice("2", ("repairs", "sales")))


@pytest.mark.parametrize(
    ("key", "expected"), [("1", "sales"), ("2", "repairs"), ("", "sales"), ("3", None), ("#", None)]
)
def test_a_key_leads_to_its_buyers(key: str, expected: str | None) -> None:
    both = [buyer("sales"), buyer("repairs")]
    found = ask(Around(), *both, menu=MENU, key=key, strategy=Strategy.PRIORITY)
    assert (found.buyer.name if found.buyer else None) == expected
    assert found.refusal == ("" if expected else "no_buyer")


def test_a_key_means_nothing_to_a_campaign_without_menu() -> None:
    assert ask(Around(), buyer(), key="5").refusal == ""


def test_who_was_offered_to_is_passed_over_in_silence() -> None:
    both = [buyer("first"), buyer("second")]
    found = ask(Around(), *both, offered=frozenset({"first"}), strategy=Strategy.PRIORITY)
    assert (found.buyer, found.refusals) == (both[1], ())
    found = ask(Around(), *both, offered=frozenset({"first", "second"}))
    assert (found.refusal, found.refusals, found.buyer) == ("no_buyer", (), None)


def test_a_buyer_that_is_not_in_the_book_is_passed_over() -> None:
    book = Book(1, {"acme": buyer()}, {"leads": Campaign("leads", ("gone", "acme", "acme"))})
    assert choose(book, SelectionRequest("leads", now_utc_us=NOW), Around()).buyer == buyer()


# --- availability ---


def test_availability_asks_about_no_prospect_and_looks_at_everybody() -> None:
    around = Around()
    around.lists["open"] = "suppressed"
    buyers = [
        buyer("open", allow_states=("CA",), allow_area_codes=("310",)),
        buyer("shut", hours=("sun 10:00-11:00",)),
        buyer("held", state=BuyerState.ON_HOLD),
    ]
    book = Book(1, {one.name: one for one in buyers}, {"leads": Campaign("leads", ("open", "shut", "held"))})
    found = availability(book, SelectionRequest("leads", now_utc_us=NOW), around)
    assert (found.refusal, found.buyer, found.scrub) == ("", buyers[0], None)
    assert {one.buyer: one.reason for one in found.refusals} == {"shut": "closed", "held": "on_hold"}
    assert around.scrubbed == []


@pytest.mark.parametrize(
    ("phone", "code"),
    [("+12125550100", "212"), ("+442125550100", ""), ("+1212555010", ""), ("2125550100", ""), ("", "")],
)
def test_area_codes(phone: str, code: str) -> None:
    assert area_code(phone) == code
