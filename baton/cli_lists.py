"""Commands on suppression lists: `suppression import`, `list`, `check`, `retire`."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baton.cli_book import import_list, print_imported
from baton.console import (
    CommandError,
    ConfigOption,
    JsonOption,
    StoreOption,
    find_place,
    out,
    print_json,
    print_table,
    when,
    with_store,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from meter.store.suppression import ListRow
    from suppression.importer import Imported
    from suppression.scrub import ScrubResult

suppression = typer.Typer(help="Suppression lists: import, list, check, retire.", no_args_is_help=True)

NameOption = Annotated[str, typer.Option("--name", help="Name of the list.")]
BuyerOption = Annotated[str, typer.Option("--buyer", help="The buyer whose list it is.")]


@suppression.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV file.")],
    *,
    name: NameOption,
    buyer: BuyerOption = "",
    is_global: Annotated[bool, typer.Option("--global", help="The list applies to every buyer.")] = False,
    column: Annotated[str, typer.Option(help="Column that holds the numbers.")] = "phone",
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Accept a list without any number.")] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Import a list and put it in force; the version before stays in force where the file is refused."""
    if bool(buyer) == is_global:
        raise typer.BadParameter("say either --buyer NAME or --global")
    place = find_place(config, store)

    async def work(engine: AsyncEngine) -> Imported:
        from config.book_file import ListSource
        from meter.store.book import BookStore

        if buyer and buyer not in (await BookStore(engine).load()).buyers:
            raise CommandError(f"no buyer is called {buyer!r}")
        source = ListSource(name=name, file=file, buyer=buyer, column=column)
        return await import_list(engine, place, source, allow_empty=allow_empty)

    print_imported(with_store(place, work, create=True))


@suppression.command("list")
def list_(config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False) -> None:
    """Show the lists in force."""
    from meter.store.suppression import ListRows

    async def work(engine: AsyncEngine) -> tuple[ListRow, ...]:
        return await ListRows(engine).active()

    rows = with_store(find_place(config, store), work)
    if as_json:
        print_json([asdict(one) for one in rows])
        return
    columns = ("list", "version", "applies to", "numbers", "imported", "by", "checksum")
    print_table(
        columns,
        [
            (
                *(one.name, one.version, one.buyer or "everyone", one.entries),
                *(when(one.imported_utc_us), one.imported_by, one.checksum[:12]),
            )
            for one in rows
        ],
    )


@suppression.command()
def check(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="A phone number in any usual spelling.")],
    buyer: BuyerOption = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say whether a number may be transferred; without --buyer, by the global lists alone. Exit code 1: it may not."""
    place = find_place(config, store)

    async def work(engine: AsyncEngine) -> ScrubResult:
        from meter.store.suppression import ListRows
        from suppression.scrub import Scrub

        scrub = Scrub(ListRows(engine), place.data_dir)
        await scrub.reload()
        return scrub.check(number, buyer)

    result = with_store(place, work)
    if as_json:
        print_json(asdict(result))
    else:
        out(_verdict(result))
        for used in result.lists:
            out(f"  consulted {used.name} version {used.version}, {used.checksum[:12]}")
    if result.reason:
        raise typer.Exit(1)


@suppression.command()
def retire(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the list.")],
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Put a list out of force."""
    from meter.store.suppression import ListRows

    async def work(engine: AsyncEngine) -> bool:
        return await ListRows(engine).retire(name)

    if not with_store(find_place(config, store), work):
        raise CommandError(f"no list called {name!r} is in force")
    out(f"list {name}: out of force")


def _verdict(result: ScrubResult) -> str:
    if not result.reason:
        return "may be transferred"
    return f"{result.reason}: on list {result.hit}" if result.hit else result.reason
