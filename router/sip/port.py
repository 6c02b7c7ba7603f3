"""What the router sees of SIP: commands in, events out, nothing of pjsua2.

A leg is named by its handle, a string that is unique for ever: the router's own leg id for the legs it dials (it
becomes the Call-ID), the engine's choice for a leg from the dialer. Commands never raise for what a peer did: the
answer comes as an event. All events that were in before the first of them was handled arrive in one batch, so that
two answers in the same moment are seen as two answers.

Times are integers in microseconds of the monotonic clock, taken when the message passed the transport layer;
`lag_us` is how long it may have waited in the socket before that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol

from book.model import PLAIN_TRUNK, Srtp, Transport, TrunkPolicy


class EventKind(StrEnum):
    """What can happen to a leg."""

    SENT = "sent"  # the INVITE was handed to the transport
    TRYING = "trying"  # a provisional answer that is no ringing: first 100, first other
    RINGING = "ringing"  # first of 180 to 183
    ANSWERED = "answered"  # first 2xx (for a leg that we hung up before: too late)
    UNSERVED = "unserved"  # first 2xx, and no audio can be agreed on with it; the engine ACKs and BYEs
    FAILED = "failed"  # over before an answer; `local`: no final answer came from the far end
    CANCELLED = "cancelled"  # the dialer's CANCEL
    BYE = "bye"  # the far end's BYE
    GONE = "gone"  # an answered leg is over without BYE from the far end (no ACK, session timer, transport)
    BRIDGED = "bridged"  # audio runs both ways between this leg and its peer
    NOT_SENT = "not_sent"  # no INVITE left
    FAULT = "fault"  # a callback or a command of the engine failed
    FORKED = "forked"  # a 2xx from a second dialog of the same INVITE: ACKed and BYEd (RFC 3261 section 13.2.2.4)
    DIGIT = "digit"  # a key was pressed
    HELD = "held"  # the party put us on hold
    RETRIEVED = "retrieved"  # and took us back
    RTP_STARTED = "rtp_started"  # its first packet came
    UNHEARD = "unheard"  # no packet for a while; the time is that of the last one
    HEARD = "heard"  # packets again
    MOVED = "moved"  # the dialer moved its end of the call to another dialog (RFC 3891, RFC 3515)


SignalKind = Literal[
    EventKind.SENT, EventKind.TRYING, EventKind.RINGING, EventKind.ANSWERED, EventKind.UNSERVED, EventKind.FORKED,
    EventKind.FAILED, EventKind.CANCELLED, EventKind.BYE, EventKind.GONE,
]  # fmt: skip
AudioKind = Literal[
    EventKind.HELD, EventKind.RETRIEVED, EventKind.RTP_STARTED, EventKind.UNHEARD, EventKind.HEARD
]  # fmt: skip


class LegSignal(NamedTuple):
    """A SIP message of a leg, or its end without one (`local`).

    `code` and `phrase`: status code and reason phrase (RFC 3261 section 7.2), 0 and empty of a request. `header`: the
    value of a Reason header (RFC 3326) where there was one.
    """

    handle: str
    kind: SignalKind
    at_us: int
    lag_us: int = 0
    code: int = 0
    phrase: str = ""
    header: str = ""
    local: bool = False


class LegAudio(NamedTuple):
    """A party's audio stopped, started or was put on hold."""

    handle: str
    kind: AudioKind
    at_us: int
    lag_us: int = 0


class LegDigit(NamedTuple):
    """A key was pressed: 0 to 9, *, #, A to D."""

    handle: str
    at_us: int
    lag_us: int = 0
    digit: str = ""
    kind: Literal[EventKind.DIGIT] = EventKind.DIGIT


class LegBridged(NamedTuple):
    """Audio runs both ways. `codecs`: the dialer's and the endpoint's, such as `pcmu opus+srtp`."""

    handle: str
    at_us: int
    lag_us: int = 0
    codecs: str = ""
    kind: Literal[EventKind.BRIDGED] = EventKind.BRIDGED


class LegNotSent(NamedTuple):
    """No INVITE left. `ours`: this machine was short of something, which says nothing about the endpoint."""

    handle: str
    at_us: int
    lag_us: int = 0
    why: str = ""
    ours: bool = False
    kind: Literal[EventKind.NOT_SENT] = EventKind.NOT_SENT


class LegFault(NamedTuple):
    """A callback or a command of the engine failed: `what`, in the engine's words."""

    handle: str
    at_us: int
    lag_us: int = 0
    what: str = ""
    kind: Literal[EventKind.FAULT] = EventKind.FAULT


class LegMoved(NamedTuple):
    """The dialer's end is another dialog now: by `refer` or `replaces`."""

    handle: str
    at_us: int
    lag_us: int = 0
    how: str = ""
    kind: Literal[EventKind.MOVED] = EventKind.MOVED


LegEvent = LegSignal | LegAudio | LegDigit | LegBridged | LegNotSent | LegFault | LegMoved  # told apart by `kind`


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
    caller: str  # whose From it is: a number, a name, or a tel URI; empty where that cannot be told
    headers: dict[str, list[str]] = field(default_factory=dict)
    lead_json: bytes = b""  # the JSON part of the body, empty where there is none
    unread: tuple[str, ...] = ()  # what of it cannot be read with certainty, and might have the prospect's number
    caller_unread: str = ""  # why its From cannot
    codecs: tuple[str, ...] = ()  # that the dialer offers, in its order


@dataclass(frozen=True, slots=True)
class Ask:
    """An OPTIONS outside dialogs: would a call be taken now?"""

    handle: int
    source: str
    user: str
    headers: dict[str, list[str]] = field(default_factory=dict)
    trunk: bool = False  # it comes from a trunk of the book, which asks whether we are there


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of an OPTIONS to a trunk. `code` 0: no answer."""

    key: str
    code: int
    took_us: int


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
    policy: TrunkPolicy = PLAIN_TRUNK
    codecs: tuple[str, ...] = ()  # to offer, in this order; empty: all of ours


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

    def on_ask(self, ask: Ask) -> None: ...

    def on_probed(self, result: Probed) -> None: ...

    def may_refer(self, handle: str, to: str) -> bool:
        """May the dialer move its end of this call to the host `to` (RFC 3515)?"""

    def may_replace(self, handle: str, source: str, headers: dict[str, list[str]]) -> bool:
        """May this INVITE take over the dialer's end of this call (RFC 3891)?"""


class SipEngine(Protocol):
    """Commands. None blocks; none raises for what a peer does."""

    def dial(self, handle: str, target: Target) -> None:
        """Send an INVITE: SENT follows, or NOT_SENT."""

    def ring(self, handle: str) -> None:
        """180 to the dialer."""

    def answer(self, handle: str, headers: Sequence[tuple[str, str]] = (), codec_of: str = "") -> None:
        """200 to the dialer; with the codec of the leg `codec_of` where both know it."""

    def reject(self, handle: str, code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Final answer of 300 to 699 to the dialer."""

    def hang_up(self, handle: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """CANCEL or BYE, whichever fits. No event follows but a late ANSWERED, and a BYE that crosses ours."""

    def bridge(self, caller: str, endpoint: str) -> None:
        """Let two answered legs hear each other as soon as both have audio: BRIDGED for `endpoint` follows."""

    def play(self, handle: str, file: str, *, loop: bool = False) -> None:
        """Play a WAV file to an answered leg, instead of what it hears from us now, as soon as it has audio."""

    def stop_playing(self, handle: str) -> None: ...

    def record(self, caller: str, endpoint: str, file: str) -> bool:
        """Record `caller` on the left and `endpoint` on the right of a WAV file. False: it failed."""

    def stop_recording(self, caller: str) -> int:
        """End the recording; bytes of audio, -1 where the disk failed."""

    def probe(self, key: str, target: Target) -> None:
        """OPTIONS to a trunk; `on_probed` follows unless it is superseded."""

    def reply(self, handle: int, code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer an OPTIONS."""

    def admit_sources(self, dialers: Sequence[Sequence[str]], *, drop: bool) -> None:
        """Networks of each dialer, which has its share. `drop`: others' requests outside dialogs get no answer."""

    def admit_trunks(self, addresses: Collection[str]) -> None:
        """Addresses of trunks, which may ask with OPTIONS, besides those to which one of their names led."""

    def behind_nat(self, networks: Sequence[str]) -> None:
        """Sources whose RTP may come from elsewhere than they say."""

    def lock_out(self, source: str, seconds: int) -> None:
        """Drop all requests outside dialogs from this address for a while."""

    def registered(self, target: Target) -> bool:
        """False where the trunk asks for a registration that does not hold."""

    def keep_registered(self, targets: Sequence[Target]) -> None:
        """Registrations of trunks that are none of these are taken back."""

    def codec(self, handle: str) -> str:
        """Codec that a leg's audio speaks; empty: none yet."""

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
