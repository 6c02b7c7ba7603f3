"""A year of many contracts on the real store, held against a second bookkeeper that shares no code with the first."""

from __future__ import annotations

import ast
import os
import random
import time
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from meter.settling.sql.replaying import replay
from meter.settling.sql.verify_ledger import verify_ledger
from meter.store.engine import open_store
from tests.sim.books.checker import EXAMPLES, check
from tests.sim.books.helpers import bill
from tests.sim.books.year import DAY_US, START_US, Size, Year
from tests.store.money_tools import WESTLAKE, Books, at

SEEDS = [int(one) for one in os.environ.get("BATON_YEAR_SEEDS", "1").split(",")]
SIZE = Size(int(os.environ.get("BATON_YEAR_BUYERS", "50")), int(os.environ.get("BATON_YEAR_WEEKS", "53")))
PRODUCT = {"baton", "book", "config", "facts", "meter", "portal", "router", "suppression", "telemetry"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_year_of_contracts_is_billed_to_the_cent(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "baton.db"
    engine = await open_store(f"sqlite:///{path}")
    started = time.monotonic()
    year = Year(engine, seed, SIZE)
    try:
        log = await year.play()
        played = time.monotonic()
        report = await verify_ledger(engine)
        again = await replay(engine, START_US - 14 * DAY_US, year.end_us)
    finally:
        await engine.dispose()
    found = check(path, log)
    print(  # noqa: T201 - figures of the run, shown where it fails or on request
        f"seed {seed}: {len(log):,} events, {year.runs} runs, {found.documents:,} documents, {found.weeks:,} weeks,"
        f" {found.postings:,} postings, {found.holds} holds; played in {played - started:.1f} s,"
        f" checked in {time.monotonic() - played:.1f} s; met: { {name: found.met[name] for name in EXAMPLES} }"
    )
    assert found.problems == [], f"seed {seed}: {len(found.problems)} problems: " + "\n".join(found.problems[:20])
    assert report.problems == ()
    wrong = [f"{one.buyer} {one.week}: {one.was}, not {one.now}" for one in again.wrong_weeks]
    assert wrong + again.differing == [], "a replay calls a correct ledger wrong: " + "\n".join(wrong)
    assert found.documents > SIZE.buyers * SIZE.weeks // 2
    assert found.holds > 0
    if seed == 1 and Size() == SIZE:  # a whole year: it has met everything that the bookkeeper knows
        assert not [name for name in EXAMPLES if not found.met[name]]


@dataclass(frozen=True)
class Delivery:
    """Transfers of one buyer at once: when, how many, and under which terms."""

    at_us: int
    buyer: str
    connected: int
    failed: int
    percent: int


DEALS = {
    "east": replace(WESTLAKE, name="east", order_counts="billed"),
    "isle": replace(WESTLAKE, name="isle", time_zone="Europe/London", connected_percent=88, order_counts="sent"),
    "south": replace(WESTLAKE, name="south", time_zone="Australia/Sydney", order_counts="sent"),
}
HOUR_US = 3_600_000_000


@pytest.mark.parametrize("seed", [1, 2])
async def test_however_often_the_cycle_runs_each_week_is_charged_the_same(tmp_path: Path, seed: int) -> None:
    """Every six hours, at irregular instants, or once after seven weeks over London's and New York's changing days."""
    dice = random.Random(seed)
    start = at("2026-10-05 00:00")
    end = start + 7 * 7 * 24 * HOUR_US + 30 * HOUR_US
    told = [
        Delivery(dice.randrange(start, end), buyer, dice.randrange(9), dice.randrange(3), terms.connected_percent)
        for buyer, terms in DEALS.items()
        for _ in range(60)
    ]
    told.sort(key=lambda one: one.at_us)
    weekly = {(buyer, week): dice.choice((10, 25, 60)) for buyer in DEALS for week in range(8)}
    finely = list(range(start, end, 6 * HOUR_US))
    irregularly = sorted(dice.sample(finely, 9))
    found = [
        await charges(tmp_path / f"{name}.db", told, weekly, [*instants, end])
        for name, instants in (("finely", finely), ("irregularly", irregularly), ("once", []))
    ]
    assert found[0] == found[1] == found[2]
    assert {kind for kind, _, _ in found[0]} == {"order", "overage", "week", "figures"}


async def charges(
    path: Path, told: list[Delivery], weekly: dict[tuple[str, int], int], instants: list[int]
) -> dict[tuple[str, str, str], list[tuple[Any, ...]]]:
    """What is billed where the same happens and the cycle runs at these instants."""
    engine = await open_store(f"sqlite:///{path}")
    books = Books(engine)
    for buyer, terms in DEALS.items():
        await books.agree(buyer, terms=terms)
    for (buyer, week), quantity in weekly.items():
        await books.order(buyer, (date(2026, 10, 5) + timedelta(weeks=week)).isoformat(), quantity)
    place = 0
    for now in instants:
        while place < len(told) and told[place].at_us < now:
            one = told[place]
            await books.deliver(one.buyer, one.at_us, one.connected, one.failed, one.percent)
            place += 1
        assert (await books.cycle.run_once(now)).trouble == []
    await books.close()
    await engine.dispose()
    billed = bill(path)  # but for the instants at which invoices that come late fall due
    return {key: [values[:2] for values in rows] for key, rows in billed.items()}


@pytest.mark.parametrize("name", ["checker", "model"])
def test_the_second_bookkeeper_shares_no_code_with_the_product(name: str) -> None:
    file = Path(__file__).parent / "books" / f"{name}.py"
    named: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add(node.module or "")
    assert named
    assert not {one for one in named if one.partition(".")[0] in PRODUCT}
    assert {one for one in named if one.startswith("tests")} <= {"tests.sim.books.model"}
