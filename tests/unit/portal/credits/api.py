"""The API for credits and its pages on a real store, and a client of them."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import orjson

from meter.credits.rules import load_reasons
from meter.text.links import LinkOptions
from portal.app import create_app
from portal.credits.service import CreditsService
from portal.http.services import Services
from portal.http.tokens import Scope, Token, TokenBook
from tests.facts_builder import UTC_0, failed_story
from tests.store.credit_tools import happen, write_down
from tests.store.money_tools import Books, at

SECRETS = {"west": "w" * 32, "acme": "a" * 32, "bolt": "b" * 32, "noc": "n" * 32}
SCOPES = {"west": Scope.DIALER, "acme": Scope.BUYER, "bolt": Scope.BUYER, "noc": Scope.OPERATOR}
LINKS = LinkOptions("https://baton.example", "s" * 32)
EVIL = '"><script>alert(1)</script>'
WORDS = "we had her in May"
ASK = {"transfer": "t-1", "reason": "duplicate", "words": WORDS}
DECIDE = {"decision": "approve", "explanation": "as the log says", "reviewer": "Ann"}
FORM = {"reason": "duplicate", "words": WORDS}


def _token(name: str) -> Token:
    scope = SCOPES[name]
    digest = hashlib.sha256(SECRETS[name].encode()).hexdigest()
    return Token(name, digest, scope, "" if scope is Scope.OPERATOR else name)


class Api:
    """The app over books with three failed transfers of acme's on 2 June 2026, the first with its facts."""

    def __init__(self, books: Books, links: LinkOptions | None) -> None:
        self.books, self.now = books, at("2026-06-03 10:00")
        self.service = CreditsService(books.clerk, load_reasons(), links, lambda: self.now)
        services = Services(TokenBook(tuple(map(_token, SECRETS))), self.service)
        transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False, client=("192.0.2.7", 5000))
        self.client = httpx.AsyncClient(transport=transport, base_url="https://baton.example")

    async def post(self, path: str, said: Any, token: str = "acme") -> httpx.Response:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {SECRETS[token]}"}
        return await self.client.post(f"/v1/{path}", content=orjson.dumps(said), headers=headers)

    async def get(self, path: str, token: str = "acme") -> httpx.Response:
        return await self.client.get(f"/v1/{path}", headers={"Authorization": f"Bearer {SECRETS[token]}"})


async def _fill(books: Books) -> None:
    lead = {"name": EVIL, "phone": "+12125550123", "note": "=cmd()\u202e\x00<img src=x onerror=alert(2)>"}
    await books.agree("acme", "bolt", category="home-improvement")
    await books.deliver("acme", UTC_0, 0, 3)
    await write_down(books, failed_story("t-1", lead=lead, campaign=EVIL, endpoints=[{"leg": 1, "name": EVIL}]).facts)
    await happen(books, "t-1", "call-1", "+12125550123")


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["status"]) == (status, status), found
    return found
