"""Writes URIs and headers of outgoing requests from values that may be hostile."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from book.model import Transport
from book.sip_uri import UriError, parse_uri
from router.sip.pjlib import EngineConfig
from router.sip.port import Target


def host_for_from(config: EngineConfig) -> str:
    """Host for the From of a dialled leg: the public address of the first listener, or a name that is nobody's."""
    first = config.listeners[0] if config.listeners else None
    host = (first.public_address or first.address) if first else ""
    return host if host not in ("", "0.0.0.0", "::") else "baton.invalid"  # noqa: S104 - compared, not bound


# Letters alone: no run of digits in it can be taken for a phone number and masked in a log or a trace.
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_CHANCE_BYTES = 16  # 128 bits: who has not seen the INVITE cannot answer it


def new_call_id(handle: str) -> str:
    """Call-ID of a leg that we dial: its handle, by which people find it, and what nobody can guess."""
    return f"{handle}.{secrets.token_hex(_CHANCE_BYTES).translate(_LETTERS)}"


def packed(headers: Sequence[tuple[str, str]]) -> str:
    """Headers as the native commands take them; no control character can pass for a separator or a line end."""
    return "".join(f"{_printable(name)}\x1f{_printable(value)}\x1e" for name, value in headers)


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def user_part(number: str) -> str:
    """A number or name as the user part of a URI: nothing that could end it (RFC 3261 section 25.1)."""
    return "".join(c for c in number if c.isalnum() or c in "+-_.!~*'()")[:64] or "anonymous"


def with_transport(target: Target) -> str:
    try:
        said = parse_uri(target.uri).parameter("transport") is not None
    except UriError:  # PJSIP will not dial it
        said = True
    if said or target.transport is Transport.UDP:
        return target.uri
    return f"{target.uri};transport={target.transport.value}"
