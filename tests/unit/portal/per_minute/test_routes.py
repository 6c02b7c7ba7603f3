"""Per-minute service over HTTP: interactions, ratings and reports by token, and the pages behind signed links."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import structlog

from meter.per_minute.daily import DailyReports, ReportOptions
from meter.per_minute.interactions import MAX_TEXT
from meter.store.engine import open_store
from meter.text.links import LinkOptions, credit_link, interaction_link, rating_link
from portal.app import create_app
from portal.http.services import Services
from portal.http.tokens import Scope, Token, TokenBook
from portal.per_minute.service import PerMinuteService
from tests.store.money_tools import Books, at
from tests.store.service_tools import mails, report, said, serve

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
        self.office = PerMinuteService(books.clerk, links, lambda: self.now)
        services = Services(TokenBook(tuple(map(_token, SECRETS))), self.office)
        transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False, client=("192.0.2.7", 5000))
        self.client = httpx.AsyncClient(transport=transport, base_url="https://baton.example")

    async def post(self, path: str, content: Any, token: str = "noc") -> httpx.Response:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {SECRETS[token]}"}
        return await self.client.post(f"/v1/{path}", content=orjson.dumps(content), headers=headers)

    async def get(self, path: str, token: str = "acme") -> httpx.Response:
        return await self.client.get(f"/v1/{path}", headers={"Authorization": f"Bearer {SECRETS[token]}"})


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    structlog.reset_defaults()  # another test may have left logs that go to a stream which is closed
    engine = await open_store(f"sqlite:///{tmp_path / 'baton.db'}")
    made = Books(engine)
    await serve(made, "acme", "bolt", ask_rating=True)
    yield made
    await made.close()
    await engine.dispose()


@pytest.fixture
async def api(books: Books) -> AsyncIterator[Api]:
    one = Api(books)
    yield one
    await one.client.aclose()


def _problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["status"]) == (status, status), found
    return found


# --- interactions ----------------------------------------------------------------------------------------------------


async def test_a_report_is_kept_once_and_charged_once(api: Api) -> None:
    made = await api.post("interactions", said())
    again = await api.post("interactions", said())
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    one = made.json()
    assert (one["increments"], one["amount_minor"], one["handled_ms"]) == (3, 354, 120_001)
    assert made.headers["location"] == f"/v1/interactions/{one['id']}"
    other = _problem(await api.post("interactions", said(resolved=False)), 409)
    assert other["errors"] == [{"field": "reference", "detail": "was reported before, with other content"}]
    assert len(await api.books.postings()) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("buyer", "nobody"),
        ("kind", "call"),
        ("ended_at", "2026-06-02T10:29:00-04:00"),
        ("ended_at", "2026-06-02T13:00:00-04:00"),
        ("received_at", "2026-06-02T10:00:00"),
        ("text", "x" * (MAX_TEXT + 1)),
        ("text", "a\0b"),
        ("resolved", "yes"),
        ("amount_minor", 1),
    ],
)
async def test_what_cannot_be_is_refused_by_the_name_of_its_field(api: Api, field: str, value: Any) -> None:
    found = _problem(await api.post("interactions", said(**{field: value})), 422)
    assert [one["field"] for one in found["errors"]] == [field]
    assert await api.books.postings() == []


async def test_the_longest_text_of_the_widest_characters_fits(api: Api) -> None:
    text = "\U0001f642" * MAX_TEXT
    made = await api.post("interactions", said(text=text))
    assert made.status_code == 201
    assert (await api.get(f"interactions/{made.json()['id']}")).json()["text"] == text


async def test_reporting_and_rating_are_the_operators(api: Api) -> None:
    made, _ = await report(api.books, said())
    for token in ("acme", "west"):
        _problem(await api.post("interactions", said("m-2"), token), 403)
        _problem(await api.post(f"interactions/{made.id}/ratings", RATING, token), 403)
    _problem(await api.get("interactions?buyer=acme", "west"), 403)


async def test_a_buyer_sees_its_own_and_anothers_is_not_there(api: Api) -> None:
    mine, _ = await report(api.books, said(text=EVIL))
    theirs, _ = await report(api.books, said(buyer="bolt"))
    assert [one["id"] for one in (await api.get("interactions")).json()["interactions"]] == [mine.id]
    shown = (await api.get(f"interactions/{mine.id}")).json()
    assert (shown["text"], shown["rating"], shown["ratings"]) == (EVIL, None, [])
    _problem(await api.get(f"interactions/{theirs.id}"), 404)
    _problem(await api.get("interactions?buyer=bolt"), 403)
    _problem(await api.get("interactions", "noc"), 422)
    listed = (await api.get("interactions?buyer=bolt", "noc")).json()["interactions"]
    assert [one["id"] for one in listed] == [theirs.id]


async def test_pages_are_walked_by_their_cursor_within_a_span(api: Api) -> None:
    for number in range(5):
        await report(api.books, said(f"m-{number}", received_at=f"2026-06-02T0{number}:00:00-04:00"))
    seen, cursor = [], ""
    for _ in range(5):
        path = f"interactions?limit=2&from=2026-06-02T01:00:00-04:00&to=2026-06-02T04:00:00-04:00&cursor={cursor}"
        page = (await api.get(path)).json()
        seen += [one["reference"] for one in page["interactions"]]
        cursor = page["next"]
        if not cursor:
            break
    assert seen == ["m-3", "m-2", "m-1"]
    for wrong in ("cursor=x", "cursor=1:", "cursor=99999999999999999999:a", "from=2026-06-02T00:00:00", "limit=0"):
        _problem(await api.get(f"interactions?{wrong}"), 422)
    assert (await api.get("interactions?kind=chat")).json() == {"interactions": [], "next": None}


async def test_quality_control_rates_and_a_buyer_is_not_told_who(api: Api) -> None:
    made, _ = await report(api.books, said())
    rated = await api.post(f"interactions/{made.id}/ratings", RATING)
    assert (rated.status_code, rated.json()["rating"]) == (201, 4)
    await api.post(f"interactions/{made.id}/ratings", {**RATING, "rating": 2})
    shown = (await api.get(f"interactions/{made.id}")).json()
    assert (shown["rating"], [one["rating"] for one in shown["ratings"]]) == (2, [4, 2])
    assert {one["by"] for one in shown["ratings"]} == {""}
    inside = (await api.get(f"interactions/{made.id}", "noc")).json()
    assert {one["by"] for one in inside["ratings"]} == {"Ann of quality"}
    for wrong in ({"rating": 0}, {"rating": 6}, {"rating": "4"}, {"by": ""}, {"by": "  "}, {"words": "w" * 1_001}):
        _problem(await api.post(f"interactions/{made.id}/ratings", {**RATING, **wrong}), 422)
    _problem(await api.post("interactions/nothing/ratings", RATING), 404)


async def test_reports_are_shown_to_their_buyer(api: Api, tmp_path: Path) -> None:
    await report(api.books, said())
    daily = DailyReports(api.books.engine, ReportOptions(tmp_path / "reports"))
    await daily.run_once(at("2026-06-02 23:30"))
    await daily.close()
    [line] = (await api.get("reports")).json()["reports"]
    assert (line["buyer"], line["day"], line["resolved"]) == ("acme", "2026-06-02", 1)
    shown = (await api.get("reports/2026-06-02")).json()
    raw = orjson.dumps(shown["body"], option=orjson.OPT_SORT_KEYS)
    assert hashlib.sha256(raw).hexdigest() == shown["digest"]
    assert (await api.get("reports/2026-06-02", "bolt")).json()["body"]["interactions"] == 0
    _problem(await api.get("reports/2026-06-03"), 404)
    _problem(await api.get("reports/yesterday"), 422)
    _problem(await api.get("reports/2026-06-02?buyer=bolt"), 403)
    assert len((await api.get("reports", "noc")).json()["reports"]) == 2
    assert (await api.get("reports?before=2026-06-02")).json() == {"reports": [], "next": None}


# --- the pages -------------------------------------------------------------------------------------------------------


def _path(link: str) -> str:
    return link.removeprefix("https://baton.example")


async def test_who_was_served_rates_by_the_link_and_may_change_it(api: Api) -> None:
    made, _ = await report(api.books, said(text="secret text"))
    [mail] = await mails(api.books)
    assert mail["payload"]["to"] == ["jo@example.org"]
    path = _path(rating_link(LINKS, made.id, "acme"))
    page = await api.client.get(path)
    assert (page.status_code, page.text.count('type="radio"'), "Thank you" in page.text) == (200, 5, False)
    assert "secret text" not in page.text, "the link is for rating, not for reading"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    filed = await api.client.post(path, data={"rating": "2", "words": f"\nslow {EVIL}"})
    assert (filed.status_code, filed.headers["location"]) == (303, f"./{path.rpartition('/')[2]}")
    after = await api.client.get(path)
    assert "Thank you" in after.text
    assert 'value="2" required checked' in after.text
    assert EVIL not in after.text
    await api.client.post(path, data={"rating": "5", "words": ""})
    found = await api.office.find(made.id)
    assert [(one.kind.value, one.rating, one.by) for one in found.ratings] == [
        ("caller", 2, "link"),
        ("caller", 5, "link"),
    ]


@pytest.mark.parametrize("form", [{}, {"rating": "0"}, {"rating": "6"}, {"rating": "\u0665"}, {"rating": EVIL}])
async def test_an_answer_that_is_none_files_nothing(api: Api, form: dict[str, str]) -> None:
    made, _ = await report(api.books, said())
    path = _path(rating_link(LINKS, made.id, "acme"))
    found = await api.client.post(path, data={**form, "words": EVIL})
    assert (found.status_code, "Choose one of the five." in found.text, EVIL in found.text) == (422, True, False)
    long = await api.client.post(path, data={"rating": "3", "words": "w" * 1_001})
    assert (long.status_code, "at most 1,000" in long.text) == (422, True)
    assert (await api.office.find(made.id)).ratings == ()


async def test_the_buyers_link_shows_the_interaction_with_its_text_made_safe(api: Api) -> None:
    long = "long " * 3_000
    made, _ = await report(api.books, said(text=f"Dear Jo\n{EVIL}\u202e\n{long}", customer=EVIL))
    await api.post(f"interactions/{made.id}/ratings", {**RATING, "words": EVIL})
    page = await api.client.get(_path(interaction_link(LINKS, made.id, "acme")))
    assert page.status_code == 200
    assert long.strip() in page.text, "nothing of it is cut off"
    assert ("Dear Jo" in page.text, "4 of 5" in page.text, "$3.54" in page.text) == (True, True, True)
    assert ("<script" in page.text, "\u202e" in page.text, "Ann of quality" in page.text) == (False, False, False)


async def test_a_link_for_one_thing_is_none_for_another(api: Api) -> None:
    made, _ = await report(api.books, said())
    wrong = [
        rating_link(LINKS, made.id, "bolt"),
        rating_link(LINKS, made.id, ""),
        rating_link(LINKS, "nothing", "acme"),
        interaction_link(LINKS, made.id, "bolt"),
        rating_link(LINKS, made.id, "acme").replace("/rate/", "/interaction/"),
        interaction_link(LINKS, made.id, "acme").replace("/interaction/", "/rate/"),
        credit_link(LINKS, made.id, "acme").replace("/credit/", "/rate/"),
        rating_link(LinkOptions(LINKS.base_url, "t" * 32), made.id, "acme"),
        "https://baton.example/rate/" + "x" * 600,
    ]
    for link in wrong:
        assert (await api.client.get(_path(link))).status_code == 404, link
    assert (await api.client.post(_path(wrong[0]), data={"rating": "1"})).status_code == 404
    assert (await api.office.find(made.id)).ratings == ()


async def test_without_links_nobody_is_asked_and_there_are_no_pages(books: Books) -> None:
    api = Api(books, None)
    made = await api.post("interactions", said())
    assert (made.status_code, await mails(books)) == (201, [])
    path = _path(rating_link(LINKS, made.json()["id"], "acme"))
    assert (await api.client.get(path)).status_code == 404
    await api.client.aclose()
