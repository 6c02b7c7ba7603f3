"""The rules of credits: deadlines, reasons, decisions of a review, and every refusal (domain, section 8).

A request is made once per call and waits in one line with all others; reviews take them first in, first out. Once it is
decided it may be re-reviewed once, by another reviewer, in the same line. What a decision does to the books:

    first    approved: credit                       declined: nothing
    second   of a declined one, approved: credit    declined: nothing
             of an approved one, approved: nothing  declined: the credit is taken back

Voicemails, missed calls and price shoppers are valid calls: choosing one of these gets an explanation and no request.
Reasons are data (`credit_reasons.toml`), by the buyer's business category.

Pure but for the file of reasons and the gauges. Instants are in microseconds UTC.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from book.limits import midnight_us
from book.model import Terms
from book.types import Model
from meter.billing.arithmetic.calendar import local_day
from meter.text.hostile import one_line
from telemetry import metrics

MAX_WORDS = 1_000  # characters: a few words
MAX_EXPLANATION = 4_000
MAX_REVIEWER = 100
DEFAULT_CATEGORY = "default"
HOUR_US = 3_600 * 1_000_000
TARGET_US = 24 * HOUR_US  # domain 8: the target is 24 to 48 hours
LATE_US = 48 * HOUR_US
_FILE = "credit_reasons.toml"


class CreditRefusal(StrEnum):
    """Why something that was asked of credits cannot be."""

    NOT_BILLED = "not_billed"
    TOO_LATE = "too_late"
    UNKNOWN_REASON = "unknown_reason"
    VALID_CALL = "valid_call"
    BAD_WORDS = "bad_words"
    ALREADY_OPEN = "already_open"
    ALREADY_CREDITED = "already_credited"
    DECLINED = "declined"
    UNKNOWN_REQUEST = "unknown_request"
    NOT_OPEN = "not_open"
    NOT_FIRST = "not_first"
    BAD_EXPLANATION = "bad_explanation"
    BAD_REVIEWER = "bad_reviewer"
    SAME_REVIEWER = "same_reviewer"
    NOT_DECIDED = "not_decided"
    REVIEWED_TWICE = "reviewed_twice"
    AMBIGUOUS = "ambiguous"


_SAID: Mapping[CreditRefusal, str] = {
    CreditRefusal.NOT_BILLED: "transfer: {transfer!r} is no call that was billed to this buyer",
    CreditRefusal.TOO_LATE: "transfer: a credit for this call could be asked for until the end of {last_day} ({zone})",
    CreditRefusal.UNKNOWN_REASON: "reason: {reason!r} is none of {known}",
    CreditRefusal.VALID_CALL: "reason: {explanation}",
    CreditRefusal.BAD_WORDS: "words: needs 1 to {most:,} characters",
    CreditRefusal.ALREADY_OPEN: "transfer: request {id} for this call is open",
    CreditRefusal.ALREADY_CREDITED: "transfer: this call was credited before",
    CreditRefusal.DECLINED: (
        "transfer: request {id} for this call was declined; a call is asked for once, then re-reviewed"
    ),
    CreditRefusal.UNKNOWN_REQUEST: "request: there is no request {id}",
    CreditRefusal.NOT_OPEN: "request: {id} was {state} before, by {by}",
    CreditRefusal.NOT_FIRST: (
        "request: {first} is the oldest open one and is decided first; {id} is number {place} in line"
    ),
    CreditRefusal.BAD_EXPLANATION: "explanation: needs 1 to {most:,} characters",
    CreditRefusal.BAD_REVIEWER: "reviewer: needs 1 to {most:,} characters",
    CreditRefusal.SAME_REVIEWER: "reviewer: {by} decided the request; a re-review is another reviewer's",
    CreditRefusal.NOT_DECIDED: "request: {id} is not decided yet",
    CreditRefusal.REVIEWED_TWICE: "request: {id} was re-reviewed before, or is to be: that is done once",
    CreditRefusal.AMBIGUOUS: "request: several fit, name one: {ids}",
}


class CreditError(ValueError):
    """The request cannot be done; `refusal` says why, the message names the field."""

    def __init__(self, refusal: CreditRefusal, **values: Any) -> None:
        super().__init__(_SAID[refusal].format(**values))
        self.refusal = refusal

    @property
    def field(self) -> str:
        return str(self).partition(": ")[0]

    @property
    def detail(self) -> str:
        return str(self).partition(": ")[2]


class State(StrEnum):
    """Of a request."""

    OPEN = "open"
    APPROVED = "approved"
    DECLINED = "declined"


class Effect(StrEnum):
    """The effect of a decision on the ledger."""

    NOTHING = "nothing"
    CREDIT = "credit"
    TAKE_BACK = "take_back"


_EFFECTS: Mapping[tuple[State | None, State], Effect] = {  # the request's own decision, the one that is made now
    (None, State.APPROVED): Effect.CREDIT,
    (None, State.DECLINED): Effect.NOTHING,
    (State.DECLINED, State.APPROVED): Effect.CREDIT,
    (State.DECLINED, State.DECLINED): Effect.NOTHING,
    (State.APPROVED, State.APPROVED): Effect.NOTHING,
    (State.APPROVED, State.DECLINED): Effect.TAKE_BACK,
}


def effect_of(before: State | None, decided: State) -> Effect:
    """Of a decision; `before` is how the request was decided that this one re-reviews, None where it is none."""
    return _EFFECTS[before, decided]


@dataclass(frozen=True, slots=True)
class Window:
    """Until when a credit for a call may be asked for. `closes_us` is the first instant that is too late."""

    call_day: date
    last_day: date
    closes_us: int
    zone: str


def window_of(dialout_utc_us: int, terms: Terms) -> Window:
    """By the terms in force at dial-out: the end of the fourth day after the day of the call, in the contract's zone.

    The day ends where the next one begins, whatever the clock does in between.
    """
    day = local_day(dialout_utc_us, terms.time_zone)
    last = day + timedelta(days=terms.credit_days)
    return Window(day, last, midnight_us(last + timedelta(days=1), terms.time_zone), terms.time_zone)


class Reason(Model):
    """Why a credit is asked for. `valid`: such calls are valid ones, and `explanation` says why."""

    title: str = Field(min_length=1, max_length=120)
    valid: bool = False
    explanation: str = Field("", max_length=1_000)

    @model_validator(mode="after")
    def _explained(self) -> Self:
        if self.valid != bool(self.explanation.strip()):
            raise ValueError("valid reasons have an explanation, the others none")
        return self


class _Category(Model):
    reasons: tuple[str, ...] = Field(min_length=1)


class ReasonBook(Model):
    """Every reason by its name, and the names of each business category in the order in which they are shown."""

    reasons: dict[str, Reason]
    categories: dict[str, _Category]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if DEFAULT_CATEGORY not in self.categories:
            raise ValueError(f"categories: {DEFAULT_CATEGORY!r} is missing")
        for name, category in self.categories.items():
            for one in category.reasons:
                if one not in self.reasons:
                    raise ValueError(f"categories.{name}: {one!r} is no [reasons] entry")
        return self

    def of(self, category: str) -> dict[str, Reason]:
        """The reasons of a category by name; of one that is not there the default's."""
        wanted = category.strip().casefold()
        named = {name.casefold(): one for name, one in self.categories.items()}
        found = named.get(wanted) or self.categories[DEFAULT_CATEGORY]
        return {name: self.reasons[name] for name in found.reasons}

    def title(self, name: str) -> str:
        """Of a reason; of one that is not in the file any more its name."""
        return self.reasons[name].title if name in self.reasons else name


def load_reasons(path: Path | None = None) -> ReasonBook:
    """The operator's reasons, or those that ship. Raises ValueError naming the file and what is wrong, and OSError."""
    text = (resources.files("meter.credits") / _FILE).read_text("utf-8") if path is None else path.read_text("utf-8")
    try:
        return ReasonBook.model_validate(tomllib.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path or _FILE}: {place + ': ' if place else ''}{first['msg']}") from error
    except ValueError as error:
        raise ValueError(f"{path or _FILE}: {error}") from error


def check_reason(reasons: Mapping[str, Reason], name: str) -> None:
    """Raises CreditError: not the category's, or a valid call, with its explanation."""
    reason = reasons.get(name)
    if reason is None:
        known = ", ".join(one for one, about in reasons.items() if not about.valid)
        raise CreditError(CreditRefusal.UNKNOWN_REASON, reason=one_line(name, 64), known=known)
    if reason.valid:
        raise CreditError(CreditRefusal.VALID_CALL, explanation=reason.explanation.strip())


def check_window(window: Window, now_utc_us: int) -> None:
    """Raises CreditError with the last day once it is over."""
    if now_utc_us >= window.closes_us:
        raise CreditError(CreditRefusal.TOO_LATE, last_day=window.last_day.isoformat(), zone=window.zone)


def check_words(words: str) -> str:
    """The words as they are kept: no control characters, at most two new lines in a row. Raises CreditError."""
    return _text(words, MAX_WORDS, CreditRefusal.BAD_WORDS)


def check_explanation(explanation: str) -> str:
    """Likewise of a decision."""
    return _text(explanation, MAX_EXPLANATION, CreditRefusal.BAD_EXPLANATION)


def check_reviewer(reviewer: str, before: str | None) -> str:
    """The reviewer's name; of a re-review another than `before`, however it is capitalised. Raises CreditError."""
    name = _text(one_line(reviewer, MAX_REVIEWER + 1), MAX_REVIEWER, CreditRefusal.BAD_REVIEWER)
    if before is not None and name.casefold() == one_line(before).casefold():
        raise CreditError(CreditRefusal.SAME_REVIEWER, by=before)
    return name


def _text(text: str, most: int, refusal: CreditRefusal) -> str:
    lines = [one_line(one, most + 1) for one in text.splitlines()] if len(text) <= 2 * most else []
    kept = [line for at, line in enumerate(lines) if line or (at and lines[at - 1])]
    said = "\n".join(kept).strip()
    if not said or len(said) > most:
        raise CreditError(refusal, most=most)
    return said


@dataclass(frozen=True, slots=True)
class Ages:
    """The line and how long reviews take. Counts of requests; `decided_*` of the days that were asked for."""

    open: int = 0
    oldest_utc_us: int | None = None
    open_late: int = 0  # open for more than 48 hours
    decided: int = 0
    decided_in_24h: int = 0
    decided_in_48h: int = 0  # those in 24 hours included
    slowest_us: int = 0


def show_credits(ages: Ages, now_utc_us: int) -> None:
    """Set the gauges of the line; one with nothing in it shows zero."""
    age_us = 0 if ages.oldest_utc_us is None else now_utc_us - ages.oldest_utc_us
    metrics.CREDITS_OPEN.set(ages.open)
    metrics.CREDITS_OLDEST.set(max(0.0, age_us / 1_000_000))
