"""Instants as the routes show them and take them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from portal.http.values import microseconds, moment, whole_second

INSTANTS = st.integers(0, 4_000_000_000_000_000)


@given(INSTANTS)
def test_what_is_shown_can_be_asked_for_to_the_microsecond(utc_us: int) -> None:
    assert microseconds(moment(utc_us)) == utc_us
    assert microseconds(whole_second(utc_us)) == utc_us - utc_us % 1_000_000


def test_an_instant_of_another_zone_is_the_same_instant() -> None:
    at = datetime(2026, 6, 2, 10, tzinfo=timezone(timedelta(hours=-4)))
    assert microseconds(at) == 1_780_408_800_000_000
    assert moment(1_780_408_800_000_000) == at
    assert microseconds(None) is None
