"""The pages behind the signed links of per-minute service."""

from __future__ import annotations

import pytest

from meter.text.links import LinkOptions, credit_link, interaction_link, rating_link
from tests.store.money_tools import Books
from tests.store.service_tools import mails, report, said
from tests.unit.portal.per_minute.api import EVIL, LINKS, RATING, Api


def _path(link: str) -> str:
    return link.removeprefix("https://baton.example")


async def test_who_was_served_rates_by_the_link_and_may_change_it(api: Api) -> None:
    made, _ = await report(api.books, said(text="secret text"))
    [mail] = await mails(api.books)
    assert mail["payload"]["to"] == ["jo@example.org"]
    path = _path(rating_link(LINKS, made.id, "acme"))
    page = await api.client.get(path)
    assert (page.status_code, page.text.count('type="radio"'), "Thank you" in page.text) == (200, 5, False)
    assert "secret text" not in page.text, "the link is for rating, not for reading"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    filed = await api.client.post(path, data={"rating": "2", "words": f"\nslow {EVIL}"})
    assert (filed.status_code, filed.headers["location"]) == (303, f"./{path.rpartition('/')[2]}")
    after = await api.client.get(path)
    assert "Thank you" in after.text
    assert 'value="2" required checked' in after.text
    assert EVIL not in after.text
    await api.client.post(path, data={"rating": "5", "words": ""})
    found = await api.service.find(made.id)
    assert [(one.kind.value, one.rating, one.by) for one in found.ratings] == [
        ("caller", 2, "link"),
        ("caller", 5, "link"),
    ]


@pytest.mark.parametrize("form", [{}, {"rating": "0"}, {"rating": "6"}, {"rating": "\u0665"}, {"rating": EVIL}])
async def test_an_answer_that_is_none_files_nothing(api: Api, form: dict[str, str]) -> None:
    made, _ = await report(api.books, said())
    path = _path(rating_link(LINKS, made.id, "acme"))
    found = await api.client.post(path, data={**form, "words": EVIL})
    assert (found.status_code, "Choose one of the five." in found.text, EVIL in found.text) == (422, True, False)
    long = await api.client.post(path, data={"rating": "3", "words": "w" * 1_001})
    assert (long.status_code, "at most 1,000" in long.text) == (422, True)
    assert (await api.service.find(made.id)).ratings == ()


async def test_the_buyers_link_shows_the_interaction_with_its_text_made_safe(api: Api) -> None:
    long = "long " * 3_000
    made, _ = await report(api.books, said(text=f"Dear Jo\n{EVIL}\u202e\n{long}", customer=EVIL))
    await api.post(f"interactions/{made.id}/ratings", {**RATING, "words": EVIL})
    page = await api.client.get(_path(interaction_link(LINKS, made.id, "acme")))
    assert page.status_code == 200
    assert long.strip() in page.text, "nothing of it is cut off"
    assert ("Dear Jo" in page.text, "4 of 5" in page.text, "$3.54" in page.text) == (True, True, True)
    assert ("<script" in page.text, "\u202e" in page.text, "Ann of quality" in page.text) == (False, False, False)


async def test_a_link_for_one_thing_is_none_for_another(api: Api) -> None:
    made, _ = await report(api.books, said())
    wrong = [
        rating_link(LINKS, made.id, "bolt"),
        rating_link(LINKS, made.id, ""),
        rating_link(LINKS, "nothing", "acme"),
        interaction_link(LINKS, made.id, "bolt"),
        rating_link(LINKS, made.id, "acme").replace("/rate/", "/interaction/"),
        interaction_link(LINKS, made.id, "acme").replace("/interaction/", "/rate/"),
        credit_link(LINKS, made.id, "acme").replace("/credit/", "/rate/"),
        rating_link(LinkOptions(LINKS.base_url, "t" * 32), made.id, "acme"),
        "https://baton.example/rate/" + "x" * 600,
    ]
    for link in wrong:
        assert (await api.client.get(_path(link))).status_code == 404, link
    assert (await api.client.post(_path(wrong[0]), data={"rating": "1"})).status_code == 404
    assert (await api.service.find(made.id)).ratings == ()


async def test_without_links_nobody_is_asked_and_there_are_no_pages(books: Books) -> None:
    api = Api(books, None)
    made = await api.post("interactions", said())
    assert (made.status_code, await mails(books)) == (201, [])
    path = _path(rating_link(LINKS, made.json()["id"], "acme"))
    assert (await api.client.get(path)).status_code == 404
    await api.client.aclose()
