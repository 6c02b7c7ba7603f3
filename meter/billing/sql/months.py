"""The tasks of a buyer who pays by the minute: the set-up fee, once, and each month in arrears (domain, section 9)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, func, insert, select

from book.model import Terms
from meter.billing.arithmetic.calendar import deadline_us, local_day
from meter.billing.arithmetic.drafts import DocumentKind, Draft, DraftLine, credit_note_draft
from meter.billing.arithmetic.months import Month
from meter.billing.sql import documents
from meter.billing.sql.documents import BillingRun
from meter.book.sql.contracts import Contract, end_of_business
from meter.ledger.accounts import INCREMENT, Account, Posting, Rule
from meter.ledger.sql import periods
from meter.ledger.sql.ledger import append, lock_heads
from meter.store.money_schema import billing_periods, postings
from meter.store.schema import terms as terms_table

_KINDS = {"call": "Talk", "email": "E-mails", "chat": "Chats"}


def set_up(connection: Connection, contract: Contract, run: BillingRun) -> list[str]:
    """Invoice the set-up fee, once."""
    terms = contract.terms_at(run.now_utc_us)
    line = DraftLine("Set-up fee, once", 1, terms.setup_fee_minor, terms.setup_fee_minor)
    draft = Draft(
        key=f"setup:{contract.buyer.name}",
        kind=DocumentKind.SETUP,
        buyer=contract.buyer,
        terms=terms,
        period="",
        lines=(line,),
        due_us=_due(terms, run),
        uses_credits=True,
    )
    return _issue(connection, contract, run, draft)


def invoice_month(connection: Connection, contract: Contract, month: Month, run: BillingRun) -> list[str]:
    """Invoice what a month came to; nothing where there is nothing in it.

    Where more is taken back than was talked it is a credit note, and an open credit.
    """
    buyer = contract.buyer.name
    through = lock_heads(connection, [buyer])[buyer][0]
    if periods.find(connection, buyer, month.name) is not None:
        return []
    last = periods.last(connection, buyer, periods.MONTH)
    if last is not None and month.end_us <= last.end_utc_us:
        return []  # it was empty when the months after it were invoiced: what came late is in the next of those
    counts = _increments(connection, buyer, month, last)
    terms = contract.terms_at(month.end_us - 1)
    lines = [_line(connection, key, count, month, terms) for key, count in sorted(counts.items()) if count]
    if contract.buyer.extra_lines and terms.extra_line_price_minor:
        extra, price = contract.buyer.extra_lines, terms.extra_line_price_minor
        lines.append(DraftLine(f"Lines beyond the {terms.concurrent_lines} included", extra, price, extra * price))
    if not lines:
        return []
    figures = {"month": month.name, "increments": sum(counts.values())}
    draft = Draft(
        key=f"month:{buyer}:{month.name}",
        kind=DocumentKind.MONTH,
        buyer=contract.buyer,
        terms=terms,
        period=month.name,
        lines=tuple(lines),
        notes=(f"Service from {month.first} to the end of the month, {month.zone}, in arrears.",),
        due_us=_due(terms, run),
        uses_credits=True,
        figures=figures,
    )
    if draft.total_minor < 0:
        draft = _taken_back(draft)
    append(connection, _billed(draft, sum(counts.values()), run))
    numbers = _issue(connection, contract, run, draft)
    row = {
        "buyer": buyer,
        "period": month.name,
        "end_utc_us": month.end_us,
        "through_seq": through,
        "connected_hundredths": 0,
        "failed_hundredths": 0,
        "body": orjson.dumps(figures, option=orjson.OPT_SORT_KEYS),
        "short_units": 0,
        "short_minor": 0,
        "awaiting_units": 0,
        "awaiting_minor": 0,
        "document": numbers[0],
        "settled_utc_us": run.now_utc_us,
        "remedied_utc_us": run.now_utc_us,
        "awaited_utc_us": run.now_utc_us,
    }
    connection.execute(insert(billing_periods).values(**row))
    return numbers


_Key = tuple[str, int, str, int]  # kind of interaction, price or -1, terms and their version


def _increments(connection: Connection, buyer: str, month: Month, last: periods.PeriodEnd | None) -> dict[_Key, int]:
    """Started increments by kind and price: those of the month, and what was posted late to months before."""
    columns = (postings.c.unit, postings.c.price_minor, postings.c.terms_name, postings.c.terms_version)
    found: dict[_Key, int] = {}
    for span in periods.spans(last, month.end_us):
        mine = (postings.c.buyer == buyer, postings.c.asset == INCREMENT, postings.c.dialout_utc_us.is_not(None), span)
        for unit, price, name, version, count in connection.execute(
            select(*columns, func.sum(postings.c.units)).where(*mine).group_by(*columns)
        ):
            key = (unit or "call", -1 if price is None else price, name, version)
            found[key] = found.get(key, 0) + int(count)
    return found


def _line(connection: Connection, key: _Key, count: int, month: Month, terms: Terms) -> DraftLine:
    """Price and increment are those in force at dial-out; of a version that is not in the store, the month's last."""
    kind, price, name, version = key
    clauses = _clauses_of(connection, name, version)
    if price < 0:  # the facts of these transfers do not tell it
        price = int(clauses.get("minute_price_minor", terms.minute_price_minor))
    seconds = int(clauses.get("minute_increment_ms", terms.minute_increment_ms)) / 1000
    text = f"{_KINDS.get(kind, kind)}, started increments of {seconds:g} s"
    return DraftLine(text, count, price, count * price, month.name)


def _clauses_of(connection: Connection, name: str, version: int) -> dict[str, Any]:
    """The clauses of a version of the terms; none where there is no such version."""
    query = select(terms_table.c.document).where(terms_table.c.name == name, terms_table.c.version == version)
    document = connection.execute(query).scalar_one_or_none()
    return {} if document is None else dict(orjson.loads(document))


def _billed(draft: Draft, count: int, run: BillingRun) -> list[Posting]:
    if not count:
        return []
    debit, credit = Account.BILLED, Account.UNBILLED_MINUTES
    if count < 0:
        debit, credit = credit, debit
    posting = Posting(
        key=f"{draft.key}:increments",
        buyer=draft.buyer.name,
        rule=Rule.BILLED,
        debit=debit,
        credit=credit,
        asset=INCREMENT,
        amount=abs(count),
        units=count,
        period=draft.period,
        posted_utc_us=run.now_utc_us,
    )
    return [posting]


def _taken_back(draft: Draft) -> Draft:
    lines = [replace(one, units=-one.units, amount_minor=-one.amount_minor) for one in draft.lines]
    reason = f"More was taken back of earlier months than {draft.period} came to."
    made = credit_note_draft(
        draft.key, draft.buyer, draft.terms, period=draft.period, lines=lines, reason=reason, of=""
    )
    return replace(made, figures=draft.figures)


def _issue(connection: Connection, contract: Contract, run: BillingRun, draft: Draft) -> list[str]:
    taken_back = draft.kind is DocumentKind.CREDIT_NOTE
    total = Posting(
        key=f"{draft.key}:total",
        buyer=draft.buyer.name,
        rule=Rule.INVOICE,
        debit=Account.REVENUE if taken_back else Account.RECEIVABLE,
        credit=Account.CREDITS if taken_back else Account.REVENUE,
        asset=draft.terms.currency,
        amount=draft.total_minor,
        period=draft.period,
    )
    issued = documents.issue(
        connection, draft, issuer=run.issuer, to=contract.documents_to, moves=[total], now_utc_us=run.now_utc_us
    )
    return [issued.number] if issued.new else []


def _due(terms: Terms, run: BillingRun) -> int:
    issued = local_day(run.now_utc_us, terms.time_zone)
    return deadline_us(issued + timedelta(days=terms.month_due_days), end_of_business(terms), terms.time_zone)
