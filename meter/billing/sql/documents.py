"""Documents in the store: issued with the next number of their series, then never changed.

A document, the postings that it makes, the credits that it uses and the e-mail that brings it to the buyer are one
transaction. Its number is taken in that transaction from the row of its series, so a crash leaves no gap and no second
one; its key says what it is for, so that no second one is ever issued for the same thing. What is still open of an
invoice is what the ledger's receivable holds under its number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.dialects import postgresql

from meter.billing.arithmetic.drafts import SERIES, Draft, Issuer, IssueStamp, Series, body_of
from meter.ledger.accounts import Account, Posting, Rule
from meter.ledger.sql.ledger import append, balance, lock_heads
from meter.outbox.sql import DONE, HANDED, new_row, waits_for
from meter.store.money_schema import INVOICE_IS_OPEN, document_files, document_series, documents, postings
from meter.store.schema import mail_recipients, outbox

IS_HANDED_OVER = ~(
    select(outbox.c.id)
    .where(
        outbox.c.channel == "mail",
        outbox.c.message_id == documents.c.number + ".document",
        outbox.c.state != DONE,
        ~select(mail_recipients.c.address)
        .where(mail_recipients.c.message_id == outbox.c.message_id, mail_recipients.c.state.in_(["taken", HANDED]))
        .exists(),
    )
    .exists()
)
"""A mail server has or had the invoice, for one address at least, or somebody handed it over. Mails that are done leave
the outbox after a while: without a row it is handed over (domain, section 6)."""
_SHOWN = tuple(column for column in documents.c if column.name != "body")


class UnknownDocumentError(LookupError):
    """There is no document of that number."""


@dataclass(frozen=True, slots=True)
class BillingRun:
    """The issuer of documents, and the instant of the run in microseconds UTC."""

    issuer: Issuer
    now_utc_us: int


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was issued; `open_minor` is what is still asked for."""

    number: str
    kind: str
    buyer: str
    period: str | None
    currency: str
    issued_utc_us: int
    issued_on: str
    due_utc_us: int | None
    total_minor: int
    applied_minor: int
    settled_utc_us: int | None
    held_utc_us: int | None
    open_minor: int


@dataclass(frozen=True, slots=True)
class IssueResult:
    """The number of a document, and whether this issued it."""

    number: str
    new: bool


def issue(
    connection: Connection,
    draft: Draft,
    *,
    issuer: Issuer,
    to: Sequence[str],
    moves: Sequence[Posting],
    now_utc_us: int,
) -> IssueResult:
    """Issue a document, with the postings that go with it and its e-mail; one that is there already stays as it is.

    `moves` get the document's number. Credits are used where the draft says so, up to its total.
    """
    lock_heads(connection, [draft.buyer.name])
    there = connection.execute(select(documents.c.number).where(documents.c.key == draft.key)).scalar_one_or_none()
    if there is not None:
        return IssueResult(there, new=False)
    buyer = draft.buyer.name
    applied = 0
    if draft.uses_credits:
        held = -balance(connection, buyer, Account.CREDITS, draft.terms.currency)
        applied = min(held, draft.total_minor)  # negative where a payment was taken back that was used as a credit
    number = _insert(connection, draft, issuer, applied, now_utc_us)
    numbered = [replace(move, document=number, posted_utc_us=now_utc_us) for move in moves if move.amount]
    if applied:
        numbered.append(_applied(draft, number, applied, now_utc_us))
    append(connection, numbered)
    queue_mail(connection, number, buyer, to, now_utc_us)
    return IssueResult(number, new=True)


def _insert(connection: Connection, draft: Draft, issuer: Issuer, applied: int, now_utc_us: int) -> str:
    """Write a document under the next number of its series; returns that."""
    series = SERIES[draft.kind]
    sequence = _next_number(connection, series)
    number = f"{issuer.prefixes[series.value]}{sequence:06d}"
    stamp = stamp_of(draft, number, applied, now_utc_us)
    body = orjson.dumps(body_of(draft, issuer, stamp), option=orjson.OPT_SORT_KEYS)
    is_paid = series is not Series.INVOICE or draft.total_minor - applied <= 0
    connection.execute(
        insert(documents).values(
            number=number,
            series=series.value,
            sequence=sequence,
            key=draft.key,
            buyer=draft.buyer.name,
            kind=draft.kind.value,
            period=draft.period,
            currency=draft.terms.currency,
            issued_utc_us=now_utc_us,
            issued_on=stamp.issued_on,
            due_utc_us=draft.due_us,
            total_minor=draft.total_minor,
            applied_minor=applied,
            body=body,
            digest=hashlib.sha256(body).hexdigest(),
            settled_utc_us=now_utc_us if is_paid else None,
        )
    )
    return number


def _applied(draft: Draft, number: str, applied: int, now_utc_us: int) -> Posting:
    """The posting of the credits that a document uses; where `applied` is negative it goes the other way."""
    debit, credit = (Account.CREDITS, Account.RECEIVABLE) if applied > 0 else (Account.RECEIVABLE, Account.CREDITS)
    return Posting(
        key=f"{draft.key}:applied",
        buyer=draft.buyer.name,
        rule=Rule.APPLIED,
        debit=debit,
        credit=credit,
        asset=draft.terms.currency,
        amount=abs(applied),
        period=draft.period,
        document=number,
        posted_utc_us=now_utc_us,
    )


def stamp_of(draft: Draft, number: str, applied_minor: int, now_utc_us: int) -> IssueStamp:
    """When a document is issued and due, by the clock of its contract."""
    zone = ZoneInfo(draft.terms.time_zone)
    issued = _local(now_utc_us, zone)
    due = None if draft.due_us is None else _local(draft.due_us, zone)
    return IssueStamp(
        number=number,
        issued_on=issued.date().isoformat(),
        issued_at=issued.isoformat(timespec="seconds"),
        due_on=due.date().isoformat() if due else None,
        due_at=due.isoformat(timespec="seconds") if due else None,
        applied_minor=applied_minor,
    )


def queue_mail(
    connection: Connection, number: str, buyer: str, to: Sequence[str], now_utc_us: int, *, kind: str = "document"
) -> None:
    """Queue a document's e-mail, or a notice about it; its message id is the document's, so a repeat is recognised.

    Without addresses it waits for one.
    """
    said = {"kind": kind, "number": number, **({"to": list(to)} if to else {})}
    needs = "" if to else waits_for("billing_emails", buyer)
    row = new_row("mail", f"document:{number}", f"{number}.{kind}", said, now_utc_us, needs=needs)
    connection.execute(insert(outbox).values(**row))


def find(connection: Connection, number: str) -> Document:
    """A document by its number. Raises UnknownDocumentError."""
    found = connection.execute(select(*_SHOWN).where(documents.c.number == number)).one_or_none()
    if found is None:
        raise UnknownDocumentError(f"there is no document {number!r}")
    return _document(connection, found)


def find_all(
    connection: Connection,
    buyer: str = "",
    *,
    series: str = "",
    kind: str = "",
    period: str = "",
    open_only: bool = False,
    since_us: int = 0,
    limit: int = 0,
) -> list[Document]:
    """Documents in the order in which they were issued; empty words do not restrict. With `limit` only the newest."""
    query = select(*_SHOWN).where(documents.c.issued_utc_us >= since_us)
    wanted = {"buyer": buyer, "series": series, "kind": kind, "period": period}
    for name, value in wanted.items():
        if value:
            query = query.where(documents.c[name] == value)
    if open_only:
        query = query.where(INVOICE_IS_OPEN)
    in_order = (documents.c.issued_utc_us, documents.c.series, documents.c.sequence)
    if limit:
        newest = query.order_by(*(column.desc() for column in in_order)).limit(limit)
        rows = list(reversed(connection.execute(newest).all()))
    else:
        rows = list(connection.execute(query.order_by(*in_order)).all())
    return [_document(connection, row) for row in rows]


def body(connection: Connection, number: str) -> dict[str, Any]:
    """The frozen body of a document. Raises UnknownDocumentError."""
    found = connection.execute(select(documents.c.body).where(documents.c.number == number)).scalar_one_or_none()
    if found is None:
        raise UnknownDocumentError(f"there is no document {number!r}")
    said: dict[str, Any] = orjson.loads(found)
    return said


def file(connection: Connection, number: str, form: str) -> bytes | None:
    """A document as it was first rendered; None: not yet."""
    query = select(document_files.c.content).where(document_files.c.number == number, document_files.c.format == form)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else bytes(found)


def keep_file(connection: Connection, number: str, form: str, content: bytes, now_utc_us: int) -> bytes:
    """Keep a rendering, unless there is one; returns the one that holds from now on."""
    there = file(connection, number, form)
    if there is not None:
        return there
    row = {"number": number, "format": form, "content": content, "made_utc_us": now_utc_us}
    connection.execute(insert(document_files).values(**row, digest=hashlib.sha256(content).hexdigest()))
    return content


def unrendered(connection: Connection, form: str, limit: int, since_us: int = 0) -> list[str]:
    """Numbers of documents issued since an instant that have no such rendering yet, oldest first."""
    has = select(document_files.c.number).where(
        document_files.c.number == documents.c.number, document_files.c.format == form
    )
    query = (
        select(documents.c.number)
        .where(documents.c.issued_utc_us >= since_us, ~has.exists())
        .order_by(documents.c.issued_utc_us)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def open_of(connection: Connection, number: str) -> int:
    """The open amount: the balance of the receivable under a document's number, in minor units."""
    total = 0
    for side, sign in ((postings.c.debit, 1), (postings.c.credit, -1)):
        query = select(func.coalesce(func.sum(postings.c.amount), 0))
        query = query.where(postings.c.document == number, side == Account.RECEIVABLE.value)
        total += sign * int(connection.execute(query).scalar_one())
    return total


def mark_paid(connection: Connection, number: str, now_utc_us: int) -> bool:
    """Write down whether an invoice is paid in full, after its receivable has moved; returns that."""
    paid = open_of(connection, number) <= 0
    this = documents.c.number == number
    if paid:
        query = update(documents).where(this, documents.c.settled_utc_us.is_(None)).values(settled_utc_us=now_utc_us)
    else:
        reopened = documents.c.settled_utc_us.is_not(None)  # its payment was taken back: it may hold its buyer again
        query = update(documents).where(this, reopened).values(settled_utc_us=None, held_utc_us=None)
    connection.execute(query)
    return paid


def is_handed_over(connection: Connection, number: str) -> bool:
    """Whether the buyer's mail server has the document, or somebody brought it."""
    query = select(documents.c.number).where(documents.c.number == number, IS_HANDED_OVER)
    return connection.execute(query).first() is not None


def mark_held(connection: Connection, number: str, now_utc_us: int) -> None:
    """Write down that an unpaid invoice has put its buyer on hold: it does so once."""
    connection.execute(update(documents).where(documents.c.number == number).values(held_utc_us=now_utc_us))


def _next_number(connection: Connection, series: Series) -> int:
    this = document_series.c.series == series.value
    if connection.dialect.name == "postgresql":
        empty = postgresql.insert(document_series).values(series=series.value, last=0)
        connection.execute(empty.on_conflict_do_nothing())
    moved = connection.execute(update(document_series).where(this).values(last=document_series.c.last + 1)).rowcount
    if not moved:
        connection.execute(insert(document_series).values(series=series.value, last=1))
    return int(connection.execute(select(document_series.c.last).where(this)).scalar_one())


def _document(connection: Connection, row: Row[Any]) -> Document:
    is_open = row.settled_utc_us is None and row.due_utc_us is not None
    values = {name: getattr(row, name) for name in Document.__slots__ if name != "open_minor"}
    return Document(**values, open_minor=open_of(connection, row.number) if is_open else 0)


def _local(utc_us: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(utc_us // 1_000_000, UTC).astimezone(zone)
