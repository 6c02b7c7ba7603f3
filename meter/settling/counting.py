"""What a settled transfer tells Prometheus, once its outcome is durable."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from facts.fact import Fact, Kind, first_of
from facts.outcome import Outcome
from facts.payloads import leg_ended, rings
from facts.start_payload import buyer as buyer_of
from facts.start_payload import by_leg
from telemetry import metrics

_BUSY = frozenset({486, 600})  # RFC 3261 sections 21.4.24 and 21.6.1
_NO_ANSWER = frozenset({408, 480, 487})
_SERVER_ERRORS = range(500, 600)

_log = structlog.get_logger()


def count_settled(transfer: str, facts: Sequence[Fact], outcome: Outcome, *, agreed: bool) -> None:
    """Tell the metrics of one transfer, once its commit is done; `baton_transfers_total` is counted by the batch."""
    if not agreed:
        metrics.VERDICT_MISMATCH.inc()
        _log.error("the router's verdict differs", transfer=transfer, verdict=outcome.verdict.value)
    started = facts[0] if facts else None
    buyer = (buyer_of(started) if started is not None else None) or ""
    label = metrics.BUYERS.of(buyer)
    metrics.BUYER_TRANSFERS.labels(label, outcome.counts_as.value).inc()
    dialed = [fact for fact in facts if fact.kind is Kind.DIALED]
    if started is None or not dialed:
        return
    zero_us = dialed[0].mono_us
    metrics.FANOUT_SPREAD.observe((dialed[-1].mono_us - zero_us) / 1_000_000)
    ringing = next((fact for fact in facts if rings(fact)), None)
    answered = first_of(facts, Kind.ANSWERED)
    if ringing is not None:
        metrics.DIALOUT_TO_RINGING.observe((ringing.mono_us - zero_us) / 1_000_000)
    if answered is not None:
        metrics.DIALOUT_TO_ANSWER.observe((answered.mono_us - zero_us) / 1_000_000)
        metrics.TALK.observe(outcome.talk_ms / 1000)
        metrics.BUYER_TALK.labels(label).inc(outcome.talk_ms / 1000)
    else:
        metrics.BUFFER_REMAINING.observe(max(0, outcome.buffer_ms - outcome.attempt_ms) / 1000)
    _count_legs(facts, started, buyer, zero_us)


def _count_legs(facts: Sequence[Fact], started: Fact, buyer: str, zero_us: int) -> None:
    """By endpoint: what became of each leg, and its own clocks."""
    names = {leg: endpoint.name or str(leg) for leg, endpoint in by_leg(started).items()}
    results: dict[int, str] = {}
    rang: set[int] = set()
    for fact in facts:
        leg = fact.leg
        if not leg or leg not in names:
            continue
        at_s = (fact.mono_us - zero_us) / 1_000_000
        if rings(fact) and leg not in rang:
            rang.add(leg)
            metrics.TRUNK_RINGING.labels(metrics.TRUNKS.of(f"{buyer}/{names[leg]}")).observe(at_s)
        elif fact.kind is Kind.ANSWERED:
            results[leg] = "won"
            metrics.TRUNK_ANSWER.labels(metrics.TRUNKS.of(f"{buyer}/{names[leg]}")).observe(at_s)
        elif fact.kind is Kind.ANSWERED_LATE:
            results[leg] = "late"
            metrics.LATE_ANSWERS.inc()
        elif fact.kind is Kind.NOT_SENT:
            results.setdefault(leg, "not_sent")
        elif fact.kind is Kind.LEG_ENDED:
            results.setdefault(leg, _ending(fact))
    for leg, result in results.items():
        metrics.TRUNK_LEGS.labels(metrics.TRUNKS.of(f"{buyer}/{names[leg]}"), result).inc()


def _ending(fact: Fact) -> str:
    """What a leg that nobody answered came to."""
    over = leg_ended(fact)
    if over.local is not False:
        return "cancelled"
    code = over.code
    if code in _BUSY:
        return "busy"
    if code in _NO_ANSWER:
        return "no_answer"
    return "failed" if code is None or code in _SERVER_ERRORS else "declined"
