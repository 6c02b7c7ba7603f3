"""The router: it takes INVITEs, makes a shell for each, and carries the legs' events to them.

All of it runs on the loop's thread. Reading the lead, choosing the buyer and scrubbing are pure and take microseconds;
the one wait, for the disk, is the journal's. A transfer stays in `live` until its closing fact; its dialled legs stay
known for `LATE_S` longer, so that a 2xx that lost its race is put on the record.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from config.book import Endpoint, EndpointKind
from meter import metrics
from meter.facts import CALLER_LEG, Fact
from meter.outcome import Outcome, OutcomeTerms, Reason
from router import moves as m
from router.ids import new_id
from router.lead import read_lead
from router.ports import BookReader, Journal, Scrubber, ScrubResult
from router.select import REFUSAL_CODES, Selection, select
from router.shell import Start, TransferShell
from router.sip.port import Clock, EventKind, Invite, LegEvent, SipEngine, Target

LATE_S = 40  # a callee may answer for 32 s after our CANCEL (timer B, RFC 3261 17.1.1.2); 40 leaves room
_SCRUB_LABELS = {"": "pass", Reason.SUPPRESSED: "suppressed"}
_PARTINGS = frozenset({EventKind.BYE, EventKind.GONE})
SPARE_SLOTS = 2  # slots kept back so that a 503 can still be said

_log = structlog.get_logger("router")


@dataclass(frozen=True, slots=True)
class Dialer:
    """A dialing system that may send transfers, by its source addresses."""

    name: str
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


@dataclass(frozen=True, slots=True)
class Carrier:
    """The operator's own way to the telephone network, for DIDs. `target.uri` has `{number}` where the DID goes."""

    name: str
    target: Target


@dataclass(frozen=True, slots=True)
class RouterConfig:
    dialers: tuple[Dialer, ...]
    carriers: dict[str, Carrier]


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
    ) -> None:
        self.config = config
        self.clock = clock
        self.engine = engine
        self.journal = journal
        self.book = book
        self.scrubber = scrubber
        self.live: dict[str, TransferShell] = {}
        self.draining = False
        self._legs: dict[str, tuple[TransferShell, int]] = {}
        self._over: deque[tuple[int, TransferShell]] = deque()

    # --- EngineListener ---

    def on_invite(self, invite: Invite) -> None:
        """A new transfer. Never raises: a fault becomes a 500 and a record.

        Where the journal is full the dialer gets 503 and nothing is written: memory must not grow with refusals.
        """
        if self.journal.full:
            metrics.ENGINE_FAULTS.labels(kind="journal_full").inc()
            self.engine.reject(invite.handle, REFUSAL_CODES[Reason.NO_CAPACITY])
            return
        try:
            shell = TransferShell(self, self._plan(invite))
        except Exception:  # noqa: BLE001 - the dialer gets an answer whatever is wrong with us
            _log.exception("invite_failed", sip_call_id=invite.sip_call_id)
            metrics.ENGINE_FAULTS.labels(kind="admission").inc()
            self.engine.reject(invite.handle, REFUSAL_CODES[Reason.FAULT])
            return
        self.live[shell.transfer] = shell
        self._legs[invite.handle] = (shell, CALLER_LEG)
        for number in range(1, shell.start.plan.legs + 1):
            self._legs[shell.leg_handle(number)] = (shell, number)
        shell.begin()

    def on_events(self, events: Sequence[LegEvent]) -> None:
        """A batch: everything that was in before the first of it was handled.

        Where both parties hang up in one batch the caller's BYE goes first (domain, section 3, row 8).
        """
        parting = len(events) > 1 and any(event.kind in _PARTINGS for event in events)
        for event in sorted(events, key=self._caller_first) if parting else events:
            found = self._legs.get(event.handle)
            if found is None:
                continue
            shell, number = found
            _measure(event, shell, number)
            self.feed(shell, m.OnLeg(number, event))

    def feed(self, shell: TransferShell, event: m.Event) -> None:
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

    # --- Host ---

    def admit(self, shell: TransferShell, fact: Fact) -> None:
        self.journal.ask(fact, shell.start.buyer, shell.on_admission)

    def target_for(self, shell: TransferShell, endpoint: Endpoint) -> Target:
        """How to dial an endpoint: a trunk by its URI, a DID through its carrier."""
        number = shell.start.phone or shell.start.invite.caller
        headers = (("X-Transfer-Id", shell.transfer),)
        if endpoint.kind is EndpointKind.DID:
            way = self.config.carriers[endpoint.carrier].target
            return replace(way, uri=way.uri.replace("{number}", endpoint.uri), caller=number, headers=headers)
        return Target(
            uri=endpoint.uri,
            transport=endpoint.transport,
            srtp=endpoint.srtp,
            verify_tls=endpoint.verify_tls,
            username=endpoint.username,
            password=endpoint.password,
            caller=number,
            headers=headers,
        )

    def closed(self, shell: TransferShell, outcome: Outcome) -> None:
        self.live.pop(shell.transfer, None)
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

    def _forget_old(self) -> None:
        """Let go of transfers whose time for a late answer is over; each new end clears away the old ones."""
        before_us = self.clock.now_us() - LATE_S * 1_000_000
        while self._over and self._over[0][0] < before_us:
            _, shell = self._over.popleft()
            for number in range(shell.start.plan.legs + 1):
                self._legs.pop(shell.leg_handle(number), None)

    # --- planning ---

    def _plan(self, invite: Invite) -> Start:
        transfer = new_id(self.clock.utc_us())
        dialer = self._dialer_of(invite.source)
        lead = read_lead(invite.headers, invite.lead_json, invite.caller)
        selection = select(self.book.book, invite.user)
        refusal = self._refusal(dialer, selection)
        scrub: ScrubResult | None = None
        if not refusal and selection.buyer is not None:
            scrub = self.scrubber.check(lead.phone, selection.buyer.name)
            metrics.SCRUB.labels(result=_SCRUB_LABELS.get(scrub.reason, "unavailable")).inc()
            metrics.SCRUB_SECONDS.observe(scrub.took_us / 1e6)
            refusal = scrub.reason
        buyer = selection.buyer
        terms = _terms_payload(selection)
        payload: dict[str, Any] = {
            "call_id": _first(invite.headers, "x-call-id") or transfer,
            "sip_call_id": invite.sip_call_id,
            "dialer": dialer,
            "campaign": invite.user[:64],
            "buyer": buyer.name if buyer else "",
            "buyer_title": buyer.title if buyer else "",
            "lead_emails": list(buyer.lead_emails) if buyer else [],
            "phone": lead.phone,
            "lead": lead.fields,
            "endpoints": [_endpoint_payload(n, one) for n, one in enumerate(selection.endpoints, start=1)],
            "buffer_ms": selection.buffer_ms,
            "ring_timeout_ms": selection.ring_timeout_ms,
            "terms": terms,
        }
        if lead.problems:
            payload["lead_problems"] = list(lead.problems)
        if scrub is not None:
            payload["scrub"] = _scrub_payload(scrub)
        outcome_terms = OutcomeTerms.from_payload(terms)
        plan = m.Plan(
            legs=0 if refusal else len(selection.endpoints),
            buffer_ms=selection.buffer_ms,
            ring_timeout_ms=selection.ring_timeout_ms,
            talk_connected_ms=outcome_terms.talk_connected_ms,
        )
        return Start(
            transfer=transfer,
            invite=invite,
            plan=plan,
            endpoints=selection.endpoints,
            buyer=buyer.name if buyer else "",
            phone=lead.phone,
            payload=payload,
            terms=outcome_terms,
            refusal=refusal,
            refusal_code=REFUSAL_CODES.get(refusal, REFUSAL_CODES[Reason.FAULT]),
        )

    def _dialer_of(self, source: str) -> str:
        try:
            address = ipaddress.ip_address(source)
        except ValueError:
            return ""
        for dialer in self.config.dialers:
            if any(address in network for network in dialer.networks):
                return dialer.name
        return ""

    def _refusal(self, dialer: str, selection: Selection) -> str:
        """The first reason not to go on; the scrub comes after all of these."""
        if not dialer:
            return Reason.REJECTED
        if self.draining:
            return Reason.DRAINING
        if selection.refusal:
            return selection.refusal
        if self.engine.slots.free < len(selection.endpoints) + SPARE_SLOTS:
            return Reason.NO_CAPACITY
        if any(one.kind is EndpointKind.DID and one.carrier not in self.config.carriers for one in selection.endpoints):
            return Reason.NO_ENDPOINT
        return ""

    @property
    def live_legs(self) -> int:
        """Legs up, the dialers' included."""
        return sum(1 + len(shell.state.live_legs) for shell in self.live.values())

    # --- shutdown ---

    def end_all(self) -> None:
        """End every live transfer as ours (SHUTDOWN): free for the buyer."""
        for shell in list(self.live.values()):
            shell.shut_down()


def _first(headers: dict[str, list[str]], name: str) -> str:
    values = headers.get(name)
    return "".join(c for c in values[0] if c.isalnum() or c in "-_.")[:64] if values else ""


def _terms_payload(selection: Selection) -> dict[str, Any]:
    if selection.buyer is None:
        return {}
    terms = selection.buyer.terms
    return {
        "name": terms.name,
        "version": terms.version,
        "rating": terms.rating.value,
        "connected_percent": terms.connected_percent,
        "failed_percent": terms.failed_percent,
        "talk_connected_ms": terms.talk_connected_ms,
        "unreachable": terms.unreachable,
        "caller_abandon": terms.caller_abandon,
        "time_zone": terms.time_zone,
        "currency": terms.currency,
        "unit_price_minor": terms.unit_price_minor,
    }


def _endpoint_payload(number: int, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "leg": number,
        "name": endpoint.name,
        "kind": endpoint.kind.value,
        "transport": endpoint.transport.value,
        "srtp": endpoint.srtp.value,
        "secure": endpoint.secure,
    }


def _scrub_payload(scrub: ScrubResult) -> dict[str, Any]:
    return {
        "reason": scrub.reason,
        "hit": scrub.hit,
        "lists": [{"name": one.name, "version": one.version, "checksum": one.checksum} for one in scrub.lists],
        "took_us": scrub.took_us,
    }


def _measure(event: LegEvent, shell: TransferShell, number: int) -> None:
    """Set-up time, which only the router sees as it happens; the meter draws the other clocks from the facts."""
    if event.kind is EventKind.ANSWERED and number != CALLER_LEG and shell.state.phase is m.Phase.RINGING:
        metrics.SETUP.observe(max(0, event.at_us - shell.start.invite.at_us) / 1e6)
