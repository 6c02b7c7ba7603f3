"""The one normaliser of phone numbers: of leads, of list entries and of look-ups.

A list that says `(212) 555-0100` and a lead that says `tel:+1-212-555-0100` are the same number or the list is worth
nothing, so both sides go through `normalise` and no other code decides what a number is. A number is kept as the
integer of its E.164 digits: at most 15 of them (ITU-T E.164 section 6), so 64 bits hold it, and never a leading 0.

Nothing is dropped to make a number of a text. What may stand around and between digits is listed here: punctuation, a
URI's scheme and parameters, an extension of up to six digits, what spreadsheets do to numbers, and a word on a keypad.
A text that has anything else is refused: a letter among digits, a fraction, a power of ten that has lost digits, two
numbers, for of those nobody can say which one is meant. `tests/spellings.py` is the table of all that.

North American numbers, nearly all there are, are read here; the digits of others by `phonenumbers`. A number that does
not say its country is of `region`. Where that is no country of the North American plan, ten digits are no number of
that plan, and only the library knows what people there write before an international number.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

import phonenumbers

DEFAULT_REGION = "US"  # the country of a number that does not say
NANP_REGIONS = frozenset(phonenumbers.COUNTRY_CODE_TO_REGION_CODE[1])  # those that share country code 1
MAX_TEXT = 64  # characters: the longest spelling worth reading; longer text is no number
MAX_EXTENSION = 6  # digits; seven are a number of their own, to be dialled in the same area
_NANP_LENGTH = 10  # area code, exchange, line: NANP numbers, ATIS-0300119
_NANP_WITH_COUNTRY = 11
_NOT_FIRST = "01"  # neither area code nor exchange starts with these
_EXCHANGE_AT = 3
_COUNTRY_NANP = 10_000_000_000  # country code 1 before ten digits
_PUNCTUATION = {ord(mark): None for mark in " -.()/[]"}
_MARKS = {  # of other scripts and of typesetters, as what they stand for
    **dict.fromkeys(map(ord, "\u00a0\u202f\u205f\u3000"), " "),
    **dict.fromkeys(range(0x2000, 0x200B), " "),
    **dict.fromkeys((0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF), None),
    **dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0x30FC, 0xFE58, 0xFE63), "-"),
    **{one + 0xFEE0: one for one in map(ord, "+-.()/[]#")},  # full width
}
_PREFIXES = ("011", "00")  # how people write "+": from North America, from nearly everywhere else
_DIGITS = re.compile(r"\+?[0-9]+")
_QUOTED = re.compile(r"=?\"([^\"]*)\"")  # ="2125550100": a spreadsheet is to keep it as text
_SCHEME = re.compile(r"(tel|sips?):(.*)", re.IGNORECASE)
_PARAMETER = re.compile(r"([a-z0-9-]*[a-z][a-z0-9-]*)(?:=([^=]*))?", re.IGNORECASE)  # RFC 3966 section 3
_SEPARATORS = {ord(mark): None for mark in "-.()"}  # visual ones, RFC 3966 section 5.1.1
_EXTENSION = re.compile(
    r"(?:;ext=|,{2,}|[,;]?\s*(?:extension|extn|ext|x)[.:]?|#)\s*([0-9]+)\Z", re.IGNORECASE
)  # commas: the dialler pauses, then dials the rest
_DECIMAL = re.compile(r"([-+]?)([0-9]+)\.([0-9]{1,3})")  # three at most: four behind a dot are a number's last four
_POWER = re.compile(r"([0-9])(?:\.([0-9]+))?E\+?0*([0-9]{1,2})", re.IGNORECASE)
_WORD = re.compile(r"(\+?1?[2-9][0-9]{2})([0-9]{0,3})([A-Z]{4,7})", re.IGNORECASE)
_TWO = "more than one number: an extension has at most six digits"
_KEYPAD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "22233344455566677778889999")  # ITU-T E.161


class NumberError(ValueError):
    """The text is no phone number. The message never repeats the text: it may be a person's number."""


def is_region(region: str) -> bool:
    """Whether it is a country, as two capital letters (ISO 3166-1 alpha-2), whose numbers can be read."""
    return region in phonenumbers.SUPPORTED_REGIONS


def normalise(text: str, region: str = DEFAULT_REGION) -> int:
    """The digits of the number in E.164 as an integer. Raises NumberError.

    Reads +1, 1 and bare ten digits, punctuation, `tel:` and `sip:` URIs, the prefixes 00 and 011, extensions, and
    `2125550100.0` as spreadsheets leave it. Outside North America: what is written in that region.
    """
    if len(text) > MAX_TEXT:
        raise NumberError("too long for a phone number")
    at_home = region in NANP_REGIONS
    bare = text.strip()
    if _DIGITS.fullmatch(bare) is None:  # most are digits and no more
        bare = _bare(bare, at_home=at_home)
    found = _north_american(bare) if at_home or bare.startswith("+") else None
    if found is not None:
        return found
    international = _international(bare) if at_home else None  # elsewhere 011 may begin a number: Leeds has 0113
    return _by_library(bare if international is None else f"+{international}", region)


def _bare(text: str, *, at_home: bool) -> str:
    """The digits of a text that has more than these, with `+` before them or not."""
    written = _extended(_unwrapped(_plain(text)))
    bare = _whole(written).translate(_PUNCTUATION)
    if any(map(str.isalpha, bare)):
        bare = _by_keypad(bare, at_home=at_home)
    if _DIGITS.fullmatch(bare) is None:
        raise NumberError(_why_not(written))
    return bare


def to_e164(number: int) -> str:
    return f"+{number}"


def _plain(text: str) -> str:
    """With the digits and the punctuation of ASCII for those of other scripts."""
    if text.isascii():
        return text
    marks = text.translate(_MARKS)
    return "".join(one if one.isascii() else str(unicodedata.decimal(one, one)) for one in marks).strip()


def _unwrapped(text: str) -> str:
    """Without what spreadsheets put around a text, and without the scheme and the parameters of a URI."""
    text = text.lstrip("'")  # they mark text by an apostrophe
    quoted = _QUOTED.fullmatch(text)
    text = quoted[1].strip() if quoted is not None else text
    uri = _SCHEME.fullmatch(text)
    return text if uri is None else _of_uri(uri[1].lower(), uri[2])


def _of_uri(scheme: str, rest: str) -> str:
    """The number inside a `tel:` or `sip:` URI: RFC 3966 section 3, RFC 3261 section 19.1.6."""
    user = rest if scheme == "tel" else rest.partition("@")[0].partition(":")[0]
    number, *parameters = map(unquote, user.split(";"))
    context = ""
    for one in parameters:
        found = _PARAMETER.fullmatch(one.strip())
        if found is None:
            raise NumberError(_TWO)
        name, value = found[1].lower(), (found[2] or "").translate(_SEPARATORS)
        if name == "ext" and not (value.isdigit() and len(value) <= MAX_EXTENSION):
            raise NumberError(_TWO)
        if name == "phone-context":
            context = value
    number = number.strip()
    inside = context.startswith("+") and context != "+1" and not number.startswith("+")
    return context + number if inside else number  # a local number: RFC 3966 section 5.1.5


def _extended(text: str) -> str:
    """Without the extension."""
    found = _EXTENSION.search(text)
    if found is None:
        return text
    if len(found[1]) > MAX_EXTENSION:
        raise NumberError(_TWO)
    return text[: found.start()].rstrip()


def _whole(text: str) -> str:
    """A number that went through floating point, as its digits; other text as it is.

    `2125550100.0` and `2.1255501E9` are what programs make of a number. They are read where every digit is there.
    """
    decimal = _DECIMAL.fullmatch(text)
    if decimal is not None:
        if decimal[1] or decimal[3].strip("0"):
            raise NumberError("a fraction and no phone number")
        return decimal[2]
    power = _POWER.fullmatch(text)
    if power is None:
        return text
    digits = power[1] + (power[2] or "")
    if len(digits) != int(power[3]) + 1:
        raise NumberError("a power of ten that does not have all digits of a number")
    return digits


def _by_keypad(bare: str, *, at_home: bool) -> str:
    """A word at the end of a North American number, as its digits; a row of one letter is a place that is left out."""
    found = _WORD.fullmatch(bare) if at_home or bare.startswith("+") else None
    if found is None or len(found[2] + found[3]) != _NANP_LENGTH - _EXCHANGE_AT or len(set(found[3].upper())) == 1:
        return bare
    return found[1] + found[2] + found[3].upper().translate(_KEYPAD)


def _why_not(written: str) -> str:
    """For people, of a text that has more than digits and punctuation."""
    if not written:
        return "empty"
    if not any(map(str.isdigit, written)):
        return "not a phone number"
    if any(map(str.isalpha, written)):
        return "not a phone number: letters among the digits"
    return "not a phone number: other characters among the digits"


def _north_american(bare: str) -> int | None:
    """Ten digits, or eleven from 1, each with `+`, `00` or `011` before; None for anything else."""
    international = None if bare.isdigit() and len(bare) <= _NANP_WITH_COUNTRY else _international(bare)
    if international is not None and len(international) != _NANP_WITH_COUNTRY:
        return None
    digits = bare if international is None else international
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


def _by_library(bare: str, region: str) -> int:
    """Of digits, with `+` or without."""
    try:
        number = phonenumbers.parse(bare, region)
    except phonenumbers.NumberParseException as error:
        raise NumberError("not a phone number") from error
    reason = phonenumbers.is_possible_number_with_reason(number)
    if reason != phonenumbers.ValidationResult.IS_POSSIBLE:
        raise NumberError("not a possible phone number: too short, too long, or no such country")
    digits = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)[1:]
    if number.country_code == 1 and (_north_american(digits) is None or _abroad(bare, region) != digits):
        raise NumberError("not a North American number: ten digits, area code and exchange start with 2 to 9")
    if bare.startswith("+") and digits != bare[1:] and not _has_prefix(number, bare, digits):
        raise NumberError("not a possible phone number: digits too many")
    return int(digits)


def _has_prefix(number: phonenumbers.PhoneNumber, bare: str, digits: str) -> bool:
    """Whether it is a number in service abroad but for what people there dial before it: +44 (0)20."""
    country = len(str(number.country_code))
    return bare[1:] == f"{digits[:country]}0{digits[country:]}" or phonenumbers.is_valid_number(number)


def _abroad(bare: str, region: str) -> str:
    """What stands behind the international prefix of a region; the library would also drop a 1 that is one too many."""
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region)
    prefix = re.match(metadata.international_prefix or "", bare) if metadata is not None else None
    return bare if prefix is None else bare[prefix.end() :]
