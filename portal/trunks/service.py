"""The trunks as the routers see them."""

from __future__ import annotations

from meter.book.sql.trunks import TrunkState, read_trunks
from meter.store.clerk import Clerk

CARRIER = "carrier"  # stands in the place of a buyer before a carrier's name


class TrunkOffice:
    """Shows trunks."""

    def __init__(self, clerk: Clerk) -> None:
        self._clerk = clerk

    async def trunks(self, buyer: str, after: tuple[str, str] | None, limit: int) -> list[TrunkState]:
        """By router and trunk, those after that one; of a buyer its own endpoints."""
        found = await self._clerk.read(read_trunks)
        own = sorted((one for one in found if not buyer or _is_of(one, buyer)), key=lambda one: (one.router, one.trunk))
        return [one for one in own if after is None or (one.router, one.trunk) > after][:limit]


def _is_of(one: TrunkState, buyer: str) -> bool:
    return buyer != CARRIER and one.trunk.startswith(f"{buyer}/")
