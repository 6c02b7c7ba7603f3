"""What is up in the router right now, for those who watch: one poll of it is shared by all who look.

The router is asked at most once in `period_s`, and only while somebody looks. A stream gets the view when it begins and
again whenever it changed; a change is anything but the clocks, for a call's age grows by itself. A client that reads
slowly is left out of what lies between: it gets the newest view next. Streams are bounded, of a token and in all; they
end when the portal stops, and after `LONGEST_S`, when their clients come again by themselves (HTML, 9.2.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from portal.http.problems import RouterAwayError
from portal.http.services import Service
from portal.http.stream_limit import OpenStream, StreamLimit

PERIOD_S = 1.0
KEEP_ALIVE_S = 15.0
LONGEST_S = 3_600.0
RETRY_MS = 3_000  # for a client to come again
MAX_SHOWN = 1_000  # transfers the router is asked for: 2.5 ms of its loop (docs/decisions/060)
_CLOCKS = frozenset({"age_ms", "dialout_ms", "phase_ms", "in_ms", "took_ms", "streak", "at"})

_log = structlog.get_logger("portal")
Shown = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Look:
    """What a poll found: the router's answer, or None where it is away. `at_s`: when, in seconds since 1970."""

    view: dict[str, Any] | None
    at_s: float
    told: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)  # to whom -> what it says, and the event

    def for_(self, whom: str, shown: Shown) -> tuple[bytes, bytes]:
        """The view as `whom` may see it, without its clocks, and as an event; made once for each `whom`."""
        if whom not in self.told:
            view = None if self.view is None else shown(self.view)
            essence = orjson.dumps(_without_clocks(view), option=orjson.OPT_SORT_KEYS)
            self.told[whom] = essence, _event(view, self.at_s)
        return self.told[whom]


class LiveService(Service):
    """Looks at the router for all who want to know. `ask` raises RouterAwayError."""

    title = "live view"

    def __init__(
        self,
        ask: Callable[[], Awaitable[dict[str, Any]]],
        *,
        streams: StreamLimit,
        period_s: float = PERIOD_S,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self._ask = ask
        self.streams = streams
        self._period_s = period_s
        self._keep_alive_s = keep_alive_s
        self._watchers = 0
        self._look: Look | None = None
        self._asking = asyncio.Lock()
        self._news = asyncio.Event()  # set, and replaced, at every look
        self._poll: asyncio.Task[None] | None = None

    async def snapshot(self) -> Look:
        """The view, at most `period_s` old. Raises RouterAwayError."""
        look = await self._fresh()
        if look.view is None:
            raise RouterAwayError
        return look

    async def events(self, whom: str, shown: Shown, stream: OpenStream) -> AsyncIterator[bytes]:
        """The stream for one client, which sees `shown` of each view; to be read while it is counted as open.

        `whom`: who else sees the same.
        """
        until, sent, told = time.monotonic() + LONGEST_S, time.monotonic(), b""
        yield format_sse_event(retry=RETRY_MS)
        with self._watching():
            while not stream.ended and time.monotonic() < until:
                self._ensure_poll()
                news, look = self._news, self._look
                if look is not None and time.time() - look.at_s < 2 * self._period_s:  # not one of an hour ago
                    essence, event = look.for_(whom, shown)
                    if essence != told:
                        told, sent = essence, time.monotonic()
                        yield event
                if time.monotonic() - sent >= self._keep_alive_s:
                    sent = time.monotonic()
                    yield KEEPALIVE_COMMENT
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._keep_alive_s):
                        await news.wait()

    def wake(self) -> None:
        """Wake every stream, which then ends if it is to end."""
        self._news.set()
        self._news = asyncio.Event()

    async def close(self) -> None:
        """End every stream."""
        self.streams.close()
        self._news.set()
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.gather(self._poll, return_exceptions=True)

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    def _ensure_poll(self) -> None:
        if self._poll is None or self._poll.done():
            self._poll = asyncio.create_task(self._watch(), name="live view")

    async def _watch(self) -> None:
        while self._watchers and not self.streams.closed:
            started = time.monotonic()
            await self._fresh()
            await asyncio.sleep(max(0.0, self._period_s - (time.monotonic() - started)))

    async def _fresh(self) -> Look:
        async with self._asking:
            if self._look is not None and 0 <= time.time() - self._look.at_s < self._period_s * 0.9:
                return self._look
            try:
                view = await self._ask()
            except RouterAwayError:
                view = None
            before, self._look = self._look, Look(view, time.time())
            if (before is None or before.view is not None) and view is None:
                _log.warning("live_view_lost", streams=self._watchers)
            self._news.set()
            self._news = asyncio.Event()
            return self._look


def _event(view: dict[str, Any] | None, at_s: float) -> bytes:
    """`live` with the view, or `away` while no router answers."""
    if view is None:
        return format_sse_event(event="away", data_str="{}")
    return format_sse_event(event="live", data_str=orjson.dumps(view).decode(), id=str(int(at_s * 1000)))


def _without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clocks(item) for key, item in value.items() if key not in _CLOCKS}
    return [_without_clocks(item) for item in value] if isinstance(value, list) else value
