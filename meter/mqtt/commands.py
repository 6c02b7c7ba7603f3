"""Receives commands by MQTT: authenticates the sender, checks its rights, and replies.

A command is a JSON envelope on `{prefix}/commands/{name}`, where the name is who sends it:

    {"id": "...", "timestamp": 1780408800, "signature": "v1,...", "body": "{\\"command\\": \\"pause\\", ...}"}

`body` is JSON in a string, and the signature is over id, timestamp and that very string (`meter.text.signing`), so the
broker need not be trusted. What is unsigned, too old or of nobody known is counted, logged and gets no reply. Each
command is done once: the same id again gets the reply that the first one got. The reply goes to
`{prefix}/replies/{name}`, or to the ResponseTopic of MQTT 5 where that is below it, through the outbox.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.json_once import TwiceError, loads_once
from meter.mqtt.channel import CommandMessage
from meter.mqtt.sql.commands import Reply, find_reply, keep_reply
from meter.store.clerk import Clerk
from meter.store.engine import first_line
from meter.text.signing import SignatureError, verify
from telemetry import metrics

SCHEMA = 1
MAX_BYTES = 256 * 1024
MAX_ID = 64
COMMANDS = ("pause", "resume", "suppress")
REPLIES = "replies/"
BY_PREFIX = "mqtt:"  # how a commander's name stands in the records of what it did

_log = structlog.get_logger()


class CommandError(Exception):
    """The command cannot be done; the message says why, naming the field, and goes into the reply."""


@dataclass(frozen=True, slots=True)
class Commander:
    """A sender of commands. `buyer` empty: the operator, for all buyers. `secrets`: the one in use and older ones."""

    name: str
    secrets: tuple[str, ...] = field(repr=False)
    buyer: str = ""


Execute = Callable[[str, Mapping[str, Any], Commander], Awaitable[dict[str, Any]]]


class _UnheardError(Exception):
    """Not to be answered."""


class Commands:
    """Takes commands one after the other. `execute` does one and returns its result, raising CommandError."""

    def __init__(
        self, engine: AsyncEngine, commanders: Sequence[Commander], execute: Execute, on_reply: Callable[[], None]
    ) -> None:
        self._clerk = Clerk(engine)
        self._commanders = {one.name: one for one in commanders}
        self._execute = execute
        self._on_reply = on_reply

    async def close(self) -> None:
        await self._clerk.close()

    async def take(self, received: CommandMessage) -> None:
        """One command. Never raises: what cannot be answered is logged."""
        try:
            by, message_id, body = self._authenticated(received)
        except _UnheardError as error:
            metrics.COMMANDS.labels("none", "unauthorized").inc()
            _log.warning("command not heard", topic=received.topic, why=str(error))
            return
        try:
            await self._answer(by, message_id, body, received)
        except Exception as error:  # noqa: BLE001 - one command must not end the connection
            metrics.COMMANDS.labels("none", "failed").inc()
            _log.error("command failed", by=by.name, command_id=message_id, error=first_line(error))

    def _authenticated(self, received: CommandMessage) -> tuple[Commander, str, bytes]:
        _, _, name = received.topic.partition("/")
        by = self._commanders.get(name)
        if by is None:
            raise _UnheardError("nobody of that name")
        if len(received.payload) > MAX_BYTES:
            raise _UnheardError(f"more than {MAX_BYTES} bytes")
        try:
            said = loads_once(received.payload)
        except orjson.JSONDecodeError as error:
            raise _UnheardError("the envelope is not JSON") from error
        except TwiceError as error:
            raise _UnheardError(f"the envelope: {error}") from error
        fields = said if isinstance(said, dict) else {}
        message_id, body, at = fields.get("id"), fields.get("body"), fields.get("timestamp")
        signature = fields.get("signature")
        if not isinstance(message_id, str) or not 0 < len(message_id) <= MAX_ID or not message_id.isprintable():
            raise _UnheardError(f"id: is not 1 to {MAX_ID} printable characters")
        if not isinstance(body, str) or not isinstance(signature, str) or not isinstance(at, int):
            raise _UnheardError("body, signature and timestamp are required")
        raw = body.encode()
        try:
            verify(by.secrets, message_id, str(at), raw, signature, now_s=time.time())
        except SignatureError as error:
            raise _UnheardError(str(error)) from error
        return by, message_id, raw

    async def _answer(self, by: Commander, message_id: str, body: bytes, received: CommandMessage) -> None:
        before = await self._clerk.read(find_reply, by.name, message_id)
        if before is not None:
            command, said = before.command, before.document
        else:
            command, said = await self._do(by, message_id, body)
        metrics.COMMANDS.labels(command or "none", "done" if said["ok"] else "refused").inc()
        own = REPLIES + by.name
        topic = received.reply_to if received.reply_to.startswith(f"{own}/") else own
        reply = Reply(
            by=by.name,
            id=message_id,
            command=command,
            document=said,
            topic=topic,
            correlation=received.correlation.decode("latin-1"),
        )
        await self._clerk.write(keep_reply, reply, time.time_ns() // 1000)
        self._on_reply()

    async def _do(self, by: Commander, message_id: str, body: bytes) -> tuple[str, dict[str, Any]]:
        """(the command, what to reply)."""
        command = ""
        try:
            said = _command(body)
            command = said["command"]
            result = await self._execute(command, said, by)
        except CommandError as error:
            _log.warning("command refused", by=by.name, command=command, command_id=message_id, why=str(error))
            return command, _reply(message_id, command, error=str(error))
        _log.info("command done", by=by.name, command=command, command_id=message_id)
        return command, _reply(message_id, command, result=result)


def _command(body: bytes) -> dict[str, Any]:
    try:
        said = loads_once(body)
    except orjson.JSONDecodeError as error:
        raise CommandError(f"body: is not JSON: {error}") from error
    except TwiceError as error:
        raise CommandError(f"body: {error}") from error
    if not isinstance(said, dict) or said.get("command") not in COMMANDS:
        raise CommandError(f"command: is none of {', '.join(COMMANDS)}")
    return said


def _reply(message_id: str, command: str, *, result: dict[str, Any] | None = None, error: str = "") -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "id": message_id,
        "command": command,
        "ok": not error,
        "error": error,
        "result": result or {},
        "at_utc_us": time.time_ns() // 1000,
    }
