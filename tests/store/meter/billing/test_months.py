"""A month of a buyer who pays by the minute: its lines, what came late, what was taken back, and once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import Terms
from meter.billing.arithmetic.drafts import Issuer
from meter.billing.arithmetic.months import Month
from meter.billing.sql import months
from meter.billing.sql.documents import BillingRun
from meter.book.sql.contracts import read_contract
from meter.ledger.accounts import INCREMENT, Account, Posting, Rule
from meter.ledger.sql import ledger, periods
from tests.store.money_tools import Books, at
from tests.store.service_tools import SERVICE

JUNE, JULY, AUGUST = "2026-06", "2026-07", "2026-08"


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    yield made
    await made.close()


async def talk(books: Books, key: str, units: int, when: str = "2026-06-10 11:00", **more: Any) -> None:
    """Post increments as the follower and the service desk do; negative: they are taken back."""
    given: dict[str, Any] = {"unit": "call", "price_minor": 118, "terms_version": 1, **more}
    debit, credit = Account.UNBILLED_MINUTES, Account.DELIVERED
    posting = Posting(
        key=key,
        buyer="acme",
        rule=Rule.MINUTES,
        debit=debit if units > 0 else credit,
        credit=credit if units > 0 else debit,
        asset=INCREMENT,
        amount=abs(units),
        transfer=key,
        units=units,
        terms_name="contract",
        dialout_utc_us=at(when),
        posted_utc_us=at(when),
        **given,
    )
    await books.write(lambda connection: ledger.append(connection, [posting]) and None)


async def agree(books: Books, terms: Terms | Sequence[Terms] = SERVICE, **fields: Any) -> None:
    await books.agree("acme", terms=terms, **fields)


async def invoice(books: Books, month: str = JUNE, when: str = "") -> list[str]:
    """Invoice a month; the numbers of what is new."""
    run = BillingRun(Issuer(), at(when or f"{Month(month, SERVICE.time_zone).later(1).first} 02:00"))

    def work(connection: Connection) -> list[str]:
        contract = read_contract(connection, "acme")
        return months.invoice_month(connection, contract, Month(month, SERVICE.time_zone), run)

    return await books.write(work)


async def lines(books: Books, number: str) -> list[tuple[str, int, int, int]]:
    body = await books.body(number)
    return [(one["text"], one["units"], one["price_minor"], one["amount_minor"]) for one in body["lines"]]


async def unbilled(books: Books) -> int:
    return await books.read(lambda connection: ledger.quantity(connection, "acme", Account.UNBILLED_MINUTES, INCREMENT))


async def test_a_month_has_a_line_for_each_kind_and_price_and_is_invoiced_once(books: Books) -> None:
    await agree(books)
    await talk(books, "c-1", 3)
    await talk(books, "c-2", 2, "2026-06-30 23:59")
    await talk(books, "m-1", 4, unit="email")
    await talk(books, "c-3", 1, price_minor=100)
    await talk(books, "c-4", 7, "2026-07-01 00:00")  # the next month's
    [number] = await invoice(books)
    assert await lines(books, number) == [
        ("Talk, started increments of 60 s", 1, 100, 100),
        ("Talk, started increments of 60 s", 5, 118, 590),
        ("E-mails, started increments of 60 s", 4, 118, 472),
    ]
    [document] = await books.documents("acme")
    assert (document.kind, document.period, document.total_minor) == ("month", JUNE, 1_162)
    assert await books.balances("acme") == {"receivable": 1_162, "revenue": -1_162}
    assert await unbilled(books) == 7
    assert await invoice(books) == []
    assert len(await books.documents("acme")) == 1


async def test_an_empty_month_is_no_document_and_what_comes_late_for_it_is_the_nexts(books: Books) -> None:
    await agree(books)
    assert await invoice(books) == []
    assert await books.read(lambda connection: periods.find(connection, "acme", JUNE)) is None
    await talk(books, "c-1", 2, "2026-07-02 09:00")
    [july] = await invoice(books, JULY)
    await talk(books, "late", 5)  # of June, after July
    assert await invoice(books, when="2026-08-01 03:00") == [], "June is over: nothing is billed behind July"
    [august] = await invoice(books, AUGUST)
    assert [(await lines(books, number))[0][1] for number in (july, august)] == [2, 5]


async def test_what_is_taken_back_and_said_again_is_one_line_less(books: Books) -> None:
    await agree(books)
    await talk(books, "c-1", 3)
    await talk(books, "c-1:back", -3)
    await talk(books, "c-2", 2)
    await talk(books, "m-1", 1, unit="email")
    await talk(books, "m-1:back", -1, unit="email")
    [number] = await invoice(books)
    assert await lines(books, number) == [("Talk, started increments of 60 s", 2, 118, 236)]  # no line of nothing


async def test_more_taken_back_than_talked_is_a_credit_note_and_an_open_credit(books: Books) -> None:
    await agree(books)
    await talk(books, "c-1", 9)
    await invoice(books)
    await talk(books, "c-1:back", -9)
    await talk(books, "c-2", 4, "2026-07-03 09:00")
    [number] = await invoice(books, JULY)
    [note] = [one for one in await books.documents("acme") if one.number == number]
    assert (note.kind, note.period) == ("credit_note", JULY)
    assert abs(note.total_minor) == 5 * 118
    assert await books.balances("acme") == {"receivable": 1_062, "revenue": -1_062 + 590, "credits": -590}
    assert await unbilled(books) == 0
    assert await invoice(books, JULY) == []


async def test_a_posting_without_a_price_has_that_of_its_version_of_the_terms(books: Books) -> None:
    """Facts of a first release do not tell the price."""
    dearer = replace(SERVICE, version=2, effective_from="2026-06-15", minute_price_minor=200)
    await agree(books, (SERVICE, dearer))
    await talk(books, "c-1", 1, price_minor=None)
    await talk(books, "c-2", 1, "2026-06-20 09:00", price_minor=None, terms_version=2)
    await talk(books, "c-3", 1, "2026-06-20 09:00", price_minor=None, terms_version=9)  # of none that there is
    [number] = await invoice(books)
    assert sorted(price for _, _, price, _ in await lines(books, number)) == [118, 200, 200]


async def test_a_line_names_the_increment_that_was_in_force_at_dial_out(books: Books) -> None:
    """Terms that change in mid-month: what was counted in minutes is not called six seconds."""
    finer = replace(SERVICE, version=2, effective_from="2026-06-15", minute_price_minor=12, minute_increment_ms=6_000)
    await agree(books, (SERVICE, finer))
    await talk(books, "c-1", 2)
    await talk(books, "c-2", 30, "2026-06-20 09:00", price_minor=12, terms_version=2)
    [number] = await invoice(books)
    assert {(text, price) for text, _, price, _ in await lines(books, number)} == {
        ("Talk, started increments of 60 s", 118),
        ("Talk, started increments of 6 s", 12),
    }


@pytest.mark.parametrize(("extra", "price", "amount"), [(3, 2_500, 7_500), (3, 0, 0), (0, 2_500, 0)])
async def test_lines_beyond_those_included_are_paid_for_also_in_a_month_without_talk(
    books: Books, extra: int, price: int, amount: int
) -> None:
    await agree(books, replace(SERVICE, extra_line_price_minor=price, concurrent_lines=2), extra_lines=extra)
    numbers = await invoice(books)
    assert len(numbers) == (1 if amount else 0)
    for number in numbers:
        assert await lines(books, number) == [("Lines beyond the 2 included", extra, price, amount)]
    assert await invoice(books) == []


async def test_the_set_up_fee_is_asked_for_once_and_is_due_days_after_its_invoice(books: Books) -> None:
    await agree(books, replace(SERVICE, setup_fee_minor=95_000, month_due_days=10))

    async def set_up(when: str) -> list[str]:
        return await books.write(
            lambda connection: months.set_up(
                connection, read_contract(connection, "acme"), BillingRun(Issuer(), at(when))
            )
        )

    [number] = await set_up("2026-06-02 12:00")
    assert await set_up("2026-06-03 12:00") == []
    [document] = await books.documents("acme")
    assert (document.number, document.kind, document.total_minor) == (number, "setup", 95_000)
    assert document.due_utc_us == at("2026-06-12 17:00")
