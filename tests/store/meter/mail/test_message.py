"""Letters on their way: signed as they are received, in the operator's words, in the buyer's calendar."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from decimal import Decimal
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dkim
import orjson
import pytest
from aiosmtpd.controller import Controller
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.letters.lead import LeadComposer, render_lead
from meter.mail.channel import MailDeliverer, Postman
from meter.mail.dkim_signing import DkimKeyError, DkimOptions, Signer
from meter.mail.message import Attachment, Composer, Letter, MailOptions, to_message
from meter.mail.smtp import Reply
from meter.mail.sql.messages import BuyerMail, buyer_mail
from meter.outbox.delivery import NeverDeliverableError, NobodyError, OutboxLoop
from meter.outbox.sql import Message
from meter.run import MeterOptions, composers, use_templates
from meter.settling.follower import Follower
from meter.store.clerk import Clerk
from meter.store.schema import buyers
from meter.text import texts
from meter.text.localised import date_text, money_text, number_text, short_when_text, when_text
from telemetry import metrics
from tests.facts_builder import UTC_0, failed_story
from tests.store.journal_tools import store
from tests.store.meter.mail.test_channel import HOSTILE, LINK, free_port
from tests.store.meter.outbox.test_delivery import queue, states

SENDER = "leads@operator.example"
NEW_YORK = ZoneInfo("America/New_York")
DNS_NAME = b"s1._domainkey.operator.example."


class Wire:
    """An SMTP server that keeps the octets it got, and whom they were from and to."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.envelopes: list[tuple[str, list[str]]] = []
        self.refused: set[str] = set()

    async def handle_RCPT(  # noqa: N802
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if address in self.refused:
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.raw.append(envelope.original_content)
        self.envelopes.append((envelope.mail_from, envelope.rcpt_tos))
        return "250 2.0.0 queued as 4711"

    def message(self) -> EmailMessage:
        return message_from_bytes(self.raw[-1], policy=default)  # type: ignore[return-value, arg-type]


@pytest.fixture
async def wire() -> AsyncIterator[tuple[Wire, dict[str, Any]]]:
    box = Wire()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield box, {"host": "127.0.0.1", "port": controller.port, "sender": SENDER, "security": "none"}
    controller.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The operator's templates, in force."""
    found = tmp_path / "templates"
    found.mkdir()
    texts.use(found)
    yield found
    texts.use(None)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_file(folder: Path, key: Any, form: str = "PKCS8", password: bytes = b"") -> Path:
    secret = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), secret)
    file = folder / "dkim.pem"
    file.write_bytes(pem)
    return file


def record_of(key: rsa.RSAPrivateKey) -> Any:
    """The TXT record as a resolver would give it, for one name alone."""
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = b"v=DKIM1; k=rsa; p=" + b"".join(pem.splitlines()[1:-1])
    return lambda name, timeout=5: text if name == DNS_NAME else None


def order(number: int = 1, **payload: Any) -> Message:
    row = {"transfer": "t-1", "to": ["leads@acme.example"]} | payload
    return Message(number, "mail", "t-1", "t-1.lead", orjson.dumps(row), 0, UTC_0)


async def deliver(engine: AsyncEngine, options: MailOptions, message: Message, **more: Composer) -> None:
    deliverer = MailDeliverer(engine, options, {"lead": LeadComposer(LINK), **more})
    try:
        await deliverer.deliver(message)
    finally:
        await deliverer.close()


async def add_buyer(engine: AsyncEngine, document: bytes, name: str = "acme") -> None:
    async with engine.begin() as connection:
        row = {"name": name, "state": "active", "document": document, "terms_name": "westlake"}
        await connection.execute(insert(buyers), [row])


# DKIM


@pytest.mark.net
@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
async def test_the_signature_holds_on_the_octets_that_arrive(
    engine: AsyncEngine, wire: tuple[Wire, dict[str, Any]], tmp_path: Path, rsa_key: rsa.RSAPrivateKey, form: str
) -> None:
    box, given = wire
    lead = HOSTILE | {"dots": ".\n..\n.", "name": "J\u00fcrgen \u4e16\u754c", "from": "From here on", "trail": "x  "}
    await store(engine, failed_story(lead=lead, buyer_title="Caf\u00e9 Solar"))
    options = MailOptions(**given, dkim=DkimOptions("operator.example", "s1", key_file(tmp_path, rsa_key, form)))
    await deliver(engine, options, order())
    [raw] = box.raw
    assert raw.startswith(b"DKIM-Signature: ")
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998  # RFC 5322 section 2.1.1
    assert dkim.verify(raw, dnsfunc=record_of(rsa_key))
    signed = raw.partition(b"\r\nFrom:")[0].replace(b"\r\n ", b"").lower()
    for name in (b"from", b"to", b"subject", b"date", b"message-id", b"reply-to", b"mime-version", b"content-type"):
        assert name in signed.partition(b"h=")[2].partition(b";")[0]
    assert b"c=relaxed/relaxed" in signed
    assert "\u4e16\u754c" in str(box.message().get_body(("plain",)).get_content())  # type: ignore[union-attr]


@pytest.mark.net
async def test_who_changes_a_signed_message_breaks_its_signature(
    engine: AsyncEngine, wire: tuple[Wire, dict[str, Any]], tmp_path: Path, rsa_key: rsa.RSAPrivateKey
) -> None:
    box, given = wire
    await store(engine, failed_story())
    options = MailOptions(**given, dkim=DkimOptions("operator.example", "s1", key_file(tmp_path, rsa_key)))
    await deliver(engine, options, order())
    [raw], dns = box.raw, record_of(rsa_key)
    refolded = raw.replace(b"\r\nSubject: Lead of", b"\r\nsubject:  Lead\r\n\t of")
    assert refolded != raw
    assert dkim.verify(refolded, dnsfunc=dns)  # what servers on the way may do
    for before, after in (
        (b"\r\nSubject: Lead", b"\r\nSubject: Offer"),
        (b"\r\nTo: leads@", b"\r\nTo: other@"),
        (b"desk-1", b"desk-9"),
        (b"\r\nFrom:", b"\r\nFrom: evil@example.org\r\nFrom:"),
        (b"\r\nSubject:", b"\r\nSubject: second\r\nSubject:"),
        (b"\r\nReply-To: leads@", b"\r\nReply-To: evil@"),
    ):
        assert before in raw
        assert not dkim.verify(raw.replace(before, after, 1), dnsfunc=dns), before
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert not dkim.verify(raw, dnsfunc=record_of(other))


@pytest.mark.parametrize("name", ["J\u00fcrgen", "\u4e16\u754c", "plain"])
def test_a_message_is_ascii_whatever_it_says(name: str) -> None:
    letter = Letter(("a@b.example",), name, f"{name}\n", f"<p>{name}</p>", (), "m-1", UTC_0)
    message = to_message(letter, MailOptions(host="h", sender=SENDER))
    assert message.as_bytes().isascii()
    assert message["Subject"] == name


@pytest.mark.net
async def test_without_a_key_nothing_is_signed(engine: AsyncEngine, wire: tuple[Wire, dict[str, Any]]) -> None:
    box, given = wire
    await store(engine, failed_story())
    await deliver(engine, MailOptions(**given), order())
    assert "DKIM-Signature" not in box.message()


def test_a_key_that_cannot_sign_is_named_at_the_start(tmp_path: Path, rsa_key: rsa.RSAPrivateKey) -> None:
    def start(file: Path) -> str:
        with pytest.raises(DkimKeyError) as caught:
            Postman(MailOptions(host="h", sender=SENDER, dkim=DkimOptions("operator.example", "s1", file)))
        return str(caught.value)

    missing = tmp_path / "none.pem"
    assert start(missing) == f"mail.dkim_key_file: {missing} cannot be read: No such file or directory"
    (tmp_path / "text.pem").write_text("no key\n", encoding="utf-8")
    for bad in (
        tmp_path / "text.pem",
        key_file(tmp_path, ed25519.Ed25519PrivateKey.generate()),
        key_file(tmp_path, rsa_key, password=b"secret"),
    ):
        assert "is no RSA private key in PEM" in start(bad)
    assert Signer(DkimOptions("operator.example", "s1", key_file(tmp_path, rsa_key)))


# Kinds and recipients


class Note:
    """A composer of another kind."""

    async def compose(self, order: Mapping[str, Any], clerk: Clerk) -> Letter:
        assert await clerk.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()) == 1
        pdf = Attachment("r\u00e9sum\u00e9\r\nX: y.pdf", "application/pdf", b"%PDF-1.7\n\x00\xff")
        return Letter(("a@b.example",), str(order["subject"]), "text", "", (pdf,), "note-1", UTC_0)


@pytest.mark.net
async def test_each_kind_has_its_composer_and_an_unknown_kind_is_dead(
    engine: AsyncEngine, wire: tuple[Wire, dict[str, Any]]
) -> None:
    box, given = wire
    await deliver(engine, MailOptions(**given), order(kind="note", subject="a\r\nBcc: x@y.example"), note=Note())
    assert box.message()["Subject"] == "a Bcc: x@y.example"
    assert box.message()["Message-ID"] == "<note-1@operator.example>"
    [attachment] = box.message().iter_attachments()
    assert attachment.get_content() == b"%PDF-1.7\n\x00\xff"
    assert attachment.get_filename() == "r\u00e9sum\u00e9 X: y.pdf"
    with pytest.raises(NeverDeliverableError, match="nobody composes e-mails of the kind 'fax'"):
        await deliver(engine, MailOptions(**given), order(kind="fax"))
    with pytest.raises(NeverDeliverableError, match="no JSON object"):
        await deliver(engine, MailOptions(**given), Message(1, "mail", "k", "m", b"[]", 0, UTC_0))


def test_the_meter_composes_leads() -> None:
    assert isinstance(composers(MeterOptions("sqlite:///x"))["lead"], LeadComposer)


@pytest.mark.net
async def test_an_order_without_addresses_goes_to_those_the_buyer_has_now(
    engine: AsyncEngine, wire: tuple[Wire, dict[str, Any]]
) -> None:
    box, given = wire
    await store(engine, failed_story(lead_emails=["old@acme.example"]))
    bare = Message(1, "mail", "t-1", "t-1.lead", b'{"transfer": "t-1"}', 0, UTC_0)
    with pytest.raises(NobodyError, match="acme has no lead_emails"):
        await deliver(engine, MailOptions(**given), bare)
    await add_buyer(engine, b'{"lead_emails": ["new@acme.example", 7], "locale": "de_DE"}')
    await deliver(engine, MailOptions(**given), bare)
    await deliver(engine, MailOptions(**given), order(to=["frozen@acme.example"]))
    assert [to for _, to in box.envelopes] == [["new@acme.example"], ["frozen@acme.example"]]


@pytest.mark.net
async def test_one_refused_recipient_among_several_does_not_stop_the_others(
    engine: AsyncEngine, wire: tuple[Wire, dict[str, Any]]
) -> None:
    box, given = wire
    box.refused = {"gone@acme.example"}
    letter = Letter(("gone@acme.example", "here@acme.example"), "s", "t", "", (), "m-1", UTC_0)
    found = await Postman(MailOptions(**given)).send(letter)
    assert found == {
        "gone@acme.example": Reply("refused", 550, "5.1.1 no such user"),
        "here@acme.example": Reply("taken", 250, "2.0.0 queued as 4711"),
    }
    assert box.envelopes[0][1] == ["here@acme.example"]


@pytest.mark.net
async def test_a_domain_outside_ascii_goes_in_its_ascii_form(
    engine: AsyncEngine, wire: tuple[Wire, dict[str, Any]]
) -> None:
    box, given = wire
    await store(engine, failed_story())
    await deliver(engine, MailOptions(**given), order(to=["leads@b\u00fccher.example"]))
    assert box.envelopes[0][1] == ["leads@xn--bcher-kva.example"]
    assert box.message()["To"] == "leads@xn--bcher-kva.example"


@pytest.mark.parametrize("left", ["", "a b", "a\r\nBcc: x", "a@b", "a>", "x" * 201])
def test_a_message_id_holds_nothing_else(left: str) -> None:
    letter = Letter(("a@b.example",), "s", "t", "", (), left, UTC_0)
    with pytest.raises(NeverDeliverableError, match="cannot stand in a Message-ID"):
        to_message(letter, MailOptions(host="h", sender=SENDER))


@pytest.mark.net
@pytest.mark.parametrize(
    ("settings", "sender"),
    [
        ({}, SENDER),
        ({"bounce_address": "bounces@operator.example"}, "bounces@operator.example"),
    ],
)
async def test_the_envelope_sender_is_the_bounce_address_where_there_is_one(
    engine: AsyncEngine, wire: tuple[Wire, dict[str, Any]], settings: dict[str, str], sender: str
) -> None:
    box, given = wire
    await store(engine, failed_story())
    await deliver(engine, MailOptions(**given, **settings), order())
    assert box.envelopes[0][0] == sender
    assert box.message()["From"] == SENDER


# Templates


def failures(name: str) -> float:
    return metrics.MAIL_TEMPLATES_FAILED.labels(name)._value.get()


def made(**start: Any) -> Letter:
    return render_lead(failed_story(**start).facts, ["leads@acme.example"], LINK)


def test_a_file_of_the_operators_replaces_the_shipped_one_alone(folder: Path) -> None:
    (folder / "failed_lead.txt.jinja").write_text("Hallo {{ buyer }}: {{ fields[0][1] }}\n", encoding="utf-8")
    letter = made()
    assert letter.text == "Hallo Acme Solar: Jo Doe"
    assert "The times that prove it" in letter.html
    (folder / "failed_lead.txt.jinja").write_text("Guten Tag {{ buyer }}", encoding="utf-8")
    assert made().text == "Guten Tag Acme Solar"  # read again without a restart
    (folder / "failed_lead.html.jinja").write_text('{% extends "shipped/failed_lead.html.jinja" %}', encoding="utf-8")
    assert "The times that prove it" in made().html


def test_the_operators_subject_is_one_line_whatever_the_lead_says(folder: Path) -> None:
    (folder / "failed_lead.subject.jinja").write_text(
        "Lead {{ fields[0][1] }}\n\n{{ buyer }}\r\nX-Own: 1 \u202e", encoding="utf-8"
    )
    letter = made(lead={"name": "Jo\r\nBcc: everybody@example.org\u2028X"}, buyer_title="A\nTo: b@c.example")
    message = to_message(letter, MailOptions(host="h", sender=SENDER))
    raw = message.as_bytes()
    again = message_from_bytes(raw, policy=default)
    assert again["Subject"] == "Lead Jo Bcc: everybody@example.org X A To: b@c.example X-Own: 1"
    assert "Bcc" not in again
    assert "X-Own" not in again
    assert again["To"] == "leads@acme.example"


def test_the_operators_html_is_escaped(folder: Path) -> None:
    (folder / "failed_lead.html.jinja").write_text(
        "<p>{% for name, value in fields %}{{ name }}={{ value }};{% endfor %}</p>", encoding="utf-8"
    )
    html = made(lead=HOSTILE).html
    assert html.startswith("<p>name=Jo Bcc")
    assert "<script" not in html
    assert "&lt;script&gt;" in html


BROKEN = {
    "syntax": ("one\n{% for x %}\n", 2),
    "unknown value": ("one\ntwo {{ nothing_of_the_kind }}\n", 2),
    "unknown filter": ("{{ buyer | shout }}", 1),
    "attributes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", 1),
    "globals": ("{{ self.__init__.__globals__ }}", 1),
    "format": ("{{ '{0.__class__.__init__.__globals__}'.format(buyer) }}", 1),
    "loops": ("a\n{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", 2),
    "range": ("{% for a in range(10 ** 9) %}{% endfor %}", 1),
    "macros": ("{% macro m(n) %}{{ m(n - 1) if n else '' }}{{ m(n - 1) if n else '' }}{% endmacro %}{{ m(40) }}", 1),
    "text times": ("{{ 'x' * 1000000000 }}", 1),
    "endless": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", 1),
    "long": ("{% for a in range(2000) %}" + "x" * 1000 + "{% endfor %}", None),
    "division": ("{{ 1 / 0 }}", 1),
    "empty": ("{# nothing #}  \n", None),
    "outside": ("{% include '../../../etc/passwd' %}", 1),
    "set": ("{% set x = fields.clear() %}x", 1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_template_loses_no_mail_and_is_named_with_its_line(folder: Path, name: str) -> None:
    text, line = BROKEN[name]
    file = folder / "failed_lead.txt.jinja"
    file.write_text(text, encoding="utf-8")
    before, began = failures(file.name), time.monotonic()
    assert "THE TIMES THAT PROVE IT" in made().text
    assert failures(file.name) == before + 1
    [fault] = texts.Texts(folder).faults()
    assert (fault.file, fault.line) == (file, line)
    assert str(fault).startswith(f"{file}:{line}: " if line else f"{file}: ")
    assert time.monotonic() - began < 20


def test_what_cannot_be_read_loses_no_mail(folder: Path) -> None:
    (folder / "failed_lead.txt.jinja").write_bytes(b"caf\xe9")
    assert "THE TIMES THAT PROVE IT" in made().text
    [fault] = texts.Texts(folder).faults()
    assert "utf-8" in fault.message


def test_a_name_that_replaces_nothing_is_a_fault_and_a_part_is_not(folder: Path, tmp_path: Path) -> None:
    (folder / "failed_laed.txt.jinja").write_text("x", encoding="utf-8")
    (folder / "_footer.jinja").write_text("-- {{ buyer }}", encoding="utf-8")
    (folder / "notes.md").write_text("not looked at", encoding="utf-8")
    (folder / "failed_lead.txt.jinja").write_text("x{% include '_footer.jinja' %}", encoding="utf-8")
    [fault] = texts.Texts(folder).faults()
    assert fault.file.name == "failed_laed.txt.jinja"
    assert "failed_lead.txt.jinja" in fault.message
    assert made().text == "x-- Acme Solar"
    [fault] = texts.Texts(tmp_path / "missing").faults()
    assert "is no folder" in fault.message
    assert texts.Texts(None).faults() == []


def test_a_template_that_fails_on_one_lead_says_nothing_of_the_lead(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "failed_lead.txt.jinja").write_text("{{ {}[fields[0][1]] }}{{ buyer }}", encoding="utf-8")
    made(lead={"phone": "+12125550199"})
    said = capsys.readouterr()
    assert "template failed" in said.out + said.err
    assert "2125550199" not in said.out + said.err


def test_what_ships_works_with_its_sample_which_is_what_the_composer_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    source = Path(texts.__file__).parent / "templates"
    for file in source.glob("failed_lead.*.jinja"):
        (copied / file.name).write_bytes(file.read_bytes())
    own = texts.Texts(copied)
    assert own.faults() == []
    given: dict[str, Any] = {}
    monkeypatch.setattr(texts, "render", lambda _name, values: given.update(values) or "x")
    made()
    sample = texts._samples["failed_lead"]()
    assert given.keys() == sample.keys()
    assert given["legs"][0].keys() == sample["legs"][0].keys()
    assert own.replaced() == sorted(file.name for file in source.glob("failed_lead.*.jinja"))


def test_the_meter_says_at_its_start_which_template_is_broken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "failed_lead.html.jinja").write_text("{{", encoding="utf-8")
    use_templates(MailOptions(host="h", sender=SENDER, templates_dir=str(folder)))
    said = capsys.readouterr()
    assert "failed_lead.html.jinja:1" in said.out + said.err


# Locales


@pytest.mark.net
@pytest.mark.parametrize(
    ("document", "dialout"),
    [
        (b'{"locale": "de_DE"}', "2. Juni 2026, 10:00:00 -0400"),
        (b'{"locale": "es_US"}', "2 de junio de 2026, 10:00:00 a.m. EDT"),
        (b'{"locale": "xx_NOWHERE"}', "June 2, 2026, 10:00:00 AM EDT"),
        (b'{"locale": ["x"]}', "June 2, 2026, 10:00:00 AM EDT"),
        (b"{}", "June 2, 2026, 10:00:00 AM EDT"),
        (b"no JSON", "June 2, 2026, 10:00:00 AM EDT"),
        (None, "June 2, 2026, 10:00:00 AM EDT"),
    ],
)
async def test_dates_are_those_of_the_buyers_locale(
    engine: AsyncEngine, wire: tuple[Wire, dict[str, Any]], document: bytes | None, dialout: str
) -> None:
    box, given = wire
    await store(engine, failed_story())
    if document is not None:
        await add_buyer(engine, document)
    await deliver(engine, MailOptions(**given), order())
    text = box.message().get_body(("plain",))
    assert text is not None
    assert f"Dial-out: {dialout}" in text.get_content().splitlines()


def test_amounts_dates_and_numbers_are_exact() -> None:
    assert money_text(123_450, "USD", "en_US") == "$1,234.50"
    assert money_text(-5, "USD", "en_US") == "-$0.05"
    assert money_text(9_007_199_254_740_993, "USD", "en_US") == "$90,071,992,547,409.93"  # no float holds this
    assert money_text(123_450, "EUR", "de_DE") == "1.234,50\u00a0\u20ac"
    assert money_text(1_234, "JPY", "en_US") == "\u00a51,234"
    assert money_text(1_234_567, "BHD", "en_US").endswith("1,234.567")
    assert money_text(100, "USD", "xx_NOWHERE") == "$1.00"
    assert number_text(1_234_567, "de_DE") == "1.234.567"
    assert number_text(Decimal("0.930000001"), "en_US") == "0.930000001"
    winter = UTC_0 + 180 * 24 * 3600 * 1_000_000
    assert when_text(UTC_0, NEW_YORK, "en_US") == "June 2, 2026, 10:00:00 AM EDT"
    assert when_text(winter, NEW_YORK, "en_US") == "November 29, 2026, 9:00:00 AM EST"
    assert when_text(UTC_0 - 1, NEW_YORK, "en_US") == "June 2, 2026, 9:59:59 AM EDT"
    assert short_when_text(UTC_0, NEW_YORK, "en_US") == "Jun 2, 2026, 10:00 AM EDT"
    from datetime import date

    assert date_text(date(2026, 6, 2), "fr_FR") == "2 juin 2026"


@pytest.mark.net
async def test_rows_of_before_this_version_are_still_delivered(
    engine: AsyncEngine, wire: tuple[Wire, dict[str, Any]]
) -> None:
    box, given = wire
    await store(engine, failed_story())
    follower = Follower(engine)
    await follower.catch_up()
    await follower.close()
    await queue(engine, ("k", "other"), payload=b'{"transfer": "none", "to": ["a@b.example"]}')
    deliverer = MailDeliverer(engine, MailOptions(**given), {"lead": LeadComposer(LINK)})
    await OutboxLoop(engine, deliverer).deliver_due()
    await deliverer.close()
    found = await states(engine)
    assert found["t-1.lead"] == ("done", 1)
    assert found["other"] == ("dead", 1)
    assert len(box.raw) == 1


async def test_where_a_buyer_names_no_addresses_for_documents_the_next_ones_stand_in(engine: AsyncEngine) -> None:
    await add_buyer(engine, b'{"lead_emails": ["l@x.example"], "billing_emails": ["b@x.example"]}', "one")
    await add_buyer(engine, b'{"lead_emails": ["l@x.example"], "report_emails": ["r@x.example"]}', "two")
    clerk = Clerk(engine)
    one, two, none = [
        await clerk.read(lambda connection, name=name: buyer_mail(connection, name)) for name in ("one", "two", "three")
    ]
    await clerk.close()
    assert one == BuyerMail("en_US", ("l@x.example",), ("b@x.example",), ("b@x.example",))
    assert two == BuyerMail("en_US", ("l@x.example",), ("l@x.example",), ("r@x.example",))
    assert none is None
