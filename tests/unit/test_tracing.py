"""What a SIP message may show of a caller, and of how we prove who we are: nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.sip.tracing import mask_message, parse_messages

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
        "1500\x1fR\x1fUDP:192.0.2.1:5060\x1fid-1\x1fOPTIONS x",
        "",
        "x\x1fy",
        "q\x1fR\x1fa\x1fb\x1fc",
        "9\x1fT\x1fp\x1fi\x1f",
    ]
    found = list(parse_messages(records))
    assert [(one.mono_us, one.received, one.peer, one.call_id, one.text) for one in found] == [
        (1, True, "UDP:192.0.2.1:5060", "id-1", "OPTIONS x"),
        (0, False, "p", "i", ""),
    ]
