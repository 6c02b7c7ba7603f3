"""The HTTP API for transfers, version 1: those that are settled, page by page, one as its ladder, and its recording.

The operator sees all, a buyer and a dialer their own; another's are to them as if they were not there.
"""

from __future__ import annotations

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response as Plain
from pydantic import BaseModel, Field

from book.numbers import NumberError, normalise, to_e164
from meter.settling.sql.transfers import SettledTransfer, UnknownTransferError, Wanted
from portal.http.access import AnyToken, BuyerOrOperator, needed, services
from portal.http.paging import page, read_cursor
from portal.http.problems import ProblemError, documented
from portal.http.tables import ANSWER, csv_answer, wants_csv
from portal.http.tokens import Scope, Token
from portal.transfers.models import COLUMNS, TransferId, TransferQuery, Transfers, cells, microseconds, shown_transfer

_LIST = "transfers"
_AUDIO = "audio/wav"
_RANGE_WHY = {
    400: "`Range` cannot be read.",
    404: "There is no such transfer, or it is another's, or it has no recording, or that is deleted by now.",
    416: "The recording has no such bytes: `Content-Range` says how many it has.",
}

_log = structlog.get_logger("portal")
transfers = APIRouter(prefix="/v1")


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


@transfers.get(
    "/transfers",
    summary="Show settled transfers",
    response_model=Transfers,
    responses={200: ANSWER, **documented(401, 403, 422, 503)},
)
async def get_transfers(request: Request, who: AnyToken, said: Annotated[TransferQuery, Query()]) -> Any:
    """Show settled transfers in the order in which they were settled, as JSON page by page, or all as CSV.

    Walking the cursors finds each that ended in the time asked for exactly once, also while others are settled. For the
    operator all, for buyers and dialers their own. CSV where `Accept` names `text/csv`.
    """
    wanted, money = _wanted(said, who), services(request).money

    async def fetch(after: str | None, limit: int) -> list[SettledTransfer]:
        try:
            return await money.settled(wanted, after or "", limit)
        except UnknownTransferError as error:
            raise ProblemError(422, "the cursor is none of ours", errors=[("cursor", "is none of ours")]) from error

    cursor = read_cursor(_LIST, said.cursor, str)
    start = None if cursor is None else cursor[0]
    if wants_csv(request):
        return await csv_answer(
            _LIST,
            COLUMNS,
            fetch,
            key_of=lambda one: one.transfer,
            cells=lambda one: cells(shown_transfer(one, who)),
            start=start,
        )
    found, following = await page(lambda limit: fetch(start, limit), said.limit, _LIST, lambda one: (one.transfer,))
    return Transfers(transfers=[shown_transfer(one, who) for one in found], next=following)


@transfers.get(
    "/transfers/{transfer}",
    summary="Show the ladder of a transfer",
    response_model=LadderShown,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_transfer(request: Request, who: BuyerOrOperator, transfer: TransferId) -> LadderShown:
    """Show each leg of a transfer with its times from dial-out, and why it came to what it came to."""
    found = await services(request).money.ladder(transfer, _only(who))
    if found is None:
        raise ProblemError(404, "there is no such transfer, or it is another's")
    return LadderShown(**found.as_dict())


_PART = Annotated[int, Query(ge=1, le=1_000, description="Which, where its call was moved and recorded anew.")]
_AUDIO_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The recording.", "content": {_AUDIO: {}}},
    206: {"description": "The bytes that were asked for.", "content": {_AUDIO: {}, "multipart/byteranges": {}}},
    **documented(401, 403, 422, 503, said=_RANGE_WHY),
}


@transfers.get(
    "/transfers/{transfer}/recording", summary="Get a recording", response_class=Plain, responses=_AUDIO_ANSWERS
)
async def get_recording(request: Request, who: BuyerOrOperator, transfer: TransferId, part: _PART = 1) -> Plain:
    """Get the recording of a transfer as WAV: the dialer's side left, the buyer's right.

    `Range` is heeded, so a player can jump. `ETag` and `Repr-Digest` (RFC 9530) are of the SHA-256 that stands in the
    journal. For the operator, and for that transfer's buyer.
    """
    return await _recording(request, who, transfer, part)


@transfers.head(
    "/transfers/{transfer}/recording", summary="Look at a recording", response_class=Plain, responses=_AUDIO_ANSWERS
)
async def head_recording(request: Request, who: BuyerOrOperator, transfer: TransferId, part: _PART = 1) -> Plain:
    """Say how large the recording of a transfer is, without sending it. For whom it is sent."""
    return await _recording(request, who, transfer, part)


async def _recording(request: Request, who: Token, transfer: str, part: int) -> Plain:
    office = needed(services(request).recordings, "recording")
    found = await office.answer(request, transfer, _only(who), part)
    _log.info("recording_asked", transfer=transfer, part=part, method=request.method, by=who.name)
    return found


def _only(who: Token) -> str:
    """Whose transfers a token of a buyer or of the operator may see; empty: all."""
    return who.of if who.scope is Scope.BUYER else ""


def _wanted(said: TransferQuery, who: Token) -> Wanted:
    """Raises ProblemError 403, 422."""
    own = {"buyer": said.buyer, "dialer": said.dialer}
    if who.scope is not Scope.OPERATOR:
        name = who.scope.value
        if own[name] not in ("", who.of):
            raise ProblemError(403, f"this token sees its own {name}'s transfers", errors=[(name, "is another")])
        own[name] = who.of
    if who.scope is Scope.BUYER and own["dialer"]:
        raise ProblemError(403, "dialers are the operator's matter", errors=[("dialer", "is not yours to ask")])
    phone = _phone(said.phone)
    return Wanted(
        buyer=own["buyer"],
        dialer=own["dialer"],
        campaign=said.campaign,
        verdict=str(said.verdict),
        reason=str(said.reason),
        counts_as=str(said.counts_as),
        phone=phone,
        call_id=said.call_id,
        from_us=microseconds(said.since),
        to_us=microseconds(said.until),
        known=bool(phone or said.call_id) and who.scope is Scope.BUYER,  # of others it is not told the person
        newest_first=said.order == "newest",
    )


def _phone(text: str) -> str:
    if not text:
        return ""
    try:
        return to_e164(normalise(text))
    except NumberError as error:
        raise ProblemError(422, f"phone: {error}", errors=[("phone", str(error))]) from error
