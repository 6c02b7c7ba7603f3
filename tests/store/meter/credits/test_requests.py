"""Credit requests over a real store: what they credit, the line, re-reviews, two at once, and the next invoice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing.arithmetic.units import half_even
from meter.book.sql.book import UnknownBuyerError
from meter.credits.letter import CreditComposer
from meter.credits.rules import CreditError, CreditRefusal, State
from meter.credits.sql.calls import billed_call
from meter.credits.sql.reading import CreditFilter, ages, find_all, find_decided, next_open
from meter.credits.sql.requests import Decision
from meter.credits.sql.requests import decide as decide_
from meter.ledger.accounts import Account, Rule, reversal
from meter.ledger.sql import ledger
from meter.outbox.delivery import NeverDeliverableError, NobodyError
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from tests.store.credit_tools import again, ask, decide, happen, mails
from tests.store.money_tools import NEW_YORK, WESTLAKE, Books, at

WEEK = "2026-06-08"
CALLED = "2026-06-10 11:00"  # the window ends with 14 June


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    yield made
    await made.close()


async def _refused(refusal: CreditRefusal, work: object) -> str:
    with pytest.raises(CreditError) as caught:
        await work  # type: ignore[misc]
    assert caught.value.refusal is refusal
    return str(caught.value)


async def _called(
    books: Books, connected: int = 0, failed: int = 0, buyer: str = "acme", when: str = CALLED
) -> list[str]:
    await books.agree(buyer)
    return await books.deliver(buyer, when, connected, failed)


# --- what a credit comes to ------------------------------------------------------------------------------------------


async def test_a_connected_unit_of_4500_cents_at_93_percent_gives_back_4185(books: Books) -> None:
    [call] = await _called(books, connected=1)
    made = await ask(books, call, "2026-06-11 09:00")
    assert (made.state, made.place, made.level, made.amount_minor) == (State.OPEN, 1, 1, None)
    done = await decide(books, made.id, "2026-06-12 09:00")
    assert (done.state, done.amount_minor, done.currency, done.place) == (State.APPROVED, 4_185, "USD", 0)
    assert (done.decided_by, done.explanation, done.decided_utc_us) == (
        "Ann",
        "as the log says",
        at("2026-06-12 09:00"),
    )
    assert await books.balances("acme") == {"allowances": 4_185, "credits": -4_185}
    [posting] = [one for one in await books.postings() if one["rule"] == "credit"]
    assert (posting["key"], posting["transfer"], posting["period"]) == (f"credit:{call}", call, WEEK)
    assert (posting["dialout_utc_us"], posting["units"], posting["by"]) == (None, 0, "Ann")
    assert done.posting == posting["key"]


async def test_a_failed_unit_gives_back_its_price(books: Books) -> None:
    [call] = await _called(books, failed=1)
    made = await ask(books, call, "2026-06-11 09:00")
    assert (await decide(books, made.id, "2026-06-12 09:00")).amount_minor == 4_500


@pytest.mark.parametrize(
    ("price", "percent", "amount"),
    [(50, 93, 46), (150, 93, 140), (50, 91, 46), (50, 89, 44), (250, 93, 232), (1, 50, 0), (3, 50, 2), (0, 93, 0)],
)
async def test_half_a_cent_goes_to_the_even_one(books: Books, price: int, percent: int, amount: int) -> None:
    await books.agree("acme", terms=replace(WESTLAKE, unit_price_minor=price, connected_percent=percent))
    [call] = await books.deliver("acme", CALLED, 1, percent=percent)
    made = await ask(books, call, "2026-06-11 09:00")
    assert (await decide(books, made.id, "2026-06-12 09:00")).amount_minor == amount


async def test_the_price_is_that_of_the_orders_invoice_whatever_the_terms_became(books: Books) -> None:
    dearer = replace(WESTLAKE, version=2, effective_from=WEEK, unit_price_minor=9_000)
    await books.agree("acme")
    await books.order("acme", WEEK, 10)
    await books.run("2026-06-02 12:00")
    await books.agree("acme", terms=(WESTLAKE, dearer))
    bought, next_week = await books.deliver("acme", CALLED, 0, 1) + await books.deliver(
        "acme", "2026-06-16 09:00", 0, 1
    )
    prices = [
        await books.read(lambda connection, one=one: billed_call(connection, one).price_minor)
        for one in (bought, next_week)
    ]
    assert prices == [4_500, 9_000]


async def test_without_an_order_the_price_is_that_of_the_weeks_first_day(books: Books) -> None:
    dearer = replace(WESTLAKE, version=2, effective_from="2026-06-09", unit_price_minor=9_000)
    await books.agree("acme", terms=(WESTLAKE, dearer))
    [call] = await books.deliver("acme", CALLED, 0, 1)
    assert (await books.read(lambda connection: billed_call(connection, call))).price_minor == 4_500


async def test_the_window_is_that_of_the_terms_in_force_at_dial_out(books: Books) -> None:
    longer = replace(WESTLAKE, version=2, effective_from="2026-06-11", credit_days=10)
    await books.agree("acme", terms=(WESTLAKE, longer))
    [call] = await books.deliver("acme", CALLED, 1)
    other = replace(WESTLAKE, name="other", credit_days=30)
    await books.agree("acme", terms=other)
    assert (
        await books.read(lambda connection: billed_call(connection, call))
    ).window.last_day.isoformat() == "2026-06-14"


async def test_the_invoice_of_the_next_tuesday_uses_the_credit(books: Books) -> None:
    await books.agree("acme")
    await books.order("acme", WEEK, 2)
    await books.order("acme", "2026-06-22", 2)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 9_000, "2026-06-03 10:00")
    calls = await books.deliver("acme", CALLED, 0, 2)
    made = await ask(books, calls[0], "2026-06-11 09:00")
    assert len(await books.documents("acme")) == 1
    await decide(books, made.id, "2026-06-12 09:00")
    assert len(await books.documents("acme")) == 1, "a decision issues no document"
    await books.run("2026-06-16 12:00")
    [invoice] = await books.documents("acme", kind="order", period="2026-06-22")
    assert (invoice.total_minor, invoice.applied_minor, invoice.open_minor) == (9_000, 4_500, 4_500)
    figures = (await books.body((await books.documents("acme", kind="week"))[0].number))["figures"]
    assert (figures["counted"], figures["shortfall_units"]) == (2, 0), "the unit was delivered and stays counted"
    assert (await books.balances("acme")).get("credits") is None


# --- who may ask for what --------------------------------------------------------------------------------------------


async def test_one_may_ask_until_the_last_instant_of_the_fourth_day(books: Books) -> None:
    first, second = await _called(books, connected=2)
    await ask(books, first, "2026-06-14 23:59:59.999999")
    said = await _refused(CreditRefusal.TOO_LATE, ask(books, second, "2026-06-15 00:00"))
    assert "2026-06-14" in said


async def test_only_a_call_that_this_buyer_was_billed_for_can_be_asked_for(books: Books) -> None:
    [call] = await _called(books, connected=1)
    await books.agree("bolt")
    for transfer, buyer in ((call, "bolt"), ("t-none", "acme"), ("", "acme")):
        await _refused(CreditRefusal.NOT_BILLED, ask(books, transfer, "2026-06-11 09:00", buyer))
    assert (await ask(books, call, "2026-06-11 09:00", "")).buyer == "acme", "asked on behalf of whoever was billed"


async def test_a_unit_that_was_taken_back_cannot_be_asked_for_nor_credited(books: Books) -> None:
    first, second = await _called(books, connected=2)
    made = await ask(books, first, "2026-06-11 09:00")
    for call in (first, second):
        await books.write(lambda connection, call=call: _take_back(connection, f"{call}:unit"))
    await _refused(CreditRefusal.NOT_BILLED, ask(books, second, "2026-06-11 09:00"))
    await _refused(CreditRefusal.NOT_BILLED, decide(books, made.id, "2026-06-12 09:00"))
    assert (await decide(books, made.id, "2026-06-12 09:00", approve=False)).state is State.DECLINED


def _take_back(connection: object, key: str) -> None:
    [unit] = ledger.read(connection, [key])  # type: ignore[arg-type]
    ledger.append(connection, [reversal(unit, f"{key}:reversal", "test", "test", 1)])  # type: ignore[arg-type]


async def test_a_unit_of_a_buyer_that_the_book_does_not_know_is_an_error(books: Books) -> None:
    await books.deliver("ghost", CALLED, 1)  # of a buyer that the book does not know
    with pytest.raises(UnknownBuyerError):
        await ask(books, "t-1", "2026-06-11 09:00", "ghost")


async def test_a_valid_call_gets_its_explanation_and_no_request(books: Books) -> None:
    [call] = await _called(books, connected=1)
    said = await _refused(CreditRefusal.VALID_CALL, ask(books, call, "2026-06-11 09:00", reason="price-shopper"))
    assert "the conversation, not the sale" in said
    assert await books.read(lambda connection: find_all(connection, CreditFilter())) == []


async def test_the_reasons_are_those_of_the_buyers_category(books: Books) -> None:
    await books.agree("acme", category="legal")
    [call] = await books.deliver("acme", CALLED, 1)
    await _refused(CreditRefusal.UNKNOWN_REASON, ask(books, call, "2026-06-11 09:00", reason="no-debt"))
    assert (await ask(books, call, "2026-06-11 09:00", reason="has-lawyer")).reason == "has-lawyer"


async def test_a_call_is_asked_for_once(books: Books) -> None:
    first, second = await _called(books, connected=2)
    one = await ask(books, first, "2026-06-11 09:00")
    assert f"request {one.id}" in await _refused(CreditRefusal.ALREADY_OPEN, ask(books, first, "2026-06-11 09:01"))
    two = await ask(books, second, "2026-06-11 09:02")
    await decide(books, one.id, "2026-06-12 09:00")
    await decide(books, two.id, "2026-06-12 09:00", approve=False)
    await _refused(CreditRefusal.ALREADY_CREDITED, ask(books, first, "2026-06-12 10:00"))
    await _refused(CreditRefusal.DECLINED, ask(books, second, "2026-06-12 10:00"))


async def test_a_call_with_a_goodwill_credit_is_not_credited_again(books: Books) -> None:
    from meter.ledger.accounts import Posting

    [call] = await _called(books, failed=1)
    goodwill = Posting(
        "goodwill:1", "acme", Rule.CREDIT, Account.ALLOWANCES, Account.CREDITS, "USD", 100, transfer=call
    )
    await books.write(lambda connection: ledger.append(connection, [goodwill]))
    await _refused(CreditRefusal.ALREADY_CREDITED, ask(books, call, "2026-06-11 09:00"))


# --- the line --------------------------------------------------------------------------------------------------------


async def test_nothing_expedites_the_oldest_open_request_is_decided_first(books: Books) -> None:
    calls = await _called(books, failed=2)
    [theirs] = await _called(books, failed=1, buyer="bolt")
    one = await ask(books, calls[0], "2026-06-11 09:00")
    two = await ask(books, theirs, "2026-06-11 09:00", "bolt")
    three = await ask(books, calls[1], "2026-06-11 09:00")
    assert [one.place, two.place, three.place] == [1, 2, 3]
    said = await _refused(CreditRefusal.NOT_FIRST, decide(books, three.id, "2026-06-12 09:00"))
    assert (f"request: {one.id} is the oldest" in said, "number 3 in line" in said) == (True, True)
    await _refused(CreditRefusal.NOT_FIRST, decide(books, two.id, "2026-06-12 09:00"))
    assert await books.balances("acme") == {}
    await decide(books, one.id, "2026-06-12 09:00")
    following = await books.read(next_open)
    assert (following and (following.id, following.place)) == (two.id, 1)
    waiting = await books.read(lambda connection: find_all(connection, CreditFilter(state="open")))
    assert [(each.id, each.place) for each in waiting] == [(two.id, 1), (three.id, 2)]
    mine = await books.read(lambda connection: find_all(connection, CreditFilter(buyer="acme")))
    assert [each.id for each in mine] == [three.id, one.id]


async def test_a_decision_says_why_and_by_whom_and_is_made_once(books: Books) -> None:
    [call] = await _called(books, failed=1)
    made = await ask(books, call, "2026-06-11 09:00")
    await _refused(CreditRefusal.BAD_EXPLANATION, decide(books, made.id, "2026-06-12 09:00", why=" \n"))
    await _refused(CreditRefusal.BAD_REVIEWER, decide(books, made.id, "2026-06-12 09:00", reviewer=""))
    await _refused(CreditRefusal.UNKNOWN_REQUEST, decide(books, made.id + 1, "2026-06-12 09:00"))
    assert await mails(books) == []
    await decide(books, made.id, "2026-06-12 09:00")
    said = await _refused(CreditRefusal.NOT_OPEN, decide(books, made.id, "2026-06-12 09:00", approve=False))
    assert said == f"request: {made.id} was approved before, by Ann"
    assert len(await mails(books)) == 1


async def test_the_ages_are_those_of_the_line_and_of_what_was_decided(books: Books) -> None:
    calls = await _called(books, failed=4)
    asked = [await ask(books, call, f"2026-06-11 0{hour}:00") for hour, call in enumerate(calls)]
    await decide(books, asked[0].id, "2026-06-12 00:00")  # 24 h
    await decide(books, asked[1].id, "2026-06-12 02:00")  # 25 h
    await decide(books, asked[2].id, "2026-06-14 02:00")  # 72 h
    now = at("2026-06-14 03:00")
    found = await books.read(lambda connection: ages(connection, now, at("2026-06-01 00:00")))
    assert (found.open, found.oldest_utc_us, found.open_late) == (1, at("2026-06-11 03:00"), 1)
    assert (found.decided, found.decided_in_24h, found.decided_in_48h) == (3, 1, 2)
    assert found.slowest_us == 72 * 3_600_000_000
    assert (await books.read(lambda connection: ages(connection, now, now))).decided == 0


# --- re-reviews ------------------------------------------------------------------------------------------------------


async def test_a_declined_request_may_be_approved_by_another_reviewer_once(books: Books) -> None:
    [call] = await _called(books, connected=1)
    made = await ask(books, call, "2026-06-11 09:00")
    await _refused(CreditRefusal.NOT_DECIDED, again(books, made.id, "2026-06-11 10:00"))
    await decide(books, made.id, "2026-06-12 09:00", approve=False)
    second = await again(books, made.id, "2026-07-12 09:00")
    assert (second.level, second.first, second.reason, second.place) == (2, made.id, "duplicate", 1)
    await _refused(CreditRefusal.SAME_REVIEWER, decide(books, second.id, "2026-07-13 09:00", reviewer=" ANN"))
    done = await decide(books, second.id, "2026-07-13 09:00", reviewer="Bo")
    assert (done.amount_minor, done.posting) == (4_185, f"credit:{call}")
    for request in (made.id, second.id):
        await _refused(CreditRefusal.REVIEWED_TWICE, again(books, request, "2026-07-14 09:00"))
    await _refused(CreditRefusal.ALREADY_CREDITED, ask(books, call, "2026-06-12 09:00"))


async def test_an_approved_request_may_be_taken_back_and_the_next_invoice_asks_for_it(books: Books) -> None:
    [call] = await _called(books, connected=1)
    made = await ask(books, call, "2026-06-11 09:00")
    await decide(books, made.id, "2026-06-12 09:00")
    second = await again(books, made.id, "2026-06-13 09:00")
    done = await decide(books, second.id, "2026-06-13 10:00", approve=False, reviewer="Bo", why="it is no duplicate")
    assert (done.amount_minor, done.currency, done.posting) == (-4_185, "USD", f"credit:{call}:reversal")
    assert await books.balances("acme") == {}
    [back] = [one for one in await books.postings() if one["rule"] == "reversal"]
    assert (back["reverses"], back["reason"], back["by"]) == (f"credit:{call}", "it is no duplicate", "Bo")
    await _refused(CreditRefusal.DECLINED, ask(books, call, "2026-06-12 09:00"))


@pytest.mark.parametrize("approve", [True, False])
async def test_a_re_review_that_agrees_changes_no_balance(books: Books, approve: bool) -> None:
    [call] = await _called(books, connected=1)
    made = await ask(books, call, "2026-06-11 09:00")
    await decide(books, made.id, "2026-06-12 09:00", approve=approve)
    before = await books.balances("acme")
    second = await again(books, made.id, "2026-06-13 09:00")
    done = await decide(books, second.id, "2026-06-13 10:00", approve=approve, reviewer="Bo")
    assert await books.balances("acme") == before
    assert done.amount_minor == (4_185 if approve else 0)


async def test_a_re_review_waits_in_the_same_line(books: Books) -> None:
    first, second = await _called(books, failed=2)
    one = await ask(books, first, "2026-06-11 09:00")
    await decide(books, one.id, "2026-06-12 09:00", approve=False)
    two = await ask(books, second, "2026-06-12 10:00")
    three = await again(books, one.id, "2026-06-12 11:00")
    await _refused(CreditRefusal.NOT_FIRST, decide(books, three.id, "2026-06-12 12:00", reviewer="Bo"))
    await decide(books, two.id, "2026-06-12 12:00")
    await decide(books, three.id, "2026-06-12 12:00", reviewer="Bo")


async def test_a_decided_request_is_found_by_transfer_call_id_and_caller_id(books: Books) -> None:
    first, second = await _called(books, failed=2)
    await happen(books, first, "call-1", "+12125550101")
    await happen(books, second, "call-2", "+12125550101")
    one = await ask(books, first, "2026-06-11 09:00")
    assert (one.call_id, one.phone) == ("call-1", "+12125550101")
    await decide(books, one.id, "2026-06-12 09:00", approve=False)
    for wanted in (CreditFilter(transfer=first), CreditFilter(call_id="call-1"), CreditFilter(phone="+12125550101")):
        found = await books.read(lambda connection, wanted=wanted: find_decided(connection, wanted))
        assert found.id == one.id
    two = await ask(books, second, "2026-06-12 10:00")
    by_caller = CreditFilter(phone="+12125550101")
    assert (await books.read(lambda connection: find_decided(connection, by_caller))).id == one.id, "two is open"
    await decide(books, two.id, "2026-06-12 11:00", approve=False)
    with pytest.raises(CreditError, match=f"{two.id} .*{one.id} ") as caught:
        await books.read(lambda connection: find_decided(connection, by_caller))
    assert caught.value.refusal is CreditRefusal.AMBIGUOUS
    await again(books, two.id, "2026-06-12 12:00")
    assert (await books.read(lambda connection: find_decided(connection, by_caller))).id == one.id
    with pytest.raises(CreditError, match="there is no request"):
        await books.read(lambda connection: find_decided(connection, CreditFilter(call_id="call-3")))


# --- two at once -----------------------------------------------------------------------------------------------------


async def test_two_who_ask_for_one_call_at_once_make_one_request(books: Books, engine: AsyncEngine) -> None:
    [call] = await _called(books, failed=1)
    other = Books(engine)
    results = await asyncio.gather(
        *(ask(each, call, "2026-06-11 09:00") for each in (books, other) * 4), return_exceptions=True
    )
    await other.close()
    refusals = [one.refusal for one in results if isinstance(one, CreditError)]
    assert refusals == [CreditRefusal.ALREADY_OPEN] * 7
    assert len(await books.read(lambda connection: find_all(connection, CreditFilter()))) == 1


async def test_two_who_decide_one_request_at_once_credit_it_once(books: Books, engine: AsyncEngine) -> None:
    calls = await _called(books, failed=2)
    first, second = [await ask(books, call, "2026-06-11 09:00") for call in calls]
    clerks = [Clerk(engine) for _ in range(2)]
    decision = Decision(approve=True, explanation="yes", reviewer="Ann")
    results = await asyncio.gather(
        *(
            clerk.write(lambda connection: decide_(connection, first.id, decision, at("2026-06-12 09:00")))
            for clerk in clerks * 3
        ),
        return_exceptions=True,
    )
    for clerk in clerks:
        await clerk.close()
    assert [one.refusal for one in results if isinstance(one, CreditError)] == [CreditRefusal.NOT_OPEN] * 5
    assert await books.balances("acme") == {"allowances": 4_500, "credits": -4_500}
    assert [one["key"] for one in await mails(books)] == [f"credit:{first.id}"]
    assert (following := await books.read(next_open)) is not None
    assert following.id == second.id


async def test_the_store_itself_refuses_a_second_request_of_a_level(books: Books) -> None:
    from sqlalchemy import insert

    from meter.store.money_schema import credit_requests

    [call] = await _called(books, failed=1)
    made = await ask(books, call, "2026-06-11 09:00")
    await decide(books, made.id, "2026-06-12 09:00")
    row = {"transfer": call, "buyer": "acme", "level": 1, "reason": "x", "words": "x", "asked_utc_us": 1}
    rest = {"asked_by": "x", "origin": "x", "state": "open"}
    with pytest.raises(IntegrityError):
        await books.write(lambda connection: connection.execute(insert(credit_requests).values(**row, **rest)).rowcount)


# --- the e-mail ------------------------------------------------------------------------------------------------------


async def test_the_decision_is_mailed_with_its_explanation(books: Books) -> None:
    [call] = await _called(books, connected=1)
    await happen(books, call, "call-9", "+12125550101")
    made = await ask(books, call, "2026-06-11 09:00", words="she is <b>ours</b>\nsince May")
    await decide(books, made.id, "2026-06-12 09:00", why="She was sent on 4 May.\nSee <log>.")
    [mail] = await mails(books)
    assert (mail["channel"], mail["message_id"]) == ("mail", f"credit-{made.id}.decision")
    assert mail["payload"] == {"kind": "credit", "id": made.id, "to": ["bills@acme.example"]}
    letter = await CreditComposer().compose(mail["payload"], books.clerk)
    assert (letter.to, letter.message_id) == (("bills@acme.example",), mail["message_id"])
    assert letter.date_utc_us == at("2026-06-12 09:00")
    assert letter.subject.strip() == "Credit approved: your call of Jun 10, 2026, 11:00 AM EDT"
    for body in (letter.text, letter.html):
        assert "Approved: $41.85." in body
        assert "She was sent on 4 May." in body
        assert (call in body, "call-9" in body, "We had the same prospect from you before" in body) == (
            True,
            True,
            True,
        )
    assert "she is <b>ours</b>" in letter.text
    assert ("<b>ours</b>" in letter.html, "See &lt;log&gt;." in letter.html) == (False, True)


async def test_a_re_reviews_mail_says_that_it_is_final_and_what_is_taken_back(books: Books) -> None:
    [call] = await _called(books, connected=1)
    made = await ask(books, call, "2026-06-11 09:00")
    await decide(books, made.id, "2026-06-12 09:00")
    second = await again(books, made.id, "2026-06-13 09:00")
    await decide(books, second.id, "2026-06-13 10:00", approve=False, reviewer="Bo")
    letter = await CreditComposer().compose((await mails(books))[1]["payload"], books.clerk)
    assert letter.subject.startswith("Credit declined on re-review: ")
    assert "The credit of $41.85 that was given before is taken back." in letter.text
    assert f"Another reviewer has looked at your credit request {made.id} again." in letter.text


async def test_without_addresses_a_mail_waits_and_what_was_not_decided_is_never_one(books: Books) -> None:
    await books.agree("acme", billing_emails=())
    [call] = await books.deliver("acme", CALLED, 1)
    made = await ask(books, call, "2026-06-11 09:00")
    composer = CreditComposer()
    for order in ({"id": made.id}, {"id": 99}, {"id": "1"}, {}):
        with pytest.raises(NeverDeliverableError):
            await composer.compose(order, books.clerk)
    await decide(books, made.id, "2026-06-12 09:00")
    with pytest.raises(NobodyError, match="acme has no billing_emails"):
        await composer.compose({"id": made.id}, books.clerk)
    assert (await composer.compose({"id": made.id, "to": ["x@y.example"]}, books.clerk)).to == ("x@y.example",)


# --- at random -------------------------------------------------------------------------------------------------------


class _Run:
    """A line driven by chance, beside a plain account of what it should come to."""

    def __init__(self, books: Books, calls: list[str]) -> None:
        self.books, self.calls = books, calls
        self.line: list[tuple[int, str, int]] = []  # id, call, level
        self.states: dict[str, list[bool]] = {}
        self.ids: dict[str, int] = {}  # of each call's request
        self.minute = 0

    def when(self) -> str:
        self.minute += 1
        return f"2026-06-11 {self.minute // 60:02d}:{self.minute % 60:02d}"

    async def step(self, act: int, call: str, approve: bool) -> None:
        done = self.states.get(call, [])
        waits = any(call == one for _, one, _ in self.line)
        if act == 0:
            may = not done and not waits
            made = await self._try(ask(self.books, call, self.when()), may=may)
            self.line += [(made, call, 1)] if may else []
        elif act == 1 and call in self.ids:
            may = len(done) == 1 and not waits
            made = await self._try(again(self.books, self.ids[call], self.when()), may=may)
            self.line += [(made, call, 2)] if may else []
        elif self.line:
            place = 0 if approve else len(self.line) - 1
            request, decided, level = self.line[place]
            one = decide(self.books, request, self.when(), approve=approve, reviewer=f"level {level}")
            await self._try(one, may=place == 0)
            if place == 0:
                self.states.setdefault(decided, []).append(approve)
                del self.line[0]

    async def _try(self, work: object, *, may: bool) -> int:
        try:
            made = await work  # type: ignore[misc]
        except CreditError:
            assert not may
            return 0
        assert may
        if made.level == 1:
            self.ids[made.transfer] = made.id
        return int(made.id)

    def credited(self) -> int:
        """In units: by the last decision on each call."""
        return sum(done[-1] for done in self.states.values())


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=30), st.integers(0, 10**6))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_the_credits_are_those_of_the_last_decisions(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[int, int, bool]], price: int
) -> None:
    asyncio.run(_play(tmp_path_factory.mktemp("line"), acts, price))


async def _play(folder: Path, acts: list[tuple[int, int, bool]], price: int) -> None:
    engine = await open_store(f"sqlite:///{folder / 'baton.db'}")
    books = Books(engine)
    await books.agree("acme", terms=replace(WESTLAKE, unit_price_minor=price))
    run = _Run(books, await books.deliver("acme", at(CALLED, NEW_YORK), 4))
    for act, call, approve in acts:
        await run.step(act, run.calls[call], approve)
    amount = run.credited() * half_even(price * 93, 100)
    expected = {"allowances": amount, "credits": -amount} if amount else {}
    assert await books.balances("acme") == expected
    waiting = await books.read(lambda connection: find_all(connection, CreditFilter(state="open")))
    assert [one.id for one in waiting] == [request for request, _, _ in run.line]
    assert len(await mails(books)) == sum(map(len, run.states.values()))
    await books.close()
    await engine.dispose()
