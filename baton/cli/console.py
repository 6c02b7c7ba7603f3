"""Shared by all commands: options, opening the store, output.

Names and phrases in the store may come from the network; `clean` keeps them from steering a terminal.
"""
# ruff: noqa: PLC0415 - the command line answers at once: what a command needs it imports when it runs

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from config.settings import Settings, SuppressionSection

T = TypeVar("T")
DEFAULT_CONFIG = Path("baton.toml")
_WIDE = 200  # columns where the output is no terminal: nothing is cut for a pipe

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration file, TOML.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="BATON_CONFIG", help=f"Configuration file; {DEFAULT_CONFIG} where neither is given."
    ),
]
StoreOption = Annotated[str, typer.Option("--store", help="Store to use instead: a SQLite file or a database URL.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class CommandError(Exception):
    """A command cannot do what it was asked; the message is all that the person sees."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Place:
    """A store and the data folder beside it."""

    url: str
    data_dir: Path
    suppression: SuppressionSection | None = None
    secrets_key: str = field(default="", repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Place:
        return cls(settings.store_url, settings.store.data_dir, settings.suppression, settings.secrets_key)


def find_place(config: Path | None, store: str) -> Place:
    """From `--store`, else from the configuration. Raises CommandError, ConfigError."""
    if store:
        return _place_of(store)
    settings = find_settings(config)
    if settings is None:
        raise CommandError(f"which store? give --config or --store (there is no {DEFAULT_CONFIG} here)")
    return Place.of(settings)


def find_settings(config: Path | None) -> Settings | None:
    """The settings of the configuration, or of the one in this folder; None where there is none. Raises ConfigError."""
    file = config or DEFAULT_CONFIG
    if config is None and not file.is_file():
        return None
    from config.settings import load

    return load(file, os.environ)


def _place_of(store: str) -> Place:
    """A file, or a URL; the data folder is the one of a SQLite file, else the current one."""
    if "://" not in store:
        return Place(f"sqlite+aiosqlite:///{Path(store).resolve()}", Path(store).resolve().parent)
    scheme, _, file = store.partition(":///")
    return Place(store, Path(file).parent if scheme.startswith("sqlite") else Path())


def with_store(place: Place, work: Callable[[AsyncEngine], Awaitable[T]], *, create: bool = False) -> T:
    """Open the store, do the work, close it. Without `create` a store that is not there is an error."""
    from meter.store.engine import open_store
    from telemetry.logs import configure

    configure(json=False, level="warning")

    async def run() -> T:
        engine = await open_store(place.url, create=create, secrets_key=place.secrets_key)
        try:
            return await work(engine)
        finally:
            await engine.dispose()

    return asyncio.run(run())


def out(text: str = "") -> None:
    typer.echo(text)


def print_json(value: Any) -> None:
    import orjson

    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    typer.echo(orjson.dumps(value, option=option, default=str).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
    """A table; numbers stand to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    filled = [list(row) for row in rows]
    table = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for at, name in enumerate(columns):
        numeric = bool(filled) and all(isinstance(row[at], int) or row[at] is None for row in filled)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in filled:
        table.add_row(*(Text(clean(_cell(value))) for value in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def clean(text: str) -> str:
    """The text without what could steer a terminal."""
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in text)


def when(utc_us: int | None) -> str:
    """Microseconds UTC for people."""
    from datetime import UTC, datetime

    return (
        "" if utc_us is None else datetime.fromtimestamp(utc_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    )
