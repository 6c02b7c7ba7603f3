"""The portal process: the HTTP API on its store, with the router asked over its control socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from baton.cli.console import Place
from baton.process.control import ControlError, ControlServer, ask, socket_path
from baton.process.meter import mail_options, webhook_options
from baton.process.portal_control import PortalControl, campaigns_of, tokens_of
from baton.process.signals import reload_on_hangup, stop_on_signals
from baton.process.vitals import Vitals, alive, portal_up
from baton.suppression_lists import list_store, signer
from book.model import DEFAULT_TIME_ZONE
from config.portal import PortalSection
from config.settings import Settings, load, load_running
from meter.book.sql.book import BookStore
from meter.book.sql.editing import BookRules
from meter.credits.rules import load_reasons
from meter.journal.sql.leads import LeadStore
from meter.run import use_templates
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.text.links import LinkOptions
from portal.app import create_app
from portal.availability.service import AvailabilityService
from portal.buyers.service import BuyersService
from portal.credits.service import CreditsService
from portal.documents.service import DocumentsService
from portal.events.service import EventsService
from portal.health.service import HealthService
from portal.http.problems import RouterAwayError
from portal.http.rate_limit import RateLimit
from portal.http.services import Service, Services
from portal.http.stream_limit import StreamLimit
from portal.http.tokens import TokenBook
from portal.leads.service import LeadsService
from portal.lists.service import ListsService
from portal.live.service import MAX_SHOWN, LiveService
from portal.orders.service import OrdersService
from portal.payments.service import PaymentsService
from portal.per_minute.service import PerMinuteService
from portal.recordings.service import RecordingsService
from portal.transfers.service import TransfersService
from portal.trunks.service import TrunksService
from portal.webhooks.service import WebhooksService
from telemetry import logs

PURGE_S = 60.0  # an expired lead is deleted within this
ROUTER_S = 2.0  # for the router to answer
HEALTH_S = 2.0  # for the store
STOP_S = 5  # requests under way may take so long at the end
MAX_REQUESTS = 200  # at once; one more gets 503
MAX_ASKING = 8  # requests that ask the router at once; the others wait, and people find room on its socket
KEEP_ALIVE_S = 15

_log = structlog.get_logger("portal")


class PortalError(RuntimeError):
    """The portal cannot be run; the message names the setting."""


class _Server(uvicorn.Server):
    """Signals are the caller's, not the library's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main(config_path: Path, *, supervised: bool = False) -> None:
    """Run the HTTP API until told to stop. Raises ConfigError, PortalError, ControlError at the start."""
    settings = load_running(config_path, os.environ)[0] if supervised else load(config_path, os.environ)
    logs.configure(**settings.log.options, process="portal")
    use_templates(mail_options(settings))  # a document that is first opened here is drawn here
    portal = settings.portal
    if portal is None:
        raise PortalError(f"{config_path}: has no section [portal]")
    run = partial(_run, config_path, settings, portal, supervised=supervised)
    asyncio.run(alive("portal", settings, run, supervised=supervised))


async def _run(
    config_path: Path, settings: Settings, portal: PortalSection, vitals: Vitals, *, supervised: bool
) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    stop_on_signals(loop, stop, supervised=supervised)
    router, listener = socket_path(settings), _listen(portal)
    database = await open_store(settings.store_url, secrets_key=settings.secrets_key)
    lists = await _lists(database, settings, portal)
    clerk, lead_clerk, event_clerk = (Clerk(database) for _ in range(3))  # leads and health do not wait for documents
    streams = StreamLimit(portal.max_streams, portal.max_streams_per_token)
    leads, asking = LeadStore(lead_clerk), asyncio.Semaphore(MAX_ASKING)
    live = LiveService(partial(_ask, router, asking, {"do": "live", "limit": MAX_SHOWN}), streams=streams)
    events = EventsService(event_clerk, streams)
    tokens = TokenBook(tokens_of(settings), campaigns_of(settings))

    def end_streams() -> None:
        streams.end_all()
        live.wake()
        events.wake()

    steering = PortalControl(config_path, settings, tokens, environ=dict(os.environ), end_streams=end_streams)
    control = ControlServer(socket_path(settings, "portal"), steering.commands)
    rules = book_rules(config_path, settings)
    dialers = (
        LeadsService(leads, portal.lead_ttl_s),
        AvailabilityService(partial(_availability, router, asking)),
        HealthService(partial(_healthy, leads)),
    )
    watched = (live, events, lists)
    stored = _store_services(database, clerk, settings, rules)
    limits = RateLimit(portal.requests_per_minute, portal.failed_logins_per_minute)
    services = Services(tokens, *dialers, *watched, *stored, rates=limits)
    server = _Server(_server_config(services, portal))
    purging = asyncio.create_task(_purge(leads, lists))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    looking = portal_up(vitals, partial(_healthy, leads))
    _log.info("portal_ready", address=str(portal.address), port=portal.port, tls=portal.certificate_file is not None)
    try:
        await control.start()
        reload_on_hangup(loop, steering.reload)
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        await live.close()  # a stream would last until its client leaves
        await events.close()
        server.should_exit = True
        await serving
    finally:
        await control.close()
        for task in (purging, stopping, looking):
            task.cancel()
        await asyncio.gather(purging, stopping, looking, return_exceptions=True)
        await live.close()
        await events.close()
        await lists.close()
        for each in (lead_clerk, clerk, event_clerk):
            await each.close()
        await database.dispose()
    _log.info("portal_stopped")


def _store_services(database: AsyncEngine, clerk: Clerk, settings: Settings, rules: BookRules) -> tuple[Service, ...]:
    """The services that need the store alone."""
    links = _links(settings)
    return (
        TransfersService(clerk),
        RecordingsService(settings.recording.dir, clerk),
        BuyersService(clerk, rules),
        WebhooksService(clerk, webhook_options(settings)),
        TrunksService(clerk),
        OrdersService(database, clerk, has_mail=rules.has_mail),
        PaymentsService(database, clerk),
        DocumentsService(database, clerk),
        CreditsService(clerk, load_reasons(settings.billing.credit_reasons_file), links),
        PerMinuteService(clerk, links),
    )


async def _lists(database: AsyncEngine, settings: Settings, portal: PortalSection) -> ListsService:
    """The lists for suppression lists. Raises PortalError."""
    place = Place.of(settings)
    try:
        keys = await asyncio.to_thread(signer, place)
    except OSError as error:
        await database.dispose()
        raise PortalError(f"the key for receipts cannot be used: {error}") from error
    return ListsService(
        list_store(database),
        place.data_dir,
        keys,
        partial(_buyers, database),
        keep_versions=settings.suppression.keep_versions,
        max_import_bytes=portal.max_import_bytes,
        zone=partial(_zone, database),
    )


def _links(settings: Settings) -> LinkOptions | None:
    links = settings.links
    return None if links is None else LinkOptions(links.base_url, links.secret.get_secret_value())


async def _buyers(database: AsyncEngine) -> Collection[str]:
    return (await BookStore(database).load()).buyers


async def _zone(database: AsyncEngine, buyer: str) -> str:
    """Of a buyer's terms; one that is not in the book any more has no days of its own."""
    found = (await BookStore(database).load()).buyers.get(buyer)
    return DEFAULT_TIME_ZONE if found is None else found.terms.time_zone


def _listen(portal: PortalSection) -> socket.socket:
    """The listening socket. Raises PortalError."""
    family = socket.AF_INET6 if portal.address.version == 6 else socket.AF_INET  # noqa: PLR2004 - IPv6
    try:
        return socket.create_server((str(portal.address), portal.port), family=family, backlog=MAX_REQUESTS)
    except OSError as error:
        raise PortalError(
            f"portal.port: cannot listen on {portal.address} port {portal.port}: {error.strerror}"
        ) from error


def _server_config(services: Services, portal: PortalSection) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(services),
        lifespan="off",
        log_config=None,  # ours: telemetry.logs has the root logger
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_REQUESTS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
        ssl_certfile=portal.certificate_file,
        ssl_keyfile=portal.key_file,
    )


def book_rules(config_path: Path, settings: Settings) -> BookRules:
    """What of the configuration a buyer that comes over HTTP is held against."""
    carriers = frozenset(one.name for one in settings.carriers)
    has_mail = settings.mail is not None
    return BookRules(config_path, carriers, has_ca=settings.tls.ca_file is not None, has_mail=has_mail)


async def _availability(router: Path, room: asyncio.Semaphore, campaign: str) -> dict[str, Any]:
    return await _ask(router, room, {"do": "availability", "campaign": campaign})


async def _ask(router: Path, room: asyncio.Semaphore, request: dict[str, Any]) -> dict[str, Any]:
    """Raises RouterAwayError."""
    try:
        async with room:
            return await ask(router, request, ROUTER_S)
    except ControlError as error:
        raise RouterAwayError(str(error)) from error


async def _healthy(leads: LeadStore) -> bool:
    try:
        async with asyncio.timeout(HEALTH_S):
            await leads.get("", "")
    except (TimeoutError, SQLAlchemyError):
        return False
    return True


async def _purge(leads: LeadStore, lists: ListsService) -> None:
    """Delete expired leads, and uploads left behind, again and again; a failure is logged and tried again."""
    while True:
        try:
            await lists.sweep()
            gone = await leads.purge()
        except (SQLAlchemyError, OSError) as error:
            _log.error("purge_failed", kind=type(error).__name__)
        else:
            if gone:
                _log.info("leads_purged", count=gone)
        await asyncio.sleep(PURGE_S)
