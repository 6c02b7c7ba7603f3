"""The cost of observation per transfer: metrics, events over MQTT, webhooks, logs, SIP traces; on and off.

Two Batons of this tree under the same load, in alternating pairs, as in `bench.pairs`. One tells nothing: no broker,
no webhook, no trace, no line in the log for a transfer, nobody scrapes it. The other does all of it: Mosquitto on a
port, a buyer's HTTPS endpoint, Prometheus' page read every five seconds, a line for each transfer, the last messages
kept. The CPU of broker and endpoint is not counted; that of every process of Baton is.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from baton.demo.parties import HOST, MissingProgramError, free_port, metrics_page
from bench import pairs
from bench.pairs import How, PairedRuns
from bench.rows import Row, none_of, seen
from bench.stage import Baton, Buyer
from bench.stats import bootstrap, median
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.webhooks.sql import Webhook, put_hook

LIMIT = 1.10
SCRAPE_S = 5.0
RATE = 50


@dataclass(slots=True)
class Quiet(Baton):
    """Tells nothing."""

    def _config(self) -> str:
        text = Baton._config(self)  # noqa: SLF001 - a class with slots has no super() of this form
        text = text.replace('level = "info"', 'level = "info"\nsample = { transfer_closed = 0 }')
        return text.replace('name = "bench"\n', 'name = "bench"\ntrace_mb = 0\n')


@dataclass(slots=True)
class Telling(Baton):
    """Tells everything. The endpoint and the broker live as long as it does."""

    events: tuple[str, ...] = ("dialed", "answered", "failed")
    mqtt_port: int = field(default_factory=free_port)
    posted: list[int] = field(default_factory=lambda: [0])
    _endpoint: asyncio.Server | None = None
    _scrapes: asyncio.Task[None] | None = None

    def _config(self) -> str:
        ca = self.certificates.ca.name
        return Baton._config(self) + (  # noqa: SLF001
            f'[mqtt]\nhost = "{HOST}"\nport = {self.mqtt_port}\n'
            f'[webhooks]\nallow_hosts = ["localhost", "{HOST}"]\nca_file = "{ca}"\n'
        )

    async def prepare(self) -> None:
        broker = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if broker is None:
            raise MissingProgramError("mosquitto is not installed: run scripts/bootstrap")
        conf = self.folder / "mosquitto.conf"
        conf.write_text(f"listener {self.mqtt_port} {HOST}\nallow_anonymous true\n")
        await self.processes.start("broker", [broker, "-c", str(conf)])
        await Baton.prepare(self)
        if self.events:
            await self._subscribe()

    async def _subscribe(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificates.both)
        self._endpoint = await asyncio.start_server(self._take, HOST, 0, ssl=context)
        port = self._endpoint.sockets[0].getsockname()[1]
        engine = await open_store(f"sqlite+aiosqlite:///{self.store.path}")
        clerk = Clerk(engine)
        for buyer in self.buyers:
            hook = Webhook(buyer.name, "bench", f"https://{HOST}:{port}/", self.events)
            await clerk.write(put_hook, hook)
        await clerk.close()
        await engine.dispose()

    async def start(self) -> None:
        await Baton.start(self)
        self._scrapes = asyncio.create_task(self._scrape())

    async def stop(self) -> None:
        if self._scrapes is not None:
            self._scrapes.cancel()
            await asyncio.gather(self._scrapes, return_exceptions=True)
        await Baton.stop(self)
        if self._endpoint is not None:
            self._endpoint.close()

    async def _scrape(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(metrics_page, self.metrics_port)
            await asyncio.sleep(SCRAPE_S)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The buyer's endpoint: takes whatever comes."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            async for size in _posts(reader):
                await reader.readexactly(size)
                self.posted[0] += 1
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        writer.close()


async def _posts(reader: asyncio.StreamReader) -> AsyncIterator[int]:
    """The length of each body that follows."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        yield int(lengths[0].partition(b":")[2]) if lengths else 0


async def measure(
    folder: Path, tell: Callable[[str], None], *, count: int, seconds: int, events: Sequence[str]
) -> list[Row]:
    """`count` pairs. `events`: what the buyer's webhook takes; none: it has no webhook."""
    made: list[Telling] = []

    def telling(place: Path, buyers: tuple[Buyer, ...]) -> Baton:
        made.append(Telling(place, buyers, suppressed=pairs.SUPPRESSED, events=tuple(events)))
        return made[0]

    def quiet(place: Path, buyers: tuple[Buyer, ...]) -> Baton:
        return Quiet(place, buyers, suppressed=pairs.SUPPRESSED)

    [found] = await pairs.two_batons(folder, telling, quiet, tell, how=How(count, seconds, (RATE,)))
    posted = made[0].posted[0]
    what = "MQTT, scrapes, logs, traces" + (f", webhooks ({', '.join(events)})" if events else "")
    return [
        pairs.over(f"CPU at {RATE}/s with {what}, over without", _cpu(found), LIMIT),
        *_parts(found),
        none_of("failed transfers", sum(run.failed for run in (*found.baton, *found.peer))),
        seen("webhooks posted", posted, ""),
    ]


def _cpu(pairs: PairedRuns) -> list[tuple[float, float]]:
    return [(one.cpu_ms, other.cpu_ms) for one, other in zip(pairs.baton, pairs.peer, strict=True)]


def _parts(pairs: PairedRuns) -> list[Row]:
    """The same by process: where the difference is."""
    rows = []
    for name in sorted({part for run in pairs.baton for part in run.parts_ms}):
        both = [
            (one.parts_ms.get(name, 0.0), other.parts_ms.get(name, 0.0))
            for one, other in zip(pairs.baton, pairs.peer, strict=True)
        ]
        more = [one - other for one, other in both]
        low, high = bootstrap(more)
        note = f"{median(more):+.2f} ms, 95 % {low:+.2f} to {high:+.2f}"
        rows.append(seen(f"of it {name}", median([one for one, _ in both]), "ms", note))
    return rows
