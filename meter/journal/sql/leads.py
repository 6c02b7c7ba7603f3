"""Leads that a dialer posts before it sends the call, and that the router fetches by their id.

A lead is kept until it expires: it is somebody's address and telephone number, and a call that has not come within
hours will not come. Posting is idempotent by key, one dialer's keys apart from another's: the same key with the same
document gives the lead that is there, with another document it is a `LeadConflictError`. A key is forgotten with its
lead.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from meter.store.clerk import Clerk
from meter.store.schema import leads

FETCH_S = 0.5  # a caller is waiting; then the call is refused, to be tried again
MAX_FETCHES = 500  # under way at once; more calls than that in half a second are no calls
PURGE_ROWS = 50  # in one transaction: a router's commit waits for no more than that
_ID_BYTES = 16  # 128 random bits: an id cannot be guessed

_log = structlog.get_logger("router")


class LeadConflictError(Exception):
    """The key was used before, for another lead."""


@dataclass(frozen=True, slots=True)
class StoredLead:
    """A lead in the store. `document`: a JSON object. Times in microseconds UTC."""

    lead_id: str
    dialer: str
    document: bytes
    created_utc_us: int
    expires_utc_us: int


def _now_us() -> int:
    return time.time_ns() // 1000


class LeadStore:
    """Puts, gets and purges leads. `clock`: UTC in microseconds. Raises what the store raises."""

    def __init__(self, clerk: Clerk, clock: Callable[[], int] = _now_us) -> None:
        self._clerk = clerk
        self._clock = clock

    async def put(self, document: bytes, dialer: str, *, ttl_s: int, key: str = "") -> tuple[StoredLead, bool]:
        """Keep the lead for `ttl_s` seconds; the lead, and whether it is new. Raises LeadConflictError."""
        now_us = self._clock()
        lead_id = secrets.token_hex(_ID_BYTES)
        lead = StoredLead(lead_id, dialer, document, now_us, now_us + ttl_s * 1_000_000)
        try:
            return await self._clerk.write(_put, lead, key)
        except IntegrityError:  # PostgreSQL: another has put the same key in between
            return await self._clerk.write(_put, lead, key)

    async def get(self, lead_id: str, dialer: str) -> bytes | None:
        """The lead's document; None where this dialer posted none of that id, or it has expired."""
        return await self._clerk.read(_get, lead_id, dialer, self._clock())

    async def purge(self) -> int:
        """Delete what has expired, few rows at a time; how many."""
        gone = 0
        while True:
            found = await self._clerk.write(_purge, self._clock())
            gone += found
            if found < PURGE_ROWS:
                return gone


def _put(connection: Connection, lead: StoredLead, key: str) -> tuple[StoredLead, bool]:
    checksum = hashlib.sha256(lead.document).hexdigest()
    if key:
        mine = (leads.c.dialer == lead.dialer, leads.c.key == key)
        found = connection.execute(select(leads).where(*mine)).one_or_none()
        if found is not None and found.expires_utc_us > lead.created_utc_us:
            if found.checksum != checksum:
                raise LeadConflictError(key)
            known = StoredLead(found.lead_id, found.dialer, found.document, found.created_utc_us, found.expires_utc_us)
            return known, False
        connection.execute(delete(leads).where(*mine))
    row = {
        "lead_id": lead.lead_id,
        "dialer": lead.dialer,
        "key": key or None,
        "checksum": checksum,
        "document": lead.document,
        "created_utc_us": lead.created_utc_us,
        "expires_utc_us": lead.expires_utc_us,
    }
    connection.execute(insert(leads).values(row))
    return lead, True


def _get(connection: Connection, lead_id: str, dialer: str, now_us: int) -> bytes | None:
    mine = (leads.c.lead_id == lead_id, leads.c.dialer == dialer, leads.c.expires_utc_us > now_us)
    query = select(leads.c.document).where(*mine)
    found: bytes | None = connection.execute(query).scalar_one_or_none()
    return found


def _purge(connection: Connection, now_us: int) -> int:
    old = select(leads.c.lead_id).where(leads.c.expires_utc_us <= now_us).limit(PURGE_ROWS)
    return connection.execute(delete(leads).where(leads.c.lead_id.in_(old))).rowcount


class LeadFetcher:
    """The router's reader of leads (its protocol `LeadReader`): off the loop's thread, bounded in time and number.

    It owns the clerk: a look-up waits for nobody's but another's of its own kind.
    """

    def __init__(self, clerk: Clerk, clock: Callable[[], int] = _now_us, within_s: float = FETCH_S) -> None:
        self._clerk = clerk
        self._store = LeadStore(clerk, clock)
        self._within_s = within_s
        self._tasks: set[asyncio.Task[None]] = set()

    def fetch(self, lead_id: str, dialer: str, answer: Callable[[bytes | None], None]) -> None:
        """The lead's JSON; None: not this dialer's, or expired; empty: not in time, or the store failed (logged)."""
        loop = asyncio.get_running_loop()
        if len(self._tasks) >= MAX_FETCHES:
            _log.error("lead_not_fetched", why="too many at once")
            loop.call_soon(answer, b"")
            return
        task = loop.create_task(self._fetch(lead_id, dialer, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(self, lead_id: str, dialer: str, answer: Callable[[bytes | None], None]) -> None:
        found: bytes | None = b""
        try:
            async with asyncio.timeout(self._within_s):
                found = await self._store.get(lead_id, dialer)
        except TimeoutError:
            _log.error("lead_not_fetched", why="not in time")
        except Exception as error:  # noqa: BLE001 - whatever failed, the caller must not wait for ever
            _log.error("lead_not_fetched", why=type(error).__name__)
        answer(found)

    async def close(self) -> None:
        """Give up what is under way and close the clerk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._clerk.close()
