"""Webhooks to a real HTTPS endpoint: what is posted, signed, retried, rested, disabled, and where it never goes."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine
from standardwebhooks.webhooks import Webhook as Verifier
from typer.testing import CliRunner

from baton.cli.main import app
from book.model import Buyer, Terms
from book.sections import BookFile
from meter.book.sql.book import BookStore
from meter.events.sql.streams import begin
from meter.outbox.delivery import OutboxOptions
from meter.run import MeterOptions, run_meter
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.store.integration_schema import webhooks
from meter.webhooks.channel import STREAM, WebhookOptions
from meter.webhooks.http_post import ForbiddenTargetError, HttpPoster, HttpPostError, PostOptions, is_public
from meter.webhooks.sql import (
    Standing,
    Webhook,
    WebhookError,
    check,
    disable,
    enable,
    put_hook,
    read_hooks,
    remove_hook,
)
from tests.facts_builder import connected_story, failed_story
from tests.store.journal_tools import open_journal, write
from tests.store.meter.outbox.test_delivery import states
from tests.store.meter.settling.test_follower import free_story

pytestmark = pytest.mark.net


class Endpoint:
    """An HTTPS server that keeps what it gets. `answers`: statuses to give, the last one for ever."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[bytes] = [b"204 No Content"]
        self.delay_s = 0.0
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def url(self, path: str = "/leads", host: str = "localhost") -> str:
        return f"https://{host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:]) if name
                }
                body = await reader.readexactly(int(headers["content-length"]))
                self.got.append(({"": head[0], **headers}, body))
                await asyncio.sleep(self.delay_s)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

    @property
    def types(self) -> list[str]:
        return [body["type"] for body in self.bodies]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder, timeout=60)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "1", "-subj", "/CN=ca")
    (folder / "san").write_text("subjectAltName=DNS:localhost")
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", "san")
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signing)
    return folder


@pytest.fixture
async def endpoint(certificates: Path) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(certificates)
    await endpoint.start()
    yield endpoint
    await endpoint.stop()


@pytest.fixture
async def clerk(engine: AsyncEngine) -> AsyncIterator[Clerk]:
    terms = Terms("plain")
    buyers = tuple(Buyer(name, name.title(), terms) for name in ("acme", "other"))
    await BookStore(engine).import_book(BookFile(terms=(terms,), buyers=buyers))
    clerk = Clerk(engine)
    yield clerk
    await clerk.close()


def post_options(folder: Path, **more: Any) -> PostOptions:
    return PostOptions(frozenset({"localhost"}), ca_file=str(folder / "ca.pem"), **more)


class Running:
    """A meter that posts."""

    def __init__(self, url: str, folder: Path, **options: Any) -> None:
        timeout_s = options.pop("timeout_s", 5.0)
        made = WebhookOptions(post_options(folder, timeout_s=timeout_s), **options)
        outbox = OutboxOptions(first_retry_s=0.2, poll_s=0.1)
        self._options = MeterOptions(url, webhooks=made, outbox=outbox, poll_ms=10)
        self._stop = asyncio.Event()
        self._url = url

    async def __aenter__(self) -> None:
        engine = await open_store(self._url)
        clerk = Clerk(engine)
        await clerk.write(begin, STREAM, 0)  # what comes from now on is told
        await clerk.close()
        await engine.dispose()
        self._task = asyncio.create_task(run_meter(self._options, self._stop))

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        async with asyncio.timeout(15):
            await self._task


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def put(clerk: Clerk, hook: Webhook) -> Webhook:
    made = await clerk.write(put_hook, hook)
    await clerk.write(lambda connection: connection.execute(update(webhooks).values(created_utc_us=0)))  # before June
    return made


async def happen(engine: AsyncEngine, *stories: Any, boot: str = "boot-1") -> None:
    journal = await open_journal(engine, boot, linger_ms=1)
    write(journal, *stories)
    await journal.close()


async def standing(clerk: Clerk) -> Standing:
    return (await clerk.read(read_hooks))[0][1]


async def test_lead_and_outcome_are_posted_signed_and_in_order(
    url: str, engine: AsyncEngine, clerk: Clerk, endpoint: Endpoint, certificates: Path
) -> None:
    hook = await put(clerk, Webhook("acme", "crm", endpoint.url()))
    await put(clerk, Webhook("other", "crm", endpoint.url("/other")))
    async with Running(url, certificates, redact_fields=frozenset({"address"})):
        await happen(engine, failed_story("t-1"), connected_story("t-2"), free_story("t-3"))
        await until(lambda: len(endpoint.got) == 5)
        await asyncio.sleep(0.3)
    assert len(endpoint.got) == 5
    by_transfer: dict[str, list[str]] = defaultdict(list)
    for one in endpoint.bodies:
        by_transfer[one["data"]["transfer"]].append(one["type"])
    assert by_transfer == {
        "t-1": ["transfer.dialed", "transfer.failed"],
        "t-2": ["transfer.dialed", "transfer.answered"],
        "t-3": ["transfer.dialed"],
    }
    for headers, body in endpoint.got:
        assert headers[""] == "POST /leads HTTP/1.1"
        assert headers["host"] == f"localhost:{endpoint.port}"
        assert Verifier(hook.secrets[0]).verify(body, headers) == json.loads(body)
        assert headers["webhook-id"] == json.loads(body)["data"]["id"]
    failed = next(one["data"] for one in endpoint.bodies if one["type"] == "transfer.failed")
    assert failed["lead"] == {"name": "Jo Doe", "phone": "+12125550123", "email": "jo@example.org"}
    assert (failed["verdict"], failed["counts_as"], failed["phone"]) == ("failed", "failed", "+12125550123")
    assert failed["legs"][0]["name"] == "desk-1"
    assert "failed" in failed["explanation"].lower()


async def test_a_buyer_chooses_events_fields_and_masking(
    url: str, engine: AsyncEngine, clerk: Clerk, endpoint: Endpoint, certificates: Path
) -> None:
    choice = {"events": ("outcome",), "lead_fields": ("name", "phone", "email"), "redact_fields": ("email",)}
    await put(clerk, Webhook("acme", "crm", endpoint.url(), mask_phone=True, **choice))
    async with Running(url, certificates):
        await happen(engine, failed_story("t-1"), free_story("t-2"))
        await until(lambda: len(endpoint.got) == 2)
    assert endpoint.types == ["transfer.outcome", "transfer.outcome"]
    told = {body["data"]["transfer"]: (body["data"]["phone"], body["data"]["lead"]) for body in endpoint.bodies}
    assert told == {"t-1": ("***0123", {"name": "Jo Doe", "phone": "***0123"}), "t-2": ("", {})}
    assert b"+12125550123" not in b"".join(body for _, body in endpoint.got)


async def test_what_is_not_taken_is_posted_again_under_the_same_id(
    url: str, engine: AsyncEngine, clerk: Clerk, endpoint: Endpoint, certificates: Path
) -> None:
    await put(clerk, Webhook("acme", "crm", endpoint.url(), events=("failed",)))
    endpoint.answers = [b"500 Oops", b"302 Found", b"200 OK"]
    async with Running(url, certificates):
        await happen(engine, failed_story("t-1"))
        for wanted in (1, 2, 3):
            await until(lambda count=wanted: len(endpoint.got) >= count)
            if wanted < 3:
                await until_async(lambda: standing(clerk), lambda found, count=wanted: found.failures == count)
                await clerk.write(lambda connection: connection.execute(update(webhooks).values(next_try_utc_us=0)))
                await clerk.write(
                    lambda connection: connection.exec_driver_sql("UPDATE outbox SET next_try_utc_us = 0")
                )
        await until_async(lambda: standing(clerk), lambda found: found == Standing())
    assert len({headers["webhook-id"] for headers, _ in endpoint.got}) == 1
    assert len({headers[""] for headers, _ in endpoint.got}) == 1  # the redirect was not followed
    assert (await states(engine))["t-1.outcome@acme/crm"][0] == "done"


async def until_async(get: Callable[[], Any], fits: Callable[[Any], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not fits(await get()):
            await asyncio.sleep(0.05)


async def test_a_dead_endpoint_rests_as_a_whole_and_holds_nobody_up(
    url: str, engine: AsyncEngine, clerk: Clerk, endpoint: Endpoint, certificates: Path
) -> None:
    """Fifty messages for one that never answers cost a few attempts; another buyer's go out meanwhile."""
    slow = Endpoint(certificates)
    await slow.start()
    slow.delay_s = 30
    await put(clerk, Webhook("acme", "dead", slow.url(), events=("failed",)))
    await put(clerk, Webhook("other", "crm", endpoint.url(), events=("failed",)))
    async with Running(url, certificates, timeout_s=0.5):
        await happen(engine, *(failed_story(f"a-{number}") for number in range(50)))
        await until_async(lambda: standing(clerk), lambda found: found.failures == 1)
        begun = time.monotonic()
        await happen(engine, *(failed_story(f"o-{number}", buyer="other") for number in range(20)), boot="boot-2")
        await until(lambda: len(endpoint.got) == 20)
        assert time.monotonic() - begun < 15
        assert len(slow.got) <= 6  # those in flight when it failed first, and then one for each rest
        waiting = [state for name, (state, _) in (await states(engine)).items() if name.endswith("@acme/dead")]
        assert waiting == ["pending"] * 50
    await slow.stop()


async def test_a_slow_endpoint_that_answers_holds_nobody_up_either(
    url: str, engine: AsyncEngine, clerk: Clerk, endpoint: Endpoint, certificates: Path
) -> None:
    slow = Endpoint(certificates)
    await slow.start()
    slow.delay_s = 4
    await put(clerk, Webhook("acme", "slow", slow.url(), events=("failed",)))
    await put(clerk, Webhook("other", "crm", endpoint.url(), events=("failed",)))
    async with Running(url, certificates, timeout_s=10.0):
        await happen(engine, *(failed_story(f"a-{number}") for number in range(40)))
        await until(lambda: len(slow.got) >= 4)
        await happen(engine, *(failed_story(f"o-{number}", buyer="other") for number in range(10)), boot="boot-2")
        await until(lambda: len(endpoint.got) == 10)
        assert len(slow.got) <= 12  # four at once: it has hardly begun
    await slow.stop()


async def test_what_was_changed_by_hand_is_not_undone_by_an_attempt_in_flight(
    url: str, engine: AsyncEngine, clerk: Clerk, endpoint: Endpoint, certificates: Path
) -> None:
    await put(clerk, Webhook("acme", "crm", endpoint.url(), events=("failed",)))
    endpoint.answers, endpoint.delay_s = [b"500 Oops"], 1.5
    async with Running(url, certificates):
        await happen(engine, failed_story("t-1"))
        await until(lambda: endpoint.got)
        await clerk.write(disable, "acme", "crm", "asked by phone")
        await asyncio.sleep(2)
        found = await standing(clerk)
    assert found.disabled_utc_us is not None
    assert found.error == "asked by phone"


async def test_a_webhook_gets_nothing_of_what_was_before_it(
    url: str, engine: AsyncEngine, clerk: Clerk, endpoint: Endpoint, certificates: Path
) -> None:
    await clerk.write(put_hook, Webhook("acme", "crm", endpoint.url()))  # made now; the stories are of June
    async with Running(url, certificates):
        await happen(engine, failed_story("t-1"))
        await until_async(lambda: states(engine), lambda found: "t-1.lead" in found)
        await asyncio.sleep(1)
    assert [name for name in await states(engine) if "@" in name] == []


async def test_after_long_failure_it_is_disabled_and_enabling_brings_everything(
    url: str, engine: AsyncEngine, clerk: Clerk, endpoint: Endpoint, certificates: Path
) -> None:
    await put(clerk, Webhook("acme", "crm", endpoint.url(), events=("failed",)))
    endpoint.answers = [b"503 Not now"]
    async with Running(url, certificates, disable_after_s=0.0):
        await happen(engine, failed_story("t-1"), failed_story("t-2"))
        await until_async(lambda: standing(clerk), lambda found: found.disabled_utc_us is not None)
        await until_async(
            lambda: states(engine),
            lambda found: [state for name, (state, _) in found.items() if "@" in name] == ["dead", "dead"],
        )
        await asyncio.sleep(2.2)  # the queue has looked again
        await happen(engine, failed_story("t-3"), boot="boot-2")
        await asyncio.sleep(0.5)
        assert "t-3.outcome@acme/crm" not in await states(engine)
        endpoint.got.clear()
        endpoint.answers = [b"200 OK"]
        assert await clerk.write(enable, "acme", "crm") == 2
        await until(lambda: len(endpoint.got) == 2)
    assert (await standing(clerk)).error == ""


async def test_gone_disables_at_once(
    url: str, engine: AsyncEngine, clerk: Clerk, endpoint: Endpoint, certificates: Path
) -> None:
    await put(clerk, Webhook("acme", "crm", endpoint.url(), events=("failed",)))
    endpoint.answers = [b"410 Gone"]
    async with Running(url, certificates):
        await happen(engine, failed_story("t-1"))
        await until_async(lambda: standing(clerk), lambda found: found.disabled_utc_us is not None)
    assert (await standing(clerk)).error == "answered 410"


async def test_without_webhooks_the_journal_is_passed_by_and_nothing_old_is_posted_later(
    url: str, engine: AsyncEngine, clerk: Clerk, endpoint: Endpoint, certificates: Path
) -> None:
    async with Running(url, certificates):
        await happen(engine, failed_story("old"))
        await until_async(lambda: states(engine), lambda found: "old.lead" in found)
        await asyncio.sleep(0.5)
        await put(clerk, Webhook("acme", "crm", endpoint.url()))
        await asyncio.sleep(2.2)
        await happen(engine, failed_story("new"), boot="boot-2")
        await until(lambda: len(endpoint.got) == 2)
    assert {body["data"]["transfer"] for body in endpoint.bodies} == {"new"}


async def test_a_hidden_private_target_is_refused_and_one_allowed_by_name_is_not(
    endpoint: Endpoint, certificates: Path
) -> None:
    closed = HttpPoster(PostOptions(ca_file=str(certificates / "ca.pem")))
    for host in ("localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254", "2130706433"):
        with pytest.raises(ForbiddenTargetError):
            await closed.post(endpoint.url(host=host), b"", ())
    await closed.close()
    assert endpoint.got == []
    open_ = HttpPoster(post_options(certificates))
    assert (await open_.post(endpoint.url(), b"{}", (("x", "y"),))).status == 204
    with pytest.raises(HttpPostError, match="TLS: the certificate is not valid"):
        await HttpPoster(PostOptions(frozenset({"127.0.0.1"}), ca_file=str(certificates / "ca.pem"))).post(
            endpoint.url(host="127.0.0.1"), b"", ()
        )
    with pytest.raises(HttpPostError, match="TLS: the certificate is not valid"):
        await HttpPoster(PostOptions(frozenset({"localhost"}))).post(endpoint.url(), b"", ())
    await endpoint.stop()
    await open_.close()
    with pytest.raises(HttpPostError, match="not connected"):
        await HttpPoster(post_options(certificates)).post(endpoint.url(), b"", ())


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:0a00:0001::1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("fec0::1", False),
        ("::127.0.0.1", False),
        ("::ffff:0:7f00:1", False),
        ("2606:4700::5efe:7f00:1", False),
        ("5f00::1", False),
        ("3fff::1", False),
        ("not an address", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "http://crm.example/x"}, "url: must be https"),
        ({"url": "https:///x"}, "url: must be https"),
        ({"url": "https://user:word@crm.example/"}, "url: may hold no user"),
        ({"url": "https://crm.example/#x"}, "url: may hold no user"),
        ({"url": "https://crm.example/a b"}, "url: is not"),
        ({"url": "https://crm.example:99999/"}, "url: "),
        ({"url": "https://crm.example/" + "x" * 2_000}, "url: is not"),
        ({"url": f"https://{'x' * 64}.example/"}, "url: the host's name"),
        ({"url": "https://a..b/"}, "url: the host's name"),
        ({"name": "Not A Slug"}, "name: "),
        ({"events": ()}, "events: are one or more"),
        ({"events": ("failed", "rung")}, "not rung"),
        ({"secrets": ("short",)}, "secret: "),
    ],
)
def test_what_cannot_be_posted_to_is_named(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"buyer": "acme", "name": "crm", "url": "https://crm.example/x"}
    check(Webhook(**good))
    with pytest.raises(WebhookError, match=message):
        check(Webhook(**{**good, **change}))


async def test_secrets_are_made_kept_and_rolled(clerk: Clerk) -> None:
    first = await put(clerk, Webhook("acme", "crm", "https://crm.example/1"))
    again = await put(clerk, Webhook("acme", "crm", "https://crm.example/2"))
    assert again.secrets == first.secrets
    rolled = await clerk.write(put_hook, again, roll=True)
    assert rolled.secrets[1:] == first.secrets
    once_more = await clerk.write(put_hook, rolled, roll=True)
    assert once_more.secrets[1:] == rolled.secrets[:1]
    assert first.secrets[0] not in repr(first)
    with pytest.raises(LookupError, match="no buyer"):
        await put(clerk, Webhook("nobody", "crm", "https://crm.example/1"))
    for number in range(9):
        await put(clerk, Webhook("acme", f"crm-{number}", "https://crm.example/1"))
    with pytest.raises(WebhookError, match="10 webhooks already"):
        await put(clerk, Webhook("acme", "one-more", "https://crm.example/1"))
    assert await clerk.write(remove_hook, "acme", "crm")
    assert not await clerk.write(remove_hook, "acme", "crm")


async def test_the_commands_do_what_they_say(
    clerk: Clerk, endpoint: Endpoint, certificates: Path, tmp_path: Path
) -> None:
    file = tmp_path / "baton.db"
    settings = tmp_path / "baton.toml"
    settings.write_text(
        '[[listeners]]\nname = "a"\ntransport = "udp"\n'
        f'[webhooks]\nallow_hosts = ["localhost"]\nca_file = "{certificates}/ca.pem"\n'
    )
    runner = CliRunner()

    async def run(*words: str, code: int = 0) -> str:
        words = ("webhooks", *words, "--store", str(file), "--config", str(settings))
        result = await asyncio.to_thread(runner.invoke, app, list(words))
        assert result.exit_code == code, (result.output, result.exception)
        return result.output + str(result.exception or "")

    made = await run("set", "acme", "crm", endpoint.url(), "--event", "failed", "--redact", "email")
    secret = made.split()[-1]
    assert secret.startswith("whsec_")
    assert "changed" in await run("set", "acme", "crm", endpoint.url())
    assert "answered 204" in await run("test", "acme", "crm")
    headers, body = endpoint.got[-1]
    assert Verifier(secret).verify(body, headers)["type"] == "transfer.test"
    endpoint.answers = [b"401 No"]
    assert "answered 401" in await run("test", "acme", "crm", code=1)
    rolled = (await run("roll", "acme", "crm")).split()[-1]
    await run("test", "acme", "crm", code=1)
    for one in (secret, rolled):
        assert Verifier(one).verify(endpoint.got[-1][1], endpoint.got[-1][0])
    listed = await run("list", "--json")
    assert secret not in listed
    assert json.loads(listed)[0]["events"] == ["dialed", "answered", "failed"]
    await run("disable", "acme", "crm", "--reason", "asked by phone")
    assert "asked by phone" in await run("list")
    assert "0 messages revived" in await run("enable", "acme", "crm")
    assert "url: must be https" in await run("set", "acme", "crm", "ftp://x/", code=1)
    assert "no buyer" in await run("set", "nobody", "crm", endpoint.url(), code=1)
    await run("remove", "acme", "crm")
    for words in (("remove",), ("enable",), ("disable",), ("test",), ("roll",)):
        assert "no webhook called" in await run(*words, "acme", "crm", code=1)
