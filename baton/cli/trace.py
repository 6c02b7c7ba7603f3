"""`baton trace`: the SIP messages of one transfer, as the running router still has them."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from baton.cli.console import CommandError, ConfigOption, JsonOption, clean, find_place, out, print_json, with_store
from baton.cli.live import ask_router, control_socket

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from facts.fact import Fact

_ARROWS = {True: "<-", False: "->"}


def trace(
    transfer: Annotated[str, typer.Argument(metavar="ID", help="Id of the transfer.")],
    *,
    full: Annotated[bool, typer.Option("--full", help="Whole messages, headers and SDP.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the SIP messages of one transfer: the dialer's call and every leg, in the order of time.

    The running router keeps the last ones (`router.trace_mb`). Numbers, names, fields of the lead, credentials and
    keys are masked. Exit code 1: there is no such transfer, or its messages are gone.
    """
    from router.sip.tracing import leg_of

    of_dialer, legs = _look_up(config, transfer)
    wanted = {"do": "trace", "call_ids": [*filter(None, [of_dialer])], "prefixes": [f"{transfer}-"]}
    answer = ask_router(control_socket(config), wanted)
    messages: list[dict[str, Any]] = answer["messages"]
    if not messages:
        raise CommandError(
            f"{clean(transfer)}: the router has none of its messages any more (router.trace_mb), or never had"
        )
    for message in messages:
        message["leg"] = legs.get(leg_of(message["call_id"]), "")
    if as_json:
        print_json({"transfer": transfer, "messages": messages, "cut": answer["cut"]})
        return
    zero_us = messages[0]["mono_us"]
    for message in messages:
        _print(message, (message["mono_us"] - zero_us) / 1000, full=full)
    if answer["cut"]:
        out("There are more messages than one answer holds: the newest are not shown.")


def _look_up(config: Any, transfer: str) -> tuple[str, dict[str, str]]:
    """Its dialer's Call-ID, and the name of each leg by its Call-ID as it is shown. Raises CommandError."""
    from facts.fact import Kind, first_of
    from facts.start_payload import by_leg, transfer_started
    from meter.journal.sql.reading import read_transfer
    from router.sip.tracing import mask_call_id

    async def work(engine: AsyncEngine) -> list[Fact]:
        return await read_transfer(engine, transfer)

    facts = with_store(find_place(config, ""), work)
    started = first_of(facts, Kind.TRANSFER_STARTED)
    if started is None:
        raise CommandError(f"there is no transfer {clean(transfer)!r}")
    names = {mask_call_id(f"{transfer}-{leg}"): endpoint.name or "" for leg, endpoint in by_leg(started).items()}
    of_dialer = transfer_started(started).sip_call_id or ""
    return of_dialer, {mask_call_id(of_dialer): "dialer", **names}


def _print(message: dict[str, Any], at_ms: float, *, full: bool) -> None:
    head, _, rest = message["text"].partition("\r\n")
    arrow = _ARROWS[bool(message["received"])]
    out(f"{at_ms:10.1f} ms  {message['leg'] or '?':<16} {arrow} {message['peer']:<28} {clean(head)}")
    if full:
        for line in rest.rstrip("\r\n").split("\r\n"):
            out(f"              {clean(line)}")
        out()
