"""Delivery is per recipient: every way in which a server may answer some and not others, through a real one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.letters.lead import LeadComposer
from meter.mail.channel import MailDeliverer
from meter.mail.message import MAX_RECIPIENTS, Letter, MailOptions
from meter.mail.sql.messages import bounces_of, find_mail, list_mail
from meter.mail.sql.recipients import Recipient, recipients_of, releasable, release, send_again, waiting
from meter.mail.waiting import Releaser
from meter.outbox.delivery import NeverDeliverableError, OutboxLoop, OutboxOptions
from meter.outbox.sql import prune
from meter.run import MeterOptions, run_meter
from meter.settling.follower import Follower
from meter.store.clerk import Clerk
from meter.store.schema import buyers, mail_recipients, outbox, outcomes
from telemetry import metrics
from tests.facts_builder import UTC_0, WESTLAKE, connected_story, failed_story
from tests.store.journal_tools import store
from tests.store.meter.mail.test_message import add_buyer
from tests.store.meter.outbox.test_delivery import DAY_US, now, queue, states
from tests.store.meter.settling.test_follower import free_story
from tests.store.smtp_sink import DROP, OK, Sink

A, B, C = (f"{name}@acme.example" for name in "abc")
KINDS = ("lead", "document", "hold", "credit", "rating", "report")
pytestmark = pytest.mark.net


class Composer:
    """Of any kind: a letter to those whom the order names."""

    async def compose(self, order: Mapping[str, Any], _clerk: Clerk) -> Letter:
        return Letter(tuple(order["to"]), "Subject", "text\n", "", (), str(order["id"]), UTC_0)


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.stop()


@pytest.fixture
async def clerk(engine: AsyncEngine) -> AsyncIterator[Clerk]:
    clerk = Clerk(engine)
    yield clerk
    await clerk.close()


class Meter:
    """The outbox of e-mails, turn by turn."""

    def __init__(self, engine: AsyncEngine, options: MailOptions, **composers: Any) -> None:
        self._engine = engine
        self._deliverer = MailDeliverer(
            engine, options, dict.fromkeys(KINDS, Composer()) | composers, OutboxOptions(first_retry_s=60)
        )
        self.loop = OutboxLoop(engine, self._deliverer)

    async def turn(self, *, hurry: bool = True) -> None:
        """One round, as if every pause had passed."""
        if hurry:
            async with self._engine.begin() as connection:
                await connection.execute(update(outbox).values(next_try_utc_us=0))
                await connection.execute(update(mail_recipients).values(next_try_utc_us=0))
        await self.loop.deliver_due()

    async def close(self) -> None:
        await self._deliverer.close()


async def add(engine: AsyncEngine, *to: str, kind: str = "document", message_id: str = "m-1") -> None:
    payload = orjson.dumps({"kind": kind, "id": message_id, "to": list(to)})
    await queue(engine, (message_id, message_id), payload=payload)


async def tried(clerk: Clerk, message_id: str = "m-1") -> dict[str, Recipient]:
    return await clerk.read(lambda connection: recipients_of(connection, message_id))


async def bounced(clerk: Clerk, message_id: str = "m-1") -> list[str]:
    return sorted(one.recipient for one in await clerk.read(lambda connection: bounces_of(connection, message_id)))


async def shown(clerk: Clerk, message_id: str = "m-1") -> str:
    row = await clerk.read(lambda connection: find_mail(connection, message_id))
    assert row is not None
    return row.state


# What a server may say to one of several, and what that recipient comes to when it says OK from then on.
RCPT = {OK: "taken", "450 4.2.0 greylisted": "taken", "451 4.3.0 later": "taken", "452 4.5.3 too many": "taken",
        "552 too many recipients": "taken", "550 5.1.1 no such user": "refused", "553 5.1.3 bad": "refused",
        DROP: "taken"}  # fmt: skip
DATA = {OK: "taken", "451 4.3.0 later": "taken", "452 4.3.1 full": "taken", DROP: "taken", "554 5.6.0 no": "refused"}


@pytest.mark.parametrize("data", DATA)
async def test_each_recipient_comes_to_what_the_server_said_to_it(
    engine: AsyncEngine, clerk: Clerk, sink: Sink, data: str
) -> None:
    """Whatever one is told, another that the server takes gets it, once, and nobody is forgotten."""
    meter = Meter(engine, sink.start())
    for number, (first, second) in enumerate(itertools.product(RCPT, RCPT)):
        sink.forget()
        sink.rcpt = {A: [first, OK], B: [second, OK]}
        sink.data = [data, OK]
        message_id = f"m-{number}"
        await add(engine, A, B, C, message_id=message_id)
        for _ in range(4):
            await meter.turn()
        found = await tried(clerk, message_id)
        for address, said in ((A, first), (B, second), (C, OK)):
            in_first_data = address in sink.transactions[0]
            wanted = DATA[data] if RCPT[said] == "taken" and in_first_data else RCPT[said]
            case = f"{address} of {first!r}, {second!r}, {data!r}"
            assert found[address].state == wanted, case
            assert len(sink.got.get(address, [])) == (1 if wanted == "taken" else 0), case
        refused = sorted(address for address, one in found.items() if one.state == "refused")
        assert await bounced(clerk, message_id) == refused
        ids = {message["Message-ID"] for messages in sink.got.values() for message in messages}
        assert ids <= {f"<{message_id}@operator.example>"}
        assert await shown(clerk, message_id) == ("dead" if len(refused) == 3 else "bounced" if refused else "done")
    await meter.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", ["451 4.3.0 later", "452 4.5.3 too many", "550 5.1.1 no such user"])
async def test_of_two_recipients_one_is_refused_whatever_kind_it_is(
    engine: AsyncEngine, clerk: Clerk, sink: Sink, kind: str, answer: str
) -> None:
    sink.rcpt = {B: [answer, OK]}
    meter = Meter(engine, sink.start())
    await add(engine, A, B, kind=kind)
    await meter.turn()
    for_now = answer.startswith("4")
    assert sink.count() == {A: 1}
    assert (await states(engine))["m-1"] == ("pending" if for_now else "done", 1)
    await meter.turn()
    await meter.close()
    assert sink.count() == ({A: 1, B: 1} if for_now else {A: 1})
    assert sink.asked == ([A, B, B] if for_now else [A, B])  # who has it is not even asked again
    assert await shown(clerk) == ("done" if for_now else "bounced")
    assert await bounced(clerk) == ([] if for_now else [B])
    if for_now:
        assert sink.got[A][0]["Message-ID"] == sink.got[B][0]["Message-ID"]
        assert sink.got[B][0]["To"] == f"{A}, {B}"


async def test_each_recipient_has_a_backoff_of_its_own(engine: AsyncEngine, clerk: Clerk, sink: Sink) -> None:
    sink.rcpt = {B: ["451 later"]}
    meter = Meter(engine, sink.start())
    await add(engine, A, B)
    await meter.turn()
    await meter.turn(hurry=False)
    assert sink.asked == [A, B]
    first = (await tried(clerk))[B]
    await meter.turn()
    second = (await tried(clerk))[B]
    await meter.close()
    assert (first.attempts, second.attempts) == (1, 2)
    assert 30_000_000 <= first.next_try_utc_us - first.at_utc_us <= 60_000_000
    assert 60_000_000 <= second.next_try_utc_us - second.at_utc_us <= 120_000_000


async def test_a_connection_lost_after_the_data_sends_it_again_under_the_same_id(
    engine: AsyncEngine, clerk: Clerk, sink: Sink
) -> None:
    sink.data = [DROP, OK]
    sink.rcpt = {B: ["550 5.1.1 no such user"]}
    meter = Meter(engine, sink.start())
    await add(engine, A, B)
    await meter.turn()
    assert (await tried(clerk))[A].state == "retried"
    await meter.turn()
    await meter.close()
    assert sink.transactions == [[A], [A]]
    assert sink.count() == {A: 1}
    assert await bounced(clerk) == [B]


async def test_after_a_crash_between_the_reply_and_the_outbox_nobody_gets_it_twice(
    engine: AsyncEngine, sink: Sink
) -> None:
    meter = Meter(engine, sink.start())
    await add(engine, A, B)
    await meter.turn()
    async with engine.begin() as connection:  # as if the meter had died before it noted that the message is done
        await connection.execute(update(outbox).values(state="pending"))
    await meter.turn()
    await meter.close()
    assert sink.count() == {A: 1, B: 1}
    assert (await states(engine))["m-1"][0] == "done"


async def test_an_address_that_is_none_stops_nobody_else(engine: AsyncEngine, clerk: Clerk, sink: Sink) -> None:
    wrong = ["nobody", "a@b\r\nBcc: c@d.example", "@acme.example", "a b@acme.example", ""]
    meter = Meter(engine, sink.start())
    await add(engine, *wrong, A, wrong[0], A)
    await meter.turn()
    await meter.close()
    assert sink.count() == {A: 1}
    assert sink.got[A][0]["To"] == A
    assert await bounced(clerk) == sorted(wrong)
    assert await shown(clerk) == "bounced"


@pytest.mark.parametrize("utf8", [True, False])
async def test_an_address_beyond_ascii_goes_to_servers_that_take_it_and_stops_nobody_else(
    engine: AsyncEngine, clerk: Clerk, utf8: bool
) -> None:
    wide = "j\u00fcrgen@acme.example"
    sink = Sink(utf8=utf8)
    meter = Meter(engine, sink.start())
    await add(engine, wide, A, "leads@b\u00fccher.example")
    await meter.turn()
    await meter.close()
    sink.stop()
    everybody = {A: 1, "leads@xn--bcher-kva.example": 1}
    assert sink.count() == (everybody | {wide: 1} if utf8 else everybody)
    assert (await tried(clerk))[wide].state == ("taken" if utf8 else "refused")
    assert await bounced(clerk) == ([] if utf8 else [wide])
    if utf8:
        assert wide in sink.got[wide][0]["To"]
        assert sink.got[wide][0]["Message-ID"] == sink.got[A][0]["Message-ID"]


async def test_more_than_fit_one_transaction_all_get_it(engine: AsyncEngine, sink: Sink) -> None:
    everybody = [f"{number}@acme.example" for number in range(2 * MAX_RECIPIENTS + 7)]
    meter = Meter(engine, sink.start())
    await add(engine, *everybody)
    await meter.turn()
    await meter.close()
    assert sink.count() == dict.fromkeys(everybody, 1)
    assert max(map(len, sink.transactions)) == MAX_RECIPIENTS


async def test_who_was_put_off_for_five_days_is_given_up_and_can_be_sent_it_again(
    engine: AsyncEngine, clerk: Clerk, sink: Sink
) -> None:
    sink.rcpt = {B: ["451 later", "451 later", OK]}
    meter = Meter(engine, sink.start())
    await add(engine, A, B)
    await meter.turn()
    async with engine.begin() as connection:
        await connection.execute(update(outbox).values(created_utc_us=now() - 6 * DAY_US))
    await meter.turn()
    assert await shown(clerk) == "dead"
    await again(clerk, None)
    await meter.turn()
    await meter.close()
    assert sink.count() == {A: 1, B: 1}


async def again(clerk: Clerk, to: list[str] | None) -> None:
    row = await clerk.read(lambda connection: find_mail(connection, "m-1"))
    assert row is not None
    assert await clerk.write(lambda connection: send_again(connection, row, to, "jo", now()))


async def test_sending_again_goes_to_those_who_did_not_get_it(engine: AsyncEngine, clerk: Clerk, sink: Sink) -> None:
    sink.rcpt = {B: ["550 no such user", OK]}
    meter = Meter(engine, sink.start())
    await add(engine, A, B)
    await meter.turn()
    await again(clerk, None)
    await meter.turn()
    assert sink.count() == {A: 1, B: 1}
    await again(clerk, None)  # all have it: all get it again
    await meter.turn()
    assert sink.count() == {A: 2, B: 2}
    await again(clerk, [A, C])  # named by hand
    await meter.turn()
    await meter.close()
    assert sink.count() == {A: 3, B: 2, C: 1}


async def test_rows_of_recipients_go_with_their_message(engine: AsyncEngine, clerk: Clerk, sink: Sink) -> None:
    meter = Meter(engine, sink.start())
    await add(engine, A)
    await meter.turn()
    await meter.close()
    assert await clerk.write(lambda connection: prune(connection, now() + 1, 50)) == 1
    assert await tried(clerk) == {}


# A lead that nobody can be sent (domain, section 7): it waits for an address


async def set_leads(engine: AsyncEngine, *to: str) -> None:
    async with engine.begin() as connection:
        document = orjson.dumps({"lead_emails": list(to)})
        await connection.execute(update(buyers).where(buyers.c.name == "acme").values(document=document))


async def release_now(clerk: Clerk) -> int:
    due = await clerk.read(releasable)
    return await clerk.write(lambda connection: release(connection, due, now()))


@pytest.fixture
async def meter(engine: AsyncEngine, sink: Sink) -> AsyncIterator[Meter]:
    await store(engine, failed_story())
    meter = Meter(engine, sink.start(), lead=LeadComposer())
    yield meter
    await meter.close()


async def add_lead(engine: AsyncEngine, **order: Any) -> None:
    payload = orjson.dumps({"transfer": "t-1", **order})
    await queue(engine, ("t-1", "t-1.lead"), payload=payload)


@pytest.mark.parametrize("order", [{}, {"to": []}, {"to": None}, {"to": "a@b.example"}])
async def test_a_lead_of_a_buyer_without_an_address_waits_for_one(
    engine: AsyncEngine, clerk: Clerk, sink: Sink, meter: Meter, order: dict[str, Any]
) -> None:
    await add_buyer(engine, b"{}")
    await add_lead(engine, **order)
    await meter.turn()
    assert await states(engine) == {"t-1.lead": ("waiting", 0)}
    [one] = await clerk.read(waiting)
    assert (one.buyer, one.field, one.messages) == ("acme", "lead_emails", 1)
    [listed] = await clerk.read(lambda connection: list_mail(connection, "waiting", 10))
    assert "acme has no lead_emails" in listed.error
    assert await release_now(clerk) == 0
    await set_leads(engine, A)
    assert await release_now(clerk) == 1
    await meter.turn()
    assert sink.count() == {A: 1}
    assert await states(engine) == {"t-1.lead": ("done", 1)}
    assert await clerk.read(waiting) == []


async def test_a_lead_whose_addresses_all_refuse_it_goes_to_the_buyers_present_ones_and_else_waits(
    engine: AsyncEngine, clerk: Clerk, sink: Sink, meter: Meter
) -> None:
    sink.rcpt = {A: ["550 no such user"], B: ["550 no such user"]}
    await add_buyer(engine, orjson.dumps({"lead_emails": [A, B]}))
    await add_lead(engine, to=[A])
    await meter.turn()
    assert sink.asked == [A, B]
    assert (await states(engine))["t-1.lead"][0] == "waiting"
    assert await release_now(clerk) == 0  # both have refused it
    await set_leads(engine, A, C)
    assert await release_now(clerk) == 1
    await meter.turn()
    assert sink.count() == {C: 1}
    assert sink.asked == [A, B, C]
    assert (await states(engine))["t-1.lead"][0] == "done"


async def test_addresses_that_are_removed_while_a_lead_is_queued_lose_nothing(
    engine: AsyncEngine, clerk: Clerk, sink: Sink, meter: Meter
) -> None:
    await add_buyer(engine, orjson.dumps({"lead_emails": [A]}))
    await add_lead(engine)
    await set_leads(engine)
    await meter.turn()
    assert (await states(engine))["t-1.lead"][0] == "waiting"
    await set_leads(engine, B)
    assert await release_now(clerk) == 1
    await meter.turn()
    assert sink.count() == {B: 1}


async def test_what_is_sent_by_hand_goes_to_nobody_else(
    engine: AsyncEngine, clerk: Clerk, sink: Sink, meter: Meter
) -> None:
    sink.rcpt = {C: ["550 no such user"]}
    await add_buyer(engine, orjson.dumps({"lead_emails": [A]}))
    await add_lead(engine, to=[C], only=True)
    await meter.turn()
    assert sink.asked == [C]
    assert (await states(engine))["t-1.lead"][0] == "dead"
    assert await clerk.read(waiting) == []


async def settled(engine: AsyncEngine, *stories: Any) -> None:
    await store(engine, *stories)
    follower = Follower(engine)
    await follower.catch_up()
    await follower.close()


async def test_a_failed_transfer_of_a_buyer_without_an_address_waits_from_the_outcome_on(
    engine: AsyncEngine, clerk: Clerk, sink: Sink
) -> None:
    """Charged and kept in one transaction, told of by metric and list, and sent once there is an address."""
    by_minute = WESTLAKE | {"name": "customer-success", "rating": "minute"}
    await settled(
        engine,
        failed_story("t-1", lead_emails=[]),
        failed_story("t-2", lead_emails=[], terms=by_minute),  # who pays by the minute pays no failed unit
        free_story("t-3"),
        connected_story("t-4", lead_emails=[]),
    )
    assert await states(engine) == {"t-1.lead": ("waiting", 0)}
    await add_buyer(engine, b"{}")
    releaser = Releaser(engine)
    assert await releaser.look() == 0
    assert metrics.MAIL_WAITING.labels("lead")._value.get() == 1
    await set_leads(engine, A)
    assert await releaser.look() == 1
    assert metrics.MAIL_WAITING.labels("lead")._value.get() == 0
    meter = Meter(engine, sink.start(), lead=LeadComposer())
    await meter.turn()
    await meter.close()
    assert sink.count() == {A: 1}


@pytest.mark.parametrize(
    ("story", "settled_as", "gets"), [(connected_story, "failed", True), (failed_story, "free", False)]
)
async def test_a_lead_is_the_buyers_by_what_its_transfer_was_settled_as(
    engine: AsyncEngine, clerk: Clerk, story: Any, settled_as: str, gets: bool
) -> None:
    """A release that has mended a rule decides old facts otherwise; the charge stands, and the lead goes with it."""
    await settled(engine, story("t-1", lead_emails=[A]))
    async with engine.begin() as connection:
        await connection.execute(update(outcomes).values(counts_as=settled_as))
    try:
        letter = await LeadComposer().compose({"transfer": "t-1", "to": [A]}, clerk)
    except NeverDeliverableError:
        assert not gets
    else:
        assert (gets, letter.to) == (True, (A,))


async def test_without_a_mail_server_leads_wait_in_the_outbox_until_there_is_one(
    url: str, engine: AsyncEngine, sink: Sink
) -> None:
    await add_buyer(engine, orjson.dumps({"lead_emails": [A]}))
    await settled(engine, failed_story("t-1", lead_emails=[A]))
    bare, stop = MeterOptions(url, poll_ms=10), asyncio.Event()
    running = asyncio.create_task(run_meter(bare, stop))
    await asyncio.sleep(0.5)
    stop.set()
    await running
    assert await states(engine) == {"t-1.lead": ("pending", 0)}
    stop = asyncio.Event()
    running = asyncio.create_task(run_meter(replace(bare, mail=sink.start()), stop))
    async with asyncio.timeout(20):
        while not sink.got:
            await asyncio.sleep(0.02)
    stop.set()
    await running
    assert sink.count() == {A: 1}
