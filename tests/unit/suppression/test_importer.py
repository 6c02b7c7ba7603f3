"""Lists in, verdicts out: import, files that prove themselves, atomic versions, changes by hand, and failing closed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from book.lists import Actor, ListVersion
from meter.store.engine import open_store
from meter.suppression_rows.sql.lists import ListRows
from suppression import editing, importer, snapshot
from suppression.activating import ListRefusedError, look
from suppression.editing import edit, fold, prune, restore
from suppression.importer import Imported, Mode, Task, import_file
from suppression.kinds import Kind, digests
from suppression.lookups import find_number, rows
from suppression.reading.shapes import Wanted
from suppression.receipt import Signer
from suppression.scrub import Scrub

LISTED = "+12125550100"
FREE = "+12125550199"
ANN = Actor("ann", "test")
HOUR_US = 3_600_000_000


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    opened = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'baton.db'}")
    yield opened
    await opened.dispose()


@pytest.fixture
def store(engine: AsyncEngine) -> ListRows:
    return ListRows(engine)


def _csv(folder: Path, *lines: str, name: str = "list.csv") -> Path:
    file = folder / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


async def _import(store: ListRows, folder: Path, *numbers: str, name: str = "dnc", **more: Any) -> Imported:
    file = _csv(folder, "phone", *numbers, name=f"{name}.csv")
    task = Task(file, name, more.pop("buyer", None), **more)
    return await import_file(store, folder, task, ANN)


async def _scrub(store: ListRows, folder: Path, **more: Any) -> Scrub:
    scrub = Scrub(store, folder, Signer(b"k" * 32), **more)
    await scrub.reload()
    return scrub


async def _numbers(store: ListRows, folder: Path, name: str = "dnc") -> list[str]:
    return [entry for entry, _ in rows(await look(store, folder, name, must_load=True))]


async def test_a_number_on_a_list_is_suppressed_under_any_spelling(store: ListRows, tmp_path: Path) -> None:
    imported = await _import(store, tmp_path, "(212) 555-0100", "212.555.0101")
    scrub = await _scrub(store, tmp_path)
    for spelling in (LISTED, "2125550100", "tel:+1-212-555-0100", "011 1 212 555 0100"):
        result = scrub.check(spelling, "acme")
        assert (result.reason, result.hit) == ("suppressed", "dnc")
    result = scrub.check(FREE, "acme")
    assert result.reason == ""
    assert result.lists == f"dnc@1.0:{imported.checksum[:12]}"
    kept = await store.sets(result.sets)
    assert set(kept) == set(result.sets)
    assert imported.checksum.encode() in kept[result.sets[0]]


async def test_a_buyers_list_binds_that_buyer_and_a_global_one_all(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED, name="acme-own", buyer="acme")
    await _import(store, tmp_path, "+12125550111", name="litigators")
    scrub = await _scrub(store, tmp_path)
    assert scrub.check(LISTED, "acme").hit == "acme-own"
    assert scrub.check(LISTED, "bolt").reason == ""
    assert scrub.check("+12125550111", "acme").hit == "litigators"
    assert scrub.check("+12125550111", "bolt").hit == "litigators"
    acme, bolt = scrub.check(FREE, "acme"), scrub.check(FREE, "bolt")
    assert ("acme-own" in acme.lists, "acme-own" in bolt.lists) == (True, False)
    assert acme.sets[0] == bolt.sets[0]
    assert acme.sets[1] != bolt.sets[1]


async def test_many_lists_of_a_buyer_are_looked_up_together_and_the_one_that_hit_is_named(
    store: ListRows, tmp_path: Path
) -> None:
    for at in range(12):
        await _import(store, tmp_path, f"+1212555{at:04}", f"+1212555{at + 100:04}", name=f"l{at:02}", buyer="acme")
    scrub = await _scrub(store, tmp_path)
    for at in range(12):
        assert scrub.check(f"+1212555{at + 100:04}", "acme").hit == f"l{at:02}"
    assert scrub.check("+12125550050", "acme").reason == ""
    assert scrub.check("+12125550000", "bolt").reason == ""
    await edit(store, tmp_path, "l03", add={}, remove=["+12125550103"], who=ANN)
    await edit(store, tmp_path, "l04", add={"+12125550050": 0}, remove=[], who=ANN)
    await scrub.reload()
    assert scrub.check("+12125550103", "acme").reason == ""
    assert scrub.check("+12125550050", "acme").hit == "l04"


async def test_lists_longer_than_a_header_are_told_by_count(store: ListRows, tmp_path: Path) -> None:
    for at in range(20):
        await _import(store, tmp_path, LISTED, name=f"a-list-with-a-long-name-{at:02}", buyer="acme")
    result = (await _scrub(store, tmp_path)).check(FREE, "acme")
    assert len(result.lists) < 450
    assert result.lists.endswith(f"; +{20 - result.lists.count('@')}")


async def test_without_any_list_a_number_passes_but_not_before_the_first_look(store: ListRows, tmp_path: Path) -> None:
    scrub = Scrub(store, tmp_path, Signer(b"k" * 32))
    assert scrub.check(FREE, "acme").reason == "suppression_unavailable"
    await scrub.reload()
    assert scrub.check(FREE, "acme").reason == ""


async def test_a_number_that_is_none_cannot_be_cleared(store: ListRows, tmp_path: Path) -> None:
    scrub = await _scrub(store, tmp_path)
    for text in ("", "anonymous", "+1999", "sip:anonymous@anonymous.invalid"):
        assert scrub.check(text, "acme").reason == "suppression_unavailable"


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swap", "empty"])
async def test_a_damaged_file_refuses_everyone_it_applies_to(
    store: ListRows, tmp_path: Path, damage: str, mapped: bool
) -> None:
    await _import(store, tmp_path, LISTED, name="acme-own", buyer="acme")
    await _import(store, tmp_path, "+12125550150", name="other", buyer="bolt")
    (row,) = [one for one in await store.active() if one.name == "acme-own"]
    (other,) = [one for one in await store.active() if one.name == "other"]
    file = tmp_path / row.file
    whole = file.read_bytes()
    if damage == "flip":
        file.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    elif damage == "cut":
        file.write_bytes(whole[:-8])
    elif damage == "gone":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.write_bytes((tmp_path / other.file).read_bytes())
    scrub = await _scrub(store, tmp_path, mapped=mapped)
    assert scrub.broken == ("acme-own",)
    assert scrub.check(FREE, "acme").reason == "suppression_unavailable"
    assert scrub.check(FREE, "bolt").reason == ""
    assert not await scrub.reload()
    file.write_bytes(whole)
    assert await scrub.reload()
    assert scrub.check(FREE, "acme").reason == ""
    assert scrub.check(LISTED, "acme").reason == "suppressed"


async def test_a_change_on_record_that_is_damaged_refuses_too(
    store: ListRows, engine: AsyncEngine, tmp_path: Path
) -> None:
    await _import(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=[], who=ANN)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE suppression_changes SET document = CAST('{}' AS BLOB)")
    scrub = await _scrub(store, tmp_path)
    assert scrub.broken == ("dnc",)
    assert scrub.check("+12125550111", "acme").reason == "suppression_unavailable"


async def test_a_new_version_takes_over_at_the_next_look(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED)
    scrub = await _scrub(store, tmp_path)
    assert not await scrub.reload()
    second = await _import(store, tmp_path, FREE)
    assert second.version == 2
    assert scrub.check(LISTED, "acme").reason == "suppressed"
    assert await scrub.reload()
    assert scrub.check(LISTED, "acme").reason == ""
    assert scrub.check(FREE, "acme").lists.startswith("dnc@2.0:")


async def test_the_same_file_again_is_no_new_version(store: ListRows, tmp_path: Path) -> None:
    first = await _import(store, tmp_path, LISTED)
    again = await _import(store, tmp_path, LISTED)
    assert (first.changed, again.changed) == (True, False)
    assert again.version == first.version == 1
    assert [one.action for one in await store.log("dnc")] == ["unchanged", "replace"]
    (row,) = await store.active()
    (tmp_path / row.file).unlink()
    healed = await _import(store, tmp_path, LISTED)
    assert (healed.changed, healed.version) == (True, 2)


async def test_a_list_does_not_change_hands(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED, buyer="acme")
    with pytest.raises(ListRefusedError, match="list 'dnc' is of buyer 'acme'"):
        await _import(store, tmp_path, FREE, buyer=None)
    (row,) = await store.active()
    assert (row.buyer, row.version) == ("acme", 1)
    assert [one.name for one in (tmp_path / "suppression").iterdir()] == [Path(row.file).name]
    newest = (await store.log("dnc"))[0]
    assert (newest.action, newest.by, "does not change hands" in str(newest.detail["why"])) == (
        "refused_replace",
        "ann",
        True,
    )


async def test_a_retired_list_no_longer_applies(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED)
    scrub = await _scrub(store, tmp_path)
    assert await store.retire("dnc", ANN)
    assert not await store.retire("dnc", ANN)
    assert await scrub.reload()
    assert scrub.check(LISTED, "acme").reason == ""
    assert (await _import(store, tmp_path, LISTED)).version == 2


async def test_a_store_out_of_reach_keeps_the_lists_for_a_minute_then_refuses(store: ListRows, tmp_path: Path) -> None:
    now = 0.0
    await _import(store, tmp_path, LISTED)
    scrub = await _scrub(store, tmp_path, clock=lambda: now)
    now = 60.0
    assert scrub.check(FREE, "acme").reason == ""
    now = 60.1
    assert scrub.check(FREE, "acme").reason == "suppression_unavailable"
    await scrub.reload()
    assert scrub.check(FREE, "acme").reason == ""


async def test_a_store_restored_from_a_copy_is_believed(tmp_path: Path) -> None:
    early, late = tmp_path / "early.db", tmp_path / "late.db"
    first = await open_store(f"sqlite+aiosqlite:///{early}")
    await _import(ListRows(first), tmp_path, LISTED)
    await first.dispose()
    late.write_bytes(early.read_bytes())
    second = await open_store(f"sqlite+aiosqlite:///{late}")
    store = ListRows(second)
    await _import(store, tmp_path, FREE)
    await _import(store, tmp_path, "+12125550111", name="more")
    scrub = await _scrub(store, tmp_path)
    await second.dispose()
    third = await open_store(f"sqlite+aiosqlite:///{early}")
    scrub._store = ListRows(third)
    assert await scrub.reload()
    assert [scrub.check(one, "acme").reason for one in (LISTED, FREE, "+12125550111")] == ["suppressed", "", ""]
    await third.dispose()


async def test_imports_at_once_leave_one_version_in_force(store: ListRows, tmp_path: Path) -> None:
    files = [_csv(tmp_path, "phone", f"+1212555{at:04}", name=f"{at}.csv") for at in range(4)]
    done = await asyncio.gather(*(import_file(store, tmp_path, Task(one, "dnc", None), ANN) for one in files))
    assert sorted(one.version for one in done) == [1, 2, 3, 4]
    assert len(await store.active()) == 1
    assert len(await store.history("dnc")) == 4


async def test_files_added_at_once_are_all_in(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED)
    files = [_csv(tmp_path, "phone", f"+1212555{at:04}", name=f"{at}.csv") for at in range(4)]
    await asyncio.gather(
        *(import_file(store, tmp_path, Task(one, "dnc", None, Mode.ADD), ANN) for one in files),
        *(edit(store, tmp_path, "dnc", add={f"+1212556{at:04}": 0}, remove=[], who=ANN) for at in range(4)),
    )
    wanted = {LISTED, *(f"+1212555{at:04}" for at in range(4)), *(f"+1212556{at:04}" for at in range(4))}
    assert set(await _numbers(store, tmp_path)) == wanted
    found = await store.find("dnc")
    assert found is not None
    assert found.count == len(wanted)


async def test_what_was_changed_by_hand_during_an_import_stays_changed(
    store: ListRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _import(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[], who=ANN)
    collect = importer._collect

    def slow(*given: Any) -> None:
        collect(*given)
        asyncio.run_coroutine_threadsafe(
            edit(store, tmp_path, "dnc", add={"+12125550122": 0}, remove=[LISTED], who=ANN), loop
        ).result(20)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(importer, "_collect", slow)
    done = await _import(store, tmp_path, LISTED, "+12125550133")
    # What was changed before the import goes with the old version; what was changed meanwhile comes along.
    assert (done.version, done.revision, done.entries) == (2, 1, 2)
    assert set(await _numbers(store, tmp_path)) == {"+12125550122", "+12125550133"}


async def test_replacing_drops_what_was_changed_by_hand_says_so_and_can_keep_it(
    store: ListRows, tmp_path: Path
) -> None:
    await _import(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[LISTED], who=ANN)
    kept = await _import(store, tmp_path, LISTED, FREE, keep_changes=True)
    assert (kept.report.dropped, kept.entries, kept.revision) == (0, 2, 1)
    assert set(await _numbers(store, tmp_path)) == {FREE, "+12125550111"}
    again = await _import(store, tmp_path, LISTED, FREE, keep_changes=True)
    assert (again.changed, again.version, again.revision) == (False, 2, 1)
    dropped = await _import(store, tmp_path, LISTED, FREE)
    assert (dropped.report.dropped, dropped.changed) == (2, True)
    assert set(await _numbers(store, tmp_path)) == {LISTED, FREE}


async def test_a_file_adds_and_removes(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED, "+12125550111")
    added = await _import(store, tmp_path, FREE, LISTED, mode=Mode.ADD)
    assert (added.before, added.entries, added.version) == (2, 3, 2)
    await edit(store, tmp_path, "dnc", add={"+12125550122": 0}, remove=[FREE], who=ANN)
    removed = await _import(store, tmp_path, "+12125550111", "+12125550177", mode=Mode.REMOVE)
    assert (removed.before, removed.entries) == (3, 2)
    assert await _numbers(store, tmp_path) == [LISTED, "+12125550122"]
    log = [(one.action, one.before, one.after, one.by) for one in await store.log("dnc")]
    assert log == [
        ("remove", 3, 2, "ann"),
        ("edit", 3, 3, "ann"),
        ("add", 2, 3, "ann"),
        ("replace", None, 2, "ann"),
    ]
    with pytest.raises(ListRefusedError, match="no list called 'nope'"):
        await _import(store, tmp_path, LISTED, name="nope", mode=Mode.REMOVE)


async def test_a_dry_run_tells_and_changes_nothing(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED)
    told = await _import(store, tmp_path, FREE, "bad", *[f"212555{at:04}" for at in range(60)], dry_run=True)
    assert (told.changed, told.entries, told.before, told.report.rejected) == (False, 61, 1, 1)
    assert await _numbers(store, tmp_path) == [LISTED]
    assert [one.action for one in await store.log()] == ["replace"]
    assert len(list((tmp_path / "suppression").glob("*.list"))) == 1


async def test_rejects_are_listed_with_their_line_and_not_their_text(store: ListRows, tmp_path: Path) -> None:
    numbers = [f"212555{at:04}" for at in range(100)]
    file = _csv(tmp_path, "name,Phone", *(f"x,{one}" for one in numbers), "", 'y,"n/a"', "z,555-0100", "a,2125550000")
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
        imported = await _import(store, tmp_path, *lines)
        assert (imported.entries, imported.report.rejected) == (98, 2)
        return
    with pytest.raises(ListRefusedError, match="3 of 100 lines rejected, more than 2 %"):
        await _import(store, tmp_path, *lines)
    assert await store.active() == ()
    assert not list((tmp_path / "suppression").glob("*.list"))
    assert (await _import(store, tmp_path, *lines, reject_percent=3.0)).entries == 97


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
        await import_file(store, tmp_path, Task(_csv(tmp_path, *lines), "dnc", None), ANN)
    assert await store.active() == ()


async def test_a_guess_that_is_not_sure_is_confirmed_or_refused(store: ListRows, tmp_path: Path) -> None:
    file = _csv(tmp_path, "home,mobile", "2125550100,2125550101", "2125550102,2125550103")
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
    named = Task(file, "dnc", None, wanted=Wanted(column="mobile"))
    await import_file(store, tmp_path, named, ANN)
    assert await _numbers(store, tmp_path) == ["+12125550101", "+12125550103"]


async def test_an_empty_list_must_be_asked_for(store: ListRows, tmp_path: Path) -> None:
    file = _csv(tmp_path, "phone")
    wanted = Wanted(column="phone")
    with pytest.raises(ListRefusedError, match="holds no number"):
        await import_file(store, tmp_path, Task(file, "dnc", None, wanted=wanted), ANN)
    imported = await import_file(store, tmp_path, Task(file, "dnc", None, wanted=wanted, allow_empty=True), ANN)
    assert imported.entries == 0
    assert (await _scrub(store, tmp_path)).check(FREE, "acme").reason == ""


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "x" * 65])
async def test_a_list_name_is_a_slug(store: ListRows, tmp_path: Path, name: str) -> None:
    file = _csv(tmp_path, "phone", LISTED)
    with pytest.raises(ListRefusedError, match="list name"):
        await import_file(store, tmp_path, Task(file, name, None), ANN)


@pytest.mark.parametrize("kind", [Kind.MD5, Kind.SHA1, Kind.SHA256])
@pytest.mark.parametrize("spelling", [0, 1, 2])
async def test_a_hashed_list_suppresses_whatever_spelling_was_hashed(
    store: ListRows, tmp_path: Path, kind: Kind, spelling: int
) -> None:
    listed = [digests(kind, 12_125_550_000 + at)[spelling].hex().upper() for at in range(100, 140)]
    await import_file(store, tmp_path, Task(_csv(tmp_path, *listed), "dnc", None), ANN)
    scrub = await _scrub(store, tmp_path)
    assert scrub.check(LISTED, "acme").hit == "dnc"
    assert scrub.check("+12125550140", "acme").reason == ""
    done = await edit(store, tmp_path, "dnc", add={"+12125550140": 0}, remove=[LISTED], who=ANN)
    assert (done.added, done.removed) == (1, 1)
    await scrub.reload()
    assert scrub.check(LISTED, "acme").reason == ""
    assert scrub.check("+12125550140", "acme").hit == "dnc"
    with pytest.raises(ListRefusedError, match="kind number"):
        await _import(store, tmp_path, FREE, mode=Mode.ADD)
    await fold(store, tmp_path, "dnc", ANN)
    assert set(await _numbers(store, tmp_path)) == {
        *(one.lower() for one in listed[1:]),
        digests(kind, 12_125_550_140)[0].hex(),
    }


async def test_entries_expire_each_by_its_date_and_a_list_as_a_whole(store: ListRows, tmp_path: Path) -> None:
    wall = 1_800_000_000.0
    lines = ["phone,until", f"{LISTED},2027-01-14", f"{FREE},", "+12125550111,2027-01-16"]
    file = _csv(tmp_path, *lines)
    task = Task(file, "dnc", None, wanted=Wanted(column="phone", expires_column="until"))
    await import_file(store, tmp_path, task, ANN)
    await edit(store, tmp_path, "dnc", add={"+12125550122": int(wall) + 5}, remove=[], who=ANN)
    scrub = await _scrub(store, tmp_path, wall=lambda: wall)

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


async def test_changes_by_hand_count_what_they_changed(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED, "+12125550111")
    done = await edit(
        store, tmp_path, "dnc", add={"(212) 555-0199": 0, LISTED: 0}, remove=["212-555-0111", "2125550177"], who=ANN
    )
    assert (done.added, done.removed, done.already, done.absent, done.count) == (1, 1, 1, 1, 2)
    assert (done.version, done.revision) == (1, 1)
    nothing = await edit(store, tmp_path, "dnc", add={LISTED: 0}, remove=["2125550177"], who=ANN)
    assert (nothing.revision, nothing.already, nothing.absent) == (1, 1, 1)
    for add, remove, message in (
        ({"nonsense": 0}, [], "entry 1 to be added: not a phone number; nothing was changed"),
        ({}, [LISTED, "x"], "entry 2 to be removed: not a phone number"),
        ({FREE: 5}, [FREE], "both"),
        ({f"+1212555{at:04}": 0 for at in range(1001)}, [], "1001 entries: more than 1000"),
    ):
        with pytest.raises(ListRefusedError, match=message):
            await edit(store, tmp_path, "dnc", add=add, remove=remove, who=ANN)
    assert await _numbers(store, tmp_path) == [LISTED, FREE]


async def test_many_changes_are_folded_into_a_file_by_themselves(
    store: ListRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editing, "FOLD_REVISIONS", 5)
    await _import(store, tmp_path, LISTED)
    scrub = await _scrub(store, tmp_path)
    for at in range(12):
        await edit(store, tmp_path, "dnc", add={f"+1212556{at:04}": 0}, remove=[], who=ANN)
        await scrub.reload()
        assert scrub.check(f"+1212556{at:04}", "acme").hit == "dnc"
    found = await store.find("dnc")
    assert found is not None
    assert (found.version, found.revision, found.count) == (3, 2, 13)
    assert scrub.check(LISTED, "acme").hit == "dnc"


async def test_an_older_version_is_restored_with_its_changes_and_with_those_made_since(
    store: ListRows, tmp_path: Path
) -> None:
    await _import(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[], who=ANN)
    await _import(store, tmp_path, FREE)
    await edit(store, tmp_path, "dnc", add={"+12125550122": 0}, remove=[], who=ANN)
    done = await restore(store, tmp_path, "dnc", 1, ANN)
    assert (done.version, done.revision, done.count) == (3, 1, 3)
    assert await _numbers(store, tmp_path) == [LISTED, "+12125550111", "+12125550122"]
    await restore(store, tmp_path, "dnc", 2, ANN, drop_changes=True)
    assert await _numbers(store, tmp_path) == ["+12125550122", FREE]
    with pytest.raises(ListRefusedError, match="has no version 9"):
        await restore(store, tmp_path, "dnc", 9, ANN)
    (tmp_path / (await store.history("dnc"))[0].file).unlink()
    with pytest.raises(ListRefusedError, match="gone or damaged"):
        await restore(store, tmp_path, "dnc", 1, ANN)
    assert (await store.log("dnc", 1))[0].detail["of"] == 2


async def test_old_files_are_deleted_and_those_that_are_needed_are_not(store: ListRows, tmp_path: Path) -> None:
    for at in range(5):
        await _import(store, tmp_path, f"+1212555{at:04}")
    await restore(store, tmp_path, "dnc", 1, ANN)
    folder = tmp_path / "suppression"
    orphan, young = folder / "orphan.list", folder / "young.list"
    for one in (orphan, young):
        one.write_bytes(b"x")
    os.utime(orphan, (0, 0))
    assert await prune(store, tmp_path, 2) == 5
    left = {Path(one.file).name for one in await store.history("dnc") if (tmp_path / one.file).is_file()}
    assert left == {Path(one.file).name for one in await store.history("dnc") if one.version in (5, 6)}
    assert len(left) == 2
    assert {one.name for one in folder.glob("*.list")} == left | {"young.list"}
    assert await _numbers(store, tmp_path) == ["+12125550000"]


async def test_people_with_an_exemption_pass_a_global_list_until_it_ends(store: ListRows, tmp_path: Path) -> None:
    wall = 0.0
    await _import(store, tmp_path, LISTED, FREE)
    await _import(store, tmp_path, LISTED, name="acme-own", buyer="acme")
    first = await store.exempt("dnc", 12_125_550_100, None, "consent of 2026-11-01", 2_000_000_000_000_000, ANN)
    second = await store.exempt("dnc", 12_125_550_199, "bolt", "customer", 2_000_000_000_000_000, ANN)
    scrub = await _scrub(store, tmp_path, wall=lambda: wall)
    assert (scrub.check(LISTED, "bolt").reason, scrub.check(LISTED, "bolt").exempt) == ("", (first.id,))
    assert (scrub.check(LISTED, "acme").hit, scrub.check(LISTED, "acme").exempt) == ("acme-own", (first.id,))
    assert (scrub.check(FREE, "bolt").exempt, scrub.check(FREE, "acme").hit) == ((second.id,), "dnc")
    wall = 2_000_000_000.0
    assert scrub.check(LISTED, "bolt").hit == "dnc"
    wall = 0.0
    await store.revoke(first.id, ANN)
    await scrub.reload()
    assert scrub.check(LISTED, "bolt").hit == "dnc"
    assert scrub.check(FREE, "bolt").reason == ""
    with pytest.raises(ValueError, match="acme-own"):
        await store.exempt("acme-own", 12_125_550_100, None, "no", 2_000_000_000_000_000, ANN)


async def test_since_when_a_number_is_on_a_list(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, FREE)
    await _import(store, tmp_path, FREE, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[], who=Actor("bea", "test"))
    await _import(store, tmp_path, LISTED, FREE, "+12125550111", "+12125550122")
    versions = await store.history("dnc")

    async def since(number: int) -> tuple[int, bool, str]:
        (found,) = await find_number(store, tmp_path, await store.active(), number, 0.0)
        return found.since_utc_us, found.exact, found.by

    assert await since(12_125_550_199) == (versions[0].imported_utc_us, True, "ann")
    assert await since(12_125_550_100) == (versions[1].imported_utc_us, True, "ann")
    (change,) = await store.changes("dnc", 2)
    assert await since(12_125_550_111) == (change.at_utc_us, True, "bea")
    assert await since(12_125_550_122) == (versions[2].imported_utc_us, True, "ann")
    (tmp_path / versions[0].file).unlink()
    assert await since(12_125_550_199) == (versions[1].imported_utc_us, False, "ann")
    assert await find_number(store, tmp_path, await store.active(), 12_125_550_177, 0.0) == []


async def test_a_list_of_the_first_format_is_read(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED)
    folder = tmp_path / "suppression"
    file = _first_format(folder / "old.list", [12_125_550_100, 12_125_550_111])
    read = snapshot.load(file)
    assert (read.kind, read.count, read.source_checksum) == (Kind.NUMBER, 2, "s")
    assert read.entries(0, 2).keys.tolist() == [12_125_550_100, 12_125_550_111]


def _first_format(file: Path, numbers: list[int]) -> Path:
    """As Baton wrote lists before they had sections."""
    import hashlib
    import json

    header = json.dumps({"format": 1, "count": len(numbers), "source_checksum": "s", "built_at": "b"}).encode()
    header += b" " * (-(12 + len(header)) % 8)
    content = b"BATONSL\n" + len(header).to_bytes(4, "little") + header
    content += b"".join(one.to_bytes(8, "little") for one in numbers)
    file.write_bytes(content + hashlib.sha256(content).digest())
    return file


def test_rows_of_the_store_are_what_suppression_asks_for() -> None:

    wanted = {name for name in vars(ListVersion) if not name.startswith("_")}
    assert wanted <= set(ListVersion.__dataclass_fields__)


async def test_what_was_changed_by_hand_is_not_forgotten_by_a_fold(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED, "+12125550111")
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=["+12125550111"], who=ANN)
    await fold(store, tmp_path, "dnc", ANN)
    await _import(store, tmp_path, "+12125550122", mode=Mode.ADD)
    kept = await _import(store, tmp_path, LISTED, "+12125550111", keep_changes=True)
    assert (kept.changed, kept.report.dropped) == (True, 0)
    assert set(await _numbers(store, tmp_path)) == {LISTED, FREE}
    again = await _import(store, tmp_path, LISTED, "+12125550111", keep_changes=True)
    assert not again.changed
    await fold(store, tmp_path, "dnc", ANN)
    await restore(store, tmp_path, "dnc", 1, ANN)
    assert set(await _numbers(store, tmp_path)) == {LISTED, FREE}
    dropped = await _import(store, tmp_path, "+12125550111")
    assert (dropped.report.dropped, await _numbers(store, tmp_path)) == (2, ["+12125550111"])


async def test_a_fold_during_an_import_does_not_hide_what_was_changed(
    store: ListRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _import(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[], who=ANN)
    collect = importer._collect

    async def meanwhile() -> None:
        await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=[LISTED], who=ANN)
        await fold(store, tmp_path, "dnc", ANN)

    def slow(*given: Any) -> None:
        collect(*given)
        asyncio.run_coroutine_threadsafe(meanwhile(), loop).result(20)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(importer, "_collect", slow)
    await _import(store, tmp_path, LISTED, "+12125550133")
    assert set(await _numbers(store, tmp_path)) == {FREE, "+12125550133"}


async def test_adding_never_ends_what_is_on_the_list(store: ListRows, tmp_path: Path) -> None:
    wall = 1_800_000_000.0
    await _import(store, tmp_path, LISTED, expires_utc_us=3_000_000_000_000_000)
    later = int(wall) + 100
    added = await _import(store, tmp_path, LISTED, FREE, mode=Mode.ADD, expires_utc_us=later * 1_000_000)
    assert added.entries == 2
    found = await store.find("dnc")
    assert found is not None
    assert found.expires_utc_us == 3_000_000_000_000_000
    done = await edit(store, tmp_path, "dnc", add={LISTED: later}, remove=[], who=ANN)
    assert (done.added, done.already) == (0, 1)
    longer = await edit(store, tmp_path, "dnc", add={FREE: later + 5}, remove=[], who=ANN)
    assert (longer.added, longer.already) == (1, 0)
    scrub = await _scrub(store, tmp_path, wall=lambda: wall)
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, FREE)] == [True, True]
    wall += 104
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, FREE)] == [True, True]
    wall += 1
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, FREE)] == [True, False]
    again = await _import(store, tmp_path, FREE, mode=Mode.ADD)
    assert again.entries == 2
    assert dict(rows(await look(store, tmp_path, "dnc", must_load=True))) == {LISTED: 0, FREE: 0}
    with pytest.raises(ListRefusedError, match="an expiry goes with numbers that are added"):
        await _import(store, tmp_path, FREE, mode=Mode.REMOVE, expires_utc_us=3_000_000_000_000_000)
    with pytest.raises(ListRefusedError, match="ends after 2106"):
        await edit(store, tmp_path, "dnc", add={"+12125550111": 2**32}, remove=[], who=ANN)


async def test_an_end_for_what_is_added_ends_no_line_that_says_for_ever(store: ListRows, tmp_path: Path) -> None:
    said = {LISTED: "9999-12-31", FREE: "soon", "+12125550111": "", "+12125550122": " ", "+12125550133": "2030-01-01"}
    file = _csv(tmp_path, "phone,until", *(f"{number},{until}" for number, until in said.items()))
    wanted = Wanted(column="phone", expires_column="until", zone="UTC")
    end = 1_800_000_000
    task = Task(file, "dnc", None, Mode.ADD, wanted=wanted, expires_utc_us=end * 1_000_000)
    assert (await import_file(store, tmp_path, task, ANN)).report.endless == 1
    ends = dict(rows(await look(store, tmp_path, "dnc", must_load=True)))
    assert [ends[one] for one in said] == [0, 0, end, end, 1_893_542_400]


async def test_lines_that_have_ended_are_told(store: ListRows, tmp_path: Path) -> None:
    file = _csv(tmp_path, "phone,until", f"{LISTED},2001-01-01", f"{FREE},", "+12125550111,2105-01-01")
    task = Task(file, "dnc", None, wanted=Wanted(column="phone", expires_column="until"))
    assert (await import_file(store, tmp_path, task, ANN)).report.ended == 1


async def test_restore_and_fold_leave_the_lists_own_end_alone(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED)
    await store.extend("dnc", 1, ANN)
    await _import(store, tmp_path, FREE)
    restored = await restore(store, tmp_path, "dnc", 1, ANN)
    assert restored.expires_utc_us is None
    await store.extend("dnc", 3_000_000_000_000_000, ANN)
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=[], who=ANN)
    await fold(store, tmp_path, "dnc", ANN)
    found = await store.find("dnc")
    assert found is not None
    assert found.expires_utc_us == 3_000_000_000_000_000
    await store.retire("dnc", ANN)
    with pytest.raises(ListRefusedError, match="has run out"):
        await restore(store, tmp_path, "dnc", 1, ANN)


async def test_changes_by_hand_come_along_when_a_buyer_begins_to_send_hashes(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED, "+12125550111")
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=["+12125550111"], who=ANN)
    hashes = [digests(Kind.SHA1, number)[2].hex() for number in (12_125_550_100, 12_125_550_111)]
    task = Task(_csv(tmp_path, *hashes), "dnc", None, keep_changes=True)
    await import_file(store, tmp_path, task, ANN)
    scrub = await _scrub(store, tmp_path)
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, "+12125550111", FREE)] == [True, False, True]
    with pytest.raises(ListRefusedError, match="cannot be kept on a list of kind number"):
        await _import(store, tmp_path, LISTED, keep_changes=True)
    with pytest.raises(ListRefusedError, match="--drop-changes"):
        await restore(store, tmp_path, "dnc", 1, ANN)
    await restore(store, tmp_path, "dnc", 1, ANN, drop_changes=True)
    await scrub.reload()
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, "+12125550111", FREE)] == [True, False, True]


async def test_a_list_whose_time_ran_out_comes_back_whole(store: ListRows, tmp_path: Path) -> None:
    wall = 1_800_000_000.0
    await _import(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[], who=ANN)
    scrub = await _scrub(store, tmp_path, wall=lambda: wall)
    await store.extend("dnc", int(wall * 1e6) + 1, ANN)
    wall += 10
    assert await scrub.reload()
    assert not await scrub.reload()
    assert (scrub.check(LISTED, "acme").reason, scrub.broken, scrub.entries) == ("", (), 0)
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=[], who=ANN)
    await scrub.reload()
    await store.extend("dnc", None, ANN)
    await scrub.reload()
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, "+12125550111", FREE)] == [True, True, True]
    assert (scrub.check("+12125550122", "acme").reason, scrub.broken) == ("", ())


async def test_a_store_that_went_on_from_a_copy_is_noticed(tmp_path: Path) -> None:
    early, late = tmp_path / "early.db", tmp_path / "late.db"
    first = await open_store(f"sqlite+aiosqlite:///{early}")
    await _import(ListRows(first), tmp_path, LISTED)
    await first.dispose()
    late.write_bytes(early.read_bytes())
    second = await open_store(f"sqlite+aiosqlite:///{late}")
    await edit(ListRows(second), tmp_path, "dnc", add={}, remove=[LISTED], who=ANN)
    scrub = await _scrub(ListRows(second), tmp_path)
    assert scrub.check(LISTED, "acme").reason == ""
    await second.dispose()
    third = await open_store(f"sqlite+aiosqlite:///{early}")
    store = ListRows(third)
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=[], who=ANN)  # as many changes as were lost
    scrub._store = store
    assert await scrub.reload()
    result = scrub.check(LISTED, "acme")
    assert result.reason == "suppressed"
    assert set(await store.sets(result.sets)) == set(result.sets)
    await third.dispose()
