"""HTML pages: found in the folder of their noun, in the frame of all, with every value escaped."""

from __future__ import annotations

import base64
import hashlib

import pytest
from jinja2 import TemplateNotFound, UndefinedError

from portal.http.pages import Pages, message


def test_a_page_says_what_it_is_told_and_runs_nothing_of_it() -> None:
    response = message(404, "<script>", "a & b")
    text = bytes(response.body).decode()
    assert response.status_code == 404
    assert "<script>" not in text
    assert "<h1>&lt;script&gt;</h1>" in text
    assert "<p>a &amp; b</p>" in text


def test_the_style_of_the_frame_is_the_one_that_the_policy_allows() -> None:
    response = message(200, "title", "text")
    style = bytes(response.body).decode().partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in response.headers["content-security-policy"]


def test_a_noun_has_its_own_pages_and_the_shared_ones_alone() -> None:
    pages = Pages("portal.credits")
    assert pages.page("message.html.jinja", title="shared", text="").status_code == 200
    with pytest.raises(TemplateNotFound):
        pages.page("rating.html.jinja")
    with pytest.raises(UndefinedError):
        pages.page("credit.html.jinja")
