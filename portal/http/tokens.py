"""Who is asking: bearer tokens (RFC 6750), known by their SHA-256 alone and compared in constant time.

A dialer may have secrets instead, with which it signs what it posts (`portal.http.signature`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

MAX_TOKEN = 512  # characters; what is longer is nobody's
KEY_HEADER = "X-Baton-Key"  # names the token whose secret has signed


class Scope(StrEnum):
    """On whose behalf a token acts."""

    DIALER = "dialer"
    BUYER = "buyer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Token:
    """A token and to whom it belongs. `digest`: SHA-256 of the secret, hex; empty: it only signs, with `secrets`."""

    name: str
    digest: str
    scope: Scope
    of: str = ""  # which dialer or buyer; empty for the operator
    secrets: tuple[str, ...] = field(default=(), repr=False)  # as meter.text.signing takes them


class TokenBook:
    """The tokens in force, and the campaigns of dialers that may not call all. Replaced while the portal runs."""

    def __init__(
        self, tokens: Iterable[Token] = (), campaigns: Mapping[str, frozenset[str] | None] = MappingProxyType({})
    ) -> None:
        self.all = tuple(tokens)
        self._campaigns = dict(campaigns)

    def replace(self, tokens: Iterable[Token], campaigns: Mapping[str, frozenset[str] | None]) -> bool:
        """Put exactly these in force. True where a token that was in force is gone, or has another owner."""
        before, self.all, self._campaigns = self.all, tuple(tokens), dict(campaigns)
        return not set(before) <= set(self.all)

    def find(self, secret: str) -> Token | None:
        return find(self.all, secret)

    def signer(self, headers: Mapping[str, str]) -> Token | None:
        return signer(self.all, headers)

    def may_call(self, token: Token, campaign: str) -> bool:
        """Whether a token may ask about a campaign: a dialer about those that it may call (`dialers.campaigns`)."""
        allowed = self._campaigns.get(token.of) if token.scope is Scope.DIALER else None
        return allowed is None or campaign in allowed


def find(tokens: Iterable[Token], secret: str) -> Token | None:
    """The token with this secret, or None. Every token is compared, so that the time tells nothing."""
    digest = hashlib.sha256(secret[:MAX_TOKEN].encode()).hexdigest()
    match = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            match = token
    return match if len(secret) <= MAX_TOKEN else None


def bearer(headers: Mapping[str, str]) -> str:
    """The token that a request shows; empty: none."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def signer(tokens: Iterable[Token], headers: Mapping[str, str]) -> Token | None:
    """The token that a signed request names, or None where no token of that name signs. Nothing is verified."""
    name = headers.get(KEY_HEADER, "")
    return next((token for token in tokens if token.secrets and token.name == name), None)
