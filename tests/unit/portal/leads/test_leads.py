"""Leads that dialers post."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from portal.http.bodies import MAX_BODY
from portal.http.problems import ProblemError
from portal.leads.document import read_document
from tests.unit.portal.api import EAST, LEAD, Api, problem_of


async def test_a_lead_is_kept_in_one_spelling(api: Api) -> None:
    posted = await api.post()
    assert posted.status_code == 201, posted.text
    assert posted.headers["cache-control"] == "no-store"
    kept = await api.leads.get(posted.json()["lead_id"], "west")
    assert kept is not None
    assert orjson.loads(kept) == {
        "phone": "+12125550123",
        "first_name": "Ann",
        "age": "41",
        "owner": "true",
        "note": "",
    }
    assert posted.json()["expires_at"].endswith("Z")


async def test_a_key_makes_posting_idempotent(api: Api) -> None:
    first = await api.post(Idempotency_Key="k-1")
    again = await api.post({**LEAD, "phone": "+1 212 555 0123"}, Idempotency_Key="k-1")
    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    other = problem_of(await api.post({"phone": "2125550199"}, Idempotency_Key="k-1"), 409)
    assert other["errors"][0]["field"] == "Idempotency-Key"
    theirs = await api.post({"phone": "2125550199"}, Idempotency_Key="k-1", Authorization=f"Bearer {EAST}")
    assert theirs.status_code == 201, "another dialer's keys are its own"


@pytest.mark.parametrize(
    ("lead", "status", "field", "said"),
    [
        (b"{", 400, "", "the body is not JSON"),
        (b'{"phone": "+12125550100", "phone": "+12125550101"}', 400, "", "is given twice"),
        (b"\xff", 400, "", "the body is not JSON"),
        (b"[" * 5_000, 400, "", "the body is not JSON"),
        ([], 422, "", "not a JSON object"),
        ({}, 422, "phone", "is required"),
        ({"phone": ""}, 422, "phone", "is required"),
        ({"phone": "12"}, 422, "phone", "is not a phone number"),
        ({"phone": ["2125550123"]}, 422, "phone", "is not text"),
        ({"phone": "2125550123", "x": "y" * 1001}, 422, "x", "has more than 1000 characters"),
        ({"phone": "2125550123", "x" * 41: "y"}, 422, "x" * 40, "the name of a field"),
        ({"phone": "2125550123", "!": "y"}, 422, "!", "the name of a field"),
        ({"phone": "2125550123", "Phone": "y"}, 422, "Phone", "means the same field as another: phone"),
        ({"phone": "2125550123", "x": {"y": 1}}, 422, "x", "is not text"),
        ({"phone": "2125550123", **{f"f{n}": "" for n in range(64)}}, 422, "", "more than 64 fields"),
    ],
)
async def test_a_lead_that_cannot_be_used_is_refused_by_its_field(
    api: Api, lead: Any, status: int, field: str, said: str
) -> None:
    problem = problem_of(await api.post(lead), status)
    if field:
        assert [one["field"] for one in problem["errors"]] == [field]
        assert said in problem["errors"][0]["detail"]
    else:
        assert said in problem["detail"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ('application/json;charset="UTF-8"', 201),
        ("application/json; charset=iso-8859-1", 415),
        ("application/json; charset=utf-16", 415),
        ("application/json; charset=", 415),
        ("application/json; charset=utf-8; charset=latin-1", 415),
        ("text/json", 415),
    ],
)
async def test_a_lead_comes_in_utf_8(api: Api, kind: str, status: int) -> None:
    assert (await api.post(LEAD, Content_Type=kind)).status_code == status


async def test_every_wrong_field_is_named_at_once(api: Api) -> None:
    problem = problem_of(await api.post({"phone": "no", "a": [], "b": "y" * 2000}), 422)
    assert [one["field"] for one in problem["errors"]] == ["a", "b", "phone"]


def test_control_characters_do_not_get_through() -> None:
    lead = orjson.loads(read_document(orjson.dumps({"phone": "2125550123", "name": "Ann\r\nX-Evil: 1\x00"})))
    assert lead["name"] == "Ann X-Evil: 1"


def test_the_largest_lead_fits_the_body() -> None:
    fields = {f"{'f' * 38}{n:02}": "\N{GRINNING FACE}" * 1000 for n in range(63)}
    body = orjson.dumps({"phone": "2125550123", **fields})
    assert len(body) <= MAX_BODY
    assert len(orjson.loads(read_document(body))) == 64
    with pytest.raises(ProblemError):
        read_document(orjson.dumps({"phone": "2125550123", **fields, "more": ""}))


async def test_size_and_kind_of_a_body_are_bounded(api: Api) -> None:
    problem_of(await api.post(b" " * (MAX_BODY + 1)), 413)
    found = problem_of(await api.post(Content_Type="text/plain"), 415)
    assert found["errors"][0]["field"] == "Content-Type"
    found = problem_of(await api.post(Idempotency_Key="k" * 201), 400)
    assert found["errors"][0]["field"] == "Idempotency-Key"
