"""What is asked of a list file, what was decided about it, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from config.numbers import DEFAULT_REGION, is_region
from suppression.kinds import Kind

Octets = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]
Times = npt.NDArray[np.uint32]
Spans = tuple[Ints, Ints]  # where cells begin, and where they end


class UnreadableError(Exception):
    """The file, or the rest of it, cannot be read as a list. The message names the file and never repeats a number."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator says of a file. Raises UnreadableError where no file could be read so."""

    column: str = ""  # a name in the header (letter case is ignored), or "#2", counted from 1; empty: to be guessed
    area_column: str = ""  # the registry's form: area codes in a column of their own, seven digits in `column`
    expires_column: str = ""  # an ISO date, through the end of that day in UTC, or an ISO time; empty cell: never
    kind: Kind | None = None  # None: to be guessed
    region: str = DEFAULT_REGION  # the country of numbers that do not say theirs, ISO 3166-1 alpha-2
    member: str = ""  # a pattern for the members of an archive, such as "*.csv"

    def __post_init__(self) -> None:
        if not is_region(self.region):
            raise UnreadableError(f"region {self.region!r}: give the two capital letters of a country, such as US")
        if self.area_column and self.kind not in {None, Kind.NUMBER}:
            raise UnreadableError("a column of area codes goes with numbers, not with digests")


@dataclass(frozen=True, slots=True)
class Layout:
    """What was decided about a file before it was read. Columns are counted from 0."""

    kind: Kind
    delimiter: str
    header: tuple[str, ...] = ()  # empty: no header
    column: int = 0
    area_column: int | None = None
    expires_column: int | None = None
    guessed: bool = False
    sure: bool = True  # named; or guessed and nothing else would do
    sampled: int = 0  # rows looked at
    readable: int = 0  # of these
    example: str = ""  # of a readable cell, masked

    @property
    def column_name(self) -> str:
        """For people: as in the header, or `#2`."""
        return self.header[self.column] if self.header else f"#{self.column + 1}"


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that holds nothing that could be read. The text itself is not repeated."""

    line: int
    why: str
    member: str = ""


@dataclass(slots=True)
class Batch:
    """Some whole rows, header and blank rows left out. Row i is `text[starts[i]:ends[i]]`, with its line end if any."""

    member: str  # of an archive of several; else empty
    text: Octets  # may hold more than these rows
    starts: Ints
    ends: Ints
    lines: Ints  # the line of the member, from 1, on which the row begins
    ok: Flags
    keys: Keys  # a number's E.164 digits, or a digest's first eight bytes, big-endian; 0 where not ok
    rest: Octets | None = None  # of digests, beside their keys: as many rows, `kind.rest_bytes` wide
    expires: Times | None = None  # seconds since 1970 from which the entry no longer holds; 0: it always does
    rejects: list[Reject] = field(default_factory=list)  # the rows that are not ok, in their order
