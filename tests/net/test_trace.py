"""`baton trace`: the messages of one transfer as a running router still has them, masked, and no more than fit."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from tests.net.conftest import Station
from tests.net.peer import Callee

pytestmark = pytest.mark.net


async def _trace(station: Station, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "baton", "trace", *words, "--config", str(station.config)]
    done = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await asyncio.wait_for(done.communicate(), 30)
    return done.returncode or 0, output.decode()


async def test_every_message_of_a_transfer_is_shown_in_order_and_masked(station: Station) -> None:
    answering, ringing = Callee([(20, 180), (200, 200)]), Callee([(20, 180)])
    await station.buyer("acme", answering, ringing, each='lead_headers = ["first_name"]')
    await station.start()
    lead = ("X-Lead-First-Name: Ann", "X-Lead-Phone: 2125550177")
    await station.caller.final(station.caller.invite("nobody", number="+13105550144"))
    call = station.caller.invite("acme", headers=lead)
    assert (await station.caller.final(call)).code == 200
    station.caller.bye(call)
    [*_, closed] = await station.closed(call.call_id)

    code, shown = await _trace(station, closed.transfer)
    assert code == 0, shown
    lines = shown.splitlines()
    assert "INVITE sip:acme@" in lines[0]
    assert [line.split()[2] for line in lines[:1]] == ["dialer"]
    for wanted in ("e1               -> UDP:127.0.0.1", "e2               -> UDP:127.0.0.1"):
        assert any(wanted in line and "INVITE" in line for line in lines), shown
    assert any("e2" in line and "CANCEL" in line for line in lines)
    assert any("dialer" in line and "<-" in line and "BYE" in line for line in lines)
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times)

    code, whole = await _trace(station, closed.transfer, "--full")
    assert code == 0
    for hidden in ("2125550123", "2125550177", "Ann", "3105550144"):
        assert hidden not in whole
    assert "X-Lead-First-Name: ***" in whole
    assert "m=audio" in whole
    found = json.loads((await _trace(station, closed.transfer, "--json"))[1])
    assert {one["leg"] for one in found["messages"]} == {"dialer", "e1", "e2"}
    assert found["messages"][0]["received"]
    assert found["messages"][0]["at_utc_us"] > 1_700_000_000_000_000
    code, shown = await _trace(station, "nobody")
    assert (code, "there is no transfer 'nobody'" in shown) == (1, True)


async def test_the_oldest_messages_give_way_and_the_newest_are_whole(station: Station) -> None:
    station.router_section = "trace_mb = 1"
    await station.buyer("acme", Callee([(20, 486)]))
    await station.start()
    first = station.caller.invite("acme")
    await station.caller.final(first)
    filler = tuple(f"X-Filler-{number}: {'x' * 190}" for number in range(10))
    for _ in range(30):  # each about 2.4 kB and its answer: more than 1 MiB in all
        calls = [station.caller.invite("nobody", headers=filler) for _ in range(20)]
        for call in calls:
            await station.caller.final(call)
    last = station.caller.invite("acme")
    await station.caller.final(last)
    gone, kept = (await station.closed(first.call_id))[-1], (await station.closed(last.call_id))[-1]
    code, shown = await _trace(station, gone.transfer)
    assert code == 1
    assert "has none of its messages any more" in shown
    code, shown = await _trace(station, kept.transfer)
    assert code == 0
    heads = [" ".join(line.split()[5:7]) for line in shown.splitlines()]
    assert heads[0].startswith("INVITE")
    assert any("486" in line for line in shown.splitlines())
    assert any("ACK" in line for line in shown.splitlines())


async def test_a_router_that_keeps_none_says_so(station: Station) -> None:
    station.router_section = "trace_mb = 0"
    await station.buyer("acme", Callee([(20, 486)]))
    await station.start()
    call = station.caller.invite("acme")
    await station.caller.final(call)
    [*_, closed] = await station.closed(call.call_id)
    code, shown = await _trace(station, closed.transfer)
    assert (code, "router.trace_mb" in shown) == (1, True)
