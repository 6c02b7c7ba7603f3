"""A list file of any usual form, read as a stream of batches: what the rest of Baton imports of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self
from zipfile import ZipFile, ZipInfo

from suppression.reading.archives import choose, is_workbook, member_pieces, open_archive
from suppression.reading.batches import batch, columns
from suppression.reading.layout import Found, decide
from suppression.reading.rows import Scanner
from suppression.reading.shapes import Batch, Layout, Reject, UnreadableError, Wanted
from suppression.reading.sheets import MAX_BYTES, sheet, too_large
from suppression.reading.sources import HEAD, PIECE, RawFile, Stream, after, checksum, is_zip, peek, text_of

__all__ = ["Batch", "Layout", "ListFile", "Reject", "UnreadableError", "Wanted"]

_GUESS = Wanted()
_MAGIC = 8  # bytes


@dataclass(slots=True)
class _Part:
    """The file, or a member of an archive. `rest`: its rows, where it stays open from the first look on."""

    name: str
    where: str
    open: Callable[[ExitStack], Stream]
    found: Found
    rest: Iterator[bytes] | None = None


class ListFile:
    """Opens a file and decides how to read it; then gives its rows once, in order. Use it in `with`, or close it.

    `chunk` is the bytes of text looked at at once, and bounds a batch. Raises UnreadableError, also while rows are
    read: a file may turn out to be damaged at its end, and then nothing that was read of it counts.
    """

    def __init__(self, path: Path, wanted: Wanted = _GUESS, *, chunk: int = PIECE) -> None:
        self._path = path
        self._wanted = wanted
        self._chunk = chunk
        self._stack = ExitStack()
        self._begun = self._finished = False
        self._packed = False
        self._checksum = ""
        self.skipped: tuple[str, ...] = ()  # members that the pattern leaves out, and sheets after the first
        try:
            with self._readable():
                self._raw = RawFile(path)
                self._stack.callback(self._raw.close)
                self._parts = self._open()
        except BaseException:
            self.close()
            raise
        told = [part for part in self._parts if part.found.layout.sampled or part.found.layout.header]
        first = next((part for part in told if part.found.layout.sampled), (told or self._parts)[0])
        self.layout: Layout = first.found.layout
        self.header_bytes = first.found.header_bytes  # with its line end; as UTF-8 if the file is UTF-16
        self.header_lines = sum(bool(part.found.layout.header) for part in told)  # one of each member that has one
        self.uneven = tuple(
            part.name for part in told if not _alike(part.found.layout, self.layout)
        )  # names of members
        self._agree()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    @property
    def bytes_total(self) -> int:
        """Of the file as it is, packed or not."""
        return self._raw.total

    @property
    def bytes_read(self) -> int:
        """Of these; a hint for who watches."""
        return self._raw.total if self._finished else min(self._raw.taken, self._raw.total)

    @property
    def checksum(self) -> str:
        """SHA-256 of the file as it is. Raises RuntimeError before its last row was given."""
        if not self._finished:
            raise RuntimeError("the checksum is known when the file was read")
        return self._checksum

    def __iter__(self) -> Iterator[Batch]:
        if self._begun:
            raise RuntimeError("a list file is read once")
        self._begun = True
        with self._readable():
            for part in self._parts:
                with ExitStack() as stack:
                    pieces = part.rest or after(part.open(stack).pieces, part.found.offset)
                    yield from self._batches(part, pieces)
            self._checksum = checksum(self._path) if self._packed else self._raw.digest.hexdigest()
        self._finished = True

    def _batches(self, part: _Part, pieces: Iterator[bytes]) -> Iterator[Batch]:
        layout = part.found.layout
        member = part.name if len(self._parts) > 1 else ""
        scanner = Scanner(layout.delimiter, columns(layout), part.where, part.found.line)
        for piece, last in _slices(pieces, self._chunk):
            rows = scanner.feed(piece, last=last)
            made = None if rows is None else batch(rows, layout, self._wanted.region, member)
            if made is not None:
                yield made

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnreadableError(f"{self._path}: cannot be read: {error.strerror or error}") from error

    def _open(self) -> list[_Part]:
        start = self._raw.read(_MAGIC)
        self._raw.seek(0)
        where = str(self._path)
        if not is_zip(start):
            return [self._part("", where, partial(_text, self._raw.pieces(), where), alone=True)]
        file = self._stack.enter_context(BufferedReader(self._raw))
        archive = self._stack.enter_context(open_archive(file, where))
        self._packed = True
        if is_workbook(archive):
            return [self._part("", where, partial(_sheet, file, where), alone=True)]
        chosen, self.skipped = choose(archive, self._wanted.member, where)
        members = [(one, f"{where}: member {one.filename!r}") for one in chosen]
        openers = [(one.filename, place, partial(_member, archive, one, place)) for one, place in members]
        return [self._part(*one, alone=len(chosen) == 1) for one in openers]

    def _part(self, name: str, where: str, opener: Callable[[ExitStack], Stream], *, alone: bool) -> _Part:
        """Looked into; it stays open where it is alone, and others are opened again when their turn comes."""
        with ExitStack() as stack:
            stream = opener(self._stack if alone else stack)
            head, last, pieces = peek(stream.pieces, HEAD)
            found = decide(head, self._wanted, where, last=last, delimiter=stream.delimiter)
        self.skipped += tuple(f"{name}: {one}" if name else one for one in stream.skipped)
        return _Part(name, where, opener, found, after(pieces, found.offset) if alone else None)

    def _agree(self) -> None:
        """Members are of one kind. Those without rows are of the others' kind."""
        for part in self._parts:
            layout = part.found.layout
            if layout.sampled and layout.kind != self.layout.kind:
                raise self._disagree(part)
            part.found = replace(part.found, layout=replace(layout, kind=self.layout.kind))

    def _disagree(self, part: _Part) -> UnreadableError:
        self.close()
        kinds = f"{part.found.layout.kind} where others are {self.layout.kind}"
        return UnreadableError(f"{part.where}: holds entries of the kind {kinds}: import them as lists of their own")


def _alike(one: Layout, other: Layout) -> bool:
    """Whether rows of both may stand under one header."""
    return (one.header, one.delimiter, one.column, one.area_column, one.expires_column) == (
        *(other.header, other.delimiter, other.column, other.area_column, other.expires_column),
    )


def _text(pieces: Iterator[bytes], where: str, _: ExitStack) -> Stream:
    return Stream(text_of(pieces, where))


def _sheet(file: IO[bytes], where: str, stack: ExitStack) -> Stream:
    return sheet(file, stack, where)


def _member(archive: ZipFile, member: ZipInfo, where: str, stack: ExitStack) -> Stream:
    start, _, pieces = peek(member_pieces(archive, member, where), _MAGIC)
    if not is_zip(start):
        return Stream(text_of(pieces, where))
    if member.file_size > MAX_BYTES:
        raise too_large(where)
    file = TemporaryFile()  # noqa: SIM115, closed with the stack
    stack.callback(file.close)
    for piece in pieces:
        file.write(piece)
    with open_archive(file, where) as inner:
        if not is_workbook(inner):
            raise UnreadableError(f"{where}: is an archive inside of an archive: unpack it first")
    return sheet(file, stack, where)


def _slices(pieces: Iterator[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Pieces of at most `size` bytes; the last one, which is empty, says that it is the last."""
    for piece in pieces:
        if len(piece) <= size:
            yield piece, False
        else:
            yield from ((piece[at : at + size], False) for at in range(0, len(piece), size))
    yield b"", True
