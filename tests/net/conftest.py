"""A station: the real router process on a store of its own, whose buyers' endpoints are the tests' parties."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from baton.demo.parties import free_port
from facts.fact import Fact, Kind
from meter.journal.sql.reading import list_transfers, read_transfer
from meter.journal.sql.verify import verify_journal
from meter.store.engine import open_store
from tests.net.peer import HOST, Callee, Caller, Tone

BASE = """
[router]
name = "test"
max_calls = {max_calls}
rtp_address = "{rtp_address}"
rtp_port_min = {rtp_min}
rtp_port_max = {rtp_max}
drain_seconds = 1
{router}
[[listeners]]
name = "main"
transport = "udp"
address = "127.0.0.1"
port = {port}
[[dialers]]
name = "tests"
allow = ["127.0.0.1/32"]
{dialer}
[store]
data_dir = "data"
"""


class Station:
    """One router process and what stands around it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.callees: list[Callee] = []
        self.tones: list[Tone] = []
        self.caller = Caller(self.port)
        self.process: asyncio.subprocess.Process | None = None
        self.max_calls = 100
        self.rtp_address = HOST
        self.router_section = ""  # more lines of [router]
        self.dialer_section = ""  # more lines of the dialer
        self._sections: list[str] = []
        self._head = ""

    async def buyer(
        self,
        name: str,
        *callees: Callee,
        more: str = "",
        endpoint: str = "",
        ring_ms: int = 30_000,
        each: str = "",
        campaign: str = "",
        opened: bool = False,
    ) -> None:
        """A buyer and a campaign of that name whose endpoints are these parties, all on UDP.

        `each`: more lines for every endpoint, `campaign` for the campaign, `more` for the buyer.
        """
        lines = ["[[buyers]]", f'name = "{name}"', 'terms = "westlake-fulfillment"', more]
        for number, callee in enumerate(callees, start=1):
            if not opened:
                await callee.open()
            self.callees.append(callee)
            lines += ["[[buyers.endpoints]]", f'name = "e{number}"', 'kind = "trunk"']
            lines += [f'uri = "sip:e{number}@{HOST}:{callee.port}"', each]
        if endpoint:
            lines += ["[[buyers.endpoints]]", endpoint]
        lines += ["[[campaigns]]", f'name = "{name}"', f'buyers = ["{name}"]', f"ring_timeout_ms = {ring_ms}", campaign]
        self._sections.append("\n".join(lines))

    async def tone(self, hertz: float) -> Tone:
        """An RTP party, closed when the test is over."""
        self.tones.append(await Tone(hertz).open())
        return self.tones[-1]

    def section(self, text: str) -> None:
        self._head += text + "\n"

    @property
    def config(self) -> Path:
        return self.folder / "baton.toml"

    async def start(self) -> None:
        """Import the book and start the router; returns once it answers SIP."""
        if not self.config.exists():
            rtp_min = 22_000 + (self.port % 300) * 100
            base = BASE.format(
                port=self.port,
                rtp_min=rtp_min,
                rtp_max=rtp_min + max(399, 2 * self.max_calls),
                max_calls=self.max_calls,
                rtp_address=self.rtp_address,
                router=self.router_section,
                dialer=self.dialer_section,
            )
            self.config.write_text(base + self._head + "\n".join(self._sections))
            command = [sys.executable, "-m", "baton", "import", str(self.config)]
            done = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            output, _ = await done.communicate()
            assert done.returncode == 0, output.decode()
            await self.caller.open()
        with (self.folder / "router.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "baton.process.child", "router", str(self.config),
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        await self._answers()

    async def _answers(self) -> None:
        """A campaign that does not exist gets 404 as soon as the router is up, or 401 or 403."""
        for _ in range(100):
            assert self.process is not None
            assert self.process.returncode is None, self.log()
            call = self.caller.invite("nobody")
            try:
                assert (await self.caller.final(call, 0.3)).code in (401, 403, 404)
            except AssertionError:
                continue
            return
        raise AssertionError(self.log())

    def log(self) -> str:
        return (self.folder / "router.log").read_text(errors="replace")

    async def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await asyncio.wait_for(self.process.wait(), 20)

    async def facts(
        self, call_id: str, until: Callable[[list[Fact]], bool], within_s: float = 15.0, *, any_call: bool = False
    ) -> list[Fact]:
        """The facts of the transfer of a call, or of any campaign's, once they satisfy `until`."""
        engine = await open_store(f"sqlite+aiosqlite:///{self.folder / 'data' / 'baton.db'}", create=False)
        deadline = time.monotonic() + within_s
        try:
            while True:
                for row in await list_transfers(engine, limit=1000):
                    found = await read_transfer(engine, row.transfer)
                    ours = found and (
                        found[0].payload["buyer"] if any_call else found[0].payload["sip_call_id"] == call_id
                    )
                    if ours and until(found):
                        return found
                assert time.monotonic() < deadline, f"no such facts; the router says:\n{self.log()}"
                await asyncio.sleep(0.05)
        finally:
            await engine.dispose()

    async def closed(self, call_id: str, within_s: float = 15.0) -> list[Fact]:
        return await self.facts(call_id, lambda facts: any(f.kind is Kind.TRANSFER_CLOSED for f in facts), within_s)

    async def verified(self) -> bool:
        engine = await open_store(f"sqlite+aiosqlite:///{self.folder / 'data' / 'baton.db'}", create=False)
        try:
            return (await verify_journal(engine)).ok
        finally:
            await engine.dispose()


def verdict(facts: list[Fact]) -> str:
    closing = next(fact for fact in facts if fact.kind is Kind.TRANSFER_CLOSED)
    return f"{closing.payload['verdict']}/{closing.payload['reason']}"


@pytest.fixture
async def station(tmp_path: Path) -> AsyncIterator[Station]:
    """A station; tests add buyers, then start it."""
    one = Station(tmp_path)
    yield one
    await one.stop()
    for party in (*one.callees, *one.tones, one.caller):
        party.close()
