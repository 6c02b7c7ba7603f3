"""A lead's phone is the number that the suppression lists take it for, or none: never another person's."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.numbers import NumberError, normalise
from router import lead as lead_module
from router.lead import MAX_FIELDS, MAX_VALUE, NOT_A_NUMBER, Lead, read_lead
from suppression import changes, scrub
from suppression.reading import batches, layout
from tests.props.test_numbers import SPELLINGS, spell

CALLER = "+18005550199"
WRITTEN = (
    *(spell("2125550100", how) for how in SPELLINGS),
    "00442079460000",
    "011 44 20 7946 0000",
    "sip:+12125550100@h;user=phone",
    "sips:12125550100@h:5061",
    "+1\u202f212\u202f555\u202f0100",
    "\u200b2125550100",
    "212\u2014555\u20140100",
    "tel:5550100;phone-context=+1212",
    "(212) 555-0100 ext. 12",
)
UNREADABLE = (
    "",
    " ",
    "call me",
    "555-0100",
    "911",
    "2121550100",
    "2125550100;npdi",
    "1" * 70,
    "9" * 2000,
    "+1212555010012345",
)


def _by_header(text: str) -> Lead:
    return read_lead({"x-lead-phone": [text]}, b"", CALLER)


def _by_json(value: object) -> Lead:
    return read_lead({"x-lead-phone": ["+12125550188"]}, orjson.dumps({"Phone": value}), CALLER)


def _as_lists_read_it(text: str) -> str:
    try:
        return f"+{normalise(text)}"
    except NumberError:
        return ""


def test_leads_and_lists_have_one_normaliser() -> None:
    assert all(vars(one)["normalise"] is normalise for one in (lead_module, changes, scrub, batches, layout))


@pytest.mark.parametrize("text", WRITTEN)
def test_every_spelling_is_the_number_that_the_lists_take_it_for(text: str) -> None:
    wanted = f"+{normalise(text)}"
    for lead in (_by_header(text), _by_json(text)):
        assert (lead.phone, lead.fields, lead.problems) == (wanted, {"phone": wanted}, ())


@given(st.text(max_size=80) | st.text("0123456789+-.() ;=:@x\t\r\n\x00\u202f", max_size=24) | st.sampled_from(WRITTEN))
@settings(max_examples=500, deadline=None)
def test_any_text_is_what_the_lists_take_it_for_and_never_the_callers_number(text: str) -> None:
    wanted = _as_lists_read_it(text)
    assert _by_header(text).phone == _by_json(text).phone == wanted
    assert (NOT_A_NUMBER in _by_header(text).problems) == (not wanted)


@pytest.mark.parametrize(
    ("value", "phone"),
    [
        (2125550100, "+12125550100"),
        (2125550100.0, "+12125550100"),
        (12125550100.0, "+12125550100"),
        (212555010012345678, ""),
        (2.5, ""),
        (None, ""),
        (True, ""),
        (["+12125550100", "+12125550101"], ""),
        ({"mobile": "+12125550100"}, ""),
    ],
)
def test_a_phone_in_json_is_a_number_or_none(value: object, phone: str) -> None:
    lead = _by_json(value)
    assert (lead.phone, NOT_A_NUMBER in lead.problems) == (phone, not phone)


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_phone_that_cannot_be_read_is_none_and_stays_as_it_was_written(text: str) -> None:
    lead = _by_header(text)
    assert (lead.phone, lead.problems[-1]) == ("", NOT_A_NUMBER)
    assert lead.fields.get("phone", "") == text.strip()[:MAX_VALUE]


def test_the_callers_number_is_taken_where_no_phone_was_given() -> None:
    for caller, phone in ((CALLER, CALLER), ("8005550199", CALLER), ("anonymous", ""), ("", "")):
        lead = read_lead({"x-lead-first-name": ["Ann"]}, b'{"state": "NY"}', caller)
        assert (lead.phone, lead.problems) == (phone, ())
        assert list(lead.fields) == [*(["phone"] if phone else []), "first_name", "state"]


def test_no_number_of_other_fields_drops_the_phone() -> None:
    more = {f"f{at}": "x" for at in range(MAX_FIELDS + 3)}
    for body in ({**more, "phone": "2125550100"}, {"phone": "2125550100", **more}):
        lead = read_lead({}, orjson.dumps(body), CALLER)
        assert lead.phone == "+12125550100"
        assert MAX_FIELDS <= len(lead.fields) <= MAX_FIELDS + 1
        assert any("left out" in one for one in lead.problems)
