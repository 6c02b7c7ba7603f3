"""After a crash: what was open is closed, once, at the end of its own chain, whenever recovery itself is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import Fact, Kind
from facts.outcome import decide
from meter.journal.sql import recovery
from meter.journal.sql.reading import list_transfers, read_transfer
from meter.journal.sql.recovery import recover
from meter.journal.sql.verify import verify_journal
from meter.settling.follower import Follower
from meter.store.engine import open_store
from meter.store.schema import boots, facts, outcomes
from tests.facts_builder import UTC_0, Story, failed_story
from tests.store.journal_tools import open_journal, store, write

NOW = UTC_0 + 3_600_000_000


def open_stories(count: int) -> list[Story]:
    """Transfers in every state of being open: ringing, in talk, after 15 s of talk, and not dialled yet."""
    makers = [
        lambda name: Story(name).start().dial(1).ring(1),
        lambda name: Story(name).start().dial(1).ring(1).answer(1).bridge(1),
        lambda name: Story(name).start().dial(1).answer(1).bridge(1).add(Kind.TALK_REACHED_15S, 19.0),
        lambda name: Story(name).start(),
    ]
    return [makers[number % 4](f"t-{number}") for number in range(count)]


async def test_open_transfers_are_closed_by_the_table(engine: AsyncEngine) -> None:
    await store(engine, *open_stories(4), failed_story("t-closed"))
    report = await recover(engine, "r1", now_utc_us=NOW)
    assert (report.boots, sorted(report.transfers)) == (1, ["t-0", "t-1", "t-2", "t-3"])
    verdicts = {}
    for number in range(4):
        found = await read_transfer(engine, f"t-{number}")
        interrupted, closed = found[-2:]
        assert (interrupted.kind, closed.kind) == (Kind.INTERRUPTED, Kind.TRANSFER_CLOSED)
        assert {interrupted.origin, closed.origin} == {"recovery"}
        assert interrupted.mono_us == closed.mono_us == found[-3].mono_us
        assert interrupted.utc_us == NOW
        assert closed.payload == decide(found[:-1]).as_payload()
        verdicts[number] = (closed.payload["verdict"], closed.payload["reason"])
    assert verdicts == {
        0: ("fault", "interrupted"),
        1: ("fault", "interrupted"),
        2: ("connected", "answered"),
        3: ("fault", "interrupted"),
    }
    assert (await verify_journal(engine)).ok


async def test_recovering_again_changes_nothing(engine: AsyncEngine) -> None:
    await store(engine, *open_stories(4))
    await recover(engine, "r1", now_utc_us=NOW)
    before = (await verify_journal(engine)).facts
    assert await recover(engine, "r1", now_utc_us=NOW + 1) == recovery.RecoveryReport()
    assert (await verify_journal(engine)).facts == before


async def test_the_current_boot_and_other_routers_are_left_alone(engine: AsyncEngine) -> None:
    await store(engine, *open_stories(2), boot="old")
    journal = await open_journal(engine, boot="now")
    write(journal, Story("t-live", boot="now").start().dial(1))
    report = await recover(engine, "r1", now_utc_us=NOW, current_boot="now")
    assert sorted(report.transfers) == ["t-0", "t-1"]
    assert await recover(engine, "r2", now_utc_us=NOW) == recovery.RecoveryReport()
    await journal.close()
    assert (await list_transfers(engine, verdict="open", since_utc_us=1))[0].transfer == "t-live"


async def test_a_boot_without_facts_is_marked(engine: AsyncEngine) -> None:
    await store(engine)
    assert await recover(engine, "r1", now_utc_us=NOW) == recovery.RecoveryReport(1, ())
    async with engine.connect() as connection:
        assert (await connection.execute(select(boots.c.recovered_utc_us))).scalar_one() == NOW


async def test_many_are_closed_in_transactions_of_fifty_rows(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(engine, *open_stories(60))
    sizes: list[int] = []
    real = recovery.insert_rows

    def counted(connection: Connection, rows: list[tuple[object, ...]]) -> None:
        sizes.append(len(rows))
        real(connection, rows)

    monkeypatch.setattr(recovery, "insert_rows", counted)
    assert len((await recover(engine, "r1", now_utc_us=NOW)).transfers) == 60
    assert sizes == [50, 50, 20]


@pytest.mark.parametrize("survives", [0, 1, 2])
async def test_killed_at_any_transaction_it_is_simply_run_again(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    await store(engine, *open_stories(60))
    real, calls = recovery.insert_rows, []

    def dies(connection: Connection, rows: list[tuple[object, ...]]) -> None:
        real(connection, rows)
        calls.append(rows)
        if len(calls) > survives:
            raise KeyError("killed here")

    monkeypatch.setattr(recovery, "insert_rows", dies)
    with pytest.raises(KeyError):
        await recover(engine, "r1", now_utc_us=NOW)
    monkeypatch.setattr(recovery, "insert_rows", real)
    await recover(engine, "r1", now_utc_us=NOW)
    report = await verify_journal(engine)
    closed = await _count(engine, Kind.TRANSFER_CLOSED)
    assert (report.ok, closed, await _count(engine, Kind.INTERRUPTED)) == (True, 60, 60)


async def _count(engine: AsyncEngine, kind: Kind) -> int:
    async with engine.connect() as connection:
        return len((await connection.execute(select(facts.c.seq).where(facts.c.kind == kind.value))).all())


WRITER = """
import asyncio, sys
from meter.store.engine import open_store
from facts.fact import Kind
from meter.journal.sql.append import JournalWriter

async def main():
    engine = await open_store(sys.argv[1])
    journal = await JournalWriter.open(engine, "r1", "boot-1", 1, 1, linger_ms=1)
    number = 0
    while True:
        number += 1
        name = f"t-{number}"
        fact = journal.append(name, Kind.TRANSFER_STARTED, utc_us=number, mono_us=number, payload={"buyer": ""})
        await journal.admit(fact, "")
        print(name, flush=True)  # from here on nothing may forget it
        for leg in range(1, 5):
            journal.append(name, Kind.DIALED, utc_us=number, mono_us=number, leg=leg)

asyncio.run(main())
"""


def _kill_a_writer(url: str, after: int) -> list[str]:
    """Run a writer in a process of its own and kill it while it writes; what it was promised."""
    child = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    promised = [child.stdout.readline().strip() for _ in range(after)]
    os.kill(child.pid, signal.SIGKILL)
    promised += [line.strip() for line in child.stdout]
    child.stdout.close()
    child.wait()
    return [name for name in promised if name]


@pytest.mark.parametrize("after", [1, 40, 150])
async def test_kill_9_in_the_middle_of_commits_loses_nothing_admitted(tmp_path: Path, after: int) -> None:
    url = f"sqlite:///{tmp_path / 'baton.db'}"
    promised = await asyncio.to_thread(_kill_a_writer, url, after)
    engine = await open_store(url)
    assert (await verify_journal(engine)).ok
    report = await recover(engine, "r1", now_utc_us=NOW)
    assert set(promised) <= set(report.transfers)
    assert len(report.transfers) <= len(promised) + 1  # one may have been durable and not yet told
    assert (await verify_journal(engine)).ok
    follower = Follower(engine)
    await follower.catch_up()
    await follower.close()
    async with engine.connect() as connection:
        found = (await connection.execute(select(outcomes.c.transfer, outcomes.c.reason, outcomes.c.agreed))).all()
    assert {tuple(row[1:]) for row in found} == {("interrupted", True)}
    assert {row.transfer for row in found} == set(report.transfers)
    await engine.dispose()


def test_a_closing_fact_is_never_without_its_interrupted_fact() -> None:
    step = recovery._Step("r1", "boot-1", NOW)
    history: list[Fact] = Story().start().dial(1).facts
    interrupted, closed = step._closing(history, 2)
    assert (interrupted.seq, closed.seq, interrupted.payload) == (3, 4, {"last_seq": 2})
