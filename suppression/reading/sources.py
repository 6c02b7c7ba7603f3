"""Reads the bytes of a list file as pieces of text: recognised by its first bytes, unpacked and decoded.

What is damaged or cut short raises UnreadableError wherever that shows, for half a list is worse than yesterday's.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from suppression.reading.shapes import UnreadableError

PIECE = 4 << 20  # bytes: of a file read at once, and of a text scanned at once
HEAD = 2 << 20  # bytes looked at before reading: more than the longest row
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_GZIP = b"\x1f\x8b"
_BOM = codecs.BOM_UTF8
_BOM_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TAR_AT = 257
_STARTS = {  # what is no list, by how it begins, and what to do
    b"\xd0\xcf\x11\xe0": "an old or encrypted Excel file: save it as XLSX or CSV",
    b"%PDF": "a PDF: ask for the list as CSV",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it first, or pack it as ZIP",
    b"Rar!": "a RAR archive: unpack it first, or pack it as ZIP",
    b"BZh": "packed with bzip2: unpack it first, or pack it as GZ",
    b"\xfd7zXZ\x00": "packed with xz: unpack it first, or pack it as GZ",
    b"\x28\xb5\x2f\xfd": "packed with zstd: unpack it first, or pack it as GZ",
    b"SQLite format 3\x00": "a database: export the list as CSV",
    b"PAR1": "a Parquet file: export the list as CSV",
    codecs.BOM_UTF32_LE: "in UTF-32: save it as UTF-8",
    codecs.BOM_UTF32_BE: "in UTF-32: save it as UTF-8",
}
_MARKUP = {  # how it begins behind blanks, in small letters
    b"<!doctype html": "a web page, whatever its name: save it as XLSX or CSV",
    b"<html": "a web page, whatever its name: save it as XLSX or CSV",
    b"<table": "a web page, whatever its name: save it as XLSX or CSV",
    b"<?xml": "an XML document: save it as XLSX or CSV",
    b"mime-version:": "a web archive, whatever its name: save it as XLSX or CSV",
    b"{\\rtf": "a text document: save the list as CSV",
}
_WIDE = 4  # of so many bytes at least one is zero, in text of two or four bytes a character


@dataclass(slots=True)
class Stream:
    """A text in pieces."""

    pieces: Iterator[bytes]
    delimiter: str = ""  # empty: to be guessed


class RawFile(io.FileIO):
    """A file that knows how much of it was read, and its checksum if it is read once from its beginning by `pieces`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.total = path.stat().st_size
        self.taken = 0  # bytes; those read twice count twice
        self.digest = hashlib.sha256()

    def readinto(self, buffer: bytearray | memoryview, /) -> int | None:  # type: ignore[override]
        """Read into a buffer: the call of a ZIP archive or of a buffered reader around the file."""
        got = super().readinto(buffer)
        self.taken += got or 0
        return got

    def pieces(self) -> Iterator[bytes]:
        while piece := self.read(PIECE):
            self.taken += len(piece)
            self.digest.update(piece)
            yield piece


def checksum(path: Path) -> str:
    """SHA-256 of the file as it is."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def peek(pieces: Iterator[bytes], size: int) -> tuple[bytes, bool, Iterator[bytes]]:
    """(at least so many bytes if there are, whether that is all, all pieces from the first)."""
    head: list[bytes] = []
    have = 0
    for piece in pieces:
        head.append(piece)
        have += len(piece)
        if have >= size:
            return b"".join(head), False, chain((b"".join(head),), pieces)
    return b"".join(head), True, iter((b"".join(head),))


def after(pieces: Iterator[bytes], offset: int) -> Iterator[bytes]:
    """The pieces without their first `offset` bytes."""
    for piece in pieces:
        if offset < len(piece):
            yield piece[offset:]
        offset = max(0, offset - len(piece))


def is_zip(head: bytes) -> bool:
    return head.startswith(_ZIP_STARTS)


def text_of(pieces: Iterator[bytes], where: str) -> Iterator[bytes]:
    """Text in pieces from a text, or from one packed with gzip. Raises UnreadableError for what is neither."""
    head, _, pieces = peek(pieces, _TAR_AT + 8)
    if head.startswith(_GZIP):
        head, _, pieces = peek(_unpacked(pieces, where), _TAR_AT + 8)
        if head.startswith(_GZIP) or is_zip(head):
            raise UnreadableError(f"{where}: is packed twice: unpack it once")
    what = _no_list(head)
    if what is not None:
        raise UnreadableError(f"{where}: is {what}")
    if head.startswith(_BOM_16):
        return _from_utf16(pieces)
    return after(pieces, len(_BOM)) if head.startswith(_BOM) else pieces


def _no_list(head: bytes) -> str | None:
    """What it is and what to do, where it is certainly no text of lines that we read."""
    what = next((told for start, told in _STARTS.items() if head.startswith(start)), None)
    if what is None and head[_TAR_AT:].startswith(b"ustar"):
        what = "a TAR archive: unpack it first, or pack it as ZIP"
    if what is None:
        bare = head.removeprefix(_BOM).lstrip().lower()
        what = next((told for start, told in _MARKUP.items() if bare.startswith(start)), None)
    if what is None and not head.startswith(_BOM_16) and head[:_TAR_AT].count(0) * _WIDE > len(head[:_TAR_AT]):
        what = "in UTF-16 or UTF-32 without a mark at its beginning, or no text: save it as UTF-8"
    return what


def _unpacked(pieces: Iterator[bytes], where: str) -> Iterator[bytes]:
    """RFC 1952: one member or several, one after the other; zeros may follow (RFC 1952 section 2.2)."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        for piece in pieces:
            data = piece
            while data:
                if inflate.eof:
                    data = data.lstrip(b"\0")
                    inflate = zlib.decompressobj(wbits=31) if data else inflate
                    continue
                text = inflate.decompress(data, PIECE)
                data = inflate.unconsumed_tail or inflate.unused_data
                if text:
                    yield text
    except zlib.error as error:
        raise UnreadableError(f"{where}: is damaged: the GZ data cannot be unpacked") from error
    if not inflate.eof:
        raise UnreadableError(f"{where}: is cut short: the GZ data does not come to its end")


def _from_utf16(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """As UTF-8, without the byte order mark. What is no UTF-16 becomes a mark that no number holds."""
    decoder = codecs.getincrementaldecoder("utf-16")(errors="replace")
    for piece in pieces:
        yield decoder.decode(piece).encode()
    yield decoder.decode(b"", final=True).encode()
