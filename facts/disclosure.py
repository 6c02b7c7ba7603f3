"""What a reader may see of a transfer: the one place that decides, for every way out (domain, section 7).

A buyer gets a person's data for transfers that connected or count as failed, and nothing for others, nor before it is
known. Who pays by the minute has a call that was answered, from the answer on: it was theirs to take, and is charged
(domain, section 9). What an endpoint is told by the signalling itself, its caller id and the headers that its policy
names, is the router's matter. Operator and dialer know the person already. Names of the operator's (its dialers, its
routers) are withheld from buyers, and a buyer's endpoints and terms from dialers; what is withheld is empty, so that
schemas hold.

The id of a call goes with the person: dialers choose it, and it says which transfers are the same prospect's.

A broker (MQTT) cannot tell its readers apart: unless the operator says that it may have whole numbers, it has no more
of a person than the buyer, and of a number the last four digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from facts.fact import Fact, Kind, first_of, until_closed
from facts.outcome import CountsAs, decide
from facts.start_payload import terms

PHONE_DIGITS_SHOWN = 4
_COUNTS = frozenset({CountsAs.CONNECTED.value, CountsAs.FAILED.value})


class Reader(StrEnum):
    """On whose behalf something is read."""

    OPERATOR = "operator"
    DIALER = "dialer"
    BUYER = "buyer"
    BROKER = "broker"  # whoever an MQTT broker lets read


@dataclass(frozen=True, slots=True)
class Claim:
    """What a buyer's claim to a person's data rests on. `counts_as` is empty until the transfer is over."""

    counts_as: str = ""
    answered: bool = False
    by_minute: bool = False


NOTHING = Claim()
_PERSON: dict[str, Any] = {"phone": "", "caller": "", "customer": "", "lead": {}}
_WITHHELD: dict[Reader, dict[str, Any]] = {
    Reader.BUYER: {"router": "", "dialer": "", "sip_call_id": ""},
    Reader.DIALER: {"router": "", "endpoints": [], "endpoint": "", "buffer_ms": 0}
    | {"terms_name": "", "terms_version": 0},
}
_WITHOUT_PERSON: dict[Reader, dict[str, Any]] = {Reader.BUYER: {**_PERSON, "call_id": ""}, Reader.BROKER: _PERSON}


def knows_person(reader: Reader, claim: Claim) -> bool:
    """Whether this reader may know whom a transfer was about."""
    if reader not in _WITHOUT_PERSON:
        return True
    return claim.counts_as in _COUNTS or (claim.by_minute and claim.answered)


def disclosed(fields: Mapping[str, Any], reader: Reader, claim: Claim) -> dict[str, Any]:
    """The fields as this reader may see them; what is withheld is empty."""
    withheld = _WITHHELD.get(reader, {})
    if not knows_person(reader, claim):
        withheld = withheld | _WITHOUT_PERSON[reader]
    shown = {name: withheld.get(name, value) for name, value in fields.items()}
    return masked(shown) if reader is Reader.BROKER else shown


def masked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with the last four digits of the phone number alone."""
    phone = fields.get("phone")
    return {**fields, "phone": f"***{phone[-PHONE_DIGITS_SHOWN:]}"} if phone else dict(fields)


def claim_of(facts: Sequence[Fact]) -> Claim:
    """What the facts of one transfer come to, in their order."""
    started = first_of(facts, Kind.TRANSFER_STARTED)
    if started is None or first_of(facts, Kind.TRANSFER_CLOSED) is None:
        return Claim()
    outcome = decide(until_closed(facts))
    return Claim(outcome.counts_as.value, outcome.talk_ms > 0, is_by_minute(started))


def is_by_minute(started: Fact) -> bool:
    """Whether the terms in force rate by the minute."""
    return terms(started).by_minute
