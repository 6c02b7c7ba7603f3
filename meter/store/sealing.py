"""Secrets in the store, sealed: a copy of the database alone, such as a backup, gives none of them away.

AES-256-GCM with a random nonce; each secret is bound to the row that it belongs to, so that none can stand in the place
of another. The key is derived from `store.secrets_key`, or from one that is made once and kept beside the SQLite file;
what was sealed with the latter is still opened once the former is set. What was written before there was a key is read
as it is, until it is sealed.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from facts.key_file import own_key

KEY_FILE = "secrets.key"
_PURPOSE = b"baton.secrets.1\0"
_SEALED = b"\x01"  # no JSON begins so
_NONCE = 12  # bytes, NIST SP 800-38D section 8.2


class SealError(ValueError):
    """A secret cannot be read; the message says which, and what is missing."""


class SecretBox:
    """Seals and opens. `key` empty: the one in `file`, made where there is none when first something is sealed."""

    def __init__(self, key: str = "", file: Path | None = None) -> None:
        self._key = key.encode()
        self._file = file
        self._read: list[bytes] = []  # keys that the file has had while we run, the present one first

    def seal(self, plain: bytes, about: str) -> bytes:
        """Sealed for one row. Without a key and a place for one the bytes stay as they are. Raises OSError."""
        keys = self._keys(look=True, make=True)  # what is sealed with a key that the file has no more nobody can open
        if not keys:
            return plain
        nonce = secrets.token_bytes(_NONCE)
        return _SEALED + nonce + _cipher(keys[0]).encrypt(nonce, plain, about.encode())

    def open(self, stored: bytes, about: str) -> bytes:
        """The secret that was sealed for that row. Raises SealError."""
        if not stored.startswith(_SEALED):
            return stored
        nonce, sealed = stored[1 : 1 + _NONCE], stored[1 + _NONCE :]
        tried: list[bytes] = []
        for again in (False, True):  # the file may have another key by now
            try:
                keys = [key for key in self._keys(look=again) if key not in tried]
            except OSError as error:
                # Without its folder: the buyer reads this too.
                why = f"{KEY_FILE}: {error.strerror}" if error.strerror else str(error)
                raise SealError(f"the secret of {about} cannot be opened: {why}") from error
            for key in keys:
                with contextlib.suppress(InvalidTag, ValueError):
                    return _cipher(key).decrypt(nonce, sealed, about.encode())
            tried += keys
        if tried:
            raise SealError(f"the secret of {about} was sealed with another key, or was changed since")
        where = "store.secrets_key" + (f", or {KEY_FILE} beside the database," if self._file is not None else "")
        raise SealError(f"the secret of {about} cannot be opened without its key: {where} is missing")

    def _keys(self, *, look: bool, make: bool = False) -> list[bytes]:
        """The one to seal with first. `look`: into the file, though it was read before. Raises OSError."""
        if self._file is not None and (look or not self._read):
            found = own_key(self._file, make=make and not self._key)
            self._read = [found, *(key for key in self._read if key != found)] if found else self._read
        return [key for key in (self._key, *self._read) if key]


def _cipher(key: bytes) -> AESGCM:
    return AESGCM(hashlib.sha256(_PURPOSE + key).digest())
