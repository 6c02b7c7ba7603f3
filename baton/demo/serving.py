"""Baton as demo and scenarios run it: `baton serve` in a folder, on a configuration written for the occasion."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from baton.demo.parties import HOST, Processes, metrics_page

READY_S = 30.0  # for Baton to listen
_LOOK_S = 0.25


class DemoError(RuntimeError):
    """Baton, or what it needs, could not be run; the message says where to look."""


@dataclass(frozen=True, slots=True)
class DemoBaton:
    """One Baton: where its files are and where it listens. `max_calls` also tells that its metrics page is complete."""

    folder: Path
    processes: Processes
    sip_port: int
    metrics_port: int
    max_calls: int = 200
    rtp_ports: tuple[int, int] = (20_000, 21_999)

    @property
    def config(self) -> Path:
        return self.folder / "baton.toml"

    @property
    def database(self) -> Path:
        return self.folder / "data" / "baton.db"

    @property
    def store_url(self) -> str:
        return f"sqlite+aiosqlite:///{self.database}"

    @property
    def log(self) -> Path:
        return self.processes.folder / "baton.log"

    def settings(self, name: str, ca_file: str) -> list[str]:
        """The settings that every such configuration has, as lines of TOML."""
        first, last = self.rtp_ports
        return [
            "[router]",
            f'name = "{name}"',
            f"max_calls = {self.max_calls}",
            f'rtp_address = "{HOST}"',
            f"rtp_port_min = {first}",
            f"rtp_port_max = {last}",
            "drain_seconds = 2",
            "[[listeners]]",
            'name = "dialers"',
            'transport = "udp"',
            f'address = "{HOST}"',
            f"port = {self.sip_port}",
            "[[dialers]]",
            'name = "sipp"',
            f'allow = ["{HOST}/32"]',
            "[tls]",
            f'ca_file = "{ca_file}"',
            "[store]",
            'data_dir = "data"',
            "[metrics]",
            f"port = {self.metrics_port}",
            "[log]",
            'format = "json"',
        ]

    async def start(self) -> None:
        """Check and import the configuration, then serve. Raises DemoError."""
        await self._command("check", str(self.config))
        await self._command("import", str(self.config))
        await self.processes.start("baton", [sys.executable, "-m", "baton", "serve", str(self.config)])

    async def ready(self) -> None:
        """Wait until the router listens: then the metrics page shows the SIP engine's slots. Raises DemoError."""

        async def up() -> bool:
            if self.processes.running["baton"].returncode is not None:
                raise DemoError(f"baton serve ended at once; see {self.log}")
            return f"baton_call_slots_max {self.max_calls}" in await self.metrics()

        if not await until(up, READY_S):
            raise DemoError(f"baton serve did not come up; see {self.log}")

    async def metrics(self) -> str:
        return await asyncio.to_thread(metrics_page, self.metrics_port)

    async def _command(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "baton", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.folder
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise DemoError(f"baton {arguments[0]} failed:\n{output.decode(errors='replace')}")


async def until(condition: Callable[[], Awaitable[bool]], limit_s: float) -> bool:
    """Ask again and again; False where it was not so within the limit."""
    deadline = time.monotonic() + limit_s
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK_S)
    return True
