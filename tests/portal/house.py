"""A portal for tests: the app on a real store with buyers, orders, money, settled transfers and a recording.

The router is a control socket of Baton's own that answers what the test has put there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from baton.process.control import ControlServer, RefusedError
from baton.process.portal import _ask, _Server
from baton.suppression_lists import list_store
from book.model import Buyer, Campaign, Endpoint, EndpointKind, Srtp, Transport
from book.sections import BookFile
from facts.fact import Kind, Party
from facts.outcome import CountsAs, Reason, Verdict
from meter.book.sql.book import BookStore
from meter.book.sql.editing import BookRules
from meter.credits.rules import load_reasons
from meter.journal.sql.leads import LeadStore
from meter.settling.follower import Follower
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.store.schema import outcomes
from meter.text.links import LinkOptions
from meter.webhooks.channel import WebhookOptions
from portal.app import create_app
from portal.availability.service import AvailabilityService
from portal.buyers.service import BuyersService
from portal.credits.service import CreditsService
from portal.documents.service import DocumentsService
from portal.events.service import EventsService
from portal.health.service import HealthService
from portal.http.rate_limit import RateLimit
from portal.http.services import Services
from portal.http.stream_limit import StreamLimit
from portal.http.tokens import Scope, Token, TokenBook
from portal.leads.service import LeadsService
from portal.lists.service import ListsService
from portal.live.service import LiveService
from portal.orders.service import OrdersService
from portal.payments.service import PaymentsService
from portal.per_minute.service import PerMinuteService
from portal.recordings.service import RecordingsService
from portal.transfers.service import TransfersService
from portal.trunks.service import TrunksService
from portal.webhooks.service import WebhooksService
from router.live import Deadline, LegView, RouterView, TransferView, TrunkView
from suppression.receipt import Signer
from tests.facts_builder import UTC_0, Story, failed_story
from tests.store.journal_tools import store
from tests.store.money_tools import WESTLAKE, Books
from tests.store.service_tools import SERVICE, report, said

WEEK = "2026-06-08"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "an old secret of 24 bytes and more"
SCOPES = {"acme": Scope.BUYER, "best": Scope.BUYER, "bolt": Scope.BUYER, "noc": Scope.OPERATOR, "west": Scope.DIALER}
ACME = Buyer(
    name="acme",
    title="Acme Solar",
    terms=WESTLAKE,
    lead_emails=("leads@acme.example",),
    endpoints=(
        Endpoint(
            "pbx",
            EndpointKind.TRUNK,
            "sip:leads@pbx.example:5061",
            transport=Transport.TLS,
            srtp=Srtp.MANDATORY,
            username="baton",
            password="very secret",
            whisper_file="/srv/prompts/whisper.wav",
        ),
        Endpoint("desk", EndpointKind.DID, "+12125550100", carrier="main"),
    ),
)
BEST = Buyer(name="best", title="Best Roofs", terms=WESTLAKE, lead_emails=("leads@best.example",))
BOLT = Buyer(name="bolt", title="Bolt Service", terms=replace(SERVICE, name="minutes"))


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer secret-of-{name}"}


def token(name: str) -> Token:
    digest = hashlib.sha256(f"secret-of-{name}".encode()).hexdigest()
    scope = SCOPES[name]
    secrets = (SECRET, OLD_SECRET) if scope is Scope.DIALER else ()
    return Token(name, digest, scope, "" if scope is Scope.OPERATOR else name, secrets)


class Router:
    """What a router would answer; `view` None: it says no. `asked` counts."""

    def __init__(self) -> None:
        self.view: dict[str, Any] | None = view_of(live("t-live", "acme"), live("t-other", "best", dialer="east"))
        self.asked = 0

    async def live(self, _request: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        if self.view is None:
            raise RefusedError("not now")
        return self.view

    async def availability(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"available": True, "reason": "", "refusals": []}


def live(transfer: str, buyer: str, dialer: str = "west", phase: str = "ringing", age_ms: int = 1_000) -> TransferView:
    """A transfer that is up."""
    legs = (LegView(0, "caller", "ringing", age_ms), LegView(1, "pbx", phase, age_ms - 10))
    names = {"dialer": dialer, "campaign": "solar", "buyer": buyer, "caller": "***0123"}
    return TransferView(transfer, f"call-{transfer}", **names, phase=phase, age_ms=age_ms, dialout_ms=age_ms - 10,
                        legs=legs, next=Deadline("ring", 0, 29_000))  # fmt: skip


def view_of(*transfers: TransferView) -> dict[str, Any]:
    trunks = (TrunkView("acme/pbx", "up", 3, 1.5),)
    whole = RouterView(draining=False, transfers=len(transfers), arrivals=0, slots_used=2, slots_max=64, trunks=trunks)
    return {"router": "main", **asdict(whole), "live": [asdict(one) for one in transfers], "arriving": []}


class House:
    """The portal, its store and its router."""

    def __init__(
        self,
        engine: AsyncEngine,
        folder: Path,
        *,
        rates: RateLimit | None = None,
        streams: StreamLimit | None = None,
        webhooks: WebhookOptions | None = None,
        **live_options: Any,
    ) -> None:
        self.engine, self.folder, self.books = engine, folder, Books(engine)
        self.router = Router()
        self.recordings = folder / "recordings"
        clerk, path = Clerk(engine), folder / "router.sock"
        self._clerk = clerk
        commands = {"live": self.router.live, "availability": self.router.availability}
        self.control = ControlServer(path, commands)
        room = asyncio.Semaphore(8)
        self.streams = streams or StreamLimit()
        options = {"period_s": 0.1, **live_options}
        self.live = LiveService(partial(_ask, path, room, {"do": "live"}), streams=self.streams, **options)
        self._following = Clerk(engine)
        keep_alive_s = options.get("keep_alive_s", 15.0)
        self.events = EventsService(self._following, self.streams, poll_s=0.05, keep_alive_s=keep_alive_s)
        links = LinkOptions("https://baton.example", "s" * 32)
        signer = Signer(b"k" * 32)
        rules = BookRules(folder / "baton.toml", frozenset({"main"}), has_ca=True)
        self.leads = LeadStore(clerk)
        self.lists = ListsService(
            list_store(engine), folder, signer, self._buyers, keep_versions=2, max_import_bytes=1 << 20
        )
        self.buyers = BuyersService(clerk, rules)
        self.tokens = TokenBook(tuple(map(token, SCOPES)))
        self.services = Services(
            self.tokens,
            LeadsService(self.leads, 600),
            AvailabilityService(self._availability),
            HealthService(self._healthy),
            self.live,
            self.events,
            self.lists,
            TransfersService(clerk),
            RecordingsService(self.recordings, clerk),
            self.buyers,
            WebhooksService(clerk, webhooks or WebhookOptions()),
            TrunksService(clerk),
            OrdersService(engine, clerk, has_mail=rules.has_mail),
            PaymentsService(engine, clerk),
            DocumentsService(engine, clerk),
            CreditsService(clerk, load_reasons(), links),
            PerMinuteService(clerk, links),
            rates=rates,
        )
        self.app = create_app(self.services)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=("192.0.2.7", 5000))
        self.client = httpx.AsyncClient(transport=transport, base_url="https://baton.example")

    async def _availability(self, campaign: str) -> dict[str, Any]:
        return await _ask(
            self.folder / "router.sock", asyncio.Semaphore(1), {"do": "availability", "campaign": campaign}
        )

    async def _healthy(self) -> bool:
        return True

    async def _buyers(self) -> list[str]:
        return list((await BookStore(self.engine).load()).buyers)

    async def ask(self, who: str, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask with somebody's token."""
        headers = {**(bearer(who) if who else {}), **more.pop("headers", {})}
        return await self.client.request(method, f"/v1{path}", headers=headers, **more)

    async def get(self, who: str, path: str, **params: Any) -> Any:
        """What it says, and it has to be said."""
        found = await self.ask(who, "GET", path, params=params)
        assert found.status_code == 200, found.text
        return found.json()

    async def walk(self, who: str, path: str, key: str, **params: Any) -> list[Any]:
        """All of a list, page by page."""
        seen, cursor = [], ""
        while cursor is not None:
            page = await self.get(who, path, **params, cursor=cursor)
            assert set(page) == {key, "next"}
            seen += page[key]
            cursor = page["next"]
        return seen

    async def add_outcomes(self, *rows: dict[str, Any]) -> None:
        """Outcomes as they would be settled, one after the other."""
        await self.books.write(lambda connection: connection.execute(insert(outcomes), list(rows)))

    async def close(self) -> None:
        await self.client.aclose()
        await self.live.close()
        await self.events.close()
        await self.control.close()
        await self._clerk.close()
        await self._following.close()
        await self.books.close()
        await self.lists.close()


def outcome(number: int, **over: Any) -> dict[str, Any]:
    """A settled transfer that ended `number` seconds after the stories' noon."""
    closed = UTC_0 + number * 1_000_000
    row = {
        "transfer": f"o-{number:06d}",
        "router": "r1",
        "boot": "boot-9",
        "call_id": f"call-{number}",
        "sip_call_id": f"{number}@dialer",
        "dialer": "west",
        "campaign": "solar",
        "buyer": "acme",
        "phone": f"+1212555{number % 10_000:04d}",
        "started_utc_us": closed - 40_000_000,
        "dialout_utc_us": closed - 39_900_000,
        "closed_utc_us": closed,
        "verdict": Verdict.CONNECTED.value,
        "reason": Reason.ANSWERED.value,
        "counts_as": CountsAs.CONNECTED.value,
        "table_row": 2,
        "attempt_ms": 39_900,
        "talk_ms": 35_000,
        "buffer_ms": 15_000,
        "evidence": b"[]",
        "terms_name": "contract",
        "terms_version": 1,
        "agreed": True,
    }
    return row | over


def wav(seconds: float = 1.0, rate: int = 8_000) -> bytes:
    """A recording as Baton writes it: plain PCM on two channels, here a ramp."""
    frames = b"".join(struct.pack("<hh", at % 32_000, -(at % 32_000)) for at in range(int(seconds * rate)))
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(frames), b"WAVE", b"fmt ", 16, 1, 2, rate, rate * 4,
                       4, 16, b"data", len(frames))  # fmt: skip
    return head + frames


def recorded(story: Story, file: str, content: bytes, **over: Any) -> Story:
    """The story with a recording that is whole."""
    said = {"file": file, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "audio_ms": 1_000}
    return story.add(Kind.RECORDED, 60.0, **(said | over))


async def furnish(house: House) -> None:
    """Buyers, an order that was invoiced and paid, a failed and a recorded connected transfer, an e-mail answered."""
    store_ = BookStore(house.engine)
    campaign = Campaign("solar", ("acme", "best"), record=True)
    terms = (WESTLAKE, BOLT.terms)
    await store_.import_book(BookFile(terms=terms, buyers=(ACME, BEST, BOLT), campaigns=(campaign,)))
    await house.books.order("acme", WEEK, 200)
    await house.books.order("best", WEEK, 10)
    await house.books.run("2026-06-02 12:00")
    await house.books.pay("acme", 900_000, "2026-06-03 10:00", "check 4711")
    content = wav()
    first = failed_story("t-1")
    second = Story("t-2", first_seq=first.next_seq).start().dial(1).ring(1, 1.2).answer(1, 4.0).bridge(1, 4.1)
    second.add(Kind.TALK_REACHED_15S, 19.0).hang_up(44.0, Party.CALLER).close()
    recorded(second, "2026-06-02/t-2.wav", content)
    (house.recordings / "2026-06-02").mkdir(parents=True)
    (house.recordings / "2026-06-02" / "t-2.wav").write_bytes(content)
    await store(house.engine, first, second)
    follower = Follower(house.engine)
    await follower.catch_up()
    await follower.close()
    await report(house.books, said(buyer="bolt"))


@contextlib.asynccontextmanager
async def open_house(folder: Path, **options: Any) -> AsyncIterator[House]:
    engine = await open_store(f"sqlite:///{folder / 'baton.db'}")
    house = House(engine, folder, **options)
    await house.control.start()
    try:
        await furnish(house)
        yield house
    finally:
        await house.close()
        await engine.dispose()


class Served:
    """A house behind a real server, in a thread with a loop of its own. `url`: where it is."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self._folder, self._options = folder, options
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="portal")
        self.house: House | None = None
        self.error: BaseException | None = None

    async def _serve(self) -> None:
        try:
            async with open_house(self._folder, **self._options) as house:
                config = uvicorn.Config(
                    house.app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=2
                )
                self._server = _Server(config)
                self.house, self._loop = house, asyncio.get_running_loop()
                self._loop.call_soon(self._ready.set)
                await self._server.serve(sockets=[self._listener])
        except BaseException as error:
            self.error = error
            raise
        finally:
            self._ready.set()

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30)
        assert self.error is None

    def stop(self) -> None:
        assert self.house is not None
        asyncio.run_coroutine_threadsafe(self.house.live.close(), self._loop).result(10)
        asyncio.run_coroutine_threadsafe(self.house.events.close(), self._loop).result(10)
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def served(folder: Path, **options: Any) -> Iterator[Served]:
    one = Served(folder, **options)
    one.start()
    try:
        yield one
    finally:
        one.stop()
