"""The transfer machine's part for what goes on between two parties: hold, silence, and the facts that talk earns.

A party whose RTP stops may have vanished. While it is unheard no fact is written that talk has reached a bound: it may
have ended before. Heard again, the fact follows; unheard for `rtp_timeout_ms`, the transfer ended at its last packet.
"""

from __future__ import annotations

from facts.fact import CALLER_LEG, HOLD_MS, EndCause, Kind, Party
from facts.payloads import LegEnded, Retrieved, TalkMinute
from router.sip.port import EventKind, LegEvent
from router.transfer.endings import Step, end, end_legs, over
from router.transfer.legs import commit
from router.transfer.model import (
    Arm,
    Close,
    Disarm,
    Effect,
    Emit,
    HangUp,
    Hold,
    LegPhase,
    Phase,
    Quiet,
    Rang,
    State,
    Timer,
)

MINUTE_US = 60_000_000
HOLD_US = HOLD_MS * 1000
UNHEARD_AGAIN_US = 250_000  # how soon to look again whether a silent party is heard


def party(state: State, number: int, event: LegEvent) -> Step | None:
    """Events of either party's audio; None: not one of these."""
    if event.kind not in _TABLE:
        return None
    if event.kind in _SIGNS_OF_LIFE and state.unheard_since(number):  # whatever goes on, it is there
        alive, disarmed = heard(state, number)
        after, effects = party(alive, number, event) or (alive, [])
        return after, [*disarmed, *effects]
    if state.phase is not Phase.TALKING or number not in (CALLER_LEG, state.winner):
        return state, []
    return _TABLE[event.kind](state, number, event)


def _held(state: State, number: int, event: LegEvent) -> Step:
    if any(hold.leg == number for hold in state.holds):
        return state, []
    after = state._replace(holds=(*state.holds, Hold(number, event.at_us)))
    return after, [Arm(Timer.HOLD, event.at_us + HOLD_US, number)]


def _retrieved(state: State, number: int, event: LegEvent) -> Step:
    found = next((hold for hold in state.holds if hold.leg == number), None)
    if found is None:
        return state, []
    after = state._replace(holds=tuple(hold for hold in state.holds if hold.leg != number))
    effects: list[Effect] = [Disarm(Timer.HOLD, number)]
    if found.told:
        effects.append(Emit(Kind.RETRIEVED, number, Retrieved((event.at_us - found.since_us) // 1000).as_payload()))
    return after, effects


def hold_lasts(state: State, event: Rang) -> Step:
    holds = tuple(hold._replace(told=True) if hold.leg == event.leg else hold for hold in state.holds)
    told = [Emit(Kind.HELD, hold.leg) for hold in state.holds if hold.leg == event.leg and not hold.told]
    return state._replace(holds=holds), list(told)


def _rtp_started(state: State, number: int, _event: LegEvent) -> Step:
    if state.committed or number != state.winner:
        return state, []
    after, hang_ups = commit(state)
    return after, [Disarm(Timer.COMMIT), *hang_ups]


def commit_over(state: State, _event: Rang) -> Step:
    if state.phase is not Phase.TALKING or state.committed:
        return state, []
    return commit(state)


def _unheard(state: State, number: int, event: LegEvent) -> Step:
    if not state.plan.rtp_timeout_ms or state.unheard_since(number):
        return state, []
    after = state._replace(unheard=(*state.unheard, (number, event.at_us)))
    return after, [Arm(Timer.RTP, event.at_us + state.plan.rtp_timeout_ms * 1000, number)]


def heard(state: State, number: int) -> Step:
    """A sign of life: a packet, or a dialog that has only just been made."""
    after = state._replace(unheard=tuple(one for one in state.unheard if one[0] != number))
    return after, [Disarm(Timer.RTP, number)]


def _nothing(state: State, _number: int, _event: LegEvent) -> Step:
    return state, []


def vanished(state: State, event: Rang) -> Step:
    """A party was gone without a word: the end is its last packet (domain, section 1)."""
    since_us = state.unheard_since(event.leg)
    if state.phase is not Phase.TALKING or not since_us:
        return state, []
    who = Party.CALLER if event.leg == CALLER_LEG else Party.BUYER
    gone_leg = LegEnded(0, "", who, local=True, header="").as_payload()
    note: list[Effect] = [Emit(Kind.LEG_ENDED, event.leg, gone_leg, since_us), end(who, EndCause.VANISHED, since_us)]
    gone = over(state)
    if event.leg != CALLER_LEG:
        gone = gone.with_leg(event.leg, LegPhase.ENDED)
    ended, hang_ups = end_legs(gone, list(gone.live_legs), "")
    silent: list[Effect] = [HangUp(event.leg)] if event.leg != CALLER_LEG else []
    return ended, [*note, *hang_ups, *silent, Quiet(), HangUp(CALLER_LEG), Close()]


# --- facts about bounds ----------------------------------------------------------------------------------------------


def buffer(state: State, event: Rang) -> Step:
    if state.phase not in (Phase.RINGING, Phase.TALKING):
        return state, []
    return _when_certain(state, event, state.dialout_us + state.plan.buffer_ms * 1000, Emit(Kind.BUFFER_PASSED))


def _when_certain(state: State, event: Rang, due_us: int, fact: Emit) -> Step:
    """Write a fact about a bound only once the doubt has passed it too: an end may be waiting in the socket."""
    certain_us = event.at_us - event.lag_us
    if certain_us < due_us:
        return state, [Arm(event.timer, event.at_us + max(1_000, due_us - certain_us))]
    return state, [fact]


def _while_heard(state: State, event: Rang, due_us: int, fact: Emit) -> Step:
    if state.unheard:
        return state, [Arm(event.timer, event.at_us + UNHEARD_AGAIN_US)]
    return _when_certain(state, event, due_us, fact)


def talk(state: State, event: Rang) -> Step:
    if state.phase is not Phase.TALKING or not state.talk_us:
        return state, []
    due_us = state.talk_us + state.plan.talk_connected_ms * 1000
    after, effects = _while_heard(state, event, due_us, Emit(Kind.TALK_REACHED_15S, state.winner))
    if not any(isinstance(effect, Arm) for effect in effects):
        effects.append(Arm(Timer.MINUTE, state.talk_us + MINUTE_US))
    return after, effects


def minute(state: State, event: Rang) -> Step:
    if state.phase is not Phase.TALKING:
        return state, []
    minutes = state.minutes + 1
    due_us = state.talk_us + minutes * MINUTE_US
    after, effects = _while_heard(
        state, event, due_us, Emit(Kind.TALK_MINUTE, state.winner, TalkMinute(minutes).as_payload())
    )
    if any(isinstance(effect, Arm) for effect in effects):
        return after, effects
    return after._replace(minutes=minutes), [*effects, Arm(Timer.MINUTE, due_us + MINUTE_US)]


_TABLE = {
    EventKind.HELD: _held,
    EventKind.RETRIEVED: _retrieved,
    EventKind.RTP_STARTED: _rtp_started,
    EventKind.UNHEARD: _unheard,
    EventKind.HEARD: _nothing,
}
_SIGNS_OF_LIFE = frozenset({EventKind.RTP_STARTED, EventKind.HEARD})
