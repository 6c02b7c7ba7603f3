"""What `transfer_started` says, typed: the prospect, the buyer, the endpoints and the terms, as they were fixed.

Reader and writer of its payload, by the rules of `facts.payloads`. Who wants only its
endpoints, its terms or its buyer asks for those: that costs a fraction of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from facts.fact import Fact
from facts.payload_values import (
    NOTHING,
    Payload,
    given,
    json_object,
    objects,
    stored,
    text,
    texts,
    truth,
    whole,
    wholes,
)

RATED_BY_MINUTE = "minute"  # of the terms' `rating`
DID = "did"  # of an endpoint's `kind`


class Endpoint(NamedTuple):
    """One endpoint of the buyer as it was to be dialled. Of a list's entry that cannot be read all is None."""

    leg: int | None = None
    name: str | None = None
    kind: str | None = None  # trunk or did
    transport: str | None = None
    srtp: str | None = None
    secure: bool | None = None

    def as_payload(self) -> Payload:
        return {
            "leg": self.leg,
            "name": self.name,
            "kind": self.kind,
            "transport": self.transport,
            "srtp": self.srtp,
            "secure": self.secure,
        }


class Terms(NamedTuple):
    """The clauses in force at dial-out, as far as the payload has them; none where there is no buyer."""

    name: str | None = None
    version: int | None = None
    rating: str | None = None
    connected_percent: int | None = None
    failed_percent: int | None = None
    talk_connected_ms: int | None = None
    unreachable: str | None = None
    caller_abandon: str | None = None
    time_zone: str | None = None
    currency: str | None = None
    unit_price_minor: int | None = None
    minute_price_minor: int | None = None  # these three: of who pays by the minute; absent in facts of before
    minute_increment_ms: int | None = None
    minute_minimum_ms: int | None = None

    @property
    def by_minute(self) -> bool:
        return self.rating == RATED_BY_MINUTE

    def as_payload(self) -> Payload:
        if self.name is None:
            return given(**self._asdict())
        payload: Payload = {
            "name": self.name,
            "version": self.version,
            "rating": self.rating,
            "connected_percent": self.connected_percent,
            "failed_percent": self.failed_percent,
            "talk_connected_ms": self.talk_connected_ms,
            "unreachable": self.unreachable,
            "caller_abandon": self.caller_abandon,
            "time_zone": self.time_zone,
            "currency": self.currency,
            "unit_price_minor": self.unit_price_minor,
        }
        if self.minute_price_minor is not None:
            payload["minute_price_minor"] = self.minute_price_minor
        if self.minute_increment_ms is not None:
            payload["minute_increment_ms"] = self.minute_increment_ms
        if self.minute_minimum_ms is not None:
            payload["minute_minimum_ms"] = self.minute_minimum_ms
        return payload


class Scrub(NamedTuple):
    """What the suppression lists said of the number. `lists`: names and versions; None in the first release's form."""

    reason: str | None = None  # empty: it passed
    hit: str | None = None
    lists: str | None = None
    sets: tuple[str, ...] = ()
    number: str | None = None
    took_us: int | None = None
    receipt: str | None = None
    exempt: tuple[int, ...] = ()  # exemptions on record that were applied

    def as_payload(self) -> Payload:
        payload: Payload = {
            "reason": self.reason,
            "hit": self.hit,
            "lists": self.lists,
            "sets": list(self.sets),
            "number": self.number,
            "took_us": self.took_us,
            "receipt": self.receipt,
        }
        if self.exempt:
            payload["exempt"] = list(self.exempt)
        return payload


class RefusedBuyer(NamedTuple):
    """A buyer who was asked before and could not have the call."""

    buyer: str | None = None
    reason: str | None = None
    detail: str | None = None
    scrub: Scrub | None = None

    def as_payload(self) -> Payload:
        scrub = self.scrub.as_payload() if self.scrub is not None else None
        return given(buyer=self.buyer, reason=self.reason, detail=self.detail, scrub=scrub)


class LeftOut(NamedTuple):
    """An endpoint that was not to be dialled."""

    endpoint: str | None = None
    why: str | None = None

    def as_payload(self) -> Payload:
        return given(endpoint=self.endpoint, why=self.why)


class TransferStarted(NamedTuple):
    """All that was fixed before anything rang. The lead's fields are hostile input, as the dialer gave them."""

    call_id: str | None = None
    sip_call_id: str | None = None
    dialer: str | None = None
    campaign: str | None = None
    buyer: str | None = None
    buyer_title: str | None = None
    lead_emails: tuple[str, ...] = ()
    phone: str | None = None
    lead: Mapping[str, Any] | None = None
    endpoints: tuple[Endpoint, ...] = ()
    buffer_ms: int | None = None
    ring_timeout_ms: int | None = None
    terms: Terms = Terms()
    seed: int | None = None
    lead_problems: tuple[str, ...] = ()
    refusals: tuple[RefusedBuyer, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    key: str | None = None  # pressed in the campaign's menu
    offer: int | None = None  # above 1: how many buyers were dialled, this one included
    scrub: Scrub | None = None

    def as_payload(self) -> Payload:
        payload: Payload = {
            "call_id": self.call_id,
            "sip_call_id": self.sip_call_id,
            "dialer": self.dialer,
            "campaign": self.campaign,
            "buyer": self.buyer,
            "buyer_title": self.buyer_title,
            "lead_emails": list(self.lead_emails),
            "phone": self.phone,
            "lead": self.lead,
            "endpoints": [endpoint.as_payload() for endpoint in self.endpoints],
            "buffer_ms": self.buffer_ms,
            "ring_timeout_ms": self.ring_timeout_ms,
            "terms": self.terms.as_payload(),
            "seed": self.seed,
        }
        if self.key is not None:
            payload["key"] = self.key
        if self.offer is not None:
            payload["offer"] = self.offer
        if self.lead_problems:
            payload["lead_problems"] = list(self.lead_problems)
        if self.refusals:
            payload["refusals"] = [refusal.as_payload() for refusal in self.refusals]
        if self.left_out:
            payload["left_out"] = [left.as_payload() for left in self.left_out]
        if self.scrub is not None:
            payload["scrub"] = self.scrub.as_payload()
        return payload


def transfer_started(fact: Fact) -> TransferStarted:
    return _started(stored(fact))


def stored_start(column: bytes) -> TransferStarted:
    """The payload of a `transfer_started` from its column; empty where it is no JSON."""
    try:
        payload = orjson.loads(column)
    except orjson.JSONDecodeError:
        payload = None
    return _started(payload if isinstance(payload, dict) else NOTHING)


class Parties(NamedTuple):
    """Who has to do with a transfer, and the ids of the prospect's call, as `transfer_started` says."""

    call_id: str | None = None
    sip_call_id: str | None = None
    dialer: str | None = None
    campaign: str | None = None
    buyer: str | None = None
    phone: str | None = None


def parties(started: Fact) -> Parties:
    """These alone of `transfer_started`."""
    payload = stored(started)
    return Parties(
        call_id=text(payload, "call_id"),
        sip_call_id=text(payload, "sip_call_id"),
        dialer=text(payload, "dialer"),
        campaign=text(payload, "campaign"),
        buyer=text(payload, "buyer"),
        phone=text(payload, "phone"),
    )


def buffer_ms(started: Fact) -> int | None:
    """Of `transfer_started`, for who wants no more of it."""
    return whole(stored(started), "buffer_ms")


def with_buffer(started: Fact, buffer_ms: int) -> Fact:
    """The same `transfer_started` with another buffer, for a verdict under other terms."""
    return replace(started, payload={**stored(started), "buffer_ms": buffer_ms})


def endpoints(started: Fact) -> tuple[Endpoint, ...]:
    """The endpoints of `transfer_started` in their order, those that cannot be read included."""
    return _endpoints(stored(started))


def terms(started: Fact) -> Terms:
    """The clauses of `transfer_started`."""
    return _terms(stored(started))


def buyer(started: Fact) -> str | None:
    """Of `transfer_started`, for who only asks whose transfer it is."""
    return text(stored(started), "buyer")


def by_leg(started: Fact) -> dict[int, Endpoint]:
    """The endpoints by the number of their leg, in their order; those without one are left out."""
    return {endpoint.leg: endpoint for endpoint in endpoints(started) if endpoint.leg is not None}


def lead_fields(started: Fact) -> Mapping[str, Any] | None:
    """The lead's fields of `transfer_started`, hostile input."""
    return json_object(stored(started), "lead")


def lead_emails(started: Fact) -> tuple[str, ...]:
    """The addresses that were frozen with the transfer."""
    return tuple([address for address in texts(stored(started), "lead_emails") if address])


def lead_problems(started: Fact) -> tuple[str, ...]:
    """What was wrong with the lead."""
    return texts(stored(started), "lead_problems")


def all_dids(started: Fact) -> bool:
    """Every endpoint is a plain number (domain, section 3, row 4); not so where there is none."""
    listed = objects(stored(started), "endpoints")
    return bool(listed) and all(text(item, "kind") == DID for item in listed)


def all_secure(started: Fact) -> bool:
    """Every endpoint is a secure trunk (domain, section 4); not so where there is none."""
    listed = objects(stored(started), "endpoints")
    return bool(listed) and all(truth(item, "secure") is True for item in listed)


def _endpoints(payload: Mapping[str, Any]) -> tuple[Endpoint, ...]:
    return tuple(
        [
            Endpoint(
                leg=whole(item, "leg"),
                name=text(item, "name"),
                kind=text(item, "kind"),
                transport=text(item, "transport"),
                srtp=text(item, "srtp"),
                secure=truth(item, "secure"),
            )
            for item in objects(payload, "endpoints")
        ]
    )


def _terms(payload: Mapping[str, Any]) -> Terms:
    clauses = json_object(payload, "terms")
    if not clauses:
        return Terms()
    return Terms(
        name=text(clauses, "name"),
        version=whole(clauses, "version"),
        rating=text(clauses, "rating"),
        connected_percent=whole(clauses, "connected_percent"),
        failed_percent=whole(clauses, "failed_percent"),
        talk_connected_ms=whole(clauses, "talk_connected_ms"),
        unreachable=text(clauses, "unreachable"),
        caller_abandon=text(clauses, "caller_abandon"),
        time_zone=text(clauses, "time_zone"),
        currency=text(clauses, "currency"),
        unit_price_minor=whole(clauses, "unit_price_minor"),
        minute_price_minor=whole(clauses, "minute_price_minor"),
        minute_increment_ms=whole(clauses, "minute_increment_ms"),
        minute_minimum_ms=whole(clauses, "minute_minimum_ms"),
    )


def _scrub(payload: Mapping[str, Any]) -> Scrub | None:
    found = json_object(payload, "scrub")
    if found is None:
        return None
    return Scrub(
        reason=text(found, "reason"),
        hit=text(found, "hit"),
        lists=text(found, "lists"),
        sets=texts(found, "sets"),
        number=text(found, "number"),
        took_us=whole(found, "took_us"),
        receipt=text(found, "receipt"),
        exempt=wholes(found, "exempt"),
    )


def _refusals(payload: Mapping[str, Any]) -> tuple[RefusedBuyer, ...]:
    return tuple(
        RefusedBuyer(text(item, "buyer"), text(item, "reason"), text(item, "detail"), _scrub(item))
        for item in objects(payload, "refusals")
    )


def _started(payload: Mapping[str, Any]) -> TransferStarted:
    return TransferStarted(
        call_id=text(payload, "call_id"),
        sip_call_id=text(payload, "sip_call_id"),
        dialer=text(payload, "dialer"),
        campaign=text(payload, "campaign"),
        buyer=text(payload, "buyer"),
        buyer_title=text(payload, "buyer_title"),
        lead_emails=texts(payload, "lead_emails"),
        phone=text(payload, "phone"),
        lead=json_object(payload, "lead"),
        endpoints=_endpoints(payload),
        buffer_ms=whole(payload, "buffer_ms"),
        ring_timeout_ms=whole(payload, "ring_timeout_ms"),
        terms=_terms(payload),
        seed=whole(payload, "seed"),
        lead_problems=texts(payload, "lead_problems"),
        refusals=_refusals(payload),
        left_out=tuple(LeftOut(text(item, "endpoint"), text(item, "why")) for item in objects(payload, "left_out")),
        key=text(payload, "key"),
        offer=whole(payload, "offer"),
        scrub=_scrub(payload),
    )
