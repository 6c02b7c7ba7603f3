"""How long a prompt is: read once from the file's header, again where the file changed."""

from __future__ import annotations

import wave
from functools import lru_cache
from pathlib import Path

import structlog

_log = structlog.get_logger("router")


def wav_ms(file: str) -> int:
    """Milliseconds, rounded down; 0 where there is no such WAV file, which is logged: a call is not lost for it."""
    if not file:
        return 0
    try:
        return _length(file, Path(file).stat().st_mtime_ns)
    except (OSError, EOFError, wave.Error) as error:
        _log.error("prompt_unreadable", file=file, error=str(error))
        return 0


@lru_cache(maxsize=1024)
def _length(file: str, _changed_ns: int) -> int:
    with wave.open(file, "rb") as found:
        return found.getnframes() * 1000 // found.getframerate()
