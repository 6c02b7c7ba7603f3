"""Limits, exact: counted and reserved in the transaction that makes `transfer_started` durable.

A transfer of a buyer with limits gets a row, `live` from its admission and `connected`, `failed` or `free` from the
commit of its closing fact on. Caps, orders and duplicates are counts of rows that are not free; nothing is added up
elsewhere, so nothing can drift, and a reservation is freed by the fact that ends it, never by a clock. Whoever is
refused has no row: an index of what is not free is never longer than the limit that it is counted against.

Who looks and then inserts must be alone: on SQLite the clerk's BEGIN IMMEDIATE sees to it, on PostgreSQL the lock on
the buyer's row, taken in the order of names. A duplicate is a prospect that the buyer has or had; one whose transfer
was free was never the buyer's and is none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    Executable,
    bindparam,
    func,
    insert,
    literal,
    literal_column,
    select,
    update,
)

from book.limits import Limits
from meter.journal.rows import execute_bare
from meter.store.schema import admissions, buyers, outcomes

LIVE, CONNECTED, FAILED, FREE = "live", "connected", "failed", "free"
_SETTLED = frozenset({CONNECTED, FAILED, FREE})
_STATE_REFUSALS = {"paused": "paused", "on_hold": "on_hold", "cancelled": "no_buyer"}
_NO_BUYER = "no_buyer"

# Literals, not parameters: an index with a condition is used only where the statement itself says it.
IS_UNIT = admissions.c.state != literal_column(f"'{FREE}'")
IS_LIVE = admissions.c.state == literal_column(f"'{LIVE}'")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transfer that asks to be admitted. An empty `buyer` is not checked, one without `limits` only for its state."""

    transfer: str
    buyer: str
    limits: Limits | None = None


def admit_before(connection: Connection, buyer: str, since_us: int, until_us: int, now_utc_us: int) -> int:
    """Write down units of a span that were admitted before the buyer had anything to be counted for; how many.

    An order that is made in its own week limits the whole of it (domain, section 6), not what comes after.
    """
    columns = ("transfer", "router", "boot", "buyer", "phone", "admitted_utc_us", "state", "settled_utc_us")
    at = outcomes.c.started_utc_us
    known = select(admissions.c.transfer).where(admissions.c.transfer == outcomes.c.transfer)
    found = select(
        outcomes.c.transfer,
        outcomes.c.router,
        outcomes.c.boot,
        outcomes.c.buyer,
        outcomes.c.phone,
        at,
        outcomes.c.counts_as,
        literal(now_utc_us, BigInteger),
    ).where(outcomes.c.buyer == buyer, at >= since_us, at < until_us, outcomes.c.counts_as.in_((CONNECTED, FAILED)))
    return connection.execute(insert(admissions).from_select(columns, found.where(~known.exists()))).rowcount


class _Statement:
    """A Core statement that SQLite gets as text with its values in order, compiled once."""

    def __init__(self, statement: Executable) -> None:
        self._statement: Any = statement
        self._bare: tuple[str, tuple[str, ...]] | None = None

    def rows(self, connection: Connection, **values: Any) -> list[Any]:
        if connection.dialect.name != "sqlite":
            found = connection.execute(self._statement, values)
            return list(found.all()) if found.returns_rows else []
        text, names = self._bare or self._compile(connection.dialect)
        return execute_bare(connection, text, [values[name] for name in names])

    def _compile(self, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
        compiled = self._statement.compile(dialect=dialect)
        self._bare = (str(compiled), tuple(compiled.positiontup))
        return self._bare


_ONE: ColumnElement[int] = literal_column("1")
_OF_BUYER = admissions.c.buyer == bindparam("of_buyer")
_SINCE = admissions.c.admitted_utc_us >= bindparam("since")
_THERE = _Statement(select(_ONE).select_from(admissions).where(admissions.c.transfer == bindparam("of_transfer")))
_SEEN = _Statement(
    select(_ONE).select_from(admissions).where(_OF_BUYER, admissions.c.phone == bindparam("of_phone"), _SINCE, IS_UNIT)
)
_UNITS = _Statement(select(func.count()).select_from(admissions).where(_OF_BUYER, _SINCE, IS_UNIT))
_AT_ONCE = _Statement(select(func.count()).select_from(admissions).where(_OF_BUYER, IS_LIVE))
_BY_STATE = _Statement(
    select(admissions.c.state, func.count()).where(_OF_BUYER, _SINCE, IS_UNIT).group_by(admissions.c.state)
)
_ADD = _Statement(insert(admissions))
_SETTLE = _Statement(
    update(admissions)
    .where(admissions.c.transfer == bindparam("of_transfer"), IS_LIVE)
    .values(state=bindparam("becomes"), settled_utc_us=bindparam("at"))
)
_BUYERS = select(buyers.c.name, buyers.c.state).where(buyers.c.name.in_(bindparam("names", expanding=True)))
_BUYERS_LOCKED = _BUYERS.order_by(buyers.c.name).with_for_update()


def admit(connection: Connection, router: str, boot: str, candidates: Sequence[Candidate]) -> dict[str, str]:
    """The refusal of each transfer, a slug of `facts.outcome.Reason`, empty where it is admitted.

    They are looked at in their order, each with those before it counted. A row that is there, from a commit whose
    answer was lost, stays admitted.
    """
    states = _states(connection, candidates)
    refusals: dict[str, str] = {}
    for one in candidates:
        refusal = _state_refusal(one.buyer, states)
        if one.limits is not None and not refusal:
            refusal = _reserve(connection, router, boot, one, one.limits)
        refusals[one.transfer] = refusal
    return refusals


def settle(connection: Connection, endings: Iterable[tuple[str, str]]) -> None:
    """(transfer, what it counts as): whose row is live becomes that. What is not understood is free."""
    at = time.time_ns() // 1000
    for transfer, counts_as in endings:
        becomes = counts_as if counts_as in _SETTLED else FREE
        _SETTLE.rows(connection, of_transfer=transfer, becomes=becomes, at=at)


def units_by_state(connection: Connection, buyer: str, since_us: int) -> dict[str, int]:
    """How many are connected, failed and live of those admitted since an instant."""
    return dict(_BY_STATE.rows(connection, of_buyer=buyer, since=since_us))


def _states(connection: Connection, candidates: Sequence[Candidate]) -> dict[str, str]:
    limited = {one.buyer for one in candidates if one.buyer and one.limits is not None}
    names = sorted({one.buyer for one in candidates if one.buyer})
    if not names:
        return {}
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(names))
        text = f"SELECT name, state FROM buyers WHERE name IN ({marks})"  # noqa: S608 - question marks only
        return dict(execute_bare(connection, text, names))
    # One after the other: a buyer that is not limited must not wait for another router's look at one that is.
    found = dict(connection.execute(_BUYERS_LOCKED, {"names": sorted(limited)}).all()) if limited else {}
    rest = [name for name in names if name not in limited]
    return found | (dict(connection.execute(_BUYERS, {"names": rest}).all()) if rest else {})


def _state_refusal(buyer: str, states: dict[str, str]) -> str:
    if not buyer:
        return ""
    state = states.get(buyer)
    return _NO_BUYER if state is None else _STATE_REFUSALS.get(state, "")


def _reserve(connection: Connection, router: str, boot: str, candidate: Candidate, limits: Limits) -> str:
    if _THERE.rows(connection, of_transfer=candidate.transfer):
        return ""
    refusal = _limit_reached(connection, candidate.buyer, limits)
    if not refusal:
        _ADD.rows(
            connection,
            transfer=candidate.transfer,
            router=router,
            boot=boot,
            buyer=candidate.buyer,
            phone=limits.phone,
            admitted_utc_us=limits.at_us,
            state=LIVE,
            settled_utc_us=None,
        )
    return refusal


def _limit_reached(connection: Connection, buyer: str, limits: Limits) -> str:
    since = limits.duplicate_since_us
    if since is not None and _SEEN.rows(connection, of_buyer=buyer, of_phone=limits.phone, since=since):
        return "duplicate"
    if limits.order is not None:
        states = units_by_state(connection, buyer, limits.order.since_us) if limits.order.most > 0 else {}
        if limits.order.left(states.get(CONNECTED, 0), states.get(FAILED, 0), states.get(LIVE, 0)) <= 0:
            return "order_filled"
    if limits.concurrent and _count(_AT_ONCE.rows(connection, of_buyer=buyer)) >= limits.concurrent:
        return "cap_reached"
    for cap in limits.caps:
        if _count(_UNITS.rows(connection, of_buyer=buyer, since=cap.since_us)) >= cap.most:
            return "cap_reached"
    return ""


def _count(rows: list[Any]) -> int:
    return int(rows[0][0])
