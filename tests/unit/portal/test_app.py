"""The HTTP API over ASGI: tokens, leads, availability, and every error as a problem that names the field."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import structlog
from sqlalchemy.exc import OperationalError
from starlette.requests import ClientDisconnect

from baton.process.portal_control import _token as _as_token
from baton.suppression_lists import list_store
from book.problems import ConfigError
from config.settings import load
from meter.credits.rules import load_reasons
from meter.journal.sql.leads import LeadStore
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.text.signing import sign
from portal.app import DESCRIPTION, create_app
from portal.availability.service import AvailabilityService
from portal.credits.service import CreditsService
from portal.health.service import HealthService
from portal.http.bodies import MAX_BODY
from portal.http.problems import ProblemError, RouterAwayError
from portal.http.services import Services
from portal.http.tokens import Scope, Token, TokenBook, find
from portal.leads.document import read_document
from portal.leads.service import LeadsService
from portal.lists.service import ListsService
from suppression.receipt import Signer

WEST, EAST, ACME, NOC = "w" * 32, "e" * 40, "a" * 32, "n" * 32
AUTH = {"Authorization": f"Bearer {WEST}"}
SWITCHES = ("", "/enable", "/disable")
LEAD = {"phone": "(212) 555-0123", "First-Name": "Ann", "age": 41, "owner": True, "note": None}
BASE = '[[listeners]]\nname = "main"\ntransport = "udp"\n[[dialers]]\nname = "west"\nallow = ["192.0.2.0/24"]\n'


def _token(name: str, secret: str) -> Token:
    import hashlib

    scope = Scope.BUYER if name == "acme" else Scope.OPERATOR if name == "noc" else Scope.DIALER
    return Token(name, hashlib.sha256(secret.encode()).hexdigest(), scope, "" if scope is Scope.OPERATOR else name)


async def _no_buyers() -> tuple[str, ...]:
    return ()


class Api:
    """The app on a real store, a router that says what it is told to, and a client."""

    def __init__(self, leads: LeadStore, desk: ListsService, credit_office: CreditsService) -> None:
        self.router: dict[str, Any] | Exception = {"available": True, "reason": "", "refusals": []}
        self.healthy = True
        self.leads = leads
        self.asked: list[str] = []
        self.tokens = TokenBook((_token("west", WEST), _token("east", EAST), _token("acme", ACME), _token("noc", NOC)))
        services = Services(
            self.tokens,
            LeadsService(leads, 600),
            AvailabilityService(self._availability),
            HealthService(self._healthy),
            desk,
            credit_office,
        )
        transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://portal.invalid")

    async def _availability(self, campaign: str) -> dict[str, Any]:
        self.asked.append(campaign)
        if isinstance(self.router, Exception):
            raise self.router
        return self.router

    async def _healthy(self) -> bool:
        return self.healthy

    async def post(self, lead: Any = LEAD, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = lead if isinstance(lead, bytes) else orjson.dumps(lead)
        given = {"Content-Type": "application/json", **AUTH, **named}
        return await self.client.post("/v1/leads", content=body, headers=given)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    structlog.reset_defaults()  # another test may have left logs that go to a stream which is closed
    engine = await open_store(f"sqlite:///{tmp_path / 'baton.db'}")
    clerk = Clerk(engine)
    desk = ListsService(
        list_store(engine), tmp_path, Signer(b"k" * 32), _no_buyers, keep_versions=2, max_import_bytes=1_000_000
    )
    one = Api(LeadStore(clerk), desk, CreditsService(clerk, load_reasons()))
    yield one
    await one.client.aclose()
    await clerk.close()
    await engine.dispose()


def _problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["status"], found["type"]) == (status, status, "about:blank")
    return found


# --- leads -----------------------------------------------------------------------------------------------------------


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
    other = _problem(await api.post({"phone": "2125550199"}, Idempotency_Key="k-1"), 409)
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
    problem = _problem(await api.post(lead), status)
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
    problem = _problem(await api.post({"phone": "no", "a": [], "b": "y" * 2000}), 422)
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
    _problem(await api.post(b" " * (MAX_BODY + 1)), 413)
    found = _problem(await api.post(Content_Type="text/plain"), 415)
    assert found["errors"][0]["field"] == "Content-Type"
    found = _problem(await api.post(Idempotency_Key="k" * 201), 400)
    assert found["errors"][0]["field"] == "Idempotency-Key"


# --- who asks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {WEST}", f"Bearer {WEST}x", f"Bearer {WEST[:-1]}"]
)
async def test_without_a_good_token_there_is_nothing(api: Api, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for response in (
        await api.client.post("/v1/leads", json=LEAD, headers=headers),
        await api.client.get("/v1/availability", params={"campaign": "x"}, headers=headers),
    ):
        _problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    assert not api.asked


async def test_leads_are_the_dialers_and_availability_is_no_buyers_business(api: Api) -> None:
    for secret in (ACME, NOC):
        assert "a dialer's token" in _problem(await api.post(Authorization=f"Bearer {secret}"), 403)["detail"]
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
    assert not api.tokens.replace((*api.tokens.all, _token("new", "n" * 40)), {}), "nothing was taken from anybody"
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
    assert _problem(found, 400)["detail"] == "the body was cut short"


def test_a_token_is_found_by_its_hash_and_a_huge_one_is_nobodys() -> None:
    tokens = (_token("west", WEST), _token("east", EAST))
    assert find(tokens, EAST) is tokens[1]
    assert find(tokens, "") is None
    long = _token("long", "x" * 512)
    assert find((long,), "x" * 512) is long
    assert find((long,), "x" * 513) is None


# --- availability, health, the rest ----------------------------------------------------------------------------------


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
    assert _problem(found, 503)["detail"] == "no router answers"
    assert found.headers["retry-after"] == "5"


async def test_a_campaign_is_required_and_named(api: Api) -> None:
    for query in ("", "?campaign=", f"?campaign={'x' * 65}"):
        problem = _problem(await api.client.get(f"/v1/availability{query}", headers=AUTH), 422)
        assert problem["errors"][0]["field"] == "campaign"


async def test_health_needs_no_token(api: Api) -> None:
    assert (await api.client.get("/v1/health")).json() == {"status": "ok"}
    api.healthy = False
    _problem(await api.client.get("/v1/health"), 503)


async def test_faults_are_problems_without_details(api: Api) -> None:
    api.router = ZeroDivisionError("secret of ours")
    found = await api.client.get("/v1/availability", params={"campaign": "x"}, headers=AUTH)
    assert _problem(found, 500)["detail"] == "a fault of Baton's"
    api.router = OperationalError("select", {}, Exception("the disk"))
    found = await api.client.get("/v1/availability", params={"campaign": "x"}, headers=AUTH)
    assert _problem(found, 503)["detail"] == "the store cannot be reached"
    _problem(await api.client.get("/v1/nothing"), 404)
    _problem(await api.client.delete("/v1/leads"), 405)


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


# --- settings --------------------------------------------------------------------------------------------------------


def _load(folder: Path, portal: str) -> Any:
    file = folder / "baton.toml"
    file.write_text(BASE + portal, encoding="utf-8")
    return load(file, {}).portal


def _one_token(secret: str, name: str = "w", dialer: str = "west") -> str:
    return f'[[portal.tokens]]\nname = "{name}"\nsecret = "{secret}"\ndialer = "{dialer}"\n'


def _signing(secret: str, owner: str = 'dialer = "west"') -> str:
    return f'[[portal.tokens]]\nname = "w"\nsigning_secrets = ["{secret}"]\n{owner}\n'


def test_a_dialer_may_have_secrets_to_sign_with_and_no_token(tmp_path: Path) -> None:
    keys = ("whsec_" + "QUJD" * 8, "a text of twenty-four characters")
    text = f'[portal]\n[[portal.tokens]]\nname = "w"\nsigning_secrets = {list(keys)}\ndialer = "west"\n'
    made = [_as_token(one) for one in _load(tmp_path, text.replace("'", '"') + _one_token(WEST, "v")).tokens]
    assert [(one.digest != "", one.secrets) for one in made] == [(False, keys), (True, ())]
    assert keys[0] not in repr(made)
    assert find(made, "") is None
    for key in keys:
        assert sign(key, "m", 1, b"").startswith("v1,")


def test_a_token_may_be_given_as_its_hash(tmp_path: Path) -> None:
    plain, hashed = _token("w", WEST).digest, _load(tmp_path, "[portal]\n" + _one_token(WEST)).tokens[0].digest
    assert plain == hashed
    assert _load(tmp_path, "[portal]\n" + _one_token(f"sha256:{plain}")).tokens[0].digest == plain


def test_a_token_is_a_dialers_a_buyers_or_the_operators(tmp_path: Path) -> None:
    owners = ('dialer = "west"', 'buyer = "acme"', "operator = true")
    text = "[portal]\n" + "".join(
        f'[[portal.tokens]]\nname = "t{at}"\nsecret = "{str(at) * 32}"\n{owner}\n' for at, owner in enumerate(owners)
    )
    found = [_as_token(one) for one in _load(tmp_path, text).tokens]
    assert [(one.scope, one.of) for one in found] == [("dialer", "west"), ("buyer", "acme"), ("operator", "")]


def test_a_token_may_come_from_the_environment_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "baton.toml"
    file.write_text(BASE + '[portal]\n[[portal.tokens]]\nname = "far-west"\ndialer = "west"\n', encoding="utf-8")
    portal = load(file, {"BATON_PORTAL__TOKENS__FAR_WEST__SECRET": WEST}).portal
    assert portal is not None
    assert portal.tokens[0].digest == _token("w", WEST).digest


@pytest.mark.parametrize(
    ("portal", "said"),
    [
        ('[portal]\naddress = "0.0.0.0"\n', "portal: address 0.0.0.0 is not loopback: certificate_file and key_file"),
        ('[portal]\nkey_file = "k.pem"\n', "portal: certificate_file and key_file go together"),
        ("[portal]\n" + _one_token("short"), "portal.tokens[0].secret: needs 32 or more printable"),
        ("[portal]\n" + _one_token("sha256:abc"), "portal.tokens[0].secret: sha256: is followed by 64 digits"),
        ("[portal]\n" + _one_token(WEST, dialer="zeus"), "portal.tokens[0].dialer: 'zeus' is not a [[dialers]] entry"),
        ("[portal]\n" + _one_token(WEST) + 'buyer = "acme"\n', "portal.tokens[0]: needs exactly one of dialer, buyer"),
        ("[portal]\n" + _one_token(WEST) + "operator = true\n", "portal.tokens[0]: needs exactly one of dialer, buyer"),
        (
            f'[portal]\n[[portal.tokens]]\nname = "w"\nsecret = "{WEST}"\noperator = false\n',
            "portal.tokens[0]: needs exactly one of dialer, buyer and operator = true",
        ),
        ("[portal]\nmax_import_mb = 0\n", "portal.max_import_mb: "),
        ("[portal]\nrequests_per_minute = 0\n", "portal.requests_per_minute: "),
        ("[portal]\nmax_streams = 500\n", "portal.max_streams: "),
        ("[portal]\n" + _signing("short"), "portal.tokens[0].signing_secrets[0]: is a key of 24 to 64 bytes"),
        ("[portal]\n" + _signing("whsec_!!"), "portal.tokens[0].signing_secrets[0]: whsec_ is followed by base64"),
        ("[portal]\n" + _signing("whsec_YWJj"), "portal.tokens[0].signing_secrets[0]: is a key of 24 to 64 bytes"),
        ("[portal]\n" + _signing(WEST, 'buyer = "acme"'), "portal.tokens[0]: signing_secrets are a dialer's"),
        ('[portal]\n[[portal.tokens]]\nname = "w"\ndialer = "west"\n', "portal.tokens[0]: needs secret, or signing_"),
        ("[portal]\n" + _one_token(WEST) + _one_token(EAST), "two of [[portal.tokens]] have the same name"),
        ("[portal]\n" + _one_token(WEST) + _one_token(WEST, "v"), "two of [[portal.tokens]] have the same secret"),
    ],
)
def test_a_portal_that_cannot_be_run_is_a_problem(tmp_path: Path, portal: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, portal)
    assert said in str(caught.value)
    assert WEST not in str(caught.value)


def test_without_the_section_there_is_no_portal(tmp_path: Path) -> None:
    assert _load(tmp_path, "") is None
    tls = '[portal]\naddress = "::"\ncertificate_file = "c.pem"\nkey_file = "k.pem"\n'
    assert _load(tmp_path, tls).certificate_file == tmp_path / "c.pem"
