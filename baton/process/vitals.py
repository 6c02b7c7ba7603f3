"""A process's report on its own health: its signs of life, and the checks of router and portal.

`alive` runs a process with it. Under a parent the signs go to the file that the parent watches. Alone the process
serves its own pages beside its metrics, and tells systemd where that has started it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from baton.process.health import BEAT_S, DRAINING, OK, Board, Checks, own_sign, state_file, write_state
from baton.process.notify import Notifier
from config.settings import Settings
from telemetry import metrics
from telemetry.metrics import MULTIPROCESS_VARIABLE, MetricsServer

if TYPE_CHECKING:  # not for the meter to load
    from meter.journal.sql.append import JournalWriter
    from router.router import Router

STORE_S = 10.0  # the store was asked again and again and has not answered for so long
ASK_S = 2.0  # how often the portal asks it
JOURNAL_LAG_S = 2.0  # what an admission waits for its commit; longer, and it is refused
CALL_SLOTS = 2  # of the smallest transfer: the dialer's leg and one endpoint

_log = structlog.get_logger()
Run = Callable[["Vitals"], Awaitable[None]]


class Vitals:
    """One process's health. It is starting until `up` is called. To be used on its loop; `sign` from any thread."""

    def __init__(self, name: str, file: Path | None = None) -> None:
        self.name = name
        self._file = file
        self._look: Callable[[], Checks] | None = None
        self._done: dict[str, float] = {}  # what -> when it was last done, time.monotonic
        self._checks: Checks = {"process": "is starting"}
        self._turned_at = time.monotonic()
        self.board = Board(lambda: [own_sign(self.name, self._checks, self._turned_at)])

    def up(self, look: Callable[[], Checks]) -> None:
        """The process is started; from now on each beat asks `look`."""
        self._look = look

    def done(self, what: str) -> None:
        """It was done just now."""
        self._done[what] = time.monotonic()

    def since_s(self, what: str) -> float:
        """Seconds since it was done; endless where it never was."""
        return time.monotonic() - self._done.get(what, float("-inf"))

    def noting(self, what: str, action: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[None]]:
        """The action, noted as done each time that it succeeds."""

        async def act() -> None:
            await action()
            self.done(what)

        return act

    def store(self) -> str:
        """Of what is noted as `store`: does it answer?"""
        silent_s = self.since_s("store")
        if silent_s <= STORE_S:
            return OK
        return "has not answered yet" if silent_s == float("inf") else f"has not answered for {silent_s:.0f} s"

    def beat(self) -> None:
        """Look at everything once, and give the sign. Never raises."""
        if self._look is not None:
            try:
                self._checks = {"process": OK, **self._look()}
            except Exception as error:  # noqa: BLE001 - a fault in a look must not pass for a loop that hangs
                _log.exception("health_failed", process=self.name)
                self._checks = {"process": f"cannot tell how it is: {type(error).__name__}"}
        self._turned_at = time.monotonic()
        if self._file is not None:
            with suppress(OSError):  # the folder is gone, and so is the parent
                write_state(self._file, os.getpid(), self._checks)


async def alive(name: str, settings: Settings, run: Run, *, supervised: bool) -> None:
    """Run a process, giving signs of it until it ends. `name` is router, meter or portal."""
    folder = os.environ.get(MULTIPROCESS_VARIABLE, "")
    vitals = Vitals(name, state_file(Path(folder), name) if supervised and folder else None)
    notifier = Notifier() if supervised else Notifier.of(os.environ)
    page = None if supervised else _own_page(vitals, settings)
    beating = asyncio.create_task(_beat(vitals, notifier, alone=not supervised), name="health")
    try:
        await run(vitals)
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        if page is not None:
            await asyncio.to_thread(page.stop)


def _own_page(vitals: Vitals, settings: Settings) -> MetricsServer:
    """The pages of a process that runs alone. One that is there already keeps nobody from working: any port then."""
    address, port = str(settings.metrics.address), settings.metrics.port
    try:
        page = metrics.serve_metrics(address, port, vitals.board.page)
    except OSError as error:
        _log.warning("metrics_port_taken", process=vitals.name, port=port, error=error.strerror)
        page = metrics.serve_metrics(address, 0, vitals.board.page)
    _log.info("metrics_served", process=vitals.name, address=address, port=page.port)
    return page


async def _beat(vitals: Vitals, notifier: Notifier, *, alone: bool) -> None:
    told_ready = False
    while True:
        vitals.beat()
        metrics.show_process(vitals.name)
        if alone:  # else the parent says so, who also sees the loop that hangs
            signs = vitals.board.note()
            metrics.READY.labels(vitals.name).set(all(sign.ready for sign in signs))
            notifier.status(vitals.board.status(signs))
            if vitals.board.started and not told_ready:
                told_ready = notifier.ready()
            notifier.feed()
        await asyncio.sleep(BEAT_S)


def router_checks(router: Router, writer: JournalWriter, vitals: Vitals) -> Checks:
    """What a router needs to take the next call. `commit` and `store` are noted in its vitals."""
    from router.router import SPARE_SLOTS  # noqa: PLC0415 - not for the meter to load

    enough = router.engine.slots.free >= CALL_SLOTS + SPARE_SLOTS
    return {
        "calls": DRAINING if router.draining else OK,
        "slots": OK if enough else "no call slot is free",
        "journal": _journal(writer, vitals),
        "store": vitals.store(),
    }


def _journal(writer: JournalWriter, vitals: Vitals) -> str:
    if writer.full:
        return f"full: {writer.backlog} facts are not durable"
    lag_s = writer.lag_s
    if lag_s <= JOURNAL_LAG_S:
        return OK
    fails = vitals.since_s("commit") > lag_s  # none succeeded since the oldest fact came
    return f"{'commits fail' if fails else 'behind'}: the oldest fact has waited for {lag_s:.0f} s"


def portal_up(vitals: Vitals, healthy: Callable[[], Awaitable[bool]]) -> asyncio.Task[None]:
    """The portal is started. Returns the task that asks its store again and again; cancel it before that is closed."""
    vitals.up(lambda: {"store": vitals.store()})
    return asyncio.create_task(_ask(vitals, healthy), name="health-store")


async def _ask(vitals: Vitals, healthy: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await healthy():
            vitals.done("store")
        await asyncio.sleep(ASK_S)
