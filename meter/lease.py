"""A lease that is kept while its holder works (`meter.store.leases`)."""

from __future__ import annotations

import time
from functools import partial

import structlog

from meter.store.clerk import Clerk
from meter.store.leases import RENEW_US, give_back, holder, take

_log = structlog.get_logger()


class Lease:
    """One name that only one process may hold. Asking costs a write every five seconds."""

    def __init__(self, clerk: Clerk, name: str) -> None:
        self._clerk = clerk
        self._name = name
        self._renewed_us = 0
        self._held = False
        self._who = holder()

    async def held(self) -> bool:
        """Take or renew it; False: another process has it. Raises what the store raises."""
        now_us = time.time_ns() // 1000
        if self._held and now_us - self._renewed_us < RENEW_US:
            return True
        held = await self._clerk.write(partial(take, self._name, self._who, now_us))
        if held != self._held:
            _log.info("lease taken" if held else "lease held by another", lease=self._name)
        self._held, self._renewed_us = held, now_us
        return held

    async def give_back(self) -> None:
        """End it, so that another need not wait."""
        if self._held:
            await self._clerk.write(partial(give_back, self._name, self._who))
            self._held = False
