"""The API for dialing systems on a real store, a router that says what it is told to, and a client."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import orjson

from meter.journal.sql.leads import LeadStore
from portal.app import create_app
from portal.availability.service import AvailabilityService
from portal.credits.service import CreditsService
from portal.health.service import HealthService
from portal.http.services import Services
from portal.http.tokens import Scope, Token, TokenBook
from portal.leads.service import LeadsService
from portal.lists.service import ListsService

WEST, EAST, ACME, NOC = "w" * 32, "e" * 40, "a" * 32, "n" * 32
AUTH = {"Authorization": f"Bearer {WEST}"}
LEAD = {"phone": "(212) 555-0123", "First-Name": "Ann", "age": 41, "owner": True, "note": None}


def token(name: str, secret: str) -> Token:
    scope = Scope.BUYER if name == "acme" else Scope.OPERATOR if name == "noc" else Scope.DIALER
    return Token(name, hashlib.sha256(secret.encode()).hexdigest(), scope, "" if scope is Scope.OPERATOR else name)


async def no_buyers() -> tuple[str, ...]:
    return ()


class Api:
    """The app on a real store, a router that says what it is told to, and a client."""

    def __init__(self, leads: LeadStore, lists: ListsService, credits_: CreditsService) -> None:
        self.router: dict[str, Any] | Exception = {"available": True, "reason": "", "refusals": []}
        self.healthy = True
        self.leads = leads
        self.asked: list[str] = []
        self.tokens = TokenBook((token("west", WEST), token("east", EAST), token("acme", ACME), token("noc", NOC)))
        services = Services(
            self.tokens,
            LeadsService(leads, 600),
            AvailabilityService(self._availability),
            HealthService(self._healthy),
            lists,
            credits_,
        )
        transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://portal.invalid")

    async def _availability(self, campaign: str) -> dict[str, Any]:
        self.asked.append(campaign)
        if isinstance(self.router, Exception):
            raise self.router
        return self.router

    async def _healthy(self) -> bool:
        return self.healthy

    async def post(self, lead: Any = LEAD, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = lead if isinstance(lead, bytes) else orjson.dumps(lead)
        given = {"Content-Type": "application/json", **AUTH, **named}
        return await self.client.post("/v1/leads", content=body, headers=given)


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["status"], found["type"]) == (status, status, "about:blank")
    return found
