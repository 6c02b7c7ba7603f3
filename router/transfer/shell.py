"""The shell of one transfer: it feeds the machine and performs what the machine decides.

One shell per transfer; it alone holds that transfer's state. It writes facts through the journal, talks to the engine
by leg handles, keeps the timers, and at the end asks the outcome table for the verdict that goes into the closing
fact and into the last message to the dialer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from book.limits import Limits
from book.model import Campaign, Endpoint
from facts.answers import Admission
from facts.fact import CALLER_LEG, Fact, Kind
from facts.outcome import Outcome, OutcomeTerms, Verdict, decide
from facts.payload_values import Payload
from facts.start_payload import Scrub
from router.config import Carrier
from router.lead import Lead
from router.ports import Journal
from router.sip.port import Clock, Invite, SipEngine, Target, TimerHandle
from router.transfer import machine
from router.transfer import model as m

Headers = tuple[tuple[str, str], ...]
REFUSED_NOW = 503
RETRY: Headers = (("Retry-After", "5"),)  # seconds, with every 503 of our own (RFC 3261 section 20.33)


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

    def offers_on(self, shell: TransferShell, outcome: Outcome) -> bool:
        """Will the prospect be offered to the next buyer, as a transfer of its own? `closed` follows."""

    def start_recording(self, shell: TransferShell, leg: int) -> None: ...

    def stop_recording(self, shell: TransferShell) -> None: ...

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
    payload: Payload
    terms: OutcomeTerms
    refusal: str = ""
    refusal_code: int = 0
    campaign: Campaign | None = None
    call_id: str = ""  # shared by the transfers of one prospect
    offered: frozenset[str] = frozenset()  # buyers of the transfers before, and this one's
    offers: int = 1  # how many of them were dialled, this one included
    dialer: str = ""
    limits: Limits | None = None
    lead: Lead | None = None
    scrub: Scrub | None = None  # what the suppression lists said, and the signed receipt of it
    key: str = ""  # pressed in the campaign's menu
    carriers: Mapping[str, Carrier] = field(default_factory=dict)  # of its DIDs, as they were when it began


class TransferShell:
    """A live transfer. Its methods are called from the loop's thread only."""

    def __init__(self, host: Host, start: Start) -> None:
        self.start = start
        self.transfer = start.transfer
        self.state = machine.start(start.plan)
        self.facts: list[Fact] = []
        self.timers: dict[tuple[m.Timer, int], TimerHandle] = {}
        self.deadlines: dict[tuple[m.Timer, int], int] = {}  # when each of them rings, for those who look
        self.outcome: Outcome | None = None
        self.handed_on = False  # the dialer's leg belongs to the next transfer now
        self._decided: tuple[int, Outcome] | None = None
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
    def verdict(self) -> Outcome:
        """What the facts come to as they are now."""
        if self._decided is None or self._decided[0] != len(self.facts):
            self._decided = (len(self.facts), decide(self.facts, self.start.terms))
        return self._decided[1]

    @property
    def verdict_headers(self) -> Headers:
        """For the last message to the dialer: what it comes to, and what for (lessons, "What none of them has", 7)."""
        return self._headers_of(self.outcome or self.verdict)

    def _headers_of(self, outcome: Outcome) -> Headers:
        headers = [
            ("X-Baton-Transfer", self.transfer),
            ("X-Baton-Verdict", outcome.verdict.value),
            ("X-Baton-Reason", outcome.reason.value),
            ("X-Baton-Counts-As", outcome.counts_as.value),
        ]
        answered = next((fact.mono_us for fact in self.facts if fact.kind is Kind.ANSWERED), 0)
        if answered:
            headers.append(("X-Baton-Answer-Ms", str((answered - self.state.dialout_us) // 1000)))
        return (*headers, *self._evidence)

    @property
    def _evidence(self) -> Headers:
        """What the suppression lists said, and the signed receipt of it; nothing where they were not asked."""
        scrub = self.start.scrub
        if scrub is None:
            return ()
        said = "; ".join(filter(None, (scrub.reason or "pass", scrub.lists)))
        return ("X-Baton-Scrub", said), ("X-Baton-Receipt", scrub.receipt or "")

    def _fact(self, kind: Kind, leg: int | None, payload: Payload | None, at_us: int, lag_us: int) -> Fact:
        clock = self._host.clock
        utc_us = clock.utc_us() - max(0, clock.now_us() - at_us)
        fact = self._host.journal.append(
            self.transfer, kind, utc_us=utc_us, mono_us=at_us, lag_us=lag_us, leg=leg, payload=payload
        )
        self.facts.append(fact)
        return fact

    def _emit(self, effect: m.Emit, event: m.Event) -> None:
        lag_us = event.lag_us if effect.lag_us < 0 else effect.lag_us
        self._fact(effect.kind, effect.leg, effect.payload, effect.at_us or event.at_us, lag_us)

    def _admit(self, _effect: m.Admit, _event: m.Event) -> None:
        self._host.admit(self, self.facts[0])

    def _dial(self, effect: m.Dial, _event: m.Event) -> None:
        endpoint = self.start.endpoints[effect.leg - 1]
        self._host.engine.dial(self.leg_handle(effect.leg), self._host.target_for(self, endpoint))

    def _ring_caller(self, _effect: m.RingCaller, _event: m.Event) -> None:
        self._host.engine.ring(self.start.invite.handle)

    def _answer_caller(self, _effect: m.AnswerCaller, _event: m.Event) -> None:
        winner = self.leg_handle(self.state.winner) if self.state.winner else ""
        headers = (("X-Baton-Transfer", self.transfer), *self._evidence)
        self._host.engine.answer(self.start.invite.handle, headers, winner)

    def _reject_caller(self, effect: m.RejectCaller, _event: m.Event) -> None:
        self.handed_on = self._host.offers_on(self, self.verdict)
        if self.handed_on:
            return
        if self.state.caller_answered:
            why = ("Reason", f"SIP;cause={effect.code}")
            self._host.engine.hang_up(self.start.invite.handle, (*self.verdict_headers, why))
        else:
            again = RETRY if effect.code == REFUSED_NOW and self.verdict.verdict is Verdict.NOT_ATTEMPTED else ()
            self._host.engine.reject(self.start.invite.handle, effect.code, (*self.verdict_headers, *again))

    def _as_if(self, end: m.Emit, event: m.Event) -> Outcome:
        """What it would come to with this end; the record may say otherwise where the dialer's own BYE crosses ours."""
        likely = replace(
            self.facts[-1], kind=end.kind, leg=None, payload=end.payload or {}, mono_us=event.at_us, lag_us=event.lag_us
        )
        return decide([*self.facts, likely], self.start.terms)

    def _hang_up(self, effect: m.HangUp, event: m.Event) -> None:
        headers: Headers = ()
        if effect.leg == CALLER_LEG:
            headers = (
                self.verdict_headers if effect.as_if is None else self._headers_of(self._as_if(effect.as_if, event))
            )
        if effect.reason:
            headers = (*headers, ("Reason", effect.reason))
        self._host.engine.hang_up(self.leg_handle(effect.leg), headers)

    def _bridge(self, effect: m.Bridge, _event: m.Event) -> None:
        self._host.engine.bridge(self.start.invite.handle, self.leg_handle(effect.leg))

    def _whisper(self, effect: m.Whisper, _event: m.Event) -> None:
        endpoint = self.start.endpoints[effect.leg - 1]
        if endpoint.whisper_file:
            again = bool(endpoint.accept_key)
            self._host.engine.play(self.leg_handle(effect.leg), endpoint.whisper_file, loop=again)

    def _end_whisper(self, effect: m.EndWhisper, _event: m.Event) -> None:
        self._host.engine.stop_playing(self.leg_handle(effect.leg))

    def _music(self, _effect: m.Music, _event: m.Event) -> None:
        campaign = self.start.campaign
        if campaign is not None and campaign.music_file:
            self._host.engine.play(self.start.invite.handle, campaign.music_file, loop=True)

    def _record(self, effect: m.Record, _event: m.Event) -> None:
        self._host.start_recording(self, effect.leg)

    def _stop_recording(self, _effect: m.StopRecording, _event: m.Event) -> None:
        self._host.stop_recording(self)

    def _arm(self, effect: m.Arm, _event: m.Event) -> None:
        self._disarm(effect, _event)

        def ring(timer: m.Timer = effect.timer, leg: int = effect.leg) -> None:
            self.timers.pop((timer, leg), None)
            self.deadlines.pop((timer, leg), None)
            clock = self._host.clock
            self._host.feed(self, m.Rang(clock.now_us(), timer, clock.lag_us(), leg))

        self.timers[effect.timer, effect.leg] = self._host.clock.call_at(effect.at_us, ring)
        self.deadlines[effect.timer, effect.leg] = effect.at_us

    def _disarm(self, effect: m.Disarm | m.Arm, _event: m.Event) -> None:
        timer = self.timers.pop((effect.timer, effect.leg), None)
        self.deadlines.pop((effect.timer, effect.leg), None)
        if timer is not None:
            timer.cancel()

    def _quiet(self, _effect: m.Quiet, _event: m.Event) -> None:
        for timer in self.timers.values():
            timer.cancel()
        self.timers.clear()
        self.deadlines.clear()
        self._host.stop_recording(self)
        if self.state.caller_answered and not self.state.caller_gone:
            self._host.engine.stop_playing(self.start.invite.handle)

    def _close(self, _effect: m.Close, event: m.Event) -> None:
        self.outcome = self.verdict
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
    m.Whisper: TransferShell._whisper,  # noqa: SLF001
    m.EndWhisper: TransferShell._end_whisper,  # noqa: SLF001
    m.Music: TransferShell._music,  # noqa: SLF001
    m.Record: TransferShell._record,  # noqa: SLF001
    m.StopRecording: TransferShell._stop_recording,  # noqa: SLF001
    m.Quiet: TransferShell._quiet,  # noqa: SLF001
    m.Arm: TransferShell._arm,  # noqa: SLF001
    m.Disarm: TransferShell._disarm,  # noqa: SLF001
    m.Close: TransferShell._close,  # noqa: SLF001
}
