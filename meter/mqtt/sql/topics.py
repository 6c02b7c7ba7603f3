"""Retained MQTT topics: the current payload of each, with its version, and the message that publishes a change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, update

from meter.outbox.sql import new_row, pending_keys
from meter.store.integration_schema import topics
from meter.store.schema import outbox

CHANNEL = "mqtt"
MAX_CHANGES = 25  # in one transaction, two rows each


@dataclass(frozen=True, slots=True)
class Topic:
    """One retained topic, without the prefix. `payload` is JSON; empty: it was taken away."""

    topic: str
    version: int
    payload: bytes


def encoded(payload: Mapping[str, Any]) -> bytes:
    """A payload as it is kept and sent."""
    return orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)


def read_topics(connection: Connection) -> list[Topic]:
    """All of them."""
    query = select(topics.c.topic, topics.c.version, topics.c.payload).order_by(topics.c.topic)
    return [Topic(*row) for row in connection.execute(query)]


def change(connection: Connection, wanted: Mapping[str, Mapping[str, Any] | None], now_utc_us: int) -> list[Topic]:
    """Bring topics to what is wanted, None: take away. A message is queued for each that differs from what stands.

    A topic whose last message still waits is left for later: while the broker is away each topic has one message, and
    the newest state follows it. Returns what was changed.
    """
    stand = {row.topic: row for row in connection.execute(select(topics).where(topics.c.topic.in_(list(wanted)))).all()}
    waiting = pending_keys(connection, CHANNEL, list(wanted))
    changed: list[Topic] = []
    for topic, said in wanted.items():
        payload = b"" if said is None else encoded(said)
        row = stand.get(topic)
        if topic in waiting or (row is None and not payload) or (row is not None and row.payload == payload):
            continue
        version = 1 if row is None else row.version + 1
        values = {"version": version, "payload": payload, "changed_utc_us": now_utc_us}
        if row is None:
            connection.execute(insert(topics).values(topic=topic, **values))
        else:
            connection.execute(update(topics).where(topics.c.topic == topic).values(**values))
        message = {"topic": topic, "retain": True, "payload": None if said is None else orjson.Fragment(payload)}
        connection.execute(insert(outbox), [new_row(CHANNEL, topic, f"{topic}#{version}", message, now_utc_us)])
        changed.append(Topic(topic, version, payload))
    return changed
