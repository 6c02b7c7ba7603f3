"""Parses cells a whole column at a time; cells in an unusual form are left to the functions that parse a single cell.

The quick way for numbers must never say anything else than `book.numbers.normalise`; a random test compares. It
gathers the cells of one length as columns of characters, and reads together those that have their digits at the same
places: one comparison finds them all, and then ten digits are ten columns.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import reduce
from typing import cast

import numpy as np
import numpy.typing as npt

from suppression.expiry import LAST_S, day_end_us, end_us
from suppression.kinds import KEY_BYTES, Kind
from suppression.reading.rows import QUOTE
from suppression.reading.shapes import ColumnRead, Flags, Ints, Keys, Octets, Spans, Times

_TEN = 10  # digits: area code, exchange, line
_LENGTHS = range(_TEN, 21)  # of cells read the quick way: `2125550100` to `+1 - (212) 555 - 0100`, within PAD
_MAX_SHAPES = 24  # of cells of one length in one batch; more are read one by one
_DECIMALS = range(1, 4)  # digits behind a dot that make a fraction, as for `numbers`
_MAX_BLANKS = 8  # before or after, taken off the quick way
_ZERO, _ONE, _PLUS, _DOT, _DASH = b"01+.-"
_EXCHANGE_AT = 3
_NOT_FIRST = 2  # area code and exchange start with 2 to 9
_COUNTRY = np.uint64(10_000_000_000)
_DAY = 86_400  # seconds
_FIRST = date(1970, 1, 1)
_FIRST_S = 366 * _DAY  # what ends before 1971-01-02 stands for no date: 0001-01-01, 1900-01-01, 1970-01-01
_MONTHS = 12
_LABELS = {Kind.MD5: "an MD5", Kind.SHA1: "a SHA-1", Kind.SHA256: "a SHA-256"}


def _table(marks: bytes) -> Flags:
    table = np.zeros(256, np.bool_)
    table[list(marks)] = True
    return table


_BLANK = _table(b" \t\n\v\f\r")
_PUNCTUATION = _table(b" -.()/")  # of what `numbers` takes between digits, the usual
_HEX = np.full(256, 255, np.uint8)
_HEX[list(b"0123456789abcdef")] = range(16)
_HEX[list(b"ABCDEF")] = range(10, 16)


class CellError(ValueError):
    """The cell is no digest or no time. The message does not repeat it."""


def trim(text: Octets, cells: Spans) -> Spans:
    """Without the quotes around cells and the blanks around what they say (a doubled quote inside stays)."""
    begin, end = cells
    quoted = (text[begin] == QUOTE) & (text[end - 1] == QUOTE) & (end - begin > 1)
    if quoted.any():
        begin, end = begin + quoted, end - quoted
    for _ in range(_MAX_BLANKS):
        blank = _BLANK[text[begin]] & (begin < end)
        if not blank.any():
            break
        begin = begin + blank
    for _ in range(_MAX_BLANKS):
        blank = _BLANK[text[end - 1]] & (begin < end)
        if not blank.any():
            break
        end = end - blank
    return begin, end


def numbers(text: Octets, cells: Spans, *, home: bool) -> ColumnRead:
    """North American numbers. `home`: a number without a country is one."""
    begin, end = cells
    lengths = end - begin
    keys = np.zeros(len(begin), np.uint64)
    if len(begin) and lengths.min() == lengths.max():
        if int(lengths[0]) in _LENGTHS:
            keys = _of_one_length(text, begin, int(lengths[0]), home=home)
    else:
        counts = np.bincount(np.clip(lengths, 0, _LENGTHS.stop), minlength=_LENGTHS.stop + 1)
        for length in _LENGTHS:
            if counts[length]:
                which = np.flatnonzero(lengths == length)
                keys[which] = _of_one_length(text, begin[which], length, home=home)
    return ColumnRead(keys, keys != 0)


def registry_numbers(text: Octets, areas: Spans, cells: Spans, *, home: bool) -> ColumnRead:
    """Area codes of three digits beside seven digits, or eight characters with punctuation before the last four."""
    keys = np.zeros(len(areas[0]), np.uint64)
    lengths = cells[1] - cells[0]
    plain = (areas[1] - areas[0] == _EXCHANGE_AT) & home
    for length, digits in ((7, (0, 1, 2, 3, 4, 5, 6)), (8, (0, 1, 2, 4, 5, 6, 7))):
        which = np.flatnonzero(plain & (lengths == length))
        if not which.size:
            continue
        area = _columns(text, areas[0][which], _EXCHANGE_AT)
        line = _columns(text, cells[0][which], length)
        found = _ten_digits([*area, *(line[one] for one in digits)])
        if length > len(digits):
            found[~_PUNCTUATION[line[_EXCHANGE_AT]]] = 0
        keys[which] = found
    return ColumnRead(keys, keys != 0)


def _columns(text: Octets, begin: Ints, length: int) -> list[Octets]:
    return [text[one:][begin] for one in range(length)]


def _of_one_length(text: Octets, begin: Ints, length: int, *, home: bool) -> Keys:
    columns = _columns(text, begin, length)
    if length == _TEN:
        return _ten_digits(columns) if home else np.zeros(len(begin), np.uint64)
    flags = [(column - _ZERO < _TEN).astype(np.uint32) << place for place, column in enumerate(columns)]
    shapes = reduce(np.bitwise_or, flags)
    keys = np.zeros(len(begin), np.uint64)
    left = np.arange(len(begin))
    for _ in range(_MAX_SHAPES):
        same = shapes[left] == shapes[left[0]]
        digits = [place for place in range(length) if int(shapes[left[0]]) >> place & 1]
        if same.all():
            mine = columns if len(left) == len(begin) else [column[left] for column in columns]
            keys[left] = _of_one_shape(mine, digits, home=home)
            break
        which = left[same]
        keys[which] = _of_one_shape([column[which] for column in columns], digits, home=home)
        left = left[~same]
    return keys


def _of_one_shape(columns: list[Octets], digits: list[int], *, home: bool) -> Keys:
    """Cells that have digits at the same places and nowhere else."""
    length = len(columns)
    dot = next((place for place in reversed(range(length)) if place not in digits), 0)
    keys = _punctuated(columns, digits, home=home)
    if length - 1 - dot not in _DECIMALS or len(digits) < length - 2:
        return keys
    keys[columns[dot] == _DOT] = 0  # a fraction
    if digits == [*range(length - 2), length - 1] and home:
        floating = (columns[-2] == _DOT) & (columns[-1] == _ZERO)  # 2125550100.0, as spreadsheets leave it
        keys = np.where(floating, _with_country(columns[: length - 2]), keys)
    return keys


def _punctuated(columns: list[Octets], digits: list[int], *, home: bool) -> Keys:
    zero = np.zeros(len(columns[0]), np.uint64)
    if len(digits) not in {_TEN, _TEN + 1}:
        return zero
    good = ~_BLANK[columns[0]] & ~_BLANK[columns[-1]]  # a cell that was not trimmed to its end
    signs = np.zeros(len(zero), np.uint8)
    for place in sorted(set(range(len(columns))) - set(digits)):
        allowed = _PUNCTUATION[columns[place]]
        if place < digits[0]:
            sign = columns[place] == _PLUS
            signs += sign
            allowed |= sign
        good &= allowed
    good &= (signs == 0) if len(digits) == _TEN else (signs < _NOT_FIRST)
    if not home:
        good &= signs == 1
    return np.where(good, _with_country([columns[one] for one in digits]), zero)


def _with_country(digits: list[Octets]) -> Keys:
    """Ten digits, or eleven from 1; 0 for others."""
    if len(digits) == _TEN:
        return _ten_digits(digits)
    if len(digits) != _TEN + 1:
        return np.zeros(len(digits[0]), np.uint64)
    return np.where(digits[0] == _ONE, _ten_digits(digits[1:]), np.uint64(0))


def _ten_digits(columns: list[Octets]) -> Keys:
    """The number; 0 where these are not ten digits or start no North American number."""
    digits = [column - _ZERO for column in columns]  # below 0 wraps, and is no digit either
    good = (digits[0] >= _NOT_FIRST) & (digits[_EXCHANGE_AT] >= _NOT_FIRST)
    for digit in digits:
        good &= digit < _TEN
    pairs = [digits[one] * 10 + digits[one + 1] for one in range(0, _TEN, 2)]
    middle = pairs[1].astype(np.uint16) * 100 + pairs[2]
    last = pairs[3].astype(np.uint16) * 100 + pairs[4]
    eight = middle.astype(np.uint32) * 10_000 + last
    number = pairs[0].astype(np.uint64) * 100_000_000 + eight + _COUNTRY
    return np.where(good, number, np.uint64(0))


def digests(text: Octets, cells: Spans, kind: Kind) -> ColumnRead:
    """Hex digits in either case, with `0x` before them or not."""
    begin, end = cells
    size = 2 * kind.digest_bytes
    prefixed = (end - begin == size + 2) & (text[begin] == _ZERO) & (text[begin + 1] | ord(" ") == ord("x"))
    begin = begin + 2 * prefixed
    which = np.flatnonzero(end - begin == size)
    done = np.zeros(len(begin), np.bool_)
    keys = np.zeros(len(begin), np.uint64)
    rest = np.zeros((len(begin), kind.rest_bytes), np.uint8)
    if which.size:
        windows: npt.NDArray[np.void] = np.ndarray((text.size - size + 1,), f"V{size}", text, strides=(1,))
        nibbles = _HEX[windows[begin[which]].view(np.uint8).reshape(-1, size)]
        octets = nibbles[:, ::2] << 4 | nibbles[:, 1::2]
        good = nibbles.max(axis=1) < len("0123456789abcdef")
        mine = which[good]
        done[mine] = True
        keys[mine] = np.ascontiguousarray(octets[good, :KEY_BYTES]).view(">u8").ravel()
        rest[mine] = octets[good, KEY_BYTES:]
    return ColumnRead(keys, done, rest)


def digest(text: str, kind: Kind) -> bytes:
    """Of one cell. Raises CellError."""
    size = 2 * kind.digest_bytes
    bare = text.strip(" \t\r\n'\"")
    bare = bare[2:] if len(bare) == size + 2 and bare[:2].lower() == "0x" else bare
    if not bare:
        raise CellError("empty")
    if len(bare) != size or not set(bare) <= set("0123456789abcdefABCDEF"):
        raise CellError(f"not {_LABELS[kind]} digest of {size} hex digits")
    return bytes.fromhex(bare)


def expiries(text: Octets, cells: Spans, zone: str) -> tuple[Times, Flags]:
    """(seconds since 1970 from which an entry no longer holds, done) of dates such as 2026-01-31; empty cells: 0."""
    begin, end = cells
    done = begin >= end
    found = np.zeros(len(begin), np.uint32)
    which = np.flatnonzero(end - begin == len("2026-01-31"))
    if not which.size:
        return found, done
    columns = _columns(text, begin[which], len("2026-01-31"))
    digits = [(columns[one] - _ZERO).astype(np.int64) for one in (0, 1, 2, 3, 5, 6, 8, 9)]
    year = digits[0] * 1000 + digits[1] * 100 + digits[2] * 10 + digits[3]
    month, day = digits[4] * 10 + digits[5], digits[6] * 10 + digits[7]
    good = (columns[4] == _DASH) & (columns[7] == _DASH) & (year > 0) & (month > 0) & (month <= _MONTHS) & (day > 0)
    good &= reduce(np.maximum, digits) < _TEN
    months = np.where(good, (year - 1970) * _MONTHS + month - 1, 0)
    first, following = (_first_day(months + one) for one in (0, 1))
    good &= first + day <= following
    ends = _ends((first + day)[good], zone)
    said = ends >= _FIRST_S
    which = which[good][said]
    found[which] = _clamped(ends[said])
    done[which] = True
    return found, done


def _first_day(months: Ints) -> Ints:
    """Days since 1970 of the first day of a month, given months since 1970."""
    return cast("Ints", months.astype("M8[M]").astype("M8[D]").astype(np.int64))


def _ends(following: Ints, zone: str) -> Ints:
    """When the days before these (since 1970) end, in seconds since then: a zone's clock is asked once for each."""
    each, place = np.unique(following, return_inverse=True)
    ends = each * _DAY
    for at in np.flatnonzero((each > 0) & (each <= LAST_S // _DAY + 1)).tolist():  # others are clamped in any zone
        ends[at] = day_end_us(_FIRST + timedelta(days=int(each[at]) - 1), zone) // 1_000_000
    return ends[place]


def _clamped(seconds: Ints) -> Times:
    """Past what 32 bits hold is never."""
    return np.where(seconds > LAST_S, 0, seconds).astype(np.uint32)


def expiry(text: str, zone: str) -> int:
    """Of one cell, as `expiries`. Raises CellError."""
    bare = text.strip()
    if not bare:
        return 0
    try:
        seconds = end_us(bare, zone) // 1_000_000
    except ValueError as error:
        raise CellError("expiry: not a date such as 2026-01-31, nor an ISO time") from error
    if seconds < _FIRST_S:
        raise CellError("expiry: a day so long ago is what programs write for none")
    return 0 if seconds > LAST_S else seconds
