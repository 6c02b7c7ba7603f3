"""Watches the columns that are not read: whether their cells look like phone numbers, and so should have been read.

What columns hold is decided by the first rows, and a file may go on otherwise: a second telephone begins on line 5,000,
a row has a cell more than the others. So while rows pass, the cells beside the columns that are read are counted, whole
batches at once: only those with as many digits as a number are looked into.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from book.numbers import NANP_REGIONS, NumberError, normalise
from suppression.kinds import Kind
from suppression.reading import cells
from suppression.reading.cells import CellError
from suppression.reading.rows import Rows, decode, exact, unquote
from suppression.reading.shapes import (
    ColumnError,
    Flags,
    Ints,
    Layout,
    Octets,
    PartKind,
    ReadOptions,
    UnreadableError,
    UnusedPart,
)

HANDFUL = 3  # cells of a column that read as numbers, and nobody can say that it holds none
MIN_DIGITS = 7  # of a number with its country, as short as there are
HOME_DIGITS = 10  # of one without it, in North America
_LINES_OF_NUMBERS = 2  # in a cell, behind its first line: of two numbers in one cell the row is rejected
MAX_LOOKS = 20_000  # at cells of a column one by one
AROUND = " \t\"'"
_DIGESTS = {2 * one.digest_bytes: one for one in Kind if one.digest_bytes}
_ABROAD = np.ones(256, np.bool_)  # how a cell begins that may say its country: by no digit but 0
_ABROAD[list(b"123456789")] = False
_ZERO, _TEN = np.uint8(ord("0")), np.uint8(10)
_ASCII = 0x80  # bytes below
_OTHERS = (0xD9, 0xDB, 0xEF)  # with which digits of other scripts begin in UTF-8: Arabic, Persian, full width


_INSIDE = re.compile(
    r"(?<![0-9a-f.])(?:\+?1[ .\-]?)?\(?[2-9][0-9]{2}\)?[ .\-/]{0,2}[2-9][0-9]{2}[ .\-]?[0-9]{4}(?![0-9a-f])",
    re.IGNORECASE | re.ASCII,
)


def has_number(text: str) -> bool:
    """Whether a person would see a North American number in a cell, among words or beside another number."""
    return _INSIDE.search(text) is not None


def holds_number(text: str, options: ReadOptions) -> bool:
    """Whether a cell is a number or a digest, or has a number in it."""
    return kind_of(text, options) is not None or has_number(text)


def kind_of(text: str, options: ReadOptions) -> Kind | None:
    """The kind of a cell's entry, among the possible kinds; None: unreadable."""
    kind = options.kind
    if kind is None:
        bare = text.strip(AROUND)
        kind = _DIGESTS.get(len(bare) - 2 * (bare[:2].lower() == "0x"), Kind.NUMBER)
    try:
        if kind is not Kind.NUMBER:
            cells.digest(text, kind)
        elif any(map(str.isdigit, text)):
            normalise(text, options.region)
        else:
            return None
    except (CellError, NumberError):
        return None
    return kind


def _digits(text: Octets) -> Flags:
    found: Flags = text - _ZERO < _TEN
    if text.max(initial=0) >= _ASCII:
        for one in _OTHERS:
            found |= text == one
    return found


@dataclass(slots=True)
class _ColumnCounts:
    """Of a column."""

    numbers: int = 0
    others: int = 0  # cells that cannot be read, and have a number in them
    line: int = 0  # of the first of either
    looks: int = 0
    known: dict[str, tuple[bool, bool]] = field(default_factory=dict)


class Watch:
    """On the columns of a part that are not read.

    Raises ColumnError (`refusal`, where there is one) as soon as a column beside those that were guessed has a handful
    of numbers. Where somebody has named those that are read, the others are only counted.
    """

    def __init__(self, layout: Layout, options: ReadOptions, where: str, refusal: ColumnError | None = None) -> None:
        self._layout = layout
        self._options = ReadOptions(kind=None, region=options.region)
        self._where = where
        self._refusal = refusal
        self._used = frozenset(layout.used)
        self._seen: dict[int, _ColumnCounts] = {}
        self._width = layout.width
        self._home = options.region in NANP_REGIONS

    def look(self, rows: Rows) -> None:
        """At all rows, also those without anything in the columns that are read. Raises UnreadableError."""
        self._look_for_rows_in_cells(rows)
        width = rows.cells.width
        self._width = max(self._width, width)
        if self._used.issuperset(range(width)):
            return
        begin, stop = rows.cells.all()
        digits = _digits(rows.text)
        so_far = np.cumsum(digits, dtype=np.int32)
        many = so_far[stop] - so_far[begin] + digits[begin]  # what stands where a cell stops is no digit
        places = np.flatnonzero(many >= MIN_DIGITS)
        if self._home:  # fewer than ten are a number only with its country
            abroad = _ABROAD[rows.text[begin[places]]]
            places = places[(many[places] >= HOME_DIGITS) | abroad]
        if not places.size:
            return
        row, column = rows.cells.places(places)
        for one in np.flatnonzero(np.bincount(column)).tolist():
            if one not in self._used:
                mine = column == one
                at = places[mine]
                self._look_at(one, rows, row[mine], (begin[at], stop[at]))

    def _look_for_rows_in_cells(self, rows: Rows) -> None:
        """A quote that was never meant to open a cell takes all rows up to the next quote into it."""
        least = _LINES_OF_NUMBERS if self._layout.width == 1 else 1
        for line, others in rows.of_several_lines():
            if sum(self._is_row(rows.data, *one) for one in others) >= least:
                raise UnreadableError(
                    f"{self._where}: line {line}: a cell of the row that begins here holds lines that read as rows of"
                    " their own; is a quote left open? If not, take the line ends out of the cell"
                )

    def _is_row(self, data: bytes, begin: int, end: int) -> bool:
        cells_of_it = exact(self._layout.delimiter).cells(data, begin, end)
        if len(cells_of_it) < min(self._layout.width, 2):
            return False
        texts = [decode(unquote(data[one:two])).strip() for one, two in cells_of_it]
        return any(kind_of(texts[one], self._options) for one in self._layout.columns if one < len(texts))

    def _look_at(self, column: int, rows: Rows, row: Ints, spans: tuple[Ints, Ints]) -> None:
        seen = self._seen.setdefault(column, _ColumnCounts())
        hits = cells.numbers(rows.text, cells.trim(rows.text, spans), home=self._home).done
        others = np.zeros_like(hits)
        for at in np.flatnonzero(~hits).tolist():
            text = decode(unquote(rows.data[spans[0][at] : spans[1][at]])).strip()
            known = seen.known.get(text)
            if known is None:
                if seen.looks == MAX_LOOKS:
                    break
                seen.looks += 1
                known = seen.known[text] = (kind_of(text, self._options) is not None, has_number(text))
            hits[at], others[at] = known[0], known[1] and not known[0]
        any_of = hits | others
        if not seen.line and any_of.any():
            seen.line = int(rows.all_lines[row[any_of.argmax()]])
        many = int(np.count_nonzero(hits))
        seen.numbers += many
        seen.others += int(np.count_nonzero(others))
        if many:
            self._judge(column, seen)

    def _judge(self, column: int, seen: _ColumnCounts) -> None:
        few = 1 if column >= self._layout.width else HANDFUL  # a cell that the first rows do not have at all
        if seen.numbers < few or not self._layout.guessed:
            return
        if self._refusal is not None:
            raise self._refusal
        names = ", ".join(map(repr, (*self._layout.column_names, self._layout.name(column))))
        raise ColumnError(
            f"{self._where}: line {seen.line}: column {self._layout.name(column)!r} holds numbers too and was not read;"
            f" say which of {names} are meant"
        )

    def unused(self, member: str) -> list[UnusedPart]:
        """The columns that were not read."""
        if not self._layout.columns:
            found = self._seen.values()
            first = min((one.line for one in found if one.line), default=0)
            return [
                UnusedPart(PartKind.SHEET, member, numbers=sum(one.numbers + one.others for one in found), line=first)
            ]
        left = (one for one in range(self._width) if one not in self._used)
        return [self._unused(one, member) for one in left]

    def _unused(self, column: int, member: str) -> UnusedPart:
        seen = self._seen.get(column, _ColumnCounts())
        return UnusedPart(PartKind.COLUMN, self._layout.name(column), member, seen.numbers + seen.others, seen.line)
