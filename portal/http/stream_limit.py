"""Places for streams, bounded of a token and in all: the live view and the feed of events share them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from portal.http.problems import ProblemError
from telemetry import metrics

MAX_STREAMS, MAX_STREAMS_PER_TOKEN = 64, 8
_RETRY = {"Retry-After": "5"}


@dataclass(slots=True)
class Seat:
    """A stream's place. `ended`: it is to end, for the portal stops, or its token may not be in force any more."""

    ended: bool = False


class Seats:
    """Counts streams. Once closed there is no room for another one."""

    def __init__(self, most: int = MAX_STREAMS, of_token: int = MAX_STREAMS_PER_TOKEN) -> None:
        self._most, self._of_token = most, of_token
        self._taken: Counter[str] = Counter()
        self._seats: list[Seat] = []
        self.closed = False

    def end_all(self) -> None:
        """End the streams there are: their clients come again by themselves, and are asked again who they are."""
        for seat in self._seats:
            seat.ended = True

    def close(self) -> None:
        """End all streams, and take no other."""
        self.closed = True
        self.end_all()

    @contextlib.contextmanager
    def take(self, token: str) -> Iterator[Seat]:
        """A place for a stream. Raises ProblemError 429 where the token has its share, 503 where all are taken."""
        if self._taken[token] >= self._of_token:
            metrics.HTTP_LIMITED.labels("streams").inc()
            raise ProblemError(429, f"this token has {self._of_token} streams already", headers=_RETRY)
        if self.closed or self.taken >= self._most:
            raise ProblemError(503, "there is no room for another stream", headers=_RETRY)
        self._taken[token] += 1
        seat = Seat()
        self._seats.append(seat)
        try:
            yield seat
        finally:
            self._seats = [one for one in self._seats if one is not seat]
            self._taken[token] -= 1
            self._taken += Counter()  # drops those with none

    @property
    def taken(self) -> int:
        """How many streams there are."""
        return self._taken.total()
