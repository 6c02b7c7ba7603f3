"""Which buyer and which endpoints: a pure decision with a reason for every refusal.

`choose` ranks a campaign's buyers by its strategy and takes the first that nothing speaks against. The checks run from
the standing ones (state, order, caps, hours) over the prospect (filters) to what may change any moment (endpoints); the
suppression lists are asked last, and only for a buyer that could otherwise be rung. What is known besides the book
comes through `Surroundings`, every random choice from the recorded seed: the same question gets the same answer.

The counts here may be half a second old. They keep a full buyer from being offered at all; what is exact is said by the
store, when it admits the transfer (`book.limits`). Duplicates are known there alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Protocol

from book.hours import is_open, opens_in_words
from book.limits import Spans, Usage, binds, concurrent_limit, order_most, order_of, order_units, spans_at
from book.model import Book, Buyer, BuyerState, Campaign, Endpoint, Order, Strategy
from facts.answers import ScrubResult
from facts.outcome import NO_BUFFER_MS, Reason
from router.routing.deficit import deficit

# The final answer that goes with a refusal (RFC 3261 section 21): 404 nobody of that name, 480 not now, 603 never.
REFUSAL_CODES: dict[str, int] = {
    Reason.NO_BUYER: 404,
    Reason.NO_ENDPOINT: 480,
    Reason.PAUSED: 480,
    Reason.ON_HOLD: 480,
    Reason.CLOSED: 480,
    Reason.ORDER_FILLED: 480,
    Reason.CAP_REACHED: 480,
    Reason.FILTERED: 603,
    Reason.DUPLICATE: 603,
    Reason.SUPPRESSED: 603,
    Reason.SUPPRESSION_UNAVAILABLE: 503,
    Reason.BAD_NUMBER: 400,
    Reason.NO_CAPACITY: 503,
    Reason.DRAINING: 503,
    Reason.REJECTED: 403,
    Reason.FAULT: 500,
}


@dataclass(frozen=True, slots=True)
class SelectionRequest:
    """The call to be routed. `seed` is recorded with the result; `offered`: buyers that this prospect had before."""

    dialled: str  # user part of the request URI
    phone: str = ""  # E.164
    state: str = ""  # the lead's field `state`
    now_utc_us: int = 0
    seed: int = 0
    offered: frozenset[str] = frozenset()
    key: str = ""  # pressed in the campaign's menu; empty: none yet


class Surroundings(Protocol):
    """The state of the moment beside the book. Cheap: no I/O. Never raises."""

    def usage(self, buyer: str) -> Usage:
        """The buyer's counts as of the last look at the store."""

    def live(self, buyer: str) -> int:
        """Transfers of that buyer up in this router."""

    def left_out(self, buyer: Buyer, endpoint: Endpoint) -> str:
        """Why an endpoint may not ring now: `down`, `busy`, `unregistered`, `no_carrier`; empty where it may."""

    def scrub(self, buyer: str, phone: str) -> ScrubResult:
        """All suppression lists that apply to the buyer."""


@dataclass(frozen=True, slots=True)
class BuyerRefusal:
    """A buyer that was looked at and not taken. `reason` is a slug of `facts.outcome.Reason`, `detail` for people."""

    buyer: str
    reason: str
    detail: str
    scrub: ScrubResult | None = None  # the evidence, where it was a scrub that spoke against the buyer


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice, or the reason why there is none. `buyer` may be set beside a refusal: it is whose refusal it was."""

    campaign: Campaign | None = None
    buyer: Buyer | None = None
    endpoints: tuple[Endpoint, ...] = ()
    refusal: str = ""
    refusals: tuple[BuyerRefusal, ...] = ()  # of every buyer looked at before the choice, in rank order
    left_out: tuple[tuple[str, str], ...] = ()  # endpoints of `buyer` that may not ring now, and why
    scrub: ScrubResult | None = None  # evidence for `buyer`; None where it did not come to that
    seed: int = 0

    @property
    def scrubs(self) -> tuple[ScrubResult, ...]:
        """Of every buyer for whom the lists were asked, in rank order."""
        found = [one.scrub for one in self.refusals]
        return tuple(one for one in (*found, None if self.refusal else self.scrub) if one is not None)

    @property
    def buffer_ms(self) -> int:
        """The secure buffer only where every endpoint is a secure trunk (domain, section 4)."""
        if self.buyer is None or not self.endpoints or not all(one.secure for one in self.endpoints):
            return NO_BUFFER_MS
        return self.buyer.terms.secure_buffer_ms

    @property
    def ring_timeout_ms(self) -> int:
        """How long the attempt may ring: the campaign's limit, or the most patient endpoint's where that is shorter."""
        if self.campaign is None or not self.endpoints:
            return 0
        return min(self.campaign.ring_timeout_ms, max(one.ring_timeout_ms for one in self.endpoints))


def choose(book: Book, question: SelectionRequest, surroundings: Surroundings) -> Selection:
    """The buyer and the endpoints to ring.

    Where nobody is left, `refusal` is the reason of the buyer that ranked first, the one that would have got the call
    had nothing spoken against it; the others are in `refusals`. Raises nothing for a book that was checked.
    """
    return _choose(book, question, surroundings, prospect=True)


def availability(book: Book, question: SelectionRequest, surroundings: Surroundings) -> Selection:
    """Whether a campaign would take some prospect now: `choose` without phone, state filters and suppression.

    Every buyer is looked at, so `refusals` names each that would not take a call now, also beside a choice.
    """
    return _choose(book, question, surroundings, prospect=False)


def _choose(book: Book, question: SelectionRequest, surroundings: Surroundings, *, prospect: bool) -> Selection:
    campaign = book.campaigns.get(question.dialled)
    if campaign is None or not campaign.enabled:
        return Selection(refusal=Reason.NO_BUYER, seed=question.seed)
    dice = Random(question.seed)  # noqa: S311 - lots among buyers, which a record must be able to repeat
    best: _Case | None = None
    chosen = False
    refusals: list[BuyerRefusal] = []
    for case in _ranked(book, campaign, question, surroundings, dice):
        why = _objection(case, campaign, dice, prospect=prospect)
        if why is not None:
            refusals.append(BuyerRefusal(case.buyer.name, *why, scrub=case.scrub))
            best = best or case
            continue
        best, chosen = (best, True) if chosen else (case, True)
        if prospect:
            break
    if best is None:
        return Selection(campaign=campaign, refusal=Reason.NO_BUYER, seed=question.seed)
    return Selection(
        campaign=campaign,
        buyer=best.buyer,
        endpoints=best.ringing if chosen else (),
        refusal="" if chosen else refusals[0].reason,
        refusals=tuple(refusals),
        left_out=best.left_out,
        scrub=best.scrub,
        seed=question.seed,
    )


# --- candidates ---


@dataclass(slots=True)
class _Case:
    """One buyer against one question, with what is known of it now, and what the last checks found."""

    buyer: Buyer
    question: SelectionRequest
    surroundings: Surroundings
    order: Order | None
    spans: Spans
    usage: Usage
    live: int  # in this router
    unknown: int  # of these, those that `usage` does not count yet
    ringing: tuple[Endpoint, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    scrub: ScrubResult | None = None


def _ranked(
    book: Book, campaign: Campaign, question: SelectionRequest, surroundings: Surroundings, dice: Random
) -> Iterator[_Case] | list[_Case]:
    """The campaign's buyers in the order in which they are to be tried; those already offered to are left out."""
    cases = (
        _case(book, book.buyers[name], question, surroundings)
        for name in dict.fromkeys(_named(campaign, question.key))
        if name in book.buyers and name not in question.offered
    )
    if campaign.strategy is not Strategy.DEFICIT:
        return cases
    now = question.now_utc_us
    weighed = [
        (-deficit(one.buyer, one.order, one.usage, one.spans, live=one.unknown, now_utc_us=now), dice.random(), one)
        for one in cases
    ]
    return [one for _, _, one in sorted(weighed, key=lambda row: row[:2])]


def _named(campaign: Campaign, key: str) -> tuple[str, ...]:
    """The buyers of the pressed key; all of the campaign where it has no menu or no key was pressed yet."""
    if not campaign.menu or not key:
        return campaign.buyers
    return next((one.buyers for one in campaign.menu if one.key == key), ())


def _case(book: Book, buyer: Buyer, question: SelectionRequest, surroundings: Surroundings) -> _Case:
    spans = spans_at(buyer, question.now_utc_us)
    usage = surroundings.usage(buyer.name).during(spans)
    live = surroundings.live(buyer.name)
    return _Case(
        buyer=buyer,
        question=question,
        surroundings=surroundings,
        order=order_of(book.orders.get(buyer.name, ()), spans.week),
        spans=spans,
        usage=usage,
        live=live,
        unknown=max(0, live - (usage.live - usage.elsewhere)),
    )


# --- checks ---

_Why = tuple[str, str]  # a slug of `Reason`, and words
_NO_ENDPOINT = Reason.NO_ENDPOINT.value
_ORDER_FILLED = Reason.ORDER_FILLED.value
_CAP_REACHED = Reason.CAP_REACHED.value
_CLOSED = Reason.CLOSED.value
_FILTERED = Reason.FILTERED.value
_STATES: dict[BuyerState, _Why] = {
    BuyerState.PAUSED: (Reason.PAUSED.value, "paused"),
    BuyerState.ON_HOLD: (Reason.ON_HOLD.value, "on hold"),
    BuyerState.CANCELLED: (Reason.NO_BUYER.value, "cancelled"),
}


def _objection(case: _Case, campaign: Campaign, dice: Random, *, prospect: bool) -> _Why | None:
    """What speaks against this buyer; where it is nothing, `case.ringing` are the endpoints to ring."""
    for check in _CHECKS if prospect else _STANDING_CHECKS:
        why = check(case)
        if why is not None:
            return why
    _see_endpoints(case)
    if not case.ringing:
        return _NO_ENDPOINT, ", ".join(f"{name}: {why}" for name, why in case.left_out) or "no endpoint is enabled"
    if campaign.strategy is Strategy.RATED:
        case.ringing = (dice.choices(case.ringing, [one.rating_x100 for one in case.ringing])[0],)
    if prospect:
        case.scrub = case.surroundings.scrub(case.buyer.name, case.question.phone)
        if case.scrub.reason:
            return case.scrub.reason, _scrub_in_words(case.scrub)
    return None


def _state(case: _Case) -> _Why | None:
    return _STATES.get(case.buyer.state)


def _order(case: _Case) -> _Why | None:
    if not binds(case.buyer, case.order):
        return None
    if case.order is None:
        return _ORDER_FILLED, f"no order for the week of {case.spans.week}"
    terms, usage = case.buyer.terms, case.usage
    most = order_most(terms, case.order)
    units = order_units(terms, case.order, usage.week_connected, usage.week_failed)
    live = usage.week_live + case.unknown
    return (_ORDER_FILLED, f"{units} units and {live} under way of {most} this week") if units + live >= most else None


def _caps(case: _Case) -> _Why | None:
    caps, usage, more = case.buyer.caps, case.usage, case.unknown
    at_once, most = case.live + usage.elsewhere, concurrent_limit(case.buyer)
    if most and at_once >= most:
        return _CAP_REACHED, f"{at_once} of {most} at once"
    for span, used, cap in (
        ("this hour", usage.hour, caps.hour),
        ("today", usage.day, caps.day),
        ("this month", usage.month, caps.month),
        ("in all", usage.total, caps.total),
    ):
        if cap and used + more >= cap:
            return _CAP_REACHED, f"{used + more} of {cap} {span}"
    return None


def _hours(case: _Case) -> _Why | None:
    buyer, now = case.buyer, case.question.now_utc_us
    if is_open(buyer.hours, buyer.holidays, buyer.time_zone, now):
        return None
    return _CLOSED, opens_in_words(buyer.hours, buyer.holidays, buyer.time_zone, now)


def _filters(case: _Case) -> _Why | None:
    buyer = case.buyer
    if buyer.allow_states or buyer.deny_states:
        why = _filtered("state", case.question.state.strip().casefold(), buyer.allow_states, buyer.deny_states)
        if why is not None:
            return why
    if buyer.allow_area_codes or buyer.deny_area_codes:
        code = area_code(case.question.phone)
        return _filtered("area code", code, buyer.allow_area_codes, buyer.deny_area_codes)
    return None


def _filtered(what: str, value: str, allowed: tuple[str, ...], denied: tuple[str, ...]) -> _Why | None:
    """What is missing passes a list of exceptions, but not a list of what alone is taken."""
    if value in _folded(denied) and value:
        return _FILTERED, f"{what} {value.upper()} is excluded"
    if not allowed or value in _folded(allowed):
        return None
    return _FILTERED, f"{what} {value.upper()} is not taken" if value else f"no {what} is known"


@lru_cache(maxsize=1024)
def _folded(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(one.strip().casefold() for one in names) - {""}


def area_code(phone: str) -> str:
    """The area code of a North American number, its digits 2 to 4; empty for any other."""
    return phone[2:5] if phone.startswith("+1") and len(phone) == len("+12125550100") else ""


_STANDING_CHECKS = (_state, _order, _caps, _hours)  # what needs no prospect
_CHECKS = (*_STANDING_CHECKS, _filters)


def _see_endpoints(case: _Case) -> None:
    """Those that may ring now, in their order, and the enabled ones that may not, with why."""
    seen = [(one, case.surroundings.left_out(case.buyer, one)) for one in case.buyer.endpoints if one.enabled]
    case.ringing = tuple(one for one, why in seen if not why)
    case.left_out = tuple((one.name, why) for one, why in seen if why)


def _scrub_in_words(scrub: ScrubResult) -> str:
    if scrub.reason == Reason.SUPPRESSED:
        return f"on list {scrub.hit}" if scrub.hit else "on a suppression list"
    return "a suppression list cannot be consulted"
