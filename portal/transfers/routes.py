"""The HTTP API for transfers, version 1: those that are settled, page by page, or one as its ladder.

The operator sees all, a buyer and a dialer their own; another's are to them as if they were not there.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from book.numbers import NumberError, normalise, to_e164
from meter.settling.sql.transfers import SettledTransfer, TransferFilter, UnknownTransferError
from portal.http.access import AnyToken, BuyerOrOperator, buyer_of
from portal.http.paging import page, read_cursor
from portal.http.problems import ProblemError, documented
from portal.http.services import service
from portal.http.tables import ANSWER, csv_answer, wants_csv
from portal.http.tokens import Scope, Token
from portal.http.values import TransferId, microseconds
from portal.transfers.models import COLUMNS, TransferQuery, Transfers, cells, shown_transfer
from portal.transfers.service import TransfersService

_LIST = "transfers"

routes = APIRouter(prefix="/v1")


class LadderShown(BaseModel):
    """The account of one transfer; times in ms from dial-out."""

    transfer: str
    started_utc_us: int
    dialout_utc_us: int | None
    settled: bool
    outcome: dict[str, Any]
    explanation: str
    legs: list[dict[str, Any]] = Field(
        description="Each endpoint's leg: sent, first 18x, 2xx, end, code, who ended it."
    )
    clock: list[dict[str, Any]] = Field(description="The same as one list in the order of time.")


@routes.get(
    "/transfers",
    summary="Show settled transfers",
    response_model=Transfers,
    responses={200: ANSWER, **documented(401, 403, 422, 503)},
)
async def get_transfers(request: Request, token: AnyToken, query: Annotated[TransferQuery, Query()]) -> Any:
    """Show settled transfers in the order in which they were settled, as JSON page by page, or all as CSV.

    Walking the cursors finds each that ended in the time asked for exactly once, also while others are settled. For the
    operator all, for buyers and dialers their own. CSV where `Accept` names `text/csv`.
    """
    wanted, transfers = _wanted(query, token), service(request, TransfersService)

    async def fetch(after: str | None, limit: int) -> list[SettledTransfer]:
        try:
            return await transfers.settled(wanted, after or "", limit)
        except UnknownTransferError as error:
            raise ProblemError(422, "the cursor is none of ours", errors=[("cursor", "is none of ours")]) from error

    cursor = read_cursor(_LIST, query.cursor, str)
    start = None if cursor is None else cursor[0]
    if wants_csv(request):
        return await csv_answer(
            _LIST,
            COLUMNS,
            fetch,
            key_of=lambda transfer: transfer.transfer,
            cells=lambda transfer: cells(shown_transfer(transfer, token)),
            start=start,
        )
    rows, following = await page(
        lambda limit: fetch(start, limit), query.limit, _LIST, lambda transfer: (transfer.transfer,)
    )
    return Transfers(transfers=[shown_transfer(transfer, token) for transfer in rows], next=following)


@routes.get(
    "/transfers/{transfer}",
    summary="Show the ladder of a transfer",
    response_model=LadderShown,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_transfer(request: Request, token: BuyerOrOperator, transfer: TransferId) -> LadderShown:
    """Show each leg of a transfer with its times from dial-out, and why it came to what it came to."""
    ladder = await service(request, TransfersService).ladder(transfer, buyer_of(token))
    if ladder is None:
        raise ProblemError(404, "there is no such transfer, or it is another's")
    return LadderShown(**ladder.as_dict())


def _wanted(query: TransferQuery, token: Token) -> TransferFilter:
    """Which transfers the query asks for, as far as the token may. Raises ProblemError 403, 422."""
    own = {"buyer": query.buyer, "dialer": query.dialer}
    if token.scope is not Scope.OPERATOR:
        name = token.scope.value
        if own[name] not in ("", token.of):
            raise ProblemError(403, f"this token sees its own {name}'s transfers", errors=[(name, "is another")])
        own[name] = token.of
    if token.scope is Scope.BUYER and own["dialer"]:
        raise ProblemError(403, "dialers are the operator's matter", errors=[("dialer", "is not yours to ask")])
    phone = _phone(query.phone)
    return TransferFilter(
        buyer=own["buyer"],
        dialer=own["dialer"],
        campaign=query.campaign,
        verdict=str(query.verdict),
        reason=str(query.reason),
        counts_as=str(query.counts_as),
        phone=phone,
        call_id=query.call_id,
        from_us=microseconds(query.since),
        to_us=microseconds(query.until),
        known=bool(phone or query.call_id) and token.scope is Scope.BUYER,  # of others it is not told the person
        newest_first=query.order == "newest",
    )


def _phone(text: str) -> str:
    if not text:
        return ""
    try:
        return to_e164(normalise(text))
    except NumberError as error:
        raise ProblemError(422, f"phone: {error}", errors=[("phone", str(error))]) from error
