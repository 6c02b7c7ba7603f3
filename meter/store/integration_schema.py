"""The tables of integration: followers of the journal, retained topics, commands, webhooks.

Types and units as in `meter.store.schema`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from meter.store.schema import metadata

leases = Table(  # who does what only one process may do
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),  # mqtt, outbox:mail and the like
    Column("holder", String(200), nullable=False),
    Column("until_utc_us", BigInteger, nullable=False),
)

streams = Table(  # followers of the journal that tell others; facts from before one was begun are not told
    "streams",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("since_utc_us", BigInteger, nullable=False),
)

stream_cursors = Table(
    "stream_cursors",
    metadata,
    Column("stream", String(32), primary_key=True),
    Column("router", String(64), primary_key=True),
    Column("boot", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),  # the last fact that was dealt with
)

topics = Table(  # what stands retained at the MQTT broker
    "topics",
    metadata,
    Column("topic", String(200), primary_key=True),  # without the prefix
    Column("version", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # JSON; empty: it was taken away
    Column("changed_utc_us", BigInteger, nullable=False),
)

commands = Table(  # those that came by MQTT: the same one again gets the same reply and does nothing
    "commands",
    metadata,
    Column("by", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("command", String(32), nullable=False),
    Column("reply", LargeBinary, nullable=False),  # JSON
    Column("at_utc_us", BigInteger, nullable=False),
    Index("commands_by_time", "at_utc_us"),
)

trunk_states = Table(  # as the routers see them
    "trunk_states",
    metadata,
    Column("router", String(64), primary_key=True),
    Column("trunk", String(140), primary_key=True),  # buyer/endpoint, or carrier/name
    Column("state", String(16), nullable=False),  # up, suspect, down
    Column("since_utc_us", BigInteger, nullable=False),
)

webhooks = Table(  # buyers' HTTPS endpoints, and how posting to them goes
    "webhooks",
    metadata,
    Column("buyer", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("document", LargeBinary, nullable=False),  # JSON: meter.webhooks.sql.Webhook without names and secrets
    Column("secrets", LargeBinary, nullable=False),  # JSON list, the newest first
    Column("created_utc_us", BigInteger, nullable=False),
    Column("changed_utc_us", BigInteger, nullable=False),
    Column("failing_since_utc_us", BigInteger),  # null: the last attempt succeeded, or there was none
    Column("failures", Integer, nullable=False),  # in a row
    Column("next_try_utc_us", BigInteger, nullable=False),
    Column("disabled_utc_us", BigInteger),  # null: posted to
    Column("error", Text, nullable=False),  # of the last failure
)
