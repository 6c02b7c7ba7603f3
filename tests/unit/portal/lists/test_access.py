"""Whose a list is: what the operator, a buyer and a dialer may see and change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from book.lists import Actor
from portal.lists import service as lists_service
from suppression.importer import ImportResult, Task, import_file
from tests.unit.portal.lists.api import (
    ANN,
    BASE,
    ONE,
    THREE,
    TWO,
    Api,
    auth,
    done_of,
    fields_of,
    problem_of,
)

ROUTES = [
    ("GET", "/lists", None, {"acme", "noc"}),
    ("POST", "/lists/acme-own/imports", ONE, {"acme", "noc"}),
    ("POST", "/lists/acme-own/entries", {"add": [TWO]}, {"acme", "noc"}),
    ("POST", "/lists/acme-own/restore", {"version": 1}, {"acme", "noc"}),
    ("GET", "/lists/acme-own/log", None, {"acme", "noc"}),
    ("POST", "/check", {"number": ONE}, {"acme", "noc", "bolt"}),
    ("POST", "/receipts/verify", {"receipt": "x"}, {"west", "noc"}),
    ("DELETE", "/lists/acme-own", None, {"acme", "noc"}),
]


@pytest.mark.parametrize(("method", "path", "said", "allowed"), ROUTES, ids=[f"{one[0]} {one[1]}" for one in ROUTES])
async def test_a_route_is_for_its_scopes_alone(api: Api, method: str, path: str, said: Any, allowed: set[str]) -> None:
    await api.load("acme-own", THREE, token="acme")
    body = said.encode() if isinstance(said, str) else b"" if said is None else orjson.dumps(said)
    params = {"buyer": "acme"} if path.endswith("imports") else {}
    before = await api.store.stamp()

    async def ask(token: str, **headers: str) -> httpx.Response:
        given = {"Content-Type": "application/json", **auth(token), **headers}
        return await api.client.request(method, BASE + path, content=body, params=params, headers=given)

    for wrong in ({}, {"Authorization": "Bearer " + "x" * 32}):
        problem_of(await ask("", **wrong), 401)
    for token in sorted({"west", "acme", "bolt", "noc"} - allowed - ({"bolt"} if path == "/lists" else set())):
        expected = 404 if token == "bolt" and "entries restore log acme-own".find(path.rpartition("/")[2]) >= 0 else 403
        problem_of(await ask(token), expected)
    assert await api.store.stamp() == before, "who was refused has changed nothing"
    for token in sorted(allowed):
        assert (await ask(token)).status_code not in (401, 403, 500), token
        if method == "DELETE":
            await api.load("acme-own", THREE, token="acme")


async def test_a_buyers_import_is_the_buyers_whatever_it_says(api: Api) -> None:
    assert done_of(await api.load("mine", ONE, token="acme"))["entries"] == 1
    assert done_of(await api.load("mine-too", ONE, token="acme-2", buyer="acme"))["entries"] == 1
    assert [(one.name, one.buyer) for one in await api.store.active()] == [("mine", "acme"), ("mine-too", "acme")]
    problem = problem_of(await api.load("theirs", ONE, token="acme", buyer="bolt"), 403)
    assert fields_of(problem) == ["buyer"]
    assert len(await api.store.active()) == 2


async def test_a_buyer_touches_no_list_but_its_own(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("bolts", ONE, token="bolt")
    before = await api.store.active()
    for name, status in (("dnc", 403), ("bolts", 404), ("none", 404)):
        for response in (
            await api.post(f"/lists/{name}/entries", {"remove": [ONE]}, "acme"),
            await api.post(f"/lists/{name}/restore", {"version": 1}, "acme"),
            await api.client.delete(f"{BASE}/lists/{name}", headers=auth("acme")),
            await api.get(f"/lists/{name}/log", "acme"),
        ):
            assert "bolt'" not in problem_of(response, status)["detail"]
    assert await api.store.active() == before


@pytest.mark.parametrize("name", ["dnc", "bolts", "bolts-old"])
async def test_a_name_that_is_taken_stays_taken_and_whose_it_is_is_not_told(api: Api, name: str) -> None:
    await api.load("dnc", ONE)
    for taken in ("bolts", "bolts-old"):
        await api.load(taken, ONE, token="bolt")
    await api.client.delete(f"{BASE}/lists/bolts-old", headers=auth("bolt"))
    before = await api.store.history(name)
    for mode in ("replace", "add", "remove"):
        problem = problem_of(await api.load(name, TWO, token="acme", mode=mode), 403)
        assert "choose another name" in problem["detail"]
        assert "bolt'" not in problem["detail"]
        assert "global" not in problem["detail"]
    assert await api.store.history(name) == before


async def test_a_name_taken_while_the_file_came_is_refused_as_politely(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(store: Any, data_dir: Path, task: Task, who: Actor, **more: Any) -> ImportResult:
        faster = Task(task.file, task.name, "bolt", rejects_file=task.rejects_file)
        await import_file(store, data_dir, faster, ANN)
        return await import_file(store, data_dir, task, who, **more)

    monkeypatch.setattr(lists_service, "import_file", late)
    problem = problem_of(await api.load("new", ONE, token="acme"), 403)
    assert "bolt" not in orjson.dumps(problem).decode()


async def test_the_operator_imports_for_buyers_of_the_book_and_for_everybody(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("acme-own", ONE, buyer="acme")
    assert [(one.name, one.buyer) for one in await api.store.active()] == [("acme-own", "acme"), ("dnc", None)]
    problem = problem_of(await api.load("nobodys", ONE, buyer="acne"), 422)
    assert fields_of(problem) == ["buyer"]
    problem = problem_of(await api.load("acme-own", ONE), 422)
    assert "is of buyer 'acme'; a list does not change hands" in problem["detail"]


async def test_everybody_sees_what_binds_him_and_no_more(api: Api) -> None:
    await api.load("dnc", ONE, TWO, filename="litigators-2026.csv")
    await api.load("acme-own", ONE, token="acme", filename="ours.csv")
    await api.load("bolts", ONE, token="bolt")
    whole = {one["name"]: one for one in done_of(await api.get("/lists"))["lists"]}
    assert sorted(whole) == ["acme-own", "bolts", "dnc"]
    assert (whole["dnc"]["source"], whole["dnc"]["imported_by"]) == ("litigators-2026.csv", "noc")
    row = await api.store.find("dnc")
    assert row is not None
    assert (whole["dnc"]["entries"], whole["dnc"]["state"], whole["dnc"]["version"]) == (2, row.checksum, 1)
    own, shared = done_of(await api.get("/lists", "acme"))["lists"]
    assert own == whole["acme-own"]
    assert (own["source"], own["buyer"]) == ("ours.csv", "acme")
    assert shared == {**whole["dnc"], "source": "", "imported_by": ""}
