"""Admits dialers: addresses, digest authentication, rate limit and concurrency, and lock-out after wrong passwords.

Digest by RFC 8760 with SHA-256 first and MD5 (RFC 7616) for those who know nothing else, qop `auth`. A nonce carries
its own time under a keyed hash, so none has to be remembered before it is used; each count of a nonce is taken once.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum

from router.sip.port import Invite

REALM = "baton"
NONCE_US = 60_000_000  # how long a nonce may be answered
MAX_NONCES = 10_000  # used ones that are remembered, for their counts
FAILURES_US = 60_000_000  # the span in which wrong passwords add up
MAX_SOURCES = 10_000  # of wrong passwords that are remembered
_ALGORITHMS = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
MAX_CREDENTIALS = 4096  # characters; a digest takes about 400
_PARAMETER = re.compile(r'(?<![a-z0-9])([a-z0-9]+)\s*=\s*(?:"([^"]*)"|([^,\s]+))', re.IGNORECASE)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Dialer:
    """A dialing system that may send transfers, by its source addresses."""

    name: str
    networks: tuple[Network, ...]
    username: str = ""  # where set, every INVITE must prove it
    password: str = field(default="", repr=False)
    max_calls: int = 0  # transfers at once; 0: not limited
    max_per_second: int = 0  # INVITEs; 0: not limited
    refer_hosts: tuple[str, ...] = ()  # to which it may move its end by REFER
    campaigns: frozenset[str] | None = None  # that it may call; None: all
    nat: bool = False  # its RTP may come from elsewhere than its session descriptions say

    def may_call(self, campaign: str) -> bool:
        return self.campaigns is None or campaign in self.campaigns


@dataclass(frozen=True, slots=True)
class TurnAway:
    """An INVITE that is answered at once and leaves no transfer. `why` is a label: a closed set."""

    code: int
    why: str
    headers: tuple[tuple[str, str], ...] = ()
    lock_out: bool = False


class Proof(Enum):
    """The result of checking an INVITE's credentials."""

    GOOD = "good"
    NONE = "none"  # none given: ask
    STALE = "stale"  # right, but its nonce is over, another router's, or its count was taken: ask anew
    WRONG = "wrong"


class DialerGuard:
    """Knows the dialers. `now_us` is the monotonic clock."""

    def __init__(self, dialers: tuple[Dialer, ...], *, lockout_failures: int = 5) -> None:
        self._key = secrets.token_bytes(32)
        self._used: OrderedDict[str, set[str]] = OrderedDict()  # nonce -> counts taken
        self._failures: OrderedDict[str, deque[int]] = OrderedDict()
        self._sent: dict[str, deque[int]] = {}
        self._by_source: OrderedDict[str, Dialer | None] = OrderedDict()
        self.admit(dialers, lockout_failures=lockout_failures)

    def admit(self, dialers: tuple[Dialer, ...], *, lockout_failures: int) -> None:
        """Exactly these from now on; challenges, rates and failures that are under way stay."""
        self.dialers = dialers
        self.lockout_failures = lockout_failures
        self._by_source.clear()

    def of(self, source: str) -> Dialer | None:
        """The dialer that sends from this address; None: nobody's."""
        if source not in self._by_source:
            if len(self._by_source) >= MAX_SOURCES:
                self._by_source.popitem(last=False)
            self._by_source[source] = self._find(source)
        return self._by_source[source]

    def _find(self, source: str) -> Dialer | None:
        try:
            address = ipaddress.ip_address(source)
        except ValueError:
            return None
        return next((one for one in self.dialers if any(address in network for network in one.networks)), None)

    def too_fast(self, dialer: Dialer, now_us: int) -> bool:
        """Count one INVITE; True where it is one too many in a second."""
        if not dialer.max_per_second:
            return False
        sent = self._sent.setdefault(dialer.name, deque())
        while sent and now_us - sent[0] >= 1_000_000:  # noqa: PLR2004 - a second
            sent.popleft()
        if len(sent) >= dialer.max_per_second:
            return True
        sent.append(now_us)
        return False

    def may_replace(self, dialer: Dialer, source: str, headers: dict[str, list[str]], now_us: int) -> bool:
        """An INVITE with Replaces: from its own addresses, and proven where it has a password; it cannot be asked."""
        if self.of(source) is not dialer:
            return False
        return not dialer.username or self.prove(dialer, "INVITE", headers, now_us) is Proof.GOOD

    def judge(self, dialer: Dialer, invite: Invite, now_us: int) -> TurnAway | None:
        """Hops, digest and rate, in this order; None: it may come in."""
        if invite.headers.get("max-forwards", [""])[0].strip() == "0":
            return TurnAway(483, "hops")
        proof = self.prove(dialer, "INVITE", invite.headers, now_us) if dialer.username else Proof.GOOD
        if proof is Proof.WRONG:
            return TurnAway(403, "password", lock_out=self.failed(invite.source, now_us))
        if proof is not Proof.GOOD:
            return TurnAway(401, "challenge", self.challenge(now_us, stale=proof is Proof.STALE))
        if self.too_fast(dialer, now_us):
            return TurnAway(503, "rate", (("Retry-After", "1"),))
        return None

    # --- digest ---

    def challenge(self, now_us: int, *, stale: bool = False) -> tuple[tuple[str, str], ...]:
        """WWW-Authenticate headers for a 401, the strongest first (RFC 8760 section 2.4).

        `stale`: the password was right, so that the client need ask nobody for another (RFC 7616 section 3.3).
        """
        nonce, again = self._nonce(now_us), ", stale=true" if stale else ""
        return tuple(
            ("WWW-Authenticate", f'Digest realm="{REALM}", nonce="{nonce}"{again}, algorithm={name}, qop="auth"')
            for name in ("SHA-256", "MD5")
        )

    def _nonce(self, now_us: int) -> str:
        stamp = f"{now_us:x}.{secrets.token_hex(6)}"
        return f"{stamp}.{hmac.new(self._key, stamp.encode(), 'sha256').hexdigest()[:24]}"

    def _fresh(self, nonce: str, now_us: int) -> bool:
        stamp, _, mark = nonce.rpartition(".")
        good = hmac.new(self._key, stamp.encode("utf-8", "replace"), "sha256").hexdigest()[:24]
        if not hmac.compare_digest(good, mark.encode("ascii", "replace").decode()):
            return False  # made by another router, or by this one before it was started anew
        return 0 <= now_us - int(stamp.partition(".")[0], 16) <= NONCE_US

    def prove(self, dialer: Dialer, method: str, headers: dict[str, list[str]], now_us: int) -> Proof:
        """Check an Authorization header (RFC 7616 section 3.4). A count used before is asked for again, not wrong.

        The response is checked whatever the nonce: STALE says that the password is right, so a wrong one has to count
        with any nonce, or passwords could be tried with old ones.
        """
        for value in headers.get("authorization", []):
            if len(value) > MAX_CREDENTIALS:
                continue  # nobody's: as if none were given
            said = {key.lower(): quoted or plain for key, quoted, plain in _PARAMETER.findall(value)}
            if said.get("realm") == REALM:
                return self._check(dialer, method, said, now_us)
        return Proof.NONE

    def _check(self, dialer: Dialer, method: str, answer: dict[str, str], now_us: int) -> Proof:
        nonce, count = (
            answer.get("nonce", ""),
            answer.get("nc", "") if answer.get("qop") else "",
        )  # else nothing covers it
        algorithm = _ALGORITHMS.get(answer.get("algorithm", "MD5").upper())
        if algorithm is None or answer.get("qop", "auth") != "auth":
            return Proof.WRONG

        def digest(text: str) -> str:
            return algorithm(text.encode("utf-8", "replace")).hexdigest()

        secret = digest(f"{dialer.username}:{REALM}:{dialer.password}")
        asked = digest(f"{method}:{answer.get('uri', '')}")
        middle = f"{nonce}:{count}:{answer.get('cnonce', '')}:auth" if answer.get("qop") else nonce
        good = digest(f"{secret}:{middle}:{asked}")
        same_user = hmac.compare_digest(answer.get("username", "").encode(), dialer.username.encode())
        if not (hmac.compare_digest(good.encode(), answer.get("response", "").lower().encode()) and same_user):
            return Proof.WRONG
        if not self._fresh(nonce, now_us) or count in self._used.get(nonce, ()):
            return Proof.STALE
        self._used.setdefault(nonce, set()).add(count)
        while len(self._used) > MAX_NONCES:
            self._used.popitem(last=False)
        return Proof.GOOD

    def failed(self, source: str, now_us: int) -> bool:
        """Note a wrong password; True where the source is to be locked out."""
        failures = self._failures.setdefault(source, deque())
        while failures and now_us - failures[0] > FAILURES_US:
            failures.popleft()
        failures.append(now_us)
        while len(self._failures) > MAX_SOURCES:
            self._failures.popitem(last=False)
        if len(failures) < self.lockout_failures:
            return False
        del self._failures[source]
        return True
