"""Reads the dialer's INVITE.

PJSIP has parsed and accepted the message before we see it; here its headers become a map, its From a caller, and the
JSON part of its body a lead. Nothing here is trusted and nothing raises. What cannot be read with certainty is said,
in `Read.unread`, and refuses the transfer: the prospect's number may have been in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from book.sip_uri import UriError, parse_address, parse_uri
from router.sip.bodies import BodyError, lead_part

_REQUEST = re.compile(r"[A-Z]+ (\S+) SIP/2\.0")
_BARE_BREAK = re.compile(r"\r(?!\n)|(?<!\r)\n")
_FOLDS = (" ", "\t")
MAX_DIGITS = 9  # of Content-Length; a message has at most 65,535 bytes

# Compact forms, RFC 3261 sections 7.3.3 and 20.
_COMPACT = {
    "i": "call-id",
    "f": "from",
    "t": "to",
    "m": "contact",
    "c": "content-type",
    "e": "content-encoding",
    "v": "via",
    "l": "content-length",
}

Headers = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class InviteContent:
    """An INVITE. `unread` and `caller_unread` say why there is doubt about its lead and its From; both may be empty."""

    user: str  # of the request URI
    caller: str  # whose From it is, for book.numbers.normalise
    headers: Headers = field(default_factory=dict)  # by lower-case name, in order
    lead_json: bytes = b""  # empty where there is none
    unread: tuple[str, ...] = ()
    caller_unread: str = ""


def read_invite(text: str, *, lead: bool = True) -> InviteContent:
    """Parse what the router needs. `lead` False: the sender is unknown, and nothing of the body is read."""
    request, headers, body, unread = split_message(text)
    caller = caller_unread = lead_json = None
    try:
        caller = parse_address(headers.get("from", [])).uri.subscriber
    except UriError as error:
        caller_unread = f"From: {error}"
    try:
        lead_json = lead_part(headers, _announced(headers, body)) if lead else None
    except BodyError as error:
        unread = (*unread, f"lead: {error}")
    return InviteContent(
        user=user_of(request),
        caller=caller or "",
        headers=headers,
        lead_json=lead_json or b"",
        unread=unread,
        caller_unread=caller_unread or "",
    )


def split_message(text: str) -> tuple[str, Headers, bytes, tuple[str, ...]]:
    """Request line, headers by lower-case name in order, body; and what could not be read."""
    raw = text.encode("utf-8", "surrogateescape")
    head, end, body = raw.partition(b"\r\n\r\n")
    whole = head.decode("utf-8", "replace")
    unread = [] if end else ["the headers have no end"]
    if _BARE_BREAK.search(whole):
        unread.append("a line of the headers does not end in CRLF")
    lines = _unfold(whole)
    headers: Headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            key = name.strip().lower()
            headers.setdefault(_COMPACT.get(key, key), []).append(value.strip())
        else:
            unread.append("a line of the headers has no colon")
    return (lines[0] if lines else ""), headers, body, tuple(unread)


def _unfold(head: str) -> list[str]:
    """A line that begins with white space goes on with the one before (RFC 3261 section 7.3.1)."""
    lines: list[str] = []
    for line in head.split("\r\n"):
        if line[:1] in _FOLDS and lines:
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    return lines


def _announced(headers: Headers, body: bytes) -> bytes:
    """The body, which must be what Content-Length says: what is too short never comes here. Raises BodyError."""
    for said in set(headers.get("content-length", ())):
        if not (said.isascii() and said.isdigit()) or len(said) > MAX_DIGITS or int(said) > len(body):
            raise BodyError("Content-Length does not fit the body")
        if body[int(said) :].strip():
            raise BodyError("more came than Content-Length says")
    return body


def user_of(request: str) -> str:
    """The user part of a request line's URI; empty where there is none, or it cannot be read."""
    found = _REQUEST.fullmatch(request.strip())
    try:
        return parse_uri(found[1]).user if found else ""
    except UriError:
        return ""
