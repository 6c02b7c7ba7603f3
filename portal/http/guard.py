"""What stands around every request: how often it may come, headers that every answer has, and what is counted of it.

Plain ASGI, for an answer may be a stream that lasts for hours. Only health is never counted.
"""

from __future__ import annotations

import time
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portal.http.problems import ProblemError, answer
from portal.http.services import Services
from portal.http.signature import ID, SIGNATURE, TIMESTAMP
from portal.http.tokens import bearer
from telemetry import metrics

HEALTH = "/v1/health"
LEADS = "/v1/leads"  # the one route that takes a signature, see portal.http.signature
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class _EnoughError(Exception):
    """The headers are out, and they are all that was asked for."""


class Guard:
    """The app, guarded. `services` None, or without rates: nothing is counted."""

    def __init__(self, app: ASGIApp, services: Services | None) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        begun, answered = time.monotonic(), False
        is_head = scope["method"] == "HEAD"
        asked = {**scope, "method": "GET"} if is_head else scope  # the routes know GET (RFC 9110 section 9.3.2)

        async def with_headers(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                MutableHeaders(scope=message).update(HEADERS)
                _told(asked, scope["method"], message["status"], time.monotonic() - begun)
            elif is_head:
                if message.get("more_body"):
                    raise _EnoughError  # a stream, or a file: nothing of it is read or sent
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._count(scope)
        except ProblemError as error:
            await answer(error)(scope, receive, with_headers)
            return
        try:
            await self._app(asked, receive, with_headers)
        except _EnoughError:
            await send({"type": "http.response.body", "body": b""})
        except Exception:  # a fault of ours: it is answered around us
            if not answered:
                _told(asked, scope["method"], HTTPStatus.INTERNAL_SERVER_ERROR, time.monotonic() - begun)
            raise

    async def _count(self, scope: Scope) -> None:
        """Raises ProblemError 429. A request that is signed is counted once its signature was looked at."""
        services = self._services
        is_health = scope["path"] == HEALTH or scope["path"].startswith(f"{HEALTH}/")
        if services is None or services.rates is None or is_health:
            return
        headers = Headers(scope=scope)
        secret = bearer(headers)
        token = services.tokens.find(secret) if secret else None
        if token is not None:
            await services.rates.of_token(token.name)
        elif secret or not _is_signed(scope, headers) or services.tokens.signer(headers) is None:
            client = scope.get("client")
            await services.rates.of_stranger(client[0] if client else "")


def _is_signed(scope: Scope, headers: Headers) -> bool:
    """Whether a signature will be looked at, and a wrong one counted."""
    return scope["method"] == "POST" and scope["path"] == LEADS and all(map(headers.get, (ID, TIMESTAMP, SIGNATURE)))


def _told(scope: Scope, method: str, status: int, seconds: float) -> None:
    method = method if method in METHODS else metrics.OTHER
    metrics.HTTP_REQUESTS.labels(method, _route(scope), str(int(status))).inc()
    metrics.HTTP_SECONDS.observe(seconds)


def _route(scope: Scope) -> str:
    """The route as the API's description has it; `other` for what is not in it."""
    route = scope.get("route")
    path = getattr(route, "path_format", "")
    return path if path and getattr(route, "include_in_schema", False) else metrics.OTHER
