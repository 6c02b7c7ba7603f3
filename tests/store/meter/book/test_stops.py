"""Why a buyer is not served: reasons that end by their own causes, in whatever order they come and go."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import BuyerState, Stop
from meter.book.sql.book import BookStore
from meter.book.sql.stops import stops_of
from meter.store.money_schema import buyer_stops
from tests.store.money_tools import Books

WEEK = "2026-06-08"
ADDS = {BuyerState.PAUSED: Stop.PAUSED, BuyerState.ON_HOLD: Stop.HELD, BuyerState.CANCELLED: Stop.CANCELLED}


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    await made.agree("acme")
    await made.order("acme", WEEK, 200)
    await made.run("2026-06-02 12:00")
    yield made
    await made.close()


async def stands(books: Books) -> tuple[BuyerState, set[Stop]]:
    state = (await BookStore(books.engine).load()).buyers["acme"].state
    return state, await books.read(lambda connection: stops_of(connection, "acme"))


async def test_a_hold_by_hand_does_not_swallow_the_hold_for_an_unpaid_invoice(books: Books) -> None:
    book = BookStore(books.engine)
    await book.set_buyer_state("acme", BuyerState.ON_HOLD, "clerk", "a dispute")
    await books.run("2026-06-04 17:00")
    assert await stands(books) == (BuyerState.ON_HOLD, {Stop.HELD, Stop.UNPAID})
    resumed = await book.set_buyer_state("acme", BuyerState.ACTIVE, "clerk", "settled")
    assert (resumed.after, resumed.stops) == (BuyerState.ON_HOLD, (Stop.UNPAID,))
    assert (await books.pay("acme", 900_000, "2026-06-05 09:00")).released
    assert await stands(books) == (BuyerState.ACTIVE, set())


async def test_a_resume_does_not_serve_who_has_not_paid(books: Books) -> None:
    book = BookStore(books.engine)
    await books.run("2026-06-04 17:00")
    for _ in range(2):
        resumed = await book.set_buyer_state("acme", BuyerState.ACTIVE, "clerk", "they promised")
        assert (resumed.before, resumed.after, resumed.changed) == (BuyerState.ON_HOLD, BuyerState.ON_HOLD, False)
    await books.run("2026-06-05 17:00")
    assert await stands(books) == (BuyerState.ON_HOLD, {Stop.UNPAID})


async def test_a_payment_ends_no_pause(books: Books) -> None:
    book = BookStore(books.engine)
    await books.run("2026-06-04 17:00")
    paused = await book.set_buyer_state("acme", BuyerState.PAUSED, "clerk", "holidays")
    assert paused.after is BuyerState.ON_HOLD
    await books.pay("acme", 900_000, "2026-06-05 09:00")
    assert await stands(books) == (BuyerState.PAUSED, {Stop.PAUSED})


async def test_a_payment_that_bounced_holds_again_and_a_cancelled_buyer_that_comes_back_still_owes(
    books: Books,
) -> None:
    from meter.billing.sql import payments
    from tests.store.money_tools import at

    book = BookStore(books.engine)
    await books.pay("acme", 900_000, "2026-06-03 09:00", reference="check 1")
    await book.set_buyer_state("acme", BuyerState.CANCELLED, "clerk", "left")
    back = {"reason": "bounced", "by": "clerk", "now_utc_us": at("2026-06-05 09:00")}
    await books.write(lambda connection: payments.reverse(connection, "acme", "check 1", **back))
    await books.run("2026-06-05 10:00")
    assert await stands(books) == (BuyerState.CANCELLED, {Stop.CANCELLED, Stop.UNPAID})
    await book.set_buyer_state("acme", BuyerState.ACTIVE, "clerk", "is back")
    assert await stands(books) == (BuyerState.ON_HOLD, {Stop.UNPAID})


@pytest.mark.parametrize("seed", range(6))
async def test_in_any_order_each_reason_is_ended_by_its_own_cause_alone(books: Books, seed: int) -> None:
    dice, book, wanted, is_open = random.Random(seed), BookStore(books.engine), set[Stop](), True
    for day in range(5, 29):
        what = dice.choice([*BuyerState, "run", "run", "pay"])
        if what == "run":
            await books.run(f"2026-06-{day:02d} 12:00")
            wanted |= {Stop.UNPAID} if is_open else set()
        elif what == "pay":
            if is_open:
                await books.pay("acme", 900_000, f"2026-06-{day:02d} 12:00")
            is_open = False
            wanted.discard(Stop.UNPAID)
        else:
            made = await book.set_buyer_state("acme", BuyerState(what), "clerk", "by hand")
            if what is BuyerState.ACTIVE:
                wanted &= {Stop.UNPAID}
            else:
                wanted.add(ADDS[BuyerState(what)])
            assert set(made.stops) == wanted, (seed, day, what)
        state, found = await stands(books)
        assert found == wanted, (seed, day, what)
        assert (state is BuyerState.ACTIVE) == (not wanted)
        if Stop.CANCELLED in wanted:  # its week is settled otherwise; what it owes is not asked for here
            break
    rows = await books.read(lambda connection: connection.execute(select(buyer_stops)).all())
    assert {Stop(row.reason) for row in rows} == wanted
