"""What a SIP message may show of a caller, and of how we prove who we are: nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.sip.tracing import MAX_TRACE, KeptMessages, find_messages, mask_message, parse_messages

LINES = (
    "INVITE sip:+13105550199@buyer.example:5060 SIP/2.0",
    "Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bKPj1234567890",
    'From: "Ann Lee" <sip:+12125550123@192.0.2.1>;tag=abc',
    "To: <sip:+13105550199@buyer.example>",
    "Call-ID: 01jabcdefghijklmnopq-1",
    "CSeq: 5 INVITE",
    "P-Asserted-Identity: <tel:+12125550123>",
    "X-Lead-Id: lead-77",
    "X-Lead-First-Name: Ann",
    "x-lead-address: 12 Main Street,",
    "\t Springfield",
    'Proxy-Authorization: Digest username="baton", response="0123456789abcdef"',
    "Identity: eyJhbGciOi.J9;info=<https://cert.example>",
    "Content-Type: application/sdp",
    "Content-Length: 99",
    "",
    "v=0",
    "o=- 3988123456 3988123456 IN IP4 192.0.2.1",
    "m=audio 20000 RTP/SAVP 0",
    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0c2VjcmV0c2VjcmV0",
    "",
)
INVITE = "\r\n".join(LINES)


def test_numbers_names_lead_credentials_and_keys_are_masked() -> None:
    shown = mask_message(INVITE)
    for hidden in (
        "2125550123", "3105550199", "Ann", "Springfield", "Main Street", "0123456789abcdef", 'baton"', "c2Vjcm", "eyJ",
    ):  # fmt: skip
        assert hidden not in shown, hidden
    for kept in (
        "INVITE sip:***0199@buyer.example:5060 SIP/2.0",
        "Call-ID: 01jabcdefghijklmnopq-1",
        "branch=z9hG4bKPj1234567890",
        "X-Lead-Id: lead-77",
        "X-Lead-First-Name: ***",
        "Proxy-Authorization: ***",
        "a=crypto:***",
        "m=audio 20000 RTP/SAVP 0",
    ):
        assert kept in shown, kept


def test_a_body_that_is_no_sdp_is_not_shown() -> None:
    message = (
        'INVITE sip:solar@x SIP/2.0\r\nContent-Type: application/json\r\n\r\n{"phone": "+12125550123", "name": "Ann"}'
    )
    shown = mask_message(message)
    assert shown.endswith("\r\n\r\n*** (40 characters)")


@given(st.text(alphabet=st.characters(codec="latin-1")))
def test_no_text_breaks_the_masking(text: str) -> None:
    mask_message(text)


def test_records_that_are_none_are_left_out() -> None:
    records = [
        "1500\x1fR\x1fUDP:192.0.2.1:5060\x1fid-1\x1fOPTIONS sip:x SIP/2.0",
        "",
        "x\x1fy",
        "q\x1fR\x1fa\x1fb\x1fc",
        "9\x1fT\x1fp\x1fi\x1f",
    ]
    found = list(parse_messages(records))
    assert [(one.mono_us, one.received, one.peer, one.call_id, one.text) for one in found] == [
        (1, True, "UDP:192.0.2.1:5060", "id-1", "OPTIONS sip:x SIP/2.0"),
        (0, False, "p", "i", ""),
    ]


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_lines_end_as_pjsip_takes_them(end: str) -> None:
    assert mask_message(INVITE.replace("\r\n", end)) == mask_message(INVITE)


@given(st.lists(st.sampled_from(["\r\n", "\n", "\r"]), min_size=len(LINES) - 1, max_size=len(LINES) - 1))
def test_ends_of_lines_may_be_mixed(ends: list[str]) -> None:
    message = "".join(line + end for line, end in zip(LINES, [*ends, ""], strict=True))
    for hidden in ("2125550123", "Ann", "Main Street", "Springfield", "0123456789abcdef", "c2Vjcm"):
        assert hidden not in mask_message(message)


def test_a_body_after_a_bare_line_feed_is_not_shown() -> None:
    shown = mask_message('INVITE sip:solar@x SIP/2.0\nContent-Type: application/json\n\n{"name": "Ann"}')
    assert shown.endswith("\r\n\r\n*** (15 characters)")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("From: John Smith <sip:+12125550123@x>;tag=abc", 'From: "***" <sip:***0123@x>;tag=abc'),
        ('f: "Smith, John" <sip:bob@x>', 'f: "***" <sip:bob@x>'),
        ('Diversion: "John" <sip:2125550123@x>;reason=no-answer', 'Diversion: "***" <sip:***0123@x>;reason=no-answer'),
        ('Remote-Party-ID: "John" <sip:55501@x>;party=calling', 'Remote-Party-ID: "***" <sip:***5501@x>;party=calling'),
        ("History-Info: J <sip:a@x?R=b>;index=1, <sip:c@x>", 'History-Info: "***" <sip:a@x?***>;index=1, <sip:c@x>'),
        ("Refer-To: <sip:a@x?X-Lead-Ssn=123-45-6789>", "Refer-To: <sip:a@x?***>"),
        ("b: John <tel:+1(212)555-0123>", 'b: "***" <tel:***0123>'),
        ("Reply-To: tel:212-555-0123;phone-context=x", "Reply-To: tel:***0123;***"),
        ("P-Preferred-Identity: <sip:%2b12125550123;rn=1@x:5060>", "P-Preferred-Identity: <sip:***;***@x:5060>"),
        ("Contact: <sip:a@192.0.2.1:5060;ob;name=john>;john=1", "Contact: <sip:a@192.0.2.1:5060;ob;***>;***"),
        ("Contact: *", "Contact: *"),
        ("From: John Smith", "From: ***"),
        ('To: "John <sip:a@x>', "To: ***"),
        ("Call-ID: 2125550123-55@x", "Call-ID: ***0123-55@x"),
        ("i: 1k3abcd1234567mnpqrs-2", "i: 1k3abcd1234567mnpqrs-2"),
        ("Subject: John", "Subject: ***"),
        ("s: John", "s: ***"),
        ("User-to-User: 4a6f686e", "User-to-User: ***"),
        ("X-Lead-Ssn : 123", "X-Lead-Ssn: ***"),
        ("X-Anything: John", "X-Anything: ***"),
        ("John Smith", "***"),
        ("User-Agent: Dialer 2.0 +1 (212) 555-0123", "User-Agent: Dialer 2.0 ***0123"),
        ("X-Baton-Scrub: dnc=clean;at=2026-06-02", "X-Baton-Scrub: dnc=clean;at=2026-06-02"),
        ("CSeq: 102938475 INVITE", "CSeq: 102938475 INVITE"),
        ("Session-Expires: 1800;refresher=uac", "Session-Expires: 1800;refresher=uac"),
    ],
)  # fmt: skip
def test_of_a_header_is_shown_what_holds_nobody(line: str, shown: str) -> None:
    assert mask_message(f"BYE sip:x SIP/2.0\r\n{line}\r\n\r\n").split("\r\n")[1] == shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("v=0", "v=0"),
        ("o=john 1 2 IN IP4 192.0.2.1", "o=- 1 2 IN IP4 192.0.2.1"),
        ("s=John Smith", "s=***"),
        ("e=john@x", "e=***"),
        ("p=+1 212 555-0123", "p=***"),
        ("i=John", "i=***"),
        ("u=http://x/john", "u=***"),
        ("k=clear:secret", "k=***"),
        ("c=IN IP4 192.0.2.1", "c=IN IP4 192.0.2.1"),
        ("t=0 0", "t=0 0"),
        ("m=audio 20000 RTP/AVP 0 8 101 96 97 98", "m=audio 20000 RTP/AVP 0 8 101 96 97 98"),
        ("a=rtpmap:101 telephone-event/8000", "a=rtpmap:101 telephone-event/8000"),
        ("a=sendrecv", "a=sendrecv"),
        ("a=ice-pwd:secret", "a=ice-pwd:***"),
        ("a=crypto:1 AES inline:secret", "a=crypto:***"),
        ("a=ssrc:1234 cname:john", "a=ssrc:1234 ***"),
        ("a=john", "a=***"),
        ("X-Lead-Name: John", "***"),
    ],
)
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_of_sdp_is_shown_what_describes_media(line: str, shown: str, end: str) -> None:
    message = end.join(("BYE sip:x SIP/2.0", "c: application/sdp", "", line, ""))
    assert mask_message(message).split("\r\n")[3:] == [shown, ""]


@given(st.text(alphabet='Zz "\\<>@:;,?=&%.-\r\n\t', max_size=40))
def test_a_display_name_is_never_shown(name: str) -> None:
    headers = f'From: "John{name}" <sip:a@x>\r\nDiversion: John{name}<sip:a@x>'
    assert "John" not in mask_message(f"BYE sip:x SIP/2.0\r\n{headers}\r\n\r\n")


def _engine(*kept: tuple[str, str]) -> Any:
    """What the native code does with a list, see baton_is_wanted."""

    def find(wanted: str, most: int) -> str:
        out = ""
        for call_id, text in kept:
            for one in wanted.split("\x1e"):
                begins = one.endswith("*") and len(one) > 1 and call_id.startswith(one[:-1])
                if (begins or call_id == one) and len(out) + len(text) <= most:
                    out += f"1000\x1fR\x1fp\x1f{call_id.replace(chr(0x1E), '.')}\x1f{text}\x1e"
                    break
        return out

    return SimpleNamespace(baton_trace_find=find)


@pytest.mark.parametrize("asked", ["abc*", "abc", "a\x1eb", "*"])
def test_an_id_shows_its_own_call_and_no_other(asked: str) -> None:
    pj = _engine(*((one, "") for one in ("abc", "abc*", "abcd", "abc*d", "a\x1eb", "b", "*", "t-1", "t-2")))
    found, cut = find_messages(pj, [asked]).messages()
    assert ([one.call_id for one in found], cut) == ([asked.replace("\x1e", ".")], False)
    found, _ = find_messages(pj, [asked], ["t-"]).messages()
    assert [one.call_id for one in found][1:] == ["t-1", "t-2"]


def test_what_does_not_fit_is_cut_and_said_to_be() -> None:
    text = "BYE sip:x SIP/2.0\r\n" + "X: x\r\n" * 1_000
    many = MAX_TRACE // len(text) + 20
    found, cut = find_messages(_engine(*[("a", text)] * many), ["a"]).messages()
    assert cut
    assert MAX_TRACE - 2 * len(text) < len(found) * len(text) <= MAX_TRACE
    assert KeptMessages().messages() == ([], False)
