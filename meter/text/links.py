"""Signed links that go out by e-mail: asking for a credit, rating an interaction, looking at one.

The token says which transfer or interaction and which buyer, signed, so that nobody can make another's; it holds no
secret and no time. Until when a credit may be asked for is a clause of the terms, checked when the link is opened. Each
kind of link is signed with a salt of its own: who may rate may not look.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from itsdangerous import BadData, URLSafeSerializer

MIN_SECRET = 16  # characters
_SALT = "baton.credit-request.1"
_RATING_SALT = "baton.rating.1"
_INTERACTION_SALT = "baton.interaction.1"


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
    return _link(options, "credit", _SALT, (transfer, buyer))


def read_credit_token(options: LinkOptions, token: str) -> tuple[str, str]:
    """Transfer and buyer of a link's token. Raises BadLinkError."""
    return _read(options, _SALT, token)


def rating_link(options: LinkOptions, interaction: str, buyer: str) -> str:
    """The address where who was served says how it was."""
    return _link(options, "rate", _RATING_SALT, (interaction, buyer))


def read_rating_token(options: LinkOptions, token: str) -> tuple[str, str]:
    """Interaction and buyer of a link's token. Raises BadLinkError."""
    return _read(options, _RATING_SALT, token)


def interaction_link(options: LinkOptions, interaction: str, buyer: str) -> str:
    """The address where the buyer looks at an interaction."""
    return _link(options, "interaction", _INTERACTION_SALT, (interaction, buyer))


def read_interaction_token(options: LinkOptions, token: str) -> tuple[str, str]:
    """Interaction and buyer of a link's token. Raises BadLinkError."""
    return _read(options, _INTERACTION_SALT, token)


def _link(options: LinkOptions, path: str, salt: str, names: tuple[str, str]) -> str:
    return f"{options.base_url.rstrip('/')}/{path}/{_signer(options, salt).dumps(list(names))}"


def _read(options: LinkOptions, salt: str, token: str) -> tuple[str, str]:
    try:
        first, buyer = _signer(options, salt).loads(token)
    except (BadData, TypeError, ValueError) as error:
        raise BadLinkError("the link is not valid") from error
    return str(first), str(buyer)


def _signer(options: LinkOptions, salt: str) -> URLSafeSerializer:
    return URLSafeSerializer(options.secret, salt=salt)
