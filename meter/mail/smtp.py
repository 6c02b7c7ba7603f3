"""Hands one message to a mail server, with the server's reply to each recipient (RFC 5321 section 3.3).

Replies are per recipient: to each RCPT, and to the DATA for those that were accepted. 5yz is for good (4.2.1), but not
552 to a RCPT, which old servers say where there are too many (4.5.3.1.10). What the connection's end leaves open, the
DATA without a reply too, is for now: the recipients concerned are tried again, under the same Message-ID.

Too many for one transaction go in several. Addresses with letters beyond ASCII need SMTPUTF8 (RFC 6531): a server
without it refuses them, and no others.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import aiosmtplib

from meter.mail.message import MAX_RECIPIENTS, MailOptions
from meter.mail.sql.recipients import REFUSED, RETRIED, TAKEN
from meter.outbox.delivery import DeliveryError
from meter.text.hostile import one_line

MAX_SAID = 300  # characters of a reply
_PERMANENT = 500  # RFC 5321 section 4.2.1: 5yz, do not repeat the request
_TOO_MANY = 552
_NO_UTF8 = "the server does not take addresses beyond ASCII (SMTPUTF8, RFC 6531)"


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's reply for one recipient: taken, retried or refused. `of_message`: the message was refused."""

    state: str
    code: int  # 0: no reply of the server's
    text: str
    of_message: bool = False


async def hand_over(
    raw: bytes, sender: str, to: Mapping[str, str], options: MailOptions, *, utf8: bool = False
) -> dict[str, Reply]:
    """Send a message; `to` has the envelope's form of each address.

    Raises DeliveryError where no recipient came to anything: no connection, no login, a refused sender.
    """
    replies: dict[str, Reply] = {}
    names = list(to)
    try:
        async with _client(options) as client:
            if utf8 and not await _knows_utf8(client):
                return {name: Reply(REFUSED, 0, _NO_UTF8) for name in names}
            for at in range(0, len(names), MAX_RECIPIENTS):
                some = {name: to[name] for name in names[at : at + MAX_RECIPIENTS]}
                await _transaction(client, raw, sender, some, replies, utf8=utf8)
    except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
        # Also a refused login or sender: that is our configuration, which can be put right; the message must not die.
        said = one_line(error, MAX_SAID) or type(error).__name__
        if not replies:
            raise DeliveryError(said) from error
        for name in names:
            replies.setdefault(name, Reply(RETRIED, 0, said))
    return replies


def _client(options: MailOptions) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(
        hostname=options.host,
        port=options.port,
        use_tls=options.security == "tls",
        start_tls=options.security == "starttls",
        username=options.username or None,
        password=options.password or None,
        timeout=options.timeout_s,
        cert_bundle=options.ca_file or None,
    )


async def _knows_utf8(client: aiosmtplib.SMTP) -> bool:
    await client.ehlo()
    return client.supports_extension("smtputf8")


async def _transaction(
    client: aiosmtplib.SMTP,
    raw: bytes,
    sender: str,
    to: Mapping[str, str],
    replies: MutableMapping[str, Reply],
    *,
    utf8: bool,
) -> None:
    """One MAIL, its RCPTs and DATA; each reply is kept as it comes."""
    encoding = "utf-8" if utf8 else "ascii"
    await client.mail(sender, options=["SMTPUTF8"] if utf8 else [], encoding=encoding)
    accepted = []
    for name, address in to.items():
        try:
            await client.rcpt(address, encoding=encoding)
        except aiosmtplib.SMTPRecipientRefused as error:
            replies[name] = _refusal(error, for_good=error.code >= _PERMANENT and error.code != _TOO_MANY)
        except ValueError as error:  # what the library cannot put into a command
            replies[name] = Reply(REFUSED, 0, one_line(error, MAX_SAID))
        else:
            accepted.append(name)
    if not accepted:
        await client.rset()
        return
    replies.update(await _data(client, raw, accepted))


async def _data(client: aiosmtplib.SMTP, raw: bytes, accepted: Sequence[str]) -> dict[str, Reply]:
    try:
        answer = await client.data(raw)
    except aiosmtplib.SMTPDataError as error:
        reply = _refusal(error, for_good=error.code >= _PERMANENT, of_message=True)
    else:
        reply = Reply(TAKEN, answer.code, one_line(answer.message, MAX_SAID))
    return dict.fromkeys(accepted, reply)


def _refusal(error: aiosmtplib.SMTPResponseException, *, for_good: bool, of_message: bool = False) -> Reply:
    said = one_line(error.message, MAX_SAID)
    return Reply(REFUSED if for_good else RETRIED, error.code, said, of_message=of_message)
