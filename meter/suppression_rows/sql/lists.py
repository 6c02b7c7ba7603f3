"""Suppression lists in the store: versions, changes made by hand, exemptions, the log. The numbers are in files.

A list belongs to one buyer or is global, for good: its name never changes hands. Activating a version puts the one
before out of force in the same transaction, so at every instant a list has at most one version in force. A version and
the number of changes made to it say exactly what is in force; who changes a list says on which of these he goes by, and
is refused with a StaleError where another was faster.

Every change takes a stamp, so that a router asks for one number twice a second and then for what is newer than it
knows; how that misses nothing is told in `meter.suppression_rows.sql.writing`. Everything that is done is on the log,
in the transaction that does it, and the log only grows: the database refuses anything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from book.lists import Actor, Exemption, ListChange, ListLogEntry, ListNews, ListVersion, NewVersion
from meter.store.clerk import Clerk
from meter.store.engine import reading
from meter.suppression_rows.sql import reading as read
from meter.suppression_rows.sql import writing as write
from meter.suppression_rows.sql.writing import LogEntry, Position

SET_SHOWN = 32  # hex digits of a digest that name it: 128 bits
SETS_AT_ONCE = 50  # in one transaction: a router's commit waits for no more than that

P = ParamSpec("P")
T = TypeVar("T")


def _now_us() -> int:
    return time.time_ns() // 1000


class ListRows:
    """The store behind `suppression.ports.ListStore`.

    `reader`: for a caller that asks twice a second, one hop instead of four. `clock`: UTC in microseconds.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        reader: Clerk | None = None,
        *,
        clock: Callable[[], int] = _now_us,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._clock = clock

    async def stamp(self) -> int:
        """A number that grows with every change; never 0. One row is read."""
        return await self._read(read.current_stamp)

    async def since(self, stamp: int) -> ListNews:
        """What changed after `stamp`, of one moment; for 0 all that is in force.

        Lists come whether in force or not (for 0: only those in force), changes of versions in force only, exemptions
        new or revoked (for 0: not revoked); lists and changes are in order. Where the stamp that comes back is lower
        than the one given, the store was restored from a copy: forget what is known and ask for 0.
        """
        return await self._read(read.since, stamp)

    async def active(self) -> tuple[ListVersion, ...]:
        """Lists in force, by name."""
        return await self._read(read.in_force)

    async def find(self, name: str) -> ListVersion | None:
        """The version in force."""
        return await self._read(read.find, name)

    async def history(self, name: str) -> tuple[ListVersion, ...]:
        """All versions of a list, oldest first."""
        return await self._read(read.history, name)

    async def changes(self, name: str, version: int) -> tuple[ListChange, ...]:
        """All changes of a version, by revision."""
        return await self._read(read.changes, name, version)

    async def log(
        self, name: str | None = None, limit: int = 100, before: int | None = None
    ) -> tuple[ListLogEntry, ...]:
        """The log of a list, or of all lists, newest first; with `before` the rows before that id."""
        return await self._read(read.log, name, limit, before)

    async def exemptions(self, active_only: bool = True) -> tuple[Exemption, ...]:
        """Those that are neither revoked nor expired, or all there ever were, in the order they were made."""
        return await self._read(read.exemptions, self._clock() if active_only else None)

    async def sets(self, digests: Collection[str]) -> dict[str, bytes]:
        """The descriptions kept by `keep_sets`, by digest; those not on record are left out."""
        return await self._read(read.sets, tuple(digests))

    async def sets_like(self, beginnings: Collection[str]) -> dict[str, bytes]:
        """The descriptions whose digest begins as a receipt says, by beginning; at least 32 hex digits of it."""
        usable = tuple(one for one in beginnings if len(one) >= SET_SHOWN and one.isascii() and one.isalnum())
        return await self._read(read.sets_like, usable)

    async def prunable(self, keep: int) -> tuple[ListVersion, ...]:
        """Versions whose file may go, by name and version; the rows stay, as the list's history.

        They are out of force and not among the newest `keep` of their list, and no version that is in force or among
        those has the same file, as one that was restored does. Two rows here may name one file; it may be gone.
        """
        return await self._read(read.prunable, keep)

    async def files(self) -> frozenset[str]:
        """All files that any version names, relative to the data folder; some may be gone, see `prunable`."""
        return await self._read(read.files)

    async def activate(
        self,
        new: NewVersion,
        actor: Actor,
        *,
        action: str,
        expect: Position | None,
        detail: Mapping[str, object],
    ) -> ListVersion:
        """Put a new version in force and the one before out of it, at once; the new one.

        `expect`: (version, revision) that must be in force; None: none is. `detail` goes on the log, as JSON. Raises
        StaleError where it is otherwise, ValueError where another owner has the name.
        """
        return await self._write(write.activate, new, self._entry(new.name, action, actor), expect, detail)

    async def change(
        self, name: str, document: bytes, count: int, actor: Actor, *, action: str, expect: Position
    ) -> ListVersion:
        """Add a change to the version in force, `count` entries being in force with it. Raises StaleError."""
        return await self._write(write.change, self._entry(name, action, actor), document, count, expect)

    async def retire(self, name: str, actor: Actor, *, unname: bool = False) -> bool:
        """Put a list out of force; False where it was not in force.

        One that an import of the configuration named closes whom it concerns from now on, unless `unname`: then nobody
        asks for it any more.
        """
        return await self._write(write.retire, self._entry(name, "retire", actor), unname=unname)

    async def extend(self, name: str, expires_utc_us: int | None, actor: Actor) -> bool:
        """Set when the whole list ceases to apply, None: never; False where it is not in force."""
        return await self._write(write.extend, self._entry(name, "expiry", actor), expires_utc_us)

    async def refused(self, name: str, actor: Actor, *, action: str, detail: Mapping[str, object]) -> None:
        """Put on the log that a list was not activated, and why."""
        await self._write(write.note, self._entry(name, action, actor), detail)

    async def log_scrub(self, name: str, actor: Actor, detail: Mapping[str, object]) -> None:
        """Put on the log that many numbers were looked up; `name` may be empty."""
        await self._write(write.note, self._entry(name, "scrub", actor), detail)

    async def exempt(
        self, name: str, number: int, *, buyer: str | None, reason: str, expires_utc_us: int, actor: Actor
    ) -> Exemption:
        """Let a number (E.164 digits) that is on a global list pass, to one buyer or (None) to all, until it expires.

        Raises ValueError where `name` is no global list in force, the reason is blank or the expiry has passed.
        """
        if not reason.strip():
            raise ValueError("an exemption needs a reason")
        entry = self._entry(name, "exempt", actor)
        if expires_utc_us <= entry.at_utc_us:
            raise ValueError("an exemption must expire in the future")
        return await self._write(
            write.exempt, entry, number=number, buyer=buyer, reason=reason, expires_utc_us=expires_utc_us
        )

    async def revoke(self, exemption: int, actor: Actor) -> bool:
        """End an exemption; False where there is none of that id or it is revoked already."""
        return await self._write(write.revoke, exemption, "revoke_exemption", actor, self._clock())

    async def keep_sets(self, documents: Mapping[str, bytes]) -> None:
        """Make sure that these documents, by SHA-256 in hex, are on record; what is there stays as it is."""
        missing = await self._read(read.missing_sets, documents)
        for at in range(0, len(missing), SETS_AT_ONCE):
            some = {one: documents[one] for one in missing[at : at + SETS_AT_ONCE]}
            await self._write(write.keep_sets, some, self._clock())

    def _entry(self, name: str, action: str, actor: Actor) -> LogEntry:
        return LogEntry(name, action, actor, self._clock())

    async def _read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._reader is not None:
            return await self._reader.read(work, *args, **kwargs)
        async with reading(self._engine).connect() as connection:
            return await connection.run_sync(work, *args, **kwargs)

    async def _write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work, *args, **kwargs)
