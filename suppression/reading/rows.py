"""Splits text into rows and cells, megabytes at once: RFC 4180 as Python's `csv` reads it.

A line end or delimiter counts where the number of quotes before it is even. That is exact as long as every quote opens
or closes a cell or is one of a doubled pair; text with any other quote (`5" pipe`) goes to the slow path, row by row.
Line ends are LF, CRLF or CR, as everywhere in Python.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from suppression.reading.shapes import Flags, Ints, Octets, Spans, UnreadableError

MAX_ROW = 1 << 20  # bytes with the line end
PAD = bytes(32)  # behind the text, so that what looks a few bytes ahead needs no care
LF, CR, QUOTE = b'\n\r"'
_LINE_END = re.compile(rb"\r\n|\r|\n")
_EMPTY_LINES = re.compile(rb"[\r\n]*")
_QUOTED = re.compile(rb'"((?:[^"]|"")*+)"(.*)', re.DOTALL)


def line_ends(text: bytes) -> int:
    return len(_LINE_END.findall(text))


def after_empty_lines(text: bytes, at: int, end: int) -> int:
    """Given where a line begins."""
    found = _EMPTY_LINES.match(text, at, end)
    return at if found is None else found.end()


def unquote(raw: bytes) -> bytes:
    """The text of a cell, given its bytes in the file."""
    found = _QUOTED.fullmatch(raw) if raw.startswith(b'"') else None
    return raw if found is None else found[1].replace(b'""', b'"') + found[2]


def decode(raw: bytes) -> str:
    """Bytes that are no UTF-8, as older code pages leave them, become what no number holds."""
    return raw.decode("utf-8", "surrogateescape")


def decidable(data: bytes, size: int, *, last: bool) -> int:
    """How much of the text can be read: an LF may follow a CR that stands last, and they are one line end."""
    return size if last or not size or data[size - 1] != CR else size - 1


def too_long(where: str, line: int) -> UnreadableError:
    return UnreadableError(f"{where}: line {line}: the row that begins here is longer than 1 MB; is a quote left open?")


def never_closes(where: str, line: int) -> UnreadableError:
    return UnreadableError(f"{where}: line {line}: a quote opened in the row that begins here never closes")


class Exact:
    """Rows and cells one at a time, for any text."""

    def __init__(self, delimiter: str) -> None:
        self._mark = delimiter.encode()
        mark = re.escape(self._mark)
        cell = rb'(?:"(?:[^"]++|"")*+"[^%b\r\n]*+|[^"%b\r\n][^%b\r\n]*+|)' % (mark, mark, mark)
        row = rb"%b(?:%b%b)*+" % (cell, mark, cell)
        self._cell = re.compile(cell)
        self._row = re.compile(row + rb"(?:\r\n|\r|\n)")
        self._last = re.compile(row + rb"(?:\r\n|\r|\n|\Z)")

    def row(self, data: bytes, at: int, end: int, *, last: bool) -> int:
        """Where the row that begins at `at` ends, line end included; -1 where it does not end before `end`."""
        found = (self._last if last else self._row).match(data, at, end)
        return -1 if found is None else found.end()

    def cells(self, data: bytes, at: int, end: int) -> list[tuple[int, int]]:
        """Where the cells of a whole row are, quotes included."""
        found = []
        while True:
            match = self._cell.match(data, at, end)
            stop = at if match is None else match.end()
            found.append((at, stop))
            if stop >= end or data[stop : stop + 1] != self._mark:
                return found
            at = stop + 1


@lru_cache(maxsize=16)
def exact(delimiter: str) -> Exact:
    return Exact(delimiter)


class Cells:
    """Where the cells of rows are, one after another; `first`: the place of each row's first one.

    `begin` None: where the one before stops, behind its delimiter or line end. `regular`: how many each row has, where
    all have as many. `returns`: a line may end with CR and LF, and the CR is not the last cell's.
    """

    __slots__ = ("_begin", "_first", "_regular", "_returns", "_stop", "_text")

    def __init__(
        self,
        text: Octets,
        stop: Ints,
        first: Ints,
        begin: Ints | None = None,
        *,
        regular: int = 0,
        returns: bool = False,
    ) -> None:
        self._text = text
        self._stop = stop
        self._first = first
        self._begin = begin
        self._regular = regular
        self._returns = returns

    @property
    def width(self) -> int:
        """Of the widest row."""
        return self._regular or int(np.diff(self._first, append=len(self._stop)).max())

    def all(self) -> Spans:
        """With what stands between the last one of a row and its end."""
        if self._begin is None:
            self._begin = np.empty_like(self._stop)
            self._begin[0] = 0
            np.add(self._stop[:-1], 1, out=self._begin[1:])
        return self._begin, self._stop

    def places(self, cells: Ints) -> tuple[Ints, Ints]:
        """(rows, columns) of some cells."""
        if self._regular:
            return cells // self._regular, cells % self._regular
        rows = np.searchsorted(self._first, cells, side="right") - 1
        return rows, cells - self._first[rows]

    def column(self, column: int) -> Spans:
        """The cells of a column; empty where a row has none."""
        begin, stop = self._uniform(column) if self._regular else self._ragged(column)
        return begin, stop - ((self._text[stop - 1] == CR) & (stop > begin)) if self._returns else stop

    def _uniform(self, column: int) -> Spans:
        many = self._regular
        if column >= many:
            last = self._stop[many - 1 :: many]
            return last, last
        if many == 1:
            return self.all()
        stop = self._stop[column::many]
        if column:
            return self._stop[column - 1 :: many] + 1, stop
        begin = np.empty_like(stop)
        begin[0] = 0
        np.add(self._stop[many - 1 : -1 : many], 1, out=begin[1:])
        return begin, stop

    def _ragged(self, column: int) -> Spans:
        begin, stop = self.all()
        last = np.append(self._first[1:], len(stop)) - 1
        at = np.minimum(self._first + column, last)
        return np.where(self._first + column <= last, begin[at], stop[at]), stop[at]


class Rows:
    """Whole rows of a text; their cells with the quotes around them."""

    __slots__ = ("_kept", "all_lines", "breaks", "cells", "data", "ends", "lines", "starts", "text")

    def __init__(self, data: bytes, starts: Ints, ends: Ints, cells: Cells) -> None:
        self.data = data
        self.text: Octets = np.frombuffer(data, np.uint8)
        self.starts = starts
        self.ends = ends
        self.lines: Ints = starts  # until they are counted
        self.all_lines: Ints = starts  # also of rows that are not kept
        self.breaks: Ints | None = None  # where lines end, if some do inside of cells
        self.cells = cells  # of all rows, also those that are not kept
        self._kept: Ints | None = None

    def column(self, column: int) -> Spans:
        """The cells of a column, quotes included, empty where a row has none."""
        begin, stop = self.cells.column(column)
        return (begin, stop) if self._kept is None else (begin[self._kept], stop[self._kept])

    def of_several_lines(self) -> list[tuple[int, list[tuple[int, int]]]]:
        """Of rows with line ends inside: (line, where their other lines begin and end); before any were dropped."""
        if self.breaks is None:
            return []
        inside = np.searchsorted(self.breaks, self.ends - 1) - np.searchsorted(self.breaks, self.starts)
        found = []
        for at in np.flatnonzero(inside > 0).tolist():
            begin, end = int(self.starts[at]), int(self.ends[at])
            marks = [(one.start(), one.end()) for one in _LINE_END.finditer(self.data, begin, end)]
            stops = [stop for stop, _ in marks if stop < end] + [end]
            found.append((int(self.lines[at]), list(zip([after for _, after in marks], stops[1:], strict=False))))
        return found

    def keep(self, which: Flags) -> None:
        """Drop the others."""
        self.starts, self.ends, self.lines = self.starts[which], self.ends[which], self.lines[which]
        self._kept = np.flatnonzero(which) if self._kept is None else self._kept[which]


class Scanner:
    """Pieces of a text in, whole rows out; empty lines are left out, and the beginning of a row waits for its end.

    Raises UnreadableError, saying the line on which it began: a row past MAX_ROW, or a quote that is never closed.
    """

    def __init__(self, delimiter: str, where: str, line: int = 1) -> None:
        self._delimiter = delimiter
        self._mark = ord(delimiter)
        self._where = where
        self._line = line  # on which the next row begins
        self._carry = b""
        self._edge = np.zeros(256, np.bool_)  # what may stand outside, next to a quote that opens or closes a cell
        self._edge[[self._mark, LF, CR, QUOTE]] = True

    def feed(self, piece: bytes, *, last: bool = False) -> Rows | None:
        """None where there is no row with content."""
        data = b"".join((self._carry, piece, PAD))
        size = len(data) - len(PAD)
        end = decidable(data, size, last=last)
        rows = self._rows(data, end, last=last) if end else None
        used = 0
        if rows is not None:
            used = int(rows.ends[-1])
            self._finish(rows, used)
        self._carry = data[used:size]
        if len(self._carry) > MAX_ROW:
            raise too_long(self._where, self._line)
        return rows if rows is not None and rows.starts.size else None

    def _rows(self, data: bytes, end: int, *, last: bool) -> Rows | None:
        text: Octets = np.frombuffer(data, np.uint8)
        body = text[:end]
        ending: Flags = body == LF
        returns = np.flatnonzero(body == CR) if data.find(b"\r", 0, end) >= 0 else None
        if returns is not None:
            ending[returns[text[returns + 1] != LF]] = True
        marks = ending | (body == self._mark)
        quoted = data.find(b'"', 0, end) >= 0
        stops = self._outside(text, marks, end, last=last) if quoted else np.flatnonzero(marks)
        if stops is None:
            rows = self._slowly(data, end, last=last)
        else:
            rows = _grid(data, stops, ending, end, last=last, returns=returns is not None)
        if rows is not None and quoted:
            rows.breaks = np.flatnonzero(ending)
        return rows

    def _outside(self, text: Octets, marks: Flags, end: int, *, last: bool) -> Ints | None:
        """The marks outside of quotes; None where that cannot be told by counting quotes."""
        places = np.flatnonzero(marks | (text[:end] == QUOTE))
        quoting = text[places] == QUOTE
        inside = np.cumsum(quoting, dtype=np.uint32).astype(np.uint8) & 1
        quotes = places[quoting]
        opening = inside[quoting] == 1
        before = self._edge[text[quotes - 1]] | (quotes == 0)
        after = self._edge[text[quotes + 1]] | (quotes + 1 >= end)
        if not np.where(opening, before, after).all() or (last and inside[-1]):
            return None
        outside: Ints = places[(inside == 0) & ~quoting]
        return outside

    def _slowly(self, data: bytes, end: int, *, last: bool) -> Rows | None:
        parser = exact(self._delimiter)
        starts: list[int] = []
        ends: list[int] = []
        firsts: list[int] = []
        cells: list[tuple[int, int]] = []
        at = 0
        while at < end and (stop := parser.row(data, at, end, last=last)) >= 0:
            firsts.append(len(cells))
            cells += parser.cells(data, at, stop)
            starts.append(at)
            ends.append(stop)
            at = stop
        if last and at < end:
            line = self._line + line_ends(data[:at])
            raise never_closes(self._where, line)
        if not starts:
            return None
        spans = np.array(cells, dtype=np.int64)
        text: Octets = np.frombuffer(data, np.uint8)
        where = Cells(text, spans[:, 1].copy(), np.array(firsts, dtype=np.int64), spans[:, 0].copy())
        return Rows(data, np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64), where)

    def _finish(self, rows: Rows, used: int) -> None:
        """Number the lines, drop the empty ones, and let no row be too long."""
        if rows.breaks is None:
            rows.lines = np.arange(self._line, self._line + len(rows.ends), dtype=np.int64)
            self._line += len(rows.ends)
        else:
            rows.lines = self._line + np.searchsorted(rows.breaks, rows.starts)
            self._line += int(np.searchsorted(rows.breaks, used))
        rows.all_lines = rows.lines
        long = rows.ends - rows.starts > MAX_ROW
        if long.any():
            raise too_long(self._where, int(rows.lines[long.argmax()]))
        first = rows.text[rows.starts]
        empty = (first == LF) | (first == CR)
        if empty.any():
            rows.keep(~empty)


def _grid(data: bytes, stops: Ints, ending: Flags, end: int, *, last: bool, returns: bool) -> Rows | None:
    """Rows from the places of delimiters and line ends."""
    closing = ending[stops]
    if last and not (stops.size and stops[-1] == end - 1 and closing[-1]):  # the last row lacks its line end
        stops, closing = np.append(stops, end), np.append(closing, True)
    closers = np.flatnonzero(closing)
    if not closers.size:
        return None
    row_stops = stops[closers]
    starts = np.empty_like(row_stops)
    starts[0] = 0
    np.add(row_stops[:-1], 1, out=starts[1:])
    ends = np.minimum(row_stops + 1, end)
    width = (int(closers[-1]) + 1) // len(closers)
    regular = np.array_equal(closers, np.arange(width - 1, width * len(closers), width))
    stops = stops[: int(closers[-1]) + 1]
    first = np.concatenate((np.zeros(1, np.int64), closers[:-1] + 1)) if not regular else closers
    text: Octets = np.frombuffer(data, np.uint8)
    begin = starts if regular and width == 1 else None
    cells = Cells(text, stops, first, begin, regular=width if regular else 0, returns=returns)
    return Rows(data, starts, ends, cells)
