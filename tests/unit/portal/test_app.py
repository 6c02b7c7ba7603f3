"""Availability, health, faults, and the description of the API."""

from __future__ import annotations

import re

import orjson
from sqlalchemy.exc import OperationalError

from portal.app import DESCRIPTION
from portal.http.problems import RouterAwayError
from tests.unit.portal.api import AUTH, Api, problem_of

SWITCHES = ("", "/enable", "/disable")


async def test_availability_is_what_the_router_says(api: Api) -> None:
    api.router = {
        "available": False,
        "reason": "closed",
        "refusals": [{"buyer": "acme", "reason": "closed", "detail": "opens at 9"}],
    }
    found = await api.client.get("/v1/availability", params={"campaign": "solar"}, headers=AUTH)
    assert (found.status_code, found.json(), api.asked) == (200, api.router, ["solar"])


async def test_no_router_is_503_with_a_time_to_come_back(api: Api) -> None:
    api.router = RouterAwayError("no router")
    found = await api.client.get("/v1/availability", params={"campaign": "solar"}, headers=AUTH)
    assert problem_of(found, 503)["detail"] == "no router answers"
    assert found.headers["retry-after"] == "5"


async def test_a_campaign_is_required_and_named(api: Api) -> None:
    for query in ("", "?campaign=", f"?campaign={'x' * 65}"):
        problem = problem_of(await api.client.get(f"/v1/availability{query}", headers=AUTH), 422)
        assert problem["errors"][0]["field"] == "campaign"


async def test_health_needs_no_token(api: Api) -> None:
    assert (await api.client.get("/v1/health")).json() == {"status": "ok"}
    api.healthy = False
    problem_of(await api.client.get("/v1/health"), 503)


async def test_faults_are_problems_without_details(api: Api) -> None:
    api.router = ZeroDivisionError("secret of ours")
    found = await api.client.get("/v1/availability", params={"campaign": "x"}, headers=AUTH)
    assert problem_of(found, 500)["detail"] == "a fault of Baton's"
    api.router = OperationalError("select", {}, Exception("the disk"))
    found = await api.client.get("/v1/availability", params={"campaign": "x"}, headers=AUTH)
    assert problem_of(found, 503)["detail"] == "the store cannot be reached"
    problem_of(await api.client.get("/v1/nothing"), 404)
    problem_of(await api.client.delete("/v1/leads"), 405)


async def test_the_description_is_served_and_names_every_path(api: Api) -> None:
    found = (await api.client.get(DESCRIPTION)).json()
    assert found["openapi"].startswith("3.1")
    lists = "/v1/suppression/lists"
    assert set(found["paths"]) == {
        "/v1/leads",
        "/v1/availability",
        "/v1/health",
        lists,
        f"{lists}/{{name}}",
        *(f"{lists}/{{name}}/{what}" for what in ("imports", "entries", "restore", "log")),
        "/v1/suppression/check",
        "/v1/suppression/receipts/verify",
        *(f"/v1/documents{rest}" for rest in ("", "/{number}", "/{number}/file", "/{number}/transfers")),
        *(f"/v1/transfers{rest}" for rest in ("", "/{transfer}", "/{transfer}/recording")),
        *(f"/v1/{what}" for what in ("remedy", "balance", "forecast", "orders", "payments", "payments/reversals")),
        *(f"/v1/live{rest}" for rest in ("", "/events")),
        *(f"/v1/{what}" for what in ("events", "trunks", "webhooks", "webhooks/{buyer}/{name}")),
        *(f"/v1/webhooks/{{buyer}}/{{name}}/{what}" for what in ("roll", "enable", "disable", "test")),
        *(f"/v1/buyers{rest}" for rest in ("", "/{buyer}", "/{buyer}/pause", "/{buyer}/resume")),
        *(f"/v1/buyers/{{buyer}}/endpoints{rest}" for rest in ("", *(f"/{{endpoint}}{one}" for one in SWITCHES))),
        "/v1/credits",
        "/v1/credits/{id}",
        "/v1/credits/{id}/decision",
        "/v1/credits/{id}/re-review",
        "/v1/credit-reasons",
        "/v1/interactions",
        "/v1/interactions/{id}",
        "/v1/interactions/{id}/ratings",
        "/v1/reports",
        "/v1/reports/{day}",
    }
    assert {"Problem", "FieldProblem", "LeadKept", "ListEdit"} <= set(found["components"]["schemas"])


async def test_every_reference_in_the_description_leads_somewhere(api: Api) -> None:
    text = (await api.client.get(DESCRIPTION)).text
    found = orjson.loads(text)
    for reference in set(re.findall(r'"\$ref":"#/components/([^"]+)"', text)):
        kind, name = reference.split("/")
        assert name in found["components"][kind], reference
