"""Terms profiles: the presets that ship, and which version of a profile is in force at an instant.

A profile is a name with versions; each is in force from 00:00 of its `effective_from` in its own time zone until the
next one starts. The version in force at dial-out decides and prices a transfer (domain, sections 3 and 5).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

from book.model import Terms
from book.sections import TermsEntry


@cache
def presets() -> dict[str, Terms]:
    """The presets by name. Raises ValueError where a shipped file is damaged."""
    found: dict[str, Terms] = {}
    for file in resources.files("book.presets").iterdir():
        if file.name.endswith(".toml"):
            terms = TermsEntry.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))).to_terms({})
            found[terms.name] = terms
    return dict(sorted(found.items()))


def starts_at(terms: Terms) -> datetime:
    """The instant, in UTC, from which a version is in force: 00:00 of its first day in its zone."""
    first = datetime.combine(date.fromisoformat(terms.effective_from), time(), ZoneInfo(terms.time_zone))
    return first.astimezone(UTC)


def in_force(versions: Iterable[Terms], at: datetime) -> Terms | None:
    """The version in force at `at` (aware); None where the first one is still to come.

    Where two start on the same day the higher version holds.
    """
    started = [one for one in versions if starts_at(one) <= at]
    return max(started, key=lambda one: (starts_at(one), one.version), default=None)


def next_start(versions: Iterable[Terms], after: datetime) -> datetime | None:
    """The next instant at which another version takes over; None where none is waiting."""
    return min((start for one in versions if (start := starts_at(one)) > after), default=None)
