"""What the route for leads calls."""

from __future__ import annotations

from meter.journal.sql.leads import LeadStore, StoredLead
from portal.http.services import Service


class LeadsService(Service):
    """Keeps posted leads for `ttl_s` seconds each."""

    title = "service for leads"

    def __init__(self, store: LeadStore, ttl_s: int) -> None:
        self._store = store
        self._ttl_s = ttl_s

    async def keep(self, document: bytes, dialer: str, key: str) -> tuple[StoredLead, bool]:
        """Keep a lead of a dialer, once per key; whether it is new. Raises LeadConflictError."""
        return await self._store.put(document, dialer, ttl_s=self._ttl_s, key=key)
