"""Letters: the content of an e-mail, and the MIME message made of it.

A composer makes a letter from an order of the outbox; `to_message` makes the message, the same each time: the
Message-ID is the outbox's, the Date that of what happened, so a repeat is recognised. Headers hold one line each,
whatever templates or leads say. Bodies go out in 7 bits (RFC 6376 section 5.3), so that no server on the way has a
reason to change what was signed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any, Protocol

from meter.mail.dkim_signing import DkimOptions
from meter.outbox.delivery import NeverDeliverableError, NobodyError
from meter.outbox.sql import waits_for
from meter.store.clerk import Clerk
from meter.text.hostile import one_line

TIMEOUT_S = 30.0
MAX_RECIPIENTS = 50  # of one transaction; RFC 5321 section 4.5.3.1.8 promises 100
MAX_SUBJECT = 200  # characters
MESSAGE_HEADER = "X-Baton-Message"  # a bounce that lost the Message-ID may still have it
_MIN_SECRET = 16  # characters
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_LEFT = re.compile(r"[A-Za-z0-9!#$%&'*/=?^_`{|}~.-]{1,200}")  # RFC 5322 section 3.6.4: dot-atom, without the plus sign
_WIDE = re.compile(r"[^\x00-\x7f]")
_POLICY = SMTP.clone(cte_type="7bit")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes along. Text is UTF-8."""

    filename: str
    content_type: str  # such as text/csv
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Letter:
    """One e-mail. `message_id`, left of the @, is that of its outbox row; `date_utc_us` in microseconds UTC."""

    to: tuple[str, ...]
    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)  # empty: text alone
    attachments: tuple[Attachment, ...]
    message_id: str
    date_utc_us: int
    present: tuple[str, ...] = ()  # where it goes if all of `to` refuse it: what its buyer has now
    waits_for: str = ""  # the addresses that it waits for if all refuse it; empty: it dies


@dataclass(frozen=True, slots=True)
class Addressees:
    """Whom a letter is for, as its fields of these names say."""

    to: tuple[str, ...]
    present: tuple[str, ...]
    waits_for: str


def addressees(order: Mapping[str, Any], field: str, buyer: str, present: tuple[str, ...]) -> Addressees:
    """Those that the order names, else those that the buyer has now in this field.

    An order by hand names the only ones. Raises NobodyError where there are none.
    """
    found = order.get("to")
    named = tuple(str(one) for one in found) if isinstance(found, list | tuple) else ()
    if order.get("only") and named:
        return Addressees(named, (), "")
    if not named and not present:
        raise NobodyError(waits_for(field, buyer), f"{buyer} has no {field}")
    return Addressees(named or present, present, waits_for(field, buyer))


class Composer(Protocol):
    """Makes the letters of one kind."""

    async def compose(self, order: Mapping[str, Any], clerk: Clerk) -> Letter:
        """The letter for an outbox payload. Without `to` in the order it goes to the buyer's present addresses.

        Raises NobodyError where it has none, NeverDeliverableError where the letter can never be made.
        """


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
    templates_dir: str = ""  # of the operator's own templates
    dkim: DkimOptions | None = None
    bounce_address: str = ""  # envelope sender; empty: the sender
    bounce_secret: str = field(default="", repr=False)  # signs what tells one message's bounces from another's

    def __post_init__(self) -> None:
        address_of("mail sender", self.sender)
        for name in ("reply_to", "bounce_address"):
            if getattr(self, name):
                address_of(f"mail {name}", getattr(self, name))
        if self.security not in ("starttls", "tls", "none"):
            raise ValueError(f"mail security: {self.security!r} is none of starttls, tls, none")
        if not _DOMAIN.fullmatch(self.domain):
            raise ValueError(f"mail message_domain: {self.domain!r} is no domain")
        if self.username and self.security == "none":
            raise ValueError("mail security: a password is never sent without TLS; use starttls or tls")
        if self.bounce_secret and len(self.bounce_secret) < _MIN_SECRET:
            raise ValueError(f"mail bounce_secret: must have at least {_MIN_SECRET} characters")

    @property
    def domain(self) -> str:
        return self.message_domain or self.sender.rpartition("@")[2]


def to_message(letter: Letter, options: MailOptions, *, utf8: bool = False) -> EmailMessage:
    """The message of a letter, unsigned. Raises NeverDeliverableError where nobody can receive it.

    An address that is none is left out of its heading, and so is one beyond ASCII, but where `utf8` (RFC 6532) lets it.
    """
    to = _heading(letter, utf8=utf8)
    if not _LEFT.fullmatch(letter.message_id):
        raise NeverDeliverableError(f"{one_line(letter.message_id, 100)!r} cannot stand in a Message-ID")
    message = EmailMessage(policy=_POLICY.clone(utf8=True) if utf8 else _POLICY)
    message["From"] = address_of("mail sender", options.sender)
    message["To"] = to
    message["Reply-To"] = address_of("mail reply_to", options.reply_to or options.sender)
    message["Subject"] = one_line(letter.subject, MAX_SUBJECT)
    message["Date"] = format_datetime(datetime.fromtimestamp(letter.date_utc_us // 1_000_000, UTC))
    message["Message-ID"] = f"<{letter.message_id}@{options.domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office replies
    message[MESSAGE_HEADER] = letter.message_id
    message.set_content(letter.text)
    if letter.html:
        message.add_alternative(letter.html, subtype="html")
    for one in letter.attachments:
        _attach(message, one)
    return message


def _heading(letter: Letter, *, utf8: bool) -> list[Address]:
    """What stands in `To`. Raises NeverDeliverableError where there is none, or none is an address."""
    if not letter.to:
        raise NeverDeliverableError("there is no recipient")
    found, wrong = [], ""
    for one in letter.to:
        try:
            found.append(address_of("recipient", one))
        except ValueError as error:
            wrong = wrong or str(error)
    if not found:
        raise NeverDeliverableError(wrong)
    return [one for one in found if utf8 or one.username.isascii()]


def _attach(message: EmailMessage, attachment: Attachment) -> None:
    main, _, sub = attachment.content_type.partition("/")
    name = one_line(attachment.filename, 100)
    params = {"charset": "utf-8"} if main == "text" else None
    message.add_attachment(attachment.content, maintype=main, subtype=sub, filename=name, params=params)


def address_of(name: str, text: str) -> Address:
    """The address, its domain in ASCII. Raises ValueError, which begins with `name`."""
    try:
        address = Address(addr_spec=_WIDE.sub("x", text))  # the parser takes ASCII alone (RFC 6531 section 3.3)
        if not text.isascii():
            name_, _, domain = text.rpartition("@")
            address = Address(username=name_, domain=domain.encode("idna").decode("ascii"))
    except Exception as error:  # the parser raises many kinds
        raise ValueError(f"{name}: {one_line(text, 100)!r} is no e-mail address") from error
    if not address.username or not address.domain or one_line(text) != text:
        raise ValueError(f"{name}: {one_line(text, 100)!r} is no e-mail address")
    return address
