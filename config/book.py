"""The book: buyers, their endpoints, campaigns and terms, as values.

They live in the store and are edited through CLI, API and portal; `[[buyers]]` and the like in a file are an explicit
import. The router reads a snapshot of them and decides; nothing here has behaviour beyond what the value itself tells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

DEFAULT_TIME_ZONE = "America/New_York"  # domain 2
DEFAULT_RING_TIMEOUT_MS = 30_000


class EndpointKind(StrEnum):
    """A SIP trunk of the buyer's, or a number reached through a carrier of the operator's."""

    TRUNK = "trunk"
    DID = "did"


class Transport(StrEnum):
    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


class Srtp(StrEnum):
    OFF = "off"
    OPTIONAL = "optional"
    MANDATORY = "mandatory"


class BuyerState(StrEnum):
    """ACTIVE takes transfers; PAUSED is the buyer's or operator's wish; ON_HOLD is for an unpaid invoice."""

    ACTIVE = "active"
    PAUSED = "paused"
    ON_HOLD = "on_hold"
    CANCELLED = "cancelled"


class Rating(StrEnum):
    UNIT = "unit"
    MINUTE = "minute"


@dataclass(frozen=True, slots=True)
class Terms:
    """A version of a terms profile (domain, sections 3 to 6 and 9). Money in minor units, durations in ms."""

    name: str
    version: int = 1
    effective_from: str = "2026-01-01"  # ISO date in `time_zone`
    currency: str = "USD"
    time_zone: str = DEFAULT_TIME_ZONE
    rating: Rating = Rating.UNIT
    connected_percent: int = 93
    failed_percent: int = 100
    talk_connected_ms: int = 15_000
    secure_buffer_ms: int = 15_000
    unreachable: str = "free"  # or "failed"
    caller_abandon: str = "free"  # or "failed"
    order_counts: str = "billed"  # or "sent"
    overrun_percent: int = 10
    unit_price_minor: int = 0
    minute_price_minor: int = 0
    minute_increment_ms: int = 60_000
    minute_minimum_ms: int = 0
    setup_fee_minor: int = 0
    concurrent_lines: int = 0  # 0: not limited by the terms


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place that can ring for a buyer."""

    name: str
    kind: EndpointKind
    uri: str  # trunk: SIP URI to dial. DID: E.164 number, dialled through `carrier`
    carrier: str = ""  # DID: name of the carrier in the configuration
    transport: Transport = Transport.UDP
    srtp: Srtp = Srtp.OFF
    verify_tls: bool = True  # certificate and host name
    username: str = ""
    password: str = field(default="", repr=False)
    ring_timeout_ms: int = DEFAULT_RING_TIMEOUT_MS
    enabled: bool = True

    @property
    def secure(self) -> bool:
        """A secure SIP trunk: TLS with a verified certificate and SRTP mandatory (domain, section 4)."""
        return (
            self.kind is EndpointKind.TRUNK
            and self.transport is Transport.TLS
            and self.verify_tls
            and self.srtp is Srtp.MANDATORY
        )


@dataclass(frozen=True, slots=True)
class Buyer:
    """A customer who bought live transfers."""

    name: str  # slug, unique
    title: str
    terms: Terms
    endpoints: tuple[Endpoint, ...] = ()
    state: BuyerState = BuyerState.ACTIVE
    time_zone: str = DEFAULT_TIME_ZONE
    category: str = ""
    lead_emails: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Campaign:
    """What the dialer dials: the user part of the request URI."""

    name: str  # slug, unique; the user part dialled
    buyers: tuple[str, ...]
    ring_timeout_ms: int = DEFAULT_RING_TIMEOUT_MS
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Book:
    """One consistent snapshot. `version` changes whenever anything in it does."""

    version: int = 0
    buyers: dict[str, Buyer] = field(default_factory=dict)
    campaigns: dict[str, Campaign] = field(default_factory=dict)
