"""Reading the one message that matters as a whole: the dialer's INVITE.

PJSIP has parsed and accepted the message before we see it; here its headers become a map and the JSON part of a
multipart body (RFC 5621) is taken out. Nothing here is trusted and nothing raises: what cannot be read is left out.
"""

from __future__ import annotations

import re
from email import policy
from email.parser import BytesParser

MAX_HEADERS = 200
_USER = re.compile(r"<?sips?:([^@;>\s]*)@", re.IGNORECASE)
_HOST = re.compile(
    r"\s*(?:\"[^\"]*\"\s*|[\w .-]*)<?sips?:(?:[\w.+~!*'()-]*@)?(\[[0-9a-f:.]+\]|[a-z0-9.-]+)"
    r"(?::[0-9]+)?(?:[;?>][^@]*)?\s*",
    re.IGNORECASE | re.DOTALL,
)

# Compact forms, RFC 3261 section 7.3.3 and 20.
_COMPACT = {
    "i": "call-id",
    "f": "from",
    "t": "to",
    "m": "contact",
    "c": "content-type",
    "v": "via",
    "l": "content-length",
}


def split_message(text: str) -> tuple[str, dict[str, list[str]], bytes]:
    """Request line, headers by lower-case name in order, body."""
    raw = text.encode("utf-8", "surrogateescape")
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = _unfold(head.decode("utf-8", "replace"))
    headers: dict[str, list[str]] = {}
    for line in lines[1 : MAX_HEADERS + 1]:
        name, colon, value = line.partition(":")
        if colon:
            key = name.strip().lower()
            headers.setdefault(_COMPACT.get(key, key), []).append(value.strip())
    return (lines[0] if lines else ""), headers, body


def _unfold(head: str) -> list[str]:
    """A line that begins with white space goes on with the one before (RFC 3261 section 7.3.1)."""
    lines: list[str] = []
    for line in head.split("\r\n"):
        if line[:1] in (" ", "\t") and lines:
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    return lines


def user_of(value: str) -> str:
    """The user part of the first SIP URI in a header or request line; empty where there is none."""
    found = _USER.search(value)
    return found.group(1) if found else ""


def host_of(value: str) -> str:
    """The host of the one SIP URI in a header, lower case, without port; empty where it is not plainly written.

    What decides on a host must read it as the stack will: a user part with anything but plain characters is refused.
    """
    found = _HOST.fullmatch(value) if value.count("@") <= 1 else None
    return found.group(1).lower() if found else ""


def json_part(headers: dict[str, list[str]], body: bytes) -> bytes:
    """The first application/json part of a multipart body, or a body that is JSON itself; empty where there is none."""
    content_type = (headers.get("content-type") or [""])[0]
    kind = content_type.split(";")[0].strip().lower()
    if kind == "application/json":
        return body
    if not kind.startswith("multipart/"):
        return b""
    try:
        return _part_of(content_type, body)
    except Exception:  # noqa: BLE001 - the library raises all sorts of things for what strangers send
        return b""


def _part_of(content_type: str, body: bytes) -> bytes:
    whole = b"Content-Type: " + content_type.encode("utf-8", "replace") + b"\r\n\r\n" + body
    message = BytesParser(policy=policy.HTTP).parsebytes(whole)
    for part in message.walk():
        if part.get_content_type() == "application/json":
            payload = part.get_payload(decode=True)
            return payload if isinstance(payload, bytes) else b""
    return b""
