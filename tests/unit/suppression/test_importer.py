"""Lists in, verdicts out: files that prove themselves, atomic versions, exemptions, and failing closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from book.lists import Actor, ListVersion
from meter.store.engine import open_store
from meter.suppression_rows.sql.lists import ListRows
from suppression import snapshot
from suppression.activating import ListRefusedError
from suppression.editing import edit
from suppression.kinds import Kind
from suppression.lookups import find_number
from suppression.receipt import Signer
from suppression.scrub import Scrub
from tests.suppression_lists import ANN, FREE, LISTED, import_list, scrub_with


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    opened = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'baton.db'}")
    yield opened
    await opened.dispose()


@pytest.fixture
def store(engine: AsyncEngine) -> ListRows:
    return ListRows(engine)


async def test_a_number_on_a_list_is_suppressed_under_any_spelling(store: ListRows, tmp_path: Path) -> None:
    imported = await import_list(store, tmp_path, "(212) 555-0100", "212.555.0101")
    scrub = await scrub_with(store, tmp_path)
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
    await import_list(store, tmp_path, LISTED, name="acme-own", buyer="acme")
    await import_list(store, tmp_path, "+12125550111", name="litigators")
    scrub = await scrub_with(store, tmp_path)
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
        await import_list(store, tmp_path, f"+1212555{at:04}", f"+1212555{at + 100:04}", name=f"l{at:02}", buyer="acme")
    scrub = await scrub_with(store, tmp_path)
    for at in range(12):
        assert scrub.check(f"+1212555{at + 100:04}", "acme").hit == f"l{at:02}"
    assert scrub.check("+12125550050", "acme").reason == ""
    assert scrub.check("+12125550000", "bolt").reason == ""
    await edit(store, tmp_path, "l03", add={}, remove=["+12125550103"], actor=ANN)
    await edit(store, tmp_path, "l04", add={"+12125550050": 0}, remove=[], actor=ANN)
    await scrub.reload()
    assert scrub.check("+12125550103", "acme").reason == ""
    assert scrub.check("+12125550050", "acme").hit == "l04"


async def test_lists_longer_than_a_header_are_told_by_count(store: ListRows, tmp_path: Path) -> None:
    for at in range(20):
        await import_list(store, tmp_path, LISTED, name=f"a-list-with-a-long-name-{at:02}", buyer="acme")
    result = (await scrub_with(store, tmp_path)).check(FREE, "acme")
    assert len(result.lists) < 450
    assert result.lists.endswith(f"; +{20 - result.lists.count('@')}")


async def test_without_any_list_a_number_passes_but_not_before_the_first_look(store: ListRows, tmp_path: Path) -> None:
    scrub = Scrub(store, tmp_path, Signer(b"k" * 32))
    assert scrub.check(FREE, "acme").reason == "suppression_unavailable"
    await scrub.reload()
    assert scrub.check(FREE, "acme").reason == ""


async def test_a_number_that_is_none_cannot_be_cleared(store: ListRows, tmp_path: Path) -> None:
    scrub = await scrub_with(store, tmp_path)
    for text in ("", "anonymous", "+1999", "sip:anonymous@anonymous.invalid"):
        assert scrub.check(text, "acme").reason == "suppression_unavailable"


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swap", "empty"])
async def test_a_damaged_file_refuses_everyone_it_applies_to(
    store: ListRows, tmp_path: Path, damage: str, mapped: bool
) -> None:
    await import_list(store, tmp_path, LISTED, name="acme-own", buyer="acme")
    await import_list(store, tmp_path, "+12125550150", name="other", buyer="bolt")
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
    scrub = await scrub_with(store, tmp_path, mapped=mapped)
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
    await import_list(store, tmp_path, LISTED)
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=[], actor=ANN)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE suppression_changes SET document = CAST('{}' AS BLOB)")
    scrub = await scrub_with(store, tmp_path)
    assert scrub.broken == ("dnc",)
    assert scrub.check("+12125550111", "acme").reason == "suppression_unavailable"


async def test_a_new_version_takes_over_at_the_next_look(store: ListRows, tmp_path: Path) -> None:
    await import_list(store, tmp_path, LISTED)
    scrub = await scrub_with(store, tmp_path)
    assert not await scrub.reload()
    second = await import_list(store, tmp_path, FREE)
    assert second.version == 2
    assert scrub.check(LISTED, "acme").reason == "suppressed"
    assert await scrub.reload()
    assert scrub.check(LISTED, "acme").reason == ""
    assert scrub.check(FREE, "acme").lists.startswith("dnc@2.0:")


async def test_the_same_file_again_is_no_new_version(store: ListRows, tmp_path: Path) -> None:
    first = await import_list(store, tmp_path, LISTED)
    again = await import_list(store, tmp_path, LISTED)
    assert (first.changed, again.changed) == (True, False)
    assert again.version == first.version == 1
    assert [one.action for one in await store.log("dnc")] == ["unchanged", "replace"]
    (row,) = await store.active()
    (tmp_path / row.file).unlink()
    healed = await import_list(store, tmp_path, LISTED)
    assert (healed.changed, healed.version) == (True, 2)


async def test_a_list_does_not_change_hands(store: ListRows, tmp_path: Path) -> None:
    await import_list(store, tmp_path, LISTED, buyer="acme")
    with pytest.raises(ListRefusedError, match="list 'dnc' is of buyer 'acme'"):
        await import_list(store, tmp_path, FREE, buyer=None)
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
    await import_list(store, tmp_path, LISTED)
    scrub = await scrub_with(store, tmp_path)
    assert await store.retire("dnc", ANN)
    assert not await store.retire("dnc", ANN)
    assert await scrub.reload()
    assert scrub.check(LISTED, "acme").reason == ""
    assert (await import_list(store, tmp_path, LISTED)).version == 2


async def test_a_store_out_of_reach_keeps_the_lists_for_a_minute_then_refuses(store: ListRows, tmp_path: Path) -> None:
    now = 0.0
    await import_list(store, tmp_path, LISTED)
    scrub = await scrub_with(store, tmp_path, clock=lambda: now)
    now = 60.0
    assert scrub.check(FREE, "acme").reason == ""
    now = 60.1
    assert scrub.check(FREE, "acme").reason == "suppression_unavailable"
    await scrub.reload()
    assert scrub.check(FREE, "acme").reason == ""


async def test_a_store_restored_from_a_copy_is_believed(tmp_path: Path) -> None:
    early, late = tmp_path / "early.db", tmp_path / "late.db"
    first = await open_store(f"sqlite+aiosqlite:///{early}")
    await import_list(ListRows(first), tmp_path, LISTED)
    await first.dispose()
    late.write_bytes(early.read_bytes())
    second = await open_store(f"sqlite+aiosqlite:///{late}")
    store = ListRows(second)
    await import_list(store, tmp_path, FREE)
    await import_list(store, tmp_path, "+12125550111", name="more")
    scrub = await scrub_with(store, tmp_path)
    await second.dispose()
    third = await open_store(f"sqlite+aiosqlite:///{early}")
    scrub._store = ListRows(third)
    assert await scrub.reload()
    assert [scrub.check(one, "acme").reason for one in (LISTED, FREE, "+12125550111")] == ["suppressed", "", ""]
    await third.dispose()


async def test_people_with_an_exemption_pass_a_global_list_until_it_ends(store: ListRows, tmp_path: Path) -> None:
    wall = 0.0
    await import_list(store, tmp_path, LISTED, FREE)
    await import_list(store, tmp_path, LISTED, name="acme-own", buyer="acme")
    first = await store.exempt(
        "dnc",
        12_125_550_100,
        buyer=None,
        reason="consent of 2026-11-01",
        expires_utc_us=2_000_000_000_000_000,
        actor=ANN,
    )
    second = await store.exempt(
        "dnc", 12_125_550_199, buyer="bolt", reason="customer", expires_utc_us=2_000_000_000_000_000, actor=ANN
    )
    scrub = await scrub_with(store, tmp_path, wall=lambda: wall)
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
        await store.exempt(
            "acme-own", 12_125_550_100, buyer=None, reason="no", expires_utc_us=2_000_000_000_000_000, actor=ANN
        )


async def test_since_when_a_number_is_on_a_list(store: ListRows, tmp_path: Path) -> None:
    await import_list(store, tmp_path, FREE)
    await import_list(store, tmp_path, FREE, LISTED)
    await edit(store, tmp_path, "dnc", add={"+12125550111": 0}, remove=[], actor=Actor("bea", "test"))
    await import_list(store, tmp_path, LISTED, FREE, "+12125550111", "+12125550122")
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
    await import_list(store, tmp_path, LISTED)
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


async def test_a_store_that_went_on_from_a_copy_is_noticed(tmp_path: Path) -> None:
    early, late = tmp_path / "early.db", tmp_path / "late.db"
    first = await open_store(f"sqlite+aiosqlite:///{early}")
    await import_list(ListRows(first), tmp_path, LISTED)
    await first.dispose()
    late.write_bytes(early.read_bytes())
    second = await open_store(f"sqlite+aiosqlite:///{late}")
    await edit(ListRows(second), tmp_path, "dnc", add={}, remove=[LISTED], actor=ANN)
    scrub = await scrub_with(ListRows(second), tmp_path)
    assert scrub.check(LISTED, "acme").reason == ""
    await second.dispose()
    third = await open_store(f"sqlite+aiosqlite:///{early}")
    store = ListRows(third)
    await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=[], actor=ANN)  # as many changes as were lost
    scrub._store = store
    assert await scrub.reload()
    result = scrub.check(LISTED, "acme")
    assert result.reason == "suppressed"
    assert set(await store.sets(result.sets)) == set(result.sets)
    await third.dispose()
