"""Shared by the commands on suppression lists: the store of lists, the actor, keys, progress on the terminal."""
# ruff: noqa: PLC0415 - as in baton.cli.console

from __future__ import annotations

import contextlib
import getpass
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer

from baton.cli.console import CommandError, Place, out
from book.model import DEFAULT_TIME_ZONE

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from book.lists import Actor
    from book.sections import ListSource
    from meter.suppression_rows.sql.lists import ListRows
    from suppression.importer import ImportResult, Progress, Task
    from suppression.reading.shapes import Layout, Reject
    from suppression.receipt import Signer
    from suppression.report import ReadReport

KEEP_VERSIONS = 5  # where no configuration says
_MANY_REJECTS = 10


def list_store(engine: AsyncEngine) -> ListRows:
    """The lists of a store."""
    from meter.suppression_rows.sql.lists import ListRows

    return ListRows(engine)


def current_actor() -> Actor:
    """The person at this terminal."""
    from book.lists import Actor

    return Actor(getpass.getuser(), f"cli:{socket.gethostname()}")


def signer(place: Place) -> Signer:
    """With the configured keys, or the one in the folder of the lists."""
    from suppression.activating import FOLDER
    from suppression.receipt import load_signer

    section = place.suppression
    key = section.receipt_key.get_secret_value() if section is not None and section.receipt_key is not None else ""
    older = [one.get_secret_value() for one in section.receipt_keys_old] if section is not None else []
    return load_signer(place.data_dir / FOLDER, key, older)


async def import_task(engine: AsyncEngine, place: Place, task: Task, *, ask: bool, yes: bool = False) -> ImportResult:
    """Import one list, then delete the files of versions that are too old. Raises what `import_file` raises, after
    printing what was read. `ask`: a person may confirm a guess; `yes` does, but none by which numbers are removed.
    """
    from suppression.activating import ListRefusedError
    from suppression.editing import prune
    from suppression.importer import Mode, import_file

    store = list_store(engine)
    confirm = confirm_column(ask=ask, yes=yes and task.mode is not Mode.REMOVE)
    try:
        with progress_bar(task.file.name) as progress:
            done = await import_file(store, place.data_dir, task, current_actor(), progress=progress, confirm=confirm)
    except ListRefusedError as error:
        if error.report is not None:
            _print_rejects(error.report, err=True)
        raise
    if done.changed:
        keep = KEEP_VERSIONS if place.suppression is None else place.suppression.keep_versions
        await prune(store, place.data_dir, keep)
    return done


def task_of(source: ListSource, *, dry_run: bool = False, zone: str = DEFAULT_TIME_ZONE) -> Task:
    """A list that a configuration file names. What was changed by hand since is kept: the import may be repeated.

    `zone`: where the days of its expiries end, see `zone_of`.
    """
    from suppression.importer import Task
    from suppression.reading.shapes import ReadOptions

    options = ReadOptions(
        column=source.column,
        area_column=source.area_column,
        expires_column=source.expires_column,
        region=source.region,
        member=source.member,
        sheet=source.sheet,
        header=source.header,
        skip_rows=source.skip_rows,
        zone=zone,
    )
    return Task(source.file, source.name, source.buyer or None, options=options, keep_changes=True, dry_run=dry_run)


def confirm_column(*, ask: bool, yes: bool) -> Callable[[Layout], bool]:
    """Asked where columns were guessed and others might be meant. Where several may hold numbers, all are taken."""

    def confirm(layout: Layout) -> bool:
        each = [f"column {name!r}: {many}" for name, many in zip(layout.column_names, layout.counts, strict=True)]
        where = f"{layout.member}: " if layout.member else ""
        said = f"{where}{', '.join(each)} of {layout.sampled} lines read, such as {layout.example}"
        if layout.doubtful:
            said += (
                f"; there are numbers in {', '.join(repr(layout.name(one)) for one in layout.doubtful)} too, not read"
            )
        if yes:
            typer.echo(f"{said}: taken", err=True)
            return True
        question = "is that the one?" if len(each) == 1 else "are the numbers of all of them meant?"
        return ask and _at_terminal() and typer.confirm(f"{said}: {question}")

    return confirm


def _at_terminal() -> bool:
    import sys

    return sys.stdin.isatty() and sys.stderr.isatty()


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[Progress]:
    """A bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TextColumn("{task.fields[lines]:,} lines"))
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None, lines=0)

        def progress(done: int, total: int, lines: int) -> None:
            bar.update(task, completed=done, total=total, lines=lines)

        yield progress


def print_imported(done: ImportResult, *, dry_run: bool = False) -> None:
    """What an import of a list did, with the lines it could not read."""
    report = done.report
    change = f"{done.before:,} before" if done.before else "a new list"
    if dry_run:
        out(f"list {done.name}: would have {done.entries:,} numbers, {change}, {report.repeats:,} repeats")
    else:
        verb = "in force" if done.changed else "was in force already"
        out(f"list {done.name}: version {done.version} {verb}, {done.entries:,} numbers, {report.repeats:,} repeats")
    if report.dropped:
        out(f"  {report.dropped:,} changes made by hand are not carried over (--keep-changes does)")
    if report.ended:
        out(f"  {report.ended:,} lines have ended already and list nobody")
    print_used(report)
    _print_rejects(report, err=False)


def print_used(report: ReadReport) -> None:
    """The columns that were read, and all that was not: short where there is but the one column."""
    from suppression.importer import shown_unused

    if len(report.columns) > 1 or report.unused:
        out(f"  read: {', '.join(map(repr, report.columns))}")
    for one in shown_unused(report.unused):
        out(f"  not read: {one}")


def _print_rejects(report: ReadReport, *, err: bool) -> None:
    for reject in report.rejects[:_MANY_REJECTS]:
        typer.echo(f"  {_where(reject)} rejected: {reject.why}", err=err)
    hidden = report.rejected - min(_MANY_REJECTS, len(report.rejects))
    if hidden:
        typer.echo(f"  and {hidden:,} more lines rejected", err=err)
    for one in report.endless_lines[:_MANY_REJECTS]:
        typer.echo(f"  {_where(one)}: {one.why}", err=err)
    if report.endless > _MANY_REJECTS:
        typer.echo(f"  {report.endless:,} lines in all are kept for ever", err=err)
    if report.rejects_file is not None:
        typer.echo(f"  all of them: {report.rejects_file}", err=err)


def _where(reject: Reject) -> str:
    return f"{reject.member}, line {reject.line}" if reject.member else f"line {reject.line}"


def until_us(text: str, zone: str = DEFAULT_TIME_ZONE) -> int | None:
    """The end of a day in that zone, or an instant, as microseconds of the Unix epoch; None for empty text.

    Raises CommandError for what is no ISO 8601 date or time, or is in the past.
    """
    if not text:
        return None
    from suppression.expiry import LAST_DAY, LAST_S, end_us

    try:
        found = end_us(text, zone)
    except ValueError as error:
        raise CommandError(f"{text!r} is no date such as 2027-01-31, nor a time such as 2027-01-31T12:00Z") from error
    if found <= time.time_ns() // 1000:
        raise CommandError(f"{text} is in the past")
    if found // 1_000_000 > LAST_S:
        raise CommandError(f"{text} is later than {LAST_DAY}, which is as far as lists go: say nothing for ever")
    return found


def number_of(text: str, what: str = "NUMBER") -> int:
    """E.164 digits of a phone number. Raises CommandError, which names `what` was given and not the number."""
    from book.numbers import NumberError, normalise

    try:
        return normalise(text)
    except NumberError as error:
        raise CommandError(f"{what}: {error}") from error


async def zone_of(engine: AsyncEngine, buyer: str | None) -> str:
    """Where the days end until which entries hold: in a buyer's contract, and for global lists here.

    Raises CommandError where no buyer has that name.
    """
    from meter.book.sql.book import BookStore

    if not buyer:
        return DEFAULT_TIME_ZONE
    found = (await BookStore(engine).load()).buyers.get(buyer)
    if found is None:
        raise CommandError(f"no buyer is called {buyer!r}")
    return found.terms.time_zone


async def zone_of_list(engine: AsyncEngine, name: str) -> str:
    """The same of a list in force; of one that is not there it does not matter."""
    found = await list_store(engine).find(name)
    return await zone_of(engine, None if found is None else found.buyer)


async def check_buyer(engine: AsyncEngine, name: str) -> None:
    """Raises CommandError where no buyer has that name."""
    from meter.book.sql.book import BookStore

    if name not in (await BookStore(engine).load()).buyers:
        raise CommandError(f"no buyer is called {name!r}")
