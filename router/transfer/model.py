"""The transfer machine's vocabulary: phases, events, effects, and the state between them.

Events say what happened, effects what to do, in the imperative; both are frozen values, so that a whole transfer can
be written down as a table. `router.transfer.machine` is the only one that turns one into the other,
`router.transfer.shell` the only one that performs effects.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from facts.fact import Kind
from facts.payload_values import Payload
from router.sip.port import LegEvent


class Phase(StrEnum):
    ADMITTING = "admitting"
    RINGING = "ringing"
    TALKING = "talking"
    PARTING = "parting"  # the buyer hung up in a short talk; a BYE of the caller's may be crossing ours
    OVER = "over"


class LegPhase(StrEnum):
    PLANNED = "planned"
    DIALED = "dialed"
    RINGING = "ringing"
    SCREENING = "screening"  # answered; hears a whisper, or must press a key, before it can win
    WON = "won"
    ENDED = "ended"


class Timer(StrEnum):
    BUFFER = "buffer"
    RING = "ring"
    TALK = "talk"
    MINUTE = "minute"
    BRIDGE = "bridge"
    COMMIT = "commit"  # the losers' grace is over
    PARTING = "parting"  # no BYE of the caller's was on its way
    # one for each leg:
    LEG_RING = "leg_ring"  # this endpoint has rung long enough
    ACCEPT = "accept"  # no key was pressed
    WHISPER = "whisper"  # the whisper is over
    HOLD = "hold"  # held for longer than a moment
    RTP = "rtp"  # nothing was heard of this party for too long


# --- events that are not a leg's -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The transfer was started (or refused before anything rang)."""

    at_us: int
    refusal: str = ""
    refusal_code: int = 0
    lag_us: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """The store has `transfer_started`; `refusal` says why nothing may ring all the same."""

    at_us: int
    refusal: str = ""
    lag_us: int = 0


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The store did not take `transfer_started`."""

    at_us: int
    lag_us: int = 0


@dataclass(frozen=True, slots=True)
class Rang:
    """A timer rang."""

    at_us: int
    timer: Timer
    lag_us: int = 0
    leg: int = 0


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The router must go down now."""

    at_us: int
    lag_us: int = 0


@dataclass(frozen=True, slots=True)
class OnLeg:
    """A leg's event, with the leg's number."""

    leg: int
    event: LegEvent

    @property
    def at_us(self) -> int:
        return self.event.at_us

    @property
    def lag_us(self) -> int:
        return self.event.lag_us


Event = Begin | Admitted | StoreFailed | Rang | Shutdown | OnLeg

# --- effects: decisions in the imperative ----------------------------------------------------------------------------
# Those that a transfer makes by the dozen are named tuples, which cost two fifths of a frozen dataclass to make.


class Emit(NamedTuple):
    """Write a fact. Its time and doubt are the event's unless `at_us` and `lag_us` say otherwise."""

    kind: Kind
    leg: int | None = None
    payload: Payload | None = None  # None: the kind says it all
    at_us: int = 0
    lag_us: int = -1  # the event's where it is below 0


@dataclass(frozen=True, slots=True)
class Admit:
    """Write `transfer_started` and say when it is durable."""


@dataclass(frozen=True, slots=True)
class Dial:
    leg: int


@dataclass(frozen=True, slots=True)
class RingCaller:
    pass


@dataclass(frozen=True, slots=True)
class AnswerCaller:
    pass


@dataclass(frozen=True, slots=True)
class RejectCaller:
    """A final answer, or BYE where the dialer has its 200 already; or the next buyer, where the campaign offers on."""

    code: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """CANCEL or BYE a leg, with a Reason (RFC 3326)."""

    leg: int
    reason: str = ""
    as_if: Emit | None = None  # the end that is most likely, for the verdict that the dialer is told


@dataclass(frozen=True, slots=True)
class Bridge:
    leg: int


@dataclass(frozen=True, slots=True)
class Whisper:
    """Play the endpoint's whisper to it; again and again where a key is waited for."""

    leg: int


@dataclass(frozen=True, slots=True)
class EndWhisper:
    leg: int


@dataclass(frozen=True, slots=True)
class Music:
    """Something for a caller who has an answer and nobody to talk to."""


@dataclass(frozen=True, slots=True)
class Record:
    """Record the bridge between the caller and this leg."""

    leg: int


@dataclass(frozen=True, slots=True)
class StopRecording:
    """The bridge is gone and another may come, with a recording of its own."""


class Arm(NamedTuple):
    timer: Timer
    at_us: int
    leg: int = 0


class Disarm(NamedTuple):
    timer: Timer
    leg: int = 0


@dataclass(frozen=True, slots=True)
class Quiet:
    """Disarm everything and stop what plays or records: the transfer is over."""


@dataclass(frozen=True, slots=True)
class Close:
    """Write the closing fact; nothing more will happen but late answers."""


Effect = (
    Emit
    | Admit
    | Dial
    | RingCaller
    | AnswerCaller
    | RejectCaller
    | HangUp
    | Bridge
    | Whisper
    | EndWhisper
    | Music
    | Record
    | StopRecording
    | Arm
    | Disarm
    | Quiet
    | Close
)


@dataclass(frozen=True, slots=True)
class LegPlan:
    """What one endpoint asks for. Durations in ms, 0: none."""

    ring_timeout_ms: int = 0
    accept_key: str = ""
    accept_timeout_ms: int = 10_000
    whisper_ms: int = 0


_PLAIN_LEG = LegPlan()


@dataclass(frozen=True, slots=True)
class Plan:
    """What was fixed before dial-out. Durations in ms."""

    legs: int
    buffer_ms: int
    ring_timeout_ms: int
    talk_connected_ms: int
    of_legs: tuple[LegPlan, ...] = ()
    commit_ms: int = 0  # losers ring on for so long after an answer; 0: they are cancelled at once
    early_answer: bool = False
    caller_answered: bool = False  # by a greeting, or by the transfer before this one
    record: bool = False
    rtp_timeout_ms: int = 0  # a party unheard for so long has vanished; 0: never
    fast_answer_ms: int = 0  # an answer within so much of dial-out is flagged; 0: never

    def of(self, leg: int) -> LegPlan:
        return self.of_legs[leg - 1] if leg <= len(self.of_legs) else _PLAIN_LEG


class Hold(NamedTuple):
    """A party that has put us on hold."""

    leg: int
    since_us: int
    told: bool = False  # a fact says so: it has lasted


class State(NamedTuple):
    """Where one transfer stands. Times in microseconds, 0: not yet."""

    plan: Plan
    phase: Phase = Phase.ADMITTING
    legs: tuple[LegPhase, ...] = ()  # index 0 is leg 1
    winner: int = 0
    dialout_us: int = 0
    parted_us: int = 0  # when the buyer hung up, while PARTING
    parted_lag_us: int = 0
    talk_us: int = 0  # when talk began: the winner's 2xx, or its bridge where it was screened
    minutes: int = 0
    caller_ringing: bool = False
    caller_answered: bool = False
    caller_gone: bool = False
    best_code: int = 0
    any_sent_final: bool = False
    timed_out: bool = False  # a leg was cancelled because it had rung long enough
    committed: bool = True  # the losers are cancelled, or there is no winner
    bridged: bool = False
    holds: tuple[Hold, ...] = ()
    unheard: tuple[tuple[int, int], ...] = ()  # (leg, when its last RTP came)

    def leg(self, number: int) -> LegPhase:
        return self.legs[number - 1]

    def with_leg(self, number: int, phase: LegPhase) -> State:
        return self._replace(legs=(*self.legs[: number - 1], phase, *self.legs[number:]))

    def unheard_since(self, leg: int) -> int:
        """When the last RTP of a party came that has fallen silent; 0: it is heard."""
        return next((since_us for number, since_us in self.unheard if number == leg), 0)

    @property
    def live_legs(self) -> tuple[int, ...]:
        return tuple(n for n, phase in enumerate(self.legs, start=1) if phase is not LegPhase.ENDED)
