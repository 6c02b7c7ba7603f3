"""Interactions of buyers who pay by the minute: calls from their facts, e-mails and chats as reported (domain 9).

A call is one once an endpoint of its buyer was dialled, answered or not: the service level counts both. It is
answered where its talk starts: by the winner's 2xx, or by the bridge where the endpoint must first accept. Ringing is
measured from the winning leg's first 18x to there; of a call that nobody answered it is how long it had rung when the
caller left, and None where the caller did not leave. In doubt it is the longer time, as the service is held against it:
no lag is subtracted.

Pure. What payloads and reports say is hostile: whatever is not of the type expected reads as empty, or is refused by
the name of its field. Instants are in microseconds UTC.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from book.model import Channel
from book.types import MailAddress
from facts.fact import CALLER_LEG, HOLD_MS, Fact, Kind, Party, first_of
from facts.outcome import Outcome, Verdict
from facts.payloads import Recorded, RecordingStarted, ended, recorded, recording_started, retrieved, rings
from facts.start_payload import endpoints
from facts.talk import end_of, talk_start
from meter.billing.arithmetic.units import half_even

MAX_TEXT = 20_000  # characters of an e-mail or a chat
MAX_REFERENCE = 120  # as the column
MAX_CUSTOMER = 320  # RFC 5321 section 4.5.3.1: 64 before the @, 255 after it
MAX_NAME = 64
MAX_WORDS = 1_000  # characters beside a rating
MAX_BY = 100
LEAST, MOST = 1, 5  # domain 9: 1 to 5
SKEW_US = 60_000_000  # by which the clock of who reports may be ahead of ours
_MOST_INT = 2**31 - 1  # of an INTEGER column
_FIRST_US = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000  # what is older is no instant of a service
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ADDRESS: TypeAdapter[str] = TypeAdapter(MailAddress)


class RatingKind(StrEnum):
    """Who rated: quality control, or the caller."""

    QUALITY = "quality"
    CALLER = "caller"


class InteractionRefusal(StrEnum):
    """Why something that was asked of interactions cannot be."""

    UNKNOWN = "unknown"  # there is no such interaction
    CONFLICT = "conflict"  # its reference was reported before, with other content
    FIELD = "field"  # a field is missing or wrong
    FULL = "full"  # rated by its caller too often


class InteractionError(ValueError):
    """What was asked cannot be: `field` is wrong, `detail` says how."""

    def __init__(self, name: str, detail: str, refusal: InteractionRefusal = InteractionRefusal.FIELD) -> None:
        super().__init__(f"{name}: {detail}")
        self.field, self.detail, self.refusal = name, detail, refusal


@dataclass(frozen=True, slots=True)
class Reported:
    """An e-mail or a chat, as somebody reported it."""

    buyer: str
    kind: Channel
    reference: str
    received_us: int
    started_us: int
    ended_us: int
    resolved: bool
    text: str = field(default="", repr=False)
    customer: str = ""
    agent: str = ""

    @property
    def id(self) -> str:
        """The same for the same buyer, kind and reference."""
        said = orjson.dumps([self.buyer, self.kind.value, self.reference])
        return f"{self.kind.value}-{hashlib.sha256(said).hexdigest()[:32]}"

    @property
    def checksum(self) -> str:
        """SHA-256 of what was reported, hex."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Charged:
    """What an interaction costs."""

    increments: int
    amount_minor: int
    currency: str


def read_report(document: Mapping[str, Any], now_utc_us: int) -> Reported:
    """What a report says, checked. Raises InteractionError naming the first field that is wrong."""
    unknown = sorted(str(name) for name in set(document) - set(_FIELDS))
    if unknown:
        raise InteractionError(unknown[0][:MAX_NAME], "is not known")
    values = {name: read(name, document.get(name)) for name, read in _FIELDS.items()}
    received, started, ended = (values.pop(f"{name}_at") for name in ("received", "started", "ended"))
    if started < received:
        raise InteractionError("started_at", "is before received_at")
    if ended < started:
        raise InteractionError("ended_at", "is before started_at")
    if ended > now_utc_us + SKEW_US:
        raise InteractionError("ended_at", "is in the future")
    return Reported(**values, received_us=received, started_us=started, ended_us=ended)


def call_row(
    facts: Sequence[Fact], outcome: Outcome, *, buyer: str, customer: str, charged: Charged, now_utc_us: int
) -> dict[str, Any]:
    """The row of a call from its facts until it was closed. Raises ValueError for no facts at all."""
    call = _Call(facts)
    transfer = facts[0].transfer
    return {
        "id": transfer,
        "buyer": buyer,
        "kind": Channel.CALL.value,
        "reference": transfer,
        "checksum": "",
        "agent": call.agent,
        "customer": customer,
        "received_utc_us": call.first.utc_us,
        "started_utc_us": call.answered.utc_us if call.answered else None,
        "ended_utc_us": call.ended_utc_us,
        "handled_ms": outcome.talk_ms,
        "resolved": outcome.verdict is Verdict.CONNECTED,
        "ring_to_answer_ms": call.ring_ms,
        "longest_hold_ms": call.longest_hold_ms if call.answered else 0,
        "text": "",
        "recording": call.recording,
        "increments": min(charged.increments, _MOST_INT),
        "amount_minor": charged.amount_minor,
        "currency": charged.currency,
        "created_utc_us": now_utc_us,
    }


def mail_address(text: object) -> str:
    """The text where it is an e-mail address to which a question may go; else empty."""
    if not isinstance(text, str) or len(text) > MAX_CUSTOMER:
        return ""
    try:
        return _ADDRESS.validate_python(text.strip())
    except ValidationError:
        return ""


def checked_rating(rating: object, words: str, by: str) -> int:
    """The rating, checked beside its words and its author. Raises InteractionError."""
    if not isinstance(rating, int) or isinstance(rating, bool) or not LEAST <= rating <= MOST:
        raise InteractionError("rating", f"must be a whole number from {LEAST} to {MOST}")
    if len(words) > MAX_WORDS:
        raise InteractionError("words", f"must have at most {MAX_WORDS:,} characters")
    if not by.strip() or len(by) > MAX_BY:
        raise InteractionError("by", f"needs 1 to {MAX_BY} characters")
    _check_text("words", words)
    _check_text("by", by)
    return rating


def average_x100(ratings: Sequence[int]) -> int | None:
    """The average of ratings, times 100, rounded half-even; None of none."""
    return half_even(sum(ratings) * 100, len(ratings)) if ratings else None


class _Call:
    """One reading of a call's facts."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._facts = facts
        self.first = facts[0]
        self.answered = talk_start(facts)
        self._end = end_of(facts) or facts[-1]

    @property
    def agent(self) -> str:
        """The name of the endpoint that answered."""
        if self.answered is None:
            return ""
        started = first_of(self._facts, Kind.TRANSFER_STARTED)
        for endpoint in endpoints(started) if started is not None else ():
            if endpoint.leg == self.answered.leg and endpoint.name is not None:
                return endpoint.name[:MAX_NAME]
        return ""

    @property
    def ended_utc_us(self) -> int:
        """By the monotonic clock: a party that vanished, or our own crash, is seen later than it was."""
        since = self.answered or self.first
        return since.utc_us + max(0, self._end.mono_us - since.mono_us)

    @property
    def ring_ms(self) -> int | None:
        """See above; in ms, rounded down. A 2xx without an 18x before it is an answer at once."""
        rung = [one for one in self._facts if rings(one) and one.leg]
        if self.answered is not None:
            rung = [one for one in rung if one.leg == self.answered.leg]
            return _span_ms(rung[0], self.answered) if rung else 0
        if self._end.kind is not Kind.ENDED or ended(self._end).by is not Party.CALLER:
            return None
        return _span_ms(rung[0], self._end) if rung else 0

    @property
    def longest_hold_ms(self) -> int:
        """Of holds by the endpoint: that a caller lets wait is the caller's business. One still on lasts to the end."""
        held: dict[int, Fact] = {}
        found = [0]
        for fact in self._facts:
            if fact.leg is None or fact.leg == CALLER_LEG:
                continue
            if fact.kind is Kind.HELD:
                held[fact.leg] = fact
            elif fact.kind is Kind.RETRIEVED:
                held.pop(fact.leg, None)
                found.append(retrieved(fact).held_ms or 0)
        found += [HOLD_MS + _span_ms(one, self._end) for one in held.values()]
        return min(max(found), _MOST_INT)

    @property
    def recording(self) -> str:
        """The first file: a second one follows where the winner left within the commit window."""
        for fact in self._facts:
            read = _FILES.get(fact.kind)
            file = read(fact).file if read is not None else None
            if file:
                return file[:MAX_TEXT]
        return ""


_FILES: Mapping[Kind, Callable[[Fact], RecordingStarted | Recorded]] = {
    Kind.RECORDING_STARTED: recording_started,
    Kind.RECORDED: recorded,
}


def _span_ms(start: Fact, end: Fact) -> int:
    return min(max(0, end.mono_us - start.mono_us) // 1000, _MOST_INT)


def _check_text(name: str, text: str) -> None:
    if any(mark == "\0" or "\ud800" <= mark <= "\udfff" for mark in text):
        raise InteractionError(name, "has a character that is none")  # PostgreSQL keeps no NUL, UTF-8 no surrogate


def _text(least: int, most: int) -> Callable[[str, object], str]:
    def read(name: str, value: object) -> str:
        if value is None and not least:
            return ""
        if not isinstance(value, str):
            raise InteractionError(name, "is missing" if value is None else "must be a text")
        if not least <= len(value.strip()) or len(value) > most:
            raise InteractionError(name, f"needs {least} to {most:,} characters")
        _check_text(name, value)
        return value

    return read


def _kind(name: str, value: object) -> Channel:
    if value not in (Channel.EMAIL.value, Channel.CHAT.value):
        raise InteractionError(name, "must be email or chat")
    return Channel(value)


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InteractionError(name, "must be true or false")
    return value


def _instant(name: str, value: object) -> int:
    if isinstance(value, str) and len(value) <= MAX_NAME:
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            at = None
        if at is not None and at.tzinfo is not None:
            try:
                found = (at - _EPOCH) // timedelta(microseconds=1)
            except OverflowError:
                found = 0
            if found >= _FIRST_US:
                return found
    raise InteractionError(name, "must be an instant with its offset, such as 2026-06-02T10:00:00-04:00")


_FIELDS: Mapping[str, Callable[[str, object], Any]] = {
    "buyer": _text(1, MAX_NAME),
    "kind": _kind,
    "reference": _text(1, MAX_REFERENCE),
    "received_at": _instant,
    "started_at": _instant,
    "ended_at": _instant,
    "resolved": _truth,
    "text": _text(0, MAX_TEXT),
    "customer": _text(0, MAX_CUSTOMER),
    "agent": _text(0, MAX_NAME),
}
