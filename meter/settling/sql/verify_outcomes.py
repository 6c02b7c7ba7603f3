"""Verifies that each outcome follows from its facts, and that its postings follow from the outcome.

Facts are chained; outcomes are not. Each settled transfer is decided again, by the rules of this release: where a
release has mended a rule, the outcomes that the one before decided otherwise are named here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, and_, select

from facts.fact import Fact, Kind, first_of
from meter.journal.rows import read_row
from meter.journal.sql.reading import CLOSED, facts_of_transfers
from meter.ledger.accounts import Posting
from meter.ledger.sql.ledger import outcomes_posted
from meter.settling.follower import SettleOptions, settle
from meter.store.schema import facts, meter_cursors, outcomes

PAGE = 400  # transfers decided again in one transaction
_COLUMNS = ("call_id", "buyer", "phone", "dialout_utc_us", "closed_utc_us", "verdict", "reason", "counts_as")
_LENGTHS = ("attempt_ms", "talk_ms", "buffer_ms")


def check_outcomes(connection: Connection, after: str, problems: list[str]) -> str | None:
    """Decide a page of transfers again; the last one of it, or None where there are no more."""
    query = select(outcomes).where(outcomes.c.transfer > after).order_by(outcomes.c.transfer).limit(PAGE)
    rows = connection.execute(query).all()
    if not rows:
        return None
    names = [row.transfer for row in rows]
    histories: dict[str, list[Fact]] = {}
    for row in connection.execute(facts_of_transfers(names)):
        try:
            fact = read_row(row)
        except ValueError:
            continue  # the check of the chains names it
        histories.setdefault(fact.transfer, []).append(fact)
    had = outcomes_posted(connection, names)
    for row in rows:
        problems += _differences(row, histories.get(row.transfer, []), had.get(row.transfer, []))
    return str(names[-1])


def missing_outcomes(connection: Connection) -> list[str]:
    """Closed transfers that the meter has passed, and that have no outcome."""
    cursor = and_(meter_cursors.c.router == facts.c.router, meter_cursors.c.boot == facts.c.boot)
    query = (
        select(facts.c.transfer)
        .join(meter_cursors, cursor)
        .outerjoin(outcomes, outcomes.c.transfer == facts.c.transfer)
    )
    query = query.where(CLOSED, facts.c.seq <= meter_cursors.c.seq, outcomes.c.transfer.is_(None))
    found = connection.execute(query.distinct().order_by(facts.c.transfer)).scalars()
    return [f"outcome of {one}: it was settled, and is not there" for one in found]


def _differences(row: Any, history: Sequence[Fact], had: Sequence[Posting]) -> Iterator[str]:
    closing = first_of(history, Kind.TRANSFER_CLOSED)
    if closing is None:
        yield f"outcome of {row.transfer}: there are no facts that close it"
        return
    made = settle(history, closing, SettleOptions(), 0).rows
    differing = [name for name in (*_COLUMNS, *_LENGTHS) if getattr(row, name) != made.outcome[name]]
    if differing:
        yield f"outcome of {row.transfer}: {', '.join(differing)} are not what its facts come to"
    wanted = [] if made.posting is None else [made.posting]
    if [_of(one) for one in had] != [_of(one) for one in wanted]:
        yield f"outcome of {row.transfer}: the ledger has not what its facts come to"


def _of(posting: Posting) -> tuple[object, ...]:
    return (posting.key, posting.buyer, posting.asset, posting.amount, posting.units, posting.percent, posting.unit)
