"""One transfer as a pure state machine: `step(state, event) -> (state, effects)`.

It sees what happened to the legs (0: the dialer's; 1 to N: one per endpoint), what the store said and which timer
rang; it answers with what to do and which facts to write. It opens no socket and reads no clock: time and lag travel
in events.

    ADMITTING  the facts of the start are on their way to the disk; nothing rings
    RINGING    every endpoint's INVITE is out; nobody has answered
    TALKING    one leg won; the others are cancelled
    OVER       the end is known; late events are noted, nothing else happens

Ring-all: the first 2xx wins by being the first to find RINGING; every later one is noted as `answered_late` and hung
up. One leg's refusal ends that leg alone; the attempt fails with its last leg. The buffer and the ring time-out run
from dial-out, the first INVITE that was handed to the transport, whatever provisional answers come. Events that a
phase does not know are ignored on purpose: a lost race is not an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meter.facts import CALLER_LEG, EndCause, Kind, Party
from router.codes import CODE_FAULT, CODE_NO_ANSWER, CODE_UNREACHABLE, better, passable
from router.moves import (
    Admit,
    Admitted,
    AnswerCaller,
    Arm,
    Begin,
    Bridge,
    Close,
    Dial,
    Disarm,
    Effect,
    Emit,
    Event,
    HangUp,
    LegPhase,
    OnLeg,
    Phase,
    Plan,
    Rang,
    RejectCaller,
    RingCaller,
    Shutdown,
    State,
    StoreFailed,
    Timer,
)
from router.sip.port import EventKind, LegEvent

MINUTE_US = 60_000_000
BRIDGE_TIMEOUT_US = 5_000_000  # both 200s are out: audio that does not start in 5 s will not start
ELSEWHERE = 'SIP;cause=200;text="Call completed elsewhere"'  # RFC 3326 section 3.1, for losers
TIMED_OUT = 'SIP;cause=408;text="Ring timeout"'
GIVEN_UP = 'SIP;cause=487;text="Caller gave up"'


Step = tuple[State, list[Effect]]


def start(plan: Plan) -> State:
    """A transfer that has only just arrived."""
    return State(plan=plan, legs=(LegPhase.PLANNED,) * plan.legs)


def step(state: State, event: Event) -> Step:
    """The whole machine. Pure; raises nothing for any order of events."""
    if not isinstance(event, OnLeg):
        return _OTHER_TABLE[type(event)](state, event)
    if event.leg == CALLER_LEG:
        return _caller(state, event.event)
    if not 1 <= event.leg <= len(state.legs):
        return state, []
    return _LEG_TABLE.get(event.event.kind, _ignore)(state, event.leg, event.event)


def _ignore(state: State, _number: int, _event: LegEvent) -> Step:
    return state, []


# --- start -----------------------------------------------------------------------------------------------------------


def _begin(state: State, event: Begin) -> Step:
    if event.refusal:
        over = state._replace(phase=Phase.OVER)
        return over, [*_refuse(event.refusal), RejectCaller(event.refusal_code), Close()]
    return state, [Admit()]


def _refuse(reason: str) -> list[Effect]:
    return [Emit(Kind.REFUSED, payload={"reason": reason})]


def _admitted(state: State, event: Admitted) -> Step:
    if state.phase is not Phase.ADMITTING:
        return state, []
    if state.caller_gone:  # CANCEL came while the disk was busy: never dial
        return state._replace(phase=Phase.OVER), [Close()]
    if event.refusal:
        over = state._replace(phase=Phase.OVER)
        return over, [*_refuse(event.refusal), RejectCaller(CODE_NO_ANSWER), Close()]
    return state._replace(phase=Phase.RINGING), [Dial(n) for n in range(1, state.plan.legs + 1)]


def _store_failed(state: State, _event: StoreFailed) -> Step:
    if state.phase is not Phase.ADMITTING:
        return state, []
    effects: list[Effect] = [Emit(Kind.FAULT, payload={"what": "store"}), *_refuse("fault")]
    if not state.caller_gone:
        effects.append(RejectCaller(CODE_FAULT))
    return state._replace(phase=Phase.OVER), [*effects, Close()]


# --- an endpoint's leg -----------------------------------------------------------------------------------------------


def _sent(state: State, number: int, event: LegEvent) -> Step:
    if state.leg(number) is not LegPhase.PLANNED:
        return state, []
    effects: list[Effect] = [Emit(Kind.DIALED, number)]
    after = state.with_leg(number, LegPhase.DIALED)
    if not state.dialout_us:  # dial-out: every clock of the transfer starts here
        after = after._replace(dialout_us=event.at_us)
        effects.append(Arm(Timer.RING, event.at_us + state.plan.ring_timeout_ms * 1000))
        if state.plan.buffer_ms:
            effects.append(Arm(Timer.BUFFER, event.at_us + state.plan.buffer_ms * 1000))
    if state.phase is Phase.OVER:
        effects.append(HangUp(number, GIVEN_UP))
    return after, effects


def _not_sent(state: State, number: int, event: LegEvent) -> Step:
    if state.leg(number) is LegPhase.ENDED:
        return state, []
    after = state.with_leg(number, LegPhase.ENDED)
    note: list[Effect] = [Emit(Kind.NOT_SENT, number, {"why": event.phrase})]
    return _after_leg(after, note)


def _trying(state: State, number: int, event: LegEvent) -> Step:
    if state.leg(number) is LegPhase.ENDED:
        return state, []
    return state, [Emit(Kind.TRYING, number, {"code": event.code})]


def _ringing(state: State, number: int, event: LegEvent) -> Step:
    if state.leg(number) is not LegPhase.DIALED:
        return state, []
    after = state.with_leg(number, LegPhase.RINGING)
    effects: list[Effect] = [Emit(Kind.RINGING, number, {"code": event.code, "phrase": event.phrase})]
    if state.phase is Phase.RINGING and not state.caller_ringing:
        after = after._replace(caller_ringing=True)
        effects.append(RingCaller())
    return after, effects


def _answered(state: State, number: int, event: LegEvent) -> Step:
    if state.winner == number:
        return state, []
    said = {"code": event.code, "phrase": event.phrase}
    if state.phase is not Phase.RINGING or state.leg(number) is LegPhase.ENDED:
        # Too late: ACKed by the engine and BYEd, by the hang-up that is already out or by this one.
        return state.with_leg(number, LegPhase.ENDED), [
            Emit(Kind.ANSWERED_LATE, number, said),
            HangUp(number, ELSEWHERE),
        ]
    losers = [n for n in state.live_legs if n != number]
    won = state.with_leg(number, LegPhase.WON)._replace(
        phase=Phase.TALKING,
        winner=number,
        answered_us=event.at_us,
        caller_answered=True,
    )
    effects: list[Effect] = [
        Emit(Kind.ANSWERED, number, said),
        AnswerCaller(),
        Bridge(number),
        Disarm(Timer.RING),
        Arm(Timer.BRIDGE, event.at_us + BRIDGE_TIMEOUT_US),
        Arm(Timer.TALK, event.at_us + state.plan.talk_connected_ms * 1000),
    ]
    ended, hang_ups = _end_legs(won, losers, ELSEWHERE)
    return ended, effects + hang_ups


def _end_legs(state: State, numbers: list[int], reason: str) -> Step:
    """Cancel legs, or BYE them where they were answered. Who did it is on the record: we, locally."""
    effects: list[Effect] = []
    legs = list(state.legs)
    for number in numbers:
        payload = {"code": 0, "phrase": "", "by": Party.ROUTER.value, "local": True, "header": reason}
        effects.append(HangUp(number, reason))
        if legs[number - 1] is not LegPhase.PLANNED:
            effects.append(Emit(Kind.LEG_ENDED, number, payload))
        legs[number - 1] = LegPhase.ENDED
    return state._replace(legs=tuple(legs)), effects


def _failed(state: State, number: int, event: LegEvent) -> Step:
    if state.leg(number) is LegPhase.ENDED:
        return state, []
    if state.winner == number:
        return _winner_left(state, number, event, EndCause.VANISHED)
    after = state.with_leg(number, LegPhase.ENDED)
    if not event.local:
        after = after._replace(best_code=better(state.best_code, event.code), any_sent_final=True)
    return _after_leg(after, [_leg_ended(number, event)])


def _leg_ended(number: int, event: LegEvent, by: Party | None = None) -> Emit:
    ended_by = by or (Party.ROUTER if event.local else Party.BUYER)
    payload: dict[str, Any] = {"code": event.code, "phrase": event.phrase, "by": ended_by.value, "local": event.local}
    if event.header:
        payload["header"] = event.header
    return Emit(Kind.LEG_ENDED, number, payload)


def _after_leg(state: State, effects: list[Effect]) -> Step:
    """The attempt fails with its last leg."""
    if state.phase is not Phase.RINGING or state.live_legs:
        return state, effects
    if not state.dialout_us:
        ended = _end(Party.ROUTER, EndCause.TRANSPORT)
        return _over(state), [*effects, ended, RejectCaller(CODE_FAULT), *_QUIET, Close()]
    by = Party.BUYER if state.any_sent_final else Party.ROUTER
    code = passable(state.best_code) if state.any_sent_final else CODE_UNREACHABLE
    return _over(state), [*effects, _end(by, EndCause.LEGS_FAILED), RejectCaller(code), *_QUIET, Close()]


def _end(by: Party, cause: EndCause) -> Emit:
    return Emit(Kind.ENDED, payload={"by": by.value, "cause": cause.value})


def _over(state: State) -> State:
    return state._replace(phase=Phase.OVER)


_QUIET: tuple[Effect, ...] = tuple(Disarm(timer) for timer in Timer)


def _left(state: State, number: int, event: LegEvent) -> Step:
    """BYE from an endpoint."""
    if state.leg(number) is LegPhase.ENDED:
        return state, []
    if state.winner == number:
        return _winner_left(state, number, event, EndCause.BYE)
    after = state.with_leg(number, LegPhase.ENDED)
    return _after_leg(after, [_leg_ended(number, event, Party.BUYER)])


def _gone(state: State, number: int, event: LegEvent) -> Step:
    if state.leg(number) is LegPhase.ENDED:
        return state, []
    if state.winner == number:
        if not state.bridged:  # answered, then dropped by our side of the session: what it offered could not be used
            return _end_by_us(state, EndCause.MEDIA, [Emit(Kind.FAULT, number, {"what": "media"})])
        return _winner_left(state, number, event, EndCause.VANISHED)
    return _after_leg(state.with_leg(number, LegPhase.ENDED), [_leg_ended(number, event)])


def _winner_left(state: State, number: int, event: LegEvent, cause: EndCause) -> Step:
    over = _over(state.with_leg(number, LegPhase.ENDED))
    return over, [
        _leg_ended(number, event, Party.BUYER),
        _end(Party.BUYER, cause),
        *_QUIET,
        HangUp(CALLER_LEG),
        Close(),
    ]


def _bridged(state: State, number: int, _event: LegEvent) -> Step:
    if state.phase is not Phase.TALKING or state.bridged:
        return state, []
    return state._replace(bridged=True), [Emit(Kind.BRIDGED, number), Disarm(Timer.BRIDGE)]


def _leg_fault(state: State, number: int, event: LegEvent) -> Step:
    """The engine lost its grip on a leg: a fault of ours, and the end of the transfer where the leg mattered."""
    note = Emit(Kind.FAULT, number, {"what": "engine", "detail": event.phrase})
    if state.phase is Phase.OVER or state.leg(number) is LegPhase.ENDED:
        return state, [note]
    if state.winner == number or state.phase is Phase.RINGING:
        return _end_by_us(state, EndCause.ENGINE, [note])
    return state, [note]


_LEG_TABLE: dict[EventKind, Callable[[State, int, LegEvent], Step]] = {
    EventKind.SENT: _sent,
    EventKind.NOT_SENT: _not_sent,
    EventKind.TRYING: _trying,
    EventKind.RINGING: _ringing,
    EventKind.ANSWERED: _answered,
    EventKind.FAILED: _failed,
    EventKind.BYE: _left,
    EventKind.GONE: _gone,
    EventKind.BRIDGED: _bridged,
    EventKind.FAULT: _leg_fault,
    EventKind.CANCELLED: _ignore,  # only the dialer cancels
}

# --- the dialer's leg ------------------------------------------------------------------------------------------------

_CALLER_LEAVES: dict[EventKind, EndCause] = {
    EventKind.CANCELLED: EndCause.CANCEL,
    EventKind.BYE: EndCause.BYE,
    EventKind.FAILED: EndCause.VANISHED,
    EventKind.GONE: EndCause.VANISHED,
}


def _caller(state: State, event: LegEvent) -> Step:
    if state.phase is Phase.OVER or state.caller_gone:
        return state, []
    if event.kind is EventKind.FAULT:
        return _end_by_us(state, EndCause.ENGINE, [Emit(Kind.FAULT, CALLER_LEG, {"what": event.phrase})])
    cause = _CALLER_LEAVES.get(event.kind)
    if cause is None:
        return state, []
    note: list[Effect] = [_leg_ended(CALLER_LEG, event, Party.CALLER), _end(Party.CALLER, cause)]
    gone = state._replace(caller_gone=True)
    if state.phase is Phase.ADMITTING:  # the commit under way decides when to close; nothing will be dialled
        return gone, note
    live = list(state.live_legs)
    ended, hang_ups = _end_legs(_over(gone), live, GIVEN_UP)
    return ended, [*note, *hang_ups, *_QUIET, Close()]


# --- timers ----------------------------------------------------------------------------------------------------------


def _ring_timeout(state: State, event: Rang) -> Step:
    if state.phase is not Phase.RINGING:
        return state, []
    due_us = state.dialout_us + state.plan.ring_timeout_ms * 1000
    if event.at_us < due_us:
        return state, [Arm(Timer.RING, due_us)]
    ended, hang_ups = _end_legs(_over(state), list(state.live_legs), TIMED_OUT)
    end = _end(Party.ROUTER, EndCause.RING_TIMEOUT)
    return ended, [end, *hang_ups, RejectCaller(CODE_NO_ANSWER), *_QUIET, Close()]


def _buffer(state: State, event: Rang) -> Step:
    if state.phase not in (Phase.RINGING, Phase.TALKING):
        return state, []
    return _when_certain(state, event, state.dialout_us + state.plan.buffer_ms * 1000, Emit(Kind.BUFFER_PASSED))


def _when_certain(state: State, event: Rang, due_us: int, fact: Emit) -> Step:
    """Write a fact about a bound only once the doubt has passed it too: an end may be waiting in the socket."""
    certain_us = event.at_us - event.lag_us
    if certain_us < due_us:
        return state, [Arm(event.timer, event.at_us + max(1_000, due_us - certain_us))]
    return state, [fact]


def _talk(state: State, event: Rang) -> Step:
    if state.phase is not Phase.TALKING:
        return state, []
    due_us = state.answered_us + state.plan.talk_connected_ms * 1000
    after, effects = _when_certain(state, event, due_us, Emit(Kind.TALK_REACHED_15S, state.winner))
    if not any(isinstance(effect, Arm) for effect in effects):
        effects.append(Arm(Timer.MINUTE, state.answered_us + MINUTE_US))
    return after, effects


def _minute(state: State, event: Rang) -> Step:
    if state.phase is not Phase.TALKING:
        return state, []
    minutes = state.minutes + 1
    due_us = state.answered_us + minutes * MINUTE_US
    after, effects = _when_certain(state, event, due_us, Emit(Kind.TALK_MINUTE, state.winner, {"minutes": minutes}))
    if any(isinstance(effect, Arm) for effect in effects):
        return after, effects
    return after._replace(minutes=minutes), [*effects, Arm(Timer.MINUTE, due_us + MINUTE_US)]


def _bridge_timeout(state: State, _event: Rang) -> Step:
    if state.phase is not Phase.TALKING or state.bridged:
        return state, []
    return _end_by_us(state, EndCause.MEDIA, [Emit(Kind.FAULT, state.winner, {"what": "media"})])


_TIMER_TABLE: dict[Timer, Callable[[State, Rang], Step]] = {
    Timer.RING: _ring_timeout,
    Timer.BUFFER: _buffer,
    Timer.TALK: _talk,
    Timer.MINUTE: _minute,
    Timer.BRIDGE: _bridge_timeout,
}

# --- our own end -----------------------------------------------------------------------------------------------------


def _shutdown(state: State, _event: Shutdown) -> Step:
    if state.phase is Phase.OVER:
        return state, []
    if state.caller_gone:  # its end is on the record; the commit under way has nothing left to decide
        return _over(state), [Close()]
    return _end_by_us(state, EndCause.SHUTDOWN, [])


def _end_by_us(state: State, cause: EndCause, note: list[Effect]) -> Step:
    ended, hang_ups = _end_legs(_over(state), list(state.live_legs), "")
    caller: list[Effect] = []
    if not state.caller_gone:
        caller = [HangUp(CALLER_LEG)] if state.caller_answered else [RejectCaller(CODE_FAULT)]
    return ended, [*note, _end(Party.ROUTER, cause), *hang_ups, *caller, *_QUIET, Close()]


def _rang(state: State, event: Rang) -> Step:
    return _TIMER_TABLE[event.timer](state, event)


_OTHER_TABLE: dict[type, Callable[[State, Any], Step]] = {
    Begin: _begin,
    Admitted: _admitted,
    StoreFailed: _store_failed,
    Rang: _rang,
    Shutdown: _shutdown,
}
