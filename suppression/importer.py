"""CSV in, an activated suppression list out.

The file is read as a stream. Each line whose number cannot be read is a reject with its line number; past 2 % of them
the list is not activated, for then the column or the file is the wrong one and half a list is worse than yesterday's.
An empty list is refused too unless that is said to be meant. Nothing of a refused list stays behind.
"""

from __future__ import annotations

import csv
import getpass
import hashlib
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from suppression import snapshot
from suppression.numbers import NumberError, normalise
from suppression.ports import ActiveList, ListStore

FOLDER = "suppression"  # inside the data folder
REJECT_PERCENT = 2  # of the lines with content; more, and the list is not activated
MAX_REJECTS_KEPT = 1000  # more are counted and not listed
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_CHUNK = 1 << 20


class ListRefusedError(Exception):
    """The list was not activated; the one in force before, if any, still is. `report` says what was read."""

    def __init__(self, message: str, report: ReadReport | None = None) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that holds no number that could be read. The text itself is not repeated."""

    line: int
    why: str


@dataclass(slots=True)
class ReadReport:
    """What was in a file."""

    lines: int = 0  # with content, header not counted
    repeats: int = 0
    rejected: int = 0
    rejects: list[Reject] = field(default_factory=list)  # the first MAX_REJECTS_KEPT

    def reject(self, line: int, why: str) -> None:
        self.rejected += 1
        if len(self.rejects) < MAX_REJECTS_KEPT:
            self.rejects.append(Reject(line, why))

    @property
    def too_many(self) -> bool:
        return self.rejected * 100 > REJECT_PERCENT * self.lines


@dataclass(frozen=True, slots=True)
class Imported:
    """An activated list. `changed` is False where the same content was in force already."""

    name: str
    version: int
    entries: int
    checksum: str
    changed: bool
    report: ReadReport


async def import_csv(
    store: ListStore,
    data_dir: Path,
    file: Path,
    *,
    name: str,
    buyer: str | None,
    column: str = "phone",
    allow_empty: bool = False,
    by: str = "",
) -> Imported:
    """Read, write the snapshot, activate. `buyer` None: global. Raises ListRefusedError."""
    if not _NAME.fullmatch(name):
        raise ListRefusedError(f"list name {name!r}: use small letters, digits, - and _, at most 64")
    numbers, report = read_csv(file, column)
    if report.too_many:
        first = report.rejects[0]
        raise ListRefusedError(
            f"{file}: {report.rejected} of {report.lines} lines rejected, more than {REJECT_PERCENT} %"
            f" (line {first.line}: {first.why}); the list was not activated",
            report,
        )
    if not numbers and not allow_empty:
        raise ListRefusedError(f"{file}: holds no number; an empty list must be asked for expressly", report)
    source = _checksum(file)
    current = next((one for one in await store.active() if one.name == name and one.buyer == buyer), None)
    if current is not None and current.source_checksum == source and _holds(data_dir, current, numbers):
        return Imported(name, current.version, current.entries, current.checksum, changed=False, report=report)
    built_at = datetime.now(UTC).isoformat(timespec="seconds")
    written, checksum = snapshot.write(data_dir / FOLDER, name, numbers, source_checksum=source, built_at=built_at)
    try:
        version = await store.activate(
            name=name,
            buyer=buyer,
            file=str(written.relative_to(data_dir)),
            checksum=checksum,
            source_checksum=source,
            entries=len(numbers),
            imported_by=by or getpass.getuser(),
        )
    except ValueError as error:
        written.unlink(missing_ok=True)
        raise ListRefusedError(str(error), report) from error
    return Imported(name, version, len(numbers), checksum, changed=True, report=report)


def read_csv(file: Path, column: str = "phone") -> tuple[array[int], ReadReport]:
    """Sorted numbers without repeats, and the report. Raises ListRefusedError: unreadable, or no such column.

    A file of one column without a header is read as it is.
    """
    report = ReadReport()
    found: set[int] = set()
    try:
        # Bytes that are not UTF-8 (names in an older code page) pass through; in a number they make a reject.
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
            for line, text in _cells(file, opened, column):
                _take(found, report, line, text)
    except OSError as error:
        raise ListRefusedError(f"{file}: cannot be read: {error.strerror or error}") from error
    return array("Q", sorted(found)), report


def _take(found: set[int], report: ReadReport, line: int, text: str) -> None:
    report.lines += 1
    try:
        number = normalise(text)
    except NumberError as error:
        report.reject(line, str(error))
        return
    if number in found:
        report.repeats += 1
    found.add(number)


def _cells(file: Path, opened: TextIO, column: str) -> Iterator[tuple[int, str]]:
    """(line, text) of the column; lines without any content are skipped."""
    reader = csv.reader(opened)
    at: int | None = None
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if at is None:
                at, is_header = _column_at(file, row, column)
                if is_header:
                    continue
            yield reader.line_num, row[at] if at < len(row) else ""
    except csv.Error as error:
        raise ListRefusedError(f"{file}: line {reader.line_num}: is not CSV: {error}") from error


def _column_at(file: Path, first: list[str], column: str) -> tuple[int, bool]:
    """(index of the column, whether the first line is a header)."""
    names = [cell.strip().casefold() for cell in first]
    if column.casefold() in names:
        return names.index(column.casefold()), True
    if len(first) == 1:
        try:
            normalise(first[0])
        except NumberError:
            pass
        else:
            return 0, False
    shown = ", ".join(repr(name) for name in names if not any(map(str.isdigit, name))) or "none that is a name"
    raise ListRefusedError(f"{file}: has no column {column!r}; its first line has: {shown}")


def _checksum(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _holds(data_dir: Path, current: ActiveList, numbers: array[int]) -> bool:
    """The list in force has exactly these numbers, on an undamaged file; a damaged one is written anew."""
    try:
        return snapshot.read(data_dir / current.file, current.checksum).numbers == numbers
    except snapshot.SnapshotError:
        return False
