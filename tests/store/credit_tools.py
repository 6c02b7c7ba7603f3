"""Credits for tests: asking and deciding over a store of `money_tools`, at instants by New York's clock."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Connection, insert, select

from meter.credits.rules import ReasonBook, load_reasons
from meter.credits.sql import requests as desk
from meter.credits.sql.reading import Request
from meter.journal.rows import insert_rows, make_row
from meter.store.schema import boots, outbox, outcomes
from tests.store.money_tools import Books, at

REASONS = load_reasons()


async def ask(
    books: Books,
    transfer: str,
    when: str,
    buyer: str = "acme",
    *,
    reason: str = "duplicate",
    words: str = "had her in May",
    reasons: ReasonBook = REASONS,
) -> Request:
    asked = desk.CreditApplication(words, "crm", "api:192.0.2.7", reason)
    return await books.write(
        lambda connection: desk.ask(connection, (transfer, buyer), asked, reasons, at(when)),
    )


async def decide(
    books: Books, request: int, when: str, *, approve: bool = True, reviewer: str = "Ann", why: str = "as the log says"
) -> Request:
    decision = desk.Decision(approve, why, reviewer)
    return await books.write(lambda connection: desk.decide(connection, request, decision, at(when)))


async def again(books: Books, request: int, when: str, words: str = "look at the address") -> Request:
    asked = desk.CreditApplication(words, "bo", "cli:desk")
    return await books.write(lambda connection: desk.re_review(connection, request, asked, at(when)))


async def mails(books: Books) -> list[dict[str, Any]]:
    """The decisions' e-mails, in their order."""
    query = select(outbox).where(outbox.c.key.like("credit:%")).order_by(outbox.c.id)
    rows = await books.read(lambda connection: connection.execute(query).all())
    return [row._asdict() | {"payload": orjson.loads(row.payload)} for row in rows]


async def happen(books: Books, transfer: str, call_id: str, phone: str, buyer: str = "acme") -> None:
    """The outcome of a transfer, as the follower writes it, for what finds calls by it."""
    row = {
        "transfer": transfer,
        "router": "r1",
        "boot": "b1",
        "call_id": call_id,
        "sip_call_id": "x",
        "dialer": "west",
        "campaign": "solar",
        "buyer": buyer,
        "phone": phone,
        "started_utc_us": 1,
        "dialout_utc_us": 1,
        "closed_utc_us": 2,
        "verdict": "failed",
        "reason": "declined",
        "counts_as": "failed",
        "table_row": 10,
        "attempt_ms": 30_000,
        "talk_ms": 0,
        "buffer_ms": 15_000,
        "evidence": b"[]",
        "terms_name": "contract",
        "terms_version": 1,
        "agreed": True,
    }
    await books.write(lambda connection: connection.execute(insert(outcomes).values(**row)).rowcount)


async def write_down(books: Books, told: Any) -> None:
    """The facts of a story, in their chain."""

    def work(connection: Connection) -> None:
        connection.execute(insert(boots).values(router="r1", boot="boot-1", started_utc_us=1, pid=1))
        digest, rows = b"\0" * 32, []
        for fact in told:
            made, row = make_row(fact, digest)
            digest = made.digest(digest)
            rows.append(row)
        insert_rows(connection, rows)

    await books.write(work)
