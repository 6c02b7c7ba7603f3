"""The HTTP API for the live view, version 1: what is up now, once or as a stream of events.

The operator sees the router whole; a buyer and a dialer the transfers of their own, of which a buyer is told neither
the dialer nor the prospect, and a dialer not the buyer's endpoints. Callers' numbers are masked by the router itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from facts.disclosure import NOTHING, Reader, disclosed
from portal.http.access import AnyToken
from portal.http.event_stream import EventStream
from portal.http.problems import RETRY, ProblemError, RouterAwayError, documented
from portal.http.services import service
from portal.http.stream_limit import OpenStream
from portal.http.tokens import Scope, Token
from portal.http.values import Count
from portal.live.service import MAX_SHOWN, LiveService

routes = APIRouter(prefix="/v1")
_CALLER_LEG = 0
_NAMES = {Scope.BUYER: "buyer", Scope.DIALER: "dialer"}


_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["live", "away"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string"},
        "retry": {"type": "integer"},
    },
}


class LiveLeg(BaseModel):
    """One leg of a transfer. Not told to dialers but for their own."""

    leg: int = Field(description="0: the dialer's own.")
    endpoint: str
    phase: str
    phase_ms: Count = Field(description="How long it has been in its phase; null: it has not begun.")


class LiveDeadline(BaseModel):
    """The timer that rings next."""

    timer: str
    leg: int = Field(description="0: it is the transfer's own.")
    in_ms: int


class LiveTransfer(BaseModel):
    """A transfer that is up."""

    transfer: str
    call_id: str = Field(description="Not told to buyers.")
    dialer: str = Field(description="Not told to buyers.")
    campaign: str
    buyer: str
    caller: str = Field(description="The prospect's number, masked. Not told to buyers.")
    phase: str
    age_ms: int
    dialout_ms: Count = Field(description="Since dial-out; null: before it.")
    legs: list[LiveLeg]
    next: LiveDeadline | None = Field(description="For the operator.")


class LiveArrival(BaseModel):
    """A call that is not a transfer yet."""

    campaign: str
    caller: str
    stage: str = Field(description="`lead`: it is looked up; `greeting`: it is played.")
    age_ms: int


class LiveTrunk(BaseModel):
    """A trunk that is probed."""

    name: str
    health: str
    streak: int = Field(description="Good answers in a row; below 0: bad ones.")
    took_ms: float | None = Field(description="Its last good answer.", json_schema_extra={"type": ["number", "null"]})


class LiveShown(BaseModel):
    """What is up. What is the operator's alone is empty or null for others."""

    at: datetime
    router: str
    draining: bool
    transfers: int = Field(description="How many are up that this token may see.")
    arrivals: Count
    slots_used: Count
    slots_max: Count
    trunks: list[LiveTrunk]
    live: list[LiveTransfer] = Field(description=f"The oldest first, of the {MAX_SHOWN:,} oldest in all.")
    arriving: list[LiveArrival]


@routes.get("/live", summary="Show what is up", response_model=LiveShown, responses=documented(401, 403, 404, 503))
async def get_live(request: Request, token: AnyToken) -> LiveShown:
    """Show what is up in the router: each transfer with its phase, its age and its legs. At most a second old.

    For the operator all, for buyers and dialers their own.
    """
    try:
        look = await _service(request).snapshot()
    except RouterAwayError as error:
        raise ProblemError(503, "no router answers", headers=RETRY) from error
    assert look.view is not None
    return LiveShown(**shown_live(token, look.view), at=datetime.fromtimestamp(int(look.at_s), UTC))


async def _open_stream(request: Request, token: AnyToken) -> AsyncIterator[OpenStream]:
    """A stream, counted until the answer has ended. Raises ProblemError 404, 429, 503."""
    with _service(request).streams.open(token.name) as stream:
        yield stream


@routes.get(
    "/live/events",
    summary="Watch what is up",
    response_class=EventStream,
    responses={
        200: {"description": "The stream, event by event.", "content": {EventStream.media_type: {"schema": _EVENT}}},
        **documented(401, 403, 404, 503, meanings={429: "Too many requests, or too many streams of this token."}),
    },
)
async def get_live_events(
    request: Request, token: AnyToken, stream: Annotated[OpenStream, Depends(_open_stream)]
) -> EventStream:
    """Watch what is up, as server-sent events (`text/event-stream`).

    Event `live` has what `GET /v1/live` shows, less `at`: at the beginning and again whenever it changed, at most once
    a second. That calls grow older is no change. `id` is the time in ms since 1970. Event `away`: no router answers for
    the time being. Comments keep the connection open. A stream ends after an hour, or when the portal stops; then come
    again. For the operator all, for buyers and dialers their own.
    """
    events = _service(request).events(f"{token.scope} {token.of}", partial(shown_live, token), stream)
    return EventStream(events, headers={"X-Accel-Buffering": "no"})  # a proxy is to pass on each at once


def shown_live(token: Token, view: dict[str, Any]) -> dict[str, Any]:
    """The router's view as this token may see it."""
    if token.scope is Scope.OPERATOR:
        return view
    name = _NAMES[token.scope]
    own = [_own(token, transfer) for transfer in view["live"] if transfer[name] == token.of]
    of_operator: dict[str, Any] = {
        "arrivals": None,
        "slots_used": None,
        "slots_max": None,
        "trunks": [],
        "arriving": [],
    }
    return {**view, **of_operator, "router": "", "transfers": len(own), "live": own}


def _own(token: Token, transfer: dict[str, Any]) -> dict[str, Any]:
    transfer = disclosed(transfer, Reader(token.scope), NOTHING)  # nothing is known yet of what it will count as
    if token.scope is Scope.BUYER:
        return {**transfer, "next": None}
    return {**transfer, "next": None, "legs": [leg for leg in transfer["legs"] if leg["leg"] == _CALLER_LEG]}


def _service(request: Request) -> LiveService:
    return service(request, LiveService)
