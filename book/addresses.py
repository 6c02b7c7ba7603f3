"""Checks that a buyer has the e-mail addresses that its leads and documents need (domain, section 7)."""

from __future__ import annotations

from book.model import Buyer, Rating

NO_MAIL = (
    "there is no section [mail]: leads of failed transfers, which are charged, and invoices wait in the store until"
    " there is one"
)
_NO_LEADS = "there is none: failed transfers are charged, and their leads wait until there is one"
_NO_BILLING = "there is none, and no lead_emails: invoices wait until there is one, and put nobody on hold"


def pays_failed(buyer: Buyer) -> bool:
    """Whether failed transfers are charged; who pays by the minute pays none (domain, section 9)."""
    return buyer.terms.rating is not Rating.MINUTE


def address_warnings(buyer: Buyer) -> list[tuple[str, str]]:
    """The fields of a buyer that lack an address, and what comes of it."""
    found = []
    if pays_failed(buyer) and not buyer.lead_emails:
        found.append(("lead_emails", _NO_LEADS))
    if not (buyer.billing_emails or buyer.lead_emails):
        found.append(("billing_emails", _NO_BILLING))
    return found
