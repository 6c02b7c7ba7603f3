"""Making text of the network safe to show: a lead's fields are written by whoever filled in a form.

Control characters (a new line in a header starts another header), invisible ones and those that turn the direction of
writing go; what a spreadsheet would take for a formula gets an apostrophe in front; everything has a length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

MAX_NAME = 64  # characters
MAX_VALUE = 2_000
MAX_FIELDS = 100

_E164 = re.compile(r"\+[0-9]{7,15}")
# OWASP, CSV injection: these at the start of a cell; the wide forms are taken for them by some spreadsheets.
FORMULA_STARTS = (*"=+-@|%", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_AS_SPACE = frozenset({"Cc", "Zl", "Zp"})
_GONE = frozenset({"Cf", "Cs", "Co", "Cn"})


def one_line(text: object, limit: int = MAX_VALUE) -> str:
    """The text in one visible line of at most `limit` characters."""
    kept = []
    for character in str(text)[: limit * 2]:
        category = unicodedata.category(character)
        if category in _AS_SPACE:
            kept.append(" ")
        elif category not in _GONE:
            kept.append(character)
    return " ".join("".join(kept).split())[:limit]


def csv_cell(text: str) -> str:
    """The text as a cell that no spreadsheet runs. A plain E.164 number stays as it is: it is a number, no formula."""
    shown = one_line(text)
    return "'" + shown if is_formula(shown) else shown


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would run it; a plain E.164 number is none."""
    return text.startswith(FORMULA_STARTS) and not _E164.fullmatch(text)


def fields_of(lead: object) -> list[tuple[str, str]]:
    """The lead's fields, in their order, safe to show: at most a hundred; empty names and values are left out."""
    if not isinstance(lead, Mapping):
        return []
    shown = [(one_line(name, MAX_NAME), one_line(value)) for name, value in list(lead.items())[:MAX_FIELDS]]
    return [(name, value) for name, value in shown if name and value]
