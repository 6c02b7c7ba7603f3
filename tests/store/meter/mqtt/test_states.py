"""Retained states against the store: a message for each topic that differs, and for no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from book.limits import spans_at
from book.model import BuyerState, Order
from meter.book.sql.book import BookStore
from meter.book.sql.orders import OrderStore
from meter.book.sql.stops import set_state
from meter.book.sql.trunks import put_trunks
from meter.journal.sql import chain_heads
from meter.mqtt.sql.topics import MAX_CHANGES
from meter.mqtt.states import States
from meter.store.clerk import Clerk
from meter.store.schema import outbox
from tests.facts_builder import connected_story
from tests.store.broker import problems, schema_of
from tests.store.journal_tools import store
from tests.store.money_tools import Books, at

Told = list[tuple[str, dict[str, Any] | None]]


class Publisher:
    """The states of a store, looked at by hand, and a broker that takes what is queued."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.calls = 0
        self.states = States(engine, self._changed)
        self.clerk = Clerk(engine)
        self._seen = 0

    def _changed(self) -> None:
        self.calls += 1

    async def close(self) -> None:
        await self.states._clerk.close()
        await self.clerk.close()

    async def queued(self) -> Told:
        """What was queued since the last look at it, by topic."""
        query = select(outbox.c.id, outbox.c.payload).where(outbox.c.channel == "mqtt", outbox.c.id > self._seen)
        rows = await self.clerk.read(lambda connection: connection.execute(query.order_by(outbox.c.id)).all())
        self._seen = max([self._seen, *(row.id for row in rows)])
        messages = [orjson.loads(row.payload) for row in rows]
        assert all(message["retain"] for message in messages)
        return sorted(((message["topic"], message["payload"]) for message in messages), key=lambda told: told[0])

    async def look(self, **more: Any) -> Told:
        """One look, what it queued, and all of it delivered."""
        before = self.calls
        count = await self.states.look(**more)
        told = await self.queued()
        assert count == len(told)
        assert self.calls - before == (1 if count else 0)
        await self.deliver()
        return told

    async def deliver(self) -> None:
        done = update(outbox).where(outbox.c.channel == "mqtt").values(state="done", done_utc_us=1)
        await self.clerk.write(lambda connection: connection.execute(done) and None)


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    yield made
    await made.close()


@pytest.fixture
async def publisher(engine: AsyncEngine) -> AsyncIterator[Publisher]:
    made = Publisher(engine)
    yield made
    await made.close()


async def hold(books: Books, buyer: str, state: BuyerState = BuyerState.ON_HOLD) -> None:
    change = {"by": "clerk", "reason": "asked", "now_utc_us": at("2026-06-02 12:00")}
    await books.write(lambda connection: set_state(connection, buyer, state, **change) and None)


async def trunks(books: Books, seen: dict[str, str], now_us: int) -> None:
    await books.write(lambda connection: put_trunks(connection, "r1", seen, now_us) and None)


async def test_each_state_is_told_once_and_again_only_where_it_differs(books: Books, publisher: Publisher) -> None:
    await books.agree("acme", "bolt")
    assert [topic for topic, _ in await publisher.look()] == ["buyers/acme/state", "buyers/bolt/state"]
    assert await publisher.look() == []
    await hold(books, "acme")
    ((topic, payload),) = await publisher.look()
    since_us = at("2026-06-02 12:00")
    assert payload == {
        "schema": 1, "topic": topic, "buyer": "acme", "state": "on_hold", "since_utc_us": since_us
    }  # fmt: skip
    await hold(books, "acme")  # twice: as it was
    assert await publisher.look() == []


async def test_a_publisher_that_starts_again_repeats_nothing(
    engine: AsyncEngine, books: Books, publisher: Publisher
) -> None:
    await books.agree("acme")
    assert len(await publisher.look()) == 1
    again = Publisher(engine)
    try:
        assert await again.states.look() == 0
        assert again.calls == 0
        assert not again.states._left, "what was told by the one before is known"
    finally:
        await again.close()


async def test_a_trunk_that_is_no_more_is_taken_away_and_may_come_back(books: Books, publisher: Publisher) -> None:
    await trunks(books, {"acme/pbx": "up", "carrier/own": "down"}, 1_000)
    told = await publisher.look()
    assert [(topic, (payload or {})["state"]) for topic, payload in told] == [
        ("trunks/r1/acme/pbx/state", "up"),
        ("trunks/r1/carrier/own/state", "down"),
    ]
    await trunks(books, {"carrier/own": "down"}, 2_000)
    assert await publisher.look() == [("trunks/r1/acme/pbx/state", None)]  # and not a word of the other
    assert await publisher.look() == [], "a topic is taken away once"
    assert not publisher.states._left
    await trunks(books, {"carrier/own": "down", "acme/pbx": "suspect"}, 3_000)
    ((topic, payload),) = await publisher.look()
    assert (topic, (payload or {})["state"]) == ("trunks/r1/acme/pbx/state", "suspect")


async def test_while_a_message_waits_its_topic_waits_and_the_newest_state_follows(
    books: Books, publisher: Publisher
) -> None:
    """The broker is away: however often a state changes, one message of its topic waits for it."""
    await books.agree("acme", "bolt")
    assert await publisher.states.look() == 2
    await publisher.queued()
    for state in (BuyerState.PAUSED, BuyerState.ON_HOLD):
        await hold(books, "acme", state)
        assert await publisher.states.look() == 0
        assert publisher.states._left, "it is looked at again though nothing changes"
    assert await publisher.queued() == []
    assert publisher.calls == 1, "nobody is woken for nothing"
    await publisher.deliver()
    ((topic, payload),) = await publisher.look()
    assert (topic, (payload or {})["state"]) == ("buyers/acme/state", "on_hold")
    assert not publisher.states._left
    assert await publisher.look() == []


async def test_more_changes_than_one_transaction_takes_are_all_told(books: Books, publisher: Publisher) -> None:
    count = 2 * MAX_CHANGES + 1
    await trunks(books, {f"acme/t{number:03}": "up" for number in range(count)}, 1_000)
    told = await publisher.look()
    assert [topic for topic, _ in told] == [f"trunks/r1/acme/t{number:03}/state" for number in range(count)]


async def test_the_orders_of_the_week_are_told_with_how_far_they_have_come(
    engine: AsyncEngine, books: Books, publisher: Publisher
) -> None:
    await books.agree("acme", "bolt")
    buyer = (await BookStore(engine).load()).buyers["acme"]
    week = spans_at(buyer, time.time_ns() // 1000).week
    await OrderStore(engine).set(Order("acme", week, 200, 5), "test")
    told = dict(await publisher.look())
    assert "buyers/bolt/order" not in told
    order = told["buyers/acme/order"] or {}
    assert (order["week"], order["buyer"]) == (week, "acme")
    assert problems(order, "order") == []
    await OrderStore(engine).set(Order("acme", week, 300, 5), "test")
    assert await publisher.look(orders=False) == [], "they are counted every few looks alone"
    ((topic, changed),) = await publisher.look()
    assert topic == "buyers/acme/order"
    assert changed != order


async def test_the_newest_days_chain_heads_are_told_and_the_days_before_are_not(
    engine: AsyncEngine, books: Books, publisher: Publisher
) -> None:
    await books.agree("acme")
    await publisher.look()
    written = await store(engine, connected_story())
    await books.deliver("acme", "2026-06-10 10:00", connected=3)
    for day in ("2026-06-11", "2026-06-10"):  # kept late, and older: it is not the newest
        await books.write(lambda connection, day=day: chain_heads.keep(connection, day, at(f"{day} 23:00"), []))
    ((topic, heads),) = await publisher.look()
    kept = await books.read(chain_heads.newest)
    assert topic == "journal/heads"
    assert heads == {
        "schema": 1,
        "topic": topic,
        "day": "2026-06-11",
        "digest": kept.digest,
        "documents": {},
        "facts": len(written),
        "postings": 3,
    }
    assert problems(heads, schema_of(topic)) == []


async def test_a_store_that_fails_is_looked_at_again_from_the_start(
    engine: AsyncEngine, books: Books, publisher: Publisher
) -> None:
    """What stands is read again after a fault: who was told by another process in the meantime is not told twice."""
    await books.agree("acme")
    await publisher.look()
    stop = asyncio.Event()
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE trunk_states RENAME TO elsewhere"))
    running = asyncio.create_task(publisher.states.run(stop))
    async with asyncio.timeout(20):
        while publisher.states._stand is not None:
            await asyncio.sleep(0.02)
    assert not running.done()
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE elsewhere RENAME TO trunk_states"))
    await trunks(books, {"acme/pbx": "up"}, 1_000)
    told: Told = []
    async with asyncio.timeout(20):
        while not told:
            told = await publisher.queued()
            await asyncio.sleep(0.02)
    assert [topic for topic, _ in told] == ["trunks/r1/acme/pbx/state"]
    stop.set()
    async with asyncio.timeout(20):
        await running
