"""Whose token a request has, and what that one may."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest
from starlette.requests import ClientDisconnect

from portal.http.access import buyer_of, own_buyer
from portal.http.problems import ProblemError
from portal.http.tokens import find
from tests.unit.portal.api import ACME, AUTH, EAST, LEAD, NOC, WEST, Api, problem_of, token


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {WEST}", f"Bearer {WEST}x", f"Bearer {WEST[:-1]}"]
)
async def test_without_a_good_token_there_is_nothing(api: Api, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for response in (
        await api.client.post("/v1/leads", json=LEAD, headers=headers),
        await api.client.get("/v1/availability", params={"campaign": "x"}, headers=headers),
    ):
        problem_of(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    assert not api.asked


async def test_leads_are_the_dialers_and_availability_isno_buyers_business(api: Api) -> None:
    for secret in (ACME, NOC):
        assert "a dialer's token" in problem_of(await api.post(Authorization=f"Bearer {secret}"), 403)["detail"]
    asked = [
        await api.client.get("/v1/availability?campaign=x", headers={"Authorization": f"Bearer {secret}"})
        for secret in (WEST, NOC, ACME)
    ]
    assert [one.status_code for one in asked] == [200, 200, 403]
    assert api.asked == ["x", "x"]


async def test_a_dialer_asks_only_about_campaigns_that_it_may_call(api: Api) -> None:
    api.tokens.replace(api.tokens.all, {"west": frozenset({"solar"}), "east": None})
    asked = [
        (await api.client.get(f"/v1/availability?campaign={name}", headers={"Authorization": f"Bearer {secret}"}))
        for secret in (WEST, EAST, NOC)
        for name in ("solar", "roof", "none")
    ]
    assert [one.status_code for one in asked] == [200, 403, 403, 200, 200, 200, 200, 200, 200]
    assert asked[1].json()["detail"] == asked[2].json()["detail"], "it is not told which campaigns there are"


async def test_a_token_that_was_taken_away_is_nobodys_at_once(api: Api) -> None:
    assert not api.tokens.replace((*api.tokens.all, token("new", "n" * 40)), {}), "nothing was taken from anybody"
    assert (await api.post()).status_code == 201
    others = [one for one in api.tokens.all if one.name != "west"]
    assert api.tokens.replace(others, {})
    assert (await api.post()).status_code == 401


async def test_a_body_that_breaks_off_is_no_lead(api: Api) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield orjson.dumps(LEAD)
        raise ClientDisconnect

    headers = {"Content-Type": "application/json", **AUTH}
    found = await api.client.post("/v1/leads", content=broken(), headers=headers)
    assert problem_of(found, 400)["detail"] == "the body was cut short"


def test_a_token_is_found_by_its_hash_and_a_huge_one_is_nobodys() -> None:
    tokens = (token("west", WEST), token("east", EAST))
    assert find(tokens, EAST) is tokens[1]
    assert find(tokens, "") is None
    long = token("long", "x" * 512)
    assert find((long,), "x" * 512) is long
    assert find((long,), "x" * 513) is None


def test_a_buyer_means_itself_and_the_operator_whom_it_names() -> None:
    buyer, operator = token("acme", ACME), token("noc", NOC)
    assert (buyer_of(buyer), buyer_of(operator)) == ("acme", "")
    assert own_buyer(buyer, "", "not yours") == own_buyer(buyer, "acme", "not yours") == "acme"
    assert (own_buyer(operator, "", ""), own_buyer(operator, "bolt", "")) == ("", "bolt")
    with pytest.raises(ProblemError, match="not yours") as refused:
        own_buyer(buyer, "bolt", "not yours")
    assert refused.value.status == 403
