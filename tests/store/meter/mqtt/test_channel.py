"""Events, states and the last will over a real Mosquitto that is killed and comes back."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import Buyer, BuyerState, Terms
from book.sections import BookFile
from facts.outcome import CountsAs, Reason, Verdict
from meter.book.sql.book import BookStore
from meter.book.sql.trunks import put_trunks
from meter.events.model import EventKind
from meter.events.sql.streams import cursors
from meter.mqtt.channel import MqttLink, MqttOptions
from meter.outbox.delivery import NeverDeliverableError
from meter.outbox.sql import Message
from meter.run import MeterOptions, run_meter
from meter.store.clerk import Clerk
from tests.facts_builder import connected_story, failed_story
from tests.store.broker import SCHEMAS, Broker, Subscriber, problems, schema_of, until
from tests.store.journal_tools import open_journal, write
from tests.store.meter.outbox.test_delivery import states

pytestmark = pytest.mark.net
VERSIONS = ("3.1.1", "5")


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path)
    await broker.start()
    yield broker
    await broker.stop()


class Running:
    """A meter that publishes, and a subscriber."""

    def __init__(self, url: str, broker: Broker, **options: Any) -> None:
        self.subscriber = Subscriber(broker.port)
        mqtt = MqttOptions("127.0.0.1", broker.port, prefix="calls", **options)
        self._options = MeterOptions(url, mqtt=mqtt, poll_ms=10)
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Subscriber:
        self._tasks = [
            asyncio.create_task(self.subscriber.run()),
            asyncio.create_task(run_meter(self._options, self._stop)),
        ]
        await until(lambda: {"schema": 1, "state": "online"} in self.subscriber.at("calls/status"))
        return self.subscriber

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        async with asyncio.timeout(15):
            await self._tasks[1]
        await until(lambda: self.subscriber.at("calls/status")[-1] == {"schema": 1, "state": "offline"}, 5)
        self._tasks[0].cancel()


@pytest.mark.parametrize("version", VERSIONS)
async def test_events_survive_the_brokers_death_in_their_order(
    url: str, engine: AsyncEngine, broker: Broker, version: str
) -> None:
    async with Running(url, broker, version=version) as subscriber:
        journal = await open_journal(engine, linger_ms=1)
        write(journal, failed_story("t-1"), connected_story("t-2"))
        await until(lambda: len(subscriber.ids) == 2)

        await broker.stop(signal.SIGKILL)
        begun = time.monotonic()
        write(journal, *(connected_story(f"t-{number}") for number in range(3, 23)))
        await journal.close()
        assert time.monotonic() - begun < 5  # a broker that is down blocks nothing
        subscriber.subscribed.clear()
        await broker.start()
        await until(subscriber.subscribed.is_set)
        await until(lambda: len(subscriber.ids) == 22)

    seen: dict[str, list[str]] = defaultdict(list)
    for topic, payload in subscriber.got:
        suffix = topic.removeprefix("calls/")
        if payload is not None:
            assert problems(payload, schema_of(suffix)) == [], payload
        if payload is not None and suffix.startswith("transfers/"):
            assert suffix == f"transfers/{payload['transfer']}/{payload['event']}"
            counts = payload.get("counts_as") in ("connected", "failed")
            assert payload["phone"] == ("***0123" if counts else "")
            if payload["id"] not in seen[payload["transfer"]]:
                seen[payload["transfer"]].append(payload["id"])
    assert seen["t-2"] == ["t-2.started", "t-2.ringing", "t-2.answered.1", "t-2.outcome"]
    assert seen["t-1"][0] == "t-1.started"
    assert seen["t-1"][-1] == "t-1.outcome"
    for number in range(3, 23):
        assert seen[f"t-{number}"] == [f"t-{number}.{what}" for what in ("started", "ringing", "answered.1", "outcome")]


async def test_a_meter_that_is_killed_amid_a_batch_tells_all_of_it_again(
    url: str, engine: AsyncEngine, broker: Broker
) -> None:
    """The cursor moves after the PUBACKs alone; a meter that dies before that repeats, and leaves nothing out."""
    async with Running(url, broker):
        pass  # the stream has begun: what follows is told
    journal = await open_journal(engine, linger_ms=1)
    write(journal, *(failed_story(f"t-{number}") for number in range(30)))
    await journal.close()
    async with Running(url, broker) as subscriber:
        await until(lambda: len(subscriber.ids) == 30)
    clerk = Clerk(engine)
    before = await clerk.read(lambda connection: cursors(connection, "mqtt"))
    await clerk.write(lambda connection: connection.exec_driver_sql("UPDATE stream_cursors SET seq = seq / 2"))
    await clerk.close()
    async with Running(url, broker) as again:
        await until(lambda: len(again.ids) >= 14)
    assert again.ids <= subscriber.ids
    clerk = Clerk(engine)
    assert await clerk.read(lambda connection: cursors(connection, "mqtt")) == before
    await clerk.close()


async def test_a_broker_that_falls_silent_and_comes_back_gets_everything(
    url: str, engine: AsyncEngine, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledgements that stay out end the connection: what it has in flight would stop up the next one's."""
    monkeypatch.setattr("meter.mqtt.channel.ACK_TIMEOUT_S", 1.0)
    async with Running(url, broker) as subscriber:
        journal = await open_journal(engine, linger_ms=1)
        write(journal, failed_story("t-0"))
        await until(lambda: len(subscriber.ids) == 1)
        broker.send(signal.SIGSTOP)
        write(journal, *(failed_story(f"t-{number}") for number in range(1, 40)))
        await journal.close()
        await asyncio.sleep(4)  # several batches in vain
        broker.send(signal.SIGCONT)
        await until(lambda: len(subscriber.ids) == 40)


async def test_who_configures_a_broker_later_gets_what_comes_and_not_what_was(
    url: str, engine: AsyncEngine, broker: Broker
) -> None:
    journal = await open_journal(engine, linger_ms=1)
    write(journal, failed_story("old"))
    await journal.close()
    async with Running(url, broker) as subscriber:
        journal = await open_journal(engine, boot="boot-2", linger_ms=1)
        write(journal, failed_story("new"))
        await journal.close()
        await until(lambda: subscriber.ids == {"new.outcome"})
    assert {payload["transfer"] for kind in EventKind for payload in subscriber.of(kind)} == {"new"}


async def test_numbers_are_published_in_full_only_where_asked(url: str, engine: AsyncEngine, broker: Broker) -> None:
    async with Running(url, broker, mask_phone=False) as subscriber:
        journal = await open_journal(engine, linger_ms=1)
        write(journal, failed_story("t-1"))
        await journal.close()
        await until(lambda: subscriber.ids == {"t-1.outcome"})
    assert {payload["phone"] for payload in subscriber.of("outcome") + subscriber.of("started")} == {"+12125550123"}


async def test_states_are_retained_follow_changes_and_come_back_to_a_broker_that_forgot(
    url: str, engine: AsyncEngine, broker: Broker
) -> None:
    book = BookStore(engine)
    terms = Terms("plain")
    await book.import_book(BookFile(terms=(terms,), buyers=(Buyer("acme", "Acme", terms),)))
    clerk = Clerk(engine)
    await clerk.write(lambda connection: put_trunks(connection, "r1", {"acme/desk": "up", "carrier/main": "up"}, 5))
    async with Running(url, broker) as subscriber:
        await until(lambda: subscriber.at("calls/trunks/r1/acme/desk/state"))
        await until(lambda: subscriber.at("calls/buyers/acme/state"))
        await book.set_buyer_state("acme", BuyerState.PAUSED, "test")
        await until(lambda: subscriber.state("calls/buyers/acme/state") == "paused")
        await clerk.write(lambda connection: put_trunks(connection, "r1", {"acme/desk": "down"}, 9))
        await until(lambda: subscriber.state("calls/trunks/r1/acme/desk/state") == "down")
        await until(lambda: subscriber.at("calls/trunks/r1/carrier/main/state")[-1] is None)
        down = subscriber.at("calls/trunks/r1/acme/desk/state")[-1]
        assert down is not None
        assert (down["state"], down["since_utc_us"], down["trunk"]) == ("down", 9, "acme/desk")
        assert [problems(payload, schema_of(topic[6:])) for topic, payload in subscriber.got if payload] == [
            [] for _, payload in subscriber.got if payload
        ]
        await broker.stop()
        broker.forget()
        await broker.start()
        late = Subscriber(broker.port, name="late")
        listening = asyncio.create_task(late.run())
        await until(lambda: late.at("calls/trunks/r1/acme/desk/state")[:1] == [down])
        await until(lambda: late.at("calls/buyers/acme/state")[:1] == subscriber.at("calls/buyers/acme/state")[-1:])
        assert late.at("calls/trunks/r1/carrier/main/state") == []
        listening.cancel()
    await clerk.close()


async def test_while_the_broker_is_away_each_state_has_one_message(url: str, engine: AsyncEngine) -> None:
    """An hour of changes is one message a topic, and the newest state follows it."""
    clerk = Clerk(engine)
    stop = asyncio.Event()
    with socket.socket() as taken:  # bound and never accepting: the connection is refused
        taken.bind(("127.0.0.1", 0))
        options = MeterOptions(url, mqtt=MqttOptions("127.0.0.1", taken.getsockname()[1]), poll_ms=10)
        meter = asyncio.create_task(run_meter(options, stop))
        for turn in range(4):
            state = "down" if turn % 2 else "up"
            await clerk.write(lambda connection, at=turn, as_=state: put_trunks(connection, "r1", {"a/b": as_}, at))
            await asyncio.sleep(1.1)
        assert list(await states(engine)) == ["trunks/r1/a/b/state#1"]
        stop.set()
        async with asyncio.timeout(10):
            await meter
    await clerk.close()


async def test_the_last_will_says_that_a_meter_is_gone(url: str, broker: Broker, tmp_path: Path) -> None:
    subscriber = Subscriber(broker.port)
    listening = asyncio.create_task(subscriber.run())
    code = (
        "import asyncio; from meter.run import *; from meter.mqtt.channel import MqttOptions\n"
        f"asyncio.run(run_meter(MeterOptions({url!r}, mqtt=MqttOptions('127.0.0.1', {broker.port}, prefix='calls')),"
        " asyncio.Event()))"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.DEVNULL)
    await until(lambda: subscriber.at("calls/status") == [{"schema": 1, "state": "online"}])
    child.kill()
    await child.wait()
    await until(lambda: subscriber.at("calls/status")[-1] == {"schema": 1, "state": "offline"})
    listening.cancel()


async def test_a_second_meter_stands_by_until_the_first_is_gone(url: str, engine: AsyncEngine, broker: Broker) -> None:
    """Both would have the same client id, and each would throw the other out for ever."""
    clerk = Clerk(engine)
    await clerk.write(
        lambda connection: connection.exec_driver_sql(
            f"INSERT INTO leases VALUES ('mqtt', 'elsewhere/1/1', {time.time_ns() // 1000 + 2_500_000})"
        )
    )
    await clerk.close()
    begun = time.monotonic()
    async with Running(url, broker):
        assert time.monotonic() - begun >= 2.0


def _certificates(folder: Path) -> None:
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder, timeout=60)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "1", "-subj", "/CN=ca")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name, extra in (("server", ("-extfile", "san")), ("client", ())):
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing, *extra)


async def test_tls_with_certificates_on_both_sides_and_a_password(
    url: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    await asyncio.to_thread(_certificates, tmp_path)
    password = tmp_path / "passwd"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(password), "baton", "right"], check=True, timeout=60)
    files = (f"cafile {tmp_path}/ca.pem", f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key")
    access = ("allow_anonymous false", f"password_file {password}", "require_certificate true")
    broker = Broker(tmp_path, *files, *access)
    await broker.start()
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    own = {
        "tls": True,
        "ca_file": str(tmp_path / "ca.pem"),
        "certificate_file": str(tmp_path / "client.pem"),
        "key_file": str(tmp_path / "client.key"),
        "username": "baton",
    }
    try:
        for word, wanted in (("wrong", False), ("right", True)):
            stop = asyncio.Event()
            mqtt = MqttOptions("127.0.0.1", broker.port, prefix="calls", password=word, **own)
            meter = asyncio.create_task(run_meter(MeterOptions(url, mqtt=mqtt, poll_ms=10), stop))
            async with aiomqtt.Client(
                "127.0.0.1", broker.port, username="baton", password="right", tls_context=context
            ) as client:
                await client.subscribe("calls/status")
                heard = False
                try:
                    async with asyncio.timeout(10 if wanted else 2):
                        async for message in client.messages:
                            heard = json.loads(message.payload)["state"] == "online"
                            break
                except TimeoutError:
                    pass
                assert heard is wanted
            stop.set()
            async with asyncio.timeout(10):
                await meter
    finally:
        await broker.stop()


async def test_a_message_that_the_broker_refuses_is_not_delivered(
    url: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    """MQTT 5: the PUBACK says no. Taken for a yes, the event would be lost."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite calls/status\ntopic read calls/#\n")
    broker = Broker(tmp_path, f"acl_file {acl}")
    await broker.start()
    try:
        async with Running(url, broker):
            journal = await open_journal(engine, linger_ms=1)
            write(journal, failed_story("t-1"))
            await journal.close()
            await asyncio.sleep(1)
        acl.write_text("topic readwrite calls/#\n")
        await broker.stop()
        await broker.start()
        async with Running(url, broker) as subscriber:
            await until(lambda: subscriber.ids == {"t-1.outcome"})
    finally:
        await broker.stop()


def test_the_schemas_name_every_slug() -> None:
    properties = SCHEMAS["outcome"]["properties"]
    assert set(properties["verdict"]["enum"]) == set(Verdict)
    assert set(properties["reason"]["enum"]) == set(Reason)
    assert set(properties["counts_as"]["enum"]) == set(CountsAs)
    assert set(SCHEMAS["outcome"]["required"]) == set(properties)


def test_the_check_of_this_file_finds_what_is_wrong() -> None:
    assert problems({"schema": 1, "state": "online"}, "status") == []
    assert len(problems({"schema": 2, "state": "up", "more": 1}, "status")) == 3


@pytest.mark.parametrize("prefix", ["", "a//b", "a/+/b", "#"])
def test_a_prefix_that_is_no_topic_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        MqttOptions("localhost", prefix=prefix)


def test_a_version_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"version: '4' is none of 3\.1\.1, 5"):
        MqttOptions("localhost", version="4")


@pytest.mark.parametrize("transfer", ["a/b", "+", "", "a\nb"])
async def test_an_id_that_cannot_stand_in_a_topic_is_never_published(engine: AsyncEngine, transfer: str) -> None:
    payload = json.dumps({"topic": f"transfers/{transfer}/x/y/#", "payload": {}}).encode()
    link = MqttLink(engine, MqttOptions("localhost"))
    with pytest.raises(NeverDeliverableError):
        await link.deliver(Message(1, "mqtt", "k", "i", payload, 0, 0))


def test_the_reference_names_every_schema_and_what_the_schemas_say_of_their_topic() -> None:
    page = (Path(__file__).parents[4] / "docs/reference/mqtt.md").read_text()
    for name, schema in SCHEMAS.items():
        assert f"(../mqtt/{name}.schema.json)" in page
        topics = [word.strip(",.;:") for word in schema["description"].split() if word.startswith("{prefix}/")]
        assert topics, name
        assert [topic for topic in topics if topic not in page] == []
