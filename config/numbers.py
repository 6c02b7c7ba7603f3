"""One normaliser for phone numbers: of leads, of suppression lists, of whoever looks one up.

A list that says `(212) 555-0100` and a lead that says `tel:+1-212-555-0100` are the same number or the list is worth
nothing, so both sides go through `normalise` and no other code decides what a number is. North American numbers, nearly
all there are, take a path of three string operations; everything else is read by `phonenumbers`. A number is kept as
the integer of its E.164 digits: at most 15 of them (ITU-T E.164 section 6), so 64 bits hold it, and never a leading 0.

A number that does not say its country is of `region`. Where that is no country of the North American plan, ten digits
are no North American number, and only the library knows what people there write before an international number.
"""

from __future__ import annotations

import phonenumbers

DEFAULT_REGION = "US"  # the country of a number that does not say
NANP_REGIONS = frozenset(phonenumbers.COUNTRY_CODE_TO_REGION_CODE[1])  # those that share country code 1
MAX_TEXT = 64  # characters: the longest spelling worth reading; longer text is no number
_NANP_LENGTH = 10  # area code, exchange, line: NANP numbers, ATIS-0300119
_NANP_WITH_COUNTRY = 11
_NOT_FIRST = "01"  # neither area code nor exchange starts with these
_EXCHANGE_AT = 3
_COUNTRY_NANP = 10_000_000_000  # country code 1 before ten digits
_PUNCTUATION = {ord(mark): None for mark in " \t-.()/\u00a0\u2010\u2011\u2012\u2013\u2014\u202f\u200b\u2060\ufeff"}
_CONTEXT = ";phone-context="  # RFC 3966 section 5.1.5
_PREFIXES = ("011", "00")  # how people write "+": from North America, from nearly everywhere else


class NumberError(ValueError):
    """The text is no phone number. The message never repeats the text: it may be a person's number."""


def is_region(region: str) -> bool:
    """Whether it is a country, as two capital letters (ISO 3166-1 alpha-2), whose numbers can be read."""
    return region in phonenumbers.SUPPORTED_REGIONS


def normalise(text: str, region: str = DEFAULT_REGION) -> int:
    """The digits of the number in E.164 as an integer. Raises NumberError.

    Reads +1, 1 and bare ten digits, punctuation, `tel:` and `sip:` URIs, the prefixes 00 and 011, and `2125550100.0`
    as spreadsheets leave it. Outside North America: what is written in that region.
    """
    if len(text) > MAX_TEXT:
        raise NumberError("too long for a phone number")
    written = text.strip()[:-2] if _is_float(text) else _without_scheme(text)
    if _CONTEXT in written:
        return _by_library(written, region)  # a local number; the library puts its context before it
    bare = written.translate(_PUNCTUATION)
    at_home = region in NANP_REGIONS
    found = _north_american(bare) if at_home or bare.startswith("+") else None
    if found is not None:
        return found
    international = _international(bare) if at_home else None  # elsewhere 011 may begin a number: Leeds has 0113
    return _by_library(bare if international is None else f"+{international}", region)


def to_e164(number: int) -> str:
    return f"+{number}"


def _is_float(text: str) -> bool:
    stripped = text.strip()
    return stripped.endswith(".0") and stripped[:-2].isdigit() and len(stripped) > _NANP_LENGTH


def _without_scheme(text: str) -> str:
    """The number inside a `tel:` or `sip:` URI (RFC 3966 section 3, RFC 3261 section 19.1.6); other text as it is."""
    text = text.strip().lstrip("'")  # spreadsheets mark text by an apostrophe
    scheme, colon, rest = text.partition(":")
    if not colon or scheme.lower() not in ("tel", "sip", "sips"):
        return text
    user = rest if scheme.lower() == "tel" else rest.partition("@")[0]
    return user if _CONTEXT in user else user.partition(";")[0]


def _north_american(bare: str) -> int | None:
    """Ten digits, or eleven from 1, each with `+`, `00` or `011` before; None for anything else."""
    international = None if bare.isdigit() and len(bare) <= _NANP_WITH_COUNTRY else _international(bare)
    if international is not None and len(international) != _NANP_WITH_COUNTRY:
        return None
    digits = bare if international is None else international
    if not (digits.isascii() and digits.isdigit()):
        return None
    if len(digits) == _NANP_WITH_COUNTRY and digits[0] == "1":
        digits = digits[1:]
    if len(digits) != _NANP_LENGTH or digits[0] in _NOT_FIRST or digits[_EXCHANGE_AT] in _NOT_FIRST:
        return None
    return _COUNTRY_NANP + int(digits)


def _international(bare: str) -> str | None:
    """The digits after `+` or what stands for it; None where nothing does."""
    if bare.startswith("+"):
        return bare[1:]
    return next((bare[len(prefix) :] for prefix in _PREFIXES if bare.startswith(prefix)), None)


def _by_library(written: str, region: str) -> int:
    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException as error:
        raise NumberError("not a phone number" if written else "empty") from error
    reason = phonenumbers.is_possible_number_with_reason(number)
    if reason != phonenumbers.ValidationResult.IS_POSSIBLE:
        raise NumberError("not a possible phone number: too short, too long, or no such country")
    digits = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)[1:]
    if number.country_code == 1 and _north_american(digits) is None:
        raise NumberError("not a North American number: area code and exchange start with 2 to 9")
    return int(digits)
