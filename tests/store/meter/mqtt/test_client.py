"""A batch at a real Mosquitto: acknowledged as a whole, or an error that says why not."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from meter.mqtt.client import Connection, Publication, RefusedByBrokerError
from tests.store.broker import Broker, until

pytestmark = pytest.mark.net
V5, V311 = aiomqtt.ProtocolVersion.V5, aiomqtt.ProtocolVersion.V311
BOTH = pytest.mark.parametrize("version", [V5, V311], ids=["5", "3.1.1"])
PATIENT_S = 30.0  # for what the broker acknowledges at once


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """Takes what is published under `calls/`, and refuses the rest."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite calls/#\n")
    broker = Broker(tmp_path, f"acl_file {acl}")
    await broker.start()
    yield broker
    await broker.stop()


def connection(broker: Broker, version: aiomqtt.ProtocolVersion = V5, **more: Any) -> Connection:
    return Connection(hostname="127.0.0.1", port=broker.port, protocol=version, timeout=PATIENT_S, **more)


def batch(count: int, prefix: str = "calls/a") -> list[Publication]:
    return [Publication(f"{prefix}/{number}", b'{"n":%d}' % number) for number in range(count)]


async def received(reader: aiomqtt.Client, count: int) -> list[aiomqtt.Message]:
    """The next messages of a subscription."""
    async with asyncio.timeout(PATIENT_S):
        got: list[aiomqtt.Message] = []
        async for message in reader.messages:
            got.append(message)
            if len(got) == count:
                break
        return got


@BOTH
async def test_a_batch_that_is_acknowledged_has_reached_the_subscriber_whole_and_in_its_order(
    broker: Broker, version: aiomqtt.ProtocolVersion
) -> None:
    async with aiomqtt.Client("127.0.0.1", broker.port) as reader, connection(broker, version) as publisher:
        await reader.subscribe("calls/#", qos=1)
        await publisher.publish_all(batch(200), PATIENT_S)
        got = await received(reader, 200)
    assert [(str(one.topic), one.payload, one.qos, one.retain) for one in got] == [
        (one.topic, one.payload, 1, False) for one in batch(200)
    ]
    assert publisher._batches == {}


@BOTH
async def test_each_message_says_what_it_is_as_far_as_its_version_can(
    broker: Broker, version: aiomqtt.ProtocolVersion
) -> None:
    """MQTT 5: content type, and correlation of that message alone; what takes a topic away has neither."""
    messages = [
        Publication("calls/state", b"{}", retain=True),
        Publication("calls/reply", b"{}", correlation=b"r-1"),
        Publication("calls/plain", b"{}"),
        Publication("calls/gone", b"", retain=True),
    ]
    async with (
        aiomqtt.Client("127.0.0.1", broker.port, protocol=V5) as reader,
        connection(broker, version) as publisher,
    ):
        await reader.subscribe("calls/#", qos=1)
        await publisher.publish_all(messages, PATIENT_S)
        said = [vars(one.properties) if one.properties else {} for one in await received(reader, 4)]
    pairs = [(one.get("ContentType"), one.get("CorrelationData")) for one in said]
    json = "application/json"
    expected = [(json, None), (json, b"r-1"), (json, None), (None, None)] if version is V5 else [(None, None)] * 4
    assert pairs == expected
    async with aiomqtt.Client("127.0.0.1", broker.port) as late:
        await late.subscribe("calls/#", qos=1)
        (kept,) = await received(late, 1)
        assert (str(kept.topic), kept.retain) == ("calls/state", True)


async def test_a_message_that_the_broker_refuses_fails_its_batch_and_the_connection_goes_on(broker: Broker) -> None:
    async with aiomqtt.Client("127.0.0.1", broker.port) as reader, connection(broker) as publisher:
        await reader.subscribe("#", qos=1)
        mixed = [*batch(3), *batch(2, "others"), *batch(1, "calls/b")]
        with pytest.raises(RefusedByBrokerError, match=r"refused 2 of 6: Not authorized"):
            await publisher.publish_all(mixed, PATIENT_S)
        await publisher.publish_all(batch(1, "calls/c"), PATIENT_S)
        got = [str(one.topic) for one in await received(reader, 5)]
    assert got == ["calls/a/0", "calls/a/1", "calls/a/2", "calls/b/0", "calls/c/0"]


async def test_two_batches_at_once_wait_each_for_its_own(broker: Broker) -> None:
    async with connection(broker) as publisher:
        taken, refused = await asyncio.gather(
            publisher.publish_all(batch(100), PATIENT_S),
            publisher.publish_all(batch(100, "others"), PATIENT_S),
            return_exceptions=True,
        )
    assert taken is None
    assert isinstance(refused, RefusedByBrokerError)
    assert "refused 100 of 100" in str(refused)
    assert publisher._batches == {}


@BOTH
async def test_a_broker_that_stands_still_is_waited_for_no_longer_than_asked_and_taken_up_again(
    broker: Broker, version: aiomqtt.ProtocolVersion
) -> None:
    """What it acknowledges after that counts for nobody: the next batch waits for its own."""
    async with connection(broker, version) as publisher:
        broker.send(signal.SIGSTOP)
        try:
            with pytest.raises(aiomqtt.MqttError, match=r"no PUBACK within 0\.3 s") as raised:
                await publisher.publish_all(batch(3), 0.3)
        finally:
            broker.send(signal.SIGCONT)
        assert not isinstance(raised.value, RefusedByBrokerError)
        assert publisher._batches == {}
        await publisher.publish_all(batch(50, "calls/b"), PATIENT_S)
        assert publisher._batches == {}


async def test_a_broker_that_dies_amid_a_batch_is_an_error_at_once(broker: Broker) -> None:
    publisher = connection(broker)
    await publisher.__aenter__()
    broker.send(signal.SIGSTOP)  # it has the messages, and acknowledges none of them
    waiting = asyncio.create_task(publisher.publish_all(batch(3), 600))
    await until(lambda: len(publisher._batches) == 3)
    begun = time.monotonic()
    await broker.stop(signal.SIGKILL)
    with pytest.raises(aiomqtt.MqttError, match="the connection was lost"):
        await asyncio.wait_for(waiting, PATIENT_S)
    assert time.monotonic() - begun < PATIENT_S, "not the 600 s that it was ready to wait"
    assert publisher._batches == {}
    with pytest.raises(aiomqtt.MqttError):
        await publisher.publish_all(batch(1), PATIENT_S)
    await publisher.publish_all([], PATIENT_S)  # nothing to say needs no broker
    await publisher.__aexit__(None, None, None)


async def test_a_batch_that_is_given_up_leaves_nothing_behind(broker: Broker) -> None:
    """The meter stops while the broker is silent."""
    async with connection(broker) as publisher:
        broker.send(signal.SIGSTOP)
        try:
            waiting = asyncio.create_task(publisher.publish_all(batch(3), 600))
            await until(lambda: len(publisher._batches) == 3)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert publisher._batches == {}
        finally:
            broker.send(signal.SIGCONT)
        await publisher.publish_all(batch(1, "calls/b"), PATIENT_S)


async def test_a_message_by_itself_is_acknowledged_as_ever(broker: Broker) -> None:
    """What is published one at a time, such as the status, goes by aiomqtt's own way between batches."""
    async with connection(broker) as publisher:
        _, _, alone = await asyncio.gather(
            publisher.publish_all(batch(20), PATIENT_S),
            publisher.publish_all(batch(20, "calls/b"), PATIENT_S),
            publisher.publish("calls/status", b"{}", qos=1, timeout=PATIENT_S),
        )
    assert alone is None
