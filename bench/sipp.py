"""SIPp's command lines, and its books: response times, log actions, and the counts of its last screen."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import signal
import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from baton.demo.parties import HOST, Processes, free_port
from bench import proc
from bench.stage import BenchError, until

_MEDIA_PORTS = itertools.cycle(range(14_000, 19_900, 8))  # RTP of SIPp's; Asterisk's is below, Baton's above
_MEDIA_SPAN = 4  # SIPp binds audio and video, each with RTCP
_MAX_CALLS = 8_000  # at once; SIPp's own limit would slow the load where calls are slow
_STOP_S = 3.0
_GRACE_S = 60.0  # after SIPp's own limit
_STAMP = "%Y-%m-%d %H:%M:%S.%f"


@dataclass(frozen=True, slots=True)
class Load:
    """A dialer: how many calls to whom, how fast. `numbers` is a file for SIPp's -inf with a number on each line."""

    xml: Path
    user: str
    target_port: int
    calls: int
    rate: int
    numbers: Path
    limit_s: int


@dataclass(frozen=True, slots=True)
class ScenarioLine:
    """One line that a scenario logged: `what` happened to the call at `at_s` (seconds UTC)."""

    what: str
    call_id: str
    at_s: float


def callee_command(xml: Path, port: int) -> list[str]:
    """A SIPp server; its log actions go to `<stem>.log` beside the scenario."""
    return [*_common(xml, port), "-t", "u1"]


def dialer_command(load: Load, port: int) -> list[str]:
    """A SIPp client; response times go to `<stem>_<pid>_rtt.csv` in its working folder."""
    how = ["-m", str(load.calls), "-r", str(load.rate), "-l", str(_MAX_CALLS), "-timeout", str(load.limit_s)]
    times = ["-trace_rtt", "-rtt_freq", "1"]
    return [
        *_common(load.xml, port),
        *("-s", load.user, f"{HOST}:{load.target_port}", "-inf", str(load.numbers)),
        *how,
        *times,
    ]


def _common(xml: Path, port: int) -> list[str]:
    local = ["-i", HOST, "-p", str(port), "-mi", HOST, "-mp", str(_media_port())]
    traces = ["-trace_logs", "-log_file", str(log_of(xml)), "-trace_err", "-error_file", f"{xml.stem}.err"]
    return ["sipp", "-sf", str(xml), *local, *traces, "-nostdin"]


def _media_port() -> int:
    """Four ports in a row that nobody holds: SIPp does not look for others by itself."""
    for _ in range(1_000):
        first = next(_MEDIA_PORTS)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + _MEDIA_SPAN):
                held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind((HOST, port))
            return first
    raise BenchError("no ports are free for SIPp's media")


def check(processes: Processes, name: str) -> None:
    """Raises BenchError where this SIPp could not do its work; a call that failed is no such thing."""
    process = processes.running.get(name)
    if process is not None and process.returncode not in (None, 0, 1):  # 1: some call failed
        raise BenchError(f"{name}: SIPp ended with {process.returncode}; see {processes.folder / name}.log")


async def serve(processes: Processes, name: str, xml: Path, port: int) -> None:
    """Start a SIPp server and return when it listens."""
    process = await processes.start(name, callee_command(xml, port))

    def listens() -> bool:
        check(processes, name)
        return process.returncode is None and port in proc.udp_ports(process.pid)

    if not await until(listens, _STOP_S):
        raise BenchError(f"{name}: SIPp does not listen; see {processes.folder / name}.log")


async def dialed(processes: Processes, name: str, load: Load, place: Path | None = None) -> None:
    """Run a SIPp client to its end."""
    process = await processes.start(name, dialer_command(load, free_port()), cwd=place)
    try:
        await asyncio.wait_for(process.wait(), load.limit_s + _GRACE_S)
    except TimeoutError as error:
        raise BenchError(f"{name}: SIPp did not end; see {processes.folder / name}.log") from error
    check(processes, name)


def log_of(xml: Path) -> Path:
    return xml.with_suffix(".log")


def write_numbers(path: Path, count: int, first: int = 2_125_550_000) -> Path:
    """A file for -inf: numbers one after the other, taken in turn."""
    path.write_text("SEQUENTIAL\n" + "".join(f"+1{first + n}\n" for n in range(count)))
    return path


async def quit_callee(processes: Processes, name: str) -> None:
    """End a SIPp server the way that writes its files out."""
    process = processes.running.get(name)
    if process is None or process.returncode is not None:
        return
    for _ in range(2):  # the first lets calls finish, the second does not
        process.send_signal(signal.SIGUSR1)
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            continue
        break
    await processes.stop(name)


def parse_rtt(text: str) -> list[float]:
    """Response times in ms from a -trace_rtt file: `date;milliseconds;name`, with a heading."""
    found = []
    for line in text.splitlines():
        fields = line.split(";")
        try:
            found.append(float(fields[1].replace(",", ".")))
        except (IndexError, ValueError):
            continue
    return found


def read_rtt(folder: Path, stem: str) -> list[float]:
    return [one for path in sorted(folder.glob(f"{stem}_*_rtt.csv")) for one in parse_rtt(path.read_text())]


_COUNTS = re.compile(r"^\s*(Successful|Failed) call\s*\|\s*\d+\s*\|\s*(\d+)", re.MULTILINE)


def parse_counts(screen: str) -> tuple[int, int]:
    """(successful, failed) calls of all time, from the last statistics screen. (0, 0) where there is none."""
    counts = {"Successful": 0, "Failed": 0}
    for name, number in _COUNTS.findall(screen):
        counts[name] = int(number)
    return counts["Successful"], counts["Failed"]


_NOTE = re.compile(r"^(\S+) (\S+) (\d{4}-\d\d-\d\d)[\sT]+(\d\d:\d\d:\d\d\.\d+)")


def parse_notes(lines: Iterable[str]) -> Iterator[ScenarioLine]:
    """What scenarios logged as `WHAT CALL-ID TIMESTAMP`; a line that is cut off is left out."""
    for line in lines:
        found = _NOTE.match(line)
        if found is not None:
            what, call_id, day, clock = found.groups()
            at = datetime.strptime(f"{day} {clock}", _STAMP).astimezone()  # SIPp writes local time
            yield ScenarioLine(what, call_id, at.timestamp())


def read_notes(path: Path) -> list[ScenarioLine]:
    if not path.is_file():
        return []
    return list(parse_notes(path.read_text(errors="replace").splitlines()))


def by_call(notes: Iterable[ScenarioLine]) -> dict[str, list[ScenarioLine]]:
    """Every call's notes in their order."""
    calls: dict[str, list[ScenarioLine]] = defaultdict(list)
    for note in notes:
        calls[note.call_id].append(note)
    return dict(calls)
