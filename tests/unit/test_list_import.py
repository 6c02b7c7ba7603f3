"""Importing lists: replace, add, remove, rejects, expiry, and files that come at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.store.engine import open_store
from meter.suppression_rows.sql.lists import ListRows
from suppression import importer
from suppression.activating import ListRefusedError, current_base
from suppression.editing import edit, fold
from suppression.importer import Mode, Task, import_file
from suppression.kinds import Kind, digests
from suppression.lookups import rows
from suppression.reading.shapes import ReadOptions
from tests.suppression_lists import ANN, FREE, HOUR_US, LISTED, csv_file, import_list, numbers_of, scrub_with


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    opened = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'baton.db'}")
    yield opened
    await opened.dispose()


@pytest.fixture
def store(engine: AsyncEngine) -> ListRows:
    return ListRows(engine)


async def test_imports_at_once_leave_one_version_in_force(store: ListRows, tmp_path: Path) -> None:
    files = [csv_file(tmp_path, "phone", f"+1212555{at:04}", name=f"{at}.csv") for at in range(4)]
    done = await asyncio.gather(*(import_file(store, tmp_path, Task(one, "dnc", None), ANN) for one in files))
    assert sorted(one.version for one in done) == [1, 2, 3, 4]
    assert len(await store.active()) == 1
    assert len(await store.history("dnc")) == 4


async def test_files_added_at_once_are_all_in(store: ListRows, tmp_path: Path) -> None:
    await import_list(store, tmp_path, LISTED)
    files = [csv_file(tmp_path, "phone", f"+1212555{at:04}", name=f"{at}.csv") for at in range(4)]
    await asyncio.gather(
        *(import_file(store, tmp_path, Task(one, "dnc", None, Mode.ADD), ANN) for one in files),
        *(edit(store, tmp_path, "dnc", add={f"+1212556{at:04}": 0}, remove=[], actor=ANN) for at in range(4)),
    )
    wanted = {LISTED, *(f"+1212555{at:04}" for at in range(4)), *(f"+1212556{at:04}" for at in range(4))}
    assert set(await numbers_of(store, tmp_path)) == wanted
    found = await store.find("dnc")
    assert found is not None
    assert found.count == len(wanted)


async def test_what_was_changed_by_hand_during_an_import_stays_changed(
    store: ListRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_list(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[], actor=ANN)
    collect = importer._collect

    def slow(*given: Any, **options: Any) -> None:
        collect(*given, **options)
        asyncio.run_coroutine_threadsafe(
            edit(store, tmp_path, "dnc", add={"+12125550122": 0}, remove=[LISTED], actor=ANN), loop
        ).result(20)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(importer, "_collect", slow)
    done = await import_list(store, tmp_path, LISTED, "+12125550133")
    # What was changed before the import goes with the old version; what was changed meanwhile comes along.
    assert (done.version, done.revision, done.entries) == (2, 1, 2)
    assert set(await numbers_of(store, tmp_path)) == {"+12125550122", "+12125550133"}


async def test_replacing_drops_what_was_changed_by_hand_says_so_and_can_keep_it(
    store: ListRows, tmp_path: Path
) -> None:
    await import_list(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[LISTED], actor=ANN)
    kept = await import_list(store, tmp_path, LISTED, FREE, keep_changes=True)
    assert (kept.report.dropped, kept.entries, kept.revision) == (0, 2, 1)
    assert set(await numbers_of(store, tmp_path)) == {FREE, "+12125550111"}
    again = await import_list(store, tmp_path, LISTED, FREE, keep_changes=True)
    assert (again.changed, again.version, again.revision) == (False, 2, 1)
    dropped = await import_list(store, tmp_path, LISTED, FREE)
    assert (dropped.report.dropped, dropped.changed) == (2, True)
    assert set(await numbers_of(store, tmp_path)) == {LISTED, FREE}


async def test_a_file_adds_and_removes(store: ListRows, tmp_path: Path) -> None:
    await import_list(store, tmp_path, LISTED, "+12125550111")
    added = await import_list(store, tmp_path, FREE, LISTED, mode=Mode.ADD)
    assert (added.before, added.entries, added.version) == (2, 3, 2)
    await edit(store, tmp_path, "dnc", add={"+12125550122": 0}, remove=[FREE], actor=ANN)
    removed = await import_list(store, tmp_path, "+12125550111", "+12125550177", mode=Mode.REMOVE)
    assert (removed.before, removed.entries) == (3, 2)
    assert await numbers_of(store, tmp_path) == [LISTED, "+12125550122"]
    log = [(one.action, one.before, one.after, one.by) for one in await store.log("dnc")]
    assert log == [
        ("remove", 3, 2, "ann"),
        ("edit", 3, 3, "ann"),
        ("add", 2, 3, "ann"),
        ("replace", None, 2, "ann"),
    ]
    with pytest.raises(ListRefusedError, match="no list called 'nope'"):
        await import_list(store, tmp_path, LISTED, name="nope", mode=Mode.REMOVE)


async def test_a_dry_run_tells_and_changes_nothing(store: ListRows, tmp_path: Path) -> None:
    await import_list(store, tmp_path, LISTED)
    told = await import_list(store, tmp_path, FREE, "bad", *[f"212555{at:04}" for at in range(60)], dry_run=True)
    assert (told.changed, told.entries, told.before, told.report.rejected) == (False, 61, 1, 1)
    assert await numbers_of(store, tmp_path) == [LISTED]
    assert [one.action for one in await store.log()] == ["replace"]
    assert len(list((tmp_path / "suppression").glob("*.list"))) == 1


async def test_rejects_are_listed_with_their_line_and_not_their_text(store: ListRows, tmp_path: Path) -> None:
    numbers = [f"212555{at:04}" for at in range(100)]
    file = csv_file(
        tmp_path, "name,Phone", *(f"x,{one}" for one in numbers), "", 'y,"n/a"', "z,555-0100", "a,2125550000"
    )
    done = await import_file(store, tmp_path, Task(file, "dnc", None), ANN)
    assert (done.report.lines, done.report.rejected, done.report.repeats) == (103, 2, 1)
    assert done.report.rejects_file is not None
    listed = done.report.rejects_file.read_text(encoding="utf-8").splitlines()
    assert listed[0] == "member,line,reason,kept"
    assert [one.split(",")[1] for one in listed[1:]] == ["103", "104"]
    assert "n/a" not in str(listed)


@pytest.mark.parametrize(("bad", "activated"), [(2, True), (3, False)])
async def test_past_two_percent_of_rejects_a_list_is_not_activated(
    store: ListRows, tmp_path: Path, bad: int, activated: bool
) -> None:
    lines = [f"212555{at:04}" for at in range(100 - bad)] + ["bad"] * bad
    if activated:
        imported = await import_list(store, tmp_path, *lines)
        assert (imported.entries, imported.report.rejected) == (98, 2)
        return
    with pytest.raises(ListRefusedError, match="3 of 100 lines rejected, more than 2 %"):
        await import_list(store, tmp_path, *lines)
    assert await store.active() == ()
    assert not list((tmp_path / "suppression").glob("*.list"))
    assert (await import_list(store, tmp_path, *lines, reject_percent=3.0)).entries == 97


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("phone",), "no number|no column"),
        (("a,b", "2125550100,2125550101", "2125550102,2125550103"), "column"),
        (("name,city", "x,y", "z,w"), "column"),
    ],
)
async def test_a_file_that_cannot_be_meant_is_refused(
    store: ListRows, tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ListRefusedError, match=message):
        await import_file(store, tmp_path, Task(csv_file(tmp_path, *lines), "dnc", None), ANN)
    assert await store.active() == ()


async def test_a_guess_that_is_not_sure_is_confirmed_or_refused(store: ListRows, tmp_path: Path) -> None:
    file = csv_file(tmp_path, "home,mobile", "2125550100,2125550101", "2125550102,2125550103")
    asked: list[str] = []

    def confirm(layout: Any) -> bool:
        asked.extend(layout.column_names)
        return True

    done = await import_file(store, tmp_path, Task(file, "dnc", None), ANN, confirm=confirm)
    assert (asked, done.entries, done.report.columns) == (["home", "mobile"], 4, ("home", "mobile"))
    with pytest.raises(ListRefusedError, match=r"columns 'home' .2 of 2 lines., 'mobile' .* may all hold numbers"):
        await import_file(store, tmp_path, Task(file, "dnc", None), ANN)
    with pytest.raises(ListRefusedError, match="may all hold numbers"):  # numbers of orders may be somebody's
        await import_file(store, tmp_path, Task(file, "dnc", None, Mode.REMOVE), ANN, confirm=confirm)
    named = Task(file, "dnc", None, options=ReadOptions(column="mobile"))
    await import_file(store, tmp_path, named, ANN)
    assert await numbers_of(store, tmp_path) == ["+12125550101", "+12125550103"]


async def test_an_empty_list_must_be_asked_for(store: ListRows, tmp_path: Path) -> None:
    file = csv_file(tmp_path, "phone")
    wanted = ReadOptions(column="phone")
    with pytest.raises(ListRefusedError, match="holds no number"):
        await import_file(store, tmp_path, Task(file, "dnc", None, options=wanted), ANN)
    imported = await import_file(store, tmp_path, Task(file, "dnc", None, options=wanted, allow_empty=True), ANN)
    assert imported.entries == 0
    assert (await scrub_with(store, tmp_path)).check(FREE, "acme").reason == ""


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "x" * 65])
async def test_a_list_name_is_a_slug(store: ListRows, tmp_path: Path, name: str) -> None:
    file = csv_file(tmp_path, "phone", LISTED)
    with pytest.raises(ListRefusedError, match="list name"):
        await import_file(store, tmp_path, Task(file, name, None), ANN)


@pytest.mark.parametrize("kind", [Kind.MD5, Kind.SHA1, Kind.SHA256])
@pytest.mark.parametrize("spelling", [0, 1, 2])
async def test_a_hashed_list_suppresses_whatever_spelling_was_hashed(
    store: ListRows, tmp_path: Path, kind: Kind, spelling: int
) -> None:
    listed = [digests(kind, 12_125_550_000 + at)[spelling].hex().upper() for at in range(100, 140)]
    await import_file(store, tmp_path, Task(csv_file(tmp_path, *listed), "dnc", None), ANN)
    scrub = await scrub_with(store, tmp_path)
    assert scrub.check(LISTED, "acme").hit == "dnc"
    assert scrub.check("+12125550140", "acme").reason == ""
    done = await edit(store, tmp_path, "dnc", add={"+12125550140": 0}, remove=[LISTED], actor=ANN)
    assert (done.added, done.removed) == (1, 1)
    await scrub.reload()
    assert scrub.check(LISTED, "acme").reason == ""
    assert scrub.check("+12125550140", "acme").hit == "dnc"
    with pytest.raises(ListRefusedError, match="kind number"):
        await import_list(store, tmp_path, FREE, mode=Mode.ADD)
    await fold(store, tmp_path, "dnc", ANN)
    assert set(await numbers_of(store, tmp_path)) == {
        *(one.lower() for one in listed[1:]),
        digests(kind, 12_125_550_140)[0].hex(),
    }


async def test_entries_expire_each_by_its_date_and_a_list_as_a_whole(store: ListRows, tmp_path: Path) -> None:
    wall = 1_800_000_000.0
    lines = ["phone,until", f"{LISTED},2027-01-14", f"{FREE},", "+12125550111,2027-01-16"]
    file = csv_file(tmp_path, *lines)
    task = Task(file, "dnc", None, options=ReadOptions(column="phone", expires_column="until"))
    await import_file(store, tmp_path, task, ANN)
    await edit(store, tmp_path, "dnc", add={"+12125550122": int(wall) + 5}, remove=[], actor=ANN)
    scrub = await scrub_with(store, tmp_path, wall=lambda: wall)

    def on() -> list[bool]:
        return [bool(scrub.check(one, "acme").hit) for one in (LISTED, FREE, "+12125550111", "+12125550122")]

    assert on() == [False, True, True, True]  # 2027-01-15 08:00 UTC
    wall += 5
    assert on() == [False, True, True, False]
    await store.extend("dnc", int(wall * 1e6) + HOUR_US, ANN)
    await scrub.reload()
    assert on() == [False, True, True, False]
    wall += 3600
    assert on() == [False, False, False, False]
    assert await scrub.reload()
    assert scrub.check(FREE, "acme").lists == ""


async def test_adding_never_ends_what_is_on_the_list(store: ListRows, tmp_path: Path) -> None:
    wall = 1_800_000_000.0
    await import_list(store, tmp_path, LISTED, expires_utc_us=3_000_000_000_000_000)
    later = int(wall) + 100
    added = await import_list(store, tmp_path, LISTED, FREE, mode=Mode.ADD, expires_utc_us=later * 1_000_000)
    assert added.entries == 2
    found = await store.find("dnc")
    assert found is not None
    assert found.expires_utc_us == 3_000_000_000_000_000
    done = await edit(store, tmp_path, "dnc", add={LISTED: later}, remove=[], actor=ANN)
    assert (done.added, done.already) == (0, 1)
    longer = await edit(store, tmp_path, "dnc", add={FREE: later + 5}, remove=[], actor=ANN)
    assert (longer.added, longer.already) == (1, 0)
    scrub = await scrub_with(store, tmp_path, wall=lambda: wall)
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, FREE)] == [True, True]
    wall += 104
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, FREE)] == [True, True]
    wall += 1
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, FREE)] == [True, False]
    again = await import_list(store, tmp_path, FREE, mode=Mode.ADD)
    assert again.entries == 2
    assert dict(rows(await current_base(store, tmp_path, "dnc", must_load=True))) == {LISTED: 0, FREE: 0}
    with pytest.raises(ListRefusedError, match="an expiry goes with numbers that are added"):
        await import_list(store, tmp_path, FREE, mode=Mode.REMOVE, expires_utc_us=3_000_000_000_000_000)
    with pytest.raises(ListRefusedError, match="ends after 2106"):
        await edit(store, tmp_path, "dnc", add={"+12125550111": 2**32}, remove=[], actor=ANN)


async def test_an_end_for_what_is_added_ends_no_line_that_says_for_ever(store: ListRows, tmp_path: Path) -> None:
    said = {LISTED: "9999-12-31", FREE: "soon", "+12125550111": "", "+12125550122": " ", "+12125550133": "2030-01-01"}
    file = csv_file(tmp_path, "phone,until", *(f"{number},{until}" for number, until in said.items()))
    wanted = ReadOptions(column="phone", expires_column="until", zone="UTC")
    end = 1_800_000_000
    task = Task(file, "dnc", None, Mode.ADD, options=wanted, expires_utc_us=end * 1_000_000)
    assert (await import_file(store, tmp_path, task, ANN)).report.endless == 1
    ends = dict(rows(await current_base(store, tmp_path, "dnc", must_load=True)))
    assert [ends[one] for one in said] == [0, 0, end, end, 1_893_542_400]


async def test_lines_that_have_ended_are_told(store: ListRows, tmp_path: Path) -> None:
    file = csv_file(tmp_path, "phone,until", f"{LISTED},2001-01-01", f"{FREE},", "+12125550111,2105-01-01")
    task = Task(file, "dnc", None, options=ReadOptions(column="phone", expires_column="until"))
    assert (await import_file(store, tmp_path, task, ANN)).report.ended == 1
