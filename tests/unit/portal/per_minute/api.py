"""The API for per-minute service and its pages on a real store, and a client of them."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import orjson

from meter.text.links import LinkOptions
from portal.app import create_app
from portal.http.services import Services
from portal.http.tokens import Scope, Token, TokenBook
from portal.per_minute.service import PerMinuteService
from tests.store.money_tools import Books, at

SECRETS = {"west": "w" * 32, "acme": "a" * 32, "bolt": "b" * 32, "noc": "n" * 32}
SCOPES = {"west": Scope.DIALER, "acme": Scope.BUYER, "bolt": Scope.BUYER, "noc": Scope.OPERATOR}
LINKS = LinkOptions("https://baton.example", "s" * 32)
EVIL = '"><script>alert(1)</script>'
RATING = {"rating": 4, "by": "Ann of quality", "words": "calm and clear"}


def _token(name: str) -> Token:
    scope = SCOPES[name]
    digest = hashlib.sha256(SECRETS[name].encode()).hexdigest()
    return Token(name, digest, scope, "" if scope is Scope.OPERATOR else name)


class Api:
    """The app over books in which acme and bolt pay by the minute, at noon of 2 June 2026."""

    def __init__(self, books: Books, links: LinkOptions | None = LINKS) -> None:
        self.books, self.now = books, at("2026-06-02 12:00")
        self.service = PerMinuteService(books.clerk, links, lambda: self.now)
        services = Services(TokenBook(tuple(map(_token, SECRETS))), self.service)
        transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False, client=("192.0.2.7", 5000))
        self.client = httpx.AsyncClient(transport=transport, base_url="https://baton.example")

    async def post(self, path: str, content: Any, token: str = "noc") -> httpx.Response:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {SECRETS[token]}"}
        return await self.client.post(f"/v1/{path}", content=orjson.dumps(content), headers=headers)

    async def get(self, path: str, token: str = "acme") -> httpx.Response:
        return await self.client.get(f"/v1/{path}", headers={"Authorization": f"Bearer {SECRETS[token]}"})


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["status"]) == (status, status), found
    return found
