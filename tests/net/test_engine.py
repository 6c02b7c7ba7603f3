"""The SIP engine in this process: what it refuses, polling, faults, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from baton.demo.parties import free_port
from book.model import Transport
from router.clock import LoopClock, new_loop
from router.sip.engine import PjsuaEngine
from router.sip.pjlib import EngineConfig, EngineUnusableError, Listener
from router.sip.port import EventKind, Invite, LegEvent, Target
from tests.net.peer import HOST, Callee, Caller, Party

pytestmark = pytest.mark.net
DEAD = f"1m80bbq49yvkr3gc1k75-3.{'abcdefghijklmnop' * 2}"  # Call-ID of a leg of a router that died


class Ear:
    """An EngineListener that keeps everything."""

    def __init__(self) -> None:
        self.invites: list[Invite] = []
        self.events: list[LegEvent] = []

    def on_invite(self, invite: Invite) -> None:
        self.invites.append(invite)

    def on_events(self, events: Sequence[LegEvent]) -> None:
        self.events += events

    def of(self, handle: str) -> list[EventKind]:
        return [event.kind for event in self.events if event.handle == handle]


def config(**changes: Any) -> EngineConfig:
    fields: dict[str, Any] = {
        "listeners": (Listener(Transport.UDP, HOST, free_port()),),
        "max_calls": 60,
        "rtp_port_min": 42_000,
        "rtp_port_max": 42_999,
        "rtp_address": HOST,
        **changes,
    }
    return EngineConfig(**fields)


def run(story: Callable[[LoopClock], Coroutine[Any, Any, None]]) -> None:
    """Run on a loop of its own that measures its lag, as the router process does."""
    loop, clock = new_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(asyncio.wait_for(story(clock), 60))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


def refusal(**changes: Any) -> str:
    said = ""

    async def story(clock: LoopClock) -> None:
        nonlocal said
        engine = PjsuaEngine(config(**changes), clock, Ear())
        with pytest.raises(EngineUnusableError) as caught:
            engine.start()
        said = str(caught.value)

    run(story)
    return said


def test_the_probe_refuses_more_calls_than_the_build_carries() -> None:
    said = refusal(max_calls=9000, rtp_port_min=10_000, rtp_port_max=60_000)
    assert "router.max_calls = 9000" in said
    assert "carries 8000 calls" in said


def test_too_few_rtp_ports_are_refused_by_name() -> None:
    assert "router.rtp_port_min..rtp_port_max" in refusal(rtp_port_min=42_000, rtp_port_max=42_010)


def test_a_port_in_use_is_refused_by_its_address() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HOST, 0))
        port = taken.getsockname()[1]
        said = refusal(listeners=(Listener(Transport.UDP, HOST, port),))
    assert f"cannot listen on udp:{HOST}:{port}" in said


@pytest.mark.parametrize("by_descriptor", [True, False])
def test_forty_calls_come_and_go_and_leave_nothing(by_descriptor: bool) -> None:
    async def story(clock: LoopClock) -> None:
        ear = Ear()
        engine = PjsuaEngine(config(), clock, ear, use_descriptor=by_descriptor)
        engine.start()
        assert engine.by_descriptor is by_descriptor
        callee = Callee([(1, 180), (20, 200)])
        refuser = Callee([(1, 486)])
        await callee.open()
        await refuser.open()
        good = [f"good-{n}" for n in range(20)]
        bad = [f"bad-{n}" for n in range(20)]
        for one, other in zip(good, bad, strict=True):
            engine.dial(one, Target(f"sip:a@{HOST}:{callee.port}"))
            engine.dial(other, Target(f"sip:b@{HOST}:{refuser.port}"))
        await until(lambda: all(EventKind.ANSWERED in ear.of(h) for h in good))
        await until(lambda: all(EventKind.FAILED in ear.of(h) for h in bad))
        assert [ear.of(h) for h in bad] == [[EventKind.SENT, EventKind.FAILED]] * 20
        for handle in good:
            engine.hang_up(handle)
        await until(lambda: engine.slots.used == 0)
        assert engine.pj_objects == 0
        gc.collect()
        left = [thing for thing in gc.get_objects() if type(thing).__name__ == "BatonCall"]
        assert left == []
        callee.close()
        refuser.close()
        await engine.close()

    run(story)


def test_a_fault_in_a_callback_becomes_an_event_of_that_leg() -> None:
    async def story(clock: LoopClock) -> None:
        ear = Ear()
        engine = PjsuaEngine(config(), clock, ear)
        engine.start()
        callee = Callee([(1, 486)])
        await callee.open()

        def broken(_handle: str, _slot: int) -> None:
            raise ValueError("a fault on purpose")

        engine.on_over = broken  # type: ignore[method-assign]
        engine.dial("leg", Target(f"sip:a@{HOST}:{callee.port}"))
        await until(lambda: EventKind.FAULT in ear.of("leg"))
        del engine.on_over  # type: ignore[attr-defined]
        # The ending that the callback lost is found by the sweep.
        await until(lambda: EventKind.FAILED in ear.of("leg"))
        assert engine.pj_objects == 0
        callee.close()
        await engine.close()

    run(story)


def test_an_address_that_is_none_is_not_sent() -> None:
    async def story(clock: LoopClock) -> None:
        ear = Ear()
        engine = PjsuaEngine(config(), clock, ear)
        engine.start()
        engine.dial("leg", Target("not a uri"))
        await until(lambda: ear.of("leg") == [EventKind.NOT_SENT])
        assert engine.slots.used == 0
        await engine.close()

    run(story)


def test_two_answers_in_one_moment_come_in_one_batch() -> None:
    async def story(clock: LoopClock) -> None:
        batches: list[list[LegEvent]] = []

        class Batches(Ear):
            def on_events(self, events: Sequence[LegEvent]) -> None:
                batches.append(list(events))

        engine = PjsuaEngine(config(), clock, Batches())
        engine.start()
        callee = Callee([])
        await callee.open()
        for handle in ("one", "two"):
            engine.dial(handle, Target(f"sip:a@{HOST}:{callee.port}"))
        await until(lambda: len(callee.invites) == 2)
        for invite in callee.invites.values():  # both are in the socket before the loop turns
            callee.answer(invite, 200)
        await until(lambda: any(e.kind is EventKind.ANSWERED for batch in batches for e in batch))
        answered = [[e.handle for e in batch if e.kind is EventKind.ANSWERED] for batch in batches]
        assert ["one", "two"] in answered
        callee.close()
        await engine.close()

    run(story)


def test_an_invite_is_read_with_its_headers_and_rejected_with_ours() -> None:
    async def story(clock: LoopClock) -> None:
        ear = Ear()
        settings = config()
        engine = PjsuaEngine(settings, clock, ear)
        engine.start()
        caller = Caller(settings.listeners[0].port)
        await caller.open()
        call = caller.invite("leads", headers=("X-Lead-State: NY", "X-Lead-State: NJ"))
        await until(lambda: bool(ear.invites))
        invite = ear.invites[0]
        assert (invite.user, invite.caller, invite.source) == ("leads", "+12125550123", HOST)
        assert invite.sip_call_id == call.call_id
        assert invite.headers["x-lead-state"] == ["NY", "NJ"]
        engine.reject(invite.handle, 486, (("X-Baton-Transfer", "t\r\nEvil: 1"),))
        final = await caller.final(call)
        assert final.code == 486
        assert final.header("X-Baton-Transfer") == "t  Evil: 1"
        await until(lambda: engine.slots.used == 0)
        caller.close()
        await engine.close()

    run(story)


def test_a_2xx_of_nobodys_call_is_acked_then_byed_along_its_record_route() -> None:
    """A callee that answers an INVITE of a dead router must not be left on the line (RFC 3261 section 13.2.2.4)."""

    async def story(clock: LoopClock) -> None:
        settings = config()
        engine = PjsuaEngine(settings, clock, Ear())
        engine.start()
        proxy, agent = Party(), Party()
        await proxy.open()
        await agent.open()
        router = f"{HOST}:{settings.listeners[0].port}"
        answer = [
            "SIP/2.0 200 OK",
            f"Via: SIP/2.0/UDP {router};branch=z9hG4bK-dead",
            f"Record-Route: <sip:{HOST}:{proxy.port};lr>",
            f"From: <sip:baton@{router}>;tag=dead",
            f"To: <sip:agent@{HOST}>;tag=alive",
            f"Call-ID: {DEAD}",
            "CSeq: 4711 INVITE",
            f"Contact: <sip:agent@{HOST}:{agent.port}>",
            "Content-Length: 0",
        ]
        agent.send("\r\n".join([*answer, "", ""]), (HOST, settings.listeners[0].port))
        bye = await proxy.wait(lambda m: m.method == "BYE")
        ack = await proxy.wait(lambda m: m.method == "ACK")
        assert [m.method for m in proxy.seen[:2]] == ["ACK", "BYE"]
        assert (ack.header("CSeq"), bye.header("CSeq")) == ("4711 ACK", "4712 BYE")
        assert bye.start == f"BYE sip:agent@{HOST}:{agent.port} SIP/2.0"
        assert bye.header("To").endswith(";tag=alive")
        assert bye.header("From").endswith(";tag=dead")
        assert bye.call_id == DEAD
        proxy.reply(bye, 200)
        await until(lambda: engine.slots.used == 0)
        proxy.close()
        agent.close()
        await engine.close()

    run(story)


class NameServer(asyncio.DatagramProtocol):
    """A DNS server (RFC 1035) that answers A with loopback, slowly, and knows nothing else."""

    def __init__(self, after_s: float) -> None:
        self.asked = 0
        self._after_s = after_s
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, 53))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        asyncio.get_running_loop().call_later(self._after_s, self._answer, data, addr)

    def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        question = data[12 : data.index(b"\0", 12) + 5]
        is_a = question[-4:-2] == b"\0\1"
        flags = b"\x81\x80" if is_a else b"\x81\x83"  # NXDOMAIN
        head = data[:2] + flags + b"\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([127, 0, 0, 1]) if is_a else b""
        assert self._transport is not None
        self._transport.sendto(head + question + record, addr)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="port 53 is root's")
def test_a_slow_name_server_holds_up_its_own_leg_only() -> None:
    async def story(clock: LoopClock) -> None:
        server = NameServer(after_s=0.5)
        await server.open("127.0.0.53")
        ear = Ear()
        engine = PjsuaEngine(config(nameservers=("127.0.0.53",)), clock, ear)
        engine.start()
        callee = Callee([(1, 486)])
        await callee.open()
        engine.dial("by-name", Target(f"sip:a@trunk.test:{callee.port}"))
        engine.dial("by-address", Target(f"sip:a@{HOST}:{callee.port}"))
        await until(lambda: EventKind.FAILED in ear.of("by-address"))
        assert ear.of("by-name") == []
        await until(lambda: EventKind.FAILED in ear.of("by-name"))
        assert server.asked
        server.close()
        callee.close()
        await engine.close()

    run(story)
