"""The snapshot of counts: what it sees, that it never counts twice, and that it reads little."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from book.hours import DAY_US
from book.limits import Usage, spans_at
from book.model import Book, Buyer, Caps, Order, Terms
from meter.journal.sql import usage as usage_module
from meter.journal.sql.usage import MARGIN_US, UsageSnapshot
from meter.store.clerk import Clerk
from meter.store.schema import admissions
from tests.facts_builder import UTC_0

HOUR_US = 3_600_000_000
CAPPED = Buyer("capped", "Capped", Terms("t"), caps=Caps(day=100))
ORDERED = Buyer("ordered", "Ordered", Terms("t"), time_zone="Asia/Kathmandu")
FREE = Buyer("free", "Free", Terms("t"))
ORDERS = {"ordered": (Order("ordered", "2026-06-01", 10),)}
BOOK = Book(1, {one.name: one for one in (CAPPED, ORDERED, FREE)}, {}, ORDERS)


class Place:
    """A snapshot, the table under it, and the clock of both."""

    def __init__(self, engine: AsyncEngine, clerk: Clerk) -> None:
        self.engine = engine
        self.clerk = clerk
        self.now = UTC_0
        self.book = BOOK
        self.count = 0
        self.snapshot = self.fresh()

    def fresh(self) -> UsageSnapshot:
        return UsageSnapshot(self.clerk, lambda: self.book, "r1", lambda: self.now)

    async def admit(self, buyer: str = "capped", at: int | None = None, router: str = "r1", **more: Any) -> str:
        self.count += 1
        row = {"transfer": f"t-{self.count}", "router": router, "boot": "b", "buyer": buyer, "phone": ""}
        row |= {"admitted_utc_us": self.now if at is None else at, "state": "live"}
        async with self.engine.begin() as connection:
            await connection.execute(insert(admissions).values(**(row | more)))
        return row["transfer"]

    async def end(self, transfer: str, state: str) -> None:
        this = update(admissions).where(admissions.c.transfer == transfer)
        async with self.engine.begin() as connection:
            await connection.execute(this.values(state=state, settled_utc_us=self.now))

    async def add(self, state: str, buyer: str = "capped", at: int | None = None) -> None:
        await self.end(await self.admit(buyer, at), state)

    async def seen(self, buyer: str = "capped") -> Usage:
        await self.snapshot.refresh()
        return self.snapshot.usage(buyer)


@pytest.fixture
async def place(engine: AsyncEngine) -> AsyncIterator[Place]:
    clerk = Clerk(engine)
    yield Place(engine, clerk)
    await clerk.close()


async def test_before_the_first_look_and_for_who_is_not_counted_it_is_empty(place: Place) -> None:
    await place.admit("free")
    assert place.snapshot.usage("capped") == Usage()
    assert await place.seen("free") == Usage()
    assert await place.seen("nobody") == Usage()


async def test_what_a_buyer_has_had(place: Place) -> None:
    for at in (UTC_0, UTC_0 - HOUR_US, UTC_0 - 20 * HOUR_US, UTC_0 - 2 * DAY_US, UTC_0 - 40 * DAY_US):
        await place.add("connected", at=at)
    await place.add("failed")
    await place.add("free")
    await place.admit()
    await place.admit(router="r2")
    spans = spans_at(CAPPED, UTC_0)  # Tuesday 2 June, 10:00 in New York
    expected = Usage(spans, 4, 5, 6, 8, week_connected=3, week_failed=1, week_live=2, live=2, elsewhere=1)
    assert await place.seen() == expected


async def test_hours_are_those_of_the_buyer_and_weeks_those_of_the_terms(place: Place) -> None:
    await place.add("connected", "ordered", UTC_0 - 20 * 60_000_000)  # 19:25 there, and now it is 19:45
    await place.add("connected", "ordered", UTC_0 - 50 * 60_000_000)
    await place.add("connected", "ordered", UTC_0 - 33 * HOUR_US)  # Monday 01:00 in New York
    await place.add("connected", "ordered", UTC_0 - 35 * HOUR_US)  # Sunday 23:00 there, Monday 08:45 in Kathmandu
    found = await place.seen("ordered")
    assert (found.hour, found.day, found.month, found.week_connected) == (1, 2, 4, 3)


async def test_an_end_moves_a_unit_or_frees_it(place: Place) -> None:
    first, second = await place.admit(), await place.admit()
    assert (await place.seen()).live == 2
    await place.end(first, "connected")
    await place.end(second, "free")
    found = await place.seen()
    assert (found.live, found.week_live, found.week_connected, found.day) == (0, 0, 1, 1)


async def test_it_says_whether_anything_moved(place: Place) -> None:
    transfer = await place.admit()
    moved = [await place.snapshot.refresh(), await place.snapshot.refresh()]
    await place.end(transfer, "failed")
    moved += [await place.snapshot.refresh(), await place.snapshot.refresh()]
    assert moved == [True, False, True, False]


async def test_an_hour_that_is_over_is_over_without_a_change_in_the_store(place: Place) -> None:
    await place.add("connected")
    assert (await place.seen()).hour == 1
    place.now += HOUR_US
    found = await place.seen()
    assert (found.hour, found.day) == (0, 1)


async def test_where_nobody_is_counted_the_store_is_not_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.book = Book(2, {"free": FREE})
    monkeypatch.setattr(usage_module, "_usage_rows", None)
    assert await place.snapshot.refresh() is False


async def test_a_buyer_that_is_given_a_limit_is_counted_from_then_on(place: Place) -> None:
    await place.add("connected", "free")
    assert (await place.seen("free")).total == 0
    place.book = replace(BOOK, version=2, buyers={**BOOK.buyers, "free": replace(FREE, duplicate_days=1)})
    assert (await place.seen("free")).total == 1


async def test_however_often_one_looks_nothing_is_counted_twice(place: Place) -> None:
    """Random traffic over hours, with looks in between: the snapshot is what one statement over all rows says."""
    dice = random.Random(7)
    live: list[str] = []
    for step in range(150):
        place.now += dice.randrange(0, MARGIN_US)
        live += [
            await place.admit(dice.choice(("capped", "ordered")), router=dice.choice(("r1", "r2")))
            for _ in range(dice.randrange(4))
        ]
        dice.shuffle(live)
        for _ in range(min(len(live), dice.randrange(4))):
            await place.end(live.pop(), dice.choice(("connected", "failed", "free")))
        if step % 3 == 0:
            await place.snapshot.refresh()
    await place.snapshot.refresh()
    again = place.fresh()
    await again.refresh()
    for name in ("capped", "ordered"):
        assert place.snapshot.usage(name) == again.usage(name)
        async with place.engine.connect() as connection:
            rows = select(func.count()).where(admissions.c.buyer == name, admissions.c.state != "free")
            assert place.snapshot.usage(name).total == (await connection.execute(rows)).scalar_one()
    assert place.snapshot._until > UTC_0
    assert place.snapshot._before


async def test_a_look_reads_only_what_was_settled_lately(place: Place) -> None:
    for _ in range(5):
        await place.add("connected")
    place.now += 3 * MARGIN_US
    await place.add("connected")
    await place.snapshot.refresh()
    look = await place.clerk.read(lambda connection: usage_module._usage_rows(connection, place.snapshot._until))
    assert (look.older, sum(count for groups in look.newer.values() for _, _, count in groups)) == ({}, 1)
    assert (await place.seen()).total == 6
