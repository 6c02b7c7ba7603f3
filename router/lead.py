"""The lead that comes with an INVITE: `X-Lead-*` headers and a JSON part of a multipart body.

Both are hostile input. Names are reduced to lower-case words, control characters are dropped, sizes are bounded; what
is over a bound is cut or left out and said so in `problems`, so that nothing is lost silently. Whoever prints a field
(mail, CSV, HTML, SIP) escapes it there for that medium.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import phonenumbers

HEADER_PREFIX = "x-lead-"
MAX_FIELDS = 64  # a lead form has a dozen; more is an accident or an attack
MAX_NAME = 40
MAX_VALUE = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")
_NORTH_AMERICA = re.compile(r"\+1[2-9][0-9]{2}[2-9][0-9]{6}")  # what phonenumbers would say of these, at once
_NAME = re.compile(r"[^a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Lead:
    """Fields by name, the phone in E.164 first (empty and not among them where there is none), and what was wrong."""

    phone: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def clean(value: str) -> str:
    """One line without control characters, at most MAX_VALUE long. Lone surrogates from bad bytes are replaced."""
    safe = value.encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub(" ", safe).strip()[:MAX_VALUE]


def field_name(name: str) -> str:
    """`First-Name` and `firstName ` become `first_name` and `firstname`."""
    return _NAME.sub("_", name.strip().lower())[:MAX_NAME].strip("_")


def e164(number: str, region: str = "US") -> str:
    """The number in E.164, or empty where it is none (ITU-T E.164 by phonenumbers' tables: possible, not assigned)."""
    if _NORTH_AMERICA.fullmatch(number):
        return number
    try:
        parsed = phonenumbers.parse(number.strip(), region)
    except phonenumbers.NumberParseException:
        return ""
    if not phonenumbers.is_possible_number(parsed):
        return ""
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def read_lead(headers: Mapping[str, list[str]], body: bytes, caller: str) -> Lead:
    """The lead of one INVITE. JSON fields win over headers; the phone falls back to the caller's number."""
    found: dict[str, str] = {}
    problems: list[str] = []
    for name, values in headers.items():
        if name.startswith(HEADER_PREFIX):
            _put(found, name[len(HEADER_PREFIX) :], values[0] if values else "", problems)
    if body:
        _read_json(found, body, problems)
    phone = e164(found.get("phone", ""))
    if not phone:
        if found.get("phone"):
            problems.append("lead.phone: not a phone number; the caller's number is used")
        phone = e164(caller)
    fields = {"phone": phone, **{name: value for name, value in found.items() if name != "phone"}} if phone else found
    return Lead(phone=phone, fields=fields, problems=tuple(problems))


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
        _put(found, name, _as_text(value), problems)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()


def _put(found: dict[str, str], name: str, value: str, problems: list[str]) -> None:
    key = field_name(name)
    if not key:
        problems.append("lead: a field without a usable name was left out")
    elif len(found) >= MAX_FIELDS and key not in found:
        problems.append(f"lead.{key}: left out, more than {MAX_FIELDS} fields")
    else:
        found[key] = clean(value)
        if len(value) > MAX_VALUE:
            problems.append(f"lead.{key}: cut to {MAX_VALUE} characters")
