"""Bounces: told from other mail, attributed to the message they are about, kept once; and what means harm."""

from __future__ import annotations

import quopri
import time
from base64 import encodebytes
from typing import Any

import orjson
import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.letters.lead import LeadComposer
from meter.mail.bounces import LOOKED_AT, BounceRecord, Report, envelope_sender, read_report, record_report
from meter.mail.channel import MailDeliverer
from meter.mail.message import MailOptions
from meter.mail.sql.messages import bounce_counts, bounces_of, find_mail, list_mail
from meter.mail.sql.recipients import send_again
from meter.outbox.delivery import OutboxLoop
from meter.outbox.sql import Message, prune
from meter.settling.watch import show_bounces
from meter.store.clerk import Clerk
from meter.store.money_schema import mail_bounces
from meter.store.schema import outbox
from telemetry import metrics
from tests.facts_builder import failed_story
from tests.store.journal_tools import store
from tests.store.meter.mail.test_message import Wire, wire
from tests.store.meter.outbox.test_delivery import now, queue, states

__all__ = ["wire"]  # the fixture

OPTIONS = MailOptions(
    host="h",
    sender="leads@operator.example",
    bounce_address="bounces@operator.example",
    bounce_secret="a secret of enough length",
)
PLAIN = MailOptions(host="h", sender="leads@operator.example", bounce_address="bounces@operator.example")
UNKNOWN_USER = """Final-Recipient: rfc822; leads@acme.example
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <leads@acme.example>: no such
 user here"""
DAY_US = 24 * 3600 * 1_000_000


def dsn(
    to: str = "bounces@operator.example",
    *recipients: str,
    returned: str = "Message-ID: <t-1.lead@operator.example>\nX-Baton-Message: t-1.lead",
    about: str = "Reporting-MTA: dns; mx.acme.example",
    head: str = "",
    kind: str = "message/delivery-status",
) -> bytes:
    """A report as Postfix makes it."""
    told = recipients or (UNKNOWN_USER,)
    groups = "\n\n".join((about, *told))
    return f"""Return-Path: <>
Date: Tue, 2 Jun 2026 14:05:00 +0000
From: MAILER-DAEMON@acme.example
To: {to}
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Message-ID: <bounce-1@acme.example>
{head}Content-Type: multipart/report; report-type=delivery-status; boundary="frontier"

This is a MIME-encapsulated message.

--frontier
Content-Type: text/plain; charset=us-ascii

I could not deliver your message.

--frontier
Content-Type: {kind}

{groups}

--frontier
Content-Type: text/rfc822-headers

From: leads@operator.example
{returned}

--frontier--
""".encode()


def reading(raw: bytes, options: MailOptions = OPTIONS) -> Report:
    report = read_report(raw, options)
    assert report is not None
    return report


async def take(engine: AsyncEngine, raw: bytes, options: MailOptions = OPTIONS) -> list[BounceRecord]:
    clerk = Clerk(engine)
    try:
        return await record_report(reading(raw, options), options, clerk, now())
    finally:
        await clerk.close()


async def sent(engine: AsyncEngine, *message_ids: str) -> dict[str, str]:
    """Rows that were handed to the server; the envelope sender of each."""
    await queue(engine, *((one, one) for one in message_ids), state="done", done_utc_us=now())
    async with engine.connect() as connection:
        found = (await connection.execute(select(outbox.c.message_id, outbox.c.id))).all()
    return {row.message_id: envelope_sender(OPTIONS, as_message(row.id, row.message_id)) for row in found}


def as_message(number: int, message_id: str) -> Message:
    return Message(number, "mail", "k", message_id, b"{}", 0, 0)


async def rows(engine: AsyncEngine) -> list[Any]:
    async with engine.connect() as connection:
        return list((await connection.execute(select(mail_bounces).order_by(mail_bounces.c.id))).all())


async def asked(engine: AsyncEngine, work: Any) -> Any:
    clerk = Clerk(engine)
    try:
        return await clerk.write(work)
    finally:
        await clerk.close()


@pytest.mark.net
async def test_a_report_to_the_address_in_the_envelope_finds_its_message(
    engine: AsyncEngine, wire: tuple[Wire, dict[str, Any]]
) -> None:
    box, given = wire
    await store(engine, failed_story())
    payload = orjson.dumps({"transfer": "t-1", "to": ["leads@acme.example"]})
    await queue(engine, ("t-0", "t-0.lead"), state="done")
    await queue(engine, ("t-1", "t-1.lead"), payload=payload)
    deliverer = MailDeliverer(
        engine,
        MailOptions(**given, bounce_address=OPTIONS.bounce_address, bounce_secret=OPTIONS.bounce_secret),
        {"lead": LeadComposer()},
    )
    await OutboxLoop(engine, deliverer).deliver_due()
    await deliverer.close()
    [(sender, _)] = box.envelopes
    assert sender.startswith("bounces+")
    assert sender.endswith("@operator.example")
    assert len(sender.partition("@")[0]) <= 64
    shouted = sender.upper()  # some servers do
    [done] = await take(engine, dsn(f"<{shouted}>", returned="Subject: nothing of ours"))
    assert (done.row.message_id, done.is_new) == ("t-1.lead", True)
    [row] = await rows(engine)
    assert (row.recipient, row.permanent, row.status) == ("leads@acme.example", True, "5.1.1")
    assert row.diagnostic == "550 5.1.1 <leads@acme.example>: no such user here"


@pytest.mark.parametrize("header", ["Delivered-To", "X-Original-To", "Envelope-To"])
async def test_the_token_is_found_where_the_server_writes_it(engine: AsyncEngine, header: str) -> None:
    senders = await sent(engine, "t-0.lead", "t-1.lead")
    raw = dsn("postmaster@operator.example", returned="X: y", head=f"{header}: {senders['t-0.lead']}\n")
    [done] = await take(engine, raw)
    assert done.row.message_id == "t-0.lead"


async def test_a_forged_token_is_about_no_message_whatever_it_returns(engine: AsyncEngine) -> None:
    senders = await sent(engine, "t-0.lead", "t-1.lead")
    token = senders["t-1.lead"].partition("+")[2].partition("@")[0]
    number, tag = token[:-16], token[-16:]
    other = senders["t-0.lead"].partition("+")[2].partition("@")[0][:-16]
    for forged in (
        number + "a" * 16,
        other + tag,  # a true tag at another row
        "7fff" + tag,
        "f" * 16 + tag,
        tag,
        "x",
        number + tag[:-1],
    ):
        [done] = await take(engine, dsn(f"bounces+{forged}@operator.example", head=f"X-Case: {forged}\n"))
        assert done.row.message_id == "", forged
    assert await asked(engine, lambda connection: list_mail(connection, "bounced", 10)) == []


async def test_a_token_holds_for_its_message_alone_also_when_row_numbers_come_again(engine: AsyncEngine) -> None:
    senders = await sent(engine, "t-1.lead")
    async with engine.begin() as connection:
        await connection.execute(update(outbox).values(message_id="t-2.lead"))
    [done] = await take(engine, dsn(senders["t-1.lead"], returned="X: y"))
    assert done.row.message_id == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"returned": "Message-ID: <t-1.lead@operator.example>"},
        {"returned": "X-Baton-Message: t-1.lead"},
        {"returned": "X: y", "about": "Original-Message-ID: <t-1.lead@operator.example>"},
        {"returned": "X: y", "head": "In-Reply-To: <t-1.lead@Operator.Example>\n"},
    ],
)
async def test_without_a_token_the_message_is_found_by_its_id(engine: AsyncEngine, settings: dict[str, str]) -> None:
    await sent(engine, "t-1.lead")
    [done] = await take(engine, dsn(**settings), PLAIN)
    assert done.row.message_id == "t-1.lead"


async def test_an_id_that_is_not_ours_is_about_no_message(engine: AsyncEngine) -> None:
    await sent(engine, "t-1.lead")
    for returned in ("Message-ID: <t-1.lead@evil.example>", "Message-ID: <t-9.lead@operator.example>", "X: y"):
        [done] = await take(engine, dsn(returned=returned), PLAIN)
        assert done.row.message_id == "", returned


@pytest.mark.parametrize(
    ("fields", "permanent"),
    [
        ("Action: failed\nStatus: 5.1.1", True),
        ("Action: delayed\nStatus: 4.4.1", False),
        ("Action: Failed\nStatus: 4.4.7", True),  # given up after days of trying
        ("Action: delayed\nStatus: 5.0.0", False),
        ("Status: 4.2.2", False),
        ("Status: 5.2.2 (mailbox full)", True),
        ("Action: unheard-of\nStatus: 5.0.0", True),
        ("Action: failed", True),
    ],
)
def test_the_action_says_whether_it_is_for_good(fields: str, permanent: bool) -> None:
    [failed] = reading(dsn("x@y.example", f"Final-Recipient: rfc822; a@b.example\n{fields}")).failed
    assert (failed.recipient, failed.permanent) == ("a@b.example", permanent)


def test_success_is_a_report_without_a_failure() -> None:
    for action in ("delivered", "relayed", "expanded"):
        told = f"Final-Recipient: rfc822; a@b.example\nAction: {action}\nStatus: 2.0.0"
        assert reading(dsn("x@y.example", told)).failed == ()


async def test_a_repeat_is_one_and_another_recipient_is_another(engine: AsyncEngine) -> None:
    senders = await sent(engine, "t-1.lead")
    two = ("Final-Recipient: rfc822; a@b.example\nStatus: 5.0.0", "Final-Recipient: rfc822; c@d.example\nStatus: 4.0.0")
    raw = dsn(senders["t-1.lead"], *two)
    assert [one.is_new for one in await take(engine, raw)] == [True, True]
    again = b"Received: from elsewhere by us; Tue, 2 Jun 2026 15:00:00 +0000\n" + raw
    assert [one.is_new for one in await take(engine, again)] == [False, False]
    assert [(row.recipient, row.permanent) for row in await rows(engine)] == [
        ("a@b.example", True),
        ("c@d.example", False),
    ]
    kept = await asked(engine, lambda connection: bounces_of(connection, "t-1.lead"))
    assert [one.recipient for one in kept] == ["a@b.example", "c@d.example"]


def test_reports_in_utf8_are_read() -> None:
    [failed] = reading(dsn(kind="message/global-delivery-status")).failed
    assert (failed.recipient, failed.permanent, failed.status) == ("leads@acme.example", True, "5.1.1")


def test_the_older_habit_is_read() -> None:
    raw = (
        b"From: Mailer-Daemon@x.example\nTo: bounces@operator.example\nX-Failed-Recipients: a@b.example, c@d.example\n"
        b"Message-ID: <e@x>\n\nA message could not be delivered: 550 5.1.1 unknown\n"
    )
    assert [(one.recipient, one.permanent, one.status) for one in reading(raw).failed] == [
        ("a@b.example", True, "5.1.1"),
        ("c@d.example", True, "5.1.1"),
    ]


VACATION = b"""From: jo@acme.example
To: bounces+1aaaaaaaaaaaaaaaa@operator.example
Subject: Out of office
Auto-Submitted: auto-replied
In-Reply-To: <t-1.lead@operator.example>

I am away until 5.1.2026. Status: 5.1.1
"""


def nested(depth: int) -> bytes:
    head = b"To: bounces@operator.example\n"
    levels = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (one, one) for one in range(depth))
    return head + levels + b"Content-Type: message/delivery-status\n\nX: y\n\nStatus: 5.0.0\n" + b"x\n" * 200_000


HOSTILE = {
    "empty": b"",
    "zeros": b"\0" * 100_000,
    "noise": bytes(range(256)) * 4_000,
    "no headers": b"\n\nStatus: 5.1.1\n",
    "away": VACATION,
    "deep": nested(20_000),
    "deep messages": b"To: x@y.example\n" + b"Content-Type: message/rfc822\n\n" * 20_000,
    "deep digests": b"".join(
        b'Content-Type: multipart/digest; boundary="%d"\n\n--%d\n\n' % (n, n) for n in range(9_000)
    ),
    "many lines": b"a\n" * 2_000_000,
    "one line": b"X-Failed-Recipients-Not: " + b"a," * 2_000_000,
    "report of nothing": b"Content-Type: multipart/report; boundary=b\n\n--b\n\n--b--\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_report_is_none_and_soon_said(name: str) -> None:
    began = time.monotonic()
    assert read_report(HOSTILE[name], OPTIONS) is None
    assert time.monotonic() - began < 10


def test_only_a_reports_beginning_and_only_few_parts_are_looked_at() -> None:
    assert read_report(nested(3), OPTIONS) is not None
    assert read_report(nested(39), OPTIONS) is not None
    assert read_report(nested(40), OPTIONS) is None
    late = nested(3).replace(b"Content-Type: message/", b"x\n" * LOOKED_AT + b"--b2\nContent-Type: message/")
    assert read_report(late, OPTIONS) is None


def test_as_many_parts_as_are_looked_at_take_seconds_at_most() -> None:
    began = time.monotonic()
    read_report(nested(38), OPTIONS)
    assert time.monotonic() - began < 15


async def test_hostile_words_of_a_report_stay_words(engine: AsyncEngine) -> None:
    senders = await sent(engine, "t-1.lead")
    told = (
        "Final-Recipient: rfc822; a\x1b[2J\u202e@b.example\nAction: failed\nStatus: 5.1.1" + "1" * 500 + "\n"
        "Diagnostic-Code: smtp; '; DROP TABLE outbox; --\x00\x07" + "x" * 10_000
    )
    raw = dsn(senders["t-1.lead"], told).replace(b"charset=us-ascii", b"charset=no-such-thing")
    raw = raw.replace(b"I could not", b"\xff\xfe I could not")
    [done] = await take(engine, raw)
    row = done.row
    assert row.message_id == "t-1.lead"
    assert row.recipient.isprintable()
    assert "\u202e" not in row.recipient
    assert len(row.diagnostic) <= 500
    assert len(row.status) <= 16
    assert row.diagnostic.startswith("'; DROP TABLE")
    assert (await states(engine))["t-1.lead"][0] == "done"


@pytest.mark.parametrize("charset", ["no-such-thing", "utf-16", "utf-7", "base64", "\xff"])
def test_a_charset_that_is_wrong_or_unknown_does_not_matter(charset: str) -> None:
    raw = dsn().decode().replace("text/plain; charset=us-ascii", f"text/plain; charset={charset}")
    raw = raw.replace("text/rfc822-headers", f"text/rfc822-headers; charset={charset}")
    report = reading(raw.encode("latin-1"))
    assert report.failed[0].recipient == "leads@acme.example"
    assert report.candidates[0] == "t-1.lead"


def test_a_long_returned_message_is_not_looked_at() -> None:
    raw = dsn() + b"x" * (5 * LOOKED_AT)
    assert reading(raw).failed[0].status == "5.1.1"


def test_a_report_of_a_thousand_recipients_is_cut() -> None:
    told = [f"Final-Recipient: rfc822; a{number}@b.example\nStatus: 5.0.0" for number in range(1_000)]
    assert len(reading(dsn("x@y.example", *told)).failed) == 50


async def test_a_bounced_lead_is_listed_until_it_is_sent_again_and_outlives_the_others(engine: AsyncEngine) -> None:
    senders = await sent(engine, "t-1.lead", "t-2.lead", "t-3.lead")
    await take(engine, dsn(senders["t-1.lead"]))
    told = "Final-Recipient: rfc822; a@b.example\nAction: delayed\nStatus: 4.4.1"
    await take(engine, dsn(senders["t-2.lead"], told))

    async def listed(state: str) -> list[str]:
        found = await asked(engine, lambda connection: list_mail(connection, state, 10))
        return sorted(one.message_id for one in found)

    assert await listed("bounced") == ["t-1.lead"]
    assert await listed("done") == ["t-2.lead", "t-3.lead"]
    row = await asked(engine, lambda connection: find_mail(connection, "t-1.lead"))
    assert (row.state, row.error) == ("bounced", "5.1.1 550 5.1.1 <leads@acme.example>: no such user here")
    assert await asked(engine, lambda connection: prune(connection, now() + 30 * DAY_US, 50)) == 2
    assert await listed("") == ["t-1.lead"]
    to = ["new@acme.example"]
    assert await asked(engine, lambda connection: send_again(connection, row, to, "jo", now())) is True
    assert await asked(engine, lambda connection: send_again(connection, row, to, "jo", now())) is False
    assert await listed("bounced") == []
    row = await asked(engine, lambda connection: find_mail(connection, "t-1.lead"))
    assert (row.state, row.to, row.order["resent"]["by"]) == ("pending", ("new@acme.example",), "jo")
    async with engine.begin() as connection:
        await connection.execute(update(outbox).values(state="done", done_utc_us=now()))
    assert await listed("bounced") == []  # the report was about the time before


async def test_the_gauge_counts_recipients_of_the_last_days(engine: AsyncEngine) -> None:
    await take(engine, dsn())
    await take(engine, dsn("x@y.example", "Final-Recipient: rfc822; a@b.example\nAction: delayed"))
    assert await asked(engine, lambda connection: bounce_counts(connection, now() - DAY_US)) == (1, 1)
    assert await asked(engine, lambda connection: bounce_counts(connection, now() + DAY_US)) == (0, 0)
    show_bounces(3, 1)
    assert metrics.MAIL_BOUNCES.labels("yes")._value.get() == 3
    assert metrics.MAIL_BOUNCES.labels("no")._value.get() == 1


def test_without_a_secret_or_a_row_the_bounce_address_stands_plain() -> None:
    assert envelope_sender(PLAIN, as_message(1, "t-1.lead")) == "bounces@operator.example"
    assert envelope_sender(OPTIONS, None) == "bounces@operator.example"
    token = envelope_sender(OPTIONS, as_message(2**62, "t-1.lead")).partition("@")[0]
    assert len(token) <= 64  # RFC 5321 section 4.5.3.1.1


async def test_a_message_whose_letter_has_another_id_is_found_by_its_token(engine: AsyncEngine) -> None:
    senders = await sent(engine, "weekly:acme")
    [done] = await take(engine, dsn(senders["weekly:acme"], returned="Message-ID: <weekly.acme@operator.example>"))
    assert done.row.message_id == "weekly:acme"


@pytest.mark.parametrize("how", ["7bit", "8bit", "base64", "BASE64", "quoted-printable", ""])
@pytest.mark.parametrize("kind", ["message/delivery-status", "message/global-delivery-status"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_status_that_a_server_has_encoded_is_read_all_the_same(how: str, kind: str, end: str) -> None:
    """It is never to be (RFC 3464 section 2.1), and is; so are the returned headers."""
    plain = dsn(kind=kind).decode()
    status = f"Reporting-MTA: dns; mx.acme.example\n\n{UNKNOWN_USER}\n"
    assert status in plain
    encoded = {"base64": encodebytes, "quoted-printable": quopri.encodestring}.get(how.lower(), bytes)(status.encode())
    said = f"Content-Transfer-Encoding: {how}\n" if how else ""
    raw = plain.replace(f"{kind}\n\n{status}", f"{kind}\n{said}\n{encoded.decode()}").replace("\n", end).encode()
    report = reading(raw)
    assert [(one.recipient, one.permanent, one.status) for one in report.failed] == [
        ("leads@acme.example", True, "5.1.1")
    ]
    assert report.candidates == ("t-1.lead",)


def test_a_status_that_cannot_be_decoded_says_nothing() -> None:
    plain = dsn().decode()
    raw = plain.replace("delivery-status\n\n", "delivery-status\nContent-Transfer-Encoding: base64\n\n").encode()
    assert reading(raw).failed == ()
