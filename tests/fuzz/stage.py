"""The stage: a router, a good dialer with good endpoints, and in a process of their own those who mean harm.

`play` has so many messages sent, then waits for the router to be as it was, and tells what is wrong: a router that
ended or stood still, a call of the good dialer's that failed, a journal that does not verify, a finding of
AddressSanitizer, descriptors that were not given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from baton.demo.certificates import Certificates, make
from baton.demo.parties import free_port
from facts.fact import Kind
from meter.journal.sql.reading import list_transfers, read_transfer
from meter.store.engine import open_store
from tests.fuzz.parties import BadDialer, Tally
from tests.net.conftest import Station, verdict
from tests.net.peer import HOST, Call, Callee, Caller, Message

HANG_S = 5.0  # of silence make a router hung (baton.process.health)
BACK_S = 60.0  # PJSIP's timers run 32 s (64 x T1, RFC 3261 section 17.1.1.2)
SPARE_FDS = 4  # the store's and the log's come and go
FDS_PER_TRANSFER = 6  # RTP and RTCP of two legs, a connection of each
SLOTS = 700
T1_S = 0.5  # RFC 3261 section 17.1.1.1
SHOWN = 6_000  # characters of a finding


@dataclass
class Played:
    """What was played, and what is wrong; nothing is, where `wrong` is empty."""

    seed: int
    tally: Tally = field(default_factory=Tally)
    good: int = 0
    setup_ms: list[float] = field(default_factory=list)
    fds: tuple[int, int] = (0, 0)
    rss_kib: tuple[int, int] = (0, 0)
    longest_gap_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def p99_ms(self) -> float:
        ranked = sorted(self.setup_ms)
        return ranked[min(len(ranked) - 1, len(ranked) * 99 // 100)] if ranked else 0.0

    def told(self) -> str:
        return (
            f"seed {self.seed}: {self.tally.sip:,} messages and {self.tally.rtp:,} packets of media to "
            f"{self.tally.dialogs:,} dialogs; {self.good:,} good calls, p99 {self.p99_ms():.0f} ms, longest silence "
            f"{self.longest_gap_s:.1f} s; descriptors {self.fds[0]} -> {self.fds[1]}, "
            f"memory {self.rss_kib[0]:,} -> {self.rss_kib[1]:,} KiB: {len(self.wrong)} violations"
        )


def _of_compiler(name: str) -> str:
    told = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return str(Path(told.stdout.strip()).resolve())


@contextlib.contextmanager
def sanitized(engine: Path | None, reports: Path) -> Iterator[None]:
    """Processes that are started within run the engine of that folder, built with AddressSanitizer."""
    if engine is None:
        yield
        return
    told = {
        "LD_PRELOAD": " ".join(_of_compiler(name) for name in ("libasan.so", "libstdc++.so")),  # pjsua2 throws
        "PYTHONPATH": str(engine),
        "ASAN_OPTIONS": f"detect_leaks=0:handle_abort=1:log_path={reports / 'asan'}",
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class GoodDialer(Caller):
    """A dialer that sends its INVITE again until it is heard: a datagram may be lost (RFC 3261 section 17.1.1.2)."""

    async def finished(self, call: Call, within_s: float) -> Message | None:
        begun = time.monotonic()
        invite, again_s, every_s = self.sent[call.call_id], T1_S, T1_S
        while call.final is None and time.monotonic() < begun + within_s:
            await asyncio.sleep(0.005)
            if not call.seen and time.monotonic() - begun > again_s:
                every_s *= 2
                again_s += every_s
                super().send(invite, self.router)
        return call.final

    def __init__(self, router_port: int) -> None:
        super().__init__(router_port)
        self.sent: dict[str, str] = {}

    def send(self, text: str, to: tuple[str, int]) -> None:
        if text.startswith("INVITE"):
            self.sent[Message(text, 0.0).call_id] = text
        super().send(text, to)


class GoodEndpoint(Callee):
    """An endpoint that sends its 200 again until it is acknowledged (RFC 3261 section 13.3.1.4)."""

    def __init__(self) -> None:
        super().__init__([(10, 180), (30, 200)])
        self.acknowledged: set[str] = set()
        self.ended: set[str] = set()
        react = self.react

        def listen(message: Message) -> None:
            if not message.is_response and message.method in {"ACK", "CANCEL"}:
                self.acknowledged.add(message.call_id)
            if not message.is_response and message.method == "BYE":
                self.ended.add(message.call_id)
            react(message)

        self.react = listen

    def answer(self, invite: Message, code: int, wait_s: float = T1_S) -> None:
        super().answer(invite, code)
        if code == 200 and wait_s < 64 * T1_S:
            asyncio.get_running_loop().call_later(wait_s, self._again, invite, 2 * wait_s)

    def _again(self, invite: Message, wait_s: float) -> None:
        if invite.call_id not in self.acknowledged and self._transport is not None and not self._transport.is_closing():
            self.answer(invite, 200, wait_s)


class Stage:
    """All who take part."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.played = Played(seed)
        self.station = Station(folder)
        self.station.max_calls = SLOTS
        self.station.dialer_section = f'[[dialers]]\nname = "bad"\nallow = ["{BadDialer.host}/32"]'
        self.station.router_section = "rtp_timeout_ms = 10000"
        self.station.caller = self.good = GoodDialer(self.station.port)
        self.ports = {"udp": self.station.port, "tcp": free_port(), "tls": free_port()}
        self.endpoint = GoodEndpoint()
        self._villains: asyncio.subprocess.Process | None = None
        self._heard_at = 0.0
        self._held = ""
        self._calls: set[asyncio.Task[None]] = set()

    async def open(self, engine: Path | None = None) -> None:
        certificates = make(self.folder)
        ports = await self._open_villains(certificates)
        self._listeners(certificates)
        await self.station.buyer("acme", self.endpoint)
        for name, which, lines in (
            ("udp", ["udp1"], 'prack = "optional"\nsession_timer = "optional"'),
            ("tcp", ["tcp"], 'transport = "tcp"'),
            ("tls", ["tls"], 'transport = "tls"\nsrtp = "mandatory"'),
            ("mixed", ["udp1", "udp2", "udp3"], ""),
        ):
            self._buyer(name, [ports[one] for one in which], lines)
        with sanitized(engine, self.folder):
            await self.station.start()
        await self._call_well()
        self.played.fds = (self._fds(), 0)
        self.played.rss_kib = (self._rss_kib(), 0)

    async def _open_villains(self, certificates: Certificates) -> dict[str, int]:
        self._villains = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.fuzz.villains", str(self.played.seed), *map(str, self.ports.values()),
            str(certificates.server), str(certificates.server_key),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        found: dict[str, int] = await self._told()
        return found

    async def _told(self) -> dict[str, int]:
        assert self._villains is not None
        assert self._villains.stdout is not None
        line = await self._villains.stdout.readline()
        assert line, "the villains have ended"
        found: dict[str, int] = json.loads(line)
        return found

    def _tell(self, line: str) -> None:
        if self._villains is not None and self._villains.stdin is not None:
            self._villains.stdin.write(f"{line}\n".encode())

    def _listeners(self, certificates: Certificates) -> None:
        self.station.section(f'[tls]\nca_file = "{certificates.ca}"')
        for name in ("tcp", "tls"):
            self.station.section(
                f'[[listeners]]\nname = "{name}"\ntransport = "{name}"\naddress = "{HOST}"\nport = {self.ports[name]}\n'
                'srtp = "optional"'
            )
        self.station.section(f'certificate_file = "{certificates.server}"\nkey_file = "{certificates.server_key}"')

    def _buyer(self, name: str, ports: list[int], lines: str) -> None:
        said = [f'[[buyers]]\nname = "{name}"\nterms = "westlake-fulfillment"']
        said += [
            f'[[buyers.endpoints]]\nname = "e{port}"\nkind = "trunk"\nuri = "sip:e@{HOST}:{port}"\n{lines}'
            for port in ports
        ]
        said.append(f'[[campaigns]]\nname = "{name}"\nbuyers = ["{name}"]\nring_timeout_ms = 5000\n')
        self.station.section("\n".join(said))

    # --- the good dialer ---

    async def _call_well(self) -> None:
        """A call as it ought to be: 200, ACK, BYE."""
        begun = time.monotonic()
        call = self.good.invite("acme")
        final = await self.good.finished(call, 4 * HANG_S)
        for party in (self.good, self.endpoint):
            party.seen.clear()
        if final is None:
            self.played.wrong.append(f"a good call got no answer: {call.call_id}")
            return
        self.played.setup_ms.append((final.at - begun) * 1000)
        self.played.good += 1
        if final.code != 200:
            self.played.wrong.append(f"a good call got {final.code} {final.header('X-Baton-Reason')}: {call.call_id}")
            return
        self.good.bye(call)

    async def _good_calls(self, a_second: float, until: asyncio.Event) -> None:
        """Calls at that rate; each is waited for."""
        self._heard_at = time.monotonic()
        while not until.is_set() and self._alive():
            task = asyncio.ensure_future(self._timed())
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            await asyncio.sleep(1 / a_second)

    async def _timed(self) -> None:
        await self._call_well()
        now = time.monotonic()
        self.played.longest_gap_s = max(self.played.longest_gap_s, now - self._heard_at)
        self._heard_at = now

    # --- the play ---

    async def play(self, messages: int, *, a_second: float, good_a_second: float) -> Played:
        done = asyncio.Event()
        good = asyncio.ensure_future(self._good_calls(good_a_second, done))
        self._tell(f"{messages} {a_second}")
        told = asyncio.ensure_future(self._told())
        while not told.done() and self._alive():
            await asyncio.wait({told}, timeout=0.2)
        done.set()
        await good
        if told.done():
            self.played.tally = Tally(**told.result())  # type: ignore[arg-type]
        else:
            told.cancel()
        if self._calls:
            await asyncio.wait(self._calls)
        await asyncio.sleep(HANG_S)
        for call_id in self.endpoint.acknowledged - self.endpoint.ended:  # whom the bad dialer called, too
            self.endpoint.hang_up(self.endpoint.invites[call_id])
        await self._look_after()
        return self.played

    async def _look_after(self) -> None:
        wrong = self.played.wrong
        process = self.station.process
        assert process is not None
        if self._alive():
            await self._settle()
            await self._call_well()
        if not self._alive():
            wrong.append(f"the router ended: {process.returncode}\n{self.station.log()[-SHOWN:]}")
        if self.played.longest_gap_s >= HANG_S:
            wrong.append(f"the router stood still for {self.played.longest_gap_s:.1f} s")
        await self.station.stop()
        wrong += [f"AddressSanitizer:\n{one.read_text(errors='replace')[:SHOWN]}" for one in self.folder.glob("asan*")]
        if not await self.station.verified():
            wrong.append("the journal does not verify")
        await self._look_at_verdicts()

    async def _settle(self) -> None:
        """Until descriptors are back, at most as long as PJSIP's timers run."""
        deadline = time.monotonic() + BACK_S
        while self._alive():
            fds = self._fds()
            self.played.fds = (self.played.fds[0], fds)
            self.played.rss_kib = (self.played.rss_kib[0], self._rss_kib())
            if fds <= self.played.fds[0] + SPARE_FDS:
                return
            if time.monotonic() > deadline:
                self._held = self._sockets()
                return
            await asyncio.sleep(0.5)

    async def _look_at_verdicts(self) -> None:
        """Every good call has the verdict of what happened: answered, ended by the caller, free."""
        engine = await open_store(f"sqlite+aiosqlite:///{self.folder / 'data' / 'baton.db'}", create=False)
        try:
            seen, interrupted = 0, []
            for row in await list_transfers(engine, limit=1_000_000):
                facts = await read_transfer(engine, row.transfer)
                if any(fact.kind is Kind.ENDED and fact.payload.get("cause") == "shutdown" for fact in facts):
                    interrupted.append(row.transfer)  # neither party has ended it: no leak
                if not facts or facts[0].payload["sip_call_id"] not in self.good.calls or not facts[0].payload["buyer"]:
                    continue
                seen += 1
                closed = any(fact.kind is Kind.TRANSFER_CLOSED for fact in facts)
                found = verdict(facts) if closed else "nothing"
                if found != "short_call/caller_ended":
                    self.played.wrong.append(f"a good call came out as {found}: {row.transfer}")
            left = self.played.fds[1] - self.played.fds[0] - SPARE_FDS - FDS_PER_TRANSFER * len(interrupted)
            if left > 0:
                self.played.wrong.append(
                    f"descriptors not given back: {self.played.fds}, {len(interrupted)} calls were up\n{self._held}"
                )
            if seen < self.played.good:
                self.played.wrong.append(f"{self.played.good} good calls, {seen} of them in the journal")
        finally:
            await engine.dispose()

    def _alive(self) -> bool:
        return self.station.process is not None and self.station.process.returncode is None

    def _fds(self) -> int:
        assert self.station.process is not None
        with contextlib.suppress(OSError):
            return len(list(Path(f"/proc/{self.station.process.pid}/fd").iterdir()))
        return 0

    def _sockets(self) -> str:
        """Each socket it holds: kind, local and remote address in the kernel's hexadecimal, state (proc_net_tcp(5))."""
        assert self.station.process is not None
        proc = Path(f"/proc/{self.station.process.pid}")
        held = set()
        for one in (proc / "fd").iterdir():
            with contextlib.suppress(OSError):
                held.add(one.readlink().name.removeprefix("socket:[").rstrip("]"))
        found = []
        for kind in ("udp", "tcp"):
            for line in (proc / "net" / kind).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[9] in held:
                    found.append(f"{kind} {' '.join(fields[1:4])}")
        return "\n".join(found)

    def _rss_kib(self) -> int:
        assert self.station.process is not None
        with contextlib.suppress(OSError):
            pages = Path(f"/proc/{self.station.process.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE") // 1024
        return 0

    async def close(self) -> None:
        await self.station.stop()
        if self._villains is not None and self._villains.returncode is None:
            self._tell("end")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HANG_S):
                    await self._villains.wait()
            if self._villains.returncode is None:
                self._villains.kill()
                await self._villains.wait()
        for party in (*self.station.callees, self.good):
            party.close()


async def play(folder: Path, messages: int, seed: int, *, engine: Path | None = None, a_second: float = 500.0,
               good_a_second: float = 5.0) -> Played:  # fmt: skip
    """Play it in `folder`. `engine`: a folder with the engine built with AddressSanitizer."""
    stage = Stage(folder, seed)
    try:
        await stage.open(engine)
        return await stage.play(messages, a_second=a_second, good_a_second=good_a_second)
    finally:
        await stage.close()
