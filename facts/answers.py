"""What the router is answered through its ports: by the store about a new transfer, by suppression about a number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Admission:
    """The store's answer to a new transfer. `refusal` is a slug of `facts.outcome.Reason`, or empty.

    Where it is not empty nothing may ring; `transfer_started` is durable either way.
    """

    refusal: str = ""


@dataclass(frozen=True, slots=True)
class ScrubResult:
    """A scrub's verdict: `reason` is empty (may pass), `suppressed` or `suppression_unavailable`."""

    reason: str
    hit: str = ""  # the list that has the number
    lists: str = ""  # consulted, in words, as many as a header takes
    sets: tuple[str, ...] = ()  # consulted: digests of the global lists and of the buyer's
    number: str = ""  # keyed hash; empty where it is no number
    exempt: tuple[int, ...] = ()  # exemptions on record that were applied
    took_us: int = 0
