"""Webhooks and trunks over HTTP, against a real HTTPS endpoint."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from standardwebhooks.webhooks import Webhook as Verifier

from meter.book.sql.trunks import put_trunks
from meter.text.signing import new_secret, sign
from meter.webhooks.channel import WebhookOptions
from meter.webhooks.http_post import PostOptions
from meter.webhooks.sql import Standing, Webhook, disable, put_standing, read_hooks
from portal.http.rate_limit import TRIALS_PER_MINUTE, RateLimit
from tests.portal.house import House, open_house
from tests.store.meter.webhooks.test_webhooks import Endpoint, certificates, endpoint

__all__ = ["certificates", "endpoint"]  # fixtures
URL = "https://crm.acme.example/leads?key=very-secret"


@pytest.fixture
async def shop(tmp_path: Path, certificates: Path) -> AsyncIterator[House]:
    """A portal that may post to the endpoint of this machine."""
    options = WebhookOptions(PostOptions(frozenset({"localhost"}), 5.0, str(certificates / "ca.pem")))
    async with open_house(tmp_path, rates=RateLimit(1_000, 100), webhooks=options) as one:
        yield one


async def _put(house: House, who: str = "acme", path: str = "acme/crm", **said: Any) -> Any:
    return await house.ask(who, "PUT", f"/webhooks/{path}", json={"url": URL, **said})


async def test_a_secret_is_told_once_and_again_when_it_is_rolled(house: House) -> None:
    first = await _put(house, events=["failed"], redact_fields=["email"], mask_phone=True)
    assert first.status_code == 201, first.text
    made = first.json()
    assert (made["created"], made["secret"][:6]) == (True, "whsec_")
    again = await _put(house, "noc", events=["failed"], redact_fields=["email"], mask_phone=True)
    assert (again.status_code, again.json()) == (200, made | {"created": False, "secret": ""})
    listed = await house.ask("acme", "GET", "/webhooks")
    assert listed.json() == {
        "webhooks": [
            {
                "buyer": "acme",
                "name": "crm",
                "url": URL,
                "events": ["failed"],
                "lead_fields": ["*"],
                "redact_fields": ["email"],
                "mask_phone": True,
                "state": "ok",
                "failing_since": None,
                "failures": 0,
                "next_try_at": None,
                "disabled_at": None,
                "error": "",
            }
        ],
        "next": None,
    }
    assert "whsec_" not in listed.text
    rolled = (await house.ask("acme", "POST", "/webhooks/acme/crm/roll")).json()
    assert rolled["secret"] not in ("", made["secret"])
    ((hook, _),) = await house.books.read(read_hooks)
    assert hook.secrets == (rolled["secret"], made["secret"])


async def test_a_buyer_has_its_own_and_the_operator_all(house: House) -> None:
    for who, path in (("acme", "acme/crm"), ("noc", "best/crm"), ("noc", "best/also")):
        assert (await _put(house, who, path)).status_code == 201
    names = [(one["buyer"], one["name"]) for one in (await house.get("noc", "/webhooks"))["webhooks"]]
    assert names == [("acme", "crm"), ("best", "also"), ("best", "crm")]
    assert (
        await house.walk("noc", "/webhooks", "webhooks", limit=1) == (await house.get("noc", "/webhooks"))["webhooks"]
    )
    assert len((await house.get("noc", "/webhooks", buyer="best"))["webhooks"]) == 2
    assert [one["buyer"] for one in (await house.get("acme", "/webhooks"))["webhooks"]] == ["acme"]
    assert (await house.ask("acme", "GET", "/webhooks", params={"buyer": "best"})).status_code == 403
    for method, what in (("PUT", ""), ("POST", "/roll"), ("POST", "/enable"), ("POST", "/disable"), ("POST", "/test"),
                         ("DELETE", "")):  # fmt: skip
        for who, path, status in (("acme", "best/crm", 404), ("west", "acme/crm", 403), ("", "acme/crm", 401)):
            found = await house.ask(who, method, f"/webhooks/{path}{what}", **({"json": {}} if method == "PUT" else {}))
            assert found.status_code == status, (who, method, what)
        if method != "PUT":
            assert (await house.ask("noc", method, f"/webhooks/best/gone{what}")).status_code == 404
    assert (await _put(house, "noc", "nobody/crm")).status_code == 404
    assert len((await house.get("noc", "/webhooks"))["webhooks"]) == 3


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"url": "http://crm.acme.example/"}, "url"),
        ({"url": "https://user:password@crm.acme.example/"}, "url"),
        ({"url": ""}, "url"),
        ({"url": "https://crm.acme.example/" + "x" * 2_000}, "url"),
        ({"events": []}, "events"),
        ({"events": ["started"]}, "events"),
        ({"lead_fields": [""]}, "lead_fields[0]"),
        ({"lead_fields": ["x"] * 65}, "lead_fields"),
        ({"redact_fields": [7]}, "redact_fields[0]"),
        ({"mask_phone": "yes"}, "mask_phone"),
        ({"secret": "whsec_x"}, "secret"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_kept(house: House, said: dict[str, Any], field: str) -> None:
    found = await _put(house, **said)
    assert (found.status_code, [one["field"] for one in found.json()["errors"]]) == (422, [field]), found.text
    assert (await house.get("acme", "/webhooks"))["webhooks"] == []


async def test_no_more_than_ten_of_a_buyer(house: House) -> None:
    for number in range(10):
        assert (await _put(house, path=f"acme/h{number}")).status_code == 201
    over = await _put(house, path="acme/h10")
    assert (over.status_code, over.json()["errors"][0]["field"]) == (422, "name")
    assert (await _put(house, path="acme/h9")).status_code == 200


async def test_it_is_disabled_enabled_and_removed(house: House) -> None:
    await _put(house)
    off = (await house.ask("acme", "POST", "/webhooks/acme/crm/disable")).json()
    assert off == {"buyer": "acme", "name": "crm", "enabled": False, "revived": 0}
    (shown,) = (await house.get("acme", "/webhooks"))["webhooks"]
    assert (shown["state"], shown["error"], shown["disabled_at"] is not None) == (
        "disabled",
        "disabled over HTTP",
        True,
    )
    assert (await house.ask("acme", "POST", "/webhooks/acme/crm/enable")).json()["enabled"]
    ((hook, _),) = await house.books.read(read_hooks)
    failing = Standing(time.time_ns() // 1000, 3, time.time_ns() // 1000, None, "answered 500")
    await house.books.write(put_standing, hook, failing)
    (shown,) = (await house.get("acme", "/webhooks"))["webhooks"]
    assert (shown["state"], shown["failures"], shown["error"]) == ("failing", 3, "answered 500")
    gone = await house.ask("acme", "DELETE", "/webhooks/acme/crm")
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await house.get("acme", "/webhooks"))["webhooks"] == []


@pytest.mark.net
async def test_a_sample_is_posted_signed_and_its_status_told(shop: House, endpoint: Endpoint) -> None:
    made = (await _put(shop, url=endpoint.url())).json()
    endpoint.answers = [b"204 No Content", b"500 Oops"]
    found = await shop.ask("acme", "POST", "/webhooks/acme/crm/test")
    assert found.json() == {"taken": True, "status": 204, "error": ""}
    ((headers, body),) = endpoint.got
    assert Verifier(made["secret"]).verify(body, headers)["type"] == "transfer.test"
    assert (await shop.ask("noc", "POST", "/webhooks/acme/crm/test")).json()["status"] == 500
    await shop.books.write(disable, "acme", "crm", "by a test")
    assert (await shop.ask("acme", "POST", "/webhooks/acme/crm/test")).json()["taken"] is False
    await endpoint.stop()
    away = (await shop.ask("acme", "POST", "/webhooks/acme/crm/test")).json()
    assert (away["taken"], away["status"], bool(away["error"])) == (False, None, True)


@pytest.mark.net
async def test_a_sample_goes_to_no_private_address_and_not_too_often(shop: House, endpoint: Endpoint) -> None:
    await _put(shop, url=endpoint.url(host="127.0.0.1"))
    for number in range(TRIALS_PER_MINUTE + 1):
        found = await shop.ask("acme", "POST", "/webhooks/acme/crm/test")
        assert found.status_code == (200 if number < TRIALS_PER_MINUTE else 429)
        if number < TRIALS_PER_MINUTE:
            assert (found.json()["taken"], found.json()["status"]) == (False, None)
    assert 1 <= int(found.headers["retry-after"]) <= 60
    assert endpoint.got == []
    await _put(shop, "noc", "best/crm", url=endpoint.url(host="127.0.0.1"))
    assert (await shop.ask("best", "POST", "/webhooks/best/crm/test")).status_code == 200, "another has its own"


def test_the_example_of_the_page_for_buyers_verifies_what_is_signed() -> None:
    page = (Path(__file__).parents[2] / "docs/buyer.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    made: dict[str, Any] = {}
    exec(code, made)
    secrets, body, at = [new_secret(), new_secret()], b'{"type": "transfer.failed"}', int(time.time())
    signatures = " ".join(sign(one, "t-1.outcome", at, body) for one in secrets)
    headers = {"webhook-id": "t-1.outcome", "webhook-timestamp": str(at), "webhook-signature": signatures}
    assert all(made["genuine"](one, headers, body) for one in secrets)
    assert not made["genuine"](new_secret(), headers, body)
    assert not made["genuine"](secrets[0], headers, body + b" ")
    assert not made["genuine"](secrets[0], headers | {"webhook-timestamp": str(at - 400)}, body)


async def test_no_secret_and_no_address_reaches_a_log(house: House) -> None:
    with structlog.testing.capture_logs() as logs:
        made = (await _put(house)).json()
        rolled = (await house.ask("acme", "POST", "/webhooks/acme/crm/roll")).json()
        await house.ask("acme", "DELETE", "/webhooks/acme/crm")
    said = str(logs)
    assert [one["event"] for one in logs] == ["webhook_put", "webhook_rolled", "webhook_removed"]
    assert not any(one in said for one in (made["secret"], rolled["secret"], "very-secret", "whsec_"))
    assert "whsec_" not in repr(Webhook("acme", "crm", URL, secrets=(made["secret"],)))


async def test_trunks_are_shown_as_the_routers_see_them(house: House) -> None:
    now = 1_780_408_800_000_000
    await house.books.write(put_trunks, "r1", {"acme/pbx": "up", "best/pbx": "down", "carrier/main": "up"}, now)
    await house.books.write(put_trunks, "r2", {"acme/pbx": "suspect", "acme-2/pbx": "up"}, now)
    trunks = await house.walk("noc", "/trunks", "trunks", limit=2)
    assert [(one["router"], one["trunk"], one["state"]) for one in trunks] == [
        ("r1", "acme/pbx", "up"),
        ("r1", "best/pbx", "down"),
        ("r1", "carrier/main", "up"),
        ("r2", "acme-2/pbx", "up"),
        ("r2", "acme/pbx", "suspect"),
    ]
    assert trunks[0]["since"] == "2026-06-02T14:00:00Z"
    own = (await house.get("acme", "/trunks"))["trunks"]
    assert [(one["router"], one["trunk"], one["state"]) for one in own] == [
        ("", "acme/pbx", "up"),
        ("", "acme/pbx", "suspect"),
    ]
    assert (await house.get("bolt", "/trunks"))["trunks"] == []
    assert (await house.ask("west", "GET", "/trunks")).status_code == 403
