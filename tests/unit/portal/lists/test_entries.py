"""Entries added and removed, lists retired and restored, and the log of it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from suppression.activating import ListRefusedError, current_base
from suppression.editing import edit
from suppression.importer import Task, import_file
from suppression.lookups import rows
from suppression.reading.shapes import ReadOptions
from tests.unit.portal.lists.api import (
    ANN,
    BASE,
    FREE,
    ONE,
    THREE,
    TWO,
    Api,
    auth,
    done_of,
    fields_of,
    problem_of,
)


async def test_entries_are_added_and_removed_and_again_changes_nothing(api: Api) -> None:
    await api.load("mine", ONE, TWO, token="acme")
    said = {"add": [{"entry": "(212) 555-0102", "expires": "2099-01-31"}, FREE], "remove": [ONE]}
    done = done_of(await api.post("/lists/mine/entries", said, "acme"))
    assert done == {
        "name": "mine",
        "version": 1,
        "revision": 1,
        "added": 2,
        "removed": 1,
        "already": 0,
        "absent": 0,
        "entries": 3,
    }
    base = await current_base(api.store, api.folder, "mine", must_load=True)
    end = int(datetime(2099, 2, 1, 5, tzinfo=UTC).timestamp())
    assert dict(rows(base)) == {TWO: 0, THREE: end, FREE: 0}
    again = done_of(await api.post("/lists/mine/entries", said, "acme"))
    assert (again["revision"], again["added"], again["already"], again["absent"]) == (1, 0, 2, 1)
    row = (await api.store.log("mine"))[0]
    assert (row.action, row.by, row.origin) == ("edit", "acme", "api:192.0.2.7")


async def test_every_entry_that_cannot_be_read_is_named_by_its_place(api: Api) -> None:
    await api.load("dnc", ONE)
    said = {
        "add": [TWO, TWO, "12", {"entry": THREE, "expires": "2020-01-01"}, {"entry": TWO, "expires": "2099-01-01"}],
        "remove": [ONE, "nobody"],
    }
    problem = problem_of(await api.post("/lists/dnc/entries", said), 422)
    assert fields_of(problem) == ["add[2].entry", "add[3].expires", "add[4].expires", "remove[1]"]
    details = [one["detail"] for one in problem["errors"]]
    assert details[0].startswith("entry 3 to be added: not a possible phone number")
    assert details[1] == "entry 4 to be added: expires is in the past"
    assert details[2] == "entry 5 to be added: is entry 1 with another end"
    assert details[3].startswith("entry 2 to be removed: ")
    assert await api.numbers("dnc") == [ONE]
    for said, field in (({"add": [{"expires": "2099-01-01"}]}, "add[0].entry"), ({"add": [1]}, "add[0]"),
                        ({"remove": [[]]}, "remove[0]"), ({"add": [ONE] * 1001}, "add")):  # fmt: skip
        assert fields_of(problem_of(await api.post("/lists/dnc/entries", said), 422)) == [field]
    many = [f"+1212555{at:04}" for at in range(501)]
    problem = problem_of(await api.post("/lists/dnc/entries", {"add": many, "remove": many}), 422)
    assert "more than 1000" in problem["detail"]


async def test_an_end_that_no_file_can_hold_is_refused(api: Api) -> None:
    await api.load("dnc", ONE)
    problem = problem_of(await api.post("/lists/dnc/entries", {"add": [{"entry": TWO, "expires": "2200-01-01"}]}), 422)
    assert "later than a list can say" in problem["errors"][0]["detail"]
    assert await api.numbers("dnc") == [ONE]


async def test_a_hashed_list_takes_digests_and_numbers(api: Api) -> None:
    one, two = (hashlib.sha256(number.encode()).hexdigest() for number in (ONE, TWO))
    await api.load("hashed", one)
    done = done_of(await api.post("/lists/hashed/entries", {"add": [two, THREE], "remove": [ONE]}))
    assert (done["added"], done["removed"], done["entries"]) == (2, 1, 2)
    problem = problem_of(await api.post("/lists/hashed/entries", {"add": [one[:-1]]}), 422)
    assert fields_of(problem) == ["add[0].entry"]


async def test_a_list_is_retired_and_restored(api: Api) -> None:
    await api.load("mine", ONE, token="acme")
    await api.load("mine", TWO, token="acme")
    await api.post("/lists/mine/entries", {"add": [THREE]}, "acme")
    gone = await api.client.delete(f"{BASE}/lists/mine", headers=auth("acme"))
    assert (gone.status_code, gone.content) == (204, b"")
    assert not await api.store.active()
    problem_of(await api.client.delete(f"{BASE}/lists/mine", headers=auth("acme")), 404)
    problem_of(await api.post("/lists/mine/entries", {"add": [ONE]}, "acme"), 404)
    back = done_of(await api.post("/lists/mine/restore", {"version": 1}, "acme"))
    assert (back["version"], back["entries"], back["buyer"]) == (3, 1, "acme")
    await api.post("/lists/mine/entries", {"add": [FREE]}, "acme")
    kept = done_of(await api.post("/lists/mine/restore", {"version": 2}, "acme"))
    assert (kept["version"], await api.numbers("mine")) == (4, [TWO, THREE, FREE])
    done_of(await api.post("/lists/mine/restore", {"version": 1, "drop_changes": True}, "acme"))
    assert await api.numbers("mine") == [ONE]
    for version, said in ((9, "has no version 9"), (5, "version 5 is in force")):
        assert said in problem_of(await api.post("/lists/mine/restore", {"version": version}, "acme"), 422)["detail"]


async def test_a_version_whose_file_is_gone_cannot_be_restored(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("dnc", TWO)
    (api.folder / (await api.store.history("dnc"))[0].file).unlink()
    problem = problem_of(await api.post("/lists/dnc/restore", {"version": 1}), 422)
    assert "its file is gone or damaged" in problem["detail"]
    assert str(api.folder) not in problem["detail"]


async def test_the_log_says_who_did_what_from_where_and_a_buyer_no_more_than_its_own(api: Api, tmp_path: Path) -> None:
    await api.load("mine", ONE, token="acme")
    await api.load("mine", "12", token="acme-2", column="#1", filename="bad.csv")
    file = tmp_path / "by-hand.csv"
    file.write_text("12\n")
    with pytest.raises(ListRefusedError):
        await import_file(api.store, api.folder, Task(file, "mine", "acme", options=ReadOptions("#1")), ANN)
    await edit(api.store, api.folder, "mine", add={TWO: 0}, remove=[], actor=ANN)
    whole = done_of(await api.get("/lists/mine/log"))["log"]
    assert [(one["action"], one["by"], one["origin"]) for one in whole] == [
        ("edit", "ann", "cli:noc-desk-7"),
        ("refused_replace", "ann", "cli:noc-desk-7"),
        ("refused_replace", "acme-2", "api:192.0.2.7"),
        ("replace", "acme", "api:192.0.2.7"),
    ]
    assert (whole[0]["before"], whole[0]["after"], whole[3]["before"]) == (1, 2, None)
    assert whole[2]["detail"]["why"].startswith("bad.csv: 1 of 1 lines rejected")
    seen = done_of(await api.get("/lists/mine/log", "acme"))["log"]
    assert [one["origin"] for one in seen] == ["cli", "cli", "api:192.0.2.7", "api:192.0.2.7"]
    assert [one["detail"].get("why") for one in seen[:2]] == [None, None]
    assert seen[2] == whole[2]
    assert str(tmp_path) not in orjson.dumps([whole, seen]).decode()
    assert len(done_of(await api.get("/lists/mine/log", limit=2))["log"]) == 2
    for limit in ("0", "1001", "x"):
        assert fields_of(problem_of(await api.get("/lists/mine/log", limit=limit), 422)) == ["limit"]
    problem_of(await api.get("/lists/none/log"), 404)
