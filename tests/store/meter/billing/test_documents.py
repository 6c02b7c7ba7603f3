"""Documents: numbered, frozen, rendered once, e-mailed, and opened down to their transfers."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import time
from collections.abc import AsyncIterator

import pytest
from pypdf import PdfReader
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing import documents as papers
from meter.billing.documents import document_file, lines_csv
from meter.billing.letter import DocumentComposer, HoldComposer
from meter.billing.sql import documents
from meter.billing.sql.detail import write_detail
from meter.billing.sql.documents import UnknownDocumentError
from meter.billing.sql.operations import BillingStore
from meter.billing.sql.payments import PaymentError
from meter.mail.channel import MailDeliverer
from meter.mail.message import MailOptions
from meter.outbox.delivery import NeverDeliverableError, NobodyError, OutboxLoop
from meter.settling.sql.verify_ledger import verify_ledger
from meter.store.money_schema import documents as documents_table
from meter.store.schema import outbox
from tests.store.meter.mail.test_channel import Mailbox, mailbox  # noqa: F401 - a fixture
from tests.store.money_tools import Books

WEEK = "2026-06-08"
HOSTILE = "=Acme <b onload=x>&Söhne"


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    yield made
    await made.close()


async def billed(books: Books, **fields: object) -> None:
    """An order of 200, 207 connected and 15 failed: an invoice for 7 more."""
    await books.agree("acme", **fields)
    await books.order("acme", WEEK, 200)
    books.mailed = False  # the tests see to it
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 900_000, "2026-06-03 10:00")
    await books.deliver("acme", "2026-06-10 11:00", 207, 15)
    await books.run("2026-06-15 01:00")


def text_of(pdf: bytes) -> str:
    return " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


async def test_a_pdf_shows_what_is_asked_of_whom_and_by_when(books: Books) -> None:
    await billed(books, address=("12 Main Street",), reference="PO 4711")
    shown = text_of(await document_file(books.clerk, "INV-000002", "pdf"))
    for words in ("Invoice INV-000002", "Acme", "12 Main Street", "PO 4711", "$315.00", "Jun 16, 2026", "207"):
        assert words in shown, shown


async def test_a_document_is_rendered_once_and_stays_as_it_was_sent(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    await billed(books)
    first = [await document_file(books.clerk, "INV-000001", form) for form in ("html", "pdf")]
    monkeypatch.setattr(papers, "html_of", lambda body: "another template")
    assert [await document_file(books.clerk, "INV-000001", form) for form in ("html", "pdf")] == first


async def test_a_buyers_name_is_no_markup_and_no_formula(books: Books) -> None:
    await books.agree("acme")
    await books.write(
        lambda connection: (
            connection.execute(
                text('UPDATE buyers SET document = replace(document, \'"title":"Acme"\', :title)'),
                {"title": f'"title":"{HOSTILE}"'},
            )
            and None
        )
    )
    await books.order("acme", WEEK, 1)
    await books.run("2026-06-02 12:00")
    html = (await document_file(books.clerk, "INV-000001", "html")).decode()
    assert "<b onload" not in html
    assert "&lt;b onload=x&gt;&amp;Söhne" in html
    body = await books.body("INV-000001")
    body["lines"][0]["text"] = "=1+1"
    assert "'=1+1" in lines_csv(body)


async def test_lines_as_csv_come_to_the_total(books: Books) -> None:
    await billed(books)
    rows = list(csv.DictReader(io.StringIO(lines_csv(await books.body("INV-000002")))))
    assert [row["amount_minor"] for row in rows] == ["31500", "31500", "0", "31500"]
    assert [row["text"] for row in rows[1:]] == ["total", "applied", "asked"]


async def test_a_line_opens_to_exactly_the_transfers_that_it_counts(books: Books) -> None:
    await billed(books)
    late = await books.deliver("acme", "2026-06-14 23:00", 0, 2)
    later = await books.deliver("acme", "2026-06-16 09:00", 1, 0)
    detail = await BillingStore(books.engine).detail("INV-000002")
    rows = list(csv.DictReader(io.StringIO(detail)))
    assert (len(rows), sum(row["unit"] == "connected" for row in rows)) == (222, 207)
    assert not {row["transfer"] for row in rows} & {*late, *later}
    await books.run("2026-06-22 01:00")
    text = io.StringIO()
    assert await books.read(lambda connection: write_detail(connection, "acme", "2026-06-15", text)) == 3
    found = {row["transfer"]: row for row in csv.DictReader(io.StringIO(text.getvalue()))}
    assert set(found) == {*late, *later}
    assert [found[one]["adjusts"] for one in (*late, *later)] == ["2026-06-14", "2026-06-14", ""]
    assert found[late[0]]["dialout"] == "2026-06-14T23:00:00.000-04:00"


async def test_the_mail_brings_the_pdf_the_lines_and_the_transfers(
    books: Books,
    mailbox: tuple[Mailbox, MailOptions],  # noqa: F811
) -> None:
    box, options = mailbox
    await billed(books)
    loop = OutboxLoop(books.engine, MailDeliverer(books.engine, options, {"document": DocumentComposer()}))
    while await loop.deliver_due():
        pass
    messages = {str(one["Message-ID"]): one for one in box.messages}
    assert set(messages) == {
        f"<{number}.document@operator.example>" for number in ("INV-000001", "INV-000002", "ST-000001")
    }
    invoice = messages["<INV-000002.document@operator.example>"]
    assert str(invoice["To"]) == "bills@acme.example"
    assert str(invoice["Subject"]) == "Invoice INV-000002: $315.00, due Jun 16, 2026, 5:00 PM EDT"
    attached = {one.get_filename(): one.get_content() for one in invoice.iter_attachments()}
    assert set(attached) == {"INV-000002.pdf", "INV-000002.csv", "INV-000002-transfers.csv"}
    assert attached["INV-000002.pdf"] == await document_file(books.clerk, "INV-000002", "pdf")
    assert attached["INV-000002-transfers.csv"].count("\n") == 223
    order = messages["<INV-000001.document@operator.example>"]
    assert {one.get_filename() for one in order.iter_attachments()} == {"INV-000001.pdf", "INV-000001.csv"}


async def test_sent_again_a_document_keeps_its_message_id(books: Books) -> None:
    await billed(books)
    with pytest.raises(PaymentError, match="still on its way"):  # or the addresses that it is for would be lost
        await BillingStore(books.engine).send("INV-000001", ["other@acme.example"])
    await books.write(lambda connection: connection.execute(text("UPDATE outbox SET state = 'done'")) and None)
    await BillingStore(books.engine).send("INV-000001", ["other@acme.example"])
    query = select(outbox.c.message_id, outbox.c.payload).where(outbox.c.message_id == "INV-000001.document")
    [row] = await books.read(lambda connection: connection.execute(query).all())
    assert b"other@acme.example" in row.payload


async def test_a_document_that_is_not_there_is_dead_and_one_without_an_address_waits(
    books: Books,
) -> None:
    await billed(books, billing_emails=())
    composer = DocumentComposer()
    with pytest.raises(NeverDeliverableError, match="INV-9"):
        await composer.compose({"number": "INV-9", "to": ["a@b.example"]}, books.clerk)
    with pytest.raises(NobodyError, match="acme has no billing_emails"):
        await composer.compose({"number": "INV-000001"}, books.clerk)
    with pytest.raises(UnknownDocumentError):
        await document_file(books.clerk, "INV-9", "pdf")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE documents SET total_minor = 1",
        "UPDATE documents SET body = x'7b7d'",
        "UPDATE documents SET number = 'INV-000009' WHERE number = 'INV-000002'",
        "DELETE FROM documents",
        "UPDATE postings SET amount = 1",
        "DELETE FROM postings",
        "DELETE FROM remedies",
    ],
)
async def test_what_was_issued_and_posted_cannot_be_changed(books: Books, change: str) -> None:
    from meter.billing.arithmetic.cycle import Remedy

    await billed(books)
    await books.choose("acme", Remedy.CREDIT, "2026-06-02 12:00")
    with pytest.raises(DBAPIError, match="what was written stays"):
        await books.write(lambda connection: connection.execute(text(change)) and None)


async def test_a_transaction_that_fails_leaves_no_gap_in_the_numbers(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    await books.agree("acme", "best")
    await books.order("acme", WEEK, 1)
    await books.order("best", WEEK, 1)
    real = documents.append

    def fails(connection: Connection, made: object) -> object:
        if any(one.buyer == "acme" for one in made):  # type: ignore[attr-defined]
            raise ValueError("this one cannot")
        return real(connection, made)  # type: ignore[arg-type]

    monkeypatch.setattr(documents, "append", fails)
    report = await books.cycle.run_once(_us("2026-06-02 12:00"))
    assert [one.why for one in report.trouble] == ["this one cannot"]
    monkeypatch.setattr(documents, "append", real)
    await books.run("2026-06-02 12:01")
    assert [(one.number, one.buyer) for one in await books.documents()] == [
        ("INV-000001", "best"),
        ("INV-000002", "acme"),
    ]


def _us(when: str) -> int:
    from tests.store.money_tools import at

    return at(when)


async def test_the_ledger_and_the_documents_verify_and_each_kind_of_damage_is_named(books: Books) -> None:
    await billed(books)
    report = await verify_ledger(books.engine)
    assert report.ok, report.problems
    assert (report.buyers, report.documents) == (1, 3)
    damage = {
        "DROP TRIGGER postings_no_update": "",
        "DROP TRIGGER postings_no_delete": "",
        "DROP TRIGGER documents_no_update": "",
        "UPDATE postings SET amount = 92 WHERE key = 't-5:unit'": "(t-5:unit) was changed",
        "UPDATE documents SET body = replace(body, '4500', '4400') WHERE number = 'INV-000001'": "body was changed",
        "UPDATE documents SET total_minor = 1 WHERE number = 'INV-000002'": "its columns say something else",
        "UPDATE document_series SET last = 9 WHERE series = 'invoice'": "invoice: the last number is 2, not 9",
        "DELETE FROM postings WHERE key = 't-9:unit'": "are missing",
    }
    for change, said in damage.items():
        await books.write(lambda connection, change=change: connection.execute(text(change)) and None)
        if said:
            problems = (await verify_ledger(books.engine)).problems
            assert any(said in one for one in problems), (said, problems)


async def test_a_rendering_that_two_make_at_once_is_kept_once(books: Books) -> None:
    await billed(books)
    now = time.time_ns() // 1000
    first = await books.write(lambda connection: documents.keep_file(connection, "INV-000001", "html", b"one", now))
    second = await books.write(lambda connection: documents.keep_file(connection, "INV-000001", "html", b"two", now))
    assert (first, second) == (b"one", b"one")


async def test_a_body_has_the_digest_that_stands_beside_it(books: Books) -> None:
    await billed(books)
    rows = await books.read(lambda connection: connection.execute(select(documents_table)).all())
    assert [hashlib.sha256(row.body).hexdigest() for row in rows] == [row.digest for row in rows]


async def test_a_hold_is_told_to_the_buyer_once(
    books: Books,
    mailbox: tuple[Mailbox, MailOptions],  # noqa: F811
) -> None:
    box, options = mailbox
    await books.agree("acme")
    await books.order("acme", WEEK, 200)
    await books.run("2026-06-02 12:00")
    await books.run("2026-06-04 17:00")
    await books.run("2026-06-04 17:01")
    loop = OutboxLoop(
        books.engine, MailDeliverer(books.engine, options, {"document": DocumentComposer(), "hold": HoldComposer()})
    )
    while await loop.deliver_due():
        pass
    [notice] = [one for one in box.messages if "hold" in str(one["Subject"])]
    assert str(notice["Message-ID"]) == "<INV-000001.hold@operator.example>"
    text = notice.get_content()
    for said in ("Invoice INV-000001", "$9,000.00", "Jun 4, 2026, 5:00 PM EDT"):
        assert said in text


async def test_a_document_that_cannot_be_drawn_stops_neither_the_others_nor_the_meter(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    await billed(books)
    real = papers.pdf_of

    def fails(html: str) -> bytes:
        if "INV-000001" in html:
            raise OSError(24, "Too many open files")
        return real(html)

    monkeypatch.setattr(papers, "pdf_of", fails)
    stop = asyncio.Event()
    loop = asyncio.create_task(papers.render_for_ever(books.engine, stop))
    async with asyncio.timeout(60):
        while await books.read(lambda connection: documents.unrendered(connection, "pdf", 9)) != ["INV-000001"]:
            await asyncio.sleep(0.02)
    assert not loop.done()
    stop.set()
    await loop
