"""Counts of the native side, which go up from its start, as increases since the last look."""

from __future__ import annotations


class Counters:
    """What each count was at the last look; from 0, so that the first look tells all of it."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def increase(self, name: str, count: int) -> int:
        """By how much the count of that name has grown since it was last told."""
        grown = count - self._last.get(name, 0)
        self._last[name] = count
        return grown
