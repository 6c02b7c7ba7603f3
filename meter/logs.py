"""Logs: one line per event, with phone numbers and secrets masked before anything is written. A leaf.

Masked is every run of seven digits or more (with its plus), a number written the American way, the numeric user part of
a SIP URI, a password inside a URL, and the value of any key that sounds secret. Seven digits are the shortest
subscriber number; the last four stay, which is enough to find a call and too little to dial. The values of a few keys
are left alone, since they are ids and times that Baton made itself and that would otherwise look like numbers.

Lines of other libraries go the same way, through the standard logging module.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

import orjson
import structlog

LEVELS = ("debug", "info", "warning", "error")
HIDDEN = "***"
_KEPT_DIGITS = 4
_SEVEN_DIGITS = 1_000_000  # the smallest number that is masked
_MAX_DEPTH = 6  # of values inside values; what is deeper is shown as hidden

# Made by Baton or by the clock, never by the network.
OWN_KEYS = frozenset({"transfer", "call_id", "boot", "router", "message_id", "timestamp", "seq", "pid", "event_id"})
_OWN_SUFFIXES = ("_us", "_ms", "_s", "_bytes", "_count")
_SECRET = re.compile(r"passw|secret|token|authorization|credential|api_?key|cookie", re.IGNORECASE)

_NUMBER = re.compile(
    r"(?<=://)[^\s/@]+:[^\s/@]+(?=@)"  # user and password in a URL
    r"|(?<=sip:)\+?\d{5,}(?=[@;>:])|(?<=sips:)\+?\d{5,}(?=[@;>:])"  # user part of a SIP URI
    r"|\+?\d{7,}"
    r"|\(?\b\d{3}\)?[ .-]\d{3}[ .-]\d{4}\b"  # 212-555-0123, (212) 555-0123
)


def mask(text: str) -> str:
    """The text with every number in it that could be dialled reduced to its last four digits."""
    return _NUMBER.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    text = found.group()
    if ":" in text:
        return HIDDEN
    return HIDDEN + text[-_KEPT_DIGITS:]


def mask_event(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """The structlog processor: masks every value of an event, whatever it is."""
    return {key: _mask_value(key, value, 0) for key, value in event.items()}


def _mask_value(key: str, value: Any, depth: int) -> Any:
    if _SECRET.search(key):
        return HIDDEN
    if value is None or isinstance(value, bool | float):
        return value
    if key in OWN_KEYS or key.endswith(_OWN_SUFFIXES):
        return value if isinstance(value, int | str) else mask(str(value))
    if isinstance(value, int):
        return value if abs(value) < _SEVEN_DIGITS else mask(str(value))
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _mask_inside(key, value, depth + 1)
    return mask(value if isinstance(value, str) else str(value))


def _mask_inside(key: str, value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return HIDDEN
    if isinstance(value, Mapping):
        return {mask(str(name)): _mask_value(str(name), one, depth) for name, one in value.items()}
    return [_mask_value(key, one, depth) for one in value]


def configure(*, json: bool, level: str) -> None:
    """Send all logs to standard error, as JSON lines or for people. `level` is one of LEVELS, else ValueError."""
    if level not in LEVELS:
        raise ValueError(f"log level: {level!r} is none of {', '.join(LEVELS)}")
    number = logging.getLevelNamesMapping()[level.upper()]
    before: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        mask_event,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer(serializer=_as_json)
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_plain)
    )
    structlog.configure(
        processors=[*before, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, mask_event, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))  # other libraries: what goes wrong only


def _plain(sio: Any, exc_info: Any) -> None:  # pragma: no cover - exceptions are text by then
    structlog.dev.plain_traceback(sio, exc_info)


def _as_json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
