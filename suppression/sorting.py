"""Any number of entries in any order, sorted and combined within bounded memory.

Entries are collected into runs, each in order; runs that do not fit into memory wait in temporary files. `merge` reads
runs side by side and yields what they come to, in order, each entry once. Runs lie in layers: a later layer overrules
an earlier one, and a layer of removals takes away. So a new list is one layer; numbers added to a list are its file,
its changes, and the new ones.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
import numpy.typing as npt

from suppression.kinds import KEY_BYTES, Kind
from suppression.snapshot import Entries, Expires, Rest, Snapshot

RUN_BYTES = 64 << 20  # of entries that are sorted at once
WINDOW = 4_000_000  # entries that are merged at once, over all runs
_EXPIRES_BYTES = 4
_FOR_EVER = np.uint64(2**32)  # after every second that 32 bits hold


class Run(Protocol):
    """Entries in order, each once."""

    def __len__(self) -> int: ...
    def read(self, start: int, stop: int) -> Entries: ...


@dataclass(frozen=True, slots=True)
class Layer:
    """Runs of one rank; `removes`: what is in it is taken away from the layers before."""

    runs: Sequence[Run]
    removes: bool = False
    extends: bool = False  # of equal entries the one that holds longer stays, be it of a layer before; the last layer


@dataclass(slots=True)
class Tally:
    """The counts of a merge. `own` counts the distinct entries of the last layer."""

    count: int = 0
    own: int = 0


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run in memory."""

    entries: Entries

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, start: int, stop: int) -> Entries:
        return self.entries.only(slice(start, stop))


@dataclass(frozen=True, slots=True)
class SnapshotRun:
    """A list that is on disk already."""

    snapshot: Snapshot

    def __len__(self) -> int:
        return self.snapshot.count

    def read(self, start: int, stop: int) -> Entries:
        return self.snapshot.entries(start, min(stop, len(self)))


class _FileRun:
    """A run in a temporary file that nobody else sees: keys, then what lies beside them."""

    def __init__(self, file: BinaryIO, entries: Entries) -> None:
        self._count = len(entries)
        self._rest_bytes = 0 if entries.rest is None else entries.rest.shape[1]
        self._expiring = entries.expires is not None
        self._file = file
        for part in (entries.keys, entries.rest, entries.expires):
            if part is not None:
                part.tofile(self._file)

    def __len__(self) -> int:
        return self._count

    def read(self, start: int, stop: int) -> Entries:
        stop = min(stop, self._count)
        after_keys = self._count * KEY_BYTES
        after_rest = after_keys + self._count * self._rest_bytes
        keys = self._part(np.dtype(np.uint64), start, stop, 0)
        rest = self._part(np.dtype((np.uint8, self._rest_bytes)), start, stop, after_keys) if self._rest_bytes else None
        expires = self._part(np.dtype(np.uint32), start, stop, after_rest) if self._expiring else None
        return Entries(keys, rest, expires)

    def _part(self, kind: np.dtype[Any], start: int, stop: int, base: int) -> npt.NDArray[Any]:
        found = np.empty((stop - start), kind)
        wanted = found.data.cast("B") if found.size else memoryview(b"")
        done = 0
        while done < len(wanted):
            many = os.preadv(self._file.fileno(), [wanted[done:]], base + start * kind.itemsize + done)
            if not many:
                raise OSError("a temporary file was cut short")
            done += many
        return found


class Collector:
    """Takes entries in any order; its runs can be read until it is closed.

    `folder` is for temporary files. Raises OSError where the disk is full.
    """

    def __init__(self, folder: Path, kind: Kind, *, expiring: bool = False, run_bytes: int = RUN_BYTES) -> None:
        self._folder = folder
        self._kind = kind
        self._expiring = expiring
        width = KEY_BYTES + kind.rest_bytes + (_EXPIRES_BYTES if expiring else 0)
        self._room = max(1, run_bytes // width)
        self._keys = np.empty(self._room, np.uint64)
        self._rest = np.empty((self._room, kind.rest_bytes), np.uint8) if kind.rest_bytes else None
        self._expires = np.empty(self._room, np.uint32) if expiring else None
        self._held = 0
        self._runs: list[Run] = []
        self._files = ExitStack()
        self.taken = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._files.close()

    def add(self, entries: Entries) -> None:
        """Take entries; without `expires` they hold for ever."""
        at = 0
        while at < len(entries):
            many = min(len(entries) - at, self._room - self._held)
            self._copy(entries.only(slice(at, at + many)))
            at += many
            if self._held == self._room:
                self._spill()
        self.taken += len(entries)

    def layer(self, *, removes: bool = False, extends: bool = False) -> Layer:
        """A layer of all entries added so far. The last run stays in memory."""
        if self._held:
            self._runs.append(HeldRun(self._sorted()))
        return Layer(tuple(self._runs), removes, extends)

    def _spill(self) -> None:
        file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - open as long as the runs are
        self._files.callback(file.close)
        self._runs.append(_FileRun(file, self._sorted()))

    def _copy(self, entries: Entries) -> None:
        place = slice(self._held, self._held + len(entries))
        self._keys[place] = entries.keys
        if self._rest is not None and entries.rest is not None:
            self._rest[place] = entries.rest
        if self._expires is not None:
            self._expires[place] = 0 if entries.expires is None else entries.expires
        self._held += len(entries)

    def _sorted(self) -> Entries:
        """What is held, in order, each once; the room is free again."""
        held, self._held = self._held, 0
        rest = None if self._rest is None else self._rest[:held]
        expires = None if self._expires is None else self._expires[:held]
        if rest is None and expires is None:
            keys = self._keys[:held]
            keys.sort()
            return Entries(keys[_last_of_each(keys, None)])
        ranks = np.zeros(held, np.uint8)
        return _combine([Entries(self._keys[:held], rest, expires)], [ranks], _Rules(), Tally())


def merge(layers: Sequence[Layer], tally: Tally, window: int = WINDOW) -> Iterator[Entries]:
    """The merged entries of the layers. Either every run has `rest` or none has."""
    runs = [(rank, run) for rank, layer in enumerate(layers) for run in layer.runs if len(run)]
    rules = _Rules.of(layers)
    readers = [_Reader(rank, run, max(1, window // max(1, len(runs)))) for rank, run in runs]
    expiring = any(run.read(0, 1).expires is not None for _, run in runs)
    while readers:
        bound = min(reader.tail for reader in readers)
        taken = [(reader.rank, reader.up_to(bound)) for reader in readers]
        found = _merged([one for one in taken if len(one[1])], rules, tally)
        tally.count += len(found)
        if len(found):
            yield replace(found, expires=np.zeros(len(found), np.uint32)) if _lacks(found, expiring) else found
        readers = [reader for reader in readers if reader.more()]


def _lacks(entries: Entries, expiring: bool) -> bool:
    return expiring and entries.expires is None


def ordered(entries: Entries) -> HeldRun:
    """A run of entries that come in any order."""
    if not len(entries):
        return HeldRun(entries)
    return HeldRun(_combine([entries], [np.zeros(len(entries), np.uint8)], _Rules(), Tally()))


class _Reader:
    """A run, some entries at a time. A window never ends amid entries of one key."""

    def __init__(self, rank: int, run: Run, size: int) -> None:
        self.rank = rank
        self._run = run
        self._size = size
        self._next = 0
        self._held = self._fill()

    @property
    def tail(self) -> int:
        return int(self._held.keys[-1])

    def up_to(self, bound: int) -> Entries:
        many = int(np.searchsorted(self._held.keys, np.uint64(bound), "right"))
        taken, self._held = self._held.only(slice(0, many)), self._held.only(slice(many, len(self._held)))
        return taken

    def more(self) -> bool:
        if not len(self._held) and self._next < len(self._run):
            self._held = self._fill()
        return len(self._held) > 0

    def _fill(self) -> Entries:
        size = self._size
        while True:
            found = self._run.read(self._next, self._next + size + 1)
            if len(found) <= size:
                self._next += len(found)
                return found
            whole = int(np.searchsorted(found.keys, found.keys[-1], "left"))
            if whole:
                self._next += whole
                return found.only(slice(0, whole))
            size *= 2


@dataclass(frozen=True, slots=True)
class _Rules:
    """What ranks mean."""

    removing: tuple[int, ...] = ()
    last: int = 0
    extends: bool = False

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> _Rules:
        removing = tuple(rank for rank, layer in enumerate(layers) if layer.removes)
        return cls(removing, len(layers) - 1, bool(layers) and layers[-1].extends)


def _merged(taken: list[tuple[int, Entries]], rules: _Rules, tally: Tally) -> Entries:
    plain = all(one.rest is None and one.expires is None for _, one in taken)
    if plain and not rules.removing and (rules.last == 0 or len(taken) == 1):
        keys = taken[0][1].keys
        if len(taken) > 1:
            keys = np.concatenate([one.keys for _, one in taken])
            keys.sort(kind="stable")  # merges what is in order already
            keys = keys[_last_of_each(keys, None)]
        tally.own += len(keys) if taken[0][0] == rules.last else 0
        return Entries(keys)
    ranks = [np.full(len(one), rank, np.uint8) for rank, one in taken]
    return _combine([one for _, one in taken], ranks, rules, tally)


def _combine(parts: list[Entries], ranks: list[npt.NDArray[np.uint8]], rules: _Rules, tally: Tally) -> Entries:
    """Entries in order; of equal ones that of the highest rank, and of those the one that holds longest."""
    keys = np.concatenate([one.keys for one in parts])
    rank = np.concatenate(ranks)
    rests = [one.rest for one in parts if one.rest is not None]
    rest = np.concatenate(rests) if rests else None
    expires = _all_expires(parts)
    order = np.argsort(keys, kind="stable") if rest is None else np.lexsort((*_words(rest)[::-1], keys))
    keys, rank = keys[order], rank[order]
    rest = None if rest is None else rest[order]
    ends = _last_of_each(keys, rest)
    wins = rank[ends]
    tally.own += int(np.count_nonzero(wins == rules.last))
    kept = ~np.isin(wins, rules.removing) if rules.removing else np.ones(len(wins), np.bool_)
    lasting = None
    if expires is not None:
        lasting = _longest(expires[order], rank, ends, rules)[kept]
    return Entries(keys[ends][kept], None if rest is None else rest[ends][kept], lasting)


def _all_expires(parts: list[Entries]) -> Expires | None:
    if all(one.expires is None for one in parts):
        return None
    return np.concatenate([np.zeros(len(one), np.uint32) if one.expires is None else one.expires for one in parts])


def _longest(expires: Expires, rank: npt.NDArray[np.uint8], ends: npt.NDArray[np.bool_], rules: _Rules) -> Expires:
    """Of each group of equal entries the latest expiry among those of the winning rank; 0 is for ever.

    Where the last layer extends, what held before it counts too.
    """
    starts = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(ends)[:-1] + 1))
    sizes = np.diff(np.concatenate((starts, [len(expires)])))
    until = np.where(expires == 0, _FOR_EVER, expires.astype(np.uint64))
    counts = rank == np.repeat(rank[ends], sizes)
    if rules.extends:
        below = np.where(rank == rules.last, -1, rank.astype(np.int16))
        before = np.maximum.reduceat(below, starts)  # the winner but for the last layer
        before[np.isin(before, rules.removing)] = -2
        counts |= below == np.repeat(before, sizes)
    until[~counts] = 0
    latest = np.maximum.reduceat(until, starts)
    return np.where(latest == _FOR_EVER, 0, latest).astype(np.uint32)


def _last_of_each(keys: npt.NDArray[np.uint64], rest: Rest | None) -> npt.NDArray[np.bool_]:
    """Of entries in order, the last of each group of equal ones."""
    ends = np.ones(len(keys), np.bool_)
    if len(keys) > 1:
        ends[:-1] = keys[1:] != keys[:-1]
        if rest is not None:
            ends[:-1] |= (rest[1:] != rest[:-1]).any(axis=1)
    return ends


def _words(rest: Rest) -> list[npt.NDArray[np.uint64]]:
    """The bytes as 64-bit numbers that sort as the bytes do, the first first."""
    padded = np.zeros((len(rest), -(-rest.shape[1] // KEY_BYTES) * KEY_BYTES), np.uint8)
    padded[:, : rest.shape[1]] = rest
    words = padded.view(">u8").astype(np.uint64)
    return [words[:, at] for at in range(words.shape[1])]
