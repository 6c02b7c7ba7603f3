"""Commands on e-mail: `mail list`, `waiting`, `show`, `resend`, `preview`, `test`, `check-templates`, `bounce`."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baton.cli.console import (
    CommandError,
    ConfigOption,
    JsonOption,
    StoreOption,
    clean,
    find_place,
    out,
    print_json,
    print_table,
    when,
    with_store,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from meter.mail.bounces import BounceRecord
    from meter.mail.message import Letter
    from meter.mail.smtp import Reply
    from meter.mail.sql.messages import BounceRow, MailRow
    from meter.mail.sql.recipients import Recipient, Waiting

EX_DATAERR = 65  # sysexits.h: an MTA takes this for "no use in trying again"
EX_TEMPFAIL = 75  # and this for "try again later"
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))  # seconds
_CHUNK = 1 << 16
_DRAINED = 64 << 20  # octets of a report that are taken off the pipe; few are looked at

mail = typer.Typer(help="E-mail: what was sent, what bounced, how it looks.", no_args_is_help=True)

MessageArgument = Annotated[str, typer.Argument(metavar="MESSAGE_ID", help="Message id, such as TRANSFER.lead.")]


class State(StrEnum):
    PENDING = "pending"
    DONE = "done"
    DEAD = "dead"
    WAITING = "waiting"
    BOUNCED = "bounced"


class Format(StrEnum):
    TEXT = "text"
    HTML = "html"
    EML = "eml"


@mail.command("list")
def list_(
    *,
    state: Annotated[State | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most this many, the newest first.")] = 100,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List messages, the newest first: on their way, handed over, given up, waiting for an address, bounced."""
    from meter.mail.sql.messages import list_mail
    from meter.store.clerk import Clerk

    async def work(engine: AsyncEngine) -> list[MailRow]:
        clerk = Clerk(engine)
        try:
            return await clerk.read(list_mail, state.value if state else "", limit)
        finally:
            await clerk.close()

    rows = [_listed(row) for row in with_store(find_place(config, store), work)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("message", "kind", "state", "age", "attempts", "to", "error"),
        [
            (
                row["message_id"],
                row["kind"],
                row["state"],
                _span(row["age_s"]),
                row["attempts"],
                ", ".join(row["to"]) or "the buyer's",
                row["error"],
            )
            for row in rows
        ],
    )


@mail.command()
def waiting(config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False) -> None:
    """Show, by buyer, how many messages wait for an address, and for which. Exit code 1: some do."""
    from meter.mail.sql.recipients import waiting as read_waiting
    from meter.store.clerk import Clerk

    async def work(engine: AsyncEngine) -> list[Waiting]:
        clerk = Clerk(engine)
        try:
            return await clerk.read(read_waiting)
        finally:
            await clerk.close()

    found = with_store(find_place(config, store), work)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        rows = [(one.buyer, one.field, one.messages, when(one.oldest_utc_us)) for one in found]
        print_table(("buyer", "needs", "messages", "oldest"), rows)
    if found:
        raise typer.Exit(1)


@mail.command()
def show(
    message_id: MessageArgument, config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False
) -> None:
    """Show one message: its attempts, its recipients, and every bounce."""
    from meter.mail.sql.messages import bounces_of
    from meter.mail.sql.recipients import recipients_of
    from meter.store.clerk import Clerk

    async def work(engine: AsyncEngine) -> tuple[MailRow, list[BounceRow], list[Recipient]]:
        clerk = Clerk(engine)
        try:
            row = await _find(clerk, message_id)
            tried = await clerk.read(recipients_of, message_id)
            return row, await clerk.read(bounces_of, message_id), list(tried.values())
        finally:
            await clerk.close()

    row, bounces, tried = with_store(find_place(config, store), work)
    resent = row.order.get("resent")
    if as_json:
        more = {
            "recipients": [asdict(recipient) for recipient in tried],
            "bounces": [asdict(entry) for entry in bounces],
        }
        print_json(_listed(row) | {"resent": resent, **more})
        return
    out(f"{clean(row.message_id)}: {row.kind}, {row.state}, {row.attempts} attempts")
    out(f"to {clean(', '.join(row.to)) or 'the present addresses of the buyer'}")
    out(f"queued {when(row.created_utc_us)}")
    if isinstance(resent, dict):
        out(f"sent again by {clean(str(resent.get('by', '')))}")
    if row.state == State.PENDING:
        out(f"next try {when(row.next_try_utc_us)}")
    if row.done_utc_us is not None:
        out(f"{'given up' if row.state == State.DEAD else 'handed over'} {when(row.done_utc_us)}")
    if row.error:
        out(f"error: {clean(row.error)}")
    if tried:
        _print_recipients(tried)
    if bounces:
        _print_bounces(bounces)


@mail.command()
def resend(
    message_id: MessageArgument,
    *,
    to: Annotated[list[str] | None, typer.Option("--to", help="Send to this address instead; may be repeated.")] = None,
    current: Annotated[bool, typer.Option("--current", help="Send to the buyer's present addresses.")] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Queue a message again that was sent, given up or bounced; its Message-ID stays, so a repeat is recognised."""
    import getpass

    import structlog

    from meter.mail.sql.recipients import send_again
    from meter.store.clerk import Clerk

    if to and current:
        raise typer.BadParameter("give --to or --current, not both", param_hint="--current")
    given = [] if current else [_address(address) for address in to] if to else None
    by = getpass.getuser()

    async def work(engine: AsyncEngine) -> bool:
        clerk = Clerk(engine)
        try:
            row = await _find(clerk, message_id)
            return await clerk.write(send_again, row, given, by, _now())
        finally:
            await clerk.close()

    if not with_store(find_place(config, store), work):
        raise CommandError(f"{clean(message_id)} is waiting to be sent already")
    structlog.get_logger(__name__).info("mail_resent", message_id=message_id, by=by)
    out(f"{clean(message_id)} is queued again by {by}; the meter sends it within seconds")


@mail.command()
def preview(
    transfer: Annotated[str, typer.Argument(metavar="TRANSFER", help="Id of a failed transfer.")],
    *,
    format_: Annotated[Format, typer.Option("--format", help="A body, or the whole message.")] = Format.TEXT,
    out_file: Annotated[Path | None, typer.Option("--out", help="Write to this file.")] = None,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Print the e-mail of a failed transfer exactly as it is sent, signature included; nothing is sent."""
    from baton.cli.mailing import find_mailing, letter_of
    from meter.mail.channel import Postman
    from meter.outbox.delivery import NeverDeliverableError

    mailing = find_mailing(config, store)
    postman = Postman(mailing.server) if format_ is Format.EML else None

    async def work(engine: AsyncEngine) -> bytes:
        try:
            letter = await letter_of(engine, mailing, transfer)
            if postman is not None:
                return await postman.wire(letter)
        except NeverDeliverableError as error:
            raise CommandError(f"the e-mail of {clean(transfer)} cannot be made: {error}") from error
        return (letter.html if format_ is Format.HTML else letter.text).encode()

    made = with_store(mailing.place, work)
    if out_file is not None:
        out_file.write_bytes(made)
        out(f"{out_file}: {len(made):,} bytes")
    else:
        typer.echo(made, nl=not made.endswith(b"\n"))


@mail.command("test")
def send_test(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Who gets the test message.")],
    config: ConfigOption = None,
) -> None:
    """Send one test message through the configured server, and say what the server said."""
    import asyncio

    from baton.cli.mailing import find_mailing
    from meter.mail.channel import Postman
    from meter.mail.sql.recipients import TAKEN
    from meter.outbox.delivery import DeliveryError

    options = find_mailing(config, "").server
    letter = _test_letter(_address(address))
    postman = Postman(options)

    async def work() -> dict[str, Reply]:
        return await postman.send(letter)

    try:
        [reply] = asyncio.run(work()).values()
    except DeliveryError as error:
        raise CommandError(f"{options.host}:{options.port} did not take it: {clean(str(error))}") from error
    if reply.state != TAKEN:
        said = f"{reply.code or ''} {reply.text}".strip()
        raise CommandError(f"{options.host}:{options.port} did not take it: {clean(said)}")
    signed = "signed" if options.dkim is not None else "not signed"
    out(f"{options.host}:{options.port} took it ({signed}) and said: {clean(reply.text)}")


@mail.command("check-templates")
def check_templates(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Parse and try each template of your own. Exit code 1: one is broken, and the shipped one is used instead."""
    from baton.cli.mailing import find_mailing
    from meter.text.texts import Texts

    options = find_mailing(config, "").server
    if not options.templates_dir:
        out("mail.templates_dir is not set: the shipped templates are used")
        return
    texts = Texts(Path(options.templates_dir))
    faults = texts.faults()
    if as_json:
        print_json({"replaced": texts.replaced(), "faults": [asdict(one) for one in faults]})
    else:
        for name in texts.replaced():
            out(f"replaced: {clean(name)}")
        for one in faults:
            out(f"problem: {clean(str(one))}")
        out("no problems" if not faults else f"{len(faults)} problem{'s' if len(faults) > 1 else ''}")
    if faults:
        raise typer.Exit(1)


@mail.command()
def bounce(
    file: Annotated[Path, typer.Argument(metavar="[FILE|-]", help="The report as received; -: standard input.")] = Path(
        "-"
    ),
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Record one report of failed delivery (RFC 3464), as a mail server pipes it in.

    Exit codes are those of a mail server's pipe: 0 recorded, or recorded before, or it tells of no failure; 65 it is no
    report of delivery; 75 it could not be recorded now and shall be offered again.
    """
    import os

    try:
        recorded = _record(file, config, store)
    except Exception as error:  # whatever it is: the mail server keeps the report and offers it again
        if os.environ.get("BATON_DEBUG"):
            raise
        typer.echo(f"baton: the report was not recorded: {clean(str(error).partition(chr(10))[0])}", err=True)
        raise typer.Exit(EX_TEMPFAIL) from None
    if recorded is None:
        typer.echo("baton: this is no report of failed delivery", err=True)
        raise typer.Exit(EX_DATAERR)
    if as_json:
        print_json([asdict(record.row) | {"is_new": record.is_new} for record in recorded])
        return
    for record in recorded:
        row = record.row
        about = clean(row.message_id) or "no message of ours"
        how = f"{'for good' if row.permanent else 'for now'} {row.status}".rstrip()
        out(f"{about}: {clean(row.recipient) or 'somebody'} bounced {how}{'' if record.is_new else ' (known already)'}")
    if not recorded:
        out("the report tells of no failure")


def _record(file: Path, config: Path | None, store: str) -> list[BounceRecord] | None:
    from baton.cli.mailing import find_mailing
    from meter.mail.bounces import read_report, record_report
    from meter.store.clerk import Clerk

    raw = _read(file)
    mailing = find_mailing(config, store)
    report = read_report(raw, mailing.server)
    if report is None:
        return None

    async def work(engine: AsyncEngine) -> list[BounceRecord]:
        clerk = Clerk(engine)
        try:
            return await record_report(report, mailing.server, clerk, _now())
        finally:
            await clerk.close()

    return with_store(mailing.place, work)


def _read(file: Path) -> bytes:
    """The first part of a report; the rest is taken off the pipe and dropped, so that who writes it can finish."""
    from meter.mail.bounces import LOOKED_AT

    opened = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    with opened:
        raw = opened.read(LOOKED_AT)
        left = _DRAINED
        while left > 0 and (chunk := opened.read(_CHUNK)):
            left -= len(chunk)
    return raw


async def _find(clerk: Any, message_id: str) -> MailRow:
    from meter.mail.sql.messages import find_mail

    row: MailRow | None = await clerk.read(find_mail, message_id)
    if row is None:
        raise CommandError(f"no e-mail has the message id {clean(message_id)!r}; those sent are kept for a week")
    return row


def _listed(row: MailRow) -> dict[str, Any]:
    """A row as it is shown: nothing of what the order holds but its kind and its addresses."""
    shown = asdict(row)
    del shown["order"], shown["id"]
    return shown | {"age_s": max(0, _now() - row.created_utc_us) // 1_000_000}


def _print_recipients(tried: list[Recipient]) -> None:
    print_table(
        ("recipient", "state", "attempts", "last try", "next try", "said"),
        [
            (
                one.address,
                one.state,
                one.attempts,
                when(one.at_utc_us),
                when(one.next_try_utc_us) if one.state == "retried" else "",
                clean(f"{one.code or ''} {one.said}".strip()),
            )
            for one in tried
        ],
    )


def _print_bounces(bounces: list[BounceRow]) -> None:
    print_table(
        ("bounced", "recipient", "for good", "status", "diagnostic"),
        [(when(one.at_utc_us), one.recipient, one.permanent, one.status, one.diagnostic) for one in bounces],
    )


def _test_letter(address: str) -> Letter:
    import uuid

    from meter.mail.message import Letter

    text = "This is a test message of Baton. If you can read it, e-mail works.\n"
    return Letter(
        to=(address,),
        subject="Baton: a test message",
        text=text,
        html="",
        attachments=(),
        message_id=f"test.{uuid.uuid4().hex}",
        date_utc_us=_now(),
    )


def _address(text: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    from book.types import MailAddress

    try:
        return str(TypeAdapter(MailAddress).validate_python(text))
    except ValidationError as error:
        raise typer.BadParameter(f"{clean(text)!r} is not an e-mail address") from error


def _span(seconds: int) -> str:
    """An age for people, its largest unit only."""
    return next((f"{seconds // size} {unit}" for size, unit in _SPANS if seconds >= size), f"{seconds} s")


def _now() -> int:
    return time.time_ns() // 1000
