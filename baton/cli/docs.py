"""The hidden command `docs`: writes the reference pages, or says which are out of date."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baton.cli.console import CommandError, out


def docs(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where the pages are.")] = Path("docs/reference"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a page is out of date.")] = False,
) -> None:
    """Write the reference pages from the code."""
    from baton.cli.reference import pages

    made = pages(ctx.find_root().command)
    stale = [name for name, text in made.items() if not _is_current(folder / name, text)]
    if check and stale:
        raise CommandError(f"out of date in {folder}: {', '.join(stale)}; run `baton docs`")
    if not check:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            (folder / name).write_text(text, encoding="utf-8")
    out(f"{len(stale)} pages {'written' if not check else 'out of date'}")


def _is_current(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text
