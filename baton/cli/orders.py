"""Commands on orders: `orders set`, `list`."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baton.cli.console import (
    ConfigOption,
    JsonOption,
    StoreOption,
    find_place,
    find_settings,
    out,
    print_json,
    print_table,
    with_store,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from book.model import Buyer, Order
    from meter.book.sql.orders import OrderProgress

orders = typer.Typer(help="Orders: what a buyer bought for a week.", no_args_is_help=True)

_COLUMNS = ("buyer", "week", "quantity", "make up", "counts", "so far", "live", "left", "most")


@orders.command("set")
def set_(
    buyer: Annotated[str, typer.Argument(metavar="BUYER", help="Name of the buyer.")],
    *,
    week: Annotated[str, typer.Option(help="Monday on which the week begins, such as 2026-11-23.")],
    quantity: Annotated[
        int,
        typer.Option(min=0, max=1_000_000, help="Bought: live transfers as sent, or billed units, as the terms say."),
    ],
    make_up: Annotated[
        int | None,
        typer.Option("--make-up", min=0, max=1_000_000, help="Free on top; without it it stays as it is."),
    ] = None,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Set a buyer's order for a week, in the place of the one before; routers have it within a second."""
    import getpass

    from book.model import Order
    from meter.book.sql.orders import OrderStore

    order = Order(buyer, monday(week), quantity, make_up or 0)

    async def work(engine: AsyncEngine) -> tuple[Order | None, str, tuple[str, ...]]:
        before = await OrderStore(engine).set(order, getpass.getuser(), keep_make_up=make_up is None)
        return before, *await _how_counted(engine, order, has_mail=has_mail(config, store))

    before, what, warnings = with_store(find_place(config, store), work)
    was = "" if before is None else "is so already" if before == order else f"instead of {_bought(before, what)}"
    if make_up is None and before is not None:
        order = Order(buyer, order.week, quantity, before.make_up)
        was = was if before != order else "is so already"
    out(f"{buyer}, week of {order.week}: {_bought(order, what)}{f', {was}' if was else ''}")
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


async def _how_counted(engine: AsyncEngine, order: Order, *, has_mail: bool) -> tuple[str, tuple[str, ...]]:
    """What the order counts, in words, and what can be ordered and is seldom meant."""
    from datetime import UTC, datetime

    from meter.billing.arithmetic.drafts import COUNTED_IN
    from meter.book.sql.book import BookStore
    from meter.book.sql.orders import warnings_of

    found = (await BookStore(engine).load()).buyers.get(order.buyer)
    if found is None:
        return "", ()  # its terms are not in force yet
    what = COUNTED_IN[found.terms.order_counts]
    if not order.quantity:
        return what, ()
    said = warnings_of(order, found.terms, datetime.now(UTC).date())
    return what, said + await address_warnings(engine, [found], has_mail=has_mail)


async def address_warnings(engine: AsyncEngine, buyers: Iterable[Buyer], *, has_mail: bool) -> tuple[str, ...]:
    """What keeps leads and documents from reaching these buyers."""
    from meter.mail.sql.recipients import order_warnings
    from meter.store.clerk import Clerk

    clerk = Clerk(engine)
    try:
        work = [await clerk.read(order_warnings, one, has_mail=has_mail) for one in buyers]
    finally:
        await clerk.close()
    return tuple(said for some in work for said in some)


def has_mail(config: Path | None, store: str) -> bool:
    """Whether a mail server is configured; where only a store is named, that is not known, and taken for yes."""
    settings = None if store and config is None else find_settings(config)
    return settings is None or settings.mail is not None


@orders.command("list")
def list_(
    buyer: Annotated[str, typer.Argument(metavar="[BUYER]", help="Name of the buyer; all where none is given.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List orders with what they have come to, by each order's way of counting: so far, under way, and left."""
    from meter.book.sql.orders import OrderStore

    async def work(engine: AsyncEngine) -> list[OrderProgress]:
        return await OrderStore(engine).list(buyer)

    found = with_store(find_place(config, store), work)
    if as_json:
        print_json([_as_dict(one) for one in found])
    else:
        print_table(_COLUMNS, [_row(one) for one in found])


def monday(week: str) -> str:
    """The week as the store has it. Raises BadParameter, which names the option."""
    from datetime import date

    hint = ["--week"]
    try:
        day = date.fromisoformat(week)
    except ValueError as error:
        raise typer.BadParameter(f"{week!r} is not a date, such as 2026-11-23", param_hint=hint) from error
    if day.weekday():
        said = f"{day.isoformat()} is a {day:%A}; a service week begins on a Monday"
        raise typer.BadParameter(said, param_hint=hint)
    return day.isoformat()


def _bought(order: Order, what: str) -> str:
    return f"{order.quantity:,} {what}".rstrip() + (f" and {order.make_up:,} to make up" if order.make_up else "")


def _row(progress: OrderProgress) -> list[Any]:
    order = progress.order
    return [
        order.buyer,
        order.week,
        order.quantity,
        progress.make_up,
        progress.counts,
        progress.units,
        progress.live,
        progress.left,
        progress.most,
    ]


def _as_dict(progress: OrderProgress) -> dict[str, Any]:
    order = {"buyer": progress.order.buyer, "week": progress.order.week, "quantity": progress.order.quantity}
    found = asdict(progress)
    del found["order"]
    return {**order, **found, "left": progress.left}
