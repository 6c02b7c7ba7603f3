"""What a transfer comes to: the table of domain, section 3 as a pure function.

In go the facts of one transfer, in their order; out comes exactly one `Outcome`. Nothing here reads a clock, a store or
a setting: the terms that were in force at dial-out travel in `transfer_started`, and a replay under other terms passes
them in. The rows are tried in the order of the table and the first that matches wins; what no row understands is row
11, `indeterminate`, which is free, counted and alarmed.

Evidence: a final answer made locally (our CANCEL's 487, a transport error, a timer) never says what the buyer did, and
18x or early media is never an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from facts.fact import OUR_FAILURES, EndCause, Fact, Kind, Party, duration_ms
from facts.payloads import Ended, TransferClosed, ended, leg_ended, not_sent, refused, rings
from facts.start_payload import Terms, all_dids, buffer_ms
from facts.start_payload import terms as terms_of
from facts.talk import AFTERWARDS, Talk

TALK_CONNECTED_MS = 15_000  # domain 3, row 2: inclusive
NO_BUFFER_MS = 0  # domain 4: anything else

# Domain 3, row 4: the operator's own carrier refused before any ringing; RFC 3261 sections 21.4 and 21.5.
CARRIER_FAULT_CODES = frozenset({401, 403, 404, 407, 408, 484, 488, *range(500, 600)})
DECLINED_FROM = 300  # domain 3, row 10: a final 3xx to 6xx


class Verdict(StrEnum):
    """What happened, in one word; the same slug in code, database, MQTT, metrics, CSV and pages."""

    NOT_ATTEMPTED = "not_attempted"
    CONNECTED = "connected"
    FAULT = "fault"
    WITHIN_BUFFER = "within_buffer"
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    SHORT_CALL = "short_call"
    CALLER_ABANDONED = "caller_abandoned"
    INDETERMINATE = "indeterminate"


class Reason(StrEnum):
    """Why; closed like the verdicts."""

    SUPPRESSED = "suppressed"
    SUPPRESSION_UNAVAILABLE = "suppression_unavailable"
    DUPLICATE = "duplicate"
    FILTERED = "filtered"
    NO_BUYER = "no_buyer"
    NO_ENDPOINT = "no_endpoint"
    PAUSED = "paused"
    ON_HOLD = "on_hold"
    ORDER_FILLED = "order_filled"
    CAP_REACHED = "cap_reached"
    CLOSED = "closed"
    BAD_NUMBER = "bad_number"
    NO_CAPACITY = "no_capacity"
    DRAINING = "draining"
    REJECTED = "rejected"
    FAULT = "fault"
    ANSWERED = "answered"
    ROUTER_FAULT = "router_fault"
    INTERRUPTED = "interrupted"
    CARRIER_FAULT = "carrier_fault"
    DECLINED = "declined"
    NO_ANSWER = "no_answer"
    CALLER_GONE = "caller_gone"
    CALLER_ENDED = "caller_ended"
    BUYER_ABANDONED = "buyer_abandoned"
    NO_RESPONSE = "no_response"
    UNKNOWN = "unknown"


NOT_ATTEMPTED_REASONS = frozenset(
    {
        Reason.SUPPRESSED, Reason.SUPPRESSION_UNAVAILABLE, Reason.DUPLICATE, Reason.FILTERED, Reason.NO_BUYER,
        Reason.NO_ENDPOINT, Reason.PAUSED, Reason.ON_HOLD, Reason.ORDER_FILLED, Reason.CAP_REACHED, Reason.CLOSED,
        Reason.BAD_NUMBER, Reason.NO_CAPACITY, Reason.DRAINING, Reason.CALLER_GONE, Reason.REJECTED, Reason.FAULT,
    }
)  # fmt: skip


class CountsAs(StrEnum):
    """What billing, the e-mail and offering on look at."""

    CONNECTED = "connected"
    FAILED = "failed"
    FREE = "free"


_COUNTS = {counts_as.value: counts_as for counts_as in CountsAs}
_REASONS = {reason.value: reason for reason in NOT_ATTEMPTED_REASONS}


@dataclass(frozen=True, slots=True)
class OutcomeTerms:
    """The clauses of a terms profile that decide an outcome. Durations in ms."""

    talk_connected_ms: int = TALK_CONNECTED_MS
    unreachable: CountsAs = CountsAs.FREE
    caller_abandon: CountsAs = CountsAs.FREE

    @classmethod
    def of(cls, terms: Terms) -> OutcomeTerms:
        """From those of `transfer_started`; what is missing there takes the preset's default."""
        threshold_ms = terms.talk_connected_ms
        return cls(
            talk_connected_ms=TALK_CONNECTED_MS if threshold_ms is None else threshold_ms,
            unreachable=_COUNTS.get(terms.unreachable or "", CountsAs.FREE),
            caller_abandon=_COUNTS.get(terms.caller_abandon or "", CountsAs.FREE),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """One verdict. `evidence` holds the sequence numbers of the facts it rests on; `row` the row of the table."""

    verdict: Verdict
    reason: Reason
    counts_as: CountsAs
    row: int
    attempt_ms: int
    talk_ms: int
    buffer_ms: int
    evidence: tuple[int, ...] = ()

    def as_payload(self) -> dict[str, Any]:
        """The form kept in the closing fact and published."""
        return self.as_closed().as_payload()

    def as_closed(self) -> TransferClosed:
        """As the closing fact says it."""
        return TransferClosed(
            verdict=self.verdict.value,
            reason=self.reason.value,
            counts_as=self.counts_as.value,
            row=self.row,
            attempt_ms=self.attempt_ms,
            talk_ms=self.talk_ms,
            buffer_ms=self.buffer_ms,
            evidence=self.evidence,
        )


@dataclass(slots=True)
class _Leg:
    """What the facts say of one endpoint's leg."""

    dialed: bool = False
    responded: bool = False  # anything at all came from the far end
    rang: bool = False
    final_code: int | None = None  # a final answer that the far end sent
    ended: bool = False
    dropped_us: int | None = None  # when it ended, if on our side: a fault of that very instant is why

    @property
    def carrier_refused(self) -> bool:
        return self.final_code in CARRIER_FAULT_CODES


_NO_END = Ended()


@dataclass(slots=True)
class _Case:
    """The facts of one transfer, gathered; every rule below reads only this."""

    buffer_ms: int = 0
    only_dids: bool = False
    short_of_a_leg: bool = False  # an endpoint was not dialled, or was dropped, by a fault of ours
    legs: dict[int, _Leg] = field(default_factory=dict)
    seen: dict[Kind, Fact] = field(default_factory=dict)  # first of its kind
    facts: list[Fact] = field(default_factory=list)
    talk: Talk = field(default_factory=Talk)
    talk_start: Fact | None = None
    ended: Ended = _NO_END
    end: Fact | None = None

    def has(self, kind: Kind) -> bool:
        return kind in self.seen

    @property
    def ended_by(self) -> Party | None:
        return self.ended.by

    @property
    def cause(self) -> EndCause | None:
        return self.ended.cause

    @property
    def accepted_and_left(self) -> bool:
        """The endpoint had the call, by its key or its whisper, and hung up before the bridge was there."""
        left = self.ended_by == Party.BUYER and self.cause in (EndCause.BYE, EndCause.VANISHED)
        return bool(self.talk.answers) and self.talk_start is None and left

    def span_ms(self, start: Fact | None) -> int:
        end = self.end
        return 0 if start is None or end is None else duration_ms(start.mono_us, end.mono_us, end.lag_us)

    @property
    def any_declined(self) -> bool:
        refused = any(leg.final_code is not None and leg.final_code >= DECLINED_FROM for leg in self.legs.values())
        return refused or (self.has(Kind.ANSWERED) and self.talk_start is None)

    def evidence(self, kinds: frozenset[Kind]) -> tuple[int, ...]:
        return tuple(sorted([fact.seq for fact in self.facts if fact.kind in kinds]))


def _gather(facts: Iterable[Fact]) -> _Case:
    case = _Case()
    last: Fact | None = None
    for fact in facts:
        if fact.kind is Kind.TRANSFER_CLOSED:
            break  # what comes after the closing fact (a late answer) is on the record but decides nothing
        kind = fact.kind
        case.facts.append(fact)
        case.seen.setdefault(kind, fact)
        if kind not in AFTERWARDS:
            last = fact
        if kind is Kind.TRANSFER_STARTED:
            case.buffer_ms = buffer_ms(fact) or 0
            case.only_dids = all_dids(fact)
        elif kind is Kind.RESUMED:
            case.talk.note(fact)
        elif fact.leg:
            _read_leg(case, fact, fact.leg)
    case.end = case.seen.get(Kind.ENDED) or case.seen.get(Kind.INTERRUPTED) or last
    case.talk_start = case.talk.start
    if Kind.ENDED in case.seen:
        case.ended = ended(case.seen[Kind.ENDED])
    return case


def _is_our_fault(fact: Fact) -> bool:
    return fact.kind is Kind.FAULT or (fact.kind is Kind.NOT_SENT and not_sent(fact).ours is True)


def _read_leg(case: _Case, fact: Fact, number: int) -> None:
    leg = case.legs.get(number)
    if leg is None:
        leg = case.legs[number] = _Leg()
    kind = fact.kind
    if kind is Kind.DIALED:
        leg.dialed = True
    elif kind in _RESPONSES:
        leg.responded = True
        leg.rang = leg.rang or rings(fact)
        if kind is Kind.ANSWERED:
            case.talk.note(fact)
    elif kind is Kind.BRIDGED:
        case.talk.note(fact)
    elif kind is Kind.LEG_ENDED:
        over = leg_ended(fact)
        leg.ended, leg.dropped_us = True, fact.mono_us if over.local is True else None
        if over.far_end_code is not None:
            leg.responded = True
            leg.final_code = over.far_end_code if leg.final_code is None else leg.final_code
    elif _is_our_fault(fact) and (not leg.ended or fact.mono_us == leg.dropped_us):  # else it had had its say
        case.short_of_a_leg = True


_RESPONSES = frozenset({Kind.TRYING, Kind.RINGING, Kind.ANSWERED, Kind.ANSWERED_LATE})


_TALK_ENDED_BY = {Party.CALLER: Reason.CALLER_ENDED, Party.BUYER: Reason.BUYER_ABANDONED}
_UNANSWERED = (EndCause.LEGS_FAILED, EndCause.RING_TIMEOUT)
_Row = tuple[Verdict, Reason, CountsAs]


def _row_1(case: _Case, _: OutcomeTerms) -> _Row | None:
    """No INVITE left. A crash before dial-out is row 3, never this one."""
    if case.has(Kind.DIALED) or case.has(Kind.INTERRUPTED):
        return None
    if case.has(Kind.REFUSED):
        return Verdict.NOT_ATTEMPTED, _refusal(case.seen[Kind.REFUSED]), CountsAs.FREE
    if case.ended_by == Party.CALLER:
        return Verdict.NOT_ATTEMPTED, Reason.CALLER_GONE, CountsAs.FREE
    if case.has(Kind.ENDED) or case.has(Kind.FAULT):
        return Verdict.NOT_ATTEMPTED, Reason.FAULT, CountsAs.FREE
    return None


def _refusal(fact: Fact) -> Reason:
    return _REASONS.get(refused(fact).reason or "", Reason.FAULT)


def _row_2(case: _Case, terms: OutcomeTerms) -> _Row | None:
    """Talk of 15 s or more; a voicemail is a sales opportunity and counts."""
    if not case.has(Kind.DIALED):
        return None
    long_enough = case.talk_start is not None and case.span_ms(case.talk_start) >= terms.talk_connected_ms
    if case.has(Kind.TALK_REACHED_15S) or long_enough:
        return Verdict.CONNECTED, Reason.ANSWERED, CountsAs.CONNECTED
    return None


def _row_3(case: _Case, _: OutcomeTerms) -> _Row | None:
    """Ended by us for anything but the ring timeout. The buyer never pays for our crash."""
    if case.has(Kind.INTERRUPTED):
        return Verdict.FAULT, Reason.INTERRUPTED, CountsAs.FREE
    if case.cause in OUR_FAILURES:
        return Verdict.FAULT, Reason.ROUTER_FAULT, CountsAs.FREE
    if case.short_of_a_leg and case.cause in _UNANSWERED:  # the endpoint that we did not ring might have answered
        return Verdict.FAULT, Reason.ROUTER_FAULT, CountsAs.FREE
    return None


def _row_4(case: _Case, _: OutcomeTerms) -> _Row | None:
    """Only DIDs, and the operator's own carrier refused every leg before any ringing."""
    dialed = [leg for leg in case.legs.values() if leg.dialed]
    if not (case.only_dids and dialed and case.cause == EndCause.LEGS_FAILED):
        return None
    if all(not leg.rang and leg.carrier_refused for leg in dialed):
        return Verdict.FAULT, Reason.CARRIER_FAULT, CountsAs.FREE
    return None


def _row_5(case: _Case, _: OutcomeTerms) -> _Row | None:
    """Over before the buffer was."""
    if not (case.has(Kind.DIALED) and case.has(Kind.ENDED)):
        return None
    if case.span_ms(case.seen[Kind.DIALED]) >= case.buffer_ms:
        return None
    reason = _how_it_ended(case)
    return None if reason is None else (Verdict.WITHIN_BUFFER, reason, CountsAs.FREE)


def _how_it_ended(case: _Case) -> Reason | None:
    if case.talk_start is not None:
        return _TALK_ENDED_BY.get(case.ended_by) if case.ended_by is not None else None
    if case.accepted_and_left:
        return Reason.BUYER_ABANDONED
    if case.ended_by == Party.CALLER:
        return Reason.CALLER_GONE
    if case.cause in _UNANSWERED:
        return Reason.DECLINED if case.any_declined else Reason.NO_ANSWER
    return None


def _row_6(case: _Case, terms: OutcomeTerms) -> _Row | None:
    """Nothing ever came back from any endpoint."""
    dialed = [leg for leg in case.legs.values() if leg.dialed]
    silent = bool(dialed) and not any(leg.responded for leg in dialed)
    if silent and case.cause in _UNANSWERED:
        return Verdict.UNREACHABLE, Reason.NO_RESPONSE, terms.unreachable
    return None


def _row_7(case: _Case, _: OutcomeTerms) -> _Row | None:
    """Answered, and the buyer left before 15 s of talk."""
    if case.accepted_and_left or (case.talk_start is not None and case.ended_by == Party.BUYER):
        return Verdict.FAILED, Reason.BUYER_ABANDONED, CountsAs.FAILED
    return None


def _row_8(case: _Case, _: OutcomeTerms) -> _Row | None:
    """Answered, and the caller left before 15 s of talk."""
    if case.talk_start is not None and case.ended_by == Party.CALLER:
        return Verdict.SHORT_CALL, Reason.CALLER_ENDED, CountsAs.FREE
    return None


def _row_9(case: _Case, terms: OutcomeTerms) -> _Row | None:
    """Not answered, the caller gave up."""
    if case.talk_start is None and case.has(Kind.DIALED) and case.ended_by == Party.CALLER:
        return Verdict.CALLER_ABANDONED, Reason.CALLER_GONE, terms.caller_abandon
    return None


def _row_10(case: _Case, _: OutcomeTerms) -> _Row | None:
    """Not answered: every leg declined or rang out."""
    if case.talk_start is None and case.has(Kind.DIALED) and case.cause in _UNANSWERED:
        reason = Reason.DECLINED if case.any_declined else Reason.NO_ANSWER
        return Verdict.FAILED, reason, CountsAs.FAILED
    return None


_TABLE: tuple[Callable[[_Case, OutcomeTerms], _Row | None], ...] = (
    _row_1,
    _row_2,
    _row_3,
    _row_4,
    _row_5,
    _row_6,
    _row_7,
    _row_8,
    _row_9,
    _row_10,
)

_NO_ROW = 11  # anything not understood
_EVIDENCE: dict[int, frozenset[Kind]] = {
    1: frozenset({Kind.TRANSFER_STARTED, Kind.REFUSED, Kind.ENDED, Kind.FAULT}),
    2: frozenset({Kind.DIALED, Kind.ANSWERED, Kind.BRIDGED, Kind.TALK_REACHED_15S, Kind.ENDED, Kind.INTERRUPTED}),
    3: frozenset({Kind.TRANSFER_STARTED, Kind.DIALED, Kind.ENDED, Kind.FAULT, Kind.INTERRUPTED}),
    _NO_ROW: frozenset(Kind),
}
_EVIDENCE_ELSE = frozenset(
    {
        Kind.DIALED, Kind.RINGING, Kind.ANSWERED, Kind.ACCEPTED, Kind.BRIDGED, Kind.RESUMED, Kind.LEG_ENDED, Kind.ENDED,
    }
)  # fmt: skip


def decide(facts: Iterable[Fact], terms: OutcomeTerms | None = None) -> Outcome:
    """Exactly one outcome for any sequence of facts of one transfer.

    `terms` defaults to those in force at dial-out, as `transfer_started` recorded them. Durations in ms, rounded down,
    the lag of the end subtracted. Raises nothing. Source: domain, section 3.
    """
    case = _gather(facts)
    if terms is None:
        started = case.seen.get(Kind.TRANSFER_STARTED)
        terms = OutcomeTerms() if started is None else OutcomeTerms.of(terms_of(started))
    row, (verdict, reason, counts_as) = _first_row(case, terms)
    return Outcome(
        verdict=verdict,
        reason=reason,
        counts_as=counts_as,
        row=row,
        attempt_ms=case.span_ms(case.seen.get(Kind.DIALED)),
        talk_ms=case.span_ms(case.talk_start),
        buffer_ms=case.buffer_ms,
        evidence=case.evidence(_EVIDENCE.get(row, _EVIDENCE_ELSE)),
    )


def _first_row(case: _Case, terms: OutcomeTerms) -> tuple[int, _Row]:
    for row, rule in enumerate(_TABLE, start=1):
        found = rule(case, terms)
        if found is not None:
            return row, found
    return _NO_ROW, (Verdict.INDETERMINATE, Reason.UNKNOWN, CountsAs.FREE)
