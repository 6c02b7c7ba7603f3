"""Commands on the configuration file and the book: `check`, `import`, `buyers`."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baton.cli.console import (
    ConfigArgument,
    ConfigOption,
    JsonOption,
    Place,
    StoreOption,
    find_place,
    out,
    print_json,
    print_table,
    with_store,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from book.model import Buyer
    from book.sections import BookFile
    from config.check import CheckReport
    from meter.book.sql.book import ImportReport
    from meter.book.sql.stops import StateChange

buyers = typer.Typer(help="Buyers: list, pause, resume, hold.", no_args_is_help=True)

BuyerArgument = Annotated[str, typer.Argument(metavar="BUYER", help="Name of the buyer.")]


def check(config: ConfigArgument, as_json: JsonOption = False) -> None:
    """Check a configuration file and the lists it names: every problem with its place, and what the file sets up."""
    from baton.cli.list_checks import list_problems
    from baton.cli.mailing import mail_problems
    from book.terms import presets
    from config.check import check as look

    checked = look(config, os.environ, presets())
    if checked.settings is not None:
        checked = replace(checked, problems=(*checked.problems, *mail_problems(checked.settings)))
    of_lists = list(list_problems(checked.book.suppression_lists, checked.problems))
    checked = replace(
        checked,
        problems=(*checked.problems, *(one for one, refuses in of_lists if refuses)),
        warnings=(*checked.warnings, *(one for one, refuses in of_lists if not refuses)),
    )
    if as_json:
        print_json({"file": str(config), "ok": not checked.problems, **_as_dict(checked)})
    else:
        _print_checked(checked)
    if checked.problems:
        raise typer.Exit(1)


def import_(
    config: ConfigArgument,
    replace: Annotated[bool, typer.Option("--replace", help="Replace entries that differ in the store.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing.")] = False,
) -> None:
    """Import buyers, campaigns, terms and suppression lists of a file into the store: all of it, or nothing."""
    from book.addresses import NO_MAIL, pays_failed
    from book.sections import load_book
    from book.terms import presets
    from config.settings import load

    settings = load(config, os.environ)
    book = load_book(config, os.environ, presets())
    place = Place.of(settings)
    for warning in book.warnings:
        out(f"warning: {warning}")
    if settings.mail is None and any(map(pays_failed, book.buyers)):
        out(f"warning: mail: {NO_MAIL}")

    async def work(engine: AsyncEngine) -> None:
        from baton.cli.list_checks import naming, refuse_unreadable
        from meter.book.sql.book import BookStore

        store = BookStore(engine)
        if not dry_run:  # all of it can be done, or nothing is
            await store.import_book(book, replace=replace, dry_run=True)
            await refuse_unreadable(engine, place, book)
        along = naming(book, time.time_ns() // 1000)
        _print_import(await store.import_book(book, replace=replace, dry_run=dry_run, along=along), dry_run=dry_run)
        await _import_lists(engine, place, book, dry_run=dry_run)

    with_store(place, work, create=True)


@buyers.command("list")
def list_(config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False) -> None:
    """List buyers with their state, terms and endpoints."""
    from meter.book.sql.book import BookStore

    async def work(engine: AsyncEngine) -> list[Buyer]:
        return list((await BookStore(engine).load()).buyers.values())

    rows = [_buyer_row(one) for one in with_store(find_place(config, store), work)]
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("buyer", "title", "state", "terms", "endpoints", "buffer ms"), [list(one.values()) for one in rows]
        )


ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept beside the change.")]


@buyers.command()
def pause(
    buyer: BuyerArgument, reason: ReasonOption = "", config: ConfigOption = None, store: StoreOption = ""
) -> None:
    """Give a buyer no transfers until it is resumed."""
    _set(buyer, "paused", reason, config, store)


@buyers.command()
def resume(
    buyer: BuyerArgument, reason: ReasonOption = "", config: ConfigOption = None, store: StoreOption = ""
) -> None:
    """Give a buyer transfers again, after a pause or a hold by hand; who has not paid stays on hold."""
    _set(buyer, "active", reason, config, store)


@buyers.command()
def hold(buyer: BuyerArgument, reason: ReasonOption = "", config: ConfigOption = None, store: StoreOption = "") -> None:
    """Put a buyer on hold; it takes effect on the next transfer, and only `resume` ends it."""
    _set(buyer, "on_hold", reason, config, store)


@buyers.command()
def cancel(
    buyer: BuyerArgument, reason: ReasonOption = "", config: ConfigOption = None, store: StoreOption = ""
) -> None:
    """End a contract: no transfers, no invoice for orders to come; what is short of paid orders becomes a check."""
    _set(buyer, "cancelled", reason, config, store)


@buyers.command()
def history(
    buyer: BuyerArgument, config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False
) -> None:
    """Who paused, held, resumed or cancelled a buyer, when and why; `billing` is the weekly cycle."""
    from baton.cli.console import when
    from meter.book.sql.book import BookStore

    async def work(engine: AsyncEngine) -> list[dict[str, Any]]:
        return await BookStore(engine).states(buyer)

    rows = with_store(find_place(config, store), work)
    if as_json:
        print_json(rows)
    else:
        shown = [(when(one["at_utc_us"]), one["before"], one["after"], one["by"], one["reason"]) for one in rows]
        print_table(("when", "from", "to", "by", "why"), shown)


def _set(buyer: str, state: str, reason: str, config: ConfigOption, store: str) -> None:
    import getpass

    from book.model import BuyerState, Stop
    from meter.book.sql.book import BookStore
    from meter.book.sql.stops import held_by
    from meter.store.clerk import Clerk

    async def work(engine: AsyncEngine) -> tuple[StateChange, list[str]]:
        made = await BookStore(engine).set_buyer_state(buyer, BuyerState(state), getpass.getuser(), reason)
        clerk = Clerk(engine)
        try:
            return made, await clerk.read(lambda connection: held_by(connection, buyer))
        finally:
            await clerk.close()

    made, unpaid = with_store(find_place(config, store), work)
    before, after = made.before.value, made.after.value
    moved = (
        f"{before} -> {after}" if before != after else f"is {after} already" if not made.changed else f"stays {after}"
    )
    out(f"{buyer}: {moved}")
    stops = [f"{one.value} ({', '.join(unpaid)})" if one is Stop.UNPAID and unpaid else one.value for one in made.stops]
    if len(stops) > 1 or after != state:
        out(f"not served: {', '.join(stops)}")


def _buyer_row(buyer: Buyer) -> dict[str, Any]:
    from meter.book.sql.editing import buffer_ms

    return {
        "buyer": buyer.name,
        "title": buyer.title,
        "state": buyer.state.value,
        "terms": f"{buyer.terms.name} v{buyer.terms.version}",
        "endpoints": len(buyer.endpoints),
        "buffer_ms": buffer_ms(buyer),
    }


def _as_dict(checked: CheckReport) -> dict[str, Any]:
    settings = checked.settings
    listeners = [] if settings is None else [one.model_dump(mode="json") for one in settings.listeners]
    return {
        "problems": [asdict(one) for one in checked.problems],
        "warnings": [asdict(one) for one in checked.warnings],
        "listeners": listeners,
        "buyers": [_buyer_row(one) | {"endpoints": _endpoint_dicts(one)} for one in checked.book.buyers],
        "campaigns": [asdict(one) for one in checked.book.campaigns],
    }


def _endpoint_dicts(buyer: Buyer) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "kind": one.kind.value, "transport": one.transport.value, "secure": one.secure}
        for one in buyer.endpoints
    ]


def _print_checked(checked: CheckReport) -> None:
    for problem in checked.problems:
        out(f"problem: {problem}")
    for warning in checked.warnings:
        out(f"warning: {warning}")
    if checked.settings is not None:
        listeners = [
            (one.name, one.transport.value, str(one.address), str(one.port)) for one in checked.settings.listeners
        ]
        print_table(("listener", "transport", "address", "port"), listeners)
    if checked.book.buyers:
        from meter.book.sql.editing import buffer_ms

        rows = [(one.name, one.terms.name, _endpoints_text(one), buffer_ms(one)) for one in checked.book.buyers]
        print_table(("buyer", "terms", "endpoints", "buffer ms"), rows)
    count = len(checked.problems)
    out("no problems" if not count else f"{count} problem{'s' if count > 1 else ''}")


def _endpoints_text(buyer: Buyer) -> str:
    """Name and way of each endpoint: `pbx (secure tls), desk (did)`."""
    ways = {one.name: one.transport.value if one.kind == "trunk" else one.kind.value for one in buyer.endpoints}
    return ", ".join(f"{one.name} ({'secure ' if one.secure else ''}{ways[one.name]})" for one in buyer.endpoints)


def _print_import(report: ImportReport, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for name in report.added:
        out(f"{name}: {would}added")
    for name in report.replaced:
        out(f"{name}: {would}replaced")
    out(f"book version {report.version}, {report.unchanged} unchanged")


async def _import_lists(engine: AsyncEngine, place: Place, book: BookFile, *, dry_run: bool) -> None:
    """A list that fails now, after it could be read a moment ago, stays named: whom it concerns is closed."""
    from baton.suppression_lists import import_task, print_imported, task_of, zone_of

    zones = {one.name: one.terms.time_zone for one in book.buyers}
    for one in book.suppression_lists:
        zone = zones.get(one.buyer) or await zone_of(engine, one.buyer)
        done = await import_task(engine, place, task_of(one, dry_run=dry_run, zone=zone), ask=False)
        print_imported(done, dry_run=dry_run)
