"""Activates a version of a list in one step, also where the list is changed by others at the same time.

The store swaps versions only where the list still is as it was looked at. Where it has moved on, a version that stands
for itself takes the changes made since along; one that was built upon the list is built again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from book.lists import NAMED_ONLY, Actor, ListChange, ListVersion, NewVersion, StaleError
from suppression import snapshot
from suppression.changes import Change, EntryError, as_entries, combine, converted, decode, encode
from suppression.index import LoadedList, finder
from suppression.kinds import Kind
from suppression.loading import load_list
from suppression.ports import ListStore
from suppression.report import ReadReport
from suppression.snapshot import Entries, Extent
from suppression.sorting import Layer, SnapshotRun, ordered

FOLDER = "suppression"  # inside the data folder
TRIES = 20  # others may change a list again and again while we look at it


class ListRefusedError(Exception):
    """The list was not activated; the one in force before, if any, still is. `report` says what was read."""

    def __init__(self, message: str, report: ReadReport | None = None) -> None:
        super().__init__(message)
        self.report = report


def never_still(name: str) -> ListRefusedError:
    """After TRIES."""
    return ListRefusedError(f"list {name!r} is being changed all the time: try again")


@dataclass(frozen=True, slots=True)
class Base:
    """The list as it is: what a new version is built upon. No `version`: there is none in force."""

    version: ListVersion | None
    changes: Sequence[ListChange]
    loaded: LoadedList | None

    @property
    def kind(self) -> Kind:
        return Kind(self.version.kind) if self.version is not None else Kind.NUMBER

    @property
    def expect(self) -> tuple[int, int] | None:
        return None if self.version is None else (self.version.version, self.version.revision)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The list, changes included, for a merge."""
        if self.loaded is None or self.loaded.snapshot is None:
            return ()
        change, kind = self.loaded.change, self.kind
        file = Layer((SnapshotRun(self.loaded.snapshot),))
        added, removed = as_entries(change.add, kind), as_entries(change.remove, kind)
        return (file, Layer((ordered(removed),), removes=True), Layer((ordered(added),)))


@dataclass(frozen=True, slots=True)
class Activation:
    """The version in force in the end; for a dry run what it would be."""

    version: int
    revision: int
    count: int
    checksum: str
    changed: bool


@dataclass(frozen=True, slots=True)
class VersionPlan:
    """The version to be made of a list.

    `merges`: it is built upon the version in force, and keeps its expiry. Otherwise what was changed by hand after
    `mark`, a (version, revision), is carried over, and for None all of it. `keep_changes`: the same entries are no new
    version, whatever was changed by hand. `buyer` None: the list is global.
    """

    name: str
    buyer: str | None
    kind: Kind
    source: str
    source_checksum: str
    expires_utc_us: int | None
    merges: bool
    mark: tuple[int, int] | None = None
    keep_changes: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class LogEntry:
    """The log entry of an activation; `detail` is called once the version is built."""

    actor: Actor
    action: str
    detail: Callable[[], Mapping[str, object]]


Build = Callable[[Base], tuple[Callable[[], Iterator[Entries]], Extent]]


async def current_base(store: ListStore, data_dir: Path, name: str, *, must_load: bool) -> Base:
    """The list as it is now. Raises ListRefusedError where `must_load` and its file cannot be used."""
    for _ in range(TRIES):
        version = await store.find(name)
        if version is None:
            return Base(None, (), None)
        changes = await store.changes(name, version.version)
        if len(changes) == version.revision:
            break
    else:
        raise never_still(name)
    loaded = await asyncio.to_thread(load_list, data_dir / version.file, version, changes, mapped=True)
    if must_load and version.version == NAMED_ONLY:
        raise ListRefusedError(f"list {name!r} is asked for and was never imported: import it first")
    if must_load and loaded.snapshot is None:
        raise ListRefusedError(f"list {name!r}: version {version.version} cannot be read: replace or restore it")
    return Base(version, changes, loaded)


async def changed_by_hand(store: ListStore, base: Base, mark: tuple[int, int] | None = None) -> Change:
    """What was changed by hand after `mark`, a (version, revision); for None ever since the list stood for itself.

    A fold, an addition and a removal make a version of the one before: what was changed by hand then is in its file,
    and on record with the version it was made of.
    """
    version, found = base.version, [list(base.changes)]
    history = {one.version: one for one in await store.history(version.name)} if version is not None else {}
    while version is not None and version.based_on is not None and (mark is None or version.version != mark[0]):
        version = history.get(version.based_on)
        if version is not None:
            found.insert(0, list(await store.changes(version.name, version.version)))
    if mark is not None and version is not None and version.version == mark[0]:
        found[0] = found[0][mark[1] :]
    return combine(decode(one.document, base.kind) for some in found for one in some)


def convert(change: Change, base: Base, kind: Kind) -> Change:
    """What was changed by hand, for a new version of another kind. Raises ListRefusedError."""
    try:
        return converted(change, base.kind, kind)
    except EntryError as error:
        raise ListRefusedError(f"{error}; replace the list without them, or restore with --drop-changes") from error


async def put_in_force(
    store: ListStore, data_dir: Path, build: Build, plan: VersionPlan, entry: LogEntry
) -> Activation:
    """Build a version, write it, activate it. Raises ListRefusedError, SnapshotError, OSError."""
    for _ in range(TRIES):
        base = await current_base(store, data_dir, plan.name, must_load=plan.merges)
        entries, extent = await asyncio.to_thread(build, base)
        if plan.merges and base.version is not None:
            plan = replace(plan, expires_utc_us=base.version.expires_utc_us)
        if plan.dry_run or _is_same(base, extent, plan.expires_utc_us, edited=plan.keep_changes):
            if not plan.dry_run:
                await store.refused(plan.name, entry.actor, action="unchanged", detail=entry.detail())
            return _as_it_is(base, extent, dry_run=plan.dry_run)
        file, checksum = await asyncio.to_thread(_write, data_dir / FOLDER, plan, entries, extent)
        new = _new_version(plan, base, extent, file=str(file.relative_to(data_dir)), checksum=checksum)
        try:
            done = await _activate(store, data_dir, new, base, plan=plan, entry=entry)
        except ListRefusedError:  # after anything else the store may have it in force all the same
            file.unlink(missing_ok=True)
            raise
        if done is not None:
            return Activation(done.version, done.revision, done.count, done.checksum, changed=True)
        file.unlink(missing_ok=True)
    raise never_still(plan.name)


def _new_version(plan: VersionPlan, base: Base, extent: Extent, *, file: str, checksum: str) -> NewVersion:
    return NewVersion(
        name=plan.name,
        buyer=plan.buyer,
        kind=plan.kind.value,
        file=file,
        checksum=checksum,
        source=plan.source,
        source_checksum=plan.source_checksum,
        entries=extent.count,
        count=extent.count,
        expires_utc_us=plan.expires_utc_us,
        keep_expiry=plan.merges,
        based_on=base.version.version if plan.merges and base.version is not None else None,
    )


async def activate_with(
    store: ListStore,
    data_dir: Path,
    new: NewVersion,
    change: Change,
    actor: Actor,
    *,
    action: str,
    expect: tuple[int, int] | None,
    detail: Mapping[str, object],
) -> ListVersion:
    """Activate a version with a first change on top. Raises StaleError, ListRefusedError, SnapshotError."""
    kind = Kind(new.kind)
    if change:
        counted = await asyncio.to_thread(_counted, data_dir / new.file, new, change, kind)
        new = replace(new, change=encode(change), count=counted)
    try:
        return await store.activate(new, actor, action=action, expect=expect, detail=detail)
    except ValueError as error:
        raise ListRefusedError(str(error)) from error


async def _activate(
    store: ListStore, data_dir: Path, new: NewVersion, base: Base, *, plan: VersionPlan, entry: LogEntry
) -> ListVersion | None:
    """None where it must be built again."""
    detail, mark = entry.detail(), base.expect if plan.merges else plan.mark
    for _ in range(TRIES):
        now = await current_base(store, data_dir, new.name, must_load=False)
        if plan.merges and _version(now) != _version(base):
            return None
        change = convert(await changed_by_hand(store, now, mark), now, plan.kind)
        try:
            return await activate_with(
                store, data_dir, new, change, entry.actor, action=entry.action, expect=now.expect, detail=detail
            )
        except StaleError:
            continue
    return None


def _version(base: Base) -> int:
    return 0 if base.version is None else base.version.version


def _is_same(base: Base, extent: Extent, expires_utc_us: int | None, *, edited: bool) -> bool:
    """The list in force has exactly these entries, on an undamaged file; `edited`: whatever was changed by hand."""
    if base.version is None or base.loaded is None or base.loaded.snapshot is None:
        return False
    if base.version.revision and not edited:
        return False
    return base.loaded.snapshot.content == extent.content and base.version.expires_utc_us == expires_utc_us


def _as_it_is(base: Base, extent: Extent, *, dry_run: bool) -> Activation:
    if base.version is None:
        return Activation(0, 0, extent.count, "", changed=False)
    count = extent.count if dry_run else base.version.count
    return Activation(base.version.version, base.version.revision, count, base.version.checksum, changed=False)


def _write(
    folder: Path, plan: VersionPlan, entries: Callable[[], Iterator[Entries]], extent: Extent
) -> tuple[Path, str]:
    built_at = datetime.now(UTC).isoformat(timespec="microseconds")
    return snapshot.write(
        folder,
        plan.name,
        entries(),
        extent,
        kind=plan.kind,
        source_checksum=plan.source_checksum,
        built_at=built_at,
    )


def _counted(file: Path, new: NewVersion, change: Change, kind: Kind) -> int:
    read = snapshot.load(file, new.checksum, mapped=True)
    loaded = LoadedList(
        name=new.name,
        version=0,
        revision=0,
        state=new.checksum,
        buyer=new.buyer,
        kind=kind,
        snapshot=read,
        find=finder(read),
    )
    return loaded.count_with(change)
