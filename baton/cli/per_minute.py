"""Commands on per-minute service: `interactions list`, `show`, `add`, `rate`; `reports list`, `show`, `run`."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baton.cli.console import (
    CommandError,
    ConfigOption,
    JsonOption,
    Place,
    StoreOption,
    clean,
    find_place,
    find_settings,
    out,
    print_json,
    print_table,
    when,
    with_store,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from meter.per_minute.interactions import Reported
    from meter.per_minute.sql.interactions import Interaction
    from meter.per_minute.sql.reports import Report
    from meter.store.clerk import Clerk
    from meter.text.links import LinkOptions

_MAX_FILE = 256 * 1024 * 1024  # bytes
_MAX_ROWS = 1_000  # of a file: they are one transaction, for which routers wait
_MAX_SHOWN = 20  # faults of a file

interactions = typer.Typer(
    help="Per-minute service: calls, e-mails and chats, what they cost, and how they were rated.", no_args_is_help=True
)
reports = typer.Typer(help="Per-minute service: the daily reports.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the interaction; of a call its transfer.")]
BuyerArgument = Annotated[str, typer.Argument(metavar="BUYER", help="Name of the buyer.")]
NumbersOption = Annotated[bool, typer.Option("--numbers", help="Show customers in full.")]


class KindChoice(StrEnum):
    CALL = "call"
    EMAIL = "email"
    CHAT = "chat"


class FormChoice(StrEnum):
    HTML = "html"
    CSV = "csv"
    JSON = "json"


@interactions.command("list")
def list_interactions(
    buyer: BuyerArgument,
    *,
    kind: Annotated[KindChoice | None, typer.Option(help="Only these.")] = None,
    from_: Annotated[str, typer.Option("--from", help="Came in from then on; a day, or an instant, in UTC.")] = "",
    to: Annotated[str, typer.Option(help="Came in before then, likewise.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most this many.")] = 100,
    numbers: NumbersOption = False,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List a buyer's interactions, the newest first."""
    from book.model import Channel
    from meter.book.sql.contracts import read_contract
    from meter.per_minute.sql.interactions import InteractionFilter, find_all

    wanted = InteractionFilter(
        buyer=buyer,
        kind=Channel(kind.value) if kind else None,
        from_us=_instant("--from", from_) if from_ else None,
        to_us=_instant("--to", to) if to else None,
        limit=limit,
    )

    def work(connection: Any) -> list[Interaction]:
        read_contract(connection, buyer)
        return find_all(connection, wanted)

    page = _with_clerk(find_place(config, store), lambda clerk: clerk.read(work))
    rows = [_as_dict(row, numbers=numbers) for row in page]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "kind", "came in", "customer", "agent", "time, s", "resolved", "increments", "cost", "rating"),
        [
            (
                row["id"],
                row["kind"],
                when(row["received_utc_us"]),
                row["customer"],
                row["agent"],
                f"{row['handled_ms'] / 1000:.3f}",
                row["resolved"],
                row["increments"],
                _amount(row),
                row["rating"],
            )
            for row in rows
        ],
    )


@interactions.command("show")
def show_interaction(
    interaction: IdArgument,
    numbers: NumbersOption = False,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show one interaction: its times, what it cost, its text and its ratings."""
    from meter.per_minute.sql.interactions import find

    found = _with_clerk(
        find_place(config, store), lambda clerk: clerk.read(lambda connection: find(connection, interaction))
    )
    _print(found, numbers=numbers, as_json=as_json)


@interactions.command("add")
def add_interactions(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="One JSON object, or JSON Lines; `-`: standard input.")],
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Keep and charge e-mails and chats, all of the file or none; what was reported before is not charged again.

    A line has the fields of `POST /v1/interactions`.
    """
    from meter.per_minute.interactions import InteractionError
    from meter.per_minute.sql.interactions import add

    now = _now()
    reports = _read_file(file, now)
    link = _link(config)

    def work(connection: Any) -> list[tuple[Interaction, bool]]:
        made = []
        for line, report in reports:
            try:
                made.append(add(connection, report, now, ask=link is not None))
            except InteractionError as error:
                raise CommandError(f"{file}:{line}: {error}; nothing was kept") from error
        return made

    kept = _with_clerk(find_place(config, store), lambda clerk: clerk.write(work))
    if as_json:
        print_json([{"id": report.id, "new": is_new, "amount_minor": report.amount_minor} for report, is_new in kept])
        return
    for report, is_new in kept:
        state = (
            f"kept, {report.increments} started increments, {_amount(asdict(report))}" if is_new else "was kept before"
        )
        out(f"{report.id} {clean(report.reference)}: {state}")


@interactions.command("rate")
def rate_interaction(
    interaction: IdArgument,
    rating: Annotated[int, typer.Argument(metavar="RATING", min=1, max=5, help="1 (poor) to 5 (very good).")],
    *,
    by: Annotated[str, typer.Option(help="Who rates.")],
    words: Annotated[str, typer.Option(help="A few words on why.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """File quality control's rating; the last one holds. Of a call it weighs in its endpoint's share of calls."""
    from meter.per_minute.interactions import RatingKind
    from meter.per_minute.sql.ratings import file_rating

    said, now = (rating, words, by), _now()

    def work(connection: Any) -> Interaction:
        return file_rating(connection, interaction, RatingKind.QUALITY, said, now)

    found = _with_clerk(find_place(config, store), lambda clerk: clerk.write(work))
    _print(found, numbers=False, as_json=as_json)


@reports.command("list")
def list_reports(
    *,
    buyer: Annotated[str, typer.Option(help="Only this buyer's.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most this many.")] = 31,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List daily reports, the newest first."""
    from meter.per_minute.sql.reports import read_all

    page = _with_clerk(
        find_place(config, store), lambda clerk: clerk.read(lambda connection: read_all(connection, buyer, limit))
    )
    if as_json:
        print_json([asdict(report) for report in page])
        return
    print_table(
        ("buyer", "day", "interactions", "resolved", "average rating", "issued"),
        [
            (
                report.buyer,
                report.day,
                report.body["interactions"],
                report.body["resolved"],
                _rating(report.body["average_rating_x100"]),
                when(report.issued_utc_us),
            )
            for report in page
        ],
    )


@reports.command("show")
def show_report(
    buyer: BuyerArgument,
    day: Annotated[str, typer.Argument(metavar="DAY", help="The day on which it ends, such as 2026-06-02.")],
    form: Annotated[FormChoice, typer.Option("--format", help="html, csv or json.")] = FormChoice.JSON,
    *,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Write one report to standard output, as it was issued."""
    from meter.per_minute.report_letter import page_of
    from meter.per_minute.reports import csv_of
    from meter.per_minute.sql.reports import read

    place = find_place(config, store)
    found: Report = _with_clerk(place, lambda clerk: clerk.read(lambda connection: read(connection, buyer, day)))
    if form is FormChoice.JSON:
        print_json(asdict(found))
        return
    text = page_of(found, _link(config)) if form is FormChoice.HTML else csv_of(found.body)
    typer.echo(text, nl=False)


@reports.command("run")
def run_reports(
    *,
    as_of: Annotated[str, typer.Option(help="As if it were then; a day, or an instant, in UTC.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Issue every report that is due and was not issued, write its files and queue its e-mail; idempotent."""
    from baton.process.meter import REPORTS
    from meter.per_minute.daily import DailyReports, ReportOptions

    place, at = find_place(config, store), _instant("--as-of", as_of) if as_of else None
    if at is not None and at > _now():
        raise typer.BadParameter("is in the future", param_hint="--as-of")

    async def work(engine: AsyncEngine) -> list[Report]:
        daily = DailyReports(engine, ReportOptions(place.data_dir / REPORTS, _link(config)))
        try:
            return await daily.run_once(at)
        finally:
            await daily.close()

    found = with_store(place, work)
    if as_json:
        print_json([{"buyer": one.buyer, "day": one.day, "digest": one.digest} for one in found])
        return
    for one in found:
        out(f"{one.day} {one.buyer}: {one.body['resolved']} of {one.body['interactions']} resolved")
    if not found:
        out("no report is due")


def _with_clerk(place: Place, work: Callable[[Clerk], Any]) -> Any:
    """Do the work with a clerk of its own. Raises CommandError for what cannot be."""
    from meter.per_minute.interactions import InteractionError
    from meter.store.clerk import Clerk

    async def run(engine: AsyncEngine) -> Any:
        clerk = Clerk(engine)
        try:
            return await work(clerk)
        finally:
            await clerk.close()

    try:
        return with_store(place, run)
    except InteractionError as error:
        raise CommandError(str(error)) from error


def _link(config: Path | None) -> LinkOptions | None:
    """How links are signed; None where no configuration says so."""
    from baton.process.meter import link_options

    settings = find_settings(config)
    return link_options(settings) if settings is not None else None


def _read_file(file: Path, now_utc_us: int) -> list[tuple[int, Reported]]:
    """Line and report of each. Raises CommandError with every line that is wrong, the first of them at least."""
    from meter.per_minute.interactions import InteractionError, read_report

    found, faults = [], []
    for line, value in _objects(file):
        try:
            found.append((line, read_report(value, now_utc_us)))
        except InteractionError as error:
            faults.append(f"{file}:{line}: {error}")
    if faults:
        more = f"\nand {len(faults) - _MAX_SHOWN} more" if len(faults) > _MAX_SHOWN else ""
        raise CommandError(clean_lines([*faults[:_MAX_SHOWN]]) + more + "\nnothing was kept")
    if not found:
        raise CommandError(f"{file}: there is nothing in it")
    if len(found) > _MAX_ROWS:
        raise CommandError(f"{file}: has {len(found):,} lines; at most {_MAX_ROWS:,} are kept at once")
    return found


def clean_lines(lines: list[str]) -> str:
    """Lines without what could steer a terminal."""
    return "\n".join(map(clean, lines))


def _objects(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """One object over the whole file, else one a line; empty lines are left out. Raises CommandError."""
    import sys

    import orjson

    try:
        raw = sys.stdin.buffer.read(_MAX_FILE + 1) if str(file) == "-" else _read(file)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error
    if len(raw) > _MAX_FILE:
        raise CommandError(f"{file}: is larger than {_MAX_FILE // 2**20} MiB")
    try:
        lines = [(1, orjson.loads(raw))]
    except orjson.JSONDecodeError:
        lines = []
        for number, line in enumerate(raw.splitlines(), start=1):
            if line.strip():
                try:
                    lines.append((number, orjson.loads(line)))
                except orjson.JSONDecodeError as error:
                    raise CommandError(f"{file}:{number}: is no JSON: {error}; nothing was kept") from error
    for number, value in lines:
        if not isinstance(value, dict):
            raise CommandError(f"{file}:{number}: is no JSON object; nothing was kept")
    return lines


def _read(file: Path) -> bytes:
    with file.open("rb") as source:
        return source.read(_MAX_FILE + 1)


def _instant(option: str, text: str) -> int:
    """A day or an instant, UTC where it has no offset, in microseconds."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("is no day and no instant, such as 2026-06-02", param_hint=option) from error
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return int(aware.timestamp()) * 1_000_000


def _print(interaction: Interaction, *, numbers: bool, as_json: bool) -> None:
    one = _as_dict(interaction, numbers=numbers)
    if as_json:
        print_json(one)
        return
    state = "resolved" if one["resolved"] else "not resolved"
    out(f"{one['kind']} {clean(one['id'])} for {clean(one['buyer'])}: {state}")
    out(f"came in {when(one['received_utc_us'])}, customer {clean(one['customer']) or 'unknown'}")
    answered = when(one["started_utc_us"]) or "nobody answered"
    out(f"answered {answered}, ended {when(one['ended_utc_us'])}, agent {clean(one['agent']) or 'none'}")
    out(f"{one['handled_ms'] / 1000:.3f} s, {one['increments']} started increments, {_amount(one) or 'free'}")
    if one["recording"]:
        out(f"recording {clean(one['recording'])}")
    for line in one["text"].splitlines():
        out(f"  {clean(line)}")
    for rating in one["ratings"]:
        said = f"{rating['rating']} of 5 by {rating['kind']}, {clean(rating['by'])}"
        words = " ".join(clean(line) for line in rating["words"].splitlines())
        out(f"rated {when(rating['at_utc_us'])}: {said}{': ' + words if words else ''}")


def _as_dict(interaction: Interaction, *, numbers: bool) -> dict[str, Any]:
    from telemetry.logs import mask

    rating = interaction.rating
    found = asdict(interaction) | {"rating": rating.rating if rating else None}
    return found if numbers else found | {"customer": mask(found["customer"])}


def _amount(row: dict[str, Any]) -> str:
    from meter.text.localised import DEFAULT_LOCALE, money_text

    return money_text(row["amount_minor"], row["currency"], DEFAULT_LOCALE) if row["currency"] else ""


def _rating(average_x100: int | None) -> str:
    return "" if average_x100 is None else f"{average_x100 // 100}.{average_x100 % 100:02d}"


def _now() -> int:
    return time.time_ns() // 1000
