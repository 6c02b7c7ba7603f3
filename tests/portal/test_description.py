"""The whole description held against a portal that runs: schemathesis asks every route, with a token of each scope.

Whatever it asks, a good request or a broken one: no answer is a fault, each has a status, a media type, headers and a
body that the description tells of. Every route is asked as generated, and once more for things that are there. The
requests are the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import portal.events.service
import portal.live.service
from portal.app import describe
from tests.portal.house import Served, bearer, served

EXAMPLES, FEWER = 5, 2  # of each route and token, beside those that the schema itself suggests
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
THERE = {"buyer": "acme", "endpoint": "pbx", "transfer": "t-2", "number": "INV-000001", "name": "dnc"}
CONFIG = SchemathesisConfig.from_dict(
    {
        "seed": 7,
        "generation": {"deterministic": True, "database": "none"},
        "phases": {"coverage": {"enabled": False}, "stateful": {"enabled": False}},
    }
)
schema = schemathesis.openapi.from_dict(describe(), config=CONFIG)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portal.live.service, "LONGEST_S", 0.2)  # a stream, too, has an end
        patch.setattr(portal.events.service, "LONGEST_S", 0.2)
        with served(tmp_path_factory.mktemp("portal"), period_s=0.05) as one:
            imports = f"{one.url}/v1/suppression/lists/dnc/imports"
            assert requests.post(imports, data=b"phone\n+12125550188\n", headers=bearer("acme"), timeout=20).ok
            hook = {"url": "https://localhost:1/leads"}  # which is not posted to: it leads to this machine
            assert requests.put(f"{one.url}/v1/webhooks/acme/dnc", json=hook, headers=bearer("acme"), timeout=20).ok
            yield one


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as one:
        yield one


def _hold(case: Case, running: Served, session: requests.Session, who: str) -> None:
    headers: dict[str, Any] = bearer(who) if who else {}
    response = case.call(base_url=running.url, session=session, headers=headers, timeout=20)
    case.validate_response(response, checks=CHECKS)


REPEATABLE = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("who", ["noc", "acme"])
@schema.parametrize()
@settings(REPEATABLE, max_examples=EXAMPLES)
def test_the_portal_keeps_what_its_description_says(
    case: Case, running: Served, session: requests.Session, who: str
) -> None:
    _hold(case, running, session, who)
    if case.path_parameters:
        there = {**THERE, "id": "t-2" if "interactions" in case.path else 1}
        case.path_parameters = {name: there.get(name, value) for name, value in case.path_parameters.items()}
        _hold(case, running, session, who)


@pytest.mark.parametrize("who", ["west", ""])
@schema.parametrize()
@settings(REPEATABLE, max_examples=FEWER)
def test_so_it_does_to_those_who_may_do_little(
    case: Case, running: Served, session: requests.Session, who: str
) -> None:
    _hold(case, running, session, who)
