"""Outcomes over a real Mosquitto that is killed and comes back: nothing is lost, and a repeat bears the same id."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.facts import CALLER_LEG, EndCause, Kind, Party
from meter.mqtt import MqttDeliverer, MqttOptions
from meter.outbox import NeverDeliverableError
from meter.outcome import CountsAs, Reason, Verdict
from meter.run import MeterOptions, run_meter
from meter.settle import SettleOptions, settle
from meter.store.outbox import Message
from tests.facts_builder import Story, connected_story, failed_story
from tests.store.journal_tools import open_journal, write
from tests.store.test_outbox import states

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/mqtt/outcome.schema.json").read_text())
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")

needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


class Broker:
    """Mosquitto with persistence, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._conf = folder / "mosquitto.conf"
        self._conf.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nautosave_interval 1\nautosave_on_changes true\nuser root\n"
        )
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = await asyncio.create_subprocess_exec(
            MOSQUITTO, "-c", str(self._conf), stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(10):
            while not await self._answers():
                await asyncio.sleep(0.02)

    async def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            await self._process.wait()
            self._process = None

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path)
    await broker.start()
    yield broker
    await broker.stop()


class Subscriber:
    """Keeps a session at the broker and everything it gets, through the broker's deaths."""

    def __init__(self, port: int) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.subscribed = asyncio.Event()
        self._port = port

    async def run(self) -> None:
        while True:
            try:
                async with aiomqtt.Client(
                    "127.0.0.1", self._port, identifier="subscriber", clean_session=False, timeout=5
                ) as client:
                    await client.subscribe("calls/transfers/+/outcome", qos=1)
                    self.subscribed.set()
                    async for message in client.messages:
                        assert isinstance(message.payload, bytes)
                        self.got.append((str(message.topic), json.loads(message.payload)))
            except aiomqtt.MqttError:
                await asyncio.sleep(0.05)

    @property
    def ids(self) -> set[str]:
        return {payload["id"] for _, payload in self.got}


async def until(condition: Any, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.net
@needs_broker
async def test_outcomes_survive_the_brokers_death(url: str, engine: AsyncEngine, broker: Broker) -> None:
    subscriber = Subscriber(broker.port)
    listening = asyncio.create_task(subscriber.run())
    await until(subscriber.subscribed.is_set)
    stop = asyncio.Event()
    options = MeterOptions(url, mqtt=MqttOptions("127.0.0.1", broker.port, prefix="calls"), poll_ms=10)
    meter = asyncio.create_task(run_meter(options, stop))
    journal = await open_journal(engine, linger_ms=1)

    write(journal, failed_story("t-1"), connected_story("t-2"))
    await until(lambda: len(subscriber.ids) == 2)

    await broker.stop(signal.SIGKILL)
    begun = time.monotonic()
    write(journal, *(connected_story(f"t-{number}") for number in range(3, 23)))
    await journal.close()
    assert time.monotonic() - begun < 5  # a broker that is down blocks nothing
    async with asyncio.timeout(10):
        while len(await states(engine)) < 23:  # 22 outcomes and one e-mail are settled all the same
            await asyncio.sleep(0.02)
    subscriber.subscribed.clear()
    await broker.start()
    await until(subscriber.subscribed.is_set)
    await until(lambda: len(subscriber.ids) == 22)
    async with asyncio.timeout(10):
        while [state for name, (state, _) in (await states(engine)).items() if name.endswith("outcome")].count(
            "done"
        ) < 22:
            await asyncio.sleep(0.02)

    stop.set()
    async with asyncio.timeout(10):
        await meter
    listening.cancel()
    for topic, payload in subscriber.got:
        assert topic == f"calls/transfers/{payload['transfer']}/outcome"
        assert problems(payload, SCHEMA) == []
        assert payload["phone"] == "***0123"


@pytest.mark.net
async def test_a_meter_without_a_broker_to_reach_starts_works_and_stops(url: str, engine: AsyncEngine) -> None:
    stop = asyncio.Event()
    with socket.socket() as taken:  # bound and never accepting: the connection is refused
        taken.bind(("127.0.0.1", 0))
        options = MeterOptions(url, mqtt=MqttOptions("127.0.0.1", taken.getsockname()[1]), poll_ms=10)
        meter = asyncio.create_task(run_meter(options, stop))
        journal = await open_journal(engine, linger_ms=1)
        write(journal, failed_story())
        async with asyncio.timeout(10):
            while len(await states(engine)) < 2:
                await asyncio.sleep(0.02)
        await journal.close()
        stop.set()
        async with asyncio.timeout(10):
            await meter
    assert (await states(engine))["t-1.outcome"] == ("pending", 0)


def problems(value: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """What a value has against the part of JSON Schema that outcome.schema.json uses."""
    types = {"object": dict, "string": str, "integer": int, "null": type(None)}
    wanted = schema.get("type", [])
    found = []
    if wanted and not any(type(value) is types[one] for one in ([wanted] if isinstance(wanted, str) else wanted)):
        return [f"{where}: {value!r} is no {wanted}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{where}: {value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: {value!r} is none of the enum")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{where}: {value!r} does not match {schema['pattern']}")
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{where}: {value} is below {schema['minimum']}")
    if isinstance(value, dict):
        found += [f"{where}: {name} is missing" for name in schema["required"] if name not in value]
        found += [f"{where}: {name} is not described" for name in value if name not in schema["properties"]]
        for name, part in schema["properties"].items():
            found += problems(value[name], part, f"{where}.{name}") if name in value else []
    return found


STORIES = [
    failed_story(),
    connected_story(),
    Story().start(phone="", buyer="").add(Kind.REFUSED, reason="no_buyer").end(0, Party.ROUTER, EndCause.STORE).close(),
    Story().start().add(Kind.FAULT, leg=CALLER_LEG).add(Kind.INTERRUPTED).close(),
    Story().add(Kind.TRANSFER_CLOSED),
]


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("mask", [True, False])
def test_what_is_queued_is_what_the_schema_describes(story: Story, mask: bool) -> None:
    settled = settle(story.facts, story.facts[-1], SettleOptions(mask_phone=mask), 1)
    message = next(one for one in settled.rows.messages if one["channel"] == "mqtt")
    payload = json.loads(message["payload"])
    assert problems(payload, SCHEMA) == []
    assert payload["id"] == message["message_id"]
    assert ("+12125550123" in message["payload"].decode()) is (not mask and payload["phone"] != "")


def test_the_schema_names_every_slug() -> None:
    properties = SCHEMA["properties"]
    assert set(properties["verdict"]["enum"]) == set(Verdict)
    assert set(properties["reason"]["enum"]) == set(Reason)
    assert set(properties["counts_as"]["enum"]) == set(CountsAs)
    assert set(SCHEMA["required"]) == set(properties)


def test_the_check_of_this_file_finds_what_is_wrong() -> None:
    payload = {"schema": 2, "extra": 1}
    assert "$: id is missing" in problems(payload, SCHEMA)
    assert "$: extra is not described" in problems(payload, SCHEMA)
    assert "$.schema: 2 is not 1" in problems(payload, SCHEMA)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prefix": ""}, "mqtt prefix: '' is no topic"),
        ({"prefix": "a/#"}, "mqtt prefix: 'a/#' is no topic"),
        ({"prefix": "a//b"}, "mqtt prefix"),
        ({"port": 0}, "mqtt port: 0 is not between"),
        ({"port": 70_000}, "mqtt port: 70000 is not between"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MqttOptions("localhost", **settings)


@pytest.mark.parametrize("transfer", ["a/b", "#", "+", "", None, "a\nb"])
async def test_an_id_that_is_no_topic_is_never_published(transfer: object) -> None:
    message = Message(1, "mqtt", "k", "m", json.dumps({"transfer": transfer}).encode(), 0, 0)
    with pytest.raises(NeverDeliverableError, match="cannot be part of a topic"):
        MqttDeliverer(MqttOptions("localhost")).topic(message)


def test_the_reference_names_the_topic_that_is_used() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/mqtt.md").read_text()
    message = Message(1, "mqtt", "t-1", "t-1.outcome", b'{"transfer": "t-1"}', 0, 0)
    topic = MqttDeliverer(MqttOptions("127.0.0.1", prefix="PREFIX")).topic(message)
    assert topic.replace("PREFIX", "{prefix}").replace("t-1", "{transfer}") in page
