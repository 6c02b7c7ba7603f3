"""Keeps the ratings that endpoints have earned through an import (`meter.per_minute.sql.ratings`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection, literal_column, select

from book.model import Buyer, Channel, Endpoint
from book.sections import BookFile
from meter.store.money_schema import interactions, ratings


def with_earned_ratings(connection: Connection, file: BookFile, stored: Mapping[str, Buyer]) -> BookFile:
    """The file with the ratings in force of endpoints whose calls were rated: these are no longer a file's to set."""
    rated = _rated(connection, [one.name for one in file.buyers if one.name in stored])
    if not rated:
        return file
    return replace(file, buyers=tuple(_with_earned(one, stored.get(one.name), rated) for one in file.buyers))


def _rated(connection: Connection, names: list[str]) -> set[tuple[str, str]]:
    """(buyer, endpoint) of those whose rating is an average."""
    if not names or connection.execute(select(ratings.c.id).limit(1)).first() is None:
        return set()
    is_rated = select(literal_column("1")).where(ratings.c.interaction == interactions.c.id).exists()
    mine = (interactions.c.buyer.in_(sorted(names)), interactions.c.kind == Channel.CALL.value, is_rated)
    query = select(interactions.c.buyer, interactions.c.agent).where(*mine).distinct()
    return {(buyer, agent) for buyer, agent in connection.execute(query)}


def _with_earned(buyer: Buyer, stored: Buyer | None, rated: set[tuple[str, str]]) -> Buyer:
    earned = (
        {one.name: one.rating_x100 for one in stored.endpoints if (buyer.name, one.name) in rated} if stored else {}
    )
    return replace(buyer, endpoints=tuple(_earning(one, earned) for one in buyer.endpoints)) if earned else buyer


def _earning(endpoint: Endpoint, earned: Mapping[str, int]) -> Endpoint:
    return replace(endpoint, rating_x100=earned.get(endpoint.name, endpoint.rating_x100))
