"""The real clock: the loop's time, and how late the loop may be.

`LagSelector` notes when the loop went to sleep and when it woke. An event handled now arrived either while the loop
slept (then it waited since the wake-up) or while the loop was busy with the turn before (then it may have waited since
that turn began). The sum of doubt is `lag_us`; every duration that stands against a bound has it subtracted (domain,
section 2).
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable

# A select that returned within this had something ready at once: it may have arrived during the turn before.
READY_AT_ONCE_US = 50


def monotonic_us() -> int:
    """Microseconds of CLOCK_MONOTONIC, the clock of the SIP engine's tap too."""
    return time.monotonic_ns() // 1000


class LagSelector(selectors.DefaultSelector):
    """A selector that knows since when an event may have been waiting."""

    def __init__(self) -> None:
        super().__init__()
        self._woke_us = monotonic_us()
        self._doubt_from_us = self._woke_us
        self.worst_us = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        slept_us = monotonic_us()
        self.worst_us = max(self.worst_us, slept_us - self._woke_us)
        ready = super().select(timeout)
        now_us = monotonic_us()
        at_once = now_us - slept_us < READY_AT_ONCE_US
        self._doubt_from_us = self._woke_us if at_once else now_us
        self._woke_us = now_us
        return ready

    def lag_us(self) -> int:
        """Upper bound of how long the event being handled has waited, in microseconds."""
        return monotonic_us() - self._doubt_from_us

    def take_worst_us(self) -> int:
        """Longest turn of the loop since the last call."""
        worst, self.worst_us = self.worst_us, 0
        return worst


class LoopClock:
    """`router.sip.port.Clock` on an asyncio loop whose selector is a `LagSelector`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, selector: LagSelector) -> None:
        self._loop = loop
        self._selector = selector

    def now_us(self) -> int:
        return monotonic_us()

    def utc_us(self) -> int:
        return time.time_ns() // 1000

    def lag_us(self) -> int:
        return self._selector.lag_us()

    def take_worst_lag_us(self) -> int:
        return self._selector.take_worst_us()

    def call_at(self, when_us: int, action: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_at(when_us / 1e6, action)


def new_loop() -> tuple[asyncio.AbstractEventLoop, LoopClock]:
    """An event loop that measures its own lag, and its clock."""
    selector = LagSelector()
    loop = asyncio.SelectorEventLoop(selector)
    return loop, LoopClock(loop, selector)
