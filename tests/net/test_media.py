"""What parties hear, over real SIP and RTP: codecs, keys, hold, prompts, recordings, and parties that vanish."""

from __future__ import annotations

import asyncio
import hashlib
import wave
from pathlib import Path

import numpy as np
import pytest

from baton.demo.parties import write_tone
from facts.fact import Fact, Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import Call, Callee, Message, Tone, event_type, loudest_hertz, offered, sdp

pytestmark = pytest.mark.net
CALLER_HZ, BUYER_HZ = 400, 1000


async def connected(
    station: Station, callee: Callee, tone: Tone, *, codecs: str = "0", headers: tuple[str, ...] = ()
) -> tuple[Call, Message, Message]:
    """A transfer whose buyer has answered: the call, the dialer's answer, the buyer's offer."""
    call = station.caller.invite("acme", rtp_port=tone.port, codecs=codecs, headers=headers)
    answer = await station.caller.final(call)
    assert answer.code == 200, answer.text
    return call, answer, await callee.wait(lambda m: m.method == "INVITE")


async def one_buyer(station: Station, *, codecs: str = "0", **more: str) -> tuple[Callee, Tone, Tone]:
    caller_tone, buyer_tone = await station.tone(CALLER_HZ), await station.tone(BUYER_HZ)
    callee = Callee([(20, 180), (100, 200)])
    callee.rtp_port, callee.codecs = buyer_tone.port, codecs
    await station.buyer("acme", callee, **more)
    await station.start()
    return callee, caller_tone, buyer_tone


def only(facts: list[Fact], kind: Kind) -> Fact:
    found = [fact for fact in facts if fact.kind is kind]
    assert len(found) == 1, [fact.kind for fact in facts]
    return found[0]


# --- codecs ---


async def test_the_buyer_is_offered_the_dialers_codecs_in_its_order_and_one_codec_serves_both(station: Station) -> None:
    callee, caller_tone, _ = await one_buyer(station, codecs="0")
    call, answer, offer = await connected(station, callee, caller_tone, codecs="8 0 101")
    assert offered(offer)[:2] == ["PCMA", "PCMU"]
    assert "opus" not in offered(offer)
    assert offered(answer) == ["PCMU", "telephone-event"], "the dialer gets what the buyer chose, though it prefers A"
    station.caller.bye(call)
    facts = await station.closed(call.call_id)
    assert only(facts, Kind.BRIDGED).payload["codecs"] == "pcmu pcmu"


async def test_a_trunk_is_offered_its_own_codecs_alone(station: Station) -> None:
    callee, caller_tone, _ = await one_buyer(station, codecs="8", each='codecs = ["PCMA", "G722"]')
    call, answer, offer = await connected(station, callee, caller_tone, codecs="0")
    assert [one for one in offered(offer) if one != "telephone-event"] == ["PCMA", "G722"]
    assert offered(answer)[0] == "PCMU"
    station.caller.bye(call)
    facts = await station.closed(call.call_id)
    assert only(facts, Kind.BRIDGED).payload["codecs"] == "pcmu pcma"


# --- keys ---


async def test_a_key_goes_on_as_rfc_4733_where_the_far_end_takes_it(station: Station) -> None:
    callee, caller_tone, buyer_tone = await one_buyer(station, codecs="0 101")
    call, answer, offer = await connected(station, callee, caller_tone, codecs="0 101")
    buyer_tone.event = event_type(offer)
    caller_tone.press(5, answer.rtp_port())
    buyer_tone.press(9, offer.rtp_port())
    for tone, digit in ((buyer_tone, 5), (caller_tone, 9)):
        async with asyncio.timeout(5):
            while digit not in tone.digits:
                await asyncio.sleep(0.02)
        assert tone.digits == [digit]
    station.caller.bye(call)
    await station.closed(call.call_id)


async def test_a_key_goes_on_as_info_where_the_far_end_knows_no_events(station: Station) -> None:
    callee, caller_tone, _ = await one_buyer(station, codecs="0")
    call, answer, _ = await connected(station, callee, caller_tone, codecs="0 101")
    caller_tone.press(7, answer.rtp_port())
    info = await callee.wait(lambda m: m.method == "INFO" and not m.is_response)
    assert "Signal= 7" in info.body or "Signal=7" in info.body
    station.caller.bye(call)
    await station.closed(call.call_id)


async def test_press_one_to_accept_after_a_whisper(station: Station, tmp_path: Path) -> None:
    whisper = tmp_path / "whisper.wav"
    write_tone(whisper, hertz=700)
    callee, caller_tone, buyer_tone = await one_buyer(
        station, codecs="0 101", each=f'accept_key = "1"\nwhisper_file = "{whisper}"'
    )
    call = station.caller.invite("acme", rtp_port=caller_tone.port)
    offer = await callee.wait(lambda m: m.method == "INVITE")
    await callee.wait(lambda m: m.method == "ACK")
    buyer_tone.event = event_type(offer)
    await buyer_tone.play(offer.rtp_port(), 1.5)
    assert loudest_hertz(buyer_tone.heard) == pytest.approx(700, abs=5), "the whisper"
    assert call.final is None, "the caller still hears ringing"
    buyer_tone.press(1, offer.rtp_port())
    answer = await station.caller.final(call)
    assert answer.code == 200
    buyer_tone.heard.clear()
    await asyncio.gather(caller_tone.play(answer.rtp_port(), 2), buyer_tone.play(offer.rtp_port(), 2))
    station.caller.bye(call)
    facts = await station.closed(call.call_id)
    assert only(facts, Kind.ACCEPTED).leg == 1
    assert loudest_hertz(buyer_tone.heard) == pytest.approx(CALLER_HZ, abs=5), "no whisper any more"


# --- hold ---


def energy(samples: list[int]) -> float:
    return float(np.abs(np.asarray(samples, dtype=float)).mean()) if samples else 0.0


@pytest.mark.parametrize("who", ["caller", "buyer"])
async def test_hold_and_resume_from_either_side(station: Station, who: str) -> None:
    callee, caller_tone, buyer_tone = await one_buyer(station)
    call, answer, offer = await connected(station, callee, caller_tone)
    ports = answer.rtp_port(), offer.rtp_port()

    async def listen(seconds: float = 1.5) -> tuple[list[int], list[int]]:
        await asyncio.sleep(0.2)
        caller_tone.heard.clear()
        buyer_tone.heard.clear()
        await asyncio.gather(caller_tone.play(ports[0], seconds), buyer_tone.play(ports[1], seconds))
        return caller_tone.heard[:], buyer_tone.heard[:]

    async def change(direction: str, version: int) -> Message:
        if who == "caller":
            station.caller.request(call, "INVITE", sdp(caller_tone.port, direction=direction, version=version))
            return await station.caller.wait(
                lambda m: m.is_response and m.code == 200 and m.header("CSeq") == f"{call.cseq} INVITE"
            )
        callee.request(offer, "INVITE", sdp(buyer_tone.port, direction=direction, version=version))
        changed = await callee.wait(
            lambda m: m.is_response and m.code == 200 and m.header("CSeq") == f"{callee.cseq} INVITE"
        )
        callee.acknowledge(offer, changed)
        return changed

    before = await listen()
    assert loudest_hertz(before[0]) == pytest.approx(BUYER_HZ, abs=5)
    assert loudest_hertz(before[1]) == pytest.approx(CALLER_HZ, abs=5)

    held = await change("sendonly", 2)
    assert "a=recvonly" in held.body
    during = await listen()
    holder, other = (0, 1) if who == "caller" else (1, 0)
    assert energy(during[holder]) < 50, "who holds hears nothing"
    assert loudest_hertz(during[other]) == pytest.approx(CALLER_HZ if who == "caller" else BUYER_HZ, abs=5)

    await change("sendrecv", 3)
    after = await listen()
    assert loudest_hertz(after[0]) == pytest.approx(BUYER_HZ, abs=5)
    assert loudest_hertz(after[1]) == pytest.approx(CALLER_HZ, abs=5)
    station.caller.bye(call)
    await station.closed(call.call_id)


async def test_a_re_invite_crossing_one_of_ours_is_no_end(station: Station) -> None:
    """Both parties re-INVITE in the same moment; each leg is a dialog of its own, so both are answered."""
    callee, caller_tone, buyer_tone = await one_buyer(station)
    call, answer, offer = await connected(station, callee, caller_tone)
    station.caller.request(call, "INVITE", sdp(caller_tone.port, version=2))
    callee.request(offer, "INVITE", sdp(buyer_tone.port, version=2))
    mine = await station.caller.wait(
        lambda m: m.is_response and m.header("CSeq") == f"{call.cseq} INVITE" and m.code > 199
    )
    theirs = await callee.wait(lambda m: m.is_response and m.header("CSeq") == f"{callee.cseq} INVITE" and m.code > 199)
    assert (mine.code, theirs.code) == (200, 200)
    callee.acknowledge(offer, theirs)
    await asyncio.gather(caller_tone.play(answer.rtp_port(), 1.5), buyer_tone.play(offer.rtp_port(), 1.5))
    assert loudest_hertz(caller_tone.heard) == pytest.approx(BUYER_HZ, abs=5)
    station.caller.bye(call)
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"


# --- silence ---


@pytest.mark.parametrize("who", ["caller", "buyer"])
async def test_a_party_whose_rtp_stops_has_vanished(station: Station, who: str) -> None:
    station.router_section = "rtp_timeout_ms = 3000"
    callee, caller_tone, buyer_tone = await one_buyer(station)
    call, answer, offer = await connected(station, callee, caller_tone)
    caller_s, buyer_s = (1.0, 8.0) if who == "caller" else (8.0, 1.0)
    players = asyncio.gather(caller_tone.play(answer.rtp_port(), caller_s), buyer_tone.play(offer.rtp_port(), buyer_s))
    facts = await station.closed(call.call_id)
    ended = only(facts, Kind.ENDED)
    assert ended.payload == {"by": who, "cause": "vanished"}
    answered = only(facts, Kind.ANSWERED)
    assert 700 <= (ended.mono_us - answered.mono_us) / 1000 <= 2_500, "its last packet, not the time-out after it"
    await callee.wait(lambda m: m.method == "BYE")
    await station.caller.wait(lambda m: m.method == "BYE" and not m.is_response)
    players.cancel()


@pytest.mark.parametrize("direction", ["recvonly", "inactive", "sendonly"])
async def test_silence_that_was_negotiated_is_no_silence(station: Station, direction: str) -> None:
    """Both parties mute themselves by re-INVITE once they have been silent for a while; the end is much later."""
    station.router_section = "rtp_timeout_ms = 3000"
    callee, caller_tone, buyer_tone = await one_buyer(station)
    call, answer, offer = await connected(station, callee, caller_tone)
    await asyncio.gather(caller_tone.play(answer.rtp_port(), 1.0), buyer_tone.play(offer.rtp_port(), 1.0))
    await asyncio.sleep(1.3)  # by now they are unheard
    station.caller.request(call, "INVITE", sdp(caller_tone.port, direction=direction, version=2))
    await station.caller.wait(lambda m: m.code == 200 and m.header("CSeq") == f"{call.cseq} INVITE")
    callee.request(offer, "INVITE", sdp(buyer_tone.port, direction=direction, version=2))
    changed = await callee.wait(lambda m: m.code == 200 and m.header("CSeq") == f"{callee.cseq} INVITE")
    callee.acknowledge(offer, changed)
    await asyncio.sleep(5.0)
    station.caller.bye(call)
    assert only(await station.closed(call.call_id), Kind.ENDED).payload == {"by": "caller", "cause": "bye"}


# --- prompts and recordings ---


async def test_early_answer_with_music_until_the_bridge(station: Station, tmp_path: Path) -> None:
    music = tmp_path / "music.wav"
    write_tone(music, hertz=600)
    caller_tone, buyer_tone = await station.tone(CALLER_HZ), await station.tone(BUYER_HZ)
    callee = Callee([(20, 180), (2_500, 200)])
    callee.rtp_port = buyer_tone.port
    await station.buyer("acme", callee, campaign=f'early_answer = true\nmusic_file = "{music}"')
    await station.start()
    call, answer, offer = await connected(station, callee, caller_tone)
    await caller_tone.play(answer.rtp_port(), 1.5)
    assert loudest_hertz(caller_tone.heard) == pytest.approx(600, abs=5)
    await callee.wait(lambda m: m.method == "ACK")
    await asyncio.sleep(0.2)
    caller_tone.heard.clear()
    await asyncio.gather(caller_tone.play(answer.rtp_port(), 1.5), buyer_tone.play(offer.rtp_port(), 1.5))
    assert loudest_hertz(caller_tone.heard) == pytest.approx(BUYER_HZ, abs=5)
    station.caller.bye(call)
    await station.closed(call.call_id)


async def test_a_recording_has_the_dialer_on_the_left_and_the_buyer_on_the_right(station: Station) -> None:
    callee, caller_tone, buyer_tone = await one_buyer(station, campaign="record = true")
    call, answer, offer = await connected(station, callee, caller_tone)
    await asyncio.gather(caller_tone.play(answer.rtp_port(), 3), buyer_tone.play(offer.rtp_port(), 3))
    station.caller.bye(call)
    facts = await station.facts(call.call_id, lambda found: any(one.kind is Kind.RECORDED for one in found))
    said = only(facts, Kind.RECORDED).payload
    path = station.folder / "recordings" / said["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == said["sha256"]
    assert path.stat().st_size == said["bytes"]
    assert not list(path.parent.glob("*.part"))
    with wave.open(str(path)) as found:
        assert (found.getnchannels(), found.getframerate(), found.getsampwidth()) == (2, 8000, 2)
        both = np.frombuffer(found.readframes(found.getnframes()), dtype="<i2").reshape(-1, 2)
    assert 2_500 <= said["audio_ms"] <= 5_000
    assert said["audio_ms"] == len(both) // 8
    middle = both[len(both) // 2 - 8000 : len(both) // 2 + 8000]
    assert loudest_hertz(list(middle[:, 0])) == pytest.approx(CALLER_HZ, abs=5)
    assert loudest_hertz(list(middle[:, 1])) == pytest.approx(BUYER_HZ, abs=5)
    assert facts[0].transfer in said["file"]


async def test_a_recording_that_kill_9_cut_off_is_mended_at_the_next_start(station: Station) -> None:
    callee, caller_tone, buyer_tone = await one_buyer(station, campaign="record = true")
    call, answer, offer = await connected(station, callee, caller_tone)
    await asyncio.gather(caller_tone.play(answer.rtp_port(), 2.5), buyer_tone.play(offer.rtp_port(), 2.5))
    await station.kill()
    assert list((station.folder / "recordings").glob("*/*.wav.part"))
    await station.start()
    facts = await station.facts(call.call_id, lambda found: any(one.kind is Kind.RECORDED for one in found))
    said = only(facts, Kind.RECORDED).payload
    with wave.open(str(station.folder / "recordings" / said["file"])) as found:
        assert found.getnframes() > 8000
        assert found.getnframes() // 8 == said["audio_ms"]
    assert not list((station.folder / "recordings").glob("*/*.wav.part"))
    assert verdict(facts) == "fault/interrupted"


async def test_a_greeting_a_key_and_then_the_buyer_it_leads_to(station: Station, tmp_path: Path) -> None:
    greeting = tmp_path / "greeting.wav"
    write_tone(greeting, hertz=500)
    menu = f'greeting_file = "{greeting}"\n[[campaigns.menu]]\nkey = "3"\nbuyers = ["acme"]'
    caller_tone, buyer_tone = await station.tone(CALLER_HZ), await station.tone(BUYER_HZ)
    callee = Callee([(20, 180), (500, 200)])
    callee.rtp_port = buyer_tone.port
    await station.buyer("acme", callee, campaign=menu)
    await station.start()
    call = station.caller.invite("acme", rtp_port=caller_tone.port, codecs="0 101")
    answer = await station.caller.final(call)
    assert answer.code == 200
    await caller_tone.play(answer.rtp_port(), 1.5)
    assert loudest_hertz(caller_tone.heard) == pytest.approx(500, abs=5), "the greeting"
    assert not callee.invites
    caller_tone.press(3, answer.rtp_port())
    offer = await callee.wait(lambda m: m.method == "INVITE")
    await callee.wait(lambda m: m.method == "ACK")
    await asyncio.sleep(0.2)
    caller_tone.heard.clear()
    await asyncio.gather(caller_tone.play(answer.rtp_port(), 1.5), buyer_tone.play(offer.rtp_port(), 1.5))
    assert loudest_hertz(caller_tone.heard) == pytest.approx(BUYER_HZ, abs=5)
    station.caller.bye(call)
    facts = await station.closed(call.call_id)
    assert facts[0].payload["key"] == "3"
    assert verdict(facts) == "short_call/caller_ended"


async def test_both_parties_hear_the_consent_prompt_as_recording_begins(station: Station, tmp_path: Path) -> None:
    consent = tmp_path / "consent.wav"
    write_tone(consent, hertz=600, seconds=3)
    callee, caller_tone, buyer_tone = await one_buyer(station, campaign=f'record = true\nconsent_file = "{consent}"')
    call, answer, offer = await connected(station, callee, caller_tone)
    await asyncio.sleep(2.0)
    assert loudest_hertz(caller_tone.heard) == pytest.approx(600, abs=5)
    assert loudest_hertz(buyer_tone.heard) == pytest.approx(600, abs=5)
    await asyncio.sleep(1.5)
    caller_tone.heard.clear()
    await asyncio.gather(caller_tone.play(answer.rtp_port(), 1.5), buyer_tone.play(offer.rtp_port(), 1.5))
    assert loudest_hertz(caller_tone.heard) == pytest.approx(BUYER_HZ, abs=5), "the prompt is over, the bridge is not"
    station.caller.bye(call)
    await station.facts(call.call_id, lambda found: any(one.kind is Kind.RECORDED for one in found))
