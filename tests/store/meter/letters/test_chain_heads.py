"""The ends of all chains: exported once a day, and an older copy of the whole store is noticed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import CHAIN_START
from meter.journal.sql.chain_heads import HeadsError, decoded, missing
from meter.letters.chain_heads import HeadsComposer, HeadsExport, HeadsOptions
from meter.settling.follower import Follower, SettleOptions
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.store.money_schema import ledger_heads
from meter.store.schema import outbox
from telemetry import metrics
from tests.facts_builder import connected_story
from tests.sim.books.helpers import copy_store
from tests.store.journal_tools import store
from tests.store.money_tools import WESTLAKE, Books, at

DAY = "2026-06-10"


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    engine = await open_store(f"sqlite:///{tmp_path / 'baton.db'}")
    made = Books(engine)
    await made.agree("acme", terms=replace(WESTLAKE, order_counts="sent"))
    await made.order("acme", "2026-06-08", 200)
    await made.run("2026-06-02 12:00")
    await store(engine, connected_story())
    follower = Follower(engine, SettleOptions())
    assert await follower.catch_up() == 1
    await follower.close()
    yield made
    await made.close()
    await engine.dispose()


def export_of(engine: AsyncEngine, tmp_path: Path, *to: str, day: str = DAY) -> HeadsExport:
    return HeadsExport(engine, HeadsOptions(tmp_path / "heads", to), clock=lambda: at(f"{day} 09:00"))


async def test_once_a_day_they_go_to_a_file_and_to_the_operator(books: Books, tmp_path: Path) -> None:
    export = export_of(books.engine, tmp_path, "ops@baton.example")
    assert await export.export() == DAY
    assert await export.export() is None
    file = tmp_path / "heads" / f"{DAY}.json"
    heads = decoded(file.read_bytes())
    assert [(one["buyer"], one["seq"]) for one in heads["ledger"]] == [("acme", 2)]
    assert len(heads["facts"]) == 1
    assert heads["documents"] == {"invoice": 1}
    [row] = await books.read(lambda c: c.execute(select(outbox).where(outbox.c.key == "heads")).all())
    letter = await HeadsComposer().compose(json.loads(row.payload), books.clerk)
    assert (letter.to, letter.attachments[0].content) == (("ops@baton.example",), file.read_bytes())
    assert "journal verify --heads chain-heads-2026-06-10.json" in letter.text
    assert "  facts       " in letter.text
    assert max(map(len, letter.text.splitlines())) <= 80
    file.unlink()
    await export.export()
    assert file.is_file(), "it is written again from what was kept"
    await export.close()


async def test_what_was_exported_stays_in_the_chains_whatever_comes_after(books: Books, tmp_path: Path) -> None:
    export = export_of(books.engine, tmp_path)
    await export.export()
    await books.pay("acme", 837_000, "2026-06-11 09:00")
    await store(books.engine, connected_story("t-2"), boot="boot-2")
    assert await export.check() == []
    assert metrics.CHAIN_HEADS_MISSING._value.get() == 0
    await export.close()


async def test_a_ledger_that_is_empty_yet_has_no_end(books: Books, tmp_path: Path) -> None:
    """On PostgreSQL whoever locks a buyer's ledger, such as by an order, makes its row: before anything is posted."""
    empty = {"buyer": "fresh", "seq": 0, "digest": CHAIN_START}
    await books.write(lambda connection: connection.execute(insert(ledger_heads).values(**empty)))
    export = export_of(books.engine, tmp_path, "ops@baton.example")
    await export.export()
    heads = decoded((tmp_path / "heads" / f"{DAY}.json").read_bytes())
    assert [one["buyer"] for one in heads["ledger"]] == ["acme"]
    assert await export.check() == []
    assert await HeadsComposer().compose({"day": DAY, "to": ["ops@baton.example"]}, books.clerk)
    await export.close()


async def test_an_older_copy_of_the_store_is_noticed(books: Books, tmp_path: Path) -> None:
    older = copy_store(tmp_path / "baton.db", tmp_path / "older.db")
    await books.order("acme", "2026-06-15", 10)
    await books.run("2026-06-09 12:00")
    await store(books.engine, connected_story("t-2"), boot="boot-2")
    export = export_of(books.engine, tmp_path)
    await export.export()
    await export.close()
    engine = await open_store(f"sqlite:///{older}")
    again = export_of(engine, tmp_path)
    found = await again.check()
    await again.close()
    await engine.dispose()
    assert len(found) == 4
    assert any("boot-2" in one and "older copy" in one for one in found)
    assert any(one.startswith("ledger of acme: 3 was there") for one in found)
    assert any(one.startswith("invoice: 2 documents") for one in found)
    assert any(one.startswith("statement: 1 documents") for one in found)
    assert metrics.CHAIN_HEADS_MISSING._value.get() == 4


async def test_a_store_that_was_written_again_has_other_digests(books: Books, tmp_path: Path) -> None:
    export = export_of(books.engine, tmp_path)
    await export.export()
    await export.close()
    other = copy_store(tmp_path / "baton.db", tmp_path / "other.db")
    with sqlite3.connect(other) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE postings SET digest = zeroblob(32)")
    heads = decoded((tmp_path / "heads" / f"{DAY}.json").read_bytes())
    engine = await open_store(f"sqlite:///{other}")
    clerk = Clerk(engine)
    [found] = await clerk.read(lambda connection: missing(connection, heads))
    await clerk.close()
    await engine.dispose()
    assert found.startswith("ledger of acme: 2 is another than at 2026-06-10T13:00:00")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"schema": 2, "documents": {}, "facts": [], "ledger": []}',
        b'{"schema": 1, "at": "", "documents": {}, "facts": [{"router": "r", "boot": "b", "seq": 1}], "ledger": []}',
        b'{"schema": 1, "at": "", "documents": {}, "facts": [], "ledger": [{"buyer": "a", "seq": 0, "digest": "'
        + b"ab" * 32
        + b'"}]}',
    ],
)
def test_what_is_no_file_of_heads_is_refused(content: bytes) -> None:
    with pytest.raises(HeadsError, match="no chain heads"):
        decoded(content)


async def test_a_file_that_was_cut_is_told_and_the_one_before_it_is_read(books: Books, tmp_path: Path) -> None:
    export = export_of(books.engine, tmp_path)
    await export.export()
    (tmp_path / "heads" / "2026-06-11.json").write_bytes(b'{"schema": 1, "fac')
    assert await export.check() == []
    await export.close()
