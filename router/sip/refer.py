"""Moves a dialer's end of a call: INVITE with Replaces (RFC 3891), or REFER (RFC 3515).

The transfer goes on: its leg keeps its handle and gets another dialog underneath. With Replaces the new dialog is there
at once; with REFER the engine dials it and changes over when it answers. Whether either is allowed is the router's to
say (`EngineListener.may_refer` and `may_replace`); a buyer may do neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from book.sip_uri import host_of
from router.clock import monotonic_us
from router.sip.legs import Leg, LegBook
from router.sip.media import Media
from router.sip.message import split_message
from router.sip.port import EngineListener, EventKind, LegEvent, LegSignal
from router.sip.registry import Calls

if TYPE_CHECKING:
    from types import ModuleType

FORBIDDEN = 403
RING_US = 60_000_000  # how long the place that a REFER names may ring
DIAL_US = 1_000_000  # by when pjsua has dialled it, if it ever will
_FAILURES = (EventKind.FAILED, EventKind.GONE, EventKind.NOT_SENT, EventKind.BYE)
_log = structlog.get_logger("sip")


def own_tag(pj: ModuleType, slot: int) -> str:
    """Our tag of the dialog in a slot, as the tap shows it; empty where there is none."""
    _, _, rest = pj.baton_call_names(slot).partition("\x1f")
    tag: str = rest.partition("\x1f")[0]
    return tag


class DialogMoves:
    """Legs whose far end is being moved."""

    def __init__(
        self, pj: ModuleType, legs: LegBook, calls: Calls, media: Media, listener: Callable[[], EngineListener]
    ) -> None:
        self._pj = pj
        self._legs = legs
        self._calls = calls
        self._media = media
        self._listener = listener
        self._waiting: dict[str, tuple[str, Any]] = {}  # handle of the dialog to be -> leg, pj Call
        self._since_us: dict[str, int] = {}
        self._serial = 0

    # --- Replaces ---

    def replace_asked(self, handle: str, account: Any, source: str, text: str) -> Any:
        """The pj Call for the new dialog, or None: refused."""
        leg = self._legs.live.get(handle)
        _, headers, _, _ = split_message(text)
        if leg is None or not leg.incoming or not self._listener().may_replace(handle, source, headers):
            return None
        return self._calls.new(handle, account)

    def replaced(self, handle: str, call: Any, slot: int) -> None:
        leg = self._legs.live.get(handle)
        if leg is not None:
            self._calls.swap(handle, call)
            self._change_over(leg, slot, "replaces")

    # --- REFER ---

    def refer_asked(self, handle: str, account: Any, to: str) -> Any:
        """The pj Call that will be dialled, or None: refused."""
        leg = self._legs.live.get(handle)
        if leg is None or not leg.incoming or not leg.bridged or not self._listener().may_refer(handle, host_of(to)):
            return None
        for lost in [new for new, (_, call) in self._waiting.items() if call.getId() < 0]:
            self._give_up(lost)  # pjsua could not even dial it
        if any(moved == handle for moved, _ in self._waiting.values()):
            return None
        self._serial += 1
        new = f"{handle}~{self._serial}"
        call = self._calls.new(new, account)
        self._waiting[new] = (handle, call)
        self._since_us[new] = monotonic_us()
        return call

    def over(self, handle: str) -> None:
        """The leg is gone: whoever is being dialled to take its place has nobody to talk to."""
        for new in [new for new, (leg, _) in self._waiting.items() if leg == handle]:
            self._give_up(new)

    def sweep(self, now_us: int) -> None:
        """Give up on dialogs that were never dialled, and on those that ring too long."""
        for new, since_us in list(self._since_us.items()):
            age_us = now_us - since_us
            if age_us > RING_US or (age_us > DIAL_US and self._waiting[new][1].getId() < 0):
                self._give_up(new)

    def _give_up(self, new: str) -> None:
        _, call = self._waiting.pop(new)
        self._since_us.pop(new, None)
        slot = call.getId()
        self._legs.hung_up(new, monotonic_us())
        if slot < 0:
            self._calls.drop(new)
        else:
            self._calls.retire(new, slot)
            self._calls.end_retired(slot)

    @property
    def any(self) -> bool:
        return bool(self._waiting)

    def sort(self, batch: list[LegEvent]) -> list[LegEvent]:
        """Take out the events of dialogs that are to be, and act on them."""
        for new, (handle, call) in list(self._waiting.items()):
            for event in [one for one in batch if one.handle == new]:
                batch.remove(event)
                if event.kind is EventKind.ANSWERED:
                    self._answered(new, handle, call)
                elif event.kind is EventKind.UNSERVED:
                    _log.info("refer_failed", leg=handle, code=event.code, why="no audio can be agreed on")
                    self._give_up(new)
                elif event.kind in _FAILURES:
                    self._waiting.pop(new, None)
                    self._since_us.pop(new, None)
                    _log.info("refer_failed", leg=handle, code=event.code if isinstance(event, LegSignal) else 0)
        return batch

    def adopt(self) -> None:
        """pjsua dials after our callback has returned; only then is there a slot, and a Call-ID to know it by."""
        for new, (_, call) in self._waiting.items():
            slot = call.getId()
            if new not in self._legs.live and slot >= 0:
                self._legs.add(new, tag=own_tag(self._pj, slot), slot=slot)

    def _answered(self, new: str, handle: str, call: Any) -> None:
        self._waiting.pop(new, None)
        self._since_us.pop(new, None)
        legs = self._legs
        fresh, leg = legs.live.pop(new, None), legs.live.get(handle)
        if fresh is None:
            return
        if leg is None:  # the transfer ended meanwhile: nobody is left to talk to
            self._calls.retire(new, fresh.slot)
            self._calls.end_retired(fresh.slot)
            return
        call.handle = handle
        old = leg.slot
        self._calls.swap(handle, call)
        self._change_over(leg, fresh.slot, "refer")
        self._calls.end_retired(old)

    def _change_over(self, leg: Leg, slot: int, how: str) -> None:
        self._pj.baton_watch(leg.slot, False)
        leg.slot, leg.left, leg.final = slot, None, None
        self._legs.alias(own_tag(self._pj, slot), leg)
        self._pj.baton_watch(slot, True)
        self._media.tie(leg)
        self._media.moved(leg, how)
