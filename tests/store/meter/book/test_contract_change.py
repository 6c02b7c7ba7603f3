"""A contract's currency and zone stay as they are while anything of it is open, and no longer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import Buyer, Terms
from book.sections import BookFile
from meter.book.plan import ImportRefusedError
from meter.book.sql.book import BookStore
from meter.book.sql.contract_change import open_matters
from meter.ledger.accounts import INCREMENT, Account, Posting, Rule
from meter.ledger.sql import ledger
from tests.store.money_tools import WESTLAKE, Books, at

WEEK = "2026-06-08"
EUROS = replace(WESTLAKE, name="euros", currency="EUR")
CHICAGO = replace(WESTLAKE, name="chicago", time_zone="America/Chicago")
SAME = replace(WESTLAKE, name="other", connected_percent=90)


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    yield made
    await made.close()


async def matters(books: Books, buyer: str = "acme") -> list[str]:
    return await books.read(lambda connection: open_matters(connection, buyer, "USD"))


async def faults(books: Books, terms: Terms, buyer: str = "acme") -> list[str]:
    """What an import says of a buyer that goes over to these terms."""
    moved = Buyer(buyer, buyer.title(), terms, billing_emails=(f"bills@{buyer}.example",))
    file = BookFile(terms=(terms,), buyers=(moved,))
    try:
        await BookStore(books.engine).import_book(file, replace=True, dry_run=True)
    except ImportRefusedError as refused:
        return list(refused.conflicts)
    return []


async def nothing(_: Books) -> None:
    """A buyer of today."""


async def units(books: Books) -> None:
    await books.deliver("acme", "2026-06-10 11:00", connected=2)


async def fraction(books: Books) -> None:
    """0.93 of a unit waits for the next week: it is not billed without another."""
    await books.deliver("acme", "2026-06-10 11:00", connected=1)


async def failed(books: Books) -> None:
    await books.deliver("acme", "2026-06-10 11:00", failed=1)


async def billed(books: Books) -> None:
    """Delivered, billed, invoiced and paid: nothing is open."""
    await books.deliver("acme", "2026-06-10 11:00", failed=3)
    await books.run("2026-06-15 01:00")
    await books.pay("acme", 13_500, "2026-06-15 10:00")


async def invoiced(books: Books) -> None:
    await books.deliver("acme", "2026-06-10 11:00", failed=3)
    await books.run("2026-06-15 01:00")


async def minutes(books: Books) -> None:
    posting = Posting(
        key="c-1",
        buyer="acme",
        rule=Rule.MINUTES,
        debit=Account.UNBILLED_MINUTES,
        credit=Account.DELIVERED,
        asset=INCREMENT,
        amount=1,
        units=1,
        unit="call",
        price_minor=118,
        dialout_utc_us=at("2026-06-10 11:00"),
    )
    await books.write(lambda connection: ledger.append(connection, [posting]) and None)


async def ordered(books: Books) -> None:
    await books.order("acme", WEEK, 200)


async def paid(books: Books) -> None:
    await books.order("acme", WEEK, 200)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 900_000, "2026-06-03 10:00")


async def paid_too_much(books: Books) -> None:
    await invoiced(books)
    await books.pay("acme", 14_000, "2026-06-15 10:00")


NOT_BILLED = "transfers that are not billed"
CASES: list[tuple[Callable[[Books], Awaitable[None]], list[str]]] = [
    (nothing, []),
    (units, [NOT_BILLED]),
    (fraction, []),
    (failed, [NOT_BILLED]),
    (minutes, [NOT_BILLED]),
    (invoiced, ["unpaid invoices"]),
    (billed, []),
    (ordered, [f"the order for {WEEK}"]),
    (paid, ["service that is paid for", f"the order for {WEEK}"]),
    (paid_too_much, ["open credits"]),
]


@pytest.mark.parametrize(("happened", "still_open"), CASES, ids=[case[0].__name__ for case in CASES])
async def test_what_is_open_is_named_and_keeps_the_currency_and_the_zone(
    books: Books, happened: Callable[[Books], Awaitable[None]], still_open: list[str]
) -> None:
    await books.agree("acme", "bolt")
    await happened(books)
    assert await matters(books) == still_open
    assert await matters(books, "bolt") == []
    for terms, changed in (
        (EUROS, "currency cannot go from USD to EUR"),
        (CHICAGO, "time_zone cannot go from America/New_York to America/Chicago"),
    ):
        told = await faults(books, terms)
        assert [fault.partition(": ")[2] for fault in told] == (
            [f"{changed} while there are {', '.join(still_open)}"] if still_open else []
        )
    assert await faults(books, SAME) == [], "another profile in the same currency and zone is free to take"
    assert await faults(books, EUROS, "bolt") == [], "another buyer's matters are its own"


async def test_versions_of_one_profile_share_currency_and_zone_whatever_is_open(books: Books) -> None:
    await books.agree("acme")
    second = replace(WESTLAKE, version=2, effective_from="2027-01-01", currency="EUR", time_zone="America/Chicago")
    told = await faults(books, second)
    assert len(told) == 2
    assert "currency is EUR, other versions have USD" in told[0]
    assert "time_zone is America/Chicago, other versions have America/New_York" in told[1]
