"""The HTTP API for leads, version 1: a dialing system posts a lead before its call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field

from meter.journal.sql.leads import LeadConflictError
from portal.http.bodies import MAX_BODY
from portal.http.problems import ProblemError, documented
from portal.http.services import service
from portal.http.signature import ID, SignedOrToken
from portal.leads.document import read_document
from portal.leads.service import LeadsService
from router.lead import MAX_FIELDS, MAX_VALUE

MAX_KEY = 200  # characters of an Idempotency-Key

_log = structlog.get_logger("portal")


class LeadKept(BaseModel):
    """A lead that waits for its call."""

    lead_id: str = Field(description="To be sent as `X-Lead-Id` with the INVITE.")
    expires_at: datetime = Field(description="From then on the lead is not known any more; UTC.")


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

routes = APIRouter(prefix="/v1")


@routes.post(
    "/leads",
    summary="Post a lead",
    status_code=201,
    response_model=LeadKept,
    responses={
        200: {"model": LeadKept, "description": "The lead is there already, under the same key."},
        201: {"description": "The lead is kept."},
        **documented(400, 401, 403, 408, 413, 415, 422, 503, meanings=_LEAD_WHY),
    },
    openapi_extra={"requestBody": _LEAD_BODY},
)
async def post_lead(
    request: Request,
    response: Response,
    posted: SignedOrToken,
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
    token, key = posted.token, idempotency_key or posted.message_id
    header = "Idempotency-Key" if idempotency_key else ID
    if len(key) > MAX_KEY or not key.isprintable():
        wrong = (header, f"is not 1 to {MAX_KEY} printable characters")
        raise ProblemError(400, "a header cannot be used", errors=[wrong])
    document = read_document(posted.body)
    try:
        lead, new = await service(request, LeadsService).keep(document, token.of, key)
    except LeadConflictError as error:
        wrong = (header, "was used for another lead")
        raise ProblemError(409, "the key was used for another lead", errors=[wrong]) from error
    if not new:
        response.status_code = 200
    _log.info("lead_kept" if new else "lead_repeated", by=token.name, dialer=token.of, signed=bool(posted.message_id))
    return LeadKept(lead_id=lead.lead_id, expires_at=datetime.fromtimestamp(lead.expires_utc_us // 1_000_000, UTC))
