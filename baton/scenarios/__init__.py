"""`baton scenarios`: the stories of `sipp-scenarios/`, played with real SIPp parties against a real Baton.

One Baton serves them all, with a buyer and a campaign for each story; what the journal, the outcomes and the postings
say at the end is held against each story's `story.toml`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import orjson
from rich.console import Console

from baton.demo.parties import check_programs
from baton.scenarios import report
from baton.scenarios.run import RATE, Result, run
from baton.scenarios.story import Story, choose, read_stories

FOLDER = "sipp-scenarios"
_PROGRAMS = ("sipp", "stunnel4")
_WIDE = 160  # columns where the output is no terminal


def stories_in(folder: Path | None) -> list[Story]:
    """All stories of `folder`, or of the source tree that this runs from. Raises NoStoriesError, ConfigError."""
    return read_stories(folder or Path(__file__).resolve().parents[2] / FOLDER)


def main(
    names: Sequence[str],
    *,
    folder: Path | None = None,
    times: int = 1,
    load: int = 0,
    rate: int = RATE,
    pending: bool = False,
    as_json: bool = False,
    keep: Path | None = None,
) -> int:
    """Play, show, and return 0 only when all is as expected. `keep`: the folder for everything that is written."""
    chosen = choose(stories_in(folder), names, pending=pending)
    check_programs(_PROGRAMS)
    place = (keep or Path(tempfile.mkdtemp(prefix="baton-scenarios-"))).resolve()
    if (place / "data").exists():
        place = Path(tempfile.mkdtemp(prefix="run-", dir=place))
    place.mkdir(parents=True, exist_ok=True)
    screen = Console(stderr=True)
    screen.print(f"Playing {len(chosen)} stories, {times} at once each; see {place}")

    def show(result: Result) -> None:
        if screen.is_terminal:
            done = sum(story.seconds > 0 for story in result.stories)
            screen.print(f"{done} of {len(result.stories)} played", end="\r")

    result = asyncio.run(run(place, chosen, times=times, load=load, rate=rate, show=show))
    if as_json:
        sys.stdout.write(orjson.dumps(report.as_json(result)).decode() + "\n")
    else:
        Console(width=None if sys.stdout.isatty() else _WIDE).print(report.table(result))
    return 0 if result.ok else 1
