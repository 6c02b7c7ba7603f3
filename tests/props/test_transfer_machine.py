"""A Hypothesis state machine over the transfer machine: any plan, any event at any moment, invariants after each."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from facts.fact import CALLER_LEG, Kind
from router.sip.port import EventKind, LegNotSent, LegSignal
from router.transfer import machine
from router.transfer import model as m
from tests.leg_events import any_event

leg_plans = st.builds(
    m.LegPlan,
    ring_timeout_ms=st.sampled_from([0, 3_000, 30_000]),
    accept_key=st.sampled_from(["", "1"]),
    accept_timeout_ms=st.just(5_000),
    whisper_ms=st.sampled_from([0, 2_000]),
)
plans = st.lists(leg_plans, min_size=1, max_size=5).flatmap(
    lambda legs: st.builds(
        m.Plan,
        legs=st.just(len(legs)),
        buffer_ms=st.sampled_from([0, 15_000]),
        ring_timeout_ms=st.sampled_from([5_000, 30_000]),
        talk_connected_ms=st.just(15_000),
        of_legs=st.just(tuple(legs)),
        commit_ms=st.sampled_from([0, 300]),
        early_answer=st.booleans(),
        caller_answered=st.booleans(),
        record=st.booleans(),
        rtp_timeout_ms=st.sampled_from([0, 30_000]),
        fast_answer_ms=st.just(1_000),
    )
)
kinds = st.sampled_from(list(EventKind))


class Transfer(RuleBasedStateMachine):
    """Time moves forward; armed timers ring when they are due, as the shell has them ring."""

    @initialize(plan=plans)
    def begin(self, plan: m.Plan) -> None:
        self.now_us = 1
        self.effects: list[m.Effect] = []
        self.timers: dict[tuple[m.Timer, int], int] = {}
        self.state = machine.start(plan)
        self._feed(m.Begin(1))

    def _feed(self, event: m.Event) -> None:
        self.state, effects = machine.step(self.state, event)
        for effect in effects:
            self.effects.append(effect)
            if isinstance(effect, m.Arm):
                self.timers[effect.timer, effect.leg] = effect.at_us
            elif isinstance(effect, m.Disarm):
                self.timers.pop((effect.timer, effect.leg), None)
            elif isinstance(effect, m.Quiet):
                self.timers.clear()

    @rule(refusal=st.sampled_from(["", "", "", "on_hold"]))
    def admit(self, refusal: str) -> None:
        self._feed(m.Admitted(self.now_us, refusal))
        for leg in [effect.leg for effect in self.effects if isinstance(effect, m.Dial)]:
            self._feed(m.OnLeg(leg, LegSignal("h", EventKind.SENT, self.now_us)))

    @rule()
    def lose_the_store(self) -> None:
        self._feed(m.StoreFailed(self.now_us))

    @rule(leg=st.integers(0, 5), kind=kinds, local=st.booleans(), code=st.sampled_from([100, 180, 200, 302, 486, 603]))
    def something_happens(self, leg: int, kind: EventKind, local: bool, code: int) -> None:
        self._feed(m.OnLeg(leg, any_event(kind, self.now_us, code=code, word="1", local=local)))

    @rule(leg=st.integers(1, 5))
    def answer(self, leg: int) -> None:
        self._feed(m.OnLeg(leg, LegSignal("h", EventKind.ANSWERED, self.now_us, 0, 200, "OK")))

    @rule(milliseconds=st.sampled_from([1, 100, 301, 3_000, 15_000, 31_000]))
    def wait(self, milliseconds: int) -> None:
        until_us = self.now_us + milliseconds * 1000
        for _ in range(200):
            due = min(self.timers.items(), key=lambda one: one[1], default=None)
            if due is None or due[1] > until_us:
                break
            (timer, leg), at_us = due
            del self.timers[timer, leg]
            self.now_us = max(self.now_us, at_us)
            self._feed(m.Rang(self.now_us, timer, 0, leg))
        self.now_us = max(self.now_us, until_us)

    @rule()
    def shut_down(self) -> None:
        self._feed(m.Shutdown(self.now_us))

    def _facts(self, kind: Kind) -> list[m.Emit]:
        return [one for one in self.effects if isinstance(one, m.Emit) and one.kind is kind]

    @invariant()
    def one_winner_at_most(self) -> None:
        assert self.state.legs.count(m.LegPhase.WON) <= 1
        if self.state.phase is m.Phase.TALKING:
            assert self.state.leg(self.state.winner) is m.LegPhase.WON
        assert sum(isinstance(one, m.AnswerCaller) for one in self.effects) <= 1

    @invariant()
    def one_end_and_one_closing(self) -> None:
        closings = sum(isinstance(one, m.Close) for one in self.effects)
        assert closings == (1 if self.state.phase is m.Phase.OVER else 0) or self.state.caller_gone
        assert closings <= 1
        assert len(self._facts(Kind.ENDED)) <= 1

    @invariant()
    def nothing_is_left_when_it_is_over(self) -> None:
        if not any(isinstance(one, m.Close) for one in self.effects):
            return
        assert not self.timers, "a timer is still armed"
        hung_up = {one.leg for one in self.effects if isinstance(one, m.HangUp)}
        ended = {one.leg for one in [*self._facts(Kind.LEG_ENDED), *self._facts(Kind.NOT_SENT)]}
        dialled = {one.leg for one in self.effects if isinstance(one, m.Dial)}
        assert dialled <= hung_up | ended
        told = CALLER_LEG in hung_up or any(isinstance(one, m.RejectCaller) for one in self.effects)
        assert told or self.state.caller_gone


Transfer.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestTransfer = Transfer.TestCase


def test_a_caller_who_left_and_an_answer_before_admission_leave_no_timer() -> None:
    """Found by the machine above: the end at a shutdown forgot the clocks that an unasked-for answer had started."""
    state = machine.start(m.Plan(1, 0, 5_000, 15_000, (m.LegPlan(0, "", 5_000, 0),)))
    effects: list[m.Effect] = []
    for event in (
        m.Begin(1),
        m.OnLeg(CALLER_LEG, LegSignal("h", EventKind.FAILED, 1, 0, 100, "1")),
        m.OnLeg(1, LegSignal("h", EventKind.ANSWERED, 1, 0, 200, "OK")),
        m.Shutdown(1),
    ):
        state, more = machine.step(state, event)
        effects += more
    assert any(isinstance(one, m.Arm) for one in effects)
    kinds = [type(one) for one in effects]
    assert kinds.index(m.Quiet) > kinds.index(m.Arm)
    assert kinds[-1] is m.Close


def test_a_leg_that_has_won_was_sent_whatever_the_engine_says_afterwards() -> None:
    """Found by the machine above: the winner was taken for a leg that never left, and the talk had nobody in it."""
    state = machine.start(m.Plan(1, 0, 5_000, 15_000, (m.LegPlan(0, "", 5_000, 0),)))
    for event in (
        m.Begin(1),
        m.Admitted(1, ""),
        m.OnLeg(1, LegSignal("h", EventKind.SENT, 1)),
        m.OnLeg(1, LegSignal("h", EventKind.ANSWERED, 1, 0, 200, "OK")),
        m.OnLeg(1, LegNotSent("h", 2)),
    ):
        state, effects = machine.step(state, event)
    assert effects == []
    assert state.leg(1) is m.LegPhase.WON
    assert state.phase is m.Phase.TALKING
