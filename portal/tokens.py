"""Who is asking: bearer tokens (RFC 6750), known by their SHA-256 alone and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

MAX_TOKEN = 512  # characters; what is longer is nobody's


class Scope(StrEnum):
    """On whose behalf a token acts."""

    DIALER = "dialer"
    BUYER = "buyer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Token:
    """A token and to whom it belongs. `digest`: SHA-256 of the secret, hex."""

    name: str
    digest: str
    scope: Scope
    of: str = ""  # which dialer or buyer; empty for the operator


def find(tokens: Iterable[Token], secret: str) -> Token | None:
    """The token with this secret; None: nobody's. Every token is compared, whether one has fitted or not."""
    digest = hashlib.sha256(secret[:MAX_TOKEN].encode()).hexdigest()
    found = None
    for one in tokens:
        if hmac.compare_digest(one.digest, digest):
            found = one
    return found if len(secret) <= MAX_TOKEN else None
