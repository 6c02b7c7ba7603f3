"""A lead's phone is the number that the suppression lists take it for, or none: never another person's."""

from __future__ import annotations

from itertools import product

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from book.numbers import NumberError, normalise
from portal.http.problems import ProblemError
from portal.leads.document import read_document
from router import lead as lead_module
from router.lead import ANOTHER_NAME, MAX_FIELDS, MAX_VALUE, NOT_A_NUMBER, TWO_NUMBERS, Lead, read_lead
from suppression import changes, scrub
from suppression.reading import batches, watching
from tests.spellings import ONE, SPELLINGS

CALLER = "+18005550199"
OTHER = "+12125550188"


def _by_header(text: str) -> Lead:
    return read_lead({"x-lead-phone": [text]}, b"", CALLER)


def _by_json(value: object) -> Lead:
    return read_lead({}, orjson.dumps({"Phone": value}), CALLER)


def _posted(value: object) -> Lead:
    return read_lead({}, b"", CALLER, posted=orjson.dumps({"phone": value}))


def _as_lists_read_it(text: str) -> str:
    try:
        return f"+{normalise(text)}"
    except NumberError:
        return ""


def test_leads_and_lists_have_one_normaliser() -> None:
    assert all(vars(one)["normalise"] is normalise for one in (lead_module, changes, scrub, batches, watching))


@pytest.mark.parametrize(("text", "number"), SPELLINGS)
def test_every_spelling_by_header_by_json_and_posted(text: str, number: str | None) -> None:
    for lead in (_by_header(text), _by_json(text), _posted(text)):
        if number is None:
            assert (lead.phone, lead.unread, lead.problems[-1]) == ("", (NOT_A_NUMBER,), NOT_A_NUMBER)
        else:
            assert (lead.phone, lead.fields, lead.problems) == (number, {"phone": number}, ())


@pytest.mark.parametrize(("text", "number"), SPELLINGS)
def test_every_spelling_that_is_posted_over_http(text: str, number: str | None) -> None:
    body = orjson.dumps({"phone": text})
    if number is not None:
        assert orjson.loads(read_document(body)) == {"phone": number}
    else:
        with pytest.raises(ProblemError):
            read_document(body)


_DIGITS = st.text("0123456789+-.() ;=:@x\t\r\n\x00\u202f", max_size=24)


@given(st.text(max_size=80) | _DIGITS | st.sampled_from([text for text, _ in SPELLINGS]))
@settings(max_examples=500, deadline=None)
def test_any_text_is_what_the_lists_take_it_for_and_never_the_callers_number(text: str) -> None:
    wanted = _as_lists_read_it(text)
    assert _by_header(text).phone == _by_json(text).phone == _posted(text).phone == wanted
    assert (_by_header(text).unread == (NOT_A_NUMBER,)) == (not wanted)


_JSON_NUMBERS = (
    (b"2125550123", ONE),
    (b"12125550123", ONE),
    (b"2125550123.0", ONE),
    (b"2.125550123E9", ONE),
    (b"2.125550123e+09", ONE),
    (b"3.10555012E9", ""),
    (b"2.12555012E9", ""),
    (b"212555012E1", ""),
    (b"212555012300e-2", ""),
    (b"2125550123.5", ""),
    (b"2125550123.000000001", ""),
    (b"212555010012345678", ""),
    (b"21255501230000000000000000000000000001", ""),
    (b"1e400", ""),
    (b"2.5", ""),
    (b"null", ""),
    (b"true", ""),
    (b'["+12125550123", "+12125550124"]', ""),
    (b'["+12125550123"]', ""),
    (b'{"mobile": "+12125550123"}', ""),
    (b'"+1212555\\u00000123"', ""),
    (b'"+1212\\n5550123"', ""),
)


@pytest.mark.parametrize(("literal", "phone"), _JSON_NUMBERS)
def test_a_phone_in_json_is_read_to_the_letter(literal: bytes, phone: str) -> None:
    body = b'{"phone": ' + literal + b"}"
    for lead in (read_lead({}, body, CALLER), read_lead({}, b"", CALLER, posted=body)):
        assert (lead.phone, lead.unread) == (phone, () if phone else (NOT_A_NUMBER,))
    if phone:
        assert orjson.loads(read_document(body))["phone"] == phone
    else:
        with pytest.raises(ProblemError):
            read_document(body)


@pytest.mark.parametrize("text", ["", " ", "call me", "555-0100", "911", "1" * 70, "9" * 2000])
def test_a_phone_that_cannot_be_read_stays_as_it_was_written(text: str) -> None:
    assert _by_header(text).fields.get("phone", "") == text.strip()[:MAX_VALUE]


# --- more than one ---

_SAME = ("+12125550123", "(212) 555-0123", "tel:+1-212-555-0123", "2125550123.0")


def _given(headers: list[str], documents: list[str], posted: list[str]) -> Lead:
    names = ("phone", "Phone", "PHONE", "phone ")
    json = "{" + ",".join(f'"{name}":"{one}"' for name, one in zip(names, documents, strict=False)) + "}"
    posts = "{" + ",".join(f'"{name}":"{one}"' for name, one in zip(names, posted, strict=False)) + "}"
    return read_lead(
        {"x-lead-phone": headers} if headers else {},
        json.encode() if documents else b"",
        CALLER,
        posted=posts.encode() if posted else b"",
    )


@given(
    st.lists(st.sampled_from([*_SAME, OTHER, "call me", ""]), min_size=1, max_size=6),
    st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
@settings(max_examples=500, deadline=None)
def test_phones_from_everywhere_are_one_number_or_refused(phones: list[str], places: list[int]) -> None:
    by_place: tuple[list[str], list[str], list[str]] = ([], [], [])
    for phone, place in zip(phones, places, strict=False):
        by_place[place].append(phone)
    lead = _given(*(one[:4] for one in by_place))
    numbers = {_as_lists_read_it(one) for some in by_place for one in some[:4]}
    certain = len(numbers) == 1 and "" not in numbers
    assert lead.phone == (numbers.pop() if certain else "")
    assert bool(lead.unread) is not certain


@pytest.mark.parametrize("pair", list(product((0, 1, 2), repeat=2)))
def test_two_numbers_are_refused_wherever_they_stand(pair: tuple[int, int]) -> None:
    for other in (OTHER, "call me"):
        by_place: tuple[list[str], list[str], list[str]] = ([], [], [])
        by_place[pair[0]].append(ONE)
        by_place[pair[1]].append(other)
        assert _given(*by_place).unread == ((TWO_NUMBERS,) if other == OTHER else (NOT_A_NUMBER,))


def test_names_that_come_to_the_same_are_the_phone_too() -> None:
    for name in ("x-lead--phone", "x-lead-phone-", "x-lead-PHONE".lower()):
        lead = read_lead({"x-lead-phone": [ONE], name: [OTHER]} if name != "x-lead-phone" else {name: [ONE]}, b"", "")
        assert lead.phone == (ONE if name == "x-lead-phone" else "")
    assert read_lead({}, b'{"phone": "+12125550123", "phone": "+12125550123"}', CALLER).phone == ""


# --- JSON that is none ---

GOOD = b'{"phone": "+12125550123"}'
UNREADABLE = {
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "latin-1": '{"phone": "+12125550123", "name": "Zo\u00eb"}'.encode("latin-1"),
    "utf-16": GOOD.decode().encode("utf-16"),
    "utf-16 without a mark": GOOD.decode().encode("utf-16-le"),
    "utf-32": GOOD.decode().encode("utf-32"),
    "cut off": GOOD[:-1],
    "cut off in a string": GOOD[:18],
    "not a number": b'{"phone": "+12125550123", "age": NaN}',
    "infinity": b'{"phone": "+12125550123", "age": -Infinity}',
    "a name twice": b'{"phone": "+12125550123", "phone": "+12125550124"}',
    "a name twice, the same": b'{"a": 1, "a": 1}',
    "a name twice, further in": b'{"more": {"a": 1, "a": 2}}',
    "something behind": GOOD + b"x",
    "another behind": GOOD + GOOD,
    "a nul behind": GOOD + b"\x00",
    "a comma too many": b'{"phone": "+12125550123",}',
    "apostrophes": b"{'phone': '+12125550123'}",
    "no quotes": b"{phone: 12125550123}",
    "a comment": b'{"phone": "+12125550123" /* mobile */}',
    "a control character": b'{"phone": "+12125550123\x01"}',
    "a line end in a string": b'{"phone": "+1212\n5550123"}',
    "half a surrogate": b'{"phone": "+12125550123", "name": "\\ud83d"}',
    "half a surrogate as a name": b'{"\\ud83d": 1}',
    "a leading zero": b'{"phone": 02125550123}',
    "a leading plus": b'{"phone": +12125550123}',
    "too deep": b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}",
    "far too deep": b"[" * 20_000,
    "an array": b'["+12125550123"]',
    "an array of leads": b"[" + GOOD + b"]",
    "a string": b'"+12125550123"',
    "a number": b"12125550123",
    "null": b"null",
    "blank": b"   ",
    "a form": b"phone=%2B12125550123",
    "xml": b"<phone>+12125550123</phone>",
    "base64": b"eyJwaG9uZSI6ICIrMTIxMjU1NTAxMjMifQ==",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_json_that_cannot_be_read_refuses_whatever_else_there_is(body: bytes) -> None:
    for headers in ({}, {"x-lead-phone": [ONE]}):
        for lead in (read_lead(headers, body, CALLER), read_lead(headers, b"", CALLER, posted=body)):
            assert (lead.phone, len(lead.unread)) == ("", 1)
            assert lead.unread[0].startswith("lead: the JSON part cannot be read")
            assert "555" not in lead.unread[0], "what is wrong is said without anybody's number"
    with pytest.raises(ProblemError):
        read_document(body)


@given(st.binary(max_size=60) | st.binary(max_size=12).map(lambda tail: GOOD + tail))
@settings(max_examples=500, deadline=None)
def test_bytes_are_an_object_for_another_reader_too_or_refused(body: bytes) -> None:
    lead = read_lead({}, body, CALLER)
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if body and not isinstance(found, dict):
        assert lead.unread
    if lead.phone == ONE:
        assert isinstance(found, dict)


# --- the rest ---


def test_the_callers_number_is_taken_where_no_phone_was_given() -> None:
    for caller, phone in ((CALLER, CALLER), ("8005550199", CALLER), ("anonymous", ""), ("", "")):
        lead = read_lead({"x-lead-first-name": ["Ann"]}, b'{"state": "NY"}', caller)
        assert (lead.phone, lead.problems, lead.unread) == (phone, (), ())
        assert list(lead.fields) == [*(["phone"] if phone else []), "first_name", "state"]


_UNDER_ANOTHER_NAME = [
    {"phone_number": OTHER},
    {"phoneNumber": OTHER},
    {"Phone1": OTHER},
    {"mobile": OTHER},
    {"Home-Phone": OTHER, "cell": "212-555-0100"},
    {"phone_number": 12125550188},
    {"phone_number": "212555O1885"},  # there is a number, and it cannot be read
    {"lead": {"phone": OTHER}},
    {"data": [{"contact": {"Phone Number": OTHER}}]},
    {**{f"note_{n}": "x" for n in range(MAX_FIELDS)}, "phone_number": OTHER},  # one field too many
]


@pytest.mark.parametrize("lead", _UNDER_ANOTHER_NAME)
def test_a_phone_under_another_name_is_not_passed_over_for_the_callers(lead: dict[str, object]) -> None:
    found = read_lead({}, orjson.dumps(lead), CALLER)
    assert (found.phone, found.unread) == ("", (ANOTHER_NAME,))
    same = read_lead({}, orjson.dumps({**lead, "mobile_no": "(800) 555-0199"}), CALLER)
    assert (same.phone, same.unread) == (CALLER, ())
    said = read_lead({"x-lead-phone": ["8005550199"]}, orjson.dumps(lead), OTHER)
    assert (said.phone, said.unread) == (CALLER, ())
    if not any(isinstance(one, dict | list) for one in lead.values()):
        headers = {f"x-lead-{name}": [str(value)] for name, value in lead.items()}
        assert read_lead(headers, b"", CALLER).unread == (ANOTHER_NAME,)


def test_what_is_no_phone_leaves_the_callers_number() -> None:
    fields = {
        "phone_type": "mobile",
        "mobile": "yes",
        "phone_verified_at": "2026-11-30T10:15:00Z",
        "order": OTHER,
        "cell": "",
    }
    assert read_lead({}, orjson.dumps(fields), CALLER).phone == CALLER


def test_what_could_not_be_read_of_the_message_refuses() -> None:
    assert read_lead({}, b"", CALLER, unread=("Content-Length",)).phone == ""
    doubt = read_lead({}, b"", "", caller_unread="From: not a SIP or tel URI")
    assert doubt.unread == ("From: not a SIP or tel URI",)
    assert read_lead({"x-lead-phone": [ONE]}, b"", "", caller_unread="From").phone == ONE, "it is not asked for"


def test_no_number_of_other_fields_drops_the_phone() -> None:
    more = {f"f{at}": "x" for at in range(MAX_FIELDS + 3)}
    for body in ({**more, "phone": "2125550100"}, {"phone": "2125550100", **more}):
        lead = read_lead({}, orjson.dumps(body), CALLER)
        assert lead.phone == "+12125550100"
        assert MAX_FIELDS <= len(lead.fields) <= MAX_FIELDS + 1
        assert any("left out" in one for one in lead.problems)
    headers = {f"x-lead-f{at}": ["x"] for at in range(300)} | {"x-lead-phone": ["2125550100"]}
    assert read_lead(headers, b"", CALLER).phone == "+12125550100"


def test_fields_of_json_win_over_headers_and_posted_ones_over_all() -> None:
    lead = read_lead(
        {"x-lead-phone": [ONE], "x-lead-state": ["NY"]},
        b'{"phone": "2125550123", "state": "NJ", "age": 40.50, "tags": [1.0, true, {"a": null}]}',
        CALLER,
        posted=b'{"state": "CT"}',
    )
    assert lead.fields == {"phone": ONE, "state": "CT", "age": "40.50", "tags": '[1.0,true,{"a":null}]'}
    assert (lead.problems, lead.unread) == ((), ())
    twice = read_lead({"x-lead-state": ["NY", "NJ"], "x-lead-age": ["4", "4"]}, b'{"City": "A", "city": "B"}', CALLER)
    assert twice.fields == {"phone": CALLER, "state": "NJ", "age": "4", "city": "B"}
    said = "given more than once, the last one is kept"
    assert twice.problems == (f"lead.state: {said}", f"lead.city: {said}")
