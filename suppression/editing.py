"""Edits lists: adds and removes numbers, folds changes into a file, restores an older version."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from book.lists import Actor, ListVersion, NewVersion, StaleError
from suppression import snapshot
from suppression.activating import (
    FOLDER,
    TRIES,
    Activation,
    Base,
    ListRefusedError,
    LogEntry,
    VersionPlan,
    activate_with,
    changed_by_hand,
    convert,
    current_base,
    never_still,
    put_in_force,
)
from suppression.changes import (
    MAX_ENTRIES,
    Change,
    Entry,
    EntryError,
    combine,
    decode,
    encode,
    parse_entry,
    same_entries,
)
from suppression.expiry import LAST_S
from suppression.index import LoadedList
from suppression.kinds import Kind
from suppression.loading import load_list
from suppression.ports import ListStore
from suppression.snapshot import Entries, Extent
from suppression.sorting import Tally, merge

_log = structlog.get_logger(__name__)

FOLD_REVISIONS = 200  # changes by hand; then they are folded into a new file
FOLD_ENTRIES = 20_000
ORPHAN_S = 86_400  # a file that no version names is deleted after this; younger, it may be about to be named


@dataclass(frozen=True, slots=True)
class EditResult:
    """The result of a manual change. `version` and `revision` are in force now."""

    version: int
    revision: int
    added: int
    removed: int
    already: int  # to be added, and on the list before
    absent: int  # to be removed, and not on the list
    count: int  # entries in force


async def edit(
    store: ListStore, data_dir: Path, name: str, *, add: Mapping[str, int], remove: Iterable[str], actor: Actor
) -> EditResult:
    """Add and remove entries, in any usual spelling; beside an added one the Unix second of its end, 0 for none.

    All of it or nothing. Raises ListRefusedError: no such list, too many entries, or one that cannot be read, which
    is named by its place.
    """
    remove = list(remove)
    if len(add) + len(remove) > MAX_ENTRIES:
        raise ListRefusedError(f"{len(add) + len(remove)} entries: more than {MAX_ENTRIES} are a file to be imported")
    for _ in range(TRIES):
        base = await current_base(store, data_dir, name, must_load=True)
        if base.version is None or base.loaded is None or base.expect is None:
            raise ListRefusedError(f"no list called {name!r} is in force")
        change, already, absent = _effective(base.loaded, add, remove)
        version = base.version
        if change:
            count = version.count + sum(base.loaded.until(entry) is None for entry in change.add) - len(change.remove)
            try:
                version = await store.change(name, encode(change), count, actor, action="edit", expect=base.expect)
            except StaleError:
                continue
        done = EditResult(
            version=version.version,
            revision=version.revision,
            added=len(change.add),
            removed=len(change.remove),
            already=already,
            absent=absent,
            count=version.count,
        )
        if version.revision >= FOLD_REVISIONS or _many(base, change):
            try:
                await fold(store, data_dir, name, actor)
            except ListRefusedError as error:  # the change is in force all the same; the next one tries again
                _log.warning("suppression_fold_failed", list=name, error=str(error))
        return done
    raise never_still(name)


async def fold(store: ListStore, data_dir: Path, name: str, actor: Actor) -> Activation:
    """Write a new version that holds what the list and its changes hold; entries whose time has run out are left out.

    Raises ListRefusedError.
    """
    before = await store.find(name)
    if before is None:
        raise ListRefusedError(f"no list called {name!r} is in force")
    kind = Kind(before.kind)

    def build(base: Base) -> tuple[Callable[[], Iterator[Entries]], Extent]:
        now_s = int(time.time())

        def passed() -> Iterator[Entries]:
            return (_unexpired(entries, now_s) for entries in merge(base.layers, Tally()))

        return passed, snapshot.extent_of(passed(), kind)

    plan = VersionPlan(
        name=name,
        buyer=before.buyer,
        kind=kind,
        source=before.source,
        source_checksum=before.source_checksum,
        expires_utc_us=before.expires_utc_us,
        merges=True,
    )
    entry = LogEntry(actor, "fold", lambda: {"changes": before.revision})
    try:
        return await put_in_force(store, data_dir, build, plan, entry)
    except (snapshot.SnapshotError, OSError) as error:
        raise ListRefusedError(str(error)) from error


async def restore(
    store: ListStore, data_dir: Path, name: str, version: int, actor: Actor, *, drop_changes: bool = False
) -> ListVersion:
    """Put an older version in force again, as a new one, with the changes it had in its time.

    Changes made by hand to the version now in force are carried over unless they are to be dropped: a number that a
    person put on the list yesterday stays on it. The list keeps the expiry it has. Raises ListRefusedError, of a file
    that is gone or damaged too.
    """
    old = next((row for row in await store.history(name) if row.version == version), None)
    if old is None:
        raise ListRefusedError(f"list {name!r} has no version {version}")
    kind = Kind(old.kind)
    its = await store.changes(name, version)
    own = combine(decode(change.document, kind) for change in its)
    loaded = await asyncio.to_thread(load_list, data_dir / old.file, old, its, mapped=True)
    if loaded.snapshot is None:
        raise ListRefusedError(f"list {name!r}: version {version} cannot be read: its file is gone or damaged")
    try:
        file = await asyncio.to_thread(_own_copy, data_dir, old.file)
    except snapshot.SnapshotError as error:
        raise ListRefusedError(f"list {name!r}: version {version}: {error}") from error
    for _ in range(TRIES):
        now = await current_base(store, data_dir, name, must_load=False)
        if now.version is not None and now.version.version == version:
            raise ListRefusedError(f"list {name!r}: version {version} is in force")
        if now.version is None and old.expires_utc_us is not None and old.expires_utc_us <= time.time_ns() // 1000:
            raise ListRefusedError(f"list {name!r}: the time of version {version} has run out: import it again")
        carried = Change() if drop_changes else convert(await changed_by_hand(store, now), now, kind)
        change = combine((own, carried))
        new = NewVersion(
            name=name,
            buyer=old.buyer,
            kind=old.kind,
            file=file,
            checksum=old.checksum,
            source=old.source,
            source_checksum=old.source_checksum,
            entries=old.entries,
            count=old.entries,
            expires_utc_us=old.expires_utc_us,
            keep_expiry=True,
            based_on=version,
        )
        detail = {"of": version, "carried": len(carried.add) + len(carried.remove)}
        with contextlib.suppress(StaleError):
            return await activate_with(
                store, data_dir, new, change, actor, action="restore", expect=now.expect, detail=detail
            )
    raise never_still(name)


async def prune(store: ListStore, data_dir: Path, keep: int) -> int:
    """Delete the files of old versions, and those that no version names; how many. The versions stay on record."""
    gone = 0
    for one in await store.prunable(keep):
        gone += await asyncio.to_thread(_unlink, data_dir / one.file)
    named = await store.files()
    return gone + await asyncio.to_thread(_delete_orphans, data_dir, named)


def _own_copy(data_dir: Path, file: str) -> str:
    """The same file under a name of its own, so that pruning the old version does not take it from the new one."""
    old = data_dir / file
    new = old.with_name(f"{old.stem}-{secrets.token_hex(4)}.list")
    try:
        os.link(old, new)
    except OSError:  # a file system without links
        snapshot.copy(old, new)
    os.utime(new)
    return str(new.relative_to(data_dir))


def _effective(loaded: LoadedList, add: Mapping[str, int], remove: list[str]) -> tuple[Change, int, int]:
    """What really changes; how many to be added are on the list, how many to be removed are not."""
    adding: dict[Entry, int] = {}
    removing: set[Entry] = set()
    asked: set[Entry] = set()
    already = absent = 0
    for at, (text, until) in enumerate(add.items(), start=1):
        try:
            entry = parse_entry(text, loaded.kind)
        except EntryError as error:
            raise ListRefusedError(f"entry {at} to be added: {error}; nothing was changed") from error
        asked.add(entry)
        if until > LAST_S:
            raise ListRefusedError(f"entry {at} to be added: ends after 2106; nothing was changed")
        held = loaded.until(entry)
        if held is not None and (not held or 0 < until <= held):  # to be added is never to be ended sooner
            already += 1
        else:
            adding[entry] = until
    for at, text in enumerate(remove, start=1):
        try:
            there = [one for one in same_entries(text, loaded.kind) if loaded.until(one) is not None]
        except EntryError as error:
            raise ListRefusedError(f"entry {at} to be removed: {error}; nothing was changed") from error
        absent += not there
        removing.update(there)
    if removing & asked:
        raise ListRefusedError("an entry is both to be added and to be removed; nothing was changed")
    return Change(adding, frozenset(removing)), already, absent


def _many(base: Base, change: Change) -> bool:
    before = base.loaded.change if base.loaded is not None else Change()
    return len(before.add) + len(before.remove) + len(change.add) + len(change.remove) >= FOLD_ENTRIES


def _unexpired(entries: Entries, now_s: int) -> Entries:
    if entries.expires is None:
        return entries
    return entries.only((entries.expires == 0) | (entries.expires > now_s))


def _unlink(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def _delete_orphans(data_dir: Path, named: frozenset[str]) -> int:
    oldest = time.time() - ORPHAN_S
    gone = 0
    for pattern in ("*.list", ".*.part"):
        for file in (data_dir / FOLDER).glob(pattern):
            if str(file.relative_to(data_dir)) not in named and file.stat().st_mtime < oldest:
                gone += _unlink(file)
    return gone
