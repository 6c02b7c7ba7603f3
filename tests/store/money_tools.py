"""Books for the tests of money: buyers with terms, units posted as the follower posts them, and a clock to turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import Buyer, Terms
from book.sections import BookFile
from book.terms import presets
from meter.billing.arithmetic.cycle import Remedy
from meter.billing.cycle import Cycle, CycleOptions, RunReport
from meter.billing.sql import documents, payments
from meter.book.sql.book import BookStore
from meter.ledger.accounts import UNIT, Account, Posting, Rule
from meter.ledger.sql import ledger
from meter.store.clerk import Clerk
from meter.store.money_schema import postings, refunds
from meter.store.schema import outbox

T = TypeVar("T")
NEW_YORK = ZoneInfo("America/New_York")
WESTLAKE = replace(presets()["westlake-fulfillment"], name="contract", unit_price_minor=4_500, order_counts="billed")
SENT = replace(WESTLAKE, order_counts="sent")  # as the preset says


def at(text: str, zone: ZoneInfo = NEW_YORK) -> int:
    """`2026-06-02 12:00`, by the clock of the zone, in microseconds UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * 1_000_000


class Books:
    """A store with the money in it, driven by hand. Instants are texts by New York's clock."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.clerk = Clerk(engine)
        self.cycle = Cycle(engine, CycleOptions())
        self.mailed = True  # before each run, what was queued by then
        self._transfers = 0

    async def close(self) -> None:
        await self.clerk.close()
        await self.cycle.close()

    async def agree(self, *buyers: str, terms: Terms | Sequence[Terms] = WESTLAKE, **fields: Any) -> None:
        """Import buyers on these terms, by default 4,500 cents, 93 %, billed."""
        versions = (terms,) if isinstance(terms, Terms) else tuple(terms)
        fields = {"billing_emails": ("bills@{}.example",), **fields}
        made = []
        for name in buyers:
            own = {**fields, "billing_emails": tuple(one.format(name) for one in fields["billing_emails"])}
            made.append(Buyer(name=name, title=name.title(), terms=versions[-1], **own))
        await BookStore(self.engine).import_book(BookFile(terms=versions, buyers=tuple(made)), replace=True)

    async def order(self, buyer: str, week: str, quantity: int, make_up: int = 0) -> None:
        from book.model import Order
        from meter.book.sql.orders import OrderStore

        await OrderStore(self.engine).set(Order(buyer, week, quantity, make_up), "test")

    async def deliver(
        self, buyer: str, when: str | int, connected: int = 0, failed: int = 0, percent: int = 93
    ) -> list[str]:
        """Post units whose dial-out was then; the transfers' names."""
        dialout = at(when) if isinstance(when, str) else when
        made = []
        for unit, count, share in (("connected", connected, percent), ("failed", failed, 100)):
            for _ in range(count):
                self._transfers += 1
                made.append(unit_posting(f"t-{self._transfers}", buyer, unit, share, dialout))
        for start in range(0, len(made), 500):
            await self.write(lambda connection, start=start: ledger.append(connection, made[start : start + 500]))
        return [str(one.transfer) for one in made]

    async def run(self, when: str) -> RunReport:
        """Run the cycle as of an instant; everything has to go well."""
        if self.mailed:
            await self.hand_over()
        report = await self.cycle.run_once(at(when))
        assert report.trouble == [], report.trouble
        return report

    async def hand_over(self) -> None:
        """The mail server takes the documents that there are by now."""
        pending = update(outbox).where(outbox.c.state == "pending", outbox.c.message_id.like("%.document"))
        await self.write(lambda connection: connection.execute(pending.values(state="done", done_utc_us=1)) and None)

    async def pay(self, buyer: str, amount: int, when: str, reference: str = "", document: str = "") -> Any:
        payment = payments.Payment(
            buyer, reference or f"{buyer}-{when}", amount, "USD", date.fromisoformat(when[:10]), document
        )
        return await self.write(lambda connection: payments.record(connection, payment, "clerk", at(when)))

    async def choose(self, buyer: str, remedy: Remedy, when: str, week: str = "") -> None:
        def work(connection: Connection) -> None:
            from meter.book.sql.contracts import read_contract

            chosen = read_contract(connection, buyer).week_from(week) if week else None
            payments.choose(connection, buyer, remedy, week=chosen, by="buyer", origin="test", now_utc_us=at(when))

        await self.write(work)

    async def documents(self, buyer: str = "", **wanted: Any) -> list[documents.Document]:
        return await self.read(lambda connection: documents.find_all(connection, buyer, **wanted))

    async def body(self, number: str) -> dict[str, Any]:
        return await self.read(lambda connection: documents.body(connection, number))

    async def balances(self, buyer: str, asset: str = "USD") -> dict[str, int]:
        """What each account of money holds, those with nothing left out."""
        found = await self.read(lambda connection: ledger.balances(connection, buyer, asset))
        return {account.value: amount for account, amount in found.items() if amount}

    async def refunds(self) -> list[dict[str, Any]]:
        found = await self.read(lambda connection: connection.execute(select(refunds).order_by(refunds.c.id)).all())
        return [row._asdict() for row in found]

    async def postings(self) -> list[dict[str, Any]]:
        query = select(postings).order_by(postings.c.buyer, postings.c.seq)
        return [row._asdict() for row in await self.read(lambda connection: connection.execute(query).all())]

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self.clerk.read(work)

    async def write(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await self.clerk.write(work, *args, **kwargs)


def unit_posting(transfer: str, buyer: str, unit: str, percent: int, dialout_utc_us: int) -> Posting:
    """One unit, as the follower posts it."""
    return Posting(
        key=f"{transfer}:unit",
        buyer=buyer,
        rule=Rule.UNIT,
        debit=Account(f"unbilled_{unit}"),
        credit=Account.DELIVERED,
        asset=UNIT,
        amount=percent,
        transfer=transfer,
        unit=unit,
        units=1,
        percent=percent,
        terms_name="contract",
        terms_version=1,
        dialout_utc_us=dialout_utc_us,
        posted_utc_us=dialout_utc_us + 60_000_000,
    )
