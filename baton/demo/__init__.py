"""`baton demo`: Baton does its main job before your eyes, over real SIP on loopback.

It starts Baton itself (`baton serve`, on SQLite), SIPp dialers and callees, stunnel and baresip for the secure
trunks, and a mail sink; plays every story at once; and compares what the books say with what had to come out.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import orjson
from rich.console import Console
from rich.live import Live

from baton.demo import report
from baton.demo.parties import check_programs
from baton.demo.run import Result, play
from baton.demo.setup import Stage, set_up, tear_down
from baton.demo.stories import STORIES, Story


class UnknownStoryError(ValueError):
    """`--only` names no story."""


def main(*, as_json: bool = False, keep: Path | None = None, only: str | None = None) -> None:
    """Play, show, and exit 0 only when all is as expected.

    `keep`: the folder for everything that is written. `only`: names of stories, comma between them.
    """
    stories = _chosen([name.strip() for name in only.split(",")] if only else [])
    check_programs()
    folder = (keep or Path(tempfile.mkdtemp(prefix="baton-demo-"))).resolve()
    if (folder / "data").exists():
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
    folder.mkdir(parents=True, exist_ok=True)
    ok = asyncio.run(_main(folder, stories, as_json=as_json))
    sys.exit(0 if ok else 1)


def _chosen(only: Sequence[str]) -> tuple[Story, ...]:
    known = {story.name: story for story in STORIES}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise UnknownStoryError(f"no such story: {', '.join(unknown)}; there are: {', '.join(known)}")
    return tuple(known[name] for name in only) if only else STORIES


async def _main(folder: Path, stories: Sequence[Story], *, as_json: bool) -> bool:
    stage = await set_up(folder, stories)
    try:
        result = await _watched(stage, stories, quiet=as_json)
    finally:
        await tear_down(stage)
    if as_json:
        sys.stdout.write(orjson.dumps(report.as_json(result, stage.sink.messages, folder)).decode() + "\n")
    else:
        Console(width=None if sys.stdout.isatty() else 140).print(report.final(result, stage.sink.messages, folder))
    return result.ok


async def _watched(stage: Stage, stories: Sequence[Story], *, quiet: bool) -> Result:
    console = Console(stderr=True)
    if quiet:
        return await play(stage, stories, lambda _result: None)
    if not console.is_terminal:
        console.print(f"Playing {len(stories)} stories at once; the longest rings for 30 s.")
        return await play(stage, stories, lambda _result: None)
    with Live(console=console, refresh_per_second=4) as screen:
        return await play(stage, stories, lambda result: screen.update(report.live(result)))
