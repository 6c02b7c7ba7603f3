"""The protocols through which suppression reads and writes the store; `meter.suppression_rows` implements them.

The values that cross are those of `book.lists`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from book.lists import Actor, ListChange, ListNews, ListVersion, NewVersion


class ListReader(Protocol):
    """What a router reads of the lists."""

    async def stamp(self) -> int: ...
    async def since(self, stamp: int) -> ListNews:
        """Everything for 0."""

    async def keep_sets(self, documents: Mapping[str, bytes]) -> None:
        """Make sure that these descriptions of lists (by SHA-256, hex) are on record; those that are stay."""


class ListStore(ListReader, Protocol):
    """What changes lists. All that changes one is on the log in the same transaction."""

    async def find(self, name: str) -> ListVersion | None:
        """The version in force."""

    async def history(self, name: str) -> Sequence[ListVersion]:
        """All versions, oldest first."""

    async def changes(self, name: str, version: int) -> Sequence[ListChange]:
        """All changes of a version, by revision."""

    async def activate(
        self,
        new: NewVersion,
        actor: Actor,
        *,
        action: str,
        expect: tuple[int, int] | None,
        detail: Mapping[str, object],
    ) -> ListVersion:
        """Put a version in force and the one before out of it, at once.

        `expect`: (version, revision) that must be in force, None: none is. Raises StaleError where it is otherwise,
        ValueError where `name` is a list of another owner.
        """

    async def change(
        self, name: str, document: bytes, count: int, actor: Actor, *, action: str, expect: tuple[int, int]
    ) -> ListVersion:
        """Make a change to the version in force. Raises StaleError."""

    async def refused(self, name: str, actor: Actor, *, action: str, detail: Mapping[str, object]) -> None:
        """Put on the log that a list was not activated, and why."""

    async def extend(self, name: str, expires_utc_us: int | None, actor: Actor) -> bool:
        """Set until when a whole list holds, None: for ever. False where it is not in force."""

    async def prunable(self, keep: int) -> Sequence[ListVersion]:
        """Versions out of force and not among the newest `keep` of their list, whose file no kept version has."""

    async def files(self) -> frozenset[str]:
        """Every file that any version names."""
