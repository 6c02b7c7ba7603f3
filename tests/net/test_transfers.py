"""Transfers over real SIP: the router process on UDP, parties that do what a test says."""

from __future__ import annotations

import asyncio
import re

import pytest

from facts.fact import Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import HOST, Callee, Caller, Message, Tone, loudest_hertz, sdp

pytestmark = pytest.mark.net


async def test_tones_prove_who_hears_whom(station: Station) -> None:
    caller_tone, buyer_tone = await Tone(400).open(), await Tone(1000).open()
    callee = Callee([(50, 180), (300, 200)])
    callee.rtp_port = buyer_tone.port
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme", rtp_port=caller_tone.port)
    answer = await station.caller.final(call)
    assert answer.code == 200
    assert [m.code for m in call.seen if m.is_response] == [100, 180, 200]
    offer = next(iter(callee.invites.values()))
    await asyncio.gather(caller_tone.play(answer.rtp_port(), 3), buyer_tone.play(offer.rtp_port(), 3))
    station.caller.bye(call)
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"
    await callee.wait(lambda m: m.method == "BYE")
    assert loudest_hertz(caller_tone.heard) == pytest.approx(1000, abs=5)
    assert loudest_hertz(buyer_tone.heard) == pytest.approx(400, abs=5)
    caller_tone.close()
    buyer_tone.close()


async def test_losers_are_cancelled_with_a_reason_and_a_late_2xx_is_acked_then_byed(station: Station) -> None:
    winner, loser, late = Callee([(20, 180), (300, 200)]), Callee([(20, 180)]), Callee([(20, 180)], late=True)
    await station.buyer("acme", winner, loser, late)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    for party in (loser, late):
        cancel = await party.wait(lambda m: m.method == "CANCEL")
        assert cancel.header("Reason") == 'SIP;cause=200;text="Call completed elsewhere"'
    await late.wait(lambda m: m.method == "BYE")
    methods = [m.method for m in late.seen]
    assert methods.index("ACK") < methods.index("BYE")
    assert not [m for m in winner.seen if m.method in ("CANCEL", "BYE")]
    facts = await station.facts(call.call_id, lambda found: any(f.kind is Kind.ANSWERED_LATE for f in found))
    assert [f.leg for f in facts if f.kind is Kind.ANSWERED_LATE] == [3]
    assert [f.leg for f in facts if f.kind is Kind.ANSWERED] == [1]
    winner.hang_up(next(iter(winner.invites.values())))
    assert verdict(await station.closed(call.call_id)) == "failed/buyer_abandoned"
    bye = await station.caller.wait(lambda m: m.method == "BYE" and not m.is_response)
    assert bye.header("X-Baton-Verdict") == "failed"
    assert bye.header("X-Baton-Counts-As") == "failed"


async def test_a_caller_who_cancels_at_any_millisecond_leaves_nothing_ringing(station: Station) -> None:
    """0 to 200 ms after the INVITE, to five endpoints each; a second later every INVITE is CANCELled or BYEd."""
    callees = [
        Callee([(5, 100), (30, 180)]),
        Callee([(1, 180)]),
        Callee([(60, 100), (90, 180)]),
        Callee([(100, 200)]),
        Callee([(150, 183)]),
    ]
    station.max_calls = 1200
    await station.buyer("acme", *callees)
    await station.start()
    calls = []
    loop = asyncio.get_running_loop()
    for after_ms in range(201):
        call = station.caller.invite("acme", number=f"+1212555{1000 + after_ms}")
        calls.append(call)
        loop.call_later(after_ms / 1000, station.caller.cancel, call)
        await asyncio.sleep(0.02)  # fifty callers a second
    await asyncio.sleep(1.0)
    answered = [call for call in calls if call.final is not None and call.final.code == 200]
    for call in answered:  # the CANCEL came after the 200 and says nothing any more (RFC 3261 section 9.1)
        station.caller.bye(call)
    await asyncio.sleep(1.0)
    for call in calls:
        assert call.final is not None, f"{call.number}: no final answer"
        assert call.final.code in (487, 200)
    for callee in callees:
        ended = {m.call_id for m in callee.seen if m.method in ("CANCEL", "BYE") and not m.is_response}
        assert not set(callee.invites) - ended
    assert len(callees[0].invites) > 150, "most callers left after their endpoints had been dialled"
    facts = await station.closed(calls[200].call_id)
    assert verdict(facts) in ("caller_abandoned/caller_gone", "short_call/caller_ended")


async def test_one_refusal_ends_one_leg_and_the_last_one_ends_the_attempt(station: Station) -> None:
    await station.buyer("acme", Callee([(10, 486)]), Callee([(10, 180), (500, 603)]))
    await station.start()
    call = station.caller.invite("acme")
    final = await station.caller.final(call)
    facts = await station.closed(call.call_id)
    assert verdict(facts) == "failed/declined"
    assert final.code in (486, 603)
    assert final.header("X-Baton-Transfer") == facts[0].transfer
    assert final.header("X-Baton-Verdict") == "failed"
    ended = {f.leg: f.payload["code"] for f in facts if f.kind is Kind.LEG_ENDED}
    assert ended == {1: 486, 2: 603}


async def test_the_ring_timeout_cancels_every_leg(station: Station) -> None:
    ringing, deaf = Callee([(10, 180)]), Callee([(10, 180)], deaf=True)
    await station.buyer("acme", ringing, deaf, ring_ms=1500)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 480
    facts = await station.closed(call.call_id)
    assert verdict(facts) == "failed/no_answer"
    closing = next(f for f in facts if f.kind is Kind.TRANSFER_CLOSED)
    assert closing.payload["attempt_ms"] >= 1499  # the loop's own doubt may take a millisecond off
    for party in (ringing, deaf):
        assert "408" in (await party.wait(lambda m: m.method == "CANCEL")).header("Reason")


async def test_silence_and_a_closed_port_are_unreachable(station: Station) -> None:
    await station.buyer("acme", Callee([]), ring_ms=1200)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 480
    assert verdict(await station.closed(call.call_id)) == "unreachable/no_response"


async def test_the_lead_comes_from_headers_and_from_json_and_is_tamed(station: Station) -> None:
    await station.buyer("acme", Callee([(10, 486)]))
    await station.start()
    parts = (
        f"--b\r\nContent-Type: application/sdp\r\n\r\n{sdp(40_002)}\r\n--b\r\nContent-Type: application/json\r\n\r\n"
        '{"email": "a@b.example", "note": "two\\nlines", "phone": "(212) 555-0142", "age": 42}\r\n--b--\r\n'
    )
    call = station.caller.invite(
        "acme",
        headers=("X-Lead-First-Name: Ada", "X-Lead-Email: loses@to.json", "X-Lead-Formula: =1+1"),
        body=parts,
        content_type='multipart/mixed;boundary="b"',
    )
    await station.caller.final(call)
    started = (await station.closed(call.call_id))[0].payload
    assert started["lead"]["first_name"] == "Ada"
    assert started["lead"]["email"] == "a@b.example"
    assert started["lead"]["note"] == "two lines"
    assert started["lead"]["age"] == "42"
    assert started["lead"]["formula"] == "=1+1"
    assert started["phone"] == "+12125550142"
    assert "5550142" not in station.log()


async def _stranger(station: Station) -> Caller:
    stranger = Caller(station.port)
    stranger.host = "127.0.0.9"
    await stranger.open(host="127.0.0.9")
    return stranger


async def test_who_is_no_dialer_gets_no_answer_at_all(station: Station) -> None:
    callee = Callee([(10, 180)])
    await station.buyer("acme", callee)
    await station.start()
    stranger = await _stranger(station)
    stranger.invite("acme")
    known = station.caller.invite("nobody")
    assert (await station.caller.final(known)).code == 404, "the router is there, for others"
    await asyncio.sleep(1.5)  # past the first retransmissions
    assert not stranger.seen
    assert not callee.invites
    assert "requests_dropped" in station.log()
    stranger.close()


async def test_who_is_no_dialer_gets_403_where_that_is_configured(station: Station) -> None:
    callee = Callee([(10, 180)])
    await station.buyer("acme", callee)
    station.router_section = 'unknown_sources = "reject"'
    await station.start()
    stranger = await _stranger(station)
    call = stranger.invite("acme")
    assert (await stranger.final(call)).code == 403
    assert verdict(await station.closed(call.call_id)) == "not_attempted/rejected"
    assert not callee.invites
    stranger.close()


async def test_a_suppressed_number_rings_nobody(station: Station) -> None:
    (station.folder / "dnc.csv").write_text("phone\n(212) 555-0177\n")
    station.section('[[suppression_lists]]\nname = "dnc"\nfile = "dnc.csv"\ncolumn = "phone"')
    callee = Callee([(10, 180)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme", number="12125550177")
    assert (await station.caller.final(call)).code == 603
    facts = await station.closed(call.call_id)
    assert verdict(facts) == "not_attempted/suppressed"
    assert facts[0].payload["scrub"]["hit"] == "dnc"
    assert not callee.invites


async def test_a_hold_takes_effect_on_the_next_transfer(station: Station) -> None:
    callee = Callee([(10, 486)])
    await station.buyer("acme", callee)
    await station.start()
    first = station.caller.invite("acme")
    await station.caller.final(first)
    import sys

    command = [sys.executable, "-m", "baton", "buyers", "hold", "acme", "--config", str(station.config)]
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0
    second = station.caller.invite("acme")
    assert (await station.caller.final(second)).code == 480
    assert verdict(await station.closed(second.call_id)) == "not_attempted/on_hold"
    assert len(callee.invites) == 1


async def test_kill_9_loses_no_transfer_and_bills_none_twice(station: Station) -> None:
    ringing, talking = Callee([(10, 180)]), Callee([(10, 180), (50, 200)])
    await station.buyer("ringer", ringing)
    await station.buyer("talker", talking)
    await station.start()
    one, two = station.caller.invite("ringer"), station.caller.invite("talker")
    await station.caller.final(two)
    await station.facts(one.call_id, lambda found: any(f.kind is Kind.RINGING for f in found))
    await station.facts(two.call_id, lambda found: any(f.kind is Kind.BRIDGED for f in found))
    await station.kill()
    await station.start()
    for call in (one, two):
        facts = await station.closed(call.call_id)
        assert verdict(facts) == "fault/interrupted"
        assert [f.kind for f in facts].count(Kind.TRANSFER_CLOSED) == 1
    assert await station.verified()


async def test_talk_that_reached_15_s_stays_connected_after_kill_9(station: Station) -> None:
    talking = Callee([(10, 180), (20, 200)])
    await station.buyer("talker", talking)
    await station.start()
    call = station.caller.invite("talker")
    await station.facts(call.call_id, lambda found: any(f.kind is Kind.TALK_REACHED_15S for f in found), 40)
    await station.kill()
    await station.start()
    facts = await station.closed(call.call_id)
    assert verdict(facts) == "connected/answered"


async def test_sigterm_drains_and_new_invites_get_503(station: Station) -> None:
    callee = Callee([(10, 180)])
    await station.buyer("acme", callee)
    await station.start()
    live = station.caller.invite("acme")
    await station.facts(live.call_id, lambda found: any(f.kind is Kind.RINGING for f in found))
    assert station.process is not None
    station.process.terminate()
    await asyncio.sleep(0.2)
    refused = station.caller.invite("acme")
    assert (await station.caller.final(refused, 5)).code == 503
    assert (await station.caller.final(live, 10)).code == 500
    assert await asyncio.wait_for(station.process.wait(), 20) == 0
    await callee.wait(lambda m: m.method == "CANCEL")
    assert verdict(await station.closed(live.call_id)) == "fault/router_fault"
    assert verdict(await station.closed(refused.call_id)) == "not_attempted/draining"


async def test_a_second_router_of_that_name_is_refused(station: Station) -> None:
    await station.buyer("acme", Callee([]))
    await station.start()
    import subprocess
    import sys

    command = [sys.executable, "-m", "baton", "router", str(station.config)]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 1
    assert re.search(r"router.name = 'test' is running already", said.decode())


async def test_a_callers_bye_that_crosses_ours_makes_the_end_the_callers(station: Station) -> None:
    callee = Callee([(20, 180), (100, 200)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200

    def react(message: Message) -> None:
        if message.method == "BYE" and not message.is_response:
            station.caller.bye(call)  # sent before ours was read
        station.caller._react(message)

    station.caller.react = react
    callee.hang_up(await callee.wait(lambda m: m.method == "INVITE"))
    facts = await station.closed(call.call_id)
    assert verdict(facts) == "short_call/caller_ended"
    ended = next(fact for fact in facts if fact.kind is Kind.ENDED)
    left = next(fact for fact in facts if fact.kind is Kind.LEG_ENDED and fact.leg == 1)
    assert ended.mono_us == left.mono_us, "the end is the first BYE"


@pytest.mark.parametrize(
    ("code", "said"), [(101, "fault/carrier_fault"), (199, "fault/carrier_fault"), (181, "failed/declined")]
)
async def test_our_own_carriers_503_after_a_provisional_answer(station: Station, code: int, said: str) -> None:
    carrier = Callee([(20, code), (120, 503)])
    await carrier.open()
    station.callees.append(carrier)
    station.section(f'[[carriers]]\nname = "own"\nuri = "sip:{{number}}@{HOST}:{carrier.port}"')
    await station.buyer("acme", endpoint='name = "desk"\nkind = "did"\nuri = "+12125550190"\ncarrier = "own"')
    await station.start()
    call = station.caller.invite("acme")
    await station.caller.final(call)
    facts = await station.closed(call.call_id)
    assert verdict(facts) == said
    rang = [one.payload["code"] for one in facts if one.kind is Kind.RINGING]
    assert rang == ([code] if code == 181 else [])
    assert bool([one for one in call.seen if one.code == 180]) is (code == 181), "ringing that the caller hears"
