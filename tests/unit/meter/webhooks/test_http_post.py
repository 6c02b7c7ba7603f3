"""What an answer to a webhook says of when to come again."""

from __future__ import annotations

import pytest

from meter.webhooks.http_post import MAX_RETRY_AFTER_S, _retry_after_s

DATE = (b"Date", b"Tue, 15 Nov 1994 08:12:31 GMT")  # of the far end, whose clock may be years behind
LATER = ("Tue, 15 Nov 1994 08:14:31 GMT", "Tuesday, 15-Nov-94 08:14:31 GMT", "Tue Nov 15 08:14:31 1994")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        *((form, 120) for form in LATER),  # RFC 9110 section 5.6.7: the form to be made, and two that are to be read
        ("120", 120),
        (" 120 ", 120),
        ("0", 0),
        ("99999999", MAX_RETRY_AFTER_S),
        ("9" * 400, MAX_RETRY_AFTER_S),
        ("Wed, 15 Nov 2094 08:14:31 GMT", MAX_RETRY_AFTER_S),
        ("Tue, 15 Nov 1994 08:10:00 GMT", 0),  # it is over
        ("Tue, 15 Nov 1994 09:14:31 +0100", 120),
        ("", 0),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("Tue, 99 Nov 1994 08:14:31 GMT", 0),
        ("\u00b2", 0),  # a digit to `isdigit` alone
        ("x" * 100_000, 0),
    ],
)
def test_retry_after_is_a_number_or_one_of_three_dates(said: str, seconds: int) -> None:
    assert _retry_after_s([DATE, (b"RETRY-after", said.encode("latin-1"))]) == seconds


def test_a_date_without_the_answers_own_is_held_against_our_clock() -> None:
    assert _retry_after_s([(b"retry-after", b"Wed, 15 Nov 2094 08:14:31 GMT")]) == MAX_RETRY_AFTER_S
    assert _retry_after_s([(b"date", b"nonsense"), (b"retry-after", LATER[0].encode())]) == 0
    assert _retry_after_s([DATE]) == 0
