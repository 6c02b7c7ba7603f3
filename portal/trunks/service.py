"""The trunks as the routers see them."""

from __future__ import annotations

from meter.book.sql.trunks import TrunkState, read_trunks
from meter.store.clerk import Clerk
from portal.http.services import Service

CARRIER = "carrier"  # stands in the place of a buyer before a carrier's name


class TrunksService(Service):
    """Shows trunks."""

    title = "view of trunks"

    def __init__(self, clerk: Clerk) -> None:
        self._clerk = clerk

    async def find_all(self, buyer: str, after: tuple[str, str] | None, limit: int) -> list[TrunkState]:
        """At most `limit` trunks by router and name, those after `after`; with `buyer`, its endpoints alone."""
        trunks = await self._clerk.read(read_trunks)
        own = sorted(
            (trunk for trunk in trunks if not buyer or _is_of(trunk, buyer)),
            key=lambda trunk: (trunk.router, trunk.trunk),
        )
        return [trunk for trunk in own if after is None or (trunk.router, trunk.trunk) > after][:limit]


def _is_of(trunk: TrunkState, buyer: str) -> bool:
    return buyer != CARRIER and trunk.trunk.startswith(f"{buyer}/")
