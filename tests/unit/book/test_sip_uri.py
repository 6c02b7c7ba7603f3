"""URIs and the headers that bear them: each read as RFC 3261 and RFC 3966 have it, or refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from book.sip_uri import (
    Address,
    Uri,
    UriError,
    host_of,
    is_sip_uri,
    parse_address,
    parse_addresses,
    parse_uri,
    without_user,
)
from router.lead import e164
from tests.spellings import URIS

ONE = "+12125550123"
H = "@pbx.example"

# Of one From header: whose number it is. Empty: it names somebody, and has no number. None: refused.
FROM: tuple[tuple[str, str | None], ...] = (
    (f"<sip:+12125550123{H}>", ONE),
    (f"<sip:+12125550123{H}>;tag=1", ONE),
    (f"sip:+12125550123{H};tag=1_a.b~c", ONE),
    (f"sip:+12125550123{H}", ONE),
    (f"<sips:12125550123{H}:5061;transport=tls>;tag=a", ONE),
    (f"<SIP:2125550123{H};user=phone>", ONE),
    (f"<sip:%2B12125550123{H}>", ONE),
    (f"<sip:+1%32125550123{H}>", ONE),
    (f"<sip:+1-212-555-0123{H}>", ONE),
    (f"<sip:+1(212)555.0123{H}>", ONE),
    (f"<sip:+12125550123;cpc=ordinary{H}>;tag=1", ONE),
    (f"<sip:+12125550123;npdi;rn=+12125550000{H};user=phone>", ONE),
    (f"<sip:+12125550123;ext=7{H}>", ONE),
    (f"<sip:+12125550123;ext=2125550124{H}>", ""),
    (f"<sip:5550123;phone-context=+1212{H}>", ONE),
    (f"<sip:5550123;phone-context=pbx.example{H}>", ""),
    (f"<sip:+12125550123:secret{H}>", ONE),
    ("<sip:+12125550123@[2001:db8::1]:5060>", ONE),
    ("<sip:+12125550123@192.0.2.7>", ONE),
    (f"<sip:+12125550123{H}?Subject=a%20b>", ONE),
    ("<tel:+12125550123>", ONE),
    ("<tel:+1-212-555-0123>;tag=9", ONE),
    ("tel:+12125550123;tag=9", ONE),
    ("<tel:%2B12125550123>", ONE),
    ("<tel:+12125550123;cpc=payphone;npdi;cic=+10288>", ONE),
    ("<tel:5550123;phone-context=+1212>", ONE),
    ("<tel:+12125550123;ext=7>", ONE),
    ("<tel:+12125550123;postd=pp22>", ONE),
    ("<tel:+12125550123;ext=2125550124>", ""),
    # display names: whatever they say, they are not the number
    (f'"sip:+12125550199@pbx" <sip:+12125550123{H}>', ONE),
    (f'"<sip:+12125550199@pbx>" <sip:+12125550123{H}>', ONE),
    (f'"+12125550199" <sip:+12125550123{H}>', ONE),
    ('"tel:+12125550199" <tel:+12125550123>', ONE),
    (f'"a \\" <sip:+12125550199@pbx>" <sip:+12125550123{H}>', ONE),
    (f'"a \\\\" <sip:+12125550123{H}>', ONE),
    (f'"Doe, Jane" <sip:+12125550123{H}>', ONE),
    (f'""<sip:+12125550123{H}>', ONE),
    (f"Jane Doe <sip:+12125550123{H}>", ONE),
    (f"J. O'Hara-Smith<sip:+12125550123{H}>", ONE),
    (f"Zo\u00eb <sip:+12125550123{H}>", ONE),
    (f"+12125550199 <sip:+12125550123{H}>", ONE),
    # nobody's number
    ("<sip:anonymous@anonymous.invalid>", ""),
    (f"<sip:alice{H}>", ""),
    ("<sip:pbx.example>", ""),
    (f"<sip:+12125550123,2125550124{H}>", ""),
    (f"<sip:212555{H}>", ""),
    # nobody can say
    ("", None),
    ("+12125550123", None),
    (f"+12125550123{H}", None),
    (f"sip:+12125550199{H} <sip:+12125550123{H}>", None),
    (f"<sip:+12125550199{H}> <sip:+12125550123{H}>", None),
    (f"<sip:+12125550199{H}>, <sip:+12125550123{H}>", None),
    (f"sip:+12125550199{H}, sip:+12125550123{H}", None),
    (f"<sip:+12125550123;cpc=ordinary@a@{H[1:]}>", None),
    (f"sip:+12125550123;cpc=ordinary{H}", None),  # whose parameter is it? RFC 3261 section 20.10
    (f"sip:+12125550123{H}?Subject=a", None),
    (f"<sip:+12125550123{H}", None),
    (f"sip:+12125550123{H}>", None),
    (f'"Jane <sip:+12125550123{H}>', None),
    (f'"Jane" "Doe" <sip:+12125550123{H}>', None),
    (f'"Jane" sip:+12125550123{H}', None),
    (f"Doe, Jane <sip:+12125550123{H}>", None),
    (f"Jane (mobile) <sip:+12125550123{H}>", None),
    (f"<sip:+12125550123{H}> (mobile)", None),
    (f"<sip:+12125550123{H}>tag=1", None),
    (f"<sip:+1 212 555 0123{H}>", None),
    (f"<sip: +12125550123{H}>", None),
    (f"<sip:+12125550123 {H}>", None),
    (f"<sip:+12125550123#7{H}>", None),
    (f"<sip:+12125550123%{H}>", None),
    (f"<sip:+1212555%00{H}>", None),
    (f"<sip:+1212555%0d%0a0123{H}>", None),
    (f"<sip:+12125550123%ff{H}>", None),
    (f"<sip:{H}>", None),
    ("<sip:+12125550123@>", None),
    ("<sip:+12125550123@-pbx>", None),
    ("<sip:+12125550123@pbx:99999>", None),
    ("<sip:+12125550123@pbx:>", None),
    ("<sip:+12125550123@[::g]>", None),
    (f"<sip:+12125550123{H};=x>", None),
    ("<sip:>", None),
    ("<>", None),
    ("<tel:>", None),
    ("<tel:Jane>", None),
    ("<tel:+12125550123@pbx>", None),
    ("<tel:+12125550123;a=1;a=2>", None),
    ("<mailto:+12125550123@pbx.example>", None),
    ("<urn:service:sos>", None),
    ("<http://pbx.example/+12125550123>", None),
    (f"<sip:+12125550123{H}>\x00", None),
    ("x" * 9_000, None),
    ("<" * 4_000, None),
    ('"' * 3_001, None),
)


@pytest.mark.parametrize(("value", "number"), FROM)
def test_whose_number_a_from_is(value: str, number: str | None) -> None:
    if number is None:
        with pytest.raises(UriError) as refused:
            parse_address([value])
        assert "555" not in str(refused.value)
    else:
        assert e164(parse_address([value]).uri.subscriber) == number


@pytest.mark.parametrize("value", [text for text, number in FROM if number is not None])
def test_a_display_name_changes_nothing(value: str) -> None:
    plain = parse_address([value]).uri
    for name in ('"sip:+12125550199@pbx"', '"<tel:+12125550199>, \\"x"', "+12125550199", '"\\\\"'):
        if value.startswith("<"):
            found = parse_address([f"{name} {value}"])
            assert (found.uri, bool(found.display)) == (plain, True)


def test_what_a_uri_is_made_of() -> None:
    assert parse_uri("sip:+1212;isub=9:p%20w@PBX.Example:5070;Transport=TCP;lr?a=b") == Uri(
        "sip",
        "+1212",
        "pbx.example",
        5070,
        (("isub", "9"),),
        (("transport", "TCP"), ("lr", "")),
        "a=b",
    )
    assert parse_uri("tel:+1212;Ext=7") == Uri("tel", "+1212", user_parameters=(("ext", "7"),))
    assert parse_address(['"a \\"b\\"" <sip:x@y>;tag="q;\\"r"']) == Address(
        Uri("sip", "x", "y"), 'a "b"', (("tag", 'q;"r'),)
    )


@pytest.mark.parametrize(
    ("values", "users"),
    [
        (["<tel:+12125550123>, <sip:+12125550123@pbx>"], ["+12125550123", "+12125550123"]),
        (['"a, <b>" <sip:1@h>', "sip:2@h;x=1,<sip:3@h;y>"], ["1", "2", "3"]),
        (["<sip:1@h?Reason=SIP%3Bcause%3D302>;index=1,<sip:2@h>;index=1.1"], ["1", "2"]),  # History-Info
        (["<sip:1@h>;reason=unconditional;counter=1"], ["1"]),  # Diversion
        ([], []),
    ],
)
def test_headers_of_several_addresses(values: list[str], users: list[str]) -> None:
    assert [one.uri.user for one in parse_addresses(values)] == users


@pytest.mark.parametrize("values", [["<sip:1@h>,"], [","], ["<sip:1@h>", ""], ["<sip:1@h>,x"]])
def test_one_that_cannot_be_read_spoils_a_header(values: list[str]) -> None:
    with pytest.raises(UriError):
        parse_addresses(values)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("<sip:x@Good.Example>", "good.example"),
        ("sip:good.example:5061;transport=tcp", "good.example"),
        ("sip:[2001:db8::1]:5060", "[2001:db8::1]"),
        ("<sip:good.example;x=y@evil.example>", "evil.example"),  # as PJSIP reads it
        ("sip:good.example;x=y@evil.example", ""),
        ("<sip:evil.example@good.example@evil.example>", ""),
        ('"<sip:x@good.example>" <sip:x@evil.example>', "evil.example"),
        ("<sip:x@good.example>,<sip:x@evil.example>", ""),
        ("<sip:x@good.example%2eevil.example>", ""),
        ("<tel:+12125550123>", ""),
        ("", ""),
    ],
)
def test_who_decides_by_a_host_reads_it_as_the_stack_does(text: str, host: str) -> None:
    assert host_of(text) == host


@pytest.mark.parametrize(("text", "number"), URIS)
def test_a_number_in_a_header_is_the_one_that_it_is_in_a_list(text: str, number: str | None) -> None:
    """What is no URI in the strict sense is refused in a header; what is one says the same in both."""
    for written in (f"<{text}>", f"<{text.replace(' ', '')}>"):
        try:
            found = e164(parse_address([written]).uri.subscriber)
        except UriError:
            continue
        assert found == (number or "")


def test_a_host_is_asked_without_the_number() -> None:
    assert without_user("sip:{number}@pbx.example:5061;transport=tls") == "sip:pbx.example:5061;transport=tls"
    assert without_user("sip:pbx.example") == "sip:pbx.example"


def test_what_can_be_dialled() -> None:
    assert is_sip_uri("sip:leads@pbx.example:5061;transport=tls")
    assert not any(
        map(is_sip_uri, ("tel:+12125550123", "<sip:a@b>", "sip:a b@c", "sip:", "sip:a@b\r\n", "pbx.example"))
    )


_USER = st.from_regex(re.compile(r"[A-Za-z0-9+_.!~*'()&=$,/-]{1,20}"), fullmatch=True)
_NAME = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30)


@given(_USER, st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8})?", fullmatch=True), _NAME)
@settings(max_examples=300, deadline=None)
def test_what_is_written_is_read_back(user: str, host: str, name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    found = parse_address([f'"{quoted}" <sip:{user}@{host};user=phone>;tag=1'])
    assert (found.uri.user, found.uri.host, found.display) == (user, host, name)
    escaped = "".join(f"%{ord(one):02X}" for one in user)
    assert parse_uri(f"sip:{escaped}@{host}").user == user


@given(st.text('sip:tel@<>"\\;,?=%2B+1205 .[]ab', max_size=60))
@settings(max_examples=1000, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_addresses([text])
    except UriError:
        return
    for one in found:
        assert one.uri.user in text or "%" in text
        assert one.uri.host in text.lower()
        if one.display and "\\" not in text:
            assert one.display in text


def test_no_other_code_takes_uris_apart() -> None:
    """`book.numbers` reads a number that is given as a URI; the trace masks what is no URI too."""
    root = Path(__file__).parents[3]
    apart = re.compile(r"sips\?|partition\(\"@\"\)|split\(\"@\"\)|scheme, _, ")
    files = [one for part in ("book", "config", "router") for one in (root / part).rglob("*.py")]
    found = {str(one.relative_to(root)) for one in files if apart.search(one.read_text())}
    assert found - {"config/mail.py"} == {"book/sip_uri.py", "book/numbers.py", "router/sip/tracing.py"}
