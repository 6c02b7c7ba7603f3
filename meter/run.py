"""The meter's process, put together: the follower, one outbox loop per channel, the gauges.

`baton` makes the options from the settings and runs this; nothing here reads a setting or a file. Channels that are not
configured are not run: e-mails then wait in the outbox until there is a mail server, outcomes are not queued for MQTT.
If any part fails for a reason that it does not know how to outlive, all stop and the error goes to the caller, who is
the supervisor; starting again is safe at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from meter import metrics
from meter.links import LinkOptions
from meter.mail import CHANNEL as MAIL
from meter.mail import MailDeliverer, MailOptions
from meter.mqtt import CHANNEL as MQTT
from meter.mqtt import MqttDeliverer, MqttOptions
from meter.outbox import OutboxLoop, OutboxOptions, prune_for_ever
from meter.settle import POLL_MS, Follower, SettleOptions
from meter.store.clerk import Clerk
from meter.store.db import StoreError, checkpoint, open_store
from meter.store.outbox import Depth, depths

GAUGES_EVERY_S = 5.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MeterOptions:
    """Everything the meter needs to know. `url` as for `open_store`."""

    url: str
    mail: MailOptions | None = None
    mqtt: MqttOptions | None = None
    link: LinkOptions | None = None
    poll_ms: int = POLL_MS
    outbox: OutboxOptions = field(default_factory=OutboxOptions)


async def run_meter(options: MeterOptions, stop: asyncio.Event) -> None:
    """Follow the journal and deliver the outbox until `stop`. Raises StoreError where the store cannot be opened."""
    engine = await open_store(options.url)
    try:
        await _Meter(engine, options).run(stop)
    finally:
        await engine.dispose()


class _Meter:
    """The parts of one meter."""

    def __init__(self, engine: AsyncEngine, options: MeterOptions) -> None:
        self._engine = engine
        self._options = options
        self._mail = MailDeliverer(engine, options.mail, options.link) if options.mail else None
        self._mqtt = MqttDeliverer(options.mqtt) if options.mqtt else None
        deliverers = [one for one in (self._mail, self._mqtt) if one is not None]
        self._loops = [OutboxLoop(engine, one, options.outbox) for one in deliverers]
        settle = SettleOptions(
            mqtt=options.mqtt is not None,
            mask_phone=options.mqtt.mask_phone if options.mqtt else True,
            poll_ms=options.poll_ms,
        )
        self._follower = Follower(engine, settle, on_settled=self._wake)

    async def run(self, stop: asyncio.Event) -> None:
        _log.info("meter started", mail=self._mail is not None, mqtt=self._mqtt is not None)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follower.run(stop), name="follower")
                for loop in self._loops:
                    group.create_task(loop.run(stop), name="outbox")
                if self._mqtt is not None:
                    group.create_task(self._mqtt.run(stop), name="mqtt")
                group.create_task(prune_for_ever(self._engine, self._options.outbox, stop), name="prune")
                group.create_task(self._gauges(stop), name="gauges")
        finally:
            await self._follower.close()
            if self._mail is not None:
                await self._mail.close()

    def _wake(self) -> None:
        for loop in self._loops:
            loop.wake()

    async def _gauges(self, stop: asyncio.Event) -> None:
        clerk = Clerk(self._engine)
        while not stop.is_set():
            with contextlib.suppress(
                SQLAlchemyError, StoreError, sqlite3.Error
            ):  # a failing store shows in the follower's faults
                show_depths(await clerk.read(depths))
                await checkpoint(self._engine)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GAUGES_EVERY_S):
                    await stop.wait()
        await clerk.close()


def show_depths(found: list[Depth]) -> None:
    """Set the outbox's gauges; a channel with nothing in it shows zero."""
    now_us = time.time_ns() // 1000
    waiting = {depth.channel: depth for depth in found}
    for channel in (MAIL, MQTT):
        depth = waiting.get(channel, Depth(channel, 0, None, 0))
        age_us = 0 if depth.oldest_utc_us is None else now_us - depth.oldest_utc_us
        metrics.OUTBOX_DEPTH.labels(channel).set(depth.pending)
        metrics.OUTBOX_OLDEST.labels(channel).set(max(0.0, age_us / 1_000_000))
