"""E-mails that wait for an address: sent once their buyer has one, and shown by a gauge until then.

Looked at every few seconds, by whoever runs a meter, with a mail server or without: one query by an index where nothing
waits.
"""

from __future__ import annotations

import asyncio
from time import time_ns

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.mail.sql.recipients import Waiting, releasable, release, waiting
from meter.store.clerk import Clerk
from meter.store.engine import StoreError, first_line
from meter.store.pause import pause
from telemetry import metrics

LOOK_S = 3.0
MAX_ROWS = 50  # in one write transaction

_log = structlog.get_logger()


class Releaser:
    """Makes waiting messages due until told to stop. A store that fails is looked at again with the next turn."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._clerk = Clerk(engine)

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self.look()
            except (SQLAlchemyError, StoreError) as error:
                metrics.ENGINE_FAULTS.labels("outbox").inc()
                _log.error("waiting e-mails: the store failed", error=first_line(error))
            await pause(stop, LOOK_S)
        await self._clerk.close()

    async def look(self) -> int:
        """Release what can be; how many."""
        due = await self._clerk.read(releasable)
        count = 0
        for at in range(0, len(due), MAX_ROWS):
            some = due[at : at + MAX_ROWS]
            count += await self._clerk.write(release, some, time_ns() // 1000)
        if count:
            _log.info("e-mails have an address now", messages=count)
        show_waiting(await self._clerk.read(waiting))
        return count


def show_waiting(waiting: list[Waiting]) -> None:
    """Set the gauge of what waits for an address: failed leads, and everything else."""
    for what, some in (
        ("lead", [one for one in waiting if one.field == "lead_emails"]),
        ("other", [one for one in waiting if one.field != "lead_emails"]),
    ):
        metrics.MAIL_WAITING.labels(what).set(sum(one.messages for one in some))
