"""The last SIP messages as the engine keeps them, made fit to be shown: numbers, secrets and the lead masked.

Masked is what `meter.logs.mask` masks, and the values of headers that hold credentials, keys or fields of the lead, the
keys of SRTP (RFC 4568, `a=crypto`), and every body that is no SDP.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

from meter.logs import HIDDEN, mask

MAX_TRACE = 8 << 20  # bytes of messages in one answer
MAX_CALL_IDS = 64
MAX_CALL_ID = 256  # characters
_RECORD, _FIELD = "\x1e", "\x1f"
_FIELDS = 5
_RECEIVED = "R"

_SECRET_HEADERS = re.compile(
    r"^(authorization|proxy-authorization|www-authenticate|proxy-authenticate|authentication-info|identity|y"
    r"|x-lead-(?!id:)[^:]*)[ \t]*:.*$",
    re.IGNORECASE | re.MULTILINE,
)
_FOLDED = re.compile(r"\r?\n[ \t]+")  # RFC 3261, 7.3.1: a header goes on in the next line
_QUOTED = re.compile(r'"(?:[^"\\\r\n]|\\.)*"')  # display names, which are people's
_CRYPTO = re.compile(r"^a=crypto:.*$", re.MULTILINE)
_NAMED = re.compile(r"^(from|to|contact|p-asserted-identity|remote-party-id|f|t|m)[ \t]*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TracedMessage:
    """One message, masked. `mono_us`: of the engine's clock. `peer`: kind:host:port."""

    mono_us: int
    received: bool
    peer: str
    call_id: str
    text: str


def start_trace(pj: ModuleType, size: int) -> int:
    """Keep the last messages in so many bytes; 0: none. Returns a pj_status_t."""
    return int(pj.baton_trace_start(size))


def find_messages(pj: ModuleType, call_ids: Sequence[str]) -> list[TracedMessage]:
    """The messages of these Call-IDs that are still kept, the oldest first; `id*` stands for all that begin so."""
    text: str = pj.baton_trace_find(_RECORD.join(call_ids), MAX_TRACE)
    return list(parse_messages(text.split(_RECORD)))


def parse_messages(records: Iterable[str]) -> Iterable[TracedMessage]:
    """Records as the engine writes them; what is not one is left out."""
    for record in records:
        fields = record.split(_FIELD, _FIELDS - 1)
        if len(fields) == _FIELDS and fields[0].isdigit():
            at, direction, peer, call_id, text = fields
            yield TracedMessage(int(at) // 1000, direction == _RECEIVED, peer, call_id, mask_message(text))


def mask_message(text: str) -> str:
    """A SIP message with everything in it that says who the caller is, or proves who we are, masked."""
    head, blank, body = text.partition("\r\n\r\n")
    lines = _FOLDED.sub(" ", head).split("\r\n")
    sdp = any(line.lower().startswith(("content-type:", "c:")) and "application/sdp" in line.lower() for line in lines)
    shown = [_mask_line(line) for line in lines]
    if body:
        body = mask(_CRYPTO.sub(f"a=crypto:{HIDDEN}", body)) if sdp else f"{HIDDEN} ({len(body)} characters)"
    return "\r\n".join(shown) + blank + body


def _mask_line(line: str) -> str:
    name, colon, _ = line.partition(":")
    if _SECRET_HEADERS.match(line):
        return f"{name}{colon} {HIDDEN}"
    if _NAMED.match(line):
        line = _QUOTED.sub(f'"{HIDDEN}"', line)
    if name.lower() in ("call-id", "i", "via", "v", "cseq", "content-length", "l", "x-transfer-id"):
        return line  # ids and addresses that are not people's
    return mask(line)
