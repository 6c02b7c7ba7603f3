"""The report of an import: lines read, rejected and left unused, whether or not the list was activated."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from suppression.reading.reader import Layout, Reject, UnusedPart


@dataclass(slots=True)
class ReadReport:
    """The counts and findings of one file."""

    lines: int = 0  # with content, header not counted
    repeats: int = 0
    rejected: int = 0
    rejects: list[Reject] = field(default_factory=list)  # the first MAX_REJECTS_KEPT
    rejects_file: Path | None = None
    endless: int = 0  # lines with an expiry that cannot be read: their entries hold for ever
    endless_lines: list[Reject] = field(default_factory=list)  # the first MAX_REJECTS_KEPT
    ended: int = 0  # lines whose expiry is past: their entries list nobody
    layout: Layout | None = None  # of the first part of the file
    columns: tuple[str, ...] = ()  # that were read, of all its parts
    dropped: int = 0  # entries changed by hand that a replaced list does not carry over
    skipped: tuple[str, ...] = ()  # members of an archive, and sheets of a workbook, that were not read
    unused: tuple[UnusedPart, ...] = ()  # these too, and all else in the file that was not taken as entries

    def too_many(self, percent: float) -> bool:
        return self.rejected * 100 > percent * self.lines
