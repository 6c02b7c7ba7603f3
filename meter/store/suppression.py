"""Which suppression lists there are, as rows; the numbers themselves are in snapshot files.

A list belongs to one buyer or is global, for good: its name never changes hands. Activating a version puts the one
before out of force in the same transaction, so at every instant a list has exactly one version in force.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.store.clerk import Clerk
from meter.store.db import reading
from meter.store.schema import suppression_lists


@dataclass(frozen=True, slots=True)
class ListRow:
    """A version of a list. `buyer` None: global. `file` is relative to the data folder. Checksums are SHA-256, hex."""

    name: str
    version: int
    buyer: str | None
    file: str
    checksum: str
    source_checksum: str
    entries: int
    active: bool
    imported_utc_us: int
    imported_by: str


class ListRows:
    """The store behind `suppression.ports.ListStore`."""

    def __init__(self, engine: AsyncEngine, reader: Clerk | None = None) -> None:
        self._engine = engine
        self._reader = reader  # for who asks twice a second: one hop instead of four

    async def active(self) -> tuple[ListRow, ...]:
        """Lists in force, by name."""
        return await self._rows(suppression_lists.c.active.is_(True))

    async def history(self, name: str) -> tuple[ListRow, ...]:
        """All versions of a list, oldest first."""
        return await self._rows(suppression_lists.c.name == name)

    async def activate(
        self,
        *,
        name: str,
        buyer: str | None,
        file: str,
        checksum: str,
        source_checksum: str,
        entries: int,
        imported_by: str,
    ) -> int:
        """Put a new version in force; returns its number. Raises ValueError where another owner has the name."""
        row = {
            "name": name,
            "buyer": buyer,
            "file": file,
            "checksum": checksum,
            "source_checksum": source_checksum,
            "entries": entries,
            "imported_by": imported_by,
            "imported_utc_us": time.time_ns() // 1000,
            "active": True,
        }
        async with self._engine.begin() as connection:
            return await connection.run_sync(_activate, row)

    async def retire(self, name: str) -> bool:
        """Put a list out of force; False where it was not in force."""
        changed = update(suppression_lists).where(
            suppression_lists.c.name == name, suppression_lists.c.active.is_(True)
        )
        async with self._engine.begin() as connection:
            return bool((await connection.execute(changed.values(active=False))).rowcount)

    async def _rows(self, condition: Any) -> tuple[ListRow, ...]:
        order = (suppression_lists.c.name, suppression_lists.c.version)
        wanted = select(suppression_lists).where(condition).order_by(*order)

        def read(connection: Connection) -> tuple[ListRow, ...]:
            return tuple(ListRow(**row._mapping) for row in connection.execute(wanted))  # noqa: SLF001

        if self._reader is not None:
            return await self._reader.read(read)
        async with reading(self._engine).connect() as connection:
            return await connection.run_sync(read)


def _activate(connection: Connection, row: dict[str, Any]) -> int:
    mine = suppression_lists.c.name == row["name"]
    for (owner,) in connection.execute(select(suppression_lists.c.buyer).where(mine).distinct()):
        if owner != row["buyer"]:
            whose = "global" if owner is None else f"of buyer {owner!r}"
            raise ValueError(f"list {row['name']!r} is {whose}; a list does not change hands, choose another name")
    newest = connection.execute(select(func.max(suppression_lists.c.version)).where(mine)).scalar() or 0
    connection.execute(update(suppression_lists).where(mine).values(active=False))
    connection.execute(insert(suppression_lists).values(**row, version=newest + 1))
    return int(newest) + 1
