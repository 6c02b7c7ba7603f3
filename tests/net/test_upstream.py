"""What PJSIP mended after the release that is pinned and concerns us: scripts/pjsua2/upstream.patch, decision 085."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from baton.demo.certificates import Certificates
from baton.demo.parties import free_port
from router.clock import LoopClock
from router.sip.engine import PjsuaEngine
from router.sip.port import EventKind, Target
from tests.net.conftest import Station
from tests.net.peer import HOST, Callee, Message, sdp
from tests.net.test_engine import Ear, config, run, until
from tests.net.test_secure import TlsTrunk

pytestmark = pytest.mark.net

# --- the name in a certificate ---


def _self_signed(folder: Path, *names: x509.GeneralName) -> tuple[Path, Path]:
    """A certificate that is its own authority, with these names and none in its subject; and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    shown, kept = folder / "shown.pem", folder / "kept.key"
    shown.write_bytes(certificate.public_bytes(pem))
    kept.touch(mode=0o600)
    kept.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return shown, kept


@pytest.mark.parametrize(("name", "invites"), [(HOST, 1), (f"{HOST}\0.elsewhere.test", 0)])
async def test_a_name_with_a_nul_is_not_the_name_before_it(
    station: Station, tmp_path: Path, name: str, invites: int
) -> None:
    """pjproject 43d3bd77b: whoever has a certificate for names below its own could stand in for any host."""
    shown, kept = _self_signed(tmp_path, x509.DNSName(name))
    trunk = TlsTrunk(Certificates(ca=shown, server=shown, server_key=kept, both=shown))
    await trunk.open()
    station.section(f'[tls]\nca_file = "{shown}"')
    endpoint = f'name = "s"\nkind = "trunk"\nuri = "sip:s@{HOST}:{trunk.port}"\ntransport = "tls"\nsrtp = "mandatory"'
    await station.buyer("acme", endpoint=endpoint)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == (486 if invites else 503)
    await station.closed(call.call_id)
    trunk.close()
    assert len(trunk.invites) == invites


# --- SRTP: more keys than there is room for ---


@pytest.mark.parametrize(("keys", "code"), [(64, 200), (65, 406)])
async def test_an_offer_of_more_keys_than_there_is_room_for_is_refused(station: Station, keys: int, code: int) -> None:
    """pjproject a1b707c0c: the tags of keys beyond 64 were written behind the array."""
    callee = Callee([(20, 180), (60, 200)])
    more = f'name = "more"\ntransport = "udp"\naddress = "{HOST}"\nport = {free_port()}\nsrtp = "optional"'
    station.section(f"[[listeners]]\n{more}")
    await station.buyer("acme", callee)
    await station.start()
    lines = "".join(f"a=crypto:{tag} AES_CM_128_HMAC_SHA1_80 inline:{'A' * 40}\r\n" for tag in range(1, keys + 1))
    body = sdp(40_020).replace("RTP/AVP", "RTP/SAVP") + lines
    call = station.caller.invite("acme", body=body)
    assert (await station.caller.final(call)).code == code
    if code == 200:
        station.caller.bye(call)
        await station.closed(call.call_id)
    plain = station.caller.invite("acme")
    assert (await station.caller.final(plain)).code == 200, "the router lives"


# --- a registrar's routes ---


@pytest.mark.parametrize(("headers", "routes"), [(8, 8), (40, 0)])
async def test_more_service_routes_than_there_is_room_for_are_not_taken(
    station: Station, headers: int, routes: int
) -> None:
    """pjproject acc03b57c: those of many headers (RFC 3608) were written behind the array, which has room for 8."""
    callee = Callee([(20, 180), (60, 200)])

    def react(message: Message) -> None:
        if message.method != "REGISTER":
            callee._react(message)
            return
        contact = f"{message.header('Contact')};expires=300"
        contact += f"\r\nService-Route: <sip:{HOST}:{callee.port};lr>" * headers
        callee.reply(message, 200, contact=contact)

    callee.react = react
    await callee.open()
    each = f'username = "baton"\npassword = "pw-for-a-test"\nregistrar = "sip:{HOST}:{callee.port}"'
    await station.buyer("acme", callee, each=each, opened=True)
    await station.start()
    await callee.wait(lambda m: m.method == "REGISTER")
    await asyncio.sleep(0.3)
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    station.caller.bye(call)
    await station.closed(call.call_id)
    invite = next(one for one in callee.seen if one.method == "INVITE")
    assert invite.text.count("\r\nRoute:") == routes
    callee.react = callee._react


# --- forged answers of a name server ---

NAME_SERVER, STRANGER = "127.0.0.53", "127.0.0.54"


class _Names(asyncio.DatagramProtocol):
    """A name server (RFC 1035): what it is asked, and the socket that it answers by."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, tuple[str, int]]] = []
        self.transport: asyncio.DatagramTransport | None = None

    async def open(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, 53))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append((data, addr))

    def of_type(self, number: int) -> list[tuple[bytes, tuple[str, int]]]:
        return [one for one in self.asked if one[0][-4:-2] == number.to_bytes(2, "big")]

    def answer(
        self, query: bytes, to: tuple[str, int], host: str = "", *, flags: int = 0x8180, name: bytes = b""
    ) -> None:
        """With the address, or that there is none; `name`: to another question."""
        question = name + query[-4:] if name else query[12:]
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes(map(int, host.split("."))) if host else b""
        head = struct.pack("!HHHHH", flags if host else 0x8183, 1, int(bool(host)), 0, 0)
        assert self.transport is not None
        self.transport.sendto(query[:2] + head + question + record, to)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


@contextlib.asynccontextmanager
async def _engine(clock: LoopClock, ear: Ear) -> AsyncIterator[PjsuaEngine]:
    """An engine that asks the name server of these tests; closed whatever happens, since a process has one."""
    engine = PjsuaEngine(config(nameservers=(NAME_SERVER,)), clock, ear)
    engine.start()
    try:
        yield engine
    finally:
        await engine.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="port 53 is root's")
@pytest.mark.parametrize(
    ("forged", "dot"),
    [("from another address", ""), ("to another question", ""), ("no response", ""), ("none", ""), ("none", ".")],
)
def test_a_name_is_believed_of_who_was_asked_and_as_it_was_asked(forged: str, dot: str) -> None:
    """pjproject d9514ce3e, RFC 5452 section 9: a forged answer told where calls go."""

    async def story(clock: LoopClock) -> None:
        server, stranger = _Names(), _Names()
        await server.open(NAME_SERVER)
        await stranger.open(STRANGER)
        ear, there, elsewhere = Ear(), Callee([(1, 486)]), Callee([(1, 480)])
        await there.open()
        await elsewhere.open(there.port, "127.0.0.99")
        async with _engine(clock, ear) as engine:
            engine.dial("leg", Target(f"sip:a@trunk.test{dot}:{there.port}"))
            await until(lambda: bool(server.of_type(1)))
            query, back = server.of_type(1)[0]
            if forged == "from another address":
                stranger.answer(query, back, "127.0.0.99")
            elif forged == "to another question":
                server.answer(query, back, "127.0.0.99", name=b"\5other\4test\0")
            elif forged == "no response":
                server.answer(query, back, "127.0.0.99", flags=0x0100)
            await asyncio.sleep(0.1)
            server.answer(query, back, HOST)
            await until(lambda: EventKind.FAILED in ear.of("leg"))
        for party in (there, elsewhere, server, stranger):
            party.close()
        assert (len(there.invites), len(elsewhere.invites)) == (1, 0)

    run(story)


@pytest.mark.skipif(os.geteuid() != 0, reason="port 53 is root's")
def test_the_ids_of_queries_are_not_counted_up() -> None:
    async def story(clock: LoopClock) -> None:
        server = _Names()
        await server.open(NAME_SERVER)
        async with _engine(clock, Ear()) as engine:
            for number in range(12):
                engine.dial(f"leg{number}", Target(f"sip:a@trunk{number}.test:5060"))
            await until(lambda: len({query[12:] for query, _ in server.of_type(1)}) == 12)
            for query, back in server.asked:
                server.answer(query, back)
        server.close()
        ids = [int.from_bytes(query[:2], "big") for query, _ in server.of_type(1)]
        assert max(ids) - min(ids) > 256, ids

    run(story)
