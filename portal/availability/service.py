"""What the route for availability calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from portal.http.services import Service


class AvailabilityService(Service):
    """Asks the running router whether a buyer of a campaign would take a call; `ask` raises RouterAwayError."""

    title = "view of availability"

    def __init__(self, ask: Callable[[str], Awaitable[dict[str, Any]]]) -> None:
        self._ask = ask

    async def of(self, campaign: str) -> dict[str, Any]:
        """The router's answer for a campaign. Raises RouterAwayError."""
        return await self._ask(campaign)
