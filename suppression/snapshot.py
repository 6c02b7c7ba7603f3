"""A suppression list on disk: an immutable file of sorted numbers that proves its own integrity.

    magic (8 bytes) | header length (4, little-endian) | header, JSON, padded to 8
    | numbers, 64-bit little-endian, sorted | SHA-256 of everything before (32)

A file is written under a temporary name, synced, renamed and its folder synced, so a name either holds a whole list or
nothing. It is never changed afterwards: a new version is a new file. Reading verifies all of it; a damaged file is
refused (`SnapshotError`), for a list that lost numbers would let people be called who asked not to be.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

MAGIC = b"BATONSL\n"
FORMAT_VERSION = 1
NUMBER_BYTES = 8
_LENGTH_BYTES = 4
_DIGEST_BYTES = 32
_HEADER_MAX = 65_536  # a header is a few hundred bytes; more means that this is no list


class SnapshotError(RuntimeError):
    """The file is missing, damaged, or not a list of a format this version reads."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A list in memory. `numbers` is sorted and without repeats; `checksum` is the SHA-256 of the file, hex."""

    numbers: array[int]
    checksum: str
    source_checksum: str
    built_at: str  # ISO 8601, UTC


def write(folder: Path, name: str, numbers: array[int], *, source_checksum: str, built_at: str) -> tuple[Path, str]:
    """Write sorted numbers to a new file in `folder`; returns it and its checksum. Raises SnapshotError."""
    content = _encode(numbers, source_checksum, built_at)
    checksum = hashlib.sha256(content).hexdigest()
    target = folder / f"{name}-{checksum[:16]}.list"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(target, content)
    except OSError as error:
        raise SnapshotError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target, checksum


def read(file: Path, checksum: str = "") -> Snapshot:
    """Read and verify a file; `checksum`, where given, must be the file's. Raises SnapshotError."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SnapshotError(f"{file}: cannot be read: {error.strerror or error}") from error
    found = hashlib.sha256(content).hexdigest()
    if checksum and found != checksum:
        raise SnapshotError(f"{file}: is damaged or was exchanged: its checksum is not the one that was activated")
    header, start = _header(file, content)
    end = len(content) - _DIGEST_BYTES
    if hashlib.sha256(content[:end]).digest() != content[end:]:
        raise SnapshotError(f"{file}: is damaged: its own checksum does not match")
    numbers = array("Q")
    if numbers.itemsize != NUMBER_BYTES or end - start != NUMBER_BYTES * header["count"]:
        raise SnapshotError(f"{file}: is damaged: {header['count']} numbers announced, {end - start} bytes there")
    numbers.frombytes(content[start:end])
    if sys.byteorder == "big":
        numbers.byteswap()
    return Snapshot(numbers, found, header["source_checksum"], header["built_at"])


def _encode(numbers: array[int], source_checksum: str, built_at: str) -> bytes:
    header = orjson.dumps(
        {
            "format": FORMAT_VERSION,
            "count": len(numbers),
            "source_checksum": source_checksum,
            "built_at": built_at,
        },
        option=orjson.OPT_SORT_KEYS,
    )
    header += b" " * (-(len(MAGIC) + _LENGTH_BYTES + len(header)) % NUMBER_BYTES)
    body = array("Q", numbers)
    if sys.byteorder == "big":
        body.byteswap()
    content = MAGIC + len(header).to_bytes(_LENGTH_BYTES, "little") + header + body.tobytes()
    return content + hashlib.sha256(content).digest()


def _header(file: Path, content: bytes) -> tuple[dict[str, Any], int]:
    start = len(MAGIC) + _LENGTH_BYTES
    length = int.from_bytes(content[len(MAGIC) : start], "little")
    if not content.startswith(MAGIC) or len(content) < start + length + _DIGEST_BYTES or length > _HEADER_MAX:
        raise SnapshotError(f"{file}: is not a suppression list, or was cut short")
    try:
        header = orjson.loads(content[start : start + length])
    except orjson.JSONDecodeError as error:
        raise SnapshotError(f"{file}: is damaged: its header cannot be read") from error
    wanted = {"format": int, "count": int, "source_checksum": str, "built_at": str}
    if not isinstance(header, dict) or not all(isinstance(header.get(key), kind) for key, kind in wanted.items()):
        raise SnapshotError(f"{file}: is damaged: its header lacks a field")
    if header["format"] != FORMAT_VERSION:
        raise SnapshotError(f"{file}: has format {header['format']}; this version reads {FORMAT_VERSION}")
    return header, start + length


def _write_whole(target: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
