"""The output of the demo: live progress, then the table, the e-mails, and where everything is; or one JSON object."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from baton.demo.run import Result, StoryResult
from facts.ladder import Ladder

_LIVE_COLUMNS = ("story", "what happens", "state", "verdict")


def live(result: Result) -> Table:
    """The table while calls are up."""
    table = Table(title="Baton: ten transfers at once, over real SIP", title_justify="left")
    for name in _LIVE_COLUMNS:
        table.add_column(name, no_wrap=name != "what happens")
    for played in result.stories:
        settled = played.ladder is not None and played.state in ("closed", "settled")
        verdict = played.ladder.outcome.verdict.value if settled and played.ladder else ""
        table.add_row(played.story.name, played.story.title, played.state, verdict)
    return table


def _seconds(value: int | None) -> str:
    return "" if value is None else f"{value / 1000:.3f}"


def _first(ladder: Ladder, name: str) -> int | None:
    found = [getattr(leg, name) for leg in ladder.legs if getattr(leg, name) is not None and not leg.late]
    return min(found) if found else None


def billed(played: StoryResult) -> str:
    """What the week's bill will say of it: terms westlake-fulfillment."""
    if played.ladder is None:
        return ""
    counts_as = played.ladder.outcome.counts_as.value
    return {"connected": "1 unit at 93 %", "failed": "1 unit at 100 %"}.get(counts_as, "free")


def final(result: Result, mails: list[EmailMessage], folder: Path) -> Group:
    """The result, for people."""
    table = Table(title="Times in seconds from dial-out", title_justify="left")
    for name in ("story", "ring", "answer", "talk", "attempt", "verdict", "reason", "billed", "as expected"):
        right = name in ("ring", "answer", "talk", "attempt")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for played in result.stories:
        table.add_row(*_row(played))
    notes = [f"[{p.story.name}] {problem}" for p in result.stories for problem in p.problems]
    lines = [Text(f"  {note}", style="red") for note in notes]
    journal = result.journal
    verified = (
        f"verified, {journal.facts} facts in {journal.chains} chains" if journal and journal.ok else "NOT VERIFIED"
    )
    lines += [
        Text(f"\n{len(mails)} e-mails received, in {folder / 'mail'}:"),
        *(Text(f"  to {message['To']}: {message['Subject']}") for message in mails),
        Text(f"\njournal: {verified}"),
        Text(f"database: {result.database}"),
        Text(f"look closer: baton transfers list --config {folder / 'baton.toml'}"),
        Text(
            f"\n{'All' if result.ok else 'NOT all'} as expected, {result.seconds:.0f} s.",
            style="bold green" if result.ok else "bold red",
        ),
    ]
    return Group(table, *lines)


def _row(played: StoryResult) -> list[str | Text]:
    ok = Text("yes", style="green") if played.ok else Text("NO", style="bold red")
    ladder = played.ladder
    if ladder is None:
        return [played.story.name, *[""] * 7, ok]
    outcome = ladder.outcome
    return [
        played.story.name,
        _seconds(_first(ladder, "ringing_ms")),
        _seconds(_first(ladder, "answered_ms")),
        _seconds(outcome.talk_ms) if outcome.talk_ms else "",
        _seconds(outcome.attempt_ms) if ladder.dialout_utc_us else "",
        outcome.verdict.value,
        outcome.reason.value,
        billed(played),
        ok,
    ]


def as_json(result: Result, mails: list[EmailMessage], folder: Path) -> dict[str, Any]:
    """The result, for programs."""
    return {
        "ok": result.ok,
        "seconds": round(result.seconds, 1),
        "stories": [_story(played) for played in result.stories],
        "mails": [
            {"to": str(m["To"]), "subject": str(m["Subject"]), "message_id": str(m["Message-ID"])} for m in mails
        ],
        "journal": {
            "ok": bool(result.journal and result.journal.ok),
            "facts": result.journal.facts if result.journal else 0,
        },
        "database": result.database,
        "folder": str(folder),
    }


def _story(played: StoryResult) -> dict[str, Any]:
    ladder = played.ladder
    outcome = ladder.outcome if ladder else None
    return {
        "name": played.story.name,
        "verdict": outcome.verdict.value if outcome else None,
        "reason": outcome.reason.value if outcome else None,
        "counts_as": outcome.counts_as.value if outcome else None,
        "attempt_ms": outcome.attempt_ms if outcome else None,
        "talk_ms": outcome.talk_ms if outcome else None,
        "ring_ms": _first(ladder, "ringing_ms") if ladder else None,
        "answer_ms": _first(ladder, "answered_ms") if ladder else None,
        "billed": billed(played),
        "transfer": ladder.transfer if ladder else None,
        "expected": played.story.expected,
        "ok": played.ok,
        "problems": played.problems,
    }
