"""`baton serve`: one command that keeps a router and a meter running, and answers Prometheus.

The parent does no work of its own: it migrates the store, starts the children, restarts one that dies (with a growing
pause, for ever: a router that is down earns nothing), and serves the metrics of both. The children watch their standard
input; when the parent is gone it closes, and they stop as they do on SIGTERM. On SIGTERM the portal goes first, then
the router, with its drain; the meter settles what the router left and goes last. SIGHUP is handed on to all of them:
each reads its settings again. A child that leaves by itself with code 0 (a router that was drained) is started again.

Once a second it looks at the signs that the children give (`baton.process.health`); pages, gauges and what systemd is
told follow from them. A child that hangs is aborted and started again. Meanwhile systemd's watchdog is not fed: should
even that fail, it is systemd's turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from baton.process.health import BEAT_S, OK, Board, ChildStatus, Sign, checks_by_name, own_sign
from baton.process.notify import Notifier
from config.settings import Settings, load
from telemetry import logs

FIRST_PAUSE_S = 0.5  # before a child that died is started again; doubles up to LAST_PAUSE_S
LAST_PAUSE_S = 15.0
STEADY_S = 30.0  # a child that lived so long starts again with the first pause
PORTAL_STOP_S = 10.0
RUNTIME_DIRECTORY = "RUNTIME_DIRECTORY"  # systemd.exec(5): in memory, where no full disk reaches
ABORT_S = 5.0  # a child that hangs has so long to say where it does; then it is killed
RELOAD_S = 10.0  # after SIGHUP, for all children to have given two signs
METER_STOP_S = 30.0  # to settle what is in the journal; then it is killed, and goes on at the next start

_log = structlog.get_logger("serve")


@dataclass(slots=True)
class _Child:
    name: str
    stop_s: float
    watched: ChildStatus
    process: asyncio.subprocess.Process | None = None
    pause_s: float = FIRST_PAUSE_S
    aborting: bool = False

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.returncode is None


def main(config_path: Path) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigError on a bad file, before anything starts."""
    settings = load(config_path, os.environ)
    logs.configure(**settings.log.options, process="serve")
    with tempfile.TemporaryDirectory(prefix="baton-metrics-", dir=os.environ.get(RUNTIME_DIRECTORY)) as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        asyncio.run(_supervise(config_path, settings))


async def _supervise(config_path: Path, settings: Settings) -> None:
    from meter.store.engine import migrate  # noqa: PLC0415
    from telemetry import metrics  # noqa: PLC0415 - after PROMETHEUS_MULTIPROC_DIR is set

    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    router = _Child("router", settings.router.drain_seconds + 15.0, ChildStatus("router", folder))
    meter = _Child("meter", METER_STOP_S, ChildStatus("meter", folder))
    portals = [_Child("portal", PORTAL_STOP_S, ChildStatus("portal", folder))] if settings.portal is not None else []
    children = (*portals, router, meter)
    stop = asyncio.Event()
    overseer = _Overseer(children, Notifier.of(os.environ), settings.health.restart_hung_seconds, stop)
    page = metrics.serve_metrics(str(settings.metrics.address), settings.metrics.port, overseer.board.page)
    _log.info("metrics_served", process="serve", address=str(settings.metrics.address), port=page.port)
    watching = asyncio.create_task(overseer.run())
    keepers: list[asyncio.Task[None]] = []
    try:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, overseer.hand_on)
        settings.store.data_dir.mkdir(parents=True, exist_ok=True)
        await migrate(settings.store_url)
        keepers += [asyncio.create_task(_keep(child, config_path, stop)) for child in reversed(children)]
        await stop.wait()
        overseer.stopping()
        for child in children:
            await _end(child)
        await asyncio.gather(*keepers)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await asyncio.to_thread(page.stop)


class _Overseer:
    """Looks at the children once a second and does what follows. `hung_s`: after so much silence a child is aborted."""

    def __init__(self, children: Sequence[_Child], notifier: Notifier, hung_s: float, stop: asyncio.Event) -> None:
        self._children = children
        self._notifier = notifier
        self._hung_s = hung_s
        self._stop = stop
        self._turned_at = time.monotonic()
        self._told_ready = False
        self._reloads: dict[str, int] = {}  # child -> signs after which it has reloaded
        self._reload_until = 0.0
        self._aborting: set[asyncio.Task[None]] = set()
        self.board = Board(self._signs)

    async def run(self) -> None:
        while True:
            try:
                self._turn()
            except Exception:  # noqa: BLE001 - the pages tell no more than they know, and the children are kept
                _log.exception("health_failed", process="serve")
            await asyncio.sleep(BEAT_S)

    def hand_on(self) -> None:
        """SIGHUP: to all children; systemd hears that it is done when each has given two signs since."""
        if self._told_ready:
            self._notifier.reloading()
            self._reload_until = time.monotonic() + RELOAD_S
        for child in self._children:
            if child.process is not None and child.runs:
                child.process.send_signal(signal.SIGHUP)
                self._reloads[child.name] = child.watched.beats + 2

    def stopping(self) -> None:
        self.board.stopping = True
        self._notifier.stopping()

    def _turn(self) -> None:
        now = time.monotonic()
        for child in self._children:
            child.watched.look(now - self._turned_at)
        self._turned_at = now
        signs = self.board.note()
        self._show(signs)
        for child in self._children:
            if child.watched.overdue(self._hung_s) and not child.aborting and not self._stop.is_set():
                child.aborting = True
                task = asyncio.create_task(_abort(child))
                self._aborting.add(task)
                task.add_done_callback(self._aborting.discard)
        self._notify(signs)

    def _signs(self) -> list[Sign]:
        return [own_sign("serve", {"process": OK}, self._turned_at), *(one.watched.sign() for one in self._children)]

    def _show(self, signs: Sequence[Sign]) -> None:
        from telemetry import metrics  # noqa: PLC0415

        metrics.show_process("serve")
        for sign in signs[1:]:  # of the children; a child that hangs cannot say so itself
            metrics.READY.labels(sign.name).set(sign.ready)

    def _notify(self, signs: Sequence[Sign]) -> None:
        out = [f"{part} {said}" for part, said in checks_by_name(signs).items() if said != OK]
        self._notifier.status(": ".join([self.board.status(signs), *([", ".join(out)] if out else [])]))
        if self.board.started and not self._told_ready:
            self._told_ready = self._notifier.ready()
        if self._reload_until and self._reloaded() and self._notifier.ready():
            self._reload_until = 0.0
        if not any(sign.hangs for sign in signs):
            self._notifier.feed()

    def _reloaded(self) -> bool:
        if time.monotonic() >= self._reload_until:
            return True
        return all(child.watched.beats >= self._reloads.get(child.name, 0) for child in self._children if child.runs)


async def _abort(child: _Child) -> None:
    """End a child that hangs: SIGABRT, for which it prints where it is, then SIGKILL. Its keeper starts it again."""
    process = child.process
    if process is None:
        return
    _log.error("child_hangs", child=child.name, pid=process.pid, silent_s=round(child.watched.silent_s))
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGABRT)
        try:
            await asyncio.wait_for(process.wait(), ABORT_S)
        except TimeoutError:
            process.kill()


async def _keep(child: _Child, config_path: Path, stop: asyncio.Event) -> None:
    """Start the child, and again whenever it dies, until stopped."""
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        started = loop.time()
        command = [sys.executable, "-m", "baton.process.child", child.name, str(config_path)]
        try:
            child.process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        except OSError as error:  # no memory, no process id: for now
            _log.error("child_not_started", child=child.name, error=str(error), again_in_s=child.pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), child.pause_s)
            child.pause_s = min(LAST_PAUSE_S, child.pause_s * 2)
            continue
        child.aborting = False
        child.watched.started(child.process.pid)
        _log.info("child_started", child=child.name, pid=child.process.pid)
        code = await child.process.wait()
        child.watched.ended()
        _forget_metrics(child.process.pid)
        if stop.is_set():
            return
        if loop.time() - started > STEADY_S or not code:
            child.pause_s = FIRST_PAUSE_S
        tell = _log.error if code else _log.info
        tell("child_died" if code else "child_left", child=child.name, code=code, again_in_s=child.pause_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), child.pause_s)
        child.pause_s = min(LAST_PAUSE_S, child.pause_s * 2)
        _count_restart(child.name)


def _forget_metrics(pid: int) -> None:
    from telemetry import metrics  # noqa: PLC0415

    metrics.mark_dead(pid)


def _count_restart(name: str) -> None:
    from telemetry import metrics  # noqa: PLC0415

    metrics.CHILD_RESTARTS.labels(name).inc()


async def _end(child: _Child) -> None:
    process = child.process
    if process is None or process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), child.stop_s)
    except TimeoutError:
        _log.error("child_killed", child=child.name, after_s=child.stop_s)
        process.kill()
        await process.wait()
