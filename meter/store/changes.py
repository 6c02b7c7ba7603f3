"""Detects whether anything was written since the last check. On SQLite one PRAGMA answers, without reading a table.

`PRAGMA data_version` changes when another connection has committed; a clerk's own commits do not count, and whoever
wakes after its own writes does not need them. On PostgreSQL there is nothing as cheap: the answer is always yes, and
the caller's own query is the look.
"""

from __future__ import annotations

from sqlalchemy import Connection

from meter.store.clerk import Clerk


class ChangeWatch:
    """Remembers the version at the last look; the first look always says yes."""

    def __init__(self, clerk: Clerk) -> None:
        self._clerk = clerk
        self._seen: int | None = None

    async def changed(self) -> bool:
        """Whether somebody else has committed since the last call."""
        version = await self._clerk.read(_data_version)
        changed = version is None or version != self._seen
        self._seen = version
        return changed

    def forget(self) -> None:
        """Say yes next time: what was seen was not dealt with."""
        self._seen = None


def _data_version(connection: Connection) -> int | None:
    if connection.dialect.name != "sqlite":
        return None
    return int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())
