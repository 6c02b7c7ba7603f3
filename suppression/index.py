"""Lists in memory, and the look-up of a number in them.

A `LoadedList` is one state of one list, exact: its file, the changes made to it since, and the expiry of entries. A
`Part` is what applies together, the global lists or those of one buyer. Nearly every number is on none of them, so a
part first asks whether it may be on any, in one look over all its small lists together, and only then on which.
Everything here is immutable and shared between threads.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import orjson

from suppression.changes import Change, Entry
from suppression.kinds import KEY_BYTES, Kind, digests
from suppression.snapshot import BLOCK_BITS, Keys, Snapshot

MERGE_MOST = 2_000_000  # entries; a longer list is looked at by itself
BRIEF = 420  # characters of a part's lists in words
_LOW = (1 << BLOCK_BITS) - 1
_STATE_SHOWN = 12  # hex digits of a state's checksum where people read it

Mask = npt.NDArray[np.bool_]
Find = Callable[[int], int]


class Probe:
    """A number that is looked up, with its digests once they are wanted."""

    __slots__ = ("_digests", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._digests: dict[Kind, tuple[tuple[int, bytes], ...]] = {}

    def digests(self, kind: Kind) -> tuple[tuple[int, bytes], ...]:
        """(key, whole digest) of each spelling."""
        found = self._digests.get(kind)
        if found is None:
            found = tuple((int.from_bytes(one[:KEY_BYTES]), one) for one in digests(kind, self.number))
            self._digests[kind] = found
        return found


@dataclass(frozen=True, slots=True, eq=False)
class LoadedList:
    """One state of a list. `snapshot` None: could not be loaded; whom it applies to is refused."""

    name: str
    version: int
    revision: int
    state: str  # checksum of exactly this state, hex
    buyer: str | None
    kind: Kind
    snapshot: Snapshot | None
    change: Change = field(default_factory=Change)  # all changes since the file, as one
    expires_s: float | None = None  # of the whole list, Unix epoch
    find: Find = field(default=lambda _key: -1)

    def has(self, probe: Probe, now_s: float) -> bool:
        """Whether the number is on the list now."""
        if self.expires_s is not None and now_s >= self.expires_s:
            return False
        if self.kind is Kind.NUMBER:
            return self._holds(probe.number, probe.number, now_s)
        return any(self._holds(key, entry, now_s) for key, entry in probe.digests(self.kind))

    def _holds(self, key: int, entry: Entry, now_s: float) -> bool:
        change = self.change
        if change:
            until = change.add.get(entry)
            if until is not None:
                return not until or now_s < until
            if entry in change.remove:
                return False
        return self._in_file(key, entry, now_s)

    def _in_file(self, key: int, entry: Entry, now_s: float) -> bool:
        at = self._position(key, entry)
        until = self._until(at)
        return at >= 0 and (not until or now_s < until)

    def until(self, entry: Entry) -> int | None:
        """None where the entry is not on the list; else the second from which it no longer holds, 0 for ever.

        Entries whose time has run out are still on the list here.
        """
        if entry in self.change.add:
            return self.change.add[entry]
        at = -1 if entry in self.change.remove else self.position(entry)
        return None if at < 0 else self._until(at)

    def position(self, entry: Entry) -> int:
        """Where an entry is in the file; below 0 where it is not."""
        key = entry if isinstance(entry, int) else int.from_bytes(entry[:KEY_BYTES])
        return self._position(key, entry)

    def count_with(self, change: Change) -> int:
        """Entries of the file with a change applied."""
        more = sum(self.position(one) < 0 for one in change.add)
        less = sum(self.position(one) >= 0 for one in change.remove)
        return (0 if self.snapshot is None else self.snapshot.count) + more - less

    def _position(self, key: int, entry: Entry) -> int:
        at = self.find(key)
        if at < 0 or self.snapshot is None or isinstance(entry, int):
            return at
        return _exact(self.snapshot, at, key, entry)

    def _until(self, at: int) -> int:
        found = self.snapshot.sections.get("expires") if self.snapshot is not None and at >= 0 else None
        return 0 if found is None else found[at]

    @property
    def brief(self) -> str:
        """For people: name, version and revision, the beginning of the checksum."""
        return f"{self.name}@{self.version}.{self.revision}:{self.state[:_STATE_SHOWN]}"


def finder(snapshot: Snapshot) -> Find:
    """Position of a key in a list, the first where several digests share it; below 0 where it is not there."""
    sections = snapshot.sections
    if "keys" in sections:
        return _flat_finder(sections["keys"])
    blocks, starts, lows = sections["blocks"], sections["starts"], sections["lows"]
    last = len(blocks)

    def find(key: int) -> int:
        high = key >> BLOCK_BITS
        block = bisect_left(blocks, high)
        if block == last or blocks[block] != high:
            return -1
        stop = starts[block + 1]
        low = key & _LOW
        at = bisect_left(lows, low, starts[block], stop)
        return at if at < stop and lows[at] == low else -1

    return find


def _flat_finder(keys: memoryview | Sequence[int]) -> Find:
    count = len(keys)

    def find(key: int) -> int:
        at = bisect_left(keys, key)
        return at if at < count and keys[at] == key else -1

    return find


def _exact(snapshot: Snapshot, at: int, key: int, digest: bytes) -> int:
    """Among entries that share a key the one whose whole digest it is; below 0 where there is none."""
    keys, rest, size = snapshot.sections["keys"], snapshot.sections["rest"], snapshot.kind.rest_bytes
    while at < snapshot.count and keys[at] == key:
        if rest[at * size : (at + 1) * size] == digest[KEY_BYTES:]:
            return at
        at += 1
    return -1


def find_sorted(snapshot: Snapshot, numbers: Keys) -> Mask:
    """Which of the numbers, themselves in order, are in a list's file."""
    sections = snapshot.sections
    if not snapshot.count:
        return np.zeros(len(numbers), np.bool_)
    if "keys" in sections:
        keys = np.frombuffer(sections["keys"], np.uint64)
        at = np.searchsorted(keys, numbers)
        return np.asarray(keys[np.minimum(at, len(keys) - 1)] == numbers)
    blocks = np.frombuffer(sections["blocks"], np.uint64)
    starts = np.frombuffer(sections["starts"], np.uint32)
    lows = np.frombuffer(sections["lows"], np.uint16)
    high = numbers >> np.uint64(BLOCK_BITS)
    low = numbers.astype(np.uint16)
    block = np.minimum(np.searchsorted(blocks, high), len(blocks) - 1)
    there = blocks[block] == high
    left = starts[block].astype(np.int64)
    stop = starts[block + 1].astype(np.int64)
    right = np.where(there, stop, left)
    for _ in range(int((right - left).max(initial=0)).bit_length()):  # bisection, all at once
        middle = (left + right) >> 1
        below = (left < right) & (lows[np.minimum(middle, len(lows) - 1)] < low)
        right = np.where(below | (left >= right), right, middle)
        left = np.where(below, middle + 1, left)
    return np.asarray(there & (left < stop) & (lows[np.minimum(left, len(lows) - 1)] == low))


@dataclass(frozen=True, slots=True)
class _Lookup:
    """Whether a key may be on any of some lists of a kind."""

    finds: tuple[Find, ...] = ()
    added: frozenset[Entry] = frozenset()

    def may_have(self, key: int, entry: Entry) -> bool:
        return any(find(key) >= 0 for find in self.finds) or entry in self.added


@dataclass(frozen=True, slots=True, eq=False)
class ListGroup:
    """Lists that apply together. `digest` names them and their states, `document` spells that out."""

    lists: tuple[LoadedList, ...] = ()
    merged: tuple[_MergedKeys, ...] = ()
    numbers: _Lookup = field(default_factory=_Lookup)
    hashed: tuple[tuple[Kind, _Lookup], ...] = ()
    broken: tuple[str, ...] = ()  # names of lists that could not be loaded
    digest: str = ""
    document: bytes = b""
    brief: str = ""
    loners: tuple[LoadedList, ...] = ()  # lists of numbers too long to be merged

    def hits(self, probe: Probe, now_s: float) -> Iterator[LoadedList]:
        """The lists that have the number. Each is looked into: ask `suspect` before, nearly every number is none."""
        return (one for one in self.lists if one.has(probe, now_s))

    def suspect(self, probe: Probe) -> bool:
        """Whether the number may be on one of the lists; one that is, may be."""
        number = probe.number
        look = self.numbers
        for find in look.finds:
            if find(number) >= 0:
                return True
        if number in look.added:
            return True
        for kind, hashed in self.hashed:
            for key, entry in probe.digests(kind):
                if hashed.may_have(key, entry):
                    return True
        return False

    def suspects(self, numbers: Keys) -> Mask:
        """Of many numbers, in order, those that may be on a list; all that are, are among them.

        But for the loners: whoever asks looks into each of these himself, once.
        """
        found = np.zeros(len(numbers), np.bool_)
        for keys in (one.keys for one in self.merged if one.kind is Kind.NUMBER):
            if len(keys):
                at = np.searchsorted(keys, numbers)
                found |= keys[np.minimum(at, len(keys) - 1)] == numbers
        added = np.fromiter((one for one in self.numbers.added if isinstance(one, int)), np.uint64)
        if len(added):
            found |= np.isin(numbers, added)
        for kind, look in self.hashed:
            for place in np.flatnonzero(~found):
                probe = Probe(int(numbers[place]))
                found[place] = any(look.may_have(key, entry) for key, entry in probe.digests(kind))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _MergedKeys:
    """The keys of several small lists of one kind together; `of` are the checksums of their files."""

    kind: Kind
    of: frozenset[str]
    keys: Keys
    find: Find


def make_part(lists: Sequence[LoadedList], before: ListGroup | None = None) -> ListGroup:
    """A part of these lists; what `before` merged of the same files is used again."""
    by_kind: dict[Kind, list[LoadedList]] = {}
    for one in lists:
        by_kind.setdefault(one.kind, []).append(one)
    merged: list[_MergedKeys] = []
    looks: dict[Kind, _Lookup] = {}
    loners: tuple[LoadedList, ...] = ()
    for kind, some in by_kind.items():
        usable = [one for one in some if one.snapshot is not None]
        small = [one for one in usable if one.snapshot is not None and one.snapshot.count <= MERGE_MOST]
        if len(small) > 1:
            merged.append(_merge(kind, small, before))
        alone = [one for one in usable if len(small) == 1 or one not in small]
        if kind is Kind.NUMBER:
            loners = tuple(alone)
        finds = (*(one.find for one in merged if one.kind is kind), *(one.find for one in alone))
        looks[kind] = _Lookup(finds, frozenset(entry for one in some for entry in one.change.add))
    document, digest = _described(lists)
    return ListGroup(
        lists=tuple(lists),
        merged=tuple(merged),
        numbers=looks.pop(Kind.NUMBER, _Lookup()),
        hashed=tuple(looks.items()),
        broken=tuple(one.name for one in lists if one.snapshot is None),
        digest=digest,
        document=document,
        brief=_brief(lists),
        loners=loners,
    )


def _merge(kind: Kind, lists: Sequence[LoadedList], before: ListGroup | None) -> _MergedKeys:
    of = frozenset(one.snapshot.checksum for one in lists if one.snapshot is not None)
    for known in before.merged if before is not None else ():
        if known.kind is kind and known.of == of:
            return known
    parts = [one.snapshot.entries(0, one.snapshot.count).keys for one in lists if one.snapshot is not None]
    keys = np.unique(np.concatenate(parts))
    return _MergedKeys(kind, of, keys, _flat_finder(keys.data))


def _described(lists: Sequence[LoadedList]) -> tuple[bytes, str]:
    """The states of these lists as canonical JSON, and its SHA-256, hex."""
    document = orjson.dumps(
        [
            {
                "name": one.name,
                "version": one.version,
                "revision": one.revision,
                "state": one.state,
                "kind": one.kind.value,
                "usable": one.snapshot is not None,
            }
            for one in lists
        ],
        option=orjson.OPT_SORT_KEYS,
    )
    return document, hashlib.sha256(document).hexdigest()


def _brief(lists: Sequence[LoadedList]) -> str:
    """As many lists in words as there is room for, then how many more."""
    shown: list[str] = []
    for at, one in enumerate(lists):
        if sum(map(len, shown)) + 2 * len(shown) + len(one.brief) > BRIEF:
            return "; ".join([*shown, f"+{len(lists) - at}"])
        shown.append(one.brief)
    return "; ".join(shown)
