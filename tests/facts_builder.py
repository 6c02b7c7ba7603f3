"""A transfer told in a few lines: `Story().start().dial(1).ring(1, at=2.0)...` makes the facts a router would write.

Times are seconds from dial-out, as the examples of the domain page give them; the clock only goes forward.
"""

from __future__ import annotations

from typing import Any

from facts.fact import EndCause, Fact, Kind, Party
from facts.outcome import decide

UTC_0 = 1_780_408_800_000_000  # 2 June 2026, 14:00 UTC
MONO_0 = 5_000_000_000

WESTLAKE = {
    "name": "westlake-fulfillment",
    "version": 1,
    "rating": "unit",
    "connected_percent": 93,
    "failed_percent": 100,
    "talk_connected_ms": 15_000,
    "unreachable": "free",
    "caller_abandon": "free",
    "time_zone": "America/New_York",
    "currency": "USD",
    "unit_price_minor": 4_500,
}


def endpoint(leg: int, *, secure: bool = True, kind: str = "trunk") -> dict[str, Any]:
    return {
        "leg": leg,
        "name": f"desk-{leg}",
        "kind": kind,
        "transport": "tls" if secure else "udp",
        "srtp": "mandatory" if secure else "off",
        "secure": secure,
    }


class Story:
    """The facts of one transfer, in order. Every method appends and returns the story."""

    def __init__(self, transfer: str = "t-1", *, router: str = "r1", boot: str = "boot-1", first_seq: int = 1) -> None:
        self.facts: list[Fact] = []
        self.transfer, self.router, self.boot, self.next_seq = transfer, router, boot, first_seq

    def add(self, kind: Kind, at: float = 0.0, leg: int | None = None, lag_ms: int = 0, **payload: Any) -> Story:
        offset = round(at * 1_000_000)
        self.facts.append(
            Fact(
                self.router,
                self.boot,
                self.next_seq,
                self.transfer,
                kind,
                UTC_0 + offset,
                MONO_0 + offset,
                lag_us=lag_ms * 1000,
                leg=leg,
                payload=payload,
            )
        )
        self.next_seq += 1
        return self

    def start(self, *, legs: int = 1, secure: bool = True, kind: str = "trunk", **payload: Any) -> Story:
        buffer_ms = 15_000 if secure and kind == "trunk" else 0
        base: dict[str, Any] = {
            "call_id": f"call-{self.transfer}",
            "sip_call_id": f"{self.transfer}@dialer",
            "dialer": "dialer-1",
            "campaign": "solar",
            "buyer": "acme",
            "buyer_title": "Acme Solar",
            "lead_emails": ["leads@acme.example"],
            "phone": "+12125550123",
            "lead": {"name": "Jo Doe", "phone": "+12125550123", "email": "jo@example.org", "address": "1 Main St"},
            "endpoints": [endpoint(leg, secure=secure, kind=kind) for leg in range(1, legs + 1)],
            "buffer_ms": buffer_ms,
            "ring_timeout_ms": 30_000,
            "terms": WESTLAKE,
            "scrub": {"reason": "", "hit": "", "lists": "", "sets": [], "number": "", "took_us": 12, "receipt": ""},
        }
        return self.add(Kind.TRANSFER_STARTED, -0.05, **(base | payload))

    def dial(self, *legs: int, at: float = 0.0) -> Story:
        for leg in legs or (1,):
            self.add(Kind.DIALED, at, leg)
        return self

    def ring(self, leg: int = 1, at: float = 1.0, code: int = 180) -> Story:
        return self.add(Kind.RINGING, at, leg, code=code, phrase="Ringing")

    def answer(self, leg: int = 1, at: float = 4.0, **payload: Any) -> Story:
        return self.add(Kind.ANSWERED, at, leg, code=200, phrase="OK", **payload)

    def bridge(self, leg: int = 1, at: float = 4.1) -> Story:
        return self.add(Kind.BRIDGED, at, leg)

    def decline(self, leg: int = 1, at: float = 5.0, code: int = 486, phrase: str = "Busy Here") -> Story:
        return self.add(Kind.LEG_ENDED, at, leg, code=code, phrase=phrase, by="buyer", local=False, header="")

    def cancelled(self, leg: int = 1, at: float = 30.0) -> Story:
        return self.add(
            Kind.LEG_ENDED, at, leg, code=487, phrase="Request Terminated", by="router", local=True, header=""
        )

    def end(self, at: float, by: Party, cause: EndCause, lag_ms: int = 0) -> Story:
        return self.add(Kind.ENDED, at, lag_ms=lag_ms, by=by.value, cause=cause.value)

    def hang_up(self, at: float, by: Party, lag_ms: int = 0) -> Story:
        return self.end(at, by, EndCause.BYE, lag_ms)

    def close(self, at: float | None = None, **over: Any) -> Story:
        """The closing fact with the verdict that the table gives, changed by `over`."""
        last = (self.facts[-1].mono_us - MONO_0) / 1_000_000 if at is None else at
        return self.add(Kind.TRANSFER_CLOSED, last, **(decide(self.facts).as_payload() | over))


def failed_story(transfer: str = "t-1", **start: Any) -> Story:
    """Two secure trunks ring; one declines, the other rings out at 30 s: a failed transfer."""
    story = Story(transfer).start(legs=2, **start).dial(1, 2).ring(1, 1.2).ring(2, 1.9)
    return story.decline(1, 8.0).cancelled(2, 30.0).end(30.0, Party.ROUTER, EndCause.RING_TIMEOUT).close()


def connected_story(transfer: str = "t-1", **start: Any) -> Story:
    """Answered at 4 s, hung up by the caller after 40 s of talk."""
    story = Story(transfer).start(**start).dial(1).ring(1, 1.2).answer(1, 4.0).bridge(1, 4.1)
    return story.add(Kind.TALK_REACHED_15S, 19.0).hang_up(44.0, Party.CALLER).close()
