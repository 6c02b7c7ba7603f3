"""The retained MQTT topics: buyers, their orders of the week, trunks. A payload is published where it changed.

    buyers/{buyer}/state            active, paused, on_hold or cancelled, and since when
    buyers/{buyer}/order            this week's order and how far it has come
    trunks/{router}/{trunk}/state   up, suspect or down, as that router sees it
    journal/heads                   how far all chains had come, and the digest of their ends, on the last day kept

Topics of what is no more are taken away (an empty retained message).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.book.sql.book import BookSnapshot, BookStore
from meter.book.sql.orders import OrderNow, orders_now
from meter.book.sql.stops import buyers_since
from meter.book.sql.trunks import TrunkState, read_trunks
from meter.journal.sql.chain_heads import decoded, newest
from meter.mqtt.sql.topics import MAX_CHANGES, change, encoded, read_topics
from meter.store.changes import ChangeWatch
from meter.store.clerk import Clerk
from meter.store.engine import first_line
from meter.store.pause import pause
from telemetry import metrics

SCHEMA = 1
LOOK_S = 2.0
ORDERS_EVERY = 5  # looks; counting a thousand buyers' orders takes a tenth of a second
RETRY_S = 2.0

_log = structlog.get_logger()


class States:
    """Publishes states until told to stop. `on_change` is called when messages were queued."""

    def __init__(self, engine: AsyncEngine, on_change: Callable[[], None]) -> None:
        self._clerk = Clerk(engine)
        self._book = BookSnapshot(BookStore(engine, reader=self._clerk))
        self._watch = ChangeWatch(self._clerk)
        self._on_change = on_change
        self._stand: dict[str, bytes] | None = None
        self._left = False  # something waits for its topic's last message
        self._orders: Sequence[OrderNow] = ()

    async def run(self, stop: asyncio.Event) -> None:
        """Look every two seconds. A store that fails is tried again for ever."""
        turn = 0
        try:
            while not stop.is_set():
                try:
                    if await self._watch.changed() or self._left or turn % ORDERS_EVERY == 0:
                        await self.look(orders=turn % ORDERS_EVERY == 0)
                    turn += 1
                except Exception as error:  # noqa: BLE001 - whoever cannot be told must not stop who bills
                    metrics.ENGINE_FAULTS.labels("states").inc()
                    _log.error("states: not looked at", error=first_line(error))
                    self._stand = None
                    await pause(stop, RETRY_S)
                await pause(stop, LOOK_S)
        finally:
            await self._clerk.close()

    async def look(self, *, orders: bool = True) -> int:
        """Queue what has changed; how many messages. `orders`: count these too."""
        if self._stand is None:
            self._stand = {one.topic: one.payload for one in await self._clerk.read(read_topics)}
        now_us = time.time_ns() // 1000
        if orders:
            await self._book.refresh()
            self._orders = await self._clerk.read(orders_now, self._book.book, now_us)
        wanted = await self._clerk.read(self._wanted)
        differ = _differences(self._stand, wanted)
        return await self._change(differ, now_us) if differ else self._nothing_left()

    def _nothing_left(self) -> int:
        self._left = False
        return 0

    def _wanted(self, connection: Any) -> dict[str, dict[str, Any]]:
        buyers = [_buyer(name, state, since) for name, (state, since) in buyers_since(connection).items()]
        trunks = [_trunk(one) for one in read_trunks(connection)]
        return dict([*buyers, *trunks, *map(_order, self._orders), *_heads(connection)])

    async def _change(self, differ: Mapping[str, Mapping[str, Any] | None], now_us: int) -> int:
        assert self._stand is not None
        items, count = iter(differ.items()), 0
        while some := dict(islice(items, MAX_CHANGES)):
            for topic in await self._clerk.write(change, some, now_us):
                self._stand[topic.topic] = topic.payload
                count += 1
        self._left = count < len(differ)
        if count:
            self._on_change()
        return count


def _differences(
    stand: Mapping[str, bytes], wanted: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any] | None]:
    found: dict[str, Mapping[str, Any] | None] = {
        topic: said for topic, said in wanted.items() if stand.get(topic) != encoded(said)
    }
    return found | {topic: None for topic, payload in stand.items() if payload and topic not in wanted}


def _said(topic: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return topic, {"schema": SCHEMA, "topic": topic, **fields}


def _buyer(name: str, state: str, since_utc_us: int | None) -> tuple[str, dict[str, Any]]:
    return _said(f"buyers/{name}/state", buyer=name, state=state, since_utc_us=since_utc_us)


def _trunk(trunk: TrunkState) -> tuple[str, dict[str, Any]]:
    fields = {"router": trunk.router, "trunk": trunk.trunk, "state": trunk.state, "since_utc_us": trunk.since_utc_us}
    return _said(f"trunks/{trunk.router}/{trunk.trunk}/state", **fields)


def _heads(connection: Any) -> list[tuple[str, dict[str, Any]]]:
    row = newest(connection)
    if row is None:
        return []
    heads = decoded(row.body)
    told = {"facts": sum(one["seq"] for one in heads["facts"]), "postings": sum(one["seq"] for one in heads["ledger"])}
    return [_said("journal/heads", day=row.day, digest=row.digest, documents=heads["documents"], **told)]


def _order(order: OrderNow) -> tuple[str, dict[str, Any]]:
    return _said(f"buyers/{order.buyer}/order", buyer=order.buyer, week=order.week, **order.units)
