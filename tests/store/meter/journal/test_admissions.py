"""Limits in the admission's own transaction: exact, however many ask at once, and freed by what ends a transfer."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from book.hours import DAY_US
from book.limits import Limits, limits_for
from book.model import Buyer, Caps, Order, Terms
from facts.fact import Fact, Kind
from meter.journal.sql import admissions as limits_module
from meter.journal.sql.append import JournalWriter
from meter.journal.sql.recovery import recover
from meter.store.engine import open_store
from meter.store.schema import admissions, buyers
from tests.facts_builder import UTC_0, Story
from tests.store.journal_tools import open_journal, write

BUYER = Buyer("active", "Active", Terms("westlake-fulfillment", order_counts="billed"))
SENT = replace(BUYER.terms, order_counts="sent")
PHONE = "+12125550100"
WEEK = "2026-06-01"  # UTC_0 is the Tuesday of it


def limits(phone: str = PHONE, at: int = UTC_0, quantity: int | None = None, **more: Any) -> Limits:
    orders = () if quantity is None else (Order("active", WEEK, quantity),)
    found = limits_for(replace(BUYER, **more), orders, phone, at)
    assert found is not None
    return found


class Transfers:
    """Transfers of one journal: begun, asked for, ended."""

    def __init__(self, journal: JournalWriter, prefix: str = "t") -> None:
        self.journal = journal
        self.prefix = prefix
        self.count = 0

    def begin(self, at: int = UTC_0) -> Fact:
        self.count += 1
        return self.journal.append(f"{self.prefix}-{self.count}", Kind.TRANSFER_STARTED, utc_us=at, mono_us=0)

    async def ask(self, held: Limits | None, buyer: str = "active") -> str:
        return (await self.journal.admit(self.begin(), buyer, held)).refusal

    def end(self, number: int, counts_as: str) -> None:
        payload = {"counts_as": counts_as}
        self.journal.append(f"{self.prefix}-{number}", Kind.TRANSFER_CLOSED, utc_us=UTC_0, mono_us=1, payload=payload)

    async def commit(self) -> None:
        """Wait until everything appended so far is in the store."""
        await self.journal.admit(self.begin(), "")


@pytest.fixture
async def transfers(engine: AsyncEngine, buyers_in: None) -> Any:
    journal = await open_journal(engine)
    yield Transfers(journal)
    await journal.close()


async def states(engine: AsyncEngine) -> dict[str, str]:
    async with engine.connect() as connection:
        return dict((await connection.execute(select(admissions.c.transfer, admissions.c.state))).all())


# --- each limit ---


@pytest.mark.parametrize(
    ("given", "admitted", "refusal"),
    [
        ({"caps": Caps(hour=2)}, 2, "cap_reached"),
        ({"caps": Caps(day=3)}, 3, "cap_reached"),
        ({"caps": Caps(month=1)}, 1, "cap_reached"),
        ({"caps": Caps(total=2, day=5)}, 2, "cap_reached"),
        ({"caps": Caps(concurrent=2)}, 2, "cap_reached"),
        ({"order_required": True, "quantity": 3}, 3, "order_filled"),
        ({"order_required": True, "quantity": 10}, 11, "order_filled"),  # and its overrun of 10 %
        ({"quantity": 10}, 11, "order_filled"),  # it binds, whether one is required or not
        ({"quantity": 10, "terms": SENT}, 11, "order_filled"),
        ({"order_required": True}, 0, "order_filled"),  # no order
        ({"duplicate_days": 1}, 1, "duplicate"),
    ],
)
async def test_as_many_as_the_limit_says(
    transfers: Transfers, given: dict[str, Any], admitted: int, refusal: str
) -> None:
    answers = [await transfers.ask(limits(**given)) for _ in range(admitted + 2)]
    assert answers == [""] * admitted + [refusal] * 2


async def test_who_is_refused_leaves_no_row(transfers: Transfers, engine: AsyncEngine) -> None:
    held = limits(caps=Caps(hour=1))
    assert [await transfers.ask(held) for _ in range(3)] == ["", "cap_reached", "cap_reached"]
    assert await transfers.ask(held, "paused") == "paused"
    assert await transfers.ask(held, "unheard-of") == "no_buyer"
    assert await states(engine) == {"t-1": "live"}


@pytest.mark.parametrize(
    ("counts_as", "cap", "at_once"),
    [("connected", "cap_reached", ""), ("failed", "cap_reached", ""), ("free", "", ""), ("nonsense", "", "")],
)
async def test_what_an_ended_transfer_still_counts_for(
    transfers: Transfers, engine: AsyncEngine, counts_as: str, cap: str, at_once: str
) -> None:
    assert await transfers.ask(limits(caps=Caps(day=1))) == ""
    transfers.end(1, counts_as)
    assert await transfers.ask(limits(caps=Caps(day=1))) == cap
    assert await transfers.ask(limits(caps=Caps(concurrent=2))) == at_once
    assert (await states(engine))["t-1"] == (counts_as if cap else "free")


@pytest.mark.parametrize(
    ("counts", "ended", "left"),
    [
        ("billed", {"connected": 10}, 2),  # floor(9.3) = 9 of 11
        ("billed", {"connected": 8, "failed": 2}, 2),  # floor(7.44) + 2
        ("sent", {"connected": 8, "failed": 2}, 1),
        ("sent", {"connected": 5, "free": 5}, 6),
    ],
)
async def test_an_order_by_its_way_of_counting(
    transfers: Transfers, counts: str, ended: dict[str, int], left: int
) -> None:
    held = limits(order_required=True, quantity=10, terms=replace(BUYER.terms, order_counts=counts))
    for counts_as, count in ended.items():
        for _ in range(count):
            assert await transfers.ask(held) == ""
            transfers.end(transfers.count, counts_as)
    assert [await transfers.ask(held) for _ in range(left + 1)] == [""] * left + ["order_filled"]


@pytest.mark.parametrize(
    ("given", "later_us", "refusal"),
    [
        ({"caps": Caps(hour=1)}, 3_600_000_000, ""),
        ({"caps": Caps(hour=1)}, 3_599_000_000, "cap_reached"),  # UTC_0 is on the hour
        ({"caps": Caps(day=1)}, 13 * 3_600_000_000, "cap_reached"),  # 10:00 to 23:00 in New York
        ({"caps": Caps(day=1)}, 14 * 3_600_000_000, ""),
        ({"caps": Caps(month=1)}, 28 * DAY_US, "cap_reached"),
        ({"caps": Caps(month=1)}, 29 * DAY_US, ""),
        ({"caps": Caps(total=1)}, 1000 * DAY_US, "cap_reached"),
        ({"order_required": True, "quantity": 1, "terms": SENT}, 5 * DAY_US, "order_filled"),
        ({"order_required": True, "quantity": 1}, 5 * DAY_US, ""),  # 93 % of one unit: nothing is billed yet
        ({"order_required": True, "quantity": 1}, 6 * DAY_US, "order_filled"),  # another week, and no order for it
        ({"duplicate_days": 2}, 2 * DAY_US, "duplicate"),
        ({"duplicate_days": 2}, 2 * DAY_US + 1, ""),
    ],
)
async def test_what_was_admitted_before_a_span_is_not_in_it(
    transfers: Transfers, given: dict[str, Any], later_us: int, refusal: str
) -> None:
    assert await transfers.ask(limits(**given)) == ""
    transfers.end(1, "connected")
    assert await transfers.ask(limits(at=UTC_0 + later_us, **given)) == refusal


async def test_a_prospect_is_a_duplicate_for_its_buyer_alone(transfers: Transfers, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            insert(buyers).values(name="other", state="active", document=b"{}", terms_name="westlake")
        )
    held = limits(duplicate_days=30)
    assert await transfers.ask(held) == ""
    assert await transfers.ask(held) == "duplicate"
    assert await transfers.ask(held, "other") == ""
    assert await transfers.ask(limits("+12125550101", duplicate_days=30)) == ""
    assert [await transfers.ask(limits("", duplicate_days=30)) for _ in range(2)] == ["", ""]


@pytest.mark.parametrize(("counts_as", "again"), [("connected", "duplicate"), ("failed", "duplicate"), ("free", "")])
async def test_a_prospect_whose_transfer_was_free_may_come_again(
    transfers: Transfers, counts_as: str, again: str
) -> None:
    held = limits(duplicate_days=30)
    await transfers.ask(held)
    transfers.end(1, counts_as)
    assert await transfers.ask(held) == again


# --- many at once ---


async def test_admissions_of_one_commit_see_each_other(transfers: Transfers) -> None:
    held = limits(caps=Caps(day=3))
    assert await asyncio.gather(*(transfers.ask(held) for _ in range(10))) == [""] * 3 + ["cap_reached"] * 7
    twice = limits("+12125550199", duplicate_days=1)
    assert await asyncio.gather(*(transfers.ask(twice) for _ in range(3))) == ["", "duplicate", "duplicate"]


async def test_two_routers_on_one_store_admit_exactly_the_limit(url: str, engine: AsyncEngine, buyers_in: None) -> None:
    second = await open_store(url)
    journals = [await JournalWriter.open(one, name, "boot", 1, UTC_0) for one, name in ((engine, "r1"), (second, "r2"))]
    both = [Transfers(journal, name) for journal, name in zip(journals, "ab", strict=True)]
    answers = await asyncio.gather(*(one.ask(limits(caps=Caps(day=25))) for _ in range(40) for one in both))
    assert sorted(answers) == [""] * 25 + ["cap_reached"] * 55
    for journal in journals:
        await journal.close()
    await second.dispose()


_ROUTER = """
import asyncio, json, sys
from book.limits import Limits, CapWindow
from facts.fact import Kind
from meter.store.engine import open_store
from meter.journal.sql.append import JournalWriter

async def main(url, name, count):
    engine = await open_store(url)
    journal = await JournalWriter.open(engine, name, "boot", 1, 1, admit_timeout_ms=60_000)
    print("ready", flush=True)
    sys.stdin.readline()
    limits = Limits(at_us=1000, phone="+1", caps=(CapWindow("day", 50, 0),), concurrent=30)
    async def one(number):
        transfer = f"{name}-{number}"
        started = journal.append(transfer, Kind.TRANSFER_STARTED, utc_us=1000, mono_us=0)
        refusal = (await journal.admit(started, "active", limits)).refusal
        if not refusal and number % 2:  # half of them end and count
            closed = {"counts_as": "connected"}
            journal.append(transfer, Kind.TRANSFER_CLOSED, utc_us=1000, mono_us=0, payload=closed)
        return refusal
    answers = []
    for start in range(0, count, 5):
        answers += await asyncio.gather(*(one(number) for number in range(start, start + 5)))
    await journal.close()
    await engine.dispose()
    print(json.dumps(answers))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.slow
async def test_four_processes_admit_exactly_the_limit(url: str, engine: AsyncEngine, buyers_in: None) -> None:
    await engine.dispose()
    parties = [
        subprocess.Popen(
            [sys.executable, "-c", _ROUTER, url, f"r{number}", "50"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for one in parties:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in parties:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    answers = [json.loads(one.communicate(timeout=120)[0]) for one in parties]
    assert all(one.returncode == 0 for one in parties)
    admitted = sum(refusal == "" for some in answers for refusal in some)
    found = list((await states(engine)).values())
    assert admitted == len(found)
    assert found.count("live") <= 30
    assert admitted == 50 or found.count("live") == 30, "either limit is used to the last unit"


# --- commits that fail, and routers that die ---


async def test_a_commit_in_doubt_admits_once(transfers: Transfers, engine: AsyncEngine) -> None:
    """The store did what was asked and the answer was lost: the next try finds the row and counts it once."""
    clerk = transfers.journal._clerk
    done = clerk.write
    lost = iter([True])

    async def write_and_lose(work: Any) -> Any:
        answer = await done(work)
        if next(lost, False):
            raise OperationalError("COMMIT", None, Exception("connection lost"))
        return answer

    clerk.write = write_and_lose  # type: ignore[method-assign]
    held = limits(caps=Caps(day=1), duplicate_days=1)
    assert await transfers.ask(held) == ""
    assert await states(engine) == {"t-1": "live"}
    assert await transfers.ask(held) == "duplicate"


async def test_one_that_was_not_waited_for_is_freed_by_its_closing_fact(engine: AsyncEngine, buyers_in: None) -> None:
    """Admission came after the router had given up: it closes the transfer, and nothing stays reserved."""
    journal = await open_journal(engine, admit_timeout_ms=50, admit_patience_ms=50)
    transfers = Transfers(journal)
    clerk = journal._clerk
    done = clerk.write
    slow = iter([0.2])

    async def write_late(work: Any) -> Any:
        answer = await done(work)
        await asyncio.sleep(next(slow, 0))
        return answer

    clerk.write = write_late  # type: ignore[method-assign]
    answers: list[Any] = []
    journal.ask(transfers.begin(), "active", answers.append, limits(caps=Caps(day=1)))
    await asyncio.sleep(0.1)
    assert answers == [None]
    transfers.end(1, "free")
    await asyncio.sleep(0.2)
    await transfers.commit()
    assert await states(engine) == {"t-1": "free"}
    assert not journal._limited
    await journal.close()


async def test_begun_and_over_in_one_commit(transfers: Transfers, engine: AsyncEngine) -> None:
    answers: list[Any] = []
    transfers.journal.ask(transfers.begin(), "active", answers.append, limits(caps=Caps(day=1)))
    transfers.end(1, "free")
    await transfers.commit()
    assert [one.refusal for one in answers] == [""]
    assert await states(engine) == {"t-1": "free"}


async def test_asking_twice_for_one_transfer_is_one_row(transfers: Transfers, engine: AsyncEngine) -> None:
    fact = transfers.begin()
    held = limits(caps=Caps(day=1))
    answers = [(await transfers.journal.admit(fact, "active", held)).refusal for _ in range(2)]
    assert answers == ["", ""]
    assert len(await states(engine)) == 1


async def test_recovery_settles_what_a_dead_router_had_reserved(engine: AsyncEngine, buyers_in: None) -> None:
    journal = await open_journal(engine)
    talk = Story("t-talk").start().dial(1).answer(1).bridge(1).add(Kind.TALK_REACHED_15S, 19.0)
    ringing = Story("t-ringing", first_seq=talk.next_seq).start().dial(1).ring(1)
    held = limits(caps=Caps(concurrent=2))
    for story in (talk, ringing):
        facts = write(journal, story)
        assert (await journal.admit(facts[0], "active", held)).refusal == ""
    await journal.close()
    assert await states(engine) == {"t-talk": "live", "t-ringing": "live"}

    report = await recover(engine, "r1", now_utc_us=UTC_0 + DAY_US)
    assert len(report.transfers) == 2
    assert await states(engine) == {"t-talk": "connected", "t-ringing": "free"}
    again = await open_journal(engine, "boot-2")
    assert await Transfers(again, "n").ask(held) == ""
    await again.close()


async def test_a_second_router_still_sees_what_a_dead_one_has_reserved(engine: AsyncEngine, buyers_in: None) -> None:
    journal = await open_journal(engine, "dead")
    assert await Transfers(journal, "d").ask(limits(caps=Caps(concurrent=1))) == ""
    await journal.close()
    other = await JournalWriter.open(engine, "r2", "boot", 1, UTC_0)
    assert await Transfers(other, "o").ask(limits(caps=Caps(concurrent=1))) == "cap_reached"
    await other.close()


# --- what it costs ---


@contextmanager
def statements() -> Iterator[list[str]]:
    """Every statement that a connection opened from now on runs, as SQLite sees it."""
    seen: list[str] = []

    def trace(connection: Any, _record: object) -> None:
        if hasattr(connection, "set_trace_callback"):
            connection.set_trace_callback(seen.append)

    event.listen(Engine, "connect", trace)
    try:
        yield seen
    finally:
        event.remove(Engine, "connect", trace)


async def test_a_buyer_without_limits_costs_no_statement_more(engine: AsyncEngine, buyers_in: None) -> None:
    with statements() as seen:
        journal = await open_journal(engine)
        transfers = Transfers(journal)
        await transfers.ask(None)
        seen.clear()
        await transfers.ask(None)
        transfers.end(1, "connected")
        await transfers.commit()
        assert [text.split()[0] for text in seen] == [
            "BEGIN",
            "INSERT",
            "SELECT",
            "COMMIT",
            "BEGIN",
            "INSERT",
            "COMMIT",
        ]
        assert not any("admissions" in text for text in seen)
        seen.clear()
        await transfers.ask(limits(caps=Caps(day=9)))
        assert sum("admissions" in text for text in seen) == 3, "one that is limited is seen here"
        await journal.close()


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (limits_module._SEEN, "admissions_by_phone"),
        (limits_module._UNITS, "COVERING INDEX admissions_by_time"),
        (limits_module._BY_STATE, "COVERING INDEX admissions_by_time"),
        (limits_module._AT_ONCE, "admissions_live"),
        (limits_module._THERE, "sqlite_autoindex_admissions_1"),
    ],
)
async def test_every_count_reads_an_index_of_units_alone(engine: AsyncEngine, statement: Any, index: str) -> None:
    text, names = statement._compile(engine.dialect)
    async with engine.connect() as connection:
        plan = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (0,) * len(names))).all()
    assert index in str(plan)


async def test_on_postgresql_the_buyers_row_is_locked() -> None:
    text = str(limits_module._BUYERS_LOCKED.compile(dialect=postgresql.dialect()))
    assert text.endswith("ORDER BY buyers.name FOR UPDATE")


async def test_rows_and_facts_are_one_commit(transfers: Transfers, engine: AsyncEngine) -> None:
    """A hold that comes in between is seen: the state and the count are of one transaction."""
    held = limits(caps=Caps(day=5))
    await transfers.ask(held)
    async with engine.begin() as connection:
        await connection.execute(update(buyers).where(buyers.c.name == "active").values(state="on_hold"))
    assert await transfers.ask(held) == "on_hold"
    async with engine.connect() as connection:
        assert (await connection.execute(select(func.count()).select_from(admissions))).scalar_one() == 1
