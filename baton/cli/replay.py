"""`baton replay`: the journal once more, under the same terms or others."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baton.cli.console import (
    CommandError,
    ConfigOption,
    JsonOption,
    StoreOption,
    find_place,
    out,
    print_json,
    print_table,
    with_store,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from book.model import Terms
    from meter.settling.replay import ReplayReport

_SHOWN = 20  # differing transfers that are named


def replay(
    since: Annotated[str, typer.Option("--from", metavar="DAY", help="Weeks that begin on this day or later.")],
    until: Annotated[str, typer.Option("--to", metavar="DAY", help="Weeks that begin before this day.")],
    *,
    terms: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with [[terms]]: profiles in the place of those of the same name. Without it the ledger is"
            " checked, and a difference is exit code 1."
        ),
    ] = None,
    buyer: Annotated[str, typer.Option(help="Only this buyer.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Decide every transfer of some weeks again from its facts, and reckon what it costs.

    Under the same terms everything must come out as the ledger has it, to the cent. With --terms, the difference per
    buyer is what those terms would have changed; nothing is written either way.
    """
    from baton.cli.billing import instant

    span = (instant(since, start=True, option="--from"), instant(until, start=True, option="--to"))
    if span[0] >= span[1]:
        raise CommandError(f"--to: {until} is not after {since}")
    versions = _profiles(terms) if terms is not None else None

    async def work(engine: AsyncEngine) -> ReplayReport:
        from meter.settling.sql.replaying import replay as run

        return await run(engine, *span, versions=versions, buyer=buyer)

    report = with_store(find_place(config, store), work)
    if as_json:
        print_json(_as_dict(report))
    elif versions is None:
        _print_check(report)
    else:
        _print_difference(report)
    if versions is None and not report.is_same:
        raise typer.Exit(1)


def _profiles(file: Path) -> dict[str, Sequence[Terms]]:
    import os

    from book.sections import load_book
    from book.terms import presets

    found: dict[str, list[Terms]] = {}
    for one in load_book(file, os.environ, presets()).terms:
        found.setdefault(one.name, []).append(one)
    if not found:
        raise CommandError(f"--terms: {file} has no [[terms]]")
    return dict(found)


def _print_check(report: ReplayReport) -> None:
    for name in report.differing[:_SHOWN]:
        out(f"{name}: its facts come to something else than the ledger has")
    if len(report.differing) > _SHOWN:
        out(f"and {len(report.differing) - _SHOWN} more")
    for one in report.wrong_weeks:
        out(f"{one.buyer}, week of {one.week}: the ledger has {one.was}, the facts come to {one.now}")
    settled = sum(one.was is not None for one in report.weeks)
    said = "all as the ledger has it" if report.is_same else "NOT as the ledger has it"
    out(f"{report.transfers:,} transfers, {settled} settled weeks: {said}")


def _print_difference(report: ReplayReport) -> None:
    from meter.text.localised import DEFAULT_LOCALE, money_text

    rows = []
    for name, (was, now) in sorted(report.by_buyer().items()):
        currency = report.currency[name]
        rows.append([name, *(money_text(minor, currency, DEFAULT_LOCALE) for minor in (was, now, now - was))])
    print_table(("buyer", "as billed", "under these terms", "difference"), rows)
    unsettled = sum(one.was is None for one in report.weeks)
    out(
        f"{report.transfers:,} transfers"
        + (f"; {unsettled} weeks that are not settled are left out" if unsettled else "")
    )


def _as_dict(report: ReplayReport) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "transfers": report.transfers,
        "same": report.is_same,
        "differing": report.differing,
        "weeks": [asdict(one) for one in report.weeks],
        "buyers": {
            name: {"was_minor": was, "now_minor": now, "difference_minor": now - was}
            for name, (was, now) in report.by_buyer().items()
        },
    }
