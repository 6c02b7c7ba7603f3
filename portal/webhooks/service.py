"""What the routes for webhooks call: each call is one transaction of the store."""

from __future__ import annotations

import asyncio

from meter.store.clerk import Clerk
from meter.webhooks.channel import WebhookOptions
from meter.webhooks.management import UnknownWebhookError, find_hook, put_known, try_out
from meter.webhooks.sql import Standing, Webhook, disable, enable, put_hook, read_hooks, remove_hook
from portal.http.services import Service

MAX_TRIALS = 4  # at once: each may wait for its endpoint for as long as a post may take

Known = tuple[Webhook, Standing]


class WebhooksService(Service):
    """Shows, changes and tries webhooks. `options`: how buyers' endpoints are posted to."""

    title = "webhooks"

    def __init__(self, clerk: Clerk, options: WebhookOptions) -> None:
        self._clerk = clerk
        self._options = options
        self._trials = asyncio.Semaphore(MAX_TRIALS)

    async def find_all(self, buyer: str, after: tuple[str, str] | None, limit: int) -> list[Known]:
        """At most `limit` webhooks by buyer and name, those after `after`; `buyer` empty: of all buyers."""
        hooks = await self._clerk.read(read_hooks, buyer=buyer)
        hooks.sort(key=_key)
        return [known for known in hooks if after is None or _key(known) > after][:limit]

    async def put(self, hook: Webhook) -> tuple[Webhook, bool]:
        """Create or change a webhook; whether it is new. Raises WebhookError, LookupError: no such buyer."""
        return await self._clerk.write(put_known, hook)

    async def roll(self, buyer: str, name: str) -> Webhook:
        """Give a webhook a new secret; the one before signs beside it. Raises UnknownWebhookError."""
        return await self._clerk.write(
            lambda connection: put_hook(connection, find_hook(connection, buyer, name), roll=True)
        )

    async def enable(self, buyer: str, name: str) -> int:
        """Post to a webhook again; how many messages were revived. Raises UnknownWebhookError."""
        revived = await self._clerk.write(enable, buyer, name)
        if revived is None:
            raise UnknownWebhookError(buyer, name)
        return revived

    async def disable(self, buyer: str, name: str, why: str) -> None:
        """Post to a webhook no more. Raises UnknownWebhookError."""
        if not await self._clerk.write(disable, buyer, name, why):
            raise UnknownWebhookError(buyer, name)

    async def remove(self, buyer: str, name: str) -> None:
        """Remove a webhook and the messages that wait for it. Raises UnknownWebhookError."""
        if not await self._clerk.write(remove_hook, buyer, name):
            raise UnknownWebhookError(buyer, name)

    async def try_out(self, buyer: str, name: str) -> int:
        """Post a sample; the status that came back. Raises UnknownWebhookError, HttpPostError."""
        hook = await self._clerk.read(lambda connection: find_hook(connection, buyer, name))
        async with self._trials:
            return await try_out(hook, self._options)


def _key(known: Known) -> tuple[str, str]:
    return known[0].buyer, known[0].name
