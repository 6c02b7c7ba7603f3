"""Answers that nobody asked for: who is not where an INVITE went to, or does not know its branch, changes nothing."""

from __future__ import annotations

import asyncio
import re

import pytest

from facts.fact import Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import Callee, Message, Party, sdp

pytestmark = pytest.mark.net
ELSEWHERE = "127.0.0.9"
CODES = (100, 180, 183, 199, 200, 202, 302, 401, 407, 422, 486, 487, 503, 603)
ROUTES = ("another address", "another branch", "neither", "another tag")


def forged(invite: Message, code: int, route: str, port: int) -> str:
    """An answer to an INVITE as somebody would make it who has seen some of it."""
    via, sender = invite.header("Via"), invite.header("From")
    if route in ("another branch", "neither"):
        via = re.sub(r"branch=[^;]+", "branch=z9hG4bK-mine", via)
    if route == "another tag":
        sender = re.sub(r";tag=.*", ";tag=mine", sender)
    body = sdp(40_000) if code in range(180, 203) else ""
    lines = [
        f"SIP/2.0 {code} X",
        f"Via: {via}",
        f"From: {sender}",
        f"To: {invite.header('To')};tag=mine",
        f"Call-ID: {invite.call_id}",
        f"CSeq: {invite.header('CSeq')}",
        f"Contact: <sip:x@{ELSEWHERE}:{port}>",
        *(["Content-Type: application/sdp"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", body])


def dropped(station: Station, why: str) -> int:
    return sum(int(n) for n in re.findall(rf'"why":"{why}","count":(\d+),.*answers_dropped', station.log()))


async def strangers() -> tuple[Party, Party]:
    return await Party().open(host=ELSEWHERE), await Party().open()


@pytest.mark.parametrize("route", ROUTES)
async def test_no_forged_answer_changes_a_transfer_that_rings(station: Station, route: str) -> None:
    """From elsewhere with the right branch, from the right address with another, and so on: every class of code."""
    one, other = Callee([(20, 100)]), Callee([(20, 100), (3_000, 180), (3_300, 200)])
    await station.buyer("acme", one, other)
    await station.start()
    far, near = await strangers()
    call = station.caller.invite("acme")
    for party in (one, other):
        invite = await party.wait(lambda m: m.method == "INVITE")
        for code in CODES:
            sender = far if route in ("another address", "neither") else near
            sender.send(forged(invite, code, route, sender.port), invite.source)
    await asyncio.sleep(1.2)
    facts = await station.facts(call.call_id, lambda _facts: True)
    kinds = {fact.kind for fact in facts}
    assert not kinds & {Kind.RINGING, Kind.ANSWERED, Kind.LEG_ENDED, Kind.FAULT, Kind.ENDED}, kinds
    assert (await station.caller.final(call)).code == 200
    assert not far.seen
    assert not near.seen
    invite = await other.wait(lambda m: m.method == "INVITE")
    for code in CODES:
        near.send(forged(invite, code, "another tag", near.port), invite.source)
        far.send(forged(invite, code, "neither", far.port), invite.source)
    await asyncio.sleep(0.5)
    other.hang_up(invite)
    facts = await station.closed(call.call_id)
    assert verdict(facts) == "failed/buyer_abandoned"
    assert not [fact for fact in facts if fact.kind in (Kind.FAULT, Kind.ANSWERED_LATE)]
    assert [fact.leg for fact in facts if fact.kind is Kind.ANSWERED] == [2]
    assert [fact.leg for fact in facts if fact.kind is Kind.RINGING] == [2]
    wanted = {
        "another address": "address",
        "another branch": "unmatched",
        "neither": "address",
        "another tag": "unmatched",
    }
    async with asyncio.timeout(10):
        while dropped(station, wanted[route]) < 2 * len(CODES):
            await asyncio.sleep(0.2)
    assert "2125550123" not in station.log()
    for party in (far, near):
        party.close()


async def test_a_2xx_that_comes_again_or_late_or_from_a_second_dialog_is_still_ours(station: Station) -> None:
    """What the rule must not drop: retransmissions, which are ACKed again, and forks, which are ACKed and BYEd."""
    callee = Callee([(20, 180), (100, 200)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    invite = await callee.wait(lambda m: m.method == "INVITE")
    await callee.wait(lambda m: m.method == "ACK")
    for _ in range(2):
        callee.answer(invite, 200)
    callee.reply(invite, 200, body=sdp(40_000), tag="fork")
    await callee.wait(lambda m: m.method == "BYE" and "tag=fork" in m.header("To"))
    async with asyncio.timeout(10):
        while sum(m.method == "ACK" and "tag=t1" in m.header("To") for m in callee.seen) < 3:
            await asyncio.sleep(0.05)
    station.caller.bye(call)
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"
    assert not dropped(station, "address")
    assert not dropped(station, "unmatched")
    assert "answers_of_nobodys_calls" not in station.log()


async def test_what_we_send_cannot_be_guessed(station: Station) -> None:
    """Call-ID, tags and branch have 128 bits of chance each; the Call-ID begins with the leg that it is of."""
    callees = [Callee([(20, 180), (60, 486)]) for _ in range(5)]
    await station.buyer("acme", *callees)
    await station.start()
    for _ in range(4):
        call = station.caller.invite("acme")
        await station.caller.final(call)
        [*_, closed] = await station.closed(call.call_id)
        for number, callee in enumerate(callees, start=1):
            invite = list(callee.invites.values())[-1]
            assert re.fullmatch(rf"{closed.transfer}-{number}\.[a-p]{{32}}", invite.call_id)
    invites = [invite for callee in callees for invite in callee.invites.values()]
    secrets = [invite.call_id.partition(".")[2] for invite in invites]
    tags = [re.fullmatch(r".*;tag=([0-9a-f]{32})", invite.header("From")) for invite in invites]
    branches = [re.search(r"branch=z9hG4bKPj([0-9a-f]{32})(;|$)", invite.header("Via")) for invite in invites]
    assert all(tags)
    assert all(branches)
    for drawn in (secrets, [one and one[1] for one in tags], [one and one[1] for one in branches]):
        assert len(set(drawn)) == len(drawn) == 20
        for place in range(32):  # no character stands still, as a UUID's version does: 20 equal ones are 16 ** -19
            assert len({one[place] for one in drawn if one}) > 1


async def test_a_call_that_comes_back_to_us_keeps_its_answer(station: Station) -> None:
    """Our INVITE with its Call-ID arrives here again: 482, and the endpoint's own refusal is told apart from ours."""
    callee = Callee([(20, 100)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme")
    invite = await callee.wait(lambda m: m.method == "INVITE")
    back = station.caller.invite("acme", call_id=invite.call_id, tag="looped")
    assert (await station.caller.final(back)).code == 482
    callee.answer(invite, 486)
    facts = await station.closed(call.call_id)
    assert verdict(facts) == "failed/declined"
    ended = next(fact for fact in facts if fact.kind is Kind.LEG_ENDED)
    assert (ended.payload["code"], ended.payload["local"]) == (486, False)
