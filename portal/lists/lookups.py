"""The HTTP API for looking up, version 1: is this number on a list, and is this receipt of a scrub genuine?

Both take the number in the body, so that it stands in no access log of a proxy.
"""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import APIRouter, Request

from book.numbers import NumberError, normalise
from portal.http.access import BuyerOrOperator, DialerOrOperator, services
from portal.http.bodies import read_model
from portal.http.problems import ProblemError, documented
from portal.http.tokens import Scope, Token
from portal.lists.models import CheckDone, Consulted, NumberCheck, ReceiptShown, ReceiptVerify, shown_found
from portal.lists.service import Desk
from suppression.lookups import Evidence, evidence
from suppression.receipt import ReceiptError

PASS = "pass"  # noqa: S105 - a verdict

_log = structlog.get_logger("portal")
lookups = APIRouter(prefix="/v1/suppression")


@lookups.post(
    "/check",
    summary="Look a number up",
    response_model=CheckDone,
    responses=documented(400, 401, 403, 408, 413, 415, 422, 503),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/NumberCheck"}},
)
async def post_check(request: Request, who: BuyerOrOperator) -> CheckDone:
    """Say which lists have a number since when, and whether it may be transferred to a buyer. Body: a `NumberCheck`.

    It is what the lists say at this moment; a transfer is scrubbed when it comes. A buyer is told of its own lists and
    of global ones. For the operator and buyers.
    """
    desk = services(request).lists
    said = await read_model(request, NumberCheck)
    buyer = await _buyer(desk, who, said.buyer)
    found = await desk.check(_number(said.number), buyer)
    verdict = found.verdict
    _log.info("number_checked", by=who.name, lists=len(found.on))
    return CheckDone(
        on=[shown_found(one, who) for one in found.on],
        verdict="" if verdict is None else verdict.reason or PASS,
        hit="" if verdict is None else verdict.hit,
        exempt=[] if verdict is None else list(verdict.exempt),
        unavailable=list(found.unavailable),
    )


@lookups.post(
    "/receipts/verify",
    summary="Verify a receipt",
    response_model=ReceiptShown,
    responses=documented(400, 401, 403, 408, 413, 415, 503, said={422: "It is not genuine, or the body is wrong."}),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/ReceiptVerify"}},
)
async def post_verify(request: Request, _who: DialerOrOperator) -> ReceiptShown:
    """Verify the receipt of a scrub, and show what it says and which lists it stands for. Body: a `ReceiptVerify`.

    For dialers and the operator.
    """
    desk = services(request).lists
    said = await read_model(request, ReceiptVerify)
    number = _number(said.number) if said.number else None
    try:
        claims = desk.signer.verify_document(said.receipt)
        matches = None if number is None else _proves(desk, said.receipt, number)
    except ReceiptError as error:
        raise ProblemError(422, f"the receipt {error}", errors=[("receipt", str(error))]) from error
    found = await _consulted(desk, claims.get("lists"))
    return ReceiptShown(
        claims=claims,
        lists=[Consulted(**{name: one[name] for name in Consulted.model_fields}) for one in found.lists],
        missing=list(found.missing),
        changed=list(found.changed),
        number_matches=matches,
    )


async def _buyer(desk: Desk, who: Token, said: str) -> str | None:
    """For whom it is asked; None: for nobody, all lists are looked at. Raises ProblemError 403, 422."""
    if who.scope is Scope.BUYER:
        if said not in ("", who.of):
            raise ProblemError(403, "this token asks for its own buyer", errors=[("buyer", "is another")])
        return who.of
    if said and not await desk.is_buyer(said):
        raise ProblemError(422, "no buyer has that name", errors=[("buyer", "is not there")])
    return said or None


def _number(text: str) -> int:
    try:
        return normalise(text)
    except NumberError as error:
        raise ProblemError(422, f"number: {error}", errors=[("number", str(error))]) from error


def _proves(desk: Desk, receipt: str, number: int) -> bool:
    return desk.signer.proves(desk.signer.verify(receipt), receipt, number)


async def _consulted(desk: Desk, digests: Any) -> Evidence:
    """The lists that a receipt names, as far as they are on record."""
    wanted = [str(one) for one in digests] if isinstance(digests, list) else []
    return evidence(wanted, await desk.store.sets_like(wanted))
