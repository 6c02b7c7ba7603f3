"""Scrubs a whole file for a buyer: lines that may be transferred, suppressed lines, and lines that cannot be read.

Rows are kept as they stand in the file, byte for byte; those suppressed get the list that has them as one more column,
those that cannot be read the reason. A line is in exactly one of the three files. One with several numbers is
suppressed where one of them is on a list; one with a number that cannot be read is never among the clean ones. The
summary names the columns that were looked up, and all that was not. The files take their names when all of them are
complete, the signed summary last.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt
import orjson

from suppression.changes import Entry
from suppression.importer import Confirm, Progress, check_sure, columns_of, name_text, shown_unused
from suppression.index import ListGroup, LoadedList, Mask, Probe, find_sorted
from suppression.kinds import Kind
from suppression.reading.reader import Batch, ListFile, ReadOptions, UnreadableError
from suppression.reading.rows import LF
from suppression.receipt import ISSUER, Signer
from suppression.scrub import State
from suppression.snapshot import Keys, sync_folder

CLEAN = 0
UNREADABLE = -1
_LINE_ENDS = b"\r\n"

Verdicts = npt.NDArray[np.int32]  # CLEAN, UNREADABLE, or 1 + the list's place


class BatchRefusedError(Exception):
    """The file was not scrubbed; no output file was made."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file to be scrubbed. Outputs go to `folder` under the file's name."""

    file: Path
    buyer: str
    folder: Path
    options: ReadOptions = field(default_factory=ReadOptions)


@dataclass(slots=True)
class Summary:
    """The result of a scrub of a file."""

    file: str
    buyer: str
    at: str  # ISO 8601, UTC
    columns: tuple[str, ...] = ()  # that were looked up
    unused: list[str] = field(default_factory=list)  # columns, sheets, members and lines that were not
    header_lines: int = 0  # taken as names of columns and not looked up; one of each member that has one
    lines: int = 0
    clean: int = 0
    suppressed: int = 0
    unreadable: int = 0
    exempt: int = 0  # on a global list, and passed by an exemption on record
    by_list: dict[str, int] = field(default_factory=dict)
    lists: list[object] = field(default_factory=list)  # consulted: name, version, revision, state
    sets: tuple[str, ...] = ()
    checksums: dict[str, str] = field(default_factory=dict)  # SHA-256 of each file, hex, by name
    took_ms: int = 0
    receipt: str = ""


def scrub_file(
    state: State, signer: Signer, job: Job, *, progress: Progress | None = None, confirm: Confirm | None = None
) -> Summary:
    """Read, look up, write. Raises BatchRefusedError, OSError.

    Where a list that applies cannot be used nothing is cleared, so nothing is scrubbed.
    """
    started = time.monotonic_ns()
    own = state.of(job.buyer)
    _check_usable((state.shared, own))
    summary = Summary(name_text(job.file.name), job.buyer, datetime.now(UTC).isoformat(timespec="seconds"))
    summary.lists = [*_spelt(state.shared), *_spelt(own)]
    summary.sets = (state.shared.digest, own.digest)
    try:
        with ListFile(job.file, job.options) as opened, _Outputs(job) as outputs:
            _check_layout(opened, job, confirm)
            summary.header_lines, summary.columns = opened.header_lines, columns_of(opened)
            outputs.header(opened.header_bytes, opened.layout.delimiter)
            judge = _Judge(state, own, job.buyer, time.time())
            for batch in opened:
                verdicts = judge.verdicts(batch)
                outputs.take(batch, verdicts, judge.names)
                _count(summary, verdicts, judge.names)
                if progress is not None:
                    progress(opened.bytes_read, opened.bytes_total, summary.lines)
            summary.exempt, summary.unused = judge.exempted, shown_unused(opened.unused)
            summary.checksums = {summary.file: opened.checksum, **outputs.checksums()}
            summary.took_ms = (time.monotonic_ns() - started) // 1_000_000
            summary.receipt = _signed(signer, summary)
            outputs.finish(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    except UnreadableError as error:
        raise BatchRefusedError(str(error)) from error
    return summary


def _check_usable(parts: tuple[ListGroup, ...]) -> None:
    broken = [name for part in parts for name in part.broken]
    if broken:
        raise BatchRefusedError(f"list {', '.join(broken)}: cannot be read, so nobody can be cleared")


def _check_layout(opened: ListFile, job: Job, confirm: Confirm | None) -> None:
    layout = opened.layout
    if opened.uneven:
        raise BatchRefusedError(
            f"{job.file}: its members or sheets differ in header, column or delimiter, and their rows would stand under"
            f" one header: {', '.join(map(repr, opened.uneven))} are unlike the others; scrub them one by one"
        )
    if layout.kind is not Kind.NUMBER:
        raise BatchRefusedError(f"{job.file}: holds digests; only numbers can be scrubbed")
    check_sure(job.file, opened, confirm)


def _spelt(part: ListGroup) -> list[object]:
    found: list[object] = orjson.loads(part.document)
    return found


def _count(summary: Summary, verdicts: Verdicts, names: list[str]) -> None:
    values, counts = np.unique(verdicts, return_counts=True)
    for value, many in zip(values.tolist(), counts.tolist(), strict=True):
        summary.lines += many
        if value == CLEAN:
            summary.clean += many
        elif value == UNREADABLE:
            summary.unreadable += many
        else:
            summary.suppressed += many
            summary.by_list[names[value - 1]] = summary.by_list.get(names[value - 1], 0) + many


def _signed(signer: Signer, summary: Summary) -> str:
    return signer.sign_document(
        {
            "iss": ISSUER,
            "iat": int(time.time()),
            "buyer": summary.buyer,
            "file": summary.file,
            "columns": list(summary.columns),
            "not_used": summary.unused,
            "sha256": summary.checksums,
            "clean": summary.clean,
            "suppressed": summary.suppressed,
            "unreadable": summary.unreadable,
            "exempt": summary.exempt,
            "lists": list(summary.sets),
        }
    )


class _Judge:
    """Verdicts of many rows at once."""

    def __init__(self, state: State, own: ListGroup, buyer: str, now_s: float) -> None:
        self._state = state
        self._buyer = buyer
        self._now_s = now_s
        self._parts = (state.shared, own)
        self._lists = [one for part in self._parts for one in part.lists]
        self._places = {one.name: place for place, one in enumerate(self._lists, start=1)}
        self._exempt = np.fromiter(state.exemptions, np.uint64)
        self._loners = {one for part in self._parts for one in part.loners}
        self.names = [one.name for one in self._lists]
        self.exempted = 0

    def verdicts(self, batch: Batch) -> Verdicts:
        """One a row, in the order of the rows."""
        found = np.where(batch.ok, CLEAN, UNREADABLE).astype(np.int32)
        for read in batch.reads:
            readable = np.flatnonzero(read.done & (found <= CLEAN))  # one hit is enough
            numbers = read.keys[readable]
            order = np.argsort(numbers)  # memory likes look-ups in order
            verdicts = self._sorted(numbers[order])
            found[readable[order[verdicts > CLEAN]]] = verdicts[verdicts > CLEAN]
        return found

    def _sorted(self, numbers: Keys) -> Verdicts:
        verdicts = np.zeros(len(numbers), np.int32)
        special = np.isin(numbers, self._exempt)
        undecided = ~special
        suspects = self._parts[0].suspects(numbers) | self._parts[1].suspects(numbers)
        for place, one in enumerate(self._lists, start=1):
            among = np.flatnonzero(undecided if one in self._loners else undecided & suspects)
            if len(among):
                hit = among[self._on(one, numbers[among])]
                verdicts[hit] = place
                undecided[hit] = False
        for row in np.flatnonzero(special):
            name, applied = self._state.look(int(numbers[row]), self._buyer, self._now_s)
            verdicts[row] = self._places[name] if name else CLEAN
            self.exempted += bool(applied) and not name
        return verdicts

    def _on(self, listed: LoadedList, numbers: Keys) -> Mask:
        """Which of some numbers, in order, are on a list."""
        if listed.snapshot is None or (listed.expires_s is not None and self._now_s >= listed.expires_s):
            return np.zeros(len(numbers), np.bool_)
        if listed.kind is not Kind.NUMBER:
            return self._each(listed, numbers)
        found = find_sorted(listed.snapshot, numbers)
        if listed.change:
            changed = np.isin(numbers, _numbers((*listed.change.add, *listed.change.remove)))
            found[changed] = self._each(listed, numbers[changed])
        if "expires" in listed.snapshot.sections:
            found[found] = self._each(listed, numbers[found])
        return found

    def _each(self, listed: LoadedList, numbers: Keys) -> Mask:
        each = (listed.has(Probe(number), self._now_s) for number in numbers.tolist())
        return np.fromiter(each, np.bool_, len(numbers))


def _numbers(entries: Iterable[Entry]) -> Keys:
    return np.fromiter((one for one in entries if isinstance(one, int)), np.uint64)


class _Outputs:
    """The three files and the summary, under temporary names until `finish`."""

    def __init__(self, job: Job) -> None:
        self._folder = job.folder
        kinds = ("clean.csv", "suppressed.csv", "unreadable.csv", "summary.json")
        self._names = [f"{job.file.name}.{one}" for one in kinds]
        self._open = contextlib.ExitStack()
        self._delimiter = b","

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._clean, self._suppressed, self._unreadable, self._summary = self._all = tuple(
            _Output(self._open, self._folder / f".{name}.{os.getpid()}.part") for name in self._names
        )
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    def header(self, row: bytes, delimiter: str) -> None:
        self._delimiter = delimiter.encode()
        if row:
            bare = row.rstrip(_LINE_ENDS)
            self._clean.put(bare + b"\n")
            self._suppressed.put(bare + self._delimiter + b"suppressed_by\n")
            self._unreadable.put(bare + self._delimiter + b"reason\n")

    def take(self, batch: Batch, verdicts: Verdicts, names: list[str]) -> None:
        text = batch.text
        clean = verdicts == CLEAN
        self._clean.put(_rows(text, batch.starts[clean], batch.ends[clean]))
        suppressed = verdicts > CLEAN
        ends = [self._delimiter + name.encode() + b"\n" for name in names]
        by_row = (ends[place - 1] for place in verdicts[suppressed].tolist())
        self._suppressed.put(_with_ends(text, batch.starts[suppressed], batch.ends[suppressed], by_row))
        unreadable = verdicts == UNREADABLE
        still = unreadable[~batch.ok]  # one that has another number on a list is suppressed
        rejects = (one for one, is_so in zip(batch.rejects, still.tolist(), strict=True) if is_so)
        why = (self._delimiter + b'"' + one.why.replace('"', '""').encode() + b'"\n' for one in rejects)
        self._unreadable.put(_with_ends(text, batch.starts[unreadable], batch.ends[unreadable], why))

    def checksums(self) -> dict[str, str]:
        """Of the three files, by name as text."""
        return {name_text(name): one.checksum for one, name in zip(self._all[:-1], self._names, strict=False)}

    def finish(self, summary: bytes) -> None:
        """Write the summary, then sync and name all files, the summary last."""
        self._summary.put(summary)
        for one in self._all:
            one.sync()
        for one, name in zip(self._all, self._names, strict=True):
            one.path.replace(self._folder / name)
        sync_folder(self._folder)


class _Output:
    """A file that is written and hashed."""

    def __init__(self, stack: contextlib.ExitStack, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)  # of a killed process that had the same number
        self._file: BinaryIO = stack.enter_context(path.open("xb", buffering=1 << 20))
        stack.callback(path.unlink, missing_ok=True)
        self._digest = hashlib.sha256()

    def put(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    @property
    def checksum(self) -> str:
        return self._digest.hexdigest()


def _with_ends(
    text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], each: Iterable[bytes]
) -> bytes:
    """Some rows of a text, each with an end of its own in the place of its line end."""
    lines = _rows(text, starts, ends).split(b"\n")[:-1]
    if len(lines) != len(starts) or not (text[ends - 1] == LF).all():  # each row must have the one LF that ends it
        lines = [text[start:end].tobytes() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return b"".join([line.rstrip(_LINE_ENDS) + end for line, end in zip(lines, each, strict=True)])


def _rows(text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> bytes:
    """Some rows of a text, one after another, each with its line end."""
    if not len(starts):
        return b""
    marks = np.zeros(len(text) + 1, np.int8)
    marks[starts] = 1
    marks[ends] -= 1
    found = text[np.cumsum(marks[:-1], dtype=np.int8).view(np.bool_)].tobytes()
    return found if found.endswith((b"\n", b"\r")) else found + b"\n"


def each_line(summary: Summary) -> Iterator[str]:
    """The summary for people."""
    yield f"{summary.file}: {summary.lines:,} lines for {summary.buyer}"
    yield f"  looked up   {', '.join(map(repr, summary.columns))}"
    for one in summary.unused:
        yield f"  not used    {one}"
    if summary.header_lines:
        yield f"  header      {summary.header_lines:,} (not looked up)"
    yield f"  clean       {summary.clean:,}"
    yield f"  suppressed  {summary.suppressed:,}"
    for name, many in sorted(summary.by_list.items(), key=lambda one: -one[1]):
        yield f"    on {name}: {many:,}"
    yield f"  unreadable  {summary.unreadable:,}"
    if summary.exempt:
        yield f"  passed by an exemption: {summary.exempt:,} (among the clean)"
