"""The feed of events: a subscriber's position in the journal, and the events after it.

A position is the subscriber's own to keep, so it has to be small and to hold for ever. It names the last boot, in the
order in which boots were registered, of which anything is behind it (`upto`), and those up to there that may still
have more, with the last fact that was dealt with (`at`). Boots up to `upto` that it does not name are over and done
with; boots after it are to be read from their beginning. So it grows with the routers that are up, not with the years.

On SQLite the order of boots is that of their rows, for boots are only ever added. PostgreSQL keeps no such order: there
it is the time of the start by the router's clock, and a boot is named until an hour after it began, so that clocks may
be an hour apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, literal_column, select, tuple_

from meter.events.model import KINDS, Event, Events
from meter.events.sql.streams import LIMIT, Boot, Reader, StreamBatch
from meter.store.schema import boots, facts

MAX_BOOTS = 100  # that a position names: as many routers may be up at once
SPAN = 5_000  # sequence numbers of a boot in one look: what lies between facts of interest is bounded by this
_CLOCKS_US = 3_600 * 1_000_000  # how far the clocks of routers may be apart, where the order of boots is theirs
_ROW: ColumnElement[int] = literal_column("boots.rowid")
_NAMES = (boots.c.router, boots.c.boot)


class UnknownPositionError(LookupError):
    """The position names a boot that this journal does not have."""


class TooManyBootsError(RuntimeError):
    """More boots may still grow than a position can name."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a subscriber is. `at`: (router, boot, seq) of boots up to `upto` that may still have more."""

    upto: Boot | None = None  # None: before the first boot
    at: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PlacedEvent:
    """An event, and the position after it."""

    event: Event
    position: Position


@dataclass(frozen=True, slots=True)
class Batch:
    """The events after a position. `more`: there is more already, or there may be."""

    events: tuple[PlacedEvent, ...]
    position: Position
    more: bool


@dataclass(frozen=True, slots=True)
class _Boot:
    """A boot. `order`: its place among boots. `is_over`: it will never have more; `passed`: nor will one before it."""

    name: Boot
    order: Any
    is_over: bool
    passed: bool


def read_batch(connection: Connection, position: Position, *, limit: int = LIMIT) -> Batch:
    """The events of the next `limit` facts of interest. Raises UnknownPositionError, TooManyBootsError."""
    order = _order_of(connection, position.upto)
    named = _named(connection, position, order)
    room = MAX_BOOTS - len(named)
    fresh = _boots(connection, *([_place(connection) > order] if order is not None else []), most=room + 1)
    if fresh and not room:
        raise TooManyBootsError(f"more than {MAX_BOOTS} boots are not over")
    window = [*named, *fresh[:room]]
    at = {(router, boot): seq for router, boot, seq in position.at}
    among = [(*one.name, one.is_over) for one in window]
    look = Reader(KINDS, at, limit=limit, among=among, span=SPAN)(connection)
    more = look.more or len(fresh) > room
    return Batch(*_placed_events(look, window, position, at), more)


def position_at(connection: Connection, from_utc_us: int | None) -> Position:
    """The position before the first fact of that time or later in each boot; None: the end of the journal.

    Raises TooManyBootsError.
    """
    at: dict[Boot, int] = {}
    done: set[Boot] = set()
    window = _boots(connection)
    ended = dict(_ended(connection))
    for one in window:
        recovered_us = ended.get(one.name)
        if recovered_us is not None and (from_utc_us is None or recovered_us < from_utc_us) and one.passed:
            done.add(one.name)
        else:
            at[one.name] = _last_before(connection, one.name, from_utc_us)
    return _position(window, Position(), at, done)


def _placed_events(
    look: StreamBatch, window: Sequence[_Boot], position: Position, at: dict[Boot, int]
) -> tuple[tuple[PlacedEvent, ...], Position]:
    """The events of a look, each with the position after it, and the position after all of it."""
    events, told = Events(), []
    events.recall(look.before)
    over = look.over & {one.name for one in window if one.passed}
    done: set[Boot] = set()
    at = dict(at)
    last = {(fact.router, fact.boot): fact.seq for fact in look.facts}
    for fact in look.facts:
        name = (fact.router, fact.boot)
        event = events.fold(fact, look.outcomes.get(fact.transfer))
        at[name] = fact.seq
        if fact.seq == last[name]:
            at[name] = look.ends.get(name, fact.seq)
            done |= over & {name}
        if event is not None:
            told.append(PlacedEvent(event, _position(window, position, at, done)))
    return tuple(told), _position(window, position, at | look.ends, over)


def _position(window: Sequence[_Boot], before: Position, at: Mapping[Boot, int], done: Collection[Boot]) -> Position:
    """The position where these boots are so far, or done with; the window stands in the order of boots."""
    listed = {(router, boot) for router, boot, _ in before.at}
    reached = [index for index, one in enumerate(window) if one.name in done or at.get(one.name, 0) > 0]
    until = max(reached, default=-1)
    fresh = [one.name for one in window[: until + 1] if one.name not in listed]
    upto = fresh[-1] if fresh else before.upto
    kept = [one.name for index, one in enumerate(window) if index <= until or one.name in listed]
    names = [name for name in kept if name not in done]
    if len(names) > MAX_BOOTS:
        raise TooManyBootsError(f"more than {MAX_BOOTS} boots are not over")
    return Position(upto, tuple((*name, at.get(name, 0)) for name in names))


def _place(connection: Connection) -> Any:
    """What orders boots."""
    return _ROW if connection.dialect.name == "sqlite" else tuple_(boots.c.started_utc_us, *_NAMES)


def _order_of(connection: Connection, name: Boot | None) -> Any:
    if name is None:
        return None
    found = _rows(connection, _columns(connection).where(boots.c.router == name[0], boots.c.boot == name[1]))
    if not found:
        raise UnknownPositionError(f"no boot {name[1]!r} of router {name[0]!r}")
    return found[0].order


def _named(connection: Connection, position: Position, order: Any) -> list[_Boot]:
    """The boots that a position names, in their order; all of them are up to `order`."""
    names = {(router, boot) for router, boot, _ in position.at}
    if not names:
        return []
    found = _rows(connection, _columns(connection).where(tuple_(*_NAMES).in_(sorted(names))))
    if len(found) != len(names) or order is None or any(one.order > order for one in found):
        raise UnknownPositionError("the position names a boot that is not there")
    return found


def _boots(connection: Connection, *where: ColumnElement[bool], most: int | None = None) -> list[_Boot]:
    return _rows(connection, _columns(connection).where(*where).limit(most))


def _columns(connection: Connection) -> Select[Any]:
    place = _ROW if connection.dialect.name == "sqlite" else boots.c.started_utc_us
    in_order = (_ROW,) if connection.dialect.name == "sqlite" else (boots.c.started_utc_us, *_NAMES)
    return select(*_NAMES, place, boots.c.recovered_utc_us, boots.c.started_utc_us).order_by(*in_order)


def _rows(connection: Connection, query: Select[Any]) -> list[_Boot]:
    rows = connection.execute(query).all()
    if connection.dialect.name == "sqlite":
        return [_Boot((row[0], row[1]), row[2], row[3] is not None, passed=True) for row in rows]
    newest = connection.execute(select(func.max(boots.c.started_utc_us))).scalar() or 0
    return [_by_clock(row, newest) for row in rows]


def _by_clock(row: Row[Any, Any, Any, Any, Any], newest_us: int) -> _Boot:
    passed = row.started_utc_us < newest_us - _CLOCKS_US
    return _Boot((row[0], row[1]), (row[2], row[0], row[1]), row.recovered_utc_us is not None, passed)


def _ended(connection: Connection) -> list[tuple[Boot, int]]:
    """When boots that are over were closed."""
    query = select(*_NAMES, boots.c.recovered_utc_us).where(boots.c.recovered_utc_us.is_not(None))
    return [((router, boot), at) for router, boot, at in connection.execute(query)]


def _last_before(connection: Connection, name: Boot, utc_us: int | None) -> int:
    """The last fact of a boot before that time, found by halving; None: its last one. 0: there is none."""
    this = (facts.c.router == name[0], facts.c.boot == name[1])
    low, high = 0, int(connection.execute(select(func.max(facts.c.seq)).where(*this)).scalar() or 0)
    if utc_us is None:
        return high
    at = select(facts.c.utc_us).where(*this)
    while low < high:  # what is up to `low` is before, what is after `high` is not
        middle = (low + high + 1) // 2
        found = connection.execute(at.where(facts.c.seq >= middle).order_by(facts.c.seq).limit(1)).scalar_one()
        low, high = (middle, high) if found < utc_us else (low, middle - 1)
    return low
