"""The HTTP API for credits, version 1: asking, looking, deciding in the order of the line, re-reviews.

A buyer asks for its own calls and sees its own requests; another's is to it as if it were not there. The operator asks
on behalf of whoever was billed, and decides. Nothing expedites: deciding any but the oldest open request is refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Response
from fastapi import Request as HttpRequest

from meter.book.sql.book import UnknownBuyerError
from meter.credits.rules import CreditError, CreditRefusal
from meter.credits.sql.reading import CreditFilter, Request
from meter.credits.sql.requests import CreditApplication, Decision
from portal.credits.models import (
    COLUMNS,
    CreditAsk,
    CreditDecision,
    CreditQuery,
    CreditReReview,
    Credits,
    CreditShown,
    Reasons,
    RequestId,
    shown_credit,
    shown_reasons,
)
from portal.credits.service import CreditsService
from portal.http.access import BuyerOrOperator, OperatorToken, buyer_of, client, own_buyer
from portal.http.bodies import read_model
from portal.http.paging import page, read_cursor
from portal.http.problems import ProblemError, documented
from portal.http.services import service
from portal.http.tables import ANSWER, csv_answer, wants_csv
from portal.http.tokens import Scope, Token

_LIST = "credits"
_STATUS = {  # all others: 422, the field is wrong
    CreditRefusal.UNKNOWN_REQUEST: 404,
    CreditRefusal.ALREADY_OPEN: 409,
    CreditRefusal.ALREADY_CREDITED: 409,
    CreditRefusal.DECLINED: 409,
    CreditRefusal.NOT_OPEN: 409,
    CreditRefusal.NOT_FIRST: 409,
    CreditRefusal.NOT_DECIDED: 409,
    CreditRefusal.REVIEWED_TWICE: 409,
}
_ASK_WHY = {
    409: "There was a request for this call before.",
    422: "The call was not billed to this buyer, its days are over, the words are missing, or the reason is not one: of"
    " a valid call `errors` has the explanation. Nothing was filed.",
}
_DECIDE_WHY = {409: "It is not the oldest that is open, or was decided before."}
_AGAIN_WHY = {409: "It is not decided yet, or was re-reviewed before."}

_log = structlog.get_logger("portal")
routes = APIRouter(prefix="/v1")


@routes.post(
    "/credits",
    summary="Ask for a credit",
    status_code=201,
    response_model=CreditShown,
    responses={
        201: {"description": "It is in line."},
        **documented(400, 401, 403, 408, 413, 415, 503, meanings=_ASK_WHY),
    },
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/CreditAsk"}},
)
async def post_credit(request: HttpRequest, response: Response, token: BuyerOrOperator) -> CreditShown:
    """Ask for a credit for one billed call, until the end of the fourth day after its day. Body: a `CreditAsk`.

    For buyers on their own calls, and for the operator on behalf of the buyer that was billed.
    """
    body = await read_model(request, CreditAsk)
    asked = CreditApplication(body.words, token.name, f"api:{client(request)}", body.reason)
    buyer = buyer_of(token)
    try:
        made = await service(request, CreditsService).ask(body.transfer, buyer, asked)
    except CreditError as error:
        raise problem(error) from error
    except UnknownBuyerError as error:
        raise ProblemError(422, str(error)) from error
    response.headers["Location"] = f"/v1/credits/{made.id}"
    _log.info("credit_asked", request=made.id, buyer=made.buyer, transfer=made.transfer, by=token.name)
    return shown_credit(made, token)


@routes.get(
    "/credits",
    summary="Show requests for credits",
    response_model=Credits,
    responses={200: ANSWER, **documented(401, 403, 422, 503)},
)
async def get_credits(request: HttpRequest, token: BuyerOrOperator, query: Annotated[CreditQuery, Query()]) -> Any:
    """Show requests with their place in line, as JSON page by page, or all as CSV where `Accept` names `text/csv`.

    For the operator all, for a buyer its own.
    """
    buyer = own_buyer(token, query.buyer, "this token sees its own buyer's requests")
    wanted = CreditFilter(buyer=buyer, state=query.state, transfer=query.transfer, call_id=query.call_id)
    credits_ = service(request, CreditsService)

    async def fetch(beyond: tuple[Any, ...] | None, limit: int) -> list[Request]:
        return await credits_.find_all(replace(wanted, beyond=None if beyond is None else beyond[0], limit=limit))

    def cells(row: Request) -> list[Any]:
        shown = shown_credit(row, token)
        return [getattr(shown, name) for name in COLUMNS]

    start = read_cursor(_LIST, query.cursor, int)
    if wants_csv(request):
        return await csv_answer(_LIST, COLUMNS, fetch, key_of=lambda row: (row.id,), cells=cells, start=start)
    rows, following = await page(lambda limit: fetch(start, limit), query.limit, _LIST, lambda row: (row.id,))
    return Credits(credits=[shown_credit(row, token) for row in rows], next=following)


@routes.get(
    "/credits/{id}",
    summary="Show one request",
    response_model=CreditShown,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_credit(request: HttpRequest, token: BuyerOrOperator, id: RequestId) -> CreditShown:  # noqa: A002
    """Show one request with its place in line. For the operator, and for buyers on their own."""
    return shown_credit(await _find(request, token, id), token)


@routes.post(
    "/credits/{id}/decision",
    summary="Decide a request",
    response_model=CreditShown,
    responses=documented(400, 401, 403, 404, 408, 413, 415, 422, 503, meanings=_DECIDE_WHY),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/CreditDecision"}},
)
async def post_decision(request: HttpRequest, token: OperatorToken, id: RequestId) -> CreditShown:  # noqa: A002
    """Decide the oldest open request, with an explanation that is e-mailed to the buyer. Body: a `CreditDecision`.

    An approved one is credited at once, and the next Tuesday's invoice uses it. For the operator.
    """
    body = await read_model(request, CreditDecision)
    decision = Decision(body.decision == "approve", body.explanation, body.reviewer)
    try:
        made = await service(request, CreditsService).decide(id, decision)
    except CreditError as error:
        raise problem(error) from error
    _log.info("credit_decided", request=made.id, buyer=made.buyer, state=made.state.value, by=token.name)
    return shown_credit(made, token)


@routes.post(
    "/credits/{id}/re-review",
    summary="Have a decision reviewed again",
    status_code=201,
    response_model=CreditShown,
    responses={
        201: {"description": "It is in line once more, under an id of its own."},
        **documented(400, 401, 403, 404, 408, 413, 415, 422, 503, meanings=_AGAIN_WHY),
    },
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/CreditReReview"}},
)
async def post_re_review(
    request: HttpRequest,
    response: Response,
    token: OperatorToken,
    id: RequestId,  # noqa: A002
) -> CreditShown:
    """Put a decided request into the line once more, for another reviewer. Body: a `CreditReReview`.

    Find it by `GET /v1/credits?transfer=` or `?call_id=`. For the operator.
    """
    body = await read_model(request, CreditReReview)
    try:
        made = await service(request, CreditsService).re_review(
            id, CreditApplication(body.words, token.name, f"api:{client(request)}")
        )
    except CreditError as error:
        raise problem(error) from error
    response.headers["Location"] = f"/v1/credits/{made.id}"
    _log.info("credit_re_review", request=made.id, of=made.first, buyer=made.buyer, by=token.name)
    return shown_credit(made, token)


@routes.get(
    "/credit-reasons",
    summary="Show the reasons for a credit",
    response_model=Reasons,
    responses=documented(401, 403, 422, 503),
)
async def get_reasons(
    request: HttpRequest,
    token: BuyerOrOperator,
    buyer: Annotated[str, Query(max_length=64, description="Whose; the operator's default where none is named.")] = "",
) -> Reasons:
    """Show the reasons of a buyer's business category, those included that are explained as valid calls.

    For the operator, and for buyers their own.
    """
    credits_ = service(request, CreditsService)
    buyer = own_buyer(token, buyer, "this token sees its own buyer's reasons")
    if not buyer:
        return shown_reasons("", credits_.reasons.of(""))
    try:
        return shown_reasons(*await credits_.reasons_of(buyer))
    except UnknownBuyerError as error:
        raise ProblemError(422, str(error), errors=[("buyer", "is not there")]) from error


async def _find(request: HttpRequest, token: Token, wanted: int) -> Request:
    """A request that this token may see. Raises ProblemError 404."""
    try:
        credit = await service(request, CreditsService).find(wanted)
    except CreditError as error:
        raise problem(error) from error
    if token.scope is Scope.BUYER and credit.buyer != token.of:
        raise problem(CreditError(CreditRefusal.UNKNOWN_REQUEST, id=wanted))
    return credit


def problem(error: CreditError) -> ProblemError:
    """The refusal as a problem, which names the field that is wrong."""
    status = _STATUS.get(error.refusal, 422)
    is_field = error.refusal is not CreditRefusal.UNKNOWN_REQUEST
    return ProblemError(status, str(error), errors=[(error.field, error.detail)] if is_field else [])
