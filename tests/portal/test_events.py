"""Events over HTTP: what each token sees, pages and streams, and that a break loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from jsonschema import Draft202012Validator

import meter.events.sql.feed
from meter.settling.follower import Follower
from portal.events.service import LIST
from portal.http.paging import encode, write_cursor
from portal.http.stream_limit import StreamLimit
from tests.facts_builder import UTC_0, Story, connected_story, failed_story
from tests.portal.house import House, Served, bearer, served
from tests.store.journal_tools import open_journal, write
from tests.store.meter.settling.test_follower import free_story

SCHEMAS = Path(__file__).parents[2] / "docs/mqtt"
BEGINNING = {"from": "2026-01-01T00:00:00Z"}
KEEP_ALIVE_S = 0.5


async def happen(house: House, *stories: Story, boot: str = "boot-2") -> None:
    """Written by a router's next boot, and settled."""
    journal = await open_journal(house.engine, boot, linger_ms=1)
    write(journal, *stories)
    await journal.close()
    follower = Follower(house.engine)
    await follower.catch_up()
    await follower.close()


def _ids(page: dict[str, Any]) -> list[str]:
    return [one["id"] for one in page["events"]]


async def _all(house: House, who: str, **params: Any) -> list[dict[str, Any]]:
    found, page = [], await house.get(who, "/events", **BEGINNING, **params)
    while True:
        assert set(page) == {"events", "next", "more"}
        found += page["events"]
        if not page["more"]:
            return found
        page = await house.get(who, "/events", cursor=page["next"], **params)


async def test_pages_go_on_from_each_other_and_the_feed_has_no_end(house: House) -> None:
    start = await house.get("noc", "/events")
    assert (start["events"], start["more"]) == ([], False), "from now on"
    await happen(house, connected_story("t-3"))
    first = await house.get("noc", "/events", cursor=start["next"], limit=2)
    assert (_ids(first), first["more"]) == (["t-3.started", "t-3.dialed"], True)
    second = await house.get("noc", "/events", cursor=first["next"])
    assert (_ids(second), second["more"]) == (["t-3.ringing", "t-3.answered.1", "t-3.outcome"], False)
    third = await house.get("noc", "/events", cursor=second["next"])
    assert (third["events"], third["more"], bool(third["next"])) == ([], False, True)
    assert _ids(await house.get("noc", "/events", cursor=first["next"])) == _ids(second), "a position holds"
    header = await house.ask("noc", "GET", "/events", headers={"Last-Event-ID": first["next"]})
    assert _ids(header.json()) == _ids(second)
    everything = await _all(house, "noc", limit=3)
    assert [one["id"] for one in everything if one["transfer"] == "t-3"] == [*_ids(first), *_ids(second)]
    assert {one["transfer"] for one in everything} == {"t-1", "t-2", "t-3"}
    assert {one["event"] for one in await _all(house, "noc", kinds=["outcome", "ringing"])} == {"outcome", "ringing"}


async def test_each_sees_its_own_and_of_it_what_it_may(house: House) -> None:
    start = (await house.get("noc", "/events"))["next"]
    await happen(
        house,
        failed_story("paid", dialer="west"),
        free_story("free"),
        connected_story("theirs", buyer="best", dialer="west"),
    )

    async def told(who: str) -> dict[str, dict[str, Any]]:
        return {one["id"]: one for one in (await house.get(who, "/events", cursor=start))["events"]}

    operator, buyer, dialer = await told("noc"), await told("acme"), await told("west")
    assert {one["transfer"] for one in operator.values()} == {"paid", "free", "theirs"}
    assert {one["phone"] for one in operator.values()} == {"+12125550123"}
    assert {one["transfer"] for one in buyer.values()} == {"paid", "free"}
    phones = {name: one["phone"] for name, one in buyer.items()}
    assert phones.pop("paid.outcome") == "+12125550123"
    assert set(phones.values()) == {""}
    assert {name for name, one in buyer.items() if one["call_id"]} == {"paid.outcome"}
    assert {(one["dialer"], one["router"]) for one in buyer.values()} == {("", "")}
    assert buyer["paid.started"]["sip_call_id"] == buyer["paid.outcome"]["sip_call_id"] == ""
    assert buyer["paid.started"]["endpoints"]
    assert {one["transfer"] for one in dialer.values()} == {"paid", "theirs"}
    assert {one["phone"] for one in dialer.values()} == {"+12125550123"}
    assert (dialer["paid.started"]["endpoints"], dialer["paid.ringing"]["endpoint"]) == ([], "")
    outcome = dialer["paid.outcome"]
    assert (outcome["buffer_ms"], outcome["terms_name"], outcome["terms_version"]) == (0, "", 0)
    assert await told("bolt") == {}


async def test_payloads_are_those_of_mqtt(house: House) -> None:
    for who in ("noc", "acme", "west"):
        for one in await _all(house, who):
            if one["event"] != "dialed":  # which is not published there
                schema = orjson.loads((SCHEMAS / f"{one['event']}.schema.json").read_bytes())
                Draft202012Validator(schema).validate(one)


@pytest.mark.parametrize(
    ("params", "headers", "field"),
    [
        ({"cursor": "x"}, {}, "cursor"),
        ({"cursor": "!"}, {}, "cursor"),
        ({"cursor": "a" * 30_000}, {}, "cursor"),
        ({"cursor": write_cursor("transfers", ["t-1"])}, {}, "cursor"),
        ({"cursor": encode([LIST])}, {}, "cursor"),
        ({"cursor": encode([LIST, ["r1", "boot-77"]])}, {}, "cursor"),
        ({"cursor": encode([LIST, ["r1", "boot-1"], ["r1", "boot-1", -1]])}, {}, "cursor"),
        ({"cursor": encode([LIST, ["r1", "boot-1"], ["r1", "boot-1", True]])}, {}, "cursor"),
        ({"cursor": encode([LIST, ["r1", "boot-1"], ["r1", "boot-1", 1 << 63]])}, {}, "cursor"),
        ({"cursor": encode([LIST, ["r1", "boot-1"], *[["r1", "boot-1", 1]] * 2])}, {}, "cursor"),
        ({"cursor": encode([LIST, ["r1", "a\0b"]])}, {}, "cursor"),
        ({"cursor": encode([LIST, "r1"])}, {}, "cursor"),
        ({}, {"Last-Event-ID": "x"}, "Last-Event-ID"),
        ({}, {"Last-Event-ID": encode([LIST, ["r9", "boot-1"]])}, "Last-Event-ID"),
        ({"from": "2026-06-02T10:00:00"}, {}, "from"),
        ({"limit": 0}, {}, "limit"),
        ({"kinds": "closed"}, {}, "kinds"),
    ],
)
async def test_what_is_asked_wrongly_is_named(
    house: House, params: dict[str, Any], headers: dict[str, str], field: str
) -> None:
    for accept in ("application/json", "text/event-stream"):
        found = await house.ask("noc", "GET", "/events", params=params, headers={"Accept": accept, **headers})
        assert (found.status_code, found.headers["content-type"]) == (422, "application/problem+json"), found.text
        assert [one["field"].partition(".")[0] for one in found.json()["errors"]][:1] == [field]


async def test_more_routers_than_a_position_names_is_503(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter.events.sql.feed, "MAX_BOOTS", 0)
    found = await house.ask("noc", "GET", "/events")
    assert (found.status_code, found.headers["retry-after"]) == (503, "5")


class Stream:
    """Server-sent events, read as they come."""

    def __init__(self, response: httpx.Response) -> None:
        self.lines = response.iter_lines()
        self.comments = 0
        self.last_id = ""

    def event(self) -> dict[str, Any]:
        """The next event's payload; what has no data moves `last_id` alone. Empty: the stream has ended."""
        name, data = "", b""
        for line in self.lines:
            field, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments += 1
            elif field == "event":
                name = value
            elif field == "data":
                data = value.encode()
            elif field == "id":
                self.last_id = value
            elif not line and data:
                payload: dict[str, Any] = orjson.loads(data)
                assert payload["event"] == name
                return payload
        return {}

    def take(self, count: int) -> list[str]:
        return [self.event()["id"] for _ in range(count)]


@contextlib.contextmanager
def _follow(portal: Served, who: str, last: str = "", **params: Any) -> Iterator[Stream]:
    headers = {**bearer(who), "Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    with httpx.stream("GET", f"{portal.url}/v1/events", headers=headers, params=params, timeout=20) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response)


@pytest.fixture
def portal(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, keep_alive_s=KEEP_ALIVE_S, streams=StreamLimit(6, 4)) as one:
        yield one


def _happen(portal: Served, *stories: Story, boot: str = "boot-2") -> None:
    house = portal.house
    assert house is not None
    asyncio.run_coroutine_threadsafe(happen(house, *stories, boot=boot), portal._loop).result(20)


def _kinds(transfer: str) -> list[str]:
    return [f"{transfer}.{what}" for what in ("started", "dialed", "ringing", "answered.1", "outcome")]


def test_a_stream_tells_what_happens_and_goes_on_after_a_break(portal: Served) -> None:
    with _follow(portal, "acme") as stream:
        _happen(portal, connected_story("t-3"), connected_story("other", buyer="best"))
        assert stream.take(2) == _kinds("t-3")[:2]
    with _follow(portal, "acme", stream.last_id) as again:
        assert again.take(3) == _kinds("t-3")[2:]
        _happen(portal, failed_story("t-4"), boot="boot-3")
        assert again.take(4) == [f"t-4.{what}" for what in ("started", "dialed", "ringing", "outcome")]
    whole = httpx.get(f"{portal.url}/v1/events", headers=bearer("acme"), params={"cursor": stream.last_id}).json()
    assert _ids(whole) == [*_kinds("t-3")[2:], "t-4.started", "t-4.dialed", "t-4.ringing", "t-4.outcome"]


def test_a_stream_from_the_beginning_has_what_the_pages_have(portal: Served) -> None:
    pages = httpx.get(f"{portal.url}/v1/events", headers=bearer("noc"), params=BEGINNING).json()
    with _follow(portal, "noc", **BEGINNING) as stream:
        assert [stream.event() for _ in pages["events"]] == pages["events"]


def test_a_quiet_stream_is_kept_open_and_is_told_where_it_is(portal: Served) -> None:
    with _follow(portal, "bolt") as stream:
        _happen(portal, connected_story("t-3"))
        time.sleep(3 * KEEP_ALIVE_S)
        _happen(portal, connected_story("own", buyer="bolt"), boot="boot-3")
        first = next(line for line in stream.lines if line.startswith("id: "))
        moved = next(line for line in stream.lines if line.startswith("id: "))
        assert moved != first, "what was another's is behind it"
        assert stream.event()["id"] == "own.started"
        assert stream.comments <= 10


def test_streams_share_looks_and_none_is_left_when_they_have_gone(portal: Served) -> None:
    house = portal.house
    assert house is not None
    with contextlib.ExitStack() as open_:
        streams = [open_.enter_context(_follow(portal, who)) for who in ("noc", "noc", "noc", "acme", "acme")]
        for stream in streams:
            next(stream.lines)
        time.sleep(0.5)
        before = house.events.reads
        time.sleep(1)
        assert house.events.reads <= before + 1, "nothing was written: nothing is read"
        _happen(portal, connected_story("t-3"))
        for stream in streams:
            assert stream.take(5) == _kinds("t-3")
        time.sleep(0.3)
        assert house.events.reads - before <= 15, "five streams share each look"
    deadline = time.monotonic() + 10
    while house.streams.count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_streams_and_live_views_share_their_seats(portal: Served) -> None:
    with contextlib.ExitStack() as open_:
        live = httpx.stream("GET", f"{portal.url}/v1/live/events", headers=bearer("noc"), timeout=20)
        held = [open_.enter_context(_follow(portal, "noc")).lines for _ in range(3)]
        held.append(open_.enter_context(live).iter_lines())  # closed with its connection when nobody holds it
        for lines in held:
            next(lines)
        headers = {**bearer("noc"), "Accept": "text/event-stream"}
        with httpx.stream("GET", f"{portal.url}/v1/events", headers=headers, timeout=20) as refused:
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert httpx.get(f"{portal.url}/v1/events", headers=bearer("noc")).status_code == 200, "a page takes none"


def test_a_stream_ends_with_the_portal(tmp_path: Path) -> None:
    portal = Served(tmp_path)
    portal.start()
    with _follow(portal, "noc") as stream:
        next(stream.lines)
        started = time.monotonic()
        portal.stop()
        assert stream.event() == {}, "it ended as a stream ends, not broken off"
        assert time.monotonic() - started < 10


async def test_a_time_begins_at_what_happened_then(house: House) -> None:
    await happen(house, connected_story("t-3"))
    at = partial(house.get, "noc", "/events")
    answered = [one["id"] for one in (await at(**{"from": "2026-06-02T14:00:04Z"}))["events"]]
    assert answered[0] in ("t-1.outcome", "t-2.answered.1")
    assert {"t-3.answered.1", "t-3.outcome"} <= set(answered)
    assert "t-3.ringing" not in answered
    assert UTC_0 == 1_780_408_800_000_000


def test_head_over_a_real_connection_leaves_it_fit_for_the_next_request(portal: Served) -> None:
    with httpx.Client(base_url=portal.url, headers=bearer("noc"), timeout=20) as client:
        for path in ("/v1/transfers", "/v1/live/events", "/v1/openapi.json", "/v1/nothing"):
            head = client.head(path)
            assert (head.status_code, head.content) == (404 if path == "/v1/nothing" else 200, b""), path
            assert client.get("/v1/health").status_code == 200, path
