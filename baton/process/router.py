"""The router process: store, book, lists, journal, engine and router put together, and taken apart in order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from baton.cli.console import Place
from baton.process.control import ControlServer, socket_path
from baton.process.router_control import Steering
from baton.process.signals import reload_on_hangup, stop_on_signals
from baton.process.vitals import Vitals, alive, router_checks
from baton.suppression_lists import signer
from book.model import Srtp, Transport
from config.settings import Settings, load, load_running
from meter.book.sql.book import BookSnapshot, BookStore
from meter.book.sql.trunks import put_trunks
from meter.journal.sql.append import JournalWriter
from meter.journal.sql.leads import LeadFetcher
from meter.journal.sql.recovery import recover
from meter.journal.sql.usage import UsageSnapshot
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.suppression_rows.sql.lists import ListRows
from router.clock import LoopClock, new_loop
from router.config import Carrier, RouterConfig
from router.dialers import Dialer
from router.ids import new_id
from router.live import is_empty
from router.recorder import Recorder
from router.recordings import Recordings
from router.router import Router
from router.sip.engine import PjsuaEngine
from router.sip.pjlib import EngineConfig, Listener, system_nameservers
from router.sip.port import Ask, Invite, LegEvent, Probed, Target
from suppression.scrub import Scrub
from telemetry import logs, metrics

BOOK_REFRESH_S = 0.5  # a changed book is seen by the next transfer after this; a hold at once, in the journal's commit
USAGE_REFRESH_S = 0.5
EXPIRE_S = 3600.0  # how often recordings past their retention are looked for
GAUGES_S = 1.0
SWITCH_S = 0.0005  # the store's thread asks for the interpreter's lock a few times a commit; 5 ms each is too long
GC_THRESHOLD = 20_000  # allocations; legs make no cycles, so the collector has little to find and should rarely look

_log = structlog.get_logger("router")


class RouterLockedError(RuntimeError):
    """Another process runs this router."""


class _Listener:
    """The engine is made before the router that listens to it."""

    router: Router

    def on_invite(self, invite: Invite) -> None:
        self.router.on_invite(invite)

    def on_events(self, events: Sequence[LegEvent]) -> None:
        self.router.on_events(events)

    def on_ask(self, ask: Ask) -> None:
        self.router.on_ask(ask)

    def on_probed(self, result: Probed) -> None:
        self.router.on_probed(result)

    def may_refer(self, handle: str, to: str) -> bool:
        return self.router.may_refer(handle, to)

    def may_replace(self, handle: str, source: str, headers: dict[str, list[str]]) -> bool:
        return self.router.may_replace(handle, source, headers)


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the router's lock: recovery may close what an older process left open only when that process is dead."""
    settings.store.data_dir.mkdir(parents=True, exist_ok=True)
    path = settings.store.data_dir / f"router-{settings.router.name}.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RouterLockedError(
                f"router.name = {settings.router.name!r} is running already ({path.name})"
            ) from error
        file.write(str(os.getpid()))
        file.flush()
        yield


def main(config_path: Path, *, supervised: bool = False) -> None:
    """Run one router until told to stop.

    Raises ConfigError, ControlError, RouterLockedError or EngineUnusableError at the start.
    """
    settings = load_running(config_path, os.environ)[0] if supervised else load(config_path, os.environ)
    socket_path(settings)  # a path that is too long is told before anything starts
    logs.configure(**settings.log.options, process="router")
    with only_one(settings):
        loop, clock = new_loop()
        asyncio.set_event_loop(loop)
        try:
            run = partial(_run, config_path, settings, clock, supervised=supervised)
            loop.run_until_complete(alive("router", settings, run, supervised=supervised))
        finally:
            loop.close()


@dataclass(frozen=True, slots=True)
class _Parts:
    """A router and what it stands on, put together and not yet started."""

    clock: LoopClock
    database: AsyncEngine
    writer: JournalWriter
    reader: Clerk
    book: BookSnapshot
    usage: UsageSnapshot
    scrub: Scrub
    leads: LeadFetcher
    recordings: Recordings
    recorder: Recorder
    engine: PjsuaEngine
    router: Router

    async def close(self) -> None:
        """Stop the engine, then close what it wrote to."""
        await self.engine.close()
        await asyncio.to_thread(self.recordings.close)
        await asyncio.sleep(0)  # what the last recordings had to tell is on the loop's list
        await self.leads.close()
        await self.writer.close()
        await self.reader.close()
        await self.database.dispose()


async def _run(config_path: Path, settings: Settings, clock: LoopClock, vitals: Vitals, *, supervised: bool) -> None:
    stop = asyncio.Event()
    stop_on_signals(asyncio.get_running_loop(), stop, supervised=supervised)
    parts = await _put_together(settings, clock, vitals)
    router = parts.router
    if mended := parts.recorder.mend():
        _log.warning("recordings_mended", count=mended)
    parts.engine.start()
    router.admit_parties()
    steering = Steering(
        config_path,
        settings,
        router,
        environ=dict(os.environ),
        apply=lambda wanted: _apply(wanted, router),
        stop=stop.set,
        trace=parts.engine.trace,
    )
    control = ControlServer(socket_path(settings), steering.commands)
    metrics.BUILD_INFO.labels(version("baton")).set(1)
    metrics.CALL_SLOTS_MAX.set(settings.router.max_calls)
    _calm_collector()
    chores = _chores(parts, steering, vitals)
    vitals.up(partial(router_checks, router, parts.writer, vitals))
    _log.info("router_ready", listeners=[f"{x.transport.value}:{x.address}:{x.port}" for x in settings.listeners])
    try:
        await control.start()
        reload_on_hangup(asyncio.get_running_loop(), steering.reload)
        await stop.wait()
        await _drain(router, steering.grace_s)
    finally:
        await control.close()
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        await parts.close()
    _log.info("router_stopped")


async def _put_together(settings: Settings, clock: LoopClock, vitals: Vitals) -> _Parts:
    """Open the store, recover what an earlier boot left open, load the book and the lists, make the router."""
    database = await open_store(settings.store_url, secrets_key=settings.secrets_key)
    now_us = time.time_ns() // 1000
    _log.info("recovered", report=str(await recover(database, settings.router.name, now_utc_us=now_us)))
    writer = await JournalWriter.open(
        database,
        settings.router.name,
        new_id(now_us),
        os.getpid(),
        now_us,
        on_commit=partial(_committed, vitals),
    )
    reader = Clerk(database)
    book = BookSnapshot(BookStore(database, reader=reader))
    await book.refresh()
    usage = UsageSnapshot(reader, lambda: book.book, settings.router.name)
    await usage.refresh()
    scrub = Scrub(
        ListRows(database, reader),
        settings.store.data_dir,
        await asyncio.to_thread(signer, Place.of(settings)),
        mapped=settings.suppression.load == "map",
    )
    await _reload_lists(scrub)
    leads = LeadFetcher(Clerk(database))
    listener = _Listener()
    engine = PjsuaEngine(engine_config(settings), clock, listener)
    recordings = Recordings(settings.recording.dir)
    recorder = Recorder(recordings, engine, writer, clock, asyncio.get_running_loop().call_soon_threadsafe)
    listener.router = Router(
        router_config(settings),
        clock=clock,
        engine=engine,
        journal=writer,
        book=book,
        scrubber=scrub,
        usage=usage,
        leads=leads,
        recorder=recorder,
    )
    return _Parts(
        clock=clock,
        database=database,
        writer=writer,
        reader=reader,
        book=book,
        usage=usage,
        scrub=scrub,
        leads=leads,
        recordings=recordings,
        recorder=recorder,
        engine=engine,
        router=listener.router,
    )


def _chores(parts: _Parts, steering: Steering, vitals: Vitals) -> list[asyncio.Task[None]]:
    """What is done again and again beside the calls."""
    name, router = steering.settings.router.name, parts.router

    def suppression_s() -> float:
        return steering.settings.suppression.reload_ms / 1000

    def expire() -> Awaitable[int]:
        return asyncio.to_thread(parts.recordings.expire, steering.settings.recording.retention_days)

    return [
        asyncio.create_task(_every(lambda: BOOK_REFRESH_S, vitals.noting("store", parts.book.refresh), "book")),
        asyncio.create_task(_every(suppression_s, lambda: _reload_lists(parts.scrub), "suppression")),
        asyncio.create_task(_every(lambda: USAGE_REFRESH_S, parts.usage.refresh, "usage")),
        asyncio.create_task(_every(lambda: EXPIRE_S, expire, "recordings")),
        asyncio.create_task(_gauges(router, parts.writer, parts.clock)),
        asyncio.create_task(_every(lambda: GAUGES_S, lambda: _watch(router), "trunks")),
        asyncio.create_task(_every(lambda: GAUGES_S, _TrunkStates(router, parts.reader, name), "trunk_states")),
    ]


def _committed(vitals: Vitals, _facts: int, seconds: float) -> None:
    metrics.JOURNAL_COMMIT.observe(seconds)
    vitals.done("commit")


def _calm_collector() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    sys.setswitchinterval(SWITCH_S)


async def _drain(router: Router, seconds: int) -> None:
    """New INVITEs get 503; what is up may finish for so long, then it ends as ours."""
    router.draining = True
    deadline = time.monotonic() + seconds
    while not is_empty(router) and time.monotonic() < deadline:  # noqa: ASYNC110 - a bounded wait on plain state
        await asyncio.sleep(0.05)
    if not is_empty(router):
        _log.warning("drain_over", live=len(router.live))
        router.end_all()


async def _every(seconds: Callable[[], float], action: Any, what: str) -> None:
    """Do it again and again; a failure is logged and tried again, what was loaded before stays in force."""
    while True:
        await asyncio.sleep(seconds())
        try:
            await action()
        except Exception:  # noqa: BLE001 - whatever failed, the next turn tries again
            _log.exception("refresh_failed", what=what)
            metrics.ENGINE_FAULTS.labels(kind=what).inc()


def _apply(settings: Settings, router: Router) -> None:
    """Bring settings into force in a router that runs; calls that are up go on under what they began with."""
    logs.configure(**settings.log.options, process="router")
    router.configure(router_config(settings))
    router.admit_parties()


async def _gauges(router: Router, writer: JournalWriter, clock: LoopClock) -> None:
    while True:
        await asyncio.sleep(GAUGES_S)
        metrics.LIVE_TRANSFERS.set(len(router.live))
        metrics.LIVE_LEGS.set(router.live_legs)
        metrics.JOURNAL_BACKLOG.set(writer.backlog)
        metrics.JOURNAL_LAG.set(writer.lag_s)
        metrics.CALL_SLOTS_FREE.set(router.engine.slots.free)
        metrics.DRAINING.set(router.draining)
        metrics.LOOP_LAG.set(clock.take_worst_lag_us() / 1e6)


async def _reload_lists(scrub: Scrub) -> None:
    if await scrub.reload():
        broken = len(scrub.broken)
        metrics.LISTS.labels("unavailable").set(broken)
        metrics.LISTS.labels("usable").set(len(scrub.state.rows) - broken)
        metrics.LIST_ENTRIES.set(scrub.entries)
        _show_lists(scrub)


def _show_lists(scrub: Scrub) -> None:
    """Version and age of each list in force, global ones first."""
    rows = sorted((one.version for one in scrub.state.rows.values()), key=lambda row: (row.buyer is not None, row.name))
    for gone in metrics.LIST_NAMES.keep(row.name for row in rows):
        metrics.LIST_VERSION.labels(gone).set(math.nan)
        metrics.LIST_IMPORTED.labels(gone).set(math.nan)
    for row in rows[: metrics.MOST_LISTS]:
        label = metrics.LIST_NAMES.of(row.name)
        if label != metrics.OTHER:
            metrics.LIST_VERSION.labels(label).set(row.version)
            metrics.LIST_IMPORTED.labels(label).set(row.imported_utc_us / 1e6)


async def _watch(router: Router) -> None:
    router.watch_trunks()


class _TrunkStates:
    """Writes the states of trunks into the store when one has changed, for who publishes them."""

    def __init__(self, router: Router, clerk: Clerk, name: str) -> None:
        self._router, self._clerk, self._name = router, clerk, name
        self._written: dict[str, str] | None = None  # None: what an earlier boot wrote may stand there

    async def __call__(self) -> None:
        seen = {one.name: one.health.value for one in self._router.prober.trunks.all}
        if seen != self._written:
            await self._clerk.write(put_trunks, self._name, seen, time.time_ns() // 1000)
            self._written = seen


def engine_config(settings: Settings) -> EngineConfig:
    """The engine's view of the settings."""

    def path(value: Path | None) -> str:
        return str(value) if value is not None else ""

    return EngineConfig(
        listeners=tuple(
            Listener(
                transport=listener.transport,
                address=str(listener.address),
                port=listener.port,
                public_address=listener.public_address,
                certificate=path(listener.certificate_file),
                key=path(listener.key_file),
                ca_file=path(listener.ca_file),
                srtp=listener.srtp or (Srtp.OPTIONAL if listener.transport is Transport.TLS else Srtp.OFF),
            )
            for listener in settings.listeners
        ),
        max_calls=settings.router.max_calls,
        rtp_port_min=settings.router.rtp_port_min,
        rtp_port_max=settings.router.rtp_port_max,
        rtp_address="" if settings.router.rtp_address.is_unspecified else str(settings.router.rtp_address),
        user_agent=settings.router.user_agent,
        trunk_ca_file=path(settings.tls.ca_file),
        trunk_certificate=path(settings.tls.certificate_file),
        trunk_key=path(settings.tls.key_file),
        clock_hz=settings.router.media_clock_hz,
        dialogs_file=str(settings.store.data_dir / f"router-{settings.router.name}.dialogs"),
        trace_bytes=settings.router.trace_mb << 20,
        nameservers=tuple(str(listener) for listener in settings.router.nameservers) or system_nameservers(),
    )


def router_config(settings: Settings) -> RouterConfig:
    """The router's view of the settings."""
    carriers = {
        section.name: Carrier(
            section.name,
            Target(
                uri=section.uri,
                transport=Transport(section.transport),
                srtp=section.srtp,
                verify_tls=section.verify_tls,
                username=section.username,
                password=section.password.get_secret_value(),
                policy=section.to_policy(),
            ),
        )
        for section in settings.carriers
    }
    dialers = tuple(
        Dialer(
            name=section.name,
            networks=tuple(section.allow),
            username=section.username,
            password=section.password.get_secret_value(),
            max_calls=section.max_calls,
            max_per_second=section.max_per_second,
            refer_hosts=tuple(host.lower() for host in section.refer_hosts),
            campaigns=frozenset(section.campaigns) if section.campaigns is not None else None,
            nat=section.nat,
        )
        for section in settings.dialers
    )
    told = settings.router
    return RouterConfig(
        dialers,
        carriers,
        drop_unknown=told.unknown_sources == "drop",
        lockout_failures=told.lockout_failures,
        lockout_seconds=told.lockout_seconds,
        rtp_timeout_ms=told.rtp_timeout_ms,
        fast_answer_ms=told.fast_answer_ms,
        probe_down_after=told.probe_down_after,
        probe_up_after=told.probe_up_after,
    )
