"""Commands that change suppression lists: `suppression import`, `add`, `remove`, `restore`, `retire` and more."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    with_store,
)
from baton.suppression_lists import (
    current_actor,
    import_task,
    list_store,
    number_of,
    print_imported,
    until_us,
    zone_of,
    zone_of_list,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from book.lists import ListVersion
    from suppression.activating import Activation
    from suppression.editing import EditResult
    from suppression.importer import ImportResult, Task

suppression = typer.Typer(help="Suppression lists: import, change, look up, restore, export.", no_args_is_help=True)

ListArgument = Annotated[str, typer.Argument(metavar="LIST", help="Name of the list.")]
NumbersArgument = Annotated[
    list[str], typer.Argument(metavar="NUMBER...", help="Numbers in any usual spelling, or digests in hex.")
]
UntilOption = Annotated[
    str, typer.Option("--expires", help="Until when, such as 2027-01-31: that day included, in the contract's zone.")
]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column", help="Column of the numbers: its name, or #2; several times for several. Guessed without."
    ),
]
HeaderOption = Annotated[
    bool | None, typer.Option("--header/--no-header", help="Whether the first row is a header; seen without.")
]
SkipOption = Annotated[
    int, typer.Option("--skip-rows", min=0, max=1000, help="Lines above the header that are no list.")
]
MemberOption = Annotated[str, typer.Option(help="Which files of a ZIP archive, such as *.csv.")]
SheetOption = Annotated[str, typer.Option(help="Which sheets of a workbook, such as DNC*.")]

RejectsOption = Annotated[
    float, typer.Option(min=0, max=100, help="More rejected lines than this, and nothing is activated.")
]
KeepOption = Annotated[
    bool, typer.Option("--keep-changes", help="When replacing, carry over what was changed by hand.")
]


class _Mode(enum.StrEnum):
    REPLACE = "replace"
    ADD = "add"
    REMOVE = "remove"


class _Hash(enum.StrEnum):
    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"


@suppression.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TXT, XLSX, or one of them in ZIP or GZ.")],
    *,
    name: Annotated[str, typer.Option("--name", help="Name of the list.")],
    buyer: Annotated[str, typer.Option("--buyer", help="The buyer whose list it is.")] = "",
    is_global: Annotated[bool, typer.Option("--global", help="The list applies to every buyer.")] = False,
    mode: Annotated[_Mode, typer.Option(help="What the file does to the list.")] = _Mode.REPLACE,
    column: ColumnsOption = None,
    area_column: Annotated[str, typer.Option(help="Column of area codes, where --column has seven digits.")] = "",
    expires_column: Annotated[str, typer.Option(help="Column that says until when an entry holds.")] = "",
    hashed: Annotated[_Hash | None, typer.Option(help="The entries are digests of this kind; seen without.")] = None,
    region: Annotated[str, typer.Option(help="Country of numbers that do not say theirs.")] = "US",
    member: MemberOption = "",
    sheet: SheetOption = "",
    header: HeaderOption = None,
    skip_rows: SkipOption = 0,
    expires: UntilOption = "",
    reject_percent: RejectsOption = 2.0,
    rejects: Annotated[Path | None, typer.Option(help="Where rejected lines are listed.")] = None,
    keep_changes: KeepOption = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Accept a list without any number.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept a guessed column without being asked.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Import a list and put it in force; the version before stays in force where the file is refused."""
    if bool(buyer) == is_global:
        raise typer.BadParameter("say either --buyer NAME or --global")
    from suppression.importer import Mode, Task
    from suppression.kinds import Kind
    from suppression.reading.shapes import ReadOptions

    options = ReadOptions(
        column=tuple(column or ()),
        area_column=area_column,
        expires_column=expires_column,
        kind=Kind(hashed.value) if hashed else None,
        region=region,
        member=member,
        sheet=sheet,
        header=header,
        skip_rows=skip_rows,
    )
    task = Task(
        file=file,
        name=name,
        buyer=buyer or None,
        mode=Mode(mode.value),
        options=options,
        allow_empty=allow_empty,
        keep_changes=keep_changes,
        reject_percent=reject_percent,
        rejects_file=rejects,
        dry_run=dry_run,
    )
    _import(find_place(config, store), task, expires, yes=yes, as_json=as_json)


def _import(place: Place, task: Task, expires: str, *, yes: bool, as_json: bool) -> None:
    """Import one list; days end in the time zone of the buyer's terms."""

    async def work(engine: AsyncEngine) -> ImportResult:
        zone = await zone_of(engine, task.buyer or "")
        local = replace(task, options=replace(task.options, zone=zone), expires_utc_us=until_us(expires, zone))
        return await import_task(engine, place, local, ask=not as_json, yes=yes)

    done = with_store(place, work, create=True)
    if as_json:
        print_json(asdict(done))
    else:
        print_imported(done, dry_run=task.dry_run)


@suppression.command()
def add(
    name: ListArgument,
    numbers: NumbersArgument,
    expires: UntilOption = "",
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Put numbers on a list; routers have them within `suppression.reload_ms`."""
    _edit(find_place(config, store), name, adding=numbers, expires=expires)


@suppression.command()
def remove(name: ListArgument, numbers: NumbersArgument, config: ConfigOption = None, store: StoreOption = "") -> None:
    """Take numbers off a list."""
    _edit(find_place(config, store), name, removing=numbers)


def _edit(
    place: Place, name: str, *, adding: Sequence[str] = (), removing: Sequence[str] = (), expires: str = ""
) -> None:
    async def work(engine: AsyncEngine) -> EditResult:
        from suppression.editing import edit

        until_s = (until_us(expires, await zone_of_list(engine, name)) or 0) // 1_000_000
        add = dict.fromkeys(adding, until_s)
        return await edit(list_store(engine), place.data_dir, name, add=add, remove=removing, actor=current_actor())

    done = with_store(place, work)
    out(f"list {name}: version {done.version}.{done.revision}, {done.count:,} numbers")
    told = {"added": done.added, "removed": done.removed, "on it before": done.already, "not on it": done.absent}
    out("  " + ", ".join(f"{many} {what}" for what, many in told.items() if many))


@suppression.command()
def fold(name: ListArgument, config: ConfigOption = None, store: StoreOption = "") -> None:
    """Write a list and the changes made to it into one new file. Happens by itself after many changes."""
    place = find_place(config, store)

    async def work(engine: AsyncEngine) -> Activation:
        from suppression.editing import fold as fold_

        return await fold_(list_store(engine), place.data_dir, name, current_actor())

    done = with_store(place, work)
    what = "in force" if done.changed else "had no changes"
    out(f"list {name}: version {done.version} {what}, {done.count:,} numbers")


@suppression.command()
def restore(
    name: ListArgument,
    version: Annotated[int, typer.Option(min=1, help="The version, see `baton suppression versions`.")],
    drop_changes: Annotated[
        bool, typer.Option("--drop-changes", help="Do not carry over what was changed by hand since.")
    ] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Put an older version of a list in force again, as a new one."""
    place = find_place(config, store)

    async def work(engine: AsyncEngine) -> ListVersion:
        from suppression.editing import restore as restore_

        rows = list_store(engine)
        return await restore_(rows, place.data_dir, name, version, current_actor(), drop_changes=drop_changes)

    done = with_store(place, work)
    out(f"list {name}: version {done.version}.{done.revision} in force, of version {version}, {done.count:,} numbers")


@suppression.command()
def expire(
    name: ListArgument,
    expires: Annotated[str, typer.Argument(metavar="DATE", help="Such as 2027-01-31 (included), or `never`.")],
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Say until when a whole list holds; afterwards it applies to nobody."""

    async def work(engine: AsyncEngine) -> bool:
        until = None if expires == "never" else until_us(expires, await zone_of_list(engine, name))
        return await list_store(engine).extend(name, until, current_actor())

    if not with_store(find_place(config, store), work):
        raise CommandError(f"no list called {name!r} is in force")
    out(f"list {name}: holds {'for ever' if expires == 'never' else f'until {expires}'}")


@suppression.command()
def retire(
    name: ListArgument,
    unname: Annotated[bool, typer.Option("--unname", help="Also where the configuration named it: for good.")] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Put a list out of force. One that an import named closes whom it concerns until it is imported again."""

    async def work(engine: AsyncEngine) -> tuple[bool, ListVersion | None]:
        lists = list_store(engine)
        return await lists.retire(name, current_actor(), unname=unname), await lists.find(name)

    done, left = with_store(find_place(config, store), work)
    if not done:
        raise CommandError(f"no list called {name!r} is in force")
    out(f"list {name}: out of force")
    if left is not None:
        whom = "anybody" if left.buyer is None else f"buyer {left.buyer}"
        said = f"warning: the configuration names it, so nobody is transferred to {whom} until it is imported again"
        typer.echo(f"{said}; --unname takes it away for good", err=True)


@suppression.command()
def exempt(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="A phone number in any usual spelling.")],
    *,
    name: Annotated[str, typer.Option("--list", help="The global list.")],
    reason: Annotated[str, typer.Option(help="Why, such as the consent on record and where it is kept.")],
    expires: UntilOption,
    buyer: Annotated[str, typer.Option("--buyer", help="For this buyer alone; for all where none is given.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Let a person on a global list be transferred all the same: prior consent on record."""
    wanted = number_of(number)

    async def work(engine: AsyncEngine) -> int:
        until = until_us(expires, await zone_of(engine, buyer))
        if until is None:
            raise CommandError("--expires: an exemption has an end")
        try:
            done = await list_store(engine).exempt(
                name, wanted, buyer=buyer or None, reason=reason, expires_utc_us=until, actor=current_actor()
            )
        except ValueError as error:
            raise CommandError(str(error)) from error
        return done.id

    out(f"exemption {with_store(find_place(config, store), work)}")


@suppression.command()
def revoke(
    exemption: Annotated[int, typer.Argument(metavar="ID", help="See `baton suppression exemptions`.")],
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """End an exemption."""

    async def work(engine: AsyncEngine) -> bool:
        return await list_store(engine).revoke(exemption, current_actor())

    if not with_store(find_place(config, store), work):
        raise CommandError(f"no exemption {exemption} is in force")
    out(f"exemption {exemption}: revoked")
