"""What the routes for transfers call."""

from __future__ import annotations

from dataclasses import replace

from facts.fact import Kind, first_of
from facts.ladder import Ladder, build_ladder
from facts.start_payload import buyer as buyer_of
from meter.journal.sql.reading import facts_of
from meter.settling.sql.transfers import SettledTransfer, TransferFilter, settled
from meter.store.clerk import Clerk
from portal.http.services import Service


class TransfersService(Service):
    """Shows settled transfers and their ladders."""

    title = "service for transfers"

    def __init__(self, clerk: Clerk) -> None:
        self._clerk = clerk

    async def settled(self, wanted: TransferFilter, after: str, limit: int) -> list[SettledTransfer]:
        """At most `limit` settled transfers after the transfer `after`. Raises UnknownTransferError."""
        since = replace(wanted, after=after)
        return await self._clerk.read(lambda connection: settled(connection, since, limit))

    async def ladder(self, transfer: str, buyer: str) -> Ladder | None:
        """The ladder of a transfer, or None; with `buyer`, only if the transfer is that buyer's."""
        facts = await self._clerk.read(lambda connection: facts_of(connection, transfer))
        started = first_of(facts, Kind.TRANSFER_STARTED)
        if started is None or (buyer and buyer_of(started) != buyer):
            return None
        return build_ladder(facts)
