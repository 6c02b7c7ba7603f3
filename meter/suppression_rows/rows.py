"""What `meter.suppression_rows.sql.lists` takes and gives: rows of the suppression tables, and the protocols of its
callers.

Times are microseconds UTC. `stamp`: of the transaction that wrote the row last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

NAMED_ONLY = 0  # the version of a list that is asked for and was not imported; versions that were begin at 1


class StaleError(RuntimeError):
    """The list has moved on since it was read: look again, and decide again."""


class Who(Protocol):
    """Who changes a list, and from where: `cli:HOST`, `api:ADDRESS`, `meter`."""

    @property
    def by(self) -> str: ...
    @property
    def origin(self) -> str: ...


class NewVersion(Protocol):
    """A version to put in force. `change` is a first change on top of the file (revision 1), empty for none."""

    @property
    def name(self) -> str: ...
    @property
    def buyer(self) -> str | None:
        """None: global."""

    @property
    def kind(self) -> str: ...
    @property
    def file(self) -> str:
        """Relative to the data folder."""

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, hex."""

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
        """In force: with the change."""

    @property
    def expires_utc_us(self) -> int | None:
        """Of the whole list; None: never."""

    @property
    def keep_expiry(self) -> bool:
        """The list keeps the expiry it has; `expires_utc_us` is for a list that is not in force."""

    @property
    def based_on(self) -> int | None:
        """The version it was made of, with its changes; None: it stands for itself."""

    @property
    def change(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ListRow:
    """A version of a list. `buyer` None: global. `file` is relative to the data folder. Checksums are SHA-256, hex.

    `revision` counts the changes made to it by hand; `state` is the checksum at revision 0 and then that of the chain
    of changes. `entries` are those in the file, `count` those in force. `expires_utc_us`: the whole list, None: never.
    """

    name: str
    version: int
    revision: int
    state: str
    buyer: str | None
    kind: str
    file: str
    checksum: str
    source: str
    source_checksum: str
    entries: int
    count: int
    active: bool
    expires_utc_us: int | None
    imported_utc_us: int
    imported_by: str
    based_on: int | None  # the version it was made of, changes included; None: it stands for itself
    stamp: int


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """A change made to a version by hand."""

    name: str
    version: int
    revision: int
    document: bytes
    state: str
    at_utc_us: int
    by: str
    origin: str
    stamp: int


@dataclass(frozen=True, slots=True)
class ExemptionRow:
    """A number (E.164 digits) on the global list `name` that may be transferred all the same until it expires.

    `buyer` None: to every buyer. One that is revoked or has expired stays as a row.
    """

    id: int
    name: str
    number: int
    buyer: str | None
    reason: str
    expires_utc_us: int
    added_utc_us: int
    added_by: str
    origin: str
    revoked_utc_us: int | None
    revoked_by: str | None
    stamp: int


@dataclass(frozen=True, slots=True)
class LogRow:
    """One thing that was done, or refused. `before` and `after`: entries in force, None: no list was in force.

    Rows of what changes no list (refusals, scrubs, exemptions) have neither.
    """

    id: int
    at_utc_us: int
    name: str
    action: str
    by: str
    origin: str
    version: int | None
    revision: int | None
    before: int | None
    after: int | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ListNews:
    """What changed after a stamp, of one moment; `stamp` is that of the moment."""

    stamp: int
    lists: tuple[ListRow, ...] = ()
    changes: tuple[ChangeRow, ...] = ()
    exemptions: tuple[ExemptionRow, ...] = ()
    anew: bool = False  # this is all there is: the stamp asked with is none of this store's
