"""Plain traffic beside the stories: so many transfers a second to two endpoints, one answers, a moment of talk."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from baton.demo.parties import HOST, MEDIA_PORTS, Processes, free_port, sipp
from baton.demo.scenarios import Callee, Caller, callee, caller
from facts.outcome import Verdict
from meter.settling.sql.records import TransferRecord

CAMPAIGN = "plain-traffic"
ANSWER_MS, TALK_MS = 300, 500
_STOP_S = 10.0
_NUMBER = "+12125550100"


@dataclass(slots=True)
class LoadResult:
    """What became of the traffic."""

    problems: list[str] = field(default_factory=list)
    transfers: int = 0

    def judge(self, books: Iterable[TransferRecord]) -> list[str]:
        """Every one of them is a short call: the caller leaves after a moment."""
        mine = [told for told in books if told.campaign == CAMPAIGN]
        self.transfers = len(mine)
        found = [told.settled["verdict"] if told.settled else "open" for told in mine]
        wrong = sorted({one for one in found if one != Verdict.SHORT_CALL.value})
        counts = ", ".join(f"{found.count(one)} {one}" for one in wrong)
        return [f"plain traffic: {counts}, expected {Verdict.SHORT_CALL.value} of all {len(found)}"] if wrong else []


class Load:
    """The traffic's parties, in `folder`."""

    def __init__(self, folder: Path, rate: int) -> None:
        self.processes = Processes.in_folder(folder)
        self._folder = folder
        self._rate = rate
        self._ports = {"answers": free_port(), "rings": free_port()}

    def book(self) -> list[str]:
        """Its buyer and campaign, as lines of TOML."""
        lines = ["[[buyers]]", f'name = "{CAMPAIGN}"', 'terms = "westlake-fulfillment"']
        for name, port in self._ports.items():
            lines += ["[[buyers.endpoints]]", f'name = "{name}"', 'kind = "trunk"', f'uri = "sip:{name}@{HOST}:{port}"']
        return [*lines, "[[campaigns]]", f'name = "{CAMPAIGN}"', f'buyers = ["{CAMPAIGN}"]']

    async def start(self, sip_port: int) -> None:
        ways = {"answers": Callee(answer_ms=ANSWER_MS), "rings": Callee()}
        for name, port in self._ports.items():
            xml = self._folder / f"{name}.xml"
            xml.write_text(callee(ways[name]))
            await self.processes.start(name, [*sipp(xml, port, free_port(MEDIA_PORTS)), "-t", "u1"])
        xml = self._folder / "dialer.xml"
        xml.write_text(caller(Caller(_NUMBER, bye_after_ms=TALK_MS), CAMPAIGN))
        command = [*sipp(xml, free_port(), free_port(MEDIA_PORTS)), f"{HOST}:{sip_port}", "-r", str(self._rate)]
        await asyncio.sleep(1.0)  # until they listen
        await self.processes.start("dialer", command)

    async def stop(self) -> LoadResult:
        """Let the calls in progress end; the dialer tells by its exit code whether one of them failed."""
        process = self.processes.running["dialer"]
        result = LoadResult()
        if process.returncode is None:
            process.send_signal(signal.SIGUSR1)
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            result.problems.append("plain traffic: the dialer has calls that nobody ended")
        if process.returncode == 1:
            result.problems.append(f"plain traffic: the dialer saw calls fail; see {self._folder}")
        await self.processes.stop_all()
        return result
