"""Faults that a review of the weekly cycle has found, each with what it once did to somebody's money."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import BuyerState
from book.terms import presets
from meter.billing.arithmetic.cycle import Remedy
from meter.billing.sql import payments
from meter.billing.sql.due import TaskKind
from meter.book.sql.book import BookStore
from meter.ledger.accounts import INCREMENT, Account, Posting, Rule
from meter.ledger.sql import ledger
from meter.mail.sql.messages import find_mail
from meter.mail.sql.recipients import Recipient, hand_over, put_recipients
from meter.settling.sql.verify_ledger import verify_ledger
from meter.store.money_schema import buyer_stops
from meter.store.schema import outbox
from tests.store.money_tools import WESTLAKE, Books, at

MINUTES = replace(presets()["customer-success"], name="minutes", setup_fee_minor=0)


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    yield made
    await made.close()


async def talk(books: Books, name: str, when: str, count: int) -> None:
    posting = Posting(
        key=f"{name}:minutes",
        buyer="acme",
        rule=Rule.MINUTES,
        debit=Account.UNBILLED_MINUTES,
        credit=Account.DELIVERED,
        asset=INCREMENT,
        amount=count,
        transfer=name,
        unit="call",
        units=count,
        price_minor=118,
        terms_name="minutes",
        terms_version=1,
        dialout_utc_us=at(when),
    )
    await books.write(lambda connection: ledger.append(connection, [posting]))


async def test_a_week_with_less_than_one_whole_unit_does_not_hide_the_next_one(books: Books) -> None:
    """Settling it posts nothing, and so the planner took the chain for settled: the next week was never billed."""
    await books.agree("acme")
    await books.deliver("acme", "2026-06-01 12:00", 1)
    await books.deliver("acme", "2026-06-08 12:00", 5)
    await books.run("2026-06-08 12:30")
    await books.run("2026-06-15 12:30")
    [overage] = await books.documents("acme", kind="overage")
    assert (overage.period, overage.total_minor) == ("2026-06-08", 5 * 4_500)


async def test_talk_that_comes_late_for_a_month_with_nothing_in_it_is_billed_once(books: Books) -> None:
    """It was billed with its own month, which was never settled, and again with the month after the last one."""
    await books.agree("acme", terms=MINUTES)
    await talk(books, "t-1", "2026-04-10 12:00", 10)
    await books.run("2026-05-02 12:00")
    await talk(books, "t-2", "2026-06-10 12:00", 10)
    await books.run("2026-07-02 12:00")  # April and June; nothing in May
    await talk(books, "t-3", "2026-05-10 12:00", 7)
    await talk(books, "t-4", "2026-07-10 12:00", 1)
    await books.run("2026-07-03 12:00")
    await books.run("2026-08-02 12:00")
    billed = [(one.period, one.total_minor) for one in await books.documents("acme", kind="month")]
    assert billed == [("2026-04", 1_180), ("2026-06", 1_180), ("2026-07", 8 * 118)]
    assert (await verify_ledger(books.engine)).problems == ()


async def test_a_month_that_comes_to_less_than_nothing_is_a_credit_note(books: Books) -> None:
    """It was an invoice of a negative total of which nothing was posted but a debt of the buyer's."""
    await books.agree("acme", terms=MINUTES)
    await talk(books, "t-1", "2026-05-10 12:00", 10)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 1_180, "2026-06-03 12:00")
    back = {"reason": "wrong line", "by": "clerk", "now_utc_us": at("2026-06-04 12:00")}
    await books.write(lambda connection: ledger.reverse_transfer(connection, "t-1:minutes", **back))
    await talk(books, "t-2", "2026-06-10 12:00", 4)
    await books.run("2026-07-02 12:00")
    assert await books.documents("acme", kind="month", period="2026-06") == []
    [note] = await books.documents("acme", kind="credit_note")
    assert (note.period, note.total_minor) == ("2026-06", 6 * 118)
    assert await books.balances("acme") == {"cash": 1_180, "revenue": -4 * 118, "credits": -6 * 118}
    assert (await verify_ledger(books.engine)).problems == ()
    await talk(books, "t-3", "2026-07-10 12:00", 10)
    await books.run("2026-08-02 12:00")
    [invoice] = await books.documents("acme", kind="month", period="2026-07")
    assert (invoice.total_minor, invoice.applied_minor, invoice.open_minor) == (1_180, 6 * 118, 4 * 118)


async def test_a_buyer_who_has_left_pays_no_more_for_lines(books: Books) -> None:
    """Its lines were invoiced month by month for ever."""
    await books.agree("acme", terms=replace(MINUTES, extra_line_price_minor=2_500), extra_lines=2)
    await talk(books, "t-1", "2026-05-10 12:00", 10)
    await books.run("2026-06-02 12:00")
    await BookStore(books.engine).set_buyer_state("acme", BuyerState.CANCELLED, "ops")
    await books.run("2026-09-02 12:00")
    assert [one.period for one in await books.documents("acme", kind="month")] == ["2026-05"]


async def test_a_payment_whose_reference_begins_like_another_s_is_not_taken_back_with_it(books: Books) -> None:
    """Reversing `wire` took `wire:2` back as well."""
    await books.agree("acme")
    await books.deliver("acme", "2026-06-02 12:00", 0, 2)
    await books.run("2026-06-08 12:00")
    await books.pay("acme", 4_500, "2026-06-08 13:00", "wire")
    await books.pay("acme", 4_500, "2026-06-08 14:00", "wire:2")
    bounced = {"reason": "bounced", "by": "clerk", "now_utc_us": at("2026-06-09 09:00")}
    opened = await books.write(lambda connection: payments.reverse(connection, "acme", "wire", **bounced))
    assert opened == ["INV-000001"]
    assert await books.balances("acme") == {"receivable": 4_500, "cash": 4_500, "revenue": -9_000}


async def test_a_payment_that_bounced_is_not_taken_for_recorded_when_it_comes_again(books: Books) -> None:
    """The same check presented once more was answered as a repeat, and not booked: the buyer stayed on hold."""
    await books.agree("acme")
    await books.deliver("acme", "2026-06-02 12:00", 0, 2)
    await books.run("2026-06-08 12:00")
    await books.pay("acme", 9_000, "2026-06-08 13:00", "check 7")
    bounced = {"reason": "bounced", "by": "clerk", "now_utc_us": at("2026-06-09 09:00")}
    await books.write(lambda connection: payments.reverse(connection, "acme", "check 7", **bounced))
    with pytest.raises(payments.PaymentError, match="reference: 'check 7' was taken back"):
        await books.pay("acme", 9_000, "2026-06-08 13:00", "check 7")


async def test_the_statement_names_the_tuesday_on_which_the_choice_closes(books: Books) -> None:
    """It named the Monday."""
    await books.agree("acme")
    await books.order("acme", "2026-06-08", 200)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 900_000, "2026-06-03 10:00")
    await books.run("2026-06-15 01:00")
    [statement] = await books.documents("acme", kind="week")
    notes = (await books.body(statement.number))["notes"]
    assert any("until Tuesday 2026-06-16 noon" in note for note in notes)


async def test_make_up_for_a_week_leaves_room_for_an_order_of_that_week(books: Books) -> None:
    """An invoice of nothing was issued for it, stood in the way of the order, and came again when it was cancelled."""
    await books.agree("acme")
    await books.order("acme", "2026-06-08", 200)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 900_000, "2026-06-03 10:00")
    await books.choose("acme", Remedy.MAKE_UP, "2026-06-03 11:00")
    await books.deliver("acme", "2026-06-09 10:00", 0, 190)
    await books.run("2026-06-16 12:00")
    assert await books.documents("acme", kind="order", period="2026-06-22") == []
    await books.order("acme", "2026-06-22", 100, make_up=10)
    await books.run("2026-06-17 12:00")
    [invoice] = await books.documents("acme", kind="order", period="2026-06-22")
    lines = (await books.body(invoice.number))["lines"]
    assert [(line["units"], line["amount_minor"]) for line in lines] == [(100, 450_000), (10, 0)]
    await books.pay("acme", 450_000, "2026-06-18 10:00")
    await books.deliver("acme", "2026-06-23 10:00", 0, 110)
    await books.run("2026-06-30 12:00")
    assert await books.balances("acme") == {"cash": 1_350_000, "revenue": -1_350_000}


async def test_make_up_alone_that_is_not_delivered_is_owed_with_what_was_paid_for_it(books: Books) -> None:
    await books.agree("acme")
    await books.order("acme", "2026-06-08", 200)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 900_000, "2026-06-03 10:00")
    await books.choose("acme", Remedy.MAKE_UP, "2026-06-03 11:00", "2026-06-08")
    await books.deliver("acme", "2026-06-09 10:00", 0, 190)
    await books.run("2026-06-16 12:00")
    await books.deliver("acme", "2026-06-23 10:00", 0, 4)
    await books.run("2026-06-30 12:00")
    assert await books.balances("acme") == {"cash": 900_000, "revenue": -194 * 4_500, "credits": -6 * 4_500}


async def test_an_order_that_cannot_be_invoiced_does_not_keep_the_buyer_s_check(books: Books) -> None:
    """Its error took the remedies of the same Tuesday back, that day and on every day after it."""
    minutes = replace(MINUTES, name="contract", version=2, effective_from="2026-06-22")
    await books.agree("acme", terms=(WESTLAKE, minutes))
    await books.order("acme", "2026-06-08", 200)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 900_000, "2026-06-03 10:00")
    await books.choose("acme", Remedy.REFUND, "2026-06-03 11:00")
    await books.order("acme", "2026-06-22", 100)
    await books.cycle.run_once(at("2026-06-16 12:00"))
    [check] = await books.refunds()
    assert (check["amount_minor"], check["due_on"]) == (900_000, "2026-06-17")
    again = await books.cycle.run_once(at("2026-06-16 12:05"))
    assert [one.why for one in again.trouble] == [
        "order of 2026-06-22: terms 'contract' are not paid by the unit, but by the minute"
    ]


async def test_a_check_for_open_credits_is_due_on_the_day_of_the_contract(books: Books) -> None:
    """At nine in the evening in New York it was due on the day after."""
    await books.agree("acme")
    await books.pay("acme", 9_000, "2026-06-08 13:00")
    asked = {"by": "clerk", "now_utc_us": at("2026-06-09 21:00"), "reason": "left"}
    await books.write(lambda connection: payments.pay_out(connection, "acme", **asked))
    [check] = await books.refunds()
    assert check["due_on"] == "2026-06-09"


async def test_a_meter_with_traffic_still_holds_and_invoices(books: Books) -> None:
    """Any closing fact not settled yet kept the cycle from looking; with steady traffic there always is one."""
    from tests.facts_builder import UTC_0, connected_story
    from tests.store.journal_tools import store

    await books.agree("acme", terms=WESTLAKE)
    await store(books.engine, connected_story())
    now = UTC_0 + 50_000_000
    books.cycle._clock = lambda: now
    assert (await books.cycle._due()).value == "everything"
    now += 120_000_000  # two minutes later it is still there: now the meter lags
    books.cycle._seen = None
    assert (await books.cycle._due()).value == "nothing"


async def test_an_invoice_that_waits_for_an_address_is_no_reason_to_look_at_everything(books: Books) -> None:
    """It holds nobody, and stays due: every buyer was read again with every turn, for as long as it waited."""
    await books.agree("acme", billing_emails=())
    await books.order("acme", "2026-06-08", 200)
    await books.run("2026-06-02 12:00")
    books.cycle._clock = lambda: at("2026-06-05 09:00")
    assert (await books.cycle._due()).value == "everything"
    assert (await books.cycle._due()).value == "nothing"
    await books.write(lambda connection: connection.execute(update(outbox).values(state="pending", waits_for=None)))
    assert (await books.cycle._due()).value == "nothing", "it is on its way"
    await books.hand_over()
    assert (await books.cycle._due()).value == "everything", "now a mail server has it"


STATES = ("pending", "waiting", "dead", "done", "gone", "taken by one", "put off", "by hand")


@pytest.mark.parametrize("state", STATES)
async def test_an_invoice_holds_only_once_a_mail_server_has_it_or_somebody_brought_it(books: Books, state: str) -> None:
    """Domain, section 6. WeasyPrint that cannot be loaded, a server that is down, no [mail]: it stays pending."""
    await books.agree("acme")
    await books.order("acme", "2026-06-08", 200)
    await books.cycle.run_once(at("2026-06-02 12:00"))

    def become(connection: Connection) -> None:
        row = find_mail(connection, "INV-000001.document")
        assert row is not None
        if state == "by hand":
            assert hand_over(connection, row, "ann", at("2026-06-03 12:00"))
            assert not hand_over(connection, row, "ann", at("2026-06-03 12:00")), "once"
        elif state in ("taken by one", "put off"):
            how = "taken" if state == "taken by one" else "retried"
            tried = Recipient("bills@acme.example", how, 1, 1, 1, 250, "")
            put_recipients(connection, row.message_id, row.created_utc_us, [tried])
        elif state == "gone":  # as mail that was handed over is, after a week
            connection.execute(delete(outbox))
        else:
            connection.execute(update(outbox).values(state=state))

    await books.write(become)
    holds = state in ("done", "gone", "taken by one", "by hand")
    books.cycle._clock = lambda: at("2026-06-05 09:00")
    report = await books.cycle.run_once(at("2026-06-05 09:00"))
    assert [one.held for one in report.done] == ([True] if holds else [])
    made = await books.write(lambda connection: payments.hold(connection, "INV-000001", at("2026-06-05 09:01")))
    assert not made, "held already, or not to be held, whoever asks"
    stops = await books.read(lambda connection: connection.execute(select(buyer_stops.c.reason)).scalars().all())
    assert list(stops) == (["unpaid"] if holds else [])


async def test_a_meter_that_lags_still_holds_who_has_not_paid(books: Books) -> None:
    from tests.facts_builder import connected_story
    from tests.store.journal_tools import store

    await books.agree("acme")
    await books.order("acme", "2026-06-08", 200)
    await books.run("2026-06-02 12:00")
    await store(books.engine, connected_story())  # nobody settles it
    await books.hand_over()
    books.cycle._clock = lambda: at("2026-06-04 17:00")
    assert (await books.cycle._due()).value == "holds"
    report = await books.cycle.run_once(at("2026-06-15 02:00"), only=TaskKind.HOLD)
    assert [(one.task.kind, one.held) for one in report.done] == [(TaskKind.HOLD, True)]
    assert await books.documents(kind="week") == []


async def test_by_hand_no_week_is_settled_while_transfers_of_it_are_not_counted(books: Books) -> None:
    """Ten paid for and ten delivered came to a check for one, an overage of one, and a hold for that."""
    from meter.settling.follower import Follower, SettleOptions
    from tests.facts_builder import UTC_0, connected_story
    from tests.store.journal_tools import store

    await books.agree("acme")
    await books.order("acme", "2026-06-08", 200)
    await books.run("2026-06-02 12:00")
    await store(books.engine, connected_story())  # nobody settles it
    assert at("2026-06-01 00:00") < UTC_0 < at("2026-06-08 00:00")
    await books.hand_over()
    report = await books.cycle.run_once(at("2026-06-15 01:00"))
    assert report.waits
    assert {one.task.kind for one in report.done} == {TaskKind.HOLD}
    assert await books.documents(kind="week") == []
    follower = Follower(books.engine, SettleOptions())
    assert await follower.catch_up() == 1
    await follower.close()
    report = await books.run("2026-06-15 01:00")
    assert not report.waits
    assert [one.period for one in await books.documents(kind="week")] == ["2026-06-01", "2026-06-08"]


@pytest.mark.parametrize("where", ["meter.billing.cycle.is_behind", "meter.billing.sql.tasks.is_behind"])
async def test_a_meter_that_falls_behind_between_two_looks_settles_the_week_once_it_has_caught_up(
    books: Books, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """What it had seen was kept for seen: the week waited for the next boundary of the calendar, Tuesday noon."""
    await books.agree("acme")
    await books.order("acme", "2026-06-08", 200)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 900_000, "2026-06-03 10:00")
    books.cycle._clock = lambda: at("2026-06-15 02:00")
    answers = iter([True])  # the first time it is asked, after the look at the signs
    monkeypatch.setattr(where, lambda *_: next(answers, False))
    monkeypatch.setattr("meter.billing.cycle.POLL_S", 0.01)
    stop = asyncio.Event()
    running = asyncio.create_task(books.cycle.run(stop))
    try:
        async with asyncio.timeout(60):
            while not await books.documents(kind="week"):
                await asyncio.sleep(0.02)
    finally:
        stop.set()
        await running


async def test_a_check_waits_where_the_payment_it_rests_on_was_taken_back(books: Books) -> None:
    await books.agree("acme")
    await books.order("acme", "2026-06-08", 200)
    await books.choose("acme", Remedy.REFUND, "2026-06-01 09:00")
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 900_000, "2026-06-03 10:00", reference="check 1")
    await books.deliver("acme", "2026-06-10 11:00", 0, 150)
    await books.run("2026-06-16 12:00")
    [check] = await books.read(payments.refunds_due)
    back = {"reason": "bounced", "by": "clerk", "now_utc_us": at("2026-06-16 13:00")}
    await books.write(lambda connection: payments.reverse(connection, "acme", "check 1", **back))
    assert await books.read(payments.refunds_due) == []
    send = {"reference": "4711", "by": "clerk", "now_utc_us": at("2026-06-17 09:00")}
    with pytest.raises(payments.PaymentError, match="waits for the payment of INV-000001"):
        await books.write(lambda connection: payments.pay_refund(connection, check.id, **send))
    await books.pay("acme", 900_000, "2026-06-18 10:00", reference="wire 2")
    assert [row.id for row in await books.read(payments.refunds_due)] == [check.id]
    await books.write(lambda connection: payments.pay_refund(connection, check.id, **send))


async def test_a_check_for_open_credits_waits_while_these_are_below_nothing(books: Books) -> None:
    await books.agree("acme")
    await books.pay("acme", 9_000, "2026-06-08 13:00", reference="check 1")
    asked = {"by": "clerk", "now_utc_us": at("2026-06-09 10:00"), "reason": "left"}
    await books.write(lambda connection: payments.pay_out(connection, "acme", **asked))
    assert len(await books.read(payments.refunds_due)) == 1
    back = {"reason": "bounced", "by": "clerk", "now_utc_us": at("2026-06-10 13:00")}
    await books.write(lambda connection: payments.reverse(connection, "acme", "check 1", **back))
    assert await books.read(payments.refunds_due) == []


async def test_an_operators_hold_on_top_of_the_cycles_is_not_ended_by_a_payment(books: Books) -> None:

    await books.agree("acme")
    await books.order("acme", "2026-06-08", 200)
    await books.run("2026-06-02 12:00")
    await books.run("2026-06-04 17:00")
    book = BookStore(books.engine)
    await book.set_buyer_state("acme", BuyerState.ON_HOLD, "clerk", "a dispute")
    paid = await books.pay("acme", 900_000, "2026-06-05 09:00")
    assert (paid.settled, paid.released) == (("INV-000001",), False)
    assert (await book.load()).buyers["acme"].state is BuyerState.ON_HOLD
    assert [one["by"] for one in await book.states("acme")] == ["billing", "clerk", "billing"]


async def test_a_week_waits_for_the_one_before_it_that_could_not_be_settled(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meter.billing.sql import weeks

    await books.agree("acme")
    for monday in ("2026-06-08", "2026-06-15"):
        await books.order("acme", monday, 10)
    await books.run("2026-06-09 12:00")
    real = weeks.week_result

    def fails(week: object, *args: object, **kwargs: object) -> object:
        if str(week) == "2026-06-08":
            raise ValueError("this one cannot")
        return real(week, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(weeks, "week_result", fails)
    report = await books.cycle.run_once(at("2026-06-22 01:00"))
    assert [one.why for one in report.trouble] == [
        "this one cannot",
        "week of 2026-06-15: the week of 2026-06-08 is not settled yet",
    ]
    monkeypatch.setattr(weeks, "week_result", real)
    await books.run("2026-06-22 01:01")
    assert [one.period for one in await books.documents(kind="week")] == ["2026-06-08", "2026-06-15"]


async def test_units_of_a_buyer_that_went_over_to_minutes_keep_their_price(books: Books) -> None:
    await books.agree("acme")
    await books.deliver("acme", "2026-06-10 11:00", 0, 3)
    await books.agree("acme", terms=MINUTES)
    await books.run("2026-06-15 02:00")
    [overage] = await books.documents("acme", kind="overage")
    assert overage.total_minor == 3 * 4_500


async def test_what_an_order_was_invoiced_at_stays_whatever_becomes_of_its_terms(books: Books) -> None:
    await books.agree("acme")
    await books.order("acme", "2026-06-08", 200)
    await books.run("2026-06-02 12:00")
    await books.agree("acme", terms=replace(WESTLAKE, unit_price_minor=9_000, order_counts="sent", overrun_percent=0))
    await books.deliver("acme", "2026-06-09 10:00", 207, 15)
    await books.run("2026-06-15 12:00")
    [overage] = await books.documents("acme", kind="overage")
    assert overage.total_minor == 31_500
