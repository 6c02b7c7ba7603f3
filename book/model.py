"""The book: buyers, their endpoints, campaigns and terms, as values.

They live in the store and are edited through CLI, API and portal; `[[buyers]]` and the like in a file are an explicit
import. The router reads a snapshot of them and decides; nothing here has behaviour beyond what the value itself tells.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

DEFAULT_TIME_ZONE = "America/New_York"  # domain 2
DEFAULT_RING_TIMEOUT_MS = 30_000
CODECS = ("PCMU", "PCMA", "G722", "opus")  # encoding names of RFC 3551 and RFC 7587


class Channel(StrEnum):
    """How a customer was served; the column `kind`."""

    CALL = "call"
    EMAIL = "email"
    CHAT = "chat"


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
    """ACTIVE takes transfers; PAUSED is the buyer's or operator's wish; ON_HOLD is by hand or for an unpaid invoice."""

    ACTIVE = "active"
    PAUSED = "paused"
    ON_HOLD = "on_hold"
    CANCELLED = "cancelled"


class Stop(StrEnum):
    """A reason for not serving a buyer; each is ended by its own cause (domain, section 6)."""

    UNPAID = "unpaid"  # an invoice is due and not paid: until the payment is recorded
    HELD = "held"  # by hand, until it is resumed; so are the others
    PAUSED = "paused"
    CANCELLED = "cancelled"


def state_under(stops: Collection[Stop]) -> BuyerState:
    """The state of a buyer with these reasons for not serving it: the weightiest says."""
    if Stop.CANCELLED in stops:
        return BuyerState.CANCELLED
    if Stop.HELD in stops or Stop.UNPAID in stops:
        return BuyerState.ON_HOLD
    return BuyerState.PAUSED if Stop.PAUSED in stops else BuyerState.ACTIVE


class Rating(StrEnum):
    UNIT = "unit"
    MINUTE = "minute"


class SessionTimer(StrEnum):
    """RFC 4028: never, when the far end wants it, refuse who has none, or keep one of our own whatever it says."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"
    ALWAYS = "always"


class Prack(StrEnum):
    """Reliable provisional answers, RFC 3262: supported, or required. PJSIP always supports them."""

    OPTIONAL = "optional"
    MANDATORY = "mandatory"


class Strategy(StrEnum):
    """How a campaign chooses: the first open buyer, the one furthest behind its order, or one agent by rating."""

    PRIORITY = "priority"
    DEFICIT = "deficit"
    RATED = "rated"


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
    order_counts: str = "sent"  # or "billed"
    overrun_percent: int = 10
    overage_uses_credits: bool = True  # Monday's invoice takes open credits first, as Tuesday's does
    unit_price_minor: int = 0
    minute_price_minor: int = 0
    minute_increment_ms: int = 60_000
    minute_minimum_ms: int = 0
    setup_fee_minor: int = 0
    concurrent_lines: int = 0  # 0: not limited by the terms
    extra_line_price_minor: int = 0  # of each line more, a month
    month_due_days: int = 10  # days after a monthly or set-up invoice
    credit_days: int = 4  # days after the day of the call within which a credit may be asked for (domain, section 8)
    end_of_business: str = "17:00"  # when what is due on a day is due, in `time_zone`


@dataclass(frozen=True, slots=True)
class TrunkPolicy:
    """The SIP policy of one trunk: the same for a buyer's trunk and for a carrier of the operator's."""

    codecs: tuple[str, ...] = ()  # names of `CODECS` in order of preference; empty: what the dialer offers
    caller_id: str = ""  # user part of From; empty: the prospect's number; `anonymous`: RFC 3323
    asserted_identity: bool = False  # P-Asserted-Identity (RFC 3325) with the prospect's number
    transfer_header: str = "X-Transfer-Id"  # header that carries the transfer id; empty: none
    lead_headers: tuple[str, ...] = ()  # lead fields that go along as X-Lead-...
    session_timer: SessionTimer = SessionTimer.OPTIONAL
    session_expires_s: int = 1800  # RFC 4028 section 4
    session_min_s: int = 90  # RFC 4028 section 5: never less
    prack: Prack = Prack.OPTIONAL
    ca_file: str = ""  # instead of tls.ca_file
    certificate_file: str = ""  # mutual TLS: our certificate for this trunk, instead of tls.certificate_file
    key_file: str = ""
    registrar: str = ""  # SIP URI to register with; empty: none
    redirect_hosts: tuple[str, ...] = ()  # hosts to which a 3xx may send a leg; empty: a 3xx is the leg's failure
    max_calls: int = 0  # calls at once over this trunk; 0: not limited
    probe_s: int = 0  # OPTIONS every so many seconds; 0: never
    nat: bool = False  # its RTP may come from elsewhere than its session descriptions say


PLAIN_TRUNK = TrunkPolicy()


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
    policy: TrunkPolicy = PLAIN_TRUNK
    accept_key: str = ""  # the key by which a person must accept the call; empty: the answer is enough
    accept_timeout_ms: int = 10_000  # from the answer
    whisper_file: str = ""  # WAV that the endpoint hears before the bridge
    rating_x100: int = 300  # average rating of an agent, 100 to 500 (domain, section 9); weighs in strategy `rated`

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
class Caps:
    """Most units (connected or failed, those under way included) in a span of the buyer's calendar; 0: no cap."""

    total: int = 0
    month: int = 0
    day: int = 0
    hour: int = 0
    concurrent: int = 0  # transfers at once


@dataclass(frozen=True, slots=True)
class OrderClauses:
    """The clauses that an order's invoice froze: `sent` or `billed` units, and how far the week may run over."""

    counts: str
    overrun_percent: int


@dataclass(frozen=True, slots=True)
class Order:
    """A buyer's order for one service week (domain, section 6): live transfers as sent, or billed units.

    Two orders are the same where the same is bought; the fields after the make-up say where that came from, and what
    was frozen.
    """

    buyer: str
    week: str  # ISO date of the Monday on which it begins, in the terms' zone
    quantity: int
    make_up: int = 0  # free on top
    make_up_owed: int = field(default=0, compare=False)  # of it: what weeks before fell short of, no present
    make_up_units: int = field(default=0, compare=False)  # billed units that these were worth
    clauses: OrderClauses | None = field(default=None, compare=False)  # None: not invoiced, those of the terms hold


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
    caps: Caps = Caps()
    hours: tuple[str, ...] = ()  # such as `mon-fri 09:00-12:30`, in `time_zone`; empty: always open
    holidays: tuple[str, ...] = ()  # ISO dates on which it is closed
    duplicate_days: int = 0  # a prospect sent to this buyer within so many days is refused; 0: never
    allow_states: tuple[str, ...] = ()  # the lead's `state`; empty: all
    deny_states: tuple[str, ...] = ()
    allow_area_codes: tuple[str, ...] = ()  # first three digits of a North American number; empty: all
    deny_area_codes: tuple[str, ...] = ()
    order_required: bool = False  # transfers only against an order of the running week
    extra_lines: int = 0  # bought beyond those that the terms include
    address: tuple[str, ...] = ()  # lines of the postal address, on documents
    reference: str = ""  # of the buyer's own, such as a purchase order; on documents
    billing_emails: tuple[str, ...] = ()  # documents; empty: `lead_emails`
    report_emails: tuple[str, ...] = ()  # daily reports; empty: `billing_emails`
    ask_rating: bool = False  # by the minute: callers are asked by e-mail how it was
    locale: str = "en_US"  # CLDR name; dates and amounts in e-mails and documents


@dataclass(frozen=True, slots=True)
class MenuChoice:
    """A key of the greeting's menu, and the buyers it leads to."""

    key: str
    buyers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Campaign:
    """What the dialer dials: the user part of the request URI."""

    name: str  # slug, unique; the user part dialled
    buyers: tuple[str, ...]
    ring_timeout_ms: int = DEFAULT_RING_TIMEOUT_MS
    enabled: bool = True
    strategy: Strategy = Strategy.DEFICIT
    max_offers: int = 1  # transfers that one prospect may become (domain, section 7); 1: never offered on
    commit_ms: int = 0  # losers ring on for so long, or until the winner's first RTP; 0: cancelled at once
    early_answer: bool = False  # the dialer gets its 200 before anybody rings
    music_file: str = ""  # WAV for the caller between early answer and bridge
    greeting_file: str = ""  # WAV that the caller hears first (inbound campaigns)
    menu: tuple[MenuChoice, ...] = ()
    menu_timeout_ms: int = 5_000  # for a key, after the greeting
    menu_tries: int = 2
    record: bool = False
    consent_file: str = ""  # WAV that both parties hear as recording begins


@dataclass(frozen=True, slots=True)
class Book:
    """One consistent snapshot. `version` changes whenever anything in it does."""

    version: int = 0
    buyers: dict[str, Buyer] = field(default_factory=dict)
    campaigns: dict[str, Campaign] = field(default_factory=dict)
    orders: dict[str, tuple[Order, ...]] = field(default_factory=dict)  # by buyer, oldest week first
