"""`baton serve`: one command that keeps a router and a meter running, and answers Prometheus.

The parent does no work of its own: it migrates the store, starts the children, restarts one that dies (with a growing
pause, for ever: a router that is down earns nothing), and serves the metrics of both. The children watch their standard
input; when the parent is gone it closes, and they stop as they do on SIGTERM. On SIGTERM the portal goes first, then
the router, with its drain; the meter settles what the router left and goes last. SIGHUP is handed on to all of them:
each reads its settings again. A child that leaves by itself with code 0 (a router that was drained) is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog

from config.problems import ConfigError
from config.settings import Settings, load
from meter import logs

FIRST_PAUSE_S = 0.5  # before a child that died is started again; doubles up to LAST_PAUSE_S
LAST_PAUSE_S = 15.0
STEADY_S = 30.0  # a child that lived so long starts again with the first pause
PORTAL_STOP_S = 10.0
METER_STOP_S = 30.0  # to settle what is in the journal; then it is killed, and goes on at the next start

_log = structlog.get_logger("serve")


@dataclass(slots=True)
class _Child:
    name: str
    stop_s: float
    process: asyncio.subprocess.Process | None = None
    pause_s: float = FIRST_PAUSE_S


def main(config_path: Path) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigError on a bad file, before anything starts."""
    settings = load(config_path, os.environ)
    logs.configure(json=settings.log.format == "json", level=settings.log.level)
    with tempfile.TemporaryDirectory(prefix="baton-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        asyncio.run(_supervise(config_path, settings))


async def _supervise(config_path: Path, settings: Settings) -> None:
    from meter import metrics  # noqa: PLC0415 - after PROMETHEUS_MULTIPROC_DIR is set
    from meter.store.db import migrate  # noqa: PLC0415

    settings.store.data_dir.mkdir(parents=True, exist_ok=True)
    await migrate(settings.store_url)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    page = metrics.serve_metrics(str(settings.metrics.address), settings.metrics.port)
    router = _Child("router", settings.router.drain_seconds + 15.0)
    meter = _Child("meter", METER_STOP_S)
    portals = [_Child("portal", PORTAL_STOP_S)] if settings.portal is not None else []
    children = (*portals, router, meter)
    loop.add_signal_handler(signal.SIGHUP, _hand_on, children)
    keepers = [asyncio.create_task(_keep(child, config_path, stop)) for child in reversed(children)]
    try:
        await stop.wait()
        for child in children:
            await _end(child)
        await asyncio.gather(*keepers)
    finally:
        page.stop()


async def _keep(child: _Child, config_path: Path, stop: asyncio.Event) -> None:
    """Start the child, and again whenever it dies, until stopped."""
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        started = loop.time()
        command = [sys.executable, "-m", "baton.child", child.name, str(config_path)]
        child.process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        _log.info("child_started", child=child.name, pid=child.process.pid)
        code = await child.process.wait()
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


def _hand_on(children: tuple[_Child, ...]) -> None:
    for child in children:
        if child.process is not None and child.process.returncode is None:
            child.process.send_signal(signal.SIGHUP)


def _forget_metrics(pid: int) -> None:
    from meter import metrics  # noqa: PLC0415

    metrics.mark_dead(pid)


def _count_restart(name: str) -> None:
    from meter import metrics  # noqa: PLC0415

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


def stop_on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, *, supervised: bool) -> None:
    """Set `stop` on SIGTERM and SIGINT and, under a parent, when it is gone (its pipe closes)."""
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if supervised:

        def on_input() -> None:
            if not os.read(0, 1024):
                loop.remove_reader(0)
                stop.set()

        loop.add_reader(0, on_input)


def relog_on_hangup(loop: asyncio.AbstractEventLoop, config_path: Path) -> None:
    """On SIGHUP: format and level of the log from the file again; all else of such a process needs a restart."""

    def relog() -> None:
        try:
            log = load(config_path, os.environ).log
        except ConfigError as error:
            _log.error("reload_refused", said=str(error))
        else:
            logs.configure(json=log.format == "json", level=log.level)
            _log.info("reloaded", applied=["log"])

    loop.add_signal_handler(signal.SIGHUP, relog)


def router_main(config_path: Path) -> None:
    """`baton router`: the router alone, under somebody else's supervision."""
    from baton import run_router  # noqa: PLC0415 - this module is what it imports

    run_router.main(config_path)


def meter_main(config_path: Path) -> None:
    """`baton meter`: the meter alone."""
    from baton import run_meter  # noqa: PLC0415

    run_meter.main(config_path)


def portal_main(config_path: Path) -> None:
    """`baton portal`: the HTTP API alone."""
    from baton import run_portal  # noqa: PLC0415

    run_portal.main(config_path)
