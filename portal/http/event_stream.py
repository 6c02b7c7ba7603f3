"""Server-sent events as an answer (HTML, 9.2)."""

from __future__ import annotations

import asyncio

import structlog
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

SEND_S = 60.0  # for one event; four times a comment that keeps the connection open

_log = structlog.get_logger("portal")


class EventStream(StreamingResponse):
    """Server-sent events, as they come. A client that takes nothing for `SEND_S` seconds is left: others may stream."""

    media_type = "text/event-stream"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        stuck = False

        async def bounded(message: Message) -> None:
            nonlocal stuck
            try:
                async with asyncio.timeout(SEND_S):
                    await send(message)
            except TimeoutError:
                stuck = True
                raise

        try:
            await super().__call__(scope, receive, bounded)
        except (ClientDisconnect, TimeoutError):
            if not stuck:
                raise
            _log.warning("stream_stuck", path=scope["path"])
