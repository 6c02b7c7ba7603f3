"""Lists in, verdicts out: import, files that prove themselves, atomic versions, and failing closed."""

from __future__ import annotations

import asyncio
import os
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.store.db import open_store
from meter.store.suppression import ListRows
from suppression import snapshot
from suppression.importer import Imported, ListRefusedError, import_csv, read_csv
from suppression.scrub import Scrub
from suppression.snapshot import SnapshotError

LISTED = "+12125550100"
FREE = "+12125550199"


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


async def _import(
    store: ListRows, folder: Path, *numbers: str, name: str = "dnc", buyer: str | None = None
) -> Imported:
    file = _csv(folder, "phone", *numbers, name=f"{name}.csv")
    return await import_csv(store, folder, file, name=name, buyer=buyer, by="test")


async def _scrub(store: ListRows, folder: Path) -> Scrub:
    scrub = Scrub(store, folder)
    await scrub.reload()
    return scrub


async def test_a_number_on_a_list_is_suppressed_under_any_spelling(store: ListRows, tmp_path: Path) -> None:
    imported = await _import(store, tmp_path, "(212) 555-0100", "212.555.0101")
    scrub = await _scrub(store, tmp_path)
    for spelling in (LISTED, "2125550100", "tel:+1-212-555-0100", "011 1 212 555 0100"):
        result = scrub.check(spelling, "acme")
        assert (result.reason, result.hit) == ("suppressed", "dnc")
    result = scrub.check(FREE, "acme")
    assert result.reason == ""
    (used,) = result.lists
    assert (used.name, used.version, used.checksum) == ("dnc", 1, imported.checksum)


async def test_a_buyers_list_binds_that_buyer_and_a_global_one_all(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED, name="acme-own", buyer="acme")
    await _import(store, tmp_path, "+12125550111", name="litigators")
    scrub = await _scrub(store, tmp_path)
    assert scrub.check(LISTED, "acme").hit == "acme-own"
    assert scrub.check(LISTED, "bolt").reason == ""
    assert scrub.check("+12125550111", "acme").hit == "litigators"
    assert scrub.check("+12125550111", "bolt").hit == "litigators"
    assert {one.name for one in scrub.check(FREE, "acme").lists} == {"acme-own", "litigators"}
    assert {one.name for one in scrub.check(FREE, "bolt").lists} == {"litigators"}


async def test_without_any_list_a_number_passes_but_not_before_the_first_look(store: ListRows, tmp_path: Path) -> None:
    scrub = Scrub(store, tmp_path)
    assert scrub.check(FREE, "acme").reason == "suppression_unavailable"
    await scrub.reload()
    assert scrub.check(FREE, "acme").reason == ""


async def test_a_number_that_is_none_cannot_be_cleared(store: ListRows, tmp_path: Path) -> None:
    scrub = await _scrub(store, tmp_path)
    for text in ("", "anonymous", "+1999", "sip:anonymous@anonymous.invalid"):
        assert scrub.check(text, "acme").reason == "suppression_unavailable"


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swap", "empty"])
async def test_a_damaged_file_refuses_everyone_it_applies_to(store: ListRows, tmp_path: Path, damage: str) -> None:
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
    scrub = await _scrub(store, tmp_path)
    assert scrub.broken == ("acme-own",)
    assert scrub.check(FREE, "acme").reason == "suppression_unavailable"
    assert scrub.check(FREE, "bolt").reason == ""
    file.write_bytes(whole)
    assert await scrub.reload()
    assert scrub.check(FREE, "acme").reason == ""
    assert scrub.check(LISTED, "acme").reason == "suppressed"


async def test_a_new_version_takes_over_at_the_next_look(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED)
    scrub = await _scrub(store, tmp_path)
    assert not await scrub.reload()
    second = await _import(store, tmp_path, FREE)
    assert second.version == 2
    assert scrub.check(LISTED, "acme").reason == "suppressed"
    assert await scrub.reload()
    assert scrub.check(LISTED, "acme").reason == ""
    assert scrub.check(FREE, "acme").lists[0].version == 2


async def test_the_same_file_again_is_no_new_version(store: ListRows, tmp_path: Path) -> None:
    first = await _import(store, tmp_path, LISTED)
    again = await _import(store, tmp_path, LISTED)
    assert (first.changed, again.changed) == (True, False)
    assert again.version == first.version == 1
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


async def test_a_retired_list_no_longer_applies(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, LISTED)
    scrub = await _scrub(store, tmp_path)
    assert await store.retire("dnc")
    assert not await store.retire("dnc")
    assert await scrub.reload()
    assert scrub.check(LISTED, "acme").reason == ""
    assert (await _import(store, tmp_path, LISTED)).version == 2


async def test_a_store_out_of_reach_keeps_the_lists_for_a_minute_then_refuses(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    now = 0.0
    store = ListRows(engine)
    await _import(store, tmp_path, LISTED)
    scrub = Scrub(store, tmp_path, clock=lambda: now)
    await scrub.reload()
    now = 60.0
    assert scrub.check(FREE, "acme").reason == ""
    now = 60.1
    assert scrub.check(FREE, "acme").reason == "suppression_unavailable"
    await scrub.reload()
    assert scrub.check(FREE, "acme").reason == ""


async def test_two_imports_at_once_leave_one_version_in_force(store: ListRows, tmp_path: Path) -> None:
    files = [_csv(tmp_path, "phone", f"+1212555{at:04}", name=f"{at}.csv") for at in range(4)]
    done = await asyncio.gather(*(import_csv(store, tmp_path, one, name="dnc", buyer=None) for one in files))
    assert sorted(one.version for one in done) == [1, 2, 3, 4]
    assert len(await store.active()) == 1
    assert len(await store.history("dnc")) == 4


def test_rejects_carry_their_line_and_not_their_text(tmp_path: Path) -> None:
    numbers = [f"212555{at:04}" for at in range(100)]
    file = _csv(
        tmp_path, "name,Phone", *(f"x,{one}" for one in numbers), "", 'y,"n/a"', "short", "z,555-0100", "a,2125550000"
    )
    found, report = read_csv(file)
    assert len(found) == 100
    assert (report.lines, report.rejected, report.repeats) == (104, 3, 1)
    assert [one.line for one in report.rejects] == [103, 104, 105]
    assert "n/a" not in str(report.rejects)


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
    assert not (tmp_path / "suppression").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("phone",), "holds no number"),
        (("name,mobile", "x,2125550100"), "has no column 'phone'; its first line has: 'name', 'mobile'"),
        (("x,2125550100", "y,2125550101"), "has no column 'phone'; its first line has: 'x'$"),
        (('phone,"a', "x"), "holds no number|lines rejected"),
    ],
)
async def test_a_file_that_cannot_be_meant_is_refused(
    store: ListRows, tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ListRefusedError, match=message):
        await import_csv(store, tmp_path, _csv(tmp_path, *lines), name="dnc", buyer=None)


async def test_an_empty_list_must_be_asked_for(store: ListRows, tmp_path: Path) -> None:
    imported = await import_csv(store, tmp_path, _csv(tmp_path, "phone"), name="dnc", buyer=None, allow_empty=True)
    assert imported.entries == 0
    assert (await _scrub(store, tmp_path)).check(FREE, "acme").reason == ""


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "x" * 65])
async def test_a_list_name_is_a_slug(store: ListRows, tmp_path: Path, name: str) -> None:
    with pytest.raises(ListRefusedError, match="list name"):
        await import_csv(store, tmp_path, _csv(tmp_path, "phone", LISTED), name=name, buyer=None)


def test_odd_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "odd.csv"
    file.write_bytes(b'\xef\xbb\xbfName,PHONE\r\nJos\xe9,2125550100\r\n"two\nlines",2125550101\r\n')
    numbers, report = read_csv(file)
    assert list(numbers) == [12125550100, 12125550101]
    assert report.rejected == 0
    bare = _csv(tmp_path, "2125550100", "2125550101", name="bare.txt")
    assert len(read_csv(bare)[0]) == 2


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ListRefusedError, match=r"none\.csv: cannot be read: No such file"):
        read_csv(tmp_path / "none.csv")


def test_a_snapshot_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = array("Q", [1, 2, 2**63])
    file, checksum = snapshot.write(
        tmp_path, "dnc", numbers, source_checksum="ab", built_at="2026-06-01T00:00:00+00:00"
    )
    assert snapshot.read(file, checksum).numbers == numbers
    assert snapshot.read(file).source_checksum == "ab"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SnapshotError, match="cannot be written: No space left"):
        snapshot.write(tmp_path, "other", numbers, source_checksum="cd", built_at="now")
    assert list(tmp_path.iterdir()) == [file]


def test_every_single_byte_of_a_snapshot_matters(tmp_path: Path) -> None:
    file, checksum = snapshot.write(tmp_path, "dnc", array("Q", [5, 6]), source_checksum="ab", built_at="now")
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        with pytest.raises(SnapshotError):
            snapshot.read(file)
        with pytest.raises(SnapshotError, match="is damaged or was exchanged"):
            snapshot.read(file, checksum)


async def test_a_look_up_takes_microseconds(store: ListRows, tmp_path: Path) -> None:
    await _import(store, tmp_path, *(f"+1212{at:07}" for at in range(2_000_000, 2_020_000)))
    scrub = await _scrub(store, tmp_path)
    took = sorted(scrub.check(f"+1212{at:07}", "acme").took_us for at in range(2_010_000, 2_011_000))
    assert took[len(took) // 2] < 100  # measured: about 4 us; the bound is for a busy machine
