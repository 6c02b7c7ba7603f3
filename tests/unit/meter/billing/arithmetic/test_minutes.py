"""Minute rating: started increments, the minimum, and the price of the domain, section 9."""

from __future__ import annotations

from dataclasses import replace

import pytest

from book.terms import presets
from meter.billing.arithmetic.minutes import MinuteCharge, minute_charge

TERMS = presets()["customer-success"]


@pytest.mark.parametrize(
    ("talk_ms", "minutes"),
    [(0, 0), (1, 1), (59_999, 1), (60_000, 1), (60_001, 2), (600_000, 10), (3_600_001, 61)],
)
def test_each_started_minute_costs_118_cents(talk_ms: int, minutes: int) -> None:
    assert minute_charge(talk_ms, TERMS) == MinuteCharge(talk_ms, minutes, minutes * 60_000, minutes * 118)


def test_talk_of_less_than_15_s_is_charged_for_units_play_no_part() -> None:
    assert minute_charge(3_000, TERMS).amount_minor == 118


@pytest.mark.parametrize(
    ("talk_ms", "increments", "charged_ms"),
    [(0, 0, 0), (1, 5, 30_000), (29_999, 5, 30_000), (30_000, 5, 30_000), (30_001, 6, 36_000), (36_001, 7, 42_000)],
)
def test_six_seconds_after_a_minimum_of_thirty(talk_ms: int, increments: int, charged_ms: int) -> None:
    terms = replace(TERMS, minute_increment_ms=6_000, minute_minimum_ms=30_000, minute_price_minor=12)
    assert minute_charge(talk_ms, terms) == MinuteCharge(talk_ms, increments, charged_ms, increments * 12)


def test_a_minimum_between_two_increments_is_charged_in_whole_ones() -> None:
    terms = replace(TERMS, minute_minimum_ms=90_000)
    assert minute_charge(10, terms).charged_ms == 120_000


def test_talk_is_never_negative_and_an_increment_never_nothing() -> None:
    with pytest.raises(ValueError, match="talk of -1 ms"):
        minute_charge(-1, TERMS)
    with pytest.raises(ValueError, match="increments of 0 ms"):
        minute_charge(1, replace(TERMS, minute_increment_ms=0))
