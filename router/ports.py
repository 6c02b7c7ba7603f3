"""What the router needs of others, as protocols it declares itself; `meter.store` implements them, `baton` wires
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from book.limits import Limits, Usage
from book.model import Book
from facts.answers import Admission, ScrubResult
from facts.fact import Fact, Kind


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

    def ask(
        self, started: Fact, buyer: str, answer: Callable[[Admission | None], None], limits: Limits | None = None
    ) -> None:
        """Call `answer` once `started` (appended before) is durable; the buyer's state is read in the same commit.

        Where there are `limits` they are held against the store in that commit too, and the transfer is counted.

        None is the answer where the store did not take it: nothing may ring. Never answers before this returns.
        """

    @property
    def backlog(self) -> int:
        """Facts not yet durable."""

    @property
    def full(self) -> bool:
        """The backlog has reached its limit: refuse new transfers without writing a fact of them."""


class BookReader(Protocol):
    """The buyer book as it is now; a cheap look at a snapshot, never I/O."""

    @property
    def book(self) -> Book: ...


class UsageReader(Protocol):
    """Counts of limited buyers as of the last look at the store; no I/O."""

    def usage(self, buyer: str) -> Usage: ...


class LeadReader(Protocol):
    """Leads that were posted before their call."""

    def fetch(self, lead_id: str, dialer: str, answer: Callable[[bytes | None], None]) -> None:
        """The lead's JSON; None where this dialer posted none of that id; empty where the store is slow, or failed.

        Never answers before this returns.
        """


class Scrubber(Protocol):
    """Suppression: all lists of the buyer and all global ones, in one call, fail closed. Never raises."""

    def check(self, number: str, buyer: str) -> ScrubResult:
        """`number` in E.164."""

    def receipt(self, result: ScrubResult, transfer: str, buyer: str, at_utc_us: int) -> str:
        """The result as a signed receipt: printable ASCII without blanks, fit for a header."""
