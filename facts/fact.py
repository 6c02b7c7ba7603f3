"""The vocabulary of facts: what happened to a transfer, never what it costs.

A fact is written once, in the order in which the router learned it, and never changed. Its identity is (router, boot,
seq). Times come twice: `utc_us` for people, `mono_us` (microseconds of that boot's monotonic clock) for arithmetic; the
two are never mixed. `lag_us` is how long the event may have waited before it was seen: where a duration stands against
a bound, the lag of its end is subtracted, so that the doubt goes to the buyer (domain, section 2).

Hash chain: per (router, boot), each fact's digest covers its predecessor's digest and its own canonical bytes, so a row
that is changed, dropped or inserted later breaks every digest after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

CHAIN_START = b"\0" * 32  # the digest "before" the first fact of a boot

CALLER_LEG = 0  # the A leg; the endpoints' legs count from 1


class Kind(StrEnum):
    """Every kind of fact the journal may hold."""

    __hash__ = str.__hash__  # Enum's own is Python code, and facts are looked up by their kind ten times a transfer

    TRANSFER_STARTED = "transfer_started"  # the INVITE was read and admitted to the books; durable before any dial-out
    REFUSED = "refused"  # no INVITE will leave: payload.reason
    DIALED = "dialed"  # an INVITE was handed to the transport; the first of a transfer is its dial-out
    NOT_SENT = "not_sent"  # a leg that was planned and never dialled: payload.why, payload.ours
    TRYING = "trying"  # a provisional answer that is no ringing: first 100 of a leg, first other: payload.code
    RINGING = "ringing"  # first of 180 to 183 of a leg: payload.code; see `payloads.rings`
    ANSWERED = "answered"  # the leg's first 2xx; payload.must_accept where it had to hear or press something first
    ANSWERED_LATE = "answered_late"  # a 2xx after another leg had won or the attempt was over; ACKed, then BYEd
    ACCEPTED = "accepted"  # the endpoint accepted by key, where it must
    BRIDGED = "bridged"  # both parties can hear each other: payload.codecs
    RESUMED = "ringing_resumed"  # the winner left within the commit window; the others ring on
    HELD = "held"  # a party has been on hold for longer than HOLD_MS
    RETRIEVED = "retrieved"  # that hold is over: payload.held_ms
    CALLER_MOVED = "caller_moved"  # the dialer moved its end to another dialog
    RECORDING_STARTED = "recording_started"  # payload.file
    RECORDED = "recorded"  # payload.file, sha256, bytes, audio_ms; may follow the closing fact
    LEG_ENDED = "leg_ended"  # a leg is over: payload.code, phrase, by, local, header
    BUFFER_PASSED = "buffer_passed"  # the attempt has lasted buffer_ms
    TALK_REACHED_15S = "talk_reached_15s"  # the talk has lasted the connected threshold
    TALK_MINUTE = "talk_minute"  # the talk has lasted payload.minutes
    ENDED = "ended"  # the end of domain, section 1: payload.by, payload.cause
    FAULT = "fault"  # something of ours failed: payload.what
    INTERRUPTED = "interrupted"  # written by recovery: the router died while this transfer was open
    TRANSFER_CLOSED = "transfer_closed"  # the closing fact, with the router's own verdict


HOLD_MS = 10_000  # domain 9: no hold above 10 s; one is told once it has lasted for so long (HELD)

TRYING = 100  # RFC 3261 section 21.1.1; it comes from the next hop
RINGING_CODES = range(180, 184)  # domain 2: Ringing, Call Is Being Forwarded, Queued, Session Progress


class Party(StrEnum):
    """Who ended a leg or a transfer."""

    CALLER = "caller"
    BUYER = "buyer"
    ROUTER = "router"


class EndCause(StrEnum):
    """How a transfer ended (payload.cause of `ended`)."""

    CANCEL = "cancel"  # CANCEL from the dialer before the answer
    BYE = "bye"  # BYE from a party after the answer
    LEGS_FAILED = "legs_failed"  # the last leg's final failure
    RING_TIMEOUT = "ring_timeout"  # nobody answered in time: our CANCEL
    TRANSPORT = "transport"  # our own transport failed
    MEDIA = "media"  # our own media failed
    STORE = "store"  # the store refused
    ENGINE = "engine"  # the SIP engine failed or lost the call
    SHUTDOWN = "shutdown"  # the router was told to stop
    VANISHED = "vanished"  # a party was gone without BYE; the time is that of its last RTP


OUR_FAILURES = frozenset({EndCause.TRANSPORT, EndCause.MEDIA, EndCause.STORE, EndCause.ENGINE, EndCause.SHUTDOWN})


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened. `leg` is None for the transfer as a whole. Times are integers in microseconds."""

    router: str
    boot: str
    seq: int
    transfer: str
    kind: Kind
    utc_us: int
    mono_us: int
    lag_us: int = 0
    origin: str = "router"
    leg: int | None = None
    payload: dict[str, Any] = field(default_factory=dict)

    def canonical(self) -> bytes:
        """Bytes that stand for this fact in the hash chain: sorted JSON of every field."""
        return orjson.dumps(
            [
                self.router,
                self.boot,
                self.seq,
                self.transfer,
                self.kind.value,
                self.utc_us,
                self.mono_us,
                self.lag_us,
                self.origin,
                self.leg,
                self.payload,
            ],
            option=orjson.OPT_SORT_KEYS,
        )

    def digest(self, previous: bytes) -> bytes:
        """SHA-256 over the predecessor's digest and this fact."""
        return hashlib.sha256(previous + self.canonical()).digest()


def first_of(facts: Iterable[Fact], kind: Kind) -> Fact | None:
    """The first fact of a kind."""
    for fact in facts:
        if fact.kind is kind:
            return fact
    return None


def until_closed(facts: Sequence[Fact]) -> Sequence[Fact]:
    """The facts on which a verdict rests: what was written after the closing fact changes none."""
    for index, fact in enumerate(facts):
        if fact.kind is Kind.TRANSFER_CLOSED:
            return facts[:index]
    return facts


def duration_ms(start_us: int, end_us: int, lag_us: int = 0) -> int:
    """Whole milliseconds from start to end, less the doubt, rounded down, never negative (domain, section 2)."""
    return max(0, end_us - start_us - lag_us) // 1000
