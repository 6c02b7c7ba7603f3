"""Baton as an operator runs it: `baton serve` on a configuration of its own, with SQLite, a mail sink and metrics.

Everything is in one folder; ports are free ones; whatever was started is ended by its pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from baton.demo.certificates import Certificates, make
from baton.demo.parties import HOST, MailSink, Processes, free_port, metrics_page
from bench import proc
from bench.store import Store
from meter.journal.sql.verify import verify_journal
from meter.store.engine import open_store

RTP_PORTS = (20_000, 29_999)
MAX_CALLS = 4_000  # six slots a transfer; 100 a second of half a second each need 300, and the slots of those just over
READY_S = 30.0
STOP_S = 60.0
_LOOK_S = 0.2
_METER_LAST_MAIL_S = 0.5  # the sink has it before the store knows


class BenchError(RuntimeError):
    """A measurement could not be made; the message says where to look."""


@dataclass(frozen=True, slots=True)
class Buyer:
    """A buyer, and a campaign of the same name. All `uris` ring at once. `secure`: TLS, SRTP mandatory, 15 s buffer."""

    name: str
    uris: tuple[str, ...]
    secure: bool = False


@dataclass(slots=True)
class Baton:
    """One `baton serve`, which may be started again after a crash."""

    folder: Path
    buyers: tuple[Buyer, ...]
    suppressed: int = 0  # numbers on a list that every transfer is checked against; none of them is dialled
    sink: MailSink | None = None
    python: Path = Path(
        sys.executable
    )  # of the Baton that is measured: an earlier one is set up in a folder of its own
    processes: Processes = field(init=False)
    certificates: Certificates = field(init=False)
    sip_port: int = field(init=False)
    metrics_port: int = field(init=False)
    store: Store = field(init=False)
    _starts: int = 0
    _ready_before: int = 0
    _sink_runs: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.processes = Processes(self.folder / "parties")
        self.processes.folder.mkdir()
        self.certificates = make(self.folder)
        self.sip_port, self.metrics_port = free_port(), free_port()
        self.sink = self.sink or MailSink(self.folder / "mail")
        self.store = Store(self.folder / "data" / "baton.db")

    async def prepare(self) -> None:
        """Write configuration and suppression list, import the book, start the mail sink."""
        assert self.sink is not None
        config = self.folder / "baton.toml"
        config.write_text(self._config())
        numbers = "".join(f"+1{2_132_000_000 + n}\n" for n in range(self.suppressed))
        (self.folder / "do-not-call.csv").write_text("phone\n" + numbers)
        self.sink.start()
        self._sink_runs = True
        await self._command("import", str(config))

    async def start(self) -> None:
        """Serve, and return when the router listens. Raises BenchError where it does not."""
        self._starts += 1
        name = f"baton-{self._starts}"
        command = [str(self.python), "-m", "baton", "serve", str(self.folder / "baton.toml")]
        await self.processes.start(name, command)
        self._ready_before = 0
        await self.ready_again()

    async def ready_again(self) -> None:
        """Wait until a router (the first, or one that was started again) listens."""
        log = self.processes.folder / f"baton-{self._starts}.log"

        def ready() -> bool:
            if self._process.returncode is not None:
                raise BenchError(f"baton serve ended; see {log}")
            return log.read_bytes().count(b'"router_ready"') > self._ready_before

        if not await until(ready, READY_S):
            raise BenchError(f"baton serve did not come up; see {log}")
        self._ready_before = log.read_bytes().count(b'"router_ready"')

    async def stop(self) -> None:
        """End everything in order; a Baton that does not stop in time is killed."""
        name = f"baton-{self._starts}"
        if name in self.processes.running and self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_S)
        await self.processes.stop_all()
        if self.sink is not None and self._sink_runs:
            self.sink.stop()

    @property
    def _process(self) -> asyncio.subprocess.Process:
        return self.processes.running[f"baton-{self._starts}"]

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self._process.pid

    @property
    def router_pid(self) -> int:
        """The router's. Raises BenchError where there is none."""
        for pid in proc.children(self.pid):
            if "router" in proc.command(pid):
                return pid
        raise BenchError("baton serve has no router")

    async def kill(self, *, whole: bool) -> None:
        """kill -9: the router, or supervisor, router and meter in one go."""
        pids = proc.tree(self.pid) if whole else [self.router_pid]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        if whole:
            await self._process.wait()

    async def metric(self, name: str) -> float | None:
        """A metric's value summed over its labels; None where it is not on the page."""
        return parse_metric(await asyncio.to_thread(metrics_page, self.metrics_port), name)

    async def idle(self, limit_s: float) -> bool:
        """Wait until every transfer that was started is settled and every mail is out; False after the limit."""

        def done() -> bool:
            return not self.store.open_count() and not self.store.mails_waiting()

        settled = await until(done, limit_s)
        await asyncio.sleep(_METER_LAST_MAIL_S)
        return settled

    async def journal_problems(self) -> int:
        """How many breaks the journal's chains have."""
        engine = await open_store(f"sqlite+aiosqlite:///{self.store.path}", create=False)
        try:
            return (await verify_journal(engine)).problem_count
        finally:
            await engine.dispose()

    async def _command(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            self.python, "-m", "baton", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.folder
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise BenchError(f"baton {arguments[0]} failed:\n{output.decode(errors='replace')}")

    def _config(self) -> str:
        assert self.sink is not None
        lines = [
            f'[router]\nname = "bench"\nmax_calls = {MAX_CALLS}\nrtp_address = "{HOST}"',
            f"rtp_port_min = {RTP_PORTS[0]}\nrtp_port_max = {RTP_PORTS[1]}\ndrain_seconds = 2",
            f'[[listeners]]\nname = "dialers"\ntransport = "udp"\naddress = "{HOST}"\nport = {self.sip_port}',
            f'[[dialers]]\nname = "sipp"\nallow = ["{HOST}/32"]',
            f'[tls]\nca_file = "{self.certificates.ca.name}"\n[store]\ndata_dir = "data"',
            f'[mail]\nhost = "{HOST}"\nport = {self.sink.port}\nsecurity = "none"',
            'sender = "transfers@operator.example"',
            '[links]\nbase_url = "https://portal.operator.example"\nsecret = "only-for-the-bench-0123456789abcdefgh"',
            f'[metrics]\nport = {self.metrics_port}\n[log]\nformat = "json"\nlevel = "info"',
        ]
        lines += [_buyer(buyer) for buyer in self.buyers]
        lines += [f'[[campaigns]]\nname = "{buyer.name}"\nbuyers = ["{buyer.name}"]' for buyer in self.buyers]
        if self.suppressed:
            lines.append('[[suppression_lists]]\nname = "do-not-call"\nfile = "do-not-call.csv"\ncolumn = "phone"')
        return "\n".join(lines) + "\n"


def _buyer(buyer: Buyer) -> str:
    terms = 'terms = "westlake-fulfillment"'
    text = f'[[buyers]]\nname = "{buyer.name}"\ntitle = "Buyer {buyer.name}"\n{terms}\n'
    text += f'lead_emails = ["{buyer.name}@buyer.example"]'
    for number, uri in enumerate(buyer.uris):
        text += f'\n[[buyers.endpoints]]\nname = "place-{number}"\nkind = "trunk"\nuri = "{uri}"'
        if buyer.secure:
            text += '\ntransport = "tls"\nsrtp = "mandatory"'
    return text


def parse_metric(page: str, name: str) -> float | None:
    """The sum of a metric's samples on a Prometheus page; None where it has none."""
    values = [
        float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith((f"{name} ", f"{name}{{"))
    ]
    return sum(values) if values else None


async def until(condition: Callable[[], bool], limit_s: float) -> bool:
    """Ask again and again; False where it was not so within the limit."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK_S)
    return True
