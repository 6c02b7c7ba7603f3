"""What a fact says, typed: for each kind of fact one frozen type, one reader and one writer of its payload.

A fact keeps its payload as it was stored, since the hash chain covers it. Everybody reads it here and nowhere else:
what was written by an earlier release, by a later one or by nobody we know reads without raising. A value that is
absent or not of its type is None, never a guess; a mark that is only written where it holds (`fast`, `must_accept`) is
False where it is absent. What earlier releases wrote otherwise is told at the reader of its kind.

`as_payload` of a type is what is written: the keys that a kind always has, the others only where they say something.
Types are named tuples: those cost two fifths of a frozen dataclass to make, and a transfer makes about fifteen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from facts.fact import RINGING_CODES, TRYING, EndCause, Fact, Kind, Party
from facts.payload_values import Payload, given, mark, stored, text, truth, whole, wholes
from facts.start_payload import TransferStarted, transfer_started

_PARTIES = {party.value: party for party in Party}
_CAUSES = {cause.value: cause for cause in EndCause}


def _party(payload: Mapping[str, Any]) -> Party | None:
    value = payload.get("by")
    return _PARTIES.get(value) if isinstance(value, str) else None


# --- what happens to legs --------------------------------------------------------------------------------------------


class Refused(NamedTuple):
    """No INVITE will leave: a slug of `Reason`."""

    reason: str | None = None

    def as_payload(self) -> Payload:
        return {"reason": self.reason}


class NotSent(NamedTuple):
    """A leg that was never dialled. `ours`: this machine was short of something."""

    why: str | None = None
    ours: bool | None = False

    def as_payload(self) -> Payload:
        return {"why": self.why, "ours": True} if self.ours else {"why": self.why}


class Trying(NamedTuple):
    """A provisional answer that is no ringing; the reason phrase of any but 100."""

    code: int | None = None
    phrase: str | None = None

    def as_payload(self) -> Payload:
        return {"code": self.code} if self.phrase is None else {"code": self.code, "phrase": self.phrase}


class Ringing(NamedTuple):
    """The leg's first 180 to 183. Facts of the first release call every provisional answer above 100 so."""

    code: int | None = None
    phrase: str | None = None

    def as_payload(self) -> Payload:
        return {"code": self.code, "phrase": self.phrase}


class Answered(NamedTuple):
    """The leg's first 2xx. `fast`: within a second. `must_accept`: it had to hear or press something first."""

    code: int | None = None
    phrase: str | None = None
    fast: bool | None = False
    must_accept: bool | None = False
    whisper: bool | None = False

    @property
    def wins(self) -> bool:
        """Talk runs from here (domain, section 1): nothing had to be accepted first, for certain."""
        return self.must_accept is False

    def as_payload(self) -> Payload:
        payload: Payload = {"code": self.code, "phrase": self.phrase}
        if self.fast:
            payload["fast"] = True
        if self.must_accept:
            payload["must_accept"] = True
        if self.whisper:
            payload["whisper"] = True
        return payload


class AnsweredLate(NamedTuple):
    """A 2xx after another leg had won or the attempt was over. `forked`: from a second dialog of the same INVITE."""

    code: int | None = None
    phrase: str | None = None
    forked: bool | None = False

    def as_payload(self) -> Payload:
        payload: Payload = {"code": self.code, "phrase": self.phrase}
        if self.forked:
            payload["forked"] = True
        return payload


class Bridged(NamedTuple):
    """Both parties can hear each other. `codecs`: the caller's and the endpoint's."""

    codecs: str | None = None

    def as_payload(self) -> Payload:
        return {} if self.codecs is None else {"codecs": self.codecs}


class LegEnded(NamedTuple):
    """A leg is over. `local`: the final answer was made by us; `header`: the Reason that was given (RFC 3326)."""

    code: int | None = None
    phrase: str | None = None
    by: Party | None = None
    local: bool | None = None
    header: str | None = None

    @property
    def far_end_code(self) -> int | None:
        """The final answer, where it is certain that the far end sent it."""
        return self.code if self.local is False else None

    def as_payload(self) -> Payload:
        by = None if self.by is None else self.by.value
        payload: Payload = {"code": self.code, "phrase": self.phrase, "by": by, "local": self.local}
        if self.header is not None:
            payload["header"] = self.header
        return payload


def refused(fact: Fact) -> Refused:
    return Refused(text(stored(fact), "reason"))


def not_sent(fact: Fact) -> NotSent:
    payload = stored(fact)
    return NotSent(text(payload, "why"), mark(payload, "ours"))


def trying(fact: Fact) -> Trying:
    """Without a code it is 100: nothing else was told so before other codes were."""
    payload = stored(fact)
    return Trying(whole(payload, "code") if "code" in payload else TRYING, text(payload, "phrase"))


def ringing(fact: Fact) -> Ringing:
    payload = stored(fact)
    return Ringing(whole(payload, "code"), text(payload, "phrase"))


def rings(fact: Fact) -> bool:
    """Whether the fact says that an endpoint rang; so too where it is RINGING without a code that can be read."""
    if fact.kind is not Kind.RINGING:
        return False
    code = whole(stored(fact), "code")
    return code is None or code in RINGING_CODES


def answered(fact: Fact) -> Answered:
    payload = stored(fact)
    return Answered(
        whole(payload, "code"),
        text(payload, "phrase"),
        mark(payload, "fast"),
        mark(payload, "must_accept"),
        mark(payload, "whisper"),
    )


def answered_late(fact: Fact) -> AnsweredLate:
    payload = stored(fact)
    return AnsweredLate(whole(payload, "code"), text(payload, "phrase"), mark(payload, "forked"))


def bridged(fact: Fact) -> Bridged:
    return Bridged(text(stored(fact), "codecs"))


def leg_ended(fact: Fact) -> LegEnded:
    payload = stored(fact)
    return LegEnded(
        whole(payload, "code"),
        text(payload, "phrase"),
        _party(payload),
        truth(payload, "local"),
        text(payload, "header"),
    )


# --- talk and recordings ---------------------------------------------------------------------------------------------


class Retrieved(NamedTuple):
    """A hold of more than 10 s is over."""

    held_ms: int | None = None

    def as_payload(self) -> Payload:
        return {"held_ms": self.held_ms}


class CallerMoved(NamedTuple):
    """How the dialer moved its end to another dialog: `refer` or `replaces`."""

    how: str | None = None

    def as_payload(self) -> Payload:
        return {"how": self.how}


class RecordingStarted(NamedTuple):
    """The file's name, relative to the folder of recordings."""

    file: str | None = None

    def as_payload(self) -> Payload:
        return {"file": self.file}


class Recorded(NamedTuple):
    """A recording is safe on the disk, or `error` says why it could not be made so."""

    file: str | None = None
    sha256: str | None = None  # hex; empty where there is an error
    bytes: int | None = None
    audio_ms: int | None = None
    error: str | None = None

    def as_payload(self) -> Payload:
        return given(file=self.file, sha256=self.sha256, bytes=self.bytes, audio_ms=self.audio_ms, error=self.error)


class TalkMinute(NamedTuple):
    """How many whole minutes the talk has lasted."""

    minutes: int | None = None

    def as_payload(self) -> Payload:
        return {"minutes": self.minutes}


def retrieved(fact: Fact) -> Retrieved:
    return Retrieved(whole(stored(fact), "held_ms"))


def caller_moved(fact: Fact) -> CallerMoved:
    return CallerMoved(text(stored(fact), "how"))


def recording_started(fact: Fact) -> RecordingStarted:
    return RecordingStarted(text(stored(fact), "file"))


def recorded(fact: Fact) -> Recorded:
    payload = stored(fact)
    return Recorded(
        text(payload, "file"),
        text(payload, "sha256"),
        whole(payload, "bytes"),
        whole(payload, "audio_ms"),
        text(payload, "error"),
    )


def talk_minute(fact: Fact) -> TalkMinute:
    return TalkMinute(whole(stored(fact), "minutes"))


# --- ends ------------------------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """The end (domain, section 1)."""

    by: Party | None = None
    cause: EndCause | None = None

    def as_payload(self) -> Payload:
        by, cause = self.by, self.cause
        return {"by": None if by is None else by.value, "cause": None if cause is None else cause.value}


class Fault(NamedTuple):
    """Something of ours failed. `code`: the answer that could not be used, where that is why."""

    what: str | None = None
    code: int | None = None
    detail: str | None = None

    def as_payload(self) -> Payload:
        return given(what=self.what, code=self.code, detail=self.detail)


class Interrupted(NamedTuple):
    """The router died: the last fact that it had written of this transfer."""

    last_seq: int | None = None

    def as_payload(self) -> Payload:
        return {"last_seq": self.last_seq}


class TransferClosed(NamedTuple):
    """The router's own verdict, in the slugs and figures of `Outcome`."""

    verdict: str | None = None
    reason: str | None = None
    counts_as: str | None = None
    row: int | None = None
    attempt_ms: int | None = None
    talk_ms: int | None = None
    buffer_ms: int | None = None
    evidence: tuple[int, ...] = ()

    def as_payload(self) -> Payload:
        return self._asdict() | {"evidence": list(self.evidence)}


class Empty(NamedTuple):
    """A kind that says all by itself."""

    def as_payload(self) -> Payload:
        return {}


def ended(fact: Fact) -> Ended:
    payload = stored(fact)
    cause = payload.get("cause")
    return Ended(_party(payload), _CAUSES.get(cause) if isinstance(cause, str) else None)


def fault(fact: Fact) -> Fault:
    payload = stored(fact)
    return Fault(text(payload, "what"), whole(payload, "code"), text(payload, "detail"))


def interrupted(fact: Fact) -> Interrupted:
    return Interrupted(whole(stored(fact), "last_seq"))


def transfer_closed(fact: Fact) -> TransferClosed:
    payload = stored(fact)
    return TransferClosed(
        verdict=text(payload, "verdict"),
        reason=text(payload, "reason"),
        counts_as=text(payload, "counts_as"),
        row=whole(payload, "row"),
        attempt_ms=whole(payload, "attempt_ms"),
        talk_ms=whole(payload, "talk_ms"),
        buffer_ms=whole(payload, "buffer_ms"),
        evidence=wholes(payload, "evidence"),
    )


def _empty(_fact: Fact) -> Empty:
    return Empty()


Typed = (
    TransferStarted | Refused | NotSent | Trying | Ringing | Answered | AnsweredLate | Bridged | Retrieved | CallerMoved
    | RecordingStarted | Recorded | LegEnded | TalkMinute | Ended | Fault | Interrupted | TransferClosed | Empty
)  # fmt: skip

READERS: Mapping[Kind, Callable[[Fact], Typed]] = {
    Kind.TRANSFER_STARTED: transfer_started,
    Kind.REFUSED: refused,
    Kind.DIALED: _empty,
    Kind.NOT_SENT: not_sent,
    Kind.TRYING: trying,
    Kind.RINGING: ringing,
    Kind.ANSWERED: answered,
    Kind.ANSWERED_LATE: answered_late,
    Kind.ACCEPTED: _empty,
    Kind.BRIDGED: bridged,
    Kind.RESUMED: _empty,
    Kind.HELD: _empty,
    Kind.RETRIEVED: retrieved,
    Kind.CALLER_MOVED: caller_moved,
    Kind.RECORDING_STARTED: recording_started,
    Kind.RECORDED: recorded,
    Kind.LEG_ENDED: leg_ended,
    Kind.BUFFER_PASSED: _empty,
    Kind.TALK_REACHED_15S: _empty,
    Kind.TALK_MINUTE: talk_minute,
    Kind.ENDED: ended,
    Kind.FAULT: fault,
    Kind.INTERRUPTED: interrupted,
    Kind.TRANSFER_CLOSED: transfer_closed,
}


def read(fact: Fact) -> Typed:
    """What the fact says, by its kind."""
    return READERS[fact.kind](fact)
