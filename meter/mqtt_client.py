"""The MQTT connection: many messages published at once, each acknowledged, or none of them counted.

aiomqtt waits for one acknowledgement at a time and takes every PUBACK for a yes; MQTT 5 lets a broker refuse a message
in its PUBACK (section 3.4.2.1), and a message that was refused was not delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiomqtt
from paho.mqtt.client import MQTT_ERR_SUCCESS
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

QOS = 1  # at least once


class RefusedByBrokerError(aiomqtt.MqttError):
    """The broker said no to a message; the connection is up."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One message: topic with prefix, JSON or nothing. `correlation`: MQTT 5, of the request it answers."""

    topic: str
    payload: bytes
    retain: bool = False
    correlation: bytes = b""


class Connection(aiomqtt.Client):
    """A client that publishes in batches."""

    def __init__(self, **options: Any) -> None:
        self._acks: dict[int, asyncio.Future[str]] = {}
        self._is_v5 = options.get("protocol") == aiomqtt.ProtocolVersion.V5
        super().__init__(**options)

    async def publish_all(self, messages: Sequence[Publication], timeout_s: float) -> None:
        """Return when the broker has acknowledged all. Raises MqttError where it has not acknowledged one of them."""
        loop = asyncio.get_running_loop()
        mids: list[int] = []
        acks: list[asyncio.Future[str]] = []
        try:
            for one in messages:
                info = self._client.publish(one.topic, one.payload, QOS, one.retain, self._properties_of(one))
                if info.rc != MQTT_ERR_SUCCESS:
                    raise aiomqtt.MqttCodeError(info.rc, "could not publish")
                ack: asyncio.Future[str] = loop.create_future()
                self._acks[info.mid] = ack
                mids.append(info.mid)
                acks.append(ack)
            await self._all(acks, timeout_s)
        finally:
            for mid in mids:
                self._acks.pop(mid, None)

    async def _all(self, acks: Sequence[asyncio.Future[str]], timeout_s: float) -> None:
        everything = asyncio.gather(*acks)
        try:
            await asyncio.wait((everything, self._disconnected), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = everything.done()
            if not finished:
                everything.cancel()
        if not finished:
            why = "the connection was lost" if self._disconnected.done() else f"no PUBACK within {timeout_s:g} s"
            raise aiomqtt.MqttError(why)
        refused = [said for said in everything.result() if said]
        if refused:
            raise RefusedByBrokerError(f"the broker refused {len(refused)} of {len(acks)}: {refused[0]}")

    def _properties_of(self, message: Publication) -> Properties | None:
        if not self._is_v5:
            return None
        found = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if message.payload:
            found.ContentType = "application/json"
        if message.correlation:
            found.CorrelationData = message.correlation
        return found

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        ack = self._acks.pop(mid, None)
        if ack is None:
            super()._on_publish(client, userdata, mid, reason_code, properties)
        elif not ack.done():
            ack.set_result(str(reason_code) if getattr(reason_code, "is_failure", False) else "")
