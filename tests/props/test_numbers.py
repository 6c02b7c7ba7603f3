"""One number, however it is written: the scrub agrees with a plain Python set under any spelling."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suppression.importer import read_csv
from suppression.numbers import NumberError, normalise, to_e164

DIGITS = "0123456789"
_first = st.sampled_from("23456789")
_ten = st.tuples(_first, st.text(DIGITS, min_size=2, max_size=2), _first, st.text(DIGITS, min_size=6, max_size=6)).map(
    "".join
)
SPELLINGS = (
    "+1{0}{1}{2}",
    "1{0}{1}{2}",
    "{0}{1}{2}",
    "({0}) {1}-{2}",
    "{0}.{1}.{2}",
    "{0}-{1}-{2}",
    "+1 ({0}) {1} {2}",
    "1-{0}-{1}-{2}",
    "tel:+1-{0}-{1}-{2}",
    "tel:+1{0}{1}{2};ext=7",
    "sip:+1{0}{1}{2}@dialer.example;user=phone",
    "001 {0} {1} {2}",
    "011 1 {0} {1} {2}",
    "0111{0}{1}{2}",
    "  {0}\u00a0{1}\u2011{2} ",
    "{0}{1}{2}.0",
    "'{0}{1}{2}",
    "{0}/{1}/{2}",
)


def spell(ten: str, how: str) -> str:
    return how.format(ten[:3], ten[3:6], ten[6:])


@pytest.mark.parametrize("how", SPELLINGS)
def test_every_spelling_is_the_same_number(how: str) -> None:
    assert normalise(spell("2125550100", how)) == 12125550100


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("+44 20 7946 0958", 442079460958),
        ("0044 20 7946 0958", 442079460958),
        ("011 44 20 7946 0958", 442079460958),
        ("tel:5550100;phone-context=+1212", 12125550100),
        ("212-555-0100 ext. 12", 12125550100),
        ("1-800-FLOWERS", 18003569377),
        ("+39 06 1234 5678", 390612345678),
    ],
)
def test_numbers_from_elsewhere_and_odd_spellings(text: str, number: int) -> None:
    assert normalise(text) == number
    assert normalise(to_e164(number)) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "abc",
        "+",
        "555-0100",
        "911",
        "0125550100",
        "2121550100",
        "+11234567890",
        "1" * 65,
        "+1212555010012345",
    ],
)
def test_what_is_no_number_is_said_to_be_none_and_not_repeated(text: str) -> None:
    with pytest.raises(NumberError) as caught:
        normalise(text)
    assert not text.strip(" +") or text not in str(caught.value)


@given(st.text(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_number_or_a_number_error(text: str) -> None:
    try:
        number = normalise(text)
    except NumberError:
        return
    assert 0 < number < 10**15
    assert normalise(to_e164(number)) == number


@given(
    listed=st.lists(st.tuples(_ten, st.sampled_from(SPELLINGS)), min_size=1, max_size=30),
    asked=st.lists(st.tuples(_ten, st.sampled_from(SPELLINGS)), max_size=30),
    again=st.sampled_from(SPELLINGS),
)
@settings(max_examples=60, deadline=None)
def test_a_list_equals_a_python_set(listed: list[tuple[str, str]], asked: list[tuple[str, str]], again: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "list.csv"
        with file.open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows([["Phone"], *([spell(ten, how)] for ten, how in listed)])
        numbers, report = read_csv(file)
    model = {int("1" + ten) for ten, _ in listed}
    assert list(numbers) == sorted(model)
    assert (report.rejected, report.lines) == (0, len(listed))
    for ten, how in [*asked, *((ten, again) for ten, _ in listed)]:
        assert (normalise(spell(ten, how)) in set(numbers)) == (int("1" + ten) in model)
