"""The signed receipt of a scrub: the number's hash, the verdict, and the lists that were consulted.

It is a JSON Web Token (RFC 7519) in the compact form of RFC 7515, signed by HMAC-SHA256 (RFC 7518 section 3.2), so that
anybody can read it and whoever has the key can verify it. The number itself is not in it: its keyed hash is, which
proves whose scrub it was to those who have both.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import orjson

from facts.key_file import own_key

KEY_FILE = "receipt.key"  # in the folder of the lists, where no key is configured
SHOWN = 32  # hex digits of a checksum in a receipt: 128 bits
ISSUER = "baton"
_KEY_ID = 8  # hex digits
_MAX = 8192  # characters of a receipt worth reading
_WORD = re.compile(r"[A-Za-z0-9_-]+")


class ReceiptError(ValueError):
    """The text is no receipt, or was not signed with a key of ours."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a receipt. `reason` empty: may be transferred. `sets`: the beginnings of the lists' digests."""

    transfer: str
    buyer: str
    reason: str
    hit: str
    number: str  # keyed hash, hex
    sets: tuple[str, ...]  # global lists, the buyer's
    exempt: tuple[int, ...]  # exemptions on record that were applied
    at_s: int  # Unix epoch


class Signer:
    """Signs with one key, verifies with it and with older ones. Keys are 32 bytes or more."""

    def __init__(self, key: bytes, older: Iterable[bytes] = ()) -> None:
        self._keys = {_key_id(one): one for one in (*older, key)}
        self._hmac = hmac.new(key, digestmod="sha256")  # a copy of one that has its key is cheaper than a new one
        self._number_hmac = hmac.new(_number_key(key), digestmod="sha256")
        head = orjson.dumps({"alg": "HS256", "kid": _key_id(key), "typ": "JWT"})
        self._head = _encoded(head) + b"."

    def hash_number(self, number: int) -> str:
        """The keyed hash of an E.164 number, hex."""
        keyed = self._number_hmac.copy()
        keyed.update(b"%d" % number)
        return keyed.hexdigest()[:SHOWN]

    def sign(self, claims: Claims) -> str:
        """The receipt; printable ASCII without blanks."""
        said: dict[str, object] = {
            "iss": ISSUER,
            "iat": claims.at_s,
            "jti": claims.transfer,
            "buyer": claims.buyer,
            "verdict": claims.reason or "pass",
            "number": claims.number,
            "lists": [one[:SHOWN] for one in claims.sets],
        }
        if claims.hit:
            said["hit"] = claims.hit
        if claims.exempt:
            said["exempt"] = list(claims.exempt)
        return self.sign_document(said)

    def sign_document(self, claims: Mapping[str, object]) -> str:
        """Any claims, signed: the receipt of a file's scrub has others."""
        signed = self._head + _encoded(orjson.dumps(claims))
        keyed = self._hmac.copy()
        keyed.update(signed)
        return (signed + b"." + _encoded(keyed.digest())).decode("ascii")

    def verify(self, receipt: str) -> Claims:
        """The claims of a transfer's receipt. Raises ReceiptError where it was not signed with one of the keys."""
        return _claims(self.verify_document(receipt))

    def verify_document(self, receipt: str) -> dict[str, object]:
        """The signed claims. Raises ReceiptError."""
        parts = receipt.strip().split(".") if len(receipt) <= _MAX else []
        if len(parts) != 3 or not all(map(_WORD.fullmatch, parts)):  # noqa: PLR2004 - header, claims, signature
            raise ReceiptError("is no receipt: three parts of letters and digits with dots between are expected")
        key = self._key_of(parts[0])
        right = hmac.digest(key, f"{parts[0]}.{parts[1]}".encode("ascii"), "sha256")
        if not hmac.compare_digest(_encoded(right), parts[2].encode("ascii")):
            raise ReceiptError("was not signed with this key, or was changed since")
        return _decoded(parts[1])

    def proves(self, claims: Claims, receipt: str, number: int) -> bool:
        """Whether a verified receipt is of that number."""
        key = self._key_of(receipt.strip().partition(".")[0])
        wanted = hmac.digest(_number_key(key), b"%d" % number, "sha256").hex()[:SHOWN]
        return hmac.compare_digest(wanted, claims.number)

    def _key_of(self, head: str) -> bytes:
        found = _decoded(head)
        if found.get("alg") != "HS256":
            raise ReceiptError("is no receipt: it is signed in another way")
        key = self._keys.get(str(found.get("kid")))
        if key is None:
            raise ReceiptError("was signed with a key that is not known here")
        return key


def load_signer(folder: Path, key: str = "", older: Iterable[str] = ()) -> Signer:
    """With the configured keys; without any, with one that is made once and kept in `folder`. Raises OSError."""
    if key:
        return Signer(key.encode(), [one.encode() for one in older])
    return Signer(own_key(folder / KEY_FILE), [one.encode() for one in older])


def _claims(claims: dict[str, object]) -> Claims:
    try:
        sets, exempt = cast("list[str]", claims["lists"]), cast("list[int]", claims.get("exempt", []))
        verdict = str(claims["verdict"])
        return Claims(
            transfer=str(claims["jti"]),
            buyer=str(claims["buyer"]),
            reason="" if verdict == "pass" else verdict,
            hit=str(claims.get("hit", "")),
            number=str(claims["number"]),
            sets=tuple(map(str, sets)),
            exempt=tuple(map(int, exempt)),
            at_s=int(str(claims["iat"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ReceiptError("is no receipt of a scrub: a claim is missing") from error


def _number_key(key: bytes) -> bytes:
    """Another key than that which signs, so that no signature is ever a number's hash."""
    return hmac.digest(key, b"baton number", "sha256")


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"baton receipt key " + key).hexdigest()[:_KEY_ID]


def _encoded(content: bytes) -> bytes:
    return urlsafe_b64encode(content).rstrip(b"=")


def _decoded(text: str) -> dict[str, object]:
    try:
        found = orjson.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError) as error:
        raise ReceiptError("is no receipt: it cannot be decoded") from error
    if not isinstance(found, dict):
        raise ReceiptError("is no receipt: it cannot be decoded")
    return found
