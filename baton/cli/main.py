"""The command line: `baton`.

Every command imports what it needs when it runs, so that `baton --help` answers at once and nothing but the commands
that place calls needs the SIP engine. An error is one clear line on standard error, never a traceback (BATON_DEBUG=1
shows it): exit code 2 for a command that was typed wrongly, 1 for one that failed.
"""
# ruff: noqa: PLC0415 - imports stand in the commands, see above

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from baton.cli import billing as cli_billing
from baton.cli import book as cli_book
from baton.cli import credits as cli_credits
from baton.cli import data as cli_data
from baton.cli import docs as cli_docs
from baton.cli import invoices as cli_invoices
from baton.cli import ledger as cli_ledger
from baton.cli import lists as cli_lists
from baton.cli import live as cli_live
from baton.cli import lookups as cli_lookups
from baton.cli import mail as cli_mail
from baton.cli import orders as cli_orders
from baton.cli import payments as cli_payments
from baton.cli import per_minute as cli_service
from baton.cli import replay as cli_replay
from baton.cli import scenarios as cli_scenarios
from baton.cli import trace as cli_trace
from baton.cli import transfers as cli_transfers
from baton.cli import webhooks as cli_webhooks
from baton.cli.console import CommandError, ConfigArgument, JsonOption, out
from meter.store.files import keep_private

_OWN_PACKAGES = ("baton", "book", "config", "facts", "meter", "portal", "router", "suppression", "telemetry")

app = typer.Typer(
    name="baton",
    help="Baton routes live transfers to the buyers who bought them, and meters each one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("check")(cli_book.check)
app.command("import")(cli_book.import_)
app.command("live")(cli_live.live)
app.command("trace")(cli_trace.trace)
app.command("availability")(cli_live.availability)
app.command("drain")(cli_live.drain)
app.command("reload")(cli_live.reload)
app.add_typer(cli_transfers.transfers, name="transfers")
app.add_typer(cli_transfers.journal, name="journal")
app.add_typer(cli_book.buyers, name="buyers")
app.add_typer(cli_orders.orders, name="orders")
app.add_typer(cli_billing.billing, name="billing")
app.add_typer(cli_billing.terms, name="terms")
app.add_typer(cli_invoices.invoices, name="invoices")
app.add_typer(cli_payments.payments, name="payments")
app.add_typer(cli_payments.refunds, name="refunds")
app.add_typer(cli_payments.remedies, name="remedies")
app.add_typer(cli_ledger.ledger, name="ledger")
app.command("replay")(cli_replay.replay)
app.command("export")(cli_data.export)
app.command("load")(cli_data.load)
app.add_typer(cli_mail.mail, name="mail")
app.add_typer(cli_credits.credits_, name="credits")
app.add_typer(cli_service.interactions, name="interactions")
app.add_typer(cli_service.reports, name="reports")
app.add_typer(cli_lists.suppression, name="suppression")
app.add_typer(cli_webhooks.webhooks, name="webhooks")
app.command("scrub")(cli_lookups.scrub)
app.add_typer(cli_scenarios.scenarios, name="scenarios")
app.command("docs", hidden=True)(cli_docs.docs)


@app.command()
def serve(config: ConfigArgument) -> None:
    """Run router, meter and, where the file has a section `[portal]`, the HTTP API together on this machine."""
    _call("baton.process.serve", "main", config)


@app.command("router", hidden=True)
def router_only(config: ConfigArgument) -> None:
    """Run the SIP router alone."""
    _call("baton.process.router", "main", config)


@app.command("meter", hidden=True)
def meter_only(config: ConfigArgument) -> None:
    """Run the meter alone."""
    _call("baton.process.meter", "main", config)


@app.command("portal")
def portal_only(config: ConfigArgument) -> None:
    """Run the HTTP API alone; the router is asked over its control socket, so on the router's machine."""
    _call("baton.process.portal", "main", config)


@app.command()
def demo(
    as_json: JsonOption = False,
    keep: Annotated[Path | None, typer.Option(help="Keep everything the demo writes in this folder.")] = None,
    only: Annotated[str, typer.Option(help="Play only this story.")] = "",
) -> None:
    """Play the stories of a transfer with real SIP parties on this machine, and show what each came to."""
    _call("baton.demo", "main", as_json=as_json, keep=keep, only=only or None)


@app.command()
def version() -> None:
    """Print the version, and that of the SIP engine where it is installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    for name in ("baton", "pjsua2"):
        try:
            out(f"{name} {installed(name)}")
        except PackageNotFoundError:
            out(f"{name} is not installed")


def main() -> None:
    """The entry point: runs the command and turns what goes wrong into one line and an exit code."""
    keep_private()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as shells have it
    except Exception as error:  # the last line of defence: a person reads this, not a traceback
        if os.environ.get("BATON_DEBUG"):
            raise
        typer.echo(f"baton: {_message_of(error)}", err=True)
        sys.exit(error.exit_code if isinstance(error, CommandError) else 1)


def _message_of(error: Exception) -> str:
    """Our own errors speak for themselves; of others the kind is named as well."""
    if type(error).__module__.partition(".")[0] in _OWN_PACKAGES:
        return str(error)
    first = str(error).partition("\n")[0]
    return f"unexpected {type(error).__name__}: {first} (BATON_DEBUG=1 shows where)"


def _call(module: str, function: str, *args: Any, **kwargs: Any) -> None:
    """Call into a module that is only needed now; its result, if any, is the exit code."""
    try:
        result = getattr(import_module(module), function)(*args, **kwargs)
    except ModuleNotFoundError as error:
        if error.name not in ("pjsua2", "_pjsua2"):
            raise
        raise CommandError(
            "the SIP engine pjsua2 is not installed; scripts/bootstrap builds and installs it"
        ) from error
    if result:
        raise typer.Exit(int(result))


if __name__ == "__main__":
    main()
