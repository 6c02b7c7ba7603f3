"""The output of a run: a line for each story, and for each that failed the difference and where to look."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from baton.cli.console import clean
from baton.scenarios.play import StoryResult
from baton.scenarios.run import Result
from baton.scenarios.story import Story
from facts.fact import Kind

_SHOWN = 6  # problems of one story; twenty calls may all have the same


def table(result: Result) -> Group:
    """The result, for people."""
    made = Table(title="Stories, against their expectations", title_justify="left")
    for name in ("story", "calls", "verdict", "expected", "legs", "s", "ok"):
        made.add_column(name, justify="right" if name in ("calls", "legs", "s") else "left", overflow="fold")
    for played in result.stories:
        ok = Text("yes", style="green") if played.ok else Text("NO", style="bold red")
        made.add_row(
            played.name,
            str(played.cast.calls),
            verdicts(played),
            expected(played.cast.story),
            str(sum(len(set(told.legs_with(Kind.DIALED))) for told in played.told)),
            f"{played.seconds:.1f}",
            ok,
        )
    lines: list[Text] = []
    for played in result.stories:
        if not played.ok:
            lines.append(Text(f"{played.name}: see {played.cast.folder}", style="bold red"))
            lines += [Text(f"  {clean(one)}", style="red") for one in _few(played.problems)]
    lines += [Text(clean(one), style="bold red") for one in result.problems]
    return Group(made, *lines, *_ending(result))


def _few(problems: list[str]) -> list[str]:
    left = len(problems) - _SHOWN
    return problems if left <= 0 else [*problems[:_SHOWN], f"and {left} more"]


def _ending(result: Result) -> list[Text]:
    good = sum(played.ok for played in result.stories)
    said = [Text(f"{good} of {len(result.stories)} stories as expected, {result.transfers} transfers on the record.")]
    if result.load is not None:
        said.append(Text(f"Plain traffic meanwhile: {result.load.transfers} transfers."))
    said.append(
        Text(f"All slots free {result.slots_free_s:.1f} s after the last story; {result.seconds:.0f} s in all.")
    )
    said.append(Text(f"Everything is in {result.folder}"))
    return said


def verdicts(played: StoryResult) -> str:
    """What came out, with how often where it was not always the same."""
    found = Counter(f"{one.settled['verdict']}/{one.settled['reason']}" for one in played.told if one.settled)
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items())) or "no transfer"


def expected(story: Story) -> str:
    """What should come out."""
    said = (
        f"{'|'.join(one.value for one in expect.verdict)}/{'|'.join(one.value for one in expect.reason)}"
        for expect in story.expected
    )
    return ", ".join(said) or "no transfer"


def as_json(result: Result) -> dict[str, Any]:
    """The result, for programs."""
    return {
        "ok": result.ok,
        "seconds": round(result.seconds, 1),
        "slots_free_s": round(result.slots_free_s, 1),
        "transfers": result.transfers,
        "engine_faults": result.faults,
        "problems": result.problems,
        "folder": str(result.folder),
        "stories": [
            {
                "name": played.name,
                "ok": played.ok,
                "verdicts": verdicts(played),
                "expected": expected(played.cast.story),
                "calls": played.cast.calls,
                "seconds": round(played.seconds, 1),
                "problems": played.problems,
                "folder": str(played.cast.folder),
            }
            for played in result.stories
        ],
    }
