"""An INVITE as text: what it says of the prospect, or why nobody can tell."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.lead import Lead, read_lead
from router.sip.bodies import MAX_DEPTH, MAX_PARTS, BodyError, lead_part
from router.sip.message import InviteContent, read_invite, user_of

CALLER, ONE = "+18005550199", "+12125550123"
SDP = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
LEAD = '{"phone": "+12125550123"}'
JSON, MIXED = "application/json", 'multipart/mixed;boundary="b"'


def invite(
    body: str = "", kind: str = "", *headers: str, request: str = "INVITE sip:leads@baton SIP/2.0", size: int = -1
) -> str:
    lines = [request, "Via: SIP/2.0/UDP h;branch=z9hG4bKx", f"From: <sip:{CALLER}@h>;tag=1", "Call-ID: c", *headers]
    if kind:
        lines.append(f"Content-Type: {kind}")
    if size >= -1:
        lines.append(f"Content-Length: {len(body.encode('utf-8', 'surrogateescape')) if size < 0 else size}")
    return "\r\n".join([*lines, "", body])


def lead_of(text: str) -> Lead:
    """As the router reads it."""
    read = read_invite(text)
    return read_lead(read.headers, read.lead_json, read.caller, unread=read.unread, caller_unread=read.caller_unread)


def part(text: str, kind: str = JSON, *headers: str) -> str:
    lines = [*headers, *([f"Content-Type: {kind}"] if kind else [])]
    return "\r\n".join([*lines, "", text])


def mixed(*parts: str, boundary: str = "b", end: str = "--") -> str:
    return "".join(f"--{boundary}\r\n{one}\r\n" for one in parts) + f"--{boundary}{end}\r\n"


BOTH = mixed(part(SDP, "application/sdp"), part(LEAD))

GOOD = {
    "a body that is JSON": invite(LEAD, JSON),
    "JSON in UTF-8, said so": invite(LEAD, "application/json; charset=utf-8"),
    "JSON in UTF-8, said in quotes": invite(LEAD, 'Application/JSON;charset="UTF-8";x=y'),
    "a part beside the session": invite(BOTH, MIXED),
    "a part before the session": invite(mixed(part(LEAD), part(SDP, "application/sdp")), MIXED),
    "a compact name": invite(BOTH, "", f"c: {MIXED}"),
    "a folded header": invite(BOTH, "", 'Content-Type: multipart/mixed;\r\n boundary="b"'),
    "lines that end in LF": invite(BOTH.replace("\r\n", "\n"), MIXED),
    "a preamble": invite(f"This is a multi-part message.\r\n{BOTH}", MIXED),
    "blanks after a boundary": invite(BOTH.replace("--b\r\n", "--b \t\r\n"), MIXED),
    "a boundary with blanks": invite(BOTH.replace("--b", "--b c"), 'multipart/mixed;boundary="b c"'),
    "a part of part": invite(mixed(part(mixed(part(LEAD), boundary="c"), "multipart/mixed;boundary=c")), MIXED),
    "as it is": invite(
        mixed(part(LEAD, JSON, "Content-Transfer-Encoding: 8bit", "Content-Disposition: render")), MIXED
    ),
    "something else beside it": invite(mixed(part("hello", "text/plain"), part(LEAD), part("<a/>", "text/xml")), MIXED),
    "no Content-Length": invite(LEAD, JSON, size=-2),
    "Content-Length twice, the same": invite(LEAD, JSON, f"l: {len(LEAD)}"),
    "blanks behind": invite(LEAD, JSON) + "\r\n\r\n",
}

UNREAD = {
    "JSON in Latin-1, said so": invite(LEAD, "application/json;charset=iso-8859-1"),
    "JSON in UTF-16, said so": invite(LEAD, "application/json;charset=utf-16"),
    "a charset that says two things": invite(LEAD, "application/json;charset=utf-8;charset=latin-1"),
    "a byte order mark": invite(f"\ufeff{LEAD}", JSON),
    "Latin-1": invite('{"phone": "+12125550123", "name": "Zo\udceb"}', JSON),
    "cut off": invite(LEAD[:-3], JSON),
    "an empty part": invite(mixed(part(SDP, "application/sdp"), part("")), MIXED),
    "a blank part": invite(mixed(part(SDP, "application/sdp"), part(" \t ")), MIXED),
    "an empty body that is to be JSON": invite("", JSON),
    "two parts": invite(mixed(part(LEAD), part(LEAD)), MIXED),
    "two parts, one of them further in": invite(
        mixed(part(LEAD), part(mixed(part(LEAD), boundary="c"), "multipart/related;boundary=c")), MIXED
    ),
    "base64": invite(
        mixed(part("eyJwaG9uZSI6ICIrMTIxMjU1NTAxMjMifQ==", JSON, "Content-Transfer-Encoding: base64")), MIXED
    ),
    "quoted-printable": invite(mixed(part(LEAD, JSON, "Content-Transfer-Encoding: quoted-printable")), MIXED),
    "gzip": invite("\x1f\udc8b\x08\x00", JSON, "Content-Encoding: gzip"),
    "gzip, a compact name": invite("\x1f\udc8b\x08\x00", JSON, "e: gzip"),
    "a multipart that is packed": invite("\x1f\udc8b\x08\x00", MIXED, "Content-Encoding: gzip"),
    "no boundary": invite(BOTH, "multipart/mixed"),
    "another boundary": invite(BOTH, "multipart/mixed;boundary=c"),
    "a boundary that is none": invite(BOTH, 'multipart/mixed;boundary="b\u00e9"'),
    "two boundaries": invite(BOTH, "multipart/mixed;boundary=b;boundary=c"),
    "no end": invite(mixed(part(SDP, "application/sdp"), part(LEAD), end=""), MIXED),
    "cut off before the end": invite(BOTH[:-8], MIXED),
    "cut off within the first part": invite(BOTH[:40], MIXED),
    "something behind the end": invite(BOTH + LEAD, MIXED),
    "a lead before the parts": invite(f"{LEAD}\r\n{mixed(part(SDP, 'application/sdp'))}", MIXED),
    "an end in the middle": invite(mixed(part(LEAD)) + mixed(part(LEAD)), MIXED),
    "a part without an end of its headers": invite("--b\r\nContent-Type: application/json\r\n--b--\r\n", MIXED),
    "a part whose header is none": invite(mixed(f"{LEAD}\r\n\r\n"), MIXED),
    "a Content-Type that is none": invite(LEAD, "json"),
    "a Content-Type that is none, of a part": invite(mixed(part(LEAD, ";x*")), MIXED),
    "two Content-Types": invite(LEAD, JSON, "Content-Type: text/plain"),
    "two Content-Types of a part": invite(mixed(part(LEAD, JSON, "Content-Type: application/sdp")), MIXED),
    "no Content-Type": invite(LEAD),
    "no Content-Type of a part": invite(mixed(part(LEAD, "")), MIXED),
    "text": invite(LEAD, "text/plain"),
    "text with a byte order mark": invite(f"\ufeff{LEAD}", "text/plain"),
    "another name for JSON": invite(LEAD, "text/json"),
    "another kind of JSON": invite(LEAD, "application/vnd.lead+json"),
    "an array, as text": invite(f"[{LEAD}]", "text/plain"),
    "a form that is JSON": invite(LEAD, "application/x-www-form-urlencoded"),
    "a session that is JSON": invite(LEAD, "application/sdp"),
    "too deep": invite(
        LEAD
        if not MAX_DEPTH
        else "".join(f"--b{n}\r\nContent-Type: multipart/mixed;boundary=b{n + 1}\r\n\r\n" for n in range(MAX_DEPTH + 1))
        + "".join(f"--b{n}--\r\n" for n in range(MAX_DEPTH + 1, -1, -1)),
        "multipart/mixed;boundary=b0",
    ),
    "too many": invite(mixed(*[part("x", "text/plain")] * MAX_PARTS, part(LEAD)), MIXED),
    "more than Content-Length says": invite(LEAD, JSON, size=len(LEAD) - 1),
    "Content-Length 0 and a body": invite(LEAD, JSON, size=0),
    "less than Content-Length says": invite(LEAD, JSON, size=len(LEAD) + 1),
    "two Content-Lengths": invite(LEAD, JSON, "Content-Length: 3"),
    "a Content-Length that is none": invite(LEAD, JSON, "Content-Length: +25", size=-2),
    "a phone in a header whose line ends in LF": invite("", "", "X-A: b\nX-Lead-Phone: +12125550123"),
    "a phone in a header whose line ends in CR": invite("", "", "X-A: b\rX-Lead-Phone: +12125550123"),
    "a phone without a colon": invite("", "", "X-Lead-Phone +12125550123"),
    "two phones": invite("", "", "X-Lead-Phone: +12125550123", "X-Lead-Phone: +12125550124"),
    "two phones on a line": invite("", "", "X-Lead-Phone: +12125550123, +12125550124"),
    "a phone and another in JSON": invite(LEAD, JSON, "X-Lead-Phone: +12125550124"),
    "a folded phone": invite("", "", "X-Lead-Phone: +12125550123\r\n 4"),
    "a second From": invite("", "", "From: <sip:+12125550123@h>"),
    "a second From, compact": invite("", "", "f: <sip:+12125550123@h>"),
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_a_lead_that_is_there_is_read(text: str) -> None:
    lead = lead_of(text)
    assert (lead.phone, lead.unread) == (ONE, ())


@pytest.mark.parametrize("text", UNREAD.values(), ids=UNREAD.keys())
def test_a_lead_that_cannot_be_read_is_never_no_lead(text: str) -> None:
    lead = lead_of(text)
    assert not lead.phone
    assert lead.unread
    assert "555" not in " ".join(lead.problems)


@pytest.mark.parametrize(
    "text",
    [
        invite(),
        invite(SDP, "application/sdp"),
        invite(SDP, ""),
        invite(mixed(part(SDP, "application/sdp")), MIXED),
        invite(mixed(part(SDP, "application/sdp"), part("hello", "text/plain"), part("hello", "")), MIXED),
        invite("{}", JSON),
        invite("", "json"),
    ],
)
def test_where_no_lead_is_given_the_callers_number_is_taken(text: str) -> None:
    lead = lead_of(text)
    assert (lead.phone, lead.unread) == (CALLER, ())


@given(st.integers(0, len(invite(BOTH, MIXED))))
@settings(max_examples=200, deadline=None)
def test_an_invite_cut_anywhere_never_has_another_number(at: int) -> None:
    whole = invite(BOTH, MIXED)
    lead = lead_of(whole[:at])
    assert lead.phone == (ONE if at == len(whole) else "")
    assert bool(lead.unread) is (at < len(whole))


@given(st.integers(0, len(invite(BOTH, MIXED)) - 1), st.characters(max_codepoint=255))
@settings(max_examples=400, deadline=None)
def test_one_wrong_character_in_the_body_never_makes_the_callers_number_of_it(at: int, wrong: str) -> None:
    whole = invite(BOTH, MIXED)
    at = max(at, whole.index("\r\n\r\n") + 4)
    lead = lead_of(whole[:at] + wrong + whole[at + 1 :])
    assert lead.phone != CALLER or not lead.unread
    if lead.phone == CALLER:  # the field has another name now, or its part another kind that is no JSON
        assert '"phone"' not in lead_json(whole[:at] + wrong + whole[at + 1 :])


def lead_json(text: str) -> str:
    return read_invite(text).lead_json.decode()


def test_a_message_with_many_headers_loses_none() -> None:
    many = [f"X-Lead-F{n}: x" for n in range(2_000)]
    read = read_invite(invite("", "", *many, "X-Lead-Phone: +12125550123"))
    assert (len(read.headers), read.headers["x-lead-phone"]) == (2_005, [ONE])


@pytest.mark.parametrize(
    ("request_line", "user"),
    [
        ("INVITE sip:leads@baton SIP/2.0", "leads"),
        ("INVITE sip:leads@[2001:db8::1]:5060;transport=tcp SIP/2.0", "leads"),
        ("INVITE sip:le%61ds@baton SIP/2.0", "leads"),
        ("INVITE sip:leads;x=y@baton SIP/2.0", "leads"),
        ("OPTIONS sip:baton SIP/2.0", ""),
        ("INVITE sip:baton;x=sip:leads@baton SIP/2.0", "baton"),  # and a password
        ("INVITE tel:+12125550123 SIP/2.0", ONE),
        ("INVITE <sip:leads@baton> SIP/2.0", ""),
        ("INVITE sip:leads@baton", ""),
        ("", ""),
    ],
)
def test_whom_a_request_is_for(request_line: str, user: str) -> None:
    assert user_of(request_line) == user


def test_nothing_raises() -> None:
    for text in ("", "\r\n", "\r\n\r\n", "x", "INVITE", "\x00" * 100, "\udcff", "a: b\r\n" * 10_000):
        assert isinstance(read_invite(text), InviteContent)


@pytest.mark.parametrize("before", ["hi\r\n", "This is a multi-part message in MIME format.\r\n", ""])
def test_a_lead_before_the_first_part_is_not_passed_over(before: str) -> None:
    parts = "--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\n"
    headers = {"content-type": ["multipart/mixed;boundary=b"]}
    assert lead_part(headers, (before + parts).encode()) is None
    with pytest.raises(BodyError, match="around the parts"):
        lead_part(headers, (before + '{"phone": "+12125550177"}\r\n' + parts).encode())
