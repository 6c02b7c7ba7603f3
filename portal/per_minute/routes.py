"""The HTTP API for per-minute service, version 1: interactions, their ratings, and daily reports.

The operator reports e-mails and chats, and rates; a buyer sees its own. Another's interaction or report is to a buyer
as if it were not there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, Response

from book.model import Channel
from meter.per_minute.interactions import InteractionError, RatingKind, Refusal
from meter.per_minute.sql.interactions import Interaction, Wanted
from meter.per_minute.sql.reports import UnknownReportError
from portal.http.access import BuyerOrOperator, OperatorToken, own_buyer, services
from portal.http.bodies import read_model
from portal.http.paging import page, read_cursor
from portal.http.problems import ProblemError, documented
from portal.http.tables import ANSWER, csv_answer, wants_csv
from portal.http.tokens import Scope, Token
from portal.per_minute.models import (
    COLUMNS,
    InteractionDetail,
    InteractionId,
    InteractionQuery,
    InteractionReport,
    Interactions,
    InteractionShown,
    RatingReport,
    ReportDay,
    ReportQuery,
    Reports,
    ReportShown,
    report_line,
    shown_detail,
    shown_interaction,
    shown_report,
)
from portal.per_minute.service import ServiceOffice
from portal.transfers.models import microseconds

_STATUS = {Refusal.UNKNOWN: 404, Refusal.CONFLICT: 409, Refusal.FIELD: 422, Refusal.FULL: 409}
_ADD_WHY = {
    409: "The reference was reported before, with other content. Nothing was changed.",
    422: "A field is missing or wrong, or the buyer did not pay by the minute then: `errors` names it.",
}
_LIST = "interactions"
_OWN = "this token sees its own buyer's alone"

_log = structlog.get_logger("portal")
service = APIRouter(prefix="/v1")


def office_of(request: Request) -> ServiceOffice:
    """Raises ProblemError 404 where the app was made without one."""
    found = services(request).service
    if found is None:
        raise ProblemError(404, "there is no per-minute service here")
    return found


@service.post(
    "/interactions",
    summary="Report an e-mail or a chat",
    status_code=201,
    response_model=InteractionShown,
    responses={
        201: {"description": "It is kept and charged."},
        200: {"description": "It was reported before, with the same content.", "model": InteractionShown},
        **documented(400, 401, 403, 408, 413, 415, 503, said=_ADD_WHY),
    },
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/InteractionReport"}},
)
async def post_interaction(request: Request, response: Response, who: OperatorToken) -> InteractionShown:
    """Report an e-mail or a chat once it was served. Body: an `InteractionReport`.

    It is charged like talk, per started increment from `started_at` to `ended_at`, at the price in force as it began.
    For the operator.
    """
    said = await read_model(request, InteractionReport)
    try:
        made, is_new = await office_of(request).add(said.model_dump())
    except InteractionError as error:
        raise problem(error) from error
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/interactions/{made.id}"
    what = "interaction_kept" if is_new else "interaction_repeated"
    _log.info(what, interaction=made.id, buyer=made.buyer, by=who.name)
    return shown_interaction(made, who)


@service.get(
    "/interactions",
    summary="Show interactions",
    response_model=Interactions,
    responses={200: ANSWER, **documented(401, 403, 422, 503)},
)
async def get_interactions(request: Request, who: BuyerOrOperator, said: Annotated[InteractionQuery, Query()]) -> Any:
    """Show calls, e-mails and chats, the newest first, as JSON page by page, or all as CSV by `Accept: text/csv`.

    For a buyer its own, for the operator any's.
    """
    buyer = own_buyer(who, said.buyer, _OWN)
    if not buyer:
        raise ProblemError(422, "buyer: whose interactions?", errors=[("buyer", "is missing")])
    kind = Channel(said.kind) if said.kind else None
    wanted = Wanted(buyer=buyer, kind=kind, from_us=microseconds(said.since), to_us=microseconds(said.until))
    office = office_of(request)

    async def fetch(before: tuple[Any, ...] | None, limit: int) -> list[Interaction]:
        last = None if before is None else (before[0], before[1])
        return await office.find_all(replace(wanted, before=last, limit=limit))

    def cells(one: Interaction) -> list[Any]:
        shown = shown_interaction(one, who)
        return [getattr(shown, name) for name in COLUMNS]

    start = read_cursor(_LIST, said.cursor, int, str)
    if wants_csv(request):
        return await csv_answer(_LIST, COLUMNS, fetch, key_of=_key, cells=cells, start=start)
    found, following = await page(lambda limit: fetch(start, limit), said.limit, _LIST, _key)
    return Interactions(interactions=[shown_interaction(one, who) for one in found], next=following)


@service.get(
    "/interactions/{id}",
    summary="Show one interaction",
    response_model=InteractionDetail,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_interaction(request: Request, who: BuyerOrOperator, id: InteractionId) -> InteractionDetail:  # noqa: A002
    """Show one interaction with its text, its ratings and the name of its recording. For a buyer its own."""
    return shown_detail(await _find(request, who, id), who)


@service.post(
    "/interactions/{id}/ratings",
    summary="Rate an interaction",
    status_code=201,
    response_model=InteractionDetail,
    responses={201: {"description": "It is filed."}, **documented(400, 401, 403, 404, 408, 413, 415, 422, 503)},
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/RatingReport"}},
)
async def post_rating(request: Request, who: OperatorToken, id: InteractionId) -> InteractionDetail:  # noqa: A002
    """File quality control's rating; the last one holds. Body: a `RatingReport`. For the operator.

    Of a call it also weighs in the share of calls of the endpoint that answered, with strategy `rated`.
    """
    said = await read_model(request, RatingReport)
    try:
        made = await office_of(request).rate(id, RatingKind.QUALITY, (said.rating, said.words, said.by))
    except InteractionError as error:
        raise problem(error) from error
    _log.info("rated", interaction=made.id, buyer=made.buyer, rating=said.rating, by=who.name)
    return shown_detail(made, who)


@service.get(
    "/reports",
    summary="Show daily reports",
    response_model=Reports,
    responses=documented(401, 403, 422, 503),
)
async def get_reports(request: Request, who: BuyerOrOperator, said: Annotated[ReportQuery, Query()]) -> Reports:
    """Show the daily reports in short, the newest first. For a buyer its own, for the operator all."""
    buyer, office = own_buyer(who, said.buyer, _OWN), office_of(request)
    last = read_cursor("reports", said.cursor, str, str)
    after = None if last is None else (last[0], last[1])
    found, following = await page(
        lambda limit: office.reports(buyer, limit, said.before, after),
        said.limit,
        "reports",
        lambda one: (one.day, one.buyer),
    )
    return Reports(reports=[report_line(one) for one in found], next=following)


@service.get(
    "/reports/{day}",
    summary="Show one daily report",
    response_model=ReportShown,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_report(
    request: Request,
    who: BuyerOrOperator,
    day: ReportDay,
    buyer: Annotated[str, Query(max_length=64, description="Whose; for the operator, who has to say it.")] = "",
) -> ReportShown:
    """Show everything that one report says, as it was issued. For a buyer its own, for the operator any's."""
    try:
        return shown_report(await office_of(request).report(own_buyer(who, buyer, _OWN), day))
    except UnknownReportError as error:
        raise ProblemError(404, "there is no such report") from error


def problem(error: InteractionError) -> ProblemError:
    """A refusal as a problem, with the field where it is one."""
    is_field = error.refusal is not Refusal.UNKNOWN
    return ProblemError(_STATUS[error.refusal], str(error), errors=[(error.field, error.detail)] if is_field else [])


async def _find(request: Request, who: Token, wanted: str) -> Interaction:
    """An interaction that this token may see. Raises ProblemError 404."""
    try:
        return await office_of(request).find(wanted, who.of if who.scope is Scope.BUYER else "")
    except InteractionError as error:
        raise problem(error) from error


def _key(one: Interaction) -> tuple[int, str]:
    return one.received_utc_us, one.id
