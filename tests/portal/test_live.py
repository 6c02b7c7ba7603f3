"""The live view over HTTP, against a real control socket and, for streams, a real server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from portal.http import event_stream
from portal.http.event_stream import EventStream
from portal.http.stream_limit import StreamLimit
from tests.portal.house import House, Served, bearer, live, served, view_of

KEEP_ALIVE_S = 0.5


async def test_each_sees_what_is_its_own(house: House) -> None:
    whole = await house.get("noc", "/live")
    assert (whole["router"], whole["transfers"], whole["slots_used"], whole["arrivals"]) == ("main", 2, 2, 0)
    assert [one["transfer"] for one in whole["live"]] == ["t-live", "t-other"]
    assert whole["live"][0]["next"] == {"timer": "ring", "leg": 0, "in_ms": 29_000}
    assert whole["trunks"][0]["name"] == "acme/pbx"
    own = await house.get("acme", "/live")
    assert (own["transfers"], own["trunks"], own["slots_max"], own["router"]) == (1, [], None, "")
    assert [(one["transfer"], one["dialer"], len(one["legs"])) for one in own["live"]] == [("t-live", "", 2)]
    assert (own["live"][0]["caller"], own["live"][0]["call_id"]) == ("", "")
    dialled = await house.get("west", "/live")
    assert [(one["transfer"], one["dialer"], one["next"]) for one in dialled["live"]] == [("t-live", "west", None)]
    assert [leg["endpoint"] for leg in dialled["live"][0]["legs"]] == ["caller"]


async def test_looking_often_asks_the_router_once(house: House) -> None:
    started = time.monotonic()
    for _ in range(20):
        await house.get("acme", "/live")
    assert house.router.asked <= (time.monotonic() - started) / 0.09 + 1


async def test_no_router_is_503_and_another_look_finds_it(house: House) -> None:
    view, house.router.view = house.router.view, None
    found = await house.ask("noc", "GET", "/live")
    assert (found.status_code, found.headers["retry-after"]) == (503, "5")
    house.router.view = view
    time.sleep(0.1)
    assert (await house.ask("noc", "GET", "/live")).status_code == 200


class Watcher:
    """A stream, read as it comes."""

    def __init__(self, response: httpx.Response) -> None:
        self.lines = response.iter_lines()
        self.comments = 0

    def event(self) -> tuple[str, Any]:
        """The next event and its data."""
        name, data = "", b""
        for line in self.lines:
            if line.startswith(":"):
                self.comments += 1
            elif line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data = line.removeprefix("data: ").encode()
            elif not line and name:
                return name, orjson.loads(data)
        return "", None


@contextlib.contextmanager
def _watch(portal: Served, who: str) -> Iterator[Watcher]:
    with httpx.stream("GET", f"{portal.url}/v1/live/events", headers=bearer(who), timeout=20) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        yield Watcher(response)


@pytest.fixture
def portal(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, keep_alive_s=KEEP_ALIVE_S, streams=StreamLimit(5, 3)) as one:
        yield one


def _until(what: Any, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stream_tells_what_changed_and_not_that_time_passes(portal: Served) -> None:
    router = portal.house.router
    with _watch(portal, "acme") as stream:
        name, first = stream.event()
        assert (name, [one["phase"] for one in first["live"]]) == ("live", ["ringing"])
        router.view = view_of(live("t-live", "acme", age_ms=5_000), live("t-other", "best", phase="talking"))
        time.sleep(0.5)  # it grew older, and what else there is is another's
        router.view = view_of(live("t-live", "acme", phase="talking", age_ms=6_000))
        name, second = stream.event()
        assert (name, [one["phase"] for one in second["live"]], second["transfers"]) == ("live", ["talking"], 1)
        router.view = None
        assert stream.event() == ("away", {})
        router.view = view_of()
        assert stream.event()[1]["live"] == []


def test_a_quiet_stream_is_kept_open(portal: Served) -> None:
    with _watch(portal, "noc") as stream:
        stream.event()
        time.sleep(3 * KEEP_ALIVE_S)
        portal.house.router.view = view_of()
        stream.event()
        assert 1 <= stream.comments <= 10


def test_one_poll_serves_all_streams_and_none_is_left_when_they_have_gone(portal: Served) -> None:
    house = portal.house
    with _watch(portal, "noc") as one, _watch(portal, "noc") as two, _watch(portal, "acme") as three:
        for stream in (one, two, three):
            stream.event()
        before, started = house.router.asked, time.monotonic()
        time.sleep(1)
        polls, seconds = house.router.asked - before, time.monotonic() - started
        assert 1 <= polls <= seconds / 0.09 + 2
        assert house.streams.count == 3
    _until(lambda: house.streams.count == 0)
    time.sleep(0.3)
    before = house.router.asked
    time.sleep(0.5)
    assert house.router.asked == before, "nobody looks, nobody asks"


def test_streams_are_bounded_by_token_and_in_all(portal: Served) -> None:
    with contextlib.ExitStack() as open_:
        watchers = [open_.enter_context(_watch(portal, who)) for who in ("noc", "noc", "noc", "acme", "west")]
        assert [one.event()[0] for one in watchers] == ["live"] * 5
        for who, status in (("noc", 429), ("best", 503)):
            with httpx.stream("GET", f"{portal.url}/v1/live/events", headers=bearer(who), timeout=20) as found:
                pass
            assert (found.status_code, found.headers["content-type"]) == (status, "application/problem+json")
            assert found.headers["retry-after"] == "5"
    _until(lambda: portal.house.streams.count == 0)
    with _watch(portal, "noc") as stream:
        assert stream.event()[0] == "live"


def test_a_stream_ends_with_the_portal(tmp_path: Path) -> None:
    portal = Served(tmp_path)
    portal.start()
    with _watch(portal, "noc") as stream:
        stream.event()
        started = time.monotonic()
        portal.stop()
        assert stream.event() == ("", None), "it ended as a stream ends, not broken off"
        assert time.monotonic() - started < 10


def test_it_takes_a_token(portal: Served) -> None:
    assert httpx.get(f"{portal.url}/v1/live/events").status_code == 401
    assert httpx.get(f"{portal.url}/v1/live").status_code == 401


@pytest.mark.parametrize("version", ["2.3", "2.4"])
async def test_a_client_that_takes_nothing_is_left(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "SEND_S", 0.05)

    async def events() -> AsyncIterator[bytes]:
        while True:
            yield b"data: x\n\n"

    async def never(_message: Any = None) -> Any:
        await asyncio.Event().wait()

    scope = {"type": "http", "path": "/v1/live/events", "asgi": {"spec_version": version}}
    await asyncio.wait_for(EventStream(events())(scope, never, never), 5)
