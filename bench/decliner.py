"""A SIP endpoint that rings and declines at a moment of its own choosing, over UDP or TLS.

SIPp's clock ticks in milliseconds and its pauses are per scenario; here every call has a delay of its own. That it is
kept is not trusted: a packet capture says what it was.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from baton.demo.certificates import Certificates
from baton.demo.parties import HOST

_KEPT = re.compile(rb"^(Via|v|From|f|To|t|Call-ID|i|CSeq)[ \t]*:", re.IGNORECASE)
_LENGTH = re.compile(rb"^(?:Content-Length|l)[ \t]*:[ \t]*(\d+)", re.IGNORECASE | re.MULTILINE)
_MAX_BYTES = 1 << 20  # of a message that does not end

Send = Callable[[bytes], None]


class Decliner:
    """Answers each INVITE with 100, 180 and, after the next of `delays_s`, 486."""

    def __init__(self, delays_s: Iterator[float]) -> None:
        self._delays_s = delays_s
        self._seen: set[bytes] = set()
        self._server: asyncio.Server | None = None
        self._datagrams: asyncio.DatagramTransport | None = None

    async def listen_udp(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(HOST, port))

    async def listen_tls(self, port: int, certificates: Certificates, keys: Path) -> None:
        """`keys`: where the secrets of the connections are written, for the capture."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificates.server, certificates.server_key)
        context.keylog_filename = str(keys)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Stream(self), HOST, port, ssl=context)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._datagrams is not None:
            self._datagrams.close()

    def on_message(self, message: bytes, send: Send) -> None:
        """One SIP message. Only an INVITE that is new gets answers."""
        if not message.startswith(b"INVITE "):
            return
        headers = _kept(message)
        call_id = next((line for line in headers if line.lower().startswith((b"call-id", b"i:"))), b"")
        if call_id in self._seen:
            return
        self._seen.add(call_id)
        asyncio.get_running_loop().call_later(next(self._delays_s), send, _response(b"486 Busy Here", headers))
        send(_response(b"100 Trying", headers))
        send(_response(b"180 Ringing", headers))


def _kept(message: bytes) -> list[bytes]:
    """The headers that a response repeats (RFC 3261 section 8.2.6.2)."""
    return [line for line in message.partition(b"\r\n\r\n")[0].split(b"\r\n") if _KEPT.match(line)]


def _response(status: bytes, headers: list[bytes]) -> bytes:
    tagged = [
        line + b";tag=decliner" if line.lower().startswith((b"to:", b"t:")) and not status.startswith(b"100") else line
        for line in headers
    ]
    return b"\r\n".join((b"SIP/2.0 " + status, *tagged, b"Content-Length: 0", b"", b""))


def split_stream(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Whole messages, and what is left (RFC 3261 section 18.3); CRLFs between them are keep-alives."""
    found: list[bytes] = []
    while True:
        buffer = buffer.lstrip(b"\r\n")
        head, end, rest = buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        size = int(length[1]) if length is not None else 0
        if not end or len(rest) < size:
            return found, buffer
        found.append(head + end + rest[:size])
        buffer = rest[size:]


class _Stream(asyncio.Protocol):
    def __init__(self, owner: Decliner) -> None:
        self._owner = owner
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        messages, self._buffer = split_stream(self._buffer + data)
        for message in messages:
            self._owner.on_message(message, self._send)
        if len(self._buffer) > _MAX_BYTES and self._transport is not None:
            self._transport.close()

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, owner: Decliner) -> None:
        self._owner = owner
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # asyncio's own is no subclass before 3.12

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        def send(answer: bytes) -> None:
            if self._transport is not None and not self._transport.is_closing():
                self._transport.sendto(answer, addr)

        self._owner.on_message(data, send)
