"""The heads of all chains on a day, exported so that a store restored from an older copy is noticed.

A chain shows what was changed in its middle; it cannot show that its newest part is gone, as it is where somebody puts
yesterday's copy in the place of the store. Who has the ends as they were holds the store against them: each must still
be in its chain, at its place, with its digest, and no series of documents may have become shorter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select

from meter.outbox.sql import new_row
from meter.store.money_schema import chain_heads, document_series, ledger_heads, postings
from meter.store.schema import boots, facts, outbox

SCHEMA = 1
KIND = "heads"  # of its e-mail
_DIGEST = 64  # hex digits


class HeadsError(ValueError):
    """A file that holds no chain heads; the message says what is wrong with it."""


def read_heads(connection: Connection, now_utc_us: int) -> dict[str, Any]:
    """The ends as they are: of the facts of each boot, of each buyer's ledger, and of each series of documents.

    A ledger that is locked before its first posting has a row on PostgreSQL, and no end yet.
    """
    ends = []
    for router, boot in connection.execute(select(boots.c.router, boots.c.boot).order_by(boots.c.started_utc_us)):
        query = select(facts.c.seq, facts.c.digest).where(facts.c.router == router, facts.c.boot == boot)
        last = connection.execute(query.order_by(facts.c.seq.desc()).limit(1)).one_or_none()
        if last is not None:
            ends.append({"router": router, "boot": boot, "seq": last.seq, "digest": bytes(last.digest).hex()})
    ledger = [
        {"buyer": row.buyer, "seq": row.seq, "digest": bytes(row.digest).hex()}
        for row in connection.execute(select(ledger_heads).where(ledger_heads.c.seq > 0).order_by(ledger_heads.c.buyer))
    ]
    series = {row.series: row.last for row in connection.execute(select(document_series))}
    at = datetime.fromtimestamp(now_utc_us // 1_000_000, UTC).isoformat()
    return {"schema": SCHEMA, "at": at, "facts": ends, "ledger": ledger, "documents": series}


def encoded(heads: Mapping[str, Any]) -> bytes:
    """The canonical form, of which the digest is told."""
    return orjson.dumps(heads, option=orjson.OPT_SORT_KEYS)


def decoded(content: bytes) -> dict[str, Any]:
    """Heads from a file. Raises HeadsError."""
    try:
        heads = orjson.loads(content)
        known = heads["schema"] == SCHEMA and isinstance(heads["documents"], dict)
        parts = [*((one["router"], one["boot"]) for one in heads["facts"]), *(one["buyer"] for one in heads["ledger"])]
        whole = all(len(one["digest"]) == _DIGEST and one["seq"] > 0 for one in (*heads["facts"], *heads["ledger"]))
    except (ValueError, KeyError, TypeError) as error:
        raise HeadsError(f"no chain heads: {error}") from error
    if not (known and whole) or len(set(parts)) != len(parts):
        raise HeadsError("no chain heads of a form that this version knows")
    found: dict[str, Any] = heads
    return found


def keep(connection: Connection, day: str, now_utc_us: int, to: Sequence[str]) -> bool:
    """Keep a day's heads, once, and queue the e-mail that tells them; whether they are new."""
    there = connection.execute(select(chain_heads.c.day).where(chain_heads.c.day == day)).first()
    if there is not None:
        return False
    body = encoded(read_heads(connection, now_utc_us))
    row = {"day": day, "body": body, "digest": hashlib.sha256(body).hexdigest(), "made_utc_us": now_utc_us}
    connection.execute(insert(chain_heads).values(**row))
    if to:
        said = {"kind": KIND, "day": day, "to": list(to)}
        message = new_row("mail", KIND, f"{KIND}-{day}.{KIND}", said, now_utc_us)
        connection.execute(insert(outbox).values(**message))
    return True


def newest(connection: Connection) -> Any:
    """The newest day's row; None where there is none."""
    return connection.execute(select(chain_heads).order_by(chain_heads.c.day.desc()).limit(1)).one_or_none()


def of_day(connection: Connection, day: str) -> bytes | None:
    """The heads kept of a day."""
    found = connection.execute(select(chain_heads.c.body).where(chain_heads.c.day == day)).scalar_one_or_none()
    return None if found is None else bytes(found)


def missing(connection: Connection, heads: Mapping[str, Any]) -> list[str]:
    """The exported heads that the store lacks; nothing where it holds all of them."""
    return [*_facts(connection, heads), *_ledger(connection, heads), *_documents(connection, heads)]


def _facts(connection: Connection, heads: Mapping[str, Any]) -> Iterator[str]:
    for one in heads["facts"]:
        where = (facts.c.router == one["router"], facts.c.boot == one["boot"], facts.c.seq == one["seq"])
        found = connection.execute(select(facts.c.digest).where(*where)).scalar_one_or_none()
        yield from _differences(
            f"{one['router']} boot {one['boot']} fact {one['seq']}", found, one["digest"], heads["at"]
        )


def _ledger(connection: Connection, heads: Mapping[str, Any]) -> Iterator[str]:
    for one in heads["ledger"]:
        where = (postings.c.buyer == one["buyer"], postings.c.seq == one["seq"])
        found = connection.execute(select(postings.c.digest).where(*where)).scalar_one_or_none()
        yield from _differences(f"ledger of {one['buyer']}: {one['seq']}", found, one["digest"], heads["at"])


def _differences(what: str, head: Any, digest: str, at: str) -> Iterator[str]:
    if head is None:
        yield f"{what} was there at {at}, and is not: is this an older copy of the store?"
    elif bytes(head).hex() != digest:
        yield f"{what} is another than at {at}"


def _documents(connection: Connection, heads: Mapping[str, Any]) -> Iterator[str]:
    now = {row.series: row.last for row in connection.execute(select(document_series))}
    for series, last in heads["documents"].items():
        if now.get(series, 0) < last:
            yield f"{series}: {last} documents at {heads['at']}, {now.get(series, 0)} now"
