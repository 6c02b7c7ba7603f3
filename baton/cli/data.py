"""Commands that move rows: `export` writes the store's rows to files, `load` writes rows of files into the store."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from baton.cli.console import CommandError, ConfigOption, StoreOption, find_place, out, with_store

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from meter.billing.sql.loading import LoadCounts

_LOADABLE = ("orders", "payments", "refunds", "remedies")


def export(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="buyers, credits, documents, interactions, orders, payments, periods, postings, ratings, refunds,"
            " remedies, reports, states, terms, transfers; or `journal`: the general journal, for bookkeeping.",
        ),
    ],
    *,
    form: Annotated[str, typer.Option("--format", help="csv or jsonl.")] = "csv",
    buyer: Annotated[str, typer.Option(help="Only this buyer.")] = "",
    since: Annotated[str, typer.Option("--from", metavar="DAY", help="From this day on.")] = "",
    until: Annotated[str, typer.Option("--to", metavar="DAY", help="Before this day.")] = "",
    out_file: Annotated[Path | None, typer.Option("--out", help="File to write; standard output without it.")] = None,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Write rows of the store as CSV or JSON Lines: times in microseconds UTC, amounts in minor units."""
    from baton.cli.billing import instant
    from meter.billing.sql.export import ExportFilter
    from meter.billing.sql.operations import BillingStore

    days = (("--from", since), ("--to", until))
    span = [instant(day, start=True, option=option) if day else None for option, day in days]
    wanted = ExportFilter(what, form, buyer, *span)

    async def work(engine: AsyncEngine) -> int:
        if out_file is None:
            return await BillingStore(engine).export(wanted, sys.stdout)
        part = out_file.with_name(f"{out_file.name}.part")
        try:
            with part.open("w", encoding="utf-8", newline="") as file:
                count = await BillingStore(engine).export(wanted, file)
            part.replace(out_file)  # a file that is there stays until the new one is whole
        finally:
            part.unlink(missing_ok=True)
        return count

    count = with_store(find_place(config, store), work)
    if out_file is not None:
        out(f"{out_file}: {count:,} rows")


def load(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="orders, payments, refunds or remedies.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV with a heading line, or JSON Lines; `-`: standard input.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Load rows of a file: all of them, or with any problem none. What is there already stays as it is.

    orders: buyer, week, quantity, make_up. payments: buyer, reference, amount_minor, currency, received_on, document,
    method, note. refunds (checks sent): refund, reference. remedies: buyer, remedy, week.
    """
    import getpass
    import time

    from baton.cli.orders import has_mail
    from meter.billing.sql.loading import Who
    from meter.billing.sql.loading import load as run

    if what not in _LOADABLE:
        raise CommandError(f"WHAT: {what!r} is none of {', '.join(_LOADABLE)}")
    text = _text(file)

    async def work(engine: AsyncEngine) -> LoadCounts:
        return await run(engine, what, text, Who(getpass.getuser(), time.time_ns() // 1000), dry_run=dry_run)

    place = find_place(config, store)
    loaded = with_store(place, work)
    would = "would be " if dry_run else ""
    out(f"{loaded.new:,} {what} {would}loaded, {loaded.known:,} were there already")
    if what == "orders":
        for warning in with_store(place, partial(_unreachable, has_mail=has_mail(config, store))):
            typer.echo(f"warning: {warning}", err=True)


async def _unreachable(engine: AsyncEngine, *, has_mail: bool) -> list[str]:
    """What keeps leads and documents from reaching those who have orders, by buyer."""
    from baton.cli.orders import address_warnings
    from meter.book.sql.book import BookStore
    from meter.book.sql.orders import OrderStore

    ordering = {one.order.buyer for one in await OrderStore(engine).list()}
    known = (await BookStore(engine).load()).buyers
    found: list[str] = []
    for name in sorted(ordering & known.keys()):
        found += [f"{name}: {said}" for said in await address_warnings(engine, [known[name]], has_mail=has_mail)]
    return found


def _text(file: Path) -> str:
    stream: TextIO = sys.stdin
    try:
        return stream.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"FILE: {file} cannot be read: {error}") from error
