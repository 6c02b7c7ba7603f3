"""The transfer machine's part for endpoints' legs: dialled, ringing, screened, won, lost, gone.

An endpoint may have to hear a whisper or press a key before it can win (`LegPhase.SCREENING`). Who must press a key
keeps nobody else from winning; who only hears a whisper has won the race, so the others are cancelled at its 2xx. In
the commit window a winner is bridged while the losers still ring: if it leaves, they are what is left of the attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facts.fact import CALLER_LEG, RINGING_CODES, TRYING, EndCause, Kind, Party
from facts.payloads import Answered, AnsweredLate, Bridged, Fault, NotSent, Ringing, Trying
from router.sip.port import EventKind, LegBridged, LegDigit, LegEvent, LegFault, LegNotSent, LegSignal
from router.transfer.codes import CODE_NO_ANSWER, CODE_NO_MEDIA, better
from router.transfer.endings import (
    ELSEWHERE,
    GIVEN_UP,
    NO_MEDIA,
    UNSERVED,
    Step,
    after_leg,
    end,
    end_by_us,
    end_legs,
    ignore,
    leg_ended,
    over,
)
from router.transfer.model import (
    AnswerCaller,
    Arm,
    Bridge,
    Close,
    Disarm,
    Effect,
    Emit,
    EndWhisper,
    HangUp,
    LegPhase,
    Music,
    Phase,
    Quiet,
    Record,
    RingCaller,
    State,
    StopRecording,
    Timer,
    Whisper,
)

PARTING_US = 300_000  # a BYE that crosses ours is here within a round trip
BRIDGE_TIMEOUT_US = 5_000_000  # both 200s are out: audio that does not start in 5 s will not start


def _sent(state: State, number: int, event: LegEvent) -> Step:
    if state.leg(number) is not LegPhase.PLANNED:
        return state, []
    effects: list[Effect] = [Emit(Kind.DIALED, number)]
    after = state.with_leg(number, LegPhase.DIALED)
    plan = state.plan
    if not state.dialout_us:  # dial-out: every clock of the transfer starts here
        after = after._replace(dialout_us=event.at_us)
    if state.phase is Phase.OVER:
        return after, [*effects, HangUp(number, GIVEN_UP)]
    if not state.dialout_us:
        effects.append(Arm(Timer.RING, event.at_us + plan.ring_timeout_ms * 1000))
        if plan.buffer_ms:
            effects.append(Arm(Timer.BUFFER, event.at_us + plan.buffer_ms * 1000))
    if 0 < plan.of(number).ring_timeout_ms < plan.ring_timeout_ms:
        effects.append(Arm(Timer.LEG_RING, after.dialout_us + plan.of(number).ring_timeout_ms * 1000, number))
    return after, effects


def is_answer(event: LegEvent) -> bool:
    """Something that only the far end can have said, and only to an INVITE of ours."""
    return event.kind in _ANSWERS or (event.kind is EventKind.FAILED and not event.local)


_ANSWERS = frozenset({EventKind.TRYING, EventKind.RINGING, EventKind.ANSWERED, EventKind.UNSERVED})


def _not_sent(state: State, number: int, event: LegNotSent) -> Step:
    """A leg that has answered was sent, whatever comes after it: its end is its own event."""
    if state.leg(number) in (LegPhase.SCREENING, LegPhase.WON, LegPhase.ENDED):
        return state, []
    after = state.with_leg(number, LegPhase.ENDED)
    note: list[Effect] = [Emit(Kind.NOT_SENT, number, NotSent(event.why, event.ours).as_payload())]
    return after_leg(after, note)


def _trying(state: State, number: int, event: LegSignal) -> Step:
    if state.leg(number) is LegPhase.ENDED:
        return state, []
    said = Trying(event.code, event.phrase if event.code != TRYING else None)
    return state, [Emit(Kind.TRYING, number, said.as_payload())]


def _ringing(state: State, number: int, event: LegSignal) -> Step:
    if event.code not in RINGING_CODES:
        return _trying(state, number, event)
    if state.leg(number) is not LegPhase.DIALED:
        return state, []
    after = state.with_leg(number, LegPhase.RINGING)
    effects: list[Effect] = [Emit(Kind.RINGING, number, Ringing(event.code, event.phrase).as_payload())]
    if state.phase is Phase.RINGING and not state.caller_ringing and not state.caller_answered:
        after = after._replace(caller_ringing=True)
        effects.append(RingCaller())
    return after, effects


# --- answers ---------------------------------------------------------------------------------------------------------


def _answered(state: State, number: int, event: LegSignal) -> Step:
    if state.winner == number or state.leg(number) is LegPhase.SCREENING:
        return state, []
    if state.phase is not Phase.RINGING or state.leg(number) is LegPhase.ENDED:
        # Too late: ACKed by the engine and BYEd, by the hang-up that is already out or by this one.
        late: list[Effect] = [Emit(Kind.ANSWERED_LATE, number, AnsweredLate(event.code, event.phrase).as_payload())]
        if state.leg(number) is LegPhase.ENDED:
            return state, [*late, HangUp(number, ELSEWHERE)]
        ended, hang_up = end_legs(state, [number], ELSEWHERE)
        return ended, late + hang_up
    # People take longer: a machine, a forward, a voicemail (lessons 14)
    fast = 0 <= event.at_us - state.dialout_us <= state.plan.fast_answer_ms * 1000 and state.plan.fast_answer_ms > 0
    wants = state.plan.of(number)
    if wants.accept_key:
        return state.with_leg(number, LegPhase.SCREENING), [
            Emit(Kind.ANSWERED, number, Answered(event.code, event.phrase, fast, must_accept=True).as_payload()),
            Disarm(Timer.LEG_RING, number),
            Whisper(number),
            Arm(Timer.ACCEPT, event.at_us + wants.accept_timeout_ms * 1000, number),
        ]
    if wants.whisper_ms:
        answer = Answered(event.code, event.phrase, fast, must_accept=True, whisper=True)
        losers = [n for n in state.live_legs if n != number]
        screened, hang_ups = end_legs(state.with_leg(number, LegPhase.SCREENING), losers, ELSEWHERE)
        return screened, [
            Emit(Kind.ANSWERED, number, answer.as_payload()),
            Disarm(Timer.RING),
            Disarm(Timer.LEG_RING, number),
            Whisper(number),
            Arm(Timer.WHISPER, event.at_us + wants.whisper_ms * 1000, number),
            *hang_ups,
        ]
    note: list[Effect] = [Emit(Kind.ANSWERED, number, Answered(event.code, event.phrase, fast).as_payload())]
    return win(state._replace(talk_us=event.at_us), number, event.at_us, note)


def _unserved(state: State, number: int, event: LegSignal) -> Step:
    """A 2xx whose media cannot be used ends its leg before it wins (domain, section 3): we could not agree.

    It says nothing of what the buyer did. The others ring on, and one of them may still have the call.
    """
    if state.phase is not Phase.RINGING or state.leg(number) is LegPhase.ENDED:
        return _answered(state, number, event)
    said = event._replace(code=CODE_NO_MEDIA, phrase=NO_MEDIA, local=True)
    fault = Fault("media", event.code, NO_MEDIA).as_payload()
    note: list[Effect] = [Emit(Kind.FAULT, number, fault), leg_ended(number, said), HangUp(number, UNSERVED)]
    return after_leg(state.with_leg(number, LegPhase.ENDED), [*note, *_timers_of(number)])


def win(state: State, number: int, at_us: int, note: list[Effect]) -> Step:
    """This leg is the one; `state.talk_us` says since when talk counts, 0: from the bridge."""
    losers = [n for n in state.live_legs if n != number]
    won = state.with_leg(number, LegPhase.WON)._replace(
        phase=Phase.TALKING,
        winner=number,
        caller_answered=True,
        committed=not losers,
    )
    effects: list[Effect] = list(note)
    if not state.caller_answered:
        effects.append(AnswerCaller())
    effects += [
        Bridge(number),
        Disarm(Timer.RING),
        Disarm(Timer.LEG_RING, number),
        Arm(Timer.BRIDGE, at_us + BRIDGE_TIMEOUT_US),
    ]
    if won.talk_us:
        effects.append(Arm(Timer.TALK, won.talk_us + state.plan.talk_connected_ms * 1000))
    if losers and state.plan.commit_ms:
        return won, [*effects, Arm(Timer.COMMIT, at_us + state.plan.commit_ms * 1000)]
    ended, hang_ups = commit(won)
    return ended, effects + hang_ups


def commit(state: State) -> Step:
    """Cancel the losers: from here on the winner's leaving is the end."""
    losers = [n for n in state.live_legs if n != state.winner]
    return end_legs(state._replace(committed=True), losers, ELSEWHERE)


def _forked(state: State, number: int, event: LegSignal) -> Step:
    late = AnsweredLate(event.code, event.phrase, forked=True)
    return state, [Emit(Kind.ANSWERED_LATE, number, late.as_payload())]


def _digit(state: State, number: int, event: LegDigit) -> Step:
    wants = state.plan.of(number)
    waited_for = state.phase is Phase.RINGING and state.leg(number) is LegPhase.SCREENING and wants.accept_key
    if not waited_for or event.digit != wants.accept_key:
        return state, []
    note: list[Effect] = [Emit(Kind.ACCEPTED, number), Disarm(Timer.ACCEPT, number), EndWhisper(number)]
    return win(state, number, event.at_us, note)


def _bridged(state: State, number: int, event: LegBridged) -> Step:
    if state.phase is not Phase.TALKING or state.bridged or number != state.winner:
        return state, []
    told = Emit(Kind.BRIDGED, number, Bridged(event.codecs or None).as_payload())
    effects: list[Effect] = [told, Disarm(Timer.BRIDGE)]
    after = state._replace(bridged=True)
    if not state.talk_us:
        after = after._replace(talk_us=event.at_us)
        effects.append(Arm(Timer.TALK, event.at_us + state.plan.talk_connected_ms * 1000))
    if state.plan.record:
        effects.append(Record(number))
    return after, effects


# --- ends ------------------------------------------------------------------------------------------------------------


def _failed(state: State, number: int, event: LegSignal) -> Step:
    if state.leg(number) is LegPhase.ENDED:
        return state, []
    if state.winner == number:
        return _winner_left(state, number, event, EndCause.VANISHED)
    after = state.with_leg(number, LegPhase.ENDED)
    if not event.local:
        after = after._replace(best_code=better(state.best_code, event.code), any_sent_final=True)
    return after_leg(after, [leg_ended(number, event), *_timers_of(number)])


def _timers_of(number: int) -> list[Effect]:
    return [Disarm(Timer.LEG_RING, number)]


def _left(state: State, number: int, event: LegSignal) -> Step:
    """BYE from an endpoint."""
    if state.leg(number) is LegPhase.ENDED:
        return state, []
    if state.winner == number:
        return _winner_left(state, number, event, EndCause.BYE)
    if state.leg(number) is LegPhase.SCREENING:
        return not_accepted(state, number, [leg_ended(number, event, Party.BUYER)])
    after = state.with_leg(number, LegPhase.ENDED)
    return after_leg(after, [leg_ended(number, event, Party.BUYER)])


def not_accepted(state: State, number: int, note: list[Effect]) -> Step:
    """Answered, and no more than that: counts as declined (domain, section 3, row 10)."""
    after = state.with_leg(number, LegPhase.ENDED)
    after = after._replace(best_code=better(state.best_code, CODE_NO_ANSWER), any_sent_final=True)
    stop: list[Effect] = [Disarm(Timer.ACCEPT, number), Disarm(Timer.WHISPER, number), EndWhisper(number)]
    return after_leg(after, [*note, *stop])


def _gone(state: State, number: int, event: LegSignal) -> Step:
    if state.leg(number) is LegPhase.ENDED:
        return state, []
    if state.winner == number:
        if not state.bridged and state.committed:  # dropped by our side of the session: what it offered was no use
            return end_by_us(state, EndCause.MEDIA, [Emit(Kind.FAULT, number, Fault("media").as_payload())])
        return _winner_left(state, number, event, EndCause.VANISHED)
    note: list[Effect] = [leg_ended(number, event)]
    if state.leg(number) is LegPhase.SCREENING:
        # Dropped on our side: it says nothing of the endpoint (domain, section 2), and is why the leg is over.
        stop: list[Effect] = [Disarm(Timer.ACCEPT, number), Disarm(Timer.WHISPER, number), EndWhisper(number)]
        note = [Emit(Kind.FAULT, number, Fault("media").as_payload()), *note, *stop]
    return after_leg(state.with_leg(number, LegPhase.ENDED), note)


def _winner_left(state: State, number: int, event: LegSignal, cause: EndCause) -> Step:
    note = leg_ended(number, event, Party.BUYER)
    without = state.with_leg(number, LegPhase.ENDED)
    if not state.committed and without.live_legs:
        return _resume(without, number, event, note)
    at_us = state.unheard_since(number) if cause is EndCause.VANISHED else 0
    if cause is EndCause.BYE and event.at_us - event.lag_us - state.talk_us < state.plan.talk_connected_ms * 1000:
        return _part(without, event, note)
    ended, hang_ups = end_legs(over(without), list(without.live_legs), "")
    return ended, [note, end(Party.BUYER, cause, at_us), *hang_ups, Quiet(), HangUp(CALLER_LEG), Close()]


def _part(state: State, event: LegEvent, note: Effect) -> Step:
    """The buyer hung up in a short talk: who ended it decides who pays, and BYEs may cross.

    Whoever has had our BYE sends none: a BYE of the caller's that still comes was sent at once with the buyer's, and
    then the end is the caller's (domain, section 3, row 8). The instant of the end is the first BYE's either way.
    """
    ended, hang_ups = end_legs(state, list(state.live_legs), "")
    parting = ended._replace(phase=Phase.PARTING, parted_us=event.at_us, parted_lag_us=event.lag_us)
    bye = HangUp(CALLER_LEG, as_if=end(Party.BUYER, EndCause.BYE))
    return parting, [note, *hang_ups, Quiet(), bye, Arm(Timer.PARTING, event.at_us + PARTING_US)]


def _resume(state: State, number: int, event: LegEvent, note: Effect) -> Step:
    """The winner left while the others still ring: the attempt goes on, on the same clock."""
    ringing = state._replace(
        phase=Phase.RINGING,
        winner=0,
        talk_us=0,
        bridged=False,
        committed=True,
        any_sent_final=True,
        best_code=better(state.best_code, CODE_NO_ANSWER),
        holds=(),
        unheard=(),
    )
    stop: list[Effect] = [Disarm(timer) for timer in (Timer.TALK, Timer.MINUTE, Timer.BRIDGE, Timer.COMMIT)]
    stop += [Disarm(timer, leg) for timer in (Timer.HOLD, Timer.RTP) for leg in (CALLER_LEG, number)]
    stop.append(StopRecording())
    due_us = max(event.at_us, state.dialout_us + state.plan.ring_timeout_ms * 1000)
    return ringing, [note, Emit(Kind.RESUMED, number), *stop, Music(), Arm(Timer.RING, due_us)]


def _fault(state: State, number: int, event: LegFault) -> Step:
    """The engine lost its grip on a leg: a fault of ours, and the end of the transfer where the leg mattered."""
    note = Emit(Kind.FAULT, number, Fault("engine", detail=event.what).as_payload())
    if state.phase is Phase.OVER or state.leg(number) is LegPhase.ENDED:
        return state, [note]
    if state.winner == number or state.phase is Phase.RINGING:
        return end_by_us(state, EndCause.ENGINE, [note])
    return state, [note]


# Each handler takes the one type of event that its kind has.
LEG_TABLE: dict[EventKind, Callable[[State, int, Any], Step]] = {
    EventKind.SENT: _sent,
    EventKind.NOT_SENT: _not_sent,
    EventKind.TRYING: _trying,
    EventKind.RINGING: _ringing,
    EventKind.ANSWERED: _answered,
    EventKind.UNSERVED: _unserved,
    EventKind.FORKED: _forked,
    EventKind.DIGIT: _digit,
    EventKind.FAILED: _failed,
    EventKind.BYE: _left,
    EventKind.GONE: _gone,
    EventKind.BRIDGED: _bridged,
    EventKind.FAULT: _fault,
    EventKind.CANCELLED: ignore,  # only the dialer cancels
    EventKind.MOVED: ignore,  # only the dialer moves
}
