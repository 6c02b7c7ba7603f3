"""What the route for health calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from portal.http.services import Service


class HealthService(Service):
    """Asks the store whether it answers."""

    title = "view of health"

    def __init__(self, ask: Callable[[], Awaitable[bool]]) -> None:
        self._ask = ask

    async def is_healthy(self) -> bool:
        """Whether the store answers."""
        return await self._ask()
