"""The HTTP API for webhooks and trunks, version 1.

The operator manages every buyer's webhooks, a buyer its own; another's are to it as if they were not there. A secret is
in an answer once, when it is made. What is posted and how it is signed stands in `meter.webhooks.channel`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, TypeVar

import structlog
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from meter.book.sql.trunks import TrunkState
from meter.webhooks.channel import OK
from meter.webhooks.http_post import PostError
from meter.webhooks.management import Condition, UnknownWebhookError, condition, trouble
from meter.webhooks.sql import ALL_FIELDS, DEFAULT_EVENTS, EVENTS, MAX_URL, Webhook, WebhookError
from portal.buyers.models import BuyerName
from portal.http.access import BuyerOrOperator, needed, own_buyer, services
from portal.http.bodies import Body, read_model
from portal.http.paging import Cursor, Limit, Next, PageQuery, page, read_cursor
from portal.http.problems import ProblemError, documented
from portal.http.rate_limit import TRIALS_PER_MINUTE
from portal.http.tokens import Scope, Token
from portal.lists.models import Count, Moment
from portal.orders.routes import field_problem
from portal.transfers.models import moment
from portal.webhooks.service import Known, WebhookOffice

_MAX_NAME, _MAX_FIELDS = 64, 64
_NOT_YOURS = "there is no such webhook, or it is not this token's"
_BY_HAND = "disabled over HTTP"
T = TypeVar("T")
HookName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="Its name, unique within the buyer.")]
FieldName = Annotated[str, Field(min_length=1, max_length=_MAX_NAME)]

_log = structlog.get_logger("portal")
webhook_routes = APIRouter(prefix="/v1")


class WebhookPut(Body):
    """Where a buyer wants to be posted to, and what."""

    url: str = Field(min_length=1, max_length=MAX_URL, description="`https://HOST/...`; no user, password or fragment.")
    events: list[str] = Field(
        list(DEFAULT_EVENTS), min_length=1, max_length=len(EVENTS), description=f"One or more of {', '.join(EVENTS)}."
    )
    lead_fields: list[FieldName] = Field(
        [ALL_FIELDS],
        max_length=_MAX_FIELDS,
        description="Fields of the lead that go along, where the person is the buyer's; `*`: all.",
    )
    redact_fields: list[FieldName] = Field([], max_length=_MAX_FIELDS, description="Fields that never do.")
    mask_phone: bool = Field(False, description="Only the last four digits of numbers.")


class WebhookShown(BaseModel):
    """A webhook, and how posting to it goes. Its secrets are never shown."""

    buyer: str
    name: str
    url: str
    events: list[str]
    lead_fields: list[str]
    redact_fields: list[str]
    mask_phone: bool
    state: Condition = Field(description="`ok`; `failing`: it rests between attempts; `disabled`: it is not posted to.")
    failing_since: Moment
    failures: int = Field(description="In a row.")
    next_try_at: Moment
    disabled_at: Moment
    error: str = Field(description="Of the last failure; or why its secret cannot be read.")


class Webhooks(BaseModel):
    """A page of webhooks, by buyer and name."""

    webhooks: list[WebhookShown]
    next: Next


class WebhookSaved(BaseModel):
    """What putting a webhook came to."""

    buyer: str
    name: str
    created: bool
    secret: str = Field(description="Of a new one, to be kept: it is not shown again. Else empty: it stays as it is.")


class SecretRolled(BaseModel):
    """A new secret."""

    buyer: str
    name: str
    secret: str = Field(
        description="To be kept: it is not shown again. The one before signs beside it, until the next."
    )


class WebhookSwitched(BaseModel):
    """What switching a webhook did."""

    buyer: str
    name: str
    enabled: bool
    revived: int = Field(description="Messages that were given up and are due again.")


class WebhookTried(BaseModel):
    """What came of a sample."""

    taken: bool = Field(description="It was answered with 2xx.")
    status: Count = Field(description="The status that came back; null: none came.")
    error: str = Field(description="Why none came.")


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


class HookQuery(PageQuery):
    """Whose."""

    buyer: str = Field("", max_length=_MAX_NAME, description="For the operator: only this buyer's.")


BODIES: tuple[type[Body], ...] = (WebhookPut,)


@webhook_routes.get(
    "/webhooks", summary="Show webhooks", response_model=Webhooks, responses=documented(401, 403, 404, 422, 503)
)
async def get_webhooks(request: Request, who: BuyerOrOperator, said: Annotated[HookQuery, Query()]) -> Webhooks:
    """Show webhooks and how posting to them goes. For the operator all, for a buyer its own. No answer has a secret."""
    office, buyer = _office(request), own_buyer(who, said.buyer, "a buyer sees its own webhooks")
    after = read_cursor("webhooks", said.cursor, str, str)
    start = None if after is None else (after[0], after[1])
    found, following = await page(
        lambda most: office.hooks(buyer, start, most), said.limit, "webhooks", lambda one: (one[0].buyer, one[0].name)
    )
    return Webhooks(webhooks=[_shown(one) for one in found], next=following)


@webhook_routes.put(
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
    request: Request, response: Response, who: BuyerOrOperator, buyer: BuyerName, name: HookName
) -> WebhookSaved:
    """Create a webhook, or change it; the secret of a new one is in the answer, once. Body: a `WebhookPut`.

    What failed before is forgotten: it is posted to again. For the operator, and for a buyer its own.
    """
    _own(who, buyer)
    said = await read_model(request, WebhookPut)
    hook = Webhook(
        buyer, name, said.url, tuple(said.events), tuple(said.lead_fields), tuple(said.redact_fields), said.mask_phone
    )
    made, is_new = await _found(_office(request).put(hook))
    response.status_code = 201 if is_new else 200
    _log.info("webhook_put", buyer=buyer, webhook=name, new=is_new, by=who.name)
    return WebhookSaved(buyer=buyer, name=name, created=is_new, secret=made.secrets[0] if is_new else "")


@webhook_routes.post(
    "/webhooks/{buyer}/{name}/roll",
    summary="Give a webhook a new secret",
    response_model=SecretRolled,
    responses=documented(401, 403, 404, 422, 503),
)
async def post_roll(request: Request, who: BuyerOrOperator, buyer: BuyerName, name: HookName) -> SecretRolled:
    """Give a webhook a new secret; the one before signs beside it until the next roll.

    For the operator, and for a buyer its own.
    """
    _own(who, buyer)
    made = await _found(_office(request).roll(buyer, name))
    _log.info("webhook_rolled", buyer=buyer, webhook=name, by=who.name)
    return SecretRolled(buyer=buyer, name=name, secret=made.secrets[0])


@webhook_routes.post(
    "/webhooks/{buyer}/{name}/enable",
    summary="Enable a webhook",
    response_model=WebhookSwitched,
    responses=documented(401, 403, 404, 422, 503),
)
async def post_enable(request: Request, who: BuyerOrOperator, buyer: BuyerName, name: HookName) -> WebhookSwitched:
    """Post to a webhook again; what was given up for it goes out now. For the operator, and for a buyer its own."""
    _own(who, buyer)
    revived = await _found(_office(request).enable(buyer, name))
    _log.info("webhook_enabled", buyer=buyer, webhook=name, revived=revived, by=who.name)
    return WebhookSwitched(buyer=buyer, name=name, enabled=True, revived=revived)


@webhook_routes.post(
    "/webhooks/{buyer}/{name}/disable",
    summary="Disable a webhook",
    response_model=WebhookSwitched,
    responses=documented(401, 403, 404, 422, 503),
)
async def post_disable(request: Request, who: BuyerOrOperator, buyer: BuyerName, name: HookName) -> WebhookSwitched:
    """Post to a webhook no more, until it is enabled. For the operator, and for a buyer its own."""
    _own(who, buyer)
    await _found(_office(request).disable(buyer, name, _BY_HAND))
    _log.info("webhook_disabled", buyer=buyer, webhook=name, by=who.name)
    return WebhookSwitched(buyer=buyer, name=name, enabled=False, revived=0)


@webhook_routes.post(
    "/webhooks/{buyer}/{name}/test",
    summary="Try a webhook out",
    response_model=WebhookTried,
    responses=documented(
        401, 403, 404, 422, 503, said={429: f"Too many requests, or more than {TRIALS_PER_MINUTE} samples a minute."}
    ),
)
async def post_test(request: Request, who: BuyerOrOperator, buyer: BuyerName, name: HookName) -> WebhookTried:
    """Post a signed sample of type `transfer.test` now, and say what came back. Also to one that is disabled.

    For the operator, and for a buyer its own.
    """
    _own(who, buyer)
    rates = services(request).rates
    if rates is not None:
        await rates.of_trial(buyer)
    try:
        status = await _found(_office(request).try_out(buyer, name))
    except PostError as error:
        _log.info("webhook_tried", buyer=buyer, webhook=name, taken=False, by=who.name)
        return WebhookTried(taken=False, status=None, error=str(error))
    _log.info("webhook_tried", buyer=buyer, webhook=name, taken=status in OK, by=who.name)
    return WebhookTried(taken=status in OK, status=status, error="")


@webhook_routes.delete(
    "/webhooks/{buyer}/{name}",
    summary="Remove a webhook",
    status_code=204,
    response_class=Response,
    responses={204: {"description": "It is gone."}, **documented(401, 403, 404, 422, 503)},
)
async def delete_webhook(request: Request, who: BuyerOrOperator, buyer: BuyerName, name: HookName) -> Response:
    """Remove a webhook and what waits for it. For the operator, and for a buyer its own."""
    _own(who, buyer)
    await _found(_office(request).remove(buyer, name))
    _log.info("webhook_removed", buyer=buyer, webhook=name, by=who.name)
    return Response(status_code=204)


@webhook_routes.get(
    "/trunks", summary="Show trunks", response_model=Trunks, responses=documented(401, 403, 404, 422, 503)
)
async def get_trunks(request: Request, who: BuyerOrOperator, cursor: Cursor = "", limit: Limit = 100) -> Trunks:
    """Show trunks that are probed, as each router sees them. For the operator all, for a buyer its own endpoints."""
    office = needed(services(request).trunks, "view of trunks")
    after = read_cursor("trunks", cursor, str, str)
    start = None if after is None else (after[0], after[1])
    buyer = who.of if who.scope is Scope.BUYER else ""
    found, following = await page(
        lambda most: office.trunks(buyer, start, most), limit, "trunks", lambda one: (one.router, one.trunk)
    )
    return Trunks(trunks=[_trunk(one, who) for one in found], next=following)


def _office(request: Request) -> WebhookOffice:
    return needed(services(request).webhooks, "webhooks")


def _own(who: Token, buyer: str) -> None:
    if who.scope is Scope.BUYER and buyer != who.of:
        raise ProblemError(404, _NOT_YOURS)


async def _found(work: Awaitable[T]) -> T:
    """Raises ProblemError 404, 422, and PostError."""
    try:
        return await work
    except UnknownWebhookError as error:
        raise ProblemError(404, _NOT_YOURS) from error
    except WebhookError as error:
        raise field_problem("the webhook cannot be so; nothing was changed", error) from error
    except LookupError as error:
        raise ProblemError(404, str(error.args[0])) from error


def _shown(one: Known) -> WebhookShown:
    hook, standing = one
    return WebhookShown(
        buyer=hook.buyer,
        name=hook.name,
        url=hook.url,
        events=list(hook.events),
        lead_fields=list(hook.lead_fields),
        redact_fields=list(hook.redact_fields),
        mask_phone=hook.mask_phone,
        state=condition(hook, standing),
        failing_since=_moment(standing.failing_since_utc_us),
        failures=standing.failures,
        next_try_at=_moment(standing.next_try_utc_us or None),
        disabled_at=_moment(standing.disabled_utc_us),
        error=trouble(hook, standing),
    )


def _moment(utc_us: int | None) -> datetime | None:
    return None if utc_us is None else moment(utc_us)


def _trunk(one: TrunkState, who: Token) -> TrunkShown:
    router = one.router if who.scope is Scope.OPERATOR else ""
    return TrunkShown(trunk=one.trunk, router=router, state=one.state, since=moment(one.since_utc_us))
