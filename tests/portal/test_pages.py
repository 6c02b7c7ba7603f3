"""Lists page by page, one form everywhere, and as CSV; payments shown and taken back."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from sqlalchemy import insert

from meter.store.money_schema import credit_requests
from portal.health.service import HealthService
from portal.http.paging import read_cursor, write_cursor
from portal.http.problems import ProblemError
from portal.http.services import Services
from portal.http.tokens import TokenBook
from telemetry import metrics
from tests.portal.house import House, bearer
from tests.store.service_tools import report, said

LISTS = ("transfers", "buyers", "orders", "payments", "documents", "credits", "interactions", "reports")


async def _ask_for_credits(house: House, count: int) -> None:
    rows = [
        {
            "transfer": f"o-{number}",
            "buyer": "acme" if number % 2 else "best",
            "level": 1,
            "reason": "duplicate",
            "words": "=we had her",
            "asked_utc_us": 1_780_000_000_000_000 + number,
            "asked_by": "ann",
            "origin": "test",
            "state": "open" if number % 3 else "declined",
        }
        for number in range(count)
    ]
    await house.books.write(lambda connection: connection.execute(insert(credit_requests), rows))


async def test_every_list_has_one_form_and_refuses_a_cursor_of_another(house: House) -> None:
    for name in LISTS:
        whose = {"buyer": "bolt"} if name == "interactions" else {}
        page = await house.get("noc", f"/{name}", **whose)
        assert (set(page), page["next"]) == ({name, "next"}, None), name
        for cursor in ("x", "\u00e9", write_cursor("other", [1]), "A" * 401, write_cursor(name, [1 << 63])):
            wrong = await house.ask("noc", "GET", f"/{name}", params={"cursor": cursor, **whose})
            assert wrong.status_code == 422, (name, cursor)
            assert wrong.json()["errors"][0]["field"] == "cursor"


def test_a_cursor_is_read_back_and_nothing_else_is() -> None:
    for key, kinds in (((7,), (int,)), (("acme", "2026-06-08"), (str, str)), ((5, "t", -1), (int, str, int))):
        assert read_cursor("list", write_cursor("list", key), *kinds) == key
    assert read_cursor("list", "", int) is None
    for text in (
        "!",
        "W10",
        "e30",
        write_cursor("list", [True]),
        write_cursor("list", ["7"]),
        write_cursor("list", []),
    ):
        with pytest.raises(ProblemError):
            read_cursor("list", text, int)


async def test_documents_come_the_newest_first_page_by_page(house: House) -> None:
    whole = (await house.get("noc", "/documents"))["documents"]
    assert [one["number"] for one in whole] == ["INV-000003", "INV-000002", "INV-000001"]
    walked = await house.walk("noc", "/documents", "documents", limit=1)
    assert walked == whole
    assert [one["number"] for one in await house.walk("noc", "/documents", "documents", limit=1, open=True)] == [
        "INV-000003",
        "INV-000002",
    ]


async def test_credits_are_walked_in_the_line_and_from_the_newest(house: House) -> None:
    await _ask_for_credits(house, 11)
    newest = await house.walk("noc", "/credits", "credits", limit=2)
    assert [one["transfer"] for one in newest] == [f"o-{number}" for number in reversed(range(11))]
    line = await house.walk("noc", "/credits", "credits", limit=2, state="open")
    assert [one["place"] for one in line] == list(range(1, len(line) + 1))
    assert {one["buyer"] for one in await house.walk("acme", "/credits", "credits", limit=2)} == {"acme"}
    table = await house.ask("acme", "GET", "/credits", headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert (len(rows), rows[0]["words"], rows[0]["asked_by"]) == (5, "'=we had her", "")


async def test_interactions_and_the_log_are_walked(house: House) -> None:
    for number in range(5):
        await report(house.books, said(f"m-{number + 2}", buyer="bolt", customer=f"@{number}"))
    walked = await house.walk("bolt", "/interactions", "interactions", limit=2)
    assert len({one["id"] for one in walked}) == len(walked) == 6
    table = await house.ask("bolt", "GET", "/interactions", headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [one["id"] for one in rows] == [one["id"] for one in walked]
    assert {one["resolved"] for one in rows} == {"true"}
    assert any(one["customer"].startswith("'@") for one in rows)
    path = "/v1/suppression/lists/dnc"
    await house.client.post(f"{path}/imports", content=b"phone\n+12125550188\n", headers=bearer("acme"))
    for number in range(4):
        entry = {"add": [f"+1212555019{number}"]}
        assert (await house.client.post(f"{path}/entries", json=entry, headers=bearer("acme"))).status_code == 200
    log = await house.walk("acme", "/suppression/lists/dnc/log", "log", limit=2)
    assert [one["action"] for one in log] == ["edit"] * 4 + [log[-1]["action"]]
    assert [one["revision"] for one in log[:4]] == [4, 3, 2, 1]


async def test_payments_are_shown_and_taken_back(house: House) -> None:
    for number in range(3):
        await house.books.pay("best", 1_000, f"2026-06-0{number + 3} 10:00", f"=wire {number}")
    walked = await house.walk("noc", "/payments", "payments", limit=1)
    assert [one["reference"] for one in walked] == ["=wire 2", "=wire 1", "=wire 0", "check 4711"]
    own = (await house.get("acme", "/payments"))["payments"]
    assert [(one["reference"], one["by"], one["amount_minor"]) for one in own] == [("check 4711", "", 900_000)]
    assert walked[-1]["by"] == "clerk"
    body: dict[str, Any] = {"buyer": "acme", "reference": "CHECK  4711", "reason": "it bounced"}
    for who, status in (("acme", 403), ("west", 403), ("", 401)):
        assert (await house.ask(who, "POST", "/payments/reversals", json=body)).status_code == status
    done = await house.ask("noc", "POST", "/payments/reversals", json=body)
    assert (done.status_code, done.json()["reopened"]) == (200, ["INV-000001"]), done.text
    again = await house.ask("noc", "POST", "/payments/reversals", json=body)
    assert (again.status_code, again.json()["errors"][0]["field"]) == (422, "reference")
    shown = (await house.get("acme", "/payments"))["payments"][0]
    assert (shown["reversed_why"], shown["reversed_by"], shown["reversed_at"] is None) == ("it bounced", "", False)
    table = await house.ask("noc", "GET", "/payments", headers={"Accept": "text/csv"})
    assert "'=wire 2" in table.text
    assert (await house.ask("noc", "GET", "/payments", params={"buyer": "nobody"})).status_code == 404


async def test_what_an_app_was_made_without_is_not_there(house: House) -> None:
    house.app.state.services = Services(house.tokens)
    absent = {
        "availability?campaign=solar": "view of availability",
        "health": "view of health",
        "live": "live view",
        "live/events": "live view",
        "events": "feed of events",
        "transfers": "service for transfers",
        "transfers/t-2": "service for transfers",
        "transfers/t-2/recording": "recording",
        "buyers": "book",
        "orders": "book",
        "payments": "service for payments",
        "documents": "service for documents",
        "credits": "service for credits",
        "webhooks": "webhooks",
        "trunks": "view of trunks",
        "interactions?buyer=bolt": "per-minute service",
        "suppression/lists": "service for lists",
    }
    for path, title in absent.items():
        answer = await house.ask("noc", "GET", f"/{path}")
        assert (answer.status_code, answer.json()["detail"]) == (404, f"there is no {title} here"), path
    for page in ("rate/x", "interaction/x", "credit/x"):
        assert (await house.client.get(f"/{page}")).status_code == 404, page


def test_a_service_is_there_once() -> None:
    with pytest.raises(ValueError, match="of one type"):
        Services(TokenBook(), HealthService(_well), HealthService(_well))


async def _well() -> bool:
    return True


async def test_head_is_get_without_the_body_on_every_route(house: House) -> None:
    """RFC 9110 section 9.3.2: lists, things that are not there, pages, files and streams, with a token and without."""
    described = house.app.openapi()["paths"]
    paths = [path for path, ways in described.items() if "get" in ways] + ["/v1/openapi.json", "/v1/nothing", "/rate/x"]
    assert len(paths) > 30
    for path in paths:
        filled = re.sub(r"\{[^}]*\}", "t-1", path)
        for who in ("noc", ""):
            headers = bearer(who) if who else {}
            head = await house.client.head(filled, headers=headers)
            assert head.content == b"", filled
            if filled == "/v1/live/events" and who:
                assert (head.status_code, head.headers["content-type"][:17]) == (200, "text/event-stream")
                continue
            found = await house.client.get(filled, headers=headers)
            assert head.status_code == found.status_code, filled
            for name in ("content-type", "cache-control", "content-length"):
                assert head.headers.get(name) == found.headers.get(name), (filled, name)
    assert house.streams.count == 0
    assert metrics.HTTP_REQUESTS.labels("HEAD", "/v1/transfers", "200")._value.get() >= 1.0
