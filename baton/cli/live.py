"""Commands to a router that runs: `live`, `availability`, `drain`, `reload`. They speak to its control socket."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baton.cli.console import (
    DEFAULT_CONFIG,
    CommandError,
    ConfigOption,
    JsonOption,
    clean,
    find_settings,
    out,
    print_json,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from config.settings import Settings

_Cell = str | list[str]  # a list: one line for each
EVERY_S = 1.0  # how often --watch looks

_Config = Annotated[
    Path | None,
    typer.Argument(
        metavar="[CONFIG]", envvar="BATON_CONFIG", help=f"Configuration file of the router; else {DEFAULT_CONFIG}."
    ),
]
_COLUMNS = ("transfer", "campaign", "buyer", "dialer", "caller", "phase", "age", "dial-out", "legs", "next")


def live(
    config: _Config = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second, until interrupted.")] = False,
    limit: Annotated[int, typer.Option(min=0, max=5000, help="Show at most so many transfers.")] = 500,
    as_json: JsonOption = False,
) -> None:
    """Show what is up in the running router: every call and leg with its state, age and next deadline; the trunks."""
    path = control_socket(config)
    request = {"do": "live", "limit": limit}
    if watch and not as_json:
        _watch(path, request)
        return
    while True:
        found = ask_router(path, request)
        if as_json:
            print_json(found)
        else:
            _console().print(_page(found))
        if not watch:
            return
        _pause()


def availability(
    campaign: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Name of the campaign.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Would a buyer of the campaign take a call now? Exit code 1: no, with the reason of each buyer."""
    found = ask_router(control_socket(config), {"do": "availability", "campaign": campaign})
    if as_json:
        print_json(found)
    elif found["available"]:
        out(f"{clean(campaign)}: a buyer would take a call")
    else:
        out(f"{clean(campaign)}: no ({clean(found['reason'])})")
    if not as_json:
        for one in found["refusals"]:
            out(clean(f"  {one['buyer']}: {one['reason']}{', ' if one['detail'] else ''}{one['detail']}"))
    if not found["available"]:
        raise typer.Exit(1)


def drain(
    config: _Config = None,
    *,
    off: Annotated[bool, typer.Option("--off", help="Take calls again.")] = False,
    leave: Annotated[bool, typer.Option("--exit", help="End the router once the last call has ended.")] = False,
    within: Annotated[
        int, typer.Option(min=0, max=86_400, help="With --exit: end calls that are up after so many seconds; 0: never.")
    ] = 0,
) -> None:
    """Let the running router refuse new calls with 503 while those that are up go on."""
    if off and leave:
        raise typer.BadParameter("--off takes calls again; --exit ends the router", param_hint=["--off"])
    if within and not leave:
        raise typer.BadParameter("goes with --exit", param_hint=["--within"])
    asked = {"do": "drain", "on": not off, "exit": leave, "within_s": within}
    found = ask_router(control_socket(config), asked)
    calls = f"{found['live']} call{'' if found['live'] == 1 else 's'} up"
    if off:
        out(f"taking calls again, {calls}")
    else:
        end = f"; the router ends with the last{f', or in {within} s' if within else ''}" if leave else ""
        out(f"draining, {calls}{end}")


def reload(config: _Config = None, as_json: JsonOption = False) -> None:
    """Let the running router and portal read their configuration file again. Calls that are up do not notice.

    What cannot be changed without a restart is left as it was and named. Exit code 1: the file has problems and nothing
    was changed, or one of the two does not answer and goes on as before.
    """
    from baton.process.control import NoRouterError, socket_path

    settings = _settings(config)
    found: dict[str, list[str]] = {"applied": [], "needs_restart": []}
    silent: list[NoRouterError] = []
    for process in ("portal", "router") if settings.portal is not None else ("router",):
        try:
            said = ask_router(socket_path(settings, process), {"do": "reload"}, process)
        except NoRouterError as error:
            silent.append(error)
        else:
            for what, names in found.items():
                names += [one for one in said[what] if one not in names]
    if as_json:
        print_json(found)
    else:
        _tell_reload(found, some=len(silent) < 1 or bool(found["applied"]))
    if silent:
        raise CommandError("; ".join(map(str, silent)))


def _tell_reload(settings: dict[str, list[str]], *, some: bool) -> None:
    for name in settings["applied"]:
        out(f"in force: {clean(name)}")
    for name in settings["needs_restart"]:
        out(f"needs a restart: {clean(name)}")
    if some and not settings["applied"]:
        out("nothing has changed that a running process can take")


def _settings(config: Path | None) -> Settings:
    settings = find_settings(config)
    if settings is None:
        raise CommandError(f"which router? give its configuration file (there is no {DEFAULT_CONFIG} here)")
    return settings


def control_socket(config: Path | None) -> Path:
    """Where the configured router has its socket. Raises CommandError, ConfigError, ControlError."""
    from baton.process.control import socket_path

    return socket_path(_settings(config))


def ask_router(path: Path, request: dict[str, Any], process: str = "router") -> dict[str, Any]:
    import asyncio

    from baton.process.control import ask

    return asyncio.run(ask(path, request, process=process))


def _pause() -> None:
    import time

    time.sleep(EVERY_S)


def _watch(path: Path, request: dict[str, Any]) -> None:
    """Draw the page anew every second; Ctrl-C ends it and leaves the last one standing."""
    from rich.live import Live

    from baton.process.control import NoRouterError

    seen = False
    console = _console()
    with Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop") as page:
        try:
            while True:
                try:
                    page.update(_page(ask_router(path, request)), refresh=True)
                    seen = True
                except NoRouterError as error:  # it may be restarting
                    if not seen:
                        raise
                    page.update(clean(str(error)), refresh=True)
                _pause()
        except KeyboardInterrupt:
            return


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def _page(view: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    state = "draining" if view["draining"] else "taking calls"
    head = f"router {view['router']}: {state}; {view['transfers']} transfers, {view['arrivals']} arriving, "
    parts: list[RenderableType] = [Text(clean(f"{head}{view['slots_used']} of {view['slots_max']} slots"))]
    if view["live"]:
        parts.append(_table(_COLUMNS, [_transfer(one) for one in view["live"]]))
        hidden = view["transfers"] - len(view["live"])
        if hidden > 0:
            parts.append(Text(f"and {hidden} more"))
    if view["arriving"]:
        rows = [(one["campaign"], one["caller"], one["stage"], _seconds(one["age_ms"])) for one in view["arriving"]]
        parts.append(_table(("arriving at", "caller", "stage", "age"), rows))
    if view["trunks"]:
        parts.append(_table(("trunk", "health", "probes in a row", "answer"), [_trunk(one) for one in view["trunks"]]))
    return Group(*parts)


def _transfer(transfer: dict[str, Any]) -> tuple[_Cell, ...]:
    legs = [f"{leg['endpoint']} {leg['phase']} {_seconds(leg['phase_ms'])}".rstrip() for leg in transfer["legs"]]
    due = transfer["next"]
    next_ = "" if due is None else f"{due['timer']}{' ' + str(due['leg']) if due['leg'] else ''} in "
    next_ += "" if due is None else _seconds(due["in_ms"])
    names = (
        transfer["transfer"],
        transfer["campaign"],
        transfer["buyer"],
        transfer["dialer"],
        transfer["caller"],
        transfer["phase"],
    )
    return (*names, _seconds(transfer["age_ms"]), _seconds(transfer["dialout_ms"]), legs, next_)


def _trunk(trunk: dict[str, Any]) -> tuple[str, ...]:
    streak = trunk["streak"]
    said = f"{abs(streak)} {'bad' if streak < 0 else 'good'}" if streak else ""
    return trunk["name"], trunk["health"], said, "" if trunk["took_ms"] is None else f"{trunk['took_ms']:.1f} ms"


def _seconds(ms: int | None) -> str:
    return "" if ms is None else f"{ms / 1000:,.1f} s"


def _table(columns: tuple[str, ...], rows: Sequence[tuple[_Cell, ...]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        cells = ([cell] if isinstance(cell, str) else cell for cell in row)
        table.add_row(*(Text("\n".join(map(clean, lines))) for lines in cells))
    return table
