"""The meter's follower: closing facts in; outcomes, units and messages out, each exactly once.

It reads the closing facts after its cursor, boot by boot, decides every transfer again from all its facts, and compares
that with the verdict the router wrote: a difference is counted, logged and kept beside the outcome (`agreed`); what the
meter decided is what counts. Outcome, unit, messages and cursor are one commit, before anybody is told.

What a payload says was written by our router, but its free fields came from the network: whatever is not of the type
expected here reads as empty, so that no fact can stop the meter.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import orjson
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import Rating, Terms
from facts.fact import Fact, Kind, first_of, until_closed
from facts.outcome import CountsAs, Outcome, OutcomeTerms, decide
from facts.payloads import transfer_closed
from facts.start_payload import lead_emails, lead_fields, parties, terms
from meter.billing.arithmetic.minutes import minute_charge
from meter.ledger.accounts import INCREMENT, UNIT, Account, Posting, Rule
from meter.outbox.sql import new_row, waits_for
from meter.per_minute.interactions import Charged, call_row, mail_address
from meter.per_minute.sql.interactions import ask_message
from meter.settling.counting import count_settled
from meter.settling.sql.settlement import (
    MANY_TRANSFERS,
    MAX_TRANSFERS,
    Batch,
    Columns,
    CursorMovedError,
    SettledRows,
    boots_due,
    read_batch,
    write_batch,
)
from meter.store.changes import ChangeWatch
from meter.store.clerk import Clerk
from meter.store.engine import StoreError, first_line
from meter.store.pause import pause
from telemetry import metrics

POLL_MS = 400  # how soon a closing fact is seen: one PRAGMA on SQLite
FIRST_RETRY_MS = 200
LAST_RETRY_MS = 5_000  # while the store fails; tried for ever, since nothing may be left unsettled
MAX_NAME, MAX_PHONE = 64, 32  # characters, as the columns
_BY_MINUTE = Terms("", rating=Rating.MINUTE)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SettleOptions:
    """What the follower queues beside outcomes and units."""

    poll_ms: int = POLL_MS
    ask_rating: bool = False  # ask callers how it was, of buyers who want it; off where there are no links to send


@dataclass(frozen=True, slots=True)
class Settled:
    """One transfer, decided again."""

    rows: SettledRows
    outcome: Outcome
    agreed: bool
    facts: Sequence[Fact]


def settle(history: Sequence[Fact], closing: Fact, options: SettleOptions, now_utc_us: int) -> Settled:
    """What one closed transfer comes to. Pure. `history` holds all its facts, in order."""
    facts = until_closed(history)
    started = first_of(facts, Kind.TRANSFER_STARTED)
    about = _About(started or closing, first_of(facts, Kind.DIALED), closing, now_utc_us)
    outcome = decide(facts, OutcomeTerms.of(about.terms) if started is not None else OutcomeTerms())
    agreed = transfer_closed(closing) == outcome.as_closed()
    row = about.outcome_row(outcome, agreed=agreed)
    posting = about.posting(outcome)
    messages = about.mails() if outcome.counts_as is CountsAs.FAILED else []
    call = about.interaction(facts, outcome, posting)
    ask = about.ask() if options.ask_rating and call is not None and call["started_utc_us"] is not None else None
    return Settled(SettledRows(row, posting, messages, call, ask), outcome, agreed, facts)


class _About:
    """What `transfer_started` says, read with a fallback for everything."""

    def __init__(self, started: Fact, dialout: Fact | None, closing: Fact, now_utc_us: int) -> None:
        self._started, self._dialout, self._closing, self._now_utc_us = started, dialout, closing, now_utc_us
        self.terms = terms(started)
        self._parties = parties(started)
        self._buyer = _short(self._parties.buyer)

    def outcome_row(self, outcome: Outcome, *, agreed: bool) -> Columns:
        return {
            "transfer": self._closing.transfer,
            "router": self._closing.router,
            "boot": self._closing.boot,
            "call_id": _short(self._parties.call_id),
            "sip_call_id": self._parties.sip_call_id or "",
            "dialer": _short(self._parties.dialer),
            "campaign": _short(self._parties.campaign),
            "buyer": self._buyer,
            "phone": _short(self._parties.phone, MAX_PHONE),
            "started_utc_us": self._started.utc_us,
            "dialout_utc_us": self._dialout.utc_us if self._dialout else None,
            "closed_utc_us": self._closing.utc_us,
            "verdict": outcome.verdict.value,
            "reason": outcome.reason.value,
            "counts_as": outcome.counts_as.value,
            "table_row": outcome.row,
            "attempt_ms": outcome.attempt_ms,
            "talk_ms": outcome.talk_ms,
            "buffer_ms": outcome.buffer_ms,
            "evidence": orjson.dumps(outcome.evidence),
            **self._terms_used(),
            "agreed": agreed,
        }

    def posting(self, outcome: Outcome) -> Posting | None:
        """One unit, or the increments of a call that is paid by the minute; None for what is free."""
        if self.terms.by_minute:
            return self._minutes(outcome)
        if outcome.counts_as is CountsAs.FREE:
            return None
        unit = outcome.counts_as.value
        is_connected = outcome.counts_as is CountsAs.CONNECTED
        agreed = self.terms.connected_percent if is_connected else self.terms.failed_percent
        percent = 100 if agreed is None else min(100, max(0, agreed))
        return Posting(
            key=f"{self._closing.transfer}:unit",
            rule=Rule.UNIT,
            debit=Account(f"unbilled_{unit}"),
            credit=Account.DELIVERED,
            asset=UNIT,
            amount=percent,
            unit=unit,
            units=1,
            percent=percent,
            **self._of_transfer(),
        )

    def _minutes(self, outcome: Outcome) -> Posting | None:
        """By talk alone: buffer, verdict and units play no part (domain, section 9)."""
        increment_ms = max(0, self.terms.minute_increment_ms or 0) or _BY_MINUTE.minute_increment_ms
        minimum_ms = max(0, self.terms.minute_minimum_ms or 0)
        price = self.terms.minute_price_minor  # None in facts of before it was told: the invoice looks it up
        clauses = replace(_BY_MINUTE, minute_increment_ms=increment_ms, minute_minimum_ms=minimum_ms)
        rated = minute_charge(outcome.talk_ms, clauses)
        if not rated.increments:
            return None
        return Posting(
            key=f"{self._closing.transfer}:minutes",
            rule=Rule.MINUTES,
            debit=Account.UNBILLED_MINUTES,
            credit=Account.DELIVERED,
            asset=INCREMENT,
            amount=rated.increments,
            unit="call",
            units=rated.increments,
            price_minor=None if price is None else max(0, price),
            **self._of_transfer(),
        )

    def interaction(self, facts: Sequence[Fact], outcome: Outcome, posting: Posting | None) -> Columns | None:
        """The call, answered or not, of a buyer who pays by the minute; None of others, and where nothing rang."""
        if not self.terms.by_minute or self._dialout is None or not self._buyer:
            return None
        increments = posting.units if posting is not None else 0
        price = posting.price_minor or 0 if posting is not None else 0
        currency = self.terms.currency or ""
        charged = Charged(increments, increments * price, currency if len(currency) == len("USD") else "")
        phone, now = _short(self._parties.phone, MAX_PHONE), self._now_utc_us
        return call_row(facts, outcome, buyer=self._buyer, customer=phone, charged=charged, now_utc_us=now)

    def ask(self) -> Columns | None:
        """The question to the caller how it was, where the lead has an address."""
        to = mail_address((lead_fields(self._started) or {}).get("email"))
        return ask_message(self._closing.transfer, to, self._now_utc_us) if to else None

    def _of_transfer(self) -> Columns:
        return {
            "transfer": self._closing.transfer,
            "buyer": self._buyer,
            **self._terms_used(),
            "dialout_utc_us": (self._dialout or self._started).utc_us,
            "posted_utc_us": self._now_utc_us,
        }

    def mails(self) -> list[Columns]:
        """The lead's e-mail, as little as is needed to make it from the facts.

        Of a buyer without an address it waits for one, since the unit is charged; who pays by the minute pays none.
        """
        transfer, to = self._closing.transfer, list(lead_emails(self._started))
        if not to and (not self._buyer or self.terms.by_minute):
            return []
        said = {"transfer": transfer, **({"to": to} if to else {})}
        needs = "" if to else waits_for("lead_emails", self._buyer)
        return [new_row("mail", transfer, f"{transfer}.lead", said, self._now_utc_us, needs=needs)]

    def _terms_used(self) -> Columns:
        return {"terms_name": _short(self.terms.name), "terms_version": self.terms.version or 0}


def _short(text: str | None, limit: int = MAX_NAME) -> str:
    return (text or "")[:limit]


class Follower:
    """Settles what is closed, until told to stop."""

    def __init__(
        self, engine: AsyncEngine, options: SettleOptions | None = None, on_settled: Callable[[], None] | None = None
    ) -> None:
        self._options = options or SettleOptions()
        self._clerk = Clerk(engine)
        self._watch = ChangeWatch(self._clerk)
        self._on_settled = on_settled or (lambda: None)
        self.looked_at: float | None = None  # when it last found its way through a look, time.monotonic

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the journal. A store that fails is tried again for ever, with backoff up to five seconds."""
        pause_ms = self._options.poll_ms
        while not stop.is_set():
            try:
                if await self._watch.changed():
                    await self.catch_up()
                self.looked_at = time.monotonic()
                pause_ms = self._options.poll_ms
            except (SQLAlchemyError, StoreError, CursorMovedError, ValueError) as error:
                self._watch.forget()
                pause_ms = min(max(pause_ms * 2, FIRST_RETRY_MS), LAST_RETRY_MS)
                metrics.ENGINE_FAULTS.labels("settle").inc()
                _log.error("settling failed", error=first_line(error), retry_ms=pause_ms)
            await pause(stop, pause_ms / 1000)

    async def catch_up(self) -> int:
        """Settle everything that is closed now; how many transfers."""
        count = 0
        limit = MAX_TRANSFERS
        while due := await self._clerk.read(boots_due):
            for router, boot, cursor in due:
                batch = await self._clerk.read(read_batch, router, boot, cursor, limit=limit)
                count += await self._settle_batch(batch)
                self.looked_at = time.monotonic()
                limit = MANY_TRANSFERS if len(batch.closings) >= limit else MAX_TRANSFERS
        return count

    async def close(self) -> None:
        await self._clerk.close()

    async def _settle_batch(self, batch: Batch) -> int:
        now = time.time_ns() // 1000
        settled = [settle(batch.histories[one.transfer], one, self._options, now) for one in batch.closings]
        fresh = await self._clerk.write(write_batch, batch, [one.rows for one in settled])
        new = [one for one in settled if one.rows.outcome["transfer"] in fresh]
        for labels, count in Counter(_labels(one.outcome) for one in new).items():
            metrics.TRANSFERS.labels(*labels).inc(count)
        for one in new:
            count_settled(one.rows.outcome["transfer"], one.facts, one.outcome, agreed=one.agreed)
        if fresh:
            self._on_settled()
        return len(fresh)


def _labels(outcome: Outcome) -> tuple[str, str, str]:
    return outcome.verdict.value, outcome.reason.value, outcome.counts_as.value
