"""SIP parties of the tests' own, over UDP: each does exactly what a test says, at the millisecond it says, and keeps
every message it saw. Far from a SIP stack; just enough of RFC 3261 to be a caller or a callee on loopback.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

HOST = "127.0.0.1"
_serial = itertools.count(1)


@dataclass(frozen=True)
class Message:
    """A message as it was seen, with its arrival time in seconds of the monotonic clock."""

    text: str
    at: float
    source: tuple[str, int] = ("", 0)

    @property
    def start(self) -> str:
        return self.text.split("\r\n", 1)[0]

    @property
    def method(self) -> str:
        """Method of a request; of a response, its CSeq's."""
        return self.header("CSeq").split()[1] if self.is_response else self.start.split()[0]

    @property
    def is_response(self) -> bool:
        return self.start.startswith("SIP/2.0")

    @property
    def code(self) -> int:
        return int(self.start.split()[1]) if self.is_response else 0

    @property
    def call_id(self) -> str:
        return self.header("Call-ID")

    @property
    def body(self) -> str:
        return self.text.partition("\r\n\r\n")[2]

    def header(self, name: str) -> str:
        for line in self.text.partition("\r\n\r\n")[0].split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.strip().lower() == name.lower():
                return value.strip()
        return ""

    def rtp_port(self) -> int:
        line = next(one for one in self.body.splitlines() if one.startswith("m=audio"))
        return int(line.split()[1])


NAMES = {"0": "PCMU/8000", "8": "PCMA/8000", "9": "G722/8000", "96": "opus/48000/2", "101": "telephone-event/8000"}


def sdp(port: int, codecs: str = "0", direction: str = "sendrecv", version: int = 1) -> str:
    """A session of one audio line; `codecs` are payload types, in order, of `NAMES`."""
    lines = [f"a=rtpmap:{one} {NAMES[one]}\r\n" for one in codecs.split()]
    return (
        f"v=0\r\no=- 1 {version} IN IP4 {HOST}\r\ns=-\r\nc=IN IP4 {HOST}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {codecs}\r\n{''.join(lines)}a={direction}\r\n"
    )


def event_type(message: Message) -> int:
    """Payload type of telephone events in a message's session; 0: none."""
    for line in message.body.splitlines():
        if line.startswith("a=rtpmap:") and "telephone-event" in line:
            return int(line[len("a=rtpmap:") :].split()[0])
    return 0


def offered(message: Message) -> list[str]:
    """Encoding names of the audio line of a message, in order."""
    types = next(one for one in message.body.splitlines() if one.startswith("m=audio")).split()[3:]
    maps = dict(
        line[len("a=rtpmap:") :].split(" ", 1) for line in message.body.splitlines() if line.startswith("a=rtpmap:")
    )
    return [(maps.get(one) or NAMES[one]).split("/")[0] for one in types]


class Party(asyncio.DatagramProtocol):
    """A UDP socket that keeps what it sees and lets a test answer."""

    def __init__(self) -> None:
        self.seen: list[Message] = []
        self.react: Callable[[Message], None] = lambda _message: None
        self.port = 0
        self.via = "UDP"
        self.params = ""  # of our Contact
        self._transport: asyncio.DatagramTransport | None = None
        self._news = asyncio.Event()

    async def open(self, port: int = 0, host: str = HOST) -> Party:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = Message(data.decode(errors="replace"), time.monotonic(), addr)
        self.seen.append(message)
        self.react(message)
        self._news.set()

    def send(self, text: str, to: tuple[str, int]) -> None:
        assert self._transport is not None
        self._transport.sendto(text.encode(), to)

    async def wait(self, found: Callable[[Message], bool], within_s: float = 10.0) -> Message:
        """The first message that fits, seen already or still to come. Raises AssertionError after `within_s`."""
        deadline = time.monotonic() + within_s
        while True:
            for message in self.seen:
                if found(message):
                    return message
            left = deadline - time.monotonic()
            assert left > 0, f"not seen in {within_s} s; seen: {[one.start for one in self.seen]}"
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                continue

    def reply(  # noqa: PLR0917 - a message has these parts
        self, request: Message, code: int, reason: str = "X", body: str = "", tag: str = "t1", contact: str = "",
        headers: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        to = request.header("To")
        if code > 100 and ";tag=" not in to:
            to += f";tag={tag}"
        lines = [f"SIP/2.0 {code} {reason}"]
        lines += [line for line in request.text.split("\r\n") if line.lower().startswith("via:")]
        lines += [f"From: {request.header('From')}", f"To: {to}", f"Call-ID: {request.call_id}"]
        lines += [
            f"CSeq: {request.header('CSeq')}",
            f"Contact: {contact or f'<sip:x@{HOST}:{self.port}{self.params}>'}",
            *headers,
        ]
        if body:
            lines.append("Content-Type: application/sdp")
        lines += [f"Content-Length: {len(body.encode())}", "", body]
        self.send("\r\n".join(lines), request.source)


class Callee(Party):
    """An endpoint. `script` is a list of (ms after the INVITE, code); CANCEL is answered with 200 and 487 unless
    `deaf`; `late` answers the INVITE with 200 when it is cancelled; BYE is answered.
    """

    def __init__(self, script: list[tuple[float, int]], *, late: bool = False, deaf: bool = False) -> None:
        super().__init__()
        self.script = script
        self.late = late
        self.deaf = deaf
        self.rtp_port = 0
        self.codecs = "0"
        self.tag = "t1"
        self.cseq = 6
        self.invites: dict[str, Message] = {}
        self._timers: dict[str, list[asyncio.TimerHandle]] = {}
        self.react = self._react

    def _react(self, message: Message) -> None:
        if message.is_response:
            return
        if message.method == "INVITE" and message.call_id not in self.invites:
            self.invites[message.call_id] = message
            loop = asyncio.get_running_loop()
            self._timers[message.call_id] = [
                loop.call_later(at_ms / 1000, self.answer, message, code) for at_ms, code in self.script
            ]
        elif message.method == "CANCEL" and not self.deaf:
            for timer in self._timers.pop(message.call_id, []):
                timer.cancel()
            self.reply(message, 200)
            self.answer(self.invites[message.call_id], 200 if self.late else 487)
        elif message.method == "INVITE" and "tag=" in message.header("To"):
            self.answer(message, 200)
        elif message.method in ("BYE", "INFO"):
            self.reply(message, 200)

    def answer(self, invite: Message, code: int) -> None:
        body = sdp(self.rtp_port or 40_000, self.codecs) if 200 <= code < 300 else ""
        events = event_type(invite)  # an answer uses the offer's payload types (RFC 3264 section 6.1)
        if "telephone-event" in body and events:
            body = body.replace(f" {EVENT}\r\n", f" {events}\r\n").replace(f":{EVENT} ", f":{events} ")
        self.reply(invite, code, body=body, tag=self.tag)

    def hang_up(self, invite: Message) -> None:
        """BYE within the dialog of an INVITE that was answered."""
        self.request(invite, "BYE")

    def request(
        self, invite: Message, method: str, body: str = "", headers: tuple[str, ...] = (), kind: str = "application/sdp"
    ) -> str:
        """A request within the dialog of an INVITE that was answered; its branch."""
        self.cseq += 1
        branch = f"z9hG4bK-{method.lower()}{next(_serial)}"
        lines = [
            f"{method} {invite.header('Contact').strip('<>')} SIP/2.0",
            f"Via: SIP/2.0/{self.via} {HOST}:{self.port};branch={branch}",
            f"From: {invite.header('To')};tag={self.tag}",
            f"To: {invite.header('From')}",
            f"Call-ID: {invite.call_id}",
            f"CSeq: {self.cseq} {method}",
            f"Contact: <sip:x@{HOST}:{self.port}{self.params}>",
            "Max-Forwards: 70",
            *headers,
            *([f"Content-Type: {kind}"] if body else []),
            f"Content-Length: {len(body.encode())}",
        ]
        self.send("\r\n".join([*lines, "", body]), invite.source)
        return branch

    def acknowledge(self, invite: Message, answer: Message) -> None:
        """ACK of a 2xx to a re-INVITE of ours."""
        lines = [
            f"ACK {invite.header('Contact').strip('<>')} SIP/2.0",
            f"Via: SIP/2.0/{self.via} {HOST}:{self.port};branch=z9hG4bK-ack{next(_serial)}",
            f"From: {answer.header('From')}",
            f"To: {answer.header('To')}",
            f"Call-ID: {invite.call_id}",
            f"CSeq: {answer.header('CSeq').split()[0]} ACK",
            "Max-Forwards: 70",
            "Content-Length: 0",
        ]
        self.send("\r\n".join([*lines, "", ""]), invite.source)


@dataclass
class Call:
    """One call of a `Caller`'s: what is needed to go on within it."""

    call_id: str
    branch: str
    user: str
    number: str
    final: Message | None = None
    cseq: int = 1
    late: str = ""  # the description that an ACK is to carry, where the INVITE had none
    to: str = ""  # of the dialog, once there is one
    tag: str = "f1"  # of From
    seen: list[Message] = field(default_factory=list)


class Caller(Party):
    """A dialer."""

    def __init__(self, router_port: int) -> None:
        super().__init__()
        self.router = (HOST, router_port)
        self.host = HOST
        self.calls: dict[str, Call] = {}
        self.react = self._react

    def _react(self, message: Message) -> None:
        call = self.calls.get(message.call_id)
        if call is None:
            return
        call.seen.append(message)
        if message.is_response and message.method == "INVITE" and message.code >= 200:
            call.final = message
            branch = message.header("Via").partition("branch=")[2].partition(";")[0]
            cseq = int(message.header("CSeq").split()[0])
            late = call.late if message.code < 300 and message.body else ""
            kind = ("Content-Type: application/sdp",) if late else ()
            branch = branch if message.code >= 300 else f"{branch}a"
            self._send(call, "ACK", branch, message.header("To"), kind, late, cseq=cseq)
            if message.code < 300:
                call.to = message.header("To")
        elif not message.is_response and message.method in ("BYE", "INFO", "NOTIFY", "INVITE"):
            self.reply(message, 200, body=sdp(40_002) if message.method == "INVITE" else "")

    def invite(
        self, user: str, *, number: str = "+12125550123", headers: tuple[str, ...] = (), rtp_port: int = 40_002,
        body: str = "", content_type: str = "application/sdp", codecs: str = "0", call_id: str = "", tag: str = "f1",
    ) -> Call:  # fmt: skip
        serial = next(_serial)
        call = Call(call_id or f"c{serial}-{time.monotonic_ns()}@test", f"z9hG4bK-t{serial}", user, number, tag=tag)
        self.calls[call.call_id] = call
        payload = body or sdp(rtp_port, codecs)
        extra = (f"Contact: <sip:d@{self.host}:{self.port}{self.params}>", f"Content-Type: {content_type}", *headers)
        self._send(call, "INVITE", call.branch, f"<sip:{user}@{HOST}>", extra, payload)
        return call

    def late_invite(self, user: str, answer: str) -> Call:
        """An INVITE without a description; the ACK answers what the 200 offers."""
        serial = next(_serial)
        call = Call(f"l{serial}-{time.monotonic_ns()}@test", f"z9hG4bK-l{serial}", user, "+12125550124", late=answer)
        self.calls[call.call_id] = call
        extra = (f"Contact: <sip:d@{self.host}:{self.port}>",)
        self._send(call, "INVITE", call.branch, f"<sip:{user}@{HOST}>", extra)
        return call

    def cancel(self, call: Call) -> None:
        self._send(call, "CANCEL", call.branch, f"<sip:{call.user}@{HOST}>")

    def again(self, call: Call, headers: tuple[str, ...], rtp_port: int = 40_002) -> None:
        """The INVITE once more, with credentials: same Call-ID, next CSeq (RFC 3261 section 22.2)."""
        call.cseq += 1
        call.final = None
        extra = (f"Contact: <sip:d@{self.host}:{self.port}{self.params}>", "Content-Type: application/sdp", *headers)
        branch = f"{call.branch}-{call.cseq}"
        self._send(call, "INVITE", branch, f"<sip:{call.user}@{HOST}>", extra, sdp(rtp_port), cseq=call.cseq)

    def bye(self, call: Call) -> None:
        assert call.final is not None
        self.request(call, "BYE")

    def request(
        self, call: Call, method: str, body: str = "", headers: tuple[str, ...] = (), kind: str = "application/sdp"
    ) -> str:
        """A request within the dialog; its branch."""
        call.cseq += 1
        said = (f"Content-Type: {kind}",) if body else ()
        extra = (f"Contact: <sip:d@{self.host}:{self.port}{self.params}>", *said, *headers)
        branch = f"{call.branch}-{call.cseq}"
        self._send(call, method, branch, call.to, extra, body, cseq=call.cseq)
        return branch

    def ask(self, user: str) -> Call:
        """OPTIONS outside dialogs."""
        serial = next(_serial)
        call = Call(f"o{serial}-{time.monotonic_ns()}@test", f"z9hG4bK-o{serial}", user, "+12125550123")
        self.calls[call.call_id] = call
        to = f"<sip:{user}@{HOST}>" if user else f"<sip:{HOST}>"
        self._send(call, "OPTIONS", call.branch, to)
        return call

    def _send(  # noqa: PLR0917 - a message has these parts
        self, call: Call, method: str, branch: str, to: str, extra: tuple[str, ...] = (), body: str = "", cseq: int = 1
    ) -> None:
        lines = [
            f"{method} sip:{call.user + '@' if call.user else ''}{HOST}:{self.router[1]} SIP/2.0",
            f"Via: SIP/2.0/{self.via} {self.host}:{self.port};branch={branch}",
            f"From: <sip:{call.number}@{self.host}>;tag={call.tag}",
            f"To: {to}",
            f"Call-ID: {call.call_id}",
            f"CSeq: {cseq} {method}",
            "Max-Forwards: 70",
            *extra,
            f"Content-Length: {len(body.encode())}",
        ]
        self.send("\r\n".join([*lines, "", body]), self.router)

    async def final(self, call: Call, within_s: float = 15.0) -> Message:
        """The final answer to a call."""
        return await self.wait(
            lambda m: m.call_id == call.call_id and m.is_response and m.method == "INVITE" and m.code >= 200, within_s
        )


# --- tones -----------------------------------------------------------------------------------------------------------

RATE = 8000
EVENT = 101  # payload type of telephone events, in `NAMES`


def ulaw(sample: int) -> int:
    """16 bit linear to G.711 mu-law (ITU-T G.711, table 2a)."""
    bias, clip = 0x84, 32_635
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), clip) + bias
    exponent = magnitude.bit_length() - 8
    return ~(sign | (exponent << 4) | ((magnitude >> (exponent + 3)) & 0x0F)) & 0xFF


def linear(byte: int) -> int:
    """G.711 mu-law to 16 bit linear."""
    byte = ~byte & 0xFF
    magnitude = (((byte & 0x0F) << 3) + 0x84) << ((byte >> 4) & 0x07)
    return -(magnitude - 0x84) if byte & 0x80 else magnitude - 0x84


class Tone(asyncio.DatagramProtocol):
    """An RTP party (RFC 3550): plays a sine as PCMU to where it is told and keeps the samples it hears."""

    def __init__(self, hertz: float) -> None:
        self._wave = [ulaw(round(12_000 * math.sin(2 * math.pi * hertz * n / RATE))) for n in range(RATE)]
        self.heard: list[int] = []
        self.digits: list[int] = []  # RFC 4733 events that were heard, one for each key
        self.types: set[int] = set()  # payload types
        self.event = EVENT  # payload type of telephone events
        self._event_at = -1
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> Tone:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(HOST, 0))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        kind, stamp = data[1] & 0x7F, struct.unpack_from("!I", data, 4)[0]
        self.types.add(kind)
        if kind == self.event:
            if stamp != self._event_at:
                self._event_at = stamp
                self.digits.append(data[12])
        elif kind == 0:
            self.heard += [linear(byte) for byte in data[12:]]

    def press(self, digit: int, to_port: int) -> None:
        """A key as RFC 4733 events: three while it is down, three to end it."""
        assert self._transport is not None
        for n in range(6):
            head = struct.pack("!BBHII", 0x80, self.event | (0x80 if n == 0 else 0), 30_000 + n, 960_000, 0x1234)
            event = struct.pack("!BBH", digit, 0x80 | 10 if n > 2 else 10, 160 * (min(n, 3) + 1))
            self._transport.sendto(head + event, (HOST, to_port))

    async def play(self, to_port: int, seconds: float) -> None:
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        start = loop.time()
        for n in range(round(seconds * 50)):
            samples = bytes(self._wave[(n * 160 + i) % RATE] for i in range(160))
            self._transport.sendto(struct.pack("!BBHII", 0x80, 0, n, n * 160, 0x1234) + samples, (HOST, to_port))
            await asyncio.sleep(max(0.0, start + (n + 1) * 0.02 - loop.time()))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def loudest_hertz(samples: list[int]) -> float:
    """Frequency of the strongest line in the spectrum."""
    import numpy as np

    window = np.asarray(samples[-RATE:], dtype=float)
    spectrum = np.abs(np.fft.rfft(window * np.hanning(len(window))))
    return float(np.argmax(spectrum) * RATE / len(window))
