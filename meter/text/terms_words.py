"""A terms profile in plain words."""

from __future__ import annotations

from decimal import Decimal

from book.model import Terms
from meter.text import texts
from meter.text.localised import DEFAULT_LOCALE, money_text


def in_words(terms: Terms) -> str:
    """A version of terms in sentences that a buyer can hold against its invoices (domain, sections 3 to 9)."""
    prices = ("unit_price", "minute_price", "setup_fee", "extra_line_price")
    spans = {"increment": "minute_increment_ms", "minimum": "minute_minimum_ms"}
    spans |= {"talk": "talk_connected_ms", "buffer": "secure_buffer_ms"}
    values = {name: money_text(getattr(terms, f"{name}_minor"), terms.currency, DEFAULT_LOCALE) for name in prices}
    values |= {name: f"{Decimal(getattr(terms, field)) / 1000:f}" for name, field in spans.items()}
    return texts.render("terms.txt.jinja", {"terms": terms, **values})
