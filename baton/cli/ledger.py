"""Commands on the ledger: `ledger balances`, `show`, `reverse`."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from baton.cli.console import (
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

    from meter.ledger.accounts import Account, Posting

ledger = typer.Typer(help="The ledger: balances, postings, reversals.", no_args_is_help=True)


@ledger.command("balances")
def balances(
    buyer: Annotated[str, typer.Argument(metavar="[BUYER]", help="Name of the buyer; all where none is given.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what each account of the ledger holds, in minor units: debits less credits."""
    from meter.billing.sql.operations import BillingStore
    from meter.ledger.accounts import Account

    async def work(engine: AsyncEngine) -> dict[str, dict[Account, int]]:
        return await BillingStore(engine).balances(buyer)

    found = with_store(find_place(config, store), work)
    if as_json:
        print_json({name: {one.value: amount for one, amount in held.items()} for name, held in found.items()})
        return
    columns = [one for one in Account if any(held.get(one) for held in found.values())]
    rows = [[name, *(held.get(one, 0) for one in columns)] for name, held in found.items()]
    print_table(["buyer", *(one.value for one in columns)], rows)


@ledger.command("show")
def show(
    buyer: Annotated[str, typer.Argument(metavar="BUYER", help="Name of the buyer.")],
    *,
    transfer: Annotated[str, typer.Option(help="Only what was posted for this transfer, units included.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show a buyer's postings of money in their order, or everything that was posted for one transfer."""
    from dataclasses import asdict

    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> list[Posting]:
        return await BillingStore(engine).postings(buyer, transfer)

    found = with_store(find_place(config, store), work)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [
        [when(one.posted_utc_us)[:16], one.rule.value, one.debit.value, one.credit.value, one.asset, one.amount,
         one.period or "", one.document or "", one.key, one.reason]
        for one in found
    ]  # fmt: skip
    columns = ("posted", "rule", "debit", "credit", "asset", "amount", "period", "document", "key", "why")
    print_table(columns, rows)


@ledger.command("reverse")
def reverse(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Of a transfer's posting, as `ledger show` names it.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the reversal.")],
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Take a transfer's unit or minutes back: nothing is edited, a posting the other way round is made.

    Of a week that was billed it is an adjustment of the next. Money is taken back by `invoices cancel`,
    `payments reverse` and the credits.
    """
    import getpass

    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> Any:
        return await BillingStore(engine).reverse(key, reason, getpass.getuser())

    made = with_store(find_place(config, store), work)
    out(f"{key}: taken back by {made.key}")
