"""Which buyer and which endpoints: a pure decision with a reason for every refusal.

The first cut takes the campaign's first buyer that is open to transfers; caps, hours, duplicates and the choice among
several buyers widen this function later, not its callers.
"""

from __future__ import annotations

from dataclasses import dataclass

from config.book import Book, Buyer, BuyerState, Campaign, Endpoint
from meter.outcome import NO_BUFFER_MS, Reason

# The final answer that goes with a refusal (RFC 3261 section 21): 404 nobody of that name, 480 not now, 603 never.
REFUSAL_CODES: dict[str, int] = {
    Reason.NO_BUYER: 404,
    Reason.NO_ENDPOINT: 480,
    Reason.PAUSED: 480,
    Reason.ON_HOLD: 480,
    Reason.CLOSED: 480,
    Reason.SUPPRESSED: 603,
    Reason.SUPPRESSION_UNAVAILABLE: 503,
    Reason.NO_CAPACITY: 503,
    Reason.DRAINING: 503,
    Reason.REJECTED: 403,
    Reason.FAULT: 500,
}


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice, or the reason why there is none. `buyer` may be set beside a refusal: it is whose refusal it was."""

    campaign: Campaign | None = None
    buyer: Buyer | None = None
    endpoints: tuple[Endpoint, ...] = ()
    refusal: str = ""

    @property
    def buffer_ms(self) -> int:
        """The secure buffer only where every endpoint is a secure trunk (domain, section 4)."""
        if self.buyer is None or not self.endpoints or not all(one.secure for one in self.endpoints):
            return NO_BUFFER_MS
        return self.buyer.terms.secure_buffer_ms

    @property
    def ring_timeout_ms(self) -> int:
        """How long the attempt may ring: the campaign's limit, or the most patient endpoint's where that is shorter."""
        if self.campaign is None or not self.endpoints:
            return 0
        return min(self.campaign.ring_timeout_ms, max(one.ring_timeout_ms for one in self.endpoints))


_STATE_REFUSALS = {
    BuyerState.PAUSED: Reason.PAUSED,
    BuyerState.ON_HOLD: Reason.ON_HOLD,
    BuyerState.CANCELLED: Reason.NO_BUYER,
}


def select(book: Book, dialled: str) -> Selection:
    """Choose for the user part that was dialled."""
    campaign = book.campaigns.get(dialled)
    if campaign is None or not campaign.enabled:
        return Selection(refusal=Reason.NO_BUYER)
    refused = Selection(campaign=campaign, refusal=Reason.NO_BUYER)
    for name in campaign.buyers:
        buyer = book.buyers.get(name)
        if buyer is None:
            continue
        endpoints = tuple(one for one in buyer.endpoints if one.enabled)
        reason = _STATE_REFUSALS.get(buyer.state) or ("" if endpoints else Reason.NO_ENDPOINT)
        if not reason:
            return Selection(campaign=campaign, buyer=buyer, endpoints=endpoints)
        refused = Selection(campaign=campaign, buyer=buyer, refusal=reason)
    return refused
