"""The HTTP API for dialing systems, version 1: leads posted before their call, availability, health.

Every answer is JSON, every error a problem (RFC 9457). All but health and the description need a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

from meter.store.leads import LeadConflictError, LeadStore
from portal.leads import MAX_BODY, read_document
from portal.problems import MEDIA_TYPE, RETRY, ProblemError
from portal.tokens import Token, find
from router.lead import MAX_FIELDS, MAX_VALUE

MAX_KEY = 200  # characters of an Idempotency-Key
BODY_S = 10.0  # for a body to arrive

_log = structlog.get_logger("portal")


class RouterAwayError(Exception):
    """No router answers."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the API stands on. `availability` asks the router, raising RouterAwayError; `healthy` asks the store."""

    tokens: tuple[Token, ...]
    leads: LeadStore
    lead_ttl_s: int
    availability: Callable[[str], Awaitable[dict[str, Any]]]
    healthy: Callable[[], Awaitable[bool]]


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


_scheme = HTTPBearer(auto_error=False, scheme_name="token", description="A token of `[[portal.tokens]]`.")


def services(request: Request) -> Services:
    """What the app was made with."""
    found: Services = request.app.state.services
    return found


def token(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]) -> Token:
    """Whose request it is. Raises ProblemError 401."""
    found = find(services(request).tokens, credentials.credentials) if credentials is not None else None
    if found is None:
        _log.warning("unauthorized", path=request.url.path, source=request.client.host if request.client else "")
        detail = "the token is not known" if credentials is not None else "Authorization: Bearer TOKEN is required"
        raise ProblemError(401, detail, headers={"WWW-Authenticate": "Bearer"})
    return found


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _WHY[status], "content": content} for status in statuses}


_WHY = {
    400: "The body is no JSON, or a header cannot be used.",
    401: "No token, or one that is not known.",
    408: f"The body did not come within {BODY_S:g} s.",
    409: "The key was used for another lead.",
    413: f"The body has more than {MAX_BODY} bytes.",
    415: "The body is not declared as `application/json`.",
    422: "A field is missing or wrong: `errors` names it.",
    503: "The router or the store does not answer: try again after `Retry-After` seconds.",
}
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

api = APIRouter(prefix="/v1")


@api.post(
    "/leads",
    summary="Post a lead",
    status_code=201,
    response_model=LeadKept,
    responses={
        200: {"model": LeadKept, "description": "The lead is there already, under the same key."},
        201: {"description": "The lead is kept."},
        **_problems(400, 401, 408, 409, 413, 415, 422, 503),
    },
    openapi_extra={"requestBody": _LEAD_BODY},
)
async def post_lead(
    request: Request,
    response: Response,
    who: Annotated[Token, Depends(token)],
    idempotency_key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            description=f"1 to {MAX_KEY} printable characters; the same key keeps the lead once.",
        ),
    ] = "",
) -> LeadKept:
    """Keep a lead until its call comes, with `X-Lead-Id` in the INVITE."""
    if len(idempotency_key) > MAX_KEY or not idempotency_key.isprintable():
        wrong = ("Idempotency-Key", f"is not 1 to {MAX_KEY} printable characters")
        raise ProblemError(400, "a header cannot be used", errors=[wrong])
    document = read_document(await _body(request))
    held = services(request)
    try:
        lead, new = await held.leads.put(document, who.dialer, ttl_s=held.lead_ttl_s, key=idempotency_key)
    except LeadConflictError as error:
        wrong = ("Idempotency-Key", "was used for another lead")
        raise ProblemError(409, "the key was used for another lead", errors=[wrong]) from error
    if not new:
        response.status_code = 200
    _log.info("lead_kept" if new else "lead_repeated", by=who.name, dialer=who.dialer)
    return LeadKept(lead_id=lead.lead_id, expires_at=datetime.fromtimestamp(lead.expires_utc_us // 1_000_000, UTC))


@api.get(
    "/availability",
    summary="Ask who would take a call",
    response_model=Availability,
    responses=_problems(401, 422, 503),
)
async def get_availability(
    request: Request,
    _who: Annotated[Token, Depends(token)],
    campaign: Annotated[str, Query(min_length=1, max_length=64, description="Name of the campaign.")],
) -> Any:
    """Would a buyer of the campaign take a call now? Asked of the running router, not of the store."""
    try:
        return await services(request).availability(campaign)
    except RouterAwayError as error:
        raise ProblemError(503, "no router answers", headers=RETRY) from error


@api.get(
    "/health", summary="Health", response_model=Health, response_description="Both are so.", responses=_problems(503)
)
async def get_health(request: Request) -> Health:
    """Is the API up, and does its store answer? Needs no token."""
    if not await services(request).healthy():
        raise ProblemError(503, "the store does not answer", headers=RETRY)
    return Health()


async def _body(request: Request) -> bytes:
    """The body, within bounds of size and time. Raises ProblemError 408, 413, 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ProblemError(415, "the body is to be application/json", errors=[("Content-Type", "is another")])
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY:
                    raise ProblemError(413, f"the body has more than {MAX_BODY} bytes")
                parts.append(part)
    except TimeoutError as error:
        raise ProblemError(408, f"the body did not come within {BODY_S:g} s") from error
    return b"".join(parts)
