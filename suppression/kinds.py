"""The kinds of list entries: phone numbers, or digests of phone numbers.

A hashed list does not say what was hashed: `+12125550100`, `12125550100` or `2125550100`. One that guessed wrong would
let everybody through and nobody would notice. So nothing is declared and nothing is guessed: a look-up tries all three.
An entry is kept as a 64-bit key: a number's E.164 digits, or a digest's first eight bytes, with the rest of the digest
beside it, so that a hit is a hit on all of it.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

KEY_BYTES = 8
_NANP = range(12_000_000_000, 20_000_000_000)  # country code 1 and ten digits; area codes do not begin with 0 or 1


class Kind(StrEnum):
    """One per list."""

    NUMBER = "number"
    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"

    @property
    def digest_bytes(self) -> int:
        """0 for numbers."""
        return _BYTES[self]

    @property
    def rest_bytes(self) -> int:
        """Of a digest beside its key."""
        return max(0, _BYTES[self] - KEY_BYTES)


_BYTES = {Kind.NUMBER: 0, Kind.MD5: 16, Kind.SHA1: 20, Kind.SHA256: 32}


def spellings(number: int) -> tuple[bytes, ...]:
    """The spellings of a number that are commonly hashed: E.164 with and without plus, in North America ten digits."""
    digits = b"%d" % number
    if number in _NANP:
        return b"+" + digits, digits, digits[1:]
    return b"+" + digits, digits


def digests(kind: Kind, number: int) -> tuple[bytes, ...]:
    """The digests of all spellings of a number."""
    return tuple(hashlib.new(kind, one, usedforsecurity=False).digest() for one in spellings(number))
