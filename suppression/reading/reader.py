"""Reads a list file of any usual form as a stream of batches. The rest of Baton imports this module of the package.

A file is a text, an archive of several, or a workbook of several sheets. Each of these parts has a layout of its own,
and what is said of the file must hold for each. What of a part is not read is told when it was read to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self
from zipfile import ZipFile, ZipInfo

from suppression.kinds import Kind
from suppression.reading.archives import choose, is_workbook, member_pieces, open_archive
from suppression.reading.batches import batch
from suppression.reading.layout import LayoutMatch, decide
from suppression.reading.rows import Scanner
from suppression.reading.shapes import (
    Batch,
    ColumnError,
    Layout,
    PartKind,
    ReadOptions,
    Reject,
    UnreadableError,
    UnusedPart,
)
from suppression.reading.sheets import MAX_BYTES, MAX_COLUMNS, Sheets, too_large
from suppression.reading.sources import HEAD, PIECE, RawFile, Stream, after, checksum, is_zip, peek, text_of
from suppression.reading.watching import Watch

__all__ = ["Batch", "ColumnError", "Layout", "ListFile", "ReadOptions", "Reject", "UnreadableError", "UnusedPart"]

_GUESS = ReadOptions()
_MAGIC = 8  # bytes


@dataclass(slots=True)
class _Part:
    """The file, a member of an archive, or a sheet. `rest`: its rows, where it stays open from the first look on.

    `refusal`: why a sheet, one of several, cannot be read; it is refused for that only if it holds numbers.
    """

    name: str
    where: str
    open: Callable[[ExitStack], Stream]
    match: LayoutMatch
    rest: Iterator[bytes] | None = None
    refusal: ColumnError | None = None


class ListFile:
    """Opens a file and decides how to read it; then gives its rows once, in order. Use it in `with`, or close it.

    `chunk` is the bytes of text looked at at once, and bounds a batch. Raises UnreadableError, also while rows are
    read: a file may turn out to be damaged at its end, or to hold numbers where its first rows do not, and then nothing
    that was read of it counts.
    """

    def __init__(self, path: Path, options: ReadOptions = _GUESS, *, chunk: int = PIECE) -> None:
        self._path = path
        self._options = options
        self._chunk = chunk
        self._stack = ExitStack()
        self._begun = self._finished = False
        self._packed = False
        self._checksum = ""
        self._left: list[UnusedPart] = []
        self.skipped: tuple[str, ...] = ()  # members and sheets that are not read
        try:
            with self._readable():
                self._raw = RawFile(path)
                self._stack.callback(self._raw.close)
                self._parts = self._open()
            self._check_parts()
        except BaseException:
            self.close()
            raise
        told = [part for part in self._parts if part.match.layout.sampled or part.match.layout.header]
        read = [part for part in told if part.match.layout.columns]
        first = next((part for part in read if part.match.layout.sampled), (read or self._parts)[0])
        self.layout: Layout = first.match.layout
        self.layouts: tuple[Layout, ...] = tuple(part.match.layout for part in read)  # of each part that has content
        self.header_bytes = first.match.header_bytes  # with its line end; as UTF-8 if the file is UTF-16
        self.header_lines = sum(bool(part.match.layout.header) for part in read)  # one of each part that has one
        self.uneven = tuple(
            part.name for part in read if not _alike(part.match.layout, self.layout)
        )  # names of members and sheets
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

    @property
    def unused(self) -> tuple[UnusedPart, ...]:
        """What was not taken as entries, those parts first that seem to hold numbers; all of it after the last row."""
        return tuple(sorted(self._left, key=lambda one: not one.numbers))

    def __iter__(self) -> Iterator[Batch]:
        if self._begun:
            raise RuntimeError("a list file is read once")
        self._begun = True
        with self._readable():
            for part in self._parts:
                with ExitStack() as stack:
                    pieces = part.rest or after(part.open(stack).pieces, part.match.offset)
                    yield from self._batches(part, pieces)
            self._checksum = checksum(self._path) if self._packed else self._raw.digest.hexdigest()
        self._finished = True

    def _batches(self, part: _Part, pieces: Iterator[bytes]) -> Iterator[Batch]:
        layout = part.match.layout
        member = part.name if len(self._parts) > 1 else ""
        scanner = Scanner(layout.delimiter, part.where, part.match.line)
        watch = Watch(layout, self._options, part.where, part.refusal)
        for piece, last in _slices(pieces, self._chunk):
            rows = scanner.feed(piece, last=last)
            if rows is None:
                continue
            watch.look(rows)
            made = batch(rows, layout, self._options, member) if layout.columns else None
            if made is not None:
                yield made
        self._left += [replace(one, member=member) for one in part.match.above]
        self._left += watch.unused(member)

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
            book = Sheets(file, self._stack, where)
            return self._of_sheets("", where, book, lambda _: book)
        chosen, others = choose(archive, self._options.member, where)
        self._leave(PartKind.MEMBER, others)
        parts: list[_Part] = []
        for one in chosen:
            parts += self._of_member(archive, one, f"{where}: member {one.filename!r}", alone=len(chosen) == 1)
        return parts

    def _of_member(self, archive: ZipFile, member: ZipInfo, where: str, *, alone: bool) -> list[_Part]:
        start, _, _ = peek(member_pieces(archive, member, where), _MAGIC)
        if not is_zip(start):
            return [self._part(member.filename, where, partial(_member, archive, member, where), alone=alone)]
        opener = partial(_book, archive, member, where)
        with ExitStack() as stack:
            book = opener(stack)
        return self._of_sheets(member.filename, where, book, opener)

    def _of_sheets(self, name: str, where: str, book: Sheets, opener: Callable[[ExitStack], Sheets]) -> list[_Part]:
        """The sheets that have content, each a part; `opener` opens the workbook `book` again."""
        titles = [f"{name}: sheet {one!r}" if name else f"sheet {one!r}" for one in book.filled]
        pattern = self._options.sheet
        places = [at for at, one in enumerate(book.filled) if not pattern or fnmatchcase(one, pattern)]
        if pattern and not places:
            raise UnreadableError(f"{where}: has no sheet with content that matches {pattern!r}")
        self._leave(PartKind.SHEET, tuple(one for at, one in enumerate(titles) if at not in places))
        self._leave(
            PartKind.SHEET, tuple(f"{name}: chart {one!r}" if name else f"chart {one!r}" for one in book.others)
        )
        if not places:
            return [_Part(name, where, _nothing, decide(b"", self._options, where, last=True, delimiter=","))]
        if len(places) == 1:
            return [self._part(name, where, partial(_sheet, opener, places[0]), alone=True)]
        parts = []
        for at in places:
            where_here = f"{where}: sheet {book.filled[at]!r}"
            parts.append(self._part(titles[at], where_here, partial(_sheet, opener, at), alone=False, is_sheet=True))
        refused = next((part.refusal for part in parts if part.refusal is not None), None)
        if refused is not None and not any(part.match.layout.columns for part in parts):
            raise refused
        return parts

    def _part(
        self,
        name: str,
        where: str,
        opener: Callable[[ExitStack], Stream],
        *,
        alone: bool,
        is_sheet: bool = False,
    ) -> _Part:
        """Looked into; it stays open where it is alone, and others are opened again when their turn comes."""
        refusal: ColumnError | None = None
        with ExitStack() as stack:
            stream = opener(self._stack if alone else stack)
            head, last, pieces = peek(stream.pieces, HEAD)
            try:
                match = decide(head, self._options, where, last=last, delimiter=stream.delimiter)
            except ColumnError as error:
                if not is_sheet:
                    raise
                refusal = error
            else:
                if is_sheet and match.layout.guessed and not match.layout.readable:
                    refusal = ColumnError(f"{where}: none of its first rows reads as a number; name the column")
            if refusal is not None:  # a sheet of remarks beside one of numbers, perhaps
                match = LayoutMatch(
                    Layout(
                        self._options.kind or Kind.NUMBER, stream.delimiter, columns=(), guessed=True, width=MAX_COLUMNS
                    )
                )
        return _Part(
            name=name,
            where=where,
            open=opener,
            match=match,
            rest=after(pieces, match.offset) if alone else None,
            refusal=refusal,
        )

    def _leave(self, what: PartKind, names: tuple[str, ...]) -> None:
        self.skipped += names
        self._left += [UnusedPart(what, one) for one in names]

    def _check_parts(self) -> None:
        """What was said of the columns must mean the same in all parts, and what was guessed be alike."""
        parts = [part for part in self._parts if part.match.layout.columns and part.match.layout.sampled]
        if len(parts) == 1:
            return
        for part in parts:
            layout = replace(part.match.layout, member=part.name)
            if layout.guessed and not layout.header and layout.width > 1:
                others = {one.match.layout.columns for one in parts if one is not part}
                layout = replace(layout, sure=layout.sure and others == {layout.columns})
            part.match = replace(part.match, layout=layout)
        named = [part for part in parts if part.match.layout.header]
        for part in named[1:]:
            if not part.match.layout.guessed and _named(part) != _named(named[0]):
                raise ColumnError(
                    f"{part.where}: the columns said to be read have other names than in {named[0].name!r}: say which"
                    " ones are meant by name, or read them one by one"
                )

    def _agree(self) -> None:
        """Members are of one kind. Those without rows are of the others' kind."""
        for part in self._parts:
            layout = part.match.layout
            if layout.columns and layout.sampled and layout.kind != self.layout.kind:
                raise self._disagree(part)
            part.match = replace(part.match, layout=replace(layout, kind=self.layout.kind))

    def _disagree(self, part: _Part) -> UnreadableError:
        self.close()
        kinds = f"{part.match.layout.kind} where others are {self.layout.kind}"
        return UnreadableError(f"{part.where}: holds entries of the kind {kinds}: import them as lists of their own")


def _named(part: _Part) -> tuple[str, ...]:
    return tuple(one.casefold() for one in part.match.layout.column_names)


def _alike(first: Layout, second: Layout) -> bool:
    """Whether rows of both may stand under one header."""
    return (first.header, first.delimiter, first.columns, first.area_column, first.expires_column) == (
        *(second.header, second.delimiter, second.columns, second.area_column, second.expires_column),
    )


def _nothing(_: ExitStack) -> Stream:
    return Stream(iter(()), ",")


def _text(pieces: Iterator[bytes], where: str, _: ExitStack) -> Stream:
    return Stream(text_of(pieces, where))


def _sheet(opener: Callable[[ExitStack], Sheets], place: int, stack: ExitStack) -> Stream:
    return opener(stack).stream(place)


def _member(archive: ZipFile, member: ZipInfo, where: str, _: ExitStack) -> Stream:
    return Stream(text_of(member_pieces(archive, member, where), where))


def _book(archive: ZipFile, member: ZipInfo, where: str, stack: ExitStack) -> Sheets:
    """A workbook inside of an archive, unpacked for as long as it is open."""
    if member.file_size > MAX_BYTES:
        raise too_large(where)
    file = TemporaryFile()  # noqa: SIM115, closed with the stack
    stack.callback(file.close)
    for piece in member_pieces(archive, member, where):
        file.write(piece)
    with open_archive(file, where) as inner:
        if not is_workbook(inner):
            raise UnreadableError(f"{where}: is an archive inside of an archive: unpack it first")
    return Sheets(file, stack, where)


def _slices(pieces: Iterator[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Pieces of at most `size` bytes; the last one, which is empty, says that it is the last."""
    for piece in pieces:
        if len(piece) <= size:
            yield piece, False
        else:
            yield from ((piece[at : at + size], False) for at in range(0, len(piece), size))
    yield b"", True
