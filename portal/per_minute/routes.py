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
from meter.per_minute.interactions import InteractionError, InteractionRefusal, RatingKind
from meter.per_minute.sql.interactions import Interaction, InteractionFilter
from meter.per_minute.sql.reports import UnknownReportError
from portal.http.access import OWN_ALONE, BuyerOrOperator, OperatorToken, buyer_of, own_buyer
from portal.http.bodies import read_model
from portal.http.paging import page, read_cursor
from portal.http.problems import ProblemError, documented
from portal.http.services import service
from portal.http.tables import ANSWER, csv_answer, wants_csv
from portal.http.tokens import Token
from portal.http.values import microseconds
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
from portal.per_minute.service import PerMinuteService

_STATUS = {
    InteractionRefusal.UNKNOWN: 404,
    InteractionRefusal.CONFLICT: 409,
    InteractionRefusal.FIELD: 422,
    InteractionRefusal.FULL: 409,
}
_ADD_WHY = {
    409: "The reference was reported before, with other content. Nothing was changed.",
    422: "A field is missing or wrong, or the buyer did not pay by the minute then: `errors` names it.",
}
_LIST = "interactions"

_log = structlog.get_logger("portal")
routes = APIRouter(prefix="/v1")


@routes.post(
    "/interactions",
    summary="Report an e-mail or a chat",
    status_code=201,
    response_model=InteractionShown,
    responses={
        201: {"description": "It is kept and charged."},
        200: {"description": "It was reported before, with the same content.", "model": InteractionShown},
        **documented(400, 401, 403, 408, 413, 415, 503, meanings=_ADD_WHY),
    },
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/InteractionReport"}},
)
async def post_interaction(request: Request, response: Response, token: OperatorToken) -> InteractionShown:
    """Report an e-mail or a chat once it was served. Body: an `InteractionReport`.

    It is charged like talk, per started increment from `started_at` to `ended_at`, at the price in force as it began.
    For the operator.
    """
    body = await read_model(request, InteractionReport)
    try:
        made, is_new = await service(request, PerMinuteService).add(body.model_dump())
    except InteractionError as error:
        raise problem(error) from error
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/interactions/{made.id}"
    what = "interaction_kept" if is_new else "interaction_repeated"
    _log.info(what, interaction=made.id, buyer=made.buyer, by=token.name)
    return shown_interaction(made, token)


@routes.get(
    "/interactions",
    summary="Show interactions",
    response_model=Interactions,
    responses={200: ANSWER, **documented(401, 403, 422, 503)},
)
async def get_interactions(
    request: Request, token: BuyerOrOperator, query: Annotated[InteractionQuery, Query()]
) -> Any:
    """Show calls, e-mails and chats, the newest first, as JSON page by page, or all as CSV by `Accept: text/csv`.

    For a buyer its own, for the operator any's.
    """
    buyer = own_buyer(token, query.buyer, OWN_ALONE)
    if not buyer:
        raise ProblemError(422, "buyer: whose interactions?", errors=[("buyer", "is missing")])
    kind = Channel(query.kind) if query.kind else None
    wanted = InteractionFilter(
        buyer=buyer, kind=kind, from_us=microseconds(query.since), to_us=microseconds(query.until)
    )
    per_minute = service(request, PerMinuteService)

    async def fetch(before: tuple[Any, ...] | None, limit: int) -> list[Interaction]:
        last = None if before is None else (before[0], before[1])
        return await per_minute.find_all(replace(wanted, before=last, limit=limit))

    def cells(interaction: Interaction) -> list[Any]:
        shown = shown_interaction(interaction, token)
        return [getattr(shown, name) for name in COLUMNS]

    start = read_cursor(_LIST, query.cursor, int, str)
    if wants_csv(request):
        return await csv_answer(_LIST, COLUMNS, fetch, key_of=_key, cells=cells, start=start)
    rows, following = await page(lambda limit: fetch(start, limit), query.limit, _LIST, _key)
    return Interactions(interactions=[shown_interaction(interaction, token) for interaction in rows], next=following)


@routes.get(
    "/interactions/{id}",
    summary="Show one interaction",
    response_model=InteractionDetail,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_interaction(
    request: Request,
    token: BuyerOrOperator,
    id: InteractionId,  # noqa: A002
) -> InteractionDetail:
    """Show one interaction with its text, its ratings and the name of its recording. For a buyer its own."""
    return shown_detail(await _find(request, token, id), token)


@routes.post(
    "/interactions/{id}/ratings",
    summary="Rate an interaction",
    status_code=201,
    response_model=InteractionDetail,
    responses={201: {"description": "It is filed."}, **documented(400, 401, 403, 404, 408, 413, 415, 422, 503)},
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/RatingReport"}},
)
async def post_rating(
    request: Request,
    token: OperatorToken,
    id: InteractionId,  # noqa: A002
) -> InteractionDetail:
    """File quality control's rating; the last one holds. Body: a `RatingReport`. For the operator.

    Of a call it also weighs in the share of calls of the endpoint that answered, with strategy `rated`.
    """
    body = await read_model(request, RatingReport)
    try:
        made = await service(request, PerMinuteService).rate(id, RatingKind.QUALITY, (body.rating, body.words, body.by))
    except InteractionError as error:
        raise problem(error) from error
    _log.info("rated", interaction=made.id, buyer=made.buyer, rating=body.rating, by=token.name)
    return shown_detail(made, token)


@routes.get(
    "/reports",
    summary="Show daily reports",
    response_model=Reports,
    responses=documented(401, 403, 422, 503),
)
async def get_reports(request: Request, token: BuyerOrOperator, query: Annotated[ReportQuery, Query()]) -> Reports:
    """Show the daily reports in short, the newest first. For a buyer its own, for the operator all."""
    buyer, per_minute = own_buyer(token, query.buyer, OWN_ALONE), service(request, PerMinuteService)
    last = read_cursor("reports", query.cursor, str, str)
    after = None if last is None else (last[0], last[1])
    rows, following = await page(
        lambda limit: per_minute.reports(buyer, limit, query.before, after),
        query.limit,
        "reports",
        lambda report: (report.day, report.buyer),
    )
    return Reports(reports=[report_line(report) for report in rows], next=following)


@routes.get(
    "/reports/{day}",
    summary="Show one daily report",
    response_model=ReportShown,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_report(
    request: Request,
    token: BuyerOrOperator,
    day: ReportDay,
    buyer: Annotated[str, Query(max_length=64, description="Whose; for the operator, who has to say it.")] = "",
) -> ReportShown:
    """Show everything that one report says, as it was issued. For a buyer its own, for the operator any's."""
    try:
        return shown_report(await service(request, PerMinuteService).report(own_buyer(token, buyer, OWN_ALONE), day))
    except UnknownReportError as error:
        raise ProblemError(404, "there is no such report") from error


def problem(error: InteractionError) -> ProblemError:
    """A refusal as a problem, with the field where it is one."""
    is_field = error.refusal is not InteractionRefusal.UNKNOWN
    return ProblemError(_STATUS[error.refusal], str(error), errors=[(error.field, error.detail)] if is_field else [])


async def _find(request: Request, token: Token, wanted: str) -> Interaction:
    """An interaction that this token may see. Raises ProblemError 404."""
    try:
        return await service(request, PerMinuteService).find(wanted, buyer_of(token))
    except InteractionError as error:
        raise problem(error) from error


def _key(interaction: Interaction) -> tuple[int, str]:
    return interaction.received_utc_us, interaction.id
