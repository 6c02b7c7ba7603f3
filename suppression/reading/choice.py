"""Which columns hold the numbers: named by the operator, or guessed from the first rows.

A guess is for a person to confirm: it says what it rests on. Cells that are filled are judged, and not rows: a second
telephone that few people have is a column of numbers too. A guess is sure where one column alone may hold them. Where
several may, only a person can say whether one of them is an order number, so all of them are asked for at once.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from suppression.kinds import Kind
from suppression.reading.headers import HINTS, is_name, is_number_name, may_be_name, rank
from suppression.reading.rows import line_ends
from suppression.reading.shapes import ColumnError, Layout, ReadOptions, UnreadableError
from suppression.reading.watching import AROUND, HANDFUL, has_number, kind_of

SAMPLE_ROWS = 1_000
SHARE = 80  # percent of the filled cells of a column
_HALF = 50  # percent, of a column that has no handful of cells that read as numbers
_SHOWN = 4  # digits of an example
_HEX_SHOWN = 6
_MAX_NAMES = 50  # shown in a message
_PAIR = 2  # columns of the registry's form
_AREA = re.compile(r"\d{3}", re.ASCII)
_SEVEN = re.compile(r"\d{3}[-. ]?\d{4}", re.ASCII)
_AREA_NAME = re.compile(r"area|npa", re.IGNORECASE)
_NUMBERED = re.compile(r"#([1-9]\d{0,4})", re.ASCII)
_MANY = {Kind.NUMBER: "numbers", Kind.MD5: "MD5 digests", Kind.SHA1: "SHA-1 digests", Kind.SHA256: "SHA-256 digests"}


@dataclass(frozen=True, slots=True)
class Row:
    """With content: where it stands in the text, and what its cells say."""

    start: int
    end: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class _Tally:
    """Of a column: filled cells, and how many of them read as what."""

    filled: int
    kinds: Counter[Kind]
    others: int = 0  # cells that cannot be read, and have a number in them

    @property
    def best(self) -> int:
        return max(self.kinds.values(), default=0)


def column_name(cell: str) -> str:
    """A name in a header, also of an older code page."""
    raw = cell.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def shown(names: tuple[str, ...] | list[str]) -> str:
    """Names of a first line; what looks like data is not repeated."""
    told = [repr(name) for name in names if any(map(str.isalpha, name)) and may_be_name(name)]
    more = f" and {len(told) - _MAX_NAMES} more" if len(told) > _MAX_NAMES else ""
    return ", ".join(told[:_MAX_NAMES]) + more or "none that is a name"


class Choice:
    """Of the columns, given a sample of at least one row. `head`: the text in which it stands."""

    def __init__(self, rows: list[Row], delimiter: str, options: ReadOptions, where: str, head: bytes) -> None:
        self._rows = rows
        self._delimiter = delimiter
        self._options = options
        self._where = where
        self._head = head
        self._width = max(len(row.cells) for row in rows)
        self._names = [column_name(cell) for cell in rows[0].cells]
        self._folded = [name.casefold() for name in self._names]
        self._doubtful: tuple[int, ...] = ()
        self._named = False  # some column was found by its name, so there is a header
        self._area = self._named_column(options.area_column) if options.area_column else None
        self._expires = self._named_column(options.expires_column) if options.expires_column else None

    def layout(self) -> Layout:
        """Raises UnreadableError."""
        options = self._options
        told = tuple(self._column(one) for one in options.columns)
        if len(set(told)) < len(told):
            raise UnreadableError(f"{self._where}: one column is named twice")
        header = self._has_header()
        self._data = self._rows[1:] if header else self._rows[:SAMPLE_ROWS]
        columns, sure = (told, True) if told else self._registry() or self._guess(header=header)
        tallies = [self._tally(one) for one in columns]
        kind = self._kind_of_all(columns, tallies)
        return Layout(
            kind=kind,
            delimiter=self._delimiter,
            header=tuple(self._names) if header else (),
            columns=columns,
            area_column=self._area,
            expires_column=self._expires,
            guessed=not told,
            sure=sure,
            doubtful=self._doubtful,
            sampled=len(self._data),
            counts=tuple(one.kinds[kind] for one in tallies),
            width=self._width,
            example=self._example(columns, kind),
        )

    def _named_column(self, spec: str) -> int:
        """By name or by place. Raises UnreadableError where there is none."""
        name = spec.strip().casefold()
        if self._options.header is not False:
            if self._folded.count(name) > 1:
                many = self._folded.count(name)
                raise UnreadableError(f"{self._where}: has {many} columns {spec!r}: count it, as #1")
            if name in self._folded:
                self._named = True
                return self._folded.index(name)
        numbered = _NUMBERED.fullmatch(spec.strip())
        if numbered is None:
            raise ColumnError(f"{self._where}: has no column {spec!r}; {self._first_line(name)}")
        if int(numbered[1]) > self._width:
            raise ColumnError(f"{self._where}: has no column {spec}; it has {self._width}")
        return int(numbered[1]) - 1

    def _first_line(self, name: str) -> str:
        """What there is in the place of a name."""
        if self._options.header is False:
            return "without a header a column is counted, as #1"
        lower = next(
            (row for row in self._rows[1:] if name in [column_name(one).casefold() for one in row.cells]), None
        )
        told = f"its first line has: {shown(self._names)}"
        if lower is None:
            return told
        return f"{told}; line {1 + line_ends(self._head[: lower.start])} has it: are the lines above it to be skipped?"

    def _column(self, spec: str) -> int:
        """The one asked for; a file of one column without a header needs no name."""
        try:
            return self._named_column(spec)
        except UnreadableError:
            if self._width == 1 and self._options.header is None and self._kind(self._rows[0], 0) is not None:
                return 0
            raise

    def _has_header(self) -> bool:
        """Whether the first row is one: said to be; or it has a name that is known, and nothing that could be data."""
        if self._options.header is not None:
            return self._options.header
        names = [name for name in self._names if name]
        if not self._named:
            return all(map(may_be_name, names)) and any(map(is_name, names)) and not self._reads_first()
        if self._reads_first():
            line = 1 + line_ends(self._head[: self._rows[0].start])
            raise UnreadableError(
                f"{self._where}: line {line} has the name of a column, and a number: say whether it is a header"
            )
        return True

    def _reads_first(self) -> bool:
        return any(kind_of(cell, self._options) is not None for cell in self._rows[0].cells)

    def _registry(self) -> tuple[tuple[int, ...], bool] | None:
        """Area code, seven digits: how the national registry gives its list, mostly without a header."""
        if self._area is not None or self._options.kind not in {None, Kind.NUMBER} or self._width != _PAIR:
            return None
        fitting = [len(row.cells) == _PAIR and _is_registry(*row.cells) for row in self._rows]
        has_header = not fitting[0] and bool(_AREA_NAME.search(self._names[0]))
        if not fitting[0] and not (len(fitting) > 1 and has_header):
            return None
        rest = fitting if fitting[0] else fitting[1:]
        if not _enough(sum(rest), len(rest)):
            return None
        self._area = 0
        return (1,), True

    def _guess(self, *, header: bool) -> tuple[tuple[int, ...], bool]:
        """(columns, whether no others would do). Raises UnreadableError where none would."""
        columns = [one for one in range(self._width) if one not in {self._area, self._expires}]
        ranks = {one: rank(self._names[one]) if header and one < len(self._names) else HINTS for one in columns}
        if len(columns) == 1:
            tally = self._tally(columns[0])
            fits = not (header and self._is_something_else(columns[0]))
            return tuple(columns), fits and _enough(tally.best, tally.filled)
        tallies = {one: self._tally(one) for one in columns}
        likely = [one for one in columns if _may_hold(tallies[one], ranks[one])]
        self._doubtful = tuple(
            one for one in columns if one not in likely and _may_hold(tallies[one], HINTS, others=True)
        )
        if header and not self._data:
            likely = [one for one in columns if ranks[one] < HINTS]
            if likely:
                return tuple(likely), False
        if not any(_enough(tallies[one].best, tallies[one].filled) for one in likely):
            raise self._none_reads(likely)
        self._look_for_pairs()
        best = min(ranks[one] for one in likely)
        sure = len(likely) == 1 and not self._doubtful and best == min(ranks.values())
        sure = sure and not (header and self._is_something_else(likely[0]))
        return tuple(likely), sure

    def _is_something_else(self, column: int) -> bool:
        """Whether its name says that it holds something else than numbers, such as `account`."""
        name = self._names[column] if column < len(self._names) else ""
        return rank(name) == HINTS and is_name(name)

    def _none_reads(self, likely: list[int]) -> ColumnError:
        what = "numbers or digests" if self._options.kind is None else f"{self._options.kind}s"
        some = f" (some of {', '.join(f'#{one + 1}' for one in likely)} do)" if likely else ""
        return ColumnError(
            f"{self._where}: no column reads as {what} in {SHARE} % of its cells in the first {len(self._rows)}"
            f" rows{some}; say which one is meant; the first line has: {shown(self._names)}"
        )

    def _look_for_pairs(self) -> None:
        """Area code and seven digits in two columns side by side are numbers too. Raises ColumnError."""
        if self._area is not None:
            return
        pairs: Counter[int] = Counter()
        for row in self._data:
            cells = zip(row.cells, row.cells[1:], strict=False)
            pairs.update(at for at, (area, seven) in enumerate(cells) if _is_registry(area, seven))
        found = next((at for at, many in pairs.items() if many >= min(HANDFUL, len(self._data))), None)
        if found is not None:
            raise ColumnError(
                f"{self._where}: the columns #{found + 1} and #{found + 2} may be area codes and seven digits beside"
                " another column of numbers: say which are meant"
            )

    def _tally(self, column: int) -> _Tally:
        filled = [row for row in self._data if column < len(row.cells) and row.cells[column]]
        kinds = [self._kind(row, column) for row in filled]
        others = sum(kind is None and has_number(row.cells[column]) for row, kind in zip(filled, kinds, strict=True))
        return _Tally(len(filled), Counter(kind for kind in kinds if kind is not None), others)

    def _kind_of_all(self, columns: tuple[int, ...], tallies: list[_Tally]) -> Kind:
        """Of the entries of all columns: one list has one kind. Raises ColumnError."""
        if self._options.kind is not None:
            return self._options.kind
        kinds = {
            column: max(Kind, key=lambda one: tally.kinds[one])
            for column, tally in zip(columns, tallies, strict=True)
            if tally.kinds
        }
        if len(set(kinds.values())) > 1:
            names = ", ".join(f"{self._shown_name(column)} holds {_MANY[kind]}" for column, kind in kinds.items())
            raise ColumnError(f"{self._where}: {names}; a list has entries of one kind: import it as several lists")
        return next(iter(kinds.values()), Kind.NUMBER)

    def _shown_name(self, column: int) -> str:
        name = self._names[column] if column < len(self._names) else ""
        return f"column {name!r}" if is_number_name(name) else f"column #{column + 1}"

    def _kind(self, row: Row, column: int) -> Kind | None:
        """What the cell is, among the kinds that may be."""
        text = row.cells[column] if column < len(row.cells) else ""
        return kind_of(text and self._area_of(row) + text, self._options)

    def _area_of(self, row: Row) -> str:
        return row.cells[self._area] if self._area is not None and self._area < len(row.cells) else ""

    def _example(self, columns: tuple[int, ...], kind: Kind) -> str:
        for column in columns:
            row = next((row for row in self._data if self._kind(row, column) == kind), None)
            if row is not None:
                text = row.cells[column]
                if kind is not Kind.NUMBER:
                    return f"{text.strip(AROUND).lower().removeprefix('0x')[:_HEX_SHOWN]}..."
                return _masked(f"{self._area_of(row)} {text}".strip())
        return ""


def _may_hold(tally: _Tally, ranked: int, *, others: bool = False) -> bool:
    """Whether a column has cells enough that read as numbers; `others`: or that have a number among other things."""
    many = sum(tally.kinds.values()) + (tally.others if others else 0)
    return many >= HANDFUL or (many > 0 and (ranked == 0 or many * 100 >= _HALF * tally.filled))


def _enough(readable: int, filled: int) -> bool:
    return readable * 100 >= SHARE * filled


def _is_registry(area: str, number: str) -> bool:
    return _AREA.fullmatch(area) is not None and _SEVEN.fullmatch(number) is not None


def _masked(text: str) -> str:
    """All letters and digits but the last four as asterisks."""
    places = [place for place, mark in enumerate(text) if mark.isalnum()]
    hidden = set(places[:-_SHOWN])
    return "".join("*" if place in hidden else mark for place, mark in enumerate(text))
