"""Counts of the native side go up from its start; what is told is by how much since the last look."""

from __future__ import annotations

from router.sip.counters import Counters


def test_an_increase_is_told_once_and_for_each_name_by_itself() -> None:
    counters = Counters()
    assert [counters.increase("large", count) for count in (3, 3, 7)] == [3, 0, 4]
    assert counters.increase("cut", 7) == 7, "from 0, whatever others have counted"
