"""Reading the suppression tables. Each function runs inside the caller's transaction, whose connection comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

import orjson
from sqlalchemy import (
    Connection,
    Select,
    Table,
    and_,
    exists,
    func,
    not_,
    or_,
    select,
    text,
    tuple_,
)

from book.lists import NAMED_ONLY, Exemption, ListChange, ListLogEntry, ListNews, ListVersion
from meter.store.schema import (
    suppression_changes,
    suppression_exemptions,
    suppression_lists,
    suppression_log,
    suppression_sets,
    suppression_stamps,
    suppression_state,
)

R = TypeVar("R")

# A literal, not a parameter: an index with a condition is used only where the statement itself says it.
IN_FORCE = text("suppression_lists.active")
_KEYS: dict[type[Any], Callable[[Any], Any]] = {
    ListVersion: attrgetter("name", "version"),
    ListChange: attrgetter("name", "version", "revision"),
    Exemption: attrgetter("id"),
}
_FETCHED = 500  # rows at a time: between two, PostgreSQL's event loop has a turn
_NAMED = 500  # digests in one statement


def _columns(row: type[Any], table: Table) -> list[Any]:
    """The table's columns in the order of the row's fields."""
    return [table.c[one.name] for one in fields(row)]


_LISTS = select(*_columns(ListVersion, suppression_lists))
_CHANGES = select(*_columns(ListChange, suppression_changes))
_EXEMPTIONS = select(*_columns(Exemption, suppression_exemptions))
_LOG = select(*_columns(ListLogEntry, suppression_log)).order_by(suppression_log.c.id.desc())
_STAMP = select(suppression_state.c.stamp)
_CHANGED = (suppression_changes.c.name, suppression_changes.c.version)
# From the lists in force to their changes: the other way round, all changes that ever were would be looked through.
_OF_THOSE_IN_FORCE = tuple_(*_CHANGED).in_(
    select(suppression_lists.c.name, suppression_lists.c.version).where(IN_FORCE)
)
_IS_IN_FORCE = exists().where(
    suppression_lists.c.name == suppression_changes.c.name,
    suppression_lists.c.version == suppression_changes.c.version,
    IN_FORCE,
)


def _read(connection: Connection, row: type[R], query: Select[Any]) -> tuple[R, ...]:
    """Sorted here: names in one order everywhere, and no index is taken for its order instead of for its condition."""
    found = connection.execute(query, execution_options={"yield_per": _FETCHED})
    return tuple(sorted([row(*one) for one in found], key=_KEYS[row]))


def current_stamp(connection: Connection) -> int:
    """The stamp of the last transaction that changed anything."""
    return int(connection.execute(_STAMP).scalar_one())


def since(connection: Connection, stamp: int) -> ListNews:
    """Everything stamped later, of one moment; for 0 everything that is in force.

    Must be the first thing its transaction does: PostgreSQL has to be told that it is one moment for all statements.
    """
    if connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ")
    now = current_stamp(connection)
    if now == stamp:
        return ListNews(now)
    anew = not connection.execute(select(suppression_stamps.c.stamp).where(suppression_stamps.c.stamp == stamp)).all()
    stamp = 0 if anew else stamp
    lists = suppression_lists.c.stamp > stamp if stamp else IN_FORCE
    changes = and_(suppression_changes.c.stamp > stamp, _IS_IN_FORCE) if stamp else _OF_THOSE_IN_FORCE
    exempt = suppression_exemptions.c.stamp > stamp if stamp else suppression_exemptions.c.revoked_utc_us.is_(None)
    return ListNews(
        now,
        _read(connection, ListVersion, _LISTS.where(lists)),
        _read(connection, ListChange, _CHANGES.where(changes)),
        _read(connection, Exemption, _EXEMPTIONS.where(exempt)),
        anew,
    )


def in_force(connection: Connection) -> tuple[ListVersion, ...]:
    """By name."""
    return _read(connection, ListVersion, _LISTS.where(IN_FORCE))


def find(connection: Connection, name: str) -> ListVersion | None:
    """The version of a list that is in force."""
    found = _read(connection, ListVersion, _LISTS.where(suppression_lists.c.name == name, IN_FORCE))
    return found[0] if found else None


def history(connection: Connection, name: str) -> tuple[ListVersion, ...]:
    """All versions, oldest first."""
    table = suppression_lists.c
    return _read(connection, ListVersion, _LISTS.where(table.name == name, table.version > NAMED_ONLY))


def changes(connection: Connection, name: str, version: int) -> tuple[ListChange, ...]:
    """All changes of a version, by revision."""
    mine = (suppression_changes.c.name == name, suppression_changes.c.version == version)
    return _read(connection, ListChange, _CHANGES.where(*mine))


def exemptions(connection: Connection, valid_utc_us: int | None) -> tuple[Exemption, ...]:
    """All, or those valid at that time, in the order they were made."""
    if valid_utc_us is None:
        return _read(connection, Exemption, _EXEMPTIONS)
    table = suppression_exemptions.c
    valid = (table.revoked_utc_us.is_(None), table.expires_utc_us > valid_utc_us)
    return _read(connection, Exemption, _EXEMPTIONS.where(*valid))


def log(connection: Connection, name: str | None, limit: int, before: int | None) -> tuple[ListLogEntry, ...]:
    """Newest first; of one list, or of all; with `before` those before the row of that id."""
    query = _LOG if name is None else _LOG.where(suppression_log.c.name == name)
    query = query if before is None else query.where(suppression_log.c.id < before)
    rows = [dict(row) for row in connection.execute(query.limit(limit)).mappings()]
    return tuple(ListLogEntry(**{**row, "detail": orjson.loads(row["detail"])}) for row in rows)


def sets(connection: Connection, digests: Sequence[str]) -> dict[str, bytes]:
    """The documents there are, by digest."""
    found: dict[str, bytes] = {}
    for at in range(0, len(digests), _NAMED):
        some = suppression_sets.c.digest.in_(digests[at : at + _NAMED])
        query = select(suppression_sets.c.digest, suppression_sets.c.document).where(some)
        found |= {row.digest: row.document for row in connection.execute(query)}
    return found


def sets_like(connection: Connection, beginnings: Sequence[str]) -> dict[str, bytes]:
    """The documents whose digest begins so, by beginning; what is not hex matches nothing."""
    found: dict[str, bytes] = {}
    for one in beginnings:
        digest = suppression_sets.c.digest
        query = select(suppression_sets.c.document).where(digest >= one, digest < f"{one}g").order_by(digest).limit(1)
        document = connection.execute(query).scalar()
        if document is not None:
            found[one] = document
    return found


def missing_sets(connection: Connection, digests: Iterable[str]) -> list[str]:
    """Those that are not on record, in order."""
    wanted = sorted(digests)
    there: set[str] = set()
    for at in range(0, len(wanted), _NAMED):
        some = suppression_sets.c.digest.in_(wanted[at : at + _NAMED])
        there |= set(connection.execute(select(suppression_sets.c.digest).where(some)).scalars())
    return [one for one in wanted if one not in there]


def prunable(connection: Connection, keep: int) -> tuple[ListVersion, ...]:
    """See `ListRows.prunable`."""
    table = suppression_lists.c
    age = func.row_number().over(partition_by=table.name, order_by=table.version.desc()).label("age")
    aged = select(*_columns(ListVersion, suppression_lists), age).cte("aged")
    kept = select(aged.c.file).where(or_(aged.c.age <= keep, aged.c.active))
    old = (aged.c.version > NAMED_ONLY, aged.c.age > keep, not_(aged.c.active), aged.c.file.not_in(kept))
    return _read(connection, ListVersion, select(*[aged.c[one.name] for one in fields(ListVersion)]).where(*old))


def files(connection: Connection) -> frozenset[str]:
    """All files that any row names."""
    return frozenset(connection.execute(select(suppression_lists.c.file).distinct()).scalars())
