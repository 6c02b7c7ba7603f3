"""One number, however it is written: the scrub agrees with a plain Python set under any spelling."""

from __future__ import annotations

import csv
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from book.numbers import MAX_EXTENSION, NumberError, is_region, normalise, to_e164
from suppression.reading.reader import ListFile
from tests import spellings

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


@pytest.mark.parametrize(("text", "number"), spellings.SPELLINGS)
def test_the_table_of_spellings_holds(text: str, number: str | None) -> None:
    if number is not None:
        assert to_e164(normalise(text)) == number
        return
    with pytest.raises(NumberError) as caught:
        normalise(text)
    assert not text.strip(" -+") or text.strip() not in str(caught.value)


_odd = st.sampled_from(
    ["x", "E", "e9", "O", "ext ", ";ext=", ";", ",,", ",", ".", ".0", "/", "#", "+", "1", "\n", "\u00b2", "*"]
)


@given(st.lists(st.one_of(_ten, st.text(DIGITS, max_size=8), _odd, st.sampled_from("-. ()")), min_size=1, max_size=6))
@settings(max_examples=600, deadline=None)
def test_no_digit_is_dropped_to_make_a_number(parts: list[str]) -> None:
    """What is read has all digits of the text, but for a country's 1, what stands for +, `.0` and an extension."""
    text = "".join(parts)
    try:
        number = str(normalise(text))
    except NumberError:
        return
    written = re.sub(r"\.0+\Z", "", text.strip()) if re.fullmatch(r"\s*[0-9]+\.0{1,3}\s*", text) else text
    power = re.fullmatch(r"\s*([0-9])\.?([0-9]*)[Ee]\+?[0-9]+\s*", text)
    written = power[1] + power[2] if power else written
    marks = list(re.finditer(r"(?i)(;ext=|ext|x|#|,,)", written))
    behind = "".join(filter(str.isdigit, written[marks[-1].end() :])) if marks else ""
    assert len(behind) <= MAX_EXTENSION
    digits = "".join(filter(str.isdigit, written[: marks[-1].start()] if marks else written))
    read = {prefix + number for prefix in ("", "00", "011")} | {number[1:]}
    if not number.startswith("1"):  # abroad one more is dialled: +44 (0)20
        read |= {
            prefix + number[:at] + one + number[at:]
            for prefix in ("", "00", "011")
            for at in (1, 2, 3)
            for one in DIGITS
        }
    assert digits in read


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


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("020 7946 0958", "GB", 442079460958),
        ("2125550100", "GB", 442125550100),  # ten digits are not always North American
        ("0113 496 0000", "GB", 441134960000),  # nor does 011 always stand for +
        ("00 1 212 555 0100", "GB", 12125550100),
        ("0011 1 212 555 0100", "AU", 12125550100),
        ("+1 (212) 555-0100", "GB", 12125550100),
        ("+44 20 7946 0958", "FR", 442079460958),
        ("tel:7946-0958;phone-context=+4420", "FR", 442079460958),
        ("2079460958.0", "GB", 442079460958),
        ("2125550100", "CA", 12125550100),
        ("011 44 20 7946 0958", "JM", 442079460958),
    ],
)
def test_a_number_without_a_country_is_of_the_region(text: str, region: str, number: int) -> None:
    assert normalise(text, region) == number


def test_what_is_long_enough_at_home_may_be_too_long_elsewhere() -> None:
    assert normalise("12125550100") == 12125550100
    with pytest.raises(NumberError):
        normalise("12125550100", "GB")


def test_a_region_is_a_country_in_capital_letters() -> None:
    assert [one for one in ("US", "GB", "us", "UK", "001", "", "ZZ") if is_region(one)] == ["US", "GB"]


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
        with ListFile(file) as opened_list:
            batches = list(opened_list)
    numbers = [number for batch in batches for number in batch.keys.tolist()]
    model = {int("1" + ten) for ten, _ in listed}
    assert numbers == [int("1" + ten) for ten, _ in listed]
    assert not [reject for batch in batches for reject in batch.rejects]
    for ten, how in [*asked, *((ten, again) for ten, _ in listed)]:
        assert (normalise(spell(ten, how)) in set(numbers)) == (int("1" + ten) in model)
