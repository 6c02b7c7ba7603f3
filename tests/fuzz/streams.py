"""Connections over TCP and TLS: messages cut anywhere, lengths that lie, noise instead of TLS, ends in mid-word."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.grammar import Odd
from tests.fuzz.parties import BadDialer, BadEndpoint, Tally

PATIENCE_S = 3.0  # a connection is open so long at most


def unverified() -> ssl.SSLContext:
    """A client that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def connection(
    rng: random.Random,
    source: str,
    to: tuple[str, int],
    *,
    context: ssl.SSLContext | None,
    dialer: BadDialer | None,
    message: Callable[[], bytes],
) -> None:
    """One connection: calls of a dialer's, or messages of nobody's dialog where there is no dialer."""
    odd = Odd(rng)
    if context is not None and odd.chance(0.2):
        await _noise(rng, source, to)
        return
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(*to, ssl=context, local_addr=(source, 0))
    except (OSError, TimeoutError):
        return
    waiting = bytearray()
    if dialer is not None:
        for _ in range(rng.choice((1, 1, 2, 4))):
            dialer.call(waiting.extend, "TLS" if context else "TCP")
    else:
        for _ in range(rng.choice((1, 3))):
            waiting += message()
    if odd.chance(0.2):
        waiting[:] = odd.mangled(bytes(waiting))
    if odd.chance(0.1):
        waiting[:0] = rng.choice(
            (b"\r\n\r\n", b"\r\n" * 200, b"\x00" * 40, b"GET / HTTP/1.0\r\n\r\n", rng.randbytes(300))
        )
    with contextlib.suppress(OSError, TimeoutError, ssl.SSLError):
        async with asyncio.timeout(PATIENCE_S):
            await _write(rng, writer, bytes(waiting))
            if odd.chance(0.8):
                await _answer(rng, reader, writer, dialer)
    _end(rng, writer)


async def _write(rng: random.Random, writer: asyncio.StreamWriter, data: bytes) -> None:
    """In pieces: cut where it hurts."""
    step = rng.choice((len(data) + 1, len(data) + 1, 1460, 60, 7))
    for at in range(0, len(data), step):
        writer.write(data[at : at + step])
        await writer.drain()
        if step < len(data) and rng.random() < 0.2:
            await asyncio.sleep(0.002)


async def _answer(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dialer: BadDialer | None
) -> None:
    """What comes back goes to the dialer, whose words go down the same connection."""
    while data := await reader.read(65_536):
        if dialer is not None and not writer.is_closing():
            dialer.heard(data, writer.write)
        if rng.random() < 0.1:
            return


def _end(rng: random.Random, writer: asyncio.StreamWriter) -> None:
    if rng.random() < 0.4:
        raw = writer.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):  # TLS that is over has none
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


async def _noise(rng: random.Random, source: str, to: tuple[str, int]) -> None:
    """No handshake of TLS, or half of one."""
    hello = bytes.fromhex("16030100c8010000c40303") + rng.randbytes(200)
    data = rng.choice(
        (b"", b"OPTIONS sip:h SIP/2.0\r\n\r\n", hello, hello[:40], rng.randbytes(900), b"\x16\x03\x01\xff\xff")
    )
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(*to, local_addr=(source, 0))
            writer.write(data)
            await writer.drain()
            if rng.random() < 0.5:
                await reader.read(10)
            _end(rng, writer)


class StreamEndpoint(BadEndpoint):
    """The endpoint over TCP, or over TLS where there is a certificate."""

    def __init__(
        self, rng: random.Random, tally: Tally, router: tuple[str, int], certificate: tuple[Path, Path] | None = None
    ) -> None:
        super().__init__(rng, tally, router)
        self._certificate = certificate
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        await super().open()
        context = None
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._certificate)
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(data: bytes) -> None:
            if not writer.is_closing():
                writer.write(data)

        self._writers.add(writer)
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while not self.stopping:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.decode(errors="replace").split("\r\n")
                               if line.lower().startswith("content-length:")), 0)  # fmt: skip
                self.heard(head.lstrip() + await reader.readexactly(length), send)
                if self.odd.chance(0.02):
                    break
        self._writers.discard(writer)
        _end(self.rng, writer)

    def close(self) -> None:
        super().close()
        for writer in self._writers:
            writer.transport.abort()
        if self._server is not None:
            self._server.close()
