"""Payments and their consequences: invoices paid, holds set and released, invoices cancelled, checks sent.

A payment is known by the reference that the bank or the payer gave it: the same one is recorded once, and the same
reference with another content is an error. It goes to the invoice that it names, else to the open ones in the order in
which they fall due; what is left over becomes an open credit, which the next order's invoice uses.

Business errors: `PaymentError`, `UnknownDocumentError`, `UnknownBuyerError`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from book.model import BuyerState, Stop
from meter.billing.arithmetic.calendar import Week, local_day
from meter.billing.arithmetic.cycle import Remedy
from meter.billing.arithmetic.drafts import DraftLine, credit_note_draft
from meter.billing.arithmetic.units import line_minor
from meter.billing.sql import documents
from meter.billing.sql.documents import BillingRun, Document
from meter.billing.sql.weeks import FrozenOrder, frozen_order
from meter.billing.sql.withheld import waits_for
from meter.book.sql.contracts import Contract, read_contract
from meter.book.sql.stops import change, held_by, raise_version
from meter.ledger.accounts import Account, Posting, Rule, reversal
from meter.ledger.sql import periods
from meter.ledger.sql.ledger import append, balance, lock_heads, of_buyer
from meter.store.money_schema import billing_periods, payments, refunds, remedies
from meter.store.schema import orders, outbox

MAX_REFERENCE = 80  # characters; with the longest names a posting's key is still one of 200
METHODS = ("check", "ach", "wire", "card", "cash", "other")


class PaymentError(ValueError):
    """The request cannot be done: the message names the field."""


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that came. `document`: the invoice that it is meant for; empty: those that fall due first."""

    buyer: str
    reference: str
    amount_minor: int
    currency: str
    received_on: date
    document: str = ""
    method: str = "other"
    note: str = ""


@dataclass(frozen=True, slots=True)
class PaymentResult:
    """The effect of a payment. `new` is False where it was recorded before; `left_minor` became an open credit."""

    new: bool
    applied: tuple[tuple[str, int], ...] = ()
    settled: tuple[str, ...] = ()
    left_minor: int = 0
    released: bool = False


def record(connection: Connection, payment: Payment, by: str, now_utc_us: int) -> PaymentResult:
    """Record a payment. Raises PaymentError naming what is wrong, UnknownBuyerError, UnknownDocumentError."""
    contract = read_contract(connection, payment.buyer)
    payment = replace(payment, reference=" ".join(payment.reference.split()))
    _check(connection, payment, contract, now_utc_us)
    lock_heads(connection, [payment.buyer])
    there = _payment(connection, payment.buyer, payment.reference)
    if there is not None:
        if not _is_same(there, payment):
            raise PaymentError(f"reference: {payment.reference!r} was recorded before, for another payment")
        if there.reversed_utc_us is not None:
            raise PaymentError(f"reference: {payment.reference!r} was taken back; what came again needs one of its own")
        return PaymentResult(new=False)
    connection.execute(
        insert(payments).values(
            buyer=payment.buyer,
            document=payment.document or None,
            reference=payment.reference,
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            received_on=payment.received_on.isoformat(),
            method=payment.method,
            note=payment.note,
            recorded_utc_us=now_utc_us,
            by=by,
        )
    )
    applied = _share_out(connection, payment)
    left = payment.amount_minor - sum(amount for _, amount in applied)
    moves = [
        _move(payment, Account.RECEIVABLE, amount, number=number, by=by, now_utc_us=now_utc_us)
        for number, amount in applied
    ]
    if left:
        moves.append(_move(payment, Account.CREDITS, left, number=None, by=by, now_utc_us=now_utc_us))
    append(connection, moves)
    settled = tuple(number for number, _ in applied if documents.mark_paid(connection, number, now_utc_us))
    return PaymentResult(
        new=True,
        applied=tuple(applied),
        settled=settled,
        left_minor=left,
        released=release(connection, payment.buyer, now_utc_us),
    )


def reverse(connection: Connection, buyer: str, reference: str, *, reason: str, by: str, now_utc_us: int) -> list[str]:
    """Take a payment back, such as a check that bounced; the invoices that are open again. Raises PaymentError."""
    if not reason.strip():
        raise PaymentError("reason: a reversal says why")
    lock_heads(connection, [buyer])
    there = _payment(connection, buyer, reference)
    if there is None:
        raise PaymentError(f"reference: {buyer} has no payment {reference!r}")
    if there.reversed_utc_us is not None:
        raise PaymentError(f"reference: {reference!r} was reversed before")
    paid = of_buyer(connection, buyer, [Rule.PAYMENT])
    made = [one for one in paid if one.key == _key(buyer, there.reference, one.document)]
    append(connection, [reversal(one, f"{one.key}:reversal", reason, by, now_utc_us) for one in made])
    changed = {"reversed_utc_us": now_utc_us, "reversed_by": by, "reversed_why": reason}
    connection.execute(update(payments).where(payments.c.id == there.id).values(**changed))
    numbers = [one.document for one in made if one.document is not None]
    return [number for number in numbers if not documents.mark_paid(connection, number, now_utc_us)]


def _payment(connection: Connection, buyer: str, reference: str) -> Any:
    """The payment of a reference, however it is spelt: capitals and spaces make no other; None where there is none."""
    wanted = " ".join(reference.split())
    same = func.lower(payments.c.reference) == wanted.lower()
    found = connection.execute(select(payments).where(payments.c.buyer == buyer, same).order_by(payments.c.id)).all()
    return next((one for one in found if one.reference == wanted), found[0] if found else None)


def hold(connection: Connection, number: str, now_utc_us: int) -> bool:
    """Put a buyer on hold for an invoice that is due and not paid, once per invoice; whether that is a new reason.

    Nothing but payment ends it: neither a resume by hand nor the end of another reason for not serving the buyer.
    """
    document = documents.find(connection, number)
    lock_heads(connection, [document.buyer])
    document = documents.find(connection, number)
    is_open = document.settled_utc_us is None and document.due_utc_us is not None
    if not is_open or document.held_utc_us is not None or (document.due_utc_us or 0) > now_utc_us:
        return False
    if not documents.is_handed_over(connection, number):
        return False
    documents.mark_held(connection, number, now_utc_us)
    why = f"unpaid: {number}"
    made = change(connection, document.buyer, add=Stop.UNPAID, by="", why=why, now_utc_us=now_utc_us)
    if made.changed and made.after is BuyerState.ON_HOLD:
        _notify(connection, number, read_contract(connection, document.buyer), now_utc_us)
    return made.changed


def _notify(connection: Connection, number: str, contract: Contract, now_utc_us: int) -> None:
    """Tell the buyer; once per invoice, for one whose payment was taken back holds again under the same message id."""
    told = select(outbox.c.id).where(outbox.c.channel == "mail", outbox.c.message_id == f"{number}.hold")
    if connection.execute(told).first() is None:
        buyer = contract.buyer.name
        documents.queue_mail(connection, number, buyer, contract.documents_to, now_utc_us, kind="hold")


def release(connection: Connection, buyer: str, now_utc_us: int) -> bool:
    """End the hold for unpaid invoices once none that caused it is open; whether the buyer is on hold no more."""
    if held_by(connection, buyer):
        return False
    made = change(connection, buyer, drop={Stop.UNPAID}, by="", why="paid", now_utc_us=now_utc_us)
    return made.before is BuyerState.ON_HOLD and made.after is not BuyerState.ON_HOLD


def cancel(connection: Connection, number: str, *, reason: str, by: str, run: BillingRun) -> str:
    """Cancel an order's invoice by a credit note; its number. What was paid of it becomes an open credit.

    Before its week begins the whole order is cancelled, make-up excepted: that was paid for before. Once the week is
    settled, what an unpaid order fell short of is; what was delivered stays to be paid. Raises PaymentError otherwise.
    """
    if not reason.strip():
        raise PaymentError("reason: a credit note says why")
    document = documents.find(connection, number)
    if document.kind != "order":
        raise PaymentError(f"number: {number} is no order's invoice; what it asks for was delivered")
    contract = read_contract(connection, document.buyer)
    lock_heads(connection, [document.buyer])
    week = contract.week_from(str(document.period))
    frozen = frozen_order(connection, contract, week)
    if frozen is None or frozen.invoice != number:
        raise PaymentError(f"number: {number} was cancelled before")
    row = periods.find(connection, document.buyer, str(week))
    units, amount = _undelivered(row, frozen, week, run.now_utc_us)
    text = f"Live transfers, service week of {week}, not delivered"
    draft = credit_note_draft(
        f"cancel:{number}",
        contract.buyer,
        frozen.terms,
        period=str(week),
        lines=[DraftLine(text, units, frozen.terms.unit_price_minor, amount)],
        reason=reason,
        of=number,
    )
    moves = _cancellation(connection, draft.key, document, amount, reason=reason, by=by, now_utc_us=run.now_utc_us)
    issued = documents.issue(
        connection,
        draft,
        issuer=run.issuer,
        to=contract.documents_to,
        moves=[],
        now_utc_us=run.now_utc_us,
    )
    append(connection, moves)
    documents.mark_paid(connection, number, run.now_utc_us)
    _reopen(connection, document.buyer, week, row, run.now_utc_us)
    release(connection, document.buyer, run.now_utc_us)
    return issued.number


def _undelivered(row: Any, frozen: FrozenOrder, week: Week, now_utc_us: int) -> tuple[int, int]:
    """(units, minor units) of an order that can still be cancelled; `row`: its closed week. Raises PaymentError."""
    if row is not None:
        if row.awaited_utc_us is not None:
            raise PaymentError(f"number: the week of {week} is settled, and nothing of it waits for its payment")
        return row.awaiting_units, row.awaiting_minor
    if now_utc_us >= week.start_us:
        raise PaymentError(f"number: the week of {week} has begun; cancel what it falls short of once it is settled")
    return frozen.paid_units, line_minor(frozen.paid_units, frozen.terms.unit_price_minor)


def _cancellation(
    connection: Connection, key: str, document: Document, amount: int, *, reason: str, by: str, now_utc_us: int
) -> list[Posting]:
    """What is open of the invoice is asked for no more; what was paid of it becomes an open credit."""
    owed = min(amount, documents.open_of(connection, document.number))
    cancelled = Posting(
        key=key,
        buyer=document.buyer,
        rule=Rule.CANCELLED,
        debit=Account.PREPAID,
        credit=Account.RECEIVABLE,
        asset=document.currency,
        amount=0,
        period=document.period,
        document=document.number,
        reason=reason,
        by=by,
        posted_utc_us=now_utc_us,
    )
    moves = (
        replace(cancelled, key=f"{key}:open", credit=Account.RECEIVABLE, amount=owed),
        replace(cancelled, key=f"{key}:paid", credit=Account.CREDITS, amount=amount - owed),
    )
    return [move for move in moves if move.amount]


def _reopen(connection: Connection, buyer: str, week: Week, row: Any, now_utc_us: int) -> None:
    """The week's order can be placed again; where the week is closed (`row`), nothing of it is waited for."""
    if row is None:
        this = (orders.c.buyer == buyer, orders.c.week == str(week))
        open_again = {"quantity": 0, "invoice": None, "paid_units": None, "connected_percent": None}
        connection.execute(update(orders).where(*this).values(**open_again, updated_utc_us=now_utc_us))
        raise_version(connection)
    else:
        changed = {"awaited": "cancelled", "awaited_utc_us": now_utc_us}
        mine = (billing_periods.c.buyer == buyer, billing_periods.c.period == str(week))
        connection.execute(update(billing_periods).where(*mine).values(**changed))


def choose(
    connection: Connection, buyer: str, remedy: Remedy, *, week: Week | None, by: str, origin: str, now_utc_us: int
) -> None:
    """Write down a buyer's remedy: its standing one, or that of `week`. Raises PaymentError where that has closed."""
    if week is not None and now_utc_us >= week.remedy_closes_at:
        closed = date.fromisoformat(str(week)) + timedelta(days=8)
        raise PaymentError(f"week: the remedy for the week of {week} closed on Tuesday {closed}, noon")
    row = {"buyer": buyer, "week": str(week) if week else None, "remedy": remedy.value, "at_utc_us": now_utc_us}
    connection.execute(insert(remedies).values(**row, by=by, origin=origin))


def pay_refund(connection: Connection, refund: int, *, reference: str, by: str, now_utc_us: int) -> None:
    """Write down that a check was sent. Raises PaymentError where there is none, it was sent before, or it waits."""
    row = connection.execute(select(refunds).where(refunds.c.id == refund)).one_or_none()
    if row is None:
        raise PaymentError(f"refund: there is no refund {refund}")
    if not reference.strip():
        raise PaymentError("reference: the number of the check is missing")
    if row.paid_utc_us is not None:
        raise PaymentError(f"refund: {refund} was sent before, as {row.reference!r}")
    lock_heads(connection, [row.buyer])
    waiting = waits_for(connection, row)
    if waiting:
        raise PaymentError(f"refund: {refund} waits for {waiting}")
    changed = {"paid_utc_us": now_utc_us, "paid_by": by, "reference": reference}
    connection.execute(update(refunds).where(refunds.c.id == refund, refunds.c.paid_utc_us.is_(None)).values(**changed))
    posting = Posting(
        key=f"refund:{row.key}",
        buyer=row.buyer,
        rule=Rule.REFUND,
        debit=Account.REFUNDS_DUE,
        credit=Account.CASH,
        asset=row.currency,
        amount=row.amount_minor,
        period=row.week,
        reason=reference,
        by=by,
        posted_utc_us=now_utc_us,
    )
    append(connection, [posting])


def pay_out(connection: Connection, buyer: str, *, by: str, now_utc_us: int, reason: str) -> int:
    """Turn a buyer's open credits into a check on the worklist; its amount. Raises PaymentError without credits."""
    contract = read_contract(connection, buyer)
    lock_heads(connection, [buyer])
    terms = contract.terms_at(now_utc_us)
    amount = -balance(connection, buyer, Account.CREDITS, terms.currency)
    if amount <= 0:
        raise PaymentError(f"buyer: {buyer} has no open credits")
    key = f"pay_out:{buyer}:{now_utc_us}"
    posting = Posting(
        key=key,
        buyer=buyer,
        rule=Rule.PAY_OUT,
        debit=Account.CREDITS,
        credit=Account.REFUNDS_DUE,
        asset=terms.currency,
        amount=amount,
        reason=reason,
        by=by,
        posted_utc_us=now_utc_us,
    )
    append(connection, [posting])
    due_on = local_day(now_utc_us, terms.time_zone).isoformat()
    row = {"key": key, "buyer": buyer, "units": 0, "amount_minor": amount, "currency": terms.currency}
    connection.execute(insert(refunds).values(**row, due_on=due_on, created_utc_us=now_utc_us))
    return amount


def refunds_due(connection: Connection, *, every: bool = False) -> list[Row[Any]]:
    """The worklist: checks to send, by the day on which they are due; with `every` those that wait and those sent."""
    query = select(refunds).order_by(refunds.c.due_on, refunds.c.id)
    if every:
        return list(connection.execute(query).all())
    rows = connection.execute(query.where(refunds.c.paid_utc_us.is_(None))).all()
    return [row for row in rows if not waits_for(connection, row)]


def _check(connection: Connection, payment: Payment, contract: Contract, now_utc_us: int) -> None:
    terms = contract.terms_at(now_utc_us)
    if payment.amount_minor <= 0:
        raise PaymentError(f"amount: {payment.amount_minor} is not more than nothing")
    if payment.currency != terms.currency:
        raise PaymentError(f"currency: the contract is in {terms.currency}, not in {payment.currency}")
    if not payment.reference.strip() or len(payment.reference) > MAX_REFERENCE or not payment.reference.isprintable():
        raise PaymentError(f"reference: needs 1 to {MAX_REFERENCE} printable characters")
    if payment.method not in METHODS:
        raise PaymentError(f"method: {payment.method!r} is none of {', '.join(METHODS)}")
    if payment.received_on > datetime.fromtimestamp(now_utc_us // 1_000_000, UTC).date() + timedelta(days=1):
        raise PaymentError(f"received_on: {payment.received_on} is still to come")
    if payment.document:
        document = documents.find(connection, payment.document)
        if document.buyer != payment.buyer:
            raise PaymentError(f"document: {payment.document} is not {payment.buyer}'s")
        if document.due_utc_us is None:
            raise PaymentError(f"document: {payment.document} asks for nothing")
        if document.currency != payment.currency:
            raise PaymentError(f"document: {payment.document} is in {document.currency}, not in {payment.currency}")


def _is_same(row: Row[Any], payment: Payment) -> bool:
    """The day may differ: who types it again the next morning means the same money."""
    return (row.document or "", row.amount_minor, row.currency) == (
        payment.document,
        payment.amount_minor,
        payment.currency,
    )


def _share_out(connection: Connection, payment: Payment) -> list[tuple[str, int]]:
    """The invoice that is named; else the open ones, the first due first."""
    if payment.document:
        found = [documents.find(connection, payment.document)]
    else:
        found = documents.find_all(connection, payment.buyer, open_only=True)
        found = [one for one in found if one.currency == payment.currency]
        found.sort(key=lambda one: (one.due_utc_us or 0, one.number))
    left = payment.amount_minor
    shares = []
    for one in found:
        share = min(left, max(0, one.open_minor))
        left -= share
        if share:
            shares.append((one.number, share))
    return shares


def _move(payment: Payment, credit: Account, amount: int, *, number: str | None, by: str, now_utc_us: int) -> Posting:
    return Posting(
        key=_key(payment.buyer, payment.reference, number),
        buyer=payment.buyer,
        rule=Rule.PAYMENT,
        debit=Account.CASH,
        credit=credit,
        asset=payment.currency,
        amount=amount,
        document=number,
        by=by,
        posted_utc_us=now_utc_us,
    )


def _key(buyer: str, reference: str, number: str | None) -> str:
    return f"payment:{buyer}:{reference}:{number or 'credit'}"
