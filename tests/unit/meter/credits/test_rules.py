"""Credits, pure: until when one may ask, reasons by category, what a decision does, and every refusal in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book.model import Terms
from meter.credits.rules import (
    _SAID,
    MAX_REVIEWER,
    MAX_WORDS,
    Ages,
    CreditError,
    CreditRefusal,
    Effect,
    State,
    check_explanation,
    check_reason,
    check_reviewer,
    check_window,
    check_words,
    effect_of,
    load_reasons,
    show_credits,
    window_of,
)
from telemetry.metrics import REGISTRY

TERMS = Terms("contract")
HOUR_US = 3_600_000_000


def at(text: str, zone: str = "America/New_York", fold: int = 0) -> int:
    """By the clock of the zone, in microseconds UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()) * 1_000_000


def refused(refusal: CreditRefusal, work: object, *args: object) -> str:
    with pytest.raises(CreditError) as caught:
        work(*args)  # type: ignore[operator]
    assert caught.value.refusal is refusal
    return str(caught.value)


# --- the window ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("called", "zone", "closes"),
    [
        ("2026-06-02 00:00", "America/New_York", "2026-06-07 00:00"),
        ("2026-06-02 23:59:59", "America/New_York", "2026-06-07 00:00"),
        ("2026-06-02 23:59:59", "Asia/Kolkata", "2026-06-07 00:00"),
        ("2026-03-06 12:00", "America/New_York", "2026-03-11 00:00"),  # the clock is put forward on the 8th
        ("2026-10-30 12:00", "America/New_York", "2026-11-04 00:00"),  # and back on 1 November
        ("2026-02-25 12:00", "America/New_York", "2026-03-02 00:00"),
        (
            "2025-09-02 12:00",
            "America/Santiago",
            "2025-09-07 01:00",
        ),  # midnight is left out: the day ends with the jump
    ],
)
def test_the_window_ends_with_the_fourth_day_after_the_day_of_the_call(called: str, zone: str, closes: str) -> None:
    window = window_of(at(called, zone), replace(TERMS, time_zone=zone))
    assert window.closes_us == at(closes, zone)
    check_window(window, window.closes_us - 1)
    said = refused(CreditRefusal.TOO_LATE, check_window, window, window.closes_us)
    assert (window.last_day.isoformat() in said, zone in said) == (True, True)


def test_a_midnight_that_comes_twice_ends_the_day_with_the_first() -> None:
    window = window_of(at("2025-10-28 12:00", "America/Havana"), replace(TERMS, time_zone="America/Havana"))
    assert window.last_day == date(2025, 11, 1)
    assert window.closes_us == at("2025-11-02 00:00", "America/Havana", fold=0)
    assert at("2025-11-02 00:00", "America/Havana", fold=1) - window.closes_us == HOUR_US


def test_days_that_the_clock_changes_have_23_and_25_hours() -> None:
    spring = window_of(at("2026-03-06 00:00"), TERMS)
    autumn = window_of(at("2026-10-30 00:00"), TERMS)
    plain = window_of(at("2026-06-02 00:00"), TERMS)
    hours = [(one.closes_us - at(f"{one.call_day}")) // HOUR_US for one in (spring, autumn, plain)]
    assert hours == [119, 121, 120]


def test_the_days_are_the_terms() -> None:
    assert window_of(at("2026-06-02 12:00"), replace(TERMS, credit_days=0)).closes_us == at("2026-06-03 00:00")


@given(
    st.integers(1_600_000_000, 2_000_000_000),
    st.sampled_from(["America/New_York", "America/Havana", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Cairo"]),
)
def test_the_window_is_open_all_of_its_last_day_and_not_on_the_next(dialout_s: int, zone: str) -> None:
    window = window_of(dialout_s * 1_000_000, replace(TERMS, time_zone=zone))
    day_of = [
        datetime.fromtimestamp(at_us / 1e6, UTC).astimezone(ZoneInfo(zone)).date()
        for at_us in (dialout_s * 1_000_000, window.closes_us - 1_000_000, window.closes_us)
    ]
    assert day_of[0] == window.call_day
    assert [day - day_of[0] for day in day_of[1:]] == [timedelta(days=4), timedelta(days=5)]


# --- reasons ---------------------------------------------------------------------------------------------------------


def test_reasons_are_the_categorys_however_it_is_written_and_the_defaults_where_it_is_not_known() -> None:
    book = load_reasons()
    assert "has-lawyer" in book.of(" Legal ")
    assert "has-lawyer" not in book.of("solar")
    assert list(book.of("")) == list(book.categories["default"].reasons)
    assert book.title("gone") == "gone"


def test_in_every_category_voicemails_missed_calls_and_price_shoppers_are_valid_calls() -> None:
    book = load_reasons()
    for category in book.categories:
        valid = {name for name, one in book.of(category).items() if one.valid}
        assert valid == {"voicemail", "missed-call", "price-shopper"}
        assert len(book.of(category)) > len(valid)


def test_a_valid_call_is_explained_and_another_reason_named() -> None:
    reasons = load_reasons().of("")
    check_reason(reasons, "duplicate")
    assert "a sales opportunity" in refused(CreditRefusal.VALID_CALL, check_reason, reasons, "voicemail")
    said = refused(CreditRefusal.UNKNOWN_REASON, check_reason, reasons, "has-lawyer")
    assert ("duplicate" in said, "voicemail" in said) == (True, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[reasons", "reasons.toml: "),
        ("[reasons.a]\ntitle = 'A'\n[categories.x]\nreasons = ['a']\n", "'default' is missing"),
        ("[reasons.a]\ntitle = 'A'\n[categories.default]\nreasons = ['b']\n", "'b' is no [reasons] entry"),
        ("[reasons.a]\ntitle = 'A'\nvalid = true\n[categories.default]\nreasons = ['a']\n", "have an explanation"),
        ("[reasons.a]\ntitle = 'A'\nexplanation = 'x'\n[categories.default]\nreasons = ['a']\n", "the others none"),
        ("[reasons.a]\ntitel = 'A'\n[categories.default]\nreasons = ['a']\n", "reasons.a."),
    ],
)
def test_a_file_of_reasons_that_cannot_be_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "reasons.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"reasons\.toml: ") as caught:
        load_reasons(file)
    assert said in str(caught.value)


def test_an_operators_own_file_takes_the_place_of_what_ships(tmp_path: Path) -> None:
    file = tmp_path / "reasons.toml"
    file.write_text("[reasons.a]\ntitle = 'A'\n[categories.default]\nreasons = ['a']\n", encoding="utf-8")
    assert list(load_reasons(file).of("legal")) == ["a"]


# --- words, reviewers, decisions -------------------------------------------------------------------------------------


def test_words_are_kept_in_lines_without_what_steers_a_terminal_or_a_header() -> None:
    assert check_words("  one\x1b[2J \r\n\r\n\r\n two\u202e\n") == "one [2J\n\ntwo"
    assert check_words("w" * MAX_WORDS) == "w" * MAX_WORDS
    assert check_explanation("x" * 3_000) == "x" * 3_000, "nothing is cut"


@pytest.mark.parametrize("words", ["", " \n\t ", "\u200b", "w" * (MAX_WORDS + 1), "w\n" * 100_000])
def test_words_that_are_none_or_too_many_are_refused(words: str) -> None:
    refused(CreditRefusal.BAD_WORDS, check_words, words)


@given(st.text(max_size=MAX_WORDS))
def test_what_is_kept_of_words_is_kept_again(words: str) -> None:
    try:
        kept = check_words(words)
    except CreditError:
        return
    assert check_words(kept) == kept
    assert len(kept) <= MAX_WORDS


def test_a_re_review_is_another_reviewers_however_the_name_is_written() -> None:
    assert check_reviewer(" Bo ", "Ann") == "Bo"
    assert check_reviewer("ann", None) == "ann"
    for name in ("ann", "ANN", " Ann "):
        refused(CreditRefusal.SAME_REVIEWER, check_reviewer, name, "Ann")
    refused(CreditRefusal.BAD_REVIEWER, check_reviewer, " ", None)
    refused(CreditRefusal.BAD_REVIEWER, check_reviewer, "a" * (MAX_REVIEWER + 1), None)


@pytest.mark.parametrize(
    ("before", "decided", "effect"),
    [
        (None, State.APPROVED, Effect.CREDIT),
        (None, State.DECLINED, Effect.NOTHING),
        (State.DECLINED, State.APPROVED, Effect.CREDIT),
        (State.DECLINED, State.DECLINED, Effect.NOTHING),
        (State.APPROVED, State.APPROVED, Effect.NOTHING),
        (State.APPROVED, State.DECLINED, Effect.TAKE_BACK),
    ],
)
def test_a_credit_is_given_once_and_taken_back_by_a_re_review_alone(
    before: State | None, decided: State, effect: Effect
) -> None:
    assert effect_of(before, decided) is effect


def test_every_refusal_has_a_text_that_begins_with_its_field() -> None:
    assert set(_SAID) == set(CreditRefusal)
    fields = {text.partition(": ")[0] for text in _SAID.values()}
    assert fields == {"transfer", "reason", "words", "request", "explanation", "reviewer"}


def test_a_refusal_repeats_braces_as_they_are() -> None:
    error = CreditError(CreditRefusal.NOT_BILLED, transfer="{x}")
    assert (error.field, "{x}" in error.detail) == ("transfer", True)


def test_the_gauges_show_the_line_and_zero_where_it_is_empty() -> None:
    show_credits(Ages(open=3, oldest_utc_us=5_000_000), 65_000_000)
    assert REGISTRY.get_sample_value("baton_credit_requests_open") == 3
    assert REGISTRY.get_sample_value("baton_credit_oldest_seconds") == 60
    show_credits(Ages(), 65_000_000)
    assert REGISTRY.get_sample_value("baton_credit_requests_open") == 0
    assert REGISTRY.get_sample_value("baton_credit_oldest_seconds") == 0
