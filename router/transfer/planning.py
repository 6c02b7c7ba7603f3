"""From an INVITE and a selection to a `Start`: what is fixed before anything rings, and how each leg is dialled."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from book.limits import Limits
from book.model import Endpoint, EndpointKind, Rating, TrunkPolicy
from facts.answers import ScrubResult
from facts.outcome import OutcomeTerms, Reason
from facts.start_payload import Endpoint as StartedEndpoint
from facts.start_payload import LeftOut, RefusedBuyer, Scrub, Terms, TransferStarted
from router.config import Carrier
from router.lead import Lead
from router.routing.selection import REFUSAL_CODES, BuyerRefusal, Selection
from router.routing.trunks import trunk_target
from router.sip.port import Invite, Target
from router.transfer import model as m
from router.transfer.shell import Start
from router.wav import wav_ms

ANONYMOUS = "anonymous"  # RFC 3323 section 4.1.1.3
MAX_HEADER = 200  # characters of a lead field in a header
CALL_ID_UNREAD = "X-Call-Id: is not one id of 1 to 64 printable ASCII characters without blanks; Baton's own is taken"
_CALL_ID = re.compile(r"[!-~]{1,64}")
MIN_WHISPER_MS = 1  # a whisper whose file cannot be read is over at once

Sign = Callable[[ScrubResult, str], str]  # the receipt of a scrub for a buyer


def plan_of(selection: Selection, terms: OutcomeTerms, *, refusal: str, answered: bool, limits: PlanLimits) -> m.Plan:
    """The machine's plan. Where the transfer is refused nothing is to be dialled."""
    campaign = selection.campaign
    endpoints = () if refusal else selection.endpoints
    return m.Plan(
        legs=len(endpoints),
        buffer_ms=selection.buffer_ms,
        ring_timeout_ms=selection.ring_timeout_ms,
        talk_connected_ms=terms.talk_connected_ms,
        of_legs=tuple(_leg_plan(one) for one in endpoints),
        commit_ms=campaign.commit_ms if campaign else 0,
        early_answer=bool(campaign and campaign.early_answer),
        caller_answered=answered,
        record=bool(campaign and campaign.record),
        rtp_timeout_ms=limits[0],
        fast_answer_ms=limits[1],
    )


PlanLimits = tuple[int, int]  # rtp_timeout_ms, fast_answer_ms


def _leg_plan(endpoint: Endpoint) -> m.LegPlan:
    whisper_ms = max(MIN_WHISPER_MS, wav_ms(endpoint.whisper_file)) if endpoint.whisper_file else 0
    return m.LegPlan(endpoint.ring_timeout_ms, endpoint.accept_key, endpoint.accept_timeout_ms, whisper_ms)


def start_of(
    transfer: str,
    invite: Invite,
    lead: Lead,
    selection: Selection,
    *,
    dialer: str,
    refusal: str,
    limits: Limits | None,
    plan_limits: PlanLimits,
    answered: bool = False,
    key: str = "",
    before: Start | None = None,
    carriers: Mapping[str, Carrier],
    sign: Sign,
) -> Start:
    """Everything about one transfer that is fixed when it begins; `before`: the offer that came to nothing."""
    buyer = selection.buyer
    terms = _terms(selection)
    outcome_terms = OutcomeTerms.of(terms)
    given, unread = own_call_id(invite.headers)
    call_id = before.call_id if before else given or transfer
    offers = before.offers + 1 if before else 1
    started = _started(
        invite,
        lead,
        selection,
        dialer=dialer,
        call_id=call_id,
        problems=(*lead.problems, *filter(None, [unread])),
        terms=terms,
        key=key,
        offers=offers,
        sign=sign,
    )
    offered = before.offered if before else frozenset[str]()
    return Start(
        transfer=transfer,
        invite=invite,
        plan=plan_of(selection, outcome_terms, refusal=refusal, answered=answered, limits=plan_limits),
        endpoints=selection.endpoints,
        buyer=buyer.name if buyer else "",
        phone=lead.phone,
        payload=started.as_payload(),
        scrub=started.scrub,
        terms=outcome_terms,
        refusal=refusal,
        refusal_code=REFUSAL_CODES.get(refusal, REFUSAL_CODES[Reason.FAULT]),
        campaign=selection.campaign,
        call_id=call_id,
        offered=offered | {buyer.name} if buyer else offered,
        offers=offers,
        dialer=dialer,
        limits=limits,
        lead=lead,
        key=key,
        carriers=_dialled(selection, carriers),
    )


def _dialled(selection: Selection, carriers: Mapping[str, Carrier]) -> dict[str, Carrier]:
    """The carriers through which endpoints of the selection are reached."""
    names = {endpoint.carrier for endpoint in selection.endpoints}
    return {name: carrier for name, carrier in carriers.items() if name in names}


def _started(
    invite: Invite,
    lead: Lead,
    selection: Selection,
    *,
    dialer: str,
    call_id: str,
    problems: tuple[str, ...],
    terms: Terms,
    key: str,
    offers: int,
    sign: Sign,
) -> TransferStarted:
    """What is written down before anything rings."""
    buyer, scrub = selection.buyer, selection.scrub
    name = buyer.name if buyer else ""
    return TransferStarted(
        call_id=call_id,
        sip_call_id=invite.sip_call_id,
        dialer=dialer,
        campaign=invite.user[:64],
        buyer=name,
        buyer_title=buyer.title if buyer else "",
        lead_emails=buyer.lead_emails if buyer else (),
        phone=lead.phone,
        lead=lead.fields,
        endpoints=tuple(_endpoint(n, endpoint) for n, endpoint in enumerate(selection.endpoints, start=1)),
        buffer_ms=selection.buffer_ms,
        ring_timeout_ms=selection.ring_timeout_ms,
        terms=terms,
        seed=selection.seed,
        lead_problems=problems,
        refusals=tuple(_refusal(refusal, sign) for refusal in selection.refusals),
        left_out=tuple(LeftOut(endpoint, why) for endpoint, why in selection.left_out),
        key=key or None,
        offer=offers if offers > 1 else None,
        scrub=_scrub(scrub, name, sign) if scrub is not None else None,
    )


def target_of(start: Start, endpoint: Endpoint, spoken: str) -> Target:
    """How to dial an endpoint: a trunk by its URI, a DID through its carrier. `spoken`: the caller's codec, if any."""
    if endpoint.kind is EndpointKind.DID:
        carrier = start.carriers[endpoint.carrier].target
        way = replace(carrier, uri=carrier.uri.replace("{number}", endpoint.uri))
    else:
        way = trunk_target(endpoint)
    number = start.phone or start.invite.caller
    policy = way.policy
    return replace(
        way,
        caller=policy.caller_id or number,
        headers=_headers(start, policy, number),
        codecs=policy.codecs or _first_of(spoken, start.invite.codecs),
    )


def _first_of(spoken: str, offered: tuple[str, ...]) -> tuple[str, ...]:
    """The dialer's codecs in its order, the one that it already speaks first: one codec on both legs costs nothing."""
    if not spoken:
        return offered
    return (spoken, *(one for one in offered if one != spoken))


def _headers(start: Start, policy: TrunkPolicy, number: str) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    if policy.transfer_header:
        found.append((policy.transfer_header, start.transfer))
    if policy.asserted_identity and number:
        found.append(
            ("P-Asserted-Identity", f"<tel:{number}>" if number.startswith("+") else f"<sip:{number}@invalid>")
        )
    if policy.caller_id == ANONYMOUS:
        found.append(("Privacy", "id"))  # RFC 3323 section 4.2, RFC 3325 section 9.3
    fields = start.lead.fields if start.lead is not None else {}
    for name in policy.lead_headers:
        value = fields.get(name.lower().replace("-", "_"), "")
        if value:
            header = "-".join(word.capitalize() for word in name.replace("_", "-").split("-"))
            found.append((f"X-Lead-{header}", value[:MAX_HEADER]))
    return tuple(found)


def own_call_id(headers: Mapping[str, list[str]]) -> tuple[str, str]:
    """The dialer's id of the prospect's call, exactly as it is; or nothing, and why it cannot be taken."""
    given = {one.strip() for one in headers.get("x-call-id", ())} - {""}
    if not given:
        return "", ""
    if len(given) == 1 and _CALL_ID.fullmatch(found := given.pop()):
        return found, ""
    return "", CALL_ID_UNREAD


def _terms(selection: Selection) -> Terms:
    if selection.buyer is None:
        return Terms()
    terms = selection.buyer.terms
    by_minute = terms.rating is Rating.MINUTE
    return Terms(
        name=terms.name,
        version=terms.version,
        rating=terms.rating.value,
        connected_percent=terms.connected_percent,
        failed_percent=terms.failed_percent,
        talk_connected_ms=terms.talk_connected_ms,
        unreachable=terms.unreachable,
        caller_abandon=terms.caller_abandon,
        time_zone=terms.time_zone,
        currency=terms.currency,
        unit_price_minor=terms.unit_price_minor,
        minute_price_minor=terms.minute_price_minor if by_minute else None,
        minute_increment_ms=terms.minute_increment_ms if by_minute else None,
        minute_minimum_ms=terms.minute_minimum_ms if by_minute else None,
    )


def _endpoint(number: int, endpoint: Endpoint) -> StartedEndpoint:
    kind, transport, srtp = endpoint.kind.value, endpoint.transport.value, endpoint.srtp.value
    return StartedEndpoint(
        leg=number, name=endpoint.name, kind=kind, transport=transport, srtp=srtp, secure=endpoint.secure
    )


def _refusal(refusal: BuyerRefusal, sign: Sign) -> RefusedBuyer:
    scrub = _scrub(refusal.scrub, refusal.buyer, sign) if refusal.scrub is not None else None
    return RefusedBuyer(refusal.buyer, str(refusal.reason), refusal.detail, scrub)


def _scrub(scrub: ScrubResult, buyer: str, sign: Sign) -> Scrub:
    return Scrub(
        reason=scrub.reason,
        hit=scrub.hit,
        lists=scrub.lists,
        sets=tuple(scrub.sets),
        number=scrub.number,
        took_us=scrub.took_us,
        receipt=sign(scrub, buyer),
        exempt=tuple(scrub.exempt),
    )
