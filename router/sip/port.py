"""What the router sees of SIP: commands in, events out, nothing of pjsua2.

A leg is named by its handle, a string that is unique for ever: the router's own leg id for the legs it dials (it
becomes the Call-ID), the engine's choice for a leg from the dialer. Commands never raise for what a peer did: the
answer comes as an event. All events that were in before the first of them was handled arrive in one batch, so that
two answers in the same moment are seen as two answers.

Times are integers in microseconds of the monotonic clock, taken when the message passed the transport layer;
`lag_us` is how long it may have waited in the socket before that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from config.book import Srtp, Transport


class EventKind(StrEnum):
    """What can happen to a leg."""

    SENT = "sent"  # the INVITE was handed to the transport
    TRYING = "trying"  # first 100
    RINGING = "ringing"  # first 101 to 199
    ANSWERED = "answered"  # first 2xx (for a leg that we hung up before: too late)
    FAILED = "failed"  # over before an answer; `local`: no final answer came from the far end
    CANCELLED = "cancelled"  # the dialer's CANCEL
    BYE = "bye"  # the far end's BYE
    GONE = "gone"  # an answered leg is over without BYE from the far end (no ACK, session timer, transport)
    BRIDGED = "bridged"  # audio runs both ways between this leg and its peer
    NOT_SENT = "not_sent"  # the engine could not even make the call
    FAULT = "fault"  # a callback or a command of the engine failed


class LegEvent(NamedTuple):
    """One event of one leg. `header` is the value of a Reason header (RFC 3326) where there was one."""

    handle: str
    kind: EventKind
    at_us: int
    lag_us: int = 0
    code: int = 0
    phrase: str = ""
    header: str = ""
    local: bool = False


@dataclass(frozen=True, slots=True)
class Invite:
    """An INVITE from a dialer. `headers` maps lower-case names to values, in order of arrival; hostile input."""

    handle: str
    at_us: int
    lag_us: int
    source: str  # IP address
    source_port: int
    sip_call_id: str
    user: str  # user part of the request URI
    caller: str  # user part of the From URI
    headers: dict[str, list[str]] = field(default_factory=dict)
    lead_json: bytes = b""  # the JSON part of a multipart body, empty where there is none


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to dial one endpoint."""

    uri: str
    transport: Transport = Transport.UDP
    srtp: Srtp = Srtp.OFF
    verify_tls: bool = True
    username: str = ""
    password: str = field(default="", repr=False)
    caller: str = ""  # user part of From; empty: the engine's own name
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Slots:
    """Call slots: `used` counts every one that PJSIP holds, `lingering` those whose leg is over for us."""

    used: int
    lingering: int
    ceiling: int

    @property
    def free(self) -> int:
        return self.ceiling - self.used


class EngineListener(Protocol):
    """Who is told."""

    def on_invite(self, invite: Invite) -> None: ...

    def on_events(self, events: Sequence[LegEvent]) -> None: ...


class SipEngine(Protocol):
    """Commands. None blocks; none raises for what a peer does."""

    def dial(self, handle: str, target: Target) -> None:
        """Send an INVITE: SENT follows, or NOT_SENT."""

    def ring(self, handle: str) -> None:
        """180 to the dialer."""

    def answer(self, handle: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """200 to the dialer."""

    def reject(self, handle: str, code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Final answer of 300 to 699 to the dialer."""

    def hang_up(self, handle: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """CANCEL or BYE, whichever fits. No event follows but a late ANSWERED."""

    def bridge(self, one: str, other: str) -> None:
        """Let two answered legs hear each other as soon as both have audio: BRIDGED for `other` follows."""

    @property
    def slots(self) -> Slots: ...


class TimerHandle(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """Monotonic time, wall time and timers; real in production, virtual in tests."""

    def now_us(self) -> int: ...

    def utc_us(self) -> int: ...

    def lag_us(self) -> int:
        """How long ago the event that is now handled may have arrived unseen."""

    def call_at(self, when_us: int, action: Callable[[], None]) -> TimerHandle:
        """Call `action()` at `when_us` or as soon after as the loop turns."""
