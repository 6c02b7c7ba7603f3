"""Look-ups for operators: which lists have a number and since when, the entries of a list, the sizes of all lists."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from book.lists import ListChange, ListVersion
from suppression.activating import Base
from suppression.changes import Change, Entry, decode
from suppression.index import LoadedList, Probe
from suppression.kinds import KEY_BYTES, Kind
from suppression.loading import load_list
from suppression.ports import ListStore
from suppression.snapshot import Entries, SnapshotError
from suppression.sorting import Tally, merge


@dataclass(frozen=True, slots=True)
class ListMatch:
    """A number on a list. `exact` False: since then or longer, for older versions have no file any more."""

    name: str
    buyer: str | None
    version: int
    revision: int
    since_utc_us: int
    exact: bool
    by: str
    expires_s: int  # Unix epoch; 0: never


@dataclass(frozen=True, slots=True)
class Evidence:
    """The lists that a receipt names: those of the sets whose record is intact; the others by digest."""

    lists: tuple[dict[str, Any], ...]
    missing: tuple[str, ...]  # not on record
    changed: tuple[str, ...]  # on record, but not with the content that was signed


@dataclass(frozen=True, slots=True)
class Size:
    """A list in force, as it lies on disk."""

    version: ListVersion
    file_bytes: int  # 0: the file is gone
    usable: bool


async def find_number(
    store: ListStore, data_dir: Path, lists: Sequence[ListVersion], number: int, now_s: float
) -> list[ListMatch]:
    """Of these lists those that have the number. Raises snapshot.SnapshotError for one that cannot be read."""
    probe = Probe(number)
    found: list[ListMatch] = []
    broken: list[str] = []
    for one in lists:
        changes = await store.changes(one.name, one.version)
        loaded = await asyncio.to_thread(load_list, data_dir / one.file, one, changes, mapped=True)
        if loaded.snapshot is None:
            broken.append(one.name)
        elif loaded.has(probe, now_s):
            found.append(await since_when(store, data_dir, one, changes=changes, loaded=loaded, probe=probe))
    if broken:
        raise SnapshotError(f"list {', '.join(broken)}: cannot be read, so nobody can say whether the number is on it")
    return found


def evidence(wanted: Sequence[str], documents: Mapping[str, bytes]) -> Evidence:
    """Given the beginnings of digests that a receipt names, and the documents on record by beginning."""
    there = [one for one in wanted if one in documents]
    proven = [one for one in there if hashlib.sha256(documents[one]).hexdigest().startswith(one)]
    return Evidence(
        tuple(it for one in proven for it in orjson.loads(documents[one])),
        tuple(one for one in wanted if one not in documents),
        tuple(one for one in there if one not in proven),
    )


async def since_when(
    store: ListStore,
    data_dir: Path,
    version: ListVersion,
    *,
    changes: Sequence[ListChange],
    loaded: LoadedList,
    probe: Probe,
) -> ListMatch:
    """Since when a list has a number that is on it: back through changes and versions to where it was not."""
    entry = next(candidate for candidate in _entries(loaded.kind, probe) if loaded.until(candidate) is not None)
    expires_s = loaded.until(entry) or 0
    since = await asyncio.to_thread(_by_hand, changes, loaded.kind, entry)
    exact = True
    if since is None:
        since = (version.imported_utc_us, version.imported_by)
        older = [candidate for candidate in await store.history(version.name) if candidate.version < version.version]
        for candidate in reversed(older):
            its = await store.changes(candidate.name, candidate.version)
            before = await asyncio.to_thread(load_list, data_dir / candidate.file, candidate, its, mapped=True)
            if before.snapshot is None:
                exact = False
                break
            then = next((e for e in _entries(before.kind, probe) if before.until(e) is not None), None)
            if then is None:
                break
            hand = await asyncio.to_thread(_by_hand, its, before.kind, then)
            since = hand or (candidate.imported_utc_us, candidate.imported_by)
            if hand is not None:
                break
    return ListMatch(
        name=version.name,
        buyer=version.buyer,
        version=version.version,
        revision=version.revision,
        since_utc_us=since[0],
        exact=exact,
        by=since[1],
        expires_s=expires_s,
    )


def _entries(kind: Kind, probe: Probe) -> tuple[Entry, ...]:
    return (probe.number,) if kind is Kind.NUMBER else tuple(one for _, one in probe.digests(kind))


def _by_hand(changes: Sequence[ListChange], kind: Kind, entry: Entry) -> tuple[int, str] | None:
    """When and by whom an entry was put on a list by hand; None where it came with the file."""
    found: tuple[int, str] | None = None
    for one in changes:
        change: Change = decode(one.document, kind)
        if entry in change.remove:
            found = None
        elif entry in change.add and found is None:
            found = one.at_utc_us, one.by
    return found


def rows(base: Base) -> Iterator[tuple[str, int]]:
    """(entry, second from which it no longer holds, 0 for ever) of all a list has; E.164, or digests in hex."""
    for part in merge(base.layers, Tally()):
        yield from zip(_texts(part), _until(part), strict=True)


def _texts(part: Entries) -> Iterator[str]:
    if part.rest is None:
        return (f"+{one}" for one in part.keys.tolist())
    whole = np.empty((len(part), KEY_BYTES + part.rest.shape[1]), np.uint8)
    whole[:, :KEY_BYTES] = part.keys.astype(">u8").view(np.uint8).reshape(-1, KEY_BYTES)
    whole[:, KEY_BYTES:] = part.rest
    return (one.tobytes().hex() for one in whole)


def _until(part: Entries) -> list[int]:
    return [0] * len(part) if part.expires is None else part.expires.tolist()


def sizes(data_dir: Path, lists: Sequence[ListVersion], broken: Sequence[str]) -> list[Size]:
    """The size of each list's file, and whether the list can be used."""
    found = []
    for one in lists:
        file = data_dir / one.file
        found.append(Size(one, file.stat().st_size if file.is_file() else 0, one.name not in broken))
    return found
