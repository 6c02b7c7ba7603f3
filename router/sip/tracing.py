"""Masks the SIP messages of the engine's trace: numbers, secrets and the lead.

Shown is what is known to hold nobody; all else is hidden. Headers that are technical are shown with
`telemetry.logs.mask`,
those that bear an address without the name, the headers of its URI, and the number in it; of SDP the lines that
describe media (RFC 8866), without keys (RFC 4568) and names. The value of any other header, and every body that is no
SDP, is hidden. Lines end as PJSIP takes them: in CRLF, LF or CR.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

from telemetry.logs import HIDDEN, mask

MAX_TRACE = 2 << 20  # bytes of messages in one answer
MAX_CALL_IDS = 64
MAX_CALL_ID = 65_536  # characters: PJSIP_MAX_PKT_LEN, which no message has more of
_MAX_MESSAGE = 68 << 10  # bytes; above PJSIP_MAX_PKT_LEN, so that a copy within MAX_TRACE is known to be whole
_RECORD, _FIELD = "\x1e", "\x1f"
_FIELDS = 5
_RECEIVED = "R"
_ANY = "*"
_O_FIELDS = 6  # user, session, version, network, kind, address


def _names(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_BREAK = r"(?:\r\n|\r(?!\n)|\n)"
_LINE = re.compile(_BREAK)
_BLANK = re.compile(_BREAK + "{2}")
_FOLDED = re.compile(_BREAK + r"[ \t]+")  # RFC 3261 section 7.3.1: a header goes on in the next line
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # the engine writes a dot for each
_REQUEST = re.compile(r"([A-Za-z]{1,20}) (\S+) (SIP/2\.0)")
_STATUS = re.compile(r"SIP/2\.0 \d{3}(?: .*)?")
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]{1,64}")
# Of a transfer, and of one of its legs (router.ids): until 2039 they begin so, and no phone number does.
_OWN_ID = re.compile(r"1[g-z][0-9a-z]{18}(?:-\d{1,3}(?:\.[a-p]{32})?)?")
_BRANCH = re.compile(r"\s*branch=z9hG4bK[\w.~-]*\s*")
_COUNTED = re.compile(r"(?:\d{1,10} ){1,2}[A-Z]{1,20}")  # CSeq, RAck

_TECHNICAL = _names(
    "via v cseq max-forwards content-length l content-type c allow supported k require proxy-require unsupported",
    "expires session-expires x min-se min-expires user-agent server retry-after rseq rack reason warning timestamp",
    "allow-events u event o accept accept-encoding accept-language accept-contact mime-version x-lead-id",
)
_ADDRESSES = _names(
    "from f to t contact m p-asserted-identity p-preferred-identity remote-party-id diversion history-info refer-to r",
    "referred-by b reply-to p-called-party-id p-associated-uri route record-route path service-route",
)
_OWN_PREFIX = "x-baton-"
_CALL_ID = frozenset({"call-id", "i", "x-call-id", "x-transfer-id", "x-baton-transfer"})

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+\\?(?:"|\Z)', re.DOTALL)  # names of people; it fits at any quote
_ADDRESS = re.compile(r"(?:<[^>]*>?|[^,<])+")  # up to a comma outside of <>
_ANGLED = re.compile(r"([^<]*)<([^>]*)>?(.*)", re.DOTALL)
_URI = re.compile(r"(sips?):(?:(.*)@)?([\w.:\[\]-]*)((?:;[^?]*)?)(\?.*)?", re.IGNORECASE | re.DOTALL)
_TEL = re.compile(r"tel:([^;?]*)(.*)", re.IGNORECASE | re.DOTALL)
_USER = re.compile(r"[\w.+*#()-]{1,64}")
_NUMERIC = re.compile(r"[+\d().*#-]+")
_MOST_DIGITS = 4  # of a user that is shown: five are a number that may be dialled
_PARAMETERS = _names(
    "tag expires q lr transport ttl method ob user index reason counter limit privacy screen party id-type rc mp np"
)

_SDP = re.compile(r"([a-z])=(.*)")
_SDP_MEDIA = re.compile(r"[a-z]{1,12} \d{1,5}(?:/\d{1,2})? [A-Za-z/]{1,24}(?: \d{1,3})*")
_SDP_SHOWN = frozenset("vctb")
_ATTRIBUTES = _names("rtpmap fmtp ptime maxptime sendrecv sendonly recvonly inactive rtcp rtcp-mux mid setup candidate")
_KEYS = frozenset({"crypto", "ice-pwd", "ice-ufrag", "fingerprint", "key-mgmt"})  # told to be there


@dataclass(frozen=True, slots=True)
class TracedMessage:
    """One message, masked. `mono_us`: of the engine's clock. `peer`: kind:host:port."""

    mono_us: int
    received: bool
    peer: str
    call_id: str
    text: str


@dataclass(frozen=True, slots=True)
class KeptMessages:
    """A copy of what the engine has, not to be shown as it is; `messages` may be called on any thread."""

    text: str = ""
    call_ids: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    def messages(self) -> tuple[list[TracedMessage], bool]:
        """Those of the Call-IDs asked for, masked, the oldest first; and whether there are more than fit."""
        exact = {_CONTROL.sub(".", one) for one in self.call_ids}
        records, cut = self._within()
        found = parse_messages(
            one for one in records if (its := _call_id_of(one)) in exact or its.startswith(self.prefixes)
        )
        return list(found), cut

    def _within(self) -> tuple[list[str], bool]:
        records, size = self.text.split(_RECORD), 0
        for at, record in enumerate(records):
            size += len(record.encode(errors="surrogatepass")) + 1
            if size > MAX_TRACE:
                return records[:at], True
        return records, False


def start_trace(pj: ModuleType, size: int) -> int:
    """Keep the last messages in so many bytes; 0: none. Returns a pj_status_t."""
    return int(pj.baton_trace_start(size))


def find_messages(pj: ModuleType, call_ids: Sequence[str], prefixes: Sequence[str] = ()) -> KeptMessages:
    """A copy of the messages of these Call-IDs, and of those that begin with one of the prefixes, that are still kept.

    The engine takes `id*` for a beginning: an id that ends so, or would part the list, is looked up by its beginning.
    """
    wanted = [_wanted(one) for one in call_ids] + [f"{one}{_ANY}" for one in prefixes]
    text: str = pj.baton_trace_find(_RECORD.join(wanted), MAX_TRACE + _MAX_MESSAGE)
    return KeptMessages(text, tuple(call_ids), tuple(prefixes))


def _wanted(call_id: str) -> str:
    beginning, parted, _ = call_id.partition(_RECORD)
    return f"{beginning}{_ANY}" if parted or call_id.endswith(_ANY) else call_id


def _call_id_of(record: str) -> str:
    fields = record.split(_FIELD, _FIELDS - 1)
    return fields[3] if len(fields) == _FIELDS else ""


def parse_messages(records: Iterable[str]) -> Iterator[TracedMessage]:
    """Records as the engine writes them; what is not one is left out."""
    for record in records:
        fields = record.split(_FIELD, _FIELDS - 1)
        if len(fields) == _FIELDS and fields[0].isdigit():
            at, direction, peer, call_id, text = fields
            yield TracedMessage(
                int(at) // 1000, direction == _RECEIVED, peer, mask_call_id(call_id), mask_message(text)
            )


def mask_call_id(call_id: str) -> str:
    """A Call-ID without the phone number that may be in it; Baton's own are left whole."""
    return call_id if _OWN_ID.fullmatch(call_id) else mask(call_id)


def leg_of(call_id: str) -> str:
    """The leg whose Call-ID it is (`router.sip.wire.new_call_id`); any other Call-ID as it is."""
    return call_id.partition(".")[0] if _OWN_ID.fullmatch(call_id) else call_id


def mask_message(text: str) -> str:
    """A SIP message with nothing left in it that says who the caller is, or proves who we are."""
    text = text.lstrip("\r\n")  # RFC 3261 section 7.5: to be ignored
    found = _BLANK.search(text)
    head, blank, body = (text[: found.start()], "\r\n\r\n", text[found.end() :]) if found else (text, "", "")
    first, *headers = _LINE.split(_FOLDED.sub(" ", head))
    shown = [_mask_first(first), *map(_mask_header, headers)]
    if body:
        body = _mask_sdp(body) if any(map(_is_sdp, headers)) else f"{HIDDEN} ({len(body)} characters)"
    return "\r\n".join(shown) + blank + body


def _mask_first(line: str) -> str:
    if request := _REQUEST.fullmatch(line.rstrip()):
        return f"{request[1]} {_mask_uri(request[2])} {request[3]}"
    return mask(line) if not line or _STATUS.fullmatch(line) else HIDDEN


def _is_sdp(line: str) -> bool:
    name, _, value = line.partition(":")
    kind = value.partition(";")[0].strip().lower()
    return name.strip().lower() in ("content-type", "c") and kind == "application/sdp"


def _mask_header(line: str) -> str:
    name, colon, value = line.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not _TOKEN.fullmatch(name):
        return HIDDEN if line else line
    return f"{mask(name)}: {_mask_value(name.lower(), value)}"


def _mask_value(name: str, value: str) -> str:
    if name in _CALL_ID:
        return mask_call_id(value)
    if name in _ADDRESSES:
        return ", ".join(map(_mask_address, _ADDRESS.findall(_QUOTED.sub(f'"{HIDDEN}"', value))))
    if name in ("via", "v"):
        return ";".join(one if _BRANCH.fullmatch(one) else mask(one) for one in value.split(";"))
    if name in ("cseq", "rack") and _COUNTED.fullmatch(value):
        return value
    return mask(value) if name in _TECHNICAL or name.startswith(_OWN_PREFIX) else HIDDEN


def _mask_address(text: str) -> str:
    if angled := _ANGLED.fullmatch(text.strip()):
        name = f'"{HIDDEN}" ' if angled[1].strip() else ""
        return f"{name}<{_mask_uri(angled[2].strip())}>{_mask_parameters(angled[3])}"
    uri, semicolon, rest = text.strip().partition(";")
    return uri if uri == "*" else _mask_uri(uri) + _mask_parameters(semicolon + rest)


def _mask_uri(uri: str) -> str:
    if tel := _TEL.fullmatch(uri):
        return f"tel:{_mask_user(tel[1])}" + (f";{HIDDEN}" if tel[2] else "")
    found = _URI.fullmatch(uri)
    if found is None:
        return HIDDEN
    scheme, user, host, parameters, headers = found.groups()
    at = "" if user is None else f"{_mask_user(user)}@"
    return f"{scheme}:{at}{mask(host)}{_mask_parameters(parameters)}" + (f"?{HIDDEN}" if headers else "")


def _mask_user(user: str) -> str:
    user, parameters, _ = user.partition(";")
    shown = mask(user) if _USER.fullmatch(user) or not user else HIDDEN
    if _NUMERIC.fullmatch(user):
        digits = "".join(filter(str.isdigit, user))
        shown = HIDDEN + digits[-_MOST_DIGITS:] if len(digits) > _MOST_DIGITS else user
    return shown + (f";{HIDDEN}" if parameters else "")


def _mask_parameters(text: str) -> str:
    """`;a=b;c`: of those that hold nobody name and value."""
    shown = []
    for one in filter(None, map(str.strip, text.split(";"))):
        name, equals, value = one.partition("=")
        known = name.strip().lower() in _PARAMETERS
        whole = known and (not equals or _TOKEN.fullmatch(value.strip()))
        shown.append(mask(one) if whole else f"{name.strip()}={HIDDEN}" if known else HIDDEN)
    return "".join(f";{one}" for one in shown)


def _mask_sdp(body: str) -> str:
    return "\r\n".join(map(_mask_sdp_line, _LINE.split(body)))


def _mask_sdp_line(line: str) -> str:
    found = _SDP.fullmatch(line.rstrip())
    if found is None:
        return HIDDEN if line else line
    kind, value = found.groups()
    if kind == "m" and _SDP_MEDIA.fullmatch(value):
        return line.rstrip()
    if kind == "o" and len(fields := value.split()) == _O_FIELDS:
        return mask(f"o=- {' '.join(fields[1:])}")
    if kind == "a":
        return f"a={_mask_attribute(value)}"
    return f"{kind}={mask(value) if kind in _SDP_SHOWN else HIDDEN}"


def _mask_attribute(value: str) -> str:
    name, colon, rest = value.partition(":")
    if name in _ATTRIBUTES:
        return mask(value)
    if name == "ssrc":
        number, more, _ = rest.partition(" ")
        return f"ssrc:{mask(number) if number.isdigit() else HIDDEN}" + (f" {HIDDEN}" if more else "")
    return f"{name}:{HIDDEN}" if colon and name in _KEYS else HIDDEN
