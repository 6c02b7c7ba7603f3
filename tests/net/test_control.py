"""A router that runs, steered: looked at, given its file anew, drained; and the HTTP API beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from baton.demo.parties import free_port
from baton.process.control import NoRouterError, RefusedError, ask
from facts.fact import Fact, Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import Callee, Caller, Message

pytestmark = pytest.mark.net
TOKEN = "a-token-of-thirty-two-characters!"
AUTH = {"Authorization": f"Bearer {TOKEN}"}


def _socket(station: Station) -> Path:
    return station.folder / "data" / "router-test.sock"


async def _live(station: Station) -> dict[str, Any]:
    return await ask(_socket(station), {"do": "live"})


async def _until(station: Station, phase: str, within_s: float = 5.0) -> dict[str, Any]:
    """The one live transfer, once its phase is this."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = (await _live(station))["live"]
        if found and found[0]["phase"] == phase:
            assert len(found) == 1
            one: dict[str, Any] = found[0]
            return one
        await asyncio.sleep(0.02)
    raise AssertionError(station.log())


async def _baton(*words: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "baton", *map(str, words)]
    done = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await asyncio.wait_for(done.communicate(), 30)
    return done.returncode or 0, output.decode()


async def _options(station: Station, user: str) -> Message:
    asked = station.caller.ask(user)
    return await station.caller.wait(lambda m: m.call_id == asked.call_id and m.is_response)


async def test_live_shows_a_call_that_rings_and_then_talks(station: Station) -> None:
    answering, ringing = Callee([(20, 180), (900, 200)]), Callee([(20, 180)])
    await station.buyer("acme", answering, ringing)
    await station.start()
    assert stat.S_IMODE(_socket(station).stat().st_mode) == 0o600
    call = station.caller.invite("acme", headers=("X-Call-Id: prospect-7",))
    await answering.wait(lambda m: m.method == "INVITE")
    await asyncio.sleep(0.2)
    one = await _until(station, "ringing")
    assert (one["campaign"], one["buyer"], one["dialer"], one["call_id"]) == ("acme", "acme", "tests", "prospect-7")
    assert one["caller"] == "***0123"
    assert [(leg["endpoint"], leg["phase"]) for leg in one["legs"]] == [
        ("caller", "ringing"),
        ("e1", "ringing"),
        ("e2", "ringing"),
    ]
    assert 0 < one["legs"][1]["phase_ms"] <= one["dialout_ms"] <= one["age_ms"]
    assert one["next"]["timer"] == "ring"
    assert 28_000 < one["next"]["in_ms"] <= 30_000
    code, shown = await _baton("live", station.config)
    assert code == 0, shown
    assert one["transfer"] in shown
    assert "+12125550123" not in shown
    assert (await station.caller.final(call)).code == 200
    one = await _until(station, "talking")
    assert [leg["phase"] for leg in one["legs"]] == ["answered", "won", "ended"]
    assert one["next"]["timer"] in ("talk", "rtp")
    whole = json.loads((await _baton("live", station.config, "--json"))[1])
    assert (whole["transfers"], whole["draining"], whole["slots_max"]) == (1, False, 100)
    assert whole["slots_used"] >= 2
    station.caller.bye(call)
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"
    assert (await _live(station))["live"] == []
    await station.stop()
    assert not _socket(station).exists()
    code, shown = await _baton("live", station.config)
    assert (code, "no router answers at" in shown) == (1, True)


async def test_a_greeted_caller_is_shown_as_arriving(station: Station) -> None:
    with wave.open(str(station.folder / "hello.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 8000 * 2))
    await station.buyer("acme", Callee([(20, 180), (60, 486)]), campaign='greeting_file = "hello.wav"')
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    found = await _live(station)
    assert (found["arrivals"], found["transfers"]) == (1, 0)
    assert [(one["campaign"], one["caller"], one["stage"]) for one in found["arriving"]] == [
        ("acme", "***0123", "greeting")
    ]
    assert verdict(await station.closed(call.call_id)) == "failed/declined"


async def test_a_socket_that_a_dead_router_left_is_replaced(station: Station) -> None:
    await station.buyer("acme", Callee([]))
    await station.start()
    await station.kill()
    assert _socket(station).exists()
    with pytest.raises(NoRouterError, match="no router answers"):
        await _live(station)
    await station.start()
    assert (await _live(station))["router"] == "test"


async def test_reload_adds_a_dialer_and_drops_no_call(station: Station) -> None:
    callee = Callee([(20, 180), (60, 200)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    late = Caller(station.port)
    late.host = "127.0.0.2"
    await late.open(host="127.0.0.2")
    try:
        late.invite("acme")
        await asyncio.sleep(0.3)
        assert not late.seen, "an unknown source is dropped"
        text = station.config.read_text()
        station.config.write_text(text.replace('["127.0.0.1/32"]', '["nowhere"]'))
        code, said = await _baton("reload", station.config)
        assert (code, "dialers[0]" in said) == (1, True)
        more = '[[dialers]]\nname = "late"\nallow = ["127.0.0.2/32"]\n'
        station.config.write_text(
            text.replace("max_calls = 100", "max_calls = 50").replace("[store]", f"{more}[store]")
        )
        code, said = await _baton("reload", station.config)
        assert (code, said.splitlines()) == (0, ["in force: dialers.late", "needs a restart: router.max_calls"])
        second = late.invite("acme")
        assert (await late.final(second)).code == 200
        assert len((await _live(station))["live"]) == 2
        station.config.write_text(text)
        assert station.process is not None
        station.process.send_signal(signal.SIGHUP)
        await _logged(station, '"reloaded"', 2)
        assert (await ask(_socket(station), {"do": "reload"})) == {"applied": [], "needs_restart": []}
        assert [one["phase"] for one in (await _live(station))["live"]] == ["talking", "talking"]
        late.bye(second)
        station.caller.bye(call)
        facts = await station.closed(second.call_id)
        assert facts[0].payload["dialer"] == "late"
        assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"
    finally:
        late.close()


async def _logged(station: Station, what: str, times: int) -> None:
    for _ in range(100):
        if station.log().count(what) >= times:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(station.log())


async def test_drain_refuses_new_calls_and_leaves_with_the_last_one(station: Station) -> None:
    await station.buyer("acme", Callee([(20, 180), (60, 200)]))
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    assert await _baton("drain", station.config) == (0, "draining, 1 call up\n")
    refused = station.caller.invite("acme")
    final = await station.caller.final(refused)
    assert (final.code, final.header("X-Baton-Reason")) == (503, "draining")
    assert final.header("Retry-After")
    options = await _options(station, "acme")
    assert (options.code, options.header("Retry-After")) == (503, "5")
    assert (await _baton("availability", "acme", "--config", station.config))[0] == 1
    assert (await _baton("drain", station.config, "--off"))[1] == "taking calls again, 1 call up\n"
    assert (await _options(station, "acme")).code == 200
    code, said = await _baton("drain", station.config, "--exit")
    assert (code, said) == (0, "draining, 1 call up; the router ends with the last\n")
    await asyncio.sleep(0.5)
    assert station.process is not None
    assert station.process.returncode is None
    station.caller.bye(call)
    assert await asyncio.wait_for(station.process.wait(), 10) == 0
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"


async def test_a_drain_within_a_bound_ends_what_is_up(station: Station) -> None:
    await station.buyer("acme", Callee([(20, 180), (60, 200)]))
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    await ask(_socket(station), {"do": "drain", "on": True, "exit": True, "within_s": 1})
    assert station.process is not None
    assert await asyncio.wait_for(station.process.wait(), 10) == 0
    assert verdict(await station.closed(call.call_id)) == "fault/router_fault"


async def test_options_and_the_socket_say_who_would_take_a_call(station: Station) -> None:
    await station.buyer("acme", Callee([]))
    await station.buyer("shut", Callee([]), more='state = "paused"')
    await station.start()
    for campaign, code, word, reason in (("acme", 200, "yes", ""), ("shut", 480, "no", "paused")):
        said = await _options(station, campaign)
        assert (said.code, said.header("X-Baton-Available"), said.header("X-Baton-Reason")) == (code, word, reason)
        found = await ask(_socket(station), {"do": "availability", "campaign": campaign})
        assert (found["available"], found["reason"]) == (code == 200, reason)
    assert found["refusals"][0]["buyer"] == "shut"
    code, shown = await _baton("availability", "shut", "--config", station.config)
    assert (code, shown.splitlines()[0]) == (1, "shut: no (paused)")
    assert (await _baton("availability", "acme", "--config", station.config))[0] == 0
    with pytest.raises(RefusedError, match="no such command"):
        await ask(_socket(station), {"do": "fly"})


@pytest.fixture
async def portal(station: Station) -> AsyncIterator[httpx.AsyncClient]:
    """A station with a portal beside the router, both running; the client has a token."""
    port = free_port()
    station.section(
        f'[portal]\nport = {port}\n[[portal.tokens]]\nname = "west"\nsecret = "{TOKEN}"\ndialer = "tests"\n'
    )
    await station.buyer("acme", Callee([(20, 180), (60, 200)]))
    await station.start()
    with (station.folder / "portal.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "baton.process.child", "portal", str(station.config),
            stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        for _ in range(200):
            assert process.returncode is None, (station.folder / "portal.log").read_text()
            try:
                if (await client.get("/v1/health")).status_code == 200:
                    break
            except httpx.TransportError:
                await asyncio.sleep(0.05)
        yield client
    os.kill(process.pid, signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_a_reload_takes_a_token_away_and_ends_its_streams(station: Station, portal: httpx.AsyncClient) -> None:
    async with portal.stream("GET", "/v1/events", headers={**AUTH, "Accept": "text/event-stream"}) as stream:
        assert stream.status_code == 200
        text = station.config.read_text()
        station.config.write_text(text.replace(TOKEN, TOKEN[::-1]).replace('name = "west"', 'name = "later"'))
        code, said = await _baton("reload", station.config)
        assert (code, said) == (0, "in force: portal.tokens\n")
        async with asyncio.timeout(20):
            async for _ in stream.aiter_bytes():
                pass  # to its end
    assert (await portal.get("/v1/transfers", headers=AUTH)).status_code == 401
    found = await portal.get("/v1/transfers", headers={"Authorization": f"Bearer {TOKEN[::-1]}"})
    assert found.status_code == 200
    station.config.write_text(text.replace("port = ", "port = -", 1))
    code, said = await _baton("reload", station.config)
    assert code == 1, said
    assert (await portal.get("/v1/transfers", headers=AUTH)).status_code == 401, "a bad file gives no token back"


async def test_a_lead_that_was_posted_is_in_the_facts_of_its_call(station: Station, portal: httpx.AsyncClient) -> None:
    lead = {"phone": "(212) 555-0177", "First-Name": "Ann", "state": "NY"}
    posted = await portal.post("/v1/leads", json=lead, headers={**AUTH, "Idempotency-Key": "k1"})
    assert posted.status_code == 201, posted.text
    again = await portal.post("/v1/leads", json=lead, headers={**AUTH, "Idempotency-Key": "k1"})
    assert (again.status_code, again.json()) == (200, posted.json())
    started = await _started(station, f"X-Lead-Id: {posted.json()['lead_id']}")
    assert started.payload["phone"] == "+12125550177"
    assert (started.payload["lead"]["first_name"], started.payload["lead"]["state"]) == ("Ann", "NY")
    assert "lead_problems" not in started.payload
    lost = await _started(station, "X-Lead-Id: nobody", "X-Lead-First-Name: Bo", code=400)
    assert lost.payload["lead"]["first_name"] == "Bo"
    assert "X-Lead-Id is not one id, is not known" in lost.payload["lead_problems"][0]


async def _started(station: Station, *headers: str, code: int = 200) -> Fact:
    """The first fact of a call with these headers, which is answered and ended, or refused."""
    call = station.caller.invite("acme", headers=headers)
    assert (await station.caller.final(call)).code == code
    if code < 300:
        station.caller.bye(call)
    facts = await station.closed(call.call_id)
    assert facts[0].kind is Kind.TRANSFER_STARTED
    return facts[0]


async def test_availability_over_http_is_the_routers_and_503_without_one(
    station: Station, portal: httpx.AsyncClient
) -> None:
    found = await portal.get("/v1/availability", params={"campaign": "acme"}, headers=AUTH)
    assert (found.status_code, found.json()) == (200, {"available": True, "reason": "", "refusals": []})
    found = await portal.get("/v1/availability", params={"campaign": "none"}, headers=AUTH)
    assert (found.status_code, found.json()["reason"]) == (200, "no_buyer")
    await station.stop()
    found = await portal.get("/v1/availability", params={"campaign": "acme"}, headers=AUTH)
    assert (found.status_code, found.headers["content-type"]) == (503, "application/problem+json")
    assert found.headers["retry-after"] == "5"


async def test_a_stream_over_http_shows_a_call_come_and_go_without_its_buyers_side(
    station: Station, portal: httpx.AsyncClient
) -> None:
    async with portal.stream("GET", "/v1/live/events", headers=AUTH, timeout=20) as stream:
        assert stream.status_code == 200
        lines = stream.aiter_lines()
        assert (await _event(lines))["live"] == []
        call = station.caller.invite("acme")
        assert (await station.caller.final(call)).code == 200
        shown = await _event(lines)
        while shown["live"][0]["phase"] != "talking":
            shown = await _event(lines)
        one = shown["live"][0]
        assert (one["dialer"], one["buyer"], one["caller"]) == ("tests", "acme", "***0123")
        assert ([leg["endpoint"] for leg in one["legs"]], one["next"], shown["trunks"]) == (["caller"], None, [])
        now = (await portal.get("/v1/live", headers=AUTH)).json()
        assert [each["transfer"] for each in now["live"]] == [one["transfer"]]
        station.caller.bye(call)
        while shown["live"]:
            shown = await _event(lines)


async def _event(lines: AsyncIterator[str]) -> dict[str, Any]:
    """What the next event `live` of a stream has."""
    name = ""
    async for line in lines:
        name = line.removeprefix("event: ") if line.startswith("event: ") else name
        if line.startswith("data: ") and name == "live":
            found: dict[str, Any] = json.loads(line.removeprefix("data: "))
            return found
    raise AssertionError("the stream has ended")
