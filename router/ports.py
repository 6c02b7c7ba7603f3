"""What the router needs of others, as protocols it declares itself; `meter.store` implements them, `baton` wires
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from config.book import Book
from meter.facts import Fact, Kind


@dataclass(frozen=True, slots=True)
class Admission:
    """The store's answer to a new transfer. `refusal` is a slug of `meter.outcome.Reason` or empty.

    Where it is not empty nothing may ring; `transfer_started` is durable either way.
    """

    refusal: str = ""


class JournalRefusedError(RuntimeError):
    """The store did not take `transfer_started`: nothing may ring."""


class Journal(Protocol):
    """The append-only journal of one boot."""

    def append(
        self,
        transfer: str,
        kind: Kind,
        *,
        utc_us: int,
        mono_us: int,
        lag_us: int = 0,
        leg: int | None = None,
        payload: dict[str, Any] | None = None,
        origin: str = "router",
    ) -> Fact:
        """Give the fact its sequence number and queue it; it is committed, in order, within `linger_ms`."""

    async def admit(self, started: Fact, buyer: str) -> Admission:
        """Wait until `started` (queued before) is durable; the buyer's hold or pause is read in the same commit.

        Raises JournalRefusedError where the store does not take it.
        """

    @property
    def backlog(self) -> int:
        """Facts not yet durable."""


class BookReader(Protocol):
    """The buyer book as it is now; a cheap look at a snapshot, never I/O."""

    @property
    def book(self) -> Book: ...


@dataclass(frozen=True, slots=True)
class ListUsed:
    """One list that a scrub consulted."""

    name: str
    version: int
    checksum: str


@dataclass(frozen=True, slots=True)
class ScrubResult:
    """A scrub's verdict: `reason` is empty (may pass), `suppressed` or `suppression_unavailable`."""

    reason: str
    hit: str = ""  # the list that has the number
    lists: tuple[ListUsed, ...] = ()
    took_us: int = 0


class Scrubber(Protocol):
    """Suppression: all lists of the buyer and all global ones, in one call, fail closed. Never raises."""

    def check(self, number: str, buyer: str) -> ScrubResult:
        """`number` in E.164."""
