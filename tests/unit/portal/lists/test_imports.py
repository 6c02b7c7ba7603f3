"""Files that are imported, and what is said of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from datetime import UTC, datetime

import orjson
import pytest

from suppression.activating import current_base
from suppression.lookups import rows
from tests.unit.portal.lists.api import (
    FREE,
    ONE,
    THREE,
    TWO,
    Api,
    done_of,
    fields_of,
    problem_of,
)


async def test_a_file_is_in_force_when_it_is_answered_and_the_same_again_changes_nothing(api: Api) -> None:
    first = done_of(await api.load("dnc", "name,phone", f"Ann,{ONE}", f"Bob,{TWO}", f"Ann,{ONE}", filename="dnc.csv"))
    assert first == {
        "name": "dnc",
        "version": 1,
        "revision": 0,
        "entries": 2,
        "before": 0,
        "changed": True,
        "dry_run": False,
        "kind": "number",
        "column": "phone",
        "columns": ["phone"],
        "lines": 3,
        "repeats": 1,
        "rejected": 0,
        "rejects": [],
        "kept_for_ever": 0,
        "ended": 0,
        "kept": [],
        "dropped": 0,
        "skipped": [],
        "unused": [
            {"what": "lines", "name": "1, the header: 'name', 'phone'", "member": "", "numbers": 0, "line": 0},
            {"what": "column", "name": "name", "member": "", "numbers": 0, "line": 0},
        ],
    }
    row = await api.store.find("dnc")
    assert row is not None
    assert (row.source, row.imported_by) == ("dnc.csv", "noc")
    again = done_of(await api.load("dnc", "name,phone", f"Ann,{ONE}", f"Bob,{TWO}", f"Ann,{ONE}"))
    assert (again["changed"], again["version"], again["before"]) == (False, 1, 2)
    assert await api.store.find("dnc") == row


async def test_a_file_adds_removes_or_says_what_it_would_do(api: Api) -> None:
    await api.load("dnc", ONE)
    assert done_of(await api.load("dnc", TWO, mode="add"))["entries"] == 2
    would = done_of(await api.load("dnc", TWO, mode="remove", dry_run=True))
    assert (would["entries"], would["changed"], would["dry_run"]) == (1, False, True)
    assert await api.numbers("dnc") == [ONE, TWO]
    assert done_of(await api.load("dnc", ONE, mode="remove"))["entries"] == 1
    assert await api.numbers("dnc") == [TWO]
    assert "no list called" in problem_of(await api.load("none", ONE, mode="remove"), 422)["detail"]


async def test_columns_country_and_kind_are_as_they_are_said(api: Api) -> None:
    await api.load("npa", "area,line,until", "212,5550100,2099-01-31", column="line", area_column="area",
                   expires_column="until")  # fmt: skip
    assert await api.numbers("npa") == [ONE]
    base = await current_base(api.store, api.folder, "npa", must_load=True)
    assert [until for _, until in rows(base)] == [int(datetime(2099, 2, 1, 5, tzinfo=UTC).timestamp())]
    assert done_of(await api.load("uk", "0113 496 0000", region="GB"))["column"] == "#1"
    assert await api.numbers("uk") == ["+441134960000"]
    digest = hashlib.md5(ONE.encode()).hexdigest()
    assert done_of(await api.load("hashed", digest, hashed="md5"))["kind"] == "md5"
    await api.load("short", ONE, expires="2099-12-31")
    row = await api.store.find("short")
    assert row is not None
    assert row.expires_utc_us == int(datetime(2100, 1, 1, 5, tzinfo=UTC).timestamp()) * 1_000_000


async def test_packed_files_are_unpacked_and_an_empty_one_must_be_meant(api: Api) -> None:
    assert done_of(await api.load("gz", content=gzip.compress(f"{ONE}\n".encode())))["entries"] == 1
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", f"{ONE}\n")
        archive.writestr("readme.txt", "hello\n")
    done = done_of(await api.load("zip", content=packed.getvalue(), member="*.csv"))
    assert (done["entries"], done["skipped"]) == (1, ["readme.txt"])
    assert "holds no number" in problem_of(await api.load("gz", content=b""), 422)["detail"]
    assert done_of(await api.load("gz", content=b"", allow_empty=True))["entries"] == 0


async def test_too_many_rejects_are_told_line_by_line_and_nothing_changes(api: Api) -> None:
    await api.load("dnc", ONE)
    problem = problem_of(
        await api.load("dnc", "phone", TWO, "12", "", "no number", column="phone", filename="new.csv"), 422
    )
    assert problem["detail"].startswith("new.csv: 2 of 3 lines rejected, more than 2 %")
    assert fields_of(problem) == ["line 3", "line 5"]
    assert "too short" in problem["errors"][0]["detail"]
    assert await api.numbers("dnc") == [ONE]
    done = done_of(await api.load("dnc", "phone", TWO, "12", column="phone", reject_percent=50))
    assert (done["rejected"], done["lines"], done["entries"]) == (1, 2, 1)
    assert [(one["line"], one["member"]) for one in done["rejects"]] == [(3, "")]
    assert str(api.folder) not in orjson.dumps(problem).decode()


async def test_rejects_in_an_archive_name_the_member_and_are_told_up_to_a_thousand(api: Api) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", f"phone\n{ONE}\n{TWO}\n{THREE}\n{FREE}\n12\n")
        archive.writestr("b.csv", "phone\n" + f"{ONE}\n" * 9_000 + "12\n" * 1_500)
    problem = problem_of(await api.load("zip", content=packed.getvalue()), 422)
    assert fields_of(problem)[:2] == ["a.csv, line 6", "b.csv, line 9002"]
    assert len(problem["errors"]) == 1000


@pytest.mark.parametrize("header", ["phone,mobile", "home,work"])
async def test_a_column_that_could_be_another_must_be_named(api: Api, header: str) -> None:
    lines = (header, *(f"+1212555{at:04},+1646555{at:04}" for at in range(100, 120)))
    problem = problem_of(await api.load("dnc", *lines), 422)
    assert fields_of(problem) == ["column"]
    assert problem["detail"].startswith("upload: ")
    assert "555" not in orjson.dumps(problem).decode()
    second = header.partition(",")[2]
    assert done_of(await api.load("dnc", *lines, column=second))["column"] == second
    assert fields_of(problem_of(await api.load("dnc", *lines, column="cell"), 422)) == ["column"]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"mode": "append"}, "mode"),
        ({"hashed": "crc"}, "hashed"),
        ({"region": "XX"}, "region"),
        ({"region": "USA"}, "region"),
        ({"area_column": "a", "hashed": "md5"}, "area_column"),
        ({"reject_percent": "101"}, "reject_percent"),
        ({"reject_percent": "nan"}, "reject_percent"),
        ({"expires": "tomorrow"}, "expires"),
        ({"expires": "2020-01-01"}, "expires"),
        ({"expires": "9999-12-31"}, "expires"),
        ({"buyer": "../acme"}, "buyer"),
        ({"filename": "../../baton.db"}, "filename"),
        ({"filename": "a\\b"}, "filename"),
        ({"filename": ".rejects"}, "filename"),
        ({"filename": "a\nb"}, "filename"),
        ({"filename": "a\0b"}, "filename"),
        ({"filename": "\N{GRINNING FACE}" * 60}, "filename"),
        ({"filename": ""}, "filename"),
        ({"column": "x" * 201}, "column.0"),
        ({"keep_change": "true"}, "keep_change"),
    ],
)
async def test_a_parameter_that_is_wrong_is_named(api: Api, said: dict[str, str], field: str) -> None:
    assert fields_of(problem_of(await api.load("dnc", ONE, **said), 422)) == [field]
    assert not await api.store.active()


@pytest.mark.parametrize(
    ("name", "status"),
    [("Dnc", 422), ("..", 404), ("a%2Fb", 404), ("a/b", 404), ("%2e%2e", 422), ("-a", 422), ("a" * 65, 422)],
)
async def test_a_name_is_a_plain_word(api: Api, name: str, status: int) -> None:
    problem = problem_of(await api.load(name, ONE), status)
    assert fields_of(problem) == (["name"] if status == 422 else [])
    assert not await api.store.history(name)
