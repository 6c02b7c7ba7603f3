"""Keys of any length and spelling, over UDP and TCP, on both sides: what ends a call finds it, and it is billed right.

A key is what a message is matched by: Call-ID, the tags of From and To, the branch of Via. RFC 3261 section 25.1 gives
their characters and no length.
"""

from __future__ import annotations

import itertools

import pytest

from baton.demo.parties import free_port
from facts.fact import Fact, Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import HOST, Call, Callee, Caller
from tests.net.streams import StreamCallee, StreamCaller
from tests.net.test_trace import _trace

pytestmark = pytest.mark.net

# 200, 240, 256 and 1,000 were lengths at which a key was cut; 128 is PJSIP's for what it shows of a Call-ID.
LENGTHS = (1, 129, 201, 241, 257, 1_001, 16_385, 60_000)
SHORT = 200  # at this nothing was ever cut
WORD = "abz019-.!%*_+`'~()<>:\\\"/[]?{}"  # word, of which Call-ID has one or two around an @
TOKEN = "abz019-.!%*_+`'~"  # of a tag
_unique = itertools.count(1)


def key(length: int, characters: str = "abcdefghijklmnopqrstuvwxyz") -> str:
    """A key of that length that differs from every other at its end only, where it is long enough."""
    serial = str(next(_unique)) if length > 4 else ""
    return (characters * (length // len(characters) + 1))[: length - len(serial)] + serial


async def parties(station: Station, over: str) -> tuple[Caller, Callee, Callee]:
    """A dialer, an endpoint that answers (campaign `takes`) and one that rings (campaign `rings`)."""
    script: tuple[list[tuple[float, int]], list[tuple[float, int]]] = ([(20, 180), (60, 200)], [(20, 180)])
    port, each = free_port(), ""
    takes, rings = Callee(script[0]), Callee(script[1])
    if over == "tcp":
        station.section(f'[[listeners]]\nname = "stream"\ntransport = "tcp"\naddress = "{HOST}"\nport = {port}\n')
        takes, rings, each = StreamCallee(script[0]), StreamCallee(script[1]), 'transport = "tcp"'
    await station.buyer("takes", takes, each=each)
    await station.buyer("rings", rings, each=each)
    await station.start()
    if over == "udp":
        return station.caller, takes, rings
    caller = StreamCaller(port)
    await caller.open()
    return caller, takes, rings


async def cancelled(station: Station, caller: Caller, rings: Callee, **keys: str) -> Call:
    """A call that its dialer cancels."""
    seen = len(rings.seen)
    call = caller.invite("rings", **keys)  # type: ignore[arg-type]
    await caller.wait(lambda m: m.call_id == call.call_id and m.code == 180)
    invite = next(m for m in rings.seen[seen:] if m.method == "INVITE")
    caller.cancel(call)
    assert (await caller.final(call)).code == 487
    await rings.wait(lambda m: m.method == "CANCEL" and m.call_id == invite.call_id)
    facts = await station.closed(call.call_id)
    assert (verdict(facts), how(facts)) == ("caller_abandoned/caller_gone", "caller cancel")
    return call


def how(facts: list[Fact]) -> str:
    """Who ended it, and by what message: one that is not matched makes it `vanished`."""
    end = next(one for one in facts if one.kind is Kind.ENDED)
    return f"{end.payload['by']} {end.payload['cause']}"


async def ended(station: Station, caller: Caller, takes: Callee, by: str, **keys: str) -> Call:
    """A call that was answered, and that one party ends."""
    seen = len(takes.seen)
    call = caller.invite("takes", **keys)  # type: ignore[arg-type]
    assert (await caller.final(call)).code == 200
    invite = next(m for m in takes.seen[seen:] if m.method == "INVITE")
    await station.facts(call.call_id, lambda facts: any(one.kind is Kind.BRIDGED for one in facts))
    if by == "dialer":
        caller.bye(call)
        await takes.wait(lambda m: m.method == "BYE" and m.call_id == invite.call_id)
        facts = await station.closed(call.call_id)
        assert (verdict(facts), how(facts)) == ("short_call/caller_ended", "caller bye")
    else:
        takes.hang_up(invite)
        await caller.wait(lambda m: m.method == "BYE" and m.call_id == call.call_id)
        facts = await station.closed(call.call_id)
        assert (verdict(facts), how(facts)) == ("failed/buyer_abandoned", "buyer bye")
    return call


@pytest.mark.parametrize("over", ["udp", "tcp"])
async def test_a_dialers_call_id_of_any_length(station: Station, over: str) -> None:
    caller, takes, rings = await parties(station, over)
    for length in LENGTHS:
        await cancelled(station, caller, rings, call_id=key(length))
        if length > SHORT:
            await ended(station, caller, takes, "dialer", call_id=key(length))
    await ended(station, caller, takes, "endpoint", call_id=key(60_000))


@pytest.mark.parametrize("over", ["udp", "tcp"])
async def test_a_dialers_tag_of_any_length(station: Station, over: str) -> None:
    caller, takes, rings = await parties(station, over)
    for length in LENGTHS:
        await cancelled(station, caller, rings, tag=key(length))
        if length > SHORT:
            await ended(station, caller, takes, "dialer", tag=key(length))
    await ended(station, caller, takes, "endpoint", tag=key(30_000), call_id=key(30_000))


@pytest.mark.parametrize("over", ["udp", "tcp"])
async def test_an_endpoints_tag_of_any_length(station: Station, over: str) -> None:
    caller, takes, rings = await parties(station, over)
    for length in LENGTHS:
        takes.tag = rings.tag = key(length)
        await ended(station, caller, takes, "endpoint")
        if length > SHORT:
            await cancelled(station, caller, rings)
            await ended(station, caller, takes, "dialer")


async def test_keys_of_every_character_that_they_may_have(station: Station) -> None:
    caller, takes, rings = await parties(station, "udp")
    for one in (WORD, "a%41b", "%zz", '"', "\\"):
        whole = f"{key(6)}{one}"
        await cancelled(station, caller, rings, call_id=whole)
        await ended(station, caller, takes, "dialer", call_id=f"{whole}@{whole}")
    for one in (TOKEN, "a%41b", "%", "%zz"):
        takes.tag = rings.tag = f"t{one}"
        await ended(station, caller, takes, "dialer", tag=f"f{one}")
        await ended(station, caller, takes, "endpoint", tag=f"f{one}")


async def test_one_call_id_for_two_calls_whose_tags_differ(station: Station) -> None:
    """A dialog is named by Call-ID and both tags (RFC 3261 section 12): each call has its own end."""
    caller, takes, rings = await parties(station, "udp")
    shared = key(20)
    first = caller.invite("rings", call_id=shared, tag="one")
    await caller.wait(lambda m: m.call_id == shared and m.code == 180)
    second = caller.invite("rings", call_id=shared, tag="two")
    await caller.wait(lambda m: m.call_id == shared and m.code == 180 and "tag=two" in m.header("From"))
    assert len(rings.invites) == 2
    caller.calls[shared] = first
    caller.cancel(first)
    await rings.wait(lambda m: m.method == "CANCEL")
    assert verdict(await station.closed(shared)) == "caller_abandoned/caller_gone"
    caller.cancel(second)
    await caller.wait(lambda m: m.code == 487 and "tag=two" in m.header("From"))
    assert not takes.invites


@pytest.mark.parametrize("length", [241, 60_000])
async def test_a_trace_finds_a_call_by_all_of_its_call_id(station: Station, length: int) -> None:
    caller, _, rings = await parties(station, "udp")
    call = await cancelled(station, caller, rings, call_id=f"{key(length - 1)}*")
    await cancelled(station, caller, rings, call_id=f"{call.call_id[:-1]}x")  # differs at its end only
    [*_, closed] = await station.closed(call.call_id)
    code, shown = await _trace(station, closed.transfer)
    assert code == 0, shown
    of_dialer = [line for line in shown.splitlines() if line.split()[2] == "dialer"]
    assert sum("INVITE" in line for line in of_dialer) == 1
    assert sum("CANCEL" in line for line in of_dialer) == 1
    assert any("e1" in line and "CANCEL" in line for line in shown.splitlines())


@pytest.mark.parametrize("pad", [" ", " \t "])
async def test_white_space_around_a_call_id_is_no_part_of_it(station: Station, pad: str) -> None:
    """LWS stands around a header's value (RFC 3261 section 25.1, HCOLON); another message need not have it."""
    caller, takes, _ = await parties(station, "udp")
    name = key(12)
    call = caller.invite("takes", call_id=f"{name}{pad}")
    caller.calls[name] = call
    assert (await caller.wait(lambda m: m.call_id == name and m.is_response and m.code >= 200)).code == 200
    call.call_id = name
    caller.bye(call)
    await takes.wait(lambda m: m.method == "BYE")
    assert verdict(await station.closed(name)) == "short_call/caller_ended"


@pytest.mark.parametrize("inside", [" ", "\x1f", "\x7f", "\u00e9"])
async def test_a_call_id_that_is_none_is_refused(station: Station, inside: str) -> None:
    """Characters that no word may have: two such keys could be taken for one. 400, and nobody is rung."""
    caller, takes, _ = await parties(station, "udp")
    caller.invite("takes", call_id=f"a{inside}b")
    refused = await caller.wait(lambda m: m.is_response and m.code >= 200 and m.code != 404)
    assert refused.code == 400
    assert not takes.invites
