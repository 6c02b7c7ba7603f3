"""A relay that makes races certain: it holds a transfer's messages until all are there, then releases them.

A relay stands between the router and a party, on UDP. What fits one of the gate's patterns is held by the number of the
prospect, which every message of a transfer bears; once each pattern has its message they leave in the gate's order,
within microseconds. A pattern that is named twice needs two messages. What does not become complete in `PATIENCE_S`
goes on as it is, so that a story fails by what it says and not by silence.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from baton.demo.parties import HOST

PATIENCE_S = 3.0
_NUMBER = re.compile(rb"sip:(\+?\d{8,15})@")

Address = tuple[str, int]


@dataclass(slots=True)
class _Held:
    """What one transfer has waiting: (place in the order, message, its way out)."""

    messages: list[tuple[int, bytes, Callable[[bytes], None]]] = field(default_factory=list)
    over: bool = False


class Gate:
    """Holds messages of one story.

    `patterns`: who sends it (`caller` or `callee`), then a method, or a code and the method it answers: `caller BYE`,
    `callee 200 INVITE`.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        self._held: dict[bytes, _Held] = {}
        self.released = 0

    def take(self, data: bytes, sender: str, forward: Callable[[bytes], None]) -> bool:
        """True where the message stays here for now."""
        fitting = [at for at, pattern in enumerate(self._patterns) if _is(data, sender, pattern)]
        if not fitting:
            return False
        number = _NUMBER.search(data)
        held = self._held.setdefault(number.group(1) if number else b"", _Held())
        if held.over:
            return False
        if any(_same(data, kept) for _, kept, _ in held.messages):
            return True  # sent again meanwhile: once is enough
        taken = {place for place, _, _ in held.messages}
        free = next((at for at in fitting if at not in taken), None)
        if free is None:
            return False
        if not held.messages:
            asyncio.get_running_loop().call_later(PATIENCE_S, self._give_up, held)
        held.messages.append((free, data, forward))
        if len(held.messages) == len(self._patterns):
            self.released += 1
            self._let_go(held)
        return True

    def _give_up(self, held: _Held) -> None:
        if not held.over:
            self._let_go(held)

    def _let_go(self, held: _Held) -> None:
        held.over = True
        for _, data, forward in sorted(held.messages, key=lambda one: one[0]):
            forward(data)
        held.messages.clear()


def _is(data: bytes, sender: str, pattern: str) -> bool:
    who, *what = pattern.split()
    if who != sender:
        return False
    if not what[0].isdigit():
        return data.startswith(f"{what[0]} ".encode())
    answers = _header(data, b"cseq").endswith(what[1].encode())
    return answers and data.startswith(f"SIP/2.0 {what[0]} ".encode())


def _same(left: bytes, right: bytes) -> bool:
    marks = (b"call-id", b"cseq", b"to")
    starts = left.partition(b"\r\n")[0] == right.partition(b"\r\n")[0]
    return starts and all(_header(left, name) == _header(right, name) for name in marks)


def _header(data: bytes, name: bytes) -> bytes:
    for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""


class Relay(asyncio.DatagramProtocol):
    """One way in: whoever sends to `port` reaches `target`, and the answers go back. What the gate knows may wait.

    Before the router it is the dialer's way in, and what the dialer sends is looked at; before an endpoint
    (`from_target`) it is what the endpoint sends.
    """

    def __init__(self, target: Address, gate: Gate, *, from_target: bool) -> None:
        self._target = target
        self._gate = gate
        self._from_target = from_target
        self._client: Address | None = None
        self._front: asyncio.DatagramTransport | None = None
        self._back: asyncio.DatagramTransport | None = None

    async def start(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._front, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(HOST, port))
        back = _Back(self)
        self._back, _ = await loop.create_datagram_endpoint(lambda: back, local_addr=(HOST, 0))

    def stop(self) -> None:
        for transport in (self._front, self._back):
            if transport is not None:
                transport.close()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._client = addr
        if self._from_target or not self._gate.take(data, "caller", self._to_target):
            self._to_target(data)

    def from_target(self, data: bytes) -> None:
        if not self._from_target or not self._gate.take(data, "callee", self._to_client):
            self._to_client(data)

    def _to_target(self, data: bytes) -> None:
        if self._back is not None:
            self._back.sendto(data, self._target)

    def _to_client(self, data: bytes) -> None:
        if self._front is not None and self._client is not None:
            self._front.sendto(data, self._client)


class _Back(asyncio.DatagramProtocol):
    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def datagram_received(self, data: bytes, _addr: Address) -> None:
        self._relay.from_target(data)
