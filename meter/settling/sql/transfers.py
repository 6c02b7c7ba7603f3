"""Settled transfers for the API's pages: filtered, in the order in which they were settled.

That order is what makes a walk whole: a transfer that ended earlier than others and is settled later comes after them,
never behind where a reader is already. On SQLite it is the order of the rows, for outcomes are only ever added; the
cursor is the id of the last transfer seen, so it holds whatever the rows are numbered. PostgreSQL keeps no such order:
there it is the time of the end, and who walks up to the present may miss what is settled late.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, literal_column, select, tuple_

from meter.store.money_schema import postings
from meter.store.schema import outcomes

MOST = 5_000  # rows at once
_CLOCKS_US = 3_600 * 1_000_000  # how far the clocks of router and meter may be apart, or be put back
_ROW: ColumnElement[int] = literal_column("outcomes.rowid")
_EXACT = ("buyer", "dialer", "campaign", "verdict", "reason", "counts_as", "phone", "call_id")


@dataclass(frozen=True, slots=True)
class SettledTransfer:
    """One settled transfer. Times in microseconds UTC; durations in ms."""

    transfer: str
    call_id: str
    sip_call_id: str
    dialer: str
    campaign: str
    buyer: str
    phone: str
    started_utc_us: int
    dialout_utc_us: int | None
    closed_utc_us: int
    verdict: str
    reason: str
    counts_as: str
    attempt_ms: int
    talk_ms: int
    buffer_ms: int
    terms_name: str
    terms_version: int
    agreed: bool
    by_minute: bool  # it was charged by the minute


@dataclass(frozen=True, slots=True)
class TransferFilter:
    """Which transfers; empty words do not restrict. They ended from `from_us` to before `to_us`.

    `known`: only those whose person their buyer knows (facts.disclosure). `after`: the last one that was seen.
    """

    buyer: str = ""
    dialer: str = ""
    campaign: str = ""
    verdict: str = ""
    reason: str = ""
    counts_as: str = ""
    phone: str = ""
    call_id: str = ""
    from_us: int | None = None
    to_us: int | None = None
    known: bool = False
    newest_first: bool = False
    after: str = ""


class UnknownTransferError(LookupError):
    """The transfer after which a page is to begin is not there."""


_BY_MINUTE = select(postings.c.key).where(postings.c.key == outcomes.c.transfer + ":minutes").exists()
_COLUMNS = (*(outcomes.c[one.name] for one in fields(SettledTransfer) if one.name != "by_minute"), _BY_MINUTE)


def settled(connection: Connection, wanted: TransferFilter, limit: int) -> list[SettledTransfer]:
    """At most `limit` transfers, and never more than `MOST`. Raises UnknownTransferError."""
    query = select(*_COLUMNS).where(*_conditions(wanted))
    order = _by_row if connection.dialect.name == "sqlite" else _by_end
    query = order(connection, query, wanted)
    return [SettledTransfer(*row) for row in connection.execute(query.limit(min(limit, MOST)))]


def _conditions(wanted: TransferFilter) -> list[ColumnElement[bool]]:
    found = [outcomes.c[name] == getattr(wanted, name) for name in _EXACT if getattr(wanted, name)]
    if wanted.from_us is not None:
        found.append(outcomes.c.closed_utc_us >= wanted.from_us)
    if wanted.to_us is not None:
        found.append(outcomes.c.closed_utc_us < wanted.to_us)
    if wanted.known:
        found.append((outcomes.c.counts_as != "free") | _BY_MINUTE)
    return found


def _by_row(connection: Connection, query: Select[Any], wanted: TransferFilter) -> Select[Any]:
    last = None
    if wanted.after:
        last = connection.execute(select(_ROW).where(outcomes.c.transfer == wanted.after)).scalar_one_or_none()
        if last is None:
            raise UnknownTransferError(wanted.after)
    if last is not None:
        query = query.where(last > _ROW if wanted.newest_first else last < _ROW)
    if wanted.from_us is not None and (last is None or wanted.newest_first):
        query = query.where(_first_row(connection, wanted.from_us - _CLOCKS_US) <= _ROW)
    return query.order_by(_ROW.desc() if wanted.newest_first else _ROW)


def _first_row(connection: Connection, at_us: int) -> int:
    """A row before which all were settled, and so had ended, before then; found by halving.

    What counts was posted as it was settled, and its posting has the time; rows that are free are stepped over.
    """
    keys = (outcomes.c.transfer + ":unit", outcomes.c.transfer + ":minutes")
    posted = select(_ROW, postings.c.posted_utc_us).join_from(outcomes, postings, postings.c.key.in_(keys))
    low = 1
    high = 1 + int(connection.execute(select(func.max(_ROW)).select_from(outcomes)).scalar() or 0)
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(posted.where(middle <= _ROW, high > _ROW).order_by(_ROW).limit(1)).one_or_none()
        if found is not None and found.posted_utc_us < at_us:
            low = int(found[0]) + 1
        else:
            high = middle
    return low


def _by_end(connection: Connection, query: Select[Any], wanted: TransferFilter) -> Select[Any]:
    key = tuple_(outcomes.c.closed_utc_us, outcomes.c.transfer)
    if wanted.after:
        at = select(outcomes.c.closed_utc_us).where(outcomes.c.transfer == wanted.after)
        closed_us = connection.execute(at).scalar_one_or_none()
        if closed_us is None:
            raise UnknownTransferError(wanted.after)
        last = (closed_us, wanted.after)
        query = query.where(key < last if wanted.newest_first else key > last)
    columns = (outcomes.c.closed_utc_us, outcomes.c.transfer)
    return query.order_by(*(one.desc() if wanted.newest_first else one for one in columns))
