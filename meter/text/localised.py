"""Dates, amounts and numbers as a buyer writes them, by CLDR (Unicode Technical Standard 35) through Babel.

A locale that is not known reads as `en_US`: a message is never lost for a date. Amounts are integers in minor units and
become exact decimals; no float is involved. Spaces inside dates are plain ones, so that a subject stays ASCII where the
language is; those inside amounts do not break, as CLDR has them.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_time
from babel.numbers import format_currency, format_decimal, get_currency_precision

DEFAULT_LOCALE = "en_US"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=256)
def locale_of(name: str) -> Locale:
    """The locale of a CLDR name such as `de_DE`; `en_US` where it is none."""
    try:
        return Locale.parse(name)
    except (UnknownLocaleError, ValueError, TypeError):
        return Locale.parse(DEFAULT_LOCALE)


def date_text(day: date, locale: str) -> str:
    """The day in words: `June 2, 2026`."""
    return _plain(format_date(day, "long", locale=locale_of(locale)))


def when_text(utc_us: int, zone: ZoneInfo, locale: str) -> str:
    """An instant, in microseconds UTC, to the second and with its zone: `June 2, 2026, 10:00:00 AM EDT`."""
    return _plain(format_datetime(_moment(utc_us), "long", tzinfo=zone, locale=locale_of(locale)))


def short_when_text(utc_us: int, zone: ZoneInfo, locale: str) -> str:
    """The same to the minute, for subjects: `Jun 2, 2026, 10:00 AM EDT`."""
    moment = _moment(utc_us).astimezone(zone)
    chosen = locale_of(locale)
    day = format_date(moment.date(), "medium", locale=chosen)
    time = format_time(moment, "short", tzinfo=zone, locale=chosen)
    return _plain(f"{day}, {time} {format_datetime(moment, 'z', tzinfo=zone, locale=chosen)}")


def money_text(minor: int, currency: str, locale: str) -> str:
    """An amount in minor units of an ISO 4217 currency: 123450 USD is `$1,234.50`, 1234 JPY `¥1,234`."""
    amount = Decimal(minor).scaleb(-get_currency_precision(currency))
    return format_currency(amount, currency, locale=locale_of(locale))


def decimal_text(minor: int, currency: str) -> str:
    """The same for machines: 123450 USD is `1234.50`, 1234 JPY `1234`."""
    return f"{Decimal(minor).scaleb(-get_currency_precision(currency)):f}"


def number_text(number: int | Decimal, locale: str) -> str:
    """A number with the locale's separators, none of its digits lost."""
    return format_decimal(number, locale=locale_of(locale), decimal_quantization=False)


def _moment(utc_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=utc_us)


def _plain(text: str) -> str:
    return " ".join(text.split())
