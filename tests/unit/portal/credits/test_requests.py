"""Requests for credits over the API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.credit_tools import mails
from tests.store.money_tools import at
from tests.unit.portal.credits.api import (
    ASK,
    DECIDE,
    Api,
    problem_of,
)


async def test_a_buyer_asks_and_sees_its_place_and_the_operator_decides(api: Api) -> None:
    made = await api.post("credits", ASK)
    assert (made.status_code, made.headers["location"]) == (201, "/v1/credits/1")
    second = (await api.post("credits", {**ASK, "transfer": "t-2"})).json()
    assert (made.json()["place"], second["place"], second["state"]) == (1, 2, "open")
    refused = problem_of(await api.post("credits/2/decision", DECIDE, "noc"), 409)
    assert "1 is the oldest open one" in refused["detail"]
    decided = await api.post("credits/1/decision", DECIDE, "noc")
    assert (decided.status_code, decided.json()["state"], decided.json()["decided_by"]) == (200, "approved", "Ann")
    shown = (await api.get("credits/1")).json()
    assert (shown["amount_minor"], shown["currency"], shown["explanation"]) == (4_500, "USD", "as the log says")
    assert (shown["asked_at"], shown["decided_at"]) == ("2026-06-03T14:00:00Z",) * 2
    assert (shown["asked_by"], shown["decided_by"]) == ("", ""), "who works for the operator is its own matter"
    assert (await api.get("credits/2")).json()["place"] == 1
    assert [one["id"] for one in (await api.get("credits")).json()["credits"]] == [2, 1]
    assert [one["id"] for one in (await api.get("credits?state=open")).json()["credits"]] == [2]
    assert [one["id"] for one in (await api.get("credits?call_id=call-1", "noc")).json()["credits"]] == [1]
    assert len(await mails(api.books)) == 1
    assert await api.books.balances("acme") == {"allowances": 4_500, "credits": -4_500}


async def test_another_buyers_requests_are_as_if_they_were_not_there(api: Api) -> None:
    asked = problem_of(await api.post("credits", ASK, "bolt"), 422)
    assert asked["errors"][0]["field"] == "transfer"
    await api.post("credits", ASK)
    problem_of(await api.get("credits/1", "bolt"), 404)
    assert problem_of(await api.get("credits/1", "bolt"), 404) == {
        **problem_of(await api.get("credits/9", "bolt"), 404),
        "detail": "request: there is no request 1",
    }
    assert (await api.get("credits", "bolt")).json() == {"credits": [], "next": None}
    assert (await api.get("credits?transfer=t-1", "bolt")).json() == {"credits": [], "next": None}
    problem_of(await api.get("credits?buyer=acme", "bolt"), 403)
    problem_of(await api.get("credit-reasons?buyer=acme", "bolt"), 403)


async def test_deciding_is_the_operators_and_dialers_have_no_business_here(api: Api) -> None:
    await api.post("credits", ASK)
    for path, said in (("credits/1/decision", DECIDE), ("credits/1/re-review", {"words": "no"})):
        for token in ("acme", "west"):
            assert "an operator's token" in problem_of(await api.post(path, said, token), 403)["detail"]
    problem_of(await api.post("credits", ASK, "west"), 403)
    for path in ("credits", "credits/1", "credit-reasons"):
        problem_of(await api.get(path, "west"), 403)
        problem_of(await api.client.get(f"/v1/{path}"), 401)
    assert (await api.get("credits/1")).json()["state"] == "open"


async def test_the_operator_asks_on_behalf_of_whoever_was_billed(api: Api) -> None:
    made = (await api.post("credits", ASK, "noc")).json()
    assert (made["buyer"], made["asked_by"]) == ("acme", "noc")


async def test_a_valid_call_is_answered_with_its_explanation(api: Api) -> None:
    found = problem_of(await api.post("credits", {**ASK, "reason": "voicemail"}), 422)
    [error] = found["errors"]
    assert (error["field"], "a sales opportunity" in error["detail"]) == ("reason", True)
    assert (await api.get("credits")).json() == {"credits": [], "next": None}


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({**ASK, "transfer": "t-9"}, "transfer"),
        ({**ASK, "reason": "has-lawyer"}, "reason"),
        ({**ASK, "words": " "}, "words"),
        ({**ASK, "words": "w" * 1_001}, "words"),
        ({**ASK, "more": 1}, "more"),
        ({"transfer": "t-1", "reason": "duplicate"}, "words"),
    ],
)
async def test_what_cannot_be_asked_names_its_field(api: Api, said: dict[str, Any], field: str) -> None:
    assert [one["field"] for one in problem_of(await api.post("credits", said), 422)["errors"]] == [field]


async def test_what_comes_too_late_or_twice_is_refused(api: Api) -> None:
    api.now = at("2026-06-07 00:00")
    assert "2026-06-06" in problem_of(await api.post("credits", ASK), 422)["detail"]
    api.now -= 1
    assert (await api.post("credits", ASK)).status_code == 201
    problem_of(await api.post("credits", ASK), 409)


async def test_a_decision_needs_its_explanation_and_a_re_review_another_reviewer(api: Api) -> None:
    await api.post("credits", ASK)
    problem_of(await api.post("credits/1/decision", {**DECIDE, "explanation": " "}, "noc"), 422)
    problem_of(await api.post("credits/1/re-review", {"words": "no"}, "noc"), 409)
    problem_of(await api.post("credits/7/decision", DECIDE, "noc"), 404)
    problem_of(await api.post("credits/7/re-review", {"words": "no"}, "noc"), 404)
    problem_of(await api.get(f"credits/{2**63}", "noc"), 422)
    assert (await api.post("credits/1/decision", {**DECIDE, "decision": "decline"}, "noc")).status_code == 200
    made = await api.post("credits/1/re-review", {"words": "look again"}, "noc")
    assert (made.status_code, made.json()["re_review_of"], made.headers["location"]) == (201, 1, "/v1/credits/2")
    found = problem_of(await api.post("credits/2/decision", {**DECIDE, "reviewer": "ann"}, "noc"), 422)
    assert found["errors"][0]["field"] == "reviewer"
    done = (await api.post("credits/2/decision", {**DECIDE, "reviewer": "Bo"}, "noc")).json()
    assert (done["state"], done["amount_minor"]) == ("approved", 4_500)
    problem_of(await api.post("credits/1/re-review", {"words": "once more"}, "noc"), 409)


async def test_reasons_are_those_of_the_buyers_category(api: Api) -> None:
    mine = (await api.get("credit-reasons")).json()
    assert mine["category"] == "home-improvement"
    named = {one["reason"]: one for one in mine["reasons"]}
    assert (named["not-owner"]["valid"], named["voicemail"]["valid"]) == (False, True)
    assert named["voicemail"]["explanation"].startswith("A call that your voicemail answers")
    assert (await api.get("credit-reasons?buyer=acme", "noc")).json() == mine
    assert "not-owner" not in (await api.get("credit-reasons", "noc")).text
    problem_of(await api.get("credit-reasons?buyer=zeus", "noc"), 422)
