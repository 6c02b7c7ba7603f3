"""A packet capture by tshark on loopback, and the SIP messages in it with the kernel's time of each packet.

TLS is read with the keys that the callee's own end of the connection wrote down (NSS key log), so that the packets are
those which the router sends and gets, with nothing in between.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from baton.demo.parties import Processes
from bench.stage import BenchError, until

READY_S = 20.0
_STOP_S = 15.0
_JOIN = "|"  # between the values of several SIP messages in one packet
_FIELDS = ("frame.time_epoch", "tcp.srcport", "udp.srcport", "sip.Call-ID", "sip.Method", "sip.Status-Code")


@dataclass(frozen=True, slots=True)
class CapturedMessage:
    """One SIP message on the wire. `status` 0: a request. Time in microseconds UTC."""

    at_us: int
    call_id: str
    method: str
    status: int


@dataclass(frozen=True, slots=True)
class Span:
    """An attempt as the wire has it: first INVITE, and first final refusal. Microseconds UTC."""

    invite_us: int
    final_us: int

    @property
    def us(self) -> int:
        return self.final_us - self.invite_us


async def start(processes: Processes, name: str, kind: str, port: int) -> Path:
    """Capture `kind` (tcp or udp) at `port` into a file; returns when packets are being taken."""
    if shutil.which("tshark") is None:
        raise BenchError("not installed: tshark; run scripts/bootstrap")
    file = processes.folder / f"{name}.pcapng"
    command = ["tshark", "-i", "lo", "-f", f"{kind} port {port}", "-w", str(file), "-q"]
    process = await processes.start(name, command)

    def capturing() -> bool:
        if process.returncode is not None:
            raise BenchError(f"tshark ended: {(processes.folder / f'{name}.log').read_text(errors='replace')}")
        return file.is_file() and file.stat().st_size > 0

    if not await until(capturing, READY_S):
        raise BenchError("tshark does not capture on lo")
    await asyncio.sleep(0.5)  # the file is made just before the first packet can be taken
    return file


async def stop(processes: Processes, name: str) -> None:
    """End the capture so that everything is in the file."""
    process = processes.running[name]
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), _STOP_S)
    await processes.stop(name)


async def read(file: Path, port: int, keys: Path | None = None) -> dict[str, Span]:
    """The attempts in a capture by Call-ID; those with both ends. `keys`: the capture is of TLS."""
    way = ["-d", f"tls.port=={port},sip", "-o", f"tls.keylog_file:{keys}"] if keys else ["-d", f"udp.port=={port},sip"]
    fields = [word for name in _FIELDS for word in ("-e", name)]
    shape = ["-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", f"aggregator={_JOIN}"]
    command = ["tshark", "-r", str(file), *way, "-Y", "sip", *shape, *fields]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, said = await process.communicate()
    if process.returncode:
        raise BenchError(f"tshark cannot read {file}: {said.decode(errors='replace')}")
    return spans(parse(output.decode().splitlines(), port))


def parse(lines: Iterable[str], port: int) -> Iterator[CapturedMessage]:
    """tshark's lines, one a packet. What comes from `port` is responses, all else requests: a callee sends none."""
    for line in lines:
        epoch, tcp, udp, call_ids, methods, statuses = (*line.split("\t"), *[""] * len(_FIELDS))[: len(_FIELDS)]
        seconds, _, fraction = epoch.partition(".")
        at_us = int(seconds) * 1_000_000 + int(fraction[:6].ljust(6, "0"))
        ours = (tcp or udp) == str(port)
        values = (statuses if ours else methods).split(_JOIN)
        for call_id, value in zip(call_ids.split(_JOIN), values, strict=False):
            if call_id and value:
                yield CapturedMessage(at_us, call_id, "" if ours else value, int(value) if ours else 0)


def spans(messages: Iterable[CapturedMessage]) -> dict[str, Span]:
    """From the first INVITE to the first final answer of each Call-ID; retransmissions change nothing."""
    invites: dict[str, int] = {}
    finals: dict[str, int] = {}
    for one in messages:
        if one.method == "INVITE":
            invites.setdefault(one.call_id, one.at_us)
        elif one.status >= 200:
            finals.setdefault(one.call_id, one.at_us)
    return {call_id: Span(at_us, finals[call_id]) for call_id, at_us in invites.items() if call_id in finals}
