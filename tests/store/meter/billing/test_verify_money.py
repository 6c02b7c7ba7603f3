"""Whoever changes a column of money in the store is found, whichever it is: a matrix over the tables themselves."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Integer, Table

from facts.fact import Party
from meter.billing.arithmetic.cycle import Remedy
from meter.billing.sql import documents as papers
from meter.billing.sql import payments as desk_of_payments
from meter.credits.rules import load_reasons
from meter.credits.sql import requests as desk
from meter.settling.follower import Follower, SettleOptions
from meter.settling.sql.verify_ledger import verify_ledger
from meter.store.engine import open_store
from meter.store.money_schema import (
    billing_periods,
    buyer_stops,
    credit_requests,
    document_files,
    document_series,
    documents,
    payments,
    refunds,
)
from meter.store.schema import orders, outcomes
from tests.facts_builder import UTC_0, Story
from tests.sim.books.helpers import copy_store
from tests.store.journal_tools import store
from tests.store.money_tools import SENT, Books, at

MOST_ROWS = 3  # of a table, each changed by itself
GONE = {"document_files": "a rendering is made again"}
WEEK = "2026-06-08"
TABLES = (
    documents,
    document_series,
    document_files,
    orders,
    billing_periods,
    payments,
    refunds,
    credit_requests,
    buyer_stops,
    outcomes,
)
# What no chain and no body speaks of, and no amount, date or state follows from.
UNTOLD: dict[str, str] = {
    "documents.key": "what it is for; its period and kind are checked",
    "orders.updated_utc_us": "for people",
    "document_files.made_utc_us": "for people",
    "billing_periods.end_utc_us": "by its zone; a replay reckons with it",
    "billing_periods.through_seq": "which units are in it: a replay finds other ones",
    "billing_periods.settled_utc_us": "for people",
    "billing_periods.remedied_utc_us": "that it was, is checked",
    "billing_periods.awaited_utc_us": "that it was, is checked",
    "payments.id": "its reference is what it is known by",
    "payments.document": "what it was meant for; where it went is in the ledger",
    "payments.received_on": "as typed",
    "payments.method": "as typed",
    "payments.note": "as typed",
    "payments.recorded_utc_us": "for people",
    "payments.by": "for people",
    "payments.reversed_utc_us": "that it was, is checked",
    "payments.reversed_by": "for people",
    "payments.reversed_why": "for people",
    "refunds.id": "its key is what it is known by",
    "refunds.units": "for people; the amount is checked",
    "refunds.due_on": "follows from the week",
    "refunds.created_utc_us": "for people",
    "refunds.paid_utc_us": "that it was, is checked",
    "refunds.paid_by": "for people",
    "credit_requests.id": "place in the line",
    **{
        f"credit_requests.{name}": "what was asked and said"
        for name in ("level", "first", "reason", "words", "asked_utc_us", "asked_by", "origin", "decided_utc_us")
    },
    "credit_requests.decided_by": "for people",
    "credit_requests.explanation": "for people",
    "credit_requests.state": "approved without a posting is found; declined with one is its amount",
    "buyer_stops.since_utc_us": "for people",
    "buyer_stops.by": "for people",
    "buyer_stops.why": "for people",
    "orders.make_up": "owed units are in the ledger's prepaid; presents nobody paid for",
    "orders.make_up_owed": "as make_up",
    "orders.make_up_units": "as make_up",
    "orders.make_up_minor": "a replay reckons with it",
    **{
        f"outcomes.{name}": "of the call, and nothing of money"
        for name in ("router", "boot", "sip_call_id", "dialer", "campaign", "started_utc_us", "table_row", "evidence")
    },
    "outcomes.terms_name": "the posting has it, and is checked",
    "outcomes.terms_version": "the posting has it, and is checked",
    "outcomes.agreed": "what the router thought",
    "documents.settled_utc_us": "that it was, is checked",
    "documents.held_utc_us": "that it stops its buyer, is checked",
}
CASES = [(table, column) for table in TABLES for column in table.columns]


async def _play(path: Path) -> None:
    """An order paid, bounced and paid again, a week with its check sent, a credit, an outcome, a buyer on hold."""
    engine = await open_store(f"sqlite:///{path}")
    made = Books(engine)
    await made.agree("acme", "late", terms=SENT, lead_emails=("leads@acme.example",))
    for buyer in ("acme", "late"):
        await made.order(buyer, WEEK, 200)
    await made.run("2026-06-02 12:00")
    await made.pay("acme", 837_000, "2026-06-03 10:00", reference="check 1")
    back = {"reason": "bounced", "by": "clerk", "now_utc_us": at("2026-06-03 11:00")}
    await made.write(lambda connection: desk_of_payments.reverse(connection, "acme", "check 1", **back))
    await made.pay("acme", 837_000, "2026-06-03 12:00", reference="wire 2")
    await made.choose("acme", Remedy.REFUND, "2026-06-01 09:00")
    shift = (at("2026-06-10 11:00") - UTC_0) / 1_000_000
    story = Story("s-1").start(buyer="acme").dial(1, at=shift).ring(1, shift + 1.0).answer(1, shift + 4.0)
    await store(engine, story.bridge(1, shift + 4.1).hang_up(shift + 44.0, Party.CALLER).close())
    follower = Follower(engine, SettleOptions())
    assert await follower.catch_up() == 1
    await follower.close()
    await made.deliver("acme", "2026-06-10 12:00", 191)
    asked = desk.CreditApplication("had her in May", "crm", "test", "duplicate")
    request = await made.write(
        lambda connection: desk.ask(connection, ("s-1", "acme"), asked, load_reasons(), at("2026-06-11 09:00"))
    )
    decision = desk.Decision(True, "as the log says", "Ann")
    await made.write(lambda connection: desk.decide(connection, request.id, decision, at("2026-06-11 10:00")))
    await made.run("2026-06-16 12:00")
    [check] = await made.read(desk_of_payments.refunds_due)
    sent = {"reference": "4711", "by": "clerk", "now_utc_us": at("2026-06-17 09:00")}
    await made.write(lambda connection: desk_of_payments.pay_refund(connection, check.id, **sent))
    await made.write(lambda connection: papers.keep_file(connection, "INV-000001", "html", b"<p>", 1))
    report = await verify_ledger(engine)
    assert (report.problems, report.outcomes) == ((), 1)
    await made.close()
    await engine.dispose()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that verifies, without the triggers that keep others than the determined from changing it."""
    path = tmp_path_factory.mktemp("whole") / "baton.db"
    asyncio.run(_play(path))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def other(column: Column[Any], value: Any) -> Any:
    """Another value of the column's type."""
    if value is None:
        return 7 if isinstance(column.type, Integer) else "x"
    if isinstance(value, int):
        return 1 - value if isinstance(column.type, Boolean) else value + 1_000_000
    return value[:-1] + b" " if isinstance(value, bytes) else f"{value[:-1]}~"


@pytest.mark.parametrize(("table", "column"), CASES, ids=[f"{table.name}.{column.name}" for table, column in CASES])
async def test_a_changed_column_is_found(whole: Path, tmp_path: Path, table: Table, column: Column[Any]) -> None:
    name = f"{table.name}.{column.name}"
    with contextlib.closing(sqlite3.connect(whole)) as connection:
        rows = connection.execute(f'SELECT rowid, "{column.name}" FROM {table.name} LIMIT {MOST_ROWS}').fetchall()
    assert rows, f"{table.name} is empty: nothing is tried"
    missed = []
    for number, value in rows:
        path = copy_store(whole, tmp_path / f"{number}.db")
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            said = f'UPDATE {table.name} SET "{column.name}" = ? WHERE rowid = ?'
            connection.execute(said, (other(column, value), number))
        engine = await open_store(f"sqlite:///{path}")
        if not (await verify_ledger(engine)).problem_count:
            missed.append(value)
        await engine.dispose()
    assert not missed or name in UNTOLD, f"{name}: changed, and nobody noticed, of {missed}"


@pytest.mark.parametrize("table", TABLES, ids=[one.name for one in TABLES])
async def test_a_row_that_is_gone_is_found(whole: Path, tmp_path: Path, table: Table) -> None:
    with contextlib.closing(sqlite3.connect(whole)) as connection:
        numbers = [number for (number,) in connection.execute(f"SELECT rowid FROM {table.name} LIMIT {MOST_ROWS}")]
    missed = []
    for number in numbers:
        path = copy_store(whole, tmp_path / f"{number}.db")
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"DELETE FROM {table.name} WHERE rowid = ?", (number,))
        engine = await open_store(f"sqlite:///{path}")
        if not (await verify_ledger(engine)).problem_count:
            missed.append(number)
        await engine.dispose()
    assert not missed or table.name in GONE


def test_what_is_untold_is_there_and_not_told_after_all() -> None:
    assert set(UNTOLD) <= {f"{table.name}.{column.name}" for table, column in CASES}
