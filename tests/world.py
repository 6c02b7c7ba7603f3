"""A whole router on a virtual clock: the real Router, shells and machine; a scripted engine; a journal in a list."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from book.limits import Limits, Usage
from book.model import Book, Buyer, Campaign, Endpoint, EndpointKind, Srtp, Terms, Transport
from facts.answers import Admission, ScrubResult
from facts.fact import Fact, Kind
from facts.outcome import Outcome, decide
from router.config import Carrier, RouterConfig
from router.dialers import Dialer
from router.router import Router
from router.sip.port import Target
from tests.memory import Act, Does, MemoryEngine, Script, VirtualClock

SECOND_US = 1_000_000


class ListJournal:
    """`router.ports.Journal` in memory: what was appended, in order."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.limits: list[Limits | None] = []
        self.world: World

    def append(self, transfer: str, kind: Kind, *, utc_us: int, mono_us: int, **more: Any) -> Fact:
        payload = more.pop("payload", None) or {}
        seq = len(self.facts) + 1
        fact = Fact("r1", "b1", seq, transfer, kind, utc_us, mono_us, payload=payload, **more)
        self.facts.append(fact)
        return fact

    def ask(
        self,
        started: Fact,
        buyer: str,
        answer: Callable[[Admission | None], None],
        limits: Limits | None = None,
    ) -> None:
        self.limits.append(limits)
        self.world.admit(answer)

    @property
    def backlog(self) -> int:
        return 0

    full = False

    def of(self, transfer: str) -> list[Fact]:
        return [fact for fact in self.facts if fact.transfer == transfer]


class Lists:
    """`router.ports.Scrubber` over a set."""

    def __init__(self, numbers: set[str] | None = None) -> None:
        self.numbers = numbers or set()
        self.down = False

    def check(self, number: str, buyer: str) -> ScrubResult:
        if self.down:
            return ScrubResult("suppression_unavailable")
        return ScrubResult("suppressed" if number in self.numbers else "", hit="dnc" if number in self.numbers else "")

    def receipt(self, result: ScrubResult, transfer: str, buyer: str, at_utc_us: int) -> str:
        return f"{transfer}.{buyer}.{result.reason or 'pass'}"


class Counts:
    """`router.ports.UsageReader` over a dict."""

    def __init__(self) -> None:
        self.of: dict[str, Usage] = {}

    def usage(self, buyer: str) -> Usage:
        return self.of.get(buyer, Usage())


class FixedBook:
    def __init__(self, book: Book) -> None:
        self.book = book


def secure(number: int = 1) -> Endpoint:
    return Endpoint(
        f"trunk{number}", EndpointKind.TRUNK, f"sip:t{number}@s.invalid", transport=Transport.TLS, srtp=Srtp.MANDATORY
    )


def plain(number: int = 1) -> Endpoint:
    return Endpoint(f"trunk{number}", EndpointKind.TRUNK, f"sip:t{number}@p.invalid")


def did(number: int = 1) -> Endpoint:
    return Endpoint(f"did{number}", EndpointKind.DID, f"+1212555010{number}", carrier="own")


class World:
    """One buyer `acme` behind campaign `leads`; `endpoints` as given, each with its script in `parties`."""

    def __init__(
        self,
        endpoints: list[Endpoint],
        terms: Terms | None = None,
        ring_timeout_ms: int = 30_000,
        campaign: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.engine = MemoryEngine(self.clock)
        self.journal = ListJournal()
        self.journal.world = self
        self.lists = Lists()
        self.counts = Counts()
        self.endpoints = endpoints
        buyer = Buyer("acme", "Acme", terms or Terms("westlake-fulfillment"), tuple(endpoints))
        campaign = Campaign("leads", ("acme",), ring_timeout_ms=ring_timeout_ms, **(campaign or {}))
        self.book = FixedBook(Book(1, {"acme": buyer}, {"leads": campaign}))
        carrier = Carrier("own", Target(uri="sip:{number}@carrier.invalid"))
        dialers = (Dialer("local", (ipaddress.ip_network("127.0.0.0/8"),)),)
        router_config = RouterConfig(dialers, {"own": carrier}, **(config or {}))
        self.admission: Admission | None = Admission()
        self.admit_after_us = 0
        self.router = Router(
            router_config,
            clock=self.clock,
            engine=self.engine,
            journal=self.journal,
            book=self.book,
            scrubber=self.lists,
            usage=self.counts,
        )
        self.engine.listener = self.router

    def admit(self, answer: Callable[[Admission | None], None]) -> None:
        self.clock.call_at(self.clock.now_us() + self.admit_after_us, lambda: answer(self.admission))

    def script(self, *scripts: Script) -> World:
        """One script an endpoint, in order."""
        for endpoint, script in zip(self.endpoints, scripts, strict=True):
            uri = f"sip:{endpoint.uri}@carrier.invalid" if endpoint.kind is EndpointKind.DID else endpoint.uri
            self.engine.scripts[uri] = script
        return self

    def call(self, *acts: Act, run_s: float = 120, user: str = "leads", **more: Any) -> Outcome:
        """The dialer calls and does `acts`; time runs; the verdict of the facts is returned."""
        before = len(self.journal.facts)
        self.engine.invite(user, Script(acts), **more)
        self.clock.run_for(round(run_s * SECOND_US))
        facts = self.journal.facts[before:]
        assert not self.engine.live, "legs left up"
        assert not self.router.live, "a transfer left open"
        assert [fact.kind for fact in facts].count(Kind.TRANSFER_CLOSED) == 1
        closing = next(fact for fact in facts if fact.kind is Kind.TRANSFER_CLOSED)
        outcome = decide(facts)
        assert closing.payload == outcome.as_payload(), "the meter and the router disagree"
        return outcome

    def kinds(self) -> list[str]:
        return [fact.kind.value for fact in self.journal.facts]


def rings(at_ms: float = 200) -> Act:
    return Act(at_ms, Does.RING)


def answers(at_ms: float) -> Act:
    return Act(at_ms, Does.ANSWER)


def declines(at_ms: float, code: int = 486) -> Act:
    return Act(at_ms, Does.DECLINE, code)


def hangs_up(at_ms: float) -> Act:
    return Act(at_ms, Does.BYE)


def party(*acts: Act, late_ms: float = -1) -> Script:
    return Script(acts, late_ms)
