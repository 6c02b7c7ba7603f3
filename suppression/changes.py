"""Manual changes of a list: numbers added and removed, kept in the store until they are folded into a new file.

A document is canonical JSON, so that its checksum is the change's:

    {"add":[["12125550100",0],...],"remove":["12125550101",...]}

Entries are E.164 digits or whole digests in hex; beside an added one stands the second of the Unix epoch from which it
no longer holds, 0 for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import orjson

from book.numbers import NumberError, normalise
from suppression.kinds import KEY_BYTES, Kind, digests
from suppression.snapshot import Entries

MAX_ENTRIES = 1000  # in one change; more are a file to be imported

Entry = int | bytes  # a number, or a whole digest


class EntryError(ValueError):
    """The text is no entry of such a list. The message does not repeat it."""


@dataclass(frozen=True, slots=True)
class Change:
    """`add`: entry -> second of the Unix epoch from which it no longer holds, 0 for ever."""

    add: Mapping[Entry, int] = field(default_factory=dict)
    remove: frozenset[Entry] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


def parse_entry(text: str, kind: Kind) -> Entry:
    """A number in any usual spelling, or for a hashed list also a digest in hex. Raises EntryError.

    A number on a hashed list is kept as the digest of its E.164 form.
    """
    if kind is not Kind.NUMBER:
        bare = text.strip().lower().removeprefix("0x")
        if len(bare) == 2 * kind.digest_bytes and all(mark in "0123456789abcdef" for mark in bare):
            return bytes.fromhex(bare)
    try:
        number = normalise(text)
    except NumberError as error:
        raise EntryError(str(error)) from error
    return number if kind is Kind.NUMBER else digests(kind, number)[0]


def same_entries(text: str, kind: Kind) -> tuple[Entry, ...]:
    """All entries that mean what the text does: of a number on a hashed list the digest of each spelling."""
    entry = parse_entry(text, kind)
    try:
        return (entry,) if kind is Kind.NUMBER else digests(kind, normalise(text))
    except NumberError:
        return (entry,)


def encode(change: Change) -> bytes:
    """The document of a change."""
    add = sorted([_text(entry), expires] for entry, expires in change.add.items())
    return orjson.dumps({"add": add, "remove": sorted(_text(entry) for entry in change.remove)})


def decode(document: bytes, kind: Kind) -> Change:
    """Raises ValueError for what `encode` did not write."""
    found = orjson.loads(document)
    try:
        add = {_entry(text, kind): int(expires) for text, expires in found["add"]}
        return Change(add, frozenset(_entry(text, kind) for text in found["remove"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("a change on record cannot be read") from error


def combine(changes: Iterable[Change]) -> Change:
    """One change that does what these do one after another."""
    add: dict[Entry, int] = {}
    remove: set[Entry] = set()
    for one in changes:
        for entry in one.remove:
            add.pop(entry, None)
            remove.add(entry)
        for entry, expires in one.add.items():
            add[entry] = expires
            remove.discard(entry)
    return Change(add, frozenset(remove))


def converted(change: Change, kind: Kind, wanted: Kind) -> Change:
    """The same change for a list of another kind. Raises EntryError: digests cannot be turned into anything else.

    A number that is added becomes the digest of its E.164 form; one that is removed, those of all its spellings.
    """
    if kind is wanted or not change:
        return change
    if kind is not Kind.NUMBER:
        raise EntryError(f"changes made as {kind} digests cannot be kept on a list of kind {wanted}")
    add: dict[Entry, int] = {
        digests(wanted, one)[0]: until for one, until in change.add.items() if isinstance(one, int)
    }
    removed = (entry for one in change.remove if isinstance(one, int) for entry in digests(wanted, one))
    return Change(add, frozenset(removed))


def as_entries(entries: Mapping[Entry, int] | Iterable[Entry], kind: Kind) -> Entries:
    """For a merge; in any order."""
    listed = list(entries)
    until = [entries[one] for one in listed] if isinstance(entries, Mapping) else [0] * len(listed)
    expires = np.array(until, np.uint32) if any(until) else None
    if kind is Kind.NUMBER:
        return Entries(np.array(listed, np.uint64), None, expires)
    whole = np.frombuffer(b"".join(one for one in listed if isinstance(one, bytes)), np.uint8)
    whole = whole.reshape(len(listed), kind.digest_bytes)
    keys = np.ascontiguousarray(whole[:, :KEY_BYTES]).view(">u8").astype(np.uint64).ravel()
    return Entries(keys, np.ascontiguousarray(whole[:, KEY_BYTES:]), expires)


def _text(entry: Entry) -> str:
    return str(entry) if isinstance(entry, int) else entry.hex()


def _entry(text: str, kind: Kind) -> Entry:
    return int(text) if kind is Kind.NUMBER else bytes.fromhex(text)
