"""Who may come in, and what trunks are told, over real SIP."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from typing import Any

import pytest

from facts.fact import Fact, Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import HOST, Call, Callee, Message, loudest_hertz

pytestmark = pytest.mark.net
SECRET = 'username = "floor"\npassword = "not-a-real-secret"'


def authorization(challenge: Message, password: str = "not-a-real-secret", algorithm: str = "SHA-256") -> str:
    """The Authorization header for one of a 401's challenges (RFC 7616 section 3.4)."""
    line = next(
        line
        for line in challenge.text.split("\r\n")
        if line.startswith("WWW-Authenticate") and f"algorithm={algorithm}" in line
    )
    said = dict(re.findall(r'(\w+)="([^"]*)"', line))
    make = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}[algorithm]

    def digest(text: str) -> str:
        return make(text.encode()).hexdigest()

    uri = f"sip:acme@{HOST}"
    secret = digest(f"floor:{said['realm']}:{password}")
    response = digest(f"{secret}:{said['nonce']}:00000001:abcd:auth:{digest(f'INVITE:{uri}')}")
    return (
        f'Authorization: Digest username="floor", realm="{said["realm"]}", nonce="{said["nonce"]}", uri="{uri}", '
        f'algorithm={algorithm}, qop=auth, nc=00000001, cnonce="abcd", response="{response}"'
    )


async def _final(station: Station, call: Call, cseq: int) -> Message:
    return await station.caller.wait(
        lambda m: m.call_id == call.call_id and m.code >= 200 and m.header("CSeq") == f"{cseq} INVITE"
    )


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
async def test_a_dialer_with_a_password_must_prove_it(station: Station, algorithm: str) -> None:
    station.dialer_section = SECRET
    callee = Callee([(20, 180), (100, 200)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme")
    challenge = await _final(station, call, 1)
    assert challenge.code == 401
    assert challenge.text.index("SHA-256") < challenge.text.index("MD5"), "the stronger one first"
    header = authorization(challenge, algorithm=algorithm)
    station.caller.again(call, (header,))
    assert (await _final(station, call, 2)).code == 200
    station.caller.bye(call)
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"
    replay = station.caller.invite("acme", headers=(header,))
    assert (await _final(station, replay, 1)).code == 401, "a count of a nonce is taken once"
    assert "not-a-real-secret" not in station.log()


async def test_wrong_passwords_lock_the_source_out(station: Station) -> None:
    station.dialer_section = SECRET
    station.router_section = "lockout_failures = 3\nlockout_seconds = 4"
    callee = Callee([(20, 180)])
    await station.buyer("acme", callee)
    await station.start()
    for _ in range(3):
        call = station.caller.invite("acme")
        station.caller.again(call, (authorization(await _final(station, call, 1), "wrong"),))
        assert (await _final(station, call, 2)).code == 403
    locked = station.caller.invite("acme")
    await asyncio.sleep(1.2)
    assert not [m for m in station.caller.seen if m.call_id == locked.call_id]
    await asyncio.sleep(3.2)
    assert (await _final(station, station.caller.invite("acme"), 1)).code == 401, "it is over by itself"
    assert not callee.invites


async def test_rate_and_concurrency_of_a_dialer(station: Station) -> None:
    station.dialer_section = "max_calls = 2\nmax_per_second = 3"
    await station.buyer("acme", Callee([(20, 180)]))
    await station.start()
    await asyncio.sleep(1.1)  # past the second in which the station asked whether the router is up
    calls = [station.caller.invite("acme") for _ in range(4)]
    busy, fast = (await station.caller.final(calls[2])), (await station.caller.final(calls[3]))
    assert [busy.code, busy.header("Retry-After")] == [503, "5"]
    assert [fast.code, fast.header("Retry-After")] == [503, "1"]
    for call in calls[:2]:
        station.caller.cancel(call)
        assert (await station.caller.final(call)).code == 487
    await asyncio.sleep(1.1)
    third = station.caller.invite("acme")
    await station.caller.wait(lambda m: m.call_id == third.call_id and m.code == 180)
    station.caller.cancel(third)
    await station.closed(third.call_id)


async def test_our_own_invite_come_back_is_a_loop(station: Station) -> None:
    callee = Callee([(20, 180)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme")
    out = await callee.wait(lambda m: m.method == "INVITE")
    back = station.caller.invite("acme", headers=(f"X-Transfer-Id: {out.header('X-Transfer-Id')}",))
    assert (await station.caller.final(back)).code == 482
    assert len(callee.invites) == 1
    station.caller.cancel(call)
    await station.closed(call.call_id)


async def test_options_say_whether_a_buyer_would_take_a_call(station: Station) -> None:
    await station.buyer("acme", Callee([]))
    await station.buyer("bolt", Callee([]), more='state = "paused"')
    await station.start()

    async def ask(user: str) -> Message:
        call = station.caller.ask(user)
        return await station.caller.wait(lambda m: m.call_id == call.call_id and m.is_response)

    free, paused, nobody, us = await ask("acme"), await ask("bolt"), await ask("nobody"), await ask("")
    assert [free.code, free.header("X-Baton-Available")] == [200, "yes"]
    assert [paused.code, paused.header("X-Baton-Available"), paused.header("X-Baton-Reason")] == [480, "no", "paused"]
    assert [nobody.code, us.code] == [404, 200]
    assert "INVITE" in us.header("Allow")


# --- trunks ---


async def test_what_a_trunk_is_told_of_the_caller(station: Station) -> None:
    plain, shown, hidden = (Callee([(20, 180)]) for _ in range(3))
    await station.buyer("acme", plain)
    each = 'asserted_identity = true\nlead_headers = ["first_name", "State"]\ntransfer_header = "X-Ref"'
    await station.buyer("bolt", shown, each=each)
    await station.buyer("coda", hidden, each='caller_id = "anonymous"')
    await station.start()
    seen = []
    for buyer, callee in (("acme", plain), ("bolt", shown), ("coda", hidden)):
        headers = ("X-Lead-First-Name: Ada", "X-Lead-State: NY", "X-Lead-Secret: no")
        call = station.caller.invite(buyer, headers=headers)
        seen.append(await callee.wait(lambda m: m.method == "INVITE"))
        station.caller.cancel(call)
        await station.closed(call.call_id)
    first, second, third = seen
    assert "+12125550123" in first.header("From")
    assert first.header("X-Transfer-Id")
    assert not first.header("P-Asserted-Identity")
    assert second.header("P-Asserted-Identity") == "<tel:+12125550123>"
    assert (second.header("X-Lead-First-Name"), second.header("X-Lead-State")) == ("Ada", "NY")
    assert second.header("X-Ref")
    assert not second.header("X-Lead-Secret")
    assert not second.header("X-Transfer-Id")
    assert "anonymous" in third.header("From")
    assert "2125550123" not in third.text
    assert third.header("Privacy") == "id"


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_302_is_followed_only_where_it_may_be(station: Station, allowed: bool) -> None:
    other = await Callee([(20, 180), (100, 200)]).open()
    first = Callee([])
    each = f'redirect_hosts = ["{HOST}"]' if allowed else ""
    await station.buyer("acme", first, each=each)
    await station.start()
    station.callees.append(other)  # type: ignore[arg-type]
    call = station.caller.invite("acme")
    invite = await first.wait(lambda m: m.method == "INVITE")
    first.reply(invite, 302, contact=f"<sip:x@{HOST}:{other.port}>")
    final = await station.caller.final(call)
    assert final.code == (200 if allowed else 480)
    if allowed:
        station.caller.bye(call)
    facts = await station.closed(call.call_id)
    assert verdict(facts) == ("short_call/caller_ended" if allowed else "failed/declined")
    assert bool([m for m in other.seen if m.method == "INVITE"]) is allowed


async def test_a_422_is_asked_again_with_the_interval_that_the_far_end_wants(station: Station) -> None:
    callee = Callee([])
    await station.buyer("acme", callee, each='session_timer = "always"\nsession_expires_s = 100')
    await station.start()
    call = station.caller.invite("acme")
    first = await callee.wait(lambda m: m.method == "INVITE")
    assert first.header("Session-Expires").startswith("100")
    callee.reply(first, 422, headers=("Min-SE: 1800",))
    second = await callee.wait(lambda m: m.method == "INVITE" and m.header("CSeq") != first.header("CSeq"))
    assert second.header("Session-Expires").startswith("1800")
    callee.invites[second.call_id] = second
    callee.answer(second, 200)
    assert (await station.caller.final(call)).code == 200
    station.caller.bye(call)
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"


async def test_reliable_provisional_answers_are_acknowledged(station: Station) -> None:
    callee = Callee([])
    await station.buyer("acme", callee, each='prack = "mandatory"')
    await station.start()
    call = station.caller.invite("acme")
    invite = await callee.wait(lambda m: m.method == "INVITE")
    assert "100rel" in invite.header("Require")
    callee.reply(invite, 180, headers=("Require: 100rel", "RSeq: 7"))
    prack = await callee.wait(lambda m: m.method == "PRACK" and not m.is_response)
    assert prack.header("RAck").startswith("7 ")
    callee.reply(prack, 200)
    callee.answer(invite, 200)
    assert (await station.caller.final(call)).code == 200
    station.caller.bye(call)
    await station.closed(call.call_id)


async def test_a_trunk_that_does_not_answer_probes_is_left_out_until_it_does(station: Station) -> None:
    callee, spare = Callee([(20, 180)]), Callee([(20, 180)])
    station.router_section = "probe_down_after = 2\nprobe_up_after = 2"
    await station.buyer("acme", callee, each="probe_s = 1")
    await station.buyer("both", spare)
    await station.start()
    deaf = False

    def react(message: Message) -> None:
        if message.method == "OPTIONS" and not deaf:
            callee.reply(message, 200)
        elif message.method != "OPTIONS":
            callee._react(message)

    callee.react = react
    await callee.wait(lambda m: m.method == "OPTIONS")

    async def reason_within(wanted: str, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while True:
            call = station.caller.ask("acme")
            answer = await station.caller.wait(lambda m, c=call: m.call_id == c.call_id and m.is_response)
            if answer.header("X-Baton-Reason") == wanted:
                return
            assert time.monotonic() < deadline, answer.text
            await asyncio.sleep(0.3)

    await reason_within("", 5)
    deaf = True
    await reason_within("no_endpoint", 20)
    refused = station.caller.invite("acme")
    assert (await station.caller.final(refused)).code == 480
    facts = await station.closed(refused.call_id)
    assert verdict(facts) == "not_attempted/no_endpoint"
    assert facts[0].payload["left_out"] == [{"endpoint": "e1", "why": "down"}]
    deaf = False
    await reason_within("", 20)


async def test_a_trunk_that_wants_a_registration_rings_once_it_has_it(station: Station) -> None:
    callee = Callee([(20, 180), (100, 200)])
    taking = False

    def react(message: Message) -> None:
        if message.method == "REGISTER":
            contact = message.header("Contact")
            callee.reply(message, 200 if taking else 503, contact=f"{contact};expires=300")
        else:
            callee._react(message)

    callee.react = react
    await callee.open()
    each = f'username = "baton"\npassword = "pw-for-a-test"\nregistrar = "sip:{HOST}:{callee.port}"'
    taking = True
    await station.buyer("acme", callee, each=each, opened=True)
    await station.start()
    register = await callee.wait(lambda m: m.method == "REGISTER")
    assert f"sip:baton@{HOST}" in register.header("From")
    await asyncio.sleep(0.3)
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    station.caller.bye(call)
    await station.closed(call.call_id)
    callee.react = callee._react


async def test_a_trunk_takes_so_many_calls_at_once(station: Station) -> None:
    callee = Callee([(20, 180)])
    await station.buyer("acme", callee, each="max_calls = 1")
    await station.start()
    first = station.caller.invite("acme")
    await callee.wait(lambda m: m.method == "INVITE")
    second = station.caller.invite("acme")
    assert (await station.caller.final(second)).code == 480
    facts = await station.closed(second.call_id)
    assert facts[0].payload["left_out"] == [{"endpoint": "e1", "why": "busy"}]
    station.caller.cancel(first)
    await station.closed(first.call_id)
    third = station.caller.invite("acme")
    await station.caller.wait(lambda m: m.call_id == third.call_id and m.code == 180)
    station.caller.cancel(third)
    await station.closed(third.call_id)


# --- a dialer that moves its end ---


async def _talking(station: Station, **dialer: Any) -> tuple[Call, Message, Message, Any, Any, Callee]:
    station.dialer_section = dialer.get("section", "")
    caller_tone, buyer_tone = await station.tone(400), await station.tone(1000)
    callee = Callee([(20, 180), (100, 200)])
    callee.rtp_port = buyer_tone.port
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme", rtp_port=caller_tone.port)
    answer = await station.caller.final(call)
    offer = await callee.wait(lambda m: m.method == "INVITE")
    return call, answer, offer, caller_tone, buyer_tone, callee


def _moved(facts: list[Fact]) -> list[str]:
    return [fact.payload["how"] for fact in facts if fact.kind is Kind.CALLER_MOVED]


async def test_a_dialer_replaces_its_dialog_by_another(station: Station) -> None:
    call, answer, offer, _, buyer_tone, callee = await _talking(station)
    new_tone = await station.tone(700)
    tag = answer.header("To").partition("tag=")[2]
    replaces = f"Replaces: {call.call_id};to-tag={tag};from-tag=f1"
    new = station.caller.invite("acme", headers=(replaces,), rtp_port=new_tone.port)
    moved = await station.caller.final(new)
    assert moved.code == 200
    await station.caller.wait(lambda m: m.call_id == call.call_id and m.method == "BYE" and not m.is_response)
    await asyncio.gather(new_tone.play(moved.rtp_port(), 1.5), buyer_tone.play(offer.rtp_port(), 1.5))
    assert loudest_hertz(buyer_tone.heard) == pytest.approx(700, abs=5)
    assert loudest_hertz(new_tone.heard) == pytest.approx(1000, abs=5)
    assert not [m for m in callee.seen if m.method == "BYE"], "the buyer notices nothing"
    station.caller.bye(new)
    facts = await station.closed(call.call_id)
    assert _moved(facts) == ["replaces"]
    assert verdict(facts) == "short_call/caller_ended"
    await callee.wait(lambda m: m.method == "BYE")


async def test_a_dialer_refers_its_end_to_where_it_may(station: Station) -> None:
    call, _, offer, _, buyer_tone, callee = await _talking(station, section=f'refer_hosts = ["{HOST}"]')
    new_tone = await station.tone(700)
    target = Callee([(20, 180), (200, 200)])
    await target.open()
    station.callees.append(target)
    target.rtp_port = new_tone.port
    station.caller.request(call, "REFER", headers=(f"Refer-To: <sip:prospect@{HOST}:{target.port}>",))
    accepted = await station.caller.wait(lambda m: m.is_response and m.method == "REFER")
    assert accepted.code == 202
    invite = await target.wait(lambda m: m.method == "INVITE")
    await station.caller.wait(lambda m: m.method == "NOTIFY" and "200" in m.body)
    await asyncio.gather(new_tone.play(invite.rtp_port(), 1.5), buyer_tone.play(offer.rtp_port(), 1.5))
    assert loudest_hertz(buyer_tone.heard) == pytest.approx(700, abs=5)
    assert not [m for m in callee.seen if m.method == "BYE"]
    target.hang_up(invite)
    facts = await station.closed(call.call_id)
    assert _moved(facts) == ["refer"]
    assert verdict(facts) == "short_call/caller_ended"
    await callee.wait(lambda m: m.method == "BYE")


async def test_nobody_else_moves_anything(station: Station) -> None:
    call, answer, offer, _, _, callee = await _talking(station)
    station.caller.request(call, "REFER", headers=(f"Refer-To: <sip:x@{HOST}:9>",))
    refused = await station.caller.wait(lambda m: m.is_response and m.method == "REFER")
    assert refused.code == 403, "no host is allowed"
    callee.request(offer, "REFER", headers=(f"Refer-To: <sip:x@{HOST}:9>",))
    refused = await callee.wait(lambda m: m.is_response and m.method == "REFER")
    assert refused.code == 403, "a buyer may not"
    station.caller.bye(call)
    assert answer.code == 200
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"


async def test_a_dialer_calls_only_the_campaigns_that_it_may(station: Station) -> None:
    """INVITE and OPTIONS, for a campaign that is there, one that is not, and one that is its own."""
    station.dialer_section = 'campaigns = ["acme", "gone"]'
    for name in ("acme", "best"):
        await station.buyer(name, Callee([(20, 180), (60, 200)]))
    await station.start()
    for name, code, ended in (
        ("best", 403, "not_attempted/rejected"),
        ("nobody", 403, "not_attempted/rejected"),
        ("gone", 404, "not_attempted/no_buyer"),
        ("acme", 200, "short_call/caller_ended"),
    ):
        call = station.caller.invite(name)
        assert (await station.caller.final(call)).code == code, name
        if code == 200:
            station.caller.bye(call)
        assert verdict(await station.closed(call.call_id)) == ended, name
        asked = f"options-{name}"
        station.caller.send(
            f"OPTIONS sip:{name}@{HOST} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {HOST}:{station.caller.port};branch=z9hG4bK{asked}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:d@{HOST}>;tag=1\r\nTo: <sip:{name}@{HOST}>\r\nCall-ID: {asked}\r\n"
            "CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
            (HOST, station.port),
        )
        said = await station.caller.wait(lambda m, asked=asked: m.call_id == asked)
        assert said.code == code, name
        if code == 403:
            assert (said.header("X-Baton-Available"), said.header("X-Baton-Reason")) == ("no", "rejected")
