"""Transfer ids: short, sortable by time, unguessable enough to be a Call-ID, safe in SIP, MQTT topics, URLs and CSV."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that reads like something else
_TIME_DIGITS = 9  # 45 bits of milliseconds: until the year 3084
_RANDOM_DIGITS = 11  # 55 bits


def _encode(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, 32)
        text = _ALPHABET[digit] + text
    return text


def new_id(utc_us: int) -> str:
    """20 characters: the wall time in ms, then chance."""
    return _encode(utc_us // 1000, _TIME_DIGITS) + _encode(secrets.randbits(55), _RANDOM_DIGITS)
