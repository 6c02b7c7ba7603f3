"""Events for those who fetch them: page by page, or as a stream that goes on from a position.

What comes after a position is read without regard to who asks; then each is shown its own. So streams that stand at the
same place share one look, and all of them do once they have caught up. The store is asked whether it changed at most
once in `poll_s`, and only while a stream is open. A request looks at `MAX_LOOKS` times 200 facts of interest at most:
whose own are few among many gets an empty page and a position that has moved.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.exc import SQLAlchemyError

from facts.disclosure import Reader, disclosed
from meter.events.model import Event, EventKind
from meter.events.sql.feed import Batch, Position, TooManyBootsError, position_at, read_batch
from meter.store.changes import ChangeWatch
from meter.store.clerk import Clerk
from meter.store.engine import StoreError
from portal.http.paging import decode, encode
from portal.http.problems import ProblemError
from portal.http.services import Service
from portal.http.stream_limit import OpenStream, StreamLimit
from portal.http.tokens import Scope, Token

LIST = "events"
MAX_POSITION = 21_000  # characters: 100 boots with names of 64 characters, in base64
POLL_S = 0.25
KEEP_ALIVE_S = 15.0
LONGEST_S = 3_600.0
RETRY_MS = 3_000  # for a client to come again
MAX_LOOKS = 10
MAX_KEPT = 32  # looks that are kept for others: 200 events each
AGAIN_S = 1.0  # after the store has failed
_NAMES = 2  # of a boot: its router's and its own
_MAX_SEQ = 1 << 62
_OWN = {Scope.BUYER: "buyer", Scope.DIALER: "dialer"}
_log = structlog.get_logger("portal")


@dataclass(frozen=True, slots=True)
class View:
    """What a token sees of the feed. `kinds`: only these; empty: all."""

    token: Token
    kinds: frozenset[EventKind] = frozenset()

    def sees(self, event: Event) -> bool:
        """Whether the event belongs to the token, and is of a kind that was asked for."""
        own = _OWN.get(self.token.scope)
        return (own is None or event.fields.get(own) == self.token.of) and (not self.kinds or event.kind in self.kinds)

    def shown(self, event: Event) -> dict[str, Any]:
        """The fields of the event without what the token may not see."""
        return disclosed(event.fields, Reader(self.token.scope), event.claim)


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Events as they may be seen, the position after them, and whether there is more already."""

    events: list[dict[str, Any]]
    position: Position
    more: bool


class EventsService(Service):
    """Reads the journal for all who follow it over HTTP; to be used on one loop, and closed."""

    title = "feed of events"

    def __init__(
        self, clerk: Clerk, streams: StreamLimit, *, poll_s: float = POLL_S, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        self._clerk = clerk
        self.streams = streams
        self._poll_s, self._keep_alive_s = poll_s, keep_alive_s
        self._watch = ChangeWatch(clerk)
        self._watchers = 0
        self._looks: dict[Position, asyncio.Task[Batch]] = {}
        self._news = asyncio.Event()  # set, and replaced, whenever the store has changed
        self._poll: asyncio.Task[None] | None = None
        self.reads = 0

    async def begin(self, from_utc_us: int | None) -> Position:
        """The position before the first event from that time on; None: the journal's end. Raises TooManyBootsError."""
        return await self._clerk.read(position_at, from_utc_us)

    async def page(self, position: Position, limit: int, view: View) -> FeedPage:
        """At most `limit` events. Raises UnknownPositionError, TooManyBootsError, and what the store raises."""
        events: list[dict[str, Any]] = []
        more = True
        for _ in range(MAX_LOOKS):
            batch = await self._read(position)
            for entry in batch.events:
                if not view.sees(entry.event):
                    continue
                if len(events) == limit:
                    return FeedPage(events, position, more=True)
                events.append(view.shown(entry.event))
                position = entry.position
            position, more = batch.position, batch.more
            if not more or len(events) == limit:
                break
        return FeedPage(events, position, more)

    async def check(self, position: Position) -> None:
        """Read once from the position. Raises UnknownPositionError, TooManyBootsError, and what the store raises."""
        await self._read(position)

    async def events(self, position: Position, view: View, stream: OpenStream) -> AsyncIterator[bytes]:
        """The stream from the position on, until `stream` is ended or an hour is over."""
        until, sent, told = time.monotonic() + LONGEST_S, time.monotonic(), position
        yield format_sse_event(retry=RETRY_MS, id=write_position(position))
        with self._watching():
            while not stream.ended and time.monotonic() < until:
                self._ensure_poll()
                news = self._news
                batch = await self._shared(position)
                for entry in batch.events if batch is not None else ():
                    if view.sees(entry.event):
                        yield _event(view, entry.event, entry.position)
                        told, sent = entry.position, time.monotonic()
                position = batch.position if batch is not None else position
                if time.monotonic() - sent >= self._keep_alive_s:
                    sent = time.monotonic()
                    yield KEEPALIVE_COMMENT if told == position else format_sse_event(id=write_position(position))
                    told = position
                if batch is None or not batch.more:
                    await self._rest(news, self._keep_alive_s if batch is not None else AGAIN_S)

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
            await asyncio.gather(self._poll, *self._looks.values(), return_exceptions=True)

    async def _read(self, position: Position) -> Batch:
        self.reads += 1
        return await self._clerk.read(read_batch, position)

    async def _shared(self, position: Position) -> Batch | None:
        """The batch after the position, read once for all streams at it; None: the store cannot be read now."""
        if position not in self._looks:
            if len(self._looks) >= MAX_KEPT:
                self._looks.pop(next(iter(self._looks)))
            looking = self._looks[position] = asyncio.create_task(self._read(position), name="event feed")
            looking.add_done_callback(lambda done: done.cancelled() or done.exception())  # its streams may be gone
        looking = self._looks[position]
        try:
            return await asyncio.shield(looking)
        except (SQLAlchemyError, StoreError, TooManyBootsError) as error:
            if self._looks.get(position) is looking:
                del self._looks[position]
                _log.error("event_feed_failed", kind=type(error).__name__, streams=self._watchers)
            return None

    async def _rest(self, news: asyncio.Event, longest_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await news.wait()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    def _ensure_poll(self) -> None:
        if self._poll is None or self._poll.done():
            self._poll = asyncio.create_task(self._keep_polling(), name="event feed poll")

    async def _keep_polling(self) -> None:
        while self._watchers and not self.streams.closed:
            try:
                changed = await self._watch.changed()
            except (SQLAlchemyError, StoreError):  # the streams' own looks tell of it
                changed = True
            if changed:
                self._looks.clear()  # what is being read was begun before
                self._news.set()
                self._news = asyncio.Event()
            await asyncio.sleep(self._poll_s)
        self._looks.clear()


def write_position(position: Position) -> str:
    """The position as text, opaque to who keeps it."""
    return encode([LIST, position.upto, *position.at])


def read_position(text: str, field: str) -> Position | None:
    """The position in a cursor; None for an empty one. Raises ProblemError 422, which names the field."""
    if not text:
        return None
    wrong = ProblemError(422, "the position is none of ours", errors=[(field, "is none of ours")])
    try:
        name, upto, *at = decode(text)
    except (TypeError, ValueError):
        raise wrong from None
    if name != LIST or not (upto is None or _is_boot(upto)) or not all(_is_place(place) for place in at):
        raise wrong
    if len({(router, boot) for router, boot, _ in at}) != len(at):
        raise wrong
    return Position(None if upto is None else (upto[0], upto[1]), tuple((place[0], place[1], place[2]) for place in at))


def _is_boot(value: Any) -> bool:
    is_pair = isinstance(value, list) and len(value) == _NAMES
    return is_pair and all(isinstance(name, str) and "\0" not in name for name in value)


def _is_place(value: Any) -> bool:
    if not isinstance(value, list) or not value or not _is_boot(value[:-1]):
        return False
    return type(value[-1]) is int and 0 <= value[-1] < _MAX_SEQ


def _event(view: View, event: Event, position: Position) -> bytes:
    data = orjson.dumps(view.shown(event)).decode()
    return format_sse_event(event=event.kind.value, data_str=data, id=write_position(position))
