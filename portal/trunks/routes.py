"""The HTTP API for trunks, version 1: how each router sees them. A buyer sees its own endpoints."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from meter.book.sql.trunks import TrunkState
from portal.http.access import BuyerOrOperator, buyer_of
from portal.http.paging import Cursor, Limit, Next, page, read_cursor
from portal.http.problems import documented
from portal.http.services import service
from portal.http.tokens import Scope, Token
from portal.http.values import moment
from portal.trunks.service import TrunksService

routes = APIRouter(prefix="/v1")


class TrunkShown(BaseModel):
    """A trunk as a router sees it."""

    trunk: str = Field(description="`BUYER/ENDPOINT`; `carrier/NAME` for the operator.")
    router: str = Field(description="The operator's alone.")
    state: str = Field(description="`up`, `suspect` or `down`.")
    since: datetime


class Trunks(BaseModel):
    """A page of trunks, by router and name."""

    trunks: list[TrunkShown]
    next: Next


@routes.get("/trunks", summary="Show trunks", response_model=Trunks, responses=documented(401, 403, 404, 422, 503))
async def get_trunks(request: Request, token: BuyerOrOperator, cursor: Cursor = "", limit: Limit = 100) -> Trunks:
    """Show trunks that are probed, as each router sees them. For the operator all, for a buyer its own endpoints."""
    trunks = service(request, TrunksService)
    after = read_cursor("trunks", cursor, str, str)
    start = None if after is None else (after[0], after[1])
    buyer = buyer_of(token)
    rows, following = await page(
        lambda most: trunks.find_all(buyer, start, most), limit, "trunks", lambda trunk: (trunk.router, trunk.trunk)
    )
    return Trunks(trunks=[_shown(trunk, token) for trunk in rows], next=following)


def _shown(trunk: TrunkState, token: Token) -> TrunkShown:
    router = trunk.router if token.scope is Scope.OPERATOR else ""
    return TrunkShown(trunk=trunk.trunk, router=router, state=trunk.state, since=moment(trunk.since_utc_us))
