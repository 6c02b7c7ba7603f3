"""Suppression lists as recorded in the store: versions, manual changes, exemptions, the log. Values alone.

A list's state is named by (name, version, revision): the version is a file, the revision counts the changes made to it
by hand since. `state` is the checksum of exactly that: of the file at revision 0; after each change of the state
before, a newline, the change. Every row carries a `stamp`, a number that grows with each transaction that changes
anything here, so that a reader asks "what is new since?" and gets it from one moment. Times are microseconds UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAMED_ONLY = 0  # the version of a list that is asked for and was not imported: nobody can look it up


class StaleError(Exception):
    """The list has moved on since it was read: look again, and decide again."""


@dataclass(frozen=True, slots=True)
class Actor:
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


@dataclass(frozen=True, slots=True)
class ListVersion:
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
class ListChange:
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
class Exemption:
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
class ListLogEntry:
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
    lists: tuple[ListVersion, ...] = ()
    changes: tuple[ListChange, ...] = ()
    exemptions: tuple[Exemption, ...] = ()
    anew: bool = False  # this is all there is: the stamp asked with is none of this store's
