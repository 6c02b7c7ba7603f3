"""Members of a ZIP archive: which are lists, and their bytes."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import IO
from zipfile import BadZipFile, ZipFile, ZipInfo

from suppression.reading.shapes import UnreadableError
from suppression.reading.sources import PIECE

SUFFIXES = {"", ".csv", ".txt", ".tsv", ".gz", ".xlsx"}
WORKBOOK = "[Content_Types].xml"  # ECMA-376 part 2: every XLSX has it, and other archives do not
DAMAGE = (BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, ValueError)
_ENCRYPTED = 1  # general purpose bit 0, APPNOTE 4.4.4


def open_archive(file: IO[bytes], where: str) -> ZipFile:
    """Raises UnreadableError."""
    try:
        return ZipFile(file)
    except DAMAGE as error:
        raise UnreadableError(f"{where}: is damaged or cut short: its ZIP directory cannot be read") from error


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
