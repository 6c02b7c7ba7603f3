"""DKIM (RFC 6376): signing a message with the operator's key.

Header and body are canonicalised `relaxed` (RFC 6376 section 3.4), since servers on the way fold lines. The signed
headers are those of `SIGNED`; From, To, Subject, Date, Message-ID and Reply-To are named once more than they occur, so
that whoever adds a second one breaks the signature (RFC 6376 section 8.15). The library signs with RSA keys alone here:
for Ed25519 (RFC 8463) it needs another package, and verifiers that know only RSA are still common.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import dkim

_ONCE = ("from", "to", "subject", "date", "message-id", "reply-to")
SIGNED = (*_ONCE, *_ONCE, "mime-version", "content-type")
_RELAXED = (b"relaxed", b"relaxed")
_TRIAL = b"From: a@b.example\r\n\r\n\r\n"


class DkimKeyError(ValueError):
    """The key cannot be used; the message names the setting, the file and why."""


@dataclass(frozen=True, slots=True)
class DkimOptions:
    """Domain, selector (the public key is at SELECTOR._domainkey.DOMAIN) and the file of the private key."""

    domain: str
    selector: str
    key_file: Path


class Signer:
    """Signs with one key, read once. Raises DkimKeyError where it cannot be read or is no RSA key."""

    def __init__(self, options: DkimOptions) -> None:
        self._options = options
        try:
            self._key = options.key_file.read_bytes().replace(b"\r\n", b"\n")
        except OSError as error:
            message = f"mail.dkim_key_file: {options.key_file} cannot be read: {error.strerror or error}"
            raise DkimKeyError(message) from error
        try:
            self.sign(_TRIAL)
        except Exception as error:  # whatever the library makes of a file that is no key
            message = f"mail.dkim_key_file: {options.key_file} is no RSA private key in PEM, or it is encrypted"
            raise DkimKeyError(message) from error

    def sign(self, message: bytes) -> bytes:
        """The message with its signature on top; lines end in CRLF, as they are sent."""
        header = dkim.sign(
            message,
            self._options.selector.encode("ascii"),
            self._options.domain.encode("ascii"),
            self._key,
            canonicalize=_RELAXED,
            include_headers=[one.encode("ascii") for one in SIGNED],
        )
        return bytes(header) + message
