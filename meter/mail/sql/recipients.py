"""The addresses of each e-mail in the store, and the messages that wait for one.

Delivery is per recipient: a row is written with the server's reply to each, in one transaction of its own right after
the reply, so that who got a message does not get it again and who did not is tried alone. Who was refused for good has
a bounce beside it, as from a report.

A message that nobody can be sent is `waiting`, with the addresses for which it waits (`waits_for`, such as
`lead_emails/acme`). It is due again when its buyer has one that has not refused it.

That a message was handed over once stays on record (`HANDED`, of no address) when it is sent again: an invoice that a
copy is asked of is no less due for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, and_, delete, func, insert, literal_column, select, update

from book.addresses import NO_MAIL, address_warnings, pays_failed
from book.model import Buyer
from meter.mail.sql.messages import BuyerMail, MailRow, buyer_mail
from meter.outbox.sql import DONE, HANDED, MAX_ERROR, PENDING
from meter.store.money_schema import mail_bounces
from meter.store.schema import mail_recipients, outbox

TAKEN, RETRIED, REFUSED = "taken", "retried", "refused"
MAX_LISTED = 1_000
# A literal, not a parameter: SQLite uses a partial index only where the statement itself says its condition.
IS_WAITING = outbox.c.state == literal_column("'waiting'")
_FRESH: dict[str, Any] = {"state": PENDING, "attempts": 0, "done_utc_us": None, "error": None, "waits_for": None}


@dataclass(frozen=True, slots=True)
class Recipient:
    """The delivery state of one address of a message. Times in microseconds UTC; `next_try_utc_us`: of a retry."""

    address: str
    state: str  # taken, retried, refused
    attempts: int
    at_utc_us: int
    next_try_utc_us: int
    code: int  # of the server's last reply; 0: it was none of its
    said: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many messages wait for the addresses of one buyer, and since when the oldest does."""

    buyer: str
    field: str  # lead_emails, billing_emails or report_emails
    messages: int
    oldest_utc_us: int


def recipients_of(connection: Connection, message_id: str) -> dict[str, Recipient]:
    """Those addresses of a message that were tried, by address."""
    columns = [mail_recipients.c[name] for name in Recipient.__slots__]
    query = select(*columns).where(mail_recipients.c.message_id == message_id, mail_recipients.c.state != HANDED)
    query = query.order_by(mail_recipients.c.address)
    return {row.address: Recipient(*row) for row in connection.execute(query)}


def put_recipients(connection: Connection, message_id: str, created_utc_us: int, tried: Sequence[Recipient]) -> None:
    """Write what came of an attempt; a refusal for good is a bounce too. `created_utc_us`: of the outbox row."""
    addresses = [one.address for one in tried]
    this = (mail_recipients.c.message_id == message_id, mail_recipients.c.address.in_(addresses))
    connection.execute(delete(mail_recipients).where(*this))
    rows = [{"message_id": message_id} | {name: getattr(one, name) for name in Recipient.__slots__} for one in tried]
    connection.execute(insert(mail_recipients), rows)
    for one in tried:
        if one.state == REFUSED:
            _bounce(connection, message_id, created_utc_us, one)


def _bounce(connection: Connection, message_id: str, created_utc_us: int, recipient: Recipient) -> None:
    seed = f"smtp\0{message_id}\0{created_utc_us}\0{recipient.address}\0{recipient.at_utc_us}"
    row = {
        "at_utc_us": recipient.at_utc_us,
        "message_id": message_id,
        "recipient": recipient.address,
        "permanent": True,
        "status": "",
        "diagnostic": f"{recipient.code or ''} {recipient.said}".strip()[:MAX_ERROR],
        "checksum": hashlib.sha256(seed.encode()).hexdigest(),
    }
    connection.execute(insert(mail_bounces).values(**row))


def send_again(connection: Connection, row: MailRow, to: Sequence[str] | None, by: str, now_utc_us: int) -> bool:
    """Make a message pending again; False where it is pending already. Who asked is kept in its order.

    `to` replaces its addresses, and nobody else gets it then; an empty one leaves them to the composer, which takes the
    buyer's present ones.
    """
    order = dict(row.order)
    if to is not None:
        order.pop("to", None)
        order.pop("only", None)
    if to:
        order |= {"to": list(to), "only": True}
    order["resent"] = {"by": by, "at_utc_us": now_utc_us}
    return queue_again(connection, row.id, row.message_id, order, now_utc_us)


def hand_over(connection: Connection, row: MailRow, by: str, now_utc_us: int) -> bool:
    """Note that somebody brought a message to its buyer in another way; False where a mail server has it already.

    Nothing of it is sent any more. Who did so is kept in its order.
    """
    order = dict(row.order) | {"handed_over": {"by": by, "at_utc_us": now_utc_us}}
    values = {"state": DONE, "done_utc_us": now_utc_us, "error": None, "waits_for": None}
    this = (outbox.c.id == row.id, outbox.c.message_id == row.message_id, outbox.c.state != DONE)
    written = update(outbox).where(*this).values(**values, payload=orjson.dumps(order))
    if not connection.execute(written).rowcount:
        return False
    mark_handed(connection, row.message_id, now_utc_us)
    return True


def mark_handed(connection: Connection, message_id: str, now_utc_us: int) -> None:
    """Put on record that a message was in its buyer's hands."""
    this = (mail_recipients.c.message_id == message_id, mail_recipients.c.state == HANDED)
    if connection.execute(select(mail_recipients.c.address).where(*this)).first() is None:
        unsaid = {"attempts": 0, "next_try_utc_us": 0, "code": 0, "said": ""}
        row = {"message_id": message_id, "address": "", "state": HANDED, "at_utc_us": now_utc_us, **unsaid}
        connection.execute(insert(mail_recipients).values(**row))


def queue_again(
    connection: Connection, row_id: int, message_id: str, order: Mapping[str, Any], now_utc_us: int
) -> bool:
    """Make a message due again, its age and attempts counted anew; False where it is pending already.

    It goes to those who did not get it, or of whom a report came that they did not; where all got it, to all; and to
    those whom the order names as the only ones.
    """
    this = (outbox.c.id == row_id, outbox.c.message_id == message_id, outbox.c.state != PENDING)
    values = _FRESH | {"created_utc_us": now_utc_us, "next_try_utc_us": now_utc_us, "payload": orjson.dumps(order)}
    was = connection.execute(select(outbox.c.state).where(*this)).scalar_one_or_none()
    if not connection.execute(update(outbox).where(*this).values(**values)).rowcount:
        return False
    taken = (mail_recipients.c.message_id == message_id, mail_recipients.c.state == TAKEN)
    if was == DONE or connection.execute(select(mail_recipients.c.address).where(*taken)).first() is not None:
        mark_handed(connection, message_id, now_utc_us)
    _forget(connection, message_id, list(order.get("to", ())) if order.get("only") else [])
    return True


def _forget(connection: Connection, message_id: str, named: Sequence[str]) -> None:
    this = and_(mail_recipients.c.message_id == message_id, mail_recipients.c.state != HANDED)
    came_back = select(mail_bounces.c.id).where(
        mail_bounces.c.message_id == message_id,
        mail_bounces.c.permanent,
        mail_bounces.c.at_utc_us >= mail_recipients.c.at_utc_us,
        func.lower(mail_bounces.c.recipient) == func.lower(mail_recipients.c.address),
    )
    missed = (mail_recipients.c.state != TAKEN) | came_back.exists() | mail_recipients.c.address.in_(named)
    if not connection.execute(delete(mail_recipients).where(this, missed)).rowcount:
        connection.execute(delete(mail_recipients).where(this))


def releasable(connection: Connection) -> list[int]:
    """The waiting messages whose buyer has an address now that has not refused them, the oldest first."""
    known = _present(connection)
    if not known:
        return []
    query = select(outbox.c.id, outbox.c.message_id, outbox.c.waits_for)
    query = query.where(IS_WAITING, outbox.c.waits_for.in_(sorted(known))).order_by(outbox.c.id)
    found = connection.execute(query).all()
    refused = _refused(connection, [one.message_id for one in found])
    return [one.id for one in found if known[one.waits_for] - refused.get(one.message_id, set())]


def release(connection: Connection, rows: Sequence[int], now_utc_us: int) -> int:
    """Make waiting messages due, their age counted from now; how many that still wait."""
    again = _FRESH | {"created_utc_us": now_utc_us, "next_try_utc_us": now_utc_us}
    return connection.execute(update(outbox).where(outbox.c.id.in_(rows), IS_WAITING).values(**again)).rowcount


def waiting(connection: Connection) -> list[Waiting]:
    """The messages that wait for an address, by buyer."""
    query = select(outbox.c.waits_for, func.count(), func.min(outbox.c.created_utc_us))
    rows = connection.execute(query.where(IS_WAITING).group_by(outbox.c.waits_for))
    split = [((for_ or "").partition("/"), count, oldest) for for_, count, oldest in rows]
    return sorted((Waiting(buyer, field, count, oldest) for (field, _, buyer), count, oldest in split), key=_of_buyer)


def order_warnings(connection: Connection, buyer: Buyer, *, has_mail: bool) -> tuple[str, ...]:
    """Warnings: leads or documents of a buyer that no e-mail could deliver (domain, section 7)."""
    found = [f"{field}: {what}" for field, what in address_warnings(buyer)]
    if not has_mail and pays_failed(buyer):
        found.append(NO_MAIL)
    count = sum(one.messages for one in waiting(connection) if one.buyer == buyer.name)
    if count:
        what = "1 e-mail waits" if count == 1 else f"{count:,} e-mails wait"
        found.append(f"{what} for an address of {buyer.name} already: `baton mail waiting`")
    return tuple(found)


def _of_buyer(waiting: Waiting) -> tuple[str, str]:
    return waiting.buyer, waiting.field


def _present(connection: Connection) -> dict[str, set[str]]:
    """The addresses that buyers have now, by what waits for them; only where something does, and there are any."""
    names = connection.execute(select(outbox.c.waits_for).where(IS_WAITING).distinct()).scalars()
    found: dict[str, set[str]] = {}
    for name in names:
        field, _, buyer = (name or "").partition("/")
        mail = buyer_mail(connection, buyer) or BuyerMail()
        if addresses := getattr(mail, field, ()):
            found[name] = set(addresses)
    return found


def _refused(connection: Connection, message_ids: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for at in range(0, len(message_ids), MAX_LISTED):
        some = message_ids[at : at + MAX_LISTED]
        query = select(mail_recipients.c.message_id, mail_recipients.c.address)
        query = query.where(mail_recipients.c.message_id.in_(some), mail_recipients.c.state == REFUSED)
        for message_id, address in connection.execute(query):
            found.setdefault(message_id, set()).add(address)
    return found
