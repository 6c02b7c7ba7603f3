"""The channel `mail` of the outbox: composes each letter from what the store holds, signs it, hands it to the server.

The kind in the payload says which composer makes the letter; a payload without one is a failed transfer's lead. What is
signed is what is sent, byte for byte. Where bounces have an address of their own, the envelope sender tells by a signed
token which message a report is about (`meter.mail.bounces`).

Delivery is per recipient (domain, section 7): what the server said to each is written down before anything else is
done. Who got the message does not get it again, but after a crash in between; who was put off is tried alone, with
backoff; who was refused for good is a bounce. Where every address that was meant was refused, the letter goes to those
that its buyer has now, and without any it waits for one: the buyer pays for what it says.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.mail.bounces import envelope_sender
from meter.mail.dkim_signing import Signer
from meter.mail.message import Composer, Letter, MailOptions, address_of, to_message
from meter.mail.smtp import Reply, hand_over
from meter.mail.sql.messages import CHANNEL
from meter.mail.sql.recipients import REFUSED, RETRIED, TAKEN, Recipient, put_recipients, recipients_of
from meter.outbox.delivery import (
    DeliveryError,
    LaterError,
    NeverDeliverableError,
    NobodyError,
    OutboxOptions,
    retry_delay_s,
)
from meter.outbox.sql import Message
from meter.store.clerk import Clerk
from meter.text.hostile import one_line
from telemetry import metrics

LEAD = "lead"  # the kind of an order that names none
PARALLEL = 4  # connections to the mail server at once

_log = structlog.get_logger(__name__)


class Postman:
    """Turns letters into bytes and hands them to the server. Raises DkimKeyError where the key cannot be used."""

    def __init__(self, options: MailOptions) -> None:
        self._options = options
        self._signer = Signer(options.dkim) if options.dkim is not None else None

    async def wire(self, letter: Letter, *, utf8: bool = False) -> bytes:
        """The message as it is sent, signed where there is a key. Raises NeverDeliverableError."""
        raw = to_message(letter, self._options, utf8=utf8).as_bytes()
        if self._signer is None:
            return raw
        return await asyncio.to_thread(self._signer.sign, raw)  # some 10 ms of arithmetic

    async def send(
        self, letter: Letter, message: Message | None = None, to: Sequence[str] | None = None
    ) -> dict[str, Reply]:
        """Send a letter to some of its recipients, or to all; what became of each.

        `message` is its outbox row, for the token in the envelope. Raises DeliveryError where none came to anything.
        """
        replies: dict[str, Reply] = {}
        plain: dict[str, str] = {}
        wide: dict[str, str] = {}
        for one in letter.to if to is None else to:
            try:
                address = address_of("recipient", one)
            except ValueError as error:
                replies[one] = Reply(REFUSED, 0, str(error))
            else:
                (plain if address.username.isascii() else wide)[one] = address.addr_spec
        for group, utf8 in ((plain, False), (wide, True)):
            if group:
                replies |= await self._hand_over(letter, message, group, utf8=utf8, alone=not replies)
        return replies

    async def _hand_over(
        self, letter: Letter, message: Message | None, to: Mapping[str, str], *, utf8: bool, alone: bool
    ) -> dict[str, Reply]:
        """Some recipients of one kind. Raises DeliveryError only where there is nothing to tell of others (`alone`)."""
        raw = await self.wire(letter, utf8=utf8)
        try:
            return await hand_over(raw, envelope_sender(self._options, message), to, self._options, utf8=utf8)
        except DeliveryError as error:
            if alone:
                raise
            return dict.fromkeys(to, Reply(RETRIED, 0, str(error)))


class MailDeliverer:
    """Delivers the outbox's e-mails, each by the composer of its kind."""

    channel = CHANNEL
    parallel = PARALLEL

    def __init__(
        self,
        engine: AsyncEngine,
        options: MailOptions,
        composers: Mapping[str, Composer],
        retries: OutboxOptions | None = None,
    ) -> None:
        self._clerk = Clerk(engine)
        self._postman = Postman(options)
        self._composers = dict(composers)
        self._retries = retries or OutboxOptions()

    async def ready(self) -> None:
        """Always: whether the mail server is there shows in the attempt."""

    async def close(self) -> None:
        await self._clerk.close()

    async def deliver(self, message: Message) -> None:
        """Send one e-mail to those who have not got it.

        Raises DeliveryError where some are to be tried again; NeverDeliverableError where the server refused the
        message, or those it was meant for alone; NobodyError where it waits for an address; LaterError untried.
        """
        try:
            await self._deliver(message)
        except NeverDeliverableError:
            metrics.MAIL_SENT.labels("dead").inc()
            raise
        except DeliveryError:
            metrics.MAIL_SENT.labels("retried").inc()
            raise
        except NobodyError:
            metrics.MAIL_SENT.labels("waiting").inc()
            raise
        metrics.MAIL_SENT.labels("sent").inc()

    async def _deliver(self, message: Message) -> None:
        letter = await compose(orjson.loads(message.payload), self._composers, self._clerk)
        known = await self._clerk.read(recipients_of, message.message_id)
        of_message = False
        while not of_message:
            wanted = _addressees_of(letter, known)
            left = [one for one in wanted if one not in known or known[one].state == RETRIED]
            if not left:
                break
            replies = await self._postman.send(replace(letter, to=wanted), message, _due(left, known))
            await self._keep(message, replies, known)
            of_message = any(one.of_message for one in replies.values() if one.state == REFUSED)
        reached = [one for one in known.values() if one.state == TAKEN]
        refused = [one for one in known.values() if one.state == REFUSED]
        if not reached:
            raise _lost("" if of_message else letter.waits_for, refused)
        if refused:
            codes = sorted(one.code for one in refused)
            _log.warning("some recipients were refused", message_id=message.message_id, codes=codes)

    async def _keep(self, message: Message, replies: Mapping[str, Reply], known: dict[str, Recipient]) -> None:
        """Write down what the server said, at once. Raises DeliveryError where some are to be tried again."""
        now = time.time_ns() // 1000
        tried = [self._recipient(one, reply, known.get(one), now) for one, reply in replies.items()]
        await self._clerk.write(put_recipients, message.message_id, message.created_utc_us, tried)
        known |= {one.address: one for one in tried}
        waiting = [one for one in known.values() if one.state == RETRIED]
        if waiting:
            again = DeliveryError(f"{len(waiting)} of {len(known)} recipients put off: {_reply_text(waiting[0])}")
            again.retry_at_utc_us = min(one.next_try_utc_us for one in waiting)
            raise again

    def _recipient(self, address: str, reply: Reply, before: Recipient | None, now_utc_us: int) -> Recipient:
        attempts = (before.attempts if before is not None else 0) + 1
        pause_s = retry_delay_s(attempts, self._retries, random.random())  # noqa: S311 - jitter
        next_try = now_utc_us + int(pause_s * 1_000_000) if reply.state == RETRIED else now_utc_us
        return Recipient(
            address=address,
            state=reply.state,
            attempts=attempts,
            at_utc_us=now_utc_us,
            next_try_utc_us=next_try,
            code=reply.code,
            said=reply.text,
        )


def _addressees_of(letter: Letter, known: Mapping[str, Recipient]) -> tuple[str, ...]:
    """Whom it is for; where all of these refused it for good, its buyer's present addresses too."""
    meant = dict.fromkeys(letter.to)
    if all(one in known and known[one].state == REFUSED for one in meant):
        meant |= dict.fromkeys(letter.present)
    return tuple(meant)


def _due(left: Iterable[str], known: Mapping[str, Recipient]) -> list[str]:
    """Those who may be tried now. Raises LaterError where none may."""
    now = time.time_ns() // 1000
    at = {one: known[one].next_try_utc_us if one in known else 0 for one in left}
    due = [one for one, when in at.items() if when <= now]
    if not due:
        raise LaterError(min(at.values()), "every recipient that is left was put off")
    return due


def _lost(waits_for: str, refused: Sequence[Recipient]) -> Exception:
    """What is raised where nobody got it."""
    said = _reply_text(refused[0]) if refused else "there is no recipient"
    if waits_for:
        return NobodyError(waits_for, f"every address was refused: {said}")
    return NeverDeliverableError(f"refused: {said}")


def _reply_text(recipient: Recipient) -> str:
    return one_line(f"{recipient.code or ''} {recipient.said}", 300)


async def compose(order: object, composers: Mapping[str, Composer], clerk: Clerk) -> Letter:
    """The letter of an outbox payload. Raises NobodyError, NeverDeliverableError, also where nobody composes it."""
    if not isinstance(order, dict):
        raise NeverDeliverableError("the order of this e-mail is no JSON object")
    kind = str(order.get("kind", LEAD))
    composer = composers.get(kind)
    if composer is None:
        raise NeverDeliverableError(f"nobody composes e-mails of the kind {one_line(kind, 32)!r}")
    return await composer.compose(order, clerk)
