"""How often who may ask: per token, and per address where no token is known; in memory, of this process alone.

Windows are fixed and of a minute: a counter for each token and address, whatever comes. At most `MAX_KEYS` are kept
apart; beyond that, strangers share one window, so that a flood from everywhere fills no memory. An IPv6 address stands
for its /64, which is what one subscriber has (RFC 6177).
"""

from __future__ import annotations

import ipaddress
import math
import time

import structlog
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from portal.http.problems import ProblemError
from telemetry import metrics

MAX_KEYS = 4_096
TRIALS_PER_MINUTE = 6  # of a buyer's webhooks: each is a request to a host that the buyer names
_PREFIX = 64
_OTHERS = "others"

_log = structlog.get_logger("portal")


class RateLimit:
    """Counts requests. Each method raises ProblemError 429 once its bound is passed."""

    def __init__(self, requests_per_minute: int, failures_per_minute: int) -> None:
        self._requests = RateLimitItemPerMinute(requests_per_minute, namespace="requests")
        self._failures = RateLimitItemPerMinute(failures_per_minute, namespace="failures")
        self._trials = RateLimitItemPerMinute(TRIALS_PER_MINUTE, namespace="tests")
        self._told = RateLimitItemPerMinute(1, namespace="told")  # the log has each flood once a minute
        self._storage = MemoryStorage()
        self._limiter = FixedWindowRateLimiter(self._storage)

    async def of_token(self, name: str) -> None:
        """One more request of a token."""
        await self._spend(self._requests, f"token {name}")

    async def of_stranger(self, address: str) -> None:
        """One more request without a token that is known."""
        await self._spend(self._requests, self._known(self._requests, source(address)))

    async def of_failure(self, address: str) -> None:
        """One more token or signature that is missing or wrong."""
        await self._spend(self._failures, self._known(self._failures, source(address)))

    async def of_trial(self, buyer: str) -> None:
        """One more sample for a buyer's webhooks."""
        await self._spend(self._trials, f"buyer {buyer}")

    def _known(self, item: RateLimitItemPerMinute, whose: str) -> str:
        expirations = self._storage.expirations
        return whose if len(expirations) < MAX_KEYS or item.key_for(whose) in expirations else _OTHERS

    async def _spend(self, item: RateLimitItemPerMinute, whose: str) -> None:
        if await self._limiter.hit(item, whose):
            return
        metrics.HTTP_LIMITED.labels(item.namespace).inc()
        if await self._limiter.hit(self._told, item.namespace, whose):
            _log.warning("rate_limited", what=item.namespace, whose=whose, per_minute=item.amount)
        reset = (await self._limiter.get_window_stats(item, whose)).reset_time
        wait_s = max(1, math.ceil(reset - time.time()))
        raise ProblemError(429, f"more than {item.amount} a minute", headers={"Retry-After": str(wait_s)})


def source(address: str) -> str:
    """The address as it is counted: of IPv6 its /64; `unknown` where it is none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped or ipaddress.ip_network((parsed, _PREFIX), strict=False))
    return str(parsed)
