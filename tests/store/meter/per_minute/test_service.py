"""Per-minute service in the store: interactions charged once and to the cent, ratings, and the daily reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import BuyerState
from book.sections import BookFile
from facts.fact import EndCause, Kind, Party
from meter.book.sql.book import BookStore
from meter.outbox.delivery import NeverDeliverableError
from meter.per_minute.daily import DailyReports, ReportOptions
from meter.per_minute.interactions import InteractionError, InteractionRefusal, RatingKind
from meter.per_minute.rating_letter import RatingComposer
from meter.per_minute.report_letter import ReportComposer
from meter.per_minute.sql import interactions, reports
from meter.per_minute.sql.interactions import Interaction, InteractionFilter
from meter.settling.follower import Follower, SettleOptions
from meter.store.money_schema import interactions as table
from meter.store.money_schema import ratings as rated
from meter.store.schema import book_version, endpoints
from meter.text.links import LinkOptions
from tests.facts_builder import UTC_0, WESTLAKE, Story, connected_story
from tests.store.journal_tools import store
from tests.store.money_tools import WESTLAKE as UNITS
from tests.store.money_tools import Books, at
from tests.store.service_tools import AGENTS, mails, rate, report, said, serve

LINKS = LinkOptions("https://baton.example", "s" * 32)
MINUTE = WESTLAKE | {
    "name": "contract",
    "rating": "minute",
    "minute_price_minor": 118,
    "minute_increment_ms": 60_000,
    "minute_minimum_ms": 0,
}


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    await serve(made, ask_rating=True)
    yield made
    await made.close()


async def settle(books: Books, *stories: Story, ask: bool = True) -> None:
    for story in stories:
        await store(books.engine, story, boot=f"boot-{story.transfer}")
    follower = Follower(books.engine, SettleOptions(ask_rating=ask))
    await follower.catch_up()
    await follower.close()


def call(name: str, talk_s: float, agent: str = "ann", buyer: str = "acme", **start: Any) -> Story:
    """Answered by that agent at 4 s, ended by the caller after so much talk."""
    ends = [{"leg": 1, "name": agent, "kind": "trunk", "secure": False}]
    story = Story(name).start(terms=MINUTE, buyer=buyer, endpoints=ends, lead_emails=[], **start)
    story.dial(1).ring(1, 1.0).answer(1, 4.0).bridge(1, 4.1)
    return story.hang_up(4.0 + talk_s, Party.CALLER).close()


async def rows(books: Books) -> list[Interaction]:
    return await books.read(
        lambda connection: interactions.find_all(connection, InteractionFilter("acme", limit=1_000))
    )


# --- what is kept and charged ----------------------------------------------------------------------------------------


async def test_a_report_is_kept_and_charged_once(books: Books) -> None:
    made, is_new = await report(books, said())
    assert (is_new, made.increments, made.amount_minor, made.currency) == (True, 3, 354, "USD")
    again, is_new = await report(books, said(), "2026-06-03 09:00")
    assert (is_new, again) == (False, made)
    [posting] = await books.postings()
    assert (posting["key"], posting["rule"], posting["unit"]) == (f"interaction:{made.id}", "minutes", "email")
    assert (posting["transfer"], posting["price_minor"], posting["units"]) == (None, 118, 3)
    assert posting["dialout_utc_us"] == at("2026-06-02 10:30")
    assert (posting["debit"], posting["credit"]) == ("unbilled_minutes", "delivered")


async def test_the_same_reference_with_other_content_is_refused(books: Books) -> None:
    await report(books, said())
    with pytest.raises(InteractionError) as caught:
        await report(books, said(text="Dear Joe"))
    assert (caught.value.refusal, caught.value.field) == (InteractionRefusal.CONFLICT, "reference")
    await report(books, said(kind="chat"))
    assert [one.kind.value for one in await rows(books)] == ["email", "chat"]
    assert len(await books.postings()) == 2


async def test_two_at_once_are_one(books: Books, engine: AsyncEngine) -> None:
    other = Books(engine)
    found = await asyncio.gather(*(report(one, said()) for one in (books, other) * 5))
    assert sum(is_new for _, is_new in found) == 1
    assert len({one.id for one, _ in found}) == len(await books.postings()) == 1
    await other.close()


async def test_no_time_is_free_and_no_posting(books: Books) -> None:
    made, _ = await report(books, said(ended_at="2026-06-02T10:30:00-04:00"))
    assert (made.increments, made.amount_minor, await books.postings()) == (0, 0, [])


async def test_the_terms_in_force_as_work_began_decide(books: Books) -> None:
    dearer = replace(await _terms(books), version=2, effective_from="2026-06-03", minute_price_minor=200)
    units = replace(UNITS, name="contract", version=3, effective_from="2026-06-05")
    await books.agree("acme", terms=[await _terms(books), dearer, units])
    amounts = [(await report(books, said(f"a-{day}", f"2026-06-0{day}")))[0].amount_minor for day in (2, 4)]
    assert amounts == [354, 600]
    told_later, _ = await report(books, said("a-3"), "2026-06-04 12:00")
    assert told_later.amount_minor == 354, "not those in force as it is told"
    with pytest.raises(InteractionError, match=r"^buyer: does not pay by the minute"):
        await report(books, said("b", "2026-06-05"))


async def _terms(books: Books) -> Any:
    found, _ = await BookStore(books.engine).profiles()
    return min(found, key=lambda one: one.version)


async def test_a_buyer_that_is_not_there_is_named(books: Books) -> None:
    with pytest.raises(InteractionError, match=r"^buyer: no buyer is called 'nobody'"):
        await report(books, said(buyer="nobody"))


async def test_the_month_is_invoiced_to_the_cent(books: Books) -> None:
    # 61 s of talk are two minutes, 60 s one, 1 ms one; the e-mail's 120.001 s three, the chat's 0.5 s one: 8 x 118
    await settle(books, call("c-1", 61.0), call("c-2", 60.0), call("c-3", 0.001))
    await report(books, said())
    chat = said("c", kind="chat", started_at="2026-06-30T23:59:59-04:00", ended_at="2026-06-30T23:59:59.5-04:00")
    await report(books, chat, "2026-07-01 00:10")
    await books.run("2026-07-02 12:00")
    [invoice] = [one for one in await books.documents() if one.kind == "month"]
    lines = {line["text"].partition(",")[0]: line for line in (await books.body(invoice.number))["lines"]}
    assert {name: (line["units"], line["amount_minor"]) for name, line in lines.items()} == {
        "Talk": (4, 472),
        "E-mails": (3, 354),
        "Chats": (1, 118),
    }
    assert invoice.total_minor == sum(one.amount_minor for one in await rows(books)) == 944


async def test_set_up_is_invoiced_before_the_first_month_also_where_that_is_caught_up_with(books: Books) -> None:
    await books.agree("acme", terms=replace(await _terms(books), setup_fee_minor=95_000))
    await report(books, said(), "2026-06-02 12:00")
    await books.run("2026-08-20 12:00")
    assert [one.kind for one in await books.documents("acme")] == ["setup", "month"]


async def test_what_is_told_after_its_month_was_invoiced_is_in_the_next(books: Books) -> None:
    await report(books, said("m-1"))
    await books.run("2026-07-02 12:00")
    await report(books, said("m-2"), "2026-07-03 09:00")
    await report(books, said("m-3", "2026-07-04"))
    await books.run("2026-08-02 12:00")
    months = [one for one in await books.documents() if one.kind == "month"]
    assert [(one.period, one.total_minor) for one in months] == [("2026-06", 354), ("2026-07", 708)]


async def test_an_interrupted_call_is_billed_by_its_durable_minutes(books: Books) -> None:
    story = Story("t-9").start(terms=MINUTE, lead_emails=[]).dial(1).ring(1, 1.0).answer(1, 4.0).bridge(1, 4.1)
    story.add(Kind.TALK_REACHED_15S, 19.0).add(Kind.TALK_MINUTE, 64.0, minutes=1)
    story.add(Kind.TALK_MINUTE, 124.0, minutes=2).add(Kind.INTERRUPTED, 124.0, last_seq=8)
    await settle(books, story.close())
    [one] = await rows(books)
    assert (one.handled_ms, one.increments, one.amount_minor) == (120_000, 2, 236)
    [posting] = await books.postings()
    assert posting["units"] == 2


async def test_calls_are_interactions_answered_or_not_and_settling_again_adds_none(books: Books) -> None:
    missed = Story("t-2").start(terms=MINUTE, lead_emails=[]).dial(1).ring(1, 1.0)
    missed.end(9.0, Party.CALLER, EndCause.CANCEL).close()
    await settle(books, call("t-1", 30.0), missed, connected_story("t-3"))
    found = {one.id: one for one in await rows(books)}
    assert set(found) == {"t-1", "t-2"}, "t-3 is billed by the unit"
    assert (found["t-1"].agent, found["t-1"].amount_minor, found["t-1"].ring_to_answer_ms) == ("ann", 118, 3_000)
    assert (found["t-2"].started_utc_us, found["t-2"].ring_to_answer_ms) == (None, 8_000)
    await books.write(lambda connection: connection.execute(text("DELETE FROM meter_cursors")).rowcount)
    await settle(books)
    assert len(await rows(books)) == 2


async def test_pages_follow_one_another_without_a_gap(books: Books) -> None:
    for number in range(7):
        await report(books, said(f"m-{number}"))  # all came in at the same instant
    seen: list[str] = []
    before = None
    for _ in range(10):
        wanted = InteractionFilter("acme", before=before, limit=3)
        page = await books.read(lambda connection, wanted=wanted: interactions.find_all(connection, wanted))
        if not page:
            break
        seen += [one.id for one in page]
        before = (page[-1].received_utc_us, page[-1].id)
    assert seen == [one.id for one in await rows(books)]
    assert len(set(seen)) == 7


# --- ratings ---------------------------------------------------------------------------------------------------------


async def test_the_last_rating_of_quality_control_holds_before_the_callers(books: Books) -> None:
    made, _ = await report(books, said())
    assert (await rate(books, made.id, 2, RatingKind.CALLER)).rating.rating == 2  # type: ignore[union-attr]
    for rating in (5, 4):
        await rate(books, made.id, rating)
    found = await rate(books, made.id, 1, RatingKind.CALLER)
    assert found.rating is not None
    assert (found.rating.rating, found.rating.kind) == (4, RatingKind.QUALITY)
    assert [one.rating for one in found.ratings] == [2, 5, 4, 1]


async def test_saying_the_same_again_adds_nothing_and_nothing_is_taken_back(books: Books) -> None:
    made, _ = await report(books, said())
    await rate(books, made.id, 3)
    assert len((await rate(books, made.id, 3)).ratings) == 1
    with pytest.raises(IntegrityError):
        await books.write(lambda connection: connection.execute(rated.delete()).rowcount)


@pytest.mark.parametrize("rating", [0, 6, True, "5", 2.5])
async def test_a_rating_is_one_to_five(books: Books, rating: Any) -> None:
    made, _ = await report(books, said())
    with pytest.raises(InteractionError, match=r"^rating: "):
        await rate(books, made.id, rating)
    with pytest.raises(InteractionError) as caught:
        await rate(books, "nothing", 3)
    assert caught.value.refusal is InteractionRefusal.UNKNOWN


async def test_a_link_fills_no_disk(books: Books) -> None:
    made, _ = await report(books, said())
    for number in range(20):
        await rate(books, made.id, 1 + number % 2, RatingKind.CALLER)
    with pytest.raises(InteractionError) as caught:
        await rate(books, made.id, 5, RatingKind.CALLER)
    assert caught.value.refusal is InteractionRefusal.FULL
    await rate(books, made.id, 5)


async def _agents(books: Books) -> dict[str, int]:
    book = await BookStore(books.engine).load()
    return {one.name: one.rating_x100 for one in book.buyers["acme"].endpoints}


async def _version(books: Books) -> int:
    return await books.read(lambda connection: connection.execute(select(book_version.c.version)).scalar_one())


async def test_an_agents_rating_is_the_average_of_its_calls(books: Books) -> None:
    await settle(books, call("t-1", 30.0), call("t-2", 30.0), call("t-3", 30.0, "bob"))
    await rate(books, "t-1", 5, RatingKind.CALLER)
    before = await _version(books)
    await rate(books, "t-2", 4)
    assert await _agents(books) == {"ann": 450, "bob": 300}
    assert await _version(books) == before + 1, "routers learn of it by the version"
    await rate(books, "t-1", 2)
    assert (await _agents(books))["ann"] == 300, "quality control's holds before the caller's"
    before = await _version(books)
    await rate(books, "t-1", 1, RatingKind.CALLER)
    assert await _version(books) == before, "nothing has changed"
    made, _ = await report(books, said())
    await rate(books, made.id, 1)
    assert (await _agents(books))["ann"] == 300, "calls alone weigh"


async def test_only_the_last_hundred_rated_calls_weigh(books: Books) -> None:
    first = call("t-0", 30.0)
    await settle(books, first)
    base = (await rows(books))[0]
    values = {column.name: getattr(base, column.name) for column in table.columns if column.name != "checksum"}
    more = [
        values | {"kind": "call", "id": f"u-{n}", "reference": f"u-{n}", "checksum": "", "received_utc_us": UTC_0 + n}
        for n in range(1, 101)
    ]
    await books.write(lambda connection: connection.execute(insert(table), more).rowcount)
    await rate(books, "t-0", 1)
    for number in range(1, 101):
        await rate(books, f"u-{number}", 5)
    assert (await _agents(books))["ann"] == 500


async def test_an_import_leaves_an_earned_rating_alone(books: Books) -> None:
    await settle(books, call("t-1", 30.0))
    await rate(books, "t-1", 5)
    stored = await BookStore(books.engine).load()
    buyer = replace(stored.buyers["acme"], endpoints=AGENTS)
    again = await BookStore(books.engine).import_book(BookFile(buyers=(buyer,)))
    assert (again.unchanged, again.replaced) == (1, ())
    changed = replace(buyer, endpoints=(replace(AGENTS[0], rating_x100=100), replace(AGENTS[1], rating_x100=100)))
    await BookStore(books.engine).import_book(BookFile(buyers=(changed,)), replace=True)
    assert await _agents(books) == {"ann": 500, "bob": 100}


async def test_a_rating_for_an_endpoint_that_is_gone_harms_nothing(books: Books) -> None:
    await settle(books, call("t-1", 30.0, "zoe"))
    assert (await rate(books, "t-1", 5)).ratings
    found = await books.read(lambda connection: connection.execute(select(endpoints.c.name)).scalars().all())
    assert sorted(found) == ["ann", "bob"]


# --- asking who was served -------------------------------------------------------------------------------------------


async def test_customers_are_asked_once_where_the_buyer_wants_it(books: Books) -> None:
    made, _ = await report(books, said())
    await report(books, said())
    await settle(books, call("t-1", 30.0))
    found = await mails(books)
    assert [(one["message_id"], one["payload"]["to"]) for one in found] == [
        (f"{made.id}.rating", ["jo@example.org"]),
        ("t-1.rating", ["jo@example.org"]),
    ]
    letter = await RatingComposer(LINKS).compose(found[0]["payload"], books.clerk)
    assert letter.message_id == found[0]["message_id"]
    assert "https://baton.example/rate/" in letter.text
    assert "e-mail with Acme" in letter.subject
    with pytest.raises(NeverDeliverableError):
        await RatingComposer(None).compose(found[0]["payload"], books.clerk)


async def test_nobody_is_asked_where_the_buyer_does_not_want_it_or_there_are_no_links(books: Books) -> None:
    await serve(books, "bolt")
    await report(books, said(buyer="bolt"))
    await report(books, said("m-2"), ask=False)
    await report(books, said("m-3", customer="+12125550123"))
    await settle(books, call("t-1", 30.0, buyer="bolt"))
    await settle(books, call("t-2", 30.0), ask=False)
    assert await mails(books) == []


# --- daily reports ---------------------------------------------------------------------------------------------------


class Nights:
    """Reports over the books, by a clock to turn; `mailed` counts how often the outbox was woken."""

    def __init__(self, books: Books, folder: Path) -> None:
        self.now, self.mailed, self.folder = 0, 0, folder
        self.daily = DailyReports(
            books.engine, ReportOptions(folder, LINKS), clock=lambda: self.now, on_mail=self._count
        )

    def _count(self) -> None:
        self.mailed += 1

    async def look(self, when: str) -> None:
        self.now = at(when)
        await self.daily._look()

    async def run(self, when: str) -> list[tuple[str, str]]:
        return [(one.buyer, one.day) for one in await self.daily.run_once(at(when))]


@pytest.fixture
async def nights(books: Books, tmp_path: Path) -> AsyncIterator[Nights]:
    made = Nights(books, tmp_path / "reports")
    yield made
    await made.daily.close()


async def issued(books: Books) -> list[reports.Report]:
    return (await books.read(reports.read_all))[::-1]


async def test_a_report_is_stored_written_and_mailed_once(books: Books, nights: Nights) -> None:
    made, _ = await report(books, said())
    await rate(books, made.id, 4)
    assert await nights.run("2026-06-02 23:30") == [("acme", "2026-06-02")]
    assert await nights.run("2026-06-02 23:59") == []
    [one] = await issued(books)
    assert (one.body["resolved"], one.body["average_rating_x100"]) == (1, 400)
    assert (one.body["cost"], one.body["average_resolution_ms"]) == ([{"currency": "USD", "minor": 354}], 1_920_001)
    page, cells = (nights.folder / "acme" / f"2026-06-02.{form}" for form in ("html", "csv"))
    assert sorted(one.name for one in page.parent.iterdir()) == [cells.name, page.name], "no temporary file is left"
    assert (page.stat().st_mode & 0o777, "m-1" in cells.read_text()) == (0o600, True)
    assert "https://baton.example/interaction/" in page.read_text()
    message = (await mails(books))[-1]
    assert (message["message_id"], message["payload"]["to"]) == (
        "report-acme-2026-06-02.report",
        ["bills@acme.example"],
    )
    letter = await ReportComposer(LINKS).compose(message["payload"], books.clerk)
    assert (letter.subject, letter.message_id) == ("Acme: daily report of June 2, 2026", message["message_id"])
    assert letter.attachments[0].content == cells.read_bytes()
    assert "Interactions resolved: 1 of 1" in letter.text


async def test_it_goes_out_two_minutes_after_half_past_eleven(books: Books, nights: Nights) -> None:
    await report(books, said())
    await nights.look("2026-06-02 23:31")
    assert await issued(books) == []
    await nights.look("2026-06-02 23:32")
    assert [one.day for one in await issued(books)] == ["2026-06-02"]
    assert nights.mailed == 1


async def test_it_waits_for_what_is_not_settled_yet_but_not_past_midnight(books: Books, nights: Nights) -> None:
    await report(books, said())
    nights.daily._began_us = at("2026-06-02 08:00")
    await store(books.engine, call("t-1", 30.0))
    await nights.look("2026-06-02 23:54")
    assert await issued(books) == []
    await nights.look("2026-06-02 23:55")
    [one] = await issued(books)
    assert one.body["interactions"] == 1, "the call is not in it"
    await settle(books)
    await nights.run("2026-06-03 23:31")
    second = (await issued(books))[1]
    assert [(entry["id"], entry["late"]) for entry in second.body["list"]] == [("t-1", True)]


async def test_what_is_told_late_is_in_exactly_one_report(books: Books, nights: Nights) -> None:
    await report(books, said("m-1"))
    await nights.run("2026-06-02 23:31")
    await report(books, said("m-2"), "2026-06-03 08:00")
    await report(books, said("m-3", "2026-06-03"))
    for day in (3, 4, 5):
        await nights.run(f"2026-06-0{day} 23:31")
    listed = [[(entry["reference"], entry["late"]) for entry in one.body["list"]] for one in await issued(books)]
    assert listed == [[("m-1", False)], [("m-3", False), ("m-2", True)], [], []]


async def test_missed_days_are_caught_up_with_in_order_at_most_thirty_one(books: Books, nights: Nights) -> None:
    for day in (2, 3, 20):
        await report(books, said(f"m-{day}", f"2026-06-{day:02d}"))
    assert (await nights.run("2026-06-05 12:00")) == [("acme", f"2026-06-0{day}") for day in (2, 3, 4)]
    found = await nights.run("2026-08-01 12:00")
    assert (len(found), found[0], found[-1]) == (31, ("acme", "2026-07-01"), ("acme", "2026-07-31"))
    listed = [entry["reference"] for one in await issued(books) for entry in one.body["list"]]
    assert listed == ["m-2", "m-3", "m-20"], "of the days that are left out nothing is lost"


async def test_days_that_are_issued_together_share_nothing(books: Books, nights: Nights) -> None:
    for day in (2, 3, 4):
        await report(books, said(f"m-{day}", f"2026-06-0{day}"), "2026-06-04 23:29")
    await nights.run("2026-06-04 23:31")
    listed = [[entry["reference"] for entry in one.body["list"]] for one in await issued(books)]
    assert listed == [["m-2"], ["m-3"], ["m-4"]]


async def test_the_days_on_which_the_clock_changes_are_whole(books: Books, nights: Nights) -> None:
    for name, moment in (("a", "2026-10-31T23:29:59-04:00"), ("b", "2026-10-31T23:30:00-04:00")):
        await report(books, said(name, received_at=moment, started_at=moment, ended_at=moment), "2026-11-01 12:00")
    for name, moment in (("c", "2026-11-01T23:29:59-05:00"), ("d", "2026-11-01T23:30:00-05:00")):
        await report(books, said(name, received_at=moment, started_at=moment, ended_at=moment), "2026-11-02 12:00")
    await nights.run("2026-11-02 23:31")
    listed = {one.day: [entry["reference"] for entry in one.body["list"]] for one in await issued(books)}
    assert listed == {"2026-10-31": ["a"], "2026-11-01": ["b", "c"], "2026-11-02": ["d"]}


async def test_a_file_that_is_missing_is_written_again_as_it_was(books: Books, nights: Nights) -> None:
    await report(books, said())
    await nights.run("2026-06-02 23:31")
    page = nights.folder / "acme" / "2026-06-02.html"
    before = page.read_bytes()
    page.unlink()
    await nights.run("2026-06-03 00:10")
    assert page.read_bytes() == before


async def test_who_gets_reports(books: Books, nights: Nights) -> None:
    await books.agree("units", terms=replace(UNITS, name="units"))
    await serve(books, "gone", "quiet")
    await BookStore(books.engine).set_buyer_state("gone", BuyerState.CANCELLED, "test")
    await BookStore(books.engine).set_buyer_state("quiet", BuyerState.PAUSED, "test")
    assert await nights.run("2026-06-02 23:31") == [("acme", "2026-06-02")], "active, though nothing has happened"
    await report(books, said(buyer="gone", day="2026-06-03"))
    await report(books, said(buyer="quiet", day="2026-06-03"))
    assert ("gone", "2026-06-03") in await nights.run("2026-06-03 23:31")
    assert await nights.run("2026-06-04 23:31") == [("acme", "2026-06-04"), ("quiet", "2026-06-04")]


async def test_two_meters_issue_one_report(books: Books, nights: Nights, tmp_path: Path) -> None:
    await report(books, said())
    other = Nights(books, tmp_path / "other")
    both = await asyncio.gather(nights.run("2026-06-02 23:31"), other.run("2026-06-02 23:31"))
    assert sorted(map(len, both)) == [0, 1]
    assert [one["message_id"] for one in await mails(books)].count("report-acme-2026-06-02.report") == 1
    await other.daily.close()


async def test_the_loop_runs_until_told_to_stop(books: Books, nights: Nights) -> None:
    await report(books, said())
    nights.now = at("2026-06-03 00:00")
    stop = asyncio.Event()
    task = asyncio.create_task(nights.daily.run(stop))
    async with asyncio.timeout(20):
        while not (nights.folder / "acme" / "2026-06-02.csv").is_file():
            await asyncio.sleep(0.01)
    stop.set()
    await task
