"""Parses bounces: the message that a delivery report is about, and the status of each recipient.

The envelope sender of a message is `NAME+TOKEN@DOMAIN` (a variable envelope return path), TOKEN the number of its
outbox row and an HMAC over that and its message id; so a report that comes back to it can neither be invented nor moved
to another message. A report without such an address is attributed by the Message-ID that it returns, which only those
who had the message know; one with a token that is not ours is attributed to nothing.

Reports are RFC 3464 (`multipart/report`), with RFC 6533's variant and the older habit of `X-Failed-Recipients`. Whether
a failure is for good says the action: `failed` means that the server has given up (RFC 3464 section 2.3.3), whatever
the class of the status; `delayed` that it goes on trying; without an action the class decides (RFC 3463 section 2:
4.y.z is transient).

A report is hostile input: anybody may send one. Only its first 256 KiB are looked at, where the report proper stands;
one with more parts than any server makes is none; nothing of it is trusted to be of its declared character set.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import quopri
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.errors import MessageError
from email.generator import BytesGenerator
from email.message import Message as Mail
from email.parser import HeaderParser

from meter.mail.message import MAX_RECIPIENTS, MESSAGE_HEADER, MailOptions
from meter.mail.sql.messages import BounceRow, add_bounces, find_mail, message_id_of
from meter.outbox.sql import Message
from meter.store.clerk import Clerk
from meter.text.hostile import one_line

LOOKED_AT = 256 * 1024  # octets of a report; what follows is the returned message
MAX_PARTS = 40  # a report has three or four, the message that it returns some more
MAX_CANDIDATES = 10
_TAG_LENGTH = 16  # characters of base 32: 80 bits
_TOKEN = re.compile(rf"([0-9a-f]{{1,16}})([a-z2-7]{{{_TAG_LENGTH}}})")
_PURPOSE = b"baton.bounce.1\0"
_PART = re.compile(rb"^content-type:", re.IGNORECASE | re.MULTILINE)
_STATUS = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")
_SENT_TO = ("To", "Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To")
_ABOUT = ("Original-Message-ID", "X-Original-Message-ID", "In-Reply-To")
_REPORTS = ("message/delivery-status", "message/global-delivery-status")
_RETURNED = ("message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers")
_ENCODED = ("base64", "quoted-printable")
_MAX_STATUS = 16  # characters that are kept


@dataclass(frozen=True, slots=True)
class FailedRecipient:
    """One recipient who was not reached."""

    recipient: str
    permanent: bool
    status: str  # RFC 3463; empty where the report has none
    diagnostic: str


@dataclass(frozen=True, slots=True)
class Report:
    """A delivery report as parsed; whether it is about a message of ours is not known yet."""

    failed: tuple[FailedRecipient, ...]  # none: it tells of delays that are over, or of success
    token: str  # of the address it came to; empty where it has none
    candidates: tuple[str, ...]  # message ids that it may be about
    seed: bytes  # the same for a repeat of the report


@dataclass(frozen=True, slots=True)
class BounceRecord:
    """A row that a report came to, and whether it is new."""

    row: BounceRow
    is_new: bool


def envelope_sender(options: MailOptions, message: Message | None) -> str:
    """MAIL FROM of a message: the bounce address, with a token where there is a secret to sign it and a row."""
    if not options.bounce_address:
        return options.sender
    if not options.bounce_secret or message is None:
        return options.bounce_address
    name, _, domain = options.bounce_address.rpartition("@")
    return f"{name}+{message.id:x}{_tag(options.bounce_secret, message.id, message.message_id)}@{domain}"


def read_report(raw: bytes, options: MailOptions) -> Report | None:
    """The report in a message as received; None where it is no report of delivery. Never raises."""
    head = raw[:LOOKED_AT]
    if len(_PART.findall(head)) > MAX_PARTS:
        return None
    try:
        return _read(message_from_bytes(head), options)
    except (MessageError, RecursionError, ValueError, LookupError, TypeError, AttributeError):
        return None  # the parser's ways to refuse what is no message


async def record_report(report: Report, options: MailOptions, clerk: Clerk, now_utc_us: int) -> list[BounceRecord]:
    """Keep what a report says, each recipient once; raises what the store raises."""
    message_id = await _attribute(report, options, clerk)
    rows = [
        BounceRow(
            at_utc_us=now_utc_us,
            message_id=message_id,
            recipient=one.recipient,
            permanent=one.permanent,
            status=one.status,
            diagnostic=one.diagnostic,
            checksum=hashlib.sha256(b"\0".join((report.seed, one.recipient.encode()))).hexdigest(),
        )
        for one in report.failed
    ]
    fresh = await clerk.write(add_bounces, rows)
    return [BounceRecord(row, is_new) for row, is_new in zip(rows, fresh, strict=True)]


async def _attribute(report: Report, options: MailOptions, clerk: Clerk) -> str:
    """The id of the message that a report is about, or empty."""
    if report.token and options.bounce_secret:
        return await _from_token(report.token, options.bounce_secret, clerk)
    for one in report.candidates:
        if await clerk.read(find_mail, one) is not None:
            return one
    return ""


async def _from_token(token: str, secret: str, clerk: Clerk) -> str:
    found = _TOKEN.fullmatch(token)
    if found is None:
        return ""
    row_id = int(found[1], 16)
    if row_id >= 1 << 63:
        return ""
    message_id = await clerk.read(message_id_of, row_id)
    if message_id is None or not hmac.compare_digest(_tag(secret, row_id, message_id), found[2]):
        return ""
    return message_id


def _tag(secret: str, row_id: int, message_id: str) -> str:
    """Numbers of rows may come again once the outbox was emptied; the message id keeps their tokens apart."""
    digest = hmac.digest(secret.encode(), _PURPOSE + f"{row_id}:{message_id}".encode(), "sha256")
    return base64.b32encode(digest).decode("ascii").lower()[:_TAG_LENGTH]


def _read(message: Mail, options: MailOptions) -> Report | None:
    parts = list(message.walk())
    status = next((one for one in parts if one.get_content_type() in _REPORTS), None)
    if status is not None:
        whole, *recipients = _blocks(status) or [Mail()]
        failed = tuple(filter(None, map(_failed, recipients[:MAX_RECIPIENTS])))
        about = [whole]
    else:
        failed = tuple(_old_style(message, parts))
        about = []
        if not failed:
            return None
    returned = [one for part in parts if part.get_content_type() in _RETURNED and (one := _headers_of(part))]
    candidates = dict.fromkeys(_candidates(message, about, returned, options.domain))
    said = [str(one) for one in (message.get("Message-ID", ""), *about, *failed)]
    seed = hashlib.sha256("\0".join([*said, *candidates]).encode(errors="replace")).digest()
    return Report(failed, _token(message, options), tuple(candidates)[:MAX_CANDIDATES], seed)


def _decoded(part: Mail) -> Mail:
    """The same part as if it had come without its encoding.

    A delivery status is never to be encoded (RFC 3464 section 2.1; RFC 2046 section 5.2), and some servers encode it.
    The parser has then read the encoded text as if it were the fields. Raises ValueError where it cannot be decoded.
    """
    how = _line(part.get("Content-Transfer-Encoding", "")).lower()
    if how not in _ENCODED:
        return part
    written = io.BytesIO()
    BytesGenerator(written, mangle_from_=False, maxheaderlen=0).flatten(part)
    _, _, body = written.getvalue().replace(b"\r\n", b"\n").partition(b"\n\n")
    plain = base64.b64decode(b"".join(body.split()), validate=True) if how == "base64" else quopri.decodestring(body)
    return message_from_bytes(f"Content-Type: {part.get_content_type()}\n\n".encode() + plain)


def _blocks(part: Mail) -> list[Mail]:
    """The groups of fields of a delivery status: of the message first, then one for each recipient."""
    try:
        contents = _decoded(part).get_payload()
    except ValueError:
        return []
    if not isinstance(contents, list):
        return []
    found = [one for one in contents if isinstance(one, Mail)]
    if part.get_content_type() == _REPORTS[1] and len(found) == 1:  # parsed as a message whose body is the rest
        rest = found[0].get_payload()
        groups = re.split(r"\r?\n\s*\r?\n", rest) if isinstance(rest, str) else []
        found += [HeaderParser().parsestr(one.lstrip()) for one in groups[:MAX_RECIPIENTS]]
    return found


def _failed(fields: Mail) -> FailedRecipient | None:
    """One recipient of a delivery status; None where it was reached."""
    recipient = _after_type(fields.get("Final-Recipient") or fields.get("Original-Recipient") or "")
    action = _line(fields.get("Action", "")).lower()
    found = _STATUS.search(_line(fields.get("Status", "")))
    status = found[1] if found else ""
    if action in ("delivered", "relayed", "expanded") or (not action and status.startswith("2")):
        return None
    if not recipient and not status:
        return None
    permanent = action == "failed" if action in ("failed", "delayed") else status.startswith("5")
    return FailedRecipient(recipient, permanent, status[:_MAX_STATUS], _after_type(fields.get("Diagnostic-Code", "")))


def _old_style(message: Mail, parts: Iterable[Mail]) -> Iterator[FailedRecipient]:
    """`X-Failed-Recipients`, with a status from the first text where there is one."""
    named = _line(message.get("X-Failed-Recipients", ""))
    if not named:
        return
    text = next((one for one in parts if one.get_content_type() == "text/plain"), message).get_payload(decode=True)
    words = text[:20_000].decode("utf-8", "replace") if isinstance(text, bytes) else ""
    found = _STATUS.search(words)
    status = found[1] if found else ""
    for one in named.split(",")[:MAX_RECIPIENTS]:
        if recipient := one.strip():
            yield FailedRecipient(recipient, not status.startswith("4"), status[:_MAX_STATUS], "")


def _headers_of(part: Mail) -> Mail | None:
    try:
        part = _decoded(part) if part.get_content_maintype() == "message" else part
    except ValueError:
        return None
    parts = part.get_payload()
    if isinstance(parts, list):
        return parts[0] if parts and isinstance(parts[0], Mail) else None
    decoded = part.get_payload(decode=True)
    text = decoded.decode("utf-8", "replace") if isinstance(decoded, bytes) else ""
    return HeaderParser().parsestr(text.lstrip())


def _candidates(message: Mail, about: list[Mail], returned: list[Mail], domain: str) -> Iterator[str]:
    """Left parts of Message-IDs of our domain, and what our own header says."""
    ids = [one.get(name, "") for one in (message, *about) for name in _ABOUT]
    ids += [one.get("Message-ID", "") for one in returned]
    for one in ids:
        left, _, right = _line(one).strip("<> ").rpartition("@")
        if left and right.lower() == domain.lower():
            yield left
    yield from filter(None, (_line(one.get(MESSAGE_HEADER, "")) for one in returned))


def _token(message: Mail, options: MailOptions) -> str:
    """What stands between the plus sign and the @ of the address that the report was sent to."""
    name, _, domain = options.bounce_address.lower().rpartition("@")
    if not name:
        return ""
    wanted = re.compile(rf"(?<![\w.+-]){re.escape(name)}\+([^@\s<>]{{1,64}})@{re.escape(domain)}(?![\w.-])")
    for header in _SENT_TO:
        for value in message.get_all(header, []):
            if found := wanted.search(_line(value).lower()):
                return found[1]
    return ""


def _after_type(value: object) -> str:
    """`rfc822; jo@example.org` less its type."""
    text = _line(value)
    kind, mark, rest = text.partition(";")
    return rest.strip() if mark and kind.strip().replace("-", "").isalnum() else text


def _line(value: object) -> str:
    return one_line(value, 500)
