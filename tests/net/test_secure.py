"""Secure trunks: TLS with a verified certificate, SRTP offered and demanded; a wrong certificate gets no INVITE."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from baton.demo.certificates import Certificates, make
from facts.fact import Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import HOST, Message

pytestmark = pytest.mark.net


class TlsTrunk:
    """A TLS server, or a TCP one without certificates, that reads INVITEs and refuses each with 486."""

    def __init__(self, certificates: Certificates | None, *, client_ca: Path | None = None) -> None:
        self.context: ssl.SSLContext | None = None
        if certificates is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificates.server, certificates.server_key)
            if client_ca is not None:
                self.context.verify_mode = ssl.CERT_REQUIRED
                self.context.load_verify_locations(client_ca)
        self.invites: list[Message] = []
        self.versions: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secured = writer.get_extra_info("ssl_object")
        self.versions.append(secured.version() if secured is not None else "")
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                message = Message(head.lstrip(), 0.0)
                body = (await reader.readexactly(int(message.header("Content-Length") or 0))).decode()
                if message.method == "INVITE":
                    self.invites.append(Message(head + body, 0.0))
                    writer.write(self._refusal(message))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @staticmethod
    def _refusal(invite: Message) -> bytes:
        lines = ["SIP/2.0 486 Busy Here", f"Via: {invite.header('Via')}", f"From: {invite.header('From')}"]
        lines += [f"To: {invite.header('To')};tag=x", f"Call-ID: {invite.call_id}", f"CSeq: {invite.header('CSeq')}"]
        return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


@pytest.fixture
def opened() -> Iterator[list[TlsTrunk]]:
    trunks: list[TlsTrunk] = []
    yield trunks
    for trunk in trunks:
        trunk.close()


async def secure_station(station: Station, opened: list[TlsTrunk], trusted: Certificates) -> None:
    trunk = opened[0]
    await trunk.open()
    station.section(f'[tls]\nca_file = "{trusted.ca}"')
    endpoint = f'name = "s"\nkind = "trunk"\nuri = "sip:s@{HOST}:{trunk.port}"\ntransport = "tls"\nsrtp = "mandatory"'
    await station.buyer("acme", endpoint=endpoint)
    await station.start()


def folder(path: Path, name: str) -> Path:
    made = path / name
    made.mkdir()
    return made


async def test_a_secure_trunk_gets_tls_1_2_or_newer_srtp_and_the_buffer(
    station: Station, opened: list[TlsTrunk], tmp_path: Path
) -> None:
    certificates = make(folder(tmp_path, "ca"))
    trunk = TlsTrunk(certificates)
    opened.append(trunk)
    await secure_station(station, opened, certificates)
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 486
    facts = await station.closed(call.call_id)
    assert facts[0].payload["buffer_ms"] == 15_000
    assert facts[0].payload["endpoints"][0]["secure"] is True
    assert verdict(facts) == "within_buffer/declined"
    assert "RTP/SAVP " in trunk.invites[0].body
    assert "a=crypto:" in trunk.invites[0].body
    assert set(trunk.versions) <= {"TLSv1.2", "TLSv1.3"}


@pytest.mark.parametrize("fault", ["another authority", "another host"])
async def test_a_wrong_certificate_gets_no_invite(
    station: Station, opened: list[TlsTrunk], tmp_path: Path, fault: str
) -> None:
    trusted = make(folder(tmp_path, "trusted"))
    if fault == "another authority":
        trunk = TlsTrunk(make(folder(tmp_path, "other")))
    else:
        other = make(folder(tmp_path, "other"), host="127.0.0.77")
        trunk, trusted = TlsTrunk(other), other
    opened.append(trunk)
    await secure_station(station, opened, trusted)
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code in (480, 503)
    facts = await station.closed(call.call_id)
    assert verdict(facts) == "within_buffer/no_answer"
    assert not [fact for fact in facts if fact.kind in (Kind.TRYING, Kind.RINGING, Kind.ANSWERED)]
    assert not trunk.invites


@pytest.mark.parametrize("shown", [True, False])
async def test_a_trunk_that_wants_our_certificate_gets_it(
    station: Station, opened: list[TlsTrunk], tmp_path: Path, shown: bool
) -> None:
    """Mutual TLS, with a CA and a certificate of this trunk's own and none for all."""
    theirs, ours = make(folder(tmp_path, "theirs")), make(folder(tmp_path, "ours"))
    trunk = TlsTrunk(theirs, client_ca=ours.ca)
    opened.append(trunk)
    await trunk.open()
    endpoint = f'name = "s"\nkind = "trunk"\nuri = "sip:s@{HOST}:{trunk.port}"\ntransport = "tls"\nsrtp = "mandatory"\n'
    endpoint += f'ca_file = "{theirs.ca}"\n'
    if shown:
        endpoint += f'certificate_file = "{ours.server}"\nkey_file = "{ours.server_key}"\n'
    await station.buyer("acme", endpoint=endpoint)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == (486 if shown else 503)
    assert verdict(await station.closed(call.call_id)) == f"within_buffer/{'declined' if shown else 'no_answer'}"
    assert len(trunk.invites) == (1 if shown else 0)


async def test_a_tcp_trunk(station: Station, opened: list[TlsTrunk]) -> None:
    trunk = TlsTrunk(None)
    opened.append(trunk)
    await trunk.open()
    endpoint = f'name = "t"\nkind = "trunk"\nuri = "sip:t@{HOST}:{trunk.port}"\ntransport = "tcp"'
    await station.buyer("acme", endpoint=endpoint)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 486
    assert verdict(await station.closed(call.call_id)) == "failed/declined"
    assert "SIP/2.0/TCP" in trunk.invites[0].header("Via")
