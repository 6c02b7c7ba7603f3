"""The transfer machine's vocabulary: phases, events, effects, and the state between them.

Events say what happened, effects what to do, in the imperative; both are frozen values, so that a whole transfer can
be written down as a table. `router.machine` is the only one that turns one into the other, `router.shell` the only
one that performs effects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from meter.facts import Kind
from router.sip.port import LegEvent


class Phase(StrEnum):
    ADMITTING = "admitting"
    RINGING = "ringing"
    TALKING = "talking"
    OVER = "over"


class LegPhase(StrEnum):
    PLANNED = "planned"
    DIALED = "dialed"
    RINGING = "ringing"
    WON = "won"
    ENDED = "ended"


class Timer(StrEnum):
    BUFFER = "buffer"
    RING = "ring"
    TALK = "talk"
    MINUTE = "minute"
    BRIDGE = "bridge"


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


@dataclass(frozen=True, slots=True)
class Emit:
    """Write a fact. Its time is the event's unless `at_us` says otherwise."""

    kind: Kind
    leg: int | None = None
    payload: dict[str, Any] = field(default_factory=dict)


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
    code: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """CANCEL or BYE a leg, with a Reason (RFC 3326)."""

    leg: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Bridge:
    leg: int


@dataclass(frozen=True, slots=True)
class Arm:
    timer: Timer
    at_us: int


@dataclass(frozen=True, slots=True)
class Disarm:
    timer: Timer


@dataclass(frozen=True, slots=True)
class Close:
    """Write the closing fact; nothing more will happen but late answers."""


Effect = Emit | Admit | Dial | RingCaller | AnswerCaller | RejectCaller | HangUp | Bridge | Arm | Disarm | Close


@dataclass(frozen=True, slots=True)
class Plan:
    """What was fixed before dial-out. Durations in ms."""

    legs: int
    buffer_ms: int
    ring_timeout_ms: int
    talk_connected_ms: int


class State(NamedTuple):
    """Where one transfer stands. Times in microseconds, 0: not yet."""

    plan: Plan
    phase: Phase = Phase.ADMITTING
    legs: tuple[LegPhase, ...] = ()  # index 0 is leg 1
    winner: int = 0
    dialout_us: int = 0
    answered_us: int = 0
    minutes: int = 0
    caller_ringing: bool = False
    caller_answered: bool = False
    caller_gone: bool = False
    best_code: int = 0
    any_sent_final: bool = False
    bridged: bool = False

    def leg(self, number: int) -> LegPhase:
        return self.legs[number - 1]

    def with_leg(self, number: int, phase: LegPhase) -> State:
        return self._replace(legs=(*self.legs[: number - 1], phase, *self.legs[number:]))

    @property
    def live_legs(self) -> tuple[int, ...]:
        return tuple(n for n, phase in enumerate(self.legs, start=1) if phase is not LegPhase.ENDED)
