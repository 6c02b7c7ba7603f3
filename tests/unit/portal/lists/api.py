"""The API for suppression lists on a real store, and a client of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import orjson

from book.lists import Actor
from meter.suppression_rows.sql.lists import ListRows
from portal.app import create_app
from portal.health.service import HealthService
from portal.http.services import Services
from portal.http.tokens import Scope, Token, TokenBook
from portal.lists.service import ListsService
from suppression.activating import current_base
from suppression.lookups import rows
from suppression.receipt import Signer

SECRETS = {"west": "w" * 32, "acme": "a" * 32, "acme-2": "A" * 32, "bolt": "b" * 32, "noc": "n" * 32}
OWNERS = {
    "west": (Scope.DIALER, "west"),
    "acme": (Scope.BUYER, "acme"),
    "acme-2": (Scope.BUYER, "acme"),
    "bolt": (Scope.BUYER, "bolt"),
    "noc": (Scope.OPERATOR, ""),
}
ONE, TWO, THREE, FREE = "+12125550100", "+12125550101", "+12125550102", "+12125550199"
BASE = "/v1/suppression"
MOST = 1_000_000  # bytes of an upload
ANN = Actor("ann", "cli:noc-desk-7")


def _tokens() -> tuple[Token, ...]:
    return tuple(
        Token(name, hashlib.sha256(secret.encode()).hexdigest(), *OWNERS[name]) for name, secret in SECRETS.items()
    )


def auth(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[token]}"} if token else {}


async def _well() -> bool:
    return True


class Api:
    """The app, its store, and a client."""

    def __init__(self, store: ListRows, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.signer = Signer(b"k" * 32)
        self.lists = ListsService(store, folder, self.signer, self._buyers, keep_versions=2, max_import_bytes=MOST)
        services = Services(TokenBook(_tokens()), HealthService(_well), self.lists)
        self.app = create_app(services)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=("192.0.2.7", 5000))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://portal.invalid")

    async def _buyers(self) -> tuple[str, ...]:
        return "acme", "bolt"

    async def load(
        self, name: str, *lines: str, token: str = "noc", content: Any = None, **said: Any
    ) -> httpx.Response:
        """Import these lines."""
        body = content if content is not None else ("\n".join(lines) + "\n").encode()
        return await self.client.post(f"{BASE}/lists/{name}/imports", content=body, params=said, headers=auth(token))

    async def post(self, path: str, said: Any, token: str = "noc", **headers: str) -> httpx.Response:
        body = said if isinstance(said, bytes) else orjson.dumps(said)
        given = {"Content-Type": "application/json", **auth(token), **headers}
        return await self.client.post(BASE + path, content=body, headers=given)

    async def get(self, path: str, token: str = "noc", **said: Any) -> httpx.Response:
        return await self.client.get(BASE + path, params=said, headers=auth(token))

    async def numbers(self, name: str) -> list[str]:
        return [one for one, _ in rows(await current_base(self.store, self.folder, name, must_load=True))]

    def left_behind(self) -> list[Path]:
        """Uploads that were not deleted."""
        return list(self.lists.uploads.iterdir()) if self.lists.uploads.exists() else []


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["status"]) == (status, status), response.text
    return found


def done_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def fields_of(problem: dict[str, Any]) -> list[str]:
    return [one["field"] for one in problem["errors"]]
