"""Settled transfers over HTTP: filters, what each token sees, and a walk that finds each exactly once."""

from __future__ import annotations

import csv
import io
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meter.ledger.sql.ledger import append
from portal.http.paging import write_cursor
from tests.facts_builder import UTC_0
from tests.portal.house import House, outcome
from tests.store.money_tools import unit_posting


def _at(second: float) -> str:
    return (datetime.fromtimestamp(UTC_0 / 1e6, UTC) + timedelta(seconds=second)).isoformat()


def _ids(found: list[dict[str, Any]]) -> list[str]:
    return [one["transfer"] for one in found]


async def test_what_the_follower_settled_is_listed_with_what_each_token_may_see(house: House) -> None:
    await house.add_outcomes(
        outcome(500, transfer="free", verdict="within_buffer", reason="declined", counts_as="free", talk_ms=0),
        outcome(501, transfer="theirs", buyer="best", dialer="east"),
    )
    everything = {one["transfer"]: one for one in (await house.get("noc", "/transfers"))["transfers"]}
    assert list(everything) == ["t-1", "t-2", "free", "theirs"]
    assert everything["t-2"] == {
        "transfer": "t-2",
        "call_id": "call-t-2",
        "campaign": "solar",
        "buyer": "acme",
        "phone": "+12125550123",
        "started_at": "2026-06-02T13:59:59.950000Z",
        "dialout_at": "2026-06-02T14:00:00Z",
        "ended_at": "2026-06-02T14:00:44Z",
        "verdict": "connected",
        "reason": "answered",
        "counts_as": "connected",
        "attempt_ms": 44_000,
        "talk_ms": 40_000,
        "buffer_ms": 15_000,
        "terms": "westlake-fulfillment v1",
        "dialer": "dialer-1",
        "sip_call_id": "t-2@dialer",
    }
    own = {one["transfer"]: one for one in (await house.get("acme", "/transfers"))["transfers"]}
    assert list(own) == ["t-1", "t-2", "free"]
    assert own["t-2"] == everything["t-2"] | {"dialer": "", "sip_call_id": ""}
    assert own["free"]["phone"] == "", "a lead that it does not pay for is not sent to it"
    dialled = (await house.get("west", "/transfers"))["transfers"]
    assert _ids(dialled) == ["free"]
    assert dialled[0]["phone"] == "+12125550500"
    assert (dialled[0]["buffer_ms"], dialled[0]["terms"], dialled[0]["dialer"]) == (None, "", "west")


async def test_each_filter_keeps_what_it_says(house: House) -> None:
    await house.add_outcomes(
        outcome(100),
        outcome(200, buyer="best", campaign="roofs", dialer="east"),
        outcome(300, verdict="failed", reason="declined", counts_as="failed", call_id="prospect-7"),
        outcome(400, verdict="within_buffer", reason="declined", counts_as="free"),
    )
    names = {100: "o-000100", 200: "o-000200", 300: "o-000300", 400: "o-000400"}

    async def found(who: str = "noc", **params: Any) -> list[str]:
        return [one for one in _ids((await house.get(who, "/transfers", **params))["transfers"]) if one[:2] == "o-"]

    assert await found(buyer="best") == await found(campaign="roofs") == await found(dialer="east") == [names[200]]
    assert await found(verdict="failed") == await found(counts_as="failed", reason="declined") == [names[300]]
    assert await found(call_id="prospect-7") == [names[300]]
    assert await found(**{"from": _at(200), "to": _at(400)}) == [names[200], names[300]]
    assert await found(order="newest") == [names[400], names[300], names[200], names[100]]
    for spelling in ("+12125550200", "(212) 555-0200", "1 212 555 0200", "tel:+12125550200"):
        assert await found(phone=spelling) == [names[200]]
    assert await found("acme", phone="2125550400") == [], "of what is free a buyer is not told whose number it was"
    assert await found("acme", phone="2125550300") == [names[300]]
    assert await found("west", phone="2125550400") == [names[400]]


@pytest.mark.parametrize(
    ("who", "params", "status", "field"),
    [
        ("acme", {"buyer": "best"}, 403, "buyer"),
        ("acme", {"dialer": "west"}, 403, "dialer"),
        ("west", {"dialer": "east"}, 403, "dialer"),
        ("noc", {"phone": "12"}, 422, "phone"),
        ("noc", {"verdict": "good"}, 422, "verdict"),
        ("noc", {"from": "2026-06-02T10:00:00"}, 422, "from"),
        ("noc", {"limit": 0}, 422, "limit"),
        ("noc", {"order": "random"}, 422, "order"),
        ("noc", {"cursor": "x"}, 422, "cursor"),
        ("noc", {"cursor": write_cursor("transfers", ["nobody"])}, 422, "cursor"),
        ("noc", {"cursor": write_cursor("credits", [1])}, 422, "cursor"),
        ("noc", {"cursor": write_cursor("transfers", [7])}, 422, "cursor"),
        ("noc", {"cursor": write_cursor("transfers", ["a\0b"])}, 422, "cursor"),
    ],
)
async def test_what_is_asked_wrongly_is_named(
    house: House, who: str, params: dict[str, Any], status: int, field: str
) -> None:
    found = await house.ask(who, "GET", "/transfers", params=params)
    assert found.status_code == status, found.text
    assert found.headers["content-type"] == "application/problem+json"
    assert [one["field"].partition(".")[0] for one in found.json()["errors"]][:1] == [field]


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("seed", range(3))
async def test_a_walk_finds_each_once_while_others_are_settled_in_any_order_of_time(
    house: House, order: str, seed: int
) -> None:
    dice = random.Random(seed)
    numbers = dice.sample(range(100, 10_000), 150)  # what ended earlier may be settled later
    before, during = numbers[:100], numbers[100:]
    await house.add_outcomes(*(outcome(number) for number in before))
    seen: list[str] = []
    cursor: str | None = ""
    span = {"from": _at(2_000), "to": _at(8_000), "order": order, "limit": 7}
    while cursor is not None:
        page = await house.get("noc", "/transfers", **span, cursor=cursor)
        seen += _ids(page["transfers"])
        cursor = page["next"]
        for _ in range(min(10, len(during))):
            await house.add_outcomes(outcome(during.pop()))
    expected = {f"o-{number:06d}" for number in numbers if 2_000 <= number < 8_000}
    assert len(seen) == len(set(seen)), "none comes twice"
    if order == "oldest":
        assert set(seen) == expected, "and who walks forward finds those as well that were settled meanwhile"
    else:
        assert set(seen) == {f"o-{number:06d}" for number in before if 2_000 <= number < 8_000}


async def test_what_was_settled_days_late_is_found_by_the_time_of_its_end(house: House) -> None:
    day = 86_400
    await house.add_outcomes(*(outcome(number * 600) for number in range(1, 3_000)))  # three weeks
    posted = [unit_posting(f"o-{number * 600:06d}", "acme", "connected", 93, UTC_0 + number * 600_000_000 - 60_000_000)
              for number in range(1, 3_000, 7)]  # fmt: skip
    await house.books.write(lambda connection: append(connection, posted))
    late = [outcome(5 * day + number, transfer=f"late-{number}") for number in (1, 2, 3)]
    await house.add_outcomes(*late)
    found = await house.walk("noc", "/transfers", "transfers", **{"from": _at(5 * day), "to": _at(5 * day + 600)})
    assert _ids(found) == ["o-432000", "late-1", "late-2", "late-3"]
    for since in range(0, 21 * day, 40_000):
        found = await house.walk("noc", "/transfers", "transfers", **{"from": _at(since), "to": _at(since + 6_000)})
        there = [number for number in range(600, 1_800_000, 600) if since <= number < since + 6_000]
        assert [one for one in _ids(found) if one[:2] == "o-"] == [f"o-{number:06d}" for number in there]
    newest = await house.get("noc", "/transfers", order="newest", limit=1, **{"from": _at(20 * day)})
    assert _ids(newest["transfers"]) == ["o-1799400"]


async def test_csv_has_all_of_it_and_no_cell_that_a_spreadsheet_runs(house: House) -> None:
    rows = [outcome(number, campaign="=1+1" if number == 100 else "solar") for number in range(100, 4_700)]
    for start in range(0, len(rows), 1_000):
        await house.add_outcomes(*rows[start : start + 1_000])
    found = await house.ask("noc", "GET", "/transfers", params={"limit": 1}, headers={"Accept": "text/csv"})
    assert (found.status_code, found.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    read = list(csv.DictReader(io.StringIO(found.text)))
    assert len(read) == len({one["transfer"] for one in read}) == 4_602
    assert (read[2]["campaign"], read[2]["phone"], read[2]["ended_at"]) == (
        "'=1+1",
        "+12125550100",
        "2026-06-02T14:01:40Z",
    )
    own = await house.ask("west", "GET", "/transfers", headers={"Accept": "application/json;q=0.5, text/csv"})
    assert "contract v1" not in own.text
    assert len(own.text.splitlines()) == 4_601
    for accept in ("application/json, text/csv;q=0.9", "*/*", "text/csv;q=0", "text/csv;q=x"):
        answer = await house.ask("noc", "GET", "/transfers", headers={"Accept": accept})
        assert answer.headers["content-type"] == "application/json", accept
    wrong = await house.ask("noc", "GET", "/transfers", params={"cursor": "x"}, headers={"Accept": "text/csv"})
    assert wrong.status_code == 422
