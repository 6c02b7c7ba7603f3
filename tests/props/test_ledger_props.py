"""The ledger in the store against its sentences: no drift over weeks, nothing charged twice, talk that is conserved."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from book.terms import presets
from meter.billing.arithmetic.minutes import minute_charge
from meter.ledger.accounts import UNIT, Account, Posting, Rule, reversal
from meter.ledger.sql import ledger
from meter.store.engine import open_store
from meter.store.money_schema import ledger_heads, postings
from tests.store.money_tools import Books, at, unit_posting

T = TypeVar("T")
HOUR_US = 3_600_000_000
WEEK_US = 7 * 24 * HOUR_US
MINUTES = presets()["customer-success"]
FIRST = at("2026-06-01 12:00")
_percents = st.sampled_from((93, 88, 77, 1, 0, 100))
_buyers = st.sampled_from(("acme", "bolt"))
_unit = st.tuples(_buyers, st.sampled_from(("connected", "failed")), _percents, st.integers(0, 5))


def on_store(work: Callable[[Books], Awaitable[T]]) -> T:
    """On a store of its own: hypothesis comes again and again, and each time finds it empty."""

    async def run() -> T:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "baton.db"
            path.write_bytes(await asyncio.to_thread(_empty_store))  # its tables take longer to make than all the rest
            engine = await open_store(f"sqlite:///{path}")
            books = Books(engine)
            try:
                return await work(books)
            finally:
                await books.close()
                await engine.dispose()

    return asyncio.run(run())


@cache
def _empty_store() -> bytes:
    async def run(path: Path) -> None:
        await (await open_store(f"sqlite:///{path}")).dispose()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "baton.db"
        asyncio.run(run(path))
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()


def made_of(units: Sequence[tuple[str, str, int, int]]) -> list[Posting]:
    return [
        unit_posting(f"t-{number}", buyer, kind, percent, FIRST + week * WEEK_US + number)
        for number, (buyer, kind, percent, week) in enumerate(units)
    ]


async def append(books: Books, made: Sequence[Posting]) -> int:
    return len(await books.write(lambda connection: ledger.append(connection, made)))


async def unit_balances(books: Books) -> dict[tuple[str, str], int]:
    """What each account holds in hundredths of a unit: summed in the database, not by the ledger's own hand."""

    def work(connection: Connection) -> dict[tuple[str, str], int]:
        held: dict[tuple[str, str], int] = {}
        for side, sign in ((postings.c.debit, 1), (postings.c.credit, -1)):
            query = select(postings.c.buyer, side, func.sum(postings.c.amount)).where(postings.c.asset == UNIT)
            for buyer, account, amount in connection.execute(query.group_by(postings.c.buyer, side)):
                held[buyer, account] = held.get((buyer, account), 0) + sign * int(amount)
        return {name: amount for name, amount in held.items() if amount}

    return await books.read(work)


async def ends(books: Books) -> list[tuple[str, int, bytes]]:
    query = select(ledger_heads).order_by(ledger_heads.c.buyer)
    return [tuple(row) for row in await books.read(lambda connection: connection.execute(query).all())]


async def is_whole(books: Books) -> bool:
    from meter.settling.sql.verify_ledger import verify_ledger

    return (await verify_ledger(books.engine)).ok


# weeks


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=6),
    st.sampled_from((93, 88, 77, 1)),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
@example([(0, 1, 0)] * 6, 93, [True] * 6)
def test_through_the_store_any_split_into_weeks_bills_the_floor_of_the_exact_share(
    weeks: list[tuple[int, int, int]], percent: int, timely: list[bool]
) -> None:
    """Weeks that follow each other or not, run week by week or caught up with: the sum billed is the floor."""

    async def work(books: Books) -> None:
        await books.agree("acme")
        week = connected = failed = 0
        for (gap, some, wrong), is_timely in zip(weeks, timely, strict=False):
            week += gap
            connected, failed = connected + some, failed + wrong
            await books.deliver("acme", FIRST + week * WEEK_US, some, wrong, percent)
            week += 1
            if is_timely:
                assert (await books.cycle.run_once(FIRST + week * WEEK_US)).trouble == []
        assert (await books.cycle.run_once(FIRST + week * WEEK_US)).trouble == []
        held = await unit_balances(books)
        assert held.get(("acme", "billed"), 0) == 100 * (connected * percent // 100 + failed)
        assert held.get(("acme", "unbilled_connected"), 0) == connected * percent % 100
        assert held.get(("acme", "unbilled_failed"), 0) == 0
        overage = await books.documents("acme", kind="overage")
        assert sum(one.total_minor for one in overage) == 4_500 * (connected * percent // 100 + failed)
        assert await is_whole(books)

    on_store(work)


# appending


@settings(max_examples=25)
@given(
    st.lists(_unit, min_size=1, max_size=20),
    st.lists(st.integers(0, 19), max_size=10),
    st.lists(st.integers(0, 19), max_size=5),
    st.randoms(use_true_random=False),
    st.integers(1, 7),
)
def test_in_any_order_pieces_and_repeats_the_same_balances_and_never_a_second_charge(
    units: list[tuple[str, str, int, int]], repeated: list[int], taken: list[int], random: object, piece: int
) -> None:
    made = made_of(units)
    back = [
        reversal(made[one], f"{made[one].key}:reversal", "wrong", "clerk", 0) for one in set(taken) if one < len(made)
    ]
    again = [made[one] for one in repeated if one < len(made)]
    mixed = [*made, *back, *again]
    random.shuffle(mixed)  # type: ignore[attr-defined]

    async def in_order(books: Books) -> dict[tuple[str, str], int]:
        assert await append(books, [*made, *back]) == len(made) + len(back)
        return await unit_balances(books)

    async def in_pieces(books: Books) -> dict[tuple[str, str], int]:
        fresh = [await append(books, mixed[start : start + piece]) for start in range(0, len(mixed), piece)]
        assert sum(fresh) == len(made) + len(back)
        assert await is_whole(books)
        return await unit_balances(books)

    assert on_store(in_order) == on_store(in_pieces)


@settings(max_examples=25)
@given(
    st.lists(_unit, min_size=1, max_size=8),
    st.sampled_from(("amount", "buyer", "unit", "percent", "dialout_utc_us", "reason", "terms_version")),
)
def test_the_same_key_with_other_content_raises_and_changes_nothing(
    units: list[tuple[str, str, int, int]], what: str
) -> None:
    made = made_of(units)
    other = {"amount": made[-1].amount + 1, "buyer": "cyan", "unit": "other", "percent": 99, "dialout_utc_us": 1}
    wrong = replace(made[-1], **{what: {**other, "reason": "x", "terms_version": 9}[what]})
    new = replace(made[-1], key="t-new:unit", transfer="t-new")

    async def work(books: Books) -> None:
        await append(books, made)
        before = (await books.postings(), await ends(books))
        with pytest.raises(ledger.LedgerError, match=f"{made[-1].key}: was made before"):
            await append(books, [new, wrong])  # what came with it is not there either
        assert (await books.postings(), await ends(books)) == before
        with pytest.raises(ledger.LedgerError, match="was made before"):
            await append(books, [new, replace(new, amount=new.amount + 1)])
        assert (await books.postings(), await ends(books)) == before

    on_store(work)


@settings(max_examples=15)
@given(st.lists(_unit, min_size=1, max_size=12), st.integers(0, 6))
def test_a_replay_and_a_restart_never_change_a_posting(units: list[tuple[str, str, int, int]], weeks: int) -> None:
    made = made_of(units)

    async def work(books: Books) -> None:
        await books.agree("acme", "bolt")
        await append(books, made)
        now = FIRST + weeks * WEEK_US
        await books.cycle.run_once(now)
        before = (await books.postings(), await ends(books), await books.documents())
        later = [replace(one, posted_utc_us=one.posted_utc_us + 1, by="again") for one in made]
        assert await append(books, later) == 0  # said again, later and by another: the same
        restarted = Books(books.engine)
        assert (await restarted.cycle.run_once(now)).done == []
        await restarted.close()
        assert (await books.postings(), await ends(books), await books.documents()) == before
        assert await is_whole(books)

    on_store(work)


def test_a_posting_in_money_and_its_reversal_leave_every_account_as_it_was() -> None:
    given_back = Posting("credit:t-1", "acme", Rule.CREDIT, Account.ALLOWANCES, Account.CREDITS, "USD", 4_185)

    async def work(books: Books) -> dict[str, int]:
        await append(books, [given_back])
        await append(books, [reversal(given_back, "credit:t-1:reversal", "wrong", "clerk", 1)])
        return await books.balances("acme")

    assert on_store(work) == {}


# minutes


@given(
    st.sampled_from((1_000, 6_000, 30_000, 60_000)),
    st.integers(0, 180_000),
    st.lists(st.integers(1, 600_000), min_size=1, max_size=12),
    st.integers(0, 500),
)
@example(60_000, 0, [60_000, 60_000, 1], 118)
@example(60_000, 0, [59_999, 2], 118)
def test_talk_cut_into_pieces_never_costs_less_and_time_and_money_are_those_of_its_increments(
    increment: int, minimum: int, pieces: list[int], price: int
) -> None:
    terms = replace(MINUTES, minute_increment_ms=increment, minute_minimum_ms=minimum, minute_price_minor=price)
    parts, whole = [minute_charge(piece, terms) for piece in pieces], minute_charge(sum(pieces), terms)
    assert sum(one.talk_ms for one in parts) == whole.talk_ms
    assert sum(one.charged_ms for one in parts) >= whole.charged_ms >= whole.talk_ms
    assert sum(one.amount_minor for one in parts) >= whole.amount_minor
    for one in (*parts, whole):
        assert one.charged_ms == one.increments * increment
        assert one.amount_minor == one.increments * price
    at_boundaries = all(piece % increment == 0 for piece in pieces[:-1]) and min(pieces) >= minimum
    if at_boundaries:
        assert sum(one.charged_ms for one in parts) == whole.charged_ms
        assert sum(one.amount_minor for one in parts) == whole.amount_minor
    spare = sum(one.charged_ms for one in parts) - whole.charged_ms
    assert spare < len(parts) * (increment + minimum)  # each piece at most rounds up, or up to the minimum
