"""One story at a time: start its parties, let the dialer call, see that every party is content, end them.

SIPp's own books are read at the end: calls created, succeeded and failed, so that an INVITE which never had its CANCEL
or BYE shows; and the final answer of each of the dialer's calls, from lines that its scenario logs.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from baton.demo.parties import HOST, Processes
from baton.demo.relay import Gate, Relay
from baton.scenarios.cast import Callee, Cast
from baton.scenarios.compare import differences
from facts.fact import Kind
from meter.settling.sql.records import TransferRecord

_LISTEN_S = 5.0
_LOOK_S = 0.05
_GRACE_S = 25.0  # beyond what a story says it takes: the machine may be busy
_LAST_WORDS_S = 1.0  # between the dialer's last message and the endpoints' last
_CALLEE_END_S = 15.0
_ERRORS_SHOWN, _ERROR_LENGTH = 3, 240
_STAMP = re.compile(r"\d{4}-\d\d-\d\d\s\d\d:\d\d:\d\d\.\d+\s\d+\.\d+: ")  # before each of SIPp's complaints
_NO_COMPLAINTS = ("receive timeout on message", "remote control socket")  # how parties wait; what nobody uses
_FINAL = re.compile(r"^final (\d{3}) (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Calls:
    """A SIPp's own count."""

    created: int = 0
    failed: int = 0
    current: int = 0


@dataclass(slots=True)
class StoryResult:
    """What came of a story. `problems` is empty where all was as it should be."""

    cast: Cast
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    callees: dict[str, Calls] = field(default_factory=dict)
    told: list[TransferRecord] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.cast.story.name

    @property
    def ok(self) -> bool:
        return not self.problems


class Pace:
    """So many calls a second over all stories: those of one come at once, those of the next a little later."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = asyncio.Lock()

    async def turn(self, calls: int) -> None:
        """Returns when these calls may begin."""
        async with self._lock:
            await asyncio.sleep(calls / self._rate)


async def play(played: StoryResult, sip_port: int, pace: Pace) -> None:
    """Play one story to its end; what goes wrong with its parties goes into `problems`."""
    cast = played.cast
    processes = Processes.in_folder(cast.folder)
    relays: list[Relay] = []
    started = time.monotonic()
    try:
        await _set_up(cast, processes, relays, sip_port)
        await pace.turn(cast.calls)
        started = time.monotonic()
        limit_s = cast.story.entry.seconds + _GRACE_S
        caller = await processes.start("caller-screen", cast.caller_command(sip_port, int(limit_s)))
        try:
            await asyncio.wait_for(caller.wait(), limit_s + _GRACE_S)
        except TimeoutError:
            played.problems.append(f"the dialer did not come to its end in {limit_s:.0f} s")
        await asyncio.sleep(_LAST_WORDS_S)
        for callee in cast.callees:
            await _end(played, processes, callee)
        _judge_caller(played, caller.returncode)
    except PartySilentError as error:
        played.problems.append(str(error))
    finally:
        for relay in relays:
            relay.stop()
        await processes.stop_all()
        played.seconds = time.monotonic() - started


class PartySilentError(RuntimeError):
    """A party does not listen."""


async def _set_up(cast: Cast, processes: Processes, relays: list[Relay], sip_port: int) -> None:
    for callee in cast.callees:
        await processes.start(f"{callee.name}-screen", cast.callee_command(callee))
    deadline = time.monotonic() + _LISTEN_S
    for callee in cast.callees:
        while not _listens(callee.port, tcp=callee.secure):
            if time.monotonic() > deadline:
                raise PartySilentError(f"{callee.name} does not listen; see {cast.folder}")
            await asyncio.sleep(_LOOK_S)
    race = cast.story.entry.race
    if race is None:
        return
    gate = Gate(race.hold)
    ways = [(one.public_port, one.port, True) for one in cast.callees if one.relayed]
    for front, back, from_target in [*ways, (cast.caller_relay, sip_port, False)]:
        relay = Relay((HOST, back), gate, from_target=from_target)
        await relay.start(front)
        relays.append(relay)


def _listens(port: int, *, tcp: bool) -> bool:
    """A socket is bound to that port: the kernel's own table, since trying it out could take the port away."""
    wanted = f":{port:04X}"
    lines = Path("/proc/net/tcp" if tcp else "/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]
    return any(line.split()[1].endswith(wanted) for line in lines)


async def _end(played: StoryResult, processes: Processes, callee: Callee) -> None:
    """Let an endpoint finish the calls it has, then read its count."""
    process = processes.running[f"{callee.name}-screen"]
    if process.returncode is None:
        process.send_signal(signal.SIGUSR1)  # no new calls; the end comes with the last one
        try:
            await asyncio.wait_for(process.wait(), _CALLEE_END_S)
        except TimeoutError:
            played.problems.append(f"{callee.name}: has calls that nobody ended")
            await processes.stop(f"{callee.name}-screen")
    calls = read_calls(played.cast.folder / f"{callee.name}.csv")
    played.callees[callee.name] = calls
    if calls.failed:
        said = errors(played.cast.folder / f"{callee.name}.err")
        played.problems.append(f"{callee.name}: {calls.failed} of {calls.created} calls were not as it expects{said}")


def _judge_caller(played: StoryResult, code: int | None) -> None:
    calls = read_calls(played.cast.folder / "caller.csv")
    if calls.created != played.cast.calls:
        played.problems.append(f"caller: made {calls.created} calls of {played.cast.calls}")
    if code or calls.failed:
        said = errors(played.cast.folder / "caller.err")
        played.problems.append(f"caller: {calls.failed} of {calls.created} calls were not as it expects{said}")


def read_calls(file: Path) -> Calls:
    """The last line of SIPp's statistics; nothing where there is none."""
    try:
        heading, *lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return Calls()
    if not lines:
        return Calls()
    row = dict(zip(heading.split(";"), lines[-1].split(";"), strict=False))
    numbers = (row.get(name, "0") for name in ("TotalCallCreated", "FailedCall(C)", "CurrentCall"))
    return Calls(*(int(one) if one.isdigit() else 0 for one in numbers))


def errors(file: Path) -> str:
    """The first complaints of a SIPp, for a sentence."""
    if not file.is_file():
        return ""
    said = _STAMP.split(file.read_text(encoding="utf-8", errors="replace"))[1:]
    found = [" ".join(one.split()).removesuffix("'") for one in said if not any(what in one for what in _NO_COMPLAINTS)]
    return "".join(f"; {one[:_ERROR_LENGTH]}" for one in found[:_ERRORS_SHOWN])


def judge(played: StoryResult, books: Iterable[TransferRecord]) -> None:
    """Hold the record of a story's transfers against what it expects."""
    story = played.cast.story
    of_number: dict[str, list[TransferRecord]] = {number: [] for number in played.cast.numbers}
    for told in books:
        if told.campaign == story.name and told.phone in of_number:
            of_number[told.phone].append(told)
            played.told.append(told)
    buyers = list(dict.fromkeys(one.buyer for one in story.entry.endpoints))
    counts = [sum(one.buyer == buyer for one in story.entry.endpoints) for buyer in buyers]
    for number, transfers in of_number.items():
        if len(transfers) != len(story.expected):
            played.problems.append(f"{number}: {len(transfers)} transfers, expected {len(story.expected)}")
            continue
        for expect, told, endpoints in zip(story.expected, transfers, counts, strict=False):
            found = differences(expect, told, endpoints=endpoints)
            played.problems += [f"{told.transfer}: {problem}" for problem in found]
    _judge_codes(played)
    _judge_callees(played)


def _judge_codes(played: StoryResult) -> None:
    log = played.cast.folder / "caller.log"
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    codes = {call_id: int(code) for code, call_id in _FINAL.findall(text)}
    right = played.cast.story.entry.codes
    found = list(codes.values()) + [0] * (played.cast.calls - len(codes))
    wrong = sorted({code for code in found if code not in right})
    if wrong:
        said = " or ".join(str(code) for code in right)
        played.problems.append(f"the dialer got {', '.join(str(code) for code in wrong)}, expected {said}")


def _judge_callees(played: StoryResult) -> None:
    """Each leg that was dialled is a call that its party saw, and the other way round."""
    entries = played.cast.story.entry.endpoints
    dialled: dict[int, int] = {}
    first_leg = {buyer: at for at, buyer in reversed([(n, one.buyer) for n, one in enumerate(entries)])}
    buyers = list(first_leg)[::-1]
    for told in played.told:
        buyer = told.settled["buyer"] if told.settled else ""
        offset = next((first_leg[one] for one in buyers if buyer.endswith(f"-{one}")), 0)
        for leg in told.legs_with(Kind.DIALED):
            dialled[leg + offset] = dialled.get(leg + offset, 0) + 1
    for callee in played.cast.callees:
        if not callee.legs or callee.name not in played.callees:
            continue
        created, legs = played.callees[callee.name].created, sum(dialled.get(leg, 0) for leg in callee.legs)
        if created != legs:
            played.problems.append(f"{callee.name}: saw {created} calls, {legs} legs were dialled")
