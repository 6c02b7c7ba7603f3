"""MQTT: events of transfers, retained states, and commands, over one connection that is kept for ever.

Events come from the journal (`meter.events.follower`), states and replies from the outbox; both wait while the broker
is away,
and nothing is attempted then. What is published counts when the broker's PUBACK came: QoS 1, at least once. Events of a
transfer are published one after the other, so that `answered` never overtakes `ringing`.

One process at a time publishes: it holds the lease `mqtt`. `{prefix}/status` is retained, says `online`, and by the
last will `offline`. Retained topics are published again on every connection, since a broker may come back empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiomqtt
import orjson
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.disclosure import Reader, disclosed
from meter.events.follower import BatchResult, HandOverError
from meter.events.model import Event, EventKind
from meter.events.sql.streams import Boot
from meter.mqtt.client import Connection, Publication, RefusedByBrokerError
from meter.mqtt.sql.topics import read_topics
from meter.outbox.delivery import DeliveryError, NeverDeliverableError
from meter.outbox.sql import Message
from meter.store.clerk import Clerk
from meter.store.engine import StoreError, first_line
from meter.store.lease import Lease
from meter.store.pause import pause
from telemetry import metrics

CHANNEL = "mqtt"
STREAM = "mqtt"
PARALLEL = 20  # outbox messages in flight
ACK_TIMEOUT_S = 10.0
FIRST_RECONNECT_S = 0.5
LAST_RECONNECT_S = 30.0
STANDBY_S = 1.0  # while another process holds the lease
SESSION_S = 7 * 24 * 3600  # for how long the broker keeps commands for a meter that is down (MQTT 5)
MAX_COMMANDS = 1_000  # that wait to be read; more are dropped by the library, and unanswered
PUBLISHED = frozenset({EventKind.STARTED, EventKind.RINGING, EventKind.ANSWERED, EventKind.OUTCOME})
STATUS = "status"
VERSIONS = {"3.1.1": aiomqtt.ProtocolVersion.V311, "5": aiomqtt.ProtocolVersion.V5}

_TOPIC_PART = re.compile(r"[^+#/\x00-\x1f]+")  # MQTT 3.1.1, 4.7: no wildcard, no separator

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """Where the broker is. Raises ValueError for a prefix that is no topic, a port or a version out of range."""

    host: str
    port: int = 1883
    version: str = "5"
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    prefix: str = "baton"
    client_id: str = "baton-meter"
    mask_phone: bool = True
    keepalive_s: int = 30

    def __post_init__(self) -> None:
        if not all(_TOPIC_PART.fullmatch(part) for part in self.prefix.split("/")):
            raise ValueError(f"mqtt prefix: {self.prefix!r} is no topic; it may not be empty or hold + or #")
        if not 0 < self.port < 2**16:
            raise ValueError(f"mqtt port: {self.port} is not between 1 and 65535")
        if self.version not in VERSIONS:
            raise ValueError(f"mqtt version: {self.version!r} is none of {', '.join(VERSIONS)}")


@dataclass(frozen=True, slots=True)
class CommandMessage:
    """A message that came on a command topic: its topic without the prefix."""

    topic: str
    payload: bytes
    reply_to: str = ""  # MQTT 5, ResponseTopic
    correlation: bytes = b""  # MQTT 5, CorrelationData


OnCommand = Callable[[CommandMessage], Awaitable[None]]


class MqttLink:
    """The connection. It is also the channel `mqtt` of the outbox, and takes the events of the stream `mqtt`."""

    channel = CHANNEL
    parallel = PARALLEL

    def __init__(self, engine: AsyncEngine, options: MqttOptions, on_command: OnCommand | None = None) -> None:
        self._options = options
        self._on_command = on_command
        self._clerk = Clerk(engine)
        self._lease = Lease(self._clerk, CHANNEL)
        self._connection: Connection | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._stands_by = False  # another process has the lease

    async def ready(self) -> None:
        """Return when there is a connection."""
        await self._connected.wait()

    async def deliver(self, message: Message) -> None:
        """Publish one message of the outbox. Raises DeliveryError where the broker did not acknowledge it."""
        try:
            await self._publish([self._of_outbox(message)])
        except aiomqtt.MqttError as error:
            self._note(error)
            raise DeliveryError(f"not acknowledged by the broker: {error}") from error

    async def hand_over(self, events: Sequence[Event], _ends: dict[Boot, int]) -> BatchResult:
        """Publish a batch of events, those of one transfer in their order. Raises HandOverError."""
        try:
            published = [event for event in events if event.kind in PUBLISHED and _has_topic(event)]
            for batch in batches_of_distinct_transfers(published):
                await self._publish([self._of_event(one) for one in batch])
                for one in batch:
                    metrics.EVENTS_PUBLISHED.labels(one.kind.value).inc()
        except aiomqtt.MqttError as error:
            self._note(error)
            raise HandOverError(f"not acknowledged by the broker: {error}") from error
        return BatchResult.SOON

    def _note(self, error: aiomqtt.MqttError) -> None:
        """A connection on which acknowledgements stay out is given up: what it has in flight would stay there."""
        if not isinstance(error, RefusedByBrokerError):
            self._lost.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the connection until told to stop, while this process holds the lease."""
        pause_s = FIRST_RECONNECT_S
        try:
            while not stop.is_set():
                try:
                    if not await self._lease.held():
                        self._stands_by = True
                        await pause(stop, STANDBY_S)
                        continue
                    self._stands_by = False
                    async with self._new_connection() as connection:
                        pause_s = FIRST_RECONNECT_S
                        await self._serve(connection, stop)
                except (aiomqtt.MqttError, OSError) as error:
                    _log.warning("mqtt: not connected", error=str(error), retry_s=pause_s)
                except Exception as error:  # noqa: BLE001 - whoever cannot be told must not stop who bills
                    metrics.ENGINE_FAULTS.labels("mqtt").inc()
                    _log.error("mqtt: failed", error=first_line(error), retry_s=pause_s)
                finally:
                    self._down()
                await pause(stop, pause_s * (1 - random.random() / 2))  # noqa: S311 - jitter
                pause_s = min(pause_s * 2, LAST_RECONNECT_S)
        finally:
            with contextlib.suppress(SQLAlchemyError, StoreError):
                await self._lease.give_back()
            await self._clerk.close()

    def topic(self, suffix: str) -> str:
        """The whole topic. Raises NeverDeliverableError where it would not be one."""
        if not all(_TOPIC_PART.fullmatch(part) for part in suffix.split("/")):
            raise NeverDeliverableError(f"topic: {suffix!r} cannot be published to")
        return f"{self._options.prefix}/{suffix}"

    def _of_outbox(self, message: Message) -> Publication:
        said = orjson.loads(message.payload)
        if "topic" not in said:  # an outcome that an older version queued
            return Publication(self.topic(f"transfers/{said.get('transfer')}/outcome"), message.payload)
        payload = said["payload"]
        return Publication(
            self.topic(said["topic"]),
            b"" if payload is None else orjson.dumps(payload),
            bool(said.get("retain")),
            str(said.get("correlation", "")).encode("latin-1"),
        )

    def _of_event(self, event: Event) -> Publication:
        reader = Reader.BROKER if self._options.mask_phone else Reader.OPERATOR
        shown = disclosed(event.fields, reader, event.claim)
        return Publication(self.topic(f"transfers/{event.transfer}/{event.kind}"), orjson.dumps(shown))

    async def _publish(self, messages: Sequence[Publication]) -> None:
        connection = self._connection
        if connection is None:
            raise aiomqtt.MqttError("not connected to the broker")
        await connection.publish_all(messages, ACK_TIMEOUT_S)

    def _new_connection(self) -> Connection:
        chosen = self._options
        is_v5 = chosen.version == "5"
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        if is_v5:
            session.SessionExpiryInterval = SESSION_S
        return Connection(
            hostname=chosen.host,
            port=chosen.port,
            username=chosen.username or None,
            password=chosen.password or None,
            identifier=chosen.client_id,
            protocol=VERSIONS[chosen.version],
            keepalive=chosen.keepalive_s,
            timeout=ACK_TIMEOUT_S,
            tls_context=self._tls() if chosen.tls else None,
            will=aiomqtt.Will(self.topic(STATUS), _status("offline"), qos=1, retain=True),
            max_queued_incoming_messages=MAX_COMMANDS,
            # Commands wait at the broker while the meter is down; without commands there is nothing to keep.
            **({"clean_start": self._on_command is None} if is_v5 else {"clean_session": self._on_command is None}),
            **({"properties": session} if is_v5 and self._on_command is not None else {}),
        )

    def _tls(self) -> ssl.SSLContext:
        chosen = self._options
        context = ssl.create_default_context(cafile=chosen.ca_file or None)
        if chosen.certificate_file:
            context.load_cert_chain(chosen.certificate_file, chosen.key_file or None)
        return context

    async def _serve(self, connection: Connection, stop: asyncio.Event) -> None:
        """All that is done on one connection, until it is lost or the meter stops."""
        if self._on_command is not None:
            await connection.subscribe(f"{self._options.prefix}/commands/#", qos=1)
        retained = await self._clerk.read(read_topics)
        await connection.publish_all(
            [
                Publication(self.topic(STATUS), _status("online"), retain=True),
                *(Publication(self.topic(one.topic), one.payload, retain=True) for one in retained if one.payload),
            ],
            ACK_TIMEOUT_S + len(retained) / 100,
        )
        self._up(connection)
        await self._until_lost(connection, stop)
        if stop.is_set() and not self._lost.is_set():
            await connection.publish_all([Publication(self.topic(STATUS), _status("offline"), retain=True)], 2.0)

    async def _until_lost(self, connection: Connection, stop: asyncio.Event) -> None:
        """Wait for the end of the connection: told to stop, the lease lost, a failed publish, the broker's going."""
        waits = {
            asyncio.ensure_future(stop.wait()),
            asyncio.ensure_future(self._lost.wait()),
            asyncio.ensure_future(self._read(connection)),
            asyncio.ensure_future(self._until_lease_lost(stop)),
        }
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        for one in done:
            one.result()

    async def _until_lease_lost(self, stop: asyncio.Event) -> None:
        while not stop.is_set() and await self._lease.held():
            await pause(stop, STANDBY_S)

    async def _read(self, connection: Connection) -> None:
        """The library tells of a lost connection through its message iterator; commands come there too."""
        async for message in connection.messages:
            if self._on_command is not None:
                await self._on_command(self._received(message))

    def _received(self, message: aiomqtt.Message) -> CommandMessage:
        properties: Any = message.properties
        raw = message.payload
        payload = raw if isinstance(raw, bytes) else (raw or b"") if isinstance(raw, bytearray) else str(raw).encode()
        return CommandMessage(
            str(message.topic).removeprefix(f"{self._options.prefix}/"),
            bytes(payload),
            str(getattr(properties, "ResponseTopic", "") or "").removeprefix(f"{self._options.prefix}/"),
            bytes(getattr(properties, "CorrelationData", b"") or b""),
        )

    def _up(self, connection: Connection) -> None:
        self._connection = connection
        self._lost.clear()
        self._connected.set()
        metrics.MQTT_CONNECTED.set(1)
        _log.info("mqtt: connected", host=self._options.host, port=self._options.port, version=self._options.version)

    def _down(self) -> None:
        self._connection = None
        self._connected.clear()
        metrics.MQTT_CONNECTED.set(math.nan if self._stands_by else 0)


def _has_topic(event: Event) -> bool:
    """Ids are ours and fit; one that does not was written by somebody else and is left out."""
    fits = bool(_TOPIC_PART.fullmatch(event.transfer))
    if not fits:
        metrics.ENGINE_FAULTS.labels("mqtt").inc()
        _log.error("mqtt: no topic for a transfer", transfer=event.transfer)
    return fits


def batches_of_distinct_transfers(events: Sequence[Event]) -> list[list[Event]]:
    """The batch in pieces that may go at once: of each transfer at most one event is in a piece, in its order."""
    batches: list[list[Event]] = []
    seen: dict[str, int] = {}
    for event in events:
        turn = seen.get(event.transfer, 0)
        seen[event.transfer] = turn + 1
        if turn == len(batches):
            batches.append([])
        batches[turn].append(event)
    return batches


def _status(state: str) -> bytes:
    return orjson.dumps({"schema": 1, "state": state})
