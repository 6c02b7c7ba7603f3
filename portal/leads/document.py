"""A posted lead: read, checked against the bounds of the leads that come by SIP, and written down in one form.

Where the router cuts what is too long (a caller is on the line), here it is refused: who posts can mend it.
"""

from __future__ import annotations

from typing import Any

import orjson

from portal.http.problems import ProblemError
from router.lead import (
    MAX_FIELDS,
    MAX_NAME,
    MAX_VALUE,
    PHONE,
    LeadError,
    as_text,
    clean,
    field_name,
    one_number,
    read_json,
)


def read_document(body: bytes) -> bytes:
    """The lead as JSON, names in one spelling and the phone in E.164. Raises ProblemError, every field at once."""
    try:
        given = read_json(body)
    except LeadError as error:
        raise ProblemError(400, f"the body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise ProblemError(422, "the body is not a JSON object of lead fields")
    if len(given) > MAX_FIELDS:
        raise ProblemError(422, f"the lead has more than {MAX_FIELDS} fields")
    fields: dict[str, str] = {}
    errors: list[tuple[str, str]] = []
    for given_name, value in given.items():
        name, text = field_name(given_name), _text(value)
        fault = _fault(given_name, name, text, fields)
        if fault:
            errors.append((given_name[:MAX_NAME], fault))
        else:
            fields[name] = (text or "") if name == PHONE else clean(text or "")  # the phone is read as it came
    phone = one_number([fields[PHONE]]) if PHONE in fields else ""
    if not phone and not any(field_name(field) == PHONE for field, _ in errors):
        errors.append((PHONE, "is not a phone number" if fields.get(PHONE) else "is required"))
    if errors:
        raise ProblemError(422, "the lead cannot be used", errors=errors)
    return orjson.dumps({**fields, PHONE: phone}, option=orjson.OPT_SORT_KEYS)


def _fault(given_name: str, name: str, text: str | None, fields: dict[str, str]) -> str:
    """What is wrong with one field; empty: nothing."""
    if not name or len(given_name) > MAX_NAME:
        return f"the name of a field has 1 to {MAX_NAME} characters, some of them letters or digits"
    if name in fields:
        return f"means the same field as another: {name}"
    if text is None:
        return "is not text, a number, true, false or null"
    return f"has more than {MAX_VALUE} characters" if len(text) > MAX_VALUE else ""


def _text(value: Any) -> str | None:
    """The value as a lead has it; None where it is a list or an object."""
    return None if isinstance(value, list | dict) else as_text(value)
