"""The page behind the link of a failed lead's e-mail."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from baton.process.portal import _links
from config.settings import load
from meter.text.links import LinkOptions, credit_link
from portal.http import link_pages
from tests.facts_builder import failed_story
from tests.store.money_tools import Books, at
from tests.unit.portal.credits.api import (
    DECIDE,
    EVIL,
    FORM,
    LINKS,
    WORDS,
    Api,
)


def _path(transfer: str = "t-1", buyer: str = "acme", links: LinkOptions = LINKS) -> str:
    return credit_link(links, transfer, buyer).removeprefix("https://baton.example")


async def _filed(api: Api, form: dict[str, str], transfer: str = "t-1") -> httpx.Response:
    return await api.client.post(_path(transfer), data=form)


async def test_the_page_shows_the_call_a_form_and_what_valid_calls_are(api: Api) -> None:
    found = await api.client.get(_path())
    assert (found.status_code, found.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = found.text
    assert "June 2, 2026, 10:00:00 AM EDT" in page
    assert "until the end of June 6, 2026" in page
    assert "$45.00" in page
    assert "<dd>8.000</dd>" in page, "the times of the ladder"
    assert "486 Busy Here, by the buyer" in page
    assert "by row 10 of the table" in page
    assert 'value="not-owner"' in page
    assert "A call that your voicemail answers is a valid call." in page
    assert await api.get("credits") is not None
    assert (await api.get("credits")).json() == {"credits": [], "next": None}, "opening it changes nothing"


async def test_what_the_lead_says_is_shown_and_never_run(api: Api) -> None:
    page = (await api.client.get(_path())).text
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3, "lead, campaign, endpoint"
    assert "<script" not in page
    assert "<img" not in page
    assert ("\u202e" in page, "\x00" in page) == (False, False)
    assert "=cmd() &lt;img" in page


async def test_the_page_is_kept_by_nobody_and_may_run_nothing(api: Api) -> None:
    for answer in (await api.client.get(_path()), await api.client.get("/credit/x"), await _filed(api, {"reason": ""})):
        headers = answer.headers
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        policy = dict(one.strip().partition(" ")[::2] for one in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert policy["style-src"] == f"'sha256-{digest}'"
        tags = re.findall(r"<[^>]*>", answer.text)
        assert len(tags) > 5
        assert not [tag for tag in tags if re.search(r"\son\w+=|\sstyle=|<script|\ssrc=|<link", tag)]


async def test_every_field_has_its_label_and_ids_are_unique(api: Api) -> None:
    page = (await api.client.get(_path())).text
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    fields = re.findall(r'<(?:input|textarea)[^>]*\sid="([^"]+)"', page)
    assert sorted(fields) == sorted(re.findall(r'<label for="([^"]+)"', page))
    assert len(fields) == len(re.findall(r"<(?:input|textarea|select)\b", page)) > 10
    assert set(re.findall(r'aria-labelledby="([^"]+)"', page)) <= set(ids)


async def test_the_form_files_one_request_and_the_page_then_shows_it(api: Api) -> None:
    made = await _filed(api, {"reason": "duplicate", "words": "one\r\ntwo"})
    assert (made.status_code, made.text) == (303, "")
    assert httpx.URL("https://baton.example" + _path()).join(made.headers["location"]).path == _path()
    [one] = (await api.get("credits", "noc")).json()["credits"]
    assert (one["buyer"], one["asked_by"], one["words"]) == ("acme", "link", "one\ntwo")
    page = (await api.client.get(_path())).text
    assert "Number 1 in line" in page
    assert ("<form" in page, "<dd>one<br>two</dd>" in page) == (False, True)
    again = await _filed(api, FORM)
    assert (again.status_code, "Number 1 in line" in again.text) == (409, True)
    assert len((await api.get("credits", "noc")).json()["credits"]) == 1


async def test_the_page_shows_how_it_was_decided(api: Api) -> None:
    await _filed(api, FORM)
    await api.post("credits/1/decision", {**DECIDE, "explanation": "<b>yes</b>"}, "noc")
    page = (await api.client.get(_path())).text
    assert "Approved. The invoice of next Tuesday uses the credit." in page
    assert "&lt;b&gt;yes&lt;/b&gt;" in page
    assert "Ann" not in page
    await api.post("credits/1/re-review", {"words": "no"}, "noc")
    await api.post("credits/2/decision", {**DECIDE, "decision": "decline", "reviewer": "Bo"}, "noc")
    page = (await api.client.get(_path())).text
    assert ("Re-review 2" in page, "the credit is taken back" in page) == (True, True)


async def test_a_valid_call_is_explained_and_what_was_written_is_kept(api: Api) -> None:
    found = await _filed(api, {"reason": "price-shopper", "words": f"x {EVIL}"})
    assert (found.status_code, "This is a valid call" in found.text) == (422, True)
    assert found.text.count("the conversation, not the sale") == 2, "in the notice, and below"
    assert f"x {EVIL}" not in found.text
    assert "x &#34;&gt;&lt;script&gt;" in found.text
    assert re.search(r'value="price-shopper" required checked', found.text)
    assert (await api.get("credits")).json() == {"credits": [], "next": None}


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"reason": ""}, "Choose one of the reasons."),
        ({"reason": EVIL, "words": WORDS}, "Choose one of the reasons."),
        ({"reason": "duplicate", "words": " "}, "Write what was wrong"),
        ({"reason": "duplicate", "words": "w" * 1_001}, "Write what was wrong"),
    ],
)
async def test_a_form_that_is_wrong_is_told_and_files_nothing(api: Api, form: dict[str, str], said: str) -> None:
    found = await _filed(api, form)
    assert found.status_code == 422
    assert said in found.text
    assert "<title>Error: " in found.text
    assert (await api.get("credits")).json() == {"credits": [], "next": None}


async def test_after_the_window_the_page_says_so_with_the_date(api: Api) -> None:
    api.now = at("2026-06-07 00:00")
    page = await api.client.get(_path())
    assert "could be asked for until the end of June 6, 2026" in page.text
    assert "<form" not in page.text
    assert (await _filed(api, FORM)).status_code == 409
    assert (await api.get("credits")).json() == {"credits": [], "next": None}


async def test_a_call_whose_facts_are_gone_can_still_be_asked_for(api: Api) -> None:
    assert "<form" in (await api.client.get(_path("t-2"))).text
    assert (await _filed(api, FORM, "t-2")).status_code == 303


async def test_a_call_that_was_not_billed_has_a_page_without_a_form(api: Api) -> None:
    told = failed_story("t-free").facts
    await api.books.write(lambda connection: _append(connection, told))
    found = await api.client.get(_path("t-free"))
    assert (found.status_code, "<form" in found.text) == (200, False)
    assert "was not billed" in found.text
    assert (await _filed(api, FORM, "t-free")).status_code == 409


def _append(connection: Any, told: Any) -> None:
    from dataclasses import replace

    from meter.journal.rows import insert_rows, make_row

    insert_rows(connection, [make_row(replace(fact, seq=fact.seq + 1_000), b"")[1] for fact in told])


async def test_a_token_that_was_not_signed_for_this_leads_nowhere(api: Api) -> None:
    other = LinkOptions("https://baton.example", "t" * 32)
    good = _path()
    for path in (
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        _path(links=other),
        "/credit/x",
        "/credit/" + "x" * 600,
    ):
        for answer in (await api.client.get(path), await api.client.post(path, data=FORM)):
            assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert (await api.client.get(_path("t-9"))).status_code == 404
    assert (await api.client.get(_path("t-1", "zeus"))).status_code == 404
    assert (await api.get("credits", "noc")).json() == {"credits": [], "next": None}


async def test_a_link_of_another_buyers_shows_nothing_of_the_call(api: Api) -> None:
    """Nobody signs one; should it be, the call is told to no buyer but who was billed for it."""
    found = await api.client.get(_path("t-1", "bolt"))
    assert found.status_code == 404
    assert "alert" not in found.text
    assert (await api.client.post(_path("t-1", "bolt"), data=FORM)).status_code == 404


async def test_without_links_there_are_no_pages(books: Books) -> None:
    api = Api(books, None)
    for answer in (await api.client.get(_path()), await api.client.post(_path(), data=FORM)):
        assert answer.status_code == 404
    await api.client.aclose()


async def test_a_body_that_is_no_form_or_too_large_is_told_by_a_page(api: Api) -> None:
    cases = [
        ({"Content-Type": "application/json"}, b"{}", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"words=" + b"w" * (1 << 18), 413),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"words=%ff", 400),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"a=1&" * 20, 400),
    ]
    for headers, body, status in cases:
        found = await api.client.post(_path(), content=body, headers=headers)
        assert (found.status_code, "<h1>" in found.text) == (status, True)


async def test_a_store_that_fails_is_told_by_a_page_and_the_token_is_in_no_log(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Log:
        def error(self, event: str, **more: Any) -> None:
            said.append(f"{event} {more}")

    monkeypatch.setattr(link_pages, "_log", Log())
    monkeypatch.setattr("portal.http.problems._log", Log())

    async def broken(*_args: Any) -> Any:
        raise OperationalError("select", {}, Exception("the disk"))

    monkeypatch.setattr(api.service, "see", broken)
    found = await api.client.get(_path())
    assert (found.status_code, found.headers["retry-after"]) == (503, "5")

    async def faulty(*_args: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(api.service, "see", faulty)
    assert (await api.client.get(_path())).status_code == 500
    assert len(said) == 2
    token = _path().rpartition("/")[2]
    assert not [line for line in said if token in line]


def test_the_links_come_from_their_section(tmp_path: Path) -> None:
    file = tmp_path / "baton.toml"
    base = '[[listeners]]\nname = "main"\ntransport = "udp"\n[portal]\n'
    file.write_text(base, encoding="utf-8")
    assert _links(load(file, {})) is None
    file.write_text(f'{base}[links]\nbase_url = "https://baton.example"\nsecret = "{"s" * 32}"\n', encoding="utf-8")
    assert _links(load(file, {})) == LINKS
