"""A leg's event of any kind, for tests that draw kinds at random."""

from __future__ import annotations

from typing import Any, get_args

from router.sip.port import EventKind, LegEvent, SignalKind
from tests.memory import leg_event

_WORD = {
    EventKind.DIGIT: "digit",
    EventKind.BRIDGED: "codecs",
    EventKind.NOT_SENT: "why",
    EventKind.FAULT: "what",
    EventKind.MOVED: "how",
}


def any_event(kind: EventKind, at_us: int, *, code: int = 0, word: str = "", local: bool = False) -> LegEvent:
    """What of the rest an event of this kind has no place for is left out."""
    said: dict[str, Any] = {}
    if kind in get_args(SignalKind):
        said = {"code": code, "phrase": word, "local": local}
    elif kind in _WORD:
        said = {_WORD[kind]: word}
    return leg_event("h", kind, at_us, 0, **said)
