"""Runs the demo: imports the book, serves, lets every dialer call at once, and gathers the results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from baton.demo import parties
from baton.demo.parties import HOST, free_port
from baton.demo.scenarios import caller
from baton.demo.serving import until
from baton.demo.setup import Stage
from baton.demo.stories import Story
from facts.fact import Fact, Kind
from facts.ladder import Ladder, build_ladder
from meter.journal.sql.reading import TransferRow, list_transfers, read_transfer
from meter.journal.sql.verify import VerifyReport, verify_journal
from meter.store.engine import open_store

CALLS_S = 75.0  # the longest story rings for 30 s
SETTLE_S = 15.0  # for the last outcome and the last e-mail
_LOOK_S = 0.25


@dataclass(slots=True)
class StoryResult:
    """What came of one story. `problems` is empty where everything was as expected."""

    story: Story
    ladder: Ladder | None = None
    problems: list[str] = field(default_factory=list)
    state: str = "waiting"
    mails: int = 0

    @property
    def ok(self) -> bool:
        return self.ladder is not None and self.ladder.settled and not self.problems


@dataclass(slots=True)
class Result:
    """The whole demo."""

    stories: list[StoryResult]
    journal: VerifyReport | None = None
    seconds: float = 0.0
    database: str = ""

    @property
    def ok(self) -> bool:
        return all(one.ok for one in self.stories) and self.journal is not None and self.journal.ok


async def play(stage: Stage, stories: Sequence[Story], show: Callable[[Result], None]) -> Result:
    """Run everything. Raises DemoError where Baton does not come up."""
    started = time.monotonic()
    result = Result([StoryResult(story) for story in stories])
    await stage.baton.start()
    result.database = str(stage.baton.database)
    engine = await open_store(stage.baton.store_url, create=False)
    try:
        await stage.baton.ready()
        stage.processes.check()
        dialers = await _dial(stage, stories)
        await _watch(engine, result, dialers, show)
        for played, process in zip(result.stories, dialers, strict=True):
            if process.returncode:
                played.problems.append(f"the dialer saw something else (SIPp exit {process.returncode})")
        await until(lambda: _complete(engine, stage, result), SETTLE_S)
        await _look(engine, result)
        _judge(stage, result)
        await stage.processes.stop("baton")
        result.journal = await verify_journal(engine)
    finally:
        await engine.dispose()
    result.seconds = time.monotonic() - started
    show(result)
    return result


async def _dial(stage: Stage, stories: Sequence[Story]) -> list[asyncio.subprocess.Process]:
    """One SIPp dialer a story, all at once."""
    started = []
    for story in stories:
        xml = stage.processes.folder / f"{story.name}-dialer.xml"
        xml.write_text(caller(story.caller, story.name))
        command = parties.sipp_dialer(
            xml, free_port(), stage.next_media_port(), f"{HOST}:{stage.baton.sip_port}", int(CALLS_S)
        )
        started.append(await stage.processes.start(f"{story.name}-dialer", command))
    return started


async def _watch(
    engine: AsyncEngine,
    result: Result,
    dialers: Sequence[asyncio.subprocess.Process],
    show: Callable[[Result], None],
) -> None:
    deadline = time.monotonic() + CALLS_S
    while any(process.returncode is None for process in dialers) and time.monotonic() < deadline:
        await _look(engine, result)
        show(result)
        await asyncio.sleep(_LOOK_S)


async def _look(engine: AsyncEngine, result: Result) -> None:
    rows = {row.campaign: row for row in await list_transfers(engine, limit=200)}
    for played in result.stories:
        row = rows.get(played.story.name)
        if row is not None:
            facts = await read_transfer(engine, row.transfer)
            played.ladder = build_ladder(facts)
            played.state = _state(row, facts)


_STATES = {
    Kind.TRANSFER_STARTED: "admitted",
    Kind.DIALED: "dialling",
    Kind.RINGING: "ringing",
    Kind.ANSWERED: "answered",
    Kind.BRIDGED: "talking",
    Kind.BUFFER_PASSED: "past the buffer",
    Kind.TALK_REACHED_15S: "talking, 15 s reached",
    Kind.TRANSFER_CLOSED: "closed",
}


def _state(row: TransferRow, facts: Sequence[Fact]) -> str:
    if row.verdict != "open":
        return "settled"
    return next((_STATES[fact.kind] for fact in reversed(facts) if fact.kind in _STATES), "waiting")


async def _complete(engine: AsyncEngine, stage: Stage, result: Result) -> bool:
    await _look(engine, result)
    settled = all(played.state == "settled" for played in result.stories)
    billed_failed = sum(1 for played in result.stories if played.story.counts_as == "failed")
    return settled and len(stage.sink.messages) >= billed_failed


def _judge(stage: Stage, result: Result) -> None:
    for played in result.stories:
        story = played.story
        played.mails = sum(1 for message in stage.sink.messages if f"{story.name}@buyer.example" in str(message["To"]))
        if played.ladder is None:
            played.problems.append("no transfer was recorded")
            continue
        outcome = played.ladder.outcome
        legs = played.ladder.legs
        _expect(played, "outcome", f"{outcome.verdict}/{outcome.reason}", story.expected)
        _expect(played, "counts as", outcome.counts_as.value, story.counts_as)
        _expect(played, "late answers", sum(leg.late for leg in legs), story.late)
        _expect(played, "e-mails", played.mails, 1 if story.counts_as == "failed" else 0)
        rang = sum(leg.sent_ms is not None for leg in legs)
        _expect(played, "endpoints dialled", rang, 0 if story.suppressed else len(story.places))
        if story.winner:
            winners = [leg.leg for leg in legs if leg.bridged_ms is not None]
            _expect(played, "winner", winners, [story.winner])


def _expect(played: StoryResult, what: str, actual: Any, expected: Any) -> None:
    if actual != expected:
        played.problems.append(f"{what}: {actual}, expected {expected}")
