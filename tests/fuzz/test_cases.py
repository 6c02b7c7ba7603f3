"""What fuzzing has found: each of these killed a router once."""

from __future__ import annotations

import asyncio

import pytest

from baton.demo.parties import free_port
from meter.facts import Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import HOST, Callee, Message, sdp

pytestmark = pytest.mark.net


def unusual(port: int, number: int) -> str:
    """A session that we cannot agree on, and a long one."""
    more = "".join(f"a=x-{number}-{one}:{'y' * 200}\r\n" for one in range(20))
    return sdp(port).replace("RTP/AVP 0", "RTP/AVP 97").replace("rtpmap:0 PCMU", "rtpmap:97 nonsense") + more


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
