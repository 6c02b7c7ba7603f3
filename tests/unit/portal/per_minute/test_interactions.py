"""Interactions, their ratings and daily reports over the API."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson
import pytest

from meter.per_minute.daily import DailyReports, ReportOptions
from meter.per_minute.interactions import MAX_TEXT
from tests.store.money_tools import at
from tests.store.service_tools import report, said
from tests.unit.portal.per_minute.api import EVIL, RATING, Api, problem_of


async def test_a_report_is_kept_once_and_charged_once(api: Api) -> None:
    made = await api.post("interactions", said())
    again = await api.post("interactions", said())
    assert (made.status_code, again.status_code, again.json()) == (201, 200, made.json())
    one = made.json()
    assert (one["increments"], one["amount_minor"], one["handled_ms"]) == (3, 354, 120_001)
    assert made.headers["location"] == f"/v1/interactions/{one['id']}"
    other = problem_of(await api.post("interactions", said(resolved=False)), 409)
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
    found = problem_of(await api.post("interactions", said(**{field: value})), 422)
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
        problem_of(await api.post("interactions", said("m-2"), token), 403)
        problem_of(await api.post(f"interactions/{made.id}/ratings", RATING, token), 403)
    problem_of(await api.get("interactions?buyer=acme", "west"), 403)


async def test_a_buyer_sees_its_own_and_anothers_is_not_there(api: Api) -> None:
    mine, _ = await report(api.books, said(text=EVIL))
    theirs, _ = await report(api.books, said(buyer="bolt"))
    assert [one["id"] for one in (await api.get("interactions")).json()["interactions"]] == [mine.id]
    shown = (await api.get(f"interactions/{mine.id}")).json()
    assert (shown["text"], shown["rating"], shown["ratings"]) == (EVIL, None, [])
    problem_of(await api.get(f"interactions/{theirs.id}"), 404)
    problem_of(await api.get("interactions?buyer=bolt"), 403)
    problem_of(await api.get("interactions", "noc"), 422)
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
        problem_of(await api.get(f"interactions?{wrong}"), 422)
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
        problem_of(await api.post(f"interactions/{made.id}/ratings", {**RATING, **wrong}), 422)
    problem_of(await api.post("interactions/nothing/ratings", RATING), 404)


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
    problem_of(await api.get("reports/2026-06-03"), 404)
    problem_of(await api.get("reports/yesterday"), 422)
    problem_of(await api.get("reports/2026-06-02?buyer=bolt"), 403)
    assert len((await api.get("reports", "noc")).json()["reports"]) == 2
    assert (await api.get("reports?before=2026-06-02")).json() == {"reports": [], "next": None}
