"""Verifies the journal: every chain is computed again from its first fact.

Per (router, boot) the sequence numbers must run from 1 without a gap, and each digest must be that of its predecessor's
stored digest and its own row. So a changed row is found at itself, a row changed together with its digest at its
successor, and a dropped or inserted one at the gap. The end of a chain has no successor: that rows were cut off there
shows only where the meter's cursor points beyond it. The store is read in pages, each a short transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import CHAIN_START
from meter.journal.rows import read_row
from meter.store.clerk import Clerk
from meter.store.schema import boots, facts, meter_cursors

PAGE = 1_000  # facts read at a time
MAX_PROBLEMS = 100  # kept for the report; all are counted


@dataclass(frozen=True, slots=True)
class Problem:
    """One place where a chain is broken; `what` says how."""

    router: str
    boot: str
    seq: int
    what: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was read and what was wrong: the first hundred problems, and how many there are."""

    chains: int
    facts: int
    problems: tuple[Problem, ...]
    problem_count: int

    @property
    def ok(self) -> bool:
        return not self.problem_count


@dataclass(slots=True)
class _Chain:
    """Where the check of one chain stands."""

    router: str
    boot: str
    seq: int = 0
    digest: bytes = CHAIN_START


class _Findings:
    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.count = 0

    def add(self, chain: _Chain, seq: int, what: str) -> None:
        self.count += 1
        if self.count <= MAX_PROBLEMS:
            self.kept.append(Problem(chain.router, chain.boot, seq, what))


async def verify_journal(engine: AsyncEngine) -> VerifyReport:
    """Compute every chain again. Reads all facts; takes about 10 s per million."""
    clerk = Clerk(engine)
    findings = _Findings()
    count = 0
    try:
        chains = await clerk.read(_chains)
        for chain, must_reach in chains:
            while read := await clerk.read(_check_page, chain, findings):
                count += read
            if chain.seq < must_reach:
                findings.add(chain, chain.seq + 1, f"missing: the meter had settled up to {must_reach}")
    finally:
        await clerk.close()
    return VerifyReport(len(chains), count, tuple(findings.kept), findings.count)


def _chains(connection: Connection) -> list[tuple[_Chain, int]]:
    """Every chain that should or does exist, with the sequence number that the meter has seen of it."""
    settled = {(row.router, row.boot): row.seq for row in connection.execute(select(meter_cursors))}
    registered = {(row.router, row.boot) for row in connection.execute(select(boots.c.router, boots.c.boot))}
    written = {(row.router, row.boot) for row in connection.execute(select(facts.c.router, facts.c.boot).distinct())}
    names = sorted(registered | written | set(settled))
    return [(_Chain(router, boot), settled.get((router, boot), 0)) for router, boot in names]


def _check_page(connection: Connection, chain: _Chain, findings: _Findings) -> int:
    rows = connection.execute(
        select(facts)
        .where(facts.c.router == chain.router, facts.c.boot == chain.boot, facts.c.seq > chain.seq)
        .order_by(facts.c.seq)
        .limit(PAGE)
    ).all()
    for row in rows:
        if row.seq != chain.seq + 1:
            findings.add(chain, chain.seq + 1, f"missing: facts {chain.seq + 1} to {row.seq - 1}")
        else:
            _check_row(row, chain, findings)
        chain.seq, chain.digest = row.seq, row.digest
    return len(rows)


def _check_row(row: Row[Any], chain: _Chain, findings: _Findings) -> None:
    try:
        fact = read_row(row)
    except ValueError as error:
        findings.add(chain, chain.seq + 1, f"unreadable: {error}")
        return
    if fact.digest(chain.digest) != row.digest:
        findings.add(chain, fact.seq, "altered: the digest is not that of this row after its predecessor")
