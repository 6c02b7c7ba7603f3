"""Commands on webhooks: `webhooks list`, `set`, `roll`, `test`, `enable`, `disable`, `remove`."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from baton.cli.console import (
    CommandError,
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

    from meter.webhooks.sql import Standing, Webhook

T = TypeVar("T")

webhooks = typer.Typer(help="Webhooks: where buyers are posted to, and how that goes.", no_args_is_help=True)

BuyerArgument = Annotated[str, typer.Argument(metavar="BUYER", help="Name of the buyer.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the webhook, unique within the buyer.")]


def _in_store(config: Path | None, store: str, work: Callable[[Any], T], *, write: bool = False) -> T:
    from meter.store.clerk import Clerk

    async def run(engine: AsyncEngine) -> T:
        clerk = Clerk(engine)
        try:
            return await (clerk.write(work) if write else clerk.read(work))
        finally:
            await clerk.close()

    return with_store(find_place(config, store), run)


@webhooks.command("list")
def list_(
    buyer: Annotated[str, typer.Argument(help="Only this buyer's.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List webhooks and how posting to them goes. Secrets are not shown."""
    from meter.webhooks.management import trouble
    from meter.webhooks.sql import read_hooks

    found = _in_store(config, store, lambda connection: read_hooks(connection, buyer=buyer))
    if as_json:
        print_json([_shown(hook, standing) for hook, standing in found])
        return
    rows = [
        (one.buyer, one.name, clean(one.url), ", ".join(one.events), _state(one, how), clean(trouble(one, how)))
        for one, how in found
    ]
    print_table(("buyer", "webhook", "url", "events", "state", "last error"), rows)


def _shown(hook: Webhook, standing: Standing) -> dict[str, Any]:
    from dataclasses import asdict

    said = asdict(hook)
    del said["secrets"]
    return said | asdict(standing)


def _state(hook: Webhook, standing: Standing) -> str:
    from meter.webhooks.management import Condition, condition

    word = condition(hook, standing)
    if word is Condition.DISABLED:
        return f"{word} {when(standing.disabled_utc_us)}"
    if word is Condition.FAILING and standing.failing_since_utc_us is not None:
        return f"{word} since {when(standing.failing_since_utc_us)} ({standing.failures})"
    return word.value


@webhooks.command("set")
def set_(
    buyer: BuyerArgument,
    name: NameArgument,
    url: Annotated[str, typer.Argument(metavar="URL", help="https://HOST/...")],
    *,
    event: Annotated[
        list[str] | None, typer.Option("--event", help="dialed, answered, failed, outcome; may be repeated.")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option("--field", help="Field of the lead that goes along; all where none is said.")
    ] = None,
    redact: Annotated[list[str] | None, typer.Option("--redact", help="Field of the lead that never does.")] = None,
    mask_phone: Annotated[bool, typer.Option("--mask-phone", help="Only the last four digits of numbers.")] = False,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Create or change a webhook. The secret of a new one is shown once."""
    from meter.webhooks.management import put_known
    from meter.webhooks.sql import ALL_FIELDS, DEFAULT_EVENTS, Webhook

    hook = Webhook(
        buyer=buyer,
        name=name,
        url=url,
        events=tuple(event or DEFAULT_EVENTS),
        lead_fields=tuple(field or (ALL_FIELDS,)),
        redact_fields=tuple(redact or ()),
        mask_phone=mask_phone,
    )
    made, is_new = _changed(config, store, lambda connection: put_known(connection, hook))
    out(f"{buyer}/{name}: {'created' if is_new else 'changed'}, {', '.join(made.events)} to {clean(made.url)}")
    if is_new:
        out(f"its secret, which is not shown again: {made.secrets[0]}")


@webhooks.command()
def roll(buyer: BuyerArgument, name: NameArgument, config: ConfigOption = None, store: StoreOption = "") -> None:
    """Give a webhook a new secret; the one before signs beside it until the next roll."""
    from meter.webhooks.management import find_hook
    from meter.webhooks.sql import put_hook

    def work(connection: Any) -> Webhook:
        return put_hook(connection, find_hook(connection, buyer, name), roll=True)

    made = _changed(config, store, work)
    out(f"{buyer}/{name}: its new secret, which is not shown again: {made.secrets[0]}")


@webhooks.command("test")
def try_(buyer: BuyerArgument, name: NameArgument, config: ConfigOption = None, store: StoreOption = "") -> None:
    """Post a signed sample now, and say what came back. Exit code 1 where it was not taken."""
    import asyncio

    from baton.process.meter import webhook_options
    from meter.webhooks.channel import OK, WebhookOptions
    from meter.webhooks.http_post import HttpPostError
    from meter.webhooks.management import UnknownWebhookError, find_hook, try_out

    settings = find_settings(config)
    options = webhook_options(settings) if settings is not None else WebhookOptions()
    try:
        hook = _in_store(config, store, lambda connection: find_hook(connection, buyer, name))
    except UnknownWebhookError as error:
        raise _unknown(buyer, name) from error
    try:
        status = asyncio.run(try_out(hook, options))
    except HttpPostError as error:
        raise CommandError(f"{clean(hook.url)}: {error}") from error
    out(f"{clean(hook.url)}: answered {status}")
    if status not in OK:
        raise typer.Exit(1)


@webhooks.command()
def enable(buyer: BuyerArgument, name: NameArgument, config: ConfigOption = None, store: StoreOption = "") -> None:
    """Post to a webhook again; what was given up for it goes out now."""
    from meter.webhooks.sql import enable as enable_hook

    revived = _in_store(config, store, lambda connection: enable_hook(connection, buyer, name), write=True)
    if revived is None:
        raise _unknown(buyer, name)
    out(f"{buyer}/{name}: enabled, {revived} messages revived")


@webhooks.command()
def disable(
    buyer: BuyerArgument,
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown in the list.")] = "disabled by hand",
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Post to a webhook no more, until it is enabled."""
    from meter.webhooks.sql import disable as disable_hook

    if not _in_store(config, store, lambda connection: disable_hook(connection, buyer, name, reason), write=True):
        raise _unknown(buyer, name)
    out(f"{buyer}/{name}: disabled")


@webhooks.command()
def remove(buyer: BuyerArgument, name: NameArgument, config: ConfigOption = None, store: StoreOption = "") -> None:
    """Remove a webhook and what waits for it."""
    from meter.webhooks.sql import remove_hook

    if not _in_store(config, store, lambda connection: remove_hook(connection, buyer, name), write=True):
        raise _unknown(buyer, name)
    out(f"{buyer}/{name}: removed")


def _changed(config: Path | None, store: str, work: Callable[[Any], T]) -> T:
    from meter.webhooks.sql import WebhookError

    try:
        return _in_store(config, store, work, write=True)
    except (WebhookError, LookupError) as error:
        raise CommandError(clean(str(error.args[0]))) from error


def _unknown(buyer: str, name: str) -> CommandError:
    return CommandError(f"{clean(buyer)} has no webhook called {clean(name)!r}")
