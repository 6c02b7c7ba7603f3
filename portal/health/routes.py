"""The HTTP API for the portal's own health, version 1. It needs no token."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from portal.health.service import HealthService
from portal.http.problems import RETRY, ProblemError, documented
from portal.http.services import service

routes = APIRouter(prefix="/v1")


class Health(BaseModel):
    """The API is up and its store answers."""

    status: str = Field(default="ok", description="Always `ok`.")


@routes.get(
    "/health", summary="Health", response_model=Health, response_description="Both are so.", responses=documented(503)
)
async def get_health(request: Request) -> Health:
    """Is the API up, and does its store answer? Needs no token."""
    if not await service(request, HealthService).is_healthy():
        raise ProblemError(503, "the store does not answer", headers=RETRY)
    return Health()
