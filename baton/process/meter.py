"""The meter process: settings turned into `meter.run`'s options."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from importlib.metadata import version
from pathlib import Path

from baton.process.commands import executor
from baton.process.signals import relog_on_hangup, stop_on_signals
from baton.process.vitals import Vitals, alive
from config.mail import MailSection
from config.settings import Settings, load, load_running
from meter.billing.arithmetic.drafts import Issuer
from meter.billing.cycle import CycleOptions
from meter.credits.rules import load_reasons
from meter.letters.chain_heads import HeadsOptions
from meter.mail.dkim_signing import DkimOptions
from meter.mail.message import MailOptions
from meter.mqtt.channel import MqttOptions
from meter.mqtt.commands import Commander
from meter.per_minute.daily import ReportOptions
from meter.run import MeterOptions, run_meter
from meter.text.links import LinkOptions
from meter.webhooks.channel import WebhookOptions
from meter.webhooks.http_post import PostOptions
from telemetry import logs

REPORTS = "reports"  # folder of daily reports, in the data folder
HEADS = "heads"  # folder of the ends of all chains, a file a day, likewise


def main(config_path: Path, *, supervised: bool = False) -> None:
    """Run the meter until told to stop. Raises ConfigError on a bad file."""
    settings = load_running(config_path, os.environ)[0] if supervised else load(config_path, os.environ)
    logs.configure(**settings.log.options, process="meter")
    run = partial(_run, config_path, meter_options(settings), supervised=supervised)
    asyncio.run(alive("meter", settings, run, supervised=supervised))


async def _run(config_path: Path, options: MeterOptions, vitals: Vitals, *, supervised: bool) -> None:
    stop = asyncio.Event()
    stop_on_signals(asyncio.get_running_loop(), stop, supervised=supervised)
    relog_on_hangup(asyncio.get_running_loop(), config_path, "meter")
    await run_meter(options, stop, on_started=vitals.up)


def meter_options(settings: Settings) -> MeterOptions:
    """The meter's view of the settings."""
    link = link_options(settings)
    return MeterOptions(
        url=settings.store_url,
        secrets_key=settings.secrets_key,
        mail=mail_options(settings),
        mqtt=_mqtt(settings),
        commanders=_commanders(settings),
        execute=partial(executor, data_dir=settings.store.data_dir),
        webhooks=webhook_options(settings),
        link=link,
        cycle=cycle_options(settings) if settings.billing.enabled else None,
        credit_reasons=load_reasons(settings.billing.credit_reasons_file),
        heads=HeadsOptions(settings.store.data_dir / HEADS, heads_to(settings)),
        reports=ReportOptions(settings.store.data_dir / REPORTS, link) if settings.billing.enabled else None,
    )


def heads_to(settings: Settings) -> tuple[str, ...]:
    """Who gets the ends of all chains by e-mail: the addresses that are named for it, else the operator's own."""
    operator = settings.operator
    own = (operator.email,) if operator.email else ()
    return operator.heads_to or own if settings.mail is not None else ()


def webhook_options(settings: Settings) -> WebhookOptions:
    """How buyers' endpoints are posted to."""
    said = settings.webhooks
    allow = frozenset(host.lower().rstrip(".") for host in said.allow_hosts)
    return WebhookOptions(
        PostOptions(allow, said.timeout_ms / 1000, str(said.ca_file or "")),
        disable_after_s=said.disable_after_hours * 3600.0,
        redact_fields=frozenset(said.redact_fields),
        agent=f"Baton/{version('baton')}",
    )


def link_options(settings: Settings) -> LinkOptions | None:
    """How signed links are made; None where there is no section `[links]`."""
    links = settings.links
    return LinkOptions(links.base_url, links.secret.get_secret_value()) if links is not None else None


def cycle_options(settings: Settings) -> CycleOptions:
    """Whose name documents bear, how they are numbered, and when a week is settled."""
    operator, billing = settings.operator, settings.billing
    issuer = Issuer(
        name=operator.name,
        address=operator.address,
        tax_id=operator.tax_id,
        email=operator.email or "",
        phone=operator.phone,
        pay_to=operator.pay_to,
        prefixes={
            "invoice": billing.invoice_prefix,
            "credit_note": billing.credit_note_prefix,
            "statement": billing.statement_prefix,
        },
    )
    return CycleOptions(issuer, billing.settle_after_ms * 1_000, gives_way=True)


def mail_options(settings: Settings) -> MailOptions | None:
    """The mail server, whose name mails bear, and how they are signed; None where there is no section `[mail]`."""
    mail, links = settings.mail, settings.links
    if mail is None:
        return None
    return MailOptions(
        host=mail.host,
        port=mail.port,
        security=mail.security.value,
        username=mail.username,
        password=mail.password.get_secret_value(),
        sender=mail.sender,
        reply_to=mail.reply_to or "",
        timeout_s=mail.timeout_ms / 1000,
        templates_dir=str(mail.templates_dir or ""),
        dkim=_dkim(mail),
        bounce_address=mail.bounce_address or "",
        bounce_secret=links.secret.get_secret_value() if links is not None else "",
    )


def _dkim(mail: MailSection) -> DkimOptions | None:
    if mail.dkim_domain is None or mail.dkim_selector is None or mail.dkim_key_file is None:
        return None
    return DkimOptions(mail.dkim_domain, mail.dkim_selector, mail.dkim_key_file)


def _mqtt(settings: Settings) -> MqttOptions | None:
    mqtt = settings.mqtt
    if mqtt is None:
        return None
    return MqttOptions(
        host=mqtt.host,
        port=mqtt.port,
        username=mqtt.username,
        password=mqtt.password.get_secret_value(),
        tls=mqtt.tls,
        ca_file=str(mqtt.ca_file) if mqtt.ca_file is not None else "",
        prefix=mqtt.prefix,
        mask_phone=mqtt.mask_phone,
        version=mqtt.version,
        client_id=mqtt.client_id,
        certificate_file=str(mqtt.certificate_file or ""),
        key_file=str(mqtt.key_file or ""),
    )


def _commanders(settings: Settings) -> tuple[Commander, ...]:
    if settings.mqtt is None:
        return ()
    return tuple(
        Commander(one.name, tuple(secret.get_secret_value() for secret in one.secrets), one.buyer or "")
        for one in settings.mqtt.commanders
    )
