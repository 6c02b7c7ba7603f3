"""Outcomes over MQTT: each settled transfer is published once it is durable, at least once, with QoS 1.

Topic: `{prefix}/transfers/{transfer}/outcome`; payload: docs/mqtt/outcome.schema.json, whose `id` is the same in every
repeat. The connection is kept by a task of its own, which reconnects for ever with backoff; while it is down nothing is
attempted and the outbox keeps everything. A publish counts when the broker's PUBACK came.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import ssl
from dataclasses import dataclass, field

import aiomqtt
import orjson
import structlog

from meter import metrics
from meter.outbox import DeliveryError, NeverDeliverableError
from meter.pause import pause
from meter.store.outbox import Message

CHANNEL = "mqtt"
PARALLEL = 20  # publishes in flight; Mosquitto's default limit of unacknowledged messages is 20
PUBLISH_TIMEOUT_S = 10.0
FIRST_RECONNECT_S = 0.5
LAST_RECONNECT_S = 30.0

_TOPIC_PART = re.compile(r"[^+#/\x00-\x1f]+")  # MQTT 3.1.1, 4.7: no wildcard, no separator

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """Where the broker is. Raises ValueError for a prefix that is no topic, or a port out of range."""

    host: str
    port: int = 1883
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str = ""
    prefix: str = "baton"
    client_id: str = "baton-meter"
    mask_phone: bool = True
    keepalive_s: int = 30

    def __post_init__(self) -> None:
        if not all(_TOPIC_PART.fullmatch(part) for part in self.prefix.split("/")):
            raise ValueError(f"mqtt prefix: {self.prefix!r} is no topic; it may not be empty or hold + or #")
        if not 0 < self.port < 2**16:
            raise ValueError(f"mqtt port: {self.port} is not between 1 and 65535")


class MqttDeliverer:
    """The channel `mqtt` of the outbox. `run` keeps the connection; `deliver` uses it."""

    channel = CHANNEL
    parallel = PARALLEL

    def __init__(self, options: MqttOptions) -> None:
        self._options = options
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()

    async def ready(self) -> None:
        await self._connected.wait()

    async def deliver(self, message: Message) -> None:
        """Publish one outcome. Raises DeliveryError where the broker did not acknowledge it."""
        client = self._client
        if client is None:
            raise DeliveryError("not connected to the broker")
        try:
            await client.publish(self.topic(message), message.payload, qos=1, timeout=PUBLISH_TIMEOUT_S)
        except aiomqtt.MqttError as error:
            self._lost.set()
            raise DeliveryError(f"not acknowledged by the broker: {error}") from error

    def topic(self, message: Message) -> str:
        """Where the message goes. Raises NeverDeliverableError for an id that cannot stand in a topic."""
        transfer = orjson.loads(message.payload).get("transfer")
        if not isinstance(transfer, str) or not _TOPIC_PART.fullmatch(transfer):
            raise NeverDeliverableError(f"transfer: {transfer!r} cannot be part of a topic")
        return f"{self._options.prefix}/transfers/{transfer}/outcome"

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the connection until told to stop."""
        pause_s = FIRST_RECONNECT_S
        while not stop.is_set():
            try:
                async with self._new_client() as client:
                    pause_s = FIRST_RECONNECT_S
                    self._up(client)
                    await self._until_lost(client, stop)
            except aiomqtt.MqttError as error:
                _log.warning("mqtt: not connected", error=str(error), retry_s=pause_s)
            finally:
                self._down()
            await pause(stop, pause_s * (1 - random.random() / 2))  # noqa: S311 - jitter
            pause_s = min(pause_s * 2, LAST_RECONNECT_S)

    def _new_client(self) -> aiomqtt.Client:
        chosen = self._options
        return aiomqtt.Client(
            chosen.host,
            chosen.port,
            username=chosen.username or None,
            password=chosen.password or None,
            identifier=chosen.client_id,
            keepalive=chosen.keepalive_s,
            timeout=PUBLISH_TIMEOUT_S,
            tls_context=ssl.create_default_context(cafile=chosen.ca_file or None) if chosen.tls else None,
        )

    async def _until_lost(self, client: aiomqtt.Client, stop: asyncio.Event) -> None:
        """Wait for the end of the connection: told to stop, a failed publish, or the broker's going."""
        waits = {
            asyncio.ensure_future(stop.wait()),
            asyncio.ensure_future(self._lost.wait()),
            asyncio.ensure_future(_until_disconnected(client)),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _up(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._lost.clear()
        self._connected.set()
        metrics.MQTT_CONNECTED.set(1)
        _log.info("mqtt: connected", host=self._options.host, port=self._options.port)

    def _down(self) -> None:
        self._client = None
        self._connected.clear()
        metrics.MQTT_CONNECTED.set(0)


async def _until_disconnected(client: aiomqtt.Client) -> None:
    """The library tells of a lost connection through its message iterator alone; we subscribe to nothing."""
    with contextlib.suppress(aiomqtt.MqttError):
        async for _ in client.messages:
            continue
