"""What the routes for webhooks take and give. No answer shows a secret but that which makes it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, Field

from meter.webhooks.management import Condition, condition, trouble
from meter.webhooks.sql import ALL_FIELDS, DEFAULT_EVENTS, EVENTS, MAX_URL
from portal.http.bodies import Body
from portal.http.paging import Next, PageQuery
from portal.http.values import MAX_NAME, Count, Moment, moment
from portal.webhooks.service import Known

_MAX_FIELDS = 64
HookName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="Its name, unique within the buyer.")]
FieldName = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


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


class HookQuery(PageQuery):
    """Whose."""

    buyer: str = Field("", max_length=MAX_NAME, description="For the operator: only this buyer's.")


BODIES: tuple[type[Body], ...] = (WebhookPut,)


def shown_webhook(known: Known) -> WebhookShown:
    hook, standing = known
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
