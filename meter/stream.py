"""One follower of the journal: it reads what is new, makes events of it, and hands them over until they are taken.

Events are handed over in batches, in the order of each transfer. When `handle` returns, the batch is taken and the
cursor moves; when it raises, the same batch is handed over again after a pause, for ever: nothing is left out, and a
crash repeats at most one batch, under the same ids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from enum import Enum
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from meter import metrics
from meter.events import KINDS, Event, Events
from meter.facts import Kind
from meter.pause import pause
from meter.store.changes import ChangeWatch
from meter.store.clerk import Clerk
from meter.store.db import first_line
from meter.store.streams import Boot, Look, Reader, begin, cursors, lag, move

POLL_MS = 200
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 5.0
SKIPPED = 2_000  # facts of no interest after which the cursor is written all the same

_log = structlog.get_logger()


class Taken(Enum):
    """What became of a batch: the cursors are to be written now, were written with it, or may be written later."""

    NOW = "now"
    WRITTEN = "written"
    LAZILY = "lazily"  # nothing came of it: to read it again after a crash does no harm


Handle = Callable[[Sequence[Event], dict[Boot, int]], Awaitable[Taken]]
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
        self._begun = False

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until told to stop."""
        retry_s = FIRST_RETRY_S
        try:
            while not stop.is_set():
                pause_s = self._poll_s
                try:
                    if not self._begun:
                        await self._begin()
                        self._watch.forget()
                    if await self._is_ready(stop) and await self._watch.changed():
                        await self.catch_up(stop)
                    retry_s = FIRST_RETRY_S
                except HandOverError as error:
                    pause_s, retry_s = self._again(error, retry_s)
                except Exception as error:  # noqa: BLE001 - whoever cannot be told must not stop who bills
                    metrics.ENGINE_FAULTS.labels("stream").inc()
                    pause_s, retry_s = self._again(error, retry_s)
                await pause(stop, pause_s)
        finally:
            await self._clerk.close()

    async def _is_ready(self, stop: asyncio.Event) -> bool:
        """Wait until handing over is worth an attempt; False: told to stop first."""
        if self._ready is None:
            return True
        stopped, ready = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._ready())
        await asyncio.wait((stopped, ready), return_when=asyncio.FIRST_COMPLETED)
        for one in (stopped, ready):
            one.cancel()
        return not stop.is_set()

    def _again(self, error: Exception, retry_s: float) -> tuple[float, float]:
        """After a failure everything is read again from where the store says that we are."""
        self._watch.forget()
        self._begun = False
        _log.warning("stream: not handed over", stream=self.name, error=first_line(error), retry_s=retry_s)
        return retry_s, min(retry_s * 2, LAST_RETRY_S)

    async def catch_up(self, stop: asyncio.Event | None = None) -> int:
        """Hand over everything that is new now; how many events. Raises HandOverError and what the store raises."""
        if not self._begun:
            await self._begin()
        count, more = 0, True
        while more and not (stop is not None and stop.is_set()):
            kinds = KINDS if self._kinds is None else await self._kinds()
            reader = Reader(kinds, self._at, self._over, self._events.transfers)
            look = await self._clerk.read(reader)
            count += await self._take(look)
            more = look.more and bool(look.ends)
        return count

    async def show_lag(self) -> None:
        """Set the gauges of this follower, once it has begun."""
        if not self._begun:
            return
        found = await self._clerk.read(partial(lag, dict(self._at), frozenset(self._over)))
        age_us = 0 if found.oldest_utc_us is None else time.time_ns() // 1000 - found.oldest_utc_us
        metrics.STREAM_LAG_FACTS.labels(self.name).set(found.facts)
        metrics.STREAM_LAG.labels(self.name).set(max(0, age_us) / 1_000_000)

    async def _begin(self) -> None:
        await self._clerk.write(partial(begin, self.name, time.time_ns() // 1000))
        self._at = await self._clerk.read(partial(cursors, self.name))
        self._written = dict(self._at)
        self._over.clear()
        self._events = Events()
        self._begun = True

    async def _take(self, look: Look) -> int:
        self._events.recall(look.before)
        made = [self._events.fold(fact, look.outcomes.get(fact.transfer)) for fact in look.facts]
        events = [one for one in made if one is not None]
        taken = await self._handle(events, look.ends) if events else Taken.LAZILY
        written = taken is Taken.WRITTEN
        self._at |= look.ends
        self._over |= look.over
        skipped = sum(seq - self._written.get(boot, 0) for boot, seq in look.ends.items())
        if not written and look.ends and (taken is Taken.NOW or skipped > SKIPPED or look.over):
            await self._clerk.write(partial(move, self.name, look.ends))
            written = True
        if written:
            self._written |= look.ends
        return len(events)
