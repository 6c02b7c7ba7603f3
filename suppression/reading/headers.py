"""Known column names: a first row that has one is a header and no data.

A first row that cannot be read is a header with certainty where it has a name from here, or where somebody says so. Any
other is a line of the list, and is rejected as one: `unknown` above a column of numbers may well be what is left of a
person's number.
"""

from __future__ import annotations

import re

MAX_NAME = 64  # characters
MAX_DIGITS = 3  # in a name: `phone 2`, `sha256`, `e164`
HINTS = 2  # how many there are; a name that is none ranks behind
_NUMBER = (
    r"(?:tele|cell|mobile)?phones?|telefon[eo]?|telefoonnummer|fono|teléfono|téléphone|mobiles?|mobil|móvil"
    r"|movil|celular|portable|handy|rufnummer|cell|cellular|tel|msisdn|ani|did|dnc|numbers?|nummer|num[eé]ro"
    r"|número|nbr|hash(?:es|ed)?|digest|sha|電話|電話番号|电话|手机|手机号|手机号码|号码|番号"
)
_BESIDE = (
    r"home|work|office|business|day|daytime|evening|night|primary|secondary|main|alternate|alternative|alt"
    r"|other|contact|customer|cust|client|lead|caller|called|calling|prospect|consumer|subscriber|person|user"
    r"|member|dialed|dialled|dial|to|from|of|the|my|your|full|raw|clean|formatted|normali[sz]ed|normal|local"
    r"|international|intl|us|usa|national|list|suppress(?:ed|ion)?|blocked|block|opt|out|do|not|call|field"
    r"|column|value|order|account|reference|ref|id|first|second"
)
_OTHER = (
    r"name|names|first|last|middle|full|given|family|surname|initial|prefix|suffix|title|city|town|state"
    r"|province|region|zip|zipcode|postal|postcode|code|country|county|address|street|addr|line|e|email|mail"
    r"|date|time|created|updated|added|since|until|expires?|expiry|expiration|valid|id|uid|uuid|key|source"
    r"|company|note|notes|comments?|reason|status|type|age|gender|sex|dob|birth|birthday|day|of|the|area|npa"
    r"|nxx|exchange|timezone|zone|language|campaign|customer|order|account|amount|price|list|record|row|user"
    r"|client|lead|agent|index|category|tags?|group|home|work|office|evening|primary"
)
_IS_NUMBER = re.compile(rf"(?:{_BESIDE})*(?:{_NUMBER})(?:{_NUMBER}|{_BESIDE})*(?:no|nr|num)?")
_IS_OTHER = re.compile(rf"(?:{_OTHER})+")
_AS_WORDS = re.compile(r"[^\W\d_]+")
_DIGESTS = re.compile(r"e\.?164|sha-?(?:1|224|256|384|512)|md5", re.IGNORECASE)
_RANKS = (  # the stronger first; parts of a name are told apart by what is no letter
    re.compile(
        r"phone|mobil|m[oó]vil|celular|handy|msisdn|e\.?164|hash|digest|md5|sha-?(?:1|256)|rufnummer|telef|téléph"
        r"|電話|电话|手机"
        r"|(?<![a-z])(?:cell|tel|ani|did|dnc|home|work|office)(?![a-z])"
    ),
    re.compile(r"number|nummer|n[uú]m[eé]ro|(?<![a-z])(?:num|no|nr|nbr|sha)(?![a-z])"),
)


def rank(name: str) -> int:
    """How much a name says that its column holds numbers: 0 the most, HINTS nothing."""
    folded = name.casefold()
    return next((place for place, hint in enumerate(_RANKS) if hint.search(folded)), HINTS)


def is_number_name(name: str) -> bool:
    """Whether it is certainly the name of a column of numbers or of digests, and no entry of one."""
    return _IS_NUMBER.fullmatch(_letters(_DIGESTS.sub("number", name))) is not None


def is_name(name: str) -> bool:
    """Whether it is certainly the name of a column of a usual table."""
    return _IS_OTHER.fullmatch(_letters(name)) is not None or is_number_name(name)


def may_be_name(name: str) -> bool:
    """Whether it could stand in a header at all: few digits, or those of `sha256`."""
    return sum(map(str.isdigit, _DIGESTS.sub("", name))) < MAX_DIGITS


def _letters(name: str) -> str:
    if len(name) > MAX_NAME or not may_be_name(name):
        return ""
    return "".join(_AS_WORDS.findall(name.casefold()))
