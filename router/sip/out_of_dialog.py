"""Requests outside dialogs: their admission, OPTIONS for availability, and our own probes of trunks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import structlog

from router.clock import monotonic_us
from router.sip.counters import Counters
from router.sip.message import split_message, user_of
from router.sip.port import Ask, EngineListener, Probed
from telemetry import metrics

if TYPE_CHECKING:
    from types import ModuleType

PROBE_TIMEOUT_US = 2_000_000  # a trunk that takes longer to say "yes" is not one to ring; timer F is 32 s
_log = structlog.get_logger("sip")


class OutOfDialog:
    """The engine's dealings outside calls."""

    def __init__(self, pj: ModuleType, listener: Callable[[], EngineListener]) -> None:
        self._pj = pj
        self._listener = listener
        self._counters = Counters()
        self._counters.increase("rtp", pj.baton_rtp_strangers())  # of an engine before in this process
        self._probes: dict[str, int] = {}  # key of each probe under way -> when it was sent
        self._serial = 0
        self._trunks: Collection[str] = ()

    def admit_sources(self, dialers: Sequence[Sequence[str]], *, drop: bool) -> None:
        lines = [f"{network} {number}" for number, networks in enumerate(dialers) for network in networks]
        understood = self._pj.baton_gate_networks("\n".join(lines), drop)
        if understood != len(lines):
            _log.error("networks_not_understood", given=len(lines), understood=understood)

    def admit_trunks(self, addresses: Collection[str]) -> None:
        if addresses != self._trunks:
            self._trunks = addresses
            self._pj.baton_gate_trunks("\n".join(addresses))

    def knows(self, source: str) -> bool:
        """Whether it is an address of a dialer's."""
        return bool(self._pj.baton_knows(source))

    def behind_nat(self, networks: Sequence[str]) -> None:
        if self._pj.baton_nat_networks("\n".join(networks)) != len(networks):
            _log.error("networks_not_understood", given=len(networks))

    def lock_out(self, source: str, seconds: int) -> None:
        self._pj.baton_gate_lock(source, seconds * 1000)

    # --- OPTIONS from dialers ---

    def look(self) -> bool:
        """Hand on what came; True where there was something."""
        pj = self._pj
        found = False
        if pj.baton_options_pending():
            found = True
            for record in pj.baton_options_drain().split("\x1e")[:-1]:
                number, source, trunk, text = record.split("\x1f", 3)
                request, headers, _, _ = split_message(text)
                self._listener().on_ask(Ask(int(number), source, user_of(request), headers, trunk=trunk == "1"))
        if pj.baton_probe_pending():
            found = True
            for record in pj.baton_probe_drain().split("\x1e")[:-1]:
                key, code, local, took_us = record.split("\x1f")
                if self._probes.pop(key, None) is not None:
                    self._tell(key, 0 if local == "1" else int(code), int(took_us))
        return found

    def reply(self, handle: int, code: int, headers: str) -> None:
        status = self._pj.baton_options_answer(handle, code, headers)
        if status:
            _log.debug("options_not_answered", status=status)

    # --- probes ---

    def probe(self, key: str, account: int, uri: str) -> None:
        self._serial += 1
        tagged = f"{key}\x1d{self._serial}"
        self._probes[tagged] = monotonic_us()
        if account < 0 or self._pj.baton_probe_send(account, uri, tagged):
            self._probes.pop(tagged, None)
            self._tell(tagged, 0, 0)

    def _tell(self, tagged: str, code: int, took_us: int) -> None:
        self._listener().on_probed(Probed(tagged.partition("\x1d")[0], code, took_us))

    def sweep(self) -> None:
        """Give up on probes that take too long, and count what the gate dropped."""
        now_us = monotonic_us()
        for tagged in [one for one, at_us in self._probes.items() if now_us - at_us >= PROBE_TIMEOUT_US]:
            del self._probes[tagged]
            self._tell(tagged, 0, PROBE_TIMEOUT_US)
        pj = self._pj
        if dropped := self._counters.increase("gate", pj.baton_gate_dropped()):
            metrics.SIP_DROPPED.inc(dropped)
            _log.warning("requests_dropped", count=dropped, last=pj.baton_gate_last_source())
        if strangers := self._counters.increase("rtp", pj.baton_rtp_strangers()):
            metrics.RTP_DROPPED.inc(strangers)
            _log.warning("rtp_of_strangers_dropped", count=strangers)
        if lost := self._counters.increase("tap", pj.baton_tap_dropped()):
            metrics.ENGINE_FAULTS.labels(kind="tap").inc(lost)
            _log.error("records_of_messages_lost", count=lost)
        self._count("offer", pj.baton_refused_offers())
        self._count("large", pj.baton_large())
        self._count("cut", pj.baton_cut())
        self._count("malformed", pj.baton_requests_unread())
        self._count("malformed_response", pj.baton_responses_unread())
        self._count("method", pj.baton_methods_refused())
        self._count("share", pj.baton_requests_over_share())
        self._count("connection", pj.baton_connections_refused())
        metrics.SIP_CONNECTIONS.set(pj.baton_connections_look())

    def _count(self, why: str, refused: int) -> None:
        """Messages and connections that were refused before anything was made of them."""
        if more := self._counters.increase(why, refused):
            metrics.INVITES_TURNED_AWAY.labels(why).inc(more)
            _log.warning("messages_refused", why=why, count=more)
