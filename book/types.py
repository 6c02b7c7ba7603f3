"""Field types that settings and book share: each rejects what it cannot mean, with a message a person can act on."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import zoneinfo
from datetime import date, time
from email.errors import HeaderParseError, MessageError
from email.headerregistry import Address
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any

import phonenumbers
from babel import Locale as BabelLocale
from babel import UnknownLocaleError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    StringConstraints,
    ValidationInfo,
)

_SLUG = r"^[a-z0-9][a-z0-9_-]{0,63}$"
_MAX_ADDRESS = 254  # RFC 5321 section 4.5.3.1.3: a path is 256 octets with its angle brackets


class Model(BaseModel):
    """Frozen, nothing unknown, and inputs (which may be secrets) never repeated in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _resolve(value: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return value if base is None or value.is_absolute() else Path(base) / value


def _zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{value!r} is not an IANA time zone, such as America/New_York") from error
    return value


def _mail_address(value: str) -> str:
    message = "is not an e-mail address, such as leads@example.com"
    if len(value) > _MAX_ADDRESS or not value.isprintable() or " " in value:
        raise ValueError(message)
    try:
        address = Address(addr_spec=value)
    except (HeaderParseError, MessageError, ValueError, IndexError) as error:
        raise ValueError(message) from error
    labels = address.domain.split(".")
    if not address.username or len(labels) < 2 or not all(labels):  # noqa: PLR2004 - a domain and its parent
        raise ValueError(message)
    return value


def _iso_date(value: Any) -> Any:
    """TOML writes a date bare; the book keeps it as text."""
    if isinstance(value, date):
        return value.isoformat()[:10]
    if isinstance(value, str):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError as error:
            raise ValueError("is not a date, such as 2026-06-01") from error
    return value


def _monday(value: str) -> str:
    if date.fromisoformat(value).weekday() != 0:
        raise ValueError(f"{value} is not a Monday, on which every service week begins")
    return value


def _clock_time(value: Any) -> Any:
    """TOML may write a time of day bare; the book keeps hours and minutes as text."""
    if isinstance(value, str):
        try:
            value = time.fromisoformat(value)
        except ValueError as error:
            raise ValueError("is not a time of day, such as 17:00") from error
    if isinstance(value, time):
        if value.second or value.microsecond or value.tzinfo is not None:
            raise ValueError("is a time of day in hours and minutes, such as 17:00")
        return value.strftime("%H:%M")
    return value


def _locale(value: str) -> str:
    try:
        return str(BabelLocale.parse(value))
    except (UnknownLocaleError, ValueError, TypeError) as error:
        raise ValueError(f"{value!r} is not a CLDR locale, such as en_US") from error


def _document_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("is not one line of printable text")
    return value


def _network(value: Any) -> IPv4Network | IPv6Network:
    try:
        return ipaddress.ip_network(str(value))
    except ValueError as error:
        raise ValueError("is not a network, such as 192.0.2.0/24 (host bits must be 0)") from error


def _address(value: Any) -> IPv4Address | IPv6Address:
    try:
        return ipaddress.ip_address(str(value))
    except ValueError as error:
        raise ValueError("is not an IP address, such as 192.0.2.1") from error


def is_e164(value: str) -> bool:
    """Written exactly as E.164: a plus sign and the digits of a possible number, nothing else."""
    if not value.startswith("+") or not value[1:].isascii() or not value[1:].isdigit():
        return False
    try:
        number = phonenumbers.parse(value, None)
    except phonenumbers.NumberParseException:
        return False
    possible = phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE
    return bool(possible) and phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) == value


Slug = Annotated[str, StringConstraints(pattern=_SLUG)]
ConfigPath = Annotated[Path, AfterValidator(_resolve)]
TimeZone = Annotated[str, AfterValidator(_zone)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
IsoDate = Annotated[str, BeforeValidator(_iso_date)]
Port = Annotated[int, Field(ge=1, le=65535)]
IpNetwork = Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]
IpAddress = Annotated[IPv4Address | IPv6Address, PlainValidator(_address)]
Key = Annotated[str, StringConstraints(pattern=r"^[0-9*#]$")]
Monday = Annotated[IsoDate, AfterValidator(_monday)]
ClockTime = Annotated[str, BeforeValidator(_clock_time)]
Locale = Annotated[str, AfterValidator(_locale)]
DocumentLine = Annotated[str, Field(max_length=120), AfterValidator(_document_line)]


_KEY_PREFIX = "whsec_"  # Standard Webhooks 1.0, "Signature scheme": base64 of 24 to 64 bytes follows
_KEY_BYTES = (24, 64)


def signing_secret(value: SecretStr) -> SecretStr:
    """As `meter.text.signing` reads it: `whsec_` and base64, or text whose UTF-8 is the key. Raises ValueError."""
    text = value.get_secret_value()
    key = text.encode()
    if text.startswith(_KEY_PREFIX):
        try:
            key = base64.b64decode(text.removeprefix(_KEY_PREFIX), validate=True)
        except binascii.Error as error:
            raise ValueError(f"{_KEY_PREFIX} is followed by base64") from error
    least, most = _KEY_BYTES
    if not least <= len(key) <= most:
        raise ValueError(f"is a key of {least} to {most} bytes: so much text, or {_KEY_PREFIX} and their base64")
    return value
