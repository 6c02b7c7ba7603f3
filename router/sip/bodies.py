"""The lead in the body of an INVITE: its one JSON part, or the reason why nobody can say what it is.

A body is JSON itself, something that is known to be no lead (SDP), or a multipart body (RFC 2046 section 5.1, RFC 5621)
with parts of these. Every byte is looked at. A part of another kind is no lead, unless it looks like JSON: then
somebody meant it for one. Encodings are refused, for SIP carries bytes as they are, and so are several JSON parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

JSON = "application/json"
MAX_DEPTH = 8  # of multiparts within each other; a lead is in the first
MAX_PARTS = 64
_WORD = r"[\w.!%*+`'~-]+"
_QUOTED = r"\"(?:[^\"\\\r\n]|\\.)*\""
_KIND = re.compile(rf"({_WORD}/{_WORD})((?:[ \t]*;[ \t]*{_WORD}[ \t]*=[ \t]*(?:{_WORD}|{_QUOTED}))*)[ \t;]*", re.ASCII)
_NAME = re.compile(_WORD, re.ASCII)
_PARAMETER = re.compile(rf";[ \t]*({_WORD})[ \t]*=[ \t]*(?:({_WORD})|({_QUOTED}))", re.ASCII)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 section 5.1.1
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})  # RFC 8259 section 8.1, and what is part of it
_AS_IT_IS = frozenset({"", "7bit", "8bit", "binary", "identity"})
_LOOKS_LIKE_JSON = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)|[\s\x00]*[{\[]")
_MAY_HOLD_JSON = re.compile(rb"[{\[]|\xef\xbb\xbf|\xff\xfe|\xfe\xff")  # programs write words before the first part
_BREAK = re.compile(rb"\r?\n")
_BLANK = re.compile(rb"\r?\n[ \t]*(?:\r?\n|\Z)")

Headers = Mapping[str, Sequence[str]]


class BodyError(ValueError):
    """Nobody can say what the lead is. The message repeats nothing of it."""


def lead_part(headers: Headers, body: bytes) -> bytes | None:
    """The JSON of the lead; None where the body has none. Raises BodyError. `headers` by lower-case name."""
    if not body.strip():
        body = b""
    found = list(_json_parts(headers, body, 0))
    if len(found) > 1:
        raise BodyError(f"{len(found)} JSON parts where there is to be one")
    if found and not found[0].strip():
        raise BodyError("the JSON part is empty")
    return found[0] if found else None


def _json_parts(headers: Headers, body: bytes, depth: int) -> Iterator[bytes]:
    kind, parameters = _kind(headers, body)
    if kind.startswith("multipart/"):
        if depth >= MAX_DEPTH:
            raise BodyError("multiparts within multiparts, too deep")
        _check_encoding(headers)
        for part in _divided(body, parameters.get("boundary", "")):
            yield from _json_parts(*_part(part), depth + 1)
    elif kind == JSON:
        _check_encoding(headers)
        if parameters.get("charset", "utf-8").lower() not in _CHARSETS:
            raise BodyError("the JSON part is not in UTF-8")
        yield body
    elif kind.endswith(("/json", "+json", "/x-json")) or _LOOKS_LIKE_JSON.match(body):
        raise BodyError(f"a part that looks like a lead is not {JSON}")


def _kind(headers: Headers, body: bytes) -> tuple[str, dict[str, str]]:
    """Media type and parameters; text/plain where a part says nothing (RFC 2045 section 5.2). Raises BodyError."""
    said = {one.strip() for one in headers.get("content-type", ())}
    if len(said) > 1:
        raise BodyError("more than one Content-Type")
    if not said:
        return "text/plain", {}
    found = _KIND.fullmatch(said.pop())
    if found is None:
        if not body:
            return "", {}
        raise BodyError("a Content-Type that cannot be read")
    parameters: dict[str, str] = {}
    for name, plain, quoted in _PARAMETER.findall(found[2]):
        value = plain or re.sub(r"\\(.)", r"\1", quoted[1:-1])
        if parameters.setdefault(name.lower(), value) != value:
            raise BodyError("a Content-Type that says two things")
    return found[1].lower(), parameters


def _check_encoding(headers: Headers) -> None:
    for name in ("content-encoding", "content-transfer-encoding"):
        if any(one.strip().lower() not in _AS_IT_IS for one in headers.get(name, ())):
            raise BodyError("a part is encoded; SIP carries it as it is")


def _divided(body: bytes, boundary: str) -> list[bytes]:
    """The parts of a multipart body. Raises BodyError where it does not end, or where anything stands around them."""
    if _BOUNDARY.fullmatch(boundary) is None:
        raise BodyError("a multipart body without a boundary that can be read")
    line = re.compile(rb"(?:\A|\r?\n)--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    marks = list(line.finditer(body))
    if not marks or not marks[-1][1] or any(one[1] for one in marks[:-1]):
        raise BodyError("a multipart body that does not end where it says")
    if len(marks) > MAX_PARTS:
        raise BodyError(f"a multipart body of more than {MAX_PARTS} parts")
    if _MAY_HOLD_JSON.search(body[: marks[0].start()]) or body[marks[-1].end() :].strip():
        raise BodyError("something stands around the parts of a multipart body")
    return [body[one.end() : other.start()] for one, other in pairwise(marks)]


def _part(part: bytes) -> tuple[dict[str, list[str]], bytes]:
    """Headers and body of a part, which begins with the end of its boundary's line. Raises BodyError."""
    blank = _BLANK.search(part)
    if blank is None:
        raise BodyError("a part without an end of its headers")
    headers: dict[str, list[str]] = {}
    name = ""
    for line in _BREAK.split(part[: blank.start()]):
        text = line.decode("utf-8", "replace")
        if text[:1] in (" ", "\t") and name:
            headers[name][-1] += " " + text.strip()
        elif text.strip():
            name, colon, value = text.partition(":")
            name = name.strip().lower()
            if not colon or _NAME.fullmatch(name) is None:
                raise BodyError("a header of a part that cannot be read")
            headers.setdefault(name, []).append(value.strip())
    return headers, part[blank.end() :]
