"""The HTTP API for the live view, version 1: what is up now, once or as a stream of events.

The operator sees the router whole; a buyer and a dialer the transfers of their own, of which a buyer is told neither
the dialer nor the prospect, and a dialer not the buyer's endpoints. Callers' numbers are masked by the router itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send
from starlette.types import Scope as ASGIScope

from facts.disclosure import NOTHING, Reader, disclosed
from portal.http.access import AnyToken, needed, services
from portal.http.problems import RETRY, ProblemError, documented
from portal.http.stream_limit import Seat
from portal.http.tokens import Scope, Token
from portal.lists.models import Count
from portal.live.service import MAX_SHOWN, LiveView, RouterAwayError

SEND_S = 60.0  # for one event; four times a comment that keeps the connection open

_log = structlog.get_logger("portal")
live_routes = APIRouter(prefix="/v1")
_CALLER_LEG = 0
_NAMES = {Scope.BUYER: "buyer", Scope.DIALER: "dialer"}


class EventStream(StreamingResponse):
    """Server-sent events, as they come. A client that takes nothing for `SEND_S` is left, so that its seat is free."""

    media_type = "text/event-stream"

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """ASGI."""
        stuck = False

        async def bounded(message: Message) -> None:
            nonlocal stuck
            try:
                async with asyncio.timeout(SEND_S):
                    await send(message)
            except TimeoutError:
                stuck = True
                raise

        try:
            await super().__call__(scope, receive, bounded)
        except (ClientDisconnect, TimeoutError):
            if not stuck:
                raise
            _log.warning("stream_stuck", path=scope["path"])


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


@live_routes.get("/live", summary="Show what is up", response_model=LiveShown, responses=documented(401, 403, 404, 503))
async def get_live(request: Request, who: AnyToken) -> LiveShown:
    """Show what is up in the router: each transfer with its phase, its age and its legs. At most a second old.

    For the operator all, for buyers and dialers their own.
    """
    try:
        found = await _view(request).snapshot()
    except RouterAwayError as error:
        raise ProblemError(503, "no router answers", headers=RETRY) from error
    assert found.view is not None
    return LiveShown(**shown_live(who, found.view), at=datetime.fromtimestamp(int(found.at_s), UTC))


async def _seat(request: Request, who: AnyToken) -> AsyncIterator[Seat]:
    """A place for a stream, kept until the answer has ended. Raises ProblemError 404, 429, 503."""
    with _view(request).seats.take(who.name) as seat:
        yield seat


@live_routes.get(
    "/live/events",
    summary="Watch what is up",
    response_class=EventStream,
    responses={
        200: {"description": "The stream, event by event.", "content": {EventStream.media_type: {"schema": _EVENT}}},
        **documented(401, 403, 404, 503, said={429: "Too many requests, or too many streams of this token."}),
    },
)
async def get_live_events(request: Request, who: AnyToken, seat: Annotated[Seat, Depends(_seat)]) -> EventStream:
    """Watch what is up, as server-sent events (`text/event-stream`).

    Event `live` has what `GET /v1/live` shows, less `at`: at the beginning and again whenever it changed, at most once
    a second. That calls grow older is no change. `id` is the time in ms since 1970. Event `away`: no router answers for
    the time being. Comments keep the connection open. A stream ends after an hour, or when the portal stops; then come
    again. For the operator all, for buyers and dialers their own.
    """
    events = _view(request).events(f"{who.scope} {who.of}", partial(shown_live, who), seat)
    return EventStream(events, headers={"X-Accel-Buffering": "no"})  # a proxy is to pass on each at once


def shown_live(who: Token, view: dict[str, Any]) -> dict[str, Any]:
    """The router's view as this token may see it."""
    if who.scope is Scope.OPERATOR:
        return view
    name = _NAMES[who.scope]
    own = [_own(who, one) for one in view["live"] if one[name] == who.of]
    of_operator: dict[str, Any] = {
        "arrivals": None,
        "slots_used": None,
        "slots_max": None,
        "trunks": [],
        "arriving": [],
    }
    return {**view, **of_operator, "router": "", "transfers": len(own), "live": own}


def _own(who: Token, one: dict[str, Any]) -> dict[str, Any]:
    one = disclosed(one, Reader(who.scope), NOTHING)  # nothing is known yet of what it will count as
    if who.scope is Scope.BUYER:
        return {**one, "next": None}
    return {**one, "next": None, "legs": [leg for leg in one["legs"] if leg["leg"] == _CALLER_LEG]}


def _view(request: Request) -> LiveView:
    return needed(services(request).live, "live view")
