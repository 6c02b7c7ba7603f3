"""The meter's process, put together: the follower, one outbox loop per channel, the gauges.

`baton` makes the options from the settings and runs this; nothing here reads a setting or a file. Channels that are not
configured are not run: e-mails then wait in the outbox until there is a mail server, outcomes are not queued for MQTT.
If any part fails for a reason that it does not know how to outlive, all stop and the error goes to the caller, who is
the supervisor; starting again is safe at any time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from meter import texts
from meter.credit_mail import KIND as CREDIT
from meter.credit_mail import CreditComposer
from meter.credits import ReasonBook
from meter.cycle import Cycle, CycleOptions
from meter.daily import DailyReports, ReportOptions
from meter.document_mail import HOLD_KIND as HOLD
from meter.document_mail import KIND as DOCUMENT
from meter.document_mail import DocumentComposer, HoldComposer
from meter.lead_mail import KIND as LEAD
from meter.lead_mail import LeadComposer
from meter.letters import Composer, MailOptions
from meter.links import LinkOptions
from meter.mail import MailDeliverer
from meter.mqtt import CHANNEL as MQTT
from meter.mqtt import MqttDeliverer, MqttOptions
from meter.outbox import OutboxLoop, OutboxOptions, prune_for_ever
from meter.papers import render_for_ever
from meter.rating_mail import KIND as RATING
from meter.rating_mail import RatingComposer
from meter.report_mail import KIND as REPORT
from meter.report_mail import ReportComposer
from meter.settle import POLL_MS, Follower, SettleOptions
from meter.store.db import open_store
from meter.store.mail import CHANNEL as MAIL
from meter.watch import Watch

GAUGES_EVERY_S = 5.0
BOUNCES_US = 7 * 24 * 3600 * 1_000_000  # for how long a bounce stands in its gauge

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
    cycle: CycleOptions | None = None  # None: billing is run by hand alone
    credit_reasons: ReasonBook | None = None  # None: those that ship
    reports: ReportOptions | None = None  # None: daily reports are run by hand alone


def composers(options: MeterOptions) -> dict[str, Composer]:
    """Who makes the e-mails of each kind. The modules named here also bring the samples of their templates."""
    return {
        LEAD: LeadComposer(options.link),
        DOCUMENT: DocumentComposer(),
        HOLD: HoldComposer(),
        CREDIT: CreditComposer(options.credit_reasons),
        RATING: RatingComposer(options.link),
        REPORT: ReportComposer(options.link),
    }


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
        self._mail = MailDeliverer(engine, options.mail, composers(options)) if options.mail else None
        self._mqtt = MqttDeliverer(options.mqtt) if options.mqtt else None
        deliverers = [one for one in (self._mail, self._mqtt) if one is not None]
        self._loops = [OutboxLoop(engine, one, options.outbox) for one in deliverers]
        settle = SettleOptions(
            mqtt=options.mqtt is not None,
            mask_phone=options.mqtt.mask_phone if options.mqtt else True,
            poll_ms=options.poll_ms,
            ask_rating=options.link is not None,
        )
        self._follower = Follower(engine, settle, on_settled=self._wake)
        self._cycle = Cycle(engine, options.cycle, on_documents=self._wake) if options.cycle else None
        self._watch = Watch(engine, (MAIL, MQTT))
        self._reports = DailyReports(engine, options.reports, on_mail=self._wake) if options.reports else None

    async def run(self, stop: asyncio.Event) -> None:
        use_templates(self._options.mail)
        _log.info("meter started", mail=self._mail is not None, mqtt=self._mqtt is not None)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follower.run(stop), name="follower")
                for loop in self._loops:
                    group.create_task(loop.run(stop), name="outbox")
                if self._mqtt is not None:
                    group.create_task(self._mqtt.run(stop), name="mqtt")
                if self._cycle is not None:
                    group.create_task(self._cycle.run(stop), name="billing")
                    group.create_task(render_for_ever(self._engine, stop), name="documents")
                if self._reports is not None:
                    group.create_task(self._reports.run(stop), name="reports")
                group.create_task(prune_for_ever(self._engine, self._options.outbox, stop), name="prune")
                group.create_task(self._watch.run(stop), name="gauges")
        finally:
            await self._follower.close()
            if self._cycle is not None:
                await self._cycle.close()
            if self._reports is not None:
                await self._reports.close()
            if self._mail is not None:
                await self._mail.close()

    def _wake(self) -> None:
        for loop in self._loops:
            loop.wake()


def use_templates(mail: MailOptions | None) -> None:
    """Put the operator's templates in force; what is wrong with them is logged, and the shipped ones stand in."""
    folder = Path(mail.templates_dir) if mail is not None and mail.templates_dir else None
    for fault in texts.use(folder).faults():
        _log.error("template cannot be used", fault=str(fault))
