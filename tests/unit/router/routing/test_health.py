"""Probes with hysteresis: up, suspect, down and back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book.model import TrunkPolicy
from router.routing.health import Health, Trunk, Trunks
from router.sip.port import Target

TARGET = Target(uri="sip:a.invalid", policy=TrunkPolicy(probe_s=10))


def trunks(down_after: int = 3, up_after: int = 2) -> tuple[Trunks, list[tuple[str, str]]]:
    changes: list[tuple[str, str]] = []

    def changed(trunk: Trunk, before: Health) -> None:
        changes.append((before.value, trunk.health.value))

    found = Trunks(down_after=down_after, up_after=up_after, on_change=changed)
    found.watch({"a": TARGET}, 0)
    return found, changes


def after(codes: list[int]) -> Health:
    found, _ = trunks()
    for code in codes:
        found.note("a", code, 1000)
    return found.health("a")


@pytest.mark.parametrize(
    ("codes", "health"),
    [
        ([], Health.UP),
        ([200], Health.UP),
        ([0], Health.SUSPECT),
        ([0, 200], Health.UP),
        ([0, 0], Health.SUSPECT),
        ([0, 0, 0], Health.DOWN),
        ([503, 503, 503], Health.DOWN),
        ([404, 401, 486], Health.UP),
        ([0, 0, 0, 200], Health.DOWN),
        ([0, 0, 0, 200, 0, 200], Health.DOWN),
        ([0, 0, 0, 200, 200], Health.UP),
    ],
)
def test_health_follows_the_probes(codes: list[int], health: Health) -> None:
    assert after(codes) is health


@given(st.lists(st.sampled_from([0, 200, 503]), max_size=60))
def test_it_is_down_only_after_three_bad_ones_in_a_row_and_never_flaps(codes: list[int]) -> None:
    found, changes = trunks()
    for at, code in enumerate(codes):
        before = found.health("a")
        found.note("a", code, 0)
        if found.health("a") is Health.DOWN and before is not Health.DOWN:
            assert all(one in (0, 503) for one in codes[at - 2 : at + 1])
        if before is Health.DOWN and found.health("a") is Health.UP:
            assert codes[at - 1 : at + 1] == [200, 200]
    assert len(changes) <= len(codes)


def test_probes_are_spread_and_never_two_at_once() -> None:
    found, _ = trunks()
    times: list[int] = []
    for now_us in range(0, 600_000_000, 100_000):
        for _trunk in found.due(now_us):
            times.append(now_us)
            found.note("a", 200, 0)
    gaps = [(b - a) / 1e6 for a, b in itertools.pairwise(times)]
    assert 50 <= len(times) <= 75
    assert min(gaps) >= 8
    assert max(gaps) <= 12.2
    assert len(set(gaps)) > 3
    assert [one.name for one in found.due(10**12)] == ["a"]
    assert not list(found.due(10**13)), "the one under way has not answered yet"


def test_a_trunk_that_is_no_longer_watched_is_forgotten_and_one_that_stays_is_not() -> None:
    found, _ = trunks(down_after=1)
    found.note("a", 0, 0)
    found.watch({"a": TARGET, "b": TARGET}, 0)
    assert found.health("a") is Health.DOWN
    found.watch({"b": TARGET}, 0)
    assert found.health("a") is Health.UP
    found.note("a", 0, 0)
    assert [one.name for one in found.all] == ["b"]
