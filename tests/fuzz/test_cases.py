"""What fuzzing has found: each of these killed a router once."""

from __future__ import annotations

import asyncio

import pytest

from baton.demo.parties import free_port
from facts.fact import Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import HOST, Callee, Message, sdp

pytestmark = pytest.mark.net


def unusual(port: int, number: int) -> str:
    """A session that we cannot agree on, and a long one."""
    more = "".join(f"a=x-{number}-{one}:{'y' * 200}\r\n" for one in range(20))
    return sdp(port).replace("RTP/AVP 0", "RTP/AVP 97").replace("rtpmap:0 PCMU", "rtpmap:97 nonsense") + more


@pytest.mark.slow
@pytest.mark.parametrize("agreed", [True, False], ids=["with sessions we agree on", "with sessions we do not"])
async def test_a_loser_that_goes_on_with_early_media_after_its_cancel(station: Station, agreed: bool) -> None:
    """PJSIP cancels where no session is agreed; our CANCEL is tried again, with headers that must still be there."""
    winner, loser = Callee([(600, 200)]), Callee([], deaf=True)

    def babble(message: Message) -> None:
        if message.is_response:
            return
        if message.method in {"CANCEL", "BYE"}:
            loser.reply(message, 200)
        elif message.method == "INVITE":
            loop = asyncio.get_running_loop()
            for number in range(70):
                body = sdp(40_002) if agreed and number % 2 else unusual(40_002, number)
                loop.call_later(number / 10, lambda number=number, body=body: loser.reply(
                    message, 183, body=body, tag=f"t{number}"))  # fmt: skip
            loop.call_later(7.2, lambda: loser.reply(message, 487))

    loser.react = babble
    await station.buyer("acme", winner, loser)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    await asyncio.sleep(7.5)  # CALL_HANGUP_RETRY_INTERVAL is 5 s
    assert station.process is not None
    assert station.process.returncode is None, station.log()
    station.caller.bye(call)
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"
    assert "without being cancelled" not in station.log()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_an_offer_of_dtls_from_nowhere(station: Station, transport: str) -> None:
    """With SRTP pjsua2 hears of a call before its media is made; where that then fails, the call is gone meanwhile."""
    port = free_port()
    station.section(
        f'[[listeners]]\nname = "more"\ntransport = "{transport}"\naddress = "{HOST}"\nport = {port}\nsrtp = "optional"'
    )
    await station.buyer("acme", Callee([(20, 486)]))
    await station.start()
    for proto in ("UDP/TLS/RTP/SAVPF", "RTP/SAVP", "RTP/SAVPF", "RTP/AVP", "RTP/AVPF"):
        for address in ("IN IP4 nowhere.invalid", "IN IP6 ::1", "IN IP4 127.0.0.1"):
            body = sdp(40_002).replace(f"c=IN IP4 {HOST}", f"c={address}").replace("RTP/AVP", proto)
            final = await station.caller.final(station.caller.invite("acme", body=body))
            assert final.code >= 400, (proto, address)
    assert (await station.caller.final(station.caller.invite("acme"))).code == 486
    facts = await station.closed(station.caller.invite("acme").call_id)
    assert any(fact.kind is Kind.TRANSFER_CLOSED for fact in facts)


HEAD = f"v=0\r\no=- 1 {{version}} IN IP4 {HOST}\r\ns=-\r\n"
CONNECTION = f"c=IN IP4 {HOST}\r\n"
ODD_OFFERS = {
    "no address, audio refused": "t=0 0\r\nm=audio 0 RTP/AVP 0\r\n",
    "no address, two lines refused": "t=0 0\r\nm=audio 0 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n",
    "no address, SRTP refused": "t=0 0\r\nm=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=setup:actpass\r\n",
    "no media": CONNECTION + "t=0 0\r\n",
    "two lines": CONNECTION + "t=0 0\r\nm=audio 40002 RTP/AVP 0\r\nm=audio 40004 RTP/AVP 0\r\n",
    "fewer lines than before": CONNECTION + "t=0 0\r\nm=audio 40002 RTP/AVP 0\r\n",
    "another kind of media": CONNECTION + "t=0 0\r\nm=video 40002 RTP/AVP 31\r\n",
    "many lines": CONNECTION + "t=0 0\r\n" + "m=audio 40002 RTP/AVP 0\r\n" * 16,
    "more lines than fit": CONNECTION + "t=0 0\r\n" + "m=audio 40002 RTP/AVP 0\r\n" * 40,
    "address of nobody": "c=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 40002 RTP/AVP 0\r\n",
    "address of another family": "c=IN IP6 ::1\r\nt=0 0\r\nm=audio 40002 RTP/AVP 0\r\n",
    "keys without end": CONNECTION
    + "t=0 0\r\nm=audio 40002 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:"
    + "A" * 900
    + "\r\n",
    "redundancy": CONNECTION
    + "t=0 0\r\nm=audio 40002 RTP/AVP 0 96\r\na=rtpmap:96 red/8000\r\na=fmtp:96 "
    + "0/" * 100
    + "0\r\n",
    "telephone events of no number": CONNECTION
    + "t=0 0\r\nm=audio 40002 RTP/AVP 0 x\r\na=rtpmap:x telephone-event/8000\r\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("srtp", ["off", "optional"])
async def test_odd_offers_within_a_call_from_both_sides(station: Station, method: str, srtp: str) -> None:
    port = free_port()
    station.section(
        f'[[listeners]]\nname = "more"\ntransport = "udp"\naddress = "{HOST}"\nport = {port}\nsrtp = "{srtp}"'
    )
    callee = Callee([(20, 180), (60, 200)])
    await station.buyer("acme", callee)
    await station.start()
    assert station.process is not None
    told: set[str] = set()
    for number, (name, offer) in enumerate(ODD_OFFERS.items()):
        call = station.caller.invite("acme")
        assert (await station.caller.final(call)).code == 200, name
        invite = await callee.wait(
            lambda m: m.method == "INVITE" and m.call_id not in told and ";tag=" not in m.header("To")
        )
        told.add(invite.call_id)
        await asyncio.sleep(0.1)
        for version in (number, number + 1):
            body = HEAD.format(version=version) + offer
            station.caller.request(call, method, body)
            await asyncio.sleep(0.05)
            callee.request(invite, method, body)
            await asyncio.sleep(0.05)
        station.caller.bye(call)
        assert station.process.returncode is None, f"{name}\n{station.log()}"
    assert (await station.caller.final(station.caller.invite("acme"))).code == 200


@pytest.mark.parametrize("srtp", ["off", "optional"])
async def test_odd_offers_and_answers_of_a_new_call(station: Station, srtp: str) -> None:
    port = free_port()
    station.section(
        f'[[listeners]]\nname = "more"\ntransport = "udp"\naddress = "{HOST}"\nport = {port}\nsrtp = "{srtp}"'
    )
    odd = Callee([])
    bodies = iter([HEAD.format(version=1) + one for one in ODD_OFFERS.values()])

    def answer(message: Message) -> None:
        if message.is_response or message.method == "ACK":
            return
        if message.method != "INVITE":
            odd.reply(message, 200)
            return
        body = next(bodies)
        for code, tag in ((183, "a"), (183, "b"), (200, "a"), (200, "c")):
            odd.reply(message, code, body=body, tag=tag)

    odd.react = answer
    await station.buyer("acme", Callee([(20, 180), (40, 200)]))
    await station.buyer("odd", odd)
    await station.start()
    assert station.process is not None
    for name, offer in ODD_OFFERS.items():
        for user, body in (("acme", HEAD.format(version=1) + offer), ("odd", "")):
            call = station.caller.invite(user, body=body)
            final = await station.caller.final(call)
            await asyncio.sleep(0.05)
            if final.code == 200:
                station.caller.bye(call)
        assert station.process.returncode is None, f"{name}\n{station.log()}"
    assert (await station.caller.final(station.caller.invite("acme"))).code == 200


KINDS = (
    "text/plain",
    "a/" + "b" * 300,
    "a" * 300 + "/b",
    "a/b;" + "c=d;" * 200 + "e=f",
    "text/" + "p" * 4_000,
    "/",
    "x",
)


async def test_bodies_of_kinds_without_end_within_a_call(station: Station) -> None:
    await station.buyer("acme", Callee([(20, 180), (40, 200)]))
    await station.start()
    assert station.process is not None
    for method in ("MESSAGE", "INFO", "NOTIFY", "UPDATE", "PRACK", "REFER", "SUBSCRIBE", "OPTIONS", "FOO"):
        call = station.caller.invite("acme")
        assert (await station.caller.final(call)).code == 200
        for kind in KINDS:
            call.cseq += 1
            lines = (f"Contact: <sip:d@{HOST}:{station.caller.port}>", f"Content-Type: {kind}", "Event: x")
            station.caller._send(call, method, f"{call.branch}-{call.cseq}", call.to, lines, "body", cseq=call.cseq)
            await asyncio.sleep(0.02)
        station.caller.bye(call)
        await station.closed(call.call_id)
        assert station.process.returncode is None, f"{method}\n{station.log()}"


CONTACTS = (
    "<http://h/>",
    "<urn:x>",
    "<x:>",
    "<tel:1>",
    "<mailto:a@h>",
    "*",
    "",
    "<sip:x@127.0.0.1:0>",
    "<sips:x@127.0.0.1>",
)


async def test_answers_of_nobodys_calls_with_contacts_that_are_none(station: Station) -> None:
    """They look like answers to a router that died (20 characters, a hyphen, the leg), and would be ended."""
    await station.buyer("acme", Callee([(20, 486)]))
    await station.start()
    party = Callee([])
    await party.open()
    station.callees.append(party)
    for number, contact in enumerate(CONTACTS):
        for route in ("", "Record-Route: <tel:1>\r\n", "Record-Route: <http://h/>,<sip:127.0.0.1:9;lr>\r\n"):
            lines = [
                "SIP/2.0 200 OK",
                f"Via: SIP/2.0/UDP {HOST}:{station.port};branch=z9hG4bKx{number}",
                "From: <sip:a@b>;tag=1",
                "To: <sip:c@d>;tag=2",
                f"Call-ID: {'abcdefghij' * 2}-{number}",
                "CSeq: 1 INVITE",
                *([f"Contact: {contact}"] if contact else []),
                f"{route}Content-Length: 0",
            ]
            party.send("\r\n".join([*lines, "", ""]), (HOST, station.port))
    await asyncio.sleep(0.5)
    assert (await station.caller.final(station.caller.invite("acme"))).code == 486
