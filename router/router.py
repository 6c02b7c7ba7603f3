"""The router: it takes INVITEs, makes a shell for each, and carries the legs' events to them.

All of it runs on the loop's thread. Reading the lead, choosing the buyer and scrubbing are pure and take microseconds;
the waits, for the disk and for a lead that was posted before, are others'. A transfer stays in `live` until its closing
fact; its dialled legs stay known for `LATE_S` longer, so that a 2xx that lost its race is put on the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import structlog

from book.limits import limits_for
from book.model import Endpoint
from facts.fact import CALLER_LEG, Fact
from facts.outcome import CountsAs, Outcome, Reason, Verdict
from router.arrival import Arrival, ArrivalResult, lead_asked_for, lead_of, why_unread
from router.config import RouterConfig
from router.dialers import Dialer, DialerGuard, TurnAway
from router.ids import new_id
from router.lead import Lead
from router.ports import BookReader, Journal, LeadReader, Scrubber, UsageReader
from router.recorder import Recorder
from router.routing.health import Prober
from router.routing.selection import REFUSAL_CODES, Selection, SelectionRequest, availability, choose
from router.routing.trunks import trunk_addresses, watched
from router.sip.port import Ask, Clock, EventKind, Invite, LegEvent, Probed, SipEngine, Target
from router.surroundings import LiveTransfers, RouterSurroundings, new_seed
from router.transfer import model as m
from router.transfer.planning import start_of, target_of
from router.transfer.shell import RETRY, Start, TransferShell
from telemetry import logs, metrics

LATE_S = 40  # a callee may answer for 32 s after our CANCEL (timer B, RFC 3261 section 17.1.1.2); 40 leaves room
_SCRUB_LABELS = {"": "pass", Reason.SUPPRESSED: "suppressed"}
_PARTINGS = frozenset({EventKind.BYE, EventKind.GONE})
SPARE_SLOTS = 2  # slots kept back so that a 503 can still be said
OK, FORBIDDEN, BUSY_NOW = 200, 403, 503
REJECTED = (("X-Baton-Available", "no"), ("X-Baton-Reason", str(Reason.REJECTED)))
LOOPED = TurnAway(482, "loop")
TOO_MANY_CALLS = TurnAway(503, "concurrency", RETRY)
_NEXT_AFTER = frozenset({Verdict.WITHIN_BUFFER, Verdict.UNREACHABLE})  # domain 7: free, with the caller still there
_NEXT_AFTER_REFUSAL = frozenset(  # the store knew better than the snapshot by which the buyer was chosen
    {Reason.DUPLICATE, Reason.CAP_REACHED, Reason.ORDER_FILLED, Reason.PAUSED, Reason.ON_HOLD, Reason.NO_BUYER}
)

_log = structlog.get_logger("router")


class Router:
    """One router process's live transfers."""

    def __init__(
        self,
        config: RouterConfig,
        *,
        clock: Clock,
        engine: SipEngine,
        journal: Journal,
        book: BookReader,
        scrubber: Scrubber,
        usage: UsageReader,
        leads: LeadReader | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.clock = clock
        self.engine = engine
        self.journal = journal
        self.book = book
        self.leads = leads
        self.recorder = recorder
        self.live = LiveTransfers()
        self.draining = False
        self.new_seed = new_seed
        self._legs: dict[str, tuple[TransferShell, int]] = {}
        self._arrivals: dict[str, Arrival] = {}
        self._over: deque[tuple[int, TransferShell]] = deque()
        self._next: dict[str, Selection] = {}  # transfer -> whom its prospect is offered to after it
        self._scrubber = scrubber
        self._usage = usage
        self.prober = Prober(engine, clock)
        self.guard = DialerGuard(config.dialers)
        self.configure(config)

    def configure(self, config: RouterConfig) -> None:
        """Take another configuration; calls that are up go on under what they began with."""
        self.config = config
        self.prober.configure(config.probe_down_after, config.probe_up_after)
        self.guard.admit(config.dialers, lockout_failures=config.lockout_failures)
        self.surroundings = RouterSurroundings(
            live=self.live,
            carriers=config.carriers,
            trunks=self.prober.trunks,
            engine=self.engine,
            scrubber=self._scrubber,
            usage=self._usage,
        )

    def admit_parties(self) -> None:
        """Tell the engine whom to let in; to be called once it runs, and after `configure`."""
        dialers = [[str(network) for network in one.networks] for one in self.config.dialers]
        self.engine.admit_sources(dialers, drop=self.config.drop_unknown)
        self.engine.behind_nat([str(one) for dialer in self.config.dialers if dialer.nat for one in dialer.networks])

    # --- EngineListener ---

    def on_invite(self, invite: Invite) -> None:
        """A new call. Never raises: a fault becomes a 500 and a record.

        Where the journal is full the dialer gets 503 and nothing is written: memory must not grow with refusals.
        """
        if self.journal.full:
            metrics.ENGINE_FAULTS.labels(kind="journal_full").inc()
            self.engine.reject(invite.handle, REFUSAL_CODES[Reason.NO_CAPACITY], RETRY)
            return
        try:
            self._arrive(invite)
        except Exception:  # noqa: BLE001 - the dialer gets an answer whatever is wrong with us
            _log.exception("invite_failed", sip_call_id=invite.sip_call_id)
            metrics.ENGINE_FAULTS.labels(kind="admission").inc()
            self._arrivals.pop(invite.handle, None)
            self.engine.reject(invite.handle, REFUSAL_CODES[Reason.FAULT])

    def on_events(self, events: Sequence[LegEvent]) -> None:
        """A batch: everything that was in before the first of it was handled.

        Where both parties hang up in one batch the caller's BYE goes first (domain, section 3, row 8).
        """
        parting = len(events) > 1 and any(event.kind in _PARTINGS for event in events)
        for event in sorted(events, key=self._caller_first) if parting else events:
            found = self._legs.get(event.handle)
            if found is None:
                arrival = self._arrivals.get(event.handle)
                if arrival is not None:
                    arrival.on_event(event)
                continue
            shell, number = found
            _measure(event, shell, number)
            self.feed(shell, m.OnLeg(number, event))

    def on_ask(self, ask: Ask) -> None:
        """OPTIONS: to a campaign, whether a buyer would take a call now; to nobody in particular, whether we are up."""
        dialer = self.guard.of(ask.source)
        if dialer is None and not ask.trunk:
            self.engine.reply(ask.handle, FORBIDDEN)
            return
        if self.draining:
            self.engine.reply(ask.handle, BUSY_NOW, RETRY)
            return
        if dialer is None or not ask.user:  # a trunk hears that we are there, and of nobody's campaigns
            self.engine.reply(ask.handle, OK)
            return
        if not dialer.may_call(ask.user):
            self.engine.reply(ask.handle, FORBIDDEN, REJECTED)
            return
        found = self.available(ask.user)
        code = REFUSAL_CODES.get(found.refusal, REFUSAL_CODES[Reason.FAULT]) if found.refusal else OK
        headers = [("X-Baton-Available", "no" if found.refusal else "yes")]
        if found.refusal:
            headers.append(("X-Baton-Reason", str(found.refusal)))
        self.engine.reply(ask.handle, code, headers)

    def on_probed(self, result: Probed) -> None:
        self.prober.on_probed(result)

    def may_refer(self, handle: str, to: str) -> bool:
        dialer = self._dialer_of(handle)
        return dialer is not None and to in dialer.refer_hosts

    def may_replace(self, handle: str, source: str, headers: dict[str, list[str]]) -> bool:
        dialer = self._dialer_of(handle)
        return dialer is not None and self.guard.may_replace(dialer, source, headers, self.clock.now_us())

    def _dialer_of(self, handle: str) -> Dialer | None:
        """Whose end of a call this is; None for a buyer's leg."""
        shell, number = self._legs.get(handle, (None, -1))
        return self.guard.of(shell.start.invite.source) if shell is not None and number == CALLER_LEG else None

    def feed(self, shell: TransferShell, event: m.Event) -> None:
        with logs.about(shell.transfer, getattr(event, "leg", None)):
            try:
                shell.feed(event)
            except Exception:  # noqa: BLE001 - one transfer's fault must not touch the others
                self._broken(shell)

    def _broken(self, shell: TransferShell) -> None:
        """A fault of ours inside one transfer: counted, and that transfer ended as ours; the others go on."""
        _log.exception("transfer_failed", transfer=shell.transfer)
        metrics.ENGINE_FAULTS.labels(kind="transfer").inc()
        if not shell.closed:
            try:
                shell.shut_down()
            except Exception:  # noqa: BLE001
                _log.exception("transfer_not_ended", transfer=shell.transfer)

    def _caller_first(self, event: LegEvent) -> int:
        found = self._legs.get(event.handle)
        return 1 if event.kind in _PARTINGS and found is not None and found[1] != CALLER_LEG else 0

    # --- arrival ---

    def _arrive(self, invite: Invite) -> None:
        dialer = self.guard.of(invite.source)
        if dialer is not None and not self._let_in(dialer, invite):
            return
        welcome = dialer is not None and dialer.may_call(invite.user)
        campaign = self.book.book.campaigns.get(invite.user) if welcome and not self.draining else None
        lead_id = lead_asked_for(invite.headers) if welcome else None
        greets = campaign is not None and campaign.enabled and bool(campaign.greeting_file)
        leads = self.leads if lead_id else None
        if not greets and leads is None:
            self._start(invite, ArrivalResult())
            return
        arrival = Arrival(invite, campaign if greets else None, self.engine, self.clock, self._arrived)
        self._arrivals[invite.handle] = arrival
        name = dialer.name if dialer is not None else ""
        arrival.begin((lambda answer: leads.fetch(lead_id or "", name, answer)) if leads is not None else None)

    def _let_in(self, dialer: Dialer, invite: Invite) -> bool:
        """Loops, digest, rate and concurrency: what fails here is answered at once and leaves no transfer."""
        away = LOOPED if self._looped(invite) else self.guard.judge(dialer, invite, self.clock.now_us())
        if away is None and dialer.max_calls and self._calls_of(dialer) >= dialer.max_calls:
            away = TOO_MANY_CALLS
        if away is None:
            return True
        metrics.INVITES_TURNED_AWAY.labels(away.why).inc()
        if away.lock_out:
            _log.warning("source_locked_out", dialer=dialer.name, source=invite.source)
            self.engine.lock_out(invite.source, self.config.lockout_seconds)
        self.engine.reject(invite.handle, away.code, away.headers)
        return False

    def _looped(self, invite: Invite) -> bool:
        """Our own INVITE come back to us: by the id that we gave it."""
        marks = (invite.sip_call_id.rpartition("-")[0], *map(str.strip, invite.headers.get("x-transfer-id", ())))
        return any(mark in self.live for mark in marks)

    def _calls_of(self, dialer: Dialer) -> int:
        arriving = sum(1 for one in self._arrivals.values() if self.guard.of(one.invite.source) is dialer)
        return arriving + sum(1 for shell in self.live.values() if shell.start.dialer == dialer.name)

    def _arrived(self, arrival: Arrival, how: ArrivalResult) -> None:
        self._arrivals.pop(arrival.invite.handle, None)
        try:
            self._start(arrival.invite, how)
        except Exception:  # noqa: BLE001 - as in on_invite
            _log.exception("invite_failed", sip_call_id=arrival.invite.sip_call_id)
            metrics.ENGINE_FAULTS.labels(kind="admission").inc()
            self.engine.hang_up(arrival.invite.handle)

    # --- transfers ---

    def _start(self, invite: Invite, how: ArrivalResult) -> None:
        dialer = self.guard.of(invite.source)
        lead = lead_of(invite, how)
        name = dialer.name if dialer is not None else ""
        refusal = self._standing(dialer, invite.user)
        selection = Selection()
        if how.gone:
            refusal = Reason.CALLER_GONE
        elif not refusal and lead.unread:
            refusal = why_unread(lead)
        elif not refusal:
            selection = self._choose(invite.user, lead, key=how.key)
            refusal = selection.refusal or self._room(selection)
        start = self._planned(invite, lead, selection, refusal, dialer=name, answered=how.answered, key=how.key)
        self._begin(start)

    def _standing(self, dialer: Dialer | None, campaign: str) -> str:
        if dialer is None or not dialer.may_call(campaign):
            return Reason.REJECTED
        return Reason.DRAINING if self.draining else ""

    def _room(self, selection: Selection) -> str:
        enough = self.engine.slots.free >= len(selection.endpoints) + SPARE_SLOTS
        return "" if enough else Reason.NO_CAPACITY

    def _choose(self, dialled: str, lead: Lead, *, key: str = "", offered: frozenset[str] = frozenset()) -> Selection:
        state = lead.fields.get("state", "")
        asked = SelectionRequest(
            dialled=dialled,
            phone=lead.phone,
            state=state,
            now_utc_us=self.clock.utc_us(),
            seed=self.new_seed(),
            offered=offered,
            key=key,
        )
        selection = choose(self.book.book, asked, self.surroundings)
        for scrub in selection.scrubs:
            metrics.SCRUB.labels(result=_SCRUB_LABELS.get(scrub.reason, "unavailable")).inc()
            metrics.SCRUB_SECONDS.observe(scrub.took_us / 1e6)
        return selection

    def _planned(
        self,
        invite: Invite,
        lead: Lead,
        selection: Selection,
        refusal: str,
        *,
        dialer: str,
        answered: bool,
        key: str,
        before: Start | None = None,
    ) -> Start:
        now_us = self.clock.utc_us()
        buyer = selection.buyer
        limits = None
        if buyer is not None and not refusal:
            limits = limits_for(buyer, self.book.book.orders.get(buyer.name, ()), lead.phone, now_us)
        transfer = new_id(now_us)
        return start_of(
            transfer,
            invite,
            lead,
            selection,
            dialer=dialer,
            refusal=refusal,
            limits=limits,
            plan_limits=(self.config.rtp_timeout_ms, self.config.fast_answer_ms),
            answered=answered,
            key=key,
            before=before,
            carriers=self.config.carriers,
            sign=lambda scrub, whose: self._scrubber.receipt(scrub, transfer, whose, now_us),
        )

    def _begin(self, start: Start) -> None:
        shell = TransferShell(self, start)
        self.live.enter(shell)
        self._legs[start.invite.handle] = (shell, CALLER_LEG)
        for number in range(1, start.plan.legs + 1):
            self._legs[shell.leg_handle(number)] = (shell, number)
        try:
            shell.begin()
        except Exception:  # noqa: BLE001 - as everywhere: this transfer's fault alone
            self._broken(shell)

    def available(self, campaign: str) -> Selection:
        """Would a buyer of this campaign take a call now? Every buyer's reason where not."""
        found = availability(
            self.book.book, SelectionRequest(campaign, now_utc_us=self.clock.utc_us()), self.surroundings
        )
        if not found.refusal and self._room(found):
            return replace(found, refusal=Reason.NO_CAPACITY)
        return found

    # --- Host ---

    def admit(self, shell: TransferShell, fact: Fact) -> None:
        self.journal.ask(fact, shell.start.buyer, shell.on_admission, shell.start.limits)

    def target_for(self, shell: TransferShell, endpoint: Endpoint) -> Target:
        handle = shell.start.invite.handle
        spoken = self.engine.codec(handle) if shell.state.caller_answered else ""
        return target_of(shell.start, endpoint, spoken)

    def offers_on(self, shell: TransferShell, outcome: Outcome) -> bool:
        """Domain, section 7: after a free end with the caller still there, the campaign's next buyer."""
        start = shell.start
        if self.draining or start.campaign is None or start.refusal or outcome.counts_as is not CountsAs.FREE:
            return False
        if outcome.verdict in _NEXT_AFTER:
            if start.offers >= start.campaign.max_offers:
                return False
        elif outcome.verdict is not Verdict.NOT_ATTEMPTED or outcome.reason not in _NEXT_AFTER_REFUSAL:
            return False
        selection = self._choose(start.invite.user, start.lead or Lead(), key=start.key, offered=start.offered)
        if selection.refusal or self._room(selection):
            return False
        self._next[shell.transfer] = selection
        return True

    def closed(self, shell: TransferShell, outcome: Outcome) -> None:
        self.live.leave(shell)
        self._over.append((self.clock.now_us(), shell))
        self._forget_old()
        _log.info(
            "transfer_closed",
            transfer=shell.transfer,
            buyer=shell.start.buyer,
            verdict=outcome.verdict.value,
            reason=outcome.reason.value,
            counts_as=outcome.counts_as.value,
            attempt_ms=outcome.attempt_ms,
            talk_ms=outcome.talk_ms,
            facts=len(shell.facts),
        )
        selection = self._next.pop(shell.transfer, None)
        if selection is not None:
            self._offer_next(shell, selection, dialled=outcome.verdict in _NEXT_AFTER)

    def _offer_next(self, shell: TransferShell, selection: Selection, *, dialled: bool) -> None:
        start = shell.start
        before = start if dialled else replace(start, offers=start.offers - 1)
        invite = replace(start.invite, at_us=self.clock.now_us(), lag_us=0)
        self._begin(
            self._planned(
                invite,
                start.lead or Lead(),
                selection,
                "",
                dialer=start.dialer,
                answered=shell.state.caller_answered,
                key=start.key,
                before=before,
            )
        )

    def _forget_old(self) -> None:
        """Let go of transfers whose time for a late answer is over; each new end clears away the old ones."""
        before_us = self.clock.now_us() - LATE_S * 1_000_000
        while self._over and self._over[0][0] < before_us:
            _, shell = self._over.popleft()
            for number in range(shell.start.plan.legs + 1):
                handle = shell.leg_handle(number)
                if self._legs.get(handle, (None, 0))[0] is shell:  # the next offer may have the dialer's leg
                    del self._legs[handle]

    def start_recording(self, shell: TransferShell, leg: int) -> None:
        if self.recorder is not None:
            self.recorder.start(shell, leg)

    def stop_recording(self, shell: TransferShell) -> None:
        if self.recorder is not None:
            self.recorder.stop(shell)

    # --- trunks ---

    def watch_trunks(self) -> None:
        """Probe and register what the book and the configuration ask for. To be called about once a second."""
        self.engine.admit_trunks(trunk_addresses(self.book.book, self.config.carriers))
        self.prober.look(watched(self.book.book, self.config.carriers))

    @property
    def live_legs(self) -> int:
        """Legs up, the dialers' included."""
        return sum(1 + len(shell.state.live_legs) for shell in self.live.values()) + len(self._arrivals)

    # --- shutdown ---

    def end_all(self) -> None:
        """End every live transfer as ours (SHUTDOWN): free for the buyer. Who is being greeted is refused."""
        for arrival in list(self._arrivals.values()):
            arrival.cut_short()
        for shell in list(self.live.values()):
            shell.shut_down()


def _measure(event: LegEvent, shell: TransferShell, number: int) -> None:
    """Set-up time, which only the router sees as it happens; the meter draws the other clocks from the facts."""
    if event.kind is EventKind.ANSWERED and number != CALLER_LEG and shell.state.phase is m.Phase.RINGING:
        metrics.SETUP.observe(max(0, event.at_us - shell.start.invite.at_us) / 1e6)
