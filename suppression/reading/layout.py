"""Which column holds the numbers: named by the operator, or guessed from the first rows.

A guess is for a person to confirm: it says what it rests on. A column is a candidate where SHARE of its cells can be
read, so an order number that looks like a phone number makes the guess unsure, and never silently wins.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

from config.numbers import NumberError, normalise
from suppression.kinds import Kind
from suppression.reading.cells import CellError, digest
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
from suppression.reading.shapes import Layout, UnreadableError, Wanted

SAMPLE_ROWS = 1_000
MAX_BLANK = 10_000  # rows of delimiters alone that are looked past
SHARE = 80  # percent of the cells of a column
DELIMITERS = ",;\t|"
_SHOWN = 4  # digits of an example
_HEX_SHOWN = 6
_PAIR = 2  # columns of the registry's form
_AREA = re.compile(r"\d{3}", re.ASCII)
_SEVEN = re.compile(r"\d{3}[-. ]?\d{4}", re.ASCII)
_AREA_NAME = re.compile(r"area|npa", re.IGNORECASE)
_NUMBERED = re.compile(r"#([1-9]\d{0,4})", re.ASCII)
_HINTS = (  # in a header, the stronger first; parts of a name are told apart by what is no letter
    re.compile(
        r"phone|mobile|msisdn|e\.?164|hash|digest|md5|sha-?(?:1|256)|(?<![a-z])(?:cell|tel|ani|did|dnc)(?![a-z])"
    ),
    re.compile(r"number|(?<![a-z])(?:num|no|nr|sha)(?![a-z])"),
)
_DIGESTS = {2 * one.digest_bytes: one for one in Kind if one.digest_bytes}


@dataclass(frozen=True, slots=True)
class Found:
    """A layout, and where the rows begin: after `offset` bytes, on line `line`."""

    layout: Layout
    header_bytes: bytes = b""
    offset: int = 0
    line: int = 1


@dataclass(frozen=True, slots=True)
class _Row:
    start: int
    end: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class _Sample:
    """The first rows with content, under one delimiter."""

    delimiter: str
    rows: list[_Row]
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


def decide(head: bytes, wanted: Wanted, where: str, *, last: bool, delimiter: str = "") -> Found:
    """From the beginning of a text (`last`: all of it). Raises UnreadableError."""
    samples = [_sample(head, one, last=last) for one in delimiter or DELIMITERS]
    split = [sample for sample in samples if sample.width > 1] or samples[:1]
    split.sort(key=lambda sample: sample.steadiness, reverse=True)
    refused: UnreadableError | None = None
    for sample in split:
        try:
            return _found(head, sample, wanted, where)
        except UnreadableError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _sample(head: bytes, delimiter: str, *, last: bool) -> _Sample:
    parser = exact(delimiter)
    end = decidable(head, len(head), last=last)
    rows: list[_Row] = []
    at = blank = 0
    while len(rows) <= SAMPLE_ROWS and blank < MAX_BLANK:
        at = after_empty_lines(head, at, end)
        if at == end:
            break
        stop = parser.row(head, at, end, last=last)
        if stop < 0:
            return _Sample(delimiter, rows, at if last or end - at > MAX_ROW else -1, cut=not last)
        cells = [decode(unquote(head[one:two])).strip() for one, two in parser.cells(head, at, stop)]
        if any(cells):
            rows.append(_Row(at, stop, cells))
        else:
            blank += 1
        at = stop
    return _Sample(delimiter, rows, cut=at < end or not last)


def _found(head: bytes, sample: _Sample, wanted: Wanted, where: str) -> Found:
    if sample.open_at >= 0:
        line = 1 + line_ends(head[: sample.open_at])
        raise too_long(where, line) if sample.cut else never_closes(where, line)
    if not sample.rows and sample.cut:
        raise UnreadableError(f"{where}: begins with too many blank rows")
    if not sample.rows:
        return Found(Layout(wanted.kind or Kind.NUMBER, sample.delimiter))
    layout = _Choice(sample, wanted, where).layout()
    if not layout.header:
        return Found(layout)
    first = sample.rows[0]
    header = tuple(_name(cell) for cell in first.cells)
    return Found(
        replace(layout, header=header), head[first.start : first.end], first.end, 1 + line_ends(head[: first.end])
    )


def _name(cell: str) -> str:
    """A name in a header, also of an older code page."""
    raw = cell.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


class _Choice:
    """Of the columns, given a sample of at least one row."""

    def __init__(self, sample: _Sample, wanted: Wanted, where: str) -> None:
        self._sample = sample
        self._wanted = wanted
        self._where = where
        self._names = [_name(cell) for cell in sample.rows[0].cells]
        self._folded = [name.casefold() for name in self._names]
        self._named = False  # some column was found by its name, so there is a header
        self._area = self._named_column(wanted.area_column)
        self._expires = self._named_column(wanted.expires_column)

    def layout(self) -> Layout:
        wanted = self._wanted
        if wanted.column:
            column, sure = self._column(), True
        else:
            column, sure = self._registry() or self._guess()
        kinds, rows = self._tally(column)
        kind = wanted.kind or max(Kind, key=lambda one: kinds[one])
        return Layout(
            kind=kind,
            delimiter=self._sample.delimiter,
            header=tuple(self._names) if self._has_header(column) else (),
            column=column,
            area_column=self._area,
            expires_column=self._expires,
            guessed=not wanted.column,
            sure=sure,
            sampled=rows,
            readable=kinds[kind],
            example=self._example(column, kind),
        )

    def _named_column(self, spec: str) -> int | None:
        """By name or by place. Raises UnreadableError where there is none; None: not asked for."""
        if not spec:
            return None
        name = spec.strip().casefold()
        if self._folded.count(name) > 1:
            raise UnreadableError(f"{self._where}: has {self._folded.count(name)} columns {spec!r}: count it, as #1")
        if name in self._folded:
            self._named = True
            return self._folded.index(name)
        numbered = _NUMBERED.fullmatch(spec.strip())
        if numbered is None:
            raise UnreadableError(f"{self._where}: has no column {spec!r}; its first line has: {self._shown()}")
        if int(numbered[1]) > self._sample.width:
            raise UnreadableError(f"{self._where}: has no column {spec}; it has {self._sample.width}")
        return int(numbered[1]) - 1

    def _column(self) -> int:
        """The one asked for; a file of one column without a header needs no name."""
        try:
            return self._named_column(self._wanted.column) or 0
        except UnreadableError:
            if self._sample.width == 1 and self._reads(self._sample.rows[0], 0):
                return 0
            raise

    def _shown(self) -> str:
        """Names of the first line; what looks like data is not repeated."""
        names = [repr(name) for name in self._names if name and not any(map(str.isdigit, name))]
        return ", ".join(names) or "none that is a name"

    def _registry(self) -> tuple[int, bool] | None:
        """Area code, seven digits: how the national registry gives its list, mostly without a header."""
        wanted, rows = self._wanted, self._sample.rows
        if self._area is not None or wanted.kind not in {None, Kind.NUMBER} or self._sample.width != _PAIR:
            return None
        fitting = [len(row.cells) == _PAIR and _is_registry(*row.cells) for row in rows]
        if not fitting[0] and not (rows[1:] and _AREA_NAME.search(self._names[0])):
            return None
        rest = fitting if fitting[0] else fitting[1:]
        if not _enough(sum(rest), len(rest)):
            return None
        self._area = 0
        return 1, True

    def _guess(self) -> tuple[int, bool]:
        """(column, whether no other would do). Raises UnreadableError where none would."""
        columns = [one for one in range(self._sample.width) if one not in {self._area, self._expires}]
        if len(columns) == 1:
            kinds, rows = self._tally(columns[0])
            return columns[0], _enough(max(kinds.values(), default=0), rows)
        hints = {one: self._hint(one) for one in columns}
        likely = [one for one in columns if self._is_candidate(one)]
        data = bool(likely)
        if len(self._sample.rows) == 1 and not data:  # a header and nothing else
            likely = [one for one in columns if hints[one] < len(_HINTS)]
        if not likely:
            what = "numbers or digests" if self._wanted.kind is None else f"{self._wanted.kind}s"
            raise UnreadableError(
                f"{self._where}: no column reads as {what} in {SHARE} % of the first {len(self._sample.rows)} rows;"
                f" say which one is meant; the first line has: {self._shown()}"
            )
        best = min(hints[one] for one in likely)
        if len(likely) > 1 and best == len(_HINTS):
            places = ", ".join(f"#{one + 1}" for one in likely)
            raise UnreadableError(f"{self._where}: the columns {places} all read as numbers; say which one is meant")
        sure = len(likely) == 1 and data and best == min(hints.values())
        return next(one for one in likely if hints[one] == best), sure

    def _hint(self, column: int) -> int:
        """0: the strongest."""
        name = self._folded[column] if column < len(self._folded) else ""
        return next((place for place, hint in enumerate(_HINTS) if hint.search(name)), len(_HINTS))

    def _is_candidate(self, column: int) -> bool:
        rows = self._data(column)
        kinds: Counter[Kind | None] = Counter()
        for row in rows:
            kinds[self._kind(row, column)] += 1
            if not _enough(len(rows) - kinds[None], len(rows)):  # most cells of most columns are not worth reading
                return False
        return bool(rows) and _enough(max(kinds[kind] for kind in Kind), len(rows))

    def _tally(self, column: int) -> tuple[Counter[Kind], int]:
        """(readable cells by kind, rows)."""
        rows = self._data(column)
        return Counter(kind for row in rows if (kind := self._kind(row, column)) is not None), len(rows)

    def _data(self, column: int) -> list[_Row]:
        return self._sample.rows[1:] if self._has_header(column) else self._sample.rows[:SAMPLE_ROWS]

    def _has_header(self, column: int) -> bool:
        """Whether the first row is one, given the column: a name there, which has a letter and is no number."""
        if self._named:
            return True
        first = self._sample.rows[0]
        cell = self._names[column] if column < len(self._names) else ""
        return any(map(str.isalpha, cell)) and not self._reads(first, column)

    def _reads(self, row: _Row, column: int) -> bool:
        return self._kind(row, column) is not None

    def _kind(self, row: _Row, column: int) -> Kind | None:
        """What the cell is, among the kinds that may be."""
        text = row.cells[column] if column < len(row.cells) else ""
        return _kind_of(text and self._area_of(row) + text, self._wanted)

    def _area_of(self, row: _Row) -> str:
        return row.cells[self._area] if self._area is not None and self._area < len(row.cells) else ""

    def _example(self, column: int, kind: Kind) -> str:
        row = next((row for row in self._data(column) if self._kind(row, column) == kind), None)
        if row is None:
            return ""
        text = row.cells[column]
        if kind is not Kind.NUMBER:
            return f"{text.strip(_AROUND).lower().removeprefix('0x')[:_HEX_SHOWN]}..."
        return _masked(f"{self._area_of(row)} {text}".strip())


_AROUND = " \t\"'"


def _enough(readable: int, rows: int) -> bool:
    return readable * 100 >= SHARE * rows


def _is_registry(area: str, number: str) -> bool:
    return _AREA.fullmatch(area) is not None and _SEVEN.fullmatch(number) is not None


def _kind_of(text: str, wanted: Wanted) -> Kind | None:
    """None: unreadable."""
    kind = wanted.kind
    if kind is None:
        bare = text.strip(_AROUND)
        kind = _DIGESTS.get(len(bare) - 2 * (bare[:2].lower() == "0x"), Kind.NUMBER)
    try:
        if kind is not Kind.NUMBER:
            digest(text, kind)
        elif any(map(str.isdigit, text)):
            normalise(text, wanted.region)
        else:
            return None
    except (CellError, NumberError):
        return None
    return kind


def _masked(text: str) -> str:
    """All letters and digits but the last four as asterisks."""
    places = [place for place, mark in enumerate(text) if mark.isalnum()]
    hidden = set(places[:-_SHOWN])
    return "".join("*" if place in hidden else mark for place, mark in enumerate(text))
