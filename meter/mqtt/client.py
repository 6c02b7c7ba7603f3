"""The MQTT connection: many messages published at once, each acknowledged, or none of them counted.

aiomqtt waits for one acknowledgement at a time and takes every PUBACK for a yes; in MQTT 5 a broker may refuse a
message in its PUBACK (MQTT 5 section 3.4.2.1), and a message that was refused was not delivered.
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


def _properties(correlation: bytes = b"") -> Properties:
    found = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    found.ContentType = "application/json"
    if correlation:
        found.CorrelationData = correlation
    return found


_JSON = _properties()


class _Batch:
    """Messages whose acknowledgements are awaited together."""

    def __init__(self) -> None:
        self.waiting: set[int] = set()
        self.refused: list[str] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def acknowledge(self, mid: int, refusal: str) -> None:
        self.waiting.discard(mid)
        if refusal:
            self.refused.append(refusal)
        if not self.waiting and not self.done.done():
            self.done.set_result(None)


class Connection(aiomqtt.Client):
    """A client that publishes in batches."""

    def __init__(self, **options: Any) -> None:
        self._batches: dict[int, _Batch] = {}
        self._is_v5 = options.get("protocol") == aiomqtt.ProtocolVersion.V5
        super().__init__(**options)

    async def publish_all(self, messages: Sequence[Publication], timeout_s: float) -> None:
        """Return when the broker has acknowledged all. Raises MqttError where it has not acknowledged one of them."""
        if not messages:
            return
        batch = _Batch()
        mids: list[int] = []
        try:
            for one in messages:
                info = self._client.publish(one.topic, one.payload, QOS, one.retain, self._properties_of(one))
                if info.rc != MQTT_ERR_SUCCESS:
                    raise aiomqtt.MqttCodeError(info.rc, "could not publish")
                self._batches[info.mid] = batch
                batch.waiting.add(info.mid)
                mids.append(info.mid)
            # Both stay as they are when the time is over: nothing is cancelled but the waiting.
            ends = (batch.done, self._disconnected)
            await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for mid in mids:
                self._batches.pop(mid, None)
        if not batch.done.done():
            why = "the connection was lost" if self._disconnected.done() else f"no PUBACK within {timeout_s:g} s"
            raise aiomqtt.MqttError(why)
        if batch.refused:
            raise RefusedByBrokerError(f"the broker refused {len(batch.refused)} of {len(mids)}: {batch.refused[0]}")

    def _properties_of(self, message: Publication) -> Properties | None:
        if not self._is_v5:
            return None
        if not message.correlation:  # to make them takes longer than to publish
            return _JSON if message.payload else None
        return _properties(correlation=message.correlation)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        batch = self._batches.pop(mid, None)
        if batch is None:
            super()._on_publish(client, userdata, mid, reason_code, properties)
        else:
            batch.acknowledge(mid, str(reason_code) if getattr(reason_code, "is_failure", False) else "")
