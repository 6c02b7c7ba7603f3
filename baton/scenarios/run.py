"""All stories: one Baton, the parties of so many stories at a time, then the books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from baton.demo.certificates import make
from baton.demo.parties import Processes, free_port, write_stunnel, write_tone
from baton.demo.serving import DemoBaton, until
from baton.scenarios.cast import KEY_1, WHISPER, Cast, plan
from baton.scenarios.load import Load, LoadResult
from baton.scenarios.media import write_key
from baton.scenarios.play import Pace, StoryResult, judge, play
from baton.scenarios.story import Story
from meter.journal.sql.verify import verify_journal
from meter.settling.sql.records import open_count, read_books
from meter.store.engine import open_store

TOGETHER = 24  # stories at a time: an idle SIPp takes a hundredth of a core, and a story has two or three
RATE = 50  # calls a second over all stories, plain traffic not counted: what two cores carry with all their SIPps
SLOTS_S = 45.0  # a callee that never says 487 keeps its slot for 32 s (timer B, RFC 3261 section 17.1.1.2)
SETTLE_S = 20.0
MIN_CALLS, MAX_CALLS = 400, 4_000  # slots: the least a run has, and what the SIP engine is built for
RTP_PORTS = (20_000, 29_999)
_SLOTS_A_CALL = 6
_LEFT_BEHIND = {
    "baton_call_slots_used": "call slots are in use",
    "baton_live_transfers": "transfers are live",
    "baton_live_legs": "legs are live",
    "baton_engine_calls": "call objects are held",
}
_NEVER = {"baton_verdict_mismatch_total": "verdicts of router and meter differ"}


@dataclass(slots=True)
class Result:
    """The whole run. `problems` are those of no story."""

    folder: Path
    stories: list[StoryResult] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    load: LoadResult | None = None
    seconds: float = 0.0
    slots_free_s: float = 0.0  # from the last story's end until every slot was free
    transfers: int = 0
    faults: float = 0.0  # of our own, as the metrics count them

    @property
    def ok(self) -> bool:
        return not self.problems and all(one.ok for one in self.stories)


async def run(
    folder: Path, stories: Sequence[Story], *, times: int, load: int, rate: int, show: Callable[[Result], None]
) -> Result:
    """Play all of them. Raises DemoError where Baton does not come up, PartyError for a party that cannot be made."""
    started = time.monotonic()
    result = Result(folder)
    casts = [plan(story, folder / "stories" / story.name, at, times) for at, story in enumerate(stories)]
    for cast in casts:
        cast.write()
    processes = Processes.in_folder(folder / "baton")
    traffic = Load(folder / "load", load) if load else None
    baton = DemoBaton(
        folder=folder,
        processes=processes,
        sip_port=free_port(),
        metrics_port=free_port(),
        max_calls=_slots(casts, load),
        rtp_ports=RTP_PORTS,
    )
    try:
        await _prepare(baton, casts, traffic)
        await baton.start()
        await baton.ready()
        result.stories = [StoryResult(cast) for cast in casts]
        await _play_all(baton, result, traffic, Pace(rate), show)
        await _look(baton, result)
    finally:
        if traffic is not None:
            await traffic.processes.stop_all()
        await processes.stop_all()
    result.seconds = time.monotonic() - started
    return result


def _slots(casts: Sequence[Cast], load: int) -> int:
    return min(MAX_CALLS, max(MIN_CALLS, _SLOTS_A_CALL * (sum(cast.calls for cast in casts) + 2 * load)))


async def _prepare(baton: DemoBaton, casts: Sequence[Cast], traffic: Load | None) -> None:
    certificates = make(baton.folder)
    write_tone(baton.folder / WHISPER, hertz=440, seconds=1)
    write_key(baton.folder / KEY_1, "1")
    lines = ["# Written by `baton scenarios run`.", *baton.settings("scenarios", certificates.ca.name)]
    for cast in casts:
        lines += cast.book()
    if traffic is not None:
        lines += traffic.book()
    baton.config.write_text("\n".join(lines) + "\n")
    secure = [(cast, callee) for cast in casts for callee in cast.callees if callee.secure]
    if secure:
        pairs = [(f"{cast.story.name}-{callee.name}", callee.public_port, callee.port) for cast, callee in secure]
        command = write_stunnel(baton.folder / "stunnel.conf", certificates, pairs)
        await baton.processes.start("stunnel", command)


async def _play_all(
    baton: DemoBaton, result: Result, traffic: Load | None, pace: Pace, show: Callable[[Result], None]
) -> None:
    """The long stories first; at most `TOGETHER` at a time."""
    gate = asyncio.Semaphore(TOGETHER)

    async def play_one(played: StoryResult) -> None:
        async with gate:
            await play(played, baton.sip_port, pace)
        show(result)

    if traffic is not None:
        await traffic.start(baton.sip_port)
    longest_first = sorted(result.stories, key=lambda played: -played.cast.story.entry.seconds)
    await asyncio.gather(*(play_one(played) for played in longest_first))
    if traffic is not None:
        result.load = await traffic.stop()
        result.problems += result.load.problems
    baton.processes.check()


async def _look(baton: DemoBaton, result: Result) -> None:
    """After the last story: nothing may be left, and the books must say what the stories do."""
    ended = time.monotonic()
    page = ""

    async def empty() -> bool:
        nonlocal page
        page = await baton.metrics()
        return bool(page) and not any(_value(page, name) for name in _LEFT_BEHIND)

    if not await until(empty, SLOTS_S):
        left = [f"{_value(page, name):.0f} {what}" for name, what in _LEFT_BEHIND.items() if _value(page, name)]
        result.problems.append(f"{SLOTS_S:.0f} s after the last story {', '.join(left) or 'the metrics are silent'}")
    result.slots_free_s = time.monotonic() - ended
    engine = await open_store(baton.store_url, create=False)
    try:

        async def settled() -> bool:
            return not await open_count(engine)

        if not await until(settled, SETTLE_S):
            result.problems.append(f"{await open_count(engine)} transfers are not settled")
        page = await baton.metrics()
        result.problems += [f"{_value(page, name):.0f} {what}" for name, what in _NEVER.items() if _value(page, name)]
        result.faults = _value(page, "baton_engine_faults_total")
        books = await read_books(engine)
        result.transfers = len(books)
        for played in result.stories:
            judge(played, books)
        if result.load is not None:
            result.problems += result.load.judge(books)
        if not (await verify_journal(engine)).ok:
            result.problems.append("the journal's hash chain is broken")
    finally:
        await engine.dispose()


def _value(page: str, name: str) -> float:
    """A metric, summed over its labels; 0 where it is not on the page."""
    lines = (line for line in page.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(line.rpartition(" ")[2]) for line in lines)
