"""The commands of a running router's control socket: live view, trace, drain, reload of the configuration.

`reload` brings into force what can be without touching a call that is up; what needs a restart stays as it was and is
reported by name, at this reload and at each later one, until the restart. A file with problems changes nothing.
Requests are checked here; a wrong one is a `RefusedError` that names the field.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import structlog
from pydantic import BaseModel

from baton.process.control import Command, RefusedError
from book.problems import ConfigError
from config.settings import Settings, load_running
from router.live import RouterView, arrival_view, arrivals_of, is_empty, router_view, transfer_view
from router.router import Router
from router.sip.tracing import MAX_CALL_ID, MAX_CALL_IDS, KeptMessages
from telemetry import logs

DEFAULT_SHOWN = 500
MAX_SHOWN = 5_000
_AT_ONCE = 10  # views made and written between two turns of the loop; one takes about 25 us
_EMPTY_LOOK_S = 0.1
MAX_WITHIN_S = 86_400

# Settings that a running router can change. All others of the file need a restart.
LIVE: dict[str, frozenset[str] | None] = {  # None: all of the section
    "dialers": None,
    "carriers": None,
    "log": None,
    "suppression": frozenset({"reload_ms"}),
    "recording": frozenset({"retention_days"}),
    "router": frozenset(
        {
            "drain_seconds",
            "unknown_sources",
            "lockout_failures",
            "lockout_seconds",
            "rtp_timeout_ms",
            "fast_answer_ms",
            "probe_down_after",
            "probe_up_after",
        }
    ),
}

_log = structlog.get_logger("router")


async def load_or_refuse(config_path: Path, environ: dict[str, str]) -> tuple[Settings, list[str]]:
    """The file as it is now, and variables of the environment whose entry is gone from it.

    Raises RefusedError with every problem of it.
    """
    try:
        found, gone = await asyncio.to_thread(load_running, config_path, environ)
    except ConfigError as error:
        _log.error("reload_refused", problems=len(error.problems))
        problems = tuple(map(str, error.problems))
        raise RefusedError(f"{config_path}: nothing was changed", problems) from error
    return found, [f"{name} (names an entry that is gone; take it out of the environment)" for name in gone]


def merged(now: Settings, wanted: Settings, live: Mapping[str, frozenset[str] | None] = LIVE) -> Settings:
    """`now` with all of `wanted` that the running process can change: the names of each section, None: all of it."""
    updates: dict[str, Any] = {}
    for section, names in live.items():
        new, old = getattr(wanted, section), getattr(now, section)
        if names is not None and (new is None or old is None):
            continue  # a section that came or went
        updates[section] = new if names is None else old.model_copy(update={one: getattr(new, one) for one in names})
    return now.model_copy(update=updates)


def differences(before: Settings, after: Settings, sections: Iterable[str] = Settings.model_fields) -> list[str]:
    """Names of what differs: `router.max_calls`, `dialers.west`; never a value, which may be a secret."""
    return [name for section in sections for name in _differ(section, before, after)]


def _of_router(before: Settings, after: Settings) -> list[str]:
    """Sections of which a router tells: not of the portal's, which is another process, where there is one."""
    portal = before.portal is not None and after.portal is not None
    return [section for section in Settings.model_fields if section != "portal" or not portal]


def _differ(section: str, running: Settings, wanted: Settings) -> Iterator[str]:
    old, new = getattr(running, section), getattr(wanted, section)
    if old == new:
        return
    if isinstance(old, tuple):
        before, after = ({entry.name: entry for entry in entries} for entries in (old, new))
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        yield from (f"{section}.{name}" for name in changed)
        if not changed:
            yield section  # the same ones in another order
    elif isinstance(old, BaseModel) and isinstance(new, BaseModel):
        fields = type(old).model_fields
        yield from (f"{section}.{name}" for name in fields if getattr(old, name) != getattr(new, name))
    else:
        yield section


class Steering:
    """One router's commands, and the settings that are in force. `apply` brings settings into force, `stop` ends it."""

    def __init__(
        self,
        config_path: Path,
        settings: Settings,
        router: Router,
        *,
        environ: dict[str, str],
        apply: Callable[[Settings], None],
        stop: Callable[[], None],
        trace: Callable[[Sequence[str], Sequence[str]], KeptMessages] = lambda _ids, _prefixes: KeptMessages(),
    ) -> None:
        self.settings = settings
        self._config_path = config_path
        self._router = router
        self._environ = environ
        self._apply = apply
        self._stop = stop
        self._trace = trace
        self._leaving: asyncio.Task[None] | None = None
        self._grace_s: int | None = None
        self._one_reload = asyncio.Lock()

    @property
    def commands(self) -> dict[str, Command]:
        return {
            "live": self.live,
            "availability": self.availability,
            "drain": self.drain,
            "reload": self.reload,
            "trace": self.trace,
        }

    @property
    def grace_s(self) -> int:
        """How long calls may go on once the router is told to stop, in seconds."""
        return self.settings.router.drain_seconds if self._grace_s is None else self._grace_s

    async def live(self, request: dict[str, Any]) -> dict[str, Any]:
        """Everything that is up, the oldest first; at most `limit` transfers."""
        limit = _whole(request, "limit", DEFAULT_SHOWN, 0, MAX_SHOWN)
        clock, router = self._router.clock, self._router
        view: RouterView = router_view(router)
        transfers = []  # written one by one, so that the whole answer only has to be put together
        for at, shell in enumerate(list(router.live.values())[:limit], start=1):
            transfers.append(orjson.Fragment(orjson.dumps(transfer_view(shell, clock.now_us(), logs.mask))))
            if at % _AT_ONCE == 0:
                await asyncio.sleep(0)
        arrivals = [asdict(arrival_view(one, clock.now_us(), logs.mask)) for one in arrivals_of(router)[:limit]]
        name = self.settings.router.name
        return {"router": name, **asdict(view), "live": transfers, "arriving": arrivals}

    async def availability(self, request: dict[str, Any]) -> dict[str, Any]:
        """Would a buyer of the campaign take a call now?"""
        campaign = request.get("campaign")
        if not isinstance(campaign, str) or not campaign:
            raise RefusedError("campaign: the name of a campaign is required")
        if self._router.draining:
            return {"available": False, "reason": "draining", "refusals": []}
        found = self._router.available(campaign)
        refusals = [{"buyer": one.buyer, "reason": str(one.reason), "detail": one.detail} for one in found.refusals]
        return {"available": not found.refusal, "reason": str(found.refusal), "refusals": refusals}

    async def trace(self, request: dict[str, Any]) -> dict[str, Any]:
        """The SIP messages still kept of `call_ids`, and of Call-IDs with one of `prefixes`, the oldest first.

        They are masked, which is done off the loop. `cut`: there are more than fit into an answer.
        """
        call_ids, prefixes = _texts(request, "call_ids"), _texts(request, "prefixes")
        if not 0 < len(call_ids) + len(prefixes) <= MAX_CALL_IDS:
            raise RefusedError(f"call_ids, prefixes: are not 1 to {MAX_CALL_IDS} together")
        if not all(map(str.isprintable, prefixes)):
            raise RefusedError("prefixes: each has printable characters only")
        clock = self._router.clock
        offset_us = clock.utc_us() - clock.now_us()
        found, cut = await asyncio.to_thread(self._trace(call_ids, prefixes).messages)
        messages = [{**asdict(one), "at_utc_us": one.mono_us + offset_us} for one in found]
        return {"messages": messages, "cut": cut}

    async def drain(self, request: dict[str, Any]) -> dict[str, Any]:
        """Refuse new calls, or take them again; with `exit` end the process once nothing is up, or `within_s` later."""
        on, leave = _flag(request, "on", default=True), _flag(request, "exit", default=False)
        within_s = _whole(request, "within_s", 0, 0, MAX_WITHIN_S)
        if leave and not on:
            raise RefusedError("exit: goes with on = true only")
        if within_s and not leave:
            raise RefusedError("within_s: goes with exit = true only")
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        self._router.draining = on
        live = len(self._router.live) + len(arrivals_of(self._router))
        _log.warning("draining" if on else "drain_ended", live=live, exit=leave)
        if leave:
            self._leaving = asyncio.create_task(self._leave(within_s))
        return {"draining": on, "exit": leave, "live": live}

    async def _leave(self, within_s: int) -> None:
        bound = asyncio.get_running_loop().time() + within_s
        while not is_empty(self._router):
            if within_s and asyncio.get_running_loop().time() >= bound:
                self._grace_s = 0
                break
            await asyncio.sleep(_EMPTY_LOOK_S)
        self._stop()

    async def reload(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Read the configuration file again. Says what is in force now and what waits for a restart."""
        async with self._one_reload:
            wanted, gone = await load_or_refuse(self._config_path, self._environ)
            new, sections = merged(self.settings, wanted), _of_router(self.settings, wanted)
            applied, restart = differences(self.settings, new, sections), differences(new, wanted, sections)
            restart += gone
            self._apply(new)
            self.settings = new
        _log.info("reloaded", applied=applied, needs_restart=restart)
        return {"applied": applied, "needs_restart": restart}


def _flag(request: dict[str, Any], name: str, *, default: bool) -> bool:
    value = request.get(name, default)
    if not isinstance(value, bool):
        raise RefusedError(f"{name}: is not true or false")
    return value


def _whole(request: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RefusedError(f"{name}: is not a whole number from {least} to {most}")
    return value


def _texts(request: dict[str, Any], name: str) -> list[str]:
    value = request.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, str) and 0 < len(one) <= MAX_CALL_ID for one in value):
        raise RefusedError(f"{name}: is not a list of texts, each of 1 to {MAX_CALL_ID} characters")
    return value
