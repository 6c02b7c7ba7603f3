"""Loads a list from its file and its changes into memory, and verifies both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import structlog

from book.lists import NAMED_ONLY, ListChange, ListVersion
from suppression import snapshot
from suppression.changes import Change, combine, decode
from suppression.index import LoadedList, finder
from suppression.kinds import Kind

_log = structlog.get_logger(__name__)


def load_list(
    file: Path,
    version: ListVersion,
    changes: Sequence[ListChange],
    before: LoadedList | None = None,
    *,
    mapped: bool = False,
) -> LoadedList:
    """The list in that state; what `before` has of the same file is used again. Never raises: what cannot be read or
    does not prove itself comes without a snapshot, and the log says why.
    """
    kind = Kind(version.kind)
    if version.version == NAMED_ONLY:
        _log.info("suppression_list_not_imported", list=version.name)
        return _unusable(version, kind)
    try:
        whole = checked(version, changes)
        same = before is not None and before.version == version.version and before.snapshot is not None
        if before is not None and same:
            read, find = before.snapshot, before.find
        else:
            read = open_snapshot(file, version, mapped=mapped)
            find = finder(read)
    except snapshot.SnapshotError as error:
        _log.error("suppression_list_unavailable", list=version.name, version=version.version, error=str(error))
        return _unusable(version, kind)
    if not same:
        _log.info("suppression_list_loaded", list=version.name, version=version.version, entries=version.entries)
    return LoadedList(
        name=version.name,
        version=version.version,
        revision=version.revision,
        state=version.state,
        buyer=version.buyer,
        kind=kind,
        snapshot=read,
        change=whole,
        expires_s=None if version.expires_utc_us is None else version.expires_utc_us / 1e6,
        find=find,
    )


def open_snapshot(file: Path, version: ListVersion, *, mapped: bool = False) -> snapshot.Snapshot:
    """The file of a version, which must be what the store says. Raises SnapshotError."""
    read = snapshot.load(file, version.checksum, mapped=mapped)
    if read.kind != version.kind or read.count != version.entries:
        raise snapshot.SnapshotError(f"{file}: is not the list that was activated: {read.count} of kind {read.kind}")
    return read


def checked(version: ListVersion, changes: Sequence[ListChange]) -> Change:
    """All changes as one. Raises SnapshotError where they do not lead to the state that the store names."""
    state = version.checksum
    for revision, one in enumerate(changes, start=1):
        state = hashlib.sha256(f"{state}\n".encode() + one.document).hexdigest()
        if one.revision != revision or one.state != state:
            raise snapshot.SnapshotError(f"list {version.name}: change {one.revision} is damaged or out of turn")
    if version.revision != len(changes) or version.state != state:
        raise snapshot.SnapshotError(f"list {version.name}: {len(changes)} of {version.revision} changes are there")
    try:
        return combine(decode(one.document, Kind(version.kind)) for one in changes)
    except ValueError as error:
        raise snapshot.SnapshotError(f"list {version.name}: {error}") from error


def fingerprint(file: Path) -> tuple[int, ...]:
    """A fingerprint of a file by its metadata: another value after the file was repaired."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _unusable(version: ListVersion, kind: Kind) -> LoadedList:
    return LoadedList(
        name=version.name,
        version=version.version,
        revision=version.revision,
        state=version.state,
        buyer=version.buyer,
        kind=kind,
        snapshot=None,
    )
