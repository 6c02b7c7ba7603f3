"""Rows out and in: everything that the store knows, the general journal, and files loaded whole or not at all."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from datetime import date, timedelta
from decimal import Decimal

import orjson
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing.sql.export import ENTITIES, ExportError, ExportFilter
from meter.billing.sql.loading import LoadError, Who, load
from meter.billing.sql.operations import BillingStore
from tests.store.money_tools import Books, at

WEEK = "2026-06-08"
WHO = Who("clerk", at("2026-06-03 10:00"))


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    await made.agree("acme", "best")
    yield made
    await made.close()


async def billed(books: Books) -> None:
    await books.order("acme", WEEK, 200)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 900_000, "2026-06-03 10:00", reference="=cmd|x")
    await books.deliver("acme", "2026-06-10 11:00", 207, 0)
    await books.run("2026-06-16 12:00")


async def exported(books: Books, what: str, **wanted: object) -> str:
    sink = io.StringIO()
    await BillingStore(books.engine).export(ExportFilter(what, **wanted), sink)  # type: ignore[arg-type]
    return sink.getvalue()


async def changed(books: Books, what: str, rows: str, *, dry_run: bool = False) -> tuple[int, int]:
    done = await load(books.engine, what, rows, WHO, dry_run=dry_run)
    return done.new, done.known


@pytest.mark.parametrize("what", sorted(ENTITIES))
async def test_every_table_comes_out_the_same_in_both_formats(books: Books, what: str) -> None:
    await billed(books)
    rows = list(csv.reader(io.StringIO(await exported(books, what))))
    lines = [orjson.loads(line) for line in (await exported(books, what, form="jsonl")).splitlines()]
    assert len(rows) - 1 == len(lines)
    assert all(list(line) == rows[0] for line in lines)
    count = await books.read(
        lambda connection: connection.execute(text(f"SELECT count(*) FROM {ENTITIES[what].table}"))
    )
    assert count is not None


async def test_the_general_journal_balances_by_currency_and_by_entry(books: Books) -> None:
    await billed(books)
    rows = list(csv.DictReader(io.StringIO(await exported(books, "journal"))))
    sides = [sum(Decimal(row[side] or 0) for row in rows) for side in ("debit", "credit")]
    assert sides[0] == sides[1] > 0
    by_account: dict[str, Decimal] = {}
    for row in rows:
        amount = Decimal(row["debit"] or 0) - Decimal(row["credit"] or 0)
        by_account[row["account"]] = by_account.get(row["account"], Decimal(0)) + amount
    held = {name: int(amount * 100) for name, amount in by_account.items() if amount}
    assert held == await books.balances("acme")


async def test_what_a_spreadsheet_would_run_gets_an_apostrophe_and_loads_again_without_it(books: Books) -> None:
    await billed(books)
    [row] = csv.DictReader(io.StringIO(await exported(books, "payments")))
    assert row["reference"] == "'=cmd|x"
    line = f"buyer,reference,amount_minor,received_on\r\nacme,{row['reference']},900000,2026-06-03\r\n"
    assert await changed(books, "payments", line) == (0, 1)


async def test_a_span_and_a_buyer_choose_rows(books: Books) -> None:
    await billed(books)
    everything = await exported(books, "documents")
    assert everything.count("INV-000001") >= 1
    assert len((await exported(books, "documents", buyer="best")).splitlines()) == 1
    before = await exported(books, "documents", to_us=at("2026-06-10 00:00"), form="jsonl")
    assert [orjson.loads(line)["number"] for line in before.splitlines()] == ["INV-000001"]


@pytest.mark.parametrize(
    ("what", "wanted"), [("passwords", {}), ("orders", {"form": "xml"}), ("terms", {"buyer": "acme"})]
)
async def test_what_cannot_be_exported_is_refused_with_what_can(
    books: Books, what: str, wanted: dict[str, str]
) -> None:
    with pytest.raises(ExportError):
        await exported(books, what, **wanted)


async def test_orders_load_once_and_again_without_a_change(books: Books) -> None:
    rows = "buyer,week,quantity\nacme,2026-06-08,200\nbest,2026-06-08,50\n"
    assert await changed(books, "orders", rows) == (2, 0)
    assert await changed(books, "orders", rows) == (0, 2)


async def test_every_problem_is_told_with_its_line_and_nothing_is_written(books: Books) -> None:
    rows = "buyer,week,quantity\nacme,2026-06-08,200\nnobody,2026-06-08,1\nacme,2026-06-15,1\n"
    with pytest.raises(LoadError) as refused:
        await changed(books, "orders", rows)
    assert refused.value.problems == ("line 3: no buyer is called 'nobody'",)
    bad = "buyer,week,quantity\nacme,2026-06-09,200\nACME,2026-06-08,x\nacme,2026-06-08,1,2\n"
    with pytest.raises(LoadError) as refused:
        await changed(books, "orders", bad)
    told = "\n".join(refused.value.problems)
    for said in ("line 2: week:", "line 3: buyer:", "line 3: quantity:", "line 4: has 4 cells"):
        assert said in told
    assert len((await exported(books, "orders")).splitlines()) == 1


@pytest.mark.parametrize(
    ("what", "rows", "said"),
    [
        ("orders", "buyer,week\n", "quantity"),
        ("orders", "buyer,week,quantity,hat\n", "hat"),
        ("orders", "", "heading"),
        ("orders", '{"buyer": "acme"', "line 1: is no JSON"),
        ("orders", '{"buyer": "acme", "week": "2026-06-08", "quantity": 1}\n[]', "line 2: is no JSON object"),
        ("orders", 'buyer,week,quantity\n"acme,2026-06-08,1', "is no CSV"),
        ("payments", "buyer,reference,amount_minor,received_on,method\nacme,r,1,2026-06-03,barter\n", "none of check"),
        ("payments", "buyer,reference,amount_minor,received_on\nacme,r,1.5,2026-06-03\n", "line 2: amount_minor"),
        ("payments", "buyer,reference,amount_minor,received_on,document\nacme,r,1,2026-06-03,INV-9\n", "INV-9"),
        ("refunds", "refund,reference\n7,check 1\n", "there is no refund 7"),
        ("remedies", "buyer,remedy\nacme,gold\n", "line 2: remedy"),
    ],
)
async def test_bad_rows_are_refused_with_line_and_field(books: Books, what: str, rows: str, said: str) -> None:
    with pytest.raises(LoadError) as refused:
        await changed(books, what, rows)
    assert said in str(refused.value)


async def test_a_dry_run_says_what_would_be_loaded_and_writes_nothing(books: Books) -> None:
    rows = '{"buyer": "acme", "week": "2026-06-08", "quantity": 200}\n'
    assert await changed(books, "orders", rows, dry_run=True) == (1, 0)
    assert len((await exported(books, "orders")).splitlines()) == 1


async def test_checks_and_remedies_load_once(books: Books) -> None:
    assert await changed(books, "remedies", "buyer,remedy\nacme,refund\n") == (1, 0)
    assert await changed(books, "remedies", "buyer,remedy\nacme,refund\n") == (0, 1)
    await billed(books)
    assert await changed(books, "refunds", "refund,reference\n1,check 1001\n") == (1, 0)
    assert await changed(books, "refunds", "refund,reference\n1,check 1001\n") == (0, 1)
    with pytest.raises(LoadError, match="sent before"):
        await changed(books, "refunds", "refund,reference\n1,check 1002\n")


async def test_a_reference_in_another_spelling_is_the_same_payment(books: Books) -> None:
    heading = "buyer,reference,amount_minor,received_on\n"
    assert await changed(books, "payments", f"{heading}acme,|wire  1,100,2026-06-03\n") == (1, 0)
    assert await changed(books, "payments", f"{heading}acme,|WIRE 1 ,100,2026-06-04\n") == (0, 1)
    assert await changed(books, "payments", await own_columns(books)) == (0, 1)
    with pytest.raises(LoadError, match="for another payment"):
        await changed(books, "payments", f"{heading}acme,|wire 1,101,2026-06-03\n")


async def own_columns(books: Books) -> str:
    """The export of payments, with the columns that can be loaded."""
    rows = list(csv.DictReader(io.StringIO(await exported(books, "payments"))))
    names = ("buyer", "reference", "amount_minor", "received_on")
    return "\n".join([",".join(names), *(",".join(row[name] for name in names) for row in rows)])


async def test_many_rows_never_keep_a_writer_waiting_for_all_of_them(books: Books) -> None:
    """A router's commit waits for one batch: between two of them another writer gets its turn."""
    count = 200
    rows = "buyer,week,quantity\n" + "".join(
        f"acme,{(date(2026, 6, 8) + timedelta(weeks=number)).isoformat()},1\n" for number in range(count)
    )
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await books.write(lambda connection: connection.execute(text("UPDATE book_version SET id = 1")) and None)
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    assert await changed(books, "orders", rows) == (count, 0)
    other.cancel()
    assert turns >= 5  # ten batches to try and to write


async def test_json_lines_end_with_newlines_alone(books: Books) -> None:
    line = '{"buyer": "acme", "reference": "r", "amount_minor": 1, "received_on": "2026-06-03", "note": "a\u2028b"}'
    assert await changed(books, "payments", line + "\n") == (1, 0)
