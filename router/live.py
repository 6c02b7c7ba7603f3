"""A live view of a router: every call with its state, its age and its next deadline.

Pure: it reads the router and changes nothing. Ages and waits are in ms of the router's own clock, rounded down. A
caller's number goes through `mask` before it is in any value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from facts.fact import CALLER_LEG, Fact, Kind
from router.arrival import Arrival
from router.router import Router
from router.transfer.shell import TransferShell

CALLER = "caller"  # the dialer's leg, among endpoints
_LEG_MOVES = frozenset(  # facts by which a leg changes its phase
    {Kind.DIALED, Kind.NOT_SENT, Kind.RINGING, Kind.ANSWERED, Kind.ACCEPTED, Kind.LEG_ENDED}
)
Mask = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class LegView:
    """One leg. `phase_ms`: how long it has been in its phase; None where it has not begun."""

    leg: int
    endpoint: str
    phase: str
    phase_ms: int | None


@dataclass(frozen=True, slots=True)
class Deadline:
    """The timer that rings next. `leg` 0: it is the transfer's own. `in_ms` below 0: it is late."""

    timer: str
    leg: int
    in_ms: int


@dataclass(frozen=True, slots=True)
class TransferView:
    """One live transfer. `dialout_ms`: since dial-out, None before it."""

    transfer: str
    call_id: str
    dialer: str
    campaign: str
    buyer: str
    caller: str
    phase: str
    age_ms: int
    dialout_ms: int | None
    legs: tuple[LegView, ...]
    next: Deadline | None


@dataclass(frozen=True, slots=True)
class ArrivalView:
    """A call that is not a transfer yet. `stage`: `lead` (it is looked up) or `greeting` (it is played)."""

    campaign: str
    caller: str
    stage: str
    age_ms: int


@dataclass(frozen=True, slots=True)
class TrunkView:
    """A trunk that is probed. `took_ms`: its last good answer; None before the first. `streak` below 0: bad ones."""

    name: str
    health: str
    streak: int
    took_ms: float | None


@dataclass(frozen=True, slots=True)
class RouterView:
    """The router as a whole. Slots are those of the SIP engine."""

    draining: bool
    transfers: int
    arrivals: int
    slots_used: int
    slots_max: int
    trunks: tuple[TrunkView, ...]


def router_view(router: Router) -> RouterView:
    """Counts, slots and trunks."""
    slots = router.engine.slots
    trunks = tuple(
        TrunkView(one.name, one.health.value, one.streak, one.took_us / 1000 if one.took_us else None)
        for one in sorted(router.prober.trunks.all, key=lambda one: one.name)
    )
    arrivals = len(arrivals_of(router))
    return RouterView(
        draining=router.draining,
        transfers=len(router.live),
        arrivals=arrivals,
        slots_used=slots.used,
        slots_max=slots.ceiling,
        trunks=trunks,
    )


def arrivals_of(router: Router) -> list[Arrival]:
    """Calls that are not transfers yet, oldest first."""
    return list(router._arrivals.values())  # noqa: SLF001 - a look from the same package


def is_empty(router: Router) -> bool:
    """Nothing is up: neither a transfer nor a call on its way to becoming one."""
    return not router.live and not arrivals_of(router)


def arrival_view(arrival: Arrival, now_us: int, mask: Mask) -> ArrivalView:
    invite = arrival.invite
    return ArrivalView(invite.user[:64], mask(invite.caller), arrival.stage.value, _ms(now_us - invite.at_us))


def transfer_view(shell: TransferShell, now_us: int, mask: Mask) -> TransferView:
    """One transfer at `now_us`, the monotonic time in microseconds."""
    start, state = shell.start, shell.state
    moved_us = _last_moves(shell.facts)
    legs = [LegView(CALLER_LEG, CALLER, _caller_phase(shell), _ms(now_us - start.invite.at_us))]
    for number, (endpoint, phase) in enumerate(zip(start.endpoints, state.legs, strict=False), start=1):
        since_us = moved_us.get(number)
        legs.append(LegView(number, endpoint.name, phase.value, None if since_us is None else _ms(now_us - since_us)))
    return TransferView(
        transfer=shell.transfer,
        call_id=start.call_id,
        dialer=start.dialer,
        campaign=start.invite.user[:64],
        buyer=start.buyer,
        caller=mask(start.phone or start.invite.caller),
        phase=state.phase.value,
        age_ms=_ms(now_us - start.invite.at_us),
        dialout_ms=_ms(now_us - state.dialout_us) if state.dialout_us else None,
        legs=tuple(legs),
        next=_next(shell, now_us),
    )


def _next(shell: TransferShell, now_us: int) -> Deadline | None:
    if not shell.deadlines:
        return None
    (timer, leg), due_us = min(shell.deadlines.items(), key=lambda one: one[1])
    return Deadline(timer.value, leg, (due_us - now_us) // 1000)


def _last_moves(facts: list[Fact]) -> dict[int, int]:
    """Leg -> when it came into its phase, in microseconds of the monotonic clock."""
    return {fact.leg: fact.mono_us for fact in facts if fact.leg is not None and fact.kind in _LEG_MOVES}


def _caller_phase(shell: TransferShell) -> str:
    state = shell.state
    if state.caller_gone:
        return "gone"
    if state.caller_answered:
        return "answered"
    return "ringing" if state.caller_ringing else "waiting"


def _ms(us: int) -> int:
    return max(0, us) // 1000
