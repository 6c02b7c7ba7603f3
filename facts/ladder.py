"""The ladder of a transfer: what each leg did and when, and in plain English why it came to what it came to.

Pure: facts in, values out. All times are whole milliseconds from dial-out, the instant from which every bound of the
terms is counted, so a buyer can check a verdict against them line by line. Facts are named by their sequence number;
the e-mail of a failed transfer, `transfers show` and the portal all print this one account.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from facts.fact import CALLER_LEG, TRYING, Fact, Kind, first_of, until_closed
from facts.outcome import Outcome, OutcomeTerms, decide
from facts.payloads import (
    answered,
    answered_late,
    bridged,
    caller_moved,
    ended,
    fault,
    leg_ended,
    not_sent,
    recorded,
    recording_started,
    refused,
    retrieved,
    ringing,
    rings,
    talk_minute,
    trying,
)
from facts.start_payload import Endpoint, by_leg, lead_problems


@dataclass(frozen=True, slots=True)
class LegTimes:
    """One endpoint's leg. Times in ms from dial-out; None where it never happened."""

    leg: int
    name: str
    kind: str  # trunk or did; empty where the plan does not say
    secure: bool
    sent_ms: int | None = None
    trying_ms: int | None = None
    ringing_ms: int | None = None
    ringing_code: int | None = None
    answered_ms: int | None = None
    late: bool = False  # the 2xx came after another leg had won or the attempt was over
    accepted_ms: int | None = None
    bridged_ms: int | None = None
    ended_ms: int | None = None
    ended_by: str = ""
    local: bool = False  # the final answer was made by us: it says nothing of the buyer
    code: int | None = None
    phrase: str = ""
    reason_header: str = ""


@dataclass(frozen=True, slots=True)
class ClockRow:
    """One line of the account in the order of time: when, who, what, and the fact that says so."""

    at_ms: int
    who: str
    what: str
    seq: int


@dataclass(frozen=True, slots=True)
class Ladder:
    """The account of one transfer. `dialout_utc_us` is None where no INVITE left; `attempt` times are then 0."""

    transfer: str
    started_utc_us: int
    dialout_utc_us: int | None
    legs: tuple[LegTimes, ...]
    clock: tuple[ClockRow, ...]
    outcome: Outcome
    settled: bool  # the transfer is over: there is a closing fact
    explanation: str
    lead_problems: tuple[str, ...] = ()  # what was wrong with the lead; nothing of it is repeated

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        made = asdict(self)
        made["outcome"] = self.outcome.as_payload()
        made["legs"] = [asdict(leg) for leg in self.legs]
        made["clock"] = [asdict(row) for row in self.clock]
        return made


def build_ladder(facts: Sequence[Fact], terms: OutcomeTerms | None = None) -> Ladder:
    """The account of one transfer from its facts, in their order. Raises ValueError for no facts at all."""
    if not facts:
        raise ValueError("facts: none were given, a ladder needs at least one")
    started = first_of(facts, Kind.TRANSFER_STARTED) or facts[0]
    dialout = first_of(facts, Kind.DIALED)
    zero_us = (dialout or started).mono_us
    legs = _legs(facts, started, zero_us)
    outcome = decide(until_closed(facts), terms)
    return Ladder(
        transfer=started.transfer,
        started_utc_us=started.utc_us,
        dialout_utc_us=dialout.utc_us if dialout else None,
        legs=tuple(legs.values()),
        clock=clock_rows(facts, {number: leg.name for number, leg in legs.items()}, zero_us),
        outcome=outcome,
        settled=first_of(facts, Kind.TRANSFER_CLOSED) is not None,
        explanation=explain(outcome, facts),
        lead_problems=lead_problems(started),
    )


def at_ms(fact: Fact, zero_us: int) -> int:
    """Whole ms from dial-out, rounded down; negative before it."""
    return (fact.mono_us - zero_us) // 1000


def _legs(facts: Sequence[Fact], started: Fact, zero_us: int) -> dict[int, LegTimes]:
    planned = by_leg(started)
    known: dict[int, dict[str, Any]] = {number: {} for number in planned}
    for fact in facts:
        note = _LEG_NOTES.get(fact.kind)
        if fact.leg and note is not None:  # leg 0 is the dialer's
            note(known.setdefault(fact.leg, {}), fact, at_ms(fact, zero_us))
    return {number: _leg(number, planned.get(number, Endpoint()), known[number]) for number in sorted(known)}


def _leg(number: int, endpoint: Endpoint, known: dict[str, Any]) -> LegTimes:
    name = endpoint.name or f"leg {number}"
    return LegTimes(number, name, endpoint.kind or "", secure=endpoint.secure is True, **known)


_Note = Callable[[dict[str, Any], Fact, int], None]  # what is known of the leg so far, in fields of LegTimes


def _once(name: str) -> _Note:
    """The first fact of its kind sets the time; a repeat changes nothing."""

    def note(known: dict[str, Any], _fact: Fact, at: int) -> None:
        known.setdefault(name, at)

    return note


def _rang(known: dict[str, Any], fact: Fact, at: int) -> None:
    if "ringing_ms" not in known and rings(fact):
        known.update(ringing_ms=at, ringing_code=ringing(fact).code)


def _tried(known: dict[str, Any], fact: Fact, at: int) -> None:
    """100 alone: 199 and the like are on the clock."""
    if "trying_ms" not in known and trying(fact).code == TRYING:
        known["trying_ms"] = at


def _answered_late(known: dict[str, Any], _fact: Fact, at: int) -> None:
    known.update(answered_ms=at, late=True)


def _ended(known: dict[str, Any], fact: Fact, at: int) -> None:
    if "ended_ms" in known:
        return
    over = leg_ended(fact)
    known.update(
        ended_ms=at,
        ended_by=over.by.value if over.by is not None else "",
        local=over.local is not False,  # unless it is certain that the far end said so
        code=over.code,
        phrase=over.phrase or "",
        reason_header=over.header or "",
    )


_LEG_NOTES: dict[Kind, _Note] = {
    Kind.DIALED: _once("sent_ms"),
    Kind.TRYING: _tried,
    Kind.RINGING: _rang,
    Kind.ANSWERED: _once("answered_ms"),
    Kind.ANSWERED_LATE: _answered_late,
    Kind.ACCEPTED: _once("accepted_ms"),
    Kind.BRIDGED: _once("bridged_ms"),
    Kind.LEG_ENDED: _ended,
}


def clock_rows(facts: Sequence[Fact], names: dict[int, str], zero_us: int) -> tuple[ClockRow, ...]:
    """Every fact but the closing one as a line, in the order in which they were written."""
    return tuple(
        ClockRow(at_ms(fact, zero_us), _who(fact, names), _what(fact), fact.seq)
        for fact in facts
        if fact.kind is not Kind.TRANSFER_CLOSED
    )


def _who(fact: Fact, names: dict[int, str]) -> str:
    if fact.leg is None:
        return ""
    return "caller" if fact.leg == CALLER_LEG else names.get(fact.leg, f"leg {fact.leg}")


def _what(fact: Fact) -> str:
    say = _SAID.get(fact.kind)
    return say(fact) if say else fact.kind.value.replace("_", " ")


def _said_ended(fact: Fact) -> str:
    by, cause = ended(fact)
    return f"ended by the {'unknown' if by is None else by.value} ({'unknown' if cause is None else cause.value})"


def _said_leg_ended(fact: Fact) -> str:
    over = leg_ended(fact)
    by = over.by.value if over.by is not None else "far end"
    who = f"by the {by}" if over.local is False else "by us"
    parts = [f"leg ended {who}", _status(over.code, over.phrase), over.header or ""]
    return ", ".join(part for part in parts if part)


def _status(code: int | None, phrase: str | None) -> str:
    """Code and reason phrase, as far as there are."""
    if code and phrase:
        return f"{code} {phrase}"
    return phrase or (str(code) if code else "")


def _said_trying(fact: Fact) -> str:
    said = trying(fact)
    return "100 Trying" if said.code == TRYING else _status(said.code, said.phrase)


def _said_ringing(fact: Fact) -> str:
    said = ringing(fact)
    return _status(said.code, said.phrase) or "ringing"


def _said_answered(fact: Fact) -> str:
    answer = answered(fact)
    said = [f"answered, {_status(answer.code, answer.phrase) or '200'}"]
    said += ["within a second"] if answer.fast else []
    said += [] if answer.wins else ["and has to accept"]
    return ", ".join(said)


def _said_answered_late(fact: Fact) -> str:
    answer = answered_late(fact)
    return f"answered too late, {_status(answer.code, answer.phrase) or '200'}: acknowledged and hung up"


def _said_bridged(fact: Fact) -> str:
    codecs = bridged(fact).codecs
    return f"caller and buyer can hear each other{f' ({codecs})' if codecs else ''}"


def _said_recorded(fact: Fact) -> str:
    done = recorded(fact)
    return f"recorded {_figure(done.audio_ms)} ms, {done.file or '?'}"


def _figure(value: int | None) -> str:
    return "?" if value is None else str(value)


_SAID: dict[Kind, Callable[[Fact], str]] = {
    Kind.TRANSFER_STARTED: lambda _: "INVITE from the dialer",
    Kind.REFUSED: lambda fact: f"refused: {refused(fact).reason or 'unknown'}",
    Kind.DIALED: lambda _: "INVITE sent",
    Kind.NOT_SENT: lambda fact: f"not dialled: {not_sent(fact).why or 'unknown'}",
    Kind.TRYING: _said_trying,
    Kind.RINGING: _said_ringing,
    Kind.ANSWERED: _said_answered,
    Kind.ANSWERED_LATE: _said_answered_late,
    Kind.ACCEPTED: lambda _: "accepted by key",
    Kind.BRIDGED: _said_bridged,
    Kind.RESUMED: lambda _: "left within the commit window: the others ring on",
    Kind.HELD: lambda _: "has been on hold for 10 s",
    Kind.RETRIEVED: lambda fact: f"took the other back after {_figure(retrieved(fact).held_ms)} ms of hold",
    Kind.CALLER_MOVED: lambda fact: f"the dialer moved its end ({caller_moved(fact).how or 'unknown'})",
    Kind.RECORDING_STARTED: lambda fact: f"recording to {recording_started(fact).file or '?'}",
    Kind.RECORDED: _said_recorded,
    Kind.BUFFER_PASSED: lambda _: "the attempt has lasted the whole buffer",
    Kind.TALK_REACHED_15S: lambda _: "the talk has reached the connected threshold",
    Kind.TALK_MINUTE: lambda fact: f"the talk has lasted {_figure(talk_minute(fact).minutes)} min",
    Kind.LEG_ENDED: _said_leg_ended,
    Kind.ENDED: _said_ended,
    Kind.FAULT: lambda fact: f"fault of ours: {fault(fact).what or 'unknown'}",
    Kind.INTERRUPTED: lambda _: "the router died; found when it started again",
}

# Why each row of the table of domain, section 3 matched; the numbers are put in by `explain`.
_WHY: dict[int, str] = {
    1: "no INVITE was sent ({reason})",
    2: "the talk reached the connected threshold (talk {talk})",
    3: "the attempt was ended by a failure of ours ({reason}), which no buyer pays for",
    4: "every endpoint is a plain number, and the operator's own carrier refused every leg before any ringing",
    5: "the attempt lasted {attempt}, less than the buffer of {buffer} ({reason})",
    6: "no endpoint sent any response at all",
    7: "the buyer answered and the buyer ended the call after {talk} of talk, before the connected threshold",
    8: "the buyer answered and the caller ended the call after {talk} of talk, before the connected threshold",
    9: "nobody answered and the caller gave up after {attempt}",
    10: "nobody answered: {how}, after {attempt} from dial-out to the end, not less than the buffer of {buffer}",
    11: "the facts fit no other row; somebody of the operator has to look",
}
_HOW_ROW_10 = {"declined": "at least one endpoint declined", "no_answer": "every endpoint rang out"}


def explain(outcome: Outcome, facts: Sequence[Fact]) -> str:
    """One sentence on the row of the table that matched, one on the facts it rests on."""
    why = _WHY[outcome.row].format(
        reason=outcome.reason.value.replace("_", " "),
        how=_HOW_ROW_10.get(outcome.reason.value, ""),
        attempt=_in_ms(outcome.attempt_ms),
        talk=_in_ms(outcome.talk_ms),
        buffer=_in_ms(outcome.buffer_ms),
    )
    kinds = {fact.seq: fact.kind.value for fact in facts}
    proof = ", ".join(f"{seq} ({kinds.get(seq, '?')})" for seq in outcome.evidence)
    said = f"{outcome.verdict.value}, counted as {outcome.counts_as.value}, by row {outcome.row} of the table: {why}."
    return f"{said} Facts: {proof}." if proof else said


def _in_ms(duration_ms: int) -> str:
    return f"{duration_ms:,} ms"
