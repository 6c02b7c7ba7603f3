"""The HTTP API for availability, version 1: would a buyer of a campaign take a call now?"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from portal.availability.service import AvailabilityService
from portal.http.access import DialerOrOperator
from portal.http.problems import RETRY, ProblemError, RouterAwayError, documented
from portal.http.services import service, services

routes = APIRouter(prefix="/v1")


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


@routes.get(
    "/availability",
    summary="Ask who would take a call",
    response_model=Availability,
    responses=documented(401, 403, 422, 503),
)
async def get_availability(
    request: Request,
    token: DialerOrOperator,
    campaign: Annotated[str, Query(min_length=1, max_length=64, description="Name of the campaign.")],
) -> Any:
    """Would a buyer of the campaign take a call now? Asked of the running router, not of the store.

    For dialers, of the campaigns that they may call, and the operator.
    """
    if not services(request).tokens.may_call(token, campaign):
        raise ProblemError(403, "this dialer may not call the campaign")
    try:
        return await service(request, AvailabilityService).of(campaign)
    except RouterAwayError as error:
        raise ProblemError(503, "no router answers", headers=RETRY) from error
