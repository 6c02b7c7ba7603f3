"""Commands on transfers and the journal: `transfers list`, `transfers show`, `journal verify`, `journal heads`."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
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

    from facts.fact import Fact
    from facts.ladder import Ladder, LegTimes
    from meter.journal.sql.reading import TransferRow
    from meter.journal.sql.verify import VerifyReport
    from meter.settling.sql.verify_ledger import LedgerReport

_SHOWN = ("transfer", "campaign", "buyer", "phone", "verdict", "reason", "counts_as", "attempt_ms", "talk_ms")

transfers = typer.Typer(help="Transfers: list them, show why one came to what it came to.", no_args_is_help=True)
journal = typer.Typer(help="The journal of facts.", no_args_is_help=True)


@transfers.command("list")
def list_(
    *,
    buyer: Annotated[str, typer.Option(help="Only this buyer's.")] = "",
    verdict: Annotated[str, typer.Option(help="Only this verdict, or `open`.")] = "",
    since: Annotated[str, typer.Option(help="Only those that started then or later: 2026-06-01, or with a time.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many, the newest first.")] = 100,
    numbers: Annotated[bool, typer.Option("--numbers", help="Show phone numbers in full.")] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List transfers, the newest first."""
    from facts.outcome import Verdict
    from meter.journal.sql.reading import OPEN, list_transfers
    from telemetry.logs import mask

    known = [OPEN, *(row.value for row in Verdict)]
    if verdict and verdict not in known:
        raise typer.BadParameter(f"{verdict!r} is none of {', '.join(known)}", param_hint="--verdict")
    since_utc_us = _instant(since)

    async def work(engine: AsyncEngine) -> list[TransferRow]:
        return await list_transfers(engine, buyer=buyer, verdict=verdict, since_utc_us=since_utc_us, limit=limit)

    rows = [asdict(row) for row in with_store(find_place(config, store), work)]
    if not numbers:
        rows = [row | {"phone": mask(row["phone"])} for row in rows]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("started", *(name.replace("_", " ") for name in _SHOWN)),
        [(when(row["started_utc_us"]), *(row[name] for name in _SHOWN)) for row in rows],
    )


@transfers.command()
def show(
    transfer: Annotated[str, typer.Argument(metavar="ID", help="Transfer id.")],
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show each leg with its times from dial-out, and why the verdict is what it is."""
    from facts.ladder import build_ladder
    from meter.journal.sql.reading import read_transfer

    async def work(engine: AsyncEngine) -> list[Fact]:
        return await read_transfer(engine, transfer)

    facts = with_store(find_place(config, store), work)
    if not facts:
        raise CommandError(f"no transfer has the id {clean(transfer)!r}")
    ladder = build_ladder(facts)
    if as_json:
        print_json(ladder.as_dict())
    else:
        _print_ladder(ladder)


@journal.command()
def heads(
    config: ConfigOption = None,
    store: StoreOption = "",
    file: Annotated[Path | None, typer.Option("--out", help="File to write; without it they are printed.")] = None,
) -> None:
    """Show the ends of all chains as they are: kept elsewhere, they tell an older copy of the store.

    The meter does it daily: to the folder `heads` beside the store, by e-mail to the operator, and by MQTT.
    """
    import time

    from meter.journal.sql.chain_heads import encoded, read_heads
    from meter.store.clerk import Clerk
    from meter.store.files import put

    async def work(engine: AsyncEngine) -> dict[str, Any]:
        clerk = Clerk(engine)
        try:
            return await clerk.read(lambda connection: read_heads(connection, time.time_ns() // 1000))
        finally:
            await clerk.close()

    content = encoded(with_store(find_place(config, store), work))
    if file is None:
        out(content.decode())
    else:
        put(file, content)
        out(f"{file}: written")


@journal.command()
def verify(
    heads: Annotated[
        Path | None, typer.Option("--heads", help="Ends of chains that were exported: does the store hold all of them?")
    ] = None,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Compute every hash chain again, of the facts and of the ledger, and hold all else against them.

    That is documents, orders, weeks, payments, checks, credits, holds, and each outcome against its facts.

    Exit code 1: something was changed, dropped or inserted.
    """
    from meter.journal.sql.verify import verify_journal
    from meter.settling.sql.verify_ledger import verify_ledger

    exported = _exported(heads)

    async def work(engine: AsyncEngine) -> tuple[VerifyReport, LedgerReport, list[str]]:
        return await verify_journal(engine), await verify_ledger(engine), await _missing(engine, exported)

    facts, ledger, missing = with_store(find_place(config, store), work)
    is_whole = facts.ok and ledger.ok and not missing
    if as_json:
        print_json({**asdict(facts), "ledger": asdict(ledger), "missing": missing, "ok": is_whole})
    else:
        for lost in missing:
            out(lost)
        for fault in facts.problems:
            out(f"{fault.router} boot {fault.boot} fact {fault.seq}: {fault.what}")
        for problem in ledger.problems:
            out(problem)
        out(f"{facts.facts:,} facts in {facts.chains} chains: {_whole(facts.problem_count)}")
        counts = f"{ledger.postings:,} postings of {ledger.buyers} buyers, {ledger.documents:,} documents,"
        counts += f" {ledger.outcomes:,} outcomes"
        out(f"{counts}: {_whole(ledger.problem_count)}")
        if heads is not None:
            out(f"{heads}: {_whole(len(missing))}")
    if not is_whole:
        raise typer.Exit(1)


def _exported(file: Path | None) -> dict[str, Any] | None:
    """What a file of chain heads says. Raises CommandError naming it."""
    from meter.journal.sql.chain_heads import HeadsError, decoded

    try:
        return None if file is None else decoded(file.read_bytes())
    except (HeadsError, OSError) as error:
        raise CommandError(f"--heads: {file}: {error}") from error


async def _missing(engine: AsyncEngine, exported: dict[str, Any] | None) -> list[str]:

    from meter.journal.sql.chain_heads import missing
    from meter.store.clerk import Clerk

    clerk = Clerk(engine)
    try:
        return [] if exported is None else await clerk.read(missing, exported)
    finally:
        await clerk.close()


def _whole(problems: int) -> str:
    return f"{problems} problems" if problems else "whole"


def _instant(text: str) -> int:
    """Microseconds UTC of an ISO date or time; without a zone it is UTC."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a date such as 2026-06-01", param_hint="--since") from error
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1_000_000)


def _print_ladder(ladder: Ladder) -> None:
    out(f"transfer {clean(ladder.transfer)}, started {when(ladder.started_utc_us)}")
    dialled = when(ladder.dialout_utc_us) or "never: no INVITE left"
    out(f"dial-out {dialled}; all times below are ms from dial-out")
    out(clean(ladder.explanation) if ladder.settled else f"still open; so far: {clean(ladder.explanation)}")
    for problem in ladder.lead_problems:
        out(clean(problem))
    print_table(
        ("endpoint", "kind", "INVITE", "100", "18x", "2xx", "bridged", "ended", "how it ended"),
        [_leg_row(leg) for leg in ladder.legs],
    )
    print_table(("ms", "who", "what", "fact"), [(one.at_ms, one.who, one.what, one.seq) for one in ladder.clock])


def _leg_row(leg: LegTimes) -> tuple[Any, ...]:
    kind = f"secure {leg.kind}" if leg.secure else leg.kind
    rang = leg.ringing_ms if leg.ringing_code in (None, 180) else f"{leg.ringing_ms:,} ({leg.ringing_code})"
    answered = f"{leg.answered_ms:,} (late)" if leg.late and leg.answered_ms is not None else leg.answered_ms
    times = (leg.sent_ms, leg.trying_ms, rang, answered, leg.bridged_ms, leg.ended_ms)
    return (leg.name, kind, *times, _how(leg))


def _how(leg: LegTimes) -> str:
    if leg.ended_ms is None:
        return ""
    answer = f"{leg.code or ''} {leg.phrase}".strip()
    who = "made by us" if leg.local else f"by the {leg.ended_by or 'far end'}"
    return ", ".join(part for part in (answer, who, leg.reason_header) if part)
