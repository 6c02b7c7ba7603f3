"""Imports a list file: replaces a list, adds to it, or removes numbers from it.

The file is read as a stream, sorted within bounded memory and written as a new version; only then the store puts it in
force, at once. Each line that cannot be read is a reject with its line number, kept in a file; past a threshold of
them nothing is activated, for then the column or the file is the wrong one, and half a list is worse than yesterday's.
An empty list is refused too unless that is said to be meant. Nothing of a refused list stays behind but a line on the
log, and the file of rejects.

What was changed by hand while an import ran is carried over to its version: a number that somebody took off the list
or put on it in that minute stays so.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Self

import numpy as np

from book.lists import Actor, ListVersion
from suppression import snapshot
from suppression.activating import (
    FOLDER,
    Activation,
    Base,
    ListRefusedError,
    LogEntry,
    VersionPlan,
    changed_by_hand,
    current_base,
    put_in_force,
)
from suppression.expiry import LAST_S
from suppression.kinds import Kind
from suppression.ports import ListStore
from suppression.reading.reader import (
    Batch,
    ColumnError,
    Layout,
    ListFile,
    ReadOptions,
    Reject,
    UnreadableError,
    UnusedPart,
)
from suppression.reading.shapes import Times
from suppression.report import ReadReport
from suppression.snapshot import Entries, Extent
from suppression.sorting import Collector, Tally, merge

REJECT_PERCENT = 2.0  # of the lines with content; more, and the list is not activated
MAX_REJECTS_KEPT = 20  # shown; the others are in the file of rejects
MAX_REJECTS_LISTED = 1_000_000  # in the file of rejects; the others are counted
MAX_UNUSED = 100  # parts of a file that are named one by one
MAX_COLUMNS_TOLD = 20  # in a message
MANY_REJECTS = 100_000  # so many, and HOPELESS_PERCENT of the lines read so far: the rest is not read
HOPELESS_PERCENT = 50.0  # or the percentage that is allowed, if that is higher
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

Progress = Callable[[int, int, int], None]  # bytes of the file read, bytes in all, lines read
Confirm = Callable[[Layout], bool]  # are these the columns?


class Mode(StrEnum):
    """The effect of a file on a list."""

    REPLACE = "replace"
    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Task:
    """One import: the file, the list, and how the file is read. `buyer` None: global."""

    file: Path
    name: str
    buyer: str | None
    mode: Mode = Mode.REPLACE
    options: ReadOptions = field(default_factory=ReadOptions)
    expires_utc_us: int | None = None  # REPLACE: of the whole list; ADD: of the entries that are added
    allow_empty: bool = False
    keep_changes: bool = False  # REPLACE: what was changed by hand stays changed
    reject_percent: float = REJECT_PERCENT
    rejects_file: Path | None = None  # None: beside the lists
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ImportResult:
    """`version` is in force; `changed` is False where it was already, with the same entries, and after a dry run."""

    name: str
    version: int
    revision: int
    entries: int
    before: int  # entries in force before; 0 for a new list
    checksum: str
    changed: bool
    report: ReadReport


async def import_file(
    store: ListStore,
    data_dir: Path,
    task: Task,
    actor: Actor,
    *,
    progress: Progress | None = None,
    confirm: Confirm | None = None,
) -> ImportResult:
    """Read, sort, write, activate. Raises ListRefusedError; what was in force before then still is.

    `confirm` is asked where the column was guessed and another might be meant; without it that is refused.
    """
    report = ReadReport()
    try:
        _check_name(task.name)
        before = await store.find(task.name)
        _check_owner(task, before)
        with contextlib.ExitStack() as stack:
            opened = await asyncio.to_thread(_open, stack, task, confirm, report)
            folder = data_dir / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            expiring = bool(task.options.expires_column) or _entries_end(task) > 0
            collected = stack.enter_context(Collector(folder, opened.layout.kind, expiring=expiring))
            await asyncio.to_thread(_collect, opened, collected, task, report, folder=folder, progress=progress)
            _check_read(task, report, collected)
            made = await _make(
                store,
                data_dir,
                task,
                actor=actor,
                collected=collected,
                source_checksum=opened.checksum,
                report=report,
                before=before,
            )
    except (ListRefusedError, UnreadableError, snapshot.SnapshotError, OSError, ValueError) as error:
        refused = error if isinstance(error, ListRefusedError) else ListRefusedError(str(error))
        refused.report = report
        if not task.dry_run and _NAME.fullmatch(task.name):
            await store.refused(
                task.name, actor, action=f"refused_{task.mode}", detail=_detail(task, report, str(refused))
            )
        raise refused from error
    return ImportResult(
        name=task.name,
        version=made.version,
        revision=made.revision,
        entries=made.count,
        before=0 if before is None else before.count,
        checksum=made.checksum,
        changed=made.changed,
        report=report,
    )


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ListRefusedError(f"list name {name!r}: use small letters, digits, - and _, at most 64")


def _check_owner(task: Task, before: ListVersion | None) -> None:
    if before is not None and before.buyer != task.buyer:
        whose = "global" if before.buyer is None else f"of buyer {before.buyer!r}"
        raise ListRefusedError(f"list {task.name!r} is {whose}; a list does not change hands, choose another name")
    if task.mode is Mode.REMOVE and task.expires_utc_us is not None:
        raise ListRefusedError("an expiry goes with numbers that are added, not with those that are removed")
    if before is None and task.mode is Mode.REMOVE:
        raise ListRefusedError(f"no list called {task.name!r} is in force")


def _open(stack: contextlib.ExitStack, task: Task, confirm: Confirm | None, report: ReadReport) -> ListFile:
    opened = stack.enter_context(ListFile(task.file, task.options))
    report.layout = opened.layout
    report.columns = columns_of(opened)
    report.skipped = opened.skipped
    if task.mode is Mode.REMOVE and any(len(one.columns) > 1 and one.guessed for one in opened.layouts):
        confirm = None  # numbers of orders that are taken off a list may be somebody's
    check_sure(task.file, opened, confirm)
    return opened


def check_sure(file: Path, opened: ListFile, confirm: Confirm | None) -> None:
    """Raises ColumnError for the first part of the file of which the columns were guessed, and are not confirmed."""
    for layout in opened.layouts:
        if not layout.sure and (confirm is None or not confirm(layout)):
            raise ColumnError(_unsure(f"{file}: {layout.member}" if layout.member else f"{file}", layout))


def _unsure(where: str, layout: Layout) -> str:
    """The columns were guessed, and others might be meant."""
    named = list(zip(layout.column_names, layout.counts, strict=True))
    if len(named) > 1 or layout.doubtful:
        each = [f"{name!r} ({many} of {layout.sampled} lines)" for name, many in named]
        each += [repr(layout.name(one)) for one in layout.doubtful]
        more = f" and {len(each) - MAX_COLUMNS_TOLD} more" if len(each) > MAX_COLUMNS_TOLD else ""
        told = ", ".join(each[:MAX_COLUMNS_TOLD]) + more
        return f"{where}: the columns {told} may all hold numbers; name those that do, each by `column`"
    if not layout.readable:
        return (
            f"{where}: none of its first {layout.sampled} lines reads as a number or a digest; if it is a list, save it"
            " as CSV with the numbers in a column of their own, and name it by `column`"
        )
    return (
        f"{where}: is it column {named[0][0]!r} that is meant? {layout.readable} of {layout.sampled} lines of it"
        " can be read; name it by `column`"
    )


def columns_of(opened: ListFile) -> tuple[str, ...]:
    """The columns that are read, each once."""
    return tuple(dict.fromkeys(name for layout in opened.layouts for name in layout.column_names))


def _collect(
    opened: ListFile,
    collected: Collector,
    task: Task,
    report: ReadReport,
    *,
    folder: Path,
    progress: Progress | None,
) -> None:
    now_s = int(time.time())
    with _Rejects(task.rejects_file or _rejects_path(folder, task.name), report) as rejects:
        for batch in opened:
            expires = _expires(batch, _entries_end(task))
            for entries in _accepted(batch, expires):
                collected.add(entries)
            report.lines += len(batch.ok)
            report.ended += _ended(expires, now_s)
            rejects.take(batch.rejects)
            rejects.note(batch.endless)
            _check_hope(task, report)
            if progress is not None:
                progress(opened.bytes_read, opened.bytes_total, report.lines)
    report.unused = opened.unused


def _check_hope(task: Task, report: ReadReport) -> None:
    """What is packed may be a thousand times its size, so a file that is no list is not read to its end."""
    if report.rejected > MANY_REJECTS and report.too_many(max(task.reject_percent, HOPELESS_PERCENT)):
        first = report.rejects[0]
        raise ListRefusedError(
            f"{task.file}: {report.rejected} of the first {report.lines} lines rejected (line {first.line}:"
            f" {first.why}); is it the right column? The rest was not read, the list was not activated"
        )


def _accepted(batch: Batch, expires: Times | None) -> Iterator[Entries]:
    """All that could be read, column by column, also in rows that have another cell that cannot be."""
    for read in batch.reads:
        whole = Entries(read.keys, read.rest, expires)
        yield whole if bool(read.done.all()) else whole.only(read.done)


def _entries_end(task: Task) -> int:
    """The second from which added entries no longer hold where they do not say; 0: for ever."""
    if task.mode is not Mode.ADD or task.expires_utc_us is None:
        return 0
    return min(task.expires_utc_us // 1_000_000, LAST_S)


def _expires(batch: Batch, until: int) -> Times | None:
    """By row; `until` is for those that say nothing, and not for those that say for ever or cannot be read."""
    if not until:
        return batch.expires
    if batch.expires is None or batch.silent is None:
        return np.full(len(batch.ok), until, np.uint32)
    return np.where(batch.silent, np.uint32(until), batch.expires)


def _ended(expires: Times | None, now_s: int) -> int:
    return 0 if expires is None else int(np.count_nonzero((expires > 0) & (expires <= now_s)))


def _check_read(task: Task, report: ReadReport, collected: Collector) -> None:
    if report.too_many(task.reject_percent):
        first = report.rejects[0]
        raise ListRefusedError(
            f"{task.file}: {report.rejected} of {report.lines} lines rejected, more than {task.reject_percent:g} %"
            f" (line {first.line}: {first.why}); the list was not activated"
        )
    if not collected.taken and not (task.allow_empty and task.mode is Mode.REPLACE):
        raise ListRefusedError(f"{task.file}: holds no number; an empty list must be asked for expressly")


async def _make(
    store: ListStore,
    data_dir: Path,
    task: Task,
    *,
    actor: Actor,
    collected: Collector,
    source_checksum: str,
    report: ReadReport,
    before: ListVersion | None,
) -> Activation:
    kind = report.layout.kind if report.layout is not None else Kind.NUMBER
    own = await asyncio.to_thread(collected.layer, removes=task.mode is Mode.REMOVE, extends=task.mode is Mode.ADD)
    mark = None if task.keep_changes or before is None else (before.version, before.revision)
    if before is not None and mark is not None and task.mode is Mode.REPLACE:
        lost = await changed_by_hand(store, await current_base(store, data_dir, task.name, must_load=False))
        report.dropped = len(lost.add) + len(lost.remove)

    def build(base: Base) -> tuple[Callable[[], Iterator[Entries]], Extent]:
        """Two passes over the same: one to count, one to write."""
        under = base.layers if task.mode is not Mode.REPLACE else ()
        if under and base.kind is not kind:
            raise ListRefusedError(
                f"{task.file}: holds entries of kind {kind}, list {task.name!r} has those of kind {base.kind}"
            )
        tally = Tally()
        extent = snapshot.extent_of(merge((*under, own), tally), kind)
        report.repeats = collected.taken - tally.own
        return lambda: merge((*under, own), Tally()), extent

    plan = VersionPlan(
        name=task.name,
        buyer=task.buyer,
        kind=kind,
        source=name_text(task.file.name),
        source_checksum=source_checksum,
        expires_utc_us=task.expires_utc_us,
        merges=task.mode is not Mode.REPLACE,
        mark=mark,
        keep_changes=task.keep_changes and task.mode is Mode.REPLACE,
        dry_run=task.dry_run,
    )
    entry = LogEntry(actor, str(task.mode), lambda: _detail(task, report, ""))
    return await put_in_force(store, data_dir, build, plan, entry)


def _detail(task: Task, report: ReadReport, why: str) -> dict[str, object]:
    detail: dict[str, object] = {
        "file": name_text(task.file.name),
        "lines": report.lines,
        "rejected": report.rejected,
        "repeats": report.repeats,
    }
    if report.columns:
        detail["columns"] = list(report.columns)
    if report.endless:
        detail["kept_for_ever"] = report.endless
    if report.ended:
        detail["ended"] = report.ended
    if report.unused:
        detail["not_used"] = shown_unused(report.unused)
    return {**detail, "why": why.replace(str(task.file), name_text(task.file.name))} if why else detail


def shown_unused(unused: tuple[UnusedPart, ...]) -> list[str]:
    """For people; those that hold numbers are first, and of very many the others are counted."""
    more = len(unused) - MAX_UNUSED
    return [*map(str, unused[:MAX_UNUSED]), *([f"and {more:,} more"] if more > 0 else [])]


def name_text(name: str) -> str:
    """A file's name as text that JSON and every store take: on disk it need not be UTF-8."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _rejects_path(folder: Path, name: str) -> Path:
    return folder / "rejects" / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.csv"


class _Rejects:
    """The file of rejects, and of what is kept for ever; none is made where there are none."""

    def __init__(self, path: Path, report: ReadReport) -> None:
        self._path = path
        self._report = report
        self._file: TextIOWrapper | None = None
        self._more: Reject | None = None  # the first that is not listed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is None:
            return
        with self._file:
            if self._more is not None:
                many = f"the first of {self._report.rejected - MAX_REJECTS_LISTED} more that are not listed"
                self._write([Reject(self._more.line, many, self._more.member)])

    def take(self, rejects: list[Reject]) -> None:
        """Lines that are rejected."""
        if not rejects:
            return
        report = self._report
        room = max(0, MAX_REJECTS_LISTED - report.rejected)
        report.rejected += len(rejects)
        report.rejects += rejects[: MAX_REJECTS_KEPT - len(report.rejects)]
        self._write(rejects[:room])
        if self._more is None and len(rejects) > room:
            self._more = rejects[room]

    def note(self, endless: list[Reject]) -> None:
        """Lines that are kept for ever."""
        if not endless:
            return
        report = self._report
        room = max(0, MAX_REJECTS_LISTED - report.endless)
        report.endless += len(endless)
        report.endless_lines += endless[: MAX_REJECTS_KEPT - len(report.endless_lines)]
        self._write(endless[:room], "for ever")

    def _write(self, lines: list[Reject], kept: str = "") -> None:
        csv.writer(self._open(), lineterminator="\n").writerows(
            (_inert(one.member), one.line, one.why, kept) for one in lines
        )

    def _open(self) -> TextIOWrapper:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w", encoding="utf-8", newline="")
            self._file.write("member,line,reason,kept\n")
            self._report.rejects_file = self._path
        return self._file


def _inert(text: str) -> str:
    """A member's name that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
