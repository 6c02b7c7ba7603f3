"""The HTTP API for buyers and their endpoints, version 1: shown, created, changed, paused and resumed.

What is put is checked and imported as a book file is, so what is wrong is told field by field, all at once, and routers
have what is right within their next look. The operator may do everything; a buyer sees itself, pauses and resumes
itself and switches its own endpoints. Another buyer is to it as if it were not there. No answer has a password.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Request, Response

from book.model import BuyerState
from meter.book.plan import ImportRefusedError
from meter.book.sql.book import UnknownBuyerError
from meter.book.sql.editing import (
    BookProblemsError,
    BuyerRecord,
    ChangeResult,
    StaleError,
    StateRefusedError,
    UnknownEndpointError,
)
from portal.buyers.models import (
    Buyers,
    BuyerSaved,
    BuyerShown,
    EndpointName,
    Endpoints,
    EndpointSaved,
    EndpointShown,
    StateChange,
    StateShown,
    buyer_line,
    endpoint_of,
    given_buyer,
    given_endpoint,
    shown_buyer,
    shown_endpoint,
)
from portal.buyers.service import BuyersService, Expected
from portal.http.access import BuyerOrOperator, OperatorToken
from portal.http.bodies import read_model, read_object
from portal.http.paging import Cursor, Limit, page, read_cursor
from portal.http.problems import ProblemError, documented
from portal.http.services import service
from portal.http.tokens import Scope, Token
from portal.http.values import BuyerName

_LIST = "buyers"
_NOT_YOURS = "there is no such buyer, or it is not this token's"
_PUT = (400, 401, 403, 404, 408, 409, 412, 413, 415, 422, 503)
_PUT_WHY = {409: "What is in the store stands against it, such as terms that are not in force yet."}
_STATE_WHY = {409: "A buyer cannot end a hold or a cancellation, nor a pause while an invoice is due and not paid."}
IfMatch = Annotated[
    str,
    Header(
        alias="If-Match",
        max_length=1_000,
        description="Only where its `ETag` is still this one; `*`: only if it is there.",
    ),
]

_log = structlog.get_logger("portal")
routes = APIRouter(prefix="/v1")


@routes.get("/buyers", summary="Show buyers", response_model=Buyers, responses=documented(401, 403, 422, 503))
async def get_buyers(request: Request, token: BuyerOrOperator, cursor: Cursor = "", limit: Limit = 100) -> Buyers:
    """Show buyers in short, by name. For the operator all, for a buyer itself."""
    buyers = _service(request)
    if token.scope is Scope.BUYER:
        return Buyers(buyers=[buyer_line(await _find(request, token, token.of))], next=None)
    after = read_cursor(_LIST, cursor, str)
    start = after[0] if after is not None else ""
    rows, following = await page(lambda most: buyers.find_all(start, most), limit, _LIST, lambda row: (row.buyer.name,))
    return Buyers(buyers=[buyer_line(row) for row in rows], next=following)


@routes.get(
    "/buyers/{buyer}", summary="Show a buyer", response_model=BuyerShown, responses=documented(401, 403, 404, 422, 503)
)
async def get_buyer(request: Request, response: Response, token: BuyerOrOperator, buyer: BuyerName) -> Any:
    """Show a buyer with all fields of the book and its endpoints. `ETag` names this state of it.

    For the operator, and for a buyer itself.
    """
    kept = await _find(request, token, buyer)
    response.headers["ETag"] = f'"{kept.etag}"'
    return shown_buyer(kept, token)


@routes.put(
    "/buyers/{buyer}",
    summary="Create or replace a buyer",
    response_model=BuyerSaved,
    responses={
        201: {"model": BuyerSaved, "description": "It is new."},
        **documented(*(code for code in _PUT if code != 404), meanings=_PUT_WHY),  # noqa: PLR2004
    },
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/BuyerPut"}},
)
async def put_buyer(
    request: Request, response: Response, token: OperatorToken, buyer: BuyerName, if_match: IfMatch = ""
) -> Any:
    """Create a buyer, or replace it with all its endpoints. Body: a `BuyerPut`, the fields of `[[buyers]]`.

    Its state is set for a new buyer alone; after that, pause and resume it. What `GET` shows may be sent back. For the
    operator.
    """
    raw = given_buyer(await read_object(request), buyer)
    _same_name(raw["name"], buyer)
    done = await _edit(lambda: _service(request).put(buyer, raw, _expected(if_match)))
    response.status_code = 201 if done.created else 200
    response.headers["ETag"] = f'"{done.kept.etag}"'
    _log.info("buyer_put", buyer=buyer, by=token.name, new=done.created, changed=done.changed)
    return {**_saved(done), "buyer": shown_buyer(done.kept, token)}


@routes.post(
    "/buyers/{buyer}/pause",
    summary="Pause a buyer",
    response_model=StateShown,
    responses=documented(400, 401, 403, 404, 408, 413, 415, 422, 503, meanings=_STATE_WHY),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/StateChangeOrNone"}},
)
async def post_pause(request: Request, token: BuyerOrOperator, buyer: BuyerName) -> StateShown:
    """Give a buyer no transfers until it is resumed; it holds from the next transfer on.

    Body: a `StateChange`, or none. For the operator, and for a buyer itself.
    """
    return await _set_state(request, token, buyer, BuyerState.PAUSED)


@routes.post(
    "/buyers/{buyer}/resume",
    summary="Resume a buyer",
    response_model=StateShown,
    responses=documented(400, 401, 403, 404, 408, 413, 415, 422, 503, meanings=_STATE_WHY),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/StateChangeOrNone"}},
)
async def post_resume(request: Request, token: BuyerOrOperator, buyer: BuyerName) -> StateShown:
    """Give a buyer transfers again. Body: a `StateChange`, or none.

    The operator ends any reason set by hand; a buyer only its pause, never a hold. An unpaid invoice is ended by its
    payment alone: `stops` says what still stands.
    """
    return await _set_state(request, token, buyer, BuyerState.ACTIVE)


@routes.get(
    "/buyers/{buyer}/endpoints",
    summary="Show endpoints",
    response_model=Endpoints,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_endpoints(request: Request, token: BuyerOrOperator, buyer: BuyerName) -> Any:
    """Show a buyer's endpoints. For the operator, and for a buyer its own."""
    kept = await _find(request, token, buyer)
    return {"endpoints": [shown_endpoint(endpoint, token) for endpoint in kept.buyer.endpoints]}


@routes.get(
    "/buyers/{buyer}/endpoints/{endpoint}",
    summary="Show an endpoint",
    response_model=EndpointShown,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_endpoint(
    request: Request, response: Response, token: BuyerOrOperator, buyer: BuyerName, endpoint: EndpointName
) -> Any:
    """Show one endpoint. `ETag` is the buyer's. For the operator, and for a buyer its own."""
    kept = await _find(request, token, buyer)
    response.headers["ETag"] = f'"{kept.etag}"'
    return _endpoint(kept, token, endpoint)


@routes.put(
    "/buyers/{buyer}/endpoints/{endpoint}",
    summary="Create or replace an endpoint",
    response_model=EndpointSaved,
    responses=documented(*_PUT, meanings=_PUT_WHY),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/EndpointPut"}},
)
async def put_endpoint(
    request: Request, token: OperatorToken, buyer: BuyerName, endpoint: EndpointName, if_match: IfMatch = ""
) -> Any:
    """Create an endpoint, or replace it. Body: an `EndpointPut`, the fields of `[[buyers.endpoints]]`.

    A field that is wrong is named as it stands in the buyer, such as `endpoints[1].uri`. For the operator.
    """
    raw = given_endpoint(await read_object(request), endpoint)
    _same_name(raw["name"], endpoint)
    buyers = _service(request)
    done = await _edit(lambda: buyers.put_endpoint(buyer, endpoint, raw, _expected(if_match)))
    _log.info("endpoint_put", buyer=buyer, endpoint=endpoint, by=token.name, changed=done.changed)
    return {**_saved(done), "endpoint": _endpoint(done.kept, token, endpoint)}


@routes.delete(
    "/buyers/{buyer}/endpoints/{endpoint}",
    summary="Take an endpoint away",
    status_code=204,
    responses={204: {"description": "It is gone."}, **documented(401, 403, 404, 409, 412, 422, 503)},
)
async def delete_endpoint(
    request: Request, token: OperatorToken, buyer: BuyerName, endpoint: EndpointName, if_match: IfMatch = ""
) -> Response:
    """Take an endpoint away; calls that are up go on. For the operator."""
    buyers = _service(request)
    await _edit(lambda: buyers.put_endpoint(buyer, endpoint, None, _expected(if_match)))
    _log.info("endpoint_deleted", buyer=buyer, endpoint=endpoint, by=token.name)
    return Response(status_code=204)


@routes.post(
    "/buyers/{buyer}/endpoints/{endpoint}/enable",
    summary="Switch an endpoint on",
    response_model=EndpointSaved,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def post_enable(request: Request, token: BuyerOrOperator, buyer: BuyerName, endpoint: EndpointName) -> Any:
    """Let an endpoint ring again, from the next transfer on. For the operator, and for a buyer its own."""
    return await _switch(request, token, buyer, endpoint, enabled=True)


@routes.post(
    "/buyers/{buyer}/endpoints/{endpoint}/disable",
    summary="Switch an endpoint off",
    response_model=EndpointSaved,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def post_disable(request: Request, token: BuyerOrOperator, buyer: BuyerName, endpoint: EndpointName) -> Any:
    """Keep an endpoint and ring it no more, from the next transfer on. For the operator, and for a buyer its own."""
    return await _switch(request, token, buyer, endpoint, enabled=False)


def _service(request: Request) -> BuyersService:
    return service(request, BuyersService)


async def _find(request: Request, token: Token, buyer: str) -> BuyerRecord:
    """A buyer that this token may see. Raises ProblemError 404."""
    _own(token, buyer)
    try:
        return await _service(request).find(buyer)
    except UnknownBuyerError as error:
        raise ProblemError(404, _NOT_YOURS) from error


def _own(token: Token, buyer: str) -> None:
    if token.scope is Scope.BUYER and buyer != token.of:
        raise ProblemError(404, _NOT_YOURS)


def _endpoint(kept: BuyerRecord, token: Token, name: str) -> dict[str, Any]:
    endpoint = endpoint_of(kept.buyer, name)
    if endpoint is None:
        raise ProblemError(404, f"there is no endpoint {name!r}")
    return shown_endpoint(endpoint, token)


def _saved(done: ChangeResult) -> dict[str, Any]:
    return {"changed": done.changed, "book_version": done.version, "warnings": list(done.warnings)}


def _same_name(given: Any, name: str) -> None:
    if given != name:
        raise ProblemError(422, "the name is that of the path", errors=[("name", f"is not {name}, as the path says")])


def _expected(if_match: str) -> Expected | None:
    """RFC 9110 section 13.1.1; compared strongly, so a weak tag fits nothing."""
    if not if_match:
        return None
    tags = {tag.strip() for tag in if_match.split(",")}
    return lambda etag: bool(etag) and ("*" in tags or f'"{etag}"' in tags)


async def _edit(work: Callable[[], Awaitable[ChangeResult]]) -> ChangeResult:
    """Do a change of the book, and answer its refusals as problems. Raises ProblemError 404, 409, 412, 422."""
    try:
        return await work()
    except BookProblemsError as error:
        raise ProblemError(422, "the buyer cannot be so; nothing was changed", errors=error.problems) from error
    except StaleError as error:
        raise ProblemError(
            412, "it was changed since; nothing was changed now", errors=[("If-Match", "is of before")]
        ) from error
    except ImportRefusedError as error:
        raise ProblemError(409, "; ".join(error.conflicts)) from error
    except (UnknownBuyerError, UnknownEndpointError) as error:
        raise ProblemError(404, str(error)) from error


async def _switch(request: Request, token: Token, buyer: str, endpoint: str, *, enabled: bool) -> dict[str, Any]:
    _own(token, buyer)
    done = await _edit(lambda: _service(request).switch(buyer, endpoint, enabled=enabled))
    _log.info("endpoint_switched", buyer=buyer, endpoint=endpoint, enabled=enabled, by=token.name)
    return {**_saved(done), "endpoint": _endpoint(done.kept, token, endpoint)}


async def _set_state(request: Request, token: Token, buyer: str, state: BuyerState) -> StateShown:
    _own(token, buyer)
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    body = await read_model(request, StateChange) if has_body else StateChange(reason="")
    own = token.scope is Scope.BUYER
    try:
        made = await _service(request).set_state(buyer, state, token.name, body.reason, own=own)
    except StateRefusedError as error:
        raise ProblemError(409, str(error)) from error
    except UnknownBuyerError as error:
        raise ProblemError(404, _NOT_YOURS) from error
    _log.info("buyer_state_set", buyer=buyer, before=made.before.value, state=made.after.value, by=token.name)
    at = datetime.now(UTC).replace(microsecond=0)
    return StateShown(buyer=buyer, before=made.before, state=made.after, stops=list(made.stops), at=at)
