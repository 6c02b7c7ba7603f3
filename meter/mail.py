"""The lead of a failed transfer, by e-mail to the buyer who pays for it (domain, section 7).

One lead per message: plain text, HTML, and the fields as a CSV attachment; the reason, and the times of every leg from
dial-out that prove it; a signed link to ask for a credit. The message is made from the facts when it is sent, and is
the same each time: its Message-ID is the transfer's, its Date that of the outcome, so a repeat is recognised.

Headers hold nothing of the lead: only what Baton and its operator wrote. The lead's fields are hostile input and go
through `meter.hostile`, the HTML template escapes everything, and the CSV holds no formulas.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any
from zoneinfo import ZoneInfo

import aiosmtplib
import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from sqlalchemy.ext.asyncio import AsyncEngine

from meter import metrics
from meter.facts import Fact, Kind
from meter.hostile import csv_cell, fields_of, one_line
from meter.ladder import Ladder, LegTimes, build_ladder
from meter.links import LinkOptions, credit_link
from meter.outbox import DeliveryError, NeverDeliverableError
from meter.store.clerk import Clerk
from meter.store.outbox import Message
from meter.store.reading import facts_of

CHANNEL = "mail"
PARALLEL = 4  # connections to the mail server at once
TIMEOUT_S = 30.0
MAX_RECIPIENTS = 50  # of one message; RFC 5321, 4.5.3.1.8 promises 100
DEFAULT_ZONE = "America/New_York"  # domain, section 2
_SMTP_PERMANENT = 500  # RFC 5321, 4.2.1: 5yz, do not repeat the request
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")

_templates = Environment(
    loader=PackageLoader("meter", "templates"),
    autoescape=select_autoescape(enabled_extensions=("html.jinja",), default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class MailOptions:
    """The mail server and whose name the messages bear. Raises ValueError naming the field that is wrong."""

    host: str
    sender: str  # From
    port: int = 587
    security: str = "starttls"  # starttls, tls (from the first byte), or none
    username: str = ""
    password: str = field(default="", repr=False)
    reply_to: str = ""
    message_domain: str = ""  # right of the @ in Message-ID; the sender's domain by default
    timeout_s: float = TIMEOUT_S
    ca_file: str = ""

    def __post_init__(self) -> None:
        _address("mail sender", self.sender)
        if self.reply_to:
            _address("mail reply_to", self.reply_to)
        if self.security not in ("starttls", "tls", "none"):
            raise ValueError(f"mail security: {self.security!r} is none of starttls, tls, none")
        if not _DOMAIN.fullmatch(self.domain):
            raise ValueError(f"mail message_domain: {self.domain!r} is no domain")
        if self.username and self.security == "none":
            raise ValueError("mail security: a password is never sent without TLS; use starttls or tls")

    @property
    def domain(self) -> str:
        return self.message_domain or self.sender.rpartition("@")[2]


def _address(name: str, text: str) -> Address:
    try:
        address = Address(addr_spec=text)
    except Exception as error:  # the parser raises many kinds
        raise ValueError(f"{name}: {one_line(text, 100)!r} is no e-mail address") from error
    if not address.username or not address.domain or one_line(text) != text:
        raise ValueError(f"{name}: {one_line(text, 100)!r} is no e-mail address")
    return address


def render_lead(
    facts: Sequence[Fact], recipients: Sequence[str], options: MailOptions, link: LinkOptions | None = None
) -> EmailMessage:
    """The e-mail of one failed transfer. Raises NeverDeliverableError where nobody can receive it."""
    started = next((fact for fact in facts if fact.kind is Kind.TRANSFER_STARTED), None)
    if started is None:
        raise NeverDeliverableError("the transfer has no transfer_started")
    to = [_recipient(one) for one in recipients[:MAX_RECIPIENTS]]
    if not to:
        raise NeverDeliverableError("lead_emails: there is no recipient")
    ladder = build_ladder(facts)
    zone = _zone(started)
    message = EmailMessage(policy=SMTP)
    message["From"] = _address("mail sender", options.sender)
    message["To"] = to
    message["Reply-To"] = _address("mail reply_to", options.reply_to or options.sender)
    message["Subject"] = _subject(started, ladder, zone)
    message["Date"] = format_datetime(datetime.fromtimestamp(facts[-1].utc_us // 1_000_000, UTC))
    message["Message-ID"] = f"<{ladder.transfer}.lead@{options.domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office replies
    fields = fields_of(started.payload.get("lead"))
    shown = _shown(started, ladder, zone) | {"fields": fields, "credit_link": _link(link, started, ladder)}
    message.set_content(_templates.get_template("failed_lead.txt.jinja").render(shown))
    message.add_alternative(_templates.get_template("failed_lead.html.jinja").render(shown), subtype="html")
    message.add_attachment(fields_csv(fields), subtype="csv", filename=f"lead-{ladder.transfer}.csv")
    return message


def fields_csv(fields: Sequence[tuple[str, str]]) -> str:
    """The fields as one heading line and one line of values."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow([csv_cell(name) for name, _ in fields])
    writer.writerow([csv_cell(value) for _, value in fields])
    return text.getvalue()


def _recipient(text: str) -> Address:
    try:
        return _address("lead_emails", text)
    except ValueError as error:
        raise NeverDeliverableError(str(error)) from error


def _zone(started: Fact) -> ZoneInfo:
    terms = started.payload.get("terms")
    name = terms.get("time_zone") if isinstance(terms, dict) else None
    try:
        return ZoneInfo(str(name or DEFAULT_ZONE))
    except (KeyError, ValueError, OSError):
        return ZoneInfo(DEFAULT_ZONE)


def _when(utc_us: int, zone: ZoneInfo, form: str = "%Y-%m-%d %H:%M:%S %Z") -> str:
    return datetime.fromtimestamp(utc_us / 1_000_000, zone).strftime(form)


def _subject(started: Fact, ladder: Ladder, zone: ZoneInfo) -> str:
    when = _when(started.utc_us, zone, "%Y-%m-%d %H:%M %Z")
    reason = ladder.outcome.reason.value.replace("_", " ")
    return f"Lead of a failed transfer, {when} ({reason})"


def _link(link: LinkOptions | None, started: Fact, ladder: Ladder) -> str:
    return credit_link(link, ladder.transfer, str(started.payload.get("buyer", ""))) if link else ""


def _shown(started: Fact, ladder: Ladder, zone: ZoneInfo) -> dict[str, Any]:
    """What the templates show, every text in one line."""
    outcome = ladder.outcome
    return {
        "buyer": one_line(started.payload.get("buyer_title") or started.payload.get("buyer") or "Buyer", 200),
        "campaign": one_line(started.payload.get("campaign", ""), 64),
        "transfer": one_line(ladder.transfer, 64),
        "happened": f"The call came in on {_when(started.utc_us, zone)}.",
        "dialout": _when(ladder.dialout_utc_us, zone) if ladder.dialout_utc_us is not None else "never",
        "verdict": outcome.verdict.value,
        "reason": outcome.reason.value.replace("_", " "),
        "counts_as": outcome.counts_as.value,
        "attempt": _seconds(outcome.attempt_ms),
        "buffer": _seconds(outcome.buffer_ms),
        "talk": _seconds(outcome.talk_ms),
        "explanation": one_line(ladder.explanation),
        "legs": [_shown_leg(leg) for leg in ladder.legs],
    }


def _shown_leg(leg: LegTimes) -> dict[str, str]:
    ended = f"{'by us' if leg.local else 'by the ' + (leg.ended_by or 'far end')}" if leg.ended_ms is not None else ""
    answer = f"{leg.code or ''} {leg.phrase}".strip()
    return {
        "name": one_line(leg.name, 64),
        "kind": one_line(leg.kind, 16) or "endpoint",
        "sent": _seconds(leg.sent_ms),
        "ringing": _seconds(leg.ringing_ms),
        "answered": _seconds(leg.answered_ms) + (" (too late)" if leg.late else ""),
        "ended": _seconds(leg.ended_ms),
        "how": one_line(", ".join(part for part in (ended, answer, leg.reason_header) if part), 300),
    }


def _seconds(duration_ms: int | None) -> str:
    return "-" if duration_ms is None else f"{duration_ms / 1000:.3f}"


class MailDeliverer:
    """The channel `mail` of the outbox: renders each lead from its facts and hands it to the mail server."""

    channel = CHANNEL
    parallel = PARALLEL

    def __init__(self, engine: AsyncEngine, options: MailOptions, link: LinkOptions | None = None) -> None:
        self._clerk = Clerk(engine)
        self._options = options
        self._link = link

    async def ready(self) -> None:
        """Always: whether the mail server is there shows in the attempt."""

    async def close(self) -> None:
        await self._clerk.close()

    async def deliver(self, message: Message) -> None:
        """Send one lead. Raises DeliveryError, or NeverDeliverableError where the server said 5yz to the message."""
        try:
            order = orjson.loads(message.payload)
            facts = await self._clerk.read(lambda connection: facts_of(connection, order["transfer"]))
            await self._send(render_lead(facts, order["to"], self._options, self._link))
        except NeverDeliverableError:
            metrics.MAIL_SENT.labels("dead").inc()
            raise
        except DeliveryError:
            metrics.MAIL_SENT.labels("retried").inc()
            raise
        metrics.MAIL_SENT.labels("sent").inc()

    async def _send(self, message: EmailMessage) -> None:
        chosen = self._options
        try:
            await aiosmtplib.send(
                message,
                hostname=chosen.host,
                port=chosen.port,
                use_tls=chosen.security == "tls",
                start_tls=chosen.security == "starttls",
                username=chosen.username or None,
                password=chosen.password or None,
                timeout=chosen.timeout_s,
                cert_bundle=chosen.ca_file or None,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [one.code for one in error.recipients]
            raise _failure(min(codes, default=0), "every recipient was refused") from error
        except (aiosmtplib.SMTPDataError, aiosmtplib.SMTPRecipientRefused) as error:
            raise _failure(error.code, f"refused: {error.code} {one_line(error.message, 200)}") from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            # Also a refused login or sender: that is our configuration, which can be put right; the lead must not die.
            raise DeliveryError(one_line(error, 300) or type(error).__name__) from error


def _failure(code: int, text: str) -> DeliveryError:
    return NeverDeliverableError(text) if code >= _SMTP_PERMANENT else DeliveryError(text)
