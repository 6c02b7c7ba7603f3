"""Reads what a store has of each transfer, for the player of stories: its facts, its settled outcome, its postings."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import Fact, Kind
from facts.outcome import Outcome, decide
from facts.start_payload import transfer_started
from meter.journal.rows import read_row
from meter.store.engine import reading
from meter.store.money_schema import postings
from meter.store.schema import facts, outcomes


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """One transfer. `settled` and `posted` are rows of the store; `settled` None: there is no outcome yet."""

    transfer: str
    campaign: str
    phone: str
    sip_call_id: str
    facts: tuple[Fact, ...]
    settled: dict[str, Any] | None = None
    posted: tuple[dict[str, Any], ...] = ()

    @property
    def outcome(self) -> Outcome:
        """Decided once more, from the facts."""
        return decide(self.facts)

    def legs_with(self, *kinds: Kind) -> list[int]:
        """The endpoints' legs that have a fact of these kinds, once for each fact."""
        return [fact.leg for fact in self.facts if fact.kind in kinds and fact.leg]


async def read_books(engine: AsyncEngine) -> list[TransferRecord]:
    """Every transfer of the store, in the order in which they began."""
    async with reading(engine).connect() as connection:
        found = (await connection.execute(facts.select().order_by(facts.c.router, facts.c.boot, facts.c.seq))).all()
        settled = {row.transfer: row._asdict() for row in (await connection.execute(outcomes.select())).all()}
        posted: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in (await connection.execute(postings.select())).all():
            posted[row.transfer].append(row._asdict())
    histories: dict[str, list[Fact]] = defaultdict(list)
    for row in found:
        histories[row.transfer].append(read_row(row))
    return [
        _record_of(name, history, settled.get(name), posted.get(name, []))
        for name, history in histories.items()
        if history
    ]


def _record_of(
    name: str, history: list[Fact], settled: dict[str, Any] | None, posted: list[dict[str, Any]]
) -> TransferRecord:
    start = transfer_started(history[0])
    return TransferRecord(
        transfer=name,
        campaign=start.campaign or "",
        phone=start.phone or "",
        sip_call_id=start.sip_call_id or "",
        facts=tuple(history),
        settled=settled,
        posted=tuple(posted),
    )


async def open_count(engine: AsyncEngine) -> int:
    """Transfers that were started and have no outcome yet."""
    async with reading(engine).connect() as connection:
        started = facts.select().with_only_columns(facts.c.transfer).where(facts.c.kind == Kind.TRANSFER_STARTED.value)
        begun = {row.transfer for row in (await connection.execute(started)).all()}
        ended = outcomes.select().with_only_columns(outcomes.c.transfer)
        done = {row.transfer for row in (await connection.execute(ended)).all()}
    return len(begun - done)
