"""The router's configuration: dialers, carriers and limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from book.sip_uri import without_user
from router.dialers import Dialer
from router.sip.port import Target


@dataclass(frozen=True, slots=True)
class Carrier:
    """The operator's own way to the telephone network, for DIDs. `target.uri` has `{number}` where the DID goes."""

    name: str
    target: Target

    @property
    def host_uri(self) -> str:
        """Where to send an OPTIONS: the URI without the number."""
        return without_user(self.target.uri)


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """The router's configuration. Durations in ms, 0: never."""

    dialers: tuple[Dialer, ...]
    carriers: dict[str, Carrier] = field(default_factory=dict)
    drop_unknown: bool = False  # requests from nobody's address get no answer
    lockout_failures: int = 5
    lockout_seconds: int = 300
    rtp_timeout_ms: int = 0
    fast_answer_ms: int = 0
    probe_down_after: int = 3
    probe_up_after: int = 2
