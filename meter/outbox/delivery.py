"""Delivers the outbox: one loop per channel, at least once, in the order of each key.

A message that fails is tried again after 5 s, then twice as long each time up to 15 minutes, with jitter so that a
server that comes back is not hit by all at once. It is given up when it has failed for five days, or at once where the
other side says that it will never take it; then it is `dead`: counted, logged, kept, and revived by hand. Only attempts
count: while a channel is not ready (no broker), its messages wait untried.

A crash between delivery and its record sends the message again, under the same message id.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.outbox.sql import DEAD, DONE, PENDING, WAITING, Forget, Message, Result, due_or_next, prune, record
from meter.store.clerk import Clerk
from meter.store.engine import StoreError, first_line
from meter.store.lease import Lease
from meter.store.pause import pause
from telemetry import metrics

FIRST_RETRY_S = 5.0
LAST_RETRY_S = 15 * 60.0
GIVE_UP_DAYS = 5  # RFC 5321 section 4.5.4.1: at least four to five days
KEEP_DONE_DAYS = 7
POLL_S = 1.0  # for messages that another process queued; those of this one wake the loop
PRUNE_EVERY_S = 60.0
MAX_ROWS = 50  # in one write transaction
STORE_RETRY_S = 2.0
STANDBY_S = 1.0  # while another process delivers the channel

_DAY_US = 24 * 3600 * 1_000_000

_log = structlog.get_logger()


class DeliveryError(Exception):
    """The message was not delivered; it is tried again, at `retry_at_utc_us` where that is said."""

    retry_at_utc_us: int | None = None


class NeverDeliverableError(DeliveryError):
    """The other side will never take this message, or it cannot be made: it is dead at once."""


class LaterError(Exception):
    """The message was not tried, since the other side is known to be away; it is due again at `at_utc_us`."""

    def __init__(self, at_utc_us: int, why: str) -> None:
        super().__init__(why)
        self.at_utc_us = at_utc_us


class NobodyError(Exception):
    """There is nobody to deliver to, until there is what the message `waits_for` (meter.mail.sql.recipients)."""

    def __init__(self, waits_for: str, why: str) -> None:
        super().__init__(why)
        self.waits_for = waits_for


class Deliverer(Protocol):
    """One channel's way out."""

    channel: str
    parallel: int  # messages in flight at once, of different keys

    async def ready(self) -> None:
        """Return when an attempt is worth making; for ever where the other side stays away."""

    async def deliver(self, message: Message) -> None:
        """Return when the other side has taken the message. Raises DeliveryError; LaterError, NobodyError untried."""


@runtime_checkable
class LanedDeliverer(Protocol):
    """A deliverer whose messages go several ways, which do not wait for each other."""

    lane_limit: int  # messages in flight at once in one lane

    def lane(self, message: Message) -> str:
        """Which way a message goes: the beginning of its key."""


@dataclass(frozen=True, slots=True)
class OutboxOptions:
    """Timing of delivery and pruning, in seconds and days."""

    first_retry_s: float = FIRST_RETRY_S
    last_retry_s: float = LAST_RETRY_S
    give_up_days: float = GIVE_UP_DAYS
    keep_done_days: float = KEEP_DONE_DAYS
    poll_s: float = POLL_S


def retry_delay_s(attempts: int, options: OutboxOptions, jitter: float) -> float:
    """The pause after the `attempts`-th failure (from 1); `jitter` in 0..1 takes off up to half of it."""
    doubled: float = options.first_retry_s * 2.0 ** min(attempts - 1, 30)
    return min(doubled, options.last_retry_s) * (1 - jitter / 2)


class OutboxLoop:
    """Delivers one channel until told to stop. `wake` says that something new may be due."""

    def __init__(self, engine: AsyncEngine, deliverer: Deliverer, options: OutboxOptions | None = None) -> None:
        self._clerk = Clerk(engine)
        self._lease = Lease(self._clerk, f"outbox:{deliverer.channel}")
        self._deliverer = deliverer
        self._lanes = deliverer if isinstance(deliverer, LanedDeliverer) else None
        self._options = options or OutboxOptions()
        self._wake = asyncio.Event()
        self._flying: dict[asyncio.Future[Result], tuple[int, str]] = {}  # -> message, lane
        self._next_due: int | None = None  # when the next message is, where none was due; microseconds UTC

    def wake(self) -> None:
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver what is due, for ever. A store that fails is tried again every two seconds."""
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                ready = asyncio.ensure_future(self._deliverer.ready())
                await asyncio.wait((stopped, ready), return_when=asyncio.FIRST_COMPLETED)
                if not ready.done():
                    ready.cancel()
                    break
                await self._turn(stopped)
        finally:
            stopped.cancel()
            with contextlib.suppress(SQLAlchemyError, StoreError):
                if self._flying:
                    await asyncio.wait(self._flying)
                    await self._land()
                await self._lease.give_back()
            await self._clerk.close()

    async def deliver_due(self) -> int:
        """One round: everything due now, up to the channel's parallelism; how many attempts were made."""
        await self._take_off()
        count = len(self._flying)
        if self._flying:
            await asyncio.wait(self._flying)
            await self._land()
        return count

    async def _take_off(self) -> None:
        """Begin to deliver what is due, as far as there is room: in all, and in each lane."""
        lanes = Counter(lane for _, lane in self._flying.values())
        bound = self._lanes.lane_limit if self._lanes is not None else 0
        full = [lane for lane, count in lanes.items() if bound and count >= bound]
        room = min(self._deliverer.parallel - len(self._flying), MAX_ROWS)
        if room <= 0:
            return
        under_way = {one for one, _ in self._flying.values()}
        messages, self._next_due = await self._clerk.read(
            due_or_next, self._deliverer.channel, _now(), room + len(under_way), without=full
        )
        for message in messages:
            lane = self._lanes.lane(message) if self._lanes is not None else ""
            if message.id in under_way or len(self._flying) >= self._deliverer.parallel:
                continue
            if bound and lanes[lane] >= bound:
                continue
            lanes[lane] += 1
            self._flying[asyncio.ensure_future(self._attempt(message))] = (message.id, lane)

    async def _land(self) -> None:
        """Record those attempts that have ended."""
        ended = [one for one in self._flying if one.done()]
        if ended:
            await self._clerk.write(record, [one.result() for one in ended], _now())
            for one in ended:
                del self._flying[one]

    async def _turn(self, stopped: asyncio.Future[Any]) -> None:
        self._wake.clear()
        pause_s = self._options.poll_s
        try:
            await self._land()
            if not await self._lease.held():  # one process at a time delivers a channel
                pause_s = STANDBY_S
            else:
                await self._take_off()
                pause_s = self._options.poll_s if self._flying else self._pause_s()
        except (SQLAlchemyError, StoreError) as error:
            metrics.ENGINE_FAULTS.labels("outbox").inc()
            _log.error("outbox: the store failed", channel=self._deliverer.channel, error=first_line(error))
            pause_s = STORE_RETRY_S
        woken = asyncio.ensure_future(self._wake.wait())
        await asyncio.wait((stopped, woken, *self._flying), timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
        woken.cancel()

    def _pause_s(self) -> float:
        when = self._next_due
        if when is None:
            return self._options.poll_s
        return min(max((when - _now()) / 1_000_000, 0.0), self._options.poll_s)

    async def _attempt(self, message: Message) -> Result:
        try:
            await self._deliverer.deliver(message)
        except LaterError as later:
            return Result(message.id, PENDING, later.at_utc_us, str(later), tried=False)
        except NobodyError as nobody:
            _log.error("message waits for an address", message_id=message.message_id, waits_for=nobody.waits_for)
            return Result(message.id, WAITING, _now(), str(nobody), tried=False, waits_for=nobody.waits_for)
        except DeliveryError as error:
            return self._failed(message, error)
        except Exception as error:  # noqa: BLE001 - a message that breaks its deliverer must not stop the others
            metrics.ENGINE_FAULTS.labels("outbox").inc()
            return self._failed(message, error)
        return Result(message.id, DONE, message.created_utc_us)

    def _failed(self, message: Message, error: Exception) -> Result:
        now = _now()
        # One that was never tried, because there was no mail server for a week, gets more than one try.
        too_old = message.attempts > 0 and now - message.created_utc_us >= self._options.give_up_days * _DAY_US
        said = f"{type(error).__name__}: {error}"
        if too_old or isinstance(error, NeverDeliverableError):
            metrics.OUTBOX_DEAD.labels(message.channel).inc()
            _log.error("message given up", channel=message.channel, message_id=message.message_id, error=said)
            return Result(message.id, DEAD, now, said)
        pause_s = retry_delay_s(message.attempts + 1, self._options, random.random())  # noqa: S311 - jitter
        at = error.retry_at_utc_us if isinstance(error, DeliveryError) else None
        if at is not None:
            pause_s = max(0.0, (at - now) / 1_000_000)
        _log.warning(
            "message not delivered", channel=message.channel, message_id=message.message_id, error=said, retry_s=pause_s
        )
        return Result(message.id, PENDING, now + int(pause_s * 1_000_000), said)


async def prune_for_ever(
    engine: AsyncEngine, options: OutboxOptions, stop: asyncio.Event, also: Sequence[Forget] = ()
) -> None:
    """Keep the outbox small: once a minute, remove what was done long ago, in small transactions.

    `also`: what other rooms keep for as long; each is called with the time (microseconds UTC) and a number of rows.
    """
    clerk = Clerk(engine)
    while not stop.is_set():
        before = _now() - int(options.keep_done_days * _DAY_US)
        with contextlib.suppress(SQLAlchemyError, StoreError):  # the next minute will do
            while not stop.is_set() and await clerk.write(prune, before, MAX_ROWS) == MAX_ROWS:
                continue
            for forget in also:
                await clerk.write(forget, before, MAX_ROWS)
        await pause(stop, PRUNE_EVERY_S)
    await clerk.close()


def _now() -> int:
    return time.time_ns() // 1000
