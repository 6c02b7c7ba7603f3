"""Leads that a dialer signs, as Standard Webhooks has it, checked against that specification's own library."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from standardwebhooks.webhooks import Webhook

from meter.text.signing import sign
from tests.portal.house import OLD_SECRET, SECRET, House, bearer

LEAD = orjson.dumps({"phone": "+12125550123", "first_name": "Ann"})
JSON = {"Content-Type": "application/json"}


async def _post(house: House, body: bytes = LEAD, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await house.client.post("/v1/leads", content=body, headers={**JSON, **named})


def _signed(body: bytes = LEAD, message_id: str = "msg_1", at_s: float | None = None, secret: str = SECRET) -> Any:
    at = int(time.time() if at_s is None else at_s)
    return {
        "X_Baton_Key": "west",
        "webhook_id": message_id,
        "webhook_timestamp": str(at),
        "webhook_signature": sign(secret, message_id, at, body),
    }


async def test_a_signed_lead_is_kept_and_a_replay_keeps_it_once(house: House) -> None:
    headers = _signed()
    first, again = await _post(house, **headers), await _post(house, **headers)
    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    kept = await house.leads.get(first.json()["lead_id"], "west")
    assert kept is not None
    assert orjson.loads(kept)["phone"] == "+12125550123"
    other = orjson.dumps({"phone": "2125550199"})
    conflict = await _post(house, other, **_signed(other))
    assert (conflict.status_code, conflict.json()["errors"][0]["field"]) == (409, "webhook-id")
    own = await _post(house, **_signed(message_id="msg_2"), Idempotency_Key="prospect-7")
    assert own.status_code == 201
    assert (await _post(house, **_signed(message_id="msg_3"), Idempotency_Key="prospect-7")).status_code == 200


async def test_the_library_of_the_specification_makes_what_is_taken(house: House) -> None:
    now = datetime.now(UTC)
    signature = Webhook(SECRET).sign("msg_9", now, LEAD.decode())
    headers = {"webhook_id": "msg_9", "webhook_timestamp": str(int(now.timestamp())), "webhook_signature": signature}
    assert (await _post(house, X_Baton_Key="west", **headers)).status_code == 201


async def test_both_secrets_are_good_while_they_are_changed(house: House) -> None:
    assert (await _post(house, **_signed(secret=OLD_SECRET))).status_code == 201
    both = _signed(message_id="msg_2")
    both["webhook_signature"] = (
        f"v1a,abc {_signed(message_id='msg_2', secret='x' * 24)['webhook_signature']} " + both["webhook_signature"]
    )
    assert (await _post(house, **both)).status_code == 201


@pytest.mark.parametrize(
    "wrong",
    [
        {"webhook_signature": "v1,AAAA"},
        {"webhook_signature": ""},
        {"webhook_signature": "v1," + "A" * 5_000},
        {"webhook_id": "msg_2"},
        {"webhook_id": "ms\u00e9"},
        {"webhook_id": ""},
        {"webhook_timestamp": "yesterday"},
        {"webhook_timestamp": ""},
        {"webhook_timestamp": "0" * 6_000 + "1"},
        {"X_Baton_Key": "east"},
        {"X_Baton_Key": "noc"},
        {"X_Baton_Key": ""},
        _signed(secret="another secret of 24 bytes"),
        _signed(body=LEAD + b" "),
    ],
)
async def test_what_does_not_fit_is_nobodys(house: House, wrong: dict[str, str]) -> None:
    headers = {name: value.encode("latin-1") for name, value in ({**_signed(), **wrong}).items()}
    found = await _post(house, **headers)  # type: ignore[arg-type]
    assert found.status_code == 401, found.text
    assert found.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("off_s", [-400, 400])
async def test_what_was_signed_long_ago_or_ahead_is_nobodys(house: House, off_s: int) -> None:
    assert (await _post(house, **_signed(at_s=time.time() + off_s))).status_code == 401


async def test_a_signature_opens_nothing_but_leads_and_a_token_goes_before_it(house: House) -> None:
    found = await house.client.get("/v1/transfers", headers={"X-Baton-Key": "west"})
    assert found.status_code == 401
    wrong = {**_signed(), "webhook_signature": "v1,AAAA"}
    assert (await _post(house, **wrong, **bearer("west"))).status_code == 201
    assert (await _post(house, **_signed(message_id="m"), Authorization="Bearer wrong")).status_code == 401
    large = b" " * ((1 << 18) + 1)
    assert (await _post(house, large, **_signed(large))).status_code == 413
