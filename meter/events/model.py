"""What others are told of a transfer while it runs: started, dialed, ringing, answered, and the outcome.

Events are made of facts, by one fold over a transfer's facts in their order, so that they can be made again: by MQTT,
by webhooks, by the feed of the HTTP API. Each has an id that is the same in every repeat. Pure.

    started   the INVITE was admitted to the books, whatever came of it
    dialed    the first INVITE left: from here the buffer runs
    ringing   the first endpoint that rang, once
    answered  an endpoint answered and won; again where it left within the commit window and another one won
    outcome   the transfer is settled: verdict, reason and what it counts as
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from facts.disclosure import NOTHING, Claim
from facts.fact import Fact, Kind
from facts.ladder import at_ms
from facts.payloads import answered, ringing, rings
from facts.start_payload import TransferStarted, transfer_started

SCHEMA = 1  # version of docs/mqtt/*.schema.json
KINDS = (Kind.TRANSFER_STARTED, Kind.DIALED, Kind.RINGING, Kind.ANSWERED, Kind.TRANSFER_CLOSED)
_NOT_PUBLISHED = ("evidence", "boot", "agreed")  # of an outcome's row: what only the store needs


class EventKind(StrEnum):
    """The kinds of events."""

    STARTED = "started"
    DIALED = "dialed"
    RINGING = "ringing"
    ANSWERED = "answered"
    OUTCOME = "outcome"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `fields`: all there is to tell, as JSON has it: who sends it on discloses it (`facts.disclosure`)."""

    kind: EventKind
    transfer: str
    buyer: str
    fields: dict[str, Any]
    claim: Claim = NOTHING  # of the buyer to the person's data, by then

    @property
    def id(self) -> str:
        return str(self.fields["id"])


@dataclass(slots=True)
class _Known:
    """What later events of a transfer need of its earlier facts."""

    about: dict[str, Any]  # fields that all events share
    endpoints: dict[int, dict[str, Any]]
    dialout_us: int | None = None
    rang: bool = False
    by_minute: bool = False


class Events:
    """Folds facts into events. A transfer is known from its `transfer_started` until it is closed."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    @property
    def transfers(self) -> set[str]:
        """Those that are known."""
        return set(self._known)

    def recall(self, before: Mapping[str, Sequence[Fact]]) -> None:
        """Take in earlier facts, whose events were told before."""
        for facts in before.values():
            for fact in facts:
                self.fold(fact, None)

    def fold(self, fact: Fact, outcome: Mapping[str, Any] | None) -> Event | None:
        """The event that this fact is, if it is one. `outcome`: the settled row, for a closing fact."""
        if fact.kind is Kind.TRANSFER_STARTED:
            start = transfer_started(fact)
            known = _Known(_about(start), _endpoints(start), by_minute=start.terms.by_minute)
            self._known[fact.transfer] = known
            return _started(fact, start, known)
        if fact.kind is Kind.TRANSFER_CLOSED:
            ended = self._known.pop(fact.transfer, None)
            by_minute = ended is not None and ended.by_minute
            return _outcome(fact.transfer, outcome, by_minute=by_minute) if outcome is not None else None
        known = self._known.get(fact.transfer) or _Known({}, {})
        made = _OF_LEGS.get(fact.kind)
        return made(fact, known) if made is not None else None


def _about(start: TransferStarted) -> dict[str, Any]:
    return {
        "call_id": _short(start.call_id),
        "dialer": _short(start.dialer),
        "campaign": _short(start.campaign),
        "buyer": _short(start.buyer),
        "phone": _short(start.phone),
    }


def _endpoints(start: TransferStarted) -> dict[int, dict[str, Any]]:
    return {
        endpoint.leg: {"leg": endpoint.leg, "name": _short(endpoint.name), "kind": _short(endpoint.kind)}
        for endpoint in start.endpoints
        if endpoint.leg is not None
    }


def _short(text: str | None) -> str:
    return (text or "")[:64]


def _event(kind: EventKind, fact: Fact, known: _Known, event_id: str, more: Mapping[str, Any]) -> Event:
    payload = {
        "schema": SCHEMA,
        "id": event_id,
        "event": kind.value,
        "transfer": fact.transfer,
        "router": fact.router,
        **known.about,
        "at_utc_us": fact.utc_us,
        **more,
    }
    return Event(kind, fact.transfer, known.about.get("buyer", ""), payload)


def _started(fact: Fact, start: TransferStarted, known: _Known) -> Event:
    more = {
        "sip_call_id": start.sip_call_id or "",
        "buffer_ms": start.buffer_ms or 0,
        "ring_timeout_ms": start.ring_timeout_ms or 0,
        "endpoints": list(known.endpoints.values()),
    }
    return _event(EventKind.STARTED, fact, known, f"{fact.transfer}.started", more)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _dialed(fact: Fact, known: _Known) -> Event | None:
    if known.dialout_us is not None:
        return None
    known.dialout_us = fact.mono_us
    return _event(EventKind.DIALED, fact, known, f"{fact.transfer}.dialed", {})


def _of_leg(fact: Fact, known: _Known) -> dict[str, Any]:
    zero_us = fact.mono_us if known.dialout_us is None else known.dialout_us
    name = known.endpoints.get(fact.leg or 0, {}).get("name", "")
    return {"leg": fact.leg, "endpoint": name, "after_dialout_ms": at_ms(fact, zero_us)}


def _ringing(fact: Fact, known: _Known) -> Event | None:
    if known.rang or not rings(fact):
        return None
    known.rang = True
    more = {**_of_leg(fact, known), "code": ringing(fact).code or 0}
    return _event(EventKind.RINGING, fact, known, f"{fact.transfer}.ringing", more)


def _answered(fact: Fact, known: _Known) -> Event:
    made = _event(EventKind.ANSWERED, fact, known, f"{fact.transfer}.answered.{fact.leg}", _of_leg(fact, known))
    return replace(made, claim=Claim(answered=answered(fact).wins, by_minute=known.by_minute))  # else nobody has it yet


_OF_LEGS = {Kind.DIALED: _dialed, Kind.RINGING: _ringing, Kind.ANSWERED: _answered}


def _outcome(transfer: str, row: Mapping[str, Any], *, by_minute: bool) -> Event:
    shown = {name: value for name, value in row.items() if name not in _NOT_PUBLISHED}
    payload = {"schema": SCHEMA, "id": f"{transfer}.outcome", "event": EventKind.OUTCOME.value, **shown}
    claim = Claim(str(row.get("counts_as", "")), _whole(row.get("talk_ms")) > 0, by_minute)
    return Event(EventKind.OUTCOME, transfer, str(row.get("buyer", "")), payload, claim)
