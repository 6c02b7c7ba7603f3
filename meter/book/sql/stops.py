"""The reasons for which a buyer is not served, each ended by its own cause; its state follows from them (domain 6).

`unpaid` is the weekly cycle's and ends with the payment; `held`, `paused` and `cancelled` are set by hand and end with
a resume. So a hold by hand never hides an unpaid invoice, and a resume never serves who has not paid. Whatever changes
the set is written down with who did it and why, also where the state stays as it was.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from book.model import BuyerState, Stop, state_under
from meter.store.money_schema import INVOICE_IS_OPEN, buyer_states, buyer_stops, documents
from meter.store.schema import book_version, buyers

_BY_HAND = {BuyerState.PAUSED: Stop.PAUSED, BuyerState.ON_HOLD: Stop.HELD, BuyerState.CANCELLED: Stop.CANCELLED}


class UnknownBuyerError(LookupError):
    """No buyer of that name is in the store."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of a buyer's reasons: its state before and after, and what stands in the way of serving it now."""

    before: BuyerState
    after: BuyerState
    stops: tuple[Stop, ...]
    changed: bool


def set_state(
    connection: Connection, name: str, state: BuyerState, *, by: str, reason: str, now_utc_us: int
) -> StateChange:
    """Pause, hold, cancel or resume by hand; every router has it with its next transfer. Raises UnknownBuyerError.

    A resume ends every reason that was set by hand; an unpaid invoice stays one until it is paid.
    """
    if state is BuyerState.ACTIVE:
        return change(connection, name, drop=_BY_HAND.values(), by=by, why=reason, now_utc_us=now_utc_us)
    return change(connection, name, add=_BY_HAND[state], by=by, why=reason, now_utc_us=now_utc_us)


def change(
    connection: Connection,
    name: str,
    *,
    add: Stop | None = None,
    drop: Collection[Stop] = (),
    by: str,
    why: str,
    now_utc_us: int,
) -> StateChange:
    """Add a reason, or end some. Raises UnknownBuyerError."""
    found = connection.execute(select(buyers.c.state).where(buyers.c.name == name)).scalar_one_or_none()
    if found is None:
        raise UnknownBuyerError(f"no buyer is called {name!r}")
    before, had = state_of_text(found), stops_of(connection, name)
    stops = (had - set(drop)) | ({add} if add is not None else set())
    after = state_under(stops)
    if stops != had:
        _write(connection, name, had, stops, by=by, why=why, now_utc_us=now_utc_us)
        row = {"buyer": name, "at_utc_us": now_utc_us, "before": found, "after": after.value, "by": by, "reason": why}
        connection.execute(insert(buyer_states).values(**row))
    if found != after.value:
        connection.execute(update(buyers).where(buyers.c.name == name).values(state=after.value))
        raise_version(connection)
    return StateChange(before, after, in_order(stops), stops != had)


def begin(connection: Connection, name: str, state: BuyerState, now_utc_us: int) -> None:
    """Write down the reason with which a buyer is imported; none where it is active."""
    if state in _BY_HAND:
        _write(connection, name, set(), {_BY_HAND[state]}, by="", why="imported so", now_utc_us=now_utc_us)


def stops_of(connection: Connection, name: str) -> set[Stop]:
    """The reasons that stand. One that this version does not know stands for a hold."""
    found = connection.execute(select(buyer_stops.c.reason).where(buyer_stops.c.buyer == name)).scalars()
    return {Stop(one) if one in list(Stop) else Stop.HELD for one in found}


def in_order(stops: Collection[Stop]) -> tuple[Stop, ...]:
    return tuple(one for one in Stop if one in stops)


def _write(
    connection: Connection, name: str, had: set[Stop], stops: set[Stop], *, by: str, why: str, now_utc_us: int
) -> None:
    gone = [one.value for one in had - stops]
    if gone:
        connection.execute(delete(buyer_stops).where(buyer_stops.c.buyer == name, buyer_stops.c.reason.in_(gone)))
    for one in in_order(stops - had):
        row = {"buyer": name, "reason": one.value, "since_utc_us": now_utc_us, "by": by, "why": why}
        connection.execute(insert(buyer_stops).values(**row))


def state_of_text(text: str) -> BuyerState:
    """A state that this version does not know takes no transfers."""
    try:
        return BuyerState(text)
    except ValueError:
        return BuyerState.PAUSED


def version_of(connection: Connection) -> int:
    """The book's version; 0 where nothing was ever imported."""
    return int(connection.execute(select(book_version.c.version)).scalar() or 0)


def raise_version(connection: Connection) -> int:
    """Tell every router that the book has changed; in the transaction of the change. Returns the new version."""
    moved = connection.execute(update(book_version).values(version=book_version.c.version + 1))
    if not moved.rowcount:
        connection.execute(insert(book_version).values(id=1, version=1))
    return version_of(connection)


def buyers_since(connection: Connection) -> dict[str, tuple[str, int | None]]:
    """The state of every buyer, and since when; None: it never was in another."""
    since = (
        select(buyer_states.c.buyer, func.max(buyer_states.c.at_utc_us).label("at"))
        .where(buyer_states.c.before != buyer_states.c.after)
        .group_by(buyer_states.c.buyer)
        .subquery()
    )
    query = select(buyers.c.name, buyers.c.state, since.c.at).outerjoin(since, since.c.buyer == buyers.c.name)
    return {name: (state, at) for name, state, at in connection.execute(query.order_by(buyers.c.name))}


def held_by(connection: Connection, buyer: str) -> list[str]:
    """Open invoices that have put the buyer on hold, or would have: the first due first."""
    query = select(documents.c.number).where(
        documents.c.buyer == buyer, INVOICE_IS_OPEN, documents.c.held_utc_us.is_not(None)
    )
    return list(connection.execute(query.order_by(documents.c.due_utc_us, documents.c.number)).scalars())
