"""Commands on the weekly cycle and on what was agreed: `billing run`, `billing due`, `terms list`, `terms show`."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

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
    when,
    with_store,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from book.model import Terms
    from meter.billing.cycle import CycleOptions, RunReport
    from meter.billing.sql.due import DueTask
    from meter.billing.sql.forecasting import OrderForecast

billing = typer.Typer(help="The billing cycle: run it by hand, see what is due.", no_args_is_help=True)
terms = typer.Typer(help="Terms profiles: what was agreed, in plain words.", no_args_is_help=True)

AsOf = Annotated[
    str,
    typer.Option(
        "--as-of",
        metavar="WHEN",
        help="A day, such as 2026-06-02 (to its end in New York), or an instant with its offset.",
    ),
]


@billing.command("run")
def run(
    as_of: AsOf = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which steps are due, do nothing.")] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Do what is due: settle weeks, invoice orders, overage and months, hold who has not paid.

    Idempotent: what was done is not done again. What was missed is caught up with in order. Without --dry-run an
    instant that is still to come is refused: nothing is billed before its time. While closed transfers are not counted
    yet, nothing is done but to hold who has not paid, as in the meter's own runs.
    """
    import time

    place = find_place(config, store)
    at_us = instant(as_of) if as_of else time.time_ns() // 1000
    now_us = time.time_ns() // 1000
    if at_us > now_us and not dry_run:
        if instant(as_of, start=True) > now_us:
            raise CommandError(f"--as-of: {as_of} is still to come; --dry-run says what would be due")
        at_us = now_us  # the day is not over: what is due so far
    options = _options(config, needed=not dry_run)

    async def work(engine: AsyncEngine) -> RunReport | list[DueTask]:
        from meter.billing.cycle import Cycle

        cycle = Cycle(engine, options)
        try:
            return await cycle.preview(at_us) if dry_run else await cycle.run_once(at_us)
        finally:
            await cycle.close()

    results = with_store(place, work)
    if isinstance(results, list):
        _print_tasks(results, as_json=as_json)
    else:
        _print_report(results, as_json=as_json)
        if results.trouble or results.waits:
            raise typer.Exit(1)


@billing.command("forecast")
def forecast(
    buyer: Annotated[str, typer.Argument(metavar="[BUYER]", help="Name of the buyer; all where none is given.")] = "",
    as_of: AsOf = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Foresee, from Wednesday on, what the running week of each order comes to, and what each remedy would cost.

    The range holds four weeks of five, if transfers go on as they come.
    """
    import time

    from meter.billing.sql.forecasting import forecasts

    at_us = instant(as_of) if as_of else time.time_ns() // 1000

    async def work(engine: AsyncEngine) -> list[OrderForecast]:
        return await forecasts(engine, at_us, buyer)

    foreseen = with_store(find_place(config, store), work)
    if as_json:
        from dataclasses import asdict

        print_json([asdict(row) for row in foreseen])
    else:
        columns = (
            "buyer",
            "week",
            "order",
            "so far",
            "expected",
            "range",
            "over",
            "short",
            "refund or credit",
            "choice",
        )
        print_table(columns, [_forecast_row(row) for row in foreseen])
        out("range: four weeks of five; before Wednesday nothing is foreseen" if foreseen else "no orders this week")


def _forecast_row(forecast: OrderForecast) -> list[Any]:
    from meter.text.localised import DEFAULT_LOCALE, money_text

    row = [forecast.buyer, forecast.week, forecast.covered, forecast.counted]
    if forecast.forecast is None:
        return [*row, "", "", "", "", "", forecast.remedy.value]
    low, expected, high = forecast.forecast.low, forecast.forecast.expected, forecast.forecast.high
    over = f"{low.overage_counted} to {high.overage_counted}" if high.overage_counted else ""
    short = f"{high.shortfall_counted} to {low.shortfall_counted}" if low.shortfall_counted else ""
    amount = money_text(expected.shortfall_minor, forecast.currency, DEFAULT_LOCALE) if expected.shortfall_minor else ""
    return [*row, expected.units, f"{low.units} to {high.units}", over, short, amount, forecast.remedy.value]


@terms.command("list")
def list_terms(config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False) -> None:
    """List every version of every profile, those of the store and the presets that ship."""
    rows = [
        {
            "name": one.name,
            "version": one.version,
            "effective_from": one.effective_from,
            "rating": one.rating.value,
            "currency": one.currency,
            "from": where,
        }
        for where, one in _every(config, store)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("name", "version", "in force from", "rating", "currency", "in"), [list(one.values()) for one in rows]
        )


@terms.command("show")
def show_terms(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Profile, or a buyer.")],
    version: Annotated[int, typer.Option(help="Version; the newest where none is given.")] = 0,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say in plain words what a profile agrees: what counts, what it costs, when it is due."""
    from dataclasses import asdict

    from meter.text.terms_words import in_words

    found = [one for _, one in _every(config, store, name) if not version or one.version == version]
    if not found:
        raise CommandError(f"there are no terms {name!r}{f' of version {version}' if version else ''}")
    chosen = max(found, key=lambda one: one.version)
    if as_json:
        print_json(asdict(chosen))
    else:
        out(in_words(chosen))


def instant(text: str, *, start: bool = False, option: str = "--as-of") -> int:
    """A day or an instant as microseconds UTC; of a day its last one, or with `start` its first, in New York.

    Raises CommandError naming the option.
    """
    from datetime import date, datetime, timedelta

    from book.limits import midnight_us
    from book.model import DEFAULT_TIME_ZONE

    try:
        if len(text) == len("2026-06-02"):
            day = date.fromisoformat(text)
            return midnight_us(day if start else day + timedelta(days=1), DEFAULT_TIME_ZONE) - (not start)
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"{option}: {text!r} is neither a day nor an instant, such as 2026-06-02") from error
    if moment.tzinfo is None:
        raise CommandError(f"{option}: {text!r} has no offset, such as 2026-06-02T12:00-04:00")
    return int(moment.timestamp() * 1_000_000)


def issuer_options(config: ConfigOption) -> CycleOptions:
    """The options of the configuration: whose name a document bears. Raises CommandError where there is none."""
    return _options(config, needed=True)


def _options(config: ConfigOption, *, needed: bool) -> CycleOptions:
    from baton.cli.console import DEFAULT_CONFIG, find_settings
    from meter.billing.cycle import CycleOptions

    settings = find_settings(config)
    if settings is None:
        if needed:
            here = f"(no {DEFAULT_CONFIG} here)"
            raise CommandError(f"in whose name? documents bear what [operator] says: give --config {here}")
        return CycleOptions()
    from baton.process.meter import cycle_options

    return cycle_options(settings)


def _every(config: ConfigOption, store: str, name: str = "") -> list[tuple[str, Terms]]:
    """Versions with where they are; with `name` those of a profile, or of the profile that a buyer has."""
    from baton.cli.console import DEFAULT_CONFIG
    from book.terms import presets

    found = [("preset", one) for one in presets().values()]
    if store or config or DEFAULT_CONFIG.is_file():

        async def work(engine: AsyncEngine) -> tuple[list[Terms], dict[str, str]]:
            from meter.book.sql.book import BookStore

            return await BookStore(engine).profiles()

        stored, of_buyers = with_store(find_place(config, store), work)
        name = of_buyers.get(name, name)
        found = [one for one in found if one[1].name not in {own.name for own in stored}]
        found += [("store", one) for one in stored]
    return [one for one in found if not name or one[1].name == name]


def _print_tasks(tasks: list[DueTask], *, as_json: bool) -> None:
    rows = [
        {"due": when(one.at_us), "step": one.kind.name.lower(), "buyer": one.buyer, "period": one.period}
        for one in tasks
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(("due", "step", "buyer", "period"), [list(one.values()) for one in rows])
        out(f"{len(rows)} steps are due; those that they bring forth are not shown" if rows else "nothing is due")


def _print_report(report: RunReport, *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "due": when(one.task.at_us),
            "step": one.task.kind.name.lower(),
            "buyer": one.task.buyer,
            "period": one.task.period,
            "documents": " ".join(one.documents) or "on hold",
        }
        for one in report.done
    ]
    trouble = [
        {"step": one.task.kind.name.lower(), "buyer": one.task.buyer, "period": one.task.period, "why": one.why}
        for one in report.trouble
    ]
    if as_json:
        print_json({"done": rows, "trouble": trouble, "waits": report.waits})
        return
    print_table(("due", "step", "buyer", "period", "came to"), [list(one.values()) for one in rows])
    for one in trouble:
        out(f"cannot be done: {one['buyer']}, {one['step']} {one['period']}: {one['why']}")
    if report.waits:
        out("closed transfers are not counted yet, so nothing is settled or invoiced: is the meter running?")
    out(f"{len(rows)} steps done, {len(report.documents)} documents issued" if rows else "nothing was due")
