"""The only strong references to pj Call objects, by leg handle.

A Call is dropped inside its DISCONNECTED callback and nowhere else: `~Call()` hangs up whatever call has its id by then
(lessons 8). A leg may change its dialog; the Call of the dialog before is retired, not dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType


class Calls:
    """pj Calls of one engine."""

    def __init__(self, pj: ModuleType, make: Callable[[str, Any], Any]) -> None:
        self._pj = pj
        self._make = make
        self._live: dict[str, Any] = {}
        self._retired: dict[int, Any] = {}  # by slot, until it is over

    def get(self, handle: str) -> Any:
        return self._live.get(handle)

    def put(self, handle: str, call: Any) -> None:
        self._live[handle] = call

    def drop(self, handle: str) -> None:
        self._live.pop(handle, None)

    def new(self, handle: str, account: Any) -> Any:
        """A Call under this handle; where the handle has one already, the new one is its successor to be."""
        call = self._make(handle, account)
        self._live[f"{handle}+" if handle in self._live else handle] = call
        return call

    def swap(self, handle: str, call: Any) -> None:
        """`call` is the handle's from now on; what was there before is retired."""
        before = self._live.get(handle)
        for name in [name for name, one in self._live.items() if one is call]:
            del self._live[name]
        if before is not None and before is not call:
            self._retired[before.getId()] = before
        self._live[handle] = call

    def retire(self, handle: str, slot: int) -> None:
        call = self._live.pop(handle, None)
        if call is not None:
            self._retired[slot] = call

    def end_retired(self, slot: int) -> None:
        """BYE on a dialog that no leg has any more."""
        call = self._retired.get(slot)
        if call is not None:
            with contextlib.suppress(self._pj.Error):
                call.batonHangUp("")

    def over(self, handle: str, slot: int) -> bool:
        """A dialog is over; True where it was the leg's own."""
        if self._retired.pop(slot, None) is not None:
            return False
        self._live.pop(handle, None)
        self._live.pop(f"{handle}+", None)  # a successor that never came to be
        return True

    def clear(self) -> None:
        self._live.clear()
        self._retired.clear()

    def __len__(self) -> int:
        return len(self._live) + len(self._retired)
