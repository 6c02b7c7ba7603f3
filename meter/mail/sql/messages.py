"""The rows of e-mail: messages for the command line, bounces, a buyer's addresses.

A message counts as `bounced` where it was handed to the server and a report of permanent failure came since it was last
queued. Bounced messages outlive the others in the outbox, so that they can be sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, func, insert, select

from meter.outbox.sql import DONE
from meter.store.money_schema import mail_bounces
from meter.store.schema import buyers, outbox

CHANNEL = "mail"
BOUNCED = "bounced"
MAX_LISTED = 1_000
MAX_DIAGNOSTIC = 500  # characters
_DEFAULT_KIND = "lead"


@dataclass(frozen=True, slots=True)
class BuyerMail:
    """Where a buyer's e-mails go now, and how dates in them are written."""

    locale: str = "en_US"
    lead_emails: tuple[str, ...] = ()
    billing_emails: tuple[str, ...] = ()  # where it names none: `lead_emails`
    report_emails: tuple[str, ...] = ()  # where it names none: `billing_emails`


@dataclass(frozen=True, slots=True)
class MailRow:
    """One message of the outbox. Times in microseconds UTC; `to` is empty where its composer takes the buyer's."""

    id: int
    message_id: str
    kind: str
    state: str  # pending, done, dead, waiting, bounced
    attempts: int
    created_utc_us: int
    next_try_utc_us: int
    done_utc_us: int | None
    error: str
    to: tuple[str, ...]
    order: dict[str, Any]  # what the composer is told


@dataclass(frozen=True, slots=True)
class BounceRow:
    """The delivery status of one recipient, as a mail server reported it. `message_id` empty: none of ours."""

    at_utc_us: int
    message_id: str
    recipient: str
    permanent: bool
    status: str  # RFC 3463
    diagnostic: str
    checksum: str


def buyer_mail(connection: Connection, name: str) -> BuyerMail | None:
    """By the buyer's name; None where there is none. What cannot be read of its document is left at its default."""
    found = connection.execute(select(buyers.c.document).where(buyers.c.name == name)).scalar_one_or_none()
    if found is None:
        return None
    try:
        document = orjson.loads(found)
    except orjson.JSONDecodeError:
        return BuyerMail()
    if not isinstance(document, dict):
        return BuyerMail()
    leads = _addresses(document.get("lead_emails"))
    billing = _addresses(document.get("billing_emails")) or leads
    reports = _addresses(document.get("report_emails")) or billing
    return BuyerMail(str(document.get("locale") or BuyerMail().locale), leads, billing, reports)


def find_mail(connection: Connection, message_id: str) -> MailRow | None:
    """One message by its id."""
    row = connection.execute(_messages().where(outbox.c.message_id == message_id)).first()
    return None if row is None else _mail_row(row)


def message_id_of(connection: Connection, row_id: int) -> str | None:
    """The message id of a row; None where it is gone."""
    query = select(outbox.c.message_id).where(outbox.c.id == row_id, outbox.c.channel == CHANNEL)
    return connection.execute(query).scalar_one_or_none()


def list_mail(connection: Connection, state: str, limit: int) -> list[MailRow]:
    """The newest messages first, at most `limit` and never more than a thousand; `state` empty for all."""
    query = _messages()
    if state == BOUNCED:
        query = query.where(_is_bounced())
    elif state == DONE:
        query = query.where(outbox.c.state == DONE, ~_is_bounced())
    elif state:
        query = query.where(outbox.c.state == state)
    newest = query.order_by(outbox.c.created_utc_us.desc(), outbox.c.id.desc()).limit(min(limit, MAX_LISTED))
    return [_mail_row(row) for row in connection.execute(newest)]


def add_bounces(connection: Connection, rows: Sequence[BounceRow]) -> list[bool]:
    """Keep bounces; for each whether it is new: False where the same one is kept already."""
    return [_add_bounce(connection, one) for one in rows]


def bounces_of(connection: Connection, message_id: str) -> list[BounceRow]:
    """The bounces of one message, the oldest first."""
    columns = [mail_bounces.c[name] for name in BounceRow.__slots__]
    query = select(*columns).where(mail_bounces.c.message_id == message_id).order_by(mail_bounces.c.id)
    return [BounceRow(*row) for row in connection.execute(query.limit(MAX_LISTED))]


def bounce_counts(connection: Connection, since_utc_us: int) -> tuple[int, int]:
    """How many recipients bounced since then: for good, and for now."""
    query = select(mail_bounces.c.permanent, func.count()).where(mail_bounces.c.at_utc_us >= since_utc_us)
    found = {
        bool(permanent): count for permanent, count in connection.execute(query.group_by(mail_bounces.c.permanent))
    }
    return found.get(True, 0), found.get(False, 0)


def _add_bounce(connection: Connection, row: BounceRow) -> bool:
    known = select(mail_bounces.c.id).where(mail_bounces.c.checksum == row.checksum)
    if connection.execute(known).first() is not None:
        return False
    values = {name: getattr(row, name) for name in BounceRow.__slots__}
    connection.execute(insert(mail_bounces).values(**values | {"diagnostic": row.diagnostic[:MAX_DIAGNOSTIC]}))
    return True


def _messages() -> Select[Any]:
    names = ("id", "message_id", "attempts", "created_utc_us", "next_try_utc_us", "done_utc_us", "payload")
    said = (
        select(mail_bounces.c.status + " " + mail_bounces.c.diagnostic)
        .where(_reports_on())
        .order_by(mail_bounces.c.id.desc())
    )
    error = case((_is_bounced(), said.limit(1).scalar_subquery()), else_=outbox.c.error).label("error")
    state = case((_is_bounced(), BOUNCED), else_=outbox.c.state).label("state")
    return select(*(outbox.c[name] for name in names), state, error).where(outbox.c.channel == CHANNEL)


def _is_bounced() -> ColumnElement[bool]:
    """Compared with when it was queued: a report may come before the meter has noted that it was sent."""
    return (outbox.c.state == DONE) & select(mail_bounces.c.id).where(_reports_on()).exists()


def _reports_on() -> ColumnElement[bool]:
    return and_(
        mail_bounces.c.message_id == outbox.c.message_id,
        mail_bounces.c.permanent,
        mail_bounces.c.at_utc_us >= outbox.c.created_utc_us,
    )


def _mail_row(row: Row[Any]) -> MailRow:
    try:
        order = orjson.loads(row.payload)
    except orjson.JSONDecodeError:
        order = {}
    if not isinstance(order, dict):
        order = {}
    return MailRow(
        id=row.id,
        message_id=row.message_id,
        kind=str(order.get("kind", _DEFAULT_KIND)),
        state=row.state,
        attempts=row.attempts,
        created_utc_us=row.created_utc_us,
        next_try_utc_us=row.next_try_utc_us,
        done_utc_us=row.done_utc_us,
        error=row.error or "",
        to=_addresses(order.get("to")),
        order=order,
    )


def _addresses(column: object) -> tuple[str, ...]:
    return tuple(one for one in column if isinstance(one, str)) if isinstance(column, list) else ()
