"""JSON in which no name is given twice: which of two values counts is not guessed (RFC 8259 section 4)."""

from __future__ import annotations

import json
from typing import Any

import orjson


class TwiceError(ValueError):
    """A name is given twice in one object; the message names it."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these pairs, for `json`'s `object_pairs_hook`. Raises TwiceError."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise TwiceError(f"{twice[:40]!r} is given twice")
    return found


def loads_once(content: bytes | str) -> Any:
    """As `orjson.loads`. Raises orjson.JSONDecodeError, and TwiceError."""
    found = orjson.loads(content)
    json.loads(content, object_pairs_hook=once)
    return found
