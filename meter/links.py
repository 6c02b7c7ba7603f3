"""Signed links that a buyer gets by e-mail: asking for a credit for one transfer.

The token says which transfer and which buyer, signed, so that nobody can ask for another's; it holds no secret and no
time. Until when a request is allowed is a clause of the terms, checked when the link is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from itsdangerous import BadData, URLSafeSerializer

MIN_SECRET = 16  # characters
_SALT = "baton.credit-request.1"


class BadLinkError(ValueError):
    """The token was not made by us, or for something else."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Where links lead and how they are signed. Raises ValueError naming what is wrong."""

    base_url: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError("link_base_url: must be an https:// address")
        if len(self.secret) < MIN_SECRET:
            raise ValueError(f"link_secret: must have at least {MIN_SECRET} characters")


def credit_link(options: LinkOptions, transfer: str, buyer: str) -> str:
    """The address where `buyer` asks for a credit for `transfer`."""
    token = _signer(options).dumps([transfer, buyer])
    return f"{options.base_url.rstrip('/')}/credit/{token}"


def read_credit_token(options: LinkOptions, token: str) -> tuple[str, str]:
    """Transfer and buyer of a link's token. Raises BadLinkError."""
    try:
        transfer, buyer = _signer(options).loads(token)
    except (BadData, TypeError, ValueError) as error:
        raise BadLinkError("the link is not valid") from error
    return str(transfer), str(buyer)


def _signer(options: LinkOptions) -> URLSafeSerializer:
    return URLSafeSerializer(options.secret, salt=_SALT)
