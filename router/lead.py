"""The lead that comes with an INVITE: `X-Lead-*` headers and a JSON part of a multipart body.

Both are hostile input. Names are reduced to lower-case words, control characters are dropped, sizes are bounded; what
is over a bound is cut or left out and said so in `problems`, so that nothing is lost silently. Whoever prints a field
(mail, CSV, HTML, SIP) escapes it there for that medium.

The phone is read by the normaliser of the suppression lists. One that was given and cannot be read leaves the lead
without a phone: another number in its place would be scrubbed instead of the person's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from config.numbers import NumberError, normalise, to_e164

HEADER_PREFIX = "x-lead-"
MAX_FIELDS = 64  # a lead form has a dozen; more is an accident or an attack
MAX_NAME = 40
MAX_VALUE = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")
_NAME = re.compile(r"[^a-z0-9_]+")
_PHONE = "phone"
NOT_A_NUMBER = "lead.phone: not a phone number"


@dataclass(frozen=True, slots=True)
class Lead:
    """Fields by name, the phone first, and what was wrong."""

    phone: str = ""  # E.164; empty where there is none. Among the fields what was given then stays as it was written
    fields: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def clean(value: str) -> str:
    """One line without control characters, at most MAX_VALUE long. Lone surrogates from bad bytes are replaced."""
    safe = value.encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub(" ", safe).strip()[:MAX_VALUE]


def field_name(name: str) -> str:
    """`First-Name` and `firstName ` become `first_name` and `firstname`."""
    return _NAME.sub("_", name.strip().lower())[:MAX_NAME].strip("_")


def e164(number: str) -> str:
    """The number in E.164, or empty where it is none: as the suppression lists read it."""
    try:
        return to_e164(normalise(number))
    except NumberError:
        return ""


def read_lead(headers: Mapping[str, list[str]], body: bytes, caller: str) -> Lead:
    """The lead of one INVITE. JSON fields win over headers. The caller's number is taken where no phone was given."""
    found: dict[str, str] = {}
    problems: list[str] = []
    for name, values in headers.items():
        if name.startswith(HEADER_PREFIX):
            _put(found, name[len(HEADER_PREFIX) :], values[0] if values else "", problems)
    if body:
        _read_json(found, body, problems)
    given = found.pop(_PHONE, None)
    phone = e164(caller if given is None else given)
    if given is not None and not phone:
        problems.append(NOT_A_NUMBER)
    said = phone or clean(given or "")
    return Lead(phone=phone, fields={_PHONE: said, **found} if said else found, problems=tuple(problems))


def _read_json(found: dict[str, str], body: bytes, problems: list[str]) -> None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        problems.append(f"lead: the JSON part cannot be read: {error}")
        return
    if not isinstance(document, dict):
        problems.append("lead: the JSON part is not an object")
        return
    for name, value in document.items():
        several = isinstance(value, list | dict) and field_name(name) == _PHONE  # one alone would be scrubbed
        _put(found, name, "" if several else _as_text(value), problems)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()


def _put(found: dict[str, str], name: str, value: str, problems: list[str]) -> None:
    """Keep a field, cleaned. The phone is kept however many there are, and as it came: it is read as it was given."""
    key = field_name(name)
    if not key:
        problems.append("lead: a field without a usable name was left out")
    elif len(found) >= MAX_FIELDS and key not in found and key != _PHONE:
        problems.append(f"lead.{key}: left out, more than {MAX_FIELDS} fields")
    else:
        found[key] = value if key == _PHONE else clean(value)
        if len(value) > MAX_VALUE:
            problems.append(f"lead.{key}: cut to {MAX_VALUE} characters")
