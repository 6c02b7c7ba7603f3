"""How many streams there may be, of one token and in all: the live view and the events count together."""

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
class OpenStream:
    """A stream that is counted. `ended`: it is to end, as the portal stops or its token may be out of force."""

    ended: bool = False


class StreamLimit:
    """Counts open streams, at most `most` in all and `of_token` of each token. Once closed it opens no other."""

    def __init__(self, most: int = MAX_STREAMS, of_token: int = MAX_STREAMS_PER_TOKEN) -> None:
        self._most, self._most_of_token = most, of_token
        self._open_of: Counter[str] = Counter()
        self._streams: list[OpenStream] = []
        self.closed = False

    def end_all(self) -> None:
        """End the streams there are: their clients come again by themselves, and are asked again who they are."""
        for stream in self._streams:
            stream.ended = True

    def close(self) -> None:
        """End all streams, and take no other."""
        self.closed = True
        self.end_all()

    @contextlib.contextmanager
    def open(self, token: str) -> Iterator[OpenStream]:
        """Count a stream while it is open. Raises ProblemError 429: too many of its token, 503: too many in all."""
        if self._open_of[token] >= self._most_of_token:
            metrics.HTTP_LIMITED.labels("streams").inc()
            raise ProblemError(429, f"this token has {self._most_of_token} streams already", headers=_RETRY)
        if self.closed or self.count >= self._most:
            raise ProblemError(503, "there is no room for another stream", headers=_RETRY)
        self._open_of[token] += 1
        opened = OpenStream()
        self._streams.append(opened)
        try:
            yield opened
        finally:
            self._streams = [stream for stream in self._streams if stream is not opened]
            self._open_of[token] -= 1
            self._open_of += Counter()  # drops those with none

    @property
    def count(self) -> int:
        """How many streams there are."""
        return self._open_of.total()
