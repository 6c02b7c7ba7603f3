"""Money over HTTP: a buyer's documents, remedy, balance and forecast; another's are not there; the operator records."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.store.engine import open_store
from portal.app import create_app
from portal.documents.service import DocumentsService
from portal.http.services import Services
from portal.http.tokens import Scope, Token, TokenBook
from portal.orders.service import OrdersService
from portal.payments.service import PaymentsService
from portal.transfers.service import TransfersService
from tests.facts_builder import failed_story
from tests.store.journal_tools import store
from tests.store.money_tools import Books

WEEK = "2026-06-08"
TOKENS = {"acme": Scope.BUYER, "best": Scope.BUYER, "office": Scope.OPERATOR, "west": Scope.DIALER}


class Api:
    """The app over books in which acme was invoiced for 200, paid, and had 207 connected and 15 failed."""

    def __init__(self, books: Books) -> None:
        services = Services(
            TokenBook(tuple(_token(name, scope) for name, scope in TOKENS.items())),
            OrdersService(books.engine, books.clerk, has_mail=False),
            PaymentsService(books.engine, books.clerk),
            TransfersService(books.clerk),
            DocumentsService(books.engine, books.clerk),
        )
        transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False, client=("192.0.2.7", 5000))
        self.books = books
        self.client = httpx.AsyncClient(transport=transport, base_url="https://baton.example")

    async def ask(self, who: str, method: str, path: str, **kwargs: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer secret-of-{who}"}
        return await self.client.request(method, f"/v1{path}", headers=headers, **kwargs)


def _token(name: str, scope: Scope) -> Token:
    digest = hashlib.sha256(f"secret-of-{name}".encode()).hexdigest()
    return Token(name, digest, scope, "" if scope is Scope.OPERATOR else name)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    engine: AsyncEngine = await open_store(f"sqlite:///{tmp_path / 'baton.db'}")
    books = Books(engine)
    await books.agree("acme", "best")
    await books.order("acme", WEEK, 200)
    await books.order("best", WEEK, 10)
    await books.run("2026-06-02 12:00")
    await books.pay("acme", 900_000, "2026-06-03 10:00")
    await books.deliver("acme", "2026-06-10 11:00", 207, 15)
    await books.run("2026-06-15 01:00")
    made = Api(books)
    yield made
    await made.client.aclose()
    await books.close()
    await engine.dispose()


async def test_a_buyer_sees_its_own_documents_and_the_operator_all(api: Api) -> None:
    own = (await api.ask("acme", "GET", "/documents")).json()["documents"]
    assert {one["buyer"] for one in own} == {"acme"}
    assert [(one["number"], one["total_minor"], one["paid"]) for one in own if one["kind"] != "week"] == [
        ("INV-000003", 31_500, False),
        ("INV-000001", 900_000, True),
    ]
    everything = (await api.ask("office", "GET", "/documents", params={"series": "invoice"})).json()["documents"]
    assert {one["buyer"] for one in everything} == {"acme", "best"}
    still = (await api.ask("acme", "GET", "/documents", params={"open": True})).json()["documents"]
    assert [one["number"] for one in still] == ["INV-000003"]


@pytest.mark.parametrize("path", ["", "/file", "/transfers", "/file?format=csv"])
async def test_another_buyers_document_is_as_if_it_were_not_there(api: Api, path: str) -> None:
    other = await api.ask("best", "GET", f"/documents/INV-000001{path}")
    none = await api.ask("best", "GET", f"/documents/INV-999999{path}")
    assert (other.status_code, none.status_code) == (404, 404)
    assert other.json()["detail"] == none.json()["detail"]


async def test_a_document_comes_as_json_html_pdf_and_csv_and_opens_to_its_transfers(api: Api) -> None:
    whole = (await api.ask("acme", "GET", "/documents/INV-000003")).json()
    assert (whole["open_minor"], whole["body"]["lines"][0]["units"]) == (31_500, 7)
    files = {
        form: await api.ask("acme", "GET", "/documents/INV-000003/file", params={"format": form})
        for form in ("html", "pdf", "csv")
    }
    assert [one.status_code for one in files.values()] == [200, 200, 200]
    assert files["pdf"].content.startswith(b"%PDF-")
    assert files["pdf"].headers["content-disposition"] == 'attachment; filename="INV-000003.pdf"'
    assert "default-src 'none'" in files["html"].headers["content-security-policy"]
    assert "INV-000003" in files["html"].text
    assert "31500" in files["csv"].text
    transfers = await api.ask("acme", "GET", "/documents/INV-000003/transfers")
    assert transfers.text.count("\n") == 223


async def test_a_buyer_chooses_its_remedy_for_good_and_sees_it(api: Api) -> None:
    assert (await api.ask("acme", "GET", "/remedy")).json()["standing"] == "credit"
    chosen = await api.ask("acme", "PUT", "/remedy", json={"remedy": "make_up"})
    assert (chosen.status_code, chosen.json()["standing"]) == (200, "make_up")
    late = await api.ask("acme", "PUT", "/remedy", json={"remedy": "refund", "week": WEEK})
    assert late.status_code == 422
    assert late.json()["errors"][0]["field"] == "week"
    wrong = await api.ask("acme", "PUT", "/remedy", json={"remedy": "gold", "week": "2026-06-09"})
    assert {one["field"] for one in wrong.json()["errors"]} == {"remedy", "week"}


async def test_a_balance_tells_what_is_owed_either_way(api: Api) -> None:
    own = (await api.ask("acme", "GET", "/balance")).json()
    assert own == {
        "buyer": "acme",
        "receivable_minor": 31_500,
        "credits_minor": 0,
        "prepaid_minor": 0,
        "refunds_due_minor": 0,
    }
    assert (await api.ask("office", "GET", "/balance")).status_code == 422
    assert (await api.ask("office", "GET", "/balance", params={"buyer": "best"})).json()["receivable_minor"] == 45_000


@pytest.mark.parametrize("path", ["/balance", "/remedy", "/documents", "/forecast"])
async def test_a_buyers_token_asks_for_nobody_else_and_a_dialers_for_none(api: Api, path: str) -> None:
    assert (await api.ask("best", "GET", path, params={"buyer": "acme"})).status_code == 403
    assert (await api.ask("west", "GET", path)).status_code == 403
    assert (await api.client.get(f"/v1{path}")).status_code == 401
    assert (await api.ask("office", "GET", path, params={"buyer": "nobody"})).status_code == 404


async def test_the_operator_records_a_payment_once(api: Api) -> None:
    payment = {
        "buyer": "acme",
        "reference": "wire 7",
        "amount_minor": 31_600,
        "currency": "USD",
        "received_on": "2026-06-15",
        "document": "INV-000003",
    }
    first = await api.ask("office", "POST", "/payments", json=payment)
    assert first.status_code == 201
    assert first.json() == {
        "new": True,
        "applied": {"INV-000003": 31_500},
        "settled": ["INV-000003"],
        "credit_minor": 100,
        "released": False,
    }
    again = await api.ask("office", "POST", "/payments", json=payment)
    assert (again.status_code, again.json()["new"]) == (200, False)
    other = await api.ask("office", "POST", "/payments", json=payment | {"amount_minor": 1})
    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "reference")
    assert (await api.ask("acme", "POST", "/payments", json=payment)).status_code == 403
    unknown = await api.ask("office", "POST", "/payments", json=payment | {"document": "INV-9", "reference": "x"})
    assert unknown.status_code == 404


async def test_a_forecast_is_a_list_of_running_weeks(api: Api) -> None:
    found = await api.ask("acme", "GET", "/forecast")
    assert (found.status_code, found.json()) == (200, [])


async def test_a_transfer_opens_to_its_legs_for_its_buyer_alone(api: Api) -> None:
    await store(api.books.engine, failed_story("t-facts"))
    found = await api.ask("acme", "GET", "/transfers/t-facts")
    assert found.status_code == 200
    assert [leg["sent_ms"] for leg in found.json()["legs"]] == [0, 0]
    assert "+12125550123" not in found.text
    assert (await api.ask("best", "GET", "/transfers/t-facts")).status_code == 404
    assert (await api.ask("office", "GET", "/transfers/t-facts")).json()["outcome"]["verdict"] == "failed"
    assert (await api.ask("office", "GET", "/transfers/nothing")).status_code == 404
