"""Ratings in the store: filed, never changed, the last of each kind holds; and an agent's share by its ratings.

With every rating of a call the answering endpoint's `rating_x100` becomes the average of its last rated calls, in the
same transaction; where that changes the book's version is raised, so every router has it with its next transfer. The
buyer's chain is held meanwhile, so of two ratings at once the second sees the first.
"""

from __future__ import annotations

import orjson
from sqlalchemy import Connection, insert, literal_column, select, update

from book.model import Channel
from meter.book.sql.book import raise_version
from meter.ledger.sql.ledger import lock_heads
from meter.per_minute.interactions import InteractionError, InteractionRefusal, RatingKind, average_x100, checked_rating
from meter.per_minute.sql.interactions import Interaction, find
from meter.store.money_schema import interactions, ratings
from meter.store.schema import endpoints

LAST_CALLS = 100  # rated ones, whose average is an agent's rating
MAX_CALLER_RATINGS = 20  # of one interaction: who has a link may change their mind, and fill no disk


def file_rating(
    connection: Connection, interaction: str, kind: RatingKind, statement: tuple[int, str, str], now_utc_us: int
) -> Interaction:
    """File a rating, its words and who says so; the interaction with it. The same as holds already is not repeated.

    Raises InteractionError: unknown, a wrong field, or rated by its caller too often.
    """
    rating, words, by = statement
    checked_rating(rating, words, by)
    found = find(connection, interaction)
    lock_heads(connection, [found.buyer])
    found = find(connection, interaction)
    before = found.last(kind)
    if before is not None and (before.rating, before.words, before.by) == (rating, words, by):
        return found
    if kind is RatingKind.CALLER and sum(one.kind is kind for one in found.ratings) >= MAX_CALLER_RATINGS:
        raise InteractionError("rating", "was changed too often", InteractionRefusal.FULL)
    row = {"interaction": interaction, "kind": kind.value, "rating": rating, "words": words, "by": by}
    connection.execute(insert(ratings).values(**row, at_utc_us=now_utc_us))
    if found.kind is Channel.CALL and found.agent:
        _weigh(connection, found.buyer, found.agent)
    return find(connection, interaction)


def _weigh(connection: Connection, buyer: str, agent: str) -> None:
    """Put the average of the agent's last rated calls into the book."""
    this = (endpoints.c.buyer == buyer, endpoints.c.name == agent)
    stored = connection.execute(select(endpoints.c.document).where(*this)).scalar_one_or_none()
    average = average_x100(_last_ratings(connection, buyer, agent))
    if stored is None or average is None:
        return  # the endpoint is no longer in the book
    document = orjson.loads(stored)
    if document.get("rating_x100") == average:
        return
    document["rating_x100"] = average
    made = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    connection.execute(update(endpoints).where(*this).values(document=made))
    raise_version(connection)


def _last_ratings(connection: Connection, buyer: str, agent: str) -> list[int]:
    """Those that hold, of the agent's last rated calls."""
    is_rated = select(literal_column("1")).where(ratings.c.interaction == interactions.c.id).exists()
    mine = (interactions.c.buyer == buyer, interactions.c.kind == Channel.CALL.value, interactions.c.agent == agent)
    query = select(interactions.c.id).where(*mine, is_rated).order_by(interactions.c.received_utc_us.desc())
    last = [name for (name,) in connection.execute(query.limit(LAST_CALLS))]
    holding: dict[str, tuple[bool, int]] = {}
    rows = connection.execute(select(ratings).where(ratings.c.interaction.in_(last)).order_by(ratings.c.id))
    for row in rows:
        is_quality = row.kind == RatingKind.QUALITY.value
        if is_quality or not holding.get(row.interaction, (False, 0))[0]:
            holding[row.interaction] = (is_quality, row.rating)
    return [rating for _, rating in holding.values()]
