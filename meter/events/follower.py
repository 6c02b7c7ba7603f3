"""One follower of the journal: it reads what is new, makes events of it, and hands them over until they are taken.

Events are handed over in batches, in the order of each transfer. When `handle` returns, the batch is taken and the
cursor moves, and is written within a second; when it raises, the same batch is handed over again after a pause, for
ever: nothing is left out, and a crash repeats about a second's events, under the same ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from enum import Enum

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import Kind
from meter.events.model import KINDS, Event, Events
from meter.events.sql.streams import Boot, Reader, StreamBatch, begin, cursors, lag, move, read_boots
from meter.store.changes import ChangeWatch
from meter.store.clerk import Clerk
from meter.store.engine import StoreError, first_line
from meter.store.pause import pause
from telemetry import metrics

POLL_MS = 400
LAZY_S = 5.0  # the same for what was passed by
WRITE_S = 1.0  # the cursor is written as often at most: what a crash repeats is about a second
BOOTS_S = 2.0  # a router that has started is seen after this
IDLE_S = 2.0  # between two looks while nothing is of interest
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 5.0

_log = structlog.get_logger()


class BatchResult(Enum):
    """The result of handing over a batch: its cursors are to be written soon, are written, or may wait."""

    SOON = "soon"
    WRITTEN = "written"
    LAZILY = "lazily"  # nothing came of it: to read it again after a crash does no harm


Handle = Callable[[Sequence[Event], dict[Boot, int]], Awaitable[BatchResult]]
Kinds = Callable[[], Awaitable[Collection[Kind]]]


class HandOverError(Exception):
    """The events were not taken; they are handed over again."""


class Stream:
    """The follower called `name`. `handle` gets events and the cursors after them.

    `kinds` says which facts are of interest now; none: they are passed by unread. `ready` returns when handing over is
    worth an attempt.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        name: str,
        handle: Handle,
        *,
        kinds: Kinds | None = None,
        poll_ms: int = POLL_MS,
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self._clerk = Clerk(engine)
        self._watch = ChangeWatch(self._clerk)
        self._handle = handle
        self._kinds = kinds
        self._poll_s = poll_ms / 1000
        self._ready = ready
        self._events = Events()
        self._at: dict[Boot, int] = {}
        self._written: dict[Boot, int] = {}
        self._over: set[Boot] = set()
        self._boots: list[tuple[str, str, bool]] = []
        self._boots_at = -BOOTS_S
        self._looked_by_old = False  # the last look was at the boots known by then, and not at newer ones
        self._written_at = 0.0
        self._dirty = False  # something was handed over that the store does not know of
        self._is_idle = False
        self._stands_by = False  # nothing is handed over; another process may be doing it
        self._begun = False

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until told to stop."""
        retry_s = FIRST_RETRY_S
        try:
            while not stop.is_set():
                pause_s = self._poll_s
                try:
                    if not self._begun:
                        await self.begin()
                        self._watch.forget()
                    if await self._is_ready(stop) and (await self._watch.changed() or self._are_boots_due):
                        await self.catch_up(stop, flush=False)
                    await self._write_cursors(at_once=False)
                    retry_s = FIRST_RETRY_S
                    pause_s = IDLE_S if self._is_idle else self._poll_s
                except HandOverError as error:
                    pause_s, retry_s = self._again(error, retry_s)
                except Exception as error:  # noqa: BLE001 - whoever cannot be told must not stop who bills
                    metrics.ENGINE_FAULTS.labels("stream").inc()
                    pause_s, retry_s = self._again(error, retry_s)
                await pause(stop, pause_s)
        finally:
            with contextlib.suppress(SQLAlchemyError, StoreError):
                await self._write_cursors(at_once=True)
            await self._clerk.close()

    async def _is_ready(self, stop: asyncio.Event) -> bool:
        """Wait until handing over is worth an attempt; False: told to stop first.

        Meanwhile another process may have told what came: where it is by then is read anew.
        """
        if self._ready is None:
            return True
        stopped, ready = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._ready())
        await asyncio.wait((ready,), timeout=0)
        had_to_wait = not ready.done()
        if had_to_wait:
            self._stands_by = True
            await self._write_cursors(at_once=True)
            await asyncio.wait((stopped, ready), return_when=asyncio.FIRST_COMPLETED)
            self._stands_by = False
        for one in (stopped, ready):
            one.cancel()
        if had_to_wait and not stop.is_set():
            await self.begin()
            self._watch.forget()
        return not stop.is_set()

    @property
    def _are_boots_due(self) -> bool:
        """Whether a boot that has come since may have facts that the last look could not see."""
        return self._looked_by_old and time.monotonic() - self._boots_at >= BOOTS_S

    def _again(self, error: Exception, retry_s: float) -> tuple[float, float]:
        """After a failure everything is read again from where the store says that we are."""
        self._watch.forget()
        self._begun = False
        _log.warning("stream: not handed over", stream=self.name, error=first_line(error), retry_s=retry_s)
        return retry_s, min(retry_s * 2, LAST_RETRY_S)

    async def catch_up(self, stop: asyncio.Event | None = None, *, flush: bool = True) -> int:
        """Hand over everything that is new now; how many events. Raises HandOverError and what the store raises.

        `flush`: write the cursors at once.
        """
        if not self._begun:
            await self.begin()
        count, more = 0, True
        while more and not (stop is not None and stop.is_set()):
            kinds = KINDS if self._kinds is None else await self._kinds()
            self._is_idle = not kinds
            among = await self._look_for_boots(fresh=flush)
            look = await self._clerk.read(Reader(kinds, self._at, self._over, self._events.transfers, among=among))
            count += await self._take(look)
            more = look.more and bool(look.ends)
        await self._write_cursors(at_once=flush)
        return count

    async def _look_for_boots(self, *, fresh: bool) -> list[tuple[str, str, bool]]:
        self._looked_by_old = not fresh and time.monotonic() - self._boots_at < BOOTS_S
        if not self._looked_by_old:
            self._boots = await self._clerk.read(read_boots)
            self._boots_at = time.monotonic()
        return self._boots

    async def _write_cursors(self, *, at_once: bool) -> None:
        if self._at == self._written:
            return
        if at_once or time.monotonic() - self._written_at >= (WRITE_S if self._dirty else LAZY_S):
            await self._clerk.write(move, self.name, dict(self._at))
            self._noted()

    def _noted(self) -> None:
        """The store knows where we are."""
        self._written = dict(self._at)
        self._written_at = time.monotonic()
        self._dirty = False

    async def show_lag(self) -> None:
        """Set the gauges of this follower, once it has begun."""
        if not self._begun:
            return
        at = await self._clerk.read(cursors, self.name) if self._stands_by else dict(self._at)
        found = await self._clerk.read(lag, at, frozenset(self._over))
        age_us = 0 if found.oldest_utc_us is None else time.time_ns() // 1000 - found.oldest_utc_us
        metrics.STREAM_LAG_FACTS.labels(self.name).set(found.facts)
        metrics.STREAM_LAG.labels(self.name).set(max(0, age_us) / 1_000_000)

    async def begin(self) -> None:
        """Register, so that what happens from now on is told. Raises what the store raises."""
        await self._write_cursors(at_once=True)  # of before: what was dealt with is not told again
        await self._clerk.write(begin, self.name, time.time_ns() // 1000)
        self._at = await self._clerk.read(cursors, self.name)
        self._noted()
        self._over.clear()
        self._boots_at = -BOOTS_S
        self._events = Events()
        self._begun = True

    async def _take(self, look: StreamBatch) -> int:
        self._events.recall(look.before)
        made = [self._events.fold(fact, look.outcomes.get(fact.transfer)) for fact in look.facts]
        events = [one for one in made if one is not None]
        taken = await self._handle(events, look.ends) if events else BatchResult.LAZILY
        self._at |= look.ends
        self._over |= look.over
        if taken is BatchResult.WRITTEN:
            self._written |= look.ends
        else:
            self._dirty = self._dirty or taken is BatchResult.SOON
        return len(events)
