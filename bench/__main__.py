"""`python -m bench`: all measurements in a form that takes minutes, or one of them at length."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from baton.demo.parties import MissingProgramError
from bench import buffer, crash, lists, money, overhead, pairs, panels, peer, rows, soak
from bench.rows import Row
from bench.stage import BenchError

BUILD = Path("build")

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
peer_app = typer.Typer(help="The yardstick, Asterisk (folder: BATON_BENCH_PEER).", no_args_is_help=True)
app.add_typer(peer_app, name="peer")

Keep = Annotated[Path | None, typer.Option(help="Keep what is written in this folder, which must be new.")]
Out = Annotated[Path | None, typer.Option(help="Where the JSON goes; build/bench-NAME.json without it.")]
_errors = Console(stderr=True, highlight=False)


def _tell(text: str) -> None:
    _errors.print(text)


def _finish(results: list[Row], out: Path) -> None:
    rows.show(results)
    rows.write(results, out)
    missed = sum(row.met is False for row in results)
    _tell(f"{len(results)} rows in {out}; {missed} missed their target")


def _folder(keep: Path | None, name: str) -> Path:
    parent = (keep or Path(tempfile.mkdtemp(prefix="baton-bench-"))).resolve()
    parent.mkdir(parents=True, exist_ok=True)
    return parent / name


def _run(name: str, work: Coroutine[Any, Any, list[Row]]) -> list[Row]:
    started = time.monotonic()
    _tell(f"{name} ...")
    try:
        return asyncio.run(work)
    except (BenchError, MissingProgramError) as error:
        _tell(f"{name}: {error}")
        raise typer.Exit(1) from error
    finally:
        _tell(f"{name}: {time.monotonic() - started:.0f} s")


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    """All of it, in about fifteen minutes; rows in build/bench.json."""
    if context.invoked_subcommand is not None:
        return
    root = _folder(None, "all")
    found: list[Row] = []
    if peer.installed(peer.folder()):
        found += _run("pairs", pairs.measure(root / "pairs", peer.folder(), _tell, pairs=3, seconds=15))
    else:
        _tell("pairs: left out; peer not installed: python -m bench peer install")
    found += _run("soak", soak.measure(root / "soak", 1_000, _tell))
    found += _run("buffer", buffer.measure(root / "buffer", 300, 25, _tell))
    found += _run("crash", crash.measure(root / "crash", 200, _tell))
    found += _run("lists", lists.measure(root / "lists", _tell))
    found += _run("money", money.measure(root / "money", _tell))
    _finish(found, BUILD / "bench.json")


@app.command("pairs")
def pairs_(
    count: Annotated[int, typer.Option("--pairs", min=1, max=50, help="Pairs at each rate.")] = 10,
    seconds: Annotated[int, typer.Option(min=2, max=600, help="Load in each half of a pair.")] = 30,
    rate: Annotated[list[int] | None, typer.Option(help="Transfers a second; may be given again.")] = None,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """CPU and set-up time beside Asterisk's."""
    rates = tuple(rate or pairs.RATES)
    work = pairs.measure(_folder(keep, "pairs"), peer.folder(), _tell, pairs=count, seconds=seconds, rates=rates)
    _finish(_run("pairs", work), out or BUILD / "bench-pairs.json")


@app.command("before")
def before_(  # noqa: PLR0917 - options of a command
    root: Annotated[Path, typer.Argument(help="A checkout of the earlier Baton, set up (.venv).", exists=True)],
    count: Annotated[int, typer.Option("--pairs", min=1, max=50, help="Pairs at each rate.")] = 10,
    seconds: Annotated[int, typer.Option(min=2, max=600, help="Load in each half of a pair.")] = 10,
    rate: Annotated[list[int] | None, typer.Option(help="Transfers a second; may be given again.")] = None,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """CPU and set-up time beside those of an earlier Baton."""
    python = (root / ".venv" / "bin" / "python").absolute()
    work = pairs.against_before(
        _folder(keep, "before"), python, _tell, pairs=count, seconds=seconds, rates=tuple(rate or pairs.RATES)
    )
    _finish(_run("before", work), out or BUILD / "bench-before.json")


@app.command("soak")
def soak_(
    transfers: Annotated[int, typer.Option(min=50, max=1_000_000, help="How many; in fifties.")] = 20_000,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """Every transfer's verdict held against SIPp's books, and what is left over afterwards."""
    work = soak.measure(_folder(keep, "soak"), transfers, _tell)
    _finish(_run("soak", work), out or BUILD / "bench-soak.json")


@app.command("buffer")
def buffer_(
    declines: Annotated[
        int, typer.Option(min=10, max=100_000, help="Timed declines, over TLS and again over UDP.")
    ] = 1_000,
    rate: Annotated[int, typer.Option(min=1, max=200, help="A second.")] = 25,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """Baton's clock at the 15-second bound held against a packet capture's."""
    work = buffer.measure(_folder(keep, "buffer"), declines, rate, _tell)
    _finish(_run("buffer", work), out or BUILD / "bench-buffer.json")


@app.command("crash")
def crash_(
    live: Annotated[int, typer.Option(min=20, max=2_000, help="Transfers alive at the kill.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often each of the two kills.")] = 1,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """kill -9 amid live transfers: what the books say afterwards."""
    work = crash.measure(_folder(keep, "crash"), live, _tell, rounds)
    _finish(_run("crash", work), out or BUILD / "bench-crash.json")


@app.command("lists")
def lists_(
    numbers: Annotated[int, typer.Option(min=100_000, max=1_000_000_000, help="On the national list.")] = lists.NUMBERS,
    buyers: Annotated[int, typer.Option(min=10, max=50_000, help="Others, with a list of 10,000 each.")] = lists.BUYERS,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """Suppression at national scale: import, memory, look-ups, whole files."""
    work = lists.measure(_folder(keep, "lists"), _tell, numbers, buyers)
    _finish(_run("lists", work), out or BUILD / "bench-lists.json")


@app.command("money")
def money_(
    transfers: Annotated[int, typer.Option(min=1_000, max=10_000_000, help="Of the week.")] = money.TRANSFERS,
    buyers: Annotated[int, typer.Option(min=1, max=10_000, help="Each with an order.")] = money.BUYERS,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """The meter: outcomes settled, a Monday's invoices, long statements, PDFs."""
    work = money.measure(_folder(keep, "money"), _tell, transfers, buyers)
    _finish(_run("money", work), out or BUILD / "bench-money.json")


@app.command("panels")
def panels_(
    minutes: Annotated[int, typer.Option(min=1, max=600, help="Load.")] = 5,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """Dashboards and alerts on a Baton under load; drawn to build/panels. Exit code 1: a query had no data."""
    work = panels.measure(_folder(keep, "panels"), minutes, BUILD / "panels", _tell)
    found = _run("panels", work)
    _finish(found, out or BUILD / "bench-panels.json")
    if any(row.met is False for row in found):
        raise typer.Exit(1)


@app.command("overhead")
def overhead_(
    count: Annotated[int, typer.Option("--pairs", min=1, max=50, help="Pairs.")] = 10,
    seconds: Annotated[int, typer.Option(min=2, max=600, help="Load in each half of a pair.")] = 10,
    event: Annotated[list[str] | None, typer.Option(help="Events of the buyer's webhook; none: it has none.")] = None,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """CPU of telling everything (MQTT, scrapes, logs, traces, webhooks) beside a Baton that tells nothing."""
    work = overhead.measure(_folder(keep, "overhead"), _tell, count=count, seconds=seconds, events=tuple(event or ()))
    _finish(_run("overhead", work), out or BUILD / "bench-overhead.json")


@peer_app.command("install")
def peer_install() -> None:
    """Install Asterisk into its folder: about two minutes, as root."""
    try:
        peer.install(peer.folder())
    except BenchError as error:
        _tell(str(error))
        sys.exit(1)
    _tell(f"installed in {peer.folder()}")


if __name__ == "__main__":
    app()
