"""What a stranger, a dialer or an endpoint may send to harm us or to pay less, over real SIP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from baton.demo.parties import write_tone
from facts.fact import Fact, Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import HOST, Call, Callee, Message, Party, Tone, sdp
from tests.net.test_doors import SECRET, _final, authorization

pytestmark = pytest.mark.net


def strange(party: Party, method: str, invite: Message, *, tags: tuple[str, str], body: str = "") -> None:
    """A request with the Call-ID of a dialog and with tags that are not its own."""
    lines = [
        f"{method} {invite.header('Contact').strip('<>')} SIP/2.0",
        f"Via: SIP/2.0/UDP {HOST}:{party.port};branch=z9hG4bK-strange-{method}",
        f"From: <sip:z@y>;tag={tags[0]}",
        f"To: <sip:x@y>{tags[1]}",
        f"Call-ID: {invite.call_id}",
        f"CSeq: 1 {method}",
        "Max-Forwards: 70",
        f"Content-Length: {len(body)}",
    ]
    party.send("\r\n".join([*lines, "", body]), invite.source)


async def talking(station: Station, dialer: str = "") -> tuple[Call, Callee, Message, Tone, Tone]:
    station.dialer_section = dialer
    caller_tone, buyer_tone = await station.tone(400), await station.tone(1000)
    callee = Callee([(20, 180), (100, 200)])
    callee.rtp_port = buyer_tone.port
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme", rtp_port=caller_tone.port)
    await station.caller.final(call)
    offer = await callee.wait(lambda m: m.method == "INVITE")
    await station.facts(call.call_id, lambda facts: any(one.kind is Kind.BRIDGED for one in facts))
    return call, callee, offer, caller_tone, buyer_tone


# --- the router stays up ---


@pytest.mark.parametrize("name", ["PCMU", "opus"])
async def test_an_offer_of_one_codec_32_times(station: Station, name: str) -> None:
    callee = Callee([(20, 180), (100, 486)])
    await station.buyer("acme", callee)
    await station.start()
    types = [str(one) for one in range(96, 128)]
    maps = "".join(f"a=rtpmap:{one} {name}/{'48000/2' if name == 'opus' else '8000'}\r\n" for one in types)
    head = f"v=0\r\no=- 1 1 IN IP4 {HOST}\r\ns=-\r\nc=IN IP4 {HOST}\r\nt=0 0\r\n"
    call = station.caller.invite("acme", body=f"{head}m=audio 40002 RTP/AVP {' '.join(types)}\r\n{maps}a=sendrecv\r\n")
    assert (await station.caller.final(call)).code >= 400
    for invite in callee.invites.values():
        offered = next(line for line in invite.body.splitlines() if line.startswith("m=audio")).split()[3:]
        assert len(offered) == len(set(offered)), "no payload type twice"
    good = station.caller.invite("acme")
    assert (await station.caller.final(good)).code == 486


@pytest.mark.parametrize("inner", ["Content-Type: application/json; x*0*=\"''", "Content-Type: ;x*"])
async def test_mime_headers_that_make_no_sense_get_an_answer(station: Station, inner: str) -> None:
    await station.buyer("acme", Callee([(20, 180), (100, 486)]))
    station.max_calls = 12
    await station.start()
    parts = f"--a\r\nContent-Type: application/sdp\r\n\r\n{sdp(40_002)}\r\n--a\r\n{inner}\r\n\r\n{{}}\r\n--a--\r\n"
    for _ in range(12):
        call = station.caller.invite("acme", body=parts, content_type="multipart/mixed;boundary=a")
        final = await station.caller.final(call)
        assert (final.code, final.header("X-Baton-Reason")) == (400, "bad_number"), "the part may have been a lead"
    assert (await station.caller.final(station.caller.invite("acme"))).code == 486


async def test_a_key_that_is_no_key_disturbs_nobody(station: Station) -> None:
    call, callee, _, caller_tone, _ = await talking(station)
    for signal in ("\x1e", "\x1f", "\x00", "7"):
        call.cseq += 1
        extra = ("Content-Type: application/dtmf-relay",)
        body = f"Signal={signal}\r\nDuration=160\r\n"
        station.caller._send(call, "INFO", f"{call.branch}-{call.cseq}", call.to, extra, body, cseq=call.cseq)
        await asyncio.sleep(0.1)
    info = await callee.wait(lambda m: m.method == "INFO" and not m.is_response)
    assert "7" in info.body
    assert "ValueError" not in station.log()
    assert caller_tone.port
    station.caller.bye(call)
    await station.closed(call.call_id)


async def test_music_that_is_gone_costs_no_call(station: Station, tmp_path: Path) -> None:
    music = tmp_path / "music.wav"
    write_tone(music, hertz=600, seconds=1)
    await station.buyer(
        "acme", Callee([(20, 180), (200, 200)]), campaign=f'early_answer = true\nmusic_file = "{music}"'
    )
    await station.start()
    music.unlink()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    await station.facts(call.call_id, lambda facts: any(one.kind is Kind.BRIDGED for one in facts))
    station.caller.bye(call)
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"


# --- nobody pays less, or more ---


async def test_a_bye_of_nobodys_dialog_ends_nothing(station: Station) -> None:
    callee = Callee([(20, 180), (3_000, 486)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme")
    invite = await callee.wait(lambda m: m.method == "INVITE")
    await asyncio.sleep(0.3)
    strange(callee, "BYE", invite, tags=("bogus", ";tag=nobody"))
    facts = await station.closed(call.call_id)
    closing = next(fact for fact in facts if fact.kind is Kind.TRANSFER_CLOSED)
    assert closing.payload["attempt_ms"] >= 2_900
    assert verdict(facts) == "failed/declined"


async def test_a_cancel_from_an_endpoint_hides_no_bye(station: Station) -> None:
    callee = Callee([(20, 180), (800, 200)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme")
    invite = await callee.wait(lambda m: m.method == "INVITE")
    await asyncio.sleep(0.3)
    strange(callee, "CANCEL", invite, tags=("bogus", ""))
    await station.caller.final(call)
    await asyncio.sleep(0.5)
    callee.hang_up(invite)
    assert verdict(await station.closed(call.call_id)) == "failed/buyer_abandoned"


# --- nobody is sent where he may not go ---


@pytest.mark.parametrize(
    "to",
    [
        "sip:good.example;a@127.0.0.66:{port}",
        "sip:good.example@127.0.0.66:{port}",
        "sip:a@good.example@127.0.0.66:{port}",
    ],
)
async def test_a_refer_goes_to_no_host_that_only_looks_allowed(station: Station, to: str) -> None:
    call, *_ = await talking(station, 'refer_hosts = ["good.example"]')
    elsewhere = Party()
    await elsewhere.open(host="127.0.0.66")
    station.caller.request(call, "REFER", headers=(f"Refer-To: <{to.format(port=elsewhere.port)}>",))
    answer = await station.caller.wait(lambda m: m.is_response and m.method == "REFER")
    assert answer.code in (400, 403)
    await asyncio.sleep(0.7)
    assert not elsewhere.seen
    elsewhere.close()
    station.caller.bye(call)
    await station.closed(call.call_id)


async def test_replaces_needs_the_password_too(station: Station) -> None:
    station.dialer_section = SECRET
    callee = Callee([(20, 180), (100, 200)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme")
    challenge = await _final(station, call, 1)
    station.caller.again(call, (authorization(challenge),))
    answer = await _final(station, call, 2)
    tag = answer.header("To").partition("tag=")[2]
    replaces = f"Replaces: {call.call_id};to-tag={tag};from-tag=f1"
    thief = station.caller.invite("acme", headers=(replaces,))
    assert (await station.caller.final(thief)).code == 403
    station.caller.bye(call)
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"


async def test_what_a_refer_left_ringing_ends_with_the_call(station: Station) -> None:
    call, *_ = await talking(station, f'refer_hosts = ["{HOST}"]')
    target = Callee([(20, 180)])
    await target.open()
    station.callees.append(target)
    station.caller.request(call, "REFER", headers=(f"Refer-To: <sip:p@{HOST}:{target.port};transport=foo>",))
    await asyncio.sleep(0.5)
    station.caller.request(call, "REFER", headers=(f"Refer-To: <sip:p@{HOST}:{target.port}>",))
    await target.wait(lambda m: m.method == "INVITE")
    await asyncio.sleep(0.2)
    station.caller.bye(call)
    await station.closed(call.call_id)
    await target.wait(lambda m: m.method == "CANCEL", 5)


async def test_a_buyer_is_redirected_by_its_own_leave_alone(station: Station) -> None:
    """No call inherits what the call before it in its slot was allowed."""
    station.max_calls = 8
    third = Callee([(20, 180), (50, 486)])
    await third.open()
    station.callees.append(third)
    allowed, other = Callee([(20, 486)]), Callee([])
    await station.buyer("allowed", allowed, each=f'redirect_hosts = ["{HOST}"]')
    await station.buyer("other", other)

    def redirect(message: Message) -> None:
        if message.method == "INVITE" and not message.is_response:
            other.reply(message, 302, contact=f"<sip:x@{HOST}:{third.port}>")

    other.react = redirect
    await station.start()
    for _ in range(9):
        await station.caller.final(station.caller.invite("allowed"))
    for _ in range(6):
        await station.caller.final(station.caller.invite("other", body=" ", content_type="text/plain"))
        await station.caller.final(station.caller.invite("other"))
    assert not third.seen


async def test_a_2xx_out_of_nowhere_makes_us_send_nothing(station: Station) -> None:
    await station.buyer("acme", Callee([]))
    await station.start()
    attacker, victim = Party(), Party()
    await attacker.open(host="127.0.0.9")
    await victim.open(host="127.0.0.8")
    for number in range(5):
        lines = [
            "SIP/2.0 200 OK",
            f"Via: SIP/2.0/UDP {HOST}:{station.port};branch=z9hG4bKx{number}",
            f"From: <sip:a@b>;tag=1{number}",
            "To: <sip:c@d>;tag=2",
            f"Call-ID: spoof{number}",
            "CSeq: 1 INVITE",
            f"Contact: <sip:v@127.0.0.8:{victim.port}>",
            "Content-Length: 0",
        ]
        attacker.send("\r\n".join([*lines, "", ""]), (HOST, station.port))
    await asyncio.sleep(1.5)
    assert not victim.seen
    attacker.close()
    victim.close()


async def test_a_stranger_gets_no_answer_with_a_tag_either(station: Station) -> None:
    callee = Callee([])
    await station.buyer("acme", callee)
    await station.start()
    stranger = Party()
    await stranger.open(host="127.0.0.9")
    for method in ("OPTIONS", "BYE", "INVITE"):
        lines = [
            f"{method} sip:acme@{HOST} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.9:{stranger.port};branch=z9hG4bK{method}",
            "From: <sip:a@b>;tag=1",
            "To: <sip:c@d>;tag=x",
            f"Call-ID: q{method}",
            f"CSeq: 1 {method}",
            "Max-Forwards: 70",
            "Content-Length: 0",
        ]
        stranger.send("\r\n".join([*lines, "", ""]), (HOST, station.port))
    await asyncio.sleep(1.0)
    assert not stranger.seen
    stranger.close()


# --- nothing is left, nobody is cut off ---


async def test_two_bridges_are_two_recordings_and_no_file_stays_open(station: Station) -> None:
    caller_tone, one, two = [await station.tone(hertz) for hertz in (400, 1000, 1300)]
    first, second = Callee([(20, 180), (200, 200)]), Callee([(20, 180), (2_000, 200)])
    first.rtp_port, second.rtp_port = one.port, two.port
    await station.buyer("acme", first, second, campaign="record = true\ncommit_ms = 5000")
    await station.start()
    call = station.caller.invite("acme", rtp_port=caller_tone.port)
    invite = await first.wait(lambda m: m.method == "INVITE")
    await station.facts(call.call_id, lambda facts: any(fact.kind is Kind.BRIDGED for fact in facts))
    await asyncio.sleep(0.5)
    first.hang_up(invite)
    bridged = lambda facts: sum(fact.kind is Kind.BRIDGED for fact in facts) == 2  # noqa: E731 - used once
    await station.facts(call.call_id, bridged)
    await asyncio.sleep(0.5)
    station.caller.bye(call)

    def both(facts: list[Fact]) -> bool:
        return sum(fact.kind is Kind.RECORDED for fact in facts) == 2

    facts = await station.facts(call.call_id, both)
    files = [fact.payload["file"] for fact in facts if fact.kind is Kind.RECORDED]
    assert len(set(files)) == 2
    assert not any(fact.payload.get("error") for fact in facts if fact.kind is Kind.RECORDED)
    assert station.process is not None
    await asyncio.sleep(0.3)
    held = [entry.readlink().name for entry in Path(f"/proc/{station.process.pid}/fd").iterdir() if entry.is_symlink()]
    assert not [name for name in held if ".wav" in name]


async def test_a_silent_dialer_that_moves_its_call_is_not_cut_off(station: Station) -> None:
    station.router_section = "rtp_timeout_ms = 3000"
    call, _, offer, caller_tone, buyer_tone = await talking(station)
    new_tone = await station.tone(700)
    buyer = asyncio.create_task(buyer_tone.play(offer.rtp_port(), 12))
    assert call.final is not None
    await caller_tone.play(call.final.rtp_port(), 1.0)
    await asyncio.sleep(1.8)  # silent while its agent moves the call
    tag = call.final.header("To").partition("tag=")[2]
    replaces = f"Replaces: {call.call_id};to-tag={tag};from-tag=f1"
    new = station.caller.invite("acme", headers=(replaces,), rtp_port=new_tone.port)
    moved = await station.caller.final(new)
    await new_tone.play(moved.rtp_port(), 6)
    facts = await station.facts(call.call_id, lambda _facts: True)
    assert not [fact for fact in facts if fact.kind is Kind.ENDED]
    station.caller.bye(new)
    await station.closed(call.call_id)
    buyer.cancel()


async def test_who_is_being_greeted_at_the_stop_is_on_the_record(station: Station, tmp_path: Path) -> None:
    greeting = tmp_path / "greeting.wav"
    write_tone(greeting, hertz=500)
    await station.buyer("acme", Callee([(20, 180)]), campaign=f'greeting_file = "{greeting}"')
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    await station.stop()
    await station.caller.wait(lambda m: m.method == "BYE" and not m.is_response)
    assert verdict(await station.closed(call.call_id)) == "not_attempted/draining"
