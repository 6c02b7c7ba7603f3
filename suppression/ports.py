"""What suppression needs of the store, as protocols it declares itself; `meter.store.suppression` implements them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class ActiveList(Protocol):
    """The version of a list that is in force."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def buyer(self) -> str | None:
        """None: global, applies to every buyer."""

    @property
    def file(self) -> str:
        """The snapshot, relative to the data folder."""

    @property
    def checksum(self) -> str:
        """SHA-256 of the snapshot, hex."""

    @property
    def source_checksum(self) -> str:
        """SHA-256 of what was imported, hex."""

    @property
    def entries(self) -> int: ...


class ListStore(Protocol):
    """Which lists there are and which version of each is in force."""

    async def active(self) -> Sequence[ActiveList]:
        """Lists in force, by name."""

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
        """Put a new version in force and the one before out of it, at once; returns its number.

        Raises ValueError where `name` is a list of another owner.
        """
