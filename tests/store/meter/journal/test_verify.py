"""Tampering is found: whatever is changed, dropped or inserted in a chain."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.journal.sql.verify import VerifyReport, verify_journal
from meter.store.engine import open_store
from tests.facts_builder import connected_story, failed_story
from tests.store.journal_tools import store

COLUMNS = {
    "transfer": "'t-other'",
    "kind": "CASE kind WHEN 'fault' THEN 'ended' ELSE 'fault' END",
    "utc_us": "utc_us + 1",
    "mono_us": "mono_us - 1",
    "lag_us": "lag_us + 1000",
    "origin": "'recovery'",
    "leg": "coalesce(leg, 7) + 1",
    "payload": 'CAST(\'{"by":"caller"}\' AS BLOB)',
    "digest": "zeroblob(32)",
}


def _tamper(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


def _verified(path: Path) -> VerifyReport:
    async def verify() -> VerifyReport:
        engine = await open_store(f"sqlite:///{path}", create=False)
        try:
            return await verify_journal(engine)
        finally:
            await engine.dispose()

    return asyncio.run(verify())


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a store with seventeen facts in one chain."""
    path = tmp_path_factory.mktemp("journal") / "baton.db"

    async def make() -> None:
        engine = await open_store(f"sqlite:///{path}")
        await store(engine, failed_story("t-1"), connected_story("t-2"))
        async with engine.connect() as connection:
            await connection.exec_driver_sql("COMMIT")
            await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            await connection.exec_driver_sql("BEGIN")
        await engine.dispose()

    asyncio.run(make())
    return path.read_bytes()


@pytest.fixture
def copy(pristine: bytes, tmp_path: Path) -> Callable[[], Path]:
    def make() -> Path:
        path = tmp_path / "copy.db"
        for extra in ("-wal", "-shm"):
            (tmp_path / f"copy.db{extra}").unlink(missing_ok=True)
        path.write_bytes(pristine)
        return path

    return make


def test_an_untouched_journal_is_whole(copy: Callable[[], Path]) -> None:
    report = _verified(copy())
    assert (report.ok, report.chains, report.facts, report.problems) == (True, 1, 17, ())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=st.sampled_from(sorted(COLUMNS)), seq=st.integers(1, 17))
def test_any_change_of_any_column_is_found_at_its_place(copy: Callable[[], Path], column: str, seq: int) -> None:
    path = copy()
    _tamper(path, f"UPDATE facts SET {column} = {COLUMNS[column]} WHERE seq = {seq}")
    found = {problem.seq for problem in _verified(path).problems}
    assert found == ({seq, seq + 1} if column == "digest" and seq < 17 else {seq})


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seq=st.integers(1, 16))
def test_any_dropped_fact_leaves_a_gap(copy: Callable[[], Path], seq: int) -> None:
    path = copy()
    _tamper(path, f"DELETE FROM facts WHERE seq = {seq}")
    report = _verified(path)
    assert report.problem_count == 1
    assert report.problems[0].what == f"missing: facts {seq} to {seq}"


def test_a_fact_moved_to_another_place_is_found(copy: Callable[[], Path]) -> None:
    path = copy()
    _tamper(path, "UPDATE facts SET seq = 99 WHERE seq = 5")
    assert [problem.what for problem in _verified(path).problems] == [
        "missing: facts 5 to 5",
        "missing: facts 18 to 98",
    ]


def test_a_row_that_cannot_be_read_is_a_finding_not_a_crash(copy: Callable[[], Path]) -> None:
    path = copy()
    _tamper(path, "UPDATE facts SET kind = 'nonsense' WHERE seq = 3")
    _tamper(path, "UPDATE facts SET payload = CAST('{' AS BLOB) WHERE seq = 9")
    whats = [problem.what for problem in _verified(path).problems]
    assert whats[0] == "unreadable: kind: 'nonsense' is not known to this version"
    assert whats[1].startswith("unreadable: ")


def test_an_end_cut_off_before_what_was_settled_is_found(copy: Callable[[], Path]) -> None:
    path = copy()
    _tamper(path, "INSERT INTO meter_cursors VALUES ('r1', 'boot-1', 17)")
    _tamper(path, "DELETE FROM facts WHERE seq >= 17")
    assert [problem.what for problem in _verified(path).problems] == ["missing: the meter had settled up to 17"]


async def test_each_boot_is_a_chain_of_its_own(engine: AsyncEngine) -> None:
    await store(engine, failed_story("t-1"), boot="boot-1")
    await store(engine, failed_story("t-2"), boot="boot-2")
    report = await verify_journal(engine)
    assert (report.ok, report.chains) == (True, 2)
