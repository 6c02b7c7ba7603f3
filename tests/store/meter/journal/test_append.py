"""The journal: order, durability, admission, and a store that fails."""

from __future__ import annotations

import asyncio
import sqlite3
import time

import pytest
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.answers import Admission
from facts.fact import CHAIN_START, Kind
from meter.journal.sql.append import JournalRefusedError, JournalWriter
from meter.journal.sql.reading import read_transfer
from meter.journal.sql.verify import verify_journal
from meter.store.schema import buyers, facts
from tests.facts_builder import UTC_0, failed_story
from tests.store.journal_tools import open_journal, started, store, write


async def test_what_is_read_is_what_was_written_in_order(engine: AsyncEngine) -> None:
    story = failed_story()
    await store(engine, story)
    assert await read_transfer(engine, "t-1") == story.facts
    assert await read_transfer(engine, "t-2") == []


async def test_sequence_and_digest_are_given_at_once_and_chained(engine: AsyncEngine) -> None:
    journal = await open_journal(engine)
    first, second = started(journal, "t-1"), started(journal, "t-2")
    assert (first.seq, second.seq, journal.backlog) == (1, 2, 2)
    await journal.close()
    async with engine.connect() as connection:
        digests = list((await connection.execute(select(facts.c.digest).order_by(facts.c.seq))).scalars())
    assert digests == [first.digest(CHAIN_START), second.digest(first.digest(CHAIN_START))]


async def test_many_facts_share_a_commit(engine: AsyncEngine) -> None:
    commits: list[int] = []
    journal = await open_journal(engine, on_commit=lambda count, _: commits.append(count))
    write(journal, *(failed_story(f"t-{number}") for number in range(10)))
    await journal.close()
    assert commits == [90]
    assert journal.backlog == 0


async def test_a_fact_is_durable_after_its_linger_without_being_asked_for(engine: AsyncEngine) -> None:
    done = asyncio.Event()
    journal = await open_journal(engine, linger_ms=5, on_commit=lambda *_: done.set())
    started(journal)
    async with asyncio.timeout(5):
        await done.wait()
    assert len(await read_transfer(engine, "t-1")) == 1
    await journal.close()


async def test_an_admission_does_not_wait_for_the_linger(engine: AsyncEngine, buyers_in: None) -> None:
    journal = await open_journal(engine, linger_ms=60_000)
    async with asyncio.timeout(5):
        assert await journal.admit(started(journal), "active") == Admission("")
    assert len(await read_transfer(engine, "t-1")) == 1
    await journal.close()


async def test_facts_that_follow_an_admission_linger_again(engine: AsyncEngine, buyers_in: None) -> None:
    commits: list[int] = []
    journal = await open_journal(engine, linger_ms=60_000, on_commit=lambda count, _: commits.append(count))
    await journal.admit(started(journal, "t-1"), "active")
    started(journal, "t-2")
    await journal.admit(started(journal, "t-3"), "active")
    assert commits == [1, 2]
    await journal.close()


@pytest.mark.parametrize(
    ("buyer", "refusal"),
    [
        ("active", ""),
        ("paused", "paused"),
        ("on_hold", "on_hold"),
        ("cancelled", "no_buyer"),
        ("unheard-of", "no_buyer"),
        ("", ""),
    ],
)
async def test_the_buyers_state_is_read_with_the_commit(
    engine: AsyncEngine, buyers_in: None, buyer: str, refusal: str
) -> None:
    journal = await open_journal(engine)
    assert await journal.admit(started(journal), buyer) == Admission(refusal)
    assert len(await read_transfer(engine, "t-1")) == 1  # durable either way
    await journal.close()


async def test_a_hold_is_seen_by_the_very_next_transfer(engine: AsyncEngine, buyers_in: None) -> None:
    journal = await open_journal(engine)
    assert (await journal.admit(started(journal, "t-1"), "active")).refusal == ""
    async with engine.begin() as connection:
        await connection.execute(update(buyers).where(buyers.c.name == "active").values(state="on_hold"))
    assert (await journal.admit(started(journal, "t-2"), "active")).refusal == "on_hold"
    await journal.close()


async def test_one_that_is_durable_already_is_admitted_by_a_look(engine: AsyncEngine, buyers_in: None) -> None:
    journal = await open_journal(engine)
    fact = started(journal)
    await journal.admit(fact, "active")
    assert (await journal.admit(fact, "paused")).refusal == "paused"
    await journal.close()


async def test_many_at_once_are_admitted_together(engine: AsyncEngine, buyers_in: None) -> None:
    commits: list[int] = []
    journal = await open_journal(engine, on_commit=lambda count, _: commits.append(count))
    names = ["active", "paused"] * 20
    answers = await asyncio.gather(
        *(journal.admit(started(journal, f"t-{number}"), name) for number, name in enumerate(names))
    )
    assert [one.refusal for one in answers] == ["", "paused"] * 20
    assert commits == [40]
    await journal.close()


async def test_in_a_busy_time_admissions_wait_for_each_other(engine: AsyncEngine, buyers_in: None) -> None:
    commits: list[int] = []
    journal = await open_journal(engine, admit_pace_ms=300, on_commit=lambda count, _: commits.append(count))
    await journal.admit(started(journal, "t-1"), "active")
    second = asyncio.create_task(journal.admit(started(journal, "t-2"), "active"))
    await asyncio.sleep(0.02)  # more than the linger of a quiet time
    await asyncio.gather(second, journal.admit(started(journal, "t-3"), "paused"))
    assert commits == [1, 2]
    await journal.close()


async def test_a_backlog_is_written_in_transactions_of_five_hundred(engine: AsyncEngine) -> None:
    commits: list[int] = []
    journal = await open_journal(engine, on_commit=lambda count, _: commits.append(count))
    for number in range(1_200):
        started(journal, f"t-{number}")
    await journal.close()
    assert commits == [500, 500, 200]
    assert (await verify_journal(engine)).facts == 1_200


async def test_a_listener_that_fails_stops_nothing(engine: AsyncEngine) -> None:
    def fail(_count: int, _seconds: float) -> None:
        raise ValueError("bug")

    journal = await open_journal(engine, on_commit=fail)
    await journal.admit(started(journal, "t-1"), "")
    await journal.admit(started(journal, "t-2"), "")
    await journal.close()
    assert journal.backlog == 0


def _lock(engine: AsyncEngine) -> sqlite3.Connection:
    """Hold the write lock, as a process would that hangs in a transaction."""
    other = sqlite3.connect(str(engine.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


async def test_a_locked_store_refuses_admission_in_time_and_loses_nothing(engine: AsyncEngine, buyers_in: None) -> None:
    journal = await open_journal(engine, admit_timeout_ms=100, admit_patience_ms=100)
    other = _lock(engine)
    begun = time.monotonic()
    with pytest.raises(JournalRefusedError, match=r"did not answer within 0\.1 s"):
        await journal.admit(started(journal, "t-1"), "active")
    assert time.monotonic() - begun < 1.0
    later = [started(journal, f"t-{number}") for number in range(2, 50)]
    assert journal.backlog == 49
    other.execute("ROLLBACK")
    other.close()
    await journal.close()
    assert journal.backlog == 0
    report = await verify_journal(engine)
    assert (report.ok, report.facts) == (True, len(later) + 1)


@pytest.mark.parametrize("slow_s", [0.05, 0.4])
async def test_a_store_that_is_only_slow_refuses_nobody(engine: AsyncEngine, slow_s: float) -> None:
    """A machine that is busy for a moment: no commit has failed, and the caller is still there."""
    journal = await open_journal(engine, admit_timeout_ms=30)
    real = journal._clerk.write

    async def slowly(work: object) -> object:
        await asyncio.sleep(slow_s)
        return await real(work)  # type: ignore[arg-type]

    journal._clerk.write = slowly  # type: ignore[method-assign, assignment]
    assert (await journal.admit(started(journal, "t-1"), "")).refusal == ""
    await journal.close()


async def test_patience_has_an_end(engine: AsyncEngine) -> None:
    journal = await open_journal(engine, admit_timeout_ms=30, admit_patience_ms=200)
    other = _lock(engine)
    with pytest.raises(JournalRefusedError):
        await journal.admit(started(journal, "t-1"), "")
    other.execute("ROLLBACK")
    other.close()
    await journal.close()


async def test_a_store_that_fails_for_a_while_is_tried_again_in_order(engine: AsyncEngine, buyers_in: None) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE facts RENAME TO facts_away")
    journal = await open_journal(engine, linger_ms=1, admit_timeout_ms=100)
    with pytest.raises(JournalRefusedError):
        await journal.admit(started(journal, "t-1"), "active")
    write(journal, failed_story("t-2"))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE facts_away RENAME TO facts")
    journal._admit_timeout_s = 10.0
    assert (await journal.admit(started(journal, "t-3"), "active")).refusal == ""
    await journal.close()
    report = await verify_journal(engine)
    assert (report.ok, report.facts) == (True, 11)


async def test_a_commit_whose_answer_was_lost_is_not_written_twice(engine: AsyncEngine) -> None:
    journal = await open_journal(engine, linger_ms=60_000)
    real, calls = journal._clerk.write, []

    async def answer_lost(work: object) -> object:
        calls.append(work)
        found = await real(work)  # type: ignore[arg-type]
        if len(calls) == 1:
            raise OperationalError("COMMIT", {}, Exception("connection lost"))
        return found

    journal._clerk.write = answer_lost  # type: ignore[method-assign, assignment]
    fact = started(journal, "t-1")
    assert (await journal.admit(fact, "")).refusal == ""
    started(journal, "t-2")
    await journal.close()
    assert len(calls) == 3
    report = await verify_journal(engine)
    assert (report.ok, report.facts) == (True, 2)


async def test_somebody_elses_fact_under_our_number_is_never_taken_for_ours(engine: AsyncEngine) -> None:
    journal = await open_journal(engine, linger_ms=60_000, admit_timeout_ms=300)
    fact = started(journal, "t-1")

    def write_other(connection: Connection) -> None:
        row = {
            "router": "r1", "boot": "boot-1", "seq": 1, "transfer": "x", "kind": "fault", "utc_us": 1, "mono_us": 1,
            "lag_us": 0, "origin": "other", "leg": None, "payload": b"{}", "digest": b"x",
        }  # fmt: skip
        connection.execute(insert(facts), [row])

    async with engine.begin() as connection:
        await connection.run_sync(write_other)
    with pytest.raises(JournalRefusedError, match="did not answer"):
        await journal.admit(fact, "")
    with pytest.raises(JournalRefusedError, match="1 facts could not be written"):
        await journal.close()


async def test_a_full_backlog_refuses_at_once(engine: AsyncEngine) -> None:
    journal = await open_journal(engine, linger_ms=60_000, max_backlog=3)
    first, *_ = [started(journal, f"t-{number}") for number in range(3)]
    assert journal.full
    with pytest.raises(JournalRefusedError, match="backlog is full"):
        await journal.admit(first, "")
    started(journal, "t-9")  # what is already up is still written
    await journal.close()
    assert len(await read_transfer(engine, "t-9")) == 1


async def test_after_the_end_nothing_is_taken(engine: AsyncEngine) -> None:
    journal = await open_journal(engine)
    fact = started(journal)
    await journal.close()
    await journal.close()
    with pytest.raises(JournalRefusedError, match="closed"):
        started(journal)
    with pytest.raises(JournalRefusedError, match="closed"):
        await journal.admit(fact, "")


async def test_a_boot_is_registered_once(engine: AsyncEngine) -> None:
    journal = await open_journal(engine)
    with pytest.raises(JournalRefusedError, match="boot 'boot-1' of router 'r1' was not registered"):
        await open_journal(engine)
    await journal.close()


async def test_text_that_is_not_unicode_is_mended_not_lost(engine: AsyncEngine) -> None:
    journal = await open_journal(engine)
    fact = started(journal, lead={"na\udcffme": "\ud800", "list": ["a\udc80"]})
    await journal.close()
    assert fact.payload == {"lead": {"na?me": "?", "list": ["a?"]}}
    assert await read_transfer(engine, "t-1") == [fact]
    assert (await verify_journal(engine)).ok


async def test_a_payload_that_is_not_json_takes_no_number(engine: AsyncEngine) -> None:
    journal: JournalWriter = await open_journal(engine)
    with pytest.raises(TypeError):
        journal.append("t-1", Kind.FAULT, utc_us=UTC_0, mono_us=0, payload={"what": object()})
    assert started(journal).seq == 1
    await journal.close()


async def test_who_asks_while_a_commit_is_under_way_is_answered(engine: AsyncEngine, buyers_in: None) -> None:
    """The fact is in the commit that is being written; the question is not, and the next commit must answer it."""
    journal = await open_journal(engine, linger_ms=1)
    lock = sqlite3.connect(engine.url.database or "", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")  # the commit waits for this
    fact = started(journal)
    await asyncio.sleep(0.2)
    asked = asyncio.ensure_future(journal.admit(fact, "paused"))
    await asyncio.sleep(0.05)
    lock.execute("COMMIT")
    lock.close()
    assert (await asked).refusal == "paused"
    await journal.close()
