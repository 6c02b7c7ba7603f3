"""HTTPS POST to hosts that buyers name, and that may therefore be hostile: guarded, bounded, never redirected.

A host is resolved once and the addresses that came are looked at before anything is sent, so that a name cannot change
between the look and the connection (DNS rebinding). Addresses that are not global (private, loopback, link-local,
shared, multicast, and those that carry such a one inside) are refused unless the host is allowed by name. The
certificate is verified against the host's name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import httpcore

TIMEOUT_S = 10.0  # for the whole exchange
MAX_ANSWER = 16_384  # bytes that are read of an answer, so that its connection can be used again
MAX_CONNECTIONS = 50
KEEP_ALIVE_S = 30.0
MAX_RETRY_AFTER_S = 8_640_000  # a hundred days
_MOST_DIGITS, _MOST_DATE = 18, 64  # characters of a number of seconds, and of a date

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_GIVEN_OUT = ipaddress.ip_network("2000::/3")
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")  # RFC 9637
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})  # RFC 5214 section 6.1
_BITS_32 = 0xFFFF_FFFF


class HttpPostError(Exception):
    """The request failed, or its result is not known; the message says why, in no words of the far end."""


class ForbiddenTargetError(HttpPostError):
    """The host leads to an address that may not be posted to."""


@dataclass(frozen=True, slots=True)
class PostOptions:
    """`allow`: host names that may lead to any address. `ca_file`: instead of the system's CA certificates."""

    allow: frozenset[str] = frozenset()
    timeout_s: float = TIMEOUT_S
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The status, and how long the far end asks to be left alone, in seconds."""

    status: int
    retry_after_s: int = 0


class HttpPoster:
    """Sends HTTPS POST requests over a pool of connections. To be used on one loop, and closed."""

    def __init__(self, options: PostOptions) -> None:
        self._timeout_s = options.timeout_s
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(cafile=options.ca_file or None),
            max_connections=MAX_CONNECTIONS,
            keepalive_expiry=KEEP_ALIVE_S,
            network_backend=_Guarded(options.allow),
        )

    async def post(self, url: str, body: bytes, headers: Iterable[tuple[str, str]]) -> HttpAnswer:
        """Raises HttpPostError where no answer came."""
        sent = [(name.encode(), value.encode()) for name, value in headers]
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._exchange(url, body, sent)
        except TimeoutError as error:
            raise HttpPostError(f"no answer within {self._timeout_s:g} s") from error
        except ssl.SSLError as error:
            raise HttpPostError(f"TLS: {error.reason or 'failed'}") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            raise HttpPostError(_why(error)) from error

    async def _exchange(self, url: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> HttpAnswer:
        async with self._pool.stream("POST", url, headers=headers, content=body) as got:
            size = 0
            async for chunk in got.aiter_stream():
                size += len(chunk)
                if size > MAX_ANSWER:
                    break
            return HttpAnswer(got.status, _retry_after_s(got.headers))

    async def close(self) -> None:
        await self._pool.aclose()


def _why(error: Exception) -> str:
    """What failed, by its kind: the text of some errors is the far end's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS: the certificate is not valid: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.errno:
            return f"not connected: {cause.strerror or type(cause).__name__}"
        cause = cause.__cause__ or cause.__context__
    return f"failed: {type(error).__name__}"


def _retry_after_s(headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Retry-After in seconds, from its number or its date (RFC 9110 section 10.2.3); 0 where it says neither.

    A date is held against the answer's own Date, so that the far end's clock may be wrong.
    """
    said = _header(headers, b"retry-after")
    if said.isascii() and said.isdigit():
        return min(int(said), MAX_RETRY_AFTER_S) if len(said) <= _MOST_DIGITS else MAX_RETRY_AFTER_S
    until, now = _moment(said), _moment(_header(headers, b"date")) or datetime.now(UTC)
    return max(0, min(math.ceil((until - now).total_seconds()), MAX_RETRY_AFTER_S)) if until is not None else 0


def _header(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next((value for name, value in headers if name.lower() == wanted), b"").decode("latin-1").strip()


def _moment(text: str) -> datetime | None:
    """One of the three forms of an HTTP date (RFC 9110 section 5.6.7), which are all in GMT; None: it is none."""
    if len(text) > _MOST_DATE:
        return None
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


class _Guarded(httpcore.AsyncNetworkBackend):
    """Connects to allowed addresses alone."""

    def __init__(self, allow: frozenset[str]) -> None:
        self._allow = allow
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(  # type: ignore[override]
        self, host: str, port: int, **options: Any
    ) -> httpcore.AsyncNetworkStream:
        last: Exception | None = None
        for address in await self._addresses(host, port):
            try:
                return await self._inner.connect_tcp(address, port, **options)
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                last = error
        raise last or HttpPostError("not connected: the host has no address")

    async def connect_unix_socket(  # type: ignore[override]
        self, path: str, **_options: Any
    ) -> httpcore.AsyncNetworkStream:
        raise ForbiddenTargetError(f"not a network address: {path}")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[str]:
        """The host's addresses. Raises HttpPostError, ForbiddenTargetError."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise HttpPostError("not connected: the host's name is not known") from error
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        if host.lower().rstrip(".") in self._allow:
            return addresses
        if not all(map(is_public, addresses)):  # one bad address among good ones is an attempt
            raise ForbiddenTargetError("refused: the host leads to a private address (webhooks.allow_hosts)")
        return addresses


def is_public(text: str) -> bool:
    """Whether an address is global, and carries none inside that is not."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and not _is_unicast(address):
        return False
    return all(one.is_global and not one.is_multicast for one in (address, *_inside(address)))


def _is_unicast(address: IPv6Address) -> bool:
    """Of the range that is given out to hosts (RFC 4291 section 2.4), or one that stands for an IPv4 address."""
    if address.ipv4_mapped is not None or address in _NAT64:
        return True
    return address in _GIVEN_OUT and address not in _DOCUMENTATION


def _inside(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Addresses that an IPv6 address stands for: mapped, 6to4 (RFC 3056), Teredo (RFC 4380), NAT64 (RFC 6052)
    and ISATAP (RFC 5214).
    """
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or (int(address) >> 32) & _BITS_32 in _ISATAP:
        found.append(IPv4Address(int(address) & _BITS_32))
    return [one for one in found if one is not None]
