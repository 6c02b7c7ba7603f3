"""The meter process: settings turned into `meter.run`'s options."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from baton.serve import relog_on_hangup, stop_on_signals
from config.settings import Settings, load
from meter import logs
from meter.links import LinkOptions
from meter.mail import MailOptions
from meter.mqtt import MqttOptions
from meter.run import MeterOptions, run_meter


def main(config_path: Path, *, supervised: bool = False) -> None:
    """Run the meter until told to stop. Raises ConfigError on a bad file."""
    settings = load(config_path, os.environ)
    logs.configure(json=settings.log.format == "json", level=settings.log.level)
    asyncio.run(_run(config_path, meter_options(settings), supervised=supervised))


async def _run(config_path: Path, options: MeterOptions, *, supervised: bool) -> None:
    stop = asyncio.Event()
    stop_on_signals(asyncio.get_running_loop(), stop, supervised=supervised)
    relog_on_hangup(asyncio.get_running_loop(), config_path)
    await run_meter(options, stop)


def meter_options(settings: Settings) -> MeterOptions:
    """The meter's view of the settings."""
    links = settings.links
    return MeterOptions(
        url=settings.store_url,
        mail=_mail(settings),
        mqtt=_mqtt(settings),
        link=LinkOptions(links.base_url, links.secret.get_secret_value()) if links is not None else None,
    )


def _mail(settings: Settings) -> MailOptions | None:
    mail = settings.mail
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
    )


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
    )
