"""Shared by the commands on e-mail: composers and senders made from the settings, and the faults of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from baton.cli.console import DEFAULT_CONFIG, CommandError, Place, clean, find_place, find_settings
from baton.process.meter import mail_options, meter_options
from book.problems import Problem
from config.settings import Settings
from facts.fact import Kind, first_of
from facts.ladder import build_ladder
from facts.outcome import CountsAs
from facts.start_payload import lead_emails
from meter.journal.sql.reading import read_transfer
from meter.mail.channel import LEAD, compose
from meter.mail.dkim_signing import DkimKeyError, Signer
from meter.mail.message import Composer, Letter, MailOptions
from meter.mail.sql.messages import find_mail
from meter.run import MeterOptions, composers, use_templates
from meter.store.clerk import Clerk
from meter.text.texts import Texts


@dataclass(frozen=True, slots=True)
class Mailing:
    """A store, the mail server where there is one, and who composes."""

    place: Place
    mail: MailOptions | None
    composers: Mapping[str, Composer]

    @property
    def server(self) -> MailOptions:
        """Raises CommandError where no mail server is configured."""
        if self.mail is None:
            raise CommandError("there is no mail server: the configuration has no section [mail]")
        return self.mail


def find_mailing(config: Path | None, store: str) -> Mailing:
    """From the configuration, and from `--store` where that is given. Raises CommandError, ConfigError."""
    settings = find_settings(config)
    if settings is None:
        if not store:
            raise CommandError(f"which configuration? give --config (there is no {DEFAULT_CONFIG} here)")
        place = find_place(None, store)
        return Mailing(place, None, composers(MeterOptions(place.url)))
    place = find_place(None, store) if store else Place.of(settings)
    return Mailing(place, mail_options(settings), composers(meter_options(settings)))


async def letter_of(engine: AsyncEngine, mailing: Mailing, transfer: str) -> Letter:
    """The e-mail of a failed transfer as it would be sent now. Raises CommandError where none is."""
    facts = await read_transfer(engine, transfer)
    if not facts:
        raise CommandError(f"no transfer has the id {clean(transfer)!r}")
    ladder = build_ladder(facts)
    if not ladder.settled:
        raise CommandError(f"transfer {clean(transfer)} is still open")
    counts_as = ladder.outcome.counts_as
    if counts_as is not CountsAs.FAILED:
        raise CommandError(f"no e-mail is sent for transfer {clean(transfer)}: it counts as {counts_as.value}")
    use_templates(mailing.mail)
    clerk = Clerk(engine)
    try:
        row = await clerk.read(lambda connection: find_mail(connection, f"{transfer}.{LEAD}"))
        started = first_of(facts, Kind.TRANSFER_STARTED)
        frozen = {"transfer": transfer, "to": list(lead_emails(started)) if started else []}
        return await compose(row.order if row is not None else frozen, mailing.composers, clerk)
    finally:
        await clerk.close()


def mail_problems(settings: Settings) -> Iterator[Problem]:
    """What is wrong with the key and the templates that the settings name."""
    options = mail_options(settings)
    if options is None:
        return
    if options.dkim is not None:
        try:
            Signer(options.dkim)
        except DkimKeyError as error:
            yield Problem("mail.dkim_key_file", str(error).partition(": ")[2])
    if options.templates_dir:
        for fault in Texts(Path(options.templates_dir)).faults():
            yield Problem("mail.templates_dir", str(fault))
