"""A lease that is kept while its holder works (`meter.store.leases`)."""

from __future__ import annotations

import time

import structlog

from meter.store.clerk import Clerk
from meter.store.leases import RENEW_US, give_back, holder, take

_log = structlog.get_logger()


class Lease:
    """One name that only one process may hold. Asking costs a write every five seconds."""

    def __init__(self, clerk: Clerk, name: str) -> None:
        self._clerk = clerk
        self._name = name
        self._renewed_at = 0.0
        self._held = False
        self._who = holder()

    async def held(self) -> bool:
        """Take or renew it; False: another process has it. Raises what the store raises."""
        if self._held and time.monotonic() - self._renewed_at < RENEW_US / 1_000_000:
            return True
        before, self._held = self._held, False  # until the store has said so: it may fail
        asked_at = time.monotonic()
        held = await self._clerk.write(take, self._name, self._who, time.time_ns() // 1000)
        if held != before:
            _log.info("lease taken" if held else "lease held by another", lease=self._name)
        self._held, self._renewed_at = held, asked_at
        return held

    async def give_back(self) -> None:
        """End it, so that another need not wait."""
        if self._held:
            await self._clerk.write(give_back, self._name, self._who)
            self._held = False
