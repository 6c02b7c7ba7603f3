"""Commands on credits: `credits list`, `show`, `next`, `ask`, `decide`, `re-review`, `ages`, `reasons`."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baton.cli.console import (
    ConfigOption,
    JsonOption,
    StoreOption,
    clean,
    find_place,
    find_settings,
    out,
    print_json,
    print_table,
    when,
    with_store,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from meter.credits.rules import Ages, ReasonBook
    from meter.credits.sql.reading import CreditFilter, Request
    from meter.credits.sql.requests import CreditApplication
    from meter.store.clerk import Clerk

_HOUR_US = 3_600_000_000
_DAYS = 30  # of decided requests that `ages` looks at

credits_ = typer.Typer(
    help="Credits: what buyers ask for, decided first in, first out, and re-reviewed once.", no_args_is_help=True
)

IdArgument = Annotated[int, typer.Argument(metavar="ID", help="Id of the request.")]
ByOption = Annotated[str, typer.Option("--by", help="Who; the user of this machine where nobody is named.")]
NumbersOption = Annotated[bool, typer.Option("--numbers", help="Show phone numbers in full.")]


class StateChoice(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    DECLINED = "declined"


@credits_.command("list")
def list_(
    *,
    buyer: Annotated[str, typer.Option(help="Only this buyer's.")] = "",
    state: Annotated[StateChoice | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most this many.")] = 100,
    numbers: NumbersOption = False,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List requests: open ones alone in the order of the line, else the newest first."""
    from meter.credits.sql.reading import CreditFilter, find_all

    wanted = CreditFilter(buyer=buyer, state=state.value if state else "", limit=limit)
    requests = _read(config, store, lambda clerk: clerk.read(lambda connection: find_all(connection, wanted)))
    rows = [_as_dict(row, numbers=numbers) for row in requests]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "re-review of", "place", "asked", "buyer", "transfer", "caller", "reason", "state", "amount"),
        [
            (
                row["id"],
                row["first"],
                row["place"] or None,
                when(row["asked_utc_us"]),
                row["buyer"],
                row["transfer"],
                row["phone"],
                row["reason"],
                row["state"],
                _amount(row),
            )
            for row in rows
        ],
    )


@credits_.command()
def show(
    request: IdArgument,
    numbers: NumbersOption = False,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show one request: what was asked, its place in line, and how it was decided."""
    from meter.credits.sql.reading import find

    found = _read(config, store, lambda clerk: clerk.read(lambda connection: find(connection, request)))
    _print(found, numbers=numbers, as_json=as_json)


@credits_.command("next")
def next_(
    numbers: NumbersOption = False, config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False
) -> None:
    """Show the request that is decided next: the oldest that is open. Exit code 1: none is."""
    from meter.credits.sql.reading import next_open

    found = _read(config, store, lambda clerk: clerk.read(next_open))
    if found is None:
        out("no request is open")
        raise typer.Exit(1)
    _print(found, numbers=numbers, as_json=as_json)
    if not as_json:
        out(f"what happened: baton transfers show {clean(found.transfer)}")


@credits_.command()
def ask(
    transfer: Annotated[str, typer.Argument(metavar="TRANSFER", help="The billed call, by its transfer id.")],
    *,
    reason: Annotated[str, typer.Option(help="One of `baton credits reasons`.")],
    words: Annotated[str, typer.Option(help="What was wrong with the call, in a few words.")],
    by: ByOption = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Ask for a credit on behalf of the buyer that was billed for a call."""
    from meter.credits.sql.requests import ask as ask_

    asked, reasons = _application(words, by, reason), _reasons(config if not store else None)

    def work(clerk: Clerk) -> Any:
        return clerk.write(lambda connection: ask_(connection, (transfer, ""), asked, reasons, _now()))

    _print(_read(config, store, work), numbers=False, as_json=as_json)


@credits_.command()
def decide(
    request: IdArgument,
    *,
    approve: Annotated[bool, typer.Option("--approve/--decline", help="What is decided.")],
    explanation: Annotated[str, typer.Option(help="Why; the buyer gets it by e-mail.")],
    reviewer: Annotated[str, typer.Option(help="Who decides; of a re-review another than before.")],
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Decide the oldest open request; any other is refused. Its credit is posted and its e-mail queued at once."""
    from meter.credits.sql.requests import Decision
    from meter.credits.sql.requests import decide as decide_

    decision = Decision(approve, explanation, reviewer)

    def work(clerk: Clerk) -> Any:
        return clerk.write(lambda connection: decide_(connection, request, decision, _now()))

    _print(_read(config, store, work), numbers=False, as_json=as_json)


@credits_.command("re-review")
def re_review(
    *,
    transfer: Annotated[str, typer.Option("--transfer", help="The call, by its transfer id.")] = "",
    call_id: Annotated[str, typer.Option("--call-id", help="The call, by its call id.")] = "",
    caller: Annotated[str, typer.Option("--caller", help="The call, by the caller's number.")] = "",
    words: Annotated[str, typer.Option(help="What speaks against the decision.")],
    by: ByOption = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Put a decided request into the line once more, for another reviewer; once per call."""
    from meter.credits.sql.reading import find_decided
    from meter.credits.sql.requests import re_review as again

    if sum(map(bool, (transfer, call_id, caller))) != 1:
        raise typer.BadParameter("give one of --transfer, --call-id, --caller", param_hint="--transfer")
    wanted, asked = _filter(transfer, call_id, caller), _application(words, by)

    def work(clerk: Clerk) -> Any:
        return clerk.write(
            lambda connection: again(connection, find_decided(connection, wanted).id, asked, _now())  # one transaction
        )

    _print(_read(config, store, work), numbers=False, as_json=as_json)


@credits_.command()
def ages(
    days: Annotated[int, typer.Option(min=1, max=3_650, help="Requests decided in so many days count.")] = _DAYS,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show the age of the oldest open request, and how many were decided within 24 and 48 hours.

    Exit code 1: the oldest is older than 48 hours.
    """
    from meter.credits.rules import LATE_US
    from meter.credits.sql.reading import ages as ages_

    now = _now()
    since = now - days * 24 * _HOUR_US
    found: Ages = _read(config, store, lambda clerk: clerk.read(lambda connection: ages_(connection, now, since)))
    age_us = None if found.oldest_utc_us is None else now - found.oldest_utc_us
    if as_json:
        print_json(asdict(found) | {"oldest_us": age_us, "days": days})
    else:
        oldest = "" if age_us is None else f", the oldest for {_hours(age_us)}, {found.open_late} for more than 48 h"
        out(f"open: {found.open}{oldest}")
        took = f", {found.decided_in_24h} within 24 h, {found.decided_in_48h} within 48 h"
        out(f"decided in {days} days: {found.decided}{took}, the slowest after {_hours(found.slowest_us)}")
    if age_us is not None and age_us > LATE_US:
        raise typer.Exit(1)


@credits_.command()
def reasons(
    *,
    category: Annotated[str, typer.Option(help="Business category; the default where none is given.")] = "",
    file: Annotated[Path | None, typer.Option(help="A file of reasons to look at instead of those in force.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the reasons of a business category, those included that are explained as valid calls."""
    from meter.credits.rules import load_reasons

    found = (_reasons(config) if file is None else load_reasons(file)).of(category)
    if as_json:
        print_json({name: one.model_dump() for name, one in found.items()})
        return
    print_table(
        ("reason", "title", "valid call", "explanation"),
        [(name, one.title, one.valid, one.explanation) for name, one in found.items()],
    )


def _read(config: Path | None, store: str, work: Callable[[Clerk], Any]) -> Any:
    """Do the work with a clerk of its own. Raises CreditError, UnknownBuyerError, CommandError, ConfigError."""
    from meter.store.clerk import Clerk

    async def run(engine: AsyncEngine) -> Any:
        clerk = Clerk(engine)
        try:
            return await work(clerk)
        finally:
            await clerk.close()

    return with_store(find_place(config, store), run)


def _filter(transfer: str, call_id: str, caller: str) -> CreditFilter:
    from book.numbers import NumberError, normalise, to_e164
    from meter.credits.sql.reading import CreditFilter

    try:
        phone = to_e164(normalise(caller)) if caller else ""
    except NumberError as error:
        raise typer.BadParameter(str(error), param_hint="--caller") from error
    return CreditFilter(transfer=transfer, call_id=call_id, phone=phone, limit=1_000)


def _application(words: str, by: str, reason: str = "") -> CreditApplication:
    import getpass
    import socket

    from meter.credits.sql.requests import CreditApplication

    return CreditApplication(words, by or getpass.getuser(), f"cli:{socket.gethostname()}", reason)


def _print(request: Request, *, numbers: bool, as_json: bool) -> None:
    one = _as_dict(request, numbers=numbers)
    if as_json:
        print_json(one)
        return
    of = f", re-review of {one['first']}" if one["first"] else ""
    line = f", number {one['place']} in line" if one["place"] else ""
    out(f"request {one['id']}{of}: {one['state']}{line}")
    call = f", call {clean(one['call_id'])}, caller {clean(one['phone'])}" if one["call_id"] else ""
    out(f"buyer {clean(one['buyer'])}, transfer {clean(one['transfer'])}{call}")
    out(f"asked {when(one['asked_utc_us'])} by {clean(one['asked_by'])} ({clean(one['origin'])}): {one['reason']}")
    _print_lines(one["words"])
    if one["decided_utc_us"] is not None:
        out(f"decided {when(one['decided_utc_us'])} by {clean(one['decided_by'])}: {_amount(one) or 'no credit'}")
        _print_lines(one["explanation"])


def _print_lines(text: str) -> None:
    for line in text.splitlines():
        out(f"  {clean(line)}")


def _as_dict(request: Request, *, numbers: bool) -> dict[str, Any]:
    from telemetry.logs import mask

    found = asdict(request)
    return found if numbers else found | {"phone": mask(found["phone"])}


def _amount(row: dict[str, Any]) -> str:
    from meter.text.localised import DEFAULT_LOCALE, money_text

    return money_text(row["amount_minor"], row["currency"], DEFAULT_LOCALE) if row["currency"] else ""


def _hours(duration_us: int) -> str:
    return f"{duration_us / _HOUR_US:.1f} h"


def _now() -> int:
    return time.time_ns() // 1000


def _reasons(config: ConfigOption) -> ReasonBook:
    """The reasons in force: those of the configuration's file, or those that ship."""
    from meter.credits.rules import load_reasons

    settings = find_settings(config)
    return load_reasons(settings.billing.credit_reasons_file if settings is not None else None)
