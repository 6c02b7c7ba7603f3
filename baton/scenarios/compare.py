"""What a story expects, held against what is on the record. Pure; each difference is a sentence, none: all is as it
should be.

Beside what the story says, these hold for every transfer: it is settled, router and meter agree, it was closed once,
one leg at most won (another only after that one had left within the commit window), no leg that was dialled is left
open, and nothing is posted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from baton.scenarios.facts import first_missing
from baton.scenarios.story import ChargeEntry, ExpectEntry, LegEntry
from facts.fact import Fact, Kind
from facts.ladder import LegTimes, build_ladder
from facts.outcome import CountsAs, Outcome
from facts.payloads import answered
from facts.start_payload import Terms, terms
from meter.settling.sql.records import TransferRecord


def differences(expect: ExpectEntry, told: TransferRecord, *, endpoints: int) -> list[str]:
    """Everything about one transfer that is not as expected. `endpoints`: how many its buyer has."""
    problems = list(_always(told))
    if told.settled is None:
        return problems
    for name, found in _outcome(told.settled):
        problems += _one_of(name, found, tuple(str(one) for one in getattr(expect, name)))
    dialled = expect.dialled if expect.dialled is not None else (endpoints,)
    problems += _one_of("winner", next(reversed(told.legs_with(Kind.BRIDGED)), 0), expect.winner)
    problems += _one_of("late answers", len(told.legs_with(Kind.ANSWERED_LATE)), expect.late)
    problems += _one_of("legs dialled", len(set(told.legs_with(Kind.DIALED))), dialled)
    problems += _spans(expect, told.outcome)
    problems += _legs(expect.legs, {leg.leg: leg for leg in build_ladder(told.facts).legs})
    problems += _facts(expect, told.facts)
    free = told.settled["counts_as"] == CountsAs.FREE.value
    return problems + list(_charge(None if free else expect.charge, told))


def _outcome(settled: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, column in (
        ("verdict", "verdict"),
        ("reason", "reason"),
        ("counts_as", "counts_as"),
        ("row", "table_row"),
    ):
        yield name, str(settled[column])


def _one_of(what: str, actual: Any, right: Sequence[Any]) -> list[str]:
    said = " or ".join(str(one) for one in right)
    return [] if actual in right else [f"{what}: {actual}, expected {said}"]


def _always(told: TransferRecord) -> Iterator[str]:
    closings = sum(fact.kind is Kind.TRANSFER_CLOSED for fact in told.facts)
    if told.settled is None:
        yield "is not settled"
    elif not told.settled["agreed"]:
        yield "router and meter do not agree on the verdict"
    if closings != 1:
        yield f"was closed {closings} times"
    resumed = sum(fact.kind is Kind.RESUMED for fact in told.facts)
    winners = [fact.leg for fact in told.facts if fact.kind is Kind.ANSWERED and answered(fact).wins]
    for what, legs in (("won", winners), ("been bridged", told.legs_with(Kind.BRIDGED))):
        if len(legs) > 1 + resumed:
            yield f"legs {legs} have all {what}"
    over = {*told.legs_with(Kind.LEG_ENDED, Kind.ANSWERED_LATE)}
    left = sorted(set(told.legs_with(Kind.DIALED)) - over)
    if left:
        yield f"legs {left} are still open"


def _spans(expect: ExpectEntry, outcome: Outcome) -> Iterator[str]:
    spans: Iterable[tuple[str, int, tuple[int, int] | None]] = (
        ("attempt_ms", outcome.attempt_ms, expect.attempt_ms),
        ("talk_ms", outcome.talk_ms, expect.talk_ms),
    )
    for name, found, span in spans:
        if span is not None and not span[0] <= found <= span[1]:
            yield f"{name}: {found}, expected {span[0]} to {span[1]}"


_LOOKED_AT: tuple[tuple[str, Callable[[LegEntry], Any], Callable[[LegTimes], Any]], ...] = (
    ("code", lambda want: want.code, lambda leg: leg.code),
    ("ended by", lambda want: want.by or None, lambda leg: leg.ended_by),
    ("local", lambda want: want.local, lambda leg: leg.local),
)


def _legs(wanted: Iterable[LegEntry], legs: dict[int, LegTimes]) -> Iterator[str]:
    for want in wanted:
        leg = legs.get(want.leg)
        if leg is None:
            yield f"leg {want.leg}: is not on the record"
            continue
        for what, right_of, found_of in _LOOKED_AT:
            right, found = right_of(want), found_of(leg)
            if right is not None and found != right:
                yield f"leg {want.leg}: {what} {found}, expected {right}"
        if want.reason not in leg.reason_header:
            yield f"leg {want.leg}: Reason {leg.reason_header!r}, expected {want.reason!r} in it"


def _facts(expect: ExpectEntry, facts: Sequence[Fact]) -> Iterator[str]:
    for chain in expect.chains:
        missing = first_missing(chain, facts)
        if missing is not None:
            yield f"fact {str(missing)!r} is missing, or not in its place; there are: {_said(facts)}"
    for pattern in expect.forbidden:
        if any(pattern.fits(fact) for fact in facts):
            yield f"fact {str(pattern)!r} must not be there"


def _said(facts: Iterable[Fact]) -> str:
    return ", ".join(fact.kind.value + (f" {fact.leg}" if fact.leg is not None else "") for fact in facts)


def _charge(charge: ChargeEntry | None, told: TransferRecord) -> Iterator[str]:
    posted = [(str(one["unit"]), int(one["units"]), int(one["percent"])) for one in told.posted]
    right = [] if charge is None else [(charge.unit, charge.units, charge.percent)]
    if posted != right:
        yield f"charge: {_billed(posted)}, expected {_billed(right)}"
    elif charge is not None:
        minor = worth_minor(charge, terms(told.facts[0]))
        if minor != charge.minor:
            yield f"charge: {minor} minor units of money, expected {charge.minor}"


def _billed(units: Iterable[tuple[str, int, int]]) -> str:
    return " and ".join(f"{count} {unit} at {percent} %" for unit, count, percent in units) or "nothing"


def worth_minor(charge: ChargeEntry, in_force: Terms) -> int:
    """Price times percentage, rounded half-even: what the buyer would be credited for it (domain, section 8)."""
    price = in_force.unit_price_minor or 0
    return int((Decimal(price) * charge.units * charge.percent / 100).quantize(Decimal(1), ROUND_HALF_EVEN))
