"""The tests' SIP parties over TCP: a dialer that connects, and an endpoint that is connected to."""

from __future__ import annotations

import asyncio
import time

from tests.net.peer import HOST, Callee, Caller, Message, Party


class _Stream(Party):
    """Connections instead of a socket; a message goes out on the one that `to` names."""

    _server: asyncio.Server | None = None

    def _begin(self) -> None:
        self.via, self.params = "TCP", ";transport=tcp"
        self._lines: dict[tuple[str, int], asyncio.StreamWriter] = {}
        self._readers: set[asyncio.Task[None]] = set()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")[:2]
        self._lines[peer] = writer
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.strip():  # keep-alive (RFC 5626 section 3.5.1)
                    continue
                length = Message(head.decode(), 0.0).header("Content-Length")
                body = await reader.readexactly(int(length or 0))
                message = Message((head + body).decode(errors="replace"), time.monotonic(), peer)
                self.seen.append(message)
                self.react(message)
                self._news.set()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    def send(self, text: str, to: tuple[str, int]) -> None:
        line = self._lines.get(to)
        if line is None or line.is_closing():  # the connection broke: the one that came last (RFC 3261 section 18.2.2)
            line = list(self._lines.values())[-1]
        line.write(text.encode())

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._readers:
            task.cancel()
        for writer in self._lines.values():
            writer.close()


class StreamCaller(_Stream, Caller):
    """A dialer over TCP: one connection to the router's listener."""

    def __init__(self, router_port: int) -> None:
        Caller.__init__(self, router_port)
        self._begin()

    async def open(self, port: int = 0, host: str = HOST) -> Party:
        reader, writer = await asyncio.open_connection(host, self.router[1], limit=1 << 20)
        self.port = writer.get_extra_info("sockname")[1]
        self._lines[self.router] = writer
        self._readers.add(asyncio.create_task(self._read(reader, writer)))
        return self


class StreamCallee(_Stream, Callee):
    """An endpoint that listens on TCP."""

    def __init__(self, script: list[tuple[float, int]]) -> None:
        Callee.__init__(self, script)
        self._begin()

    async def open(self, port: int = 0, host: str = HOST) -> Party:
        self._server = await asyncio.start_server(self._read, host, port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self
