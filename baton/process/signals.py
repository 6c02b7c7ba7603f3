"""What a child does on a signal: stop on SIGTERM and SIGINT, take its configuration anew on SIGHUP."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from baton.process.control import ControlError
from book.problems import ConfigError
from config.settings import load_running
from telemetry import logs

_log = structlog.get_logger("serve")


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


def relog_on_hangup(loop: asyncio.AbstractEventLoop, config_path: Path, process: str) -> None:
    """On SIGHUP: what the file says of logs is in force again; all else of such a process needs a restart."""

    def relog() -> None:
        try:
            log = load_running(config_path, os.environ)[0].log
        except ConfigError as error:
            _log.error("reload_refused", said=str(error))
        else:
            logs.configure(**log.options, process=process)
            _log.info("reloaded", applied=["log"])

    loop.add_signal_handler(signal.SIGHUP, relog)


def reload_on_hangup(
    loop: asyncio.AbstractEventLoop, reload: Callable[[dict[str, Any]], Coroutine[Any, Any, object]]
) -> None:
    """SIGHUP does what `baton reload` does; what is wrong with the file goes to the log."""
    tasks: set[asyncio.Task[None]] = set()

    async def take() -> None:
        try:
            await reload({})
        except ControlError as error:
            _log.error("reload_refused", said=str(error))

    def on_signal() -> None:
        task = loop.create_task(take())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, on_signal)
