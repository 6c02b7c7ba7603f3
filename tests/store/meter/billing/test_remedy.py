"""Shortfalls made good: which can be on a Tuesday, by whose choice, and once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import BuyerState
from meter.billing.arithmetic.cycle import Remedy
from meter.billing.arithmetic.drafts import Issuer
from meter.billing.sql import documents, remedy
from meter.billing.sql.documents import BillingRun
from meter.book.sql.contracts import read_contract
from meter.book.sql.stops import set_state, version_of
from meter.ledger.sql import periods
from meter.store.schema import orders
from tests.store.money_tools import Books, at

WEEK, NEXT, THIRD = "2026-06-08", "2026-06-22", "2026-06-29"  # short; invoiced on the Tuesday after it; a week later
TUESDAY = "2026-06-16 12:00"
SHORT = 8 * 4_500  # 192 units of 200


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    yield made
    await made.close()


async def short(books: Books, *, paid: bool = True, failed: int = 192) -> None:
    """200 were bought for the week, and it was settled on Monday with 192."""
    await books.agree("acme")
    await books.order("acme", WEEK, 200)
    await books.run("2026-06-02 12:00")
    if paid:
        await books.pay("acme", 900_000, "2026-06-03 10:00")
    await books.deliver("acme", "2026-06-10 11:00", failed=failed)
    await books.run("2026-06-15 01:00")


async def tuesday(books: Books, week: str = NEXT, when: str = TUESDAY) -> list[str]:
    """Settle what can be with the invoice for `week`."""

    def work(connection: Connection) -> list[str]:
        contract = read_contract(connection, "acme")
        run = BillingRun(Issuer(), at(when))
        return remedy.remedy_all(connection, contract, contract.week_from(week), run)

    return await books.write(work)


async def choice(books: Books, before: str = TUESDAY, week: str = WEEK, buyer: str = "acme") -> Remedy | None:
    return await books.read(lambda connection: remedy.choice_of(connection, buyer, week, at(before)))


async def bought(books: Books, week: str) -> tuple[int, ...] | None:
    """Quantity, make-up, owed of it, its units, and what they are worth."""
    columns = (
        orders.c.quantity, orders.c.make_up, orders.c.make_up_owed, orders.c.make_up_units, orders.c.make_up_minor
    )  # fmt: skip
    query = select(*columns).where(orders.c.buyer == "acme", orders.c.week == week)
    row = await books.read(lambda connection: connection.execute(query).one_or_none())
    return None if row is None else tuple(row)


# --- the choice ------------------------------------------------------------------------------------------------------


async def test_the_weeks_own_choice_goes_before_the_standing_one_and_the_last_before_the_first(books: Books) -> None:
    await books.agree("acme", "bolt")
    assert await choice(books) is None
    await books.choose("acme", Remedy.REFUND, "2026-06-01 09:00", WEEK)
    await books.choose("acme", Remedy.MAKE_UP, "2026-06-02 09:00")
    assert (await choice(books), await choice(books, week=NEXT)) == (Remedy.REFUND, Remedy.MAKE_UP)
    await books.choose("acme", Remedy.CREDIT, "2026-06-03 09:00", WEEK)
    assert (await choice(books), await choice(books, week=NEXT)) == (Remedy.CREDIT, Remedy.MAKE_UP)
    assert await choice(books, buyer="bolt") is None


async def test_a_choice_counts_until_the_instant_that_closes_it_and_not_at_it(books: Books) -> None:
    await books.agree("acme")
    await books.choose("acme", Remedy.REFUND, "2026-06-16 11:59")
    assert await choice(books, "2026-06-16 11:59") is None
    assert await choice(books) is Remedy.REFUND


# --- which, and once -------------------------------------------------------------------------------------------------


async def test_a_shortfall_is_made_good_on_its_tuesday_and_never_again(books: Books) -> None:
    await short(books)
    assert await tuesday(books, "2026-06-15") == [], "a week before: the choice is still open"
    [words] = await tuesday(books)
    assert words == "Service week of 2026-06-08: 8 units short, credited."
    assert (await books.balances("acme"))["credits"] == -SHORT
    count = len(await books.postings())
    assert await tuesday(books) == await tuesday(books, THIRD, "2026-06-23 12:00") == []
    assert len(await books.postings()) == count


async def test_what_an_unpaid_order_is_short_of_waits_for_the_payment(books: Books) -> None:
    """Nothing is owed of money that never came; paid after a Tuesday, it is the next one's."""
    await short(books, paid=False)
    assert await tuesday(books) == []
    assert "credits" not in await books.balances("acme")
    await books.pay("acme", 900_000, "2026-06-16 12:01")
    assert await tuesday(books, when="2026-06-16 12:05") == []
    [words] = await tuesday(books, THIRD, "2026-06-23 12:00")
    assert "8 units short" in words
    assert (await books.balances("acme"))["credits"] == -SHORT
    assert await tuesday(books, THIRD, "2026-06-23 12:00") == []


async def test_paid_at_the_very_instant_of_the_invoice_is_paid(books: Books) -> None:
    await short(books, paid=False)
    await books.pay("acme", 900_000, TUESDAY)
    assert any("8 units short" in words for words in await tuesday(books))


async def test_who_has_left_gets_a_check_whatever_was_chosen(books: Books) -> None:
    await short(books)
    await books.choose("acme", Remedy.MAKE_UP, "2026-06-09 09:00", WEEK)
    change = {"by": "clerk", "reason": "left", "now_utc_us": at("2026-06-15 09:00")}
    await books.write(lambda connection: set_state(connection, "acme", BuyerState.CANCELLED, **change) and None)
    await tuesday(books)
    [refund] = await books.refunds()
    assert (refund["amount_minor"], refund["units"], refund["week"], refund["currency"]) == (SHORT, 8, WEEK, "USD")
    assert (refund["due_on"], refund["key"]) == ("2026-06-17", "remedy:acme:2026-06-08:remedied")
    assert await bought(books, NEXT) is None, "no week is owed"


@pytest.mark.parametrize(("ordered", "quantity"), [(True, 200), (False, 0)])
async def test_make_up_is_put_on_top_of_an_order_or_stands_by_itself(
    books: Books, ordered: bool, quantity: int
) -> None:
    await short(books)
    await books.choose("acme", Remedy.MAKE_UP, "2026-06-09 09:00")
    if ordered:
        await books.order("acme", NEXT, 200, 5)
    before, present = await books.read(version_of), 5 if ordered else 0
    balances = await books.balances("acme")
    await tuesday(books)
    assert await bought(books, NEXT) == (quantity, present + 8, 8, 8, SHORT)
    assert await books.read(version_of) > before, "the routers are told"
    assert await books.balances("acme") == balances, "no money moves: it is still service that is paid for"
    assert await books.refunds() == []
    assert await tuesday(books) == []
    assert await bought(books, NEXT) == (quantity, present + 8, 8, 8, SHORT)


async def test_where_nothing_is_short_there_is_nothing_to_make_good(books: Books) -> None:
    await short(books, failed=200)
    before = await books.balances("acme")
    await books.choose("acme", Remedy.REFUND, "2026-06-09 09:00")
    assert await tuesday(books) == []
    assert (await books.balances("acme"), await books.refunds()) == (before, [])
    row = await books.read(lambda connection: periods.find(connection, "acme", WEEK))
    assert (row.short_units, row.remedy) == (0, None)


async def test_another_buyers_shortfall_is_left_alone(books: Books) -> None:
    await short(books)
    await books.agree("acme", "bolt")

    def work(connection: Connection) -> list[str]:
        contract = read_contract(connection, "bolt")
        return remedy.remedy_all(connection, contract, contract.week_from(NEXT), BillingRun(Issuer(), at(TUESDAY)))

    assert await books.write(work) == []
    assert "credits" not in await books.balances("acme")
    assert await books.read(lambda connection: documents.find_all(connection, "bolt")) == []
