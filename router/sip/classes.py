"""Account and Call with our callbacks, as thin as they can be: each hands an id to the engine and returns.

They are made by a function because their base classes are there only once pjsua2 is loaded. They hold the engine and
ids, never each other (lessons 8: objects in reference cycles, collected late, hung up other calls).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from router.sip.pjlib import guarded
from router.sip.refer import FORBIDDEN, DialogMoves

if TYPE_CHECKING:
    from types import ModuleType


class Callbacks(Protocol):
    """The callbacks from PJSIP to the engine."""

    def on_incoming(self, account: Any, slot: int, text: str, source: str) -> None: ...

    def on_over(self, handle: str, slot: int) -> None: ...

    def on_media(self, handle: str) -> None: ...

    def on_registration(self, account: Any, code: int, good: bool) -> None: ...

    @property
    def moves(self) -> DialogMoves: ...

    def fault(self, handle: str, where: str) -> None: ...


def make_classes(pj: ModuleType) -> tuple[Any, Any]:  # noqa: C901 - a class statement counts as branches
    """Account and Call with our callbacks; made late, because pjsua2 is imported late."""

    class BatonAccount(pj.Account):  # type: ignore[name-defined, misc, unused-ignore]
        def __init__(self, engine: Callbacks) -> None:
            super().__init__()
            self.engine = engine

        @guarded
        def onIncomingCall(self, prm: Any) -> None:  # noqa: N802 - PJSIP's name
            self.engine.on_incoming(self, prm.callId, prm.rdata.wholeMsg, prm.rdata.srcAddress)

        @guarded
        def onRegState(self, prm: Any) -> None:  # noqa: N802
            self.engine.on_registration(self, prm.code, prm.code // 100 == 2 and prm.expiration > 0)  # noqa: PLR2004

    class BatonCall(pj.Call):  # type: ignore[name-defined, misc, unused-ignore]
        def __init__(self, engine: Callbacks, handle: str, account: Any, slot: int = -1) -> None:
            super().__init__(account, slot)
            self.engine = engine
            self.handle = handle
            self.account = account

        def fault(self, where: str) -> None:
            self.engine.fault(self.handle, where)

        @guarded
        def onCallState(self, _prm: Any) -> None:  # noqa: N802
            self.engine.on_over(self.handle, self.getId())

        @guarded
        def onCallMediaState(self, _prm: Any) -> None:  # noqa: N802
            self.engine.on_media(self.handle)

        @guarded
        def onCallReplaceRequest(self, prm: Any) -> None:  # noqa: N802
            source = prm.rdata.srcAddress.rpartition(":")[0].strip("[]")
            prm.statusCode = FORBIDDEN
            call = self.engine.moves.replace_asked(self.handle, self.account, source, prm.rdata.wholeMsg)
            if call is not None:
                prm.newCall = call
                prm.statusCode = 200

        @guarded
        def onCallReplaced(self, prm: Any) -> None:  # noqa: N802
            self.engine.moves.replaced(self.handle, prm.newCall, prm.newCallId)

        @guarded
        def onCallTransferRequest(self, prm: Any) -> None:  # noqa: N802
            prm.statusCode = FORBIDDEN
            call = self.engine.moves.refer_asked(self.handle, self.account, prm.dstUri)
            if call is not None:
                prm.newCall = call
                prm.statusCode = 202

    return BatonAccount, BatonCall
