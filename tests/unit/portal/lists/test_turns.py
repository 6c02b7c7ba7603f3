"""Imports one after the other, beside the loop, and stopped with their request."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from book.lists import Actor
from portal.http import uploads
from portal.lists import service as lists_service
from suppression.activating import ListRefusedError
from suppression.importer import ImportResult, Task, import_file
from tests.unit.portal.lists.api import (
    ONE,
    Api,
    done_of,
    problem_of,
)


class Gate:
    """Imports that wait until they are let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        self.inside = self.most = 0
        monkeypatch.setattr(lists_service, "import_file", self._import)

    async def _import(self, *given: Any, **more: Any) -> ImportResult:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.open.wait()
            return await import_file(*given, **more)
        finally:
            self.inside -= 1

    async def wait(self) -> None:
        async with asyncio.timeout(5):
            while not self.inside:
                await asyncio.sleep(0.01)


async def test_one_import_at_a_time_and_who_waits_too_long_is_told_to_come_back(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    first = asyncio.create_task(api.load("one", ONE))
    await gate.wait()
    waiting = asyncio.create_task(api.load("two", ONE))
    while len(api.left_behind()) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    monkeypatch.setattr(lists_service, "TURN_S", 0.05)
    late = await api.load("three", ONE)
    assert problem_of(late, 503)["detail"] == "another import is under way"
    assert late.headers["retry-after"] == "30"
    gate.open.set()
    assert done_of(await first)["entries"] == done_of(await waiting)["entries"] == 1
    assert gate.most == 1
    assert [one.name for one in await api.store.active()] == ["one", "two"]


async def test_there_is_room_for_so_many_uploads(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr(lists_service, "MAX_UPLOADS", 3)
    monkeypatch.setattr(lists_service, "MAX_UPLOADS_OF_ONE", 2)
    running = [asyncio.create_task(api.load(f"l{at}", ONE)) for at in range(2)]
    while len(api.left_behind()) < 2:
        await asyncio.sleep(0.01)
    assert (await api.load("l2", ONE)).status_code == 503, "one token has its share"
    running.append(asyncio.create_task(api.load("acme-own", ONE, token="acme")))
    while len(api.left_behind()) < 3:
        await asyncio.sleep(0.01)
    assert (await api.load("bolts", ONE, token="bolt")).status_code == 503
    gate.open.set()
    assert [one.status_code for one in await asyncio.gather(*running)] == [200] * 3
    assert (await api.load("bolts", ONE, token="bolt")).status_code == 200


async def test_files_are_read_beside_the_loop_and_stop_when_the_request_does(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, going_on = threading.Event(), threading.Event()
    threads = []
    progress = lists_service._Watch.progress

    def held(self: Any, *given: int) -> None:
        threads.append(threading.get_ident())
        reading.set()
        assert going_on.wait(5)
        progress(self, *given)

    monkeypatch.setattr(lists_service._Watch, "progress", held)
    task = asyncio.create_task(api.load("dnc", ONE))
    assert await asyncio.to_thread(reading.wait, 5)
    assert (await api.client.get("/v1/health")).status_code == 200, "others are served meanwhile"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    next_one = asyncio.create_task(api.load("later", ONE))
    await asyncio.sleep(0.05)
    assert len(threads) == 1, "the turn is not given back before the file is closed"
    going_on.set()
    assert done_of(await next_one)["entries"] == 1
    assert threading.get_ident() not in threads
    (row,) = await api.store.log("dnc")
    assert (row.action, row.detail["why"]) == ("refused_replace", "the import was broken off")


async def test_rejects_written_after_the_request_is_gone_go_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(_store: Any, _folder: Path, task: Task, _who: Actor, **_: Any) -> ImportResult:
        inside.set()
        await gone.wait()
        assert task.rejects_file is not None
        task.rejects_file.parent.mkdir(parents=True)
        task.rejects_file.write_text("member,line,reason\n")
        raise ListRefusedError("the import was broken off")

    inside, gone = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(lists_service, "import_file", late)
    task = asyncio.create_task(api.load("dnc", ONE))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while api.left_behind():
        await asyncio.sleep(0.01)
    gone.set()
    await api.lists.close()
    assert not api.left_behind()


async def test_at_the_end_imports_are_stopped_and_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, going_on = threading.Event(), threading.Event()
    progress = lists_service._Watch.progress

    def held(self: Any, *given: int) -> None:
        reading.set()
        assert going_on.wait(5)
        progress(self, *given)

    monkeypatch.setattr(lists_service._Watch, "progress", held)
    task = asyncio.create_task(api.load("dnc", ONE))
    assert await asyncio.to_thread(reading.wait, 5)
    closing = asyncio.create_task(api.lists.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    going_on.set()
    await closing
    assert "was broken off" in problem_of(await task, 422)["detail"]
    assert not await api.store.active()


async def test_old_files_go_and_what_a_killed_process_left_behind(api: Api) -> None:
    for at in range(4):
        await api.load("dnc", f"+1212555010{at}")
    there = [(api.folder / one.file).is_file() for one in await api.store.history("dnc")]
    assert there == [False, False, True, True]
    old, young = api.lists.uploads / "old", api.lists.uploads / "young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "list.csv").write_text(ONE)
    past = time.time() - uploads.ORPHAN_S - 60
    os.utime(old / "list.csv", (past, past))
    os.utime(old, (past, past))
    os.utime(young, (past, past))
    await api.lists.sweep()
    assert api.left_behind() == [young], "one that is still being written to stays"
    shutil.rmtree(young)
