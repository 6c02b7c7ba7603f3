"""A second bookkeeper: what the books must say, worked out from a log of events, with no code of the product's.

Written from the domain, sections 2, 5, 6, 8 and 9, and from decision 076, in an order of its own: it walks each
buyer's calendar from the first Monday to the instant of a run, and does on each Monday and each Tuesday noon what that
day asks for, where it has not been done. Amounts are minor units, instants microseconds UTC, `monday` a date in the
zone of the buyer's terms.

A week is weighed twice (`weigh`): in what its order counts, which says what is over and what is short; and in billed
units, which say what that is worth. In either the order is filled first and the make-up on top of it last.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

Event = dict[str, Any]
HOUR_US = 3_600_000_000  # a week or month is settled one hour after its end
MIDNIGHT, NOON, CLOSING_TIME = time(0), time(12), time(17)
WEEK = timedelta(days=7)


@lru_cache(maxsize=65_536)
def instant(day: date, clock: time, zone: str) -> int:
    return int(datetime.combine(day, clock, ZoneInfo(zone)).timestamp()) * 1_000_000


def day_of(at_us: int, zone: str) -> date:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).astimezone(ZoneInfo(zone)).date()


def monday_of(at_us: int, zone: str) -> date:
    day = day_of(at_us, zone)
    return day - timedelta(days=day.weekday())


def nearest(amount: int, share: int, of: int) -> int:
    """`amount` x `share` / `of`, half-even."""
    return int((Decimal(amount * share) / Decimal(of)).quantize(Decimal(1), ROUND_HALF_EVEN)) if of else 0


class ImpossibleError(LookupError):
    """The log says that something happened that must not."""


@dataclass(frozen=True)
class Bargain:
    """What a week is held against. Transfers are as the order counts them, units are billed ones."""

    counts: str  # sent or billed
    price: int
    overrun: int = 0  # per cent
    ordered: int = 0
    ordered_units: int = 0  # paid for in advance
    make_up: int = 0
    make_up_units: int = 0
    make_up_minor: int = 0  # what these were once paid with
    is_paid: bool = True


@dataclass(frozen=True)
class Part:
    """Of a week: in what the order counts, in billed units, and in money."""

    counted: int = 0
    units: int = 0
    minor: int = 0

    @property
    def is_nothing(self) -> bool:
        return not (self.counted or self.units or self.minor)


@dataclass(frozen=True)
class Kept:
    """Prepaid units that stayed with the buyer, and what was paid for them."""

    units: int = 0
    minor: int = 0


@dataclass(frozen=True)
class Weighed:
    """What a week comes to."""

    counted: int
    over: Part  # of its units and money, what is charged
    short: Part
    waiting: Part  # short as well, of an order that is not paid
    beyond: int
    used: int  # of the units that were kept before
    kept: Kept  # after it


def weigh(bargain: Bargain, sent: dict[str, int], billed: dict[str, int], before: Kept) -> Weighed:
    """Hold a week against its order. `sent`, `billed`: transfers and billed units by kind; `before`: kept so far."""
    units = sum(billed.values())
    counted = sum(sent.values()) if bargain.counts == "sent" else units
    ordered_missing, make_up_missing, beyond_both = _fill(counted, bargain.ordered, bargain.make_up)
    ordered_left, make_up_left, excess = _fill(units, bargain.ordered_units, bargain.make_up_units)
    make_up_left_minor = nearest(bargain.make_up_minor, make_up_left, bargain.make_up_units)
    missing = ordered_missing + make_up_missing
    short, waiting, kept = Part(), Part(), before
    if missing:
        if not bargain.is_paid:
            held_back = min(bargain.ordered_units, ordered_left)
            waiting = Part(min(bargain.ordered, ordered_missing), held_back, held_back * bargain.price)
        owed = ordered_left - waiting.units
        short = Part(missing - waiting.counted, owed + make_up_left, owed * bargain.price + make_up_left_minor)
    else:
        stays_minor = ordered_left * bargain.price + make_up_left_minor
        kept = Kept(before.units + ordered_left + make_up_left, before.minor + stays_minor)
    used = min(excess, before.units)
    if used:
        kept = Kept(before.units - used, before.minor - nearest(before.minor, used, before.units))
    charged = excess - used
    return Weighed(
        counted=counted,
        over=Part(beyond_both, charged, charged * bargain.price),
        short=short,
        waiting=waiting,
        beyond=max(0, beyond_both - bargain.ordered * bargain.overrun // 100),
        used=used,
        kept=kept,
    )


def _fill(delivered: int, order: int, on_top: int) -> tuple[int, int, int]:
    """Fill the order, then what is on top of it: what each of them lacks, and what is beyond both.

    An order lacks more than it is where less than nothing was delivered.
    """
    spilt = max(0, delivered - order)
    return max(0, order - delivered), max(0, on_top - spilt), max(0, spilt - on_top)


@dataclass
class Unit:
    at: int
    kind: str
    percent: int
    count: int


@dataclass
class Paper:
    """A document as it must be."""

    kind: str
    period: str
    number: str
    issued: int
    due: int | None
    total: int
    applied: int
    open: int
    settled: int | None
    held: int | None = None
    handed: bool = False  # over to the buyer's mail server: only then may it put on hold
    units: list[tuple[int, int]] = field(default_factory=list)  # units and amount of each line
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.settled is None and self.due is not None


@dataclass
class Sold:
    """An order. Of its make-up, `owed` comes from weeks that fell short; the rest are presents of the operator's."""

    quantity: int = 0
    make_up: int = 0
    owed: int = 0
    owed_units: int = 0  # billed units that came with what is owed
    worth: int = 0  # what these were once paid with
    invoice: Paper | None = None
    terms: dict[str, Any] = field(default_factory=dict)
    paid_units: int = 0  # that its invoice is for

    @property
    def is_something(self) -> bool:
        return bool(self.quantity or self.make_up or self.owed_units or self.worth)

    def on_top(self, terms: dict[str, Any]) -> tuple[int, int]:
        """The make-up, as an order on these terms counts it, and in billed units."""
        presents = self.make_up - self.owed
        if terms["counts"] == "billed":
            return self.owed_units + presents, self.owed_units + presents
        return self.make_up, self.owed_units + -(-presents * terms["connected_percent"] // 100)


@dataclass
class Over:
    """A settled week and what is left to do for it."""

    short: Part
    waiting: Part
    kept: Kept
    earned: int
    remedied: bool
    awaited: bool


@dataclass
class Check:
    week: str | None
    units: int
    amount: int
    due_on: str
    sent: bool = False


class Customer:
    """One buyer's books."""

    def __init__(
        self, event: Event, profile: list[dict[str, Any]], numbers: dict[tuple[str, str, str, int], str]
    ) -> None:
        self.name: str = event["buyer"]
        self.profile = profile
        self.zone: str = profile[0]["zone"]
        self.currency: str = profile[0]["currency"]
        self.extra_lines: int = event.get("extra_lines", 0)
        self.first = monday_of(event["at"], self.zone) - 2 * WEEK
        self.stops: set[str] = set()  # why it is not served
        self.states: list[tuple[int, str, str, str]] = []
        self.met: Counter[str] = Counter()  # what happened of what seldom does
        self.pool: list[Unit] = []
        self.units: dict[str, Unit] = {}
        self.talk: list[tuple[int, tuple[int, str, int], int]] = []  # dial-out, price and terms, increments
        self.calls: dict[str, tuple[int, tuple[int, str, int], int]] = {}
        self.sums = {"connected": 0, "failed": 0}
        self.kept = Kept()
        self.orders: dict[date, Sold] = {}
        self.weeks: dict[date, Over] = {}
        self.months: dict[str, int] = {}
        self.papers: list[Paper] = []
        self.checks: list[Check] = []
        self.paid: dict[str, list[tuple[Paper | None, int]]] = {}
        self.choices: list[tuple[int, str | None, str]] = []
        self.credits = self.cash = self.revenue = self.allowances = 0
        self.has_setup = False
        self._numbers = numbers
        self._count: Counter[tuple[str, str]] = Counter()

    # terms

    def terms_at(self, at_us: int) -> dict[str, Any]:
        started = [one for one in self.profile if self.starts(one) <= at_us]
        if not started:
            return min(self.profile, key=lambda one: (one["from"], one["version"]))
        return max(started, key=lambda one: (self.starts(one), one["version"]))

    @staticmethod
    def starts(terms: dict[str, Any]) -> int:
        return instant(date.fromisoformat(terms["from"]), MIDNIGHT, terms["zone"])

    def week_terms(self, monday: date) -> dict[str, Any]:
        return self.terms_at(instant(monday, MIDNIGHT, self.zone))

    # what happens

    def happen(self, event: Event) -> None:
        getattr(self, f"on_{event['what']}")(event)

    def on_unit(self, event: Event) -> None:
        unit = Unit(event["dialout"], event["kind"], event["percent"], 1)
        self.units[event["transfer"]] = unit
        self.pool.append(unit)

    def on_minutes(self, event: Event) -> None:
        call = (event["dialout"], (event["price"], event["terms"], event["version"]), event["count"])
        self.calls[event["transfer"]] = call
        self.talk.append(call)

    def on_take_back(self, event: Event) -> None:
        if event["transfer"] in self.calls:
            at, price, count = self.calls[event["transfer"]]
            self.talk.append((at, price, -count))
        else:
            unit = self.units[event["transfer"]]
            self.pool.append(Unit(unit.at, unit.kind, unit.percent, -1))
            self.met["taken back from a settled week"] += monday_of(unit.at, self.zone) in self.weeks

    def on_order(self, event: Event) -> None:
        order = self.orders.setdefault(date.fromisoformat(event["week"]), Sold())
        make_up = order.make_up if event["make_up"] is None else event["make_up"]
        if order.invoice is not None and (order.quantity, order.make_up) != (event["quantity"], make_up):
            raise ImpossibleError(f"{self.name}: the order for {event['week']} was invoiced and stays as it is")
        order.quantity, order.make_up = event["quantity"], make_up
        if order.make_up < order.owed:
            raise ImpossibleError(f"{self.name}: of the make-up for {event['week']}, {order.owed} are owed")

    def on_remedy(self, event: Event) -> None:
        self.choices.append((event["at"], event["week"], event["choice"]))

    @property
    def state(self) -> str:
        if "cancelled" in self.stops:
            return "cancelled"
        if self.stops & {"held", "unpaid"}:
            return "on_hold"
        return "paused" if self.stops else "active"

    def on_state(self, event: Event) -> None:
        by_hand = {"paused": {"paused"}, "on_hold": {"held"}, "cancelled": {"cancelled"}}
        wanted = self.stops | by_hand[event["state"]] if event["state"] in by_hand else self.stops & {"unpaid"}
        self._stop(wanted, event["at"], event["by"])

    def _stop(self, wanted: set[str], at: int, by: str) -> None:
        before, changes = self.state, wanted != self.stops
        if changes:
            self.met[f"{' '.join(sorted(self.stops))} > {' '.join(sorted(wanted))}"] += 1
        self.stops = set(wanted)
        if changes:
            self.states.append((at, before, self.state, by))

    def on_payment(self, event: Event) -> None:
        left, shares = event["amount"], []
        for paper in self._papers_for(event["document"]):
            share = min(left, max(0, paper.open))
            if share:
                shares.append((paper, share))
                left -= share
        self.cash += event["amount"]
        self.credits += left
        self.paid[event["reference"]] = [*shares, *([(None, left)] if left else [])]
        for paper, share in shares:
            paper.open -= share
            if paper.open <= 0 and paper.settled is None:
                paper.settled = event["at"]
        self._release(event["at"])

    def on_bounce(self, event: Event) -> None:
        for paper, share in self.paid[event["reference"]]:
            self.cash -= share
            if paper is None:
                self.credits -= share
                continue
            paper.open += share
            over = self.weeks.get(date.fromisoformat(paper.period)) if paper.kind == "order" else None
            self.met["bounced after its week was remedied"] += over is not None and over.remedied
            if paper.open > 0 and paper.settled is not None:
                paper.settled = paper.held = None

    def on_credit(self, event: Event) -> None:
        unit = self.units[event["transfer"]]
        monday = monday_of(unit.at, self.zone)
        order = self.orders.get(monday)
        is_fixed = order is not None and order.is_something and order.invoice is not None
        terms = order.terms if order is not None and is_fixed else self.week_terms(monday)
        amount = nearest(terms["price"], unit.percent, 100)
        self.allowances += amount
        self.credits += amount

    def on_worklist(self, event: Event) -> None:
        there = [place for place, one in enumerate(self.checks) if not one.sent]
        due = [place for place in there if not self.withholds(self.checks[place])]
        self.met["checks withheld"] += len(there) - len(due)
        if sorted(event["due"]) != due:
            raise ImpossibleError(f"{self.name}: checks {event['due']} were to be sent, not {due}")

    def on_check(self, event: Event) -> None:
        check = self.checks[event["index"]]
        is_late = check.sent or self.withholds(check)
        check.sent = True
        self.cash -= check.amount
        if is_late:
            raise ImpossibleError(f"{self.name}: the check {check} was not to be sent")

    def withholds(self, check: Check) -> bool:
        """Whether what the check pays back is itself not paid."""
        if check.week is None:
            return self.credits < 0
        order = self.orders.get(date.fromisoformat(check.week))
        return order is not None and order.invoice is not None and order.invoice.is_open

    def on_pay_out(self, event: Event) -> None:
        day = day_of(event["at"], self.zone).isoformat()
        self.checks.append(Check(None, 0, self.credits, day))
        self.credits = 0

    def on_cancel(self, event: Event) -> None:
        paper = next(one for one in self.papers if one.number == event["number"])
        monday = date.fromisoformat(paper.period)
        order, over = self.orders[monday], self.weeks.get(monday)
        if over is None:
            units, amount = order.paid_units, order.paid_units * order.terms["price"]
            order.quantity, order.paid_units, order.invoice = 0, 0, None
        else:
            units, amount, over.awaited = over.waiting.units, over.waiting.minor, True
        owed = min(amount, paper.open)
        paper.open -= owed
        if paper.open <= 0 and paper.settled is None:
            paper.settled = event["at"]
        self.credits += amount - owed
        self._issue("credit_note", paper.period, event["at"], None, [(units, amount)], asks=False)
        self._release(event["at"])

    def on_handed(self, event: Event) -> None:
        for paper in self.papers:
            paper.handed = paper.handed or paper.number in event["numbers"]

    # the cycle

    def run(self, now: int, *, is_behind: bool = False) -> None:
        """`is_behind`: closing facts wait to be counted, so nothing is billed yet."""
        if not is_behind:
            self._bill(now)
        late = [one for one in self.papers if one.is_open and one.handed and one.held is None and (one.due or 0) <= now]
        for paper in late:
            paper.held = now
        if late:
            self._stop(self.stops | {"unpaid"}, now, "")

    def _bill(self, now: int) -> None:
        monday = self.first
        while instant(monday, MIDNIGHT, self.zone) <= now:
            if instant(monday, MIDNIGHT, self.zone) + HOUR_US <= now:
                self._settle(monday - WEEK, now)
            noon = instant(monday + timedelta(days=1), NOON, self.zone)
            if noon <= now:
                self._tuesday(monday + WEEK, noon, now)
            monday += WEEK
        self._bill_setup(now)
        self._bill_months(now)

    def _settle(self, monday: date, now: int) -> None:
        if self.weeks and monday <= max(self.weeks):
            return
        end = instant(monday + WEEK, MIDNIGHT, self.zone)
        mine = [one for one in self.pool if one.at < end]
        net: Counter[tuple[str, int]] = Counter()
        for one in mine:
            net[one.kind, one.percent] += one.count
        order = self.orders.get(monday, Sold())
        if not any(net.values()) and not order.is_something:
            return
        self.pool = [one for one in self.pool if one.at >= end]
        sent, billed = {"connected": 0, "failed": 0}, {}
        before = dict(self.sums)
        for (kind, percent), count in net.items():
            sent[kind] += count
            self.sums[kind] += percent * count
        for kind, was in before.items():
            billed[kind] = self.sums[kind] // 100 - was // 100
        is_invoiced = order.invoice is not None
        terms = order.terms if is_invoiced else self.week_terms(monday)
        make_up, make_up_units = order.on_top(terms)
        bargain = Bargain(
            counts=terms["counts"],
            price=terms["price"],
            overrun=terms["overrun"],
            ordered=order.quantity if is_invoiced else 0,
            ordered_units=order.paid_units if is_invoiced else 0,
            make_up=make_up,
            make_up_units=make_up_units,
            make_up_minor=order.worth,
            is_paid=order.invoice is None or order.invoice.settled is not None,
        )
        was, week = self.kept, weigh(bargain, sent, billed, self.kept)
        self.kept = week.kept
        paid = bargain.ordered_units * bargain.price + bargain.make_up_minor + was.minor
        earned = paid - self.kept.minor - week.short.minor - week.waiting.minor
        self.revenue += earned + week.over.minor
        figures = {"week": monday.isoformat(), **_figures(bargain, sent, billed, week)}
        number = None
        if week.over.units:
            due = max(instant(monday + timedelta(days=8), CLOSING_TIME, self.zone), self._days_later(now, 1))
            lines = [(week.over.units, week.over.minor)]
            uses_credits = terms["overage_credits"]
            paper = self._issue("overage", monday.isoformat(), now, due, lines, uses_credits=uses_credits)
            paper.figures, number = figures, paper.number
        lines = [(billed["connected"], 0), (billed["failed"], 0)]
        statement = self._issue("week", monday.isoformat(), now, None, lines, asks=False)
        statement.figures = figures | {"price_minor": bargain.price, "overage_invoice": number}
        is_remedied, is_awaited = week.short.is_nothing, week.waiting.is_nothing
        self.weeks[monday] = Over(week.short, week.waiting, week.kept, earned, is_remedied, is_awaited)

    def _tuesday(self, target: date, noon: int, now: int) -> None:
        for monday, over in sorted(self.weeks.items()):
            closes = self._closes(monday)
            if not over.remedied and closes <= noon:
                over.remedied = True
                self._remedy(monday, over.short, target)
            if not over.awaited:
                invoice = self.orders[monday].invoice
                if invoice is not None and invoice.settled is not None and invoice.settled <= noon:
                    over.awaited = True
                    self._remedy(monday, over.waiting, target)
        order = self.orders.get(target)
        if order is None or not order.quantity or order.invoice is not None or target in self.weeks:
            return
        if self.state == "cancelled":
            return
        order.terms = dict(self.week_terms(target))
        order.paid_units = self._paid_units(order)
        make_up, make_up_units = order.on_top(order.terms)
        due = max(instant(target - timedelta(days=4), CLOSING_TIME, self.zone), self._days_later(now, 2))
        lines = [(order.paid_units, order.paid_units * order.terms["price"])]
        lines += [(make_up_units, 0)] if make_up else []
        order.invoice = self._issue("order", target.isoformat(), now, due, lines, uses_credits=True)

    def _paid_units(self, order: Sold) -> int:
        """Units that an order is to pay in advance: without drift, over all that stand invoiced as it counts."""
        if order.terms["counts"] == "billed":
            return order.quantity
        invoiced = [one for one in self.orders.values() if one.invoice is not None and one.terms["counts"] == "sent"]
        hundredths = sum(one.quantity * one.terms["connected_percent"] for one in [*invoiced, order])
        return max(0, hundredths // 100 - sum(one.paid_units for one in invoiced))

    def _remedy(self, monday: date, what: Part, target: date) -> None:
        closes = self._closes(monday)
        before = [(week, choice) for at, week, choice in self.choices if at < closes]
        own = [choice for week, choice in before if week == monday.isoformat()]
        standing = [choice for week, choice in before if week is None]
        choice = (own or standing or ["credit"])[-1]
        if self.state == "cancelled":
            choice = "refund"
        if choice == "make_up":
            order = self.orders.setdefault(target, Sold())
            order.make_up += what.counted
            order.owed += what.counted
            order.owed_units += what.units
            order.worth += what.minor
        elif choice == "credit":
            self.credits += what.minor
        elif what.minor:
            due_on = (target - timedelta(days=5)).isoformat()
            self.checks.append(Check(monday.isoformat(), what.units, what.minor, due_on))

    def _closes(self, monday: date) -> int:
        return instant(monday + timedelta(days=8), NOON, self.zone)

    def _bill_setup(self, now: int) -> None:
        terms = self.terms_at(now)
        if terms["rating"] == "minute" and terms["setup"] and not self.has_setup and self.state == "active":
            self.has_setup = True
            due = self._days_later(now, terms["month_days"])
            paper = self._issue("setup", "", now, due, [(1, terms["setup"])], uses_credits=True)
            self.revenue += paper.total

    def _bill_months(self, now: int) -> None:
        month = self.first.replace(day=1)
        while True:
            following = (month + timedelta(days=32)).replace(day=1)
            end = instant(following, MIDNIGHT, self.zone)
            if end + HOUR_US > now:
                return
            name = month.isoformat()[:7]
            if not self.months or name > max(self.months):
                self._bill_month(name, end, now)
            month = following

    def _bill_month(self, name: str, end: int, now: int) -> None:
        net: Counter[tuple[int, str, int]] = Counter()
        for at, price, count in self.talk:
            if at < end:
                net[price] += count
        terms = self.terms_at(end - 1)
        lines = [(count, count * price) for (price, _, _), count in sorted(net.items()) if count]
        if self.extra_lines and terms["line_price"] and (lines or self.months):
            lines.append((self.extra_lines, self.extra_lines * terms["line_price"]))
        if not lines:
            return
        self.talk = [one for one in self.talk if one[0] >= end]
        total = sum(amount for _, amount in lines)
        self.months[name] = sum(net.values())
        self.revenue += total
        if total < 0:
            lines = [(-units, -amount) for units, amount in lines]
            self._issue("credit_note", name, now, None, lines, asks=False)
            self.credits -= total
            return
        self._issue("month", name, now, self._days_later(now, terms["month_days"]), lines, uses_credits=True)

    # papers

    def _issue(
        self,
        kind: str,
        period: str,
        now: int,
        due: int | None,
        lines: list[tuple[int, int]],
        *,
        uses_credits: bool = False,
        asks: bool = True,
    ) -> Paper:
        total = sum(amount for _, amount in lines)
        applied = min(self.credits, total) if uses_credits else 0
        self.credits -= applied
        place = self._count[kind, period]
        self._count[kind, period] += 1
        number = self._numbers.get((kind, self.name, period, place), f"(no {kind} {self.name} {period} {place})")
        asked = total - applied if asks else 0
        settled = now if asked <= 0 else None
        paper = Paper(kind, period, number, now, due, total, applied, asked, settled, units=lines)
        self.papers.append(paper)
        return paper

    def _papers_for(self, number: str) -> list[Paper]:
        if number:
            return [one for one in self.papers if one.number == number]
        return sorted((one for one in self.papers if one.is_open), key=lambda one: (one.due or 0, one.number))

    def _release(self, at: int) -> None:
        """After a payment or a cancellation: no open invoice holds any more."""
        if not any(one.is_open and one.held is not None for one in self.papers):
            self._stop(self.stops - {"unpaid"}, at, "")

    def _days_later(self, now: int, days: int) -> int:
        return instant(day_of(now, self.zone) + timedelta(days=days), CLOSING_TIME, self.zone)

    # what the accounts must hold

    def balances(self) -> dict[str, int]:
        """By the meaning of each account, debits positive; nothing here adds up moves."""
        to_come = sum(one.paid_units * one.terms["price"] for one in self._unsettled() if one.invoice is not None)
        to_come += sum(one.worth for one in self._unsettled())
        to_come += sum(one.short.minor for one in self.weeks.values() if not one.remedied)
        to_come += sum(one.waiting.minor for one in self.weeks.values() if not one.awaited)
        to_come += self.kept.minor
        found = {
            "receivable": sum(one.open for one in self.papers),
            "prepaid": -to_come,
            "revenue": -self.revenue,
            "allowances": self.allowances,
            "credits": -self.credits,
            "refunds_due": -sum(one.amount for one in self.checks if not one.sent),
            "cash": self.cash,
        }
        return {account: amount for account, amount in found.items() if amount}

    def _unsettled(self) -> list[Sold]:
        return [one for monday, one in self.orders.items() if monday not in self.weeks]

    def units_held(self) -> dict[str, int]:
        """Hundredths of a unit, and increments."""
        waiting = Counter({f"unbilled_{kind}": total % 100 for kind, total in self.sums.items()})
        for one in self.pool:
            waiting[f"unbilled_{one.kind}"] += one.percent * one.count
        billed = sum(total // 100 * 100 for total in self.sums.values())
        found = {**waiting, "billed": billed, "delivered": -billed - sum(waiting.values())}
        return {account: amount for account, amount in found.items() if amount}

    def minutes_held(self) -> dict[str, int]:
        waiting, billed = sum(count for _, _, count in self.talk), sum(self.months.values())
        found = {"unbilled_minutes": waiting, "billed": billed, "delivered": -waiting - billed}
        return {account: amount for account, amount in found.items() if amount}


def _figures(bargain: Bargain, sent: dict[str, int], billed: dict[str, int], week: Weighed) -> dict[str, Any]:
    """A week's result as its statement shows it."""
    parts = {"overage": week.over, "shortfall": week.short, "awaiting": week.waiting}
    return {
        "counts": bargain.counts,
        "counted": week.counted,
        "quantity": bargain.ordered,
        "make_up": bargain.make_up,
        "paid_units": bargain.ordered_units,
        "make_up_units": bargain.make_up_units,
        **{f"sent_{kind}": count for kind, count in sent.items()},
        **{f"billed_{kind}": count for kind, count in billed.items()},
        **{f"{name}_counted": part.counted for name, part in parts.items()},
        **{f"{name}_units": part.units for name, part in parts.items()},
        **{f"{name}_minor": part.minor for name, part in parts.items()},
        "beyond_units": week.beyond,
        "prepaid_used": week.used,
        "prepaid_units": week.kept.units,
        "prepaid_minor": week.kept.minor,
    }
