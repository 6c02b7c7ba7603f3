"""Replay: the journal once more, under the same terms or others, and what that would have cost.

Every transfer of the period is decided again from its facts, and each service week reckoned again from what comes of
it. Under the same terms each unit and each week must be what the ledger has, to the cent: a difference is a fault, of
the ledger or of this version. Under other terms the difference per buyer is what those terms would have changed.

Which transfers a week counts is taken from the ledger, so that a late outcome falls where it was billed. Of a week that
is not settled they are those so far. The fraction of a unit that the first week of the period inherits is the ledger's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from book.model import Rating, Terms
from facts.fact import Fact, Kind, first_of, until_closed
from facts.outcome import CountsAs, Outcome, OutcomeTerms, decide
from facts.start_payload import all_secure, with_buffer
from facts.start_payload import terms as terms_of
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import Prepaid, WeekOrder, week_result
from meter.billing.arithmetic.minutes import minute_charge
from meter.billing.arithmetic.units import CarriedUnits, bill_week
from meter.ledger.accounts import INCREMENT, UNIT, Posting

Counts = dict[str, dict[int, int]]  # units by kind and percentage


@dataclass(frozen=True, slots=True)
class Charge:
    """What one week of one buyer comes to: units as billed, and money earned and invoiced beyond the order."""

    connected: int = 0
    failed: int = 0
    billed: int = 0
    earned_minor: int = 0
    overage_minor: int = 0
    increments: int = 0
    minutes_minor: int = 0

    @property
    def total_minor(self) -> int:
        return self.earned_minor + self.overage_minor + self.minutes_minor


@dataclass(frozen=True, slots=True)
class WeekReplayed:
    """One week: as the ledger has it (None: not settled yet), and as it comes out now."""

    buyer: str
    week: str
    was: Charge | None
    now: Charge


@dataclass(slots=True)
class ReplayReport:
    """What a replay found. `differing` names transfers whose posting is not what their facts come to."""

    transfers: int = 0
    differing: list[str] = field(default_factory=list)
    weeks: list[WeekReplayed] = field(default_factory=list)
    currency: dict[str, str] = field(default_factory=dict)

    @property
    def wrong_weeks(self) -> list[WeekReplayed]:
        return [one for one in self.weeks if one.was is not None and one.was != one.now]

    @property
    def is_same(self) -> bool:
        return not self.differing and not self.wrong_weeks

    def by_buyer(self) -> dict[str, tuple[int, int]]:
        """Money of the settled weeks by buyer: as it was, as it would be."""
        found: dict[str, tuple[int, int]] = {}
        for one in self.weeks:
            if one.was is not None:
                was, now = found.get(one.buyer, (0, 0))
                found[one.buyer] = (was + one.was.total_minor, now + one.now.total_minor)
        return found


@dataclass(frozen=True, slots=True)
class Unit:
    """What a transfer posts: a unit or increments; `price_minor` of one increment."""

    asset: str
    kind: str
    units: int
    percent: int | None
    price_minor: int | None = None

    @classmethod
    def of(cls, posting: Posting) -> Unit:
        return cls(posting.asset, posting.unit or "", posting.units, posting.percent, posting.price_minor)


def decide_under(history: Sequence[Fact], terms: Terms) -> tuple[Outcome, Unit | None]:
    """What a closed transfer comes to under other terms than those that it was made under.

    The buffer follows from whether every endpoint was a secure trunk, as domain, section 4 has it; the fact that talk
    reached the threshold counts only where the threshold is the same.
    """
    facts = [_under(fact, history, terms) for fact in until_closed(history)]
    same = _talk_threshold(history) == terms.talk_connected_ms
    facts = [fact for fact in facts if same or fact.kind is not Kind.TALK_REACHED_15S]
    clauses = OutcomeTerms(terms.talk_connected_ms, CountsAs(terms.unreachable), CountsAs(terms.caller_abandon))
    outcome = decide(facts, clauses)
    if terms.rating is Rating.MINUTE:
        rated = minute_charge(outcome.talk_ms, terms)
        unit = Unit(INCREMENT, "call", rated.increments, None, terms.minute_price_minor)
        return outcome, unit if rated.increments else None
    if outcome.counts_as is CountsAs.FREE:
        return outcome, None
    kind = outcome.counts_as.value
    percent = terms.connected_percent if outcome.counts_as is CountsAs.CONNECTED else terms.failed_percent
    return outcome, Unit(UNIT, kind, 1, percent)


def charge_of(
    week: Week,
    units: Iterable[Unit],
    carried: CarriedUnits,
    *,
    terms: Terms,
    bought: WeekOrder | None,
    kept: Prepaid,
    as_sent: bool = False,
) -> tuple[Charge, CarriedUnits, Prepaid]:
    """What a week comes to with these units, and what it carries on: parts of a unit, and prepaid units.

    `as_sent`: it was settled by a release before decision 076, which charged an order that counts what was sent for
    just that; the percentage moved nothing but the units.
    """
    counts: Counts = {"connected": {}, "failed": {}}
    increments = minutes_minor = 0
    for unit in units:
        if unit.asset == INCREMENT:
            increments += unit.units
            minutes_minor += unit.units * (unit.price_minor or 0)
        elif unit.percent is not None:
            of_kind = counts[unit.kind]
            of_kind[unit.percent] = of_kind.get(unit.percent, 0) + unit.units
    billed, after = bill_week(carried, counts["connected"], counts["failed"])
    charged = billed
    if as_sent:
        charged = replace(billed, billed_connected=billed.sent_connected, billed_failed=billed.sent_failed)
    result = week_result(week, terms, bought, charged, kept)
    charge = Charge(
        connected=billed.sent_connected,
        failed=billed.sent_failed,
        billed=billed.billed,
        earned_minor=result.earned_minor(terms.unit_price_minor),
        overage_minor=result.overage.amount_minor,
        increments=increments,
        minutes_minor=minutes_minor,
    )
    return charge, after, result.kept


def _under(fact: Fact, history: Sequence[Fact], terms: Terms) -> Fact:
    if fact.kind is not Kind.TRANSFER_STARTED:
        return fact
    buffer_ms = terms.secure_buffer_ms if _is_secure(history) else 0
    return with_buffer(fact, buffer_ms)


def _is_secure(history: Sequence[Fact]) -> bool:
    """Whether every endpoint that was selected is a secure trunk (domain, section 4)."""
    started = first_of(history, Kind.TRANSFER_STARTED)
    return started is not None and all_secure(started)


def _talk_threshold(history: Sequence[Fact]) -> int:
    started = first_of(history, Kind.TRANSFER_STARTED)
    return (OutcomeTerms() if started is None else OutcomeTerms.of(terms_of(started))).talk_connected_ms
