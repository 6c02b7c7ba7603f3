"""Commands received by MQTT, and their replies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, delete, insert, select

from meter.outbox.sql import new_row
from meter.store.integration_schema import commands
from meter.store.schema import outbox

CHANNEL = "mqtt"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply. `topic` without the prefix; `correlation`: bytes as Latin-1, MQTT 5."""

    by: str
    id: str
    command: str
    document: dict[str, Any]
    topic: str = ""
    correlation: str = ""


def find_reply(connection: Connection, by: str, command_id: str) -> Reply | None:
    """The earlier reply to a command; None: the command is new."""
    this = (commands.c.by == by, commands.c.id == command_id)
    row = connection.execute(select(commands).where(*this)).one_or_none()
    return None if row is None else Reply(row.by, row.id, row.command, orjson.loads(row.reply))


def keep_reply(connection: Connection, reply: Reply, now_utc_us: int) -> None:
    """Keep the reply, and queue it: again, where the same command came again."""
    if find_reply(connection, reply.by, reply.id) is None:
        connection.execute(
            insert(commands).values(
                by=reply.by,
                id=reply.id,
                command=reply.command,
                reply=orjson.dumps(reply.document),
                at_utc_us=now_utc_us,
            )
        )
    message = {"topic": reply.topic, "payload": reply.document, "correlation": reply.correlation}
    message_id = f"reply.{reply.by}.{reply.id}.{now_utc_us}"
    connection.execute(insert(outbox), [new_row(CHANNEL, reply.topic, message_id, message, now_utc_us)])


def forget_commands(connection: Connection, before_utc_us: int, limit: int) -> int:
    """Forget commands of before a time, at most `limit`; how many."""
    old = select(commands.c.by, commands.c.id).where(commands.c.at_utc_us < before_utc_us).limit(limit)
    count = 0
    for by, command_id in connection.execute(old).all():
        this = (commands.c.by == by, commands.c.id == command_id)
        count += connection.execute(delete(commands).where(*this)).rowcount
    return count
