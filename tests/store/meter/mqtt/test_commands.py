"""Commands over MQTT: signed, done once, answered; and nothing for who cannot prove who it is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from baton.process.commands import executor
from baton.suppression_lists import list_store
from book.lists import Actor
from book.model import Buyer, BuyerState, Terms
from book.sections import BookFile
from meter.book.sql.book import BookStore
from meter.mqtt.channel import MqttOptions
from meter.mqtt.commands import Commander
from meter.run import MeterOptions, run_meter
from meter.store.schema import suppression_log
from meter.text.signing import new_secret, sign
from suppression.importer import Task, import_file
from tests.store.broker import Broker, Subscriber, problems, until

pytestmark = pytest.mark.net
OPERATOR, OLD, ACME = new_secret(), new_secret(), new_secret()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path)
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture
async def subscriber(url: str, engine: AsyncEngine, broker: Broker, tmp_path: Path) -> AsyncIterator[Subscriber]:
    """A meter that takes commands, two buyers, a list of each and one of the operator's."""
    terms = Terms("plain")
    buyers = tuple(Buyer(name, name.title(), terms) for name in ("acme", "other"))
    await BookStore(engine).import_book(BookFile(terms=(terms,), buyers=buyers))
    for buyer in (None, "acme", "other"):
        file = tmp_path / f"{buyer}.csv"
        file.write_text("phone\n+12125550100\n")
        task = Task(file, f"{buyer or 'house'}-dnc", buyer)
        await import_file(list_store(engine), tmp_path, task, Actor("test", "test"))
    commanders = (Commander("noc", (OPERATOR, OLD)), Commander("acme-bot", (ACME,), "acme"))
    options = MeterOptions(
        url,
        mqtt=MqttOptions("127.0.0.1", broker.port, prefix="calls"),
        poll_ms=10,
        commanders=commanders,
        execute=partial(executor, data_dir=tmp_path),
    )
    stop = asyncio.Event()
    heard = Subscriber(broker.port)
    tasks = [asyncio.create_task(heard.run()), asyncio.create_task(run_meter(options, stop))]
    await until(lambda: {"schema": 1, "state": "online"} in heard.at("calls/status"))
    yield heard
    stop.set()
    async with asyncio.timeout(15):
        await tasks[1]
    tasks[0].cancel()


def envelope(secret: str, command_id: str, at_s: int | None = None, **body: Any) -> dict[str, Any]:
    text = json.dumps(body)
    at = int(time.time()) if at_s is None else at_s
    signature = sign(secret, command_id, at, text.encode())
    made = {"id": command_id, "timestamp": at, "signature": signature, "body": text}
    assert problems(made, "command") == []
    return made


async def say(broker: Broker, name: str, payload: Any, **properties: Any) -> None:
    made = None
    if properties:
        made = Properties(PacketTypes.PUBLISH)
        for key, value in properties.items():
            setattr(made, key, value)
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.publish(f"calls/commands/{name}", raw, qos=1, properties=made)


async def answer(subscriber: Subscriber, command_id: str, topic: str = "calls/replies/noc") -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        return [said for said in subscriber.at(topic) if said is not None and said["id"] == command_id]

    await until(found)
    said = found()[-1]
    assert problems(said, "reply") == []
    return said


async def state_of(engine: AsyncEngine, buyer: str) -> BuyerState:
    return (await BookStore(engine).load()).buyers[buyer].state


async def test_pause_and_resume_are_done_told_and_on_record(
    subscriber: Subscriber, broker: Broker, engine: AsyncEngine
) -> None:
    await say(broker, "noc", envelope(OPERATOR, "c-1", command="pause", buyer="acme", reason="agents at lunch"))
    said = await answer(subscriber, "c-1")
    assert (said["ok"], said["result"]) == (
        True,
        {"buyer": "acme", "before": "active", "state": "paused", "stops": ["paused"]},
    )
    assert await state_of(engine, "acme") is BuyerState.PAUSED
    [entry] = await BookStore(engine).states("acme")
    assert (entry["by"], entry["reason"]) == ("mqtt:noc", "agents at lunch")
    await until(lambda: subscriber.state("calls/buyers/acme/state") == "paused")
    await say(broker, "noc", envelope(OLD, "c-2", command="resume", buyer="acme"))
    assert (await answer(subscriber, "c-2"))["ok"]
    assert await state_of(engine, "acme") is BuyerState.ACTIVE


async def test_the_same_command_again_gets_its_reply_and_does_nothing(
    subscriber: Subscriber, broker: Broker, engine: AsyncEngine
) -> None:
    first = envelope(OPERATOR, "c-1", command="pause", buyer="acme")
    await say(broker, "noc", first)
    one = await answer(subscriber, "c-1")
    await BookStore(engine).set_buyer_state("acme", BuyerState.ACTIVE, "somebody")
    await say(broker, "noc", first)
    await until(lambda: len(subscriber.at("calls/replies/noc")) == 2)
    assert subscriber.at("calls/replies/noc") == [one, one]
    assert await state_of(engine, "acme") is BuyerState.ACTIVE


async def test_numbers_are_suppressed_and_counted(subscriber: Subscriber, broker: Broker, engine: AsyncEngine) -> None:
    numbers = ["+1 (212) 555-0100", "2125550101"]
    await say(broker, "acme-bot", envelope(ACME, "c-1", command="suppress", list="acme-dnc", numbers=numbers))
    said = await answer(subscriber, "c-1", "calls/replies/acme-bot")
    assert said["result"] == {"list": "acme-dnc", "added": 1, "already": 1, "entries": 2}
    async with engine.connect() as connection:
        rows = (await connection.execute(select(suppression_log).where(suppression_log.c.action == "edit"))).all()
    assert [(row.name, row.by, row.origin) for row in rows] == [("acme-dnc", "acme-bot", "mqtt:acme-bot")]


@pytest.mark.parametrize(
    ("name", "body", "error"),
    [
        ("acme-bot", {"command": "pause", "buyer": "other"}, "buyer: is another's"),
        ("acme-bot", {"command": "suppress", "list": "house-dnc", "numbers": ["2125550101"]}, "is not yours"),
        ("acme-bot", {"command": "suppress", "list": "nowhere", "numbers": ["2125550101"]}, "is not yours"),
        ("noc", {"command": "pause"}, "buyer: is required"),
        ("noc", {"command": "pause", "buyer": "nobody"}, "no buyer is called 'nobody'"),
        ("noc", {"command": "pause", "buyer": ["acme"]}, "buyer: is not text"),
        ("noc", {"command": "suppress", "list": "nowhere", "numbers": ["2125550101"]}, "no list called 'nowhere'"),
        ("noc", {"command": "suppress", "list": "house-dnc", "numbers": []}, "numbers: is not a list"),
        ("noc", {"command": "suppress", "list": "house-dnc", "numbers": [5]}, "numbers: is not a list"),
        ("noc", {"command": "suppress", "list": "house-dnc", "numbers": ["dog"]}, "numbers: "),
        ("noc", {"command": "explode"}, "command: is none of pause, resume, suppress"),
        ("noc", {}, "command: is none of"),
    ],
)
async def test_what_cannot_be_done_is_answered_with_the_field(
    subscriber: Subscriber, broker: Broker, name: str, body: dict[str, Any], error: str
) -> None:
    await say(broker, name, envelope(ACME if name == "acme-bot" else OPERATOR, "c-1", **body))
    said = await answer(subscriber, "c-1", f"calls/replies/{name}")
    assert not said["ok"]
    assert error in said["error"]


async def test_a_field_that_is_given_twice_is_no_command(subscriber: Subscriber, broker: Broker) -> None:
    text = '{"command": "pause", "buyer": "acme", "buyer": "other"}'
    at_s = int(time.time())
    signature = sign(OPERATOR, "c-1", at_s, text.encode())
    await say(broker, "noc", {"id": "c-1", "timestamp": at_s, "signature": signature, "body": text})
    said = await answer(subscriber, "c-1")
    assert (said["ok"], said["error"]) == (False, "body: 'buyer' is given twice")


async def test_a_buyer_cannot_lift_the_operators_hold(
    subscriber: Subscriber, broker: Broker, engine: AsyncEngine
) -> None:
    await BookStore(engine).set_buyer_state("acme", BuyerState.ON_HOLD, "billing")
    await say(broker, "acme-bot", envelope(ACME, "c-1", command="resume"))
    assert "on_hold" in (await answer(subscriber, "c-1", "calls/replies/acme-bot"))["error"]
    assert await state_of(engine, "acme") is BuyerState.ON_HOLD


async def test_who_cannot_prove_it_gets_no_answer(subscriber: Subscriber, broker: Broker, engine: AsyncEngine) -> None:
    good = envelope(OPERATOR, "c-1", command="pause", buyer="acme")
    await say(broker, "stranger", good)
    await say(broker, "acme-bot", good)
    await say(broker, "noc", {**good, "body": good["body"].replace("acme", "other")})
    await say(broker, "noc", {**good, "id": "c-9"})
    await say(broker, "noc", {**good, "timestamp": "soon"})
    await say(broker, "noc", {**good, "id": "x" * 65})
    await say(broker, "noc", envelope(OPERATOR, "late", int(time.time()) - 301, command="pause", buyer="acme"))
    await say(broker, "noc", b"not json")
    await say(broker, "noc", b"[]")
    await say(broker, "noc", b"{" + b" " * 300_000 + b"}")
    await say(broker, "noc", envelope(OPERATOR, "last", command="resume", buyer="other"))
    await answer(subscriber, "last")  # commands are taken in their order: all before it were looked at
    replies = [(topic, said) for topic, said in subscriber.got if topic.startswith("calls/replies/")]
    assert [(topic, said["id"]) for topic, said in replies if said] == [("calls/replies/noc", "last")]
    assert await state_of(engine, "acme") is BuyerState.ACTIVE


async def test_a_response_topic_of_mqtt_5_is_used_below_ones_own_alone(subscriber: Subscriber, broker: Broker) -> None:
    body = {"command": "resume", "buyer": "acme"}
    own = {"ResponseTopic": "calls/replies/noc/desk-7", "CorrelationData": b"\x00\xff7"}
    await say(broker, "noc", envelope(OPERATOR, "c-1", **body), **own)
    await answer(subscriber, "c-1", "calls/replies/noc/desk-7")
    await say(broker, "noc", envelope(OPERATOR, "c-2", **body), ResponseTopic="calls/buyers/acme/state")
    await say(broker, "noc", envelope(OPERATOR, "c-3", **body), ResponseTopic="calls/replies/nocturnal")
    await answer(subscriber, "c-2")
    await answer(subscriber, "c-3")


async def test_commands_wait_at_the_broker_while_no_meter_runs(
    url: str, engine: AsyncEngine, broker: Broker, tmp_path: Path
) -> None:
    terms = Terms("plain")
    await BookStore(engine).import_book(BookFile(terms=(terms,), buyers=(Buyer("acme", "Acme", terms),)))
    options = MeterOptions(
        url,
        mqtt=MqttOptions("127.0.0.1", broker.port, prefix="calls"),
        poll_ms=10,
        commanders=(Commander("noc", (OPERATOR,)),),
        execute=partial(executor, data_dir=tmp_path),
    )
    heard = Subscriber(broker.port)
    listening = asyncio.create_task(heard.run())
    for turn in range(2):
        stop = asyncio.Event()
        meter = asyncio.create_task(run_meter(options, stop))
        await until(lambda: {"schema": 1, "state": "online"} in heard.at("calls/status"))
        if turn:
            assert (await answer(heard, "c-1"))["ok"]
        stop.set()
        async with asyncio.timeout(15):
            await meter
        if not turn:
            await say(broker, "noc", envelope(OPERATOR, "c-1", command="pause", buyer="acme"))
    listening.cancel()
    assert await state_of(engine, "acme") is BuyerState.PAUSED
