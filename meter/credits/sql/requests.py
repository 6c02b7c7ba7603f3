"""Files credit requests, decides them in the order of filing, re-reviews them, and posts the decisions.

Everything that writes here first takes the line (on PostgreSQL a lock of the table, on SQLite the one writer there is),
so that ids are given and decided in one order, and then the buyer's chain. A decision, its posting and its e-mail are
one transaction. The unique (transfer, level) says once more that there is one request per call and one re-review of it.
The next Tuesday's invoice uses a credit like every open one.

Business errors: `CreditError`, `UnknownBuyerError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, update

from meter.book.sql.contracts import read_contract
from meter.credits.rules import (
    CreditError,
    CreditRefusal,
    Effect,
    ReasonBook,
    State,
    check_explanation,
    check_reason,
    check_reviewer,
    check_window,
    check_words,
    effect_of,
)
from meter.credits.sql.calls import billed_call, credit_of
from meter.credits.sql.reading import IS_OPEN, LEVELS, Request, find, first_open, of_level
from meter.ledger.accounts import Account, Posting, Rule, reversal
from meter.ledger.sql.ledger import append, lock_heads, read
from meter.outbox.sql import new_row, waits_for
from meter.store.money_schema import credit_requests
from meter.store.schema import outbox

KIND = "credit"  # of the e-mail


@dataclass(frozen=True, slots=True)
class CreditApplication:
    """A buyer's request, or a request for a re-review (then `reason` is the request's own)."""

    words: str
    by: str
    origin: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A reviewer's decision."""

    approve: bool
    explanation: str
    reviewer: str


def ask(
    connection: Connection, call: tuple[str, str], asked: CreditApplication, reasons: ReasonBook, now_utc_us: int
) -> Request:
    """File a request; `call` is the transfer and the buyer, empty for whoever was billed. Raises CreditError."""
    _take_line(connection)
    about = billed_call(connection, *call)
    lock_heads(connection, [about.buyer])
    check_reason(reasons.of(about.category), asked.reason)
    words = check_words(asked.words)
    _refuse_again(connection, about.transfer)
    check_window(about.window, now_utc_us)
    row = {"transfer": about.transfer, "buyer": about.buyer, "level": 1, "first": None, "reason": asked.reason}
    return _add(connection, row, CreditApplication(words, asked.by, asked.origin), now_utc_us)


def re_review(connection: Connection, request: int, asked: CreditApplication, now_utc_us: int) -> Request:
    """Put a decided request into the line once more. Raises CreditError: not decided yet, or re-reviewed before."""
    _take_line(connection)
    first = find(connection, request)
    if first.level == LEVELS or of_level(connection, first.transfer, LEVELS) is not None:
        raise CreditError(CreditRefusal.REVIEWED_TWICE, id=request)
    if first.state is State.OPEN:
        raise CreditError(CreditRefusal.NOT_DECIDED, id=request)
    lock_heads(connection, [first.buyer])
    row = {"transfer": first.transfer, "buyer": first.buyer, "level": LEVELS, "first": first.id, "reason": first.reason}
    return _add(connection, row, CreditApplication(check_words(asked.words), asked.by, asked.origin), now_utc_us)


def decide(connection: Connection, request: int, decision: Decision, now_utc_us: int) -> Request:
    """Decide the oldest open request: its posting and its e-mail go with it. Raises CreditError for any other."""
    _take_line(connection)
    this = find(connection, request)
    if this.state is not State.OPEN:
        raise CreditError(CreditRefusal.NOT_OPEN, id=this.id, state=this.state.value, by=this.decided_by)
    if this.place != 1:
        raise CreditError(CreditRefusal.NOT_FIRST, first=first_open(connection), id=this.id, place=this.place)
    before = None if this.first is None else find(connection, this.first)
    reviewer = check_reviewer(decision.reviewer, before.decided_by if before else None)
    explanation = check_explanation(decision.explanation)
    lock_heads(connection, [this.buyer])
    state = State.APPROVED if decision.approve else State.DECLINED
    effect = effect_of(before.state if before else None, state)
    posting: Posting | None = None
    if effect is Effect.CREDIT:
        posting = _give(connection, this, reviewer, now_utc_us)
    elif effect is Effect.TAKE_BACK:
        posting = _take_back(connection, this, explanation, reviewer, now_utc_us)
    elif state is State.APPROVED:  # of a re-review: the credit stands
        [posting] = read(connection, [_key(this)])
    changed = {
        "state": state.value,
        "decided_utc_us": now_utc_us,
        "decided_by": reviewer,
        "explanation": explanation,
        "amount_minor": 0 if posting is None else -posting.amount if posting.reverses else posting.amount,
        "currency": None if posting is None else posting.asset,
        "posting": None if posting is None else posting.key,
    }
    connection.execute(update(credit_requests).where(credit_requests.c.id == this.id, IS_OPEN).values(**changed))
    _queue_mail(connection, this, read_contract(connection, this.buyer).documents_to, now_utc_us)
    return find(connection, this.id)


def _take_line(connection: Connection) -> None:
    """Nobody else asks or decides until the transaction ends; who only reads is not held up."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE credit_requests IN SHARE ROW EXCLUSIVE MODE")


def _refuse_again(connection: Connection, transfer: str) -> None:
    for level in (LEVELS, 1):
        there = of_level(connection, transfer, level)
        if there is None:
            continue
        if there.state == State.OPEN.value:
            raise CreditError(CreditRefusal.ALREADY_OPEN, id=there.id)
        if there.state == State.APPROVED.value:
            raise CreditError(CreditRefusal.ALREADY_CREDITED)
        raise CreditError(CreditRefusal.DECLINED, id=there.id)
    if credit_of(connection, transfer) is not None:
        raise CreditError(CreditRefusal.ALREADY_CREDITED)


def _add(connection: Connection, row: dict[str, Any], asked: CreditApplication, now_utc_us: int) -> Request:
    said = {"words": asked.words, "asked_utc_us": now_utc_us, "asked_by": asked.by, "origin": asked.origin}
    made = connection.execute(insert(credit_requests).values(**row, **said, state=State.OPEN.value))
    key: tuple[Any, ...] = made.inserted_primary_key or ()
    return find(connection, int(key[0]))


def _give(connection: Connection, this: Request, reviewer: str, now_utc_us: int) -> Posting:
    """Allowances to credits. No dial-out: it is money, which no week counts as a unit."""
    call = billed_call(connection, this.transfer, this.buyer)
    if credit_of(connection, this.transfer) is not None:
        raise CreditError(CreditRefusal.ALREADY_CREDITED)
    posting = Posting(
        key=_key(this),
        buyer=this.buyer,
        rule=Rule.CREDIT,
        debit=Account.ALLOWANCES,
        credit=Account.CREDITS,
        asset=call.currency,
        amount=call.amount_minor,
        transfer=this.transfer,
        unit=call.unit,
        percent=call.percent,
        price_minor=call.price_minor,
        terms_name=call.terms_name,
        terms_version=call.terms_version,
        period=call.week,
        reason=f"credit request {this.id}: {this.reason}",
        by=reviewer,
        posted_utc_us=now_utc_us,
    )
    append(connection, [posting])
    return posting


def _take_back(connection: Connection, this: Request, reason: str, reviewer: str, now_utc_us: int) -> Posting:
    [given] = read(connection, [_key(this)])
    back = reversal(given, f"{given.key}:reversal", reason, reviewer, now_utc_us)
    append(connection, [back])
    return back


def _key(this: Request) -> str:
    return f"credit:{this.transfer}"


def _queue_mail(connection: Connection, this: Request, to: Sequence[str], now_utc_us: int) -> None:
    """The decision's e-mail; of a buyer without any address it waits for one."""
    said = {"kind": KIND, "id": this.id, **({"to": list(to)} if to else {})}
    needs = "" if to else waits_for("billing_emails", this.buyer)
    row = new_row("mail", f"credit:{this.id}", f"credit-{this.id}.decision", said, now_utc_us, needs=needs)
    connection.execute(insert(outbox).values(**row))
