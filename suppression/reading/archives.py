"""Reads ZIP archives: which members are lists, and their bytes."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from os import SEEK_END
from pathlib import PurePosixPath
from typing import IO
from zipfile import BadZipFile, ZipFile, ZipInfo

from suppression.reading.shapes import UnreadableError
from suppression.reading.sources import PIECE

SUFFIXES = {"", ".csv", ".txt", ".tsv", ".gz", ".xlsx"}
WORKBOOK = "[Content_Types].xml"  # ECMA-376 part 2: every XLSX has it, and other archives do not
DAMAGE = (BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, ValueError)
_ENCRYPTED = 1  # general purpose bit 0, APPNOTE 4.4.4
_SPLIT_MARKS = (b"PK\x07\x08", b"PK00")  # before the first member of an archive that was split: APPNOTE 8.5.3, 8.5.4
_END = b"PK\x05\x06"  # of the directory, with the size of a comment in the last two of 22 bytes: APPNOTE 4.3.16
_END_SIZE = 22
_MAX_COMMENT = 0xFFFF


def open_archive(file: IO[bytes], where: str) -> ZipFile:
    """Raises UnreadableError, also where the directory does not tell of all that is in the file."""
    try:
        archive = ZipFile(file)
        more = _stands_before(file, archive) or _stands_behind(file)
    except DAMAGE as error:
        raise UnreadableError(f"{where}: is damaged or cut short: its ZIP directory cannot be read") from error
    if more:
        raise UnreadableError(
            f"{where}: holds more than its ZIP directory tells of, such as another archive; take it apart"
        )
    return archive


def _stands_before(file: IO[bytes], archive: ZipFile) -> bool:
    """Whether there is something before the first member; `ZipFile` passes over it."""
    first = min((one.header_offset for one in archive.infolist()), default=0)
    file.seek(0)
    mark = len(_SPLIT_MARKS[0]) if file.read(len(_SPLIT_MARKS[0])) in _SPLIT_MARKS else 0
    return first > mark


def _stands_behind(file: IO[bytes]) -> bool:
    """Whether anything but padding follows the directory and its comment."""
    size = file.seek(0, SEEK_END)
    file.seek(max(0, size - _END_SIZE - _MAX_COMMENT))
    tail = file.read()
    at = tail.rindex(_END)
    comment = int.from_bytes(tail[at + _END_SIZE - 2 : at + _END_SIZE], "little")
    return bool(tail[at + _END_SIZE + comment :].strip(b"\0\r\n\x1a "))


def is_workbook(archive: ZipFile) -> bool:
    return WORKBOOK in archive.namelist()


def choose(archive: ZipFile, pattern: str, where: str) -> tuple[list[ZipInfo], tuple[str, ...]]:
    """(members to read, names of the others). Raises UnreadableError."""
    files = [one for one in archive.infolist() if not one.is_dir()]
    real = [one for one in files if not _is_of_the_system(one)]
    chosen = [one for one in real if not pattern or _matches(one.filename, pattern)]
    if not chosen:
        what = f"no member that matches {pattern!r}" if pattern else "no member"
        raise UnreadableError(f"{where}: has {what}")
    if any(one.filename == "mimetype" for one in files) and any(one.filename == "content.xml" for one in files):
        raise UnreadableError(f"{where}: is an OpenDocument file: save it as XLSX or CSV")
    odd = next((one.filename for one in chosen if not pattern and _suffix(one.filename) not in SUFFIXES), None)
    if odd is not None:
        raise UnreadableError(f"{where}: holds {odd!r}, which may be no list: say which member is meant (`*.csv`)")
    locked = next((one.filename for one in chosen if one.flag_bits & _ENCRYPTED), None)
    if locked is not None:
        raise UnreadableError(f"{where}: {locked!r} is encrypted: unpack it first")
    return chosen, tuple(one.filename for one in files if one not in chosen)


def _is_of_the_system(member: ZipInfo) -> bool:
    path = PurePosixPath(member.filename)
    return path.parts[:1] == ("__MACOSX",) or path.name.startswith(".")


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(PurePosixPath(name).name, pattern)


def member_pieces(archive: ZipFile, member: ZipInfo, where: str) -> Iterator[bytes]:
    """Raises UnreadableError, also at the end: a member proves itself by its checksum (APPNOTE 4.4.7)."""
    try:
        with archive.open(member) as opened:
            while piece := opened.read(PIECE):
                yield piece
    except DAMAGE as error:
        raise UnreadableError(f"{where}: is damaged or cut short: it cannot be unpacked") from error
