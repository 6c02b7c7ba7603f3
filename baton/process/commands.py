"""Executes the commands that arrive by MQTT: pause, resume, suppress. `meter.mqtt` receives and answers them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from baton.suppression_lists import list_store
from book.lists import Actor
from book.model import BuyerState
from meter.book.sql.book import UnknownBuyerError, set_state
from meter.book.sql.editing import StateRefusedError, set_own_state
from meter.mqtt.commands import BY_PREFIX, Commander, CommandError, Execute
from meter.store.clerk import Clerk
from suppression.activating import ListRefusedError
from suppression.editing import edit

MAX_REASON = 500
_STATES = {"pause": BuyerState.PAUSED, "resume": BuyerState.ACTIVE}


def executor(engine: AsyncEngine, data_dir: Path) -> Execute:
    """What does commands on this store."""

    async def execute(command: str, arguments: Mapping[str, Any], by: Commander) -> dict[str, Any]:
        if command == "suppress":
            return await _suppress(engine, data_dir, arguments, by)
        return await _set_state(engine, _STATES[command], arguments, by)

    return execute


async def _set_state(
    engine: AsyncEngine, state: BuyerState, arguments: Mapping[str, Any], by: Commander
) -> dict[str, Any]:
    buyer = _text(arguments, "buyer") or by.buyer
    if not buyer:
        raise CommandError("buyer: is required")
    if by.buyer and buyer != by.buyer:
        raise CommandError("buyer: is another's")
    change = set_own_state if by.buyer else set_state
    said_by, reason = BY_PREFIX + by.name, _text(arguments, "reason")[:MAX_REASON]
    clerk = Clerk(engine)
    try:
        now_us = time.time_ns() // 1000
        made = await clerk.write(change, name=buyer, state=state, by=said_by, reason=reason, now_utc_us=now_us)
    except UnknownBuyerError as error:
        raise CommandError(f"buyer: no buyer is called {buyer!r}") from error
    except StateRefusedError as error:
        raise CommandError(f"buyer: {error}") from error
    finally:
        await clerk.close()
    stops = [one.value for one in made.stops]
    return {"buyer": buyer, "before": made.before.value, "state": made.after.value, "stops": stops}


async def _suppress(engine: AsyncEngine, data_dir: Path, arguments: Mapping[str, Any], by: Commander) -> dict[str, Any]:
    name, numbers = _text(arguments, "list"), arguments.get("numbers")
    if not name:
        raise CommandError("list: is required")
    if not isinstance(numbers, list) or not numbers or not all(isinstance(one, str) for one in numbers):
        raise CommandError("numbers: is not a list of phone numbers, as text")
    store = list_store(engine)
    history = await store.history(name)
    if by.buyer and (not history or history[-1].buyer != by.buyer):
        raise CommandError(f"list: {name!r} is not yours")
    who = Actor(by.name, f"{BY_PREFIX}{by.name}")
    try:
        done = await edit(store, data_dir, name, add=dict.fromkeys(numbers, 0), remove=(), actor=who)
    except ListRefusedError as error:
        raise CommandError(f"numbers: {error}") from error
    return {"list": name, "added": done.added, "already": done.already, "entries": done.count}


def _text(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name, "")
    if not isinstance(value, str):
        raise CommandError(f"{name}: is not text")
    return value
