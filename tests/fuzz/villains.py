"""All who mean harm, in a process of their own: `python -m tests.fuzz.villains SEED UDP TCP TLS CERTIFICATE KEY`.

It opens the endpoints and prints their ports as a line of JSON; a line `MESSAGES RATE` lets it play, after which it
prints what it sent; a second line ends it. The good dialer must not wait for this process's turn, hence the second one.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path

from tests.fuzz.grammar import HOST, METHODS, Odd, Wire
from tests.fuzz.parties import BadDialer, BadEndpoint, Tally, Villain
from tests.fuzz.streams import StreamEndpoint, connection, unverified

STRANGER = "127.0.0.9"
ENDPOINTS = ("udp1", "udp2", "udp3", "tcp", "tls")
CAMPAIGNS = ("udp", "tcp", "tls", "mixed", "acme", "nobody")
CALLS_AT_ONCE = 150  # so that the good dialer has slots
AFTER_S = 4.0  # for what was planned, and for byes


class Villains:
    """Strangers, a dialer and endpoints."""

    def __init__(self, seed: int, ports: dict[str, int], certificate: tuple[Path, Path]) -> None:
        self.rng = random.Random(seed)
        self.odd = Odd(self.rng)
        self.tally = Tally()
        self.ports = ports
        router = (HOST, ports["udp"])
        self.dialer = BadDialer(self.rng, self.tally, router, CAMPAIGNS)
        self.endpoints: dict[str, Villain] = {
            **{name: BadEndpoint(self.rng, self.tally, router) for name in ENDPOINTS[:3]},
            "tcp": StreamEndpoint(self.rng, self.tally, router),
            "tls": StreamEndpoint(self.rng, self.tally, router, certificate),
        }
        self._stranger: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        for one in (*self.endpoints.values(), self.dialer):
            await one.open()
        loop = asyncio.get_running_loop()
        self._stranger, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(STRANGER, 0))

    async def play(self, messages: int, a_second: float) -> None:
        """Whatever comes to mind, until so many messages were sent, about so many a second."""
        begun = time.monotonic()
        while self.tally.sip < messages:
            if self.tally.sip / a_second > time.monotonic() - begun or len(self.dialer.dialogs) > CALLS_AT_ONCE:
                await asyncio.sleep(0.01)
                continue
            self._one()
            await asyncio.sleep(0)
        await asyncio.sleep(AFTER_S)
        for one in (*self.endpoints.values(), self.dialer):
            one.finish()
            await asyncio.sleep(AFTER_S / 5)

    def _one(self) -> None:
        kind = self.rng.randrange(10)
        if kind <= 4:
            self.dialer.call()
        elif kind <= 5:
            self.tally.note("stranger")
            if self._stranger is not None and len(data := self._message()) < 65_000:
                self._stranger.sendto(data, (HOST, self.ports["udp"]))
        elif kind <= 6:
            self.tally.note("dialer")
            self.dialer.datagram(self._message(), (HOST, self.ports["udp"]))
        elif len(self._tasks) < CALLS_AT_ONCE:
            self._connect()

    def _message(self) -> bytes:
        """A request or a response of nobody's dialog."""
        rng, odd = self.rng, self.odd
        method = rng.choice(METHODS)
        port = rng.choice((9, 5060, 0, 65_535))
        headers = [
            ("Via", f"SIP/2.0/UDP 127.0.0.5:{port};rport;branch=z9hG4bK{odd.token()}"),
            ("From", f"<sip:a@127.0.0.5>;tag={odd.token()}"),
            ("To", rng.choice(("<sip:acme@127.0.0.1>", f"<sip:acme@127.0.0.1>;tag={odd.token()}"))),
            ("Call-ID", odd.token()), ("CSeq", f"{rng.choice(('1', '2147483647'))} {method}"),
            ("Contact", f"<sip:a@127.0.0.5:{port}>"), ("Max-Forwards", "70"),
        ]  # fmt: skip
        start = f"{method} sip:acme@127.0.0.1:{self.ports['udp']} SIP/2.0"
        wire = Wire(start if odd.chance(0.7) else f"SIP/2.0 {rng.randrange(800)} X", headers)
        if odd.chance(0.5):
            kind, wire.body = odd.body(9)
            headers.append(("Content-Type", kind))
        odd.headers(wire, 4)
        data = wire.text()
        return odd.mangled(data) if odd.chance(0.4) else data

    def _connect(self) -> None:
        rng = self.rng
        secure, known = rng.random() < 0.5, rng.random() < 0.8
        to = (HOST, self.ports["tls" if secure else "tcp"])
        dialer = self.dialer if known and rng.random() < 0.8 else None
        source = BadDialer.host if known else STRANGER
        context = unverified() if secure else None
        self._spawn(connection(rng, source, to, context=context, dialer=dialer, message=self._message))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for one in (*self.endpoints.values(), self.dialer):
            one.close()
        if self._stranger is not None:
            self._stranger.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def main(seed: str, udp: str, tcp: str, tls: str, *certificate: str) -> None:
    ports = {"udp": int(udp), "tcp": int(tcp), "tls": int(tls)}
    villains = Villains(int(seed), ports, (Path(certificate[0]), Path(certificate[1])))
    await villains.open()

    def tell(what: object) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    tell({name: one.port for name, one in villains.endpoints.items()})
    messages, rate = (await asyncio.to_thread(sys.stdin.readline)).split()
    await villains.play(int(messages), float(rate))
    tell(asdict(villains.tally))
    await asyncio.to_thread(sys.stdin.readline)
    await villains.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
