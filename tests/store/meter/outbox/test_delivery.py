"""The outbox: at least once, in the order of each key, with limits on every retry."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.outbox.delivery import (
    DeliveryError,
    NeverDeliverableError,
    OutboxLoop,
    OutboxOptions,
    prune_for_ever,
    retry_delay_s,
)
from meter.outbox.sql import Message, depths
from meter.settling.watch import show_depths
from meter.store.clerk import Clerk
from meter.store.schema import outbox

DAY_US = 24 * 3600 * 1_000_000


def now() -> int:
    return time.time_ns() // 1000


class Sink:
    """A deliverer that notes what it took, and fails as told."""

    channel = "mail"

    def __init__(self, *failures: Exception, parallel: int = 10) -> None:
        self.parallel = parallel
        self.failures = list(failures)
        self.taken: list[str] = []
        self.tried: list[str] = []
        self.is_ready = asyncio.Event()
        self.is_ready.set()
        self.in_flight = self.most_in_flight = 0
        self.took = asyncio.Event()

    async def ready(self) -> None:
        await self.is_ready.wait()

    async def deliver(self, message: Message) -> None:
        self.tried.append(message.message_id)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(message.message_id)
        self.took.set()


async def queue(engine: AsyncEngine, *messages: tuple[str, str], channel: str = "mail", **over: Any) -> None:
    row = {"channel": channel, "payload": b"{}", "state": "pending", "created_utc_us": now(), "next_try_utc_us": now()}
    async with engine.begin() as connection:
        rows = [row | {"key": key, "message_id": message_id} | over for key, message_id in messages]
        await connection.execute(insert(outbox), rows)


async def states(engine: AsyncEngine) -> dict[str, tuple[str, int]]:
    async with engine.connect() as connection:
        found = await connection.execute(select(outbox.c.message_id, outbox.c.state, outbox.c.attempts))
        return {row.message_id: (row.state, row.attempts) for row in found}


async def hurry(engine: AsyncEngine) -> None:
    """As if every pause had passed."""
    async with engine.begin() as connection:
        await connection.execute(update(outbox).values(next_try_utc_us=0))


async def test_what_is_delivered_is_done_and_not_sent_again(engine: AsyncEngine) -> None:
    await queue(engine, ("a", "1"), ("b", "2"))
    sink = Sink()
    loop = OutboxLoop(engine, sink)
    assert await loop.deliver_due() == 2
    assert await loop.deliver_due() == 0
    assert sorted(sink.taken) == ["1", "2"]
    assert await states(engine) == {"1": ("done", 1), "2": ("done", 1)}


async def test_order_is_kept_per_key_and_one_is_in_flight(engine: AsyncEngine) -> None:
    await queue(engine, ("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"))
    sink = Sink()
    loop = OutboxLoop(engine, sink)
    rounds = []
    while await loop.deliver_due():
        rounds.append(sorted(sink.taken))
        sink.taken.clear()
    assert rounds == [["a1", "b1"], ["a2"], ["a3"]]


async def test_a_failed_head_holds_its_key_back_and_no_other(engine: AsyncEngine) -> None:
    await queue(engine, ("a", "a1"))
    sink = Sink(DeliveryError("mail server away"))
    loop = OutboxLoop(engine, sink)
    await loop.deliver_due()
    await queue(engine, ("a", "a2"), ("b", "b1"))
    while await loop.deliver_due():
        pass
    assert sink.taken == ["b1"]
    await hurry(engine)
    while await loop.deliver_due():
        pass
    assert sink.taken == ["b1", "a1", "a2"]
    assert (await states(engine))["a1"] == ("done", 2)


async def test_no_more_than_the_channels_parallelism_is_in_flight(engine: AsyncEngine) -> None:
    await queue(engine, *((f"k{number}", str(number)) for number in range(10)))
    sink = Sink(parallel=3)
    loop = OutboxLoop(engine, sink)
    while await loop.deliver_due():
        pass
    assert (len(sink.taken), sink.most_in_flight) == (10, 3)


async def test_a_message_that_can_never_be_delivered_is_dead_at_once(engine: AsyncEngine) -> None:
    await queue(engine, ("a", "1"))
    await OutboxLoop(engine, Sink(NeverDeliverableError("550 no such user"))).deliver_due()
    assert await states(engine) == {"1": ("dead", 1)}


async def test_after_five_days_a_message_is_given_up_but_never_untried(engine: AsyncEngine) -> None:
    await queue(engine, ("a", "old"), created_utc_us=now() - 6 * DAY_US)
    await queue(engine, ("b", "older"), created_utc_us=now() - 60 * DAY_US)
    sink = Sink(DeliveryError("away"))
    loop = OutboxLoop(engine, sink)
    await loop.deliver_due()
    assert await states(engine) == {"old": ("pending", 1), "older": ("done", 1)}  # its first try: there was no server
    await hurry(engine)
    sink.failures.append(DeliveryError("away"))
    await loop.deliver_due()
    assert (await states(engine))["old"] == ("dead", 2)


async def test_a_dead_message_no_longer_holds_its_key_back(engine: AsyncEngine) -> None:
    await queue(engine, ("a", "a1"), ("a", "a2"))
    sink = Sink(NeverDeliverableError("never"))
    loop = OutboxLoop(engine, sink)
    while await loop.deliver_due():
        pass
    assert sink.taken == ["a2"]


async def test_a_deliverer_that_breaks_stops_no_other_message(engine: AsyncEngine) -> None:
    await queue(engine, ("a", "1"), ("b", "2"))
    sink = Sink(ZeroDivisionError("bug"))
    await OutboxLoop(engine, sink).deliver_due()
    assert sorted(state for state, _ in (await states(engine)).values()) == ["done", "pending"]


async def test_a_crash_before_the_record_sends_again_under_the_same_id(engine: AsyncEngine) -> None:
    await queue(engine, ("a", "1"))
    sink = Sink()
    async with engine.begin() as connection:
        await connection.exec_driver_sql(
            "CREATE TRIGGER crash BEFORE UPDATE ON outbox BEGIN SELECT RAISE(ABORT, 'crash'); END"
        )
    with pytest.raises(Exception, match="crash"):
        await OutboxLoop(engine, sink).deliver_due()
    async with engine.begin() as connection:
        await connection.exec_driver_sql("DROP TRIGGER crash")
    await OutboxLoop(engine, sink).deliver_due()
    assert sink.taken == ["1", "1"]


async def test_while_the_channel_is_not_ready_nothing_is_tried(engine: AsyncEngine) -> None:
    await queue(engine, ("a", "1"))
    sink, stop = Sink(), asyncio.Event()
    sink.is_ready.clear()
    task = asyncio.create_task(OutboxLoop(engine, sink).run(stop))
    await asyncio.sleep(0.05)
    assert (sink.tried, await states(engine)) == ([], {"1": ("pending", 0)})
    sink.is_ready.set()
    async with asyncio.timeout(5):
        await sink.took.wait()
    stop.set()
    await task


async def test_a_message_queued_later_is_delivered_at_once_when_woken(engine: AsyncEngine) -> None:
    sink, stop = Sink(), asyncio.Event()
    loop = OutboxLoop(engine, sink, OutboxOptions(poll_s=60))
    task = asyncio.create_task(loop.run(stop))
    await asyncio.sleep(0.05)
    await queue(engine, ("a", "1"))
    loop.wake()
    async with asyncio.timeout(5):
        await sink.took.wait()
    stop.set()
    await task


async def test_stopping_does_not_wait_for_a_channel_that_never_gets_ready(engine: AsyncEngine) -> None:
    sink, stop = Sink(), asyncio.Event()
    sink.is_ready.clear()
    task = asyncio.create_task(OutboxLoop(engine, sink).run(stop))
    await asyncio.sleep(0.01)
    stop.set()
    async with asyncio.timeout(5):
        await task


async def test_done_messages_are_removed_after_a_week_dead_ones_stay(engine: AsyncEngine) -> None:
    long_ago = now() - 8 * DAY_US
    await queue(engine, *(("k", f"done-{number}") for number in range(120)), state="done", done_utc_us=long_ago)
    await queue(engine, ("k", "dead"), state="dead", done_utc_us=long_ago)
    await queue(engine, ("k", "fresh"), state="done", done_utc_us=now())
    stop = asyncio.Event()
    task = asyncio.create_task(prune_for_ever(engine, OutboxOptions(), stop))
    async with asyncio.timeout(5):
        while len(await states(engine)) > 2:
            await asyncio.sleep(0.01)
    stop.set()
    await task
    assert sorted(await states(engine)) == ["dead", "fresh"]


async def test_depth_and_age_are_those_of_what_waits(engine: AsyncEngine) -> None:
    await queue(engine, ("a", "1"), ("b", "2"), created_utc_us=now() - 10_000_000)
    await queue(engine, ("c", "3"), state="dead")
    clerk = Clerk(engine)
    found = await clerk.read(depths)
    await clerk.close()
    assert [(one.channel, one.pending, one.dead) for one in found] == [("mail", 2, 1)]
    show_depths(found, ("mail", "mqtt"))


@pytest.mark.parametrize(
    ("attempts", "jitter", "seconds"),
    [(1, 0.0, 5.0), (2, 0.0, 10.0), (3, 0.0, 20.0), (8, 0.0, 640.0), (9, 0.0, 900.0), (900, 0.0, 900.0), (1, 1.0, 2.5)],
)
def test_the_pause_doubles_up_to_a_quarter_of_an_hour(attempts: int, jitter: float, seconds: float) -> None:
    assert retry_delay_s(attempts, OutboxOptions(), jitter) == seconds
