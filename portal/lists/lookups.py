"""The HTTP API for looking up, version 1: is this number on a list, and is this receipt of a scrub genuine?

Both take the number in the body, so that it stands in no access log of a proxy.
"""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import APIRouter, Request

from book.numbers import NumberError, normalise
from portal.http.access import BuyerOrOperator, DialerOrOperator
from portal.http.bodies import read_model
from portal.http.problems import ProblemError, documented
from portal.http.services import service
from portal.http.tokens import Scope, Token
from portal.lists.models import CheckDone, Consulted, NumberCheck, ReceiptShown, ReceiptVerify, shown_found
from portal.lists.service import ListsService
from suppression.lookups import Evidence, evidence
from suppression.receipt import ReceiptError

PASS = "pass"  # noqa: S105 - a verdict

_log = structlog.get_logger("portal")
routes = APIRouter(prefix="/v1/suppression")


@routes.post(
    "/check",
    summary="Look a number up",
    response_model=CheckDone,
    responses=documented(400, 401, 403, 408, 413, 415, 422, 503),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/NumberCheck"}},
)
async def post_check(request: Request, token: BuyerOrOperator) -> CheckDone:
    """Say which lists have a number since when, and whether it may be transferred to a buyer. Body: a `NumberCheck`.

    It is what the lists say at this moment; a transfer is scrubbed when it comes. A buyer is told of its own lists and
    of global ones. For the operator and buyers.
    """
    lists = service(request, ListsService)
    body = await read_model(request, NumberCheck)
    buyer = await _buyer(lists, token, body.buyer)
    checked = await lists.check(_number(body.number), buyer)
    verdict = checked.verdict
    _log.info("number_checked", by=token.name, lists=len(checked.on))
    return CheckDone(
        on=[shown_found(hit, token) for hit in checked.on],
        verdict="" if verdict is None else verdict.reason or PASS,
        hit="" if verdict is None else verdict.hit,
        exempt=[] if verdict is None else list(verdict.exempt),
        unavailable=list(checked.unavailable),
    )


@routes.post(
    "/receipts/verify",
    summary="Verify a receipt",
    response_model=ReceiptShown,
    responses=documented(400, 401, 403, 408, 413, 415, 503, meanings={422: "It is not genuine, or the body is wrong."}),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/ReceiptVerify"}},
)
async def post_verify(request: Request, _who: DialerOrOperator) -> ReceiptShown:
    """Verify the receipt of a scrub, and show what it says and which lists it stands for. Body: a `ReceiptVerify`.

    For dialers and the operator.
    """
    lists = service(request, ListsService)
    body = await read_model(request, ReceiptVerify)
    number = _number(body.number) if body.number else None
    try:
        claims = lists.signer.verify_document(body.receipt)
        matches = None if number is None else _proves(lists, body.receipt, number)
    except ReceiptError as error:
        raise ProblemError(422, f"the receipt {error}", errors=[("receipt", str(error))]) from error
    consulted = await _consulted(lists, claims.get("lists"))
    return ReceiptShown(
        claims=claims,
        lists=[Consulted(**{name: version[name] for name in Consulted.model_fields}) for version in consulted.lists],
        missing=list(consulted.missing),
        changed=list(consulted.changed),
        number_matches=matches,
    )


async def _buyer(lists: ListsService, token: Token, requested: str) -> str | None:
    """The buyer for whom a number is looked up; None: in all lists. Raises ProblemError 403, 422."""
    if token.scope is Scope.BUYER:
        if requested not in ("", token.of):
            raise ProblemError(403, "this token asks for its own buyer", errors=[("buyer", "is another")])
        return token.of
    if requested and not await lists.is_buyer(requested):
        raise ProblemError(422, "no buyer has that name", errors=[("buyer", "is not there")])
    return requested or None


def _number(text: str) -> int:
    try:
        return normalise(text)
    except NumberError as error:
        raise ProblemError(422, f"number: {error}", errors=[("number", str(error))]) from error


def _proves(lists: ListsService, receipt: str, number: int) -> bool:
    return lists.signer.proves(lists.signer.verify(receipt), receipt, number)


async def _consulted(lists: ListsService, digests: Any) -> Evidence:
    """The lists that a receipt names, as far as they are on record."""
    wanted = [str(digest) for digest in digests] if isinstance(digests, list) else []
    return evidence(wanted, await lists.store.sets_like(wanted))
