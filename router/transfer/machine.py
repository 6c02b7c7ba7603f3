"""One transfer as a pure state machine: `step(state, event) -> (state, effects)`.

It sees what happened to the legs (0: the dialer's; 1 to N: one per endpoint), what the store said and which timer
rang; it answers with what to do and which facts to write. It opens no socket and reads no clock: time and lag travel
in events.

    ADMITTING  the facts of the start are on their way to the disk; nothing rings
    RINGING    every endpoint's INVITE is out; nobody has answered
    TALKING    one leg won; the others are cancelled, or still ring for the commit window
    PARTING    the buyer hung up in a short talk; the caller's BYE may be crossing ours
    OVER       the end is known; late events are noted, nothing else happens

Ring-all: the first 2xx wins by being the first to find RINGING; every later one is noted as `answered_late` and hung
up. One leg's refusal ends that leg alone; the attempt fails with its last leg. The buffer and the ring time-out run
from dial-out, the first INVITE that was handed to the transport, whatever provisional answers come. Events that a
phase does not know are ignored on purpose: a lost race is not an error.

Here are the start, the dialer's leg, the timers and our own end; `legs.py` has the endpoints' legs, `talk.py` what goes
on between two parties, `endings.py` what they share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facts.fact import CALLER_LEG, EndCause, Kind, Party
from facts.payloads import CallerMoved, Fault, Refused
from router.sip.port import EventKind, LegEvent, LegSignal
from router.transfer.codes import CLIENT_ERROR, CODE_FAULT, CODE_NO_ANSWER
from router.transfer.endings import (
    GIVEN_UP,
    NOT_ACCEPTED,
    TIMED_OUT,
    Step,
    after_leg,
    end,
    end_by_us,
    end_legs,
    leg_ended,
    over,
    parted,
)
from router.transfer.legs import LEG_TABLE, is_answer, not_accepted, win
from router.transfer.model import (
    Admit,
    Admitted,
    AnswerCaller,
    Arm,
    Begin,
    Close,
    Dial,
    Effect,
    Emit,
    EndWhisper,
    Event,
    LegPhase,
    Music,
    OnLeg,
    Phase,
    Plan,
    Quiet,
    Rang,
    RejectCaller,
    Shutdown,
    State,
    StoreFailed,
    Timer,
)
from router.transfer.talk import buffer, commit_over, heard, hold_lasts, minute, party, talk, vanished


def start(plan: Plan) -> State:
    """A transfer that has only just arrived."""
    return State(plan=plan, legs=(LegPhase.PLANNED,) * plan.legs, caller_answered=plan.caller_answered)


def step(state: State, event: Event) -> Step:
    """The whole machine. Pure; raises nothing for any order of events."""
    if not isinstance(event, OnLeg):
        return _OTHER_TABLE[type(event)](state, event)
    if event.leg != CALLER_LEG and not 1 <= event.leg <= len(state.legs):
        return state, []
    handler = LEG_TABLE.get(event.event.kind)
    if handler is not None and event.leg != CALLER_LEG:
        if state.leg(event.leg) is LegPhase.PLANNED and is_answer(event.event):
            return _late_sent(state, event, handler)
        return handler(state, event.leg, event.event)
    return party(state, event.leg, event.event) or _caller(state, event.event)


def _late_sent(state: State, event: OnLeg, handler: Callable[[State, int, Any], Step]) -> Step:
    """An answer to an INVITE that nobody said was sent: it was."""
    sent, first = LEG_TABLE[EventKind.SENT](state, event.leg, event.event)
    after, then = handler(sent, event.leg, event.event)
    return after, [*first, *then]


# --- start -----------------------------------------------------------------------------------------------------------


def _begin(state: State, event: Begin) -> Step:
    if event.refusal:
        return over(state), [*_refuse(event.refusal), RejectCaller(event.refusal_code), Close()]
    return state, [Admit()]


def _refuse(reason: str) -> list[Effect]:
    return [Emit(Kind.REFUSED, payload=Refused(reason).as_payload())]


def _admitted(state: State, event: Admitted) -> Step:
    if state.phase is not Phase.ADMITTING:
        return state, []
    if state.caller_gone:  # CANCEL came while the disk was busy: never dial
        return over(state), [Quiet(), Close()]
    if event.refusal:
        return over(state), [*_refuse(event.refusal), Quiet(), RejectCaller(CODE_NO_ANSWER), Close()]
    ringing = state._replace(phase=Phase.RINGING)
    dials: list[Effect] = [Dial(n) for n in range(1, state.plan.legs + 1)]
    if state.caller_answered:
        return ringing, [*dials, Music()]
    if state.plan.early_answer:
        return ringing._replace(caller_answered=True), [AnswerCaller(), *dials, Music()]
    return ringing, dials


def _store_failed(state: State, _event: StoreFailed) -> Step:
    if state.phase is not Phase.ADMITTING:
        return state, []
    fault = Emit(Kind.FAULT, payload=Fault("store").as_payload())
    if state.caller_gone:  # its end is on the record already
        return over(state), [fault, Quiet(), Close()]
    return over(state), [fault, *_refuse("fault"), Quiet(), RejectCaller(CODE_FAULT), Close()]


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
    if state.phase is Phase.PARTING:
        return parted(state, Party.CALLER) if event.kind is EventKind.BYE else (state, [])
    if event.kind is EventKind.FAULT:
        return end_by_us(state, EndCause.ENGINE, [Emit(Kind.FAULT, CALLER_LEG, Fault(event.what).as_payload())])
    if event.kind is EventKind.MOVED:
        there, disarmed = heard(state, CALLER_LEG)
        return there, [Emit(Kind.CALLER_MOVED, CALLER_LEG, CallerMoved(event.how).as_payload()), *disarmed]
    cause = _CALLER_LEAVES.get(event.kind)
    return _caller_left(state, event, cause) if cause is not None and isinstance(event, LegSignal) else (state, [])


def _caller_left(state: State, event: LegSignal, cause: EndCause) -> Step:
    if event.kind is EventKind.FAILED and event.local and event.code >= CLIENT_ERROR and state.phase is Phase.ADMITTING:
        return _turned_away(state, event)
    at_us = state.unheard_since(CALLER_LEG) if cause is EndCause.VANISHED else 0
    note: list[Effect] = [leg_ended(CALLER_LEG, event, Party.CALLER), end(Party.CALLER, cause, at_us)]
    gone = state._replace(caller_gone=True)
    if state.phase is Phase.ADMITTING:  # the commit under way decides when to close; nothing will be dialled
        return gone, note
    live = list(state.live_legs)
    ended, hang_ups = end_legs(over(gone), live, GIVEN_UP)
    return ended, [*note, *hang_ups, Quiet(), Close()]


def _turned_away(state: State, event: LegSignal) -> Step:
    """The SIP stack refused the INVITE itself (422, 420): ours, not the caller's leaving; nothing will be dialled."""
    note: list[Effect] = [leg_ended(CALLER_LEG, event, Party.ROUTER), *_refuse("rejected")]
    return state._replace(caller_gone=True), note


# --- timers ----------------------------------------------------------------------------------------------------------


def _ring_timeout(state: State, event: Rang) -> Step:
    if state.phase is not Phase.RINGING:
        return state, []
    due_us = state.dialout_us + state.plan.ring_timeout_ms * 1000
    if event.at_us < due_us:
        return state, [Arm(Timer.RING, due_us)]
    screening = [n for n in state.live_legs if state.leg(n) is LegPhase.SCREENING]
    ringing = [n for n in state.live_legs if n not in screening]
    if screening:  # somebody has answered and is listening; its own timer sees to its end
        return end_legs(state._replace(timed_out=True), ringing, TIMED_OUT)
    ended, hang_ups = end_legs(over(state), ringing, TIMED_OUT)
    cause = end(Party.ROUTER, EndCause.RING_TIMEOUT)
    return ended, [cause, *hang_ups, Quiet(), RejectCaller(CODE_NO_ANSWER), Close()]


def _leg_ring_timeout(state: State, event: Rang) -> Step:
    if state.phase is Phase.OVER or state.leg(event.leg) not in (LegPhase.DIALED, LegPhase.RINGING):
        return state, []
    ended, hang_ups = end_legs(state._replace(timed_out=True), [event.leg], TIMED_OUT)
    return after_leg(ended, hang_ups)


def _accept_timeout(state: State, event: Rang) -> Step:
    if state.phase is Phase.OVER or state.leg(event.leg) is not LegPhase.SCREENING:
        return state, []
    ended, hang_ups = end_legs(state, [event.leg], NOT_ACCEPTED)
    return not_accepted(ended, event.leg, hang_ups)


def _whispered(state: State, event: Rang) -> Step:
    if state.phase is not Phase.RINGING or state.leg(event.leg) is not LegPhase.SCREENING:
        return state, []
    return win(state, event.leg, event.at_us, [EndWhisper(event.leg)])


def _parting_over(state: State, _event: Rang) -> Step:
    return parted(state, Party.BUYER) if state.phase is Phase.PARTING else (state, [])


def _bridge_timeout(state: State, _event: Rang) -> Step:
    if state.phase is not Phase.TALKING or state.bridged:
        return state, []
    return end_by_us(state, EndCause.MEDIA, [Emit(Kind.FAULT, state.winner, Fault("media").as_payload())])


_TIMER_TABLE: dict[Timer, Callable[[State, Rang], Step]] = {
    Timer.RING: _ring_timeout,
    Timer.LEG_RING: _leg_ring_timeout,
    Timer.ACCEPT: _accept_timeout,
    Timer.WHISPER: _whispered,
    Timer.BUFFER: buffer,
    Timer.TALK: talk,
    Timer.MINUTE: minute,
    Timer.BRIDGE: _bridge_timeout,
    Timer.COMMIT: commit_over,
    Timer.PARTING: _parting_over,
    Timer.HOLD: hold_lasts,
    Timer.RTP: vanished,
}


_OF_ENDPOINTS = frozenset({Timer.LEG_RING, Timer.ACCEPT, Timer.WHISPER})


def _rang(state: State, event: Rang) -> Step:
    if event.timer in _OF_ENDPOINTS and not 1 <= event.leg <= len(state.legs):
        return state, []  # of no endpoint of ours: nothing was armed
    return _TIMER_TABLE[event.timer](state, event)


# --- our own end -----------------------------------------------------------------------------------------------------


def _shutdown(state: State, _event: Shutdown) -> Step:
    if state.phase is Phase.OVER:
        return state, []
    if state.phase is Phase.PARTING:
        return parted(state, Party.BUYER)
    if state.caller_gone:  # its end is on the record; the commit under way has nothing left to decide
        return over(state), [Quiet(), Close()]
    return end_by_us(state, EndCause.SHUTDOWN, [])


_OTHER_TABLE: dict[type, Callable[[State, Any], Step]] = {
    Begin: _begin,
    Admitted: _admitted,
    StoreFailed: _store_failed,
    Rang: _rang,
    Shutdown: _shutdown,
}
