"""The lead's e-mail, through a real SMTP server, and with fields that mean harm."""

from __future__ import annotations

import csv
import io
import socket
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import EndCause, Party
from meter.letters.lead import LeadComposer, fields_csv, render_lead
from meter.mail.channel import MailDeliverer
from meter.mail.message import MailOptions, to_message
from meter.outbox.delivery import DeliveryError, NeverDeliverableError, NobodyError, OutboxLoop
from meter.outbox.sql import Message
from meter.settling.follower import Follower
from meter.text.links import BadLinkError, LinkOptions, credit_link, read_credit_token
from tests.facts_builder import UTC_0, WESTLAKE, Story, failed_story
from tests.store.journal_tools import store
from tests.store.meter.outbox.test_delivery import states

LINK = LinkOptions("https://portal.example/baton", "a secret of enough length")
OPTIONS = MailOptions(host="127.0.0.1", sender="leads@operator.example", reply_to="desk@operator.example")


class Mailbox:
    """An SMTP server that keeps what it gets, or answers as told."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.to: list[list[str]] = []
        self.answer = "250 OK"
        self.rcpt_answer = "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if self.rcpt_answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt_answer

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.messages.append(message_from_bytes(envelope.content, policy=default))  # type: ignore[arg-type]
            self.to.append(envelope.rcpt_tos)
        return self.answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def mailbox() -> AsyncIterator[tuple[Mailbox, MailOptions]]:
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield box, MailOptions(host="127.0.0.1", port=controller.port, sender=OPTIONS.sender, security="none")
    controller.stop()


def parts(message: EmailMessage) -> tuple[str, str, list[list[str]]]:
    """Text, HTML and the CSV's rows."""
    text = message.get_body(("plain",))
    html = message.get_body(("html",))
    assert text is not None
    assert html is not None
    attachment = next(message.iter_attachments())
    rows = list(csv.reader(io.StringIO(attachment.get_content())))
    return text.get_content(), html.get_content(), rows


def render(**start: Any) -> EmailMessage:
    return lead(failed_story(**start))


def lead(story: Story, link: LinkOptions | None = LINK, locale: str = "en_US") -> EmailMessage:
    return read_again(to_message(render_lead(story.facts, ["leads@acme.example"], link, locale), OPTIONS))


def read_again(message: EmailMessage) -> EmailMessage:
    """As the buyer's mail program reads it."""
    return message_from_bytes(message.as_bytes(), policy=default)  # type: ignore[return-value, arg-type]


def test_the_headers_are_those_of_an_automatic_message_with_a_stable_id() -> None:
    message = render()
    assert message["From"] == "leads@operator.example"
    assert message["To"] == "leads@acme.example"
    assert message["Reply-To"] == "desk@operator.example"
    assert message["Message-ID"] == "<t-1.lead@operator.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime.timestamp() == UTC_0 / 1_000_000 + 30
    assert message["Subject"] == "Lead of a failed transfer, Jun 2, 2026, 9:59 AM EDT (declined)"
    assert message["X-Baton-Message"] == "t-1.lead"


def test_text_html_and_csv_all_carry_the_lead_the_reason_and_the_link() -> None:
    text, html, rows = parts(render())
    link = credit_link(LINK, "t-1", "acme")
    for body in (text, html):
        assert "Jo Doe" in body
        assert "failed" in body
        assert "declined" in body
        assert "30,000 ms" in body
        assert link in body.replace("&amp;", "&")
    assert rows == [["name", "phone", "email", "address"], ["Jo Doe", "+12125550123", "jo@example.org", "1 Main St"]]


def test_the_times_of_every_leg_prove_it() -> None:
    text, _, _ = parts(render())
    assert "Dial-out: June 2, 2026, 10:00:00 AM EDT" in text
    desk_1, desk_2 = text.split("desk-1 (trunk)")[1].split("desk-2 (trunk)")
    assert [line.split()[-1] for line in desk_1.strip().splitlines()[:3]] == ["0.000", "1.200", "-"]
    assert "8.000  by the buyer, 486 Busy Here" in desk_1
    assert "1.900" in desk_2
    assert "30.000  by us, 487 Request Terminated" in desk_2


def test_the_hour_is_that_of_the_contract() -> None:
    message = render(terms=WESTLAKE | {"time_zone": "America/Los_Angeles"})
    assert "6:59 AM PDT" in message["Subject"]


HOSTILE = {
    "name": "Jo\r\nBcc: everybody@example.org\r\n\r\nSend money",
    "Subject": "another\nSubject: free",
    "=HYPERLINK(name)": '=HYPERLINK("http://evil.example","click")',
    "tab": "\t=1+1",
    "wide": "\uff1d1+1",
    "plus": "+1+1",
    "minus": "-2+3",
    "at": "@SUM(A1)",
    "html": "<script>alert(1)</script><img src=x onerror=y>",
    "template": "{{ 7 * 7 }}{% raw %}",
    "reversed": "abc\u202egnp.exe",
    "null": "a\x00b",
    "surrogate": "x\udc80y",
    "long": "x" * 100_000,
    "nested": {"a": ["b"]},
    "empty": "",
    "phone": "+12125550123",
}  # fmt: skip


def test_hostile_fields_add_no_header_and_no_recipient() -> None:
    message = render(lead=HOSTILE, buyer_title="Acme\r\nBcc: x@example.org", campaign="a\nb")
    assert sorted(set(message.keys())) == sorted(
        [
            "From", "To", "Reply-To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Baton-Message",
            "MIME-Version", "Content-Type",
        ]
    )  # fmt: skip
    assert message["To"] == "leads@acme.example"
    text, _, _ = parts(message)
    assert "Jo Bcc: everybody@example.org Send money" in text  # one visible line, in the body
    assert not [line for line in text.splitlines() if line.startswith(("Bcc:", "Send money"))]


def test_hostile_fields_do_nothing_in_html() -> None:
    _, html, _ = parts(render(lead=HOSTILE, buyer_title="<b>Acme</b>"))
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert "\u202e" not in html


def test_no_cell_of_the_csv_is_a_formula() -> None:
    _, _, rows = parts(render(lead=HOSTILE))
    names, values = rows
    assert len(names) == len(values) == len(HOSTILE) - 1
    cells = dict(zip(names, values, strict=True))
    assert cells["'=HYPERLINK(name)"].startswith("'=")
    for cell in names + values:
        assert cell == "+12125550123" or not cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d", "\t"))
        assert len(cell) <= 2_001
        assert cell.isprintable()


def test_a_lead_of_a_thousand_fields_is_cut_at_a_hundred() -> None:
    _, _, rows = parts(render(lead={f"field {number}": "x" for number in range(1_000)}))
    assert len(rows[0]) == 100


@pytest.mark.parametrize("lead", [None, [], "text", {}])
def test_a_lead_without_fields_is_said_so(lead: object) -> None:
    text, html, _ = parts(render(lead=lead))
    assert "No fields came with this lead." in text
    assert "No fields came with this lead." in html


def test_csv_of_nothing_is_two_empty_lines() -> None:
    assert fields_csv([]) == "\r\n\r\n"


@pytest.mark.parametrize("address", ["", "nobody", "a@b\r\nBcc: c@d", "a b@c", "@example.org", "a@"])
def test_an_address_that_is_none_makes_the_message_dead(address: str) -> None:
    with pytest.raises(NeverDeliverableError, match="is no e-mail address"):
        to_message(render_lead(failed_story().facts, [address]), OPTIONS)


def test_without_recipients_or_facts_there_is_no_message() -> None:
    with pytest.raises(NeverDeliverableError, match="no recipient"):
        render_lead(failed_story().facts, [])
    with pytest.raises(NeverDeliverableError, match="no transfer_started"):
        render_lead([], ["a@b.example"])


def test_without_link_options_there_is_no_link() -> None:
    text, _, _ = parts(lead(failed_story(), None))
    assert "credit" not in text


def test_an_abandoned_call_tells_of_the_answer() -> None:
    story = Story().start().dial(1).ring(1).answer(1, 4.0).bridge(1).hang_up(17.5, Party.BUYER).close()
    text, _, _ = parts(lead(story))
    assert "talk 13.500 s" in text
    assert "buyer abandoned" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sender": "nobody"}, "mail sender: 'nobody' is no e-mail address"),
        ({"sender": "a@b.example\r\nBcc: c@d"}, "mail sender: .* is no e-mail address"),
        ({"reply_to": "x"}, "mail reply_to: 'x' is no e-mail address"),
        ({"security": "perhaps"}, "mail security: 'perhaps' is none of starttls, tls, none"),
        ({"message_domain": "a b"}, "mail message_domain: 'a b' is no domain"),
        ({"username": "u", "security": "none"}, "mail security: a password is never sent without TLS"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MailOptions(**({"host": "h", "sender": "a@b.example"} | settings))


@pytest.mark.parametrize("url", ["http://portal.example", "https://", "ftp://x", "", "portal.example"])
def test_a_link_must_be_https(url: str) -> None:
    with pytest.raises(ValueError, match="link_base_url: must be an https"):
        LinkOptions(url, "x" * 20)


def test_a_short_link_secret_is_refused_and_no_secret_is_printed() -> None:
    with pytest.raises(ValueError, match="link_secret: must have at least 16"):
        LinkOptions("https://portal.example", "short")
    assert "secret of enough" not in repr(LINK)
    assert "hunter2" not in repr(MailOptions(host="h", sender="a@b.example", username="u", password="hunter2"))


def test_a_links_token_names_the_transfer_and_cannot_be_changed() -> None:
    token = credit_link(LINK, "t-1", "acme").removeprefix("https://portal.example/baton/credit/")
    assert read_credit_token(LINK, token) == ("t-1", "acme")
    other = LinkOptions(LINK.base_url, "another secret, long enough")
    for bad in (token[:-1], "x" + token, "", "a.b.c", credit_link(other, "t-1", "acme").rpartition("/")[2]):
        with pytest.raises(BadLinkError):
            read_credit_token(LINK, bad)


def order(to: str = '["leads@acme.example"]') -> Message:
    payload = f'{{"transfer": "t-1", "to": {to}}}'.encode()
    return Message(1, "mail", "t-1", "t-1.lead", payload, 0, UTC_0)


@pytest.mark.net
async def test_a_failed_transfer_reaches_the_buyers_mailbox(
    engine: AsyncEngine, mailbox: tuple[Mailbox, MailOptions]
) -> None:
    box, options = mailbox
    await store(engine, failed_story(lead_emails=["a@acme.example", "b@acme.example"], lead=HOSTILE))
    follower = Follower(engine)
    await follower.catch_up()
    await follower.close()
    deliverer = MailDeliverer(engine, options, {"lead": LeadComposer(LINK)})
    await OutboxLoop(engine, deliverer).deliver_due()
    await deliverer.close()
    [message] = box.messages
    assert box.to == [["a@acme.example", "b@acme.example"]]
    assert message["Message-ID"] == "<t-1.lead@operator.example>"
    assert "486 Busy Here" in parts(message)[0]
    assert (await states(engine))["t-1.lead"] == ("done", 1)


@pytest.mark.net
@pytest.mark.parametrize(
    ("stage", "answer", "error"),
    [
        ("answer", "554 no thanks", NeverDeliverableError),
        ("answer", "451 later", DeliveryError),
        ("rcpt_answer", "550 no such user", NobodyError),  # the lead waits for an address that takes it
        ("rcpt_answer", "450 greylisted", DeliveryError),
    ],
)
async def test_a_refusal_is_for_ever_or_for_now_as_the_server_says(
    engine: AsyncEngine, mailbox: tuple[Mailbox, MailOptions], stage: str, answer: str, error: type[Exception]
) -> None:
    box, options = mailbox
    setattr(box, stage, answer)
    await store(engine, failed_story())
    deliverer = MailDeliverer(engine, options, {"lead": LeadComposer()})
    with pytest.raises(error) as caught:
        await deliverer.deliver(order())
    assert type(caught.value) is error
    assert box.messages == []
    await deliverer.close()


@pytest.mark.net
async def test_a_server_that_is_away_or_has_no_tls_is_tried_again(
    engine: AsyncEngine, mailbox: tuple[Mailbox, MailOptions]
) -> None:
    _, options = mailbox
    await store(engine, failed_story())
    away = MailOptions(host="127.0.0.1", port=free_port(), sender=OPTIONS.sender, security="none")
    no_tls = MailOptions(host="127.0.0.1", port=options.port, sender=OPTIONS.sender, security="starttls")
    for chosen in (away, no_tls):
        deliverer = MailDeliverer(engine, chosen, {"lead": LeadComposer()})
        with pytest.raises(DeliveryError) as caught:
            await deliverer.deliver(order())
        assert type(caught.value) is DeliveryError
        await deliverer.close()


def test_an_unfinished_leg_is_told_of_with_dashes() -> None:
    story = Story().start(legs=2).dial(1, 2).ring(1).end(30.0, Party.ROUTER, EndCause.RING_TIMEOUT).close()
    assert render_lead(story.facts, ["a@b.example"]).text.count("answered          -") == 2
