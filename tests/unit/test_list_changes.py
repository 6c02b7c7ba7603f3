"""Lists changed by hand, folded, restored and pruned."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.store.engine import open_store
from meter.suppression_rows.sql.lists import ListRows
from suppression import editing, importer
from suppression.activating import ListRefusedError
from suppression.editing import edit, fold, prune, restore
from suppression.importer import Mode, Task, import_file
from suppression.kinds import Kind, digests
from tests.suppression_lists import ANN, FREE, LISTED, csv_file, import_list, numbers_of, scrub_with


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    opened = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'baton.db'}")
    yield opened
    await opened.dispose()


@pytest.fixture
def store(engine: AsyncEngine) -> ListRows:
    return ListRows(engine)


async def test_changes_by_hand_count_what_they_changed(store: ListRows, tmp_path: Path) -> None:
    await import_list(store, tmp_path, LISTED, "+12125550111")
    done = await edit(
        store, tmp_path, "dnc", add={"(212) 555-0199": 0, LISTED: 0}, remove=["212-555-0111", "2125550177"], actor=ANN
    )
    assert (done.added, done.removed, done.already, done.absent, done.count) == (1, 1, 1, 1, 2)
    assert (done.version, done.revision) == (1, 1)
    nothing = await edit(store, tmp_path, "dnc", add={LISTED: 0}, remove=["2125550177"], actor=ANN)
    assert (nothing.revision, nothing.already, nothing.absent) == (1, 1, 1)
    for add, remove, message in (
        ({"nonsense": 0}, [], "entry 1 to be added: not a phone number; nothing was changed"),
        ({}, [LISTED, "x"], "entry 2 to be removed: not a phone number"),
        ({FREE: 5}, [FREE], "both"),
        ({f"+1212555{at:04}": 0 for at in range(1001)}, [], "1001 entries: more than 1000"),
    ):
        with pytest.raises(ListRefusedError, match=message):
            await edit(store, tmp_path, "dnc", add=add, remove=remove, actor=ANN)
    assert await numbers_of(store, tmp_path) == [LISTED, FREE]


async def test_many_changes_are_folded_into_a_file_by_themselves(
    store: ListRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editing, "FOLD_REVISIONS", 5)
    await import_list(store, tmp_path, LISTED)
    scrub = await scrub_with(store, tmp_path)
    for at in range(12):
        await edit(store, tmp_path, "dnc", add={f"+1212556{at:04}": 0}, remove=[], actor=ANN)
        await scrub.reload()
        assert scrub.check(f"+1212556{at:04}", "acme").hit == "dnc"
    found = await store.find("dnc")
    assert found is not None
    assert (found.version, found.revision, found.count) == (3, 2, 13)
    assert scrub.check(LISTED, "acme").hit == "dnc"


async def test_an_older_version_is_restored_with_its_changes_and_with_those_made_since(
    store: ListRows, tmp_path: Path
) -> None:
    await import_list(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[], actor=ANN)
    await import_list(store, tmp_path, FREE)
    await edit(store, tmp_path, "dnc", add={"+12125550122": 0}, remove=[], actor=ANN)
    done = await restore(store, tmp_path, "dnc", 1, ANN)
    assert (done.version, done.revision, done.count) == (3, 1, 3)
    assert await numbers_of(store, tmp_path) == [LISTED, "+12125550111", "+12125550122"]
    await restore(store, tmp_path, "dnc", 2, ANN, drop_changes=True)
    assert await numbers_of(store, tmp_path) == ["+12125550122", FREE]
    with pytest.raises(ListRefusedError, match="has no version 9"):
        await restore(store, tmp_path, "dnc", 9, ANN)
    (tmp_path / (await store.history("dnc"))[0].file).unlink()
    with pytest.raises(ListRefusedError, match="gone or damaged"):
        await restore(store, tmp_path, "dnc", 1, ANN)
    assert (await store.log("dnc", 1))[0].detail["of"] == 2


async def test_old_files_are_deleted_and_those_that_are_needed_are_not(store: ListRows, tmp_path: Path) -> None:
    for at in range(5):
        await import_list(store, tmp_path, f"+1212555{at:04}")
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
    assert await numbers_of(store, tmp_path) == ["+12125550000"]


async def test_what_was_changed_by_hand_is_not_forgotten_by_a_fold(store: ListRows, tmp_path: Path) -> None:
    await import_list(store, tmp_path, LISTED, "+12125550111")
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=["+12125550111"], actor=ANN)
    await fold(store, tmp_path, "dnc", ANN)
    await import_list(store, tmp_path, "+12125550122", mode=Mode.ADD)
    kept = await import_list(store, tmp_path, LISTED, "+12125550111", keep_changes=True)
    assert (kept.changed, kept.report.dropped) == (True, 0)
    assert set(await numbers_of(store, tmp_path)) == {LISTED, FREE}
    again = await import_list(store, tmp_path, LISTED, "+12125550111", keep_changes=True)
    assert not again.changed
    await fold(store, tmp_path, "dnc", ANN)
    await restore(store, tmp_path, "dnc", 1, ANN)
    assert set(await numbers_of(store, tmp_path)) == {LISTED, FREE}
    dropped = await import_list(store, tmp_path, "+12125550111")
    assert (dropped.report.dropped, await numbers_of(store, tmp_path)) == (2, ["+12125550111"])


async def test_a_fold_during_an_import_does_not_hide_what_was_changed(
    store: ListRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_list(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[], actor=ANN)
    collect = importer._collect

    async def meanwhile() -> None:
        await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=[LISTED], actor=ANN)
        await fold(store, tmp_path, "dnc", ANN)

    def slow(*given: Any, **options: Any) -> None:
        collect(*given, **options)
        asyncio.run_coroutine_threadsafe(meanwhile(), loop).result(20)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(importer, "_collect", slow)
    await import_list(store, tmp_path, LISTED, "+12125550133")
    assert set(await numbers_of(store, tmp_path)) == {FREE, "+12125550133"}


async def test_restore_and_fold_leave_the_lists_own_end_alone(store: ListRows, tmp_path: Path) -> None:
    await import_list(store, tmp_path, LISTED)
    await store.extend("dnc", 1, ANN)
    await import_list(store, tmp_path, FREE)
    restored = await restore(store, tmp_path, "dnc", 1, ANN)
    assert restored.expires_utc_us is None
    await store.extend("dnc", 3_000_000_000_000_000, ANN)
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=[], actor=ANN)
    await fold(store, tmp_path, "dnc", ANN)
    found = await store.find("dnc")
    assert found is not None
    assert found.expires_utc_us == 3_000_000_000_000_000
    await store.retire("dnc", ANN)
    with pytest.raises(ListRefusedError, match="has run out"):
        await restore(store, tmp_path, "dnc", 1, ANN)


async def test_changes_by_hand_come_along_when_a_buyer_begins_to_send_hashes(store: ListRows, tmp_path: Path) -> None:
    await import_list(store, tmp_path, LISTED, "+12125550111")
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=["+12125550111"], actor=ANN)
    hashes = [digests(Kind.SHA1, number)[2].hex() for number in (12_125_550_100, 12_125_550_111)]
    task = Task(csv_file(tmp_path, *hashes), "dnc", None, keep_changes=True)
    await import_file(store, tmp_path, task, ANN)
    scrub = await scrub_with(store, tmp_path)
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, "+12125550111", FREE)] == [True, False, True]
    with pytest.raises(ListRefusedError, match="cannot be kept on a list of kind number"):
        await import_list(store, tmp_path, LISTED, keep_changes=True)
    with pytest.raises(ListRefusedError, match="--drop-changes"):
        await restore(store, tmp_path, "dnc", 1, ANN)
    await restore(store, tmp_path, "dnc", 1, ANN, drop_changes=True)
    await scrub.reload()
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, "+12125550111", FREE)] == [True, False, True]


async def test_a_list_whose_time_ran_out_comes_back_whole(store: ListRows, tmp_path: Path) -> None:
    wall = 1_800_000_000.0
    await import_list(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[], actor=ANN)
    scrub = await scrub_with(store, tmp_path, wall=lambda: wall)
    await store.extend("dnc", int(wall * 1e6) + 1, ANN)
    wall += 10
    assert await scrub.reload()
    assert not await scrub.reload()
    assert (scrub.check(LISTED, "acme").reason, scrub.broken, scrub.entries) == ("", (), 0)
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=[], actor=ANN)
    await scrub.reload()
    await store.extend("dnc", None, ANN)
    await scrub.reload()
    assert [bool(scrub.check(one, "acme").hit) for one in (LISTED, "+12125550111", FREE)] == [True, True, True]
    assert (scrub.check("+12125550122", "acme").reason, scrub.broken) == ("", ())
