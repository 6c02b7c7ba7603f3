"""The HTTP API for events, version 1: what happens to transfers, fetched page by page or watched as it comes.

Each event has the payload and the id that it has over MQTT. A position stands after an event: who goes on from it gets
every later one exactly once, those of one transfer in their order, whatever broke off in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import AwareDatetime, BaseModel, Field
from starlette.responses import Response

from meter.events.model import EventKind
from meter.events.sql.feed import Position, TooManyBootsError, UnknownPositionError
from portal.events.service import MAX_POSITION, EventsService, View, read_position, write_position
from portal.http.access import AnyToken
from portal.http.event_stream import EventStream
from portal.http.paging import MAX_PAGE
from portal.http.problems import RETRY, ProblemError, documented
from portal.http.services import service
from portal.http.stream_limit import OpenStream
from portal.http.tables import prefers
from portal.http.values import microseconds

_MOST_KINDS = 16  # named in a query, repeats included
_LAST = "Last-Event-ID"
routes = APIRouter(prefix="/v1")

_PAYLOAD = {
    "type": "object",
    "description": "As over MQTT, see `docs/mqtt`; `dialed` has what all of them have and no more.",
    "required": ["schema", "id", "event", "transfer", "router", "call_id", "dialer", "campaign", "buyer", "phone"],
    "properties": {
        "schema": {"type": "integer"},
        "id": {"type": "string", "description": "Stable: by it a repeat is recognised."},
        "event": {"type": "string", "enum": [kind.value for kind in EventKind]},
        **{name: {"type": "string"} for name in ("transfer", "call_id", "campaign", "buyer")},
        "router": {"type": "string", "description": "The operator's alone."},
        "dialer": {"type": "string", "description": "Not told to buyers."},
        "phone": {"type": "string", "description": "E.164; to a buyer only where the person is its own."},
    },
}
_STREAMED = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": [kind.value for kind in EventKind]},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": _PAYLOAD},
        "id": {"type": "string", "description": "The position after it."},
        "retry": {"type": "integer"},
    },
}


class EventPage(BaseModel):
    """Events, and where to go on."""

    events: list[Annotated[dict[str, Any], Field(json_schema_extra=_PAYLOAD)]]
    next: str = Field(description="`cursor` of the next page. There is always one, for a feed has no end.")
    more: bool = Field(description="True: ask again at once, also where `events` is empty; false: that is all for now.")


class EventQuery(BaseModel):
    """From where, and which."""

    cursor: str = Field(
        "", max_length=MAX_POSITION, description="`next` of the page before, or the `id` of an event of a stream."
    )
    since: AwareDatetime | None = Field(
        None,
        alias="from",
        description="Without a cursor: what happened then or later, such as `2026-06-02T10:00:00-04:00`; without"
        " either, what happens from now on.",
    )
    limit: int = Field(100, ge=1, le=MAX_PAGE, description="How many on a page at most, 100 by default.")
    kinds: list[EventKind] = Field([], max_length=_MOST_KINDS, description="Only these; may be repeated.")


def _service(request: Request) -> EventsService:
    return service(request, EventsService)


async def _open_stream(request: Request, token: AnyToken) -> AsyncIterator[OpenStream | None]:
    """A stream, where one is asked for, counted until the answer has ended. Raises ProblemError 404, 429, 503."""
    if not prefers(request, EventStream.media_type):
        yield None
        return
    with _service(request).streams.open(token.name) as stream:
        yield stream


@routes.get(
    "/events",
    summary="Follow events",
    response_model=EventPage,
    responses={
        200: {"description": "A page, or the stream.", "content": {EventStream.media_type: {"schema": _STREAMED}}},
        **documented(401, 403, 404, 422, 503, meanings={429: "Too many requests, or too many streams of this token."}),
    },
)
async def get_events(
    request: Request,
    token: AnyToken,
    stream: Annotated[OpenStream | None, Depends(_open_stream)],
    query: Annotated[EventQuery, Query()],
    last_event_id: Annotated[
        str,
        Header(
            alias=_LAST, max_length=MAX_POSITION, description="As `cursor`; a browser sends it when it comes again."
        ),
    ] = "",
) -> Any:
    """Follow what happens to transfers: `started`, `dialed`, `ringing`, `answered`, `outcome`.

    Each has the payload and the id that it has over MQTT. With `Accept: text/event-stream` they come as they happen, as
    server-sent events: `event` is the kind, `data` the payload, `id` a position. After a break, go on with
    `Last-Event-ID` or `cursor`: every later event comes exactly once, those of a transfer in their order, an outcome
    once it is settled. A position holds for ever. A stream ends after an hour, or when the portal stops; an event
    without data tells a new position. Otherwise a page as JSON, which may be empty though there is more.

    The operator sees all, a buyer and a dialer their own transfers. What a token is not told is empty or 0: to buyers
    dialer and `sip_call_id`, and but of an outcome that counts `phone` and `call_id`, by the minute but from the answer
    on; to dialers endpoints, buffer and terms.
    """
    events = _service(request)
    view = View(token, frozenset(query.kinds))
    try:
        start = await _start(events, query, last_event_id)
        if stream is not None:
            await events.check(start)
            return _streamed(events, start, view, stream)
        page = await events.page(start, query.limit, view)
    except UnknownPositionError as error:
        field = _LAST if last_event_id else "cursor"
        raise ProblemError(422, "the position is none of ours", errors=[(field, "is none of ours")]) from error
    except TooManyBootsError as error:
        raise ProblemError(503, str(error), headers=RETRY) from error
    return EventPage(events=page.events, next=write_position(page.position), more=page.more)


async def _start(events: EventsService, query: EventQuery, last_event_id: str) -> Position:
    """The position that a request goes on from. Raises ProblemError 422, TooManyBootsError."""
    position = read_position(last_event_id, _LAST) if last_event_id else read_position(query.cursor, "cursor")
    return position if position is not None else await events.begin(microseconds(query.since))


def _streamed(events: EventsService, start: Position, view: View, stream: OpenStream) -> Response:
    headers = {"X-Accel-Buffering": "no"}  # a proxy is to pass on each at once
    return EventStream(events.events(start, view, stream), headers=headers)
