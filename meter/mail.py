"""The channel `mail` of the outbox: composes each letter from what the store holds, signs it, hands it to the server.

The kind in the payload says which composer makes the letter; a payload without one is a failed transfer's lead. What is
signed is what is sent, byte for byte. Where bounces have an address of their own, the envelope sender tells by a signed
token which message a report is about (`meter.bounces`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiosmtplib
import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from meter import metrics
from meter.bounces import envelope_sender
from meter.dkim_signing import Signer
from meter.hostile import one_line
from meter.lead_mail import KIND as LEAD
from meter.letters import Composer, Letter, MailOptions, recipients, to_message
from meter.outbox import DeliveryError, NeverDeliverableError
from meter.store.clerk import Clerk
from meter.store.mail import CHANNEL
from meter.store.outbox import Message

PARALLEL = 4  # connections to the mail server at once
_SMTP_PERMANENT = 500  # RFC 5321, 4.2.1: 5yz, do not repeat the request

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """What the server said to a message, and the recipients among several that it refused, with its code."""

    said: str
    refused: Mapping[str, int]


class Postman:
    """Turns letters into bytes and hands them to the server. Raises DkimKeyError where the key cannot be used."""

    def __init__(self, options: MailOptions) -> None:
        self._options = options
        self._signer = Signer(options.dkim) if options.dkim is not None else None

    async def wire(self, letter: Letter) -> bytes:
        """The message as it is sent, signed where there is a key. Raises NeverDeliverableError."""
        raw = to_message(letter, self._options).as_bytes()
        if self._signer is None:
            return raw
        return await asyncio.to_thread(self._signer.sign, raw)  # some 10 ms of arithmetic

    async def send(self, letter: Letter, message: Message | None = None) -> Taken:
        """Send a letter; `message` is its outbox row, for the token in the envelope.

        Raises DeliveryError, or NeverDeliverableError where the server said 5yz to the message or to every recipient.
        """
        raw = await self.wire(letter)
        sender = envelope_sender(self._options, message)
        return await _hand_over(raw, sender, [one.addr_spec for one in recipients(letter)], self._options)


class MailDeliverer:
    """Delivers the outbox's e-mails, each by the composer of its kind."""

    channel = CHANNEL
    parallel = PARALLEL

    def __init__(self, engine: AsyncEngine, options: MailOptions, composers: Mapping[str, Composer]) -> None:
        self._clerk = Clerk(engine)
        self._postman = Postman(options)
        self._composers = dict(composers)

    async def ready(self) -> None:
        """Always: whether the mail server is there shows in the attempt."""

    async def close(self) -> None:
        await self._clerk.close()

    async def deliver(self, message: Message) -> None:
        """Send one e-mail. Raises DeliveryError, or NeverDeliverableError where the server said 5yz to the message."""
        try:
            letter = await compose(orjson.loads(message.payload), self._composers, self._clerk)
            taken = await self._postman.send(letter, message)
        except NeverDeliverableError:
            metrics.MAIL_SENT.labels("dead").inc()
            raise
        except DeliveryError:
            metrics.MAIL_SENT.labels("retried").inc()
            raise
        metrics.MAIL_SENT.labels("sent").inc()
        if taken.refused:
            codes = sorted(taken.refused.values())
            _log.warning("some recipients were refused", message_id=message.message_id, codes=codes)


async def compose(order: object, composers: Mapping[str, Composer], clerk: Clerk) -> Letter:
    """The letter of an outbox payload. Raises NeverDeliverableError, also for a kind that nobody composes."""
    if not isinstance(order, dict):
        raise NeverDeliverableError("the order of this e-mail is no JSON object")
    kind = str(order.get("kind", LEAD))
    composer = composers.get(kind)
    if composer is None:
        raise NeverDeliverableError(f"nobody composes e-mails of the kind {one_line(kind, 32)!r}")
    return await composer.compose(order, clerk)


async def _hand_over(raw: bytes, sender: str, to: Sequence[str], options: MailOptions) -> Taken:
    try:
        refused, said = await aiosmtplib.send(
            raw,
            sender=sender,
            recipients=list(to),
            hostname=options.host,
            port=options.port,
            use_tls=options.security == "tls",
            start_tls=options.security == "starttls",
            username=options.username or None,
            password=options.password or None,
            timeout=options.timeout_s,
            cert_bundle=options.ca_file or None,
        )
    except aiosmtplib.SMTPRecipientsRefused as error:
        codes = [one.code for one in error.recipients]
        raise _failure(min(codes, default=0), "every recipient was refused") from error
    except (aiosmtplib.SMTPDataError, aiosmtplib.SMTPRecipientRefused) as error:
        raise _failure(error.code, f"refused: {error.code} {one_line(error.message, 200)}") from error
    except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
        # Also a refused login or sender: that is our configuration, which can be put right; the lead must not die.
        raise DeliveryError(one_line(error, 300) or type(error).__name__) from error
    return Taken(one_line(said, 300), {name: one.code for name, one in refused.items()})


def _failure(code: int, text: str) -> DeliveryError:
    return NeverDeliverableError(text) if code >= _SMTP_PERMANENT else DeliveryError(text)
