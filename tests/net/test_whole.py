"""INVITEs as large as a datagram can be, larger ones, and what comes cut: over real UDP and TCP."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from baton.demo.parties import free_port
from tests.net.conftest import Station
from tests.net.peer import HOST, Callee, Message, sdp

pytestmark = pytest.mark.net
LARGEST = 65_507  # bytes of a datagram over IPv4: 65,535 less the headers of IP and UDP
LISTED, FREE, CALLER = "+12125550177", "+12125550178", "+18005550199"
MIXED = "multipart/mixed;boundary=b"


def mixed(phone: str, size: int) -> str:
    """A session, and behind it a lead of so many bytes whose phone comes last."""
    lead = {"first_name": "Ann", **{f"note_{n}": "" for n in range(60)}, "phone": phone}
    left = size - len(json.dumps(lead))
    for n in range(60):
        lead[f"note_{n}"] = "x" * (left // 60 + (left % 60 if n == 0 else 0))
    return (
        f"--b\r\nContent-Type: application/sdp\r\n\r\n{sdp(40_002)}\r\n"
        f"--b\r\nContent-Type: application/json\r\n\r\n{json.dumps(lead)}\r\n--b--\r\n"
    )


def invite(
    body: str, *headers: str, port: int, call_id: str, size: int | None = None, kind: str = MIXED, via: str = "UDP"
) -> str:
    lines = [
        f"INVITE sip:acme@{HOST} SIP/2.0",
        f"Via: SIP/2.0/{via} {HOST}:{port};branch=z9hG4bK-{call_id}",
        f"From: <sip:{CALLER}@{HOST}>;tag=f",
        f"To: <sip:acme@{HOST}>",
        f"Call-ID: {call_id}",
        "CSeq: 1 INVITE",
        f"Contact: <sip:x@{HOST}:{port}>",
        "Max-Forwards: 70",
        *headers,
        f"Content-Type: {kind}",
        f"Content-Length: {len(body) if size is None else size}",
    ]
    return "\r\n".join([*lines, "", body])


def of_size(size: int, phone: str, **more: object) -> str:
    """An INVITE of exactly so many bytes."""
    lead = size // 2
    while (found := len(invite(mixed(phone, lead), **more))) != size:  # type: ignore[arg-type]
        lead += size - found
    return invite(mixed(phone, lead), **more)  # type: ignore[arg-type]


class Wire:
    """A connection of a dialer's over TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.port: int = writer.get_extra_info("sockname")[1]

    async def final(self, text: str, call_id: str) -> Message:
        """Send it, and wait for its final answer."""
        self.writer.write(text.encode())
        async with asyncio.timeout(20):
            await self.writer.drain()
            while True:
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
                message = Message(head, 0.0)
                await self.reader.readexactly(int(message.header("Content-Length") or 0))
                if message.call_id == call_id and message.code >= 200:
                    self._acknowledge(message)
                    return message

    def _acknowledge(self, answer: Message) -> None:
        lines = [f"ACK sip:acme@{HOST} SIP/2.0", f"Via: {answer.header('Via')}", f"From: {answer.header('From')}"]
        lines += [f"To: {answer.header('To')}", f"Call-ID: {answer.call_id}", "CSeq: 1 ACK", "Max-Forwards: 70"]
        self.writer.write("\r\n".join([*lines, "Content-Length: 0", "", ""]).encode())


async def station_with_list(station: Station) -> int:
    """A buyer who declines and has a list; the port of a listener on TCP."""
    port = free_port()
    (station.folder / "dnc.csv").write_text(f"phone\n{LISTED}\n")
    station.section('[[suppression_lists]]\nname = "dnc"\nfile = "dnc.csv"\ncolumn = "phone"')
    station.section(f'[[listeners]]\nname = "stream"\ntransport = "tcp"\naddress = "{HOST}"\nport = {port}\n')
    await station.buyer("acme", Callee([(10, 486)]))
    await station.start()
    return port


async def over_udp(station: Station, text: str, call_id: str) -> Message:
    station.caller.send(text, (HOST, station.port))
    found = await station.caller.wait(lambda m: m.is_response and m.call_id == call_id and m.code >= 200, 20)
    ack = [f"ACK sip:acme@{HOST} SIP/2.0", f"Via: {found.header('Via')}", f"From: {found.header('From')}"]
    ack += [f"To: {found.header('To')}", f"Call-ID: {call_id}", "CSeq: 1 ACK", "Max-Forwards: 70", "Content-Length: 0"]
    station.caller.send("\r\n".join([*ack, "", ""]), (HOST, station.port))
    return found


async def test_what_is_large_is_read_whole_and_what_is_cut_is_refused(station: Station) -> None:
    stream = await station_with_list(station)
    reader, writer = await asyncio.open_connection(HOST, stream)
    wire, port = Wire(reader, writer), station.caller.port
    try:
        for size in (4_001, 16_384, 16_385, 40_000, LARGEST):  # 4,000 and 16,384 are bounds of before
            for phone, code in ((LISTED, 603), (FREE, 486)):
                for how in ("udp", "tcp"):
                    call_id = f"{how}-{size}-{phone}"
                    if how == "udp":
                        answer = await over_udp(station, of_size(size, phone, port=port, call_id=call_id), call_id)
                    else:
                        text = of_size(size, phone, port=wire.port, call_id=call_id, via="TCP")
                        answer = await wire.final(text, call_id)
                    assert answer.code == code, call_id
                    started = (await station.closed(call_id))[0].payload
                    assert (started["phone"], len(started["lead"])) == (phone, 62), call_id
        await _larger_over_tcp(station, wire)
        await _cut_over_udp(station)
        async with asyncio.timeout(20):  # the engine's counters are looked at every second
            while not all(re.search(f"{why}.*messages_refused", station.log()) for why in ("large", "cut")):
                await asyncio.sleep(0.2)
        assert not [number for number in (LISTED, FREE, CALLER) if number in station.log()]
    finally:
        writer.close()


async def _larger_over_tcp(station: Station, wire: Wire) -> None:
    """Answered, and the connection goes on with the next message; the bound itself is taken."""
    whole = of_size(65_536, LISTED, port=wire.port, call_id="tcp-bound", via="TCP")
    assert (await wire.final(whole, "tcp-bound")).code == 603
    for size in (65_537, 70_000, 400_000):
        text = of_size(size, LISTED, port=wire.port, call_id=f"tcp-{size}", via="TCP")
        assert (await wire.final(text, f"tcp-{size}")).code == 513, size
        after = invite(mixed(LISTED, 3_000), port=wire.port, call_id=f"tcp-after-{size}", via="TCP")
        assert (await wire.final(after, f"tcp-after-{size}")).code == 603, "the next message was found"
    reader, writer = await asyncio.open_connection(HOST, wire.writer.get_extra_info("peername")[1])
    endless = Wire(reader, writer)
    headers = [f"X-Lead-F{n}: {'x' * 60}" for n in range(2_000)]
    text = invite(mixed(LISTED, 3_000), *headers, port=endless.port, call_id="tcp-head", via="TCP")
    assert (await endless.final(text, "tcp-head")).code == 513, "headers that do not fit"
    writer.close()
    other = invite(mixed(LISTED, 3_000), port=wire.port, call_id="tcp-last", via="TCP")
    assert (await wire.final(other, "tcp-last")).code == 603, "other connections are as they were"


async def _cut_over_udp(station: Station) -> None:
    """Nobody is rung for what did not come whole, wherever it was cut."""
    port = station.caller.port
    for at in (0.3, 0.5, 0.9, 0.999):
        call_id = f"cut-{at}"
        whole = of_size(30_000, LISTED, port=port, call_id=call_id)
        assert (await over_udp(station, whole[: int(len(whole) * at)], call_id)).code == 400, call_id
    body = mixed(LISTED, 2_000)
    wrong = {
        "more-said": invite(body, port=port, call_id="more-said", size=len(body) + 1),
        "less-said": invite(body, port=port, call_id="less-said", size=len(body) - 20),
        "none-said": invite(body, port=port, call_id="none-said", size=0),
        "two-said": invite(body, "Content-Length: 12", port=port, call_id="two-said"),
        "no-end": invite("", port=port, call_id="no-end", kind="application/sdp").rstrip() + "\r\n",
        "bare-lf": invite(body, "X-A: b\nX-Lead-Phone: +12125550178", port=port, call_id="bare-lf"),
        "packed": invite(body, "Content-Encoding: gzip", port=port, call_id="packed"),
    }
    for call_id, text in wrong.items():
        assert (await over_udp(station, text, call_id)).code == 400, call_id
    assert not [m for callee in station.callees for m in callee.seen if m.method == "INVITE" and "cut" in m.text]
