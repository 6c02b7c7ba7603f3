"""The sheets of an XLSX workbook, each as the lines of a CSV file: line n is row n."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import lru_cache
from typing import IO
from xml.parsers.expat import ExpatError
from zipfile import ZipFile

from openpyxl.utils import column_index_from_string

from suppression.reading.archives import DAMAGE, open_archive
from suppression.reading.rows import MAX_ROW
from suppression.reading.shapes import UnreadableError
from suppression.reading.sources import Stream
from suppression.reading.workbooks import Text, Workbook, local, open_workbook, parsed, parser, unescaped

MAX_BYTES = 2 << 30  # of all parts, unpacked
MAX_PART = 256 << 20  # bytes, unpacked, of a part that is no sheet: the texts are kept in memory
UNKNOWN = "=?"  # what a formula says that no program has reckoned yet
MAX_ROWS = 1_048_576  # of a sheet, as Excel has it
MAX_COLUMNS = 16_384
_WRONG = (*DAMAGE, ExpatError, LookupError, ArithmeticError)
_WHOLE = 10**15  # floats below it hold whole numbers exactly, and no phone number has more digits
_LINE = "\u2028"  # the end of a line inside of a cell: digits before it and behind it are not one number
_LINE_END = re.compile(r"\r\n|\r|\n")
_Row = tuple[int, list[str]]  # its number from 1, what its cells say


class Sheets:
    """Of an open workbook. `filled`: the titles of those that have content, as they are shown.

    Raises UnreadableError, also while a sheet is read.
    """

    def __init__(self, file: IO[bytes], stack: ExitStack, where: str) -> None:
        archive = stack.enter_context(open_archive(file, where))
        _check_size(archive, where)
        self._where = where
        try:
            self._book = open_workbook(archive)
            parts = [
                one for one in self._book.sheets if any(_has_content(cells) for _, cells in _rows(self._book, one[1]))
            ]
        except _WRONG as error:
            raise _damaged(where, error) from error
        self._parts = [part for _, part in parts]
        self.filled = tuple(title for title, _ in parts)
        self.others = tuple(self._book.others)  # that are no tables of cells

    def stream(self, place: int) -> Stream:
        """One of those that have content, from its beginning."""
        return Stream(_lines(self._book, self._parts[place], self._where), ",")


def _check_size(archive: ZipFile, where: str) -> None:
    parts = archive.infolist()
    others = [one.file_size for one in parts if not one.filename.startswith("xl/worksheets/")]
    if sum(one.file_size for one in parts) > MAX_BYTES or max(others, default=0) > MAX_PART:
        raise too_large(where)


def too_large(where: str) -> UnreadableError:
    return UnreadableError(f"{where}: is too large a workbook to read: save the sheet as CSV")


def _damaged(where: str, error: Exception) -> UnreadableError:
    return UnreadableError(f"{where}: cannot be read as XLSX ({type(error).__name__}): save the sheet as CSV")


def _has_content(cells: list[str]) -> bool:
    return any(map(str.strip, cells))


def _lines(book: Workbook, part: str, where: str) -> Iterator[bytes]:
    """A row that the sheet leaves out is an empty line."""
    line = 1
    text: list[str] = []
    size = 0
    rows = _rows(book, part)
    while True:
        try:
            number, cells = next(rows, (0, []))
        except _WRONG as error:
            raise _damaged(where, error) from error
        if not number or size > MAX_ROW:
            yield "".join(text).encode("utf-8", "replace")
            text.clear()
            size = 0
        if not number:
            return
        text.append("\n" * (number - line) + ",".join(map(_quoted, cells)) + "\n")
        size += len(text[-1])
        line = number + 1


def _quoted(cell: str) -> str:
    if "\n" in cell or "\r" in cell:
        cell = _LINE_END.sub(_LINE if any(map(str.isdigit, cell)) else " ", cell)
    return '"' + cell.replace('"', '""') + '"' if "," in cell or '"' in cell else cell


def _rows(book: Workbook, part: str) -> Iterator[_Row]:
    reader = _Reader(book)
    made = parser()
    made.StartElementHandler, made.EndElementHandler = reader.start, reader.end
    made.CharacterDataHandler = reader.text.data
    for _ in parsed(book.archive, part, made):
        yield from reader.rows
        reader.rows.clear()


@lru_cache(maxsize=MAX_COLUMNS)
def _column(letters: str) -> int:
    return column_index_from_string(letters)


class _Reader:
    """Of the rows of a sheet, in the order in which they stand. Raises ValueError where that is not theirs."""

    def __init__(self, book: Workbook) -> None:
        self._book = book
        self.rows: list[_Row] = []  # for others to take
        self.text = Text()
        self._number = 0  # of the row
        self._cells: list[str] = []
        self._size = 0  # characters of the row
        self._column = 0  # of the cell, from 1
        self._its: dict[str, str] = {}
        self._formula = False  # the cell has one

    def start(self, name: str, its: dict[str, str]) -> None:
        name = local(name)
        if name == "c":
            place = its.get("r")
            before = self._column
            self._column = _column(place.rstrip("0123456789")) if place else before + 1
            if not before < self._column <= MAX_COLUMNS:
                raise ValueError("cells out of order")
            self._its = its
            self._formula = False
        elif name == "f":
            self._formula = True
        elif name == "v":
            self._formula &= self._its.get("t") != "str"  # an empty text may be what it says
            self.text.start(name)
        elif name == "row":
            number = int(its.get("r", self._number + 1))
            if not self._number < number <= MAX_ROWS:
                raise ValueError("rows out of order")
            self._number, self._cells, self._column, self._size = number, [], 0, 0
        else:
            self.text.start(name)

    def end(self, name: str) -> None:
        name = local(name)
        if name == "c":
            text = self.text.take()
            if self._formula and not text:
                text, self._its = UNKNOWN, {"t": "str"}
            if text:
                self._cells.extend([""] * (self._column - 1 - len(self._cells)))
                self._cells.append(self._said(text))
                self._size += len(self._cells[-1])
                if self._size > MAX_ROW:
                    raise ValueError("a row is too long")
        elif name == "row":
            self.rows.append((self._number, self._cells))
        else:
            self.text.end(name)

    def _said(self, text: str) -> str:
        """What a cell shows, given its value: ECMA-376 part 1, section 18.18.11."""
        kind = self._its.get("t", "n")
        if kind == "s":
            return self._book.texts[int(text) if text.isdigit() else len(self._book.texts)]
        if kind == "d":
            return text.removesuffix("T00:00:00")
        if kind != "n":
            return unescaped(text)
        style = int(self._its.get("s", 0))
        if style < len(self._book.dates) and self._book.dates[style]:
            return self._book.date(float(text)) or _number(text)
        return _number(text)


def _number(text: str) -> str:
    """A whole number as its digits, as 2.12555E9 is one too."""
    if text.isdigit():
        return text
    value = float(text)
    return str(int(value)) if value.is_integer() and abs(value) < _WHOLE else text
