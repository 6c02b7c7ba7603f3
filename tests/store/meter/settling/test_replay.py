"""Replay over a real store: facts settled by the follower, weeks by the cycle, and both reckoned again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import Terms
from facts.fact import Kind, Party
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import Prepaid, WeekOrder, WeekResult, week_result
from meter.billing.arithmetic.drafts import week_figures
from meter.billing.arithmetic.units import WeekUnits
from meter.billing.sql import weeks
from meter.settling.follower import Follower, SettleOptions
from meter.settling.sql.replaying import replay
from tests.facts_builder import UTC_0, Story
from tests.store.journal_tools import open_journal, write
from tests.store.money_tools import SENT, WESTLAKE, Books, at

MONDAY = "2026-06-08"
SPAN = (at("2026-06-08 00:00"), at("2026-06-15 00:00"))
NEW = {"overage_counted", "shortfall_counted", "awaiting_counted", "paid_units", "make_up_units", "prepaid_used"}
NEW |= {"prepaid_units", "prepaid_minor"}  # figures of a week that releases before decision 076 did not write
CLAUSES: dict[str, Any] = {
    "name": "contract", "version": 1, "rating": "unit", "connected_percent": 93, "failed_percent": 100,
    "talk_connected_ms": 15_000, "unreachable": "free", "caller_abandon": "free", "time_zone": "America/New_York",
    "currency": "USD", "unit_price_minor": 4_500,
}  # fmt: skip


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    yield made
    await made.close()


async def call(books: Books, *, connected: int, failed: int, declined_early: int = 0) -> None:
    """Transfers of the Wednesday, as facts, settled by the follower."""
    shift = (at("2026-06-10 11:00") - UTC_0) / 1_000_000
    stories: list[Story] = []

    def story(count: int, end: Any) -> None:
        for _ in range(count):
            first = stories[-1].next_seq if stories else 1
            made = Story(f"t-{len(stories)}", first_seq=first).add(Kind.TRANSFER_STARTED, shift, **started())
            stories.append(end(made.dial(1, at=shift).ring(1, shift + 1)))

    story(
        connected, lambda one: one.answer(1, shift + 4).bridge(1, shift + 4).hang_up(shift + 44, Party.CALLER).close()
    )
    story(failed, lambda one: declined(one, shift + 20))
    story(declined_early, lambda one: declined(one, shift + 5))
    journal = await open_journal(books.engine)
    for at_story in range(0, len(stories), 100):
        write(journal, *stories[at_story : at_story + 100])
    await journal.close()
    follower = Follower(books.engine, SettleOptions())
    assert await follower.catch_up() == len(stories)
    await follower.close()


def declined(story: Story, when: float) -> Story:
    from facts.fact import EndCause

    return story.decline(1, when).end(when, Party.BUYER, EndCause.LEGS_FAILED).close()


def started() -> dict[str, Any]:
    endpoint = {"leg": 1, "name": "pbx", "kind": "trunk", "transport": "tls", "srtp": "mandatory", "secure": True}
    return {
        "buyer": "acme", "call_id": "c", "sip_call_id": "s", "dialer": "d", "campaign": "solar", "phone": "",
        "lead": {}, "lead_emails": [], "endpoints": [endpoint], "buffer_ms": 15_000, "terms": CLAUSES,
    }  # fmt: skip


async def billed(books: Books) -> None:
    """200 bought; 207 connected, 15 failed and 9 declined within the buffer: 7 over."""
    await books.agree("acme")
    await books.order("acme", MONDAY, 200)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 900_000, "2026-06-03 10:00")
    await call(books, connected=207, failed=15, declined_early=9)
    await books.run("2026-06-15 01:00")


async def test_the_same_journal_under_the_same_terms_gives_the_same_to_the_cent(books: Books) -> None:
    await billed(books)
    report = await replay(books.engine, *SPAN)
    assert report.is_same
    assert report.transfers == 231
    [week] = report.weeks
    assert week.was == week.now
    assert (week.now.connected, week.now.failed, week.now.billed) == (207, 15, 207)
    assert week.now.total_minor == 900_000 + 31_500


async def test_what_was_taken_back_of_a_settled_week_is_no_fault_of_the_ledger(books: Books) -> None:
    """It is the next week's, and takes nothing of the unit's own week with it."""
    from meter.ledger.sql import ledger

    await billed(books)
    for transfer in ("t-1", "t-220"):  # a connected and a failed one
        back = {"reason": "wrong lead", "by": "clerk", "now_utc_us": at("2026-06-16 09:00")}
        await books.write(
            lambda connection, key=f"{transfer}:unit", back=back: ledger.reverse_transfer(connection, key, **back)
        )
    await books.run("2026-06-22 02:00")
    report = await replay(books.engine, SPAN[0], at("2026-06-29 00:00"))
    assert [one.week for one in report.weeks] == [MONDAY, "2026-06-15"]
    assert report.is_same, report.wrong_weeks


@pytest.mark.parametrize("quantity", [190, 222, 230])  # over with its present, as many, short
async def test_a_week_that_a_release_before_settled_as_it_charged_then_is_right(
    books: Books, monkeypatch: pytest.MonkeyPatch, quantity: int
) -> None:
    """Before decision 076 an order that counts what was sent paid for all of that, and was charged for it."""

    def charged_as_sent(week: Week, terms: Terms, bought: WeekOrder, units: WeekUnits, kept: Prepaid) -> WeekResult:
        paid_for = replace(bought, paid_units=quantity, make_up=Prepaid(bought.order.make_up))
        charged = replace(units, billed_connected=units.sent_connected, billed_failed=units.sent_failed)
        return week_result(week, terms, paid_for, charged, kept)

    def figures(result: WeekResult, units: WeekUnits) -> dict[str, Any]:
        return {name: value for name, value in week_figures(result, units).items() if name not in NEW}

    await books.agree("acme", terms=SENT)
    await books.order("acme", MONDAY, quantity, 20)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 1_000_000, "2026-06-03 10:00")
    await call(books, connected=207, failed=15)
    with monkeypatch.context() as then:
        then.setattr(weeks, "week_result", charged_as_sent)
        then.setattr(weeks, "week_figures", figures)
        await books.run("2026-06-15 01:00")
    async with books.engine.begin() as connection:  # as migration 0008 leaves it
        await connection.execute(text("UPDATE orders SET paid_units = quantity, connected_percent = NULL"))
    report = await replay(books.engine, *SPAN)
    assert report.is_same, report.wrong_weeks


@pytest.mark.parametrize(
    ("terms", "difference"),
    [
        (replace(WESTLAKE, connected_percent=88), -31_500),  # floor(0.88 x 207) = 182, and 15: 3 short, not 7 over
        (replace(WESTLAKE, secure_buffer_ms=0), 9 * 4_500),  # the nine that were declined at 5 s are failed ones then
        (replace(WESTLAKE, talk_connected_ms=60_000), None),
        (replace(WESTLAKE, unit_price_minor=5_000), 207 * 500),
    ],
)
async def test_under_other_terms_it_tells_the_difference_in_money(
    books: Books, terms: Any, difference: int | None
) -> None:
    await billed(books)
    report = await replay(books.engine, *SPAN, versions={"contract": (terms,)})
    was, now = report.by_buyer()["acme"]
    assert was == 931_500
    if difference is None:  # the caller hung up after 40 s of talk: short calls, and free
        assert (report.weeks[0].now.connected, report.weeks[0].now.billed) == (0, 15)
        assert now == 15 * 4_500
    elif terms.connected_percent == 88:
        assert now == 197 * 4_500
    else:
        assert now - was == difference


async def test_a_unit_that_the_facts_do_not_come_to_is_found(books: Books) -> None:
    await billed(books)
    async with books.engine.begin() as connection:
        await connection.execute(text("DROP TRIGGER postings_no_update"))
        await connection.execute(text("UPDATE postings SET unit = 'failed', percent = 100 WHERE transfer = 't-3'"))
    report = await replay(books.engine, *SPAN)
    assert report.differing == ["t-3"]
    assert not report.is_same


async def test_a_week_that_was_billed_wrongly_is_found(books: Books) -> None:
    await billed(books)
    async with books.engine.begin() as connection:
        query = text("UPDATE billing_periods SET body = replace(body, :was, :now)")
        await connection.execute(query, {"was": '"sent_connected":207', "now": '"sent_connected":206'})
    report = await replay(books.engine, *SPAN)
    assert [one.week for one in report.wrong_weeks] == [MONDAY]
    assert report.differing == []
