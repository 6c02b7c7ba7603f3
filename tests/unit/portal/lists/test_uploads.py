"""Bodies that are too large, too slow, cut short, or no JSON."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from portal.http import uploads
from portal.lists import service as lists_service
from suppression.activating import ListRefusedError
from suppression.importer import ImportResult
from tests.unit.portal.lists.api import (
    BASE,
    MOST,
    ONE,
    SECRETS,
    TWO,
    Api,
    auth,
    done_of,
    fields_of,
    problem_of,
)


async def test_a_file_that_is_too_large_is_refused_by_its_length_or_when_it_is(api: Api) -> None:
    read = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(1)
            yield b"2125550100\n" * 1_000

    problem_of(await api.load("dnc", content=endless()), 413)
    assert len(read) < 100, "nobody reads on when it is too much"
    for length in (str(MOST + 1), "9" * 30):
        headers = {**auth("noc"), "Content-Length": length}
        request = api.client.build_request("POST", f"{BASE}/lists/dnc/imports", content=endless(), headers=headers)
        read.clear()
        problem_of(await api.client.send(request), 413)
        assert not read, "what is declared too large is not read"
    just = f"{ONE}\n".encode() * (MOST // 13) + b"\n" * (MOST % 13)
    assert len(just) == MOST
    assert done_of(await api.load("dnc", content=just))["lines"] == MOST // 13
    problem_of(await api.load("dnc", content=just + b"\n"), 413)
    assert not api.left_behind()


async def test_a_file_may_take_its_time_but_not_stand_still(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "IDLE_S", 0.4)
    monkeypatch.setattr(uploads, "PACE", 100)

    async def paced(pieces: int, size: int, pause_s: float) -> AsyncIterator[bytes]:
        for _ in range(pieces):
            await asyncio.sleep(pause_s)
            yield f"{ONE}\n".encode() * size

    started = time.monotonic()
    assert done_of(await api.load("dnc", content=paced(6, 10, 0.1)))["lines"] == 60
    assert time.monotonic() - started > 0.6, "longer in all than it may stand still"
    for content in (paced(2, 10, 5), paced(100, 1, 0.1)):
        problem = problem_of(await api.load("slow", content=content), 408)
        assert "less than 100 bytes in 0.4 s" in problem["detail"]
        assert not api.left_behind()
    assert [one.name for one in await api.store.active()] == ["dnc"]


async def test_a_file_that_breaks_off_is_never_a_shorter_list(api: Api) -> None:
    await api.load("dnc", ONE, TWO)
    parts = [
        {"type": "http.request", "body": f"{ONE}\n".encode(), "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0) if len(parts) > 1 else parts[0]

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": f"{BASE}/lists/dnc/imports",
        "raw_path": b"",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {SECRETS['noc']}".encode())],
        "client": ("192.0.2.7", 5000),
        "server": ("portal.invalid", 80),
        "scheme": "http",
    }
    await api.app(scope, receive, send)
    assert [one["status"] for one in sent if one["type"] == "http.response.start"] in ([400], [])
    assert not api.left_behind()
    assert await api.numbers("dnc") == [ONE, TWO]


async def test_a_full_disk_is_507_before_the_store_feels_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=uploads.RESERVE))
        assert "room" in problem_of(await api.load("dnc", ONE), 507)["detail"]

    async def broken(number: int) -> ImportResult:
        error = OSError(number, os.strerror(number), "/secret/place")
        raise ListRefusedError(str(error)) from error

    for number, status in ((errno.ENOSPC, 507), (errno.EIO, 500)):
        monkeypatch.setattr(lists_service, "import_file", lambda *_, number=number, **__: broken(number))
        assert "secret" not in orjson.dumps(problem_of(await api.load("dnc", ONE), status)).decode()


async def test_an_import_that_takes_for_ever_or_rejects_millions_is_ended(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lists_service, "IMPORT_S", -1.0)
        assert "took longer" in problem_of(await api.load("dnc", ONE), 422)["detail"]
    monkeypatch.setattr(lists_service, "MAX_REJECTS_BYTES", 2_000)
    problem = problem_of(await api.load("dnc", "phone", ONE, *["12"] * 4_000, column="phone", reject_percent=100), 422)
    assert "millions of lines were rejected" in problem["detail"]
    assert not await api.store.active()


async def test_bodies_of_json_are_checked_like_any_other(api: Api) -> None:
    await api.load("dnc", ONE)
    for path, good in (("/lists/dnc/entries", {"add": [TWO]}), ("/lists/dnc/restore", {"version": 1}),
                       ("/check", {"number": ONE}), ("/receipts/verify", {"receipt": "x"})):  # fmt: skip
        problem_of(await api.post(path, b"{"), 400)
        problem_of(await api.post(path, b"[" * 5_000), 400)
        problem_of(await api.post(path, []), 422)
        problem_of(await api.post(path, b" " * (1 << 18) + b"{}"), 413)
        problem_of(await api.post(path, good, **{"Content-Type": "text/csv"}), 415)
        assert fields_of(problem_of(await api.post(path, {**good, "x": 1}), 422)) == ["x"]
        assert fields_of(problem_of(await api.post(path, {key: {"a": {}} for key in good}), 422)) == list(good)
    assert fields_of(problem_of(await api.post("/lists/dnc/restore", {"version": "1"}), 422)) == ["version"]
    assert await api.numbers("dnc") == [ONE]
