"""The second bookkeeper itself, held against figures worked out by hand: the product takes no part in this."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.sim.books.model import Bargain, Customer, ImpossibleError, Kept, Over, Paper, Part, monday_of, weigh

PRICE = 4_500
NOTHING = Part()
SENT = Bargain("sent", PRICE, overrun=10, ordered=200, ordered_units=186)
BILLED = Bargain("billed", PRICE, overrun=10, ordered=200, ordered_units=200)
BUYER = "acme"
TERMS: dict[str, Any] = {
    "version": 1,
    "from": "2026-01-01",
    "zone": "America/New_York",
    "currency": "USD",
    "rating": "unit",
    "price": PRICE,
    "connected_percent": 93,
    "failed_percent": 100,
    "counts": "sent",
    "overrun": 10,
    "overage_credits": True,
    "setup": 0,
    "month_days": 10,
    "line_price": 0,
}
BY_MINUTE = {"rating": "minute", "setup": 95_000, "price": 0}
NEW_YORK = ZoneInfo(TERMS["zone"])


class Book:
    """One buyer's books by the second bookkeeper, told what happens. Instants are texts by New York's clock."""

    def __init__(self, *, versions: list[dict[str, Any]] | None = None) -> None:
        made = [TERMS | {"version": place} | one for place, one in enumerate(versions or [{}], 1)]
        self.customer = Customer({"buyer": BUYER, "at": _at("2026-05-25 09:00")}, made, {})
        self._transfers = 0

    def _tell(self, what: str, when: str, **more: Any) -> Book:
        self.customer.happen({"what": what, "at": _at(when), "buyer": BUYER, **more})
        return self

    def change(self, terms: dict[str, Any]) -> Book:
        self.customer.profile.append(TERMS | {"version": len(self.customer.profile) + 1} | terms)
        return self

    def order(self, week: str, quantity: int, make_up: int | None = None) -> Book:
        return self._tell("order", "2026-05-25 10:00", week=week, quantity=quantity, make_up=make_up)

    def send(self, when: str, connected: int = 0, failed: int = 0) -> Book:
        for kind, percent, count in (("connected", 93, connected), ("failed", 100, failed)):
            for _ in range(count):
                self._transfers += 1
                transfer = f"t-{self._transfers}"
                self._tell("unit", when, transfer=transfer, dialout=_at(when), kind=kind, percent=percent)
        return self

    def pay(self, amount: int, when: str, document: str = "") -> Book:
        return self._tell("payment", when, reference=when, amount=amount, document=document)

    def bounce(self, reference: str, when: str) -> Book:
        return self._tell("bounce", when, reference=reference)

    def choose(self, choice: str, when: str) -> Book:
        return self._tell("remedy", when, week=None, choice=choice)

    def cancel(self, number: str, when: str) -> Book:
        return self._tell("cancel", when, number=number)

    def state(self, state: str, when: str) -> Book:
        return self._tell("state", when, state=state, by="ops")

    def run(self, when: str) -> Book:
        numbers = [one.number for one in self.customer.papers]
        self._tell("handed", when, numbers=numbers).customer.run(_at(when))
        return self

    def papers(self, kind: str) -> list[Paper]:
        return [one for one in self.customer.papers if one.kind == kind]

    def paper(self, kind: str) -> Paper:
        return self.papers(kind)[-1]

    def lines(self, kind: str) -> list[list[tuple[int, int]]]:
        return [one.units for one in self.papers(kind)]

    def over(self, monday: str) -> Over:
        return self.customer.weeks[date.fromisoformat(monday)]


def _at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp()) * 1_000_000


def _kinds(connected: int, failed: int) -> dict[str, int]:
    return {"connected": connected, "failed": failed}


# a week against its order


@pytest.mark.parametrize(
    ("bargain", "sent", "billed", "over", "short"),
    [
        # As sent: 207 are 7 over, and 192.51 units are 6 more than the 186 that were paid.
        (SENT, (207, 0), (192, 0), Part(7, 6, 27_000), NOTHING),
        (SENT, (200, 0), (186, 0), NOTHING, NOTHING),
        # 192 are 8 short, and 178.56 units are 8 fewer.
        (SENT, (192, 0), (178, 0), NOTHING, Part(8, 8, 36_000)),
        # On target with 20 failed ones: 167.40 and 20 in full are one unit more than was paid.
        (SENT, (180, 20), (167, 20), Part(0, 1, 4_500), NOTHING),
        # One short, and yet 6 units more than was paid: it is named, is worth nothing, and what was billed is charged.
        (SENT, (100, 99), (93, 99), Part(0, 6, 27_000), Part(1, 0, 0)),
        # As billed: 192 and 8 are on target, 192 and 15 are 7 over, 192 alone are 8 short.
        (BILLED, (207, 8), (192, 8), NOTHING, NOTHING),
        (BILLED, (207, 15), (192, 15), Part(7, 7, 31_500), NOTHING),
        (BILLED, (207, 0), (192, 0), NOTHING, Part(8, 8, 36_000)),
        # Three taken back, from weeks before: more is short than was ordered.
        (SENT, (-3, 0), (-2, 0), NOTHING, Part(203, 188, 846_000)),
    ],
)
def test_the_worked_examples(
    bargain: Bargain, sent: tuple[int, int], billed: tuple[int, int], over: Part, short: Part
) -> None:
    found = weigh(bargain, _kinds(*sent), _kinds(*billed), Kept())
    assert (found.over, found.short, found.waiting) == (over, short, NOTHING)
    assert (found.used, found.kept) == (0, Kept())


def test_units_that_were_paid_and_not_billed_stay_and_are_taken_before_money() -> None:
    on_target = weigh(SENT, _kinds(200, 0), _kinds(185, 0), Kept())
    assert (on_target.over, on_target.short, on_target.kept) == (NOTHING, NOTHING, Kept(1, 4_500))
    # Three kept units that came to 10,001: two of them are 6,667.33, one 3,333.67; half-even is on the whole.
    kept = Kept(3, 10_001)
    two = weigh(SENT, _kinds(200, 0), _kinds(188, 0), kept)
    assert (two.used, two.over, two.kept) == (2, NOTHING, Kept(1, 3_334))
    five = weigh(SENT, _kinds(206, 0), _kinds(191, 0), kept)
    assert (five.used, five.over, five.kept) == (3, Part(6, 2, 9_000), Kept())
    short = weigh(SENT, _kinds(199, 0), _kinds(185, 0), kept)
    assert (short.short, short.used, short.kept) == (Part(1, 1, 4_500), 0, kept)
    # An order that counts as billed takes them as well: 7 over, 4 charged.
    billed = weigh(BILLED, _kinds(207, 15), _kinds(192, 15), kept)
    assert (billed.used, billed.over, billed.kept) == (3, Part(7, 4, 18_000), Kept())


def test_what_is_left_is_the_make_up_first() -> None:
    # 8 transfers on top that came with 8 units worth 30,001: what is not delivered of them is worth its part of that.
    bargain = Bargain("sent", PRICE, 10, 200, 186, 8, 8, 30_001)
    five = weigh(bargain, _kinds(203, 0), _kinds(188, 0), Kept())
    assert five.short == Part(5, 6, 22_501)  # 22,500.75
    twelve = weigh(bargain, _kinds(196, 0), _kinds(182, 0), Kept())
    assert twelve.short == Part(12, 12, 30_001 + 4 * 4_500)
    # All 208 were delivered, 193 units of 194: the last one stays, worth 3,750.125.
    assert weigh(bargain, _kinds(208, 0), _kinds(193, 0), Kept()).kept == Kept(1, 3_750)
    # The limit runs from the order and its make-up: 228 are allowed.
    assert weigh(bargain, _kinds(230, 0), _kinds(213, 0), Kept()).beyond == 2


def test_of_an_order_that_is_not_paid_what_is_short_waits_but_never_its_make_up() -> None:
    unpaid = Bargain("sent", PRICE, 10, 200, 186, 8, 8, 30_001, is_paid=False)
    found = weigh(unpaid, _kinds(196, 0), _kinds(182, 0), Kept())
    assert (found.waiting, found.short) == (Part(4, 4, 18_000), Part(8, 8, 30_001))
    nothing = weigh(unpaid, _kinds(-1, 0), _kinds(-1, 0), Kept())
    assert (nothing.waiting, nothing.short) == (Part(200, 186, 837_000), Part(9, 9, 34_501))
    # On target the unit stays with the buyer, for the invoice stays owed in full.
    assert weigh(unpaid, _kinds(208, 0), _kinds(193, 0), Kept()).kept == Kept(1, 3_750)


def test_whatever_comes_each_billed_unit_is_paid_for_once() -> None:
    """Where all units came at one price, a week earns and charges exactly what it billed, and no unit is lost."""
    dice, price = random.Random(1), 99
    for _ in range(20_000):
        counts = dice.choice(("sent", "billed"))
        ordered, make_up = dice.randrange(30), dice.randrange(6)
        paid = ordered if counts == "billed" else max(0, ordered - dice.randrange(4))
        units = make_up if counts == "billed" else dice.randrange(7)
        kept = Kept(dice.choice((0, 0, 3)))
        kept = Kept(kept.units, kept.units * price)
        bargain = Bargain(counts, price, 10, ordered, paid, make_up, units, units * price, dice.random() < 0.5)
        billed = _kinds(dice.randrange(-3, 40), dice.randrange(4))
        found = weigh(bargain, _kinds(dice.randrange(-3, 40), dice.randrange(4)), billed, kept)
        there = paid + units + kept.units
        left = found.short.units + found.waiting.units + found.kept.units
        assert there - left + found.over.units == sum(billed.values())
        earned = there * price - found.short.minor - found.waiting.minor - found.kept.minor
        assert earned + found.over.minor == sum(billed.values()) * price
        missing = found.short.counted + found.waiting.counted
        assert found.counted - ordered - make_up == found.over.counted - missing
        assert not (missing and found.over.counted)
        assert min(found.short.units, found.waiting.units, found.kept.units, found.over.units, found.used) >= 0
        if counts == "billed":
            assert (found.short.counted, found.waiting.counted) == (found.short.units, found.waiting.units)
            assert found.over.counted == found.over.units + found.used


# a buyer's weeks, day by day


def test_tuesdays_invoice_is_for_the_percentage_of_the_order_and_mondays_for_what_is_more() -> None:
    book = Book().order("2026-06-08", 200).run("2026-06-02 13:00")
    assert book.lines("order") == [[(186, 837_000)]]
    assert book.paper("order").due == _at("2026-06-04 17:00")
    book.pay(837_000, "2026-06-03 09:00").send("2026-06-10 10:00", 207).run("2026-06-15 02:00")
    assert book.lines("overage") == [[(6, 27_000)]]
    assert book.paper("overage").due == _at("2026-06-16 17:00")
    assert book.lines("week") == [[(192, 0), (0, 0)]]
    figures = book.paper("week").figures
    assert (figures["overage_counted"], figures["beyond_units"]) == (7, 0)
    assert book.customer.units_held() == {"unbilled_connected": 51, "billed": 19_200, "delivered": -19_251}
    assert book.customer.balances() == {"receivable": 27_000, "revenue": -864_000, "cash": 837_000}


@pytest.mark.parametrize("choice", ["refund", "credit", "make_up"])
def test_eight_short_is_a_check_a_credit_or_eight_on_top(choice: str) -> None:
    book = Book().order("2026-06-08", 200).run("2026-06-02 13:00").pay(837_000, "2026-06-03 09:00")
    book.send("2026-06-10 10:00", 192).run("2026-06-15 02:00").choose(choice, "2026-06-16 11:59")
    book.order("2026-06-22", 200).run("2026-06-16 12:00")
    # 400 transfers at 93 % are 372 units, 186 of which the first order paid.
    invoice, order = book.papers("order")[1], book.customer.orders[date(2026, 6, 22)]
    assert invoice.total == 837_000
    assert [(one.amount, one.units, one.due_on) for one in book.customer.checks] == (
        [(36_000, 8, "2026-06-17")] if choice == "refund" else []
    )
    assert invoice.applied == (36_000 if choice == "credit" else 0)
    made_up = (8, 8, 8, 36_000) if choice == "make_up" else (0, 0, 0, 0)
    assert (order.make_up, order.owed, order.owed_units, order.worth) == made_up
    assert invoice.units == [(186, 837_000), *([(8, 0)] if choice == "make_up" else [])]
    prepaid = {"make_up": -837_000 - 36_000}.get(choice, -837_000)
    assert book.customer.balances()["prepaid"] == prepaid


def test_what_orders_pay_in_advance_drifts_no_further_than_what_is_billed() -> None:
    """Seven orders of 5 at 93 %: 4.65 each, so 4, 5, 4, 5, 5, 4, 5 units and 32.55 in all."""
    book = Book()
    mondays = [date(2026, 6, 8) + timedelta(weeks=week) for week in range(7)]
    for monday in mondays:
        book.order(monday.isoformat(), 5)
    book.run("2026-07-15 00:00")
    assert [book.customer.orders[one].paid_units for one in mondays] == [4, 5, 4, 5, 5, 4, 5]
    # One that is cancelled before its week, and ordered anew, takes and gives nothing.
    book.cancel(book.papers("order")[-1].number, "2026-07-15 01:00")
    assert book.lines("credit_note") == [[(5, 22_500)]]
    assert book.customer.orders[mondays[-1]].quantity == 0
    book.order(mondays[-1].isoformat(), 10).run("2026-07-15 02:00")
    assert book.lines("order")[-1] == [(10, 45_000)]  # 27.90 + 9.30 = 37.20, less 27


def test_an_order_of_one_is_invoiced_at_nothing_first() -> None:
    book = Book().order("2026-06-08", 1).order("2026-06-15", 1).run("2026-06-09 13:00")
    assert book.lines("order") == [[(0, 0)], [(1, 4_500)]]
    assert book.papers("order")[0].settled == _at("2026-06-09 13:00")


def test_a_make_up_goes_over_into_another_way_of_counting_as_what_it_is_worth() -> None:
    """40 transfers short of 200 as sent: 148.80 units, 38 fewer than 186. As billed, these 38 are the make-up."""
    book = Book(versions=[{}, {"from": "2026-06-20", "counts": "billed"}, {"from": "2026-07-04", "counts": "sent"}])
    book.order("2026-06-08", 200).run("2026-06-02 13:00").pay(837_000, "2026-06-03 09:00")
    book.choose("make_up", "2026-06-03 10:00")
    book.send("2026-06-10 10:00", 160).run("2026-06-15 02:00")
    assert book.over("2026-06-08").short == Part(40, 38, 171_000)
    book.order("2026-06-22", 100).run("2026-06-16 13:00")
    assert book.lines("order")[-1] == [(100, 450_000), (38, 0)]
    book.pay(450_000, "2026-06-17 09:00").send("2026-06-24 10:00", 138).run("2026-06-29 02:00")
    # 148.80 + 128.34 = 277.14: 129 billed of 138 are 9 short, the make-up's: 171,000 x 9 / 38 = 40,500.
    assert book.over("2026-06-22").short == Part(9, 9, 40_500)
    book.order("2026-07-06", 100).run("2026-06-30 13:00")
    # Back as sent: 9 transfers with 9 units. Of 300 as sent 279 units are due, 186 were paid.
    assert book.lines("order")[-1] == [(93, 418_500), (9, 0)]
    book.pay(418_500, "2026-07-01 09:00").send("2026-07-08 10:00", 109).run("2026-07-13 02:00")
    # 277.14 + 101.37 = 378.51: 101 units of 102, all 109 delivered: one stays, worth 4,500.
    assert book.customer.kept == Kept(1, 4_500)
    assert book.customer.balances()["prepaid"] == -4_500


@pytest.mark.parametrize("counts", ["sent", "billed"])
def test_a_present_is_free(counts: str) -> None:
    """Five on top of 20: as sent 4.65 units, so 5. Whatever is delivered of them costs nothing, and none is money."""
    book = Book(versions=[{"counts": counts}]).order("2026-06-08", 20, make_up=5).run("2026-06-02 13:00")
    book.pay(90_000, "2026-06-03 09:00").send("2026-06-10 10:00", 25 if counts == "sent" else 27)
    book.run("2026-06-15 02:00")
    # As sent 23.25: 23 of 18 + 5. As billed 25.11: 25 of 20 + 5.
    figures = book.paper("week").figures
    assert (figures["make_up"], figures["make_up_units"], figures["overage_minor"]) == (5, 5, 0)
    short = Book(versions=[{"counts": counts}]).order("2026-06-08", 20, make_up=5).run("2026-06-02 13:00")
    short.pay(90_000, "2026-06-03 09:00").send("2026-06-10 10:00", 20 if counts == "sent" else 22)
    short.run("2026-06-15 02:00")
    assert short.over("2026-06-08").short == Part(5, 5, 0)


def test_a_present_beside_what_is_owed_shares_in_its_worth() -> None:
    book = Book().order("2026-06-22", 20, make_up=3).order("2026-06-08", 20).run("2026-06-02 13:00")
    book.pay(81_000, "2026-06-03 09:00").choose("make_up", "2026-06-03 10:00")
    book.send("2026-06-10 10:00", 15).run("2026-06-16 13:00")
    # 13.95: 13 of 18 units, so 5 transfers with 5 units; with 3 presents, 2.79 and so 3 units, 8 transfers with 8.
    assert book.lines("order")[-1] == [(19, 85_500), (8, 0)]
    book.pay(85_500, "2026-06-17 09:00").send("2026-06-24 10:00", 24).run("2026-06-29 02:00")
    # 13.95 + 22.32 = 36.27: 23 of 19 + 8. Four short, with 4 of the 8 units that 22,500 came with.
    assert book.over("2026-06-22").short == Part(4, 4, 11_250)
    with pytest.raises(ImpossibleError, match="owed"):
        book.run("2026-06-30 13:00").order("2026-07-06", 5, make_up=3)


def test_an_order_stays_as_it_was_invoiced_whatever_the_terms_become() -> None:
    changed = {"from": "2026-06-05", "connected_percent": 50, "price": 1, "counts": "billed", "overrun": 0}
    book = Book().order("2026-06-08", 200).run("2026-06-02 13:00").pay(837_000, "2026-06-03 09:00")
    book.change(changed).send("2026-06-10 10:00", 207).run("2026-06-15 02:00")
    assert book.lines("overage") == [[(6, 27_000)]]
    assert book.paper("week").figures["beyond_units"] == 0
    book.order("2026-06-22", 200).run("2026-06-16 13:00")
    assert book.lines("order")[-1] == [(200, 200)]


def test_what_an_unpaid_order_falls_short_of_waits_for_its_payment_or_is_cancelled() -> None:
    book = Book().order("2026-06-08", 200).order("2026-06-15", 200).run("2026-06-09 13:00")
    book.send("2026-06-10 10:00", 192).send("2026-06-16 10:00", 192).run("2026-06-22 02:00")
    # 178.56, and then 357.12 less 178: 8 and 7 units fewer than 186.
    assert book.over("2026-06-08").waiting == Part(8, 8, 36_000)
    assert book.over("2026-06-15").waiting == Part(8, 7, 31_500)
    assert book.customer.balances() == {"receivable": 2 * 837_000, "revenue": -357 * PRICE, "prepaid": -67_500}
    first, second = book.papers("order")
    book.pay(837_000, "2026-06-22 09:00", first.number).run("2026-06-23 12:00")
    assert book.customer.credits == 36_000
    book.cancel(second.number, "2026-06-24 09:00")
    assert book.lines("credit_note") == [[(7, 31_500)]]
    assert (second.open, second.is_open) == (837_000 - 31_500, True)
    assert book.customer.orders[date(2026, 6, 15)].quantity == 200


@pytest.mark.parametrize(("uses_credits", "applied"), [(True, 27_000), (False, 0)])
def test_overage_takes_open_credits_unless_the_terms_say_otherwise(uses_credits: bool, applied: int) -> None:
    book = Book(versions=[{"overage_credits": uses_credits}]).order("2026-06-08", 200).run("2026-06-02 13:00")
    book.pay(837_000 + 30_000, "2026-06-03 09:00").send("2026-06-10 10:00", 207).run("2026-06-15 02:00")
    overage = book.paper("overage")
    assert (overage.total, overage.applied, overage.open) == (27_000, applied, 27_000 - applied)
    assert overage.settled == (_at("2026-06-15 02:00") if uses_credits else None)
    assert book.customer.credits == 30_000 - applied


def test_the_reasons_for_not_serving_are_a_set_and_each_ends_by_its_own_cause() -> None:
    book = Book().order("2026-06-08", 200).run("2026-06-02 13:00")
    book.state("on_hold", "2026-06-03 09:00").state("paused", "2026-06-03 10:00").state("paused", "2026-06-03 11:00")
    book.run("2026-06-04 17:00")
    assert (book.customer.stops, book.customer.state) == ({"held", "paused", "unpaid"}, "on_hold")
    book.state("active", "2026-06-05 09:00").state("active", "2026-06-05 10:00")
    assert (book.customer.stops, book.customer.state) == ({"unpaid"}, "on_hold")
    book.state("paused", "2026-06-05 11:00").pay(836_999, "2026-06-05 12:00")
    assert book.customer.state == "on_hold"
    book.pay(1, "2026-06-05 13:00")
    assert (book.customer.stops, book.customer.state) == ({"paused"}, "paused")
    held = [("active", "on_hold", "ops"), ("on_hold", "on_hold", "ops"), ("on_hold", "on_hold", "")]
    then = [("on_hold", "on_hold", "ops"), ("on_hold", "on_hold", "ops"), ("on_hold", "paused", "")]
    assert [row[1:] for row in book.customer.states] == held + then


def test_who_is_cancelled_is_so_whatever_else_stands_and_still_owes() -> None:
    book = Book().order("2026-06-08", 200).run("2026-06-02 13:00").state("cancelled", "2026-06-03 09:00")
    book.run("2026-06-05 09:00")
    assert (book.customer.stops, book.customer.state) == ({"cancelled", "unpaid"}, "cancelled")
    assert book.paper("order").held == _at("2026-06-05 09:00")
    assert book.state("active", "2026-06-06 09:00").customer.state == "on_hold"


def test_a_payment_that_bounces_holds_again_with_the_next_run() -> None:
    book = Book().order("2026-06-08", 200).run("2026-06-02 13:00").pay(837_000, "2026-06-05 09:00")
    book.run("2026-06-05 10:00").bounce("2026-06-05 09:00", "2026-06-08 09:00")
    assert (book.customer.state, book.paper("order").is_open) == ("active", True)
    book.run("2026-06-08 10:00")
    assert (book.customer.state, book.paper("order").held) == ("on_hold", _at("2026-06-08 10:00"))
    # Paid and bounced again while held for another: the hold stays until no open invoice is held.
    book.order("2026-06-15", 10).run("2026-06-09 13:00").run("2026-06-11 17:00")
    first, second = book.papers("order")
    book.pay(837_000, "2026-06-12 09:00", first.number).bounce("2026-06-12 09:00", "2026-06-12 10:00")
    assert (first.held, second.held, book.customer.state) == (None, _at("2026-06-11 17:00"), "on_hold")
    rows = len(book.customer.states)
    book.run("2026-06-12 11:00")
    assert (first.held, len(book.customer.states)) == (_at("2026-06-12 11:00"), rows)


def test_a_check_waits_while_what_it_pays_back_is_not_paid() -> None:
    book = Book().order("2026-06-08", 200).run("2026-06-02 13:00").pay(837_000, "2026-06-03 09:00")
    book.choose("refund", "2026-06-03 10:00").send("2026-06-10 10:00", 192).run("2026-06-16 12:00")
    [check] = book.customer.checks
    book.customer.on_worklist({"due": [0]})
    book.bounce("2026-06-03 09:00", "2026-06-16 13:00")
    assert book.customer.withholds(check)
    book.customer.on_worklist({"due": []})
    with pytest.raises(ImpossibleError):
        book.customer.on_worklist({"due": [0]})
    book.pay(837_000, "2026-06-17 09:00").customer.on_worklist({"due": [0]})
    book.customer.on_check({"index": 0})
    assert book.customer.balances() == {"revenue": -801_000, "cash": 801_000}


def test_a_check_for_open_credits_waits_while_these_are_negative() -> None:
    book = Book().pay(10_000, "2026-06-03 09:00").customer
    book.on_pay_out({"at": _at("2026-06-03 10:00")})
    book.on_bounce({"reference": "2026-06-03 09:00"})
    assert (book.credits, book.withholds(book.checks[0])) == (-10_000, True)
    with pytest.raises(ImpossibleError, match="not to be sent"):
        book.on_check({"index": 0})


def test_the_set_up_comes_before_the_first_month_and_only_to_who_is_served() -> None:
    book = Book(versions=[BY_MINUTE])
    call = {"transfer": "t-1", "dialout": _at("2026-05-25 11:00"), "price": 118, "terms": "t", "version": 1, "count": 3}
    book._tell("minutes", "2026-05-25 12:00", **call).run("2026-07-10 09:00")
    assert [(one.kind, one.total) for one in book.customer.papers] == [("setup", 95_000), ("month", 354)]
    held = Book(versions=[BY_MINUTE]).state("on_hold", "2026-05-25 09:00").run("2026-05-26 09:00")
    assert held.customer.papers == []
    assert [one.kind for one in held.state("active", "2026-05-26 10:00").run("2026-05-26 11:00").customer.papers] == [
        "setup"
    ]


class Chance:
    """A buyer to whom anything happens."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        choices = {"counts": ("sent", "billed"), "connected_percent": (93, 88, 77), "price": (4_500, 101, 3_999)}
        days = sorted((date(2026, 6, 1) + timedelta(days=self.dice.randrange(90))).isoformat() for _ in range(6))
        versions = [{"from": day} | {name: self.dice.choice(of) for name, of in choices.items()} for day in days]
        self.book = Book(versions=[{}, *versions])
        self.customer = self.book.customer
        self.now = _at("2026-05-25 10:00")
        self._places = 0
        self._paid: list[str] = []
        self._moves = (self.runs, self.delivers, self.tops_up, self.orders, self.pays, self.bounces, self.chooses)

    def goes_on(self) -> str:
        self.now += self.dice.randrange(1, 12) * 3_600_000_000
        move = self.dice.choice((*self._moves, self.takes_back))
        move()
        return move.__name__

    def runs(self) -> None:
        for paper in self.customer.papers:
            paper.handed = True
        self.customer.run(self.now)

    def delivers(self, count: int | None = None) -> None:
        terms = self.customer.terms_at(self.now)
        for _ in range(self.dice.randrange(8) if count is None else count):
            self._places += 1
            kind = self.dice.choice(("connected", "connected", "connected", "failed"))
            of = {"kind": kind, "percent": terms[f"{kind}_percent"], "dialout": self.now}
            self.customer.on_unit({"transfer": f"t-{self._places}", **of})

    def tops_up(self) -> None:
        """As many as the order of the week is for."""
        monday = monday_of(self.now, self.customer.zone)
        order = self.customer.orders.get(monday)
        if order is not None:
            self.delivers(max(0, order.quantity + order.make_up - sum(one.count for one in self.customer.pool)))

    def takes_back(self) -> None:
        if self.customer.units:
            self.customer.on_take_back({"transfer": self.dice.choice(list(self.customer.units))})

    def orders(self) -> None:
        week = monday_of(self.now, self.customer.zone) + timedelta(weeks=self.dice.choice((0, 1, 1, 2)))
        order = self.customer.orders.get(week)
        if week in self.customer.weeks or (order is not None and order.invoice is not None):
            return
        make_up = (order.owed if order else 0) + self.dice.randrange(3) if self.dice.random() < 0.2 else None
        self.book.order(week.isoformat(), self.dice.choice((5, 10, 20)), make_up)

    def pays(self) -> None:
        owed = sum(one.open for one in self.customer.papers if one.is_open)
        self._paid.append(f"check:{self.now}")
        amount = max(1, owed * self.dice.choice((50, 100, 100, 120)) // 100)
        self.customer.on_payment({"at": self.now, "reference": self._paid[-1], "amount": amount, "document": ""})

    def bounces(self) -> None:
        if self._paid and self.dice.random() < 0.3:
            self.customer.on_bounce({"at": self.now, "reference": self._paid.pop()})

    def chooses(self) -> None:
        self.customer.choices.append((self.now, None, self.dice.choice(("make_up", "make_up", "credit", "refund"))))


def test_whatever_happens_its_accounts_balance() -> None:
    """No account is the rest of the others, and yet they come to nothing: in money, and in hundredths of a unit."""
    weeks: list[dict[str, Any]] = []
    for seed in range(30):
        chance = Chance(seed)
        for _ in range(600):
            did = chance.goes_on()
            assert sum(chance.customer.balances().values()) == 0, (seed, did)
            assert sum(chance.customer.units_held().values()) == 0, (seed, did)
            assert chance.customer.balances().get("prepaid", 0) <= 0, (seed, did)
        weeks += [one.figures for one in chance.book.papers("week")]
    for name in ("prepaid_units", "prepaid_used", "awaiting_counted", "shortfall_counted", "overage_units", "make_up"):
        assert sum(one[name] > 0 for one in weeks) > 5, name
