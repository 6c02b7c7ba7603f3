"""Verifies that every table of money agrees with the ledger and the documents.

The postings are chained and the bodies of documents have digests; all else could be changed without a trace, and is
held against them here: what an invoice asks for and by when, whether it is paid, what was frozen of an order, what a
week fell short of and what became of that, payments, checks, credits, renderings, and why a buyer is not served.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, func, or_, select

from book.model import Stop, state_under
from meter.ledger.accounts import Account, Posting, Rule
from meter.ledger.sql import periods
from meter.ledger.sql.ledger import to_posting
from meter.store.money_schema import (
    billing_periods,
    buyer_stops,
    credit_requests,
    document_files,
    documents,
    payments,
    postings,
    refunds,
)
from meter.store.schema import buyers, orders

PAGE = 500  # rows with a body or a file that are held at once
_CHOICES = frozenset({None, "refund", "credit", "make_up", "cancelled"})
_FORMS = frozenset({"html", "pdf"})
_REMEDIED = {"credit": Account.CREDITS, "refund": Account.REFUNDS_DUE}
_WEEK_COLUMNS = {
    f"{column}_{part}": f"{figure}_{part}"
    for column, figure in (("short", "shortfall"), ("awaiting", "awaiting"))
    for part in ("counted", "units", "minor")
} | {"prepaid_units": "prepaid_units", "prepaid_minor": "prepaid_minor"}


def money_problems(connection: Connection) -> Iterator[str]:
    """Everything that does not agree, a line each."""
    yield from _documents(connection)
    yield from _orders(connection)
    yield from _weeks(connection)
    yield from _payments(connection)
    yield from _checks(connection)
    yield from _credits(connection)
    yield from _files(connection)
    yield from _stops(connection)


def _documents(connection: Connection) -> Iterator[str]:
    """Columns that are shown and acted on, against the body; whether it is paid, against the receivable."""
    is_open, applied = _by_document(connection)
    query = select(documents).order_by(documents.c.series, documents.c.sequence)
    for row in connection.execution_options(yield_per=PAGE).execute(query):
        body = _read(row.body)
        if body is None:
            continue  # its digest was found to be wrong
        due_us = None if body["due_at"] is None else _instant(body["due_at"])
        issued_us = _instant(body["issued_at"])
        stated = (
            body["kind"],
            body["buyer"]["name"],
            body["currency"],
            body["period"],
            body["issued_on"],
            issued_us,
            due_us,
        )
        second_us = row.issued_utc_us // 1_000_000 * 1_000_000  # the body tells it to the second
        columns = (row.kind, row.buyer, row.currency, row.period, row.issued_on, second_us, row.due_utc_us)
        for name, here, there in zip(_SHOWN, columns, stated, strict=True):
            if here != there:
                yield f"{row.number}: {name} is {here}, its body says {there}"
        if applied.get(row.number, 0) != row.applied_minor:
            yield f"{row.number}: {applied.get(row.number, 0)} of open credits were used, it says {row.applied_minor}"
        owes = is_open.get(row.number, 0) > 0 and row.series == "invoice"
        if owes != (row.settled_utc_us is None and row.due_utc_us is not None):
            yield f"{row.number}: {'unpaid' if owes else 'paid'} by the ledger, and marked as {_marked(row)}"
        if row.held_utc_us is not None and (row.due_utc_us is None or row.held_utc_us < row.due_utc_us):
            yield f"{row.number}: held its buyer before it was due"


_SHOWN = ("kind", "buyer", "currency", "period", "day of issue", "time of issue", "due")


def _marked(row: Any) -> str:
    return "open" if row.settled_utc_us is None else "settled"


def _read(body: bytes | str | None) -> Any:
    """A body; None where there is none that can be read."""
    try:
        return None if body is None else orjson.loads(body)
    except ValueError:
        return None


def _instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


def _by_document(connection: Connection) -> tuple[dict[str, int], dict[str, int]]:
    """What each receivable holds, and the open credits that each document used."""
    is_open: dict[str, int] = {}
    for side, sign in ((postings.c.debit, 1), (postings.c.credit, -1)):
        query = select(postings.c.document, func.sum(postings.c.amount)).where(side == Account.RECEIVABLE.value)
        for number, amount in connection.execute(query.group_by(postings.c.document)):
            is_open[number] = is_open.get(number, 0) + sign * int(amount)
    applied: dict[str, int] = {}
    used = select(postings.c.document, postings.c.debit, postings.c.amount).where(postings.c.rule == Rule.APPLIED.value)
    for row in connection.execute(used):
        amount = row.amount if row.debit == Account.CREDITS.value else -row.amount
        applied[row.document] = applied.get(row.document, 0) + amount
    return is_open, applied


def _orders(connection: Connection) -> Iterator[str]:
    """What an order's invoice froze."""
    query = select(orders, documents.c.body).outerjoin(documents, documents.c.number == orders.c.invoice)
    named: set[str] = set()
    for row in connection.execute(query.where(orders.c.invoice.is_not(None))):
        named.add(row.invoice)
        body = _read(row.body)
        if body is None:
            yield f"order of {row.buyer} for {row.week}: there is no invoice {row.invoice} that can be read"
            continue
        figures, terms = body["figures"], body["terms"]
        pairs: list[tuple[str, object, object]] = [
            ("buyer", row.buyer, body["buyer"]["name"]),
            ("week", row.week, body["period"]),
            ("quantity", row.quantity, figures["quantity"]),
            ("price", row.price_minor, body["lines"][0]["price_minor"]),
            ("units paid in advance", row.paid_units, figures.get("paid_units", figures["quantity"])),
            ("percentage", row.connected_percent, figures.get("connected_percent")),
            ("way of counting", row.order_counts, figures["order_counts"]),
            ("overrun", row.overrun_percent, terms["overrun_percent"]),
            ("terms", (row.terms_name, row.terms_version), (terms["name"], terms["version"])),
        ]
        for name, here, there in pairs:
            if here != there:
                yield f"order of {row.buyer} for {row.week}: {name} is {here}, {row.invoice} says {there}"
    yield from _invoices_of_nothing(connection, named)


def _invoices_of_nothing(connection: Connection, named: set[str]) -> Iterator[str]:
    """Orders' invoices that no order names any more, and that no credit note takes back."""
    cancelled = {
        one.removeprefix("cancel:")
        for one in connection.execute(select(documents.c.key).where(documents.c.key.like("cancel:%"))).scalars()
    }
    made = connection.execute(select(documents.c.number).where(documents.c.kind == "order")).scalars()
    for number in sorted(set(made) - named - cancelled):
        yield f"{number}: no order names it, and no credit note takes it back"


def _weeks(connection: Connection) -> Iterator[str]:
    """Closed weeks: against their statement, and what became of their shortfall against the ledger."""
    remedies = _of_rules(connection, Rule.REMEDY)
    named: set[str] = set()
    query = select(billing_periods, documents.c.body.label("statement")).outerjoin(
        documents, documents.c.number == billing_periods.c.document
    )
    query = query.where(periods.is_kind(periods.WEEK))
    for row in connection.execution_options(yield_per=PAGE).execute(query):
        where = f"week of {row.period} of {row.buyer}"
        own, statement = _read(row.body), _read(row.statement)
        named.add(row.document)
        if own is None or statement is None:
            yield f"{where}: its figures, or those of {row.document}, cannot be read"
            continue
        shown = statement["figures"]
        if (row.buyer, row.period) != (statement["buyer"]["name"], statement["period"]):
            yield f"{where}: {row.document} is not its statement"
        differing = sorted(name for name, value in own.items() if shown.get(name) != value)
        if differing:
            yield f"{where}: {', '.join(differing)} differ from {row.document}"
        if shown.get("overage_invoice") != row.overage:
            yield f"{where}: its overage is {row.overage}, {row.document} names {shown.get('overage_invoice')}"
        for column, figure in _WEEK_COLUMNS.items():
            value = own.get(figure, own.get(figure.replace("counted", "units"), 0))
            if getattr(row, column) != value:
                yield f"{where}: {column} is {getattr(row, column)}, its figures say {value}"
        yield from _remedy(row, "remedied", row.remedy, row.short_minor, remedies)
        yield from _remedy(row, "awaited", row.awaited, row.awaiting_minor, remedies)
    made = connection.execute(select(documents.c.number).where(documents.c.kind == "week")).scalars()
    for number in sorted(set(made) - named):
        yield f"{number}: there is no week that it is the statement of"


def _remedy(row: Any, what: str, choice: str | None, amount: int, remedies: Mapping[str, Posting]) -> Iterator[str]:
    part = "short" if what == "remedied" else "awaiting"
    is_short = bool(getattr(row, f"{part}_counted") or getattr(row, f"{part}_units"))
    is_done = getattr(row, f"{what}_utc_us") is not None
    if (choice is not None) != (is_short and is_done) or choice not in _CHOICES:
        yield f"week of {row.period} of {row.buyer}: {what} as {choice}, which cannot be"
    posting = remedies.get(f"remedy:{row.buyer}:{row.period}:{what}")
    account = _REMEDIED.get(choice or "")
    made = None if posting is None else (posting.credit, posting.amount)
    if made != ((account, amount) if account is not None and amount else None):
        yield f"week of {row.period} of {row.buyer}: {what} as {choice or 'nothing'}, {amount}; the ledger has {made}"


def _of_rules(connection: Connection, *rules: Rule) -> dict[str, Posting]:
    query = select(postings).where(postings.c.rule.in_([one.value for one in rules]))
    return {row.key: to_posting(row) for row in connection.execute(query)}


def _payments(connection: Connection) -> Iterator[str]:
    made: dict[tuple[str, str, str], int] = {}
    keys: dict[tuple[str, str, str], list[str]] = {}
    for key, one in _of_rules(connection, Rule.PAYMENT).items():
        end = f":{one.document or 'credit'}"
        reference = key.removeprefix(f"payment:{one.buyer}:").removesuffix(end)
        this = (one.buyer, reference, one.asset)
        made[this] = made.get(this, 0) + one.amount
        keys.setdefault(this, []).append(key)
    taken_back = {one.reverses for one in _of_rules(connection, Rule.REVERSAL).values()}
    for row in connection.execute(select(payments)):
        this, where = (row.buyer, row.reference, row.currency), f"payment {row.reference!r} of {row.buyer}"
        if made.pop(this, 0) != row.amount_minor:
            yield f"{where}: its amount is not what the ledger has of it"
        reversed_all = [key in taken_back for key in keys.get(this, [])]
        if any(done != (row.reversed_utc_us is not None) for done in reversed_all):
            yield f"{where}: {'taken back' if any(reversed_all) else 'not taken back'} by the ledger, and not so marked"
    for buyer, reference, _ in sorted(made):
        yield f"payment {reference!r} of {buyer}: the ledger has it, the payments have not"


def _checks(connection: Connection) -> Iterator[str]:
    due = {
        row.key: to_posting(row)
        for row in connection.execute(
            select(postings).where(
                postings.c.credit == Account.REFUNDS_DUE.value,
                or_(postings.c.rule == Rule.REMEDY.value, postings.c.rule == Rule.PAY_OUT.value),
            )
        )
    }
    sent = _of_rules(connection, Rule.REFUND)
    for row in connection.execute(select(refunds)):
        where = f"check {row.id} to {row.buyer}"
        one, out = due.pop(row.key, None), sent.pop(f"refund:{row.key}", None)
        had = None if one is None else (one.buyer, one.amount, one.asset, one.period)
        if had != (row.buyer, row.amount_minor, row.currency, row.week):
            yield f"{where}: {row.amount_minor} {row.currency}, the ledger has {had}"
        if (out is not None) != (row.paid_utc_us is not None):
            yield f"{where}: {'sent' if out is not None else 'not sent'} by the ledger, and not so marked"
        elif out is not None and (out.amount, out.reason) != (row.amount_minor, row.reference):
            yield f"{where}: sent as {row.reference!r}, {row.amount_minor}; the ledger has {out.reason!r}, {out.amount}"
    for key in sorted(due):
        yield f"{key}: the ledger owes a check that is not on the worklist"
    for key in sorted(sent):
        yield f"{key}: the ledger sent a check that is not on the worklist"


def _credits(connection: Connection) -> Iterator[str]:
    given = _of_rules(connection, Rule.CREDIT, Rule.REVERSAL)
    asked = set()
    for row in connection.execute(select(credit_requests)):
        where = f"credit request {row.id} of {row.buyer}"
        if row.posting is None:
            if row.state == "approved":
                yield f"{where}: approved, and nothing was posted"
            continue
        asked.add(row.posting)
        one = given.get(row.posting)
        amount = None if one is None else -one.amount if one.reverses else one.amount
        had = None if one is None else (one.buyer, one.transfer, amount, one.asset)
        if had != (row.buyer, row.transfer, row.amount_minor, row.currency):
            yield f"{where}: {row.amount_minor} {row.currency}, the ledger has {had}"
    for key, one in sorted(given.items()):
        if one.rule is Rule.CREDIT and key.startswith("credit:") and key not in asked:
            yield f"{key}: the ledger gave a credit that no request was approved for"


def _files(connection: Connection) -> Iterator[str]:
    query = select(document_files, documents.c.number.label("issued"))
    query = query.outerjoin(documents, documents.c.number == document_files.c.number)
    for row in connection.execution_options(yield_per=PAGE).execute(query):
        content = row.content if isinstance(row.content, bytes) else bytes(str(row.content), "utf-8")
        if row.issued is None or row.format not in _FORMS:
            yield f"{row.number}: there is a rendering as {row.format}, of which nobody knows"
        if hashlib.sha256(content).hexdigest() != row.digest:
            yield f"{row.number}: its {row.format} is not what was first rendered"


def _stops(connection: Connection) -> Iterator[str]:
    """The state of each buyer follows from the reasons; `unpaid` stands while an invoice that has held is open."""
    stops: dict[str, set[Stop]] = {}
    for row in connection.execute(select(buyer_stops)):
        if row.reason in list(Stop):
            stops.setdefault(row.buyer, set()).add(Stop(row.reason))
        else:
            yield f"buyer {row.buyer}: nobody knows the reason {row.reason!r} for not serving it"
    holding = set(
        connection.execute(
            select(documents.c.buyer).where(documents.c.held_utc_us.is_not(None), documents.c.settled_utc_us.is_(None))
        ).scalars()
    )
    for name, state in connection.execute(select(buyers.c.name, buyers.c.state)):
        mine = stops.get(name, set())
        if state != state_under(mine).value:
            yield f"buyer {name}: is {state}, its reasons say {state_under(mine).value}"
        if name in holding and Stop.UNPAID not in mine:
            yield f"buyer {name}: an unpaid invoice has held it, and it is served"
