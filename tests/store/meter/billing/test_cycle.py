"""The weekly cycle over a real store: the worked examples of domain, section 6, word for word, and what goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing.arithmetic.cycle import Remedy
from tests.store.money_tools import SENT, WESTLAKE, Books, at

WEEK = "2026-06-08"  # Tue 2 June 2026 invoice for the week 8 to 15 June


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    yield made
    await made.close()


async def sold(books: Books, quantity: int = 200, terms: object = WESTLAKE) -> None:
    """A buyer whose order for the week was invoiced and paid in time."""
    await books.agree("acme", terms=terms)  # type: ignore[arg-type]
    await books.order("acme", WEEK, quantity)
    await books.run("2026-06-02 12:00")
    [invoice] = await books.documents("acme")
    await books.pay("acme", invoice.total_minor, "2026-06-03 10:00")


async def delivered(books: Books, connected: int, failed: int) -> None:
    await books.deliver("acme", "2026-06-10 11:00", connected, failed)


async def test_tuesday_invoices_the_following_week_and_it_is_due_on_thursday_at_five(books: Books) -> None:
    await books.agree("acme")
    await books.order("acme", WEEK, 200)
    assert (await books.run("2026-06-02 11:59")).done == []
    report = await books.run("2026-06-02 12:00")
    [invoice] = await books.documents("acme")
    assert report.documents == [invoice.number] == ["INV-000001"]
    assert (invoice.kind, invoice.period, invoice.issued_on) == ("order", WEEK, "2026-06-02")
    assert (invoice.total_minor, invoice.open_minor) == (900_000, 900_000)
    assert invoice.due_utc_us == at("2026-06-04 17:00")
    assert await books.balances("acme") == {"receivable": 900_000, "prepaid": -900_000}


async def test_paid_200_and_207_billed_is_an_invoice_for_seven(books: Books) -> None:
    """207 connected: floor(0.93 x 207) = 192; 15 failed: 207 billed -> 7 over -> 31,500 cents; due Tuesday, 17:00."""
    await sold(books)
    await delivered(books, 207, 15)
    await books.run("2026-06-15 01:00")
    [overage] = await books.documents("acme", kind="overage")
    assert (overage.total_minor, overage.issued_on) == (31_500, "2026-06-15")
    assert overage.due_utc_us == at("2026-06-16 17:00")
    [line] = (await books.body(overage.number))["lines"]
    assert (line["units"], line["price_minor"], line["amount_minor"], line["opens"]) == (7, 4_500, 31_500, WEEK)


async def test_207_connected_and_8_failed_bill_200_neither_over_nor_short(books: Books) -> None:
    await sold(books)
    await delivered(books, 207, 8)
    await books.run("2026-06-16 12:00")
    assert await books.documents("acme", kind="overage") == []
    [statement] = await books.documents("acme", kind="week")
    figures = (await books.body(statement.number))["figures"]
    assert (figures["billed_connected"], figures["billed_failed"], figures["counted"]) == (192, 8, 200)
    assert (figures["overage_units"], figures["shortfall_units"]) == (0, 0)
    assert await books.balances("acme") == {"cash": 900_000, "revenue": -900_000}


@pytest.mark.parametrize(
    ("choice", "comes_to"),
    [
        (None, {"cash": 900_000, "revenue": -864_000, "credits": -36_000}),
        (Remedy.CREDIT, {"cash": 900_000, "revenue": -864_000, "credits": -36_000}),
        (Remedy.REFUND, {"cash": 900_000, "revenue": -864_000, "refunds_due": -36_000}),
        (Remedy.MAKE_UP, {"cash": 900_000, "revenue": -864_000, "prepaid": -36_000}),
    ],
)
async def test_192_billed_of_200_is_eight_short_settled_as_the_buyer_chose(
    books: Books, choice: Remedy | None, comes_to: dict[str, int]
) -> None:
    await sold(books)
    if choice is not None:
        await books.choose("acme", choice, "2026-06-16 11:59", WEEK)
    await delivered(books, 207, 0)
    await books.run("2026-06-16 12:00")
    assert await books.balances("acme") == comes_to


async def test_a_check_is_due_on_wednesday_17_and_stands_on_the_worklist_until_it_is_sent(books: Books) -> None:
    from meter.billing.sql import payments

    await sold(books)
    await books.choose("acme", Remedy.REFUND, "2026-06-01 09:00")  # the standing choice
    await delivered(books, 207, 0)
    await books.run("2026-06-16 12:00")
    [refund] = await books.refunds()
    assert (refund["units"], refund["amount_minor"], refund["due_on"]) == (8, 36_000, "2026-06-17")
    paid = {"reference": "check 1001", "by": "clerk", "now_utc_us": at("2026-06-17 09:00")}
    await books.write(lambda connection: payments.pay_refund(connection, refund["id"], **paid))
    assert await books.balances("acme") == {"cash": 864_000, "revenue": -864_000}
    with pytest.raises(payments.PaymentError, match="sent before"):
        await books.write(lambda connection: payments.pay_refund(connection, refund["id"], **paid))


async def test_the_credit_is_on_that_tuesdays_invoice_for_22_to_29_june(books: Books) -> None:
    await sold(books)
    await books.order("acme", "2026-06-22", 200)
    await delivered(books, 207, 0)
    await books.run("2026-06-16 12:00")
    [invoice] = await books.documents("acme", kind="order", period="2026-06-22")
    assert (invoice.issued_on, invoice.total_minor, invoice.applied_minor) == ("2026-06-16", 900_000, 36_000)
    assert invoice.open_minor == 864_000
    assert any("8 units short, credited" in note for note in (await books.body(invoice.number))["notes"])


async def test_the_make_up_is_on_top_of_that_week_and_free(books: Books) -> None:
    await sold(books)
    await books.choose("acme", Remedy.MAKE_UP, "2026-06-01 09:00")
    await books.order("acme", "2026-06-22", 200)
    await delivered(books, 207, 0)
    await books.run("2026-06-16 12:00")
    [invoice] = await books.documents("acme", kind="order", period="2026-06-22")
    assert (invoice.total_minor, invoice.open_minor) == (900_000, 900_000)
    lines = (await books.body(invoice.number))["lines"]
    assert [(line["units"], line["amount_minor"]) for line in lines] == [(200, 900_000), (8, 0)]
    await books.pay("acme", 900_000, "2026-06-17 09:00")
    await books.deliver("acme", "2026-06-23 09:00", 0, 208)
    await books.run("2026-06-30 12:00")
    assert await books.documents("acme", kind="overage") == []
    assert await books.balances("acme") == {"cash": 1_800_000, "revenue": -1_800_000}


async def test_a_choice_made_at_noon_is_too_late_and_is_refused(books: Books) -> None:
    from meter.billing.sql.payments import PaymentError

    await sold(books)
    with pytest.raises(PaymentError, match="closed on Tuesday 2026-06-16, noon"):
        await books.choose("acme", Remedy.REFUND, "2026-06-16 12:00", WEEK)


async def sold_as_sent(books: Books, week: str = WEEK) -> None:
    """A buyer on the preset as it ships, whose order of 200 was invoiced and paid in time."""
    await sold(books, terms=SENT)


async def test_the_preset_counts_what_was_sent_200_ordered_are_186_units_and_837000_cents(books: Books) -> None:
    await sold_as_sent(books)
    [invoice] = await books.documents("acme")
    body = await books.body(invoice.number)
    assert (invoice.total_minor, body["figures"]["paid_units"]) == (837_000, 186)
    [line] = body["lines"]
    assert (line["units"], line["amount_minor"]) == (186, 837_000)
    assert line["text"] == "200 live transfers, service week of 2026-06-08, at 93 %"
    assert any("may run over by 20 live transfers" in note for note in body["notes"])


async def test_paid_for_200_sent_207_is_an_invoice_for_seven(books: Books) -> None:
    """7 live transfers over; B = floor(192.51) = 192, so 6 units, 27,000 cents, 0.51 carried."""
    await sold_as_sent(books)
    await delivered(books, 207, 0)
    await books.run("2026-06-15 01:00")
    [overage] = await books.documents("acme", kind="overage")
    body = await books.body(overage.number)
    assert overage.total_minor == 27_000
    assert (body["figures"]["overage_counted"], body["figures"]["overage_units"]) == (7, 6)
    assert body["lines"][0]["text"] == "7 live transfers beyond the 200 of the order, service week of 2026-06-08"


@pytest.mark.parametrize(
    ("choice", "comes_to"),
    [
        (None, {"cash": 837_000, "revenue": -801_000, "credits": -36_000}),
        (Remedy.REFUND, {"cash": 837_000, "revenue": -801_000, "refunds_due": -36_000}),
        (Remedy.MAKE_UP, {"cash": 837_000, "revenue": -801_000, "prepaid": -36_000}),
    ],
)
async def test_192_sent_of_200_is_eight_short_worth_eight_units(
    books: Books, choice: Remedy | None, comes_to: dict[str, int]
) -> None:
    await sold_as_sent(books)
    if choice is not None:
        await books.choose("acme", choice, "2026-06-16 11:59", WEEK)
    await delivered(books, 192, 0)
    await books.run("2026-06-16 12:00")
    assert await books.balances("acme") == comes_to
    [statement] = await books.documents("acme", kind="week")
    figures = (await books.body(statement.number))["figures"]
    assert (figures["shortfall_counted"], figures["shortfall_units"], figures["shortfall_minor"]) == (8, 8, 36_000)


async def test_eight_made_up_for_are_eight_transfers_on_top_and_free(books: Books) -> None:
    await sold_as_sent(books)
    await books.choose("acme", Remedy.MAKE_UP, "2026-06-01 09:00")
    await books.order("acme", "2026-06-22", 200)
    await delivered(books, 192, 0)
    await books.run("2026-06-16 12:00")
    [invoice] = await books.documents("acme", kind="order", period="2026-06-22")
    lines = (await books.body(invoice.number))["lines"]
    assert [(line["units"], line["amount_minor"]) for line in lines] == [(186, 837_000), (8, 0)]
    await books.pay("acme", 837_000, "2026-06-17 09:00")
    await books.deliver("acme", "2026-06-23 09:00", 208)  # with the 192 of before: 400 sent, 372 units, twice 186 paid
    await books.run("2026-06-30 12:00")
    assert await books.documents("acme", kind="overage") == []
    assert await books.balances("acme") == {"cash": 1_674_000, "revenue": -1_674_000}


async def test_180_connected_and_20_failed_are_on_target_and_owe_one_unit(books: Books) -> None:
    await sold_as_sent(books)
    await delivered(books, 180, 20)
    await books.run("2026-06-16 12:00")
    [overage] = await books.documents("acme", kind="overage")
    [line] = (await books.body(overage.number))["lines"]
    assert (overage.total_minor, line["units"]) == (4_500, 1)
    assert "failed transfers, in full" in line["text"]
    [statement] = await books.documents("acme", kind="week")
    figures = (await books.body(statement.number))["figures"]
    assert (figures["overage_counted"], figures["shortfall_counted"], figures["billed_connected"]) == (0, 0, 167)


async def test_a_shortfall_of_billed_units_is_made_up_for_in_an_order_that_counts_as_sent(books: Books) -> None:
    """Who goes over to the other way of counting keeps what it paid for."""
    later = replace(SENT, version=2, effective_from="2026-06-22")
    await sold(books, terms=(WESTLAKE, later))
    await books.choose("acme", Remedy.MAKE_UP, "2026-06-01 09:00")
    await books.order("acme", "2026-06-22", 200)
    await delivered(books, 207, 0)  # 192 of 200 billed units: eight short
    await books.run("2026-06-16 12:00")
    await books.pay("acme", 837_000, "2026-06-17 09:00")
    await books.deliver("acme", "2026-06-23 09:00", 208)
    await books.run("2026-06-30 12:00")
    [statement] = await books.documents("acme", kind="week", period="2026-06-22")
    figures = (await books.body(statement.number))["figures"]
    assert (figures["counts"], figures["make_up"], figures["make_up_units"]) == ("sent", 8, 8)
    assert (figures["billed_connected"], figures["overage_units"], figures["prepaid_units"]) == (193, 0, 1)
    assert await books.balances("acme") == {"cash": 1_737_000, "revenue": -1_732_500, "prepaid": -4_500}


async def test_overage_is_taken_from_open_credits_first_unless_the_terms_say_otherwise(books: Books) -> None:
    for name, uses in (("acme", True), ("other", False)):
        await books.agree(name, terms=replace(SENT, name=name, overage_uses_credits=uses))
        await books.pay(name, 10_000, "2026-06-09 10:00")  # paid ahead
        await books.deliver(name, "2026-06-10 11:00", 0, 2)
    await books.run("2026-06-15 01:00")
    found = {one.buyer: (one.total_minor, one.applied_minor) for one in await books.documents(kind="overage")}
    assert found == {"acme": (9_000, 9_000), "other": (9_000, 0)}


async def test_an_unpaid_order_puts_the_buyer_on_hold_at_five_and_its_payment_ends_that(books: Books) -> None:
    from meter.book.sql.book import BookStore

    await books.agree("acme")
    await books.order("acme", WEEK, 200)
    await books.run("2026-06-02 12:00")
    state = BookStore(books.engine)
    await books.run("2026-06-04 16:59")
    assert (await state.load()).buyers["acme"].state.value == "active"
    await books.run("2026-06-04 17:00")
    assert (await state.load()).buyers["acme"].state.value == "on_hold"
    part = await books.pay("acme", 899_999, "2026-06-05 09:00")
    assert (part.settled, part.released) == ((), False)
    rest = await books.pay("acme", 1, "2026-06-05 10:00")
    assert (rest.settled, rest.released) == (("INV-000001",), True)
    assert (await state.load()).buyers["acme"].state.value == "active"


async def test_runs_that_were_missed_are_caught_up_with_in_order(books: Books) -> None:
    await sold(books)
    await books.order("acme", "2026-06-22", 100)
    await delivered(books, 207, 0)
    report = await books.run("2026-08-01 09:00")
    kinds = {one.number: (one.kind, one.period) for one in await books.documents("acme")}
    found = [kinds[number] for number in report.documents]
    assert found == [("week", WEEK), ("order", "2026-06-22"), ("week", "2026-06-22")]
    [invoice] = await books.documents("acme", kind="order", period="2026-06-22")
    assert invoice.applied_minor == 36_000  # the week before it was settled before it
    again = await books.run("2026-08-01 09:00")
    assert again.done == []


async def test_an_outcome_after_the_week_was_billed_is_an_adjustment_of_the_next(books: Books) -> None:
    await sold(books)
    await delivered(books, 0, 200)
    await books.run("2026-06-15 01:00")
    await books.deliver("acme", "2026-06-14 23:59", 0, 3)  # belongs to the week before by its dial-out
    await books.run("2026-06-22 01:00")
    [overage] = await books.documents("acme", kind="overage")
    assert (overage.period, overage.total_minor) == ("2026-06-15", 13_500)
    assert (await books.run("2026-06-29 01:00")).documents == []


async def test_an_unpaid_orders_shortfall_waits_and_is_settled_once_it_is_paid(books: Books) -> None:
    await books.agree("acme")
    await books.order("acme", WEEK, 200)
    await books.run("2026-06-02 12:00")
    await delivered(books, 0, 150)
    await books.run("2026-06-16 12:00")
    assert await books.balances("acme") == {"receivable": 900_000, "prepaid": -225_000, "revenue": -675_000}
    await books.pay("acme", 900_000, "2026-06-18 09:00")
    await books.run("2026-06-23 11:59")
    assert (await books.balances("acme")).get("credits") is None
    await books.run("2026-06-23 12:00")
    assert await books.balances("acme") == {"cash": 900_000, "revenue": -675_000, "credits": -225_000}


async def test_an_unpaid_orders_rest_can_be_cancelled_by_a_credit_note_and_what_was_delivered_stays(
    books: Books,
) -> None:
    from meter.billing.arithmetic.drafts import Issuer
    from meter.billing.sql import payments
    from meter.billing.sql.documents import BillingRun

    await books.agree("acme")
    await books.order("acme", WEEK, 200)
    await books.run("2026-06-02 12:00")
    await delivered(books, 0, 150)

    async def cancel(when: str) -> str:
        run = BillingRun(Issuer(), at(when))
        return await books.write(
            lambda connection: payments.cancel(connection, "INV-000001", reason="left", by="clerk", run=run)
        )

    with pytest.raises(payments.PaymentError, match="has begun"):
        await cancel("2026-06-10 09:00")
    await books.run("2026-06-16 12:00")
    assert await cancel("2026-06-17 09:00") == "CN-000001"
    assert await books.balances("acme") == {"receivable": 675_000, "revenue": -675_000}
    with pytest.raises(payments.PaymentError, match="nothing of it waits"):
        await cancel("2026-06-17 10:00")
