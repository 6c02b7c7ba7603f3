"""The shell of one transfer: it feeds the machine and performs what the machine decides.

One shell per transfer; it alone holds that transfer's state. It writes facts through the journal, talks to the engine
by leg handles, keeps the timers, and at the end asks the outcome table for the verdict that goes into the closing
fact and into the last message to the dialer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from config.book import Endpoint
from meter.facts import CALLER_LEG, Fact, Kind
from meter.outcome import Outcome, OutcomeTerms, decide
from router import machine
from router import moves as m
from router.ports import Admission, Journal
from router.sip.port import Clock, Invite, SipEngine, Target, TimerHandle

Headers = tuple[tuple[str, str], ...]


class Host(Protocol):
    """What a shell needs of the router that owns it."""

    clock: Clock
    engine: SipEngine
    journal: Journal

    def admit(self, shell: TransferShell, fact: Fact) -> None:
        """Ask the store; `shell.on_admission` follows."""

    def feed(self, shell: TransferShell, event: m.Event) -> None:
        """`shell.feed`, with a fault of ours contained: events that come from timers and from the store go this way."""

    def target_for(self, shell: TransferShell, endpoint: Endpoint) -> Target: ...

    def closed(self, shell: TransferShell, outcome: Outcome) -> None: ...


@dataclass(frozen=True, slots=True)
class Start:
    """Everything that is fixed when a transfer begins. `payload` is what `transfer_started` says."""

    transfer: str
    invite: Invite
    plan: m.Plan
    endpoints: tuple[Endpoint, ...]
    buyer: str
    phone: str
    payload: dict[str, Any]
    terms: OutcomeTerms
    refusal: str = ""
    refusal_code: int = 0


class TransferShell:
    """A live transfer. Its methods are called from the loop's thread only."""

    def __init__(self, host: Host, start: Start) -> None:
        self.start = start
        self.transfer = start.transfer
        self.state = machine.start(start.plan)
        self.facts: list[Fact] = []
        self.timers: dict[m.Timer, TimerHandle] = {}
        self.outcome: Outcome | None = None
        self._host = host

    # --- what comes in ---

    def begin(self) -> None:
        """Write the first fact and either refuse or ask the store."""
        invite = self.start.invite
        self._fact(Kind.TRANSFER_STARTED, None, self.start.payload, invite.at_us, invite.lag_us)
        self.feed(m.Begin(invite.at_us, self.start.refusal, self.start.refusal_code))

    def on_admission(self, admission: Admission | None) -> None:
        """The store's answer; None: it failed."""
        now_us = self._host.clock.now_us()
        self._host.feed(self, m.StoreFailed(now_us) if admission is None else m.Admitted(now_us, admission.refusal))

    def shut_down(self) -> None:
        self.feed(m.Shutdown(self._host.clock.now_us()))

    def feed(self, event: m.Event) -> None:
        """One step, and its effects in order."""
        self.state, effects = machine.step(self.state, event)
        for effect in effects:
            _PERFORM[type(effect)](self, effect, event)

    # --- what goes out ---

    def leg_handle(self, number: int) -> str:
        return self.start.invite.handle if number == CALLER_LEG else f"{self.transfer}-{number}"

    @property
    def closed(self) -> bool:
        return self.outcome is not None

    @property
    def verdict_headers(self) -> Headers:
        """For the last message to the dialer: what it comes to, and what for (lessons, "what none of them has", 7)."""
        headers = [("X-Baton-Transfer", self.transfer)]
        outcome = self.outcome or decide(self.facts, self.start.terms)
        headers += [
            ("X-Baton-Verdict", outcome.verdict.value),
            ("X-Baton-Reason", outcome.reason.value),
            ("X-Baton-Counts-As", outcome.counts_as.value),
        ]
        return tuple(headers)

    def _fact(self, kind: Kind, leg: int | None, payload: dict[str, Any], at_us: int, lag_us: int) -> Fact:
        clock = self._host.clock
        utc_us = clock.utc_us() - max(0, clock.now_us() - at_us)
        fact = self._host.journal.append(
            self.transfer, kind, utc_us=utc_us, mono_us=at_us, lag_us=lag_us, leg=leg, payload=payload
        )
        self.facts.append(fact)
        return fact

    def _emit(self, effect: m.Emit, event: m.Event) -> None:
        self._fact(effect.kind, effect.leg, effect.payload, event.at_us, event.lag_us)

    def _admit(self, _effect: m.Admit, _event: m.Event) -> None:
        self._host.admit(self, self.facts[0])

    def _dial(self, effect: m.Dial, _event: m.Event) -> None:
        endpoint = self.start.endpoints[effect.leg - 1]
        self._host.engine.dial(self.leg_handle(effect.leg), self._host.target_for(self, endpoint))

    def _ring_caller(self, _effect: m.RingCaller, _event: m.Event) -> None:
        self._host.engine.ring(self.start.invite.handle)

    def _answer_caller(self, _effect: m.AnswerCaller, _event: m.Event) -> None:
        self._host.engine.answer(self.start.invite.handle, (("X-Baton-Transfer", self.transfer),))

    def _reject_caller(self, effect: m.RejectCaller, _event: m.Event) -> None:
        self._host.engine.reject(self.start.invite.handle, effect.code, self.verdict_headers)

    def _hang_up(self, effect: m.HangUp, _event: m.Event) -> None:
        headers: Headers = self.verdict_headers if effect.leg == CALLER_LEG else ()
        if effect.reason:
            headers = (*headers, ("Reason", effect.reason))
        self._host.engine.hang_up(self.leg_handle(effect.leg), headers)

    def _bridge(self, effect: m.Bridge, _event: m.Event) -> None:
        self._host.engine.bridge(self.start.invite.handle, self.leg_handle(effect.leg))

    def _arm(self, effect: m.Arm, _event: m.Event) -> None:
        self._disarm(m.Disarm(effect.timer), _event)

        def ring(timer: m.Timer = effect.timer) -> None:
            self.timers.pop(timer, None)
            clock = self._host.clock
            self._host.feed(self, m.Rang(clock.now_us(), timer, clock.lag_us()))

        self.timers[effect.timer] = self._host.clock.call_at(effect.at_us, ring)

    def _disarm(self, effect: m.Disarm, _event: m.Event) -> None:
        timer = self.timers.pop(effect.timer, None)
        if timer is not None:
            timer.cancel()

    def _close(self, _effect: m.Close, event: m.Event) -> None:
        self.outcome = decide(self.facts, self.start.terms)
        self._fact(Kind.TRANSFER_CLOSED, None, self.outcome.as_payload(), event.at_us, event.lag_us)
        self._host.closed(self, self.outcome)


_PERFORM: dict[type, Callable[[TransferShell, Any, m.Event], None]] = {
    m.Emit: TransferShell._emit,  # noqa: SLF001 - the table is the class's own
    m.Admit: TransferShell._admit,  # noqa: SLF001
    m.Dial: TransferShell._dial,  # noqa: SLF001
    m.RingCaller: TransferShell._ring_caller,  # noqa: SLF001
    m.AnswerCaller: TransferShell._answer_caller,  # noqa: SLF001
    m.RejectCaller: TransferShell._reject_caller,  # noqa: SLF001
    m.HangUp: TransferShell._hang_up,  # noqa: SLF001
    m.Bridge: TransferShell._bridge,  # noqa: SLF001
    m.Arm: TransferShell._arm,  # noqa: SLF001
    m.Disarm: TransferShell._disarm,  # noqa: SLF001
    m.Close: TransferShell._close,  # noqa: SLF001
}
