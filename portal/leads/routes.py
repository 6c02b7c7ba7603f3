"""The HTTP API for dialing systems, version 1: leads posted before their call, availability, health.

Every answer is JSON, every error a problem (RFC 9457). All but health and the description need a token. The routes for
suppression lists are in `portal.lists.routes` and `portal.lists.lookups`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field

from meter.journal.sql.leads import LeadConflictError
from portal.http.access import DialerOrOperator, services
from portal.http.problems import RETRY, ProblemError, documented
from portal.http.signature import ID, SignedOrToken
from portal.leads.service import MAX_BODY, read_document
from portal.live.service import RouterAwayError
from router.lead import MAX_FIELDS, MAX_VALUE

MAX_KEY = 200  # characters of an Idempotency-Key

_log = structlog.get_logger("portal")


class LeadKept(BaseModel):
    """A lead that waits for its call."""

    lead_id: str = Field(description="To be sent as `X-Lead-Id` with the INVITE.")
    expires_at: datetime = Field(description="From then on the lead is not known any more; UTC.")


class RefusalShown(BaseModel):
    """Why a buyer would not take a call."""

    buyer: str
    reason: str = Field(description="One of the reasons of `X-Baton-Reason`, such as `closed`.")
    detail: str = Field(description="The same for people.")


class Availability(BaseModel):
    """Would a buyer of the campaign take a call now?"""

    available: bool
    reason: str = Field(description="Why not; empty where one would.")
    refusals: list[RefusalShown] = Field(description="Of the buyers that were looked at.")


class Health(BaseModel):
    """The API is up and its store answers."""

    status: str = Field(default="ok", description="Always `ok`.")


_LEAD_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["phone"],
                "maxProperties": MAX_FIELDS,
                "properties": {
                    "phone": {
                        "type": "string",
                        "maxLength": MAX_VALUE,
                        "description": "The prospect's number, in any usual spelling.",
                    }
                },
                "additionalProperties": {"type": ["string", "number", "boolean", "null"], "maxLength": MAX_VALUE},
            },
            "example": {"phone": "+12125550123", "first_name": "Ann", "state": "NY"},
        }
    },
}

_LEAD_WHY = {
    409: "The key was used for another lead.",
    413: f"The body has more than {MAX_BODY} bytes.",
}

api = APIRouter(prefix="/v1")


@api.post(
    "/leads",
    summary="Post a lead",
    status_code=201,
    response_model=LeadKept,
    responses={
        200: {"model": LeadKept, "description": "The lead is there already, under the same key."},
        201: {"description": "The lead is kept."},
        **documented(400, 401, 403, 408, 413, 415, 422, 503, said=_LEAD_WHY),
    },
    openapi_extra={"requestBody": _LEAD_BODY},
)
async def post_lead(
    request: Request,
    response: Response,
    said: SignedOrToken,
    idempotency_key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            description=f"1 to {MAX_KEY} printable characters; the same key keeps the lead once.",
        ),
    ] = "",
) -> LeadKept:
    """Keep a lead until its call comes, with `X-Lead-Id` in the INVITE. For dialers.

    In the place of a token it may be signed as Standard Webhooks has it: `webhook-id`, `webhook-timestamp`,
    `webhook-signature` (HMAC-SHA256 of id, time and body), and `X-Baton-Key` with the name of the key. The id is then
    the key of idempotency, unless one is given.
    """
    who, key = said.who, idempotency_key or said.message_id
    header = "Idempotency-Key" if idempotency_key else ID
    if len(key) > MAX_KEY or not key.isprintable():
        wrong = (header, f"is not 1 to {MAX_KEY} printable characters")
        raise ProblemError(400, "a header cannot be used", errors=[wrong])
    document = read_document(said.body)
    held = services(request)
    try:
        lead, new = await held.leads.put(document, who.of, ttl_s=held.lead_ttl_s, key=key)
    except LeadConflictError as error:
        wrong = (header, "was used for another lead")
        raise ProblemError(409, "the key was used for another lead", errors=[wrong]) from error
    if not new:
        response.status_code = 200
    _log.info("lead_kept" if new else "lead_repeated", by=who.name, dialer=who.of, signed=bool(said.message_id))
    return LeadKept(lead_id=lead.lead_id, expires_at=datetime.fromtimestamp(lead.expires_utc_us // 1_000_000, UTC))


@api.get(
    "/availability",
    summary="Ask who would take a call",
    response_model=Availability,
    responses=documented(401, 403, 422, 503),
)
async def get_availability(
    request: Request,
    who: DialerOrOperator,
    campaign: Annotated[str, Query(min_length=1, max_length=64, description="Name of the campaign.")],
) -> Any:
    """Would a buyer of the campaign take a call now? Asked of the running router, not of the store.

    For dialers, of the campaigns that they may call, and the operator.
    """
    if not services(request).tokens.may_call(who, campaign):
        raise ProblemError(403, "this dialer may not call the campaign")
    try:
        return await services(request).availability(campaign)
    except RouterAwayError as error:
        raise ProblemError(503, "no router answers", headers=RETRY) from error


@api.get(
    "/health", summary="Health", response_model=Health, response_description="Both are so.", responses=documented(503)
)
async def get_health(request: Request) -> Health:
    """Is the API up, and does its store answer? Needs no token."""
    if not await services(request).healthy():
        raise ProblemError(503, "the store does not answer", headers=RETRY)
    return Health()
