"""Signed messages, as the Standard Webhooks specification (version 1.0) has them: HMAC-SHA256 over id, time and body.

Ours to buyers (`meter.webhooks.channel`), theirs to us (leads over HTTP, commands over MQTT). A signature stands in a
header or
field as `v1,BASE64`; several may stand beside each other, separated by blanks, while a secret is being changed. A
secret is `whsec_` and base64 of 24 to 64 bytes, or any text of at least 24 characters, whose UTF-8 is the key then.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable

TOLERANCE_S = 300  # how old or how far ahead a message may be, as the specification advises
PREFIX = "whsec_"
VERSION = "v1"
MIN_KEY_BYTES, MAX_KEY_BYTES = 24, 64
MAX_DIGITS = 12  # of a timestamp in seconds: enough for 30,000 years


class SignatureError(ValueError):
    """The message is not who it says it is from, or too old."""


def key_of(secret: str) -> bytes:
    """The key of a secret. Raises ValueError where it is none."""
    if secret.startswith(PREFIX):
        try:
            key = base64.b64decode(secret[len(PREFIX) :], validate=True)
        except binascii.Error as error:
            raise ValueError(f"the secret is not {PREFIX} and base64") from error
    else:
        key = secret.encode()
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(f"the secret has {len(key)} bytes and must have {MIN_KEY_BYTES} to {MAX_KEY_BYTES}")
    return key


def new_secret() -> str:
    """A fresh secret of 32 random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, message_id: str, at_s: int, body: bytes) -> str:
    """The signature of a message sent at `at_s`, in seconds since 1970. Raises ValueError for a secret that is none."""
    signed = b"%s.%d.%s" % (message_id.encode(), at_s, body)
    return f"{VERSION},{base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()}"


def verify(  # all that a signature covers, and when it is looked at
    secrets_: Iterable[str], message_id: str, at: str, body: bytes, signatures: str, *, now_s: float
) -> None:
    """Raises SignatureError unless one of the signatures is of one of the secrets and `at` is near `now_s`."""
    if not at.isascii() or not at.isdigit() or len(at) > MAX_DIGITS or abs(int(at) - now_s) > TOLERANCE_S:
        raise SignatureError(f"the timestamp is not within {TOLERANCE_S} s of now")
    given = [one.encode() for one in signatures.split()]
    fits = [
        hmac.compare_digest(sign(one, message_id, int(at), body).encode(), other) for one in secrets_ for other in given
    ]
    if not any(fits):
        raise SignatureError("the signature does not fit")
