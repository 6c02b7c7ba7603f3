"""Verifies the ledger's chains, and that the documents agree with it.

Each buyer's chain is computed again from its first posting, as the facts' are, and must end where its head says. Each
document's body must have the digest that was written down with it, the numbers of each series must run without a gap,
and an invoice's total must be what was posted under its number. What a week left unbilled must be less than one unit,
and of each currency the accounts must sum to nothing. All that no chain keeps is held against these
(`meter.billing.sql.verify_money`), and each outcome against its facts (`meter.settling.sql.verify_outcomes`). Read in
pages, each a short transaction.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import CHAIN_START
from meter.billing.arithmetic.units import WHOLE
from meter.billing.sql.verify_money import money_problems
from meter.ledger.accounts import UNIT, Account, Rule
from meter.ledger.sql import periods
from meter.ledger.sql.ledger import digest_of
from meter.settling.sql.verify_outcomes import check_outcomes, missing_outcomes
from meter.store.clerk import Clerk
from meter.store.money_schema import document_series, documents, ledger_heads, postings
from meter.store.schema import outcomes

PAGE = 2_000  # postings read at a time
MAX_PROBLEMS = 100  # kept for the report; all are counted


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """What was read and what was wrong: the first hundred problems, and how many there are."""

    buyers: int
    postings: int
    documents: int
    outcomes: int
    problems: tuple[str, ...]
    problem_count: int

    @property
    def ok(self) -> bool:
        return not self.problem_count


class _Findings:
    def __init__(self) -> None:
        self.kept: list[str] = []
        self.count = 0

    def add(self, what: str) -> None:
        self.count += 1
        if self.count <= MAX_PROBLEMS:
            self.kept.append(what)


@dataclass(slots=True)
class _Chain:
    """Where the check of one buyer's chain stands, and what its accounts hold by then."""

    buyer: str
    seq: int = 0
    digest: bytes = CHAIN_START


async def verify_ledger(engine: AsyncEngine) -> LedgerReport:
    """Compute everything again. Reads all postings, documents and facts of settled transfers."""
    clerk = Clerk(engine)
    findings = _Findings()
    count = 0
    try:
        heads = await clerk.read(_heads)
        for buyer, (seq, digest) in sorted(heads.items()):
            chain = _Chain(buyer)
            while read := await clerk.read(_check_page, chain, findings):
                count += read
            if chain.seq < seq or (chain.seq == seq and chain.digest != digest):
                findings.add(f"ledger of {buyer}: ends at {chain.seq}, its head says {seq}")
            await clerk.read(_check_balances, buyer, findings)
        document_count = await clerk.read(_check_documents, findings)
        await clerk.read(_check_money, findings)
        settled = await _check_outcomes(clerk, findings)
    finally:
        await clerk.close()
    return LedgerReport(
        buyers=len(heads),
        postings=count,
        documents=document_count,
        outcomes=settled,
        problems=tuple(findings.kept),
        problem_count=findings.count,
    )


def _check_money(connection: Connection, findings: _Findings) -> None:
    for one in money_problems(connection):
        findings.add(one)


async def _check_outcomes(clerk: Clerk, findings: _Findings) -> int:
    """Page by page; how many there are."""
    after: str | None = ""
    while after is not None:
        problems: list[str] = []
        after = await clerk.read(check_outcomes, after, problems)
        for one in problems:
            findings.add(one)
    for one in await clerk.read(missing_outcomes):
        findings.add(one)
    return await clerk.read(_count_outcomes)


def _count_outcomes(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(outcomes)).scalar_one())


def _heads(connection: Connection) -> dict[str, tuple[int, bytes]]:
    heads = {buyer: (seq, bytes(digest)) for buyer, seq, digest in connection.execute(select(ledger_heads))}
    written = connection.execute(select(postings.c.buyer).distinct()).scalars()
    return {buyer: heads.get(buyer, (0, CHAIN_START)) for buyer in {*written, *heads}}


def _check_page(connection: Connection, chain: _Chain, findings: _Findings) -> int:
    query = select(postings).where(postings.c.buyer == chain.buyer, postings.c.seq > chain.seq)
    rows = connection.execute(query.order_by(postings.c.seq).limit(PAGE)).all()
    for row in rows:
        if row.seq != chain.seq + 1:
            findings.add(f"ledger of {chain.buyer}: {chain.seq + 1} to {row.seq - 1} are missing")
        elif digest_of(chain.digest, tuple(row)[:-1]) != row.digest:
            findings.add(f"ledger of {chain.buyer}: {row.seq} ({row.key}) was changed")
        chain.seq, chain.digest = row.seq, bytes(row.digest)
    return len(rows)


def _check_balances(connection: Connection, buyer: str, findings: _Findings) -> None:
    """Every unit is either billed or waits for its fraction to be whole; nothing was taken back twice."""
    held: dict[str, int] = {}
    for side, sign in ((postings.c.debit, 1), (postings.c.credit, -1)):
        query = select(side, func.sum(postings.c.amount)).where(postings.c.buyer == buyer, postings.c.asset == UNIT)
        for account, amount in connection.execute(query.group_by(side)):
            held[account] = held.get(account, 0) + sign * int(amount)
    last = periods.last(connection, buyer, periods.WEEK)
    if last is None:
        return
    billed = held.get(Account.BILLED.value, 0)
    said = last.connected_hundredths // WHOLE + last.failed_hundredths // WHOLE
    if billed != said * WHOLE:
        findings.add(f"ledger of {buyer}: {billed} hundredths are billed, its weeks say {said} units")


def _check_documents(connection: Connection, findings: _Findings) -> int:
    totals = _posted_totals(connection)
    ends = {row.series: row.last for row in connection.execute(select(document_series))}
    last: dict[str, int] = {}
    count = 0
    query = select(documents).order_by(documents.c.series, documents.c.sequence)
    for row in connection.execution_options(yield_per=PAGE).execute(query):
        count += 1
        if row.sequence != last.get(row.series, 0) + 1:
            findings.add(f"{row.number}: the number before it in {row.series} is {last.get(row.series, 0)}")
        last[row.series] = row.sequence
        body = row.body if isinstance(row.body, bytes) else str(row.body).encode()  # who tampers may change the type
        if hashlib.sha256(body).hexdigest() != row.digest:
            findings.add(f"{row.number}: its body was changed")
            continue
        _check_said(findings, row, orjson.loads(body), totals.get(row.number, 0))
    for series in {*ends, *last}:
        if ends.get(series, 0) != last.get(series, 0):
            findings.add(f"{series}: the last number is {last.get(series, 0)}, not {ends.get(series, 0)}")
    return count


def _check_said(findings: _Findings, row: Any, body: dict[str, Any], posted_minor: int) -> None:
    said = (body["number"], body["total_minor"], body["applied_minor"])
    if said != (row.number, row.total_minor, row.applied_minor):
        findings.add(f"{row.number}: its columns say something else than its body")
    if sum(line["amount_minor"] for line in body["lines"]) != body["total_minor"]:
        findings.add(f"{row.number}: its lines do not come to its total")
    if row.series == "invoice" and posted_minor != row.total_minor:
        findings.add(f"{row.number}: {posted_minor} was posted for a total of {row.total_minor}")


def _posted_totals(connection: Connection) -> dict[str, int]:
    query = select(postings.c.document, func.sum(postings.c.amount)).where(postings.c.rule == Rule.INVOICE.value)
    rows = connection.execute(query.group_by(postings.c.document))
    return {number: int(amount) for number, amount in rows if number is not None}
