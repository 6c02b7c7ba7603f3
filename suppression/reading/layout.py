"""Determines the layout of a text: where its rows begin, their delimiter, and the lines above them.

Which of the columns hold numbers is chosen in `choice`. What stands above the rows is accounted for: a line that tells
the delimiter, lines that somebody said to skip, and the header.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

from suppression.kinds import Kind
from suppression.reading.choice import SAMPLE_ROWS, Choice, Row, shown
from suppression.reading.rows import (
    MAX_ROW,
    after_empty_lines,
    decidable,
    decode,
    exact,
    line_ends,
    never_closes,
    too_long,
    unquote,
)
from suppression.reading.shapes import Layout, PartKind, ReadOptions, UnreadableError, UnusedPart
from suppression.reading.watching import holds_number

MAX_BLANK = 10_000  # rows of delimiters alone that are looked past
DELIMITERS = ",;\t|"
_SEPARATOR = re.compile(rb'"?sep=([^\r\n])"?[,;\t| ]*(?:\r\n|\r|\n|\Z)', re.IGNORECASE)  # as Excel writes and reads it
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")


@dataclass(frozen=True, slots=True)
class LayoutMatch:
    """A layout, and where the rows begin: after `offset` bytes, on line `line`. `above`: what stands before them."""

    layout: Layout
    header_bytes: bytes = b""
    offset: int = 0
    line: int = 1
    above: tuple[UnusedPart, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sample:
    """The first rows with content, under one delimiter."""

    delimiter: str
    rows: list[Row]
    open_at: int = -1  # where a row begins that does not end
    cut: bool = False  # there is more text than was looked at

    @property
    def width(self) -> int:
        return max((len(row.cells) for row in self.rows), default=1)

    @property
    def steadiness(self) -> tuple[float, int]:
        """(share of rows with the usual number of cells, that number), of numbers above one."""
        widths = Counter(len(row.cells) for row in self.rows if len(row.cells) > 1)
        if not widths:
            return 0.0, 1
        width, times = max(widths.items(), key=lambda one: (one[1], one[0]))
        return times / len(self.rows), width


def decide(head: bytes, options: ReadOptions, where: str, *, last: bool, delimiter: str = "") -> LayoutMatch:
    """From the beginning of a text (`last`: all of it). Raises UnreadableError."""
    start, above = 0, []
    told = None if delimiter else _declared_delimiter(head, where)
    if told is not None:
        delimiter, start = told
        above.append(UnusedPart(PartKind.LINES, "1, which tells the delimiter"))
    if options.skip_rows and head[start:].strip():
        start, skipped = _skipped(head, options, where)
        above.append(skipped)
    samples = [_sample(head, one, start, last=last) for one in delimiter or DELIMITERS]
    split = [sample for sample in samples if sample.width > 1] or samples[:1]
    split.sort(key=lambda sample: sample.steadiness, reverse=True)
    refused: UnreadableError | None = None
    for sample in split:
        try:
            found = _match(head, sample, options, where, start)
        except UnreadableError as error:
            refused = refused or error
            continue
        if refused is not None and sample.steadiness[0] < split[0].steadiness[0]:
            # it divides the rows worse than one by which nothing could be read: that is no evidence for it
            if not found.layout.guessed and not found.layout.header:
                break
            found = replace(found, layout=replace(found.layout, sure=found.layout.sure and not found.layout.guessed))
        return replace(found, above=(*above, *found.above))
    assert refused is not None
    raise refused


def _declared_delimiter(head: bytes, where: str) -> tuple[str, int] | None:
    """(delimiter, where the line ends) of a first line such as `sep=;`."""
    found = _SEPARATOR.match(head)
    if found is None:
        return None
    delimiter = found[1].decode("latin-1")
    if delimiter not in DELIMITERS:
        raise UnreadableError(f"{where}: line 1 says that {delimiter!r} divides cells; only , ; | and tabs are read")
    return delimiter, found.end()


def _skipped(head: bytes, options: ReadOptions, where: str) -> tuple[int, UnusedPart]:
    """(where the lines end that are to be skipped, what they were)."""
    at = numbers = first = 0
    for line in range(1, options.skip_rows + 1):
        found = _LINE.match(head, at)
        if found is None or found.end() == at:
            raise UnreadableError(f"{where}: {options.skip_rows} lines are to be skipped, and it has {line - 1}")
        cells = [head[one:two] for mark in DELIMITERS for one, two in exact(mark).cells(head, at, found.end())]
        hits = {cell for cell in cells if holds_number(decode(unquote(cell)).strip(), options)}
        numbers += bool(hits)
        first = first or (line if hits else 0)
        at = found.end()
    return at, UnusedPart(PartKind.LINES, f"1 to {options.skip_rows}, skipped as told", numbers=numbers, line=first)


def _sample(head: bytes, delimiter: str, start: int, *, last: bool) -> _Sample:
    parser = exact(delimiter)
    end = decidable(head, len(head), last=last)
    rows: list[Row] = []
    at, blank = start, 0
    while len(rows) <= SAMPLE_ROWS and blank < MAX_BLANK:
        at = after_empty_lines(head, at, end)
        if at == end:
            break
        stop = parser.row(head, at, end, last=last)
        if stop < 0:
            return _Sample(delimiter, rows, at if last or end - at > MAX_ROW else -1, cut=not last)
        cells = [decode(unquote(head[one:two])).strip() for one, two in parser.cells(head, at, stop)]
        if any(cells):
            rows.append(Row(at, stop, cells))
        else:
            blank += 1
        at = stop
    return _Sample(delimiter, rows, cut=at < end or not last)


def _match(head: bytes, sample: _Sample, options: ReadOptions, where: str, start: int) -> LayoutMatch:
    if sample.open_at >= 0:
        line = 1 + line_ends(head[: sample.open_at])
        raise too_long(where, line) if sample.cut else never_closes(where, line)
    if not sample.rows and sample.cut:
        raise UnreadableError(f"{where}: begins with too many blank rows")
    line = 1 + line_ends(head[:start])
    if not sample.rows:
        return LayoutMatch(Layout(options.kind or Kind.NUMBER, sample.delimiter), offset=start, line=line)
    layout = Choice(sample.rows, sample.delimiter, options, where, head).layout()
    if not layout.header:
        return LayoutMatch(layout, offset=start, line=line)
    first = sample.rows[0]
    line = 1 + line_ends(head[: first.start])
    numbers = sum(holds_number(cell, options) for cell in first.cells)
    above = UnusedPart(
        PartKind.LINES, f"{line}, the header: {shown(layout.header)}", numbers=numbers, line=line * bool(numbers)
    )
    header = head[first.start : first.end]
    return LayoutMatch(layout, header, first.end, 1 + line_ends(head[: first.end]), (above,))
