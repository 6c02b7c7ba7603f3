"""The rows of the outbox: messages that are due, and the results of their attempts.

A message waits as `pending` until it is `done` or, given up, `dead`; an e-mail that nobody can be sent is `waiting`
until there is an address, and holds up nobody. Of each key only the oldest pending message is
ever due, so order is kept and one is in flight per key. Done rows are removed after a while, dead ones stay until
somebody revives or removes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    update,
)

from meter.store.money_schema import mail_bounces
from meter.store.schema import mail_recipients, outbox

PENDING, DONE, DEAD = "pending", "done", "dead"
HANDED = "handed"  # of a recipient without an address: see meter.mail.sql.recipients
WAITING = "waiting"  # of e-mails: for an address (meter.mail.sql.recipients)
_PENDING_LITERAL: ColumnElement[str] = literal_column(
    "'pending'"
)  # no parameter: SQLite's partial index needs to see it
MAX_ERROR = 500  # characters of an error that are kept

Forget = Callable[[Connection, int, int], int]  # (before, microseconds UTC; at most so many rows) -> how many


@dataclass(frozen=True, slots=True)
class Message:
    """One message to deliver. `attempts` counts those already made; times in microseconds UTC."""

    id: int
    channel: str
    key: str
    message_id: str
    payload: bytes
    attempts: int
    created_utc_us: int


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one attempt. For `pending`, `next_try_utc_us` says when it is due again."""

    id: int
    state: str
    next_try_utc_us: int
    error: str = ""
    tried: bool = True  # False: it was put off without an attempt
    waits_for: str = ""  # for `waiting`


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages of a channel wait, and since when the oldest does."""

    channel: str
    pending: int
    oldest_utc_us: int | None
    dead: int


def waits_for(field: str, buyer: str) -> str:
    """For which of a buyer's addresses a message waits, as it is kept: `lead_emails/acme`."""
    return f"{field}/{buyer}"


def new_row(
    channel: str, key: str, message_id: str, payload: Mapping[str, Any], now_utc_us: int, *, needs: str = ""
) -> dict[str, Any]:
    """The columns of a message to queue. `key`: order is kept per key; `message_id` is stable: it is queued once.

    `needs`: the addresses for which it waits from the beginning (`waits_for`).
    """
    return {
        "channel": channel,
        "key": key,
        "message_id": message_id,
        "payload": orjson.dumps(payload),
        "state": WAITING if needs else PENDING,
        "waits_for": needs or None,
        "attempts": 0,
        "created_utc_us": now_utc_us,
        "next_try_utc_us": now_utc_us,
    }


def _due() -> Select[Any]:
    earlier = outbox.alias()
    blocked = (
        select(earlier.c.id)
        .where(earlier.c.channel == outbox.c.channel, earlier.c.key == outbox.c.key)
        .where(earlier.c.state == _PENDING_LITERAL, earlier.c.id < outbox.c.id)
    )
    columns = [outbox.c[name] for name in Message.__slots__]
    now = bindparam("now", type_=outbox.c.next_try_utc_us.type)
    return (
        select(*columns)
        .where(outbox.c.channel == bindparam("of"), outbox.c.state == PENDING, outbox.c.next_try_utc_us <= now)
        .where(~blocked.exists())
        .order_by(outbox.c.next_try_utc_us)
        .limit(bindparam("most", type_=Integer))
    )


_DUE = _due()  # made once: to make it takes longer than to run it
_NEXT_DUE = select(func.min(outbox.c.next_try_utc_us)).where(
    outbox.c.channel == bindparam("of"), outbox.c.state == PENDING
)


def due(
    connection: Connection, channel: str, now_utc_us: int, limit: int, *, without: Sequence[str] = ()
) -> list[Message]:
    """The messages of a channel to deliver now: due, and first of their key. Oldest first, at most `limit`.

    `without`: beginnings of keys that are left out.
    """
    query = _DUE
    for beginning in without:
        query = query.where(func.substr(outbox.c.key, 1, len(beginning)) != beginning)
    rows = connection.execute(query, {"of": channel, "now": now_utc_us, "most": limit})
    return [Message(*row) for row in rows]


def due_or_next(
    connection: Connection, channel: str, now_utc_us: int, limit: int, *, without: Sequence[str] = ()
) -> tuple[list[Message], int | None]:
    """The messages to deliver now; where there are none, when the next one is due."""
    found = due(connection, channel, now_utc_us, limit, without=without)
    return found, None if found else next_due(connection, channel)


def record(connection: Connection, results: Sequence[Result], now_utc_us: int) -> None:
    """Write what became of attempts; at most one transaction's worth, the caller sees to that."""
    if not results:
        return
    connection.execute(
        update(outbox)
        .where(outbox.c.id == bindparam("row_id"), outbox.c.state == PENDING)
        .values(
            state=bindparam("new_state"),
            attempts=outbox.c.attempts + bindparam("tried"),
            next_try_utc_us=bindparam("next_try"),
            done_utc_us=bindparam("done"),
            error=bindparam("why"),
            waits_for=bindparam("for_whom"),
        ),
        [
            {
                "row_id": one.id,
                "tried": int(one.tried),
                "new_state": one.state,
                "next_try": one.next_try_utc_us,
                "done": None if one.state in (PENDING, WAITING) else now_utc_us,
                "why": one.error[:MAX_ERROR] or None,
                "for_whom": one.waits_for or None,
            }
            for one in results
        ],
    )


def next_due(connection: Connection, channel: str) -> int | None:
    """When the next message of a channel is due, in microseconds UTC; None where none waits."""
    found = connection.execute(_NEXT_DUE, {"of": channel}).scalar_one_or_none()
    return None if found is None else int(found)


def pending_keys(connection: Connection, channel: str, keys: Sequence[str]) -> set[str]:
    """Those of the keys under which a message of the channel still waits."""
    query = select(outbox.c.key).where(outbox.c.channel == channel, outbox.c.state == _PENDING_LITERAL)
    return set(connection.execute(query.where(outbox.c.key.in_(keys))).scalars())


def depths(connection: Connection) -> list[Depth]:
    """The depth of every channel that has messages."""
    query = select(outbox.c.channel, outbox.c.state, func.count(), func.min(outbox.c.created_utc_us))
    waiting: dict[str, Depth] = {}
    for channel, state, count, oldest in connection.execute(
        query.where(outbox.c.state.in_([PENDING, DEAD])).group_by(outbox.c.channel, outbox.c.state)
    ).all():
        so_far = waiting.get(channel, Depth(channel, 0, None, 0))
        waiting[channel] = (
            Depth(channel, count, oldest, so_far.dead)
            if state == PENDING
            else Depth(channel, so_far.pending, so_far.oldest_utc_us, count)
        )
    return sorted(waiting.values(), key=lambda depth: depth.channel)


def prune(connection: Connection, before_utc_us: int, limit: int) -> int:
    """Remove messages done before a time, at most `limit`, but none that bounced for good; how many."""
    bounced = select(mail_bounces.c.id).where(
        mail_bounces.c.message_id == outbox.c.message_id,
        mail_bounces.c.permanent,
        mail_bounces.c.at_utc_us >= outbox.c.created_utc_us,  # as in meter.mail.sql.messages
    )
    old = select(outbox.c.id, outbox.c.message_id, outbox.c.channel)
    old = old.where(outbox.c.state == DONE, outbox.c.done_utc_us < before_utc_us, ~bounced.exists())
    found = connection.execute(old.limit(limit)).all()
    mails = [one.message_id for one in found if one.channel == "mail"]
    connection.execute(delete(mail_recipients).where(mail_recipients.c.message_id.in_(mails)))
    return connection.execute(delete(outbox).where(outbox.c.id.in_([one.id for one in found]))).rowcount
