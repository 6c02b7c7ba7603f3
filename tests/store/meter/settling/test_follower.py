"""Settling: outcome, unit and messages in one commit, each once, whatever is repeated or killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Table, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import EndCause, Kind, Party
from meter.journal.sql.reading import facts_of_transfers, list_transfers
from meter.settling.follower import Follower, SettleOptions, settle
from meter.settling.sql import settlement
from meter.settling.sql.settlement import CursorMovedError, boots_due, read_batch, write_batch
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.store.money_schema import postings
from meter.store.schema import meter_cursors, outbox, outcomes
from telemetry import metrics
from tests.facts_builder import UTC_0, WESTLAKE, Story, connected_story, failed_story
from tests.store.journal_tools import open_journal, store, write


def free_story(name: str = "t-1") -> Story:
    return Story(name).start().dial(1).ring(1).decline(1, 3.0).end(3.0, Party.ROUTER, EndCause.LEGS_FAILED).close()


async def rows(engine: AsyncEngine, table: Table) -> list[dict[str, Any]]:
    async with engine.connect() as connection:
        found = await connection.execute(select(table).order_by(*table.primary_key))
        return [dict(row) for row in found.mappings()]


async def catch_up(engine: AsyncEngine, **options: Any) -> int:
    follower = Follower(engine, SettleOptions(**options))
    try:
        return await follower.catch_up()
    finally:
        await follower.close()


async def everything(engine: AsyncEngine) -> list[list[dict[str, Any]]]:
    return [await rows(engine, table) for table in (outcomes, postings, outbox, meter_cursors)]


async def test_a_failed_transfer_gives_outcome_unit_and_mail(engine: AsyncEngine) -> None:
    story = failed_story()
    await store(engine, story)
    assert await catch_up(engine) == 1
    [outcome] = await rows(engine, outcomes)
    assert outcome == {
        "transfer": "t-1",
        "router": "r1",
        "boot": "boot-1",
        "call_id": "call-t-1",
        "sip_call_id": "t-1@dialer",
        "dialer": "dialer-1",
        "campaign": "solar",
        "buyer": "acme",
        "phone": "+12125550123",
        "started_utc_us": UTC_0 - 50_000,
        "dialout_utc_us": UTC_0,
        "closed_utc_us": UTC_0 + 30_000_000,
        "verdict": "failed",
        "reason": "declined",
        "counts_as": "failed",
        "table_row": 10,
        "attempt_ms": 30_000,
        "talk_ms": 0,
        "buffer_ms": 15_000,
        "evidence": b"[2,3,4,5,6,7,8]",
        "terms_name": "westlake-fulfillment",
        "terms_version": 1,
        "agreed": True,
    }
    [posting] = await rows(engine, postings)
    assert (posting["key"], posting["unit"], posting["units"], posting["percent"]) == ("t-1:unit", "failed", 1, 100)
    assert posting["dialout_utc_us"] == UTC_0
    messages = {row["channel"]: row for row in await rows(engine, outbox)}
    assert {channel: row["message_id"] for channel, row in messages.items()} == {
        "mail": "t-1.lead",
    }
    assert orjson.loads(messages["mail"]["payload"]) == {"transfer": "t-1", "to": ["leads@acme.example"]}
    assert (await rows(engine, meter_cursors))[0]["seq"] == 9


async def test_a_connected_transfer_gives_a_unit_at_the_percentage_and_no_mail(engine: AsyncEngine) -> None:
    await store(engine, connected_story())
    await catch_up(engine)
    [posting] = await rows(engine, postings)
    assert (posting["unit"], posting["units"], posting["percent"]) == ("connected", 1, 93)
    assert await rows(engine, outbox) == []


async def test_a_free_transfer_gives_no_unit_and_no_mail(engine: AsyncEngine) -> None:
    await store(engine, free_story())
    await catch_up(engine)
    assert await rows(engine, postings) == []
    assert await rows(engine, outbox) == []


async def test_minute_rating_posts_started_increments_and_no_units(engine: AsyncEngine) -> None:
    clauses = {"rating": "minute", "minute_price_minor": 118, "minute_increment_ms": 6_000}
    await store(engine, connected_story(terms=WESTLAKE | clauses))
    await catch_up(engine)
    [outcome] = await rows(engine, outcomes)
    [posting] = await rows(engine, postings)
    assert posting["key"] == "t-1:minutes"
    assert (posting["asset"], posting["price_minor"], posting["unit"]) == ("increment", 118, "call")
    assert posting["units"] == posting["amount"] == -(-outcome["talk_ms"] // 6_000)
    assert (posting["debit"], posting["credit"]) == ("unbilled_minutes", "delivered")


async def test_a_lead_of_a_buyer_without_addresses_waits_for_one(engine: AsyncEngine) -> None:
    await store(engine, failed_story(lead_emails=[]))
    await catch_up(engine)
    [row] = await rows(engine, outbox)
    assert (row["message_id"], row["state"], row["waits_for"]) == ("t-1.lead", "waiting", "lead_emails/acme")
    assert orjson.loads(row["payload"]) == {"transfer": "t-1"}


async def test_settling_again_changes_nothing(engine: AsyncEngine) -> None:
    await store(engine, failed_story())
    await catch_up(engine)
    before = await everything(engine)
    assert await catch_up(engine) == 0
    assert await everything(engine) == before


async def test_a_lost_cursor_charges_nobody_twice(engine: AsyncEngine) -> None:
    await store(engine, failed_story())
    await catch_up(engine)
    before = await everything(engine)
    async with engine.begin() as connection:
        await connection.execute(meter_cursors.delete())
    assert await catch_up(engine) == 0
    assert await everything(engine) == before


async def test_two_meters_at_once_settle_each_transfer_once(engine: AsyncEngine) -> None:
    stories = [failed_story(f"t-{number}") for number in range(30)]
    journal = await open_journal(engine)
    write(journal, *stories)
    await journal.close()

    async def one() -> None:
        follower = Follower(engine)
        for _ in range(50):
            try:
                await follower.catch_up()
                break
            except CursorMovedError:
                continue
        await follower.close()

    await asyncio.gather(one(), one())
    assert len(await rows(engine, outcomes)) == len(await rows(engine, postings)) == 30
    assert len(await rows(engine, outbox)) == 30


async def test_an_overtaken_batch_writes_nothing(engine: AsyncEngine) -> None:
    await store(engine, failed_story())
    clerk = Clerk(engine)
    batch = await clerk.read(read_batch, "r1", "boot-1", 0)
    await catch_up(engine)
    before = await everything(engine)
    settled = settle(batch.histories["t-1"], batch.closings[0], SettleOptions(), 1)
    with pytest.raises(CursorMovedError):
        await clerk.write(write_batch, batch, [settled.rows])
    assert await everything(engine) == before
    await clerk.close()


@pytest.mark.parametrize("table", ["outcomes", "interactions", "outbox"])
async def test_killed_between_any_two_writes_nothing_is_half_done(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    await store(engine, failed_story())
    real = settlement._add

    def dies(connection: Any, into: Table, wanted: list[dict[str, Any]]) -> None:
        real(connection, into, wanted)
        if into.name == table:
            raise KeyError("killed here")

    monkeypatch.setattr(settlement, "_add", dies)
    with pytest.raises(KeyError):
        await catch_up(engine)
    assert await everything(engine) == [[], [], [], []]
    monkeypatch.setattr(settlement, "_add", real)
    assert await catch_up(engine) == 1


async def test_a_verdict_that_differs_is_counted_kept_and_overruled(engine: AsyncEngine) -> None:
    before = metrics.VERDICT_MISMATCH._value.get()
    story = failed_story()
    story.facts.pop()
    story.next_seq -= 1
    await store(engine, story.close(counts_as="connected"))
    await catch_up(engine)
    [outcome] = await rows(engine, outcomes)
    assert (outcome["agreed"], outcome["counts_as"]) == (False, "failed")
    assert metrics.VERDICT_MISMATCH._value.get() == before + 1


async def test_what_is_written_after_the_closing_fact_changes_no_verdict(engine: AsyncEngine) -> None:
    story = failed_story().add(Kind.ANSWERED_LATE, 31.0, 2, code=200).add(Kind.TALK_REACHED_15S, 46.0)
    await store(engine, story)
    await catch_up(engine)
    [outcome] = await rows(engine, outcomes)
    assert (outcome["verdict"], outcome["agreed"]) == ("failed", True)


@pytest.mark.parametrize("junk", [None, 7, [], {}, "text", ["x", 7, None, ""]])
async def test_no_payload_can_stop_the_meter(engine: AsyncEngine, junk: object) -> None:
    names = ("call_id", "buyer", "phone", "lead_emails", "terms", "endpoints", "lead", "campaign", "buffer_ms")
    await store(engine, failed_story(**dict.fromkeys(names, junk)))
    assert await catch_up(engine) == 1
    assert len(await rows(engine, outcomes)) == 1


async def test_a_closing_fact_alone_is_settled_as_indeterminate(engine: AsyncEngine) -> None:
    await store(engine, Story().add(Kind.TRANSFER_CLOSED))
    await catch_up(engine)
    assert [row["verdict"] for row in await rows(engine, outcomes)] == ["indeterminate"]


async def test_batches_follow_each_other_and_the_cursor_ends_at_the_last(engine: AsyncEngine) -> None:
    written = await store(engine, *(failed_story(f"t-{number}") for number in range(25)))
    assert await catch_up(engine) == 25
    assert (await rows(engine, meter_cursors))[0]["seq"] == written[-1].seq


async def test_every_boot_has_its_own_cursor(engine: AsyncEngine) -> None:
    await store(engine, failed_story("t-1"), boot="boot-1")
    await catch_up(engine)
    await store(engine, failed_story("t-2"), boot="boot-2")
    assert await catch_up(engine) == 1
    assert [row["boot"] for row in await rows(engine, meter_cursors)] == ["boot-1", "boot-2"]


async def test_the_follower_sees_what_another_connection_writes(engine: AsyncEngine) -> None:
    settled, stop = asyncio.Event(), asyncio.Event()
    follower = Follower(engine, SettleOptions(poll_ms=5), on_settled=settled.set)
    task = asyncio.create_task(follower.run(stop))
    await store(engine, failed_story())
    async with asyncio.timeout(5):
        await settled.wait()
    stop.set()
    await task
    await follower.close()
    assert len(await rows(engine, outcomes)) == 1


async def test_the_follower_outlives_a_store_that_fails(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE outcomes RENAME TO outcomes_away")
    settled, stop, failed = asyncio.Event(), asyncio.Event(), metrics.ENGINE_FAULTS.labels("settle")
    before = failed._value.get()
    await store(engine, failed_story())
    follower = Follower(engine, SettleOptions(poll_ms=5), on_settled=settled.set)
    task = asyncio.create_task(follower.run(stop))
    async with asyncio.timeout(5):
        while failed._value.get() == before:
            await asyncio.sleep(0.01)
        async with engine.begin() as connection:
            await connection.exec_driver_sql("ALTER TABLE outcomes_away RENAME TO outcomes")
        await settled.wait()
    stop.set()
    await task
    await follower.close()


async def test_facts_of_transfers_are_found_by_their_index_and_not_by_scanning_a_boot(engine: AsyncEngine) -> None:
    statement = facts_of_transfers(["t-1", "t-2"]).compile(
        dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}
    )
    async with engine.connect() as connection:
        plan = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")).all()
    assert [row[3] for row in plan] == ["SEARCH facts USING INDEX facts_by_transfer (transfer=?)"]


async def test_transfers_are_listed_newest_first_open_and_settled(engine: AsyncEngine) -> None:
    open_one = Story("t-open").start(buyer="other").dial(1)
    await store(engine, failed_story("t-1"), connected_story("t-2"), open_one)
    await catch_up(engine)
    found = await list_transfers(engine, since_utc_us=1)
    assert {row.transfer: row.verdict for row in found} == {"t-1": "failed", "t-2": "connected", "t-open": "open"}
    assert [row.transfer for row in await list_transfers(engine, buyer="acme", since_utc_us=1)] == ["t-2", "t-1"]
    assert [row.transfer for row in await list_transfers(engine, verdict="open", since_utc_us=1)] == ["t-open"]
    assert [row.transfer for row in await list_transfers(engine, verdict="failed")] == ["t-1"]
    assert len(await list_transfers(engine, since_utc_us=1, limit=2)) == 2
    assert await list_transfers(engine, since_utc_us=UTC_0 + 1) == []
    with pytest.raises(ValueError, match="limit: 0 is below 1"):
        await list_transfers(engine, limit=0)


async def test_nothing_is_due_in_an_empty_store(tmp_path: Path) -> None:
    engine = await open_store(f"sqlite:///{tmp_path / 'empty.db'}")
    clerk = Clerk(engine)
    assert await clerk.read(boots_due) == []
    await clerk.close()
    await engine.dispose()
