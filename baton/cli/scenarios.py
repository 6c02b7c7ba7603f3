"""Commands on the stories of `sipp-scenarios/`: `scenarios list`, `scenarios run`."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baton.cli.console import JsonOption, print_json, print_table

scenarios = typer.Typer(help="Stories of transfers, played with real SIP parties.", no_args_is_help=True)

_Folder = Annotated[Path | None, typer.Option(help="Folder of the stories; the source tree's where not given.")]


@scenarios.command("list")
def list_(folder: _Folder = None, as_json: JsonOption = False) -> None:
    """List the stories and what each must come to."""
    from baton.scenarios import stories_in
    from baton.scenarios.report import expected

    rows = [(one.name, one.entry.title, expected(one), one.entry.pending) for one in stories_in(folder)]
    columns = ("story", "title", "expected", "pending")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


@scenarios.command("run")
def run(  # noqa: PLR0917 - typer calls it by name
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Stories; wildcards may be used.")
    ] = None,
    folder: _Folder = None,
    times: Annotated[int, typer.Option(min=1, max=100, help="Play each so many times at once.")] = 1,
    load: Annotated[int, typer.Option(min=0, max=200, help="Plain transfers a second meanwhile.")] = 0,
    rate: Annotated[int, typer.Option(min=1, max=1000, help="Calls a second that the stories may start.")] = 50,
    keep: Annotated[Path | None, typer.Option(help="Keep everything that is written in this folder.")] = None,
    *,
    pending: Annotated[bool, typer.Option("--pending", help="Play those too that wait for something.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Play stories against a Baton of their own. Exit code 1: something was not as a story expects."""
    from baton.scenarios import main

    how = {"times": times, "load": load, "rate": rate}
    code = main(names or [], folder=folder, **how, pending=pending, as_json=as_json, keep=keep)
    if code:
        raise typer.Exit(code)
