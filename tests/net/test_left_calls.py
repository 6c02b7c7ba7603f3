"""What a router that is killed leaves up, the next one ends: CANCEL, BYE and a final answer, over real SIP."""

from __future__ import annotations

import asyncio
import re
import resource
import stat
from functools import partial
from pathlib import Path

import pytest

from facts.fact import Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import HOST, Call, Callee, Message
from tests.net.streams import StreamCallee

pytestmark = pytest.mark.net
WHY = 'SIP;cause=503;text="Router restarted"'


def file_of(station: Station) -> Path:
    return station.folder / "data" / "router-test.dialogs"


def plain(address: str) -> str:
    """An address without its angle brackets, which change nothing (RFC 3261 section 20)."""
    return address.replace("<", "").replace(">", "")


def cseq(message: Message) -> int:
    return int(message.header("CSeq").split()[0])


async def up(station: Station, *, over: str = "udp", late: bool = False) -> tuple[Call, Call, Callee, Callee]:
    """One call that talks and one that rings; the dialer and both endpoints."""
    takes, rings, each = Callee([(20, 180), (60, 200)]), Callee([(20, 180)], late=late), ""
    if over == "tcp":
        takes, rings, each = StreamCallee([(20, 180), (60, 200)]), StreamCallee([(20, 180)]), 'transport = "tcp"'
    takes.tag, rings.tag = "t" * 300, "r" * 300
    await station.buyer("takes", takes, each=each)
    await station.buyer("rings", rings, each=each)
    await station.start()
    talking = station.caller.invite("takes", headers=("X-Lead-First-Name: Ann", "X-Lead-Phone: 2125550177"))
    assert (await station.caller.final(talking)).code == 200
    await station.facts(talking.call_id, lambda facts: any(one.kind is Kind.BRIDGED for one in facts))
    ringing = station.caller.invite("rings")
    await station.caller.wait(lambda m: m.call_id == ringing.call_id and m.code == 180)
    return talking, ringing, takes, rings


async def cancelled(rings: Callee) -> None:
    """CANCEL as RFC 3261 section 9.1 wants it, and the ACK of the 487 that follows (RFC 3261 section 17.1.1.3)."""
    invite = await rings.wait(lambda m: m.method == "INVITE")
    cancel = await rings.wait(lambda m: m.method == "CANCEL")
    assert cancel.start == invite.start.replace("INVITE", "CANCEL", 1)
    for name in ("From", "To", "Call-ID"):
        assert plain(cancel.header(name)) == plain(invite.header(name))
    branch = re.search(r"branch=[^;]+", invite.header("Via"))
    assert branch is not None
    assert branch[0] in cancel.header("Via")
    assert cancel.header("Via").split(";")[0] == invite.header("Via").split(";")[0]
    assert (cseq(cancel), cancel.header("Reason")) == (cseq(invite), WHY)
    if not rings.late:
        ack = await rings.wait(lambda m: m.method == "ACK")
        assert branch[0] in ack.header("Via")
        assert (cseq(ack), plain(ack.header("To"))) == (cseq(invite), plain(f"{invite.header('To')};tag={rings.tag}"))


async def hung_up(takes: Callee) -> None:
    """BYE in the endpoint's dialog, with a CSeq that was not used."""
    invite = await takes.wait(lambda m: m.method == "INVITE")
    bye = await takes.wait(lambda m: m.method == "BYE")
    assert bye.start == f"BYE sip:x@{HOST}:{takes.port}{takes.params} SIP/2.0"
    assert plain(bye.header("From")) == plain(invite.header("From"))
    assert plain(bye.header("To")) == plain(f"{invite.header('To')};tag={takes.tag}")
    assert (bye.call_id, bye.header("Reason")) == (invite.call_id, WHY)
    assert cseq(bye) > max(cseq(m) for m in takes.seen if not m.is_response and m.method != "BYE")


async def dialer_freed(station: Station, talking: Call, ringing: Call) -> None:
    """BYE for the call that talked, 503 for the one that waited."""
    caller = station.caller
    bye = await caller.wait(lambda m: m.call_id == talking.call_id and m.method == "BYE")
    assert bye.header("To").endswith(";tag=f1")
    assert bye.header("From").partition(";tag=")[2] == talking.to.partition(";tag=")[2]
    assert bye.header("Reason") == WHY
    final = await caller.final(ringing)
    assert (final.code, final.header("Reason")) == (503, WHY)
    rang = next(m for m in ringing.seen if m.code == 180)
    assert plain(final.header("To")) == plain(rang.header("To"))


@pytest.mark.parametrize("late", [False, True])
async def test_what_a_killed_router_left_up_is_ended_by_the_next(station: Station, late: bool) -> None:
    talking, ringing, takes, rings = await up(station, late=late)
    path = file_of(station)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = path.read_bytes()
    assert kept
    for hidden in (b"Ann", b"X-Lead", b"m=audio"):
        assert hidden not in kept
    await station.kill()
    await station.start()
    await asyncio.gather(cancelled(rings), hung_up(takes), dialer_freed(station, talking, ringing))
    if late:  # its 2xx came after the kill: ACK and BYE
        await rings.wait(lambda m: m.method == "ACK")
        bye = await rings.wait(lambda m: m.method == "BYE")
        assert bye.header("To").endswith(f";tag={rings.tag}")
    for call in (talking, ringing):
        assert verdict(await station.closed(call.call_id)) in ("fault/interrupted", "fault/router_fault")
    assert re.search(
        r'"cancel":1,"bye":2,"refused":1,"unsent":0,"unreadable":0.*calls_of_a_dead_router_ended', station.log()
    )
    await _once_only(station, takes, rings)


async def _once_only(station: Station, takes: Callee, rings: Callee) -> None:
    """Another router finds nothing; calls go on as ever."""
    await asyncio.sleep(1.5)
    before = [sum(m.method in ("BYE", "CANCEL") for m in one.seen) for one in (takes, rings)]
    await station.kill()
    await station.start()
    call = station.caller.invite("takes")
    assert (await station.caller.final(call)).code == 200
    assert [sum(m.method in ("BYE", "CANCEL") for m in one.seen) for one in (takes, rings)] == before
    station.caller.bye(call)
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"
    assert station.log().count("calls_of_a_dead_router_ended") == 1


async def test_over_tcp_a_new_connection_is_made(station: Station) -> None:
    talking, ringing, takes, rings = await up(station, over="tcp")
    await station.kill()
    await station.start()
    await asyncio.gather(cancelled(rings), hung_up(takes), dialer_freed(station, talking, ringing))


async def test_what_was_over_is_not_ended_again(station: Station) -> None:
    """However a call ended: by either party, refused, cancelled; only what is up at the kill is touched."""
    takes, rings, refuses = Callee([(20, 180), (60, 200)]), Callee([(20, 180)]), Callee([(20, 180), (60, 486)])
    for name, callee in (("takes", takes), ("rings", rings), ("refuses", refuses)):
        await station.buyer(name, callee)
    await station.start()
    caller = station.caller
    for by in ("dialer", "endpoint"):
        call = caller.invite("takes")
        assert (await caller.final(call)).code == 200
        await station.facts(call.call_id, lambda facts: any(one.kind is Kind.BRIDGED for one in facts))
        caller.bye(call) if by == "dialer" else takes.hang_up(list(takes.invites.values())[-1])
        await station.closed(call.call_id)
    call = caller.invite("rings")
    await caller.wait(lambda m, call=call: m.call_id == call.call_id and m.code == 180)  # type: ignore[misc]
    caller.cancel(call)
    await station.closed(call.call_id)
    call = caller.invite("refuses")
    assert (await caller.final(call)).code == 486
    await station.closed(call.call_id)
    await asyncio.sleep(1.0)
    parties = (takes, rings, refuses, caller)
    before = [sum(m.method in ("BYE", "CANCEL") and not m.is_response for m in one.seen) for one in parties]
    await station.kill()
    await station.start()
    await asyncio.sleep(1.0)
    assert [sum(m.method in ("BYE", "CANCEL") and not m.is_response for m in one.seen) for one in parties] == before
    assert "calls_of_a_dead_router_ended" not in station.log()


async def test_a_record_that_cannot_be_read_is_told_and_the_others_are_ended(station: Station) -> None:
    talking, ringing, takes, rings = await up(station)
    await station.kill()
    path = file_of(station)
    whole = path.read_bytes()
    path.write_bytes(b"no record\n" + whole + whole[: whole.index(b"\n") + 20])  # and one that a kill has torn
    await station.start()
    await asyncio.gather(cancelled(rings), hung_up(takes), dialer_freed(station, talking, ringing))
    found = re.search(r'"unreadable":(\d+).*calls_of_a_dead_router_ended', station.log())
    assert found is not None
    assert int(found[1]) == 2


@pytest.mark.parametrize("seed", range(3))
async def test_a_file_of_nonsense_stops_nothing(station: Station, seed: int) -> None:
    import random

    chance = random.Random(seed)
    await station.buyer("acme", Callee([(20, 486)]))
    await station.start()
    await station.kill()
    junk = b"".join(
        chance.choice((b"deadbeef 12\n1:I,\n", b"00000000 0\n\n", chance.randbytes(40), b"99999999 9999999\n", b"\n"))
        for _ in range(400)
    )
    file_of(station).write_bytes(junk)
    await station.start()
    assert (await station.caller.final(station.caller.invite("acme"))).code == 486
    assert "calls_of_a_dead_router_ended" in station.log()


async def test_what_a_full_disk_kept_out_of_the_file_is_written_once_there_is_room(station: Station) -> None:
    """Records that are missing or torn, and what stands behind a torn one."""
    takes = Callee([(20, 180), (60, 200)])
    await station.buyer("takes", takes)
    await station.start()
    assert station.process is not None
    path = file_of(station)
    with path.open("ab") as file:  # the limit is of every file: this one has to be the largest
        file.write(b"none\n" * 2_000_000)
    full = (path.stat().st_size + 100, resource.RLIM_INFINITY)
    resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE, full)
    calls = [station.caller.invite("takes")]
    assert (await station.caller.final(calls[0])).code == 200
    resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    calls.append(station.caller.invite("takes"))
    assert (await station.caller.final(calls[1])).code == 200
    await asyncio.sleep(2.5)
    await station.kill()
    await station.start()
    for call in calls:
        await station.caller.wait(partial(_is_bye_of, call.call_id))
    for call_id in takes.invites:
        await takes.wait(partial(_is_bye_of, call_id))
    assert "dialogs_not_written" in station.log()
    assert not path.with_name(f"{path.name}.new").exists()


def _is_bye_of(call_id: str, message: Message) -> bool:
    return message.method == "BYE" and message.call_id == call_id
