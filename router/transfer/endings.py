"""What several parts of the transfer machine share: how legs, attempts and transfers end. Pure, like all of it."""

from __future__ import annotations

from facts.fact import CALLER_LEG, EndCause, Kind, Party
from facts.payloads import Ended, LegEnded
from router.sip.port import LegEvent, LegSignal
from router.transfer.codes import CODE_FAULT, CODE_NO_ANSWER, CODE_UNREACHABLE, passable
from router.transfer.model import Close, Effect, Emit, HangUp, LegPhase, Phase, Quiet, RejectCaller, State

ELSEWHERE = 'SIP;cause=200;text="Call completed elsewhere"'  # RFC 3326 section 3.1, for losers
TIMED_OUT = 'SIP;cause=408;text="Ring timeout"'
NOT_ACCEPTED = 'SIP;cause=408;text="Not accepted"'
NO_MEDIA = "answered without media that we can use"
UNSERVED = 'SIP;cause=488;text="Not Acceptable Here"'  # to who answered so
GIVEN_UP = 'SIP;cause=487;text="Caller gave up"'

Step = tuple[State, list[Effect]]


def ignore(state: State, _number: int, _event: LegEvent) -> Step:
    return state, []


def over(state: State) -> State:
    return state._replace(phase=Phase.OVER)


def end(by: Party, cause: EndCause, at_us: int = 0) -> Emit:
    return Emit(Kind.ENDED, payload=Ended(by, cause).as_payload(), at_us=at_us)


def parted(state: State, by: Party) -> Step:
    """The end of a short talk in which the buyer hung up, once it is known whether the caller did too."""
    ended = end(by, EndCause.BYE, state.parted_us)
    return over(state), [Emit(ended.kind, None, ended.payload, state.parted_us, state.parted_lag_us), Quiet(), Close()]


def leg_ended(number: int, event: LegSignal, by: Party | None = None) -> Emit:
    ended_by = by or (Party.ROUTER if event.local else Party.BUYER)
    over = LegEnded(event.code, event.phrase, ended_by, event.local, event.header or None)
    return Emit(Kind.LEG_ENDED, number, over.as_payload())


def end_legs(state: State, numbers: list[int], reason: str) -> Step:
    """Cancel legs, or BYE them where they were answered. Who did it is on the record: we, locally."""
    effects: list[Effect] = []
    legs = list(state.legs)
    for number in numbers:
        effects.append(HangUp(number, reason))
        if legs[number - 1] is not LegPhase.PLANNED:
            over = LegEnded(0, "", Party.ROUTER, True, reason)
            effects.append(Emit(Kind.LEG_ENDED, number, over.as_payload()))
        legs[number - 1] = LegPhase.ENDED
    return state._replace(legs=tuple(legs)), effects


def after_leg(state: State, effects: list[Effect]) -> Step:
    """The attempt fails with its last leg."""
    if state.phase is not Phase.RINGING or state.live_legs:
        return state, effects
    if not state.dialout_us:
        by, cause, code = Party.ROUTER, EndCause.TRANSPORT, CODE_FAULT
    elif state.any_sent_final:
        by, cause, code = Party.BUYER, EndCause.LEGS_FAILED, passable(state.best_code)
    elif state.timed_out:
        by, cause, code = Party.ROUTER, EndCause.RING_TIMEOUT, CODE_NO_ANSWER
    else:
        by, cause, code = Party.ROUTER, EndCause.LEGS_FAILED, CODE_UNREACHABLE
    return over(state), [*effects, end(by, cause), Quiet(), RejectCaller(code), Close()]


def end_by_us(state: State, cause: EndCause, note: list[Effect]) -> Step:
    ended, hang_ups = end_legs(over(state), list(state.live_legs), "")
    caller: list[Effect] = []
    if not state.caller_gone:
        caller = [HangUp(CALLER_LEG)] if state.caller_answered else [RejectCaller(CODE_FAULT)]
    return ended, [*note, end(Party.ROUTER, cause), *hang_ups, Quiet(), *caller, Close()]
