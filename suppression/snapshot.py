"""A suppression list on disk: an immutable file that proves its own integrity.

    magic (8 bytes) | header length (4, little-endian) | header, JSON, padded to 8
    | sections, each padded to 8 | SHA-256 of everything before (32)

Entries are 64-bit keys in order, each once (`suppression.kinds`). A list of numbers lies in one of two ways, whichever
is smaller: `keys` as they are, 8 bytes each; or in blocks of 65,536 consecutive numbers, of which `blocks` has the high
part, `starts` where it begins, and `lows` 16 bits for each number in it: 2 bytes a number for a national list. Beside
them may lie `rest`, the other bytes of each digest, and `expires`, the second of the Unix epoch from which an entry no
longer holds (0: for ever).

A file is written under a temporary name, synced, renamed and its folder synced, so a name either holds a whole list or
nothing. It is never changed afterwards: a new version is a new file. Opening verifies all of it; a damaged file is
refused (`SnapshotError`), for a list that lost numbers would let people be called who asked not to be. Format 1, of
Baton's first lists, is read too.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import orjson

from suppression.kinds import Kind

MAGIC = b"BATONSL\n"
FORMAT_VERSION = 2
BLOCK_BITS = 16
PIECE = 16 << 20  # bytes hashed or written at once
SMALL = 1 << 20  # bytes; such a file is always copied
_FIRST_FORMAT = 1
_ALIGN = 8
_LENGTH_BYTES = 4
_DIGEST_BYTES = 32
_HEADER_MAX = 65_536  # a header is a few hundred bytes; more means that this is no list
_FIELDS: dict[str, type] = {"format": int, "count": int, "source_checksum": str, "built_at": str}
_ITEM_BYTES = {"keys": 8, "blocks": 8, "starts": 4, "lows": 2, "expires": 4}

Keys = npt.NDArray[np.uint64]
Rest = npt.NDArray[np.uint8]
Expires = npt.NDArray[np.uint32]


class SnapshotError(RuntimeError):
    """The file is missing, damaged, or not a list of a format this version reads."""


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Some entries: keys in order without repeats (with `rest`: each digest once), and what lies beside them."""

    keys: Keys
    rest: Rest | None = None  # (n, Kind.rest_bytes)
    expires: Expires | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def only(self, which: slice | npt.NDArray[np.bool_]) -> Entries:
        """The entries at these positions."""
        return Entries(
            self.keys[which],
            None if self.rest is None else self.rest[which],
            None if self.expires is None else self.expires[which],
        )


@dataclass(frozen=True, slots=True)
class Extent:
    """What must be known of all entries before the first is written. `blocks` empty: keys lie as they are."""

    count: int
    content: str = ""  # SHA-256 of the entries alone, hex: the same entries have the same, whenever they are written
    blocks: Keys = field(default_factory=lambda: np.empty(0, np.uint64))
    starts: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))  # one more than blocks


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """An open list. Sections are views of `content`, which may be a map of the file."""

    kind: Kind
    count: int
    checksum: str  # SHA-256 of the file, hex
    source_checksum: str
    built_at: str  # ISO 8601, UTC
    content: str  # SHA-256 of the entries alone; empty in a file of format 1
    sections: dict[str, memoryview]

    def entries(self, start: int, stop: int) -> Entries:
        """Entries by position."""
        rest = self.rest
        expires = self.expires
        return Entries(
            self._keys(start, stop),
            None if rest is None else rest[start:stop],
            None if expires is None else expires[start:stop],
        )

    @property
    def rest(self) -> Rest | None:
        found = self.sections.get("rest")
        return None if found is None else np.frombuffer(found, np.uint8).reshape(self.count, -1)

    @property
    def expires(self) -> Expires | None:
        found = self.sections.get("expires")
        return None if found is None else np.frombuffer(found, np.uint32)

    def _keys(self, start: int, stop: int) -> Keys:
        if "keys" in self.sections:
            return np.frombuffer(self.sections["keys"], np.uint64)[start:stop]
        starts = np.frombuffer(self.sections["starts"], np.uint32)
        lows = np.frombuffer(self.sections["lows"], np.uint16)[start:stop]
        first = int(np.searchsorted(starts, start, "right")) - 1
        last = int(np.searchsorted(starts, stop, "left"))
        blocks = np.frombuffer(self.sections["blocks"], np.uint64)[first:last]
        bounds = np.clip(starts[first : last + 1].astype(np.int64), start, stop)
        high: Keys = np.repeat(np.left_shift(blocks, np.uint64(BLOCK_BITS)), np.diff(bounds))
        return np.bitwise_or(high, lows.astype(np.uint64), dtype=np.uint64)


def extent_of(passes: Iterable[Entries], kind: Kind) -> Extent:
    """Count entries, and choose how they lie. Memory: 12 bytes a block, at most half the size of the keys."""
    count, highs, counts = 0, [], []
    digest = _ContentDigest()
    for entries in passes:
        if not len(entries):
            continue
        digest.take(entries)
        count += len(entries)
        if kind is Kind.NUMBER:
            high, many = np.unique(entries.keys >> np.uint64(BLOCK_BITS), return_counts=True)
            highs.append(high)
            counts.append(many)
    content = digest.finish(kind)
    if not count or kind is not Kind.NUMBER:
        return Extent(count, content)
    blocks, where = np.unique(np.concatenate(highs), return_inverse=True)
    sizes = np.zeros(len(blocks), np.int64)
    np.add.at(sizes, where, np.concatenate(counts))
    blocked_bytes = len(blocks) * (_ITEM_BYTES["blocks"] + _ITEM_BYTES["starts"]) + count * _ITEM_BYTES["lows"]
    if blocked_bytes >= count * _ITEM_BYTES["keys"] or count >= 2**32:
        return Extent(count, content)
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes))).astype(np.uint32)
    return Extent(count, content, blocks, starts)


class _ContentDigest:
    """Of entries in order, however they come apart."""

    def __init__(self) -> None:
        self._parts = {name: hashlib.sha256() for name in ("keys", "rest", "expires")}

    def take(self, entries: Entries) -> None:
        for name, digest in self._parts.items():
            part = getattr(entries, name)
            if part is not None:
                digest.update(_bytes(part))

    def finish(self, kind: Kind) -> str:
        whole = b"".join(digest.digest() for digest in self._parts.values())
        return hashlib.sha256(kind.encode() + whole).hexdigest()


def write(
    folder: Path,
    name: str,
    passes: Iterable[Entries],
    extent: Extent,
    *,
    kind: Kind,
    source_checksum: str,
    built_at: str,
) -> tuple[Path, str]:
    """Write entries, in order, to a new file in `folder`; returns it and its checksum. Raises SnapshotError."""
    target = folder / f"{name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(folder) as (file, path):
            writer = _Writer(file)
            _write_all(writer, folder, passes, extent, _facts(kind, extent, source_checksum, built_at))
            checksum = writer.finish()
            target = folder / f"{name}-{checksum[:16]}.list"
            path.replace(target)
        sync_folder(folder)
    except OSError as error:
        raise SnapshotError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target, checksum


def load(file: Path, checksum: str = "", *, mapped: bool = False) -> Snapshot:
    """Open and verify a file; `checksum`, where given, must be the file's. Raises SnapshotError.

    `mapped` shares its memory with all who map it; but who truncates a mapped file kills its readers (SIGBUS), so
    those who must not die copy it.
    """
    try:
        content, own, found = _content(file, mapped=mapped)
    except OSError as error:
        raise SnapshotError(f"{file}: cannot be read: {error.strerror or error}") from error
    if checksum and found != checksum:
        raise SnapshotError(f"{file}: is damaged or was exchanged: its checksum is not the one that was activated")
    header, start = _header(file, content)
    end = len(content) - _DIGEST_BYTES
    if own != content[end:]:
        raise SnapshotError(f"{file}: is damaged: its own checksum does not match")
    sections = _sections(file, content[:end], header, start)
    kind = Kind(header.get("kind", Kind.NUMBER))
    _check_sections(file, kind, header["count"], sections)
    return Snapshot(
        kind=kind,
        count=header["count"],
        checksum=found,
        source_checksum=header["source_checksum"],
        built_at=header["built_at"],
        content=str(header.get("content", "")),
        sections=sections,
    )


def _facts(kind: Kind, extent: Extent, source_checksum: str, built_at: str) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "kind": kind.value,
        "count": extent.count,
        "content": extent.content,
        "source_checksum": source_checksum,
        "built_at": built_at,
    }


class _Writer:
    """Writes and hashes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def put(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self._digest.update(content)

    def pad(self, size: int) -> None:
        self.put(bytes(-size % _ALIGN))

    def finish(self) -> str:
        """Append the checksum, sync; returns that of the whole file."""
        self.put(self._digest.digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()


def _write_all(writer: _Writer, folder: Path, passes: Iterable[Entries], extent: Extent, facts: dict[str, Any]) -> None:
    """Header, then sections. What lies beside the keys waits in temporary files, for the keys come first."""
    first = iter(passes)
    head = next(first, None)
    rest_bytes = Kind(facts["kind"]).rest_bytes
    sizes = {} if not len(extent.blocks) else {"blocks": extent.blocks.nbytes, "starts": extent.starts.nbytes}
    main = "lows" if sizes else "keys"
    sizes[main] = extent.count * _ITEM_BYTES[main]
    beside = {"rest": extent.count * rest_bytes} if rest_bytes else {}
    beside |= (
        {"expires": extent.count * _ITEM_BYTES["expires"]} if head is not None and head.expires is not None else {}
    )
    header = orjson.dumps({**facts, "sections": list({**sizes, **beside}.items())}, option=orjson.OPT_SORT_KEYS)
    header += b" " * (-(len(MAGIC) + _LENGTH_BYTES + len(header)) % _ALIGN)
    writer.put(MAGIC + len(header).to_bytes(_LENGTH_BYTES, "little") + header)
    if main == "lows":
        for part in (extent.blocks, extent.starts):
            writer.put(_bytes(part))
            writer.pad(part.nbytes)
    with contextlib.ExitStack() as stack:
        aside = {name: stack.enter_context(tempfile.TemporaryFile(dir=folder)) for name in beside}
        written = 0
        for entries in () if head is None else chain((head,), first):
            keys = entries.keys.astype(np.uint16) if main == "lows" else entries.keys
            writer.put(_bytes(keys))
            written += len(entries)
            for name, file in aside.items():
                file.write(_bytes(getattr(entries, name)))
        if written != extent.count:
            raise SnapshotError(f"{written} entries came where {extent.count} were counted")
        writer.pad(sizes[main])
        for name, file in aside.items():
            file.seek(0)
            while piece := file.read(PIECE):
                writer.put(piece)
            writer.pad(beside[name])


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    """The array's bytes, little-endian."""
    if sys.byteorder != "little":  # pragma: no cover - refused when a list is opened, see _content
        raise SnapshotError("suppression lists need a little-endian machine")
    return np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")


def _content(file: Path, *, mapped: bool) -> tuple[memoryview, bytes, str]:
    """The file in memory, the SHA-256 of all but its last 32 bytes, and that of all of it, hex."""
    if sys.byteorder != "little":  # pragma: no cover
        raise SnapshotError(f"{file}: suppression lists need a little-endian machine")
    with file.open("rb", buffering=0) as opened:
        size = os.fstat(opened.fileno()).st_size
        mapped = mapped and size >= SMALL  # a process may have some 65,000 maps
        digest, at, end = hashlib.sha256(), 0, max(0, size - _DIGEST_BYTES)
        held = memoryview(b"") if not size else _room(opened, size, mapped=mapped)
        while at < end:  # file and hash in pieces, so that one pass over memory does for both
            stop = min(end, at + PIECE)
            many = stop - at if mapped else opened.readinto(held[at:stop])
            if not many:
                break
            digest.update(held[at : at + many])
            at += many
        own = digest.digest()
        if at == end and not mapped and size:
            at += opened.readinto(held[at:])
        content = (held if mapped else held[:at]).toreadonly()
        digest.update(content[end:])
        return content, own, digest.hexdigest()


def _room(opened: FileIO, size: int, *, mapped: bool) -> memoryview:
    """A map of the file; or memory for it, which for a large list goes back to the system whole with its last view."""
    if mapped:
        return memoryview(mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ))
    if size < SMALL:
        return memoryview(bytearray(size))
    room = mmap.mmap(-1, size)
    with contextlib.suppress(AttributeError, OSError):  # where the system has them: fewer misses, a faster look-up
        room.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(room)


def _header(file: Path, content: memoryview) -> tuple[dict[str, Any], int]:
    start = len(MAGIC) + _LENGTH_BYTES
    length = int.from_bytes(content[len(MAGIC) : start], "little")
    if content[: len(MAGIC)] != MAGIC or len(content) < start + length + _DIGEST_BYTES or length > _HEADER_MAX:
        raise SnapshotError(f"{file}: is not a suppression list, or was cut short")
    try:
        header = orjson.loads(content[start : start + length])
    except orjson.JSONDecodeError as error:
        raise SnapshotError(f"{file}: is damaged: its header cannot be read") from error
    if not isinstance(header, dict) or not all(isinstance(header.get(key), kind) for key, kind in _FIELDS.items()):
        raise SnapshotError(f"{file}: is damaged: its header lacks a field")
    if header["format"] not in (_FIRST_FORMAT, FORMAT_VERSION):
        raise SnapshotError(f"{file}: has format {header['format']}; this version reads {FORMAT_VERSION}")
    if header["format"] == _FIRST_FORMAT:
        header["sections"] = [["keys", header["count"] * _ITEM_BYTES["keys"]]]
    return header, start + length


def _sections(file: Path, content: memoryview, header: dict[str, Any], start: int) -> dict[str, memoryview]:
    """Views by name; all are items of their own size, except `rest`, which is bytes."""
    codes: dict[str, Literal["Q", "I", "H"]] = {"keys": "Q", "blocks": "Q", "starts": "I", "lows": "H", "expires": "I"}
    found: dict[str, memoryview] = {}
    at = start
    try:
        for name, size in header["sections"]:
            found[name] = content[at : at + size].cast("B").cast(codes.get(name, "B"))
            if found[name].nbytes != size:
                raise SnapshotError(f"{file}: is damaged: cut short in section {name}")
            at += size + -size % _ALIGN
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(f"{file}: is damaged: its header does not say where the entries are") from error
    if at != len(content):
        raise SnapshotError(f"{file}: is damaged: {at - start} bytes announced, {len(content) - start} there")
    return found


def _check_sections(file: Path, kind: Kind, count: int, sections: dict[str, memoryview]) -> None:
    """Each section has as many items as there are entries."""
    wanted = {"rest": count * kind.rest_bytes, "expires": count, "keys": count, "lows": count}
    for name, many in wanted.items():
        if name in sections and len(sections[name]) != many:
            raise SnapshotError(
                f"{file}: is damaged: {count} entries announced, section {name} has {len(sections[name])}"
            )
    blocked = {"blocks", "starts", "lows"} <= set(sections)
    if ("keys" in sections) == blocked or (kind.rest_bytes > 0) != ("rest" in sections):
        raise SnapshotError(f"{file}: is damaged: a section is missing")
    if blocked and (len(sections["starts"]) != len(sections["blocks"]) + 1 or sections["starts"][-1] != count):
        raise SnapshotError(f"{file}: is damaged: its blocks do not fit its entries")


def copy(file: Path, target: Path) -> None:
    """Copy a list's file, whole or not at all. Raises SnapshotError."""
    try:
        with _temporary(target.parent) as (made, path):
            with file.open("rb") as opened:
                shutil.copyfileobj(opened, made, PIECE)
            made.flush()
            os.fsync(made.fileno())
            path.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise SnapshotError(f"{target}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file under a temporary name, gone at the end unless it was renamed."""
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb", buffering=PIECE) as file:
            yield file, path
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
