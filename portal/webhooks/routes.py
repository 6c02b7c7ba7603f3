"""The HTTP API for webhooks, version 1.

The operator manages every buyer's webhooks, a buyer its own; another's are to it as if they were not there. A secret is
in an answer once, when it is made. What is posted and how it is signed stands in `meter.webhooks.channel`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, TypeVar

import structlog
from fastapi import APIRouter, Query, Request, Response

from meter.webhooks.channel import OK
from meter.webhooks.http_post import HttpPostError
from meter.webhooks.management import UnknownWebhookError
from meter.webhooks.sql import Webhook, WebhookError
from portal.http.access import BuyerOrOperator, own_buyer
from portal.http.bodies import read_model
from portal.http.paging import page, read_cursor
from portal.http.problems import ProblemError, documented, field_problem
from portal.http.rate_limit import TRIALS_PER_MINUTE
from portal.http.services import service, services
from portal.http.tokens import Scope, Token
from portal.http.values import BuyerName
from portal.webhooks.models import (
    HookName,
    HookQuery,
    SecretRolled,
    WebhookPut,
    Webhooks,
    WebhookSaved,
    WebhookSwitched,
    WebhookTried,
    shown_webhook,
)
from portal.webhooks.service import WebhooksService

_NOT_YOURS = "there is no such webhook, or it is not this token's"
_BY_HAND = "disabled over HTTP"
T = TypeVar("T")

_log = structlog.get_logger("portal")
routes = APIRouter(prefix="/v1")


@routes.get(
    "/webhooks", summary="Show webhooks", response_model=Webhooks, responses=documented(401, 403, 404, 422, 503)
)
async def get_webhooks(request: Request, token: BuyerOrOperator, query: Annotated[HookQuery, Query()]) -> Webhooks:
    """Show webhooks and how posting to them goes. For the operator all, for a buyer its own. No answer has a secret."""
    webhooks, buyer = _service(request), own_buyer(token, query.buyer, "a buyer sees its own webhooks")
    after = read_cursor("webhooks", query.cursor, str, str)
    start = None if after is None else (after[0], after[1])
    hooks, following = await page(
        lambda most: webhooks.find_all(buyer, start, most),
        query.limit,
        "webhooks",
        lambda known: (known[0].buyer, known[0].name),
    )
    return Webhooks(webhooks=[shown_webhook(known) for known in hooks], next=following)


@routes.put(
    "/webhooks/{buyer}/{name}",
    summary="Create or change a webhook",
    response_model=WebhookSaved,
    responses={
        201: {"model": WebhookSaved, "description": "It is new."},
        **documented(400, 401, 403, 404, 408, 413, 415, 422, 503),
    },
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/WebhookPut"}},
)
async def put_webhook(
    request: Request, response: Response, token: BuyerOrOperator, buyer: BuyerName, name: HookName
) -> WebhookSaved:
    """Create a webhook, or change it; the secret of a new one is in the answer, once. Body: a `WebhookPut`.

    What failed before is forgotten: it is posted to again. For the operator, and for a buyer its own.
    """
    _own(token, buyer)
    body = await read_model(request, WebhookPut)
    hook = Webhook(
        buyer,
        name,
        body.url,
        events=tuple(body.events),
        lead_fields=tuple(body.lead_fields),
        redact_fields=tuple(body.redact_fields),
        mask_phone=body.mask_phone,
    )
    made, is_new = await _found(_service(request).put(hook))
    response.status_code = 201 if is_new else 200
    _log.info("webhook_put", buyer=buyer, webhook=name, new=is_new, by=token.name)
    return WebhookSaved(buyer=buyer, name=name, created=is_new, secret=made.secrets[0] if is_new else "")


@routes.post(
    "/webhooks/{buyer}/{name}/roll",
    summary="Give a webhook a new secret",
    response_model=SecretRolled,
    responses=documented(401, 403, 404, 422, 503),
)
async def post_roll(request: Request, token: BuyerOrOperator, buyer: BuyerName, name: HookName) -> SecretRolled:
    """Give a webhook a new secret; the one before signs beside it until the next roll.

    For the operator, and for a buyer its own.
    """
    _own(token, buyer)
    made = await _found(_service(request).roll(buyer, name))
    _log.info("webhook_rolled", buyer=buyer, webhook=name, by=token.name)
    return SecretRolled(buyer=buyer, name=name, secret=made.secrets[0])


@routes.post(
    "/webhooks/{buyer}/{name}/enable",
    summary="Enable a webhook",
    response_model=WebhookSwitched,
    responses=documented(401, 403, 404, 422, 503),
)
async def post_enable(request: Request, token: BuyerOrOperator, buyer: BuyerName, name: HookName) -> WebhookSwitched:
    """Post to a webhook again; what was given up for it goes out now. For the operator, and for a buyer its own."""
    _own(token, buyer)
    revived = await _found(_service(request).enable(buyer, name))
    _log.info("webhook_enabled", buyer=buyer, webhook=name, revived=revived, by=token.name)
    return WebhookSwitched(buyer=buyer, name=name, enabled=True, revived=revived)


@routes.post(
    "/webhooks/{buyer}/{name}/disable",
    summary="Disable a webhook",
    response_model=WebhookSwitched,
    responses=documented(401, 403, 404, 422, 503),
)
async def post_disable(request: Request, token: BuyerOrOperator, buyer: BuyerName, name: HookName) -> WebhookSwitched:
    """Post to a webhook no more, until it is enabled. For the operator, and for a buyer its own."""
    _own(token, buyer)
    await _found(_service(request).disable(buyer, name, _BY_HAND))
    _log.info("webhook_disabled", buyer=buyer, webhook=name, by=token.name)
    return WebhookSwitched(buyer=buyer, name=name, enabled=False, revived=0)


@routes.post(
    "/webhooks/{buyer}/{name}/test",
    summary="Try a webhook out",
    response_model=WebhookTried,
    responses=documented(
        401,
        403,
        404,
        422,
        503,
        meanings={429: f"Too many requests, or more than {TRIALS_PER_MINUTE} samples a minute."},
    ),
)
async def post_test(request: Request, token: BuyerOrOperator, buyer: BuyerName, name: HookName) -> WebhookTried:
    """Post a signed sample of type `transfer.test` now, and say what came back. Also to one that is disabled.

    For the operator, and for a buyer its own.
    """
    _own(token, buyer)
    rates = services(request).rates
    if rates is not None:
        await rates.of_trial(buyer)
    try:
        status = await _found(_service(request).try_out(buyer, name))
    except HttpPostError as error:
        _log.info("webhook_tried", buyer=buyer, webhook=name, taken=False, by=token.name)
        return WebhookTried(taken=False, status=None, error=str(error))
    _log.info("webhook_tried", buyer=buyer, webhook=name, taken=status in OK, by=token.name)
    return WebhookTried(taken=status in OK, status=status, error="")


@routes.delete(
    "/webhooks/{buyer}/{name}",
    summary="Remove a webhook",
    status_code=204,
    response_class=Response,
    responses={204: {"description": "It is gone."}, **documented(401, 403, 404, 422, 503)},
)
async def delete_webhook(request: Request, token: BuyerOrOperator, buyer: BuyerName, name: HookName) -> Response:
    """Remove a webhook and what waits for it. For the operator, and for a buyer its own."""
    _own(token, buyer)
    await _found(_service(request).remove(buyer, name))
    _log.info("webhook_removed", buyer=buyer, webhook=name, by=token.name)
    return Response(status_code=204)


def _service(request: Request) -> WebhooksService:
    return service(request, WebhooksService)


def _own(token: Token, buyer: str) -> None:
    if token.scope is Scope.BUYER and buyer != token.of:
        raise ProblemError(404, _NOT_YOURS)


async def _found(work: Awaitable[T]) -> T:
    """Do the work, and answer its refusals as problems. Raises ProblemError 404, 422, and HttpPostError."""
    try:
        return await work
    except UnknownWebhookError as error:
        raise ProblemError(404, _NOT_YOURS) from error
    except WebhookError as error:
        raise field_problem("the webhook cannot be so; nothing was changed", error) from error
    except LookupError as error:
        raise ProblemError(404, str(error.args[0])) from error
