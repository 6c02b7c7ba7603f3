"""The engine's commands that are not about making or ending a call: media, recordings, trunks and doors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import structlog

from router.sip.accounts import Accounts
from router.sip.legs import LegBook
from router.sip.media import Media
from router.sip.out_of_dialog import Doors
from router.sip.pjlib import EngineUnusableError
from router.sip.port import Target
from router.sip.wire import packed, with_transport

if TYPE_CHECKING:
    from types import ModuleType

_log = structlog.get_logger("sip")


class Services:
    """A part of `PjsuaEngine`, which has what is named here."""

    legs: LegBook
    media: Media
    doors: Doors
    _pj: ModuleType
    _accounts: Accounts | None

    @property
    def _open_accounts(self) -> Accounts:
        if self._accounts is None:
            raise EngineUnusableError("the engine is closed")
        return self._accounts

    def play(self, handle: str, file: str, *, loop: bool = False) -> None:
        leg = self.legs.live.get(handle)
        if leg is not None:
            self.media.play(leg, file, loop=loop)

    def stop_playing(self, handle: str) -> None:
        leg = self.legs.live.get(handle)
        if leg is not None:
            self.media.stop_playing(leg)

    def record(self, caller: str, endpoint: str, file: str) -> bool:
        left, right = self.legs.live.get(caller), self.legs.live.get(endpoint)
        return left is not None and right is not None and self.media.record(left, right, file)

    def stop_recording(self, caller: str) -> int:
        leg = self.legs.known(caller)
        return self.media.stop_recording(leg) if leg is not None else -1

    def codec(self, handle: str) -> str:
        leg = self.legs.live.get(handle)
        codec: str = self._pj.baton_codec(leg.slot) if leg is not None and leg.slot >= 0 else ""
        return codec

    def probe(self, key: str, target: Target) -> None:
        try:
            account = self._open_accounts.for_target(target).getId()
        except self._pj.Error as error:
            _log.error("trunk_unusable", trunk=key, error=error.reason)
            account = -1
        self.doors.probe(key, account, with_transport(target))

    def reply(self, handle: int, code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.doors.reply(handle, code, packed(headers))

    def admit_sources(self, dialers: Sequence[Sequence[str]], *, drop: bool) -> None:
        self.doors.admit_sources(dialers, drop=drop)

    def admit_trunks(self, addresses: Collection[str]) -> None:
        self.doors.admit_trunks(addresses)

    def behind_nat(self, networks: Sequence[str]) -> None:
        self.doors.behind_nat(networks)

    def lock_out(self, source: str, seconds: int) -> None:
        self.doors.lock_out(source, seconds)

    def registered(self, target: Target) -> bool:
        try:
            return self._open_accounts.registered(target)
        except self._pj.Error as error:
            _log.error("trunk_unusable", uri=target.policy.registrar, error=error.reason)
            return False

    def keep_registered(self, targets: Sequence[Target]) -> None:
        self._open_accounts.keep_registered(targets)
