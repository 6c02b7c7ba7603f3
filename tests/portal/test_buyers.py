"""Buyers, endpoints and orders over HTTP: the book file's fields and checks, nobody's secret, and who may do what."""

from __future__ import annotations

import csv
import io
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from book.model import Buyer, BuyerState, Caps, Endpoint, EndpointKind, Prack, SessionTimer, TrunkPolicy
from book.sections import BuyerEntry, EndpointEntry
from meter.billing.sql import documents
from meter.book.sql.book import BookStore
from meter.book.sql.editing import raw_buyer
from portal.buyers.models import BuyerShown, EndpointShown
from tests.portal.house import ACME, WEEK, House
from tests.store.money_tools import WESTLAKE

NEW = {
    "title": "Zeta Windows",
    "terms": "westlake-fulfillment",
    "lead_emails": ["leads@zeta.example"],
    "caps": {"day": 40},
    "hours": ["mon-fri 09:00-17:00"],
    "endpoints": [{"name": "pbx", "kind": "trunk", "uri": "sip:in@zeta.example", "username": "u", "password": "hush"}],
}


async def _stored(house: House, name: str) -> Buyer:
    return (await BookStore(house.engine).load()).buyers[name]


async def _version(house: House) -> int:
    return await BookStore(house.engine).version()


def _fields(found: Any) -> list[str]:
    return [one["field"] for one in found.json()["errors"]]


async def test_buyers_are_listed_page_by_page_and_shown_whole_without_their_secrets(house: House) -> None:
    assert [one["name"] for one in await house.walk("noc", "/buyers", "buyers", limit=1)] == ["acme", "best", "bolt"]
    own = await house.get("acme", "/buyers")
    assert own == {
        "buyers": [
            {
                "name": "acme",
                "title": "Acme Solar",
                "state": "active",
                "terms": "contract",
                "terms_version": 1,
                "endpoints": 2,
                "buffer_ms": 0,
            }
        ],
        "next": None,
    }
    for who in ("noc", "acme"):
        answer = await house.ask(who, "GET", "/buyers/acme")
        shown = answer.json()
        assert "very secret" not in answer.text
        assert "password" not in shown["endpoints"][0]
        assert [(one["name"], one["secure"], one["has_password"]) for one in shown["endpoints"]] == [
            ("pbx", True, True),
            ("desk", False, False),
        ]
        assert shown["endpoints"][0]["whisper_file"] == ("/srv/prompts/whisper.wav" if who == "noc" else "whisper.wav")
    assert (await house.ask("acme", "GET", "/buyers/best")).status_code == 404
    assert (await house.ask("noc", "GET", "/buyers/nobody")).status_code == 404
    assert (await house.ask("west", "GET", "/buyers")).status_code == 403


def test_what_is_shown_are_the_fields_of_the_book_file() -> None:
    assert set(BuyerShown.model_fields) == {*BuyerEntry.model_fields, "buffer_ms", "terms_version"}
    assert set(EndpointShown.model_fields) == {*EndpointEntry.model_fields, "secure", "has_password"} - {"password"}


async def test_what_was_shown_may_be_sent_back_and_changes_nothing(house: House) -> None:
    shown = await house.ask("noc", "GET", "/buyers/acme")
    before, version = await _stored(house, "acme"), await _version(house)
    put = await house.ask("noc", "PUT", "/buyers/acme", json=shown.json(), headers={"If-Match": shown.headers["etag"]})
    assert (put.status_code, put.json()["changed"], put.json()["book_version"]) == (200, False, version), put.text
    assert put.headers["etag"] == shown.headers["etag"]
    assert await _stored(house, "acme") == before


def test_every_field_of_a_buyer_survives_the_way_there_and_back() -> None:
    policy = TrunkPolicy(
        codecs=("opus", "PCMU"), caller_id="anonymous", asserted_identity=True, transfer_header="X-Id",
        lead_headers=("state",), session_timer=SessionTimer.ALWAYS, session_expires_s=900, session_min_s=100,
        prack=Prack.MANDATORY, ca_file="/ca.pem", certificate_file="/c.pem", key_file="/k.pem",
        registrar="sip:registrar.example", redirect_hosts=("pbx.example",), max_calls=3, probe_s=30,
    )  # fmt: skip
    endpoint = Endpoint(
        "pbx", EndpointKind.TRUNK, "sip:a@b.example", username="u", password="p", ring_timeout_ms=9_000, enabled=False,
        policy=policy, accept_key="5", accept_timeout_ms=4_000, whisper_file="/w.wav", rating_x100=450,
    )  # fmt: skip
    buyer = Buyer(
        "zeta", "Zeta", WESTLAKE, (endpoint, replace(endpoint, name="two", policy=TrunkPolicy())), BuyerState.ACTIVE,
        "Europe/Berlin", "roofing", ("a@b.example",), Caps(1, 2, 3, 4, 5), ("mon-fri 09:00-12:30",), ("2026-12-25",), 7,
        ("NY",), ("TX",), ("212",), ("646",), True, 2, ("1 Main St", "New York"), "PO 7", ("b@b.example",),
        ("r@b.example",), True, "de_DE",
    )  # fmt: skip
    assert len(fields(Buyer)) == 24, "a new field is to be put above as well"
    entry = BuyerEntry.model_validate(raw_buyer(buyer))
    assert tuple(one.to_endpoint() for one in entry.endpoints) == buyer.endpoints
    said = entry.model_dump(exclude={"endpoints", "terms", "state", "caps"})
    assert said == {name: getattr(buyer, name) for name in said}
    assert Caps(**entry.caps.model_dump()) == buyer.caps


async def test_the_operator_creates_and_replaces_a_buyer(house: House) -> None:
    made = await house.ask("noc", "PUT", "/buyers/zeta", json=NEW)
    assert made.status_code == 201, made.text
    assert "hush" not in made.text
    assert (made.json()["changed"], made.json()["buyer"]["state"]) == (True, "active")
    kept = await _stored(house, "zeta")
    assert (kept.title, kept.caps.day, kept.endpoints[0].password) == ("Zeta Windows", 40, "hush")
    version = await _version(house)
    again = await house.ask("noc", "PUT", "/buyers/zeta", json=NEW)
    assert (again.status_code, again.json()["changed"], await _version(house)) == (200, False, version)
    endpoint = {key: value for key, value in NEW["endpoints"][0].items() if key != "password"}
    other = await house.ask("noc", "PUT", "/buyers/zeta", json={**NEW, "title": "Zeta", "endpoints": [endpoint]})
    assert (other.status_code, await _version(house)) == (200, version + 1)
    assert (await _stored(house, "zeta")).endpoints[0].password == "hush", "left out, it stays"
    await house.ask("noc", "PUT", "/buyers/zeta", json={**NEW, "endpoints": [{**endpoint, "username": "v"}]})
    assert (await _stored(house, "zeta")).endpoints[0].password == "", "but not for another user"
    dark = await house.ask("noc", "PUT", "/buyers/zeta", json={**NEW, "endpoints": [{**endpoint, "enabled": False}]})
    assert dark.json()["warnings"] == ["has no enabled endpoint and can take no transfer"]


async def test_all_that_is_wrong_is_named_at_once_and_nothing_is_changed(house: House) -> None:
    version = await _version(house)
    wrong = {
        **NEW,
        "terms": "no-such-terms",
        "time_zone": "Mars/Olympus",
        "caps": {"day": -1},
        "hours": ["whenever"],
        "colour": "red",
        "endpoints": [
            {"name": "a", "kind": "trunk", "uri": "no uri"},
            {"name": "b", "kind": "did", "uri": "+12125550100", "carrier": "nobody"},
            {"name": "b", "kind": "did", "uri": "+12125550101", "carrier": "main", "password": 7},
        ],
    }
    found = await house.ask("noc", "PUT", "/buyers/zeta", json=wrong)
    assert found.status_code == 422
    assert set(_fields(found)) == {
        "terms", "time_zone", "caps.day", "hours[0]", "colour", "endpoints[0]", "endpoints[1].carrier",
        "endpoints[2].name", "endpoints[2].password",
    }  # fmt: skip
    assert await _version(house) == version
    for body in (b"{", b"[]", b"7", b'{"title": "Zeta", "title": "Eta"}'):
        answer = await house.ask(
            "noc", "PUT", "/buyers/zeta", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422)
    other = await house.ask("noc", "PUT", "/buyers/zeta", json={**NEW, "name": "eta"})
    assert (other.status_code, _fields(other)) == (422, ["name"])
    for who, status in (("acme", 403), ("west", 403), ("", 401)):
        assert (await house.ask(who, "PUT", "/buyers/acme", json=NEW)).status_code == status


async def test_if_match_keeps_two_from_undoing_each_other(house: House) -> None:
    tag = (await house.ask("noc", "GET", "/buyers/acme")).headers["etag"]
    path = "/buyers/acme/endpoints/desk"
    assert (await house.ask("noc", "DELETE", path, headers={"If-Match": '"another"'})).status_code == 412
    assert (await house.ask("noc", "DELETE", path, headers={"If-Match": f'"x", {tag}'})).status_code == 204
    stale = await house.ask("noc", "PUT", "/buyers/acme", json=NEW, headers={"If-Match": tag})
    assert (stale.status_code, _fields(stale)) == (412, ["If-Match"])
    assert (await house.ask("noc", "PUT", "/buyers/new", json=NEW, headers={"If-Match": "*"})).status_code == 412
    assert (await house.ask("noc", "PUT", "/buyers/acme", json=NEW, headers={"If-Match": "*"})).status_code == 200


async def test_endpoints_are_put_switched_and_taken_away(house: House) -> None:
    path = "/buyers/acme/endpoints"
    body = {"kind": "trunk", "uri": "sip:new@pbx.example", "ring_timeout_ms": 20_000}
    made = await house.ask("noc", "PUT", f"{path}/new", json=body)
    assert (made.status_code, made.json()["endpoint"]["ring_timeout_ms"]) == (200, 20_000), made.text
    assert [one["name"] for one in (await house.get("acme", path))["endpoints"]] == ["pbx", "desk", "new"]
    wrong = await house.ask("noc", "PUT", f"{path}/new", json={**body, "uri": "x", "kind": "did"})
    assert (wrong.status_code, _fields(wrong)) == (422, ["endpoints[2]"])
    for who in ("acme", "noc"):
        off = await house.ask(who, "POST", f"{path}/pbx/disable")
        assert (off.status_code, off.json()["endpoint"]["enabled"]) == (200, False), off.text
        assert not (await _stored(house, "acme")).endpoints[0].enabled
        on = await house.ask(who, "POST", f"{path}/pbx/enable")
        assert on.json()["endpoint"]["enabled"] is True
    assert (await _stored(house, "acme")).endpoints[0] == ACME.endpoints[0], "its password too"
    again = await house.ask("acme", "POST", f"{path}/pbx/enable")
    assert again.json()["changed"] is False
    assert (await house.ask("noc", "DELETE", f"{path}/new")).status_code == 204
    assert (await house.ask("noc", "DELETE", f"{path}/new")).status_code == 404
    assert (await house.ask("noc", "POST", "/buyers/nobody/endpoints/x/enable")).status_code == 404
    assert (await house.ask("noc", "PUT", "/buyers/nobody/endpoints/x", json=body)).status_code == 404
    assert (await house.ask("acme", "POST", "/buyers/best/endpoints/x/enable")).status_code == 404
    assert (await house.ask("acme", "GET", f"{path}/nothing")).status_code == 404
    assert (await house.get("acme", f"{path}/desk"))["uri"] == "+12125550100"
    for method, more in (("PUT", {"json": body}), ("DELETE", {})):
        assert (await house.ask("acme", method, f"{path}/pbx", **more)).status_code == 403


async def test_a_buyer_pauses_and_resumes_itself_but_ends_no_hold(house: House) -> None:
    store = BookStore(house.engine)
    paused = await house.ask("acme", "POST", "/buyers/acme/pause", json={"reason": "holidays"})
    assert (paused.status_code, paused.json()["before"], paused.json()["state"]) == (200, "active", "paused")
    assert (await _stored(house, "acme")).state is BuyerState.PAUSED
    last = (await store.states("acme"))[-1]
    assert (last["before"], last["after"], last["by"], last["reason"]) == ("active", "paused", "acme", "holidays")
    assert (await house.ask("acme", "POST", "/buyers/acme/resume")).json()["state"] == "active"
    for state in (BuyerState.ON_HOLD, BuyerState.CANCELLED):
        await store.set_buyer_state("acme", state, "office")
        for what in ("pause", "resume"):
            assert (await house.ask("acme", "POST", f"/buyers/acme/{what}")).status_code == 409
        assert (await _stored(house, "acme")).state is state
        assert (await house.ask("noc", "POST", "/buyers/acme/resume")).json()["before"] == state.value
    for who, status in (("best", 404), ("west", 403), ("", 401)):
        assert (await house.ask(who, "POST", "/buyers/acme/pause")).status_code == status
    assert (await house.ask("noc", "POST", "/buyers/nobody/pause")).status_code == 404
    assert (await house.ask("noc", "POST", "/buyers/acme/pause", json={"why": "x"})).status_code == 422


async def test_a_pause_over_a_hold_does_not_get_around_the_unpaid_invoice(house: House) -> None:
    await house.books.run("2026-06-04 17:30")  # best has not paid
    assert (await _stored(house, "best")).state is BuyerState.ON_HOLD
    held = await house.books.documents("best", open_only=True)
    assert isinstance(held[0], documents.Document)
    assert held[0].held_utc_us
    await house.ask("noc", "POST", "/buyers/best/pause")
    refused = await house.ask("best", "POST", "/buyers/best/resume")
    assert (refused.status_code, refused.json()["detail"]) == (409, f"an invoice is due and not paid: {held[0].number}")


async def test_who_orders_for_a_buyer_without_an_address_is_told_so(house: House) -> None:
    """By the order and by the change of the buyer, over HTTP as by command (domain, section 7)."""
    kept = (await house.ask("noc", "GET", "/buyers/best")).json()
    saved = await house.ask("noc", "PUT", "/buyers/best", json={**kept, "lead_emails": []})
    fields = [one.partition(":")[0] for one in saved.json()["warnings"]]
    assert fields[-2:] == ["lead_emails", "billing_emails"]
    week = {"buyer": "best", "week": "2031-06-02"}
    told = (await house.ask("noc", "PUT", "/orders", json={**week, "quantity": 5})).json()["warnings"]
    assert [one.partition(":")[0] for one in told] == ["lead_emails", "billing_emails"]
    assert "failed transfers are charged, and their leads wait until there is one" in told[0]
    nothing = (await house.ask("noc", "PUT", "/orders", json={**week, "quantity": 0})).json()["warnings"]
    assert nothing == []


async def test_orders_are_set_as_by_hand_and_shown_with_what_they_came_to(house: House) -> None:
    week = "2031-06-02"
    body = {"buyer": "best", "week": week, "quantity": 50}
    made = await house.ask("noc", "PUT", "/orders", json=body)
    assert (made.status_code, made.json()) == (200, {**body, "make_up": 0, "changed": True, "warnings": []})
    assert (await house.ask("noc", "PUT", "/orders", json=body)).json()["changed"] is False
    more = await house.ask("noc", "PUT", "/orders", json={**body, "make_up": 5})
    assert (await house.ask("noc", "PUT", "/orders", json={**body, "quantity": 60})).json()["make_up"] == 5
    assert more.json()["make_up"] == 5
    listed = await house.walk("noc", "/orders", "orders", limit=1)
    assert [(one["buyer"], one["week"], one["quantity"]) for one in listed] == [
        ("acme", WEEK, 200),
        ("best", WEEK, 10),
        ("best", week, 60),
    ]
    assert (listed[0]["invoice"], listed[0]["most"], listed[0]["counts"]) == ("INV-000001", 220, "billed")
    assert [one["quantity"] for one in (await house.get("acme", "/orders"))["orders"]] == [200]
    table = await house.ask("best", "GET", "/orders", headers={"Accept": "text/csv"})
    assert [one["quantity"] for one in csv.DictReader(io.StringIO(table.text))] == ["10", "60"]
    old = {"buyer": "bolt", "week": "2026-05-04", "quantity": 1}
    warned = (await house.ask("noc", "PUT", "/orders", json=old)).json()["warnings"]
    assert "1 e-mail waits for an address of bolt already" in warned.pop()  # the invoice of its set-up
    assert "billing_emails: there is none" in warned.pop()
    assert (len(warned), "that week is over" in warned[0]) == (2, datetime.now(UTC).date().isoformat() > "2026-05-11")


@pytest.mark.parametrize(
    ("who", "change", "status", "field"),
    [
        ("noc", {"week": "2026-06-03"}, 422, "week"),
        ("noc", {"week": WEEK}, 422, "week"),
        ("noc", {"quantity": -1}, 422, "quantity"),
        ("noc", {"quantity": "7"}, 422, "quantity"),
        ("noc", {"buyer": "nobody"}, 404, ""),
        ("acme", {}, 403, ""),
        ("west", {}, 403, ""),
    ],
)
async def test_an_order_that_cannot_be_is_refused(
    house: House, who: str, change: dict[str, Any], status: int, field: str
) -> None:
    body = {"buyer": "acme", "week": "2031-06-02", "quantity": 5, **change}
    found = await house.ask(who, "PUT", "/orders", json=body)
    assert found.status_code == status, found.text
    assert _fields(found) == ([field] if field else [])
