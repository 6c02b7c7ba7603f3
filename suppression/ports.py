"""What suppression needs of the store, as protocols it declares itself; `meter.suppression_rows.sql.lists` implements
them.

A list's state is named by (name, version, revision): the version is a file, the revision counts the changes made to it
by hand since. `state` is the checksum of exactly that: of the file at revision 0, of the chain of changes after.
Every row carries a `stamp`, a number that grows with each transaction that changes anything here, so that a reader asks
"what is new since?" and gets it from one moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

NAMED_ONLY = 0  # the version of a list that is asked for and was not imported: nobody can look it up


class StaleError(Exception):
    """The list has moved on since it was read: look again, and decide again."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who changes a list, and from where: `cli:HOST`, `api:ADDRESS`, `meter`."""

    by: str
    origin: str


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to put in force. `change` is a first change on top of the file (revision 1), empty for none."""

    name: str
    buyer: str | None  # None: global
    kind: str  # suppression.kinds.Kind
    file: str  # relative to the data folder
    checksum: str  # SHA-256 of the file, hex
    source: str  # what it was made of: a file's name
    source_checksum: str  # SHA-256 of what was imported, hex
    entries: int  # in the file
    count: int  # in force: with the change
    expires_utc_us: int | None = None  # the whole list; None: never
    keep_expiry: bool = False  # the list keeps the expiry it has; the one above is for one that is not in force
    based_on: int | None = None  # the version it was made of, with its changes; None: it stands for itself
    change: bytes = b""


class ListVersion(Protocol):
    """A version of a list, with where its changes stand."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def revision(self) -> int:
        """0: the file alone; else the number of the last change."""

    @property
    def state(self) -> str:
        """SHA-256, hex: of the file at revision 0; after each change of the state before, a newline, the change."""

    @property
    def buyer(self) -> str | None:
        """None: global, applies to every buyer."""

    @property
    def kind(self) -> str: ...
    @property
    def file(self) -> str:
        """The snapshot, relative to the data folder."""

    @property
    def checksum(self) -> str:
        """SHA-256 of the snapshot, hex."""

    @property
    def source(self) -> str: ...
    @property
    def source_checksum(self) -> str:
        """SHA-256 of what was imported, hex."""

    @property
    def entries(self) -> int:
        """In the file."""

    @property
    def count(self) -> int:
        """In force, changes included; entries whose time has run out are still counted."""

    @property
    def active(self) -> bool: ...
    @property
    def expires_utc_us(self) -> int | None: ...
    @property
    def imported_utc_us(self) -> int: ...
    @property
    def imported_by(self) -> str: ...
    @property
    def based_on(self) -> int | None:
        """The version it was made of, with its changes; None: it stands for itself."""

    @property
    def stamp(self) -> int: ...


class ListChange(Protocol):
    """A change made to a version by hand. `document`: see suppression.changes."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def document(self) -> bytes: ...
    @property
    def state(self) -> str: ...
    @property
    def at_utc_us(self) -> int: ...
    @property
    def by(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def stamp(self) -> int: ...


class Exemption(Protocol):
    """A person on a global list who may be transferred all the same, for a reason, until a date."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str:
        """The global list."""

    @property
    def number(self) -> int:
        """E.164 digits."""

    @property
    def buyer(self) -> str | None:
        """None: for every buyer."""

    @property
    def reason(self) -> str: ...
    @property
    def expires_utc_us(self) -> int: ...
    @property
    def revoked_utc_us(self) -> int | None: ...
    @property
    def stamp(self) -> int: ...


class News(Protocol):
    """What changed after a stamp, of one moment."""

    @property
    def stamp(self) -> int: ...
    @property
    def lists(self) -> Sequence[ListVersion]:
        """Rows that changed: those in force, and those that no longer are."""

    @property
    def changes(self) -> Sequence[ListChange]:
        """New changes of versions that are in force, by revision."""

    @property
    def exemptions(self) -> Sequence[Exemption]:
        """New ones, and those revoked."""

    @property
    def anew(self) -> bool:
        """This is all there is: the store was restored from a copy, and what was known may never have been."""


class ListReader(Protocol):
    """What the call path needs."""

    async def stamp(self) -> int: ...
    async def since(self, stamp: int) -> News:
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
        self, new: NewVersion, who: Who, *, action: str, expect: tuple[int, int] | None, detail: Mapping[str, object]
    ) -> ListVersion:
        """Put a version in force and the one before out of it, at once.

        `expect`: (version, revision) that must be in force, None: none is. Raises StaleError where it is otherwise,
        ValueError where `name` is a list of another owner.
        """

    async def change(
        self, name: str, document: bytes, count: int, who: Who, *, action: str, expect: tuple[int, int]
    ) -> ListVersion:
        """Make a change to the version in force. Raises StaleError."""

    async def refused(self, name: str, who: Who, *, action: str, detail: Mapping[str, object]) -> None:
        """Put on the log that a list was not activated, and why."""

    async def extend(self, name: str, expires_utc_us: int | None, who: Who) -> bool:
        """Set until when a whole list holds, None: for ever. False where it is not in force."""

    async def prunable(self, keep: int) -> Sequence[ListVersion]:
        """Versions out of force and not among the newest `keep` of their list, whose file no kept version has."""

    async def files(self) -> frozenset[str]:
        """Every file that any version names."""
