"""Commands that read suppression lists, and `scrub`: look-ups, versions, the log, receipts."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baton.cli.console import (
    CommandError,
    ConfigOption,
    JsonOption,
    Place,
    StoreOption,
    find_place,
    out,
    print_json,
    print_table,
    when,
    with_store,
)
from baton.cli.lists import (
    ColumnsOption,
    HeaderOption,
    ListArgument,
    MemberOption,
    SheetOption,
    SkipOption,
    suppression,
)
from baton.suppression_lists import (
    check_buyer,
    confirm_column,
    current_actor,
    list_store,
    number_of,
    progress_bar,
    signer,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from book.lists import Exemption, ListLogEntry, ListVersion
    from facts.answers import ScrubResult
    from suppression.batch import Job, Summary
    from suppression.lookups import Evidence, ListMatch
    from suppression.reading.shapes import Layout

BuyerOption = Annotated[str, typer.Option("--buyer", help="As for this buyer: the global lists and its own.")]


class CheckError(CommandError):
    """It could not be said whether a number is on a list; exit code 1 says that it is on one."""

    exit_code = 2


NumberArgument = Annotated[str, typer.Argument(metavar="NUMBER", help="A phone number in any usual spelling.")]


@suppression.command("list")
def list_(config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False) -> None:
    """Show the lists in force."""

    async def work(engine: AsyncEngine) -> tuple[ListVersion, ...]:
        return await list_store(engine).active()

    rows = with_store(find_place(config, store), work)
    if as_json:
        print_json([asdict(one) for one in rows])
        return
    print_table(
        ("list", "version", "applies to", "kind", "numbers", "expires", "imported", "by", "state"),
        [
            (
                *(one.name, f"{one.version}.{one.revision}", one.buyer or "everyone", one.kind, one.count),
                *(when(one.expires_utc_us), when(one.imported_utc_us)),
                *(one.imported_by, one.state[:12]),
            )
            for one in rows
        ],
    )


@suppression.command()
def versions(
    name: ListArgument, config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False
) -> None:
    """Show all versions of a list; those whose file is there can be restored."""
    place = find_place(config, store)

    async def work(engine: AsyncEngine) -> tuple[ListVersion, ...]:
        return await list_store(engine).history(name)

    rows = with_store(place, work)
    if not rows:
        raise CommandError(f"there is no list called {name!r}")
    if as_json:
        print_json([asdict(one) | {"file_there": (place.data_dir / one.file).is_file()} for one in rows])
        return
    print_table(
        ("version", "numbers", "imported", "by", "of", "in force", "file"),
        [
            (
                *(f"{one.version}.{one.revision}", one.count, when(one.imported_utc_us), one.imported_by, one.source),
                *("yes" if one.active else "", "" if (place.data_dir / one.file).is_file() else "gone"),
            )
            for one in rows
        ],
    )


@suppression.command()
def check(
    number: NumberArgument,
    buyer: BuyerOption = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say which lists have a number and since when: all lists, or those of one buyer. Exit code 0: it is on none, 1: it
    is on one, 2: that cannot be said.
    """
    try:
        found, result = _looked_up(number, buyer, find_place(config, store))
    except CommandError as error:
        raise CheckError(str(error)) from error
    except Exception as error:  # else it would end with 1
        raise CheckError(f"the number could not be looked up: {error}") from error
    if as_json:
        verdict = None if result is None else asdict(result)
        print_json({"on": [asdict(one) for one in found], "verdict": verdict})
    else:
        _print_found(found, result)
    if found or (result is not None and result.hit):
        raise typer.Exit(1)
    if result is not None and result.reason:
        raise typer.Exit(CheckError.exit_code)


def _looked_up(number: str, buyer: str, place: Place) -> tuple[list[ListMatch], ScrubResult | None]:
    """The lists that have the number, and the verdict where there is a buyer."""
    wanted = number_of(number)

    async def work(engine: AsyncEngine) -> tuple[list[ListMatch], ScrubResult | None]:
        from suppression.lookups import find_number
        from suppression.scrub import Scrub

        if buyer:
            await check_buyer(engine, buyer)
        rows = list_store(engine)
        lists = [one for one in await rows.active() if not buyer or one.buyer in (None, buyer)]
        found = await find_number(rows, place.data_dir, lists, wanted, time.time())
        if not buyer:
            return found, None
        scrub = Scrub(rows, place.data_dir, signer(place), mapped=True)
        await scrub.reload()
        return found, scrub.check(number, buyer)

    return with_store(place, work)


def _print_found(matches: list[ListMatch], result: ScrubResult | None) -> None:
    for one in matches:
        since = when(one.since_utc_us) if one.exact else f"{when(one.since_utc_us)} or before"
        until = f", until {_utc(one.expires_s)}" if one.expires_s else ""
        whose = "applies to everyone" if one.buyer is None else f"of buyer {one.buyer}"
        out(f"on list {one.name} ({whose}) since {since}, by {one.by}{until}")
    if not matches:
        out("on no list")
    if result is not None:
        by = f" by exemption {', '.join(map(str, result.exempt))}" if result.exempt and not result.reason else ""
        verdict = f"{result.reason}: on list {result.hit}" if result.hit else result.reason
        out(verdict or f"may be transferred{by}")
        if result.lists:
            out(f"  consulted {result.lists}")


@suppression.command()
def export(
    name: ListArgument,
    file: Annotated[Path | None, typer.Option("--out", help="CSV file; standard output without.")] = None,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Write all entries of a list as CSV: E.164 numbers, or digests, and until when each holds."""
    place = find_place(config, store)

    async def work(engine: AsyncEngine) -> int:
        from suppression.activating import current_base

        base = await current_base(list_store(engine), place.data_dir, name, must_load=True)
        if base.version is None:
            raise CommandError(f"no list called {name!r} is in force")
        if file is None:
            return _write_rows(sys.stdout, base)
        part = file.with_name(f".{file.name}.part")
        with part.open("w", encoding="utf-8", newline="") as opened:
            many = _write_rows(opened, base)
        part.replace(file)
        return many

    many = with_store(place, work)
    if file is not None:
        out(f"list {name}: {many:,} entries in {file}")


def _write_rows(opened: Any, base: Any) -> int:
    from suppression.lookups import rows

    writer = csv.writer(opened, lineterminator="\n")
    writer.writerow(("entry", "expires"))
    many = 0
    for entry, until in rows(base):
        writer.writerow((entry, _utc(until) if until else ""))
        many += 1
    return many


@suppression.command()
def stats(config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False) -> None:
    """Show what lists there are, how large and how old, and whether each can be used. Exit code 1: one cannot."""
    place = find_place(config, store)

    async def work(engine: AsyncEngine) -> dict[str, Any]:
        from suppression.lookups import sizes
        from suppression.scrub import Scrub

        rows = list_store(engine)
        scrub = Scrub(rows, place.data_dir, signer(place), mapped=True)
        await scrub.reload()
        found = sizes(place.data_dir, await rows.active(), scrub.broken)
        return {
            "lists": [_size(one) for one in found],
            "numbers": sum(one.version.count for one in found),
            "bytes": sum(one.file_bytes for one in found),
            "exemptions": len(await rows.exemptions()),
        }

    found = with_store(place, work)
    if as_json:
        print_json(found)
    else:
        columns = ("list", "applies to", "kind", "version", "numbers", "bytes", "days old", "usable")
        print_table(columns, [tuple(one.values()) for one in found["lists"]])
        out(f"{len(found['lists'])} lists, {found['numbers']:,} numbers, {found['bytes']:,} bytes")
        out(f"{found['exemptions']} exemptions")
    if not all(one["usable"] for one in found["lists"]):
        raise typer.Exit(1)


def _size(size: Any) -> dict[str, Any]:
    row = size.version
    return {
        "list": row.name,
        "applies_to": row.buyer or "everyone",
        "kind": row.kind,
        "version": f"{row.version}.{row.revision}",
        "numbers": row.count,
        "bytes": size.file_bytes,
        "days_old": int((time.time() - row.imported_utc_us / 1e6) // 86_400),
        "usable": size.usable,
    }


@suppression.command()
def log(
    name: Annotated[str, typer.Argument(metavar="[LIST]", help="Name of the list; all where none is given.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, the newest first.")] = 50,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what was done to lists: who, when, from where, and how many numbers before and after."""

    async def work(engine: AsyncEngine) -> tuple[ListLogEntry, ...]:
        return await list_store(engine).log(name or None, limit)

    rows = with_store(find_place(config, store), work)
    if as_json:
        print_json([asdict(one) for one in rows])
        return
    print_table(
        ("when", "list", "action", "by", "from", "version", "before", "after", "detail"),
        [
            (
                *(when(one.at_utc_us), one.name, one.action, one.by, one.origin),
                *("" if one.version is None else f"{one.version}.{one.revision}", one.before, one.after),
                ", ".join(f"{key} {value}" for key, value in one.detail.items()),
            )
            for one in rows
        ],
    )


@suppression.command()
def exemptions(
    everything: Annotated[bool, typer.Option("--all", help="Also those revoked or expired.")] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show who on a global list may be transferred all the same, and why."""

    async def work(engine: AsyncEngine) -> tuple[Exemption, ...]:
        return await list_store(engine).exemptions(active_only=not everything)

    rows = with_store(find_place(config, store), work)
    if as_json:
        print_json([asdict(one) for one in rows])
        return
    print_table(
        ("id", "list", "number", "buyer", "reason", "until", "by", "revoked"),
        [
            (
                *(one.id, one.name, f"+{one.number}", one.buyer or "all", one.reason, when(one.expires_utc_us)),
                *(one.added_by, when(one.revoked_utc_us)),
            )
            for one in rows
        ],
    )


@suppression.command("verify-receipt")
def verify_receipt(
    receipt: Annotated[str, typer.Argument(metavar="RECEIPT", help="What stood in `X-Baton-Receipt`; - reads it.")],
    number: Annotated[str, typer.Option(help="Whether it is this number's.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Verify a receipt of a scrub and show what it says. Exit code 1: it is not ours, it is of another number, or the
    record of the lists that it names is gone or was changed.
    """
    from suppression.receipt import ReceiptError

    place = find_place(config, store)
    keys = signer(place)
    text = sys.stdin.read() if receipt == "-" else receipt
    try:
        claims = keys.verify_document(text)
        proven = keys.proves(keys.verify(text), text, number_of(number, "--number")) if number else None
    except ReceiptError as error:
        raise CommandError(f"the receipt {error}") from error
    digests = claims.get("lists")

    async def work(engine: AsyncEngine) -> Evidence:
        from suppression.lookups import evidence

        wanted = [str(digest) for digest in digests] if isinstance(digests, list) else []
        return evidence(wanted, await list_store(engine).sets_like(wanted))

    proof = with_store(place, work)
    if as_json:
        print_json({"said": claims, "number_matches": proven} | asdict(proof))
    else:
        _print_receipt(claims, proof)
        if proven is not None:
            out("  it is of that number" if proven else "  it is of ANOTHER number")
    if proven is False or proof.missing or proof.changed:
        raise typer.Exit(1)


def _print_receipt(claims: dict[str, object], evidence: Evidence) -> None:
    out("genuine: signed by this Baton and unchanged since")
    for key, value in claims.items():
        if key not in ("iss", "lists"):
            out(f"  {key}: {_utc(int(str(value))) if key == 'iat' else value}")
    for one in evidence.lists:
        out(f"  consulted {one['name']} version {one['version']}.{one['revision']}, {one['state']}")
    for digest in evidence.missing:
        out(f"  the record of the lists {digest} is MISSING")
    for digest in evidence.changed:
        out(f"  the record of the lists {digest} was CHANGED since, and does not count")


def scrub(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TXT, XLSX, or one of them in ZIP or GZ.")],
    *,
    buyer: Annotated[str, typer.Option("--buyer", help="For whom: the global lists and the buyer's own.")],
    column: ColumnsOption = None,
    region: Annotated[str, typer.Option(help="Country of numbers that do not say theirs.")] = "US",
    member: MemberOption = "",
    sheet: SheetOption = "",
    header: HeaderOption = None,
    skip_rows: SkipOption = 0,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for the results; the file's own without.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept a guessed column without being asked.")] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Scrub a whole file: clean lines, suppressed ones and unreadable ones, each into a file, and a signed summary."""
    from suppression.batch import Job, each_line
    from suppression.reading.shapes import ReadOptions, UnreadableError

    try:
        options = ReadOptions(
            tuple(column or ()), region=region, member=member, sheet=sheet, header=header, skip_rows=skip_rows
        )
    except UnreadableError as error:
        raise CommandError(str(error)) from error
    job = Job(file, buyer, folder or file.parent, options)
    done = _scrub(find_place(config, store), job, confirm_column(ask=not as_json, yes=yes))
    if as_json:
        print_json(asdict(done))
        return
    for line in each_line(done):
        out(line)


def _scrub(place: Place, job: Job, confirm: Callable[[Layout], bool]) -> Summary:
    """Scrub a file and put it on the log. Raises CommandError where the file or the batch is refused."""

    async def work(engine: AsyncEngine) -> Summary:
        import asyncio

        from suppression.batch import BatchRefusedError, scrub_file
        from suppression.reading.shapes import UnreadableError
        from suppression.scrub import Scrub

        await check_buyer(engine, job.buyer)
        rows = list_store(engine)
        lists = Scrub(rows, place.data_dir, signer(place), mapped=True)
        await lists.reload()
        try:
            with progress_bar(job.file.name) as progress:
                done = await asyncio.to_thread(
                    scrub_file, lists.state, signer(place), job, progress=progress, confirm=confirm
                )
        except (BatchRefusedError, UnreadableError) as error:
            raise CommandError(str(error)) from error
        detail = {
            "file": done.file,
            "columns": list(done.columns),
            "lines": done.lines,
            "suppressed": done.suppressed,
            "receipt": done.receipt,
        }
        await rows.log_scrub("", current_actor(), {"buyer": job.buyer, **detail})
        return done

    return with_store(place, work)


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
