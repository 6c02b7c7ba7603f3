"""A list that is asked for and has no version in force closes whom it concerns, whatever was done before."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.suppression_rows.sql.lists import ListRows
from meter.suppression_rows.sql.writing import name_lists
from suppression.activating import ListRefusedError
from suppression.editing import edit, prune
from suppression.importer import Mode
from suppression.scrub import Scrub
from tests.unit.suppression.test_importer import ANN, FREE, LISTED, engine, import_list, scrub_with, store

__all__ = ["engine", "store"]  # fixtures
LISTS: dict[str, str | None] = {"dnc": None, "acme-own": "acme", "bolt-own": "bolt"}
BUYERS = ("acme", "bolt", "coda")


async def name(engine: AsyncEngine, *names: str) -> None:
    lists = [(one, LISTS[one], f"suppression/{one}.none") for one in names]
    async with engine.begin() as connection:
        await connection.run_sync(lambda held: name_lists(held, lists, ANN, time.time_ns() // 1000))


def closed(scrub: Scrub) -> set[str]:
    return {one for one in BUYERS if scrub.check(FREE, one).reason == "suppression_unavailable"}


async def test_whom_a_list_that_was_never_imported_concerns(
    engine: AsyncEngine, store: ListRows, tmp_path: Path
) -> None:
    scrub = await scrub_with(store, tmp_path)
    assert closed(scrub) == set()
    await name(engine, "acme-own")
    await scrub.reload()
    assert closed(scrub) == {"acme"}
    await name(engine, "dnc")
    await scrub.reload()
    assert closed(scrub) == set(BUYERS)
    assert set(scrub.broken) == {"dnc", "acme-own"}
    await import_list(store, tmp_path, LISTED)
    await import_list(store, tmp_path, LISTED, name="acme-own", buyer="acme")
    await scrub.reload()
    assert (closed(scrub), scrub.check(LISTED, "bolt").hit, scrub.broken) == (set(), "dnc", ())
    assert [one.action for one in await store.log("dnc")] == ["replace", "named"]


async def test_a_list_that_was_named_is_replaced_and_not_added_to(
    engine: AsyncEngine, store: ListRows, tmp_path: Path
) -> None:
    await name(engine, "dnc")
    with pytest.raises(ListRefusedError, match="was never imported"):
        await edit(store, tmp_path, "dnc", add={FREE: 0}, remove=[], actor=ANN)
    with pytest.raises(ListRefusedError, match="was never imported"):
        await import_list(store, tmp_path, LISTED, mode=Mode.ADD)
    with pytest.raises(ListRefusedError, match="does not change hands"):
        await import_list(store, tmp_path, LISTED, buyer="acme")
    assert not await store.extend("dnc", 1, ANN), "an end would let it lapse"
    assert (await import_list(store, tmp_path, LISTED)).version == 1
    with pytest.raises(ValueError, match="does not change hands"):
        async with engine.begin() as connection:
            await connection.run_sync(lambda held: name_lists(held, [("dnc", "acme", "x")], ANN, 1))


@pytest.mark.parametrize("seed", range(8))
async def test_any_order_of_naming_importing_and_retiring(
    engine: AsyncEngine, store: ListRows, tmp_path: Path, seed: int
) -> None:
    """A router that looks now and then says the same as one that has just started, and as the rule."""
    dice = random.Random(seed)
    looking = await scrub_with(store, tmp_path)
    named: set[str] = set()
    in_force: set[str] = set()
    for step in range(40):
        one = dice.choice(list(LISTS))
        match dice.choice(("name", "import", "import", "retire", "unname", "prune")):
            case "name":
                await name(engine, one)
                named.add(one)
            case "import":
                await import_list(store, tmp_path, f"+12125551{step:03}", name=one, buyer=LISTS[one])
                in_force.add(one)
            case "retire":
                assert await store.retire(one, ANN) is (one in in_force)
                in_force.discard(one)
            case "unname":
                assert await store.retire(one, ANN, unname=True) is (one in in_force or one in named)
                named.discard(one)
                in_force.discard(one)
            case _:
                await prune(store, tmp_path, 1)
        if dice.random() < 0.6:
            await looking.reload()
            open_lists = {LISTS[each] for each in named - in_force}
            wanted = set(BUYERS) if None in open_lists else {each for each in BUYERS if each in open_lists}
            assert closed(looking) == wanted, f"seed {seed}, step {step}"
            assert closed(await scrub_with(store, tmp_path)) == wanted, f"seed {seed}, step {step}"
