"""A year of contracts, played on the real store by a random hand: what happens is logged for the checker.

One seed is one year. Buyers differ in terms, zone, currency, price and habits; half of them count as sent, and terms
change all of that but the currency in mid-week. People order early, late and in the running week, pay in time, late, in
part, too much and for the wrong invoice; payments bounce, also after what they paid for was remedied; operators give
presents, hold, pause, resume and cancel on top of the cycle's own holds; outcomes arrive late and are taken back.

The cycle runs at irregular instants, by hand at any moment, on the very boundaries of the calendar and while facts wait
to be counted; it is away for up to three weeks, and sometimes runs twice at once. Everything between two runs is one
transaction, for a year has to pass in a minute.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import Buyer, BuyerState, Order, Rating, Terms
from book.sections import BookFile
from book.terms import in_force, presets
from facts.fact import EndCause, Kind, Party
from meter.billing.arithmetic.cycle import Remedy
from meter.billing.arithmetic.drafts import Issuer
from meter.billing.cycle import Cycle
from meter.billing.sql import documents, payments
from meter.billing.sql.documents import BillingRun
from meter.book.sql import orders
from meter.book.sql.book import import_file, set_state
from meter.book.sql.contracts import read_contract
from meter.credits.rules import CreditError, load_reasons
from meter.credits.sql import requests as desk
from meter.ledger.accounts import INCREMENT, Account, Posting, Rule
from meter.ledger.sql import ledger
from meter.settling.follower import Follower, SettleOptions
from meter.store.clerk import Clerk
from meter.store.money_schema import payments as payments_table
from meter.store.money_schema import refunds
from meter.store.schema import orders as orders_table
from meter.store.schema import outbox
from tests.facts_builder import UTC_0, Story
from tests.facts_builder import WESTLAKE as TOLD
from tests.sim.books.model import Event
from tests.store.journal_tools import store
from tests.store.money_tools import unit_posting

FIRST = date(2026, 2, 2)  # a Monday; both changes of New York's clock are within a year of it
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
NEW_YORK = ZoneInfo("America/New_York")
START_US = int(datetime(2026, 2, 2, 8, tzinfo=UTC).timestamp()) * 1_000_000
LONG_WEEKS = 26
REASONS = load_reasons()
REMEDIES = (Remedy.REFUND, Remedy.CREDIT, Remedy.MAKE_UP)
Action = Callable[[Connection, int], None]


@dataclass(frozen=True)
class Size:
    """How much happens."""

    buyers: int = 50
    weeks: int = 53
    units: int = 24  # of a buyer and week, on average


@dataclass
class Deal:
    """One buyer and its habits."""

    name: str
    versions: list[Terms]
    orders: float  # chance that it orders in a week
    late: float  # that it does so late
    pays: float  # that it pays at all in a week
    odd: float  # that it pays oddly
    facts: bool = False  # its transfers are real facts, decided by the verdict table
    makes_up: bool = False
    fails: float = 0.15  # chance that a transfer is a failed one
    tops_up: bool = False  # gets what is left of its order at the end of the week
    extra_lines: int = 0
    recent: list[tuple[str, int]] = field(default_factory=list)  # transfers and their dial-out
    spent: set[str] = field(default_factory=set)  # transfers with a credit or a reversal

    def terms_at(self, at_us: int) -> Terms:
        found = in_force(self.versions, datetime.fromtimestamp(at_us // 1_000_000, UTC))
        assert found is not None
        return found


class Year:
    """One seed, played."""

    def __init__(self, engine: AsyncEngine, seed: int, size: Size, *, runs_for_weeks: int | None = None) -> None:
        self.log: list[Event] = []
        self.runs = 0
        self._engine = engine
        self._size = size
        self._runs_until = None if runs_for_weeks is None else START_US + runs_for_weeks * 7 * DAY_US
        self._dice = random.Random(seed)
        self._servers = random.Random(f"servers {seed}")
        self._clerk = Clerk(engine)
        self._cycles = [Cycle(engine), Cycle(engine)]
        self._follower = Follower(engine, SettleOptions())
        self._deals = [self._deal(number) for number in range(size.buyers)]
        self._numbers = {deal.name: number for number, deal in enumerate(self._deals)}
        self._transfers = self._references = self._boots = 0
        self._stories: list[tuple[Story, Event, int]] = []

    async def play(self) -> list[Event]:
        """The whole year; returns the log. With `runs_for_weeks` the cycle is away after these, also at the end."""
        try:
            await self._clerk.write(self._agree)
            end = self.end_us
            actions = sorted(self._plan(end), key=lambda one: one[0])
            place = 0
            for now in self._instants(end):
                last = place
                while place < len(actions) and actions[place][0] < now:
                    place += 1
                if place > last:
                    await self._clerk.write(lambda c, last=last, place=place: self._act(c, actions[last:place]))
                await self._tell_facts(now)
                if self._may_run(now):
                    await self._run(now)
        finally:
            await self._clerk.close()
            await self._follower.close()
            for cycle in self._cycles:
                await cycle.close()
        return self.log

    @property
    def end_us(self) -> int:
        return START_US + self._size.weeks * 7 * DAY_US

    def _may_run(self, now: int) -> bool:
        return self._runs_until is None or now <= self._runs_until

    async def _run(self, now: int, *, is_behind: bool = False) -> None:
        """`is_behind`: closing facts wait to be counted."""
        self._note("run", now, behind=is_behind)
        self.runs += 1
        cycles = self._cycles if self._dice.random() < 0.1 else self._cycles[:1]
        for report in await asyncio.gather(*(one.run_once(now) for one in cycles)):
            assert report.trouble == [], report.trouble
            assert report.waits is is_behind
        numbers = await self._clerk.write(self._hand_over)
        for deal in self._deals:
            self._note("handed", now, buyer=deal.name, numbers=numbers.get(deal.name, []))

    def _hand_over(self, connection: Connection) -> dict[str, list[str]]:
        """Nine of ten mail servers take what is for them; the others do another time."""
        query = select(outbox.c.id, outbox.c.payload).where(
            outbox.c.state == "pending", outbox.c.message_id.like("%.document")
        )
        taken: dict[str, list[str]] = {}
        for row in connection.execute(query.order_by(outbox.c.id)).all():
            number = orjson.loads(row.payload)["number"]
            buyer = documents.find(connection, number).buyer
            if self._servers.random() < 0.9:
                connection.execute(update(outbox).where(outbox.c.id == row.id).values(state="done", done_utc_us=1))
                taken.setdefault(buyer, []).append(number)
        return taken

    def _note(self, what: str, at: int, **more: Any) -> None:
        self.log.append({"what": what, "at": at, **more})

    # who they are

    def _deal(self, number: int) -> Deal:
        dice = self._dice
        zone = {1: "Europe/London", 2: "Australia/Sydney"}.get(number, "America/New_York")
        preset = "westlake-origination" if number % 3 == 1 else "westlake-fulfillment"
        name = f"buyer-{number:03d}"
        terms = replace(
            presets()[preset],
            name=f"terms-{number:03d}",
            effective_from="2026-01-01",
            time_zone=zone,
            currency=_currency(number),
            order_counts="billed" if number % 2 else "sent",
            overage_uses_credits=number % 4 != 3,
            overrun_percent=(0, 10, 25)[number % 3],
            unit_price_minor=0 if number == 4 else dice.choice((4_500, 3_999, 101, 12_345)),
        )
        if number % 10 == 9:
            terms = replace(presets()["customer-success"], name=terms.name, effective_from="2026-01-01")
            terms = replace(terms, extra_line_price_minor=2_500, currency=_currency(number))
        orders_often = 0.0 if number % 8 == 7 else dice.choice((0.6, 0.9, 1.0))
        deal = Deal(name, [terms], orders_often, dice.choice((0.0, 0.1, 0.4)), 0.9, dice.choice((0.0, 0.1, 0.4)))
        deal.facts = number in (5, 6, 13)
        deal.makes_up = number % 5 == 0
        deal.fails = {0: 0.0, 1: 0.0, 4: 0.5}.get(number % 8, 0.15)  # without any, a week on target leaves units over
        deal.tops_up = number % 4 in (0, 1)
        deal.extra_lines = 2 if number == 9 else 0
        return deal

    def _agree(self, connection: Connection) -> None:
        for deal in self._deals:
            self._tell_terms(deal.versions[0], START_US)
            self._note("buyer", START_US, buyer=deal.name, name=deal.versions[0].name, extra_lines=deal.extra_lines)
        buyers = tuple(
            Buyer(
                name=one.name,
                title=one.name,
                terms=one.versions[0],
                billing_emails=(f"bills@{one.name}.example",),
                extra_lines=one.extra_lines,
            )
            for one in self._deals
        )
        file = BookFile(terms=tuple(one.versions[0] for one in self._deals), buyers=buyers)
        import_file(connection, file, _utc(START_US), True, False)

    def _tell_terms(self, terms: Terms, at: int) -> None:
        self._note(
            "terms",
            at,
            name=terms.name,
            version=terms.version,
            **{"from": terms.effective_from},
            zone=terms.time_zone,
            currency=terms.currency,
            rating=terms.rating.value,
            price=terms.unit_price_minor,
            connected_percent=terms.connected_percent,
            failed_percent=terms.failed_percent,
            counts=terms.order_counts,
            overrun=terms.overrun_percent,
            overage_credits=terms.overage_uses_credits,
            setup=terms.setup_fee_minor,
            month_days=terms.month_due_days,
            line_price=terms.extra_line_price_minor,
        )

    # when things happen

    def _instants(self, end: int) -> list[int]:
        """Of the runs: two to four in a week, some weeks none; and by hand at any moment, also on a boundary.

        In a long year the first is late enough for a month to be over: what was set up is then caught up with as well.
        """
        dice, found, at = self._dice, [], START_US + (33 * DAY_US if self._size.weeks > LONG_WEEKS else HOUR_US)
        while at < end:
            found.append(at)
            if dice.random() < 0.2:
                found.append(at + dice.randrange(DAY_US))
            away = 21 * DAY_US if dice.random() < 0.015 else 0
            at += away + dice.randrange(DAY_US, 4 * DAY_US)
        for _ in range(self._size.weeks // 4):
            monday = datetime.combine(FIRST, time.min, NEW_YORK) + timedelta(weeks=dice.randrange(1, self._size.weeks))
            days, clock = dice.choice(((0, 0), (0, 1), (1, 12), (1, 17), (2, 17), (3, 17)))
            moment = monday + timedelta(days=days, hours=clock)  # by the clock of the wall
            found.append(int(moment.timestamp()) * 1_000_000 + dice.choice((-1, 0, 0, 1)))
        return [*sorted(at for at in found if found[0] <= at < end), end]

    def _plan(self, end: int) -> list[tuple[int, Action]]:
        plan: list[tuple[int, Action]] = []
        for deal in self._deals:
            for week in range(self._size.weeks):
                start = START_US + week * 7 * DAY_US
                plan += [(start + self._dice.randrange(7 * DAY_US), one) for one in self._week(deal)]
                if deal.tops_up and not deal.facts and deal.versions[0].rating is Rating.UNIT:
                    plan.append((start + self._dice.randrange(5 * DAY_US, 6 * DAY_US), self._top_up(deal)))
            changes = self._size.weeks // 3 if deal.makes_up else self._dice.choice((0, 0, 1, 3))
            plan += [(self._at(end), self._change_terms(deal)) for _ in range(changes)]
            if deal.makes_up:  # at prices that change: what is made up for has been paid for at several of them
                plan.append((START_US + DAY_US, self._choose(deal, Remedy.MAKE_UP)))
        return [(at, one) for at, one in plan if at < end]

    def _at(self, end: int) -> int:
        return self._dice.randrange(START_US + DAY_US, end)

    def _week(self, deal: Deal) -> list[Action]:
        dice = self._dice
        if deal.versions[0].rating is Rating.MINUTE:
            wanted: list[tuple[float, Action]] = [(0.8, self._talk(deal)), (0.5, self._talk(deal))]
        else:
            often = 0.2 if deal.tops_up else 0.8
            wanted = [(often, self._deliver(deal)), (often, self._deliver(deal)), (0.3, self._deliver(deal))]
            wanted += [(deal.orders, self._order(deal)), (0.2, self._order(deal)), (0.1, self._credit(deal))]
            wanted += [(0.3, self._choose(deal)), (0.04, self._cancel(deal))]
        wanted += [(deal.pays, self._pay(deal)), (0.5, self._pay(deal)), (0.05, self._bounce(deal))]
        wanted += [(0.08, self._take_back(deal)), (0.15, self._send_check(deal)), (0.02, self._pay_out(deal))]
        wanted += [(0.07, self._set_state(deal)), (0.07, self._resume(deal)), (0.0015, self._leave(deal))]
        return [one for chance, one in wanted if dice.random() < chance]

    def _act(self, connection: Connection, actions: list[tuple[int, Action]]) -> None:
        for at, action in actions:
            action(connection, at)

    # what happens

    def _change_terms(self, deal: Deal) -> Action:
        def act(connection: Connection, at: int) -> None:
            last = deal.versions[-1]
            day = _utc(at).date() + timedelta(days=self._dice.randrange(2, 12))
            if day.isoformat() <= last.effective_from:
                return
            changed = replace(
                last,
                version=last.version + 1,
                effective_from=day.isoformat(),
                unit_price_minor=last.unit_price_minor and self._dice.choice((4_507, 4_750, 99, 10_001)),
                connected_percent=last.connected_percent and self._dice.choice((93, 88, 90, 77)),
                overrun_percent=self._dice.choice((0, 10, 25)),
                minute_price_minor=last.minute_price_minor and self._dice.choice((118, 99, 130)),
                order_counts=self._dice.choice(("sent", "billed")),
                overage_uses_credits=self._dice.random() < 0.7,
            )
            deal.versions.append(changed)
            self._tell_terms(changed, at)
            import_file(connection, BookFile(terms=(changed,)), _utc(at), True, False)

        return act

    def _deliver(self, deal: Deal) -> Action:
        def act(connection: Connection, at: int) -> None:
            made = []
            for _ in range(self._dice.randrange(self._size.units)):
                back = self._dice.randrange(2 * DAY_US)
                if self._dice.random() < 0.03:
                    back += self._dice.randrange(16 * DAY_US)  # an outcome that comes late
                made += self._unit(deal, at, max(START_US, at - back))
            ledger.append(connection, made)

        return act

    def _top_up(self, deal: Deal) -> Action:
        """As many as the order of the week is short of, counted as sent, so that weeks end on target or nearly so."""

        def act(connection: Connection, at: int) -> None:
            day = datetime.fromtimestamp(at // 1_000_000, ZoneInfo(deal.versions[0].time_zone)).date()
            monday = day - timedelta(days=day.weekday())
            of_week = (orders_table.c.buyer == deal.name, orders_table.c.week == monday.isoformat())
            order = connection.execute(select(orders_table).where(*of_week)).one_or_none()
            if order is None:
                return
            start = read_contract(connection, deal.name).week_from(order.week).start_us
            sent = sum(dialout >= start for _, dialout in deal.recent)
            made = []
            for _ in range(order.quantity + order.make_up - sent - self._dice.choice((0, 0, 0, 1, 2))):
                made += self._unit(deal, at, at)
            ledger.append(connection, made)

        return act

    def _unit(self, deal: Deal, at: int, dialout: int) -> list[Posting]:
        """A transfer that counts: its posting, or none where its facts are to be told."""
        kind = "failed" if self._dice.random() < deal.fails else "connected"
        terms = deal.terms_at(dialout)
        percent = terms.connected_percent if kind == "connected" else terms.failed_percent
        event = self._transfer(deal, dialout, kind=kind, percent=percent)
        if deal.facts:
            self._stories.append((self._story(deal, event, terms), event, at))
            return []
        self._note("unit", at, **event)
        return [unit_posting(event["transfer"], deal.name, kind, percent, dialout)]

    def _transfer(self, deal: Deal, dialout: int, **more: Any) -> Event:
        self._transfers += 1
        transfer = f"t-{self._transfers}"
        if not deal.facts:
            deal.recent.append((transfer, dialout))
        return {"transfer": transfer, "buyer": deal.name, "dialout": dialout, **more}

    def _story(self, deal: Deal, event: Event, terms: Terms) -> Story:
        told = TOLD | {"name": terms.name, "version": terms.version, "connected_percent": terms.connected_percent}
        name = event["transfer"]
        first = 1 + sum(len(story.facts) for story, _, _ in self._stories)  # of a boot's own
        story = (
            Story(name, first_seq=first).start(legs=1, buyer=deal.name, lead_emails=[], terms=told).dial(1).ring(1, 1.0)
        )
        if event["kind"] == "connected":
            story.answer(1, 4.0).bridge(1, 4.1).add(Kind.TALK_REACHED_15S, 19.0).hang_up(44.0, Party.CALLER)
        elif self._dice.random() < 0.3:
            event["kind"] = "free"
            story.decline(1, 3.0).end(3.0, Party.ROUTER, EndCause.LEGS_FAILED)
        else:
            story.cancelled(1, 30.0).end(30.0, Party.ROUTER, EndCause.RING_TIMEOUT)
        story.facts = [replace(fact, utc_us=fact.utc_us - UTC_0 + event["dialout"]) for fact in story.facts]
        return story.close()

    async def _tell_facts(self, now: int) -> None:
        """Real facts into the journal, and the follower over them: the verdict table is in the loop."""
        if not self._stories:
            return
        self._boots += 1
        await store(self._engine, *(story for story, _, _ in self._stories), boot=f"boot-{self._boots}")
        waits = any(story.facts[-1].utc_us < now - HOUR_US for story, _, _ in self._stories)
        if waits and self._may_run(now) and self._dice.random() < 0.2:
            await self._run(now, is_behind=True)
        assert await self._follower.catch_up() == len(self._stories)
        for _, event, at in self._stories:
            if event["kind"] != "free":
                self._note("unit", at, **event)
                self._deals[self._numbers[event["buyer"]]].recent.append((event["transfer"], event["dialout"]))
        self._stories.clear()

    def _talk(self, deal: Deal) -> Action:
        def act(connection: Connection, at: int) -> None:
            made = []
            for _ in range(self._dice.randrange(12)):
                dialout = max(START_US, at - self._dice.randrange(20 * DAY_US if self._dice.random() < 0.1 else DAY_US))
                terms, count = deal.terms_at(dialout), self._dice.randrange(1, 30)
                price = terms.minute_price_minor
                event = self._transfer(deal, dialout, count=count, price=price, terms=terms.name, version=terms.version)
                self._note("minutes", at, **event)
                made.append(_minutes(event))
            ledger.append(connection, made)

        return act

    def _order(self, deal: Deal) -> Action:
        def act(connection: Connection, at: int) -> None:
            ahead = 0 if self._dice.random() < deal.late else self._dice.choice((7, 7, 7, 14, 21))
            day = _utc(at).date() + timedelta(days=ahead)
            week = (day - timedelta(days=day.weekday())).isoformat()
            quantity, make_up = self._dice.choice((0, 1, 10, 20, 25, 30, 40, 60)), None
            if self._dice.random() < 0.1:  # a present, or one taken back
                of_week = (orders_table.c.buyer == deal.name, orders_table.c.week == week)
                there = connection.execute(select(orders_table.c.make_up).where(*of_week)).scalar() or 0
                make_up = max(0, there + self._dice.randrange(-3, 6))
            try:
                orders._set(connection, Order(deal.name, week, quantity, make_up or 0), at, make_up is None)
            except orders.OrderError:
                return
            self._note("order", at, buyer=deal.name, week=week, quantity=quantity, make_up=make_up)

        return act

    def _pay(self, deal: Deal) -> Action:
        def act(connection: Connection, at: int) -> None:
            is_open = documents.find_all(connection, deal.name, open_only=True)
            asked = sum(one.open_minor for one in is_open)
            if not asked:
                return
            is_odd = self._dice.random() < deal.odd
            amount, number = asked, ""
            if self._dice.random() < 0.5:
                amount, number = is_open[0].open_minor, is_open[0].number
            if is_odd:
                amount = max(1, amount * self._dice.randrange(30, 180) // 100)
                if self._dice.random() < 0.3:  # for the wrong invoice
                    made = [one for one in documents.find_all(connection, deal.name) if one.due_utc_us is not None]
                    number = self._dice.choice(made).number
            self._references += 1
            reference = f"check:{self._references}"
            paid = payments.Payment(deal.name, reference, amount, deal.versions[0].currency, _utc(at).date(), number)
            payments.record(connection, paid, "clerk", at)
            self._note("payment", at, buyer=deal.name, reference=reference, amount=amount, document=number)

        return act

    def _bounce(self, deal: Deal) -> Action:
        def act(connection: Connection, at: int) -> None:
            mine = payments_table.c
            query = select(mine.reference).where(mine.buyer == deal.name, mine.reversed_utc_us.is_(None))
            made = list(connection.execute(query.order_by(mine.id.desc()).limit(self._dice.choice((2, 8)))).scalars())
            if not made:
                return
            reference = self._dice.choice(made)
            payments.reverse(connection, deal.name, reference, reason="bounced", by="clerk", now_utc_us=at)
            self._note("bounce", at, buyer=deal.name, reference=reference)
            if self._dice.random() < 0.5:  # someone is at the checks just then
                self._send_check(deal)(connection, at)

        return act

    def _choose(self, deal: Deal, standing: Remedy | None = None) -> Action:
        def act(connection: Connection, at: int) -> None:
            contract, week = read_contract(connection, deal.name), None
            if standing is None and (deal.makes_up or self._dice.random() < 0.7):
                week = contract.week_at(at - self._dice.choice((0, 7, 7)) * DAY_US)
            choice = standing or self._dice.choice(REMEDIES)
            try:
                payments.choose(connection, deal.name, choice, week=week, by="buyer", origin="sim", now_utc_us=at)
            except payments.PaymentError:
                return
            self._note("remedy", at, buyer=deal.name, week=str(week) if week else None, choice=choice.value)

        return act

    def _credit(self, deal: Deal) -> Action:
        def act(connection: Connection, at: int) -> None:
            fresh = [one for one, dialout in deal.recent[-60:] if dialout > at - 4 * DAY_US and one not in deal.spent]
            if not fresh:
                return
            transfer = self._dice.choice(fresh)
            deal.spent.add(transfer)
            asked = desk.CreditApplication("had her in May", "crm", "sim", "duplicate")
            try:
                request = desk.ask(connection, (transfer, deal.name), asked, REASONS, at)
            except CreditError:
                return
            approve = self._dice.random() < 0.8
            desk.decide(connection, request.id, desk.Decision(approve, "as the log says", "Ann"), at + 1)
            if approve:
                self._note("credit", at + 1, buyer=deal.name, transfer=transfer)

        return act

    def _take_back(self, deal: Deal) -> Action:
        def act(connection: Connection, at: int) -> None:
            one = self._dice.choice(deal.recent[-200:]) if deal.recent else None
            if one is None or one[0] in deal.spent:
                return
            deal.spent.add(one[0])
            rule = "minutes" if deal.versions[0].rating is Rating.MINUTE else "unit"
            ledger.reverse_transfer(connection, f"{one[0]}:{rule}", reason="wrong lead", by="clerk", now_utc_us=at)
            self._note("take_back", at, buyer=deal.name, transfer=one[0])

        return act

    def _cancel(self, deal: Deal) -> Action:
        def act(connection: Connection, at: int) -> None:
            made = documents.find_all(connection, deal.name, kind="order")[-4:]
            if not made:
                return
            number = self._dice.choice(made).number
            try:
                payments.cancel(connection, number, reason="wrong", by="clerk", run=BillingRun(Issuer(), at))
            except payments.PaymentError:
                return
            self._note("cancel", at, buyer=deal.name, number=number)

        return act

    def _send_check(self, deal: Deal) -> Action:
        """What is on the worklist; and what is not, and then has to be refused."""

        def act(connection: Connection, at: int) -> None:
            query = select(refunds).where(refunds.c.buyer == deal.name).order_by(refunds.c.id)
            places = {row.id: place for place, row in enumerate(connection.execute(query))}
            due = [row.id for row in payments.refunds_due(connection) if row.buyer == deal.name]
            self._note("worklist", at, buyer=deal.name, due=[places[one] for one in due])
            if not places:
                return
            check = due[0] if due and self._dice.random() < 0.8 else self._dice.choice(list(places))
            try:
                payments.pay_refund(connection, check, reference=f"check {check}", by="clerk", now_utc_us=at)
            except payments.PaymentError:
                assert check not in due
                return
            self._note("check", at, buyer=deal.name, index=places[check])

        return act

    def _pay_out(self, deal: Deal) -> Action:
        def act(connection: Connection, at: int) -> None:
            try:
                payments.pay_out(connection, deal.name, by="clerk", now_utc_us=at, reason="asked for")
            except payments.PaymentError:
                return
            self._note("pay_out", at, buyer=deal.name)

        return act

    def _set_state(self, deal: Deal) -> Action:
        return self._to(deal, (BuyerState.PAUSED, BuyerState.ON_HOLD))

    def _resume(self, deal: Deal) -> Action:
        return self._to(deal, (BuyerState.ACTIVE,))

    def _leave(self, deal: Deal) -> Action:
        return self._to(deal, (BuyerState.CANCELLED,))

    def _to(self, deal: Deal, states: tuple[BuyerState, ...]) -> Action:
        def act(connection: Connection, at: int) -> None:
            state = self._dice.choice(states)
            set_state(connection, deal.name, state, by="ops", reason="by hand", now_utc_us=at)
            self._note("state", at, buyer=deal.name, state=state.value, by="ops")

        return act


def _minutes(event: Event) -> Posting:
    return Posting(
        key=f"{event['transfer']}:minutes",
        buyer=event["buyer"],
        rule=Rule.MINUTES,
        debit=Account.UNBILLED_MINUTES,
        credit=Account.DELIVERED,
        asset=INCREMENT,
        amount=event["count"],
        transfer=event["transfer"],
        unit="call",
        units=event["count"],
        price_minor=event["price"],
        terms_name=event["terms"],
        terms_version=event["version"],
        dialout_utc_us=event["dialout"],
    )


def _currency(number: int) -> str:
    return {2: "EUR", 5: "JPY"}.get(number % 7, "USD")


def _utc(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC)
