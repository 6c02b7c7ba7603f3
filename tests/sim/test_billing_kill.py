"""`kill -9` in the middle of the weekly run, again and again: the books come out as if nothing had happened."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from meter.settling.sql.verify_ledger import verify_ledger
from meter.store.engine import open_store
from tests.sim.books.checker import check
from tests.sim.books.helpers import answer, copy_store, count, helper, read_books, tell
from tests.sim.books.year import Size, Year

KILLS = int(os.environ.get("BATON_KILLS", "200"))
SEED = int(os.environ.get("BATON_KILL_SEED", "7"))
BUYERS, WEEKS, RUN_BEFORE = 12, 6, 2  # the cycle is away for the last four weeks, and then catches up under fire
MAX_ATTEMPTS = 400  # of one round


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_run_that_is_killed_again_and_again_leaves_the_books_of_one_that_was_not(tmp_path: Path) -> None:
    prepared = tmp_path / "prepared.db"
    engine = await open_store(f"sqlite:///{prepared}")
    year = Year(engine, SEED, Size(BUYERS, WEEKS, units=12), runs_for_weeks=RUN_BEFORE)
    log = await year.play()
    await engine.dispose()
    log = [*log, {"what": "run", "at": year.end_us, "behind": False}]
    dice = random.Random(SEED)
    with helper("kill") as process:

        def attempt(path: Path, delay_s: float) -> bool:
            tell(process, f"{path} {year.end_us} {delay_s:.6f}")
            return answer(process) == "done"

        whole = copy_store(prepared, tmp_path / "whole.db")
        started = time.monotonic()
        assert attempt(whole, 60.0)
        took_s = time.monotonic() - started
        wanted, total = read_books(whole), count(whole, "documents")
        assert check(whole, log).problems == []
        assert total - count(prepared, "documents") > BUYERS * 5
        kills = rounds = missed = 0
        while kills < KILLS:
            path = copy_store(prepared, tmp_path / f"round-{rounds}.db")
            for _ in range(MAX_ATTEMPTS):
                if attempt(path, dice.uniform(0.0, took_s) * dice.choice((0.2, 0.5, 1.0))):
                    break
                if count(path, "documents") < total:
                    kills += 1
                else:
                    missed += 1  # all was done: only the process was still there
            else:
                pytest.fail(f"seed {SEED}, round {rounds}: not through after {MAX_ATTEMPTS} attempts")
            rounds += 1
            found = read_books(path)
            for table, rows in wanted.items():
                assert found[table] == rows, f"seed {SEED}, round {rounds}: {table}"
            assert check(path, log).problems == []
    engine = await open_store(f"sqlite:///{path}")
    assert (await verify_ledger(engine)).problems == ()
    await engine.dispose()
    figures = f"{kills} kills in {rounds} rounds ({missed} too late), an undisturbed run takes {took_s:.2f} s"
    print(f"seed {SEED}: {figures}")  # noqa: T201 - figures of the run
