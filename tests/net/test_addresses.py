"""Whose RTP a call hears, and where we say that ours is: strangers, NAT, and machines with several addresses."""

from __future__ import annotations

import asyncio

import pytest

from baton.demo.parties import free_port
from tests.net.conftest import Station
from tests.net.peer import HOST, Call, Callee, Caller, Message, Tone, loudest_hertz, sdp

pytestmark = pytest.mark.net
CALLER_HZ, BUYER_HZ, STRANGER_HZ = 400, 1000, 2000


async def talking(station: Station, **more: str) -> tuple[Call, Message, Message, Callee, Tone, Tone]:
    """A transfer whose parties are connected: call, the dialer's answer, the buyer's offer, callee, tones."""
    caller_tone, buyer_tone = await station.tone(CALLER_HZ), await station.tone(BUYER_HZ)
    callee = Callee([(20, 180), (60, 200)])
    callee.rtp_port = buyer_tone.port
    await station.buyer("acme", callee, **more)
    await station.start()
    call = station.caller.invite("acme", rtp_port=caller_tone.port)
    answer = await station.caller.final(call)
    assert answer.code == 200
    return call, answer, await callee.wait(lambda m: m.method == "INVITE"), callee, caller_tone, buyer_tone


def energy(samples: list[int]) -> float:
    return sum(map(abs, samples)) / len(samples) if samples else 0.0


@pytest.mark.parametrize("victim", ["caller", "buyer"])
async def test_a_stranger_neither_hears_nor_speaks_however_long_the_party_is_silent(
    station: Station, victim: str
) -> None:
    call, answer, offer, _, caller_tone, buyer_tone = await talking(station)
    stranger = await station.tone(STRANGER_HZ)
    port, other_port = answer.rtp_port(), offer.rtp_port()
    mine, other = caller_tone, buyer_tone
    if victim == "buyer":
        port, other_port, mine, other = other_port, port, buyer_tone, caller_tone
    await stranger.play(port, 1.0)  # before the party itself has said anything
    await mine.play(port, 0.5)
    await asyncio.sleep(0.3)
    other.heard.clear()
    await asyncio.gather(stranger.play(port, 2.0), other.play(other_port, 2.0))
    assert not stranger.heard, "the other party's voice went to a stranger"
    assert energy(other.heard) < 300, "a stranger was heard"
    other.heard.clear()
    mine.heard.clear()
    await asyncio.gather(*(one.play(to, 2.0) for one, to in ((mine, port), (stranger, port), (other, other_port))))
    hertz = {CALLER_HZ: caller_tone, BUYER_HZ: buyer_tone}
    for own, tone in hertz.items():
        wanted = CALLER_HZ if own == BUYER_HZ else BUYER_HZ
        assert loudest_hertz(tone.heard) == pytest.approx(wanted, abs=5)
    station.caller.bye(call)
    await station.closed(call.call_id)
    async with asyncio.timeout(5):
        while "rtp_of_strangers_dropped" not in station.log():
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("who", ["dialer", "trunk"])
async def test_behind_a_nat_the_first_source_is_the_only_one_until_a_re_invite_tells_another(
    station: Station, who: str
) -> None:
    """`nat = true`: the description tells an address from which nothing ever comes."""
    if who == "dialer":
        station.dialer_section = "nat = true"
    real, buyer_tone, stranger = await station.tone(CALLER_HZ), await station.tone(BUYER_HZ), await station.tone(2000)
    nowhere = await station.tone(1)
    callee = Callee([(20, 180), (60, 200)])
    callee.rtp_port = nowhere.port if who == "trunk" else buyer_tone.port
    await station.buyer("acme", callee, each="nat = true" if who == "trunk" else "")
    await station.start()
    call = station.caller.invite("acme", rtp_port=nowhere.port if who == "dialer" else buyer_tone.port)
    answer = await station.caller.final(call)
    offer = await callee.wait(lambda m: m.method == "INVITE")
    to, other = answer.rtp_port(), offer.rtp_port()
    if who == "trunk":
        to, other = other, to
    await real.play(to, 0.3)
    await asyncio.gather(real.play(to, 2), stranger.play(to, 2), buyer_tone.play(other, 2))
    assert not stranger.heard
    assert loudest_hertz(real.heard) == pytest.approx(BUYER_HZ, abs=5)
    assert loudest_hertz(buyer_tone.heard) == pytest.approx(CALLER_HZ, abs=5)
    if who == "dialer":
        station.caller.request(call, "INVITE", sdp(stranger.port, version=2))
        await station.caller.wait(
            lambda m: m.is_response and m.code == 200 and m.header("CSeq") == f"{call.cseq} INVITE"
        )
        await asyncio.sleep(0.2)
        buyer_tone.heard.clear()
        await asyncio.gather(stranger.play(to, 2), buyer_tone.play(other, 2))
        assert loudest_hertz(buyer_tone.heard) == pytest.approx(STRANGER_HZ, abs=5)
        assert loudest_hertz(stranger.heard) == pytest.approx(BUYER_HZ, abs=5)
    station.caller.bye(call)
    await station.closed(call.call_id)


async def test_a_dialer_whose_description_tells_a_private_address_is_heard_from_where_it_signals(
    station: Station,
) -> None:
    """Without `nat`: 192.168.1.2 in the description of a message from 127.0.0.1 can only be behind a NAT."""
    caller_tone, buyer_tone = await station.tone(CALLER_HZ), await station.tone(BUYER_HZ)
    callee = Callee([(20, 180), (60, 200)])
    callee.rtp_port = buyer_tone.port
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme", body=sdp(4000).replace(f"c=IN IP4 {HOST}", "c=IN IP4 192.168.1.2"))
    answer = await station.caller.final(call)
    offer = await callee.wait(lambda m: m.method == "INVITE")
    await caller_tone.play(answer.rtp_port(), 0.3)
    await asyncio.gather(caller_tone.play(answer.rtp_port(), 2), buyer_tone.play(offer.rtp_port(), 2))
    assert loudest_hertz(caller_tone.heard) == pytest.approx(BUYER_HZ, abs=5)
    assert loudest_hertz(buyer_tone.heard) == pytest.approx(CALLER_HZ, abs=5)
    station.caller.bye(call)
    await station.closed(call.call_id)


# --- addresses ---

SECOND = """
[[listeners]]
name = "second"
transport = "udp"
address = "127.0.0.2"
port = {port}
public_address = "127.0.0.2"
[[dialers]]
name = "neighbours"
allow = ["127.0.0.2/32", "127.1.0.0/16"]
"""


def connection(message: Message) -> str:
    return next(line for line in message.body.splitlines() if line.startswith("c="))


@pytest.mark.parametrize("listener", ["127.0.0.1", "127.0.0.2"])
async def test_each_leg_is_told_the_address_by_which_it_reaches_us(station: Station, listener: str) -> None:
    """Two listeners; RTP sockets on every address. What the dialer is told is the listener's that it called."""
    station.rtp_address = "0.0.0.0"
    second = free_port()
    station.section(SECOND.format(port=second))
    caller_tone, buyer_tone = await station.tone(CALLER_HZ), await station.tone(BUYER_HZ)
    callee = Callee([(20, 180), (60, 200)])
    callee.rtp_port = buyer_tone.port
    await station.buyer("acme", callee)
    await station.start()
    caller = Caller(second if listener == "127.0.0.2" else station.port)
    caller.router = (listener, caller.router[1])
    await caller.open()
    call = caller.invite("acme", rtp_port=caller_tone.port)
    answer = await caller.final(call)
    offer = await callee.wait(lambda m: m.method == "INVITE")
    assert connection(answer) == f"c=IN IP4 {listener}"
    assert f"@{listener}:{caller.router[1]}" in answer.header("Contact")
    assert connection(offer) == "c=IN IP4 127.0.0.1", "the route to the buyer"
    assert f"@127.0.0.1:{station.port}" in offer.header("Contact")
    callee.hang_up(offer)
    bye = await caller.wait(lambda m: m.method == "BYE" and not m.is_response)
    assert bye.source == caller.router, "by the listener that was called"
    await station.closed(call.call_id)
    caller.close()


async def test_an_address_that_is_not_this_machines_is_refused_at_start(station: Station) -> None:
    station.rtp_address = "192.0.2.7"
    await station.buyer("acme", Callee([]))
    with pytest.raises(AssertionError, match=r"router.rtp_address.*192\.0\.2\.7"):
        await station.start()
