"""The HTTP API for recordings, version 1. The operator may have all, a buyer those of its own transfers."""

from __future__ import annotations

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response as Plain

from portal.http.access import BuyerOrOperator, buyer_of
from portal.http.problems import documented
from portal.http.services import service
from portal.http.tokens import Token
from portal.http.values import TransferId
from portal.recordings.service import AUDIO, RecordingsService

_RANGE_WHY = {
    400: "`Range` cannot be read.",
    404: "There is no such transfer, or it is another's, or it has no recording, or that is deleted by now.",
    416: "The recording has no such bytes: `Content-Range` says how many it has.",
}

_log = structlog.get_logger("portal")
routes = APIRouter(prefix="/v1")
_PART = Annotated[int, Query(ge=1, le=1_000, description="Which, where its call was moved and recorded anew.")]
_AUDIO_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The recording.", "content": {AUDIO: {}}},
    206: {"description": "The bytes that were asked for.", "content": {AUDIO: {}, "multipart/byteranges": {}}},
    **documented(401, 403, 422, 503, meanings=_RANGE_WHY),
}


@routes.get(
    "/transfers/{transfer}/recording", summary="Get a recording", response_class=Plain, responses=_AUDIO_ANSWERS
)
async def get_recording(request: Request, token: BuyerOrOperator, transfer: TransferId, part: _PART = 1) -> Plain:
    """Get the recording of a transfer as WAV: the dialer's side left, the buyer's right.

    `Range` is heeded, so a player can jump. `ETag` and `Repr-Digest` (RFC 9530) are of the SHA-256 that stands in the
    journal. For the operator, and for that transfer's buyer.
    """
    return await _recording(request, token, transfer, part)


@routes.head(
    "/transfers/{transfer}/recording", summary="Look at a recording", response_class=Plain, responses=_AUDIO_ANSWERS
)
async def head_recording(request: Request, token: BuyerOrOperator, transfer: TransferId, part: _PART = 1) -> Plain:
    """Say how large the recording of a transfer is, without sending it. For whom it is sent."""
    return await _recording(request, token, transfer, part)


async def _recording(request: Request, token: Token, transfer: str, part: int) -> Plain:
    response = await service(request, RecordingsService).answer(request, transfer, buyer_of(token), part)
    _log.info("recording_asked", transfer=transfer, part=part, method=request.method, by=token.name)
    return response
