"""Logs: one line per event, with phone numbers and secrets masked before anything is written. A leaf.

Masked is every run of seven digits or more (with its plus), also with single separators where it looks like a phone
number, the numeric user part of a SIP URI, a password inside a URL, what follows `Bearer` or `password=`, and the value
of any key that sounds secret. Dates, addresses and ids are no phone numbers. Seven digits are the shortest
subscriber number; the last four stay, which is enough to find a call and too little to dial. The values of a few keys
are left alone, since they are ids and times that Baton made itself and that would otherwise look like numbers.

Lines of other libraries go the same way, through the standard logging module.

What is logged while a transfer is being worked on bears its id and the leg's (`about`). Each part of Baton may have a
level of its own, and of events that come with every transfer a share may be kept: all lines of that name of one
transfer, or none, drawn by its id, so that what is left can be followed. From `warning` up nothing is left out.
"""

from __future__ import annotations

import logging
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

import orjson
import structlog

LEVELS = ("debug", "info", "warning", "error")
_DRAWN_OF = 10_000  # a share is so many of these

_about: ContextVar[tuple[str, int | None] | None] = ContextVar("about", default=None)

HIDDEN = "***"
_KEPT_DIGITS = 4
_SEVEN_DIGITS = 1_000_000  # the smallest number that is masked
_MAX_DEPTH = 6  # of values inside values; what is deeper is shown as hidden

# Made by Baton or by the clock, never by the network.
OWN_KEYS = frozenset({"transfer", "call_id", "boot", "router", "message_id", "timestamp", "seq", "pid", "event_id"})
_OWN_SUFFIXES = ("_us", "_ms", "_s", "_bytes", "_count")
_SECRET = re.compile(r"passw|secret|token|authorization|credential|api_?key|cookie", re.IGNORECASE)

_BEFORE, _AFTER = r"(?<![\w.:+/-])", r"(?![\w:]|[./-]\w)"  # it stands by itself: no part of an id or of a time
_NUMBER = re.compile(
    r"(?P<named>(?i:passw(?:or)?d|passphrase|secret|token|api_?key)\w{0,20}(?:=|[\"']\s?:\s?(?=[\"'])))"
    r"(?:\"[^\"]*\"?|'[^']*'?|[^\s&,;\"']+)"  # password=..., "password": "..."
    r"|(?P<bearer>\b[Bb]earer )[^\s,;\"']+"
    r"|\bwhsec_[\w+/=-]+"
    r"|(?<=://)[^\s/@]+:[^\s/@]+(?=@)"  # user and password in a URL
    r"|(?P<kept>(?<![\d.+(])(?:(?:19|20)\d\d([-/.])(?:0?[1-9]|1[0-2])\4(?:0?[1-9]|[12]\d|3[01])(?!\d)"  # a date
    r"|(?:0?[1-9]|[12]\d|3[01])([-/.])(?:0?[1-9]|[12]\d|3[01])\5(?:19|20)\d\d(?!\d)"  # the day or the month first
    r"|(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?::\d{1,5})?(?!\.?\d)))"  # an address
    r"|(?<=sip:)\+?\d{5,}(?=[@;>:])|(?<=sips:)\+?\d{5,}(?=[@;>:])"  # user part of a SIP URI
    r"|\+\d{11,}"
    r"|(?<!\d)\+[1-9](?:[ ./()-]{0,2}\d){6,}"  # +44-20-7946-0958, +1 (212) 555-0123
    r"|\+?\d{7,}"
    r"|\(?\b\d{3}\)?[ ./-]\d{3}[ ./-]\d{4}\b"  # 212-555-0123, (212) 555-0123
    r"|(?<![A-Za-z_])(?=(?:\D{0,2}\d){7})\(\d{2,5}\)[ ./-]?\d{2,5}(?:[ ./-]\d{2,5}){0,4}(?!\d)"  # (212)555-0123
    rf"|{_BEFORE}(?=(?:[ ./-]?\d){{7}})0\d{{1,4}}(?:[ ./-]\d{{1,5}}){{1,7}}{_AFTER}"  # 06 12 34 56 78
    rf"|{_BEFORE}(?=(?:-?\d){{7}})\d{{1,4}}(?:-\d{{2,5}}){{2,4}}{_AFTER}"  # 44-20-7946-0958
    rf"|{_BEFORE}[2-9]\d\d-\d{{4}}{_AFTER}(?! ?(?:[mu]?s|bytes|[kM]i?B)\b)"  # 555-0123, no range of times
)


def mask(text: str) -> str:
    """The text with every number in it that could be dialled reduced to its last four digits, and no secret in it."""
    return _NUMBER.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    text = match.group()
    if match["kept"]:
        return text
    before = match["named"] or match["bearer"]
    if before:
        return before + HIDDEN
    if ":" in text or text.startswith("whsec_"):
        return HIDDEN
    return HIDDEN + "".join(filter(str.isdigit, text))[-_KEPT_DIGITS:]


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


@contextmanager
def about(transfer: str, leg: int | None = None) -> Iterator[None]:
    """Everything logged inside bears this transfer, and this leg where one is meant."""
    token = _about.set((transfer, leg))
    try:
        yield
    finally:
        _about.reset(token)


def _add_about(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    known = _about.get()
    if known is not None:
        event.setdefault("transfer", known[0])
        if known[1] is not None:
            event.setdefault("leg", known[1])
    return event


class _Writer(structlog.WriteLogger):
    """Writes lines, and knows which part of Baton it is of."""

    def __init__(self, file: TextIO, part: str) -> None:
        super().__init__(file)
        self.part = part


class _StandardError(logging.Handler):
    """Writes the lines of other libraries to what standard error is then: it may have been replaced since."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - as logging's own handlers: a line that cannot be written stops nobody
            self.handleError(record)


class _Sieve:
    """The structlog processor that leaves lines out: below the part's level, or not drawn."""

    def __init__(self, least: int, levels: Mapping[str, int], shares: Mapping[str, float]) -> None:
        self._least = least
        self._levels = levels
        self._shares = {event: round(share * _DRAWN_OF) for event, share in shares.items()}

    def __call__(self, logger: Any, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        level = _NUMBERS.get(method, logging.ERROR)
        if level < self._levels.get(getattr(logger, "part", ""), self._least):
            raise structlog.DropEvent
        if level < logging.WARNING and self._shares:
            share = self._shares.get(str(event.get("event")))
            if share is not None and _drawn(str(event.get("transfer", ""))) >= share:
                raise structlog.DropEvent
        return event


_NUMBERS = {name: logging.getLevelNamesMapping()[name.upper()] for name in LEVELS}


def _drawn(transfer: str) -> int:
    return zlib.crc32(transfer.encode()) % _DRAWN_OF


def configure(
    *,
    json: bool,
    level: str,
    levels: Mapping[str, str] | None = None,
    sample: Mapping[str, float] | None = None,
    process: str = "meter",
) -> None:
    """Send all logs to standard error, as JSON lines or for people.

    `level` and those of single parts (`levels`) are of LEVELS, else ValueError. `sample`: the share of an event's lines
    that is kept, 0 to 1. `process`: the part to which loggers without a name belong.
    """
    for name in (level, *(levels or {}).values()):
        if name not in LEVELS:
            raise ValueError(f"log level: {name!r} is none of {', '.join(LEVELS)}")
    own = {part: _NUMBERS[name] for part, name in (levels or {}).items()}
    number = _NUMBERS[level]
    sieve = _Sieve(number, own, sample or {})
    before: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_about,
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
        processors=[*before[:2], sieve, *before[2:], renderer],
        wrapper_class=structlog.make_filtering_bound_logger(min(number, *own.values()) if own else number),
        logger_factory=lambda *names: _Writer(sys.stderr, _part(names, process)),
        cache_logger_on_first_use=False,
    )
    handler = _StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, mask_event, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))  # other libraries: what goes wrong only


def _part(names: tuple[Any, ...], process: str) -> str:
    """The part of Baton that a logger's name is of: `meter.store.engine` is the meter's."""
    return str(names[0]).partition(".")[0] if names else process


def _plain(sio: Any, exc_info: Any) -> None:  # pragma: no cover - exceptions are text by then
    structlog.dev.plain_traceback(sio, exc_info)


def _as_json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
