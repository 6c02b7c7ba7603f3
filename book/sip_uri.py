"""The one reader of SIP and tel URIs and of the headers that bear them (RFC 3261 sections 19.1, 20 and 25.1; RFC 3966).

Whoever decides by a URI (whom a number belongs to, which host a call goes to) must read it as it was meant or not at
all: a display name may say anything, `;` means one thing before the `@` and another behind it, `%2B` is a plus. So
nothing is searched for. A text is parsed from its first character to its last, and what does not fit raises UriError.

    addr-spec   sip:user;parameter@host:port;parameter?header=value     tel:+1-212-555-0123;ext=7
    name-addr   "display \\"name\\"" <addr-spec>;parameter=value
    header      one of these, or several with commas between

Two ways of our own: a display name without quotes may have letters of any script, and `<>` may be left out around a URI
with no parameters of its own, as RFC 3261 section 20.10 says; with a `;` before the `@` nobody knows what is meant.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

MAX_TEXT = 8192  # characters; no URI is longer
MAX_HEADER = 65_536  # characters of one header value: a tag may fill a datagram
_SIP = re.compile(r"(sips?):(?:([^@]*)@)?([^@;?]*)((?:;[^@?]*)?)((?:\?[^@]*)?)", re.IGNORECASE | re.DOTALL)
_TEL = re.compile(r"tel:([^;]*)((?:;.*)?)", re.IGNORECASE | re.DOTALL)
_ESCAPED = r"%[0-9A-Fa-f]{2}"
_USER = re.compile(rf"(?:[\w.!~*'()&=+$,;?/-]|{_ESCAPED})+", re.ASCII)  # user of 25.1: unreserved, user-unreserved
_PASSWORD = re.compile(rf"(?:[\w.!~*'()&=+$,-]|{_ESCAPED})*", re.ASCII)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?)(?::([0-9]{1,5}))?")
_PARAMETER = re.compile(  # a name of digits alone is a second number
    r"((?=[^=]*[A-Za-z])[\w.!%*+`'~-]+)(?:\s*=\s*([\w.!~*'()\[\]/:&+$`=%-]+|\"(?:[^\"\\]|\\.)*\"))?",
    re.ASCII | re.DOTALL,
)
_HEADERS = re.compile(rf"\?(?:[\w.!~*'()\[\]/?:+$=&-]|{_ESCAPED})+", re.ASCII)
_NUMBER = re.compile(rf"(?:[0-9A-Fa-f*#+().-]|{_ESCAPED})+")  # RFC 3966 section 3, with its visual separators
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN_NAME = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\"<>@:;,\\()\[\]?=/{}]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffd]")
_MAX_PORT = 65_535
# What is part of a number and not of the way to it: it changes who is meant, or what else is dialled.
_OF_THE_NUMBER = frozenset({"phone-context", "ext", "postd", "isub"})

Parameters = tuple[tuple[str, str], ...]


class UriError(ValueError):
    """The text is no URI, or no one URI. The message never repeats the text: it may be a person's number."""


@dataclass(frozen=True, slots=True)
class Uri:
    """A URI, with its escapes resolved. Names of parameters are in lower case."""

    scheme: str  # sip, sips or tel
    user: str  # of a tel URI its number; without parameters and password
    host: str = ""  # lower case; IPv6 in brackets; a tel URI has none
    port: int = 0  # 0: not said
    user_parameters: Parameters = ()  # of a tel URI, and of a telephone number before the @ (RFC 3261 section 19.1.6)
    parameters: Parameters = ()
    headers: str = ""  # as they are written, without the question mark

    @property
    def subscriber(self) -> str:
        """Whose URI it is, for `book.numbers.normalise`: its user, or a tel URI where that takes more to be told."""
        kept = [f"{name}={value}" for name, value in self.user_parameters if name in _OF_THE_NUMBER]
        return f"tel:{self.user};{';'.join(kept)}" if kept else self.user

    def parameter(self, name: str) -> str | None:
        """Its value, empty for one without; None where it is not there."""
        return next((value for one, value in self.parameters if one == name), None)


@dataclass(frozen=True, slots=True)
class Address:
    """A name-addr, or an addr-spec as a header has it, with the header's parameters."""

    uri: Uri
    display: str = ""
    parameters: Parameters = ()


def parse_uri(text: str) -> Uri:
    """An addr-spec. Raises UriError."""
    if len(text) > MAX_TEXT:
        raise UriError("too long for a URI")
    sip = _SIP.fullmatch(text)
    if sip is not None:
        return _sip(*(part or "" for part in sip.groups()), has_user=sip[2] is not None)
    tel = _TEL.fullmatch(text)
    if tel is None or _NUMBER.fullmatch(tel[1]) is None:
        raise UriError("not a SIP or tel URI")
    return Uri("tel", _resolved(tel[1]), user_parameters=_parameters(tel[2]))


def without_user(text: str) -> str:
    """A SIP URI as it is written, without its user: where the host itself is asked. Other text as it is."""
    sip = _SIP.fullmatch(text)
    return text if sip is None else f"{sip[1]}:{sip[3]}{sip[4]}{sip[5]}"


def is_sip_uri(text: str) -> bool:
    """Whether it is a URI that can be dialled over SIP."""
    try:
        return parse_uri(text).scheme in ("sip", "sips")
    except UriError:
        return False


def parse_addresses(values: Iterable[str]) -> tuple[Address, ...]:
    """All addresses of a header that may have several, on one line or more. Raises UriError."""
    return tuple(_address(one) for value in values for one in _divided(value, ","))


def parse_address(values: Iterable[str]) -> Address:
    """The one address of a header such as From. Raises UriError where there is none, or more than one."""
    found = parse_addresses(values)
    if len(found) != 1:
        raise UriError(f"{len(found)} addresses where there is to be one")
    return found[0]


def host_of(text: str) -> str:
    """The host of an address, for who decides by it; empty where it cannot be told."""
    try:
        return parse_address([text]).uri.host
    except UriError:
        return ""


def _sip(scheme: str, user: str, host: str, parameters: str, headers: str, *, has_user: bool) -> Uri:
    number, *more = _split_user(user) if has_user else [""]
    found = _HOST.fullmatch(host)
    if found is None or int(found[2] or 0) > _MAX_PORT or not _is_host(found[1]):
        raise UriError("a URI without a host that can be read")
    if headers and _HEADERS.fullmatch(headers) is None:
        raise UriError("a URI whose headers cannot be read")
    return Uri(
        scheme=scheme.lower(),
        user=number,
        host=found[1].lower(),
        port=int(found[2] or 0),
        user_parameters=_named(more),
        parameters=_parameters(parameters),
        headers=headers[1:],
    )


def _split_user(user: str) -> list[str]:
    """`user;parameter:password` as user and parameters. The password, which RFC 3261 advises against, is let go."""
    name, _, password = user.partition(":")
    if _USER.fullmatch(name) is None or _PASSWORD.fullmatch(password) is None:
        raise UriError("a URI whose user cannot be read")
    parts = [_resolved(one) for one in name.split(";")]
    if not parts[0]:
        raise UriError("a URI whose user is empty")
    return parts


def _is_host(text: str) -> bool:
    if not text.startswith("["):
        return True
    try:
        ipaddress.IPv6Address(text[1:-1])
    except ValueError:
        return False
    return True


def _resolved(text: str) -> str:
    """Without escapes (RFC 3261 section 19.1.2)."""
    if "%" not in text:
        return text
    found = unquote(text, errors="replace")
    if _CONTROL.search(found):
        raise UriError("a URI with escapes that are no text")
    return found


def _parameters(text: str) -> Parameters:
    """`;name=value;name`, of a URI or of a header."""
    return _named(_divided(text, ";")[1:]) if text else ()


def _named(parts: Iterable[str]) -> Parameters:
    found: dict[str, str] = {}
    for part in parts:
        one = _PARAMETER.fullmatch(part.strip())
        if one is None:
            raise UriError("a parameter that cannot be read")
        value = _unquoted(one[2]) if one[2] and one[2].startswith('"') else _resolved(one[2] or "")
        if found.setdefault(one[1].lower(), value) != value:
            raise UriError("a parameter that is given twice")
    return tuple(found.items())


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _divided(text: str, mark: str) -> list[str]:
    """Parts between marks that stand neither in quotes nor in angle brackets."""
    if len(text) > MAX_HEADER:
        raise UriError("too long for an address")
    parts, begin, within = [], 0, ""
    at = _marks(text, mark)
    for where, found in at:
        if within == '"' or (within == "<" and found != ">"):
            within = "" if found == within == '"' else within
        elif found in '"<':
            within = found
        elif found == ">":
            within = ""
        else:
            parts.append(text[begin:where])
            begin = where + 1
    if within:
        raise UriError("a quote or a bracket that is not closed")
    return [*parts, text[begin:]]


def _marks(text: str, mark: str) -> Iterator[tuple[int, str]]:
    """Quotes, brackets and marks with their places; what a backslash in quotes precedes is none."""
    quoted, past = False, 0
    for found in re.finditer(rf'["<>\\{mark}]', text):
        at, one = found.start(), found[0]
        if at < past:
            continue
        if one == "\\":
            past = at + 2 if quoted else past
            continue
        quoted ^= one == '"'
        yield at, one


def _address(text: str) -> Address:
    text = text.strip(" \t")
    name, rest = "", text
    quoted = _QUOTED.match(text)
    if quoted is not None:
        name, rest = _unquoted(quoted[0]), text[quoted.end() :].lstrip(" \t")
        if not rest.startswith("<"):
            raise UriError("a name without an address in brackets")
    elif "<" in text:
        name, _, rest = text.partition("<")
        name, rest = name.strip(" \t"), f"<{rest}"
        if _PLAIN_NAME.fullmatch(name) is None:
            raise UriError("a name that is to stand in quotes")
    if not rest.startswith("<"):
        return _without_brackets(rest)
    uri, closed, more = rest[1:].partition(">")
    more = more.strip(" \t")
    if not closed or (more and not more.startswith(";")):
        raise UriError("an address that is not closed, or is followed by something else")
    return Address(parse_uri(uri.strip(" \t")), name, _parameters(more))


def _without_brackets(text: str) -> Address:
    """Its parameters are the header's: RFC 3261 section 20.10."""
    uri, semicolon, more = text.partition(";")
    if "?" in uri or "@" in more:
        raise UriError("an address that is to stand in brackets")
    return Address(parse_uri(uri.strip(" \t")), "", _parameters(semicolon + more))
