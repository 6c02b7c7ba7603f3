"""The gauges that the meter reads from the store every few seconds; `counting` counts each settled transfer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Collection, Sequence

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing.sql.due import money_gauges
from meter.book.sql.book import BookSnapshot, BookStore
from meter.book.sql.orders import OrderNow, orders_now
from meter.credits.rules import show_credits
from meter.credits.sql.reading import ages
from meter.events.follower import Stream
from meter.mail.sql.messages import bounce_counts
from meter.outbox.sql import Depth, depths
from meter.settling.sql.gauges import Money, money_now, newest_posting, settle_lag
from meter.store.clerk import Clerk
from meter.store.engine import checkpoint, first_line
from meter.store.pause import pause
from telemetry import metrics

GAUGES_EVERY_S = 5.0
SLOW_EVERY = 6  # orders and money are looked at every sixth time
BOUNCES_US = 7 * 24 * 3600 * 1_000_000  # for how long a bounce stands in its gauge
STATES = {"paused": 0, "on_hold": 1, "active": 2}

_log = structlog.get_logger()


class Watch:
    """Sets the gauges that are read from the store. `channels`: the outbox's, shown as zero where nothing waits."""

    def __init__(self, engine: AsyncEngine, channels: Collection[str], streams: Sequence[Stream] = ()) -> None:
        self._engine = engine
        self._book = BookSnapshot(BookStore(engine))
        self._streams = streams
        self._channels = channels
        self._states: set[str] = set()
        self._orders: set[str] = set()
        self._currencies: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Look every five seconds, until told to stop."""
        clerk = Clerk(self._engine)
        turn = 0
        while not stop.is_set():
            metrics.show_process("meter")
            try:
                await self.look(clerk, slow=turn % SLOW_EVERY == 0)
                await checkpoint(self._engine)
            except Exception as error:  # noqa: BLE001 - who only looks must not stop who bills
                metrics.ENGINE_FAULTS.labels("gauges").inc()
                _log.error("gauges: the store failed", error=first_line(error))
            turn += 1
            await pause(stop, GAUGES_EVERY_S)
        await clerk.close()

    async def look(self, clerk: Clerk, *, slow: bool) -> None:
        """Set them now; `slow`: those too that cost more to read."""
        now_us = time.time_ns() // 1000
        show_depths(await clerk.read(depths), self._channels)
        show_money(*await clerk.read(money_gauges, now_us))
        show_credits(await clerk.read(ages, now_utc_us=now_us, since_utc_us=now_us), now_us)
        show_bounces(*await clerk.read(bounce_counts, now_us - BOUNCES_US))
        for stream in self._streams:
            await stream.show_lag()
        oldest = await clerk.read(settle_lag)
        metrics.SETTLE_LAG.set(0 if oldest is None else max(0, now_us - oldest) / 1_000_000)
        if slow:
            await self._look_slowly(clerk, now_us)

    async def _look_slowly(self, clerk: Clerk, now_us: int) -> None:
        newest = await clerk.read(newest_posting)
        if newest is not None:
            metrics.LEDGER_NEWEST.set(newest / 1_000_000)
        await self._book.refresh()
        book = self._book.book
        orders = await clerk.read(orders_now, book, now_us)
        self._show_buyers({name: buyer.state.value for name, buyer in book.buyers.items()}, orders)
        self._show_unpaid(await clerk.read(money_now))

    def _show_buyers(self, states: dict[str, str], orders: Sequence[OrderNow]) -> None:
        metrics.BUYERS.keep(states)
        shown = {metrics.BUYERS.of(name): state for name, state in states.items()}
        for label, state in shown.items():
            metrics.BUYER_STATE.labels(label).set(STATES.get(state, math.nan) if label != metrics.OTHER else math.nan)
        for gone in self._states - shown.keys():
            metrics.BUYER_STATE.labels(gone).set(math.nan)
        self._states = set(shown)
        current: set[str] = set()
        for one in orders:
            label = metrics.BUYERS.of(one.buyer)
            if label == metrics.OTHER:
                continue
            current.add(label)
            for kind, units in one.units.items():
                metrics.ORDER_UNITS.labels(label, kind).set(units)
        for gone in self._orders - current:
            for kind in OrderNow.KINDS:
                metrics.ORDER_UNITS.labels(gone, kind).set(math.nan)
        self._orders = current

    def _show_unpaid(self, money: Money) -> None:
        metrics.INVOICES_UNPAID.set(money.unpaid)
        for currency in self._currencies | money.unpaid_minor.keys():
            metrics.INVOICES_UNPAID_AMOUNT.labels(currency).set(money.unpaid_minor.get(currency, 0))
        self._currencies |= money.unpaid_minor.keys()


def show_money(overdue: int, refunds: int) -> None:
    """Set the gauges of the operator's worklists."""
    metrics.INVOICES_OVERDUE.set(overdue)
    metrics.REFUNDS_DUE.set(refunds)


def show_depths(depths: list[Depth], channels: Collection[str]) -> None:
    """Set the outbox's gauges; a channel with nothing in it shows zero."""
    now_us = time.time_ns() // 1000
    waiting = {depth.channel: depth for depth in depths}
    for channel in channels:
        depth = waiting.get(channel, Depth(channel, 0, None, 0))
        age_us = 0 if depth.oldest_utc_us is None else now_us - depth.oldest_utc_us
        metrics.OUTBOX_DEPTH.labels(channel).set(depth.pending)
        metrics.OUTBOX_OLDEST.labels(channel).set(max(0.0, age_us / 1_000_000))


def show_bounces(permanent: int, transient: int) -> None:
    """Set the gauges of bounces."""
    metrics.MAIL_BOUNCES.labels("yes").set(permanent)
    metrics.MAIL_BOUNCES.labels("no").set(transient)
