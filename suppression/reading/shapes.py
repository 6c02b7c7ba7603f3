"""The values of reading a list file: options, layout, batches, rejects."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from book.model import DEFAULT_TIME_ZONE
from book.numbers import DEFAULT_REGION, is_region
from suppression.kinds import Kind

Octets = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]
Times = npt.NDArray[np.uint32]
Spans = tuple[Ints, Ints]  # where cells begin, and where they end

MAX_SKIPPED = 1_000  # rows above the header that may be said to be none of the list


class UnreadableError(Exception):
    """The file, or the rest of it, cannot be read as a list. The message names the file and never repeats a number."""


class ColumnError(UnreadableError):
    """It cannot be told which columns hold the numbers: somebody must say it."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How the operator wants a file read. Raises UnreadableError for options that contradict each other.

    A column is said by its name in the header (letter case is ignored) or as "#2", counted from 1.
    """

    column: str | tuple[str, ...] = ()  # of the numbers, one or several; none: to be guessed
    area_column: str = ""  # the registry's form: area codes in a column of their own, seven digits in `column`
    expires_column: str = ""  # an ISO date, through the end of that day in `zone`, or an ISO time; empty cell: never
    kind: Kind | None = None  # None: to be guessed
    region: str = DEFAULT_REGION  # the country of numbers that do not say theirs, ISO 3166-1 alpha-2
    member: str = ""  # a pattern for the members of an archive, such as "*.csv"
    sheet: str = ""  # a pattern for the sheets of a workbook
    header: bool | None = None  # whether the first row is one; None: it is where it has a name that is known
    skip_rows: int = 0  # above the header
    zone: str = DEFAULT_TIME_ZONE  # IANA, in which a day ends

    def __post_init__(self) -> None:
        if not is_region(self.region):
            raise UnreadableError(f"region {self.region!r}: give the two capital letters of a country, such as US")
        if self.area_column and self.kind not in {None, Kind.NUMBER}:
            raise UnreadableError("a column of area codes goes with numbers, not with digests")
        if self.area_column and len(self.columns) > 1:
            raise UnreadableError("a column of area codes goes with one column of seven digits, not with several")
        if not 0 <= self.skip_rows <= MAX_SKIPPED:
            raise UnreadableError(f"rows to be skipped: 0 to {MAX_SKIPPED:,}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns named for the numbers."""
        said = (self.column,) if isinstance(self.column, str) else self.column
        return tuple(one for one in said if one)


@dataclass(frozen=True, slots=True)
class Layout:
    """What was decided about a file, a member or a sheet before it was read. Columns are counted from 0."""

    kind: Kind
    delimiter: str
    header: tuple[str, ...] = ()  # empty: no header
    columns: tuple[int, ...] = (0,)  # that are read; none: it seems to hold no number, and is looked at all the same
    area_column: int | None = None
    expires_column: int | None = None
    guessed: bool = False
    sure: bool = True  # named; or guessed and nothing else would do
    doubtful: tuple[int, ...] = ()  # columns beside those guessed that have numbers in their cells, among other things
    sampled: int = 0  # rows looked at
    counts: tuple[int, ...] = ()  # of these, how many can be read in each column
    width: int = 1  # columns, as far as these have any
    example: str = ""  # of a readable cell, masked
    member: str = ""  # of an archive, or the sheet of a workbook

    @property
    def column(self) -> int:
        """The first, or the only one."""
        return self.columns[0]

    @property
    def readable(self) -> int:
        """Of the rows looked at, those that can be read in the column that can be read best."""
        return max(self.counts, default=0)

    @property
    def column_names(self) -> tuple[str, ...]:
        """For people: as in the header, or `#2`."""
        return tuple(map(self.name, self.columns))

    @property
    def used(self) -> tuple[int, ...]:
        """All columns of which something is taken."""
        beside = (one for one in (self.area_column, self.expires_column) if one is not None)
        return (*self.columns, *beside)

    def name(self, column: int) -> str:
        """Of a column, for people."""
        named = column < len(self.header) and self.header[column]
        return self.header[column] if named else f"#{column + 1}"


@dataclass(frozen=True, slots=True)
class Reject:
    """A row of which something could not be read. The text itself is not repeated."""

    line: int
    why: str
    member: str = ""


class PartKind(StrEnum):
    """Of a file, what may be left unused."""

    COLUMN = "column"
    SHEET = "sheet"
    MEMBER = "member"
    LINES = "lines"  # a header, what stands above it, and what tells how the file is written


@dataclass(frozen=True, slots=True)
class UnusedPart:
    """A part of a file that was not taken as entries. `numbers`: how many of its cells have one all the same."""

    what: PartKind
    name: str  # a column's, a member's, a sheet's; of lines what they are, such as `1, the header`
    member: str = ""  # in which it is
    numbers: int = 0
    line: int = 0  # of the first of these

    def __str__(self) -> str:
        where = f"{self.member}: " if self.member else ""
        what, shown = str(self.what), repr(self.name)
        if self.what is PartKind.LINES:
            what, shown = "lines" if " to " in self.name else "line", self.name
        many = f" ({self.numbers:,} of its cells hold numbers, the first on line {self.line})" if self.numbers else ""
        return f"{where}{what} {shown}{many}"


@dataclass(slots=True)
class ColumnRead:
    """Of a column, cell by cell: what was read."""

    keys: Keys  # a number's E.164 digits, or a digest's first eight bytes, big-endian; 0 where not done
    done: Flags
    rest: Octets | None = None  # of digests, beside their keys: as many rows, `kind.rest_bytes` wide


@dataclass(slots=True)
class Batch:
    """Some whole rows, header and blank rows left out. Row i is `text[starts[i]:ends[i]]`, with its line end if any.

    A row may have several entries, one for each column that is read, and is `ok` where it has one and no cell in the
    way; what could be read of a row that is not `ok` counts all the same.
    """

    member: str  # of an archive of several, or a sheet of several; else empty
    text: Octets  # may hold more than these rows
    starts: Ints
    ends: Ints
    lines: Ints  # the line of the member, from 1, on which the row begins
    ok: Flags
    reads: tuple[ColumnRead, ...]  # by column
    expires: Times | None = None  # seconds since 1970 from which a row's entries no longer hold; 0: they always do
    silent: Flags | None = None  # rows that say nothing of an expiry; None: no row does
    rejects: list[Reject] = field(default_factory=list)  # the rows that are not ok, in their order
    endless: list[Reject] = field(default_factory=list)  # rows whose expiry cannot be read: they hold for ever

    @property
    def keys(self) -> Keys:
        """Of the first column."""
        return self.reads[0].keys

    @property
    def rest(self) -> Octets | None:
        """Of the first column."""
        return self.reads[0].rest
