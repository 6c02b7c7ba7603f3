"""Facts as a story writes them: `KIND [LEG] [NAME=VALUE ...]`, such as `leg_ended 2 by=router local=true`.

The values are those of the fact's payload as they would be written in JSON, without quotes; `NAME~PART` asks for a part
of the text instead of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from facts.fact import Fact, Kind
from facts.payload_values import stored

_CONDITION = re.compile(r"([a-z][a-z0-9_]*)([=~])(\S*)")


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a fact must look like. `leg` None: any."""

    kind: str
    leg: int | None = None
    conditions: tuple[tuple[str, str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises ValueError where the text is none."""
        kind, *words = text.split()
        leg = None
        if words and words[0].isdigit():
            leg = int(words.pop(0))
        conditions = []
        for word in words:
            found = _CONDITION.fullmatch(word)
            if found is None:
                raise ValueError(f"{word!r} is neither a leg nor NAME=VALUE")
            conditions.append((found.group(1), found.group(2), found.group(3)))
        return cls(kind, leg, tuple(conditions))

    def fits(self, fact: Fact) -> bool:
        if fact.kind.value != self.kind or (self.leg is not None and fact.leg != self.leg):
            return False
        return all(_fits(_plain(stored(fact).get(name)), how, value) for name, how, value in self.conditions)

    def __str__(self) -> str:
        words = [self.kind] + ([] if self.leg is None else [str(self.leg)])
        return " ".join([*words, *(f"{name}{how}{value}" for name, how, value in self.conditions)])


def _fits(actual: str, how: str, value: str) -> bool:
    return actual == value if how == "=" else value in actual


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def pattern_problem(text: str, *, known: bool) -> str:
    """What is wrong with it; `known`: its kind must be one that the journal has."""
    try:
        pattern = Pattern.parse(text)
    except ValueError as error:
        return f"{text!r}: {error}" if text.strip() else "is empty"
    if known and pattern.kind not in set(Kind):
        return f"{pattern.kind!r} is no kind of fact"
    return ""


def first_missing(chain: Sequence[Pattern], facts: Iterable[Fact]) -> Pattern | None:
    """The first of a chain that does not follow its predecessor; None where all are there in their order."""
    left = iter(facts)
    for pattern in chain:
        if not any(pattern.fits(fact) for fact in left):
            return pattern
    return None
