"""Reading a payload's JSON without raising, whatever it holds: a value of its type, or None.

None is what is absent, null or of another type; nothing is converted, since that would be a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facts.fact import Fact

Payload = dict[str, Any]  # the JSON object that is stored
NOTHING: Mapping[str, Any] = {}


def stored(fact: Fact) -> Mapping[str, Any]:
    """The payload as it is stored, for who shows or matches every field; empty where it is no object."""
    payload: object = fact.payload
    return payload if isinstance(payload, dict) else NOTHING


def whole(payload: Mapping[str, Any], name: str) -> int | None:
    value = payload.get(name)
    return value if type(value) is int else None  # not bool, which is an int to isinstance


def text(payload: Mapping[str, Any], name: str) -> str | None:
    value = payload.get(name)
    return value if isinstance(value, str) else None


def truth(payload: Mapping[str, Any], name: str) -> bool | None:
    value = payload.get(name)
    return value if value is True or value is False else None


def mark(payload: Mapping[str, Any], name: str) -> bool | None:
    """A flag that is only written where it is set."""
    value = payload.get(name, False)
    return value if value is True or value is False else None


def texts(payload: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Texts of a list; what is none is left out."""
    value = payload.get(name)
    return tuple([item for item in value if isinstance(item, str)]) if isinstance(value, list) else ()


def wholes(payload: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Whole numbers of a list; what is none is left out."""
    value = payload.get(name)
    return tuple([item for item in value if type(item) is int]) if isinstance(value, list) else ()


def objects(payload: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Objects of a list, in its order; what is none reads as an empty one, so that it still counts."""
    value = payload.get(name)
    return [item if isinstance(item, dict) else NOTHING for item in value] if isinstance(value, list) else []


def json_object(payload: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = payload.get(name)
    return value if isinstance(value, dict) else None


def given(**fields: Any) -> Payload:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
