"""Kills a router amid live transfers, in every phase, and checks the records after the restart.

Alive at the kill: transfers that ring, that talk under 15 s, that talk past 15 s, and some that were declined a moment
before, whose e-mails stand in the outbox while the mail server takes its time. Once the router alone is killed (its
supervisor starts another), once supervisor, router and meter in one go. What must hold is asked of others: which legs
rang, of the callees; what the dialers saw and when, of theirs; which e-mails came, of the mail server.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from baton.demo.parties import MailSink, free_port
from bench import scenarios, sipp
from bench.rows import Row, at_most, none_of, seen
from bench.sipp import Load, ScenarioLine
from bench.soak import Ground, Sort, set_up
from bench.store import OutcomeRow

MAIL_S = 0.4  # the server has the message; its answer comes so much later
LONG_S = 16.0  # of talk, before the kill
RING_S = 1.0  # from the start of those that ring or talk to that of those that are declined
LAST_S = 0.4  # from there to the kill: the last of them are not on the disk yet
SETTLE_S = 90.0  # a mail that failed is tried again after 5 s, then 10, 20, 40
SETTLED_S = 0.5  # what was seen so long before the kill is on the disk: commits are 40 ms apart
CONNECTED_S = 15.0
_RATE = 100
_SHOWN = 4
_RINGS = scenarios.Callee()
_DECLINES = scenarios.Callee(decline_ms=20)
_ANSWERS = scenarios.Callee(answer_ms=50)
SORTS = (  # `of_fifty`: the share of those alive
    Sort("long", 12, _ANSWERS, _RINGS, 600_000),
    Sort("ringing", 13, _RINGS, _RINGS, 0),
    Sort("talking", 13, _ANSWERS, _RINGS, 600_000),
    Sort("declined", 12, _DECLINES, _DECLINES, 0),
)


class SlowSink(MailSink):
    """Takes a message at once and says so late: who is killed in between must send it again."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        answer = await super().handle_DATA(server, session, envelope)
        await asyncio.sleep(MAIL_S)
        return answer


@dataclass(frozen=True, slots=True)
class CrashRound:
    """One round, as everyone involved wrote it down."""

    name: str
    live: int  # as asked for
    killed_s: float  # UTC
    ready_s: float  # from the kill until a router listened again
    invited: list[str]  # Call-IDs of the legs that rang
    dialers: dict[str, dict[str, list[ScenarioLine]]]  # by kind and the dialer's Call-ID
    settled: list[OutcomeRow]
    started: dict[str, str]  # transfer -> the dialer's Call-ID
    interrupted: set[str]
    mails: list[EmailMessage]
    left_open: int
    mails_waiting: int
    journal_problems: int


async def measure(folder: Path, live: int, tell: Callable[[str], None], rounds: int = 1) -> list[Row]:
    """Each kill `rounds` times, with `live` transfers up. Raises BenchError where Baton does not come up again."""
    found = []
    for number in range(1, rounds + 1):
        for whole in (False, True):
            name = f"{'all killed' if whole else 'router killed'}{f', {number}' if rounds > 1 else ''}"
            one = await _round(folder / f"{'all' if whole else 'router'}-{number}", name, live, whole=whole)
            tell(f"crash: {name} with {len(one.started)} transfers; a router listened {one.ready_s:.1f} s later")
            found += rows(one)
    return found


async def _round(folder: Path, name: str, live: int, *, whole: bool) -> CrashRound:
    ground = await set_up(folder, SORTS)
    baton = ground.baton
    baton.sink = SlowSink(folder / "mail")
    try:
        await baton.prepare()
        await baton.start()
        await _dial(ground, live)
        killed_s, killed = time.time(), time.monotonic()
        await baton.kill(whole=whole)
        await (baton.start() if whole else baton.ready_again())
        ready_s = time.monotonic() - killed
        await asyncio.gather(*(baton.processes.stop(f"{sort.name}-dialer") for sort in SORTS))
        await asyncio.gather(*(sipp.quit_callee(baton.processes, callee) for callee in ground.callees))
        await baton.idle(SETTLE_S)
        problems = await baton.journal_problems()
        return _gather(ground, name, live, (killed_s, ready_s), problems)
    finally:
        await baton.stop()


async def _dial(ground: Ground, live: int) -> None:
    """Start the transfers so that each is in its phase when this returns."""
    baton = ground.baton
    numbers = sipp.write_numbers(baton.processes.folder / "numbers.csv", live)

    async def dial(sort: Sort) -> None:
        calls = max(1, live * sort.of_fifty // 50)
        load = Load(ground.dialers[sort.name], sort.name, baton.sip_port, calls, _RATE, numbers, 120)
        name = f"{sort.name}-dialer"
        await baton.processes.start(name, sipp.dialer_command(load, free_port()))

    long, *others, last = SORTS
    await dial(long)
    await asyncio.sleep(LONG_S + live * long.of_fifty / 50 / _RATE)
    for sort in others:
        await dial(sort)
    await asyncio.sleep(RING_S)
    await dial(last)
    await asyncio.sleep(LAST_S)
    for sort in SORTS:
        sipp.check(baton.processes, f"{sort.name}-dialer")


def _gather(ground: Ground, name: str, live: int, times_s: tuple[float, float], problems: int) -> CrashRound:
    baton, place = ground.baton, ground.baton.processes.folder
    assert baton.sink is not None
    logs = [sipp.log_of(place / f"{callee.removesuffix('-callee')}.xml") for callee in ground.callees]
    return CrashRound(
        name=name,
        live=live,
        killed_s=times_s[0],
        ready_s=times_s[1],
        invited=[note.call_id for log in logs for note in sipp.read_notes(log)],
        dialers={kind: sipp.by_call(sipp.read_notes(sipp.log_of(xml))) for kind, xml in ground.dialers.items()},
        settled=baton.store.settled(),
        started=baton.store.started(),
        interrupted={fact.transfer for fact in baton.store.facts("interrupted")},
        mails=list(baton.sink.messages),
        left_open=baton.store.open_count(),
        mails_waiting=baton.store.mails_waiting(),
        journal_problems=problems,
    )


def rows(crash: CrashRound) -> list[Row]:
    """What one round comes to."""
    rang = {call_id.rpartition("-")[0] for call_id in crash.invited}
    recorded = {outcome.transfer for outcome in crash.settled}
    missing = sorted(rang - recorded)
    wrong = wrong_verdicts(crash)
    connected = sum(outcome.verdict == "connected" for outcome in crash.settled)
    mails = by_transfer(crash.mails)
    failed = {outcome.transfer for outcome in crash.settled if outcome.counts_as == "failed"}
    unsent = sorted(failed - set(mails))
    ids = sum(len(set(ids)) > 1 for ids in mails.values())
    repeats = sum(len(ids) - 1 for ids in mails.values())
    verdicts = f"{connected} connected, {len(failed)} failed, {len(crash.interrupted)} interrupted"
    enough = crash.live * 9 // 10  # a load that did not come about proves nothing
    figures = [
        Row(
            "transfers in the journal",
            len(crash.started),
            "",
            f">= {enough}",
            len(crash.started) >= enough,
            note=verdicts,
        ),
        none_of("rang and missing", len(missing), f"of {len(rang)}" + " ".join(["", *missing[:_SHOWN]])),
        none_of("wrong verdicts", len(wrong), "; ".join(wrong[:_SHOWN])),
        none_of("left open", crash.left_open),
        none_of("transfers settled twice", len(crash.settled) - len(recorded)),
        none_of("breaks in the journal", crash.journal_problems),
        none_of("e-mails missing", len(unsent), f"of {len(failed)}; {crash.mails_waiting} still wait"),
        none_of("e-mails of no failed transfer", len(set(mails) - failed)),
        none_of("repeats under another Message-ID", ids, f"{repeats} repeats"),
        at_most("until a router listens again", crash.ready_s, 10, "s"),
    ]
    if not crash.interrupted:
        figures.append(seen("nothing was interrupted", 0, "", "the kill came too late to say anything"))
    return [_named(crash.name, row) for row in figures]


def _named(name: str, row: Row) -> Row:
    return Row(f"{name}: {row.name}", row.value, row.unit, row.target, row.met, note=row.note)


def wrong_verdicts(crash: CrashRound) -> list[str]:
    """Transfers whose verdict is not what the outcome table says of what was seen before the kill."""
    wrong = []
    for one in crash.settled:
        notes = crash.dialers.get(one.campaign, {}).get(one.sip_call_id, [])
        allowed = may_be(one.campaign, notes, crash.killed_s, interrupted=one.transfer in crash.interrupted)
        said = f"{one.verdict}/{one.reason}"
        if said not in allowed:
            wrong.append(f"{one.transfer} ({one.campaign}): {said}, not {' or '.join(sorted(allowed))}")
    return wrong


def may_be(kind: str, notes: Iterable[ScenarioLine], killed_s: float, *, interrupted: bool) -> set[str]:
    """The verdicts that the table allows for a transfer to plain trunks which the kill met.

    What the dialer saw in the last half second may or may not have been on the disk; before that it was.
    """
    at = {note.what: note.at_s for note in notes}
    crash, connected, declined = "fault/interrupted", "connected/answered", "failed/declined"
    if "answered" in at:
        talk_s = killed_s - at["answered"]
        if talk_s >= CONNECTED_S + SETTLED_S:
            return {connected}
        return {crash} if talk_s < CONNECTED_S else {crash, connected}
    if kind == "declined":
        on_disk = "refused-486" in at and killed_s - at["refused-486"] >= SETTLED_S
        return {declined} if on_disk or not interrupted else {crash}
    return {crash}


def by_transfer(mails: Sequence[EmailMessage]) -> Mapping[str, list[str]]:
    """Message-IDs by the transfer that the attachment's name bears, so that one does not vouch for the other."""
    found: dict[str, list[str]] = defaultdict(list)
    for mail in mails:
        for part in mail.iter_attachments():
            name = part.get_filename() or ""
            found[name.removeprefix("lead-").removesuffix(".csv")].append(str(mail["Message-ID"]))
    return found
