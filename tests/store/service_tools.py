"""Per-minute service for tests: a buyer on these terms, e-mails and chats as reported, and what is kept of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import select

from book.model import Endpoint, EndpointKind
from book.terms import presets
from meter.per_minute.interactions import RatingKind, read_report
from meter.per_minute.sql import interactions, ratings
from meter.per_minute.sql.interactions import Interaction
from meter.store.schema import outbox
from tests.store.money_tools import Books, at

SERVICE = replace(presets()["customer-success"], name="contract")
AGENTS = tuple(Endpoint(name, EndpointKind.TRUNK, f"sip:{name}@pbx.example") for name in ("ann", "bob"))


async def serve(books: Books, *buyers: str, **fields: Any) -> None:
    """Import buyers who pay 118 cents a started minute."""
    await books.agree(*(buyers or ("acme",)), terms=SERVICE, **{"endpoints": AGENTS, **fields})


def said(reference: str = "m-1", day: str = "2026-06-02", **more: Any) -> dict[str, Any]:
    """An e-mail of the morning that took two minutes and a millisecond: three started minutes, 354 cents."""
    return {
        "buyer": "acme",
        "kind": "email",
        "reference": reference,
        "received_at": f"{day}T10:00:00-04:00",
        "started_at": f"{day}T10:30:00-04:00",
        "ended_at": f"{day}T10:32:00.001-04:00",
        "resolved": True,
        "text": "Dear Jo",
        "customer": "jo@example.org",
        "agent": "ann",
        **more,
    }


async def report(books: Books, what: dict[str, Any], when: str = "", *, ask: bool = True) -> tuple[Interaction, bool]:
    """Report it, by default at noon of its day."""
    now = at(when or f"{what['received_at'][:10]} 12:00")
    return await books.write(lambda connection: interactions.add(connection, read_report(what, now), now, ask=ask))


async def rate(
    books: Books, interaction: str, rating: int, kind: RatingKind = RatingKind.QUALITY, when: str = "2026-06-02 15:00"
) -> Interaction:
    return await books.write(
        lambda connection: ratings.file_rating(connection, interaction, kind, (rating, "so", "qa"), at(when))
    )


async def mails(books: Books) -> list[dict[str, Any]]:
    """What waits in the outbox for the mail server."""
    query = select(outbox).where(outbox.c.channel == "mail").order_by(outbox.c.id)
    rows = await books.read(lambda connection: connection.execute(query).all())
    return [row._asdict() | {"payload": orjson.loads(row.payload)} for row in rows]
