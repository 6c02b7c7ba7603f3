"""The meter's process, put together: the follower, one outbox loop per channel, the gauges.

`baton` makes the options from the settings and runs this; nothing here reads a setting or a file. Channels that are not
configured are not run: e-mails then wait in the outbox until there is a mail server, events wait in the journal.
If any part fails for a reason that it does not know how to outlive, all stop and the error goes to the caller, who is
the supervisor; starting again is safe at any time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing.cycle import Cycle, CycleOptions
from meter.billing.documents import render_for_ever
from meter.billing.letter import HOLD_KIND as HOLD
from meter.billing.letter import KIND as DOCUMENT
from meter.billing.letter import DocumentComposer, HoldComposer
from meter.credits.letter import KIND as CREDIT
from meter.credits.letter import CreditComposer
from meter.credits.rules import ReasonBook
from meter.events.follower import POLL_MS as STREAM_POLL_MS
from meter.events.follower import BatchResult, Stream
from meter.events.model import Event
from meter.events.sql.streams import Boot
from meter.journal.sql.chain_heads import KIND as HEADS
from meter.letters.chain_heads import HeadsComposer, HeadsExport, HeadsOptions
from meter.letters.lead import LeadComposer
from meter.mail.channel import LEAD, MailDeliverer
from meter.mail.message import Composer, MailOptions
from meter.mail.sql.messages import CHANNEL as MAIL
from meter.mail.waiting import Releaser
from meter.mqtt.channel import CHANNEL as MQTT
from meter.mqtt.channel import STREAM as MQTT_STREAM
from meter.mqtt.channel import MqttLink, MqttOptions
from meter.mqtt.commands import Commander, Commands, Execute
from meter.mqtt.sql.commands import forget_commands
from meter.mqtt.states import States
from meter.outbox.delivery import OutboxLoop, OutboxOptions, prune_for_ever
from meter.per_minute.daily import DailyReports, ReportOptions
from meter.per_minute.rating_letter import KIND as RATING
from meter.per_minute.rating_letter import RatingComposer
from meter.per_minute.report_letter import KIND as REPORT
from meter.per_minute.report_letter import ReportComposer
from meter.settling.follower import POLL_MS, Follower, SettleOptions
from meter.settling.watch import Watch
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.text import texts
from meter.text.links import LinkOptions
from meter.webhooks.channel import STREAM as WEBHOOK_STREAM
from meter.webhooks.channel import WebhookDeliverer, WebhookOptions, WebhookQueue
from meter.webhooks.sql import CHANNEL as WEBHOOK
from meter.webhooks.sql import seal_plain

FOLLOWER_S = 15.0  # it looks every 400 ms, after an error every 5 s; silent for longer, it does not follow

Health = Callable[[], dict[str, str]]  # part -> "ok", or what is wrong with it

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MeterOptions:
    """Everything the meter needs to know. `url` as for `open_store`."""

    url: str
    secrets_key: str = field(default="", repr=False)
    mail: MailOptions | None = None
    mqtt: MqttOptions | None = None
    commanders: tuple[Commander, ...] = ()  # who may send commands by MQTT
    execute: Callable[[AsyncEngine], Execute] | None = None  # makes what does these commands; None: none are taken
    webhooks: WebhookOptions = field(default_factory=WebhookOptions)
    link: LinkOptions | None = None
    poll_ms: int = POLL_MS
    outbox: OutboxOptions = field(default_factory=OutboxOptions)
    cycle: CycleOptions | None = None  # None: billing is run by hand alone
    credit_reasons: ReasonBook | None = None  # None: those that ship
    reports: ReportOptions | None = None  # None: daily reports are run by hand alone
    heads: HeadsOptions | None = None  # where the ends of all chains go, daily


def composers(options: MeterOptions) -> dict[str, Composer]:
    """The composers of e-mails by kind. The modules named here also bring the samples of their templates."""
    return {
        LEAD: LeadComposer(options.link),
        DOCUMENT: DocumentComposer(),
        HOLD: HoldComposer(),
        CREDIT: CreditComposer(options.credit_reasons),
        RATING: RatingComposer(options.link),
        REPORT: ReportComposer(options.link),
        HEADS: HeadsComposer(),
    }


async def run_meter(
    options: MeterOptions, stop: asyncio.Event, on_started: Callable[[Health], None] | None = None
) -> None:
    """Follow the journal and deliver the outbox until `stop`. Raises StoreError where the store cannot be opened.

    `on_started` gets what tells how the meter is, from then on and at any time.
    """
    engine = await open_store(options.url, secrets_key=options.secrets_key)
    await _seal(engine)
    try:
        meter = _Meter(engine, options)
        if on_started is not None:
            on_started(meter.health)
        await meter.run(stop)
    finally:
        await engine.dispose()


async def _seal(engine: AsyncEngine) -> None:
    """Secrets that were written before there was a key are sealed with it."""
    clerk = Clerk(engine)
    try:
        count = await clerk.write(seal_plain)
    except OSError as error:  # the folder takes no key: they stay as they are, and everything goes on
        _log.error("secrets_not_sealed", error=str(error))
    else:
        if count:
            _log.info("secrets_sealed", webhooks=count)
    finally:
        await clerk.close()


class _Part(Protocol):
    """What runs until it is told to stop."""

    def run(self, stop: asyncio.Event) -> Coroutine[Any, Any, None]: ...


class _Meter:
    """The parts of one meter."""

    def __init__(self, engine: AsyncEngine, options: MeterOptions) -> None:
        self._engine = engine
        self._options = options
        self._mail = MailDeliverer(engine, options.mail, composers(options), options.outbox) if options.mail else None
        self._mqtt = _Mqtt(engine, options, options.mqtt, self._wake) if options.mqtt else None
        self._loops = [OutboxLoop(engine, self._mail, options.outbox)] if self._mail else []
        if self._mqtt is not None:
            self._loops.append(self._mqtt.outbox)
        self._webhooks = _Webhooks(engine, options)
        self._loops.append(self._webhooks.outbox)
        settle = SettleOptions(poll_ms=options.poll_ms, ask_rating=options.link is not None)
        self._follower = Follower(engine, settle, on_settled=self._wake)
        self._cycle = Cycle(engine, options.cycle, on_documents=self._wake) if options.cycle else None
        self._streams = [self._webhooks.stream, *([self._mqtt.stream] if self._mqtt is not None else [])]
        self._releaser = Releaser(engine)
        self._watch = Watch(engine, (MAIL, MQTT, WEBHOOK), self._streams)
        self._heads = HeadsExport(engine, options.heads, on_mail=self._wake) if options.heads else None
        self._reports = DailyReports(engine, options.reports, on_mail=self._wake) if options.reports else None

    async def run(self, stop: asyncio.Event) -> None:
        use_templates(self._options.mail)
        _log.info("meter started", mail=self._mail is not None, mqtt=self._mqtt is not None)
        for stream in self._streams:
            await stream.begin()
        try:
            async with asyncio.TaskGroup() as group:
                for name, part in self._parts():
                    group.create_task(part.run(stop), name=name)
                if self._cycle is not None:
                    group.create_task(render_for_ever(self._engine, stop), name="documents")
                group.create_task(
                    prune_for_ever(self._engine, self._options.outbox, stop, (forget_commands,)), name="prune"
                )
        finally:
            for closing in (
                self._follower,
                self._cycle,
                self._reports,
                self._heads,
                self._mail,
                self._webhooks,
                self._mqtt,
            ):
                if closing is not None:
                    await closing.close()

    def _parts(self) -> Iterator[tuple[str, _Part]]:
        """What runs until the end, by the names of its tasks."""
        yield "follower", self._follower
        yield "webhooks", self._webhooks.stream
        yield from (("outbox", loop) for loop in self._loops)
        yield from (("mqtt", part) for part in (self._mqtt.parts if self._mqtt is not None else ()))
        if self._cycle is not None:
            yield "billing", self._cycle
        if self._reports is not None:
            yield "reports", self._reports
        if self._heads is not None:
            yield "heads", self._heads
        yield "waiting", self._releaser
        yield "gauges", self._watch

    def health(self) -> dict[str, str]:
        """Does it follow the journal? Brokers and mail servers may be away: what is for them waits."""
        looked_at = self._follower.looked_at
        if looked_at is None:
            return {"follower": "has not looked into the journal yet"}
        silent_s = time.monotonic() - looked_at
        return {"follower": "ok" if silent_s <= FOLLOWER_S else f"has not followed the journal for {silent_s:.0f} s"}

    def _wake(self) -> None:
        for loop in self._loops:
            loop.wake()


class _Mqtt:
    """What speaks to the broker: the link, its outbox, events, retained states, and commands."""

    def __init__(self, engine: AsyncEngine, options: MeterOptions, mqtt: MqttOptions, wake: Callable[[], None]) -> None:
        self._commands: Commands | None = None
        if options.commanders and options.execute is not None:
            self._commands = Commands(engine, options.commanders, options.execute(engine), wake)
        link = MqttLink(engine, mqtt, self._commands.take if self._commands is not None else None)
        self.outbox = OutboxLoop(engine, link, options.outbox)
        poll_ms = min(STREAM_POLL_MS, options.poll_ms)
        self.stream = Stream(engine, MQTT_STREAM, link.hand_over, ready=link.ready, poll_ms=poll_ms)
        self.parts: tuple[MqttLink | Stream | States, ...] = (link, self.stream, States(engine, wake))

    async def close(self) -> None:
        if self._commands is not None:
            await self._commands.close()


class _Webhooks:
    """What posts to buyers' endpoints: the follower that queues, and the outbox that delivers."""

    def __init__(self, engine: AsyncEngine, options: MeterOptions) -> None:
        self._queue = WebhookQueue(engine)
        self._deliverer = WebhookDeliverer(engine, options.webhooks)
        self.outbox = OutboxLoop(engine, self._deliverer, options.outbox)
        poll_ms = min(STREAM_POLL_MS, options.poll_ms)
        self.stream = Stream(engine, WEBHOOK_STREAM, self._take, kinds=self._queue.kinds, poll_ms=poll_ms)

    async def _take(self, events: Sequence[Event], ends: dict[Boot, int]) -> BatchResult:
        taken = await self._queue.take(events, ends)
        if taken is BatchResult.WRITTEN:
            self.outbox.wake()
        return taken

    async def close(self) -> None:
        await self._queue.close()
        await self._deliverer.close()


def use_templates(mail: MailOptions | None) -> None:
    """Put the operator's templates in force; what is wrong with them is logged, and the shipped ones stand in."""
    folder = Path(mail.templates_dir) if mail is not None and mail.templates_dir else None
    for fault in texts.use(folder).faults():
        _log.error("template cannot be used", fault=str(fault))
