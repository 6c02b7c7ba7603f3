"""The state of the moment for selection: live transfers, healthy trunks, verdicts of the lists.

Concurrency is counted from the live transfers themselves, never kept as a number that could drift (lessons 18).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping

from book.limits import Usage
from book.model import Buyer, Endpoint, EndpointKind
from facts.answers import ScrubResult
from router.config import Carrier
from router.ports import Scrubber, UsageReader
from router.routing.health import Health, Trunks
from router.routing.trunks import carrier_name, trunk_name, trunk_target
from router.sip.port import SipEngine, Target
from router.transfer.model import LegPhase
from router.transfer.shell import TransferShell


class LiveTransfers(dict[str, TransferShell]):
    """The transfers that are up, by id, and those of one buyer at a glance. No numbers are kept that could drift."""

    def __init__(self) -> None:
        super().__init__()
        self._of: dict[str, dict[str, TransferShell]] = {}

    def enter(self, shell: TransferShell) -> None:
        self[shell.transfer] = shell
        if not shell.start.refusal:  # a transfer that was refused may name a buyer, and rings nobody
            self._of.setdefault(shell.start.buyer, {})[shell.transfer] = shell

    def leave(self, shell: TransferShell) -> None:
        self.pop(shell.transfer, None)
        of_buyer = self._of.get(shell.start.buyer, {})
        of_buyer.pop(shell.transfer, None)
        if not of_buyer:
            self._of.pop(shell.start.buyer, None)

    def of_buyer(self, buyer: str) -> Collection[TransferShell]:
        return self._of.get(buyer, {}).values()


class RouterSurroundings:
    """`router.routing.selection.Surroundings` of one router."""

    def __init__(
        self,
        *,
        live: LiveTransfers,
        carriers: Mapping[str, Carrier],
        trunks: Trunks,
        engine: SipEngine,
        scrubber: Scrubber,
        usage: UsageReader,
    ) -> None:
        self._live = live
        self._carriers = carriers
        self._trunks = trunks
        self._engine = engine
        self._scrubber = scrubber
        self._usage = usage

    def usage(self, buyer: str) -> Usage:
        return self._usage.usage(buyer)

    def live(self, buyer: str) -> int:
        return len(self._live.of_buyer(buyer))

    def scrub(self, buyer: str, phone: str) -> ScrubResult:
        return self._scrubber.check(phone, buyer)

    def left_out(self, buyer: Buyer, endpoint: Endpoint) -> str:
        carrier = self._carriers.get(endpoint.carrier) if endpoint.kind is EndpointKind.DID else None
        if endpoint.kind is EndpointKind.DID and carrier is None:
            return "no_carrier"
        why = self._way(carrier.target, carrier_name(carrier.name)) if carrier is not None else ""
        return why or self._own(buyer, endpoint, carrier)

    def _own(self, buyer: Buyer, endpoint: Endpoint, carrier: Carrier | None) -> str:
        policy = endpoint.policy
        if carrier is None and (policy.registrar or policy.probe_s):
            why = self._way(trunk_target(endpoint), trunk_name(buyer.name, endpoint.name))
            if why:
                return why
        own_calls, name = self._live.of_buyer(buyer.name), endpoint.name
        if policy.max_calls and _calls(own_calls, lambda dialled: dialled.name == name) >= policy.max_calls:
            return "busy"
        limit = carrier.target.policy.max_calls if carrier is not None else 0
        over = limit and _calls(self._live.values(), lambda dialled: dialled.carrier == endpoint.carrier) >= limit
        return "busy" if over else ""

    def _way(self, target: Target, name: str) -> str:
        if target.policy.registrar and not self._engine.registered(target):
            return "unregistered"
        return "down" if self._trunks.health(name) is Health.DOWN else ""


def _calls(shells: Iterable[TransferShell], counts: Callable[[Endpoint], bool]) -> int:
    """Legs that are up at endpoints of a kind."""
    return sum(
        1
        for shell in shells
        for number, endpoint in enumerate(shell.start.endpoints, start=1)
        if counts(endpoint) and _up(shell, number)
    )


def _up(shell: TransferShell, number: int) -> bool:
    return number <= len(shell.state.legs) and shell.state.leg(number) is not LegPhase.ENDED


def new_seed() -> int:
    """The seed of one selection; recorded, so that the lots can be drawn again."""
    return secrets.randbits(32)
