"""Commands on payments in and out: `payments`, `refunds`, `remedies`."""
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
from baton.cli.orders import monday

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from meter.billing.arithmetic.cycle import Remedy
    from meter.billing.sql.payments import PaymentResult

payments = typer.Typer(help="Payments: record, list, take back.", no_args_is_help=True)
refunds = typer.Typer(help="Checks to send: the worklist.", no_args_is_help=True)
remedies = typer.Typer(help="What a buyer wants for a week that falls short.", no_args_is_help=True)

BuyerArgument = Annotated[str, typer.Argument(metavar="BUYER", help="Name of the buyer.")]
ReferenceOption = Annotated[str, typer.Option(help="Reference of the bank, or number of the check.")]


@payments.command("add")
def add(
    buyer: BuyerArgument,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="In the contract's currency, such as 9000.00.")],
    *,
    reference: ReferenceOption,
    invoice: Annotated[str, typer.Option(help="Invoice it is for; those due first where none is given.")] = "",
    received: Annotated[str, typer.Option(help="Day it came, such as 2026-06-03; today without it.")] = "",
    method: Annotated[str, typer.Option(help="check, ach, wire, card, cash or other.")] = "other",
    currency: Annotated[str, typer.Option(help="ISO 4217 code.")] = "USD",
    note: Annotated[str, typer.Option(help="A few words.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Record a payment; the same reference is recorded once. A hold for what it pays ends at once."""
    import getpass

    from meter.billing.sql.operations import BillingStore
    from meter.billing.sql.payments import Payment
    from meter.text.localised import DEFAULT_LOCALE, money_text

    payment = Payment(
        buyer=buyer,
        reference=reference,
        amount_minor=minor_of(amount, currency),
        currency=currency,
        received_on=_day(received),
        document=invoice,
        method=method,
        note=note,
    )

    async def work(engine: AsyncEngine) -> PaymentResult:
        return await BillingStore(engine).pay(payment, getpass.getuser())

    done = with_store(find_place(config, store), work)
    if not done.new:
        out(f"{buyer}: payment {reference!r} was recorded before")
        return
    for number, share in done.applied:
        paid = ", paid in full" if number in done.settled else ""
        out(f"{number}: {money_text(share, currency, DEFAULT_LOCALE)}{paid}")
    if done.left_minor:
        out(f"open credit: {money_text(done.left_minor, currency, DEFAULT_LOCALE)}")
    if done.released:
        out(f"{buyer}: the hold is over")


@payments.command("list")
def list_(
    buyer: Annotated[str, typer.Argument(metavar="[BUYER]", help="Name of the buyer; all where none is given.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List payments in the order in which they were recorded."""
    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> list[dict[str, Any]]:
        return await BillingStore(engine).payments(buyer)

    found = with_store(find_place(config, store), work)
    if as_json:
        print_json(found)
        return
    columns = ("buyer", "reference", "amount", "received", "method", "for", "recorded", "by", "taken back")
    print_table(columns, [_payment_row(one) for one in found])


@payments.command("reverse")
def reverse(
    buyer: BuyerArgument,
    *,
    reference: ReferenceOption,
    reason: Annotated[str, typer.Option(help="Why, such as a check that bounced.")],
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Take a payment back; its invoices are open again, and hold the buyer again where they are due."""
    import getpass

    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> list[str]:
        return await BillingStore(engine).reverse_payment(buyer, reference, reason, getpass.getuser())

    opened = with_store(find_place(config, store), work)
    out(f"{buyer}: payment {reference!r} taken back" + (f"; open again: {', '.join(opened)}" if opened else ""))


@refunds.command("list")
def list_refunds(
    every: Annotated[bool, typer.Option("--all", help="Also those that were sent, or wait for a payment.")] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the checks to send, by the day on which they are due."""
    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> list[dict[str, Any]]:
        return await BillingStore(engine).refunds(every=every)

    found = with_store(find_place(config, store), work)
    if as_json:
        print_json(found)
        return
    rows = [
        (str(one["id"]), one["buyer"], one["week"] or "credits", one["units"], _money(one), one["due_on"],
         one["reference"] or one["waits_for"])
        for one in found
    ]  # fmt: skip
    print_table(("refund", "buyer", "week", "units", "amount", "due", "sent as, or waits for"), rows)


@refunds.command("sent")
def sent(
    refund: Annotated[int, typer.Argument(metavar="REFUND", help="As `refunds list` names it.")],
    *,
    reference: ReferenceOption,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Write down that a check was sent."""
    import getpass

    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> None:
        await BillingStore(engine).send_refund(refund, reference, getpass.getuser())

    with_store(find_place(config, store), work)
    out(f"refund {refund}: sent as {reference}")


@refunds.command("pay-out")
def pay_out(
    buyer: BuyerArgument,
    reason: Annotated[str, typer.Option(help="Why.")],
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Turn all open credits of a buyer into a check on the worklist, as when a contract ends."""
    import getpass

    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> int:
        return await BillingStore(engine).pay_out(buyer, reason, getpass.getuser())

    out(f"{buyer}: a check of {with_store(find_place(config, store), work):,} minor units is to be sent")


@remedies.command("set")
def set_remedy(
    buyer: BuyerArgument,
    remedy: Annotated[str, typer.Argument(metavar="REMEDY", help="refund, credit or make_up.")],
    week: Annotated[str, typer.Option(help="Only for the week of this Monday, until its Tuesday noon.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Set what a buyer gets for a shortfall: its standing choice, or that for one week."""
    import getpass

    from meter.billing.arithmetic.cycle import Remedy
    from meter.billing.sql.operations import BillingStore

    if remedy not in list(Remedy):
        raise CommandError(f"REMEDY: {remedy!r} is none of {', '.join(Remedy)}")
    chosen = monday(week) if week else ""

    async def work(engine: AsyncEngine) -> None:
        await BillingStore(engine).choose(buyer, Remedy(remedy), chosen, getpass.getuser(), "cli")

    with_store(find_place(config, store), work)
    out(f"{buyer}: {remedy}" + (f" for the week of {chosen}" if chosen else ", until it is changed"))


@remedies.command("show")
def show_remedies(
    buyer: BuyerArgument, config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False
) -> None:
    """Show a buyer's standing remedy and every choice that was made."""
    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> tuple[Remedy, list[dict[str, Any]]]:
        return await BillingStore(engine).remedies(buyer)

    standing, made = with_store(find_place(config, store), work)
    if as_json:
        print_json({"standing": standing.value, "choices": made})
        return
    out(f"{buyer}: {standing.value}")
    rows = [(when(one["at_utc_us"]), one["week"] or "standing", one["remedy"], one["by"]) for one in made]
    print_table(("when", "for", "remedy", "by"), rows)


def minor_of(amount: str, currency: str) -> int:
    """An amount such as 9000.00 or 9,000.00 in minor units; a comma stands between thousands alone.

    Raises CommandError naming it.
    """
    import re
    from decimal import Decimal

    from babel.numbers import get_currency_precision

    if not re.fullmatch(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,15})(?:\.[0-9]+)?", amount):
        raise CommandError(f"AMOUNT: {amount!r} is no amount, such as 9000.00")
    scaled = Decimal(amount.replace(",", "")).scaleb(get_currency_precision(currency))
    if scaled != scaled.to_integral_value():
        raise CommandError(f"AMOUNT: {amount!r} has more digits than {currency} has")
    return int(scaled)


def _day(text: str) -> Any:
    from datetime import date, datetime
    from zoneinfo import ZoneInfo

    from book.model import DEFAULT_TIME_ZONE

    if not text:
        return datetime.now(ZoneInfo(DEFAULT_TIME_ZONE)).date()
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"--received: {text!r} is no day, such as 2026-06-03") from error


def _money(row: dict[str, Any]) -> str:
    from meter.text.localised import DEFAULT_LOCALE, money_text

    return money_text(row["amount_minor"], row["currency"], DEFAULT_LOCALE)


def _payment_row(payment: dict[str, Any]) -> tuple[Any, ...]:
    back = f"{when(payment['reversed_utc_us'])[:10]}: {payment['reversed_why']}" if payment["reversed_utc_us"] else ""
    recorded = when(payment["recorded_utc_us"])[:16]
    return (
        *(payment["buyer"], payment["reference"], _money(payment), payment["received_on"], payment["method"]),
        *(payment["document"] or "", recorded, payment["by"], back),
    )
