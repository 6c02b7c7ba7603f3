"""Who is asking: bearer tokens (RFC 6750), known by their SHA-256 alone and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

MAX_TOKEN = 512  # characters; what is longer is nobody's


@dataclass(frozen=True, slots=True)
class Token:
    """A token and the dialer it belongs to. `digest`: SHA-256 of the secret, hex."""

    name: str
    digest: str
    dialer: str


def find(tokens: Iterable[Token], secret: str) -> Token | None:
    """The token with this secret; None: nobody's. Every token is compared, whether one has fitted or not."""
    digest = hashlib.sha256(secret[:MAX_TOKEN].encode()).hexdigest()
    found = None
    for one in tokens:
        if hmac.compare_digest(one.digest, digest):
            found = one
    return found if len(secret) <= MAX_TOKEN else None
