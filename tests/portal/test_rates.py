"""How often who may ask: a token, an address without one, and an address whose logins fail; health always."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from portal.http.problems import ProblemError
from portal.http.rate_limit import MAX_KEYS, RateLimit, source
from tests.portal.house import House, bearer, open_house
from tests.portal.test_signed import JSON, LEAD, _signed


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, rates=RateLimit(5, 3)) as one:
        yield one


async def test_a_token_has_so_many_a_minute_and_another_its_own(strict: House) -> None:
    for _ in range(5):
        assert (await strict.ask("acme", "GET", "/buyers")).status_code == 200
    over = await strict.ask("acme", "GET", "/buyers")
    assert (over.status_code, over.headers["content-type"]) == (429, "application/problem+json")
    assert 1 <= int(over.headers["retry-after"]) <= 60
    assert over.headers["x-content-type-options"] == "nosniff"
    assert over.json()["title"] == "Too Many Requests"
    assert (await strict.ask("best", "GET", "/buyers")).status_code == 200


async def test_failures_are_counted_by_address_and_a_good_token_is_let_through(strict: House) -> None:
    path = "/v1/buyers"
    for _ in range(3):
        assert (await strict.client.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 401
    assert (await strict.client.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 429
    assert (await strict.client.get(path)).status_code == 429, "none at all is no better"
    assert (await strict.client.get(path, headers=bearer("acme"))).status_code == 200
    posted = await strict.client.post(
        "/v1/leads", content=LEAD, headers={**JSON, **{k.replace("_", "-"): v for k, v in _signed().items()}}
    )
    assert posted.status_code == 201
    wrong = {**JSON, "X-Baton-Key": "west", "webhook-id": "m", "webhook-timestamp": "1", "webhook-signature": "v1,x"}
    assert (await strict.client.post("/v1/leads", content=LEAD, headers=wrong)).status_code == 429


async def test_what_needs_no_token_is_counted_by_address_but_health(strict: House) -> None:
    for _ in range(5):
        assert (await strict.client.get("/v1/openapi.json")).status_code == 200
    assert (await strict.client.get("/v1/openapi.json")).status_code == 429
    assert (await strict.client.get("/v1/nothing")).status_code == 429
    for _ in range(20):
        assert (await strict.client.get("/v1/health")).status_code == 200
    assert (await strict.client.get("/v1/buyers", headers=bearer("acme"))).status_code == 200


async def test_a_signature_is_counted_as_its_token(strict: House) -> None:
    for number in range(6):
        signed = {name.replace("_", "-"): value for name, value in _signed(message_id=f"m-{number}").items()}
        found = await strict.client.post("/v1/leads", content=LEAD, headers={**JSON, **signed})
        assert found.status_code == (201 if number < 5 else 429)


async def test_the_name_of_a_key_alone_opens_nothing(strict: House) -> None:
    part = {"X-Baton-Key": "west", "webhook-id": "m", "webhook-timestamp": "1"}
    for _ in range(5):
        assert (await strict.client.get("/v1/openapi.json", headers=part)).status_code == 200
    whole = {**part, "webhook-signature": "v1,x"}
    for path in ("/v1/openapi.json", "/v1/nothing", "/v1/leads"):
        assert (await strict.client.get(path, headers=whole)).status_code == 429
    assert (await strict.client.post("/v1/leads", content=LEAD, headers={**JSON, **part})).status_code == 429
    unknown = {**JSON, **whole, "X-Baton-Key": "nobody"}
    assert (await strict.client.post("/v1/leads", content=LEAD, headers=unknown)).status_code == 429


async def test_a_body_that_is_refused_before_its_signature_is_counted_too(strict: House) -> None:
    signed = {name.replace("_", "-"): value for name, value in _signed().items()} | {"Content-Type": "text/plain"}
    found = [(await strict.client.post("/v1/leads", content=LEAD, headers=signed)).status_code for _ in range(4)]
    assert found == [415, 415, 415, 429]


async def test_a_flood_from_everywhere_fills_no_memory() -> None:
    rates = RateLimit(1, 1)
    let_through = 0
    for number in range(MAX_KEYS + 500):
        with contextlib.suppress(ProblemError):
            await rates.of_stranger(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
            let_through += 1
    assert let_through <= MAX_KEYS + 1, "beyond these they share one window"
    assert len(rates._storage.expirations) <= MAX_KEYS + 4
    with pytest.raises(ProblemError):
        await rates.of_stranger("10.0.0.1")


def test_a_subscriber_of_ipv6_is_one_source() -> None:
    assert source("2001:db8:1:2:3:4:5:6") == source("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert source("::ffff:192.0.2.7") == source("192.0.2.7") == "192.0.2.7"
    assert source("") == source("unix") == "unknown"
