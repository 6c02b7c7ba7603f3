"""Management of webhooks for the command line and the portal: finding, creating, changing, and testing them."""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Any

from meter.webhooks.channel import WebhookOptions, post_signed, sample
from meter.webhooks.http_post import HttpPoster
from meter.webhooks.sql import Standing, Webhook, put_hook, read_hooks


class UnknownWebhookError(LookupError):
    """There is no such webhook."""

    def __init__(self, buyer: str, name: str) -> None:
        super().__init__(f"{buyer} has no webhook called {name!r}")


class Condition(StrEnum):
    """The condition of a webhook's deliveries, in a word."""

    OK = "ok"
    FAILING = "failing"
    DISABLED = "disabled"


def condition(hook: Webhook, standing: Standing) -> Condition:
    """The condition of a webhook, from its standing."""
    if standing.disabled_utc_us is not None:
        return Condition.DISABLED
    return Condition.FAILING if hook.unreadable or standing.failing_since_utc_us is not None else Condition.OK


def trouble(hook: Webhook, standing: Standing) -> str:
    """Why nothing is sent to it: its present fault, else the error of the last attempt."""
    return hook.unreadable or standing.error


def find_hook(connection: Any, buyer: str, name: str) -> Webhook:
    """A buyer's webhook, on a connection of the store. Raises UnknownWebhookError."""
    hook = next((one for one, _ in read_hooks(connection, buyer) if one.name == name), None)
    if hook is None:
        raise UnknownWebhookError(buyer, name)
    return hook


def put_known(connection: Any, hook: Webhook) -> tuple[Webhook, bool]:
    """Create or change a webhook; as it is now, and whether it is new. Raises what `put_hook` raises."""
    known = {one.name for one, _ in read_hooks(connection, hook.buyer)}
    return put_hook(connection, hook), hook.name not in known


async def try_out(hook: Webhook, options: WebhookOptions) -> int:
    """Post a sample; the status that came back. Raises HttpPostError."""
    message_id = f"test-{secrets.token_hex(8)}"
    poster = HttpPoster(options.post)
    try:
        answer = await post_signed(poster, hook, message_id, sample(hook, message_id), options.agent)
    finally:
        await poster.close()
    return int(answer.status)
