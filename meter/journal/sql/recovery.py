"""Closes the transfers that a dead router left open.

For every boot of this router that is over, each transfer with `transfer_started` and no `transfer_closed` gets two
facts at the end of that boot's own chain: `interrupted`, and the closing fact with what the outcome table says of it
all. They bear the monotonic time of the transfer's last fact, since that clock died with its boot, and origin
`recovery`. What they kept reserved of a buyer's limits is settled with them.

Each transaction closes at most 25 transfers, 50 rows, and looks in itself which of them are still open; so recovery may
be killed at any point and is simply run again. The two facts of a transfer are always written together. Only the caller
knows that the old process is dead (it holds the lock file), and must know before it asks.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import CHAIN_START, Fact, Kind
from facts.outcome import decide
from facts.payloads import Interrupted, transfer_closed
from meter.journal.rows import Row, insert_rows, make_row
from meter.journal.sql.admissions import settle
from meter.journal.sql.reading import STARTED, histories
from meter.store.clerk import Clerk
from meter.store.schema import boots, facts, outcomes

ORIGIN = "recovery"
MAX_TRANSFERS = 25  # in one transaction; two facts each: 50 rows


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """How many boots were found over, and the transfers that were closed."""

    boots: int = 0
    transfers: tuple[str, ...] = ()


async def recover(engine: AsyncEngine, router: str, *, now_utc_us: int, current_boot: str = "") -> RecoveryReport:
    """Close what earlier boots of `router` left open. Idempotent; `current_boot` is left alone.

    Raises SQLAlchemyError where the store fails: what was done stays done.
    """
    clerk = Clerk(engine)
    closed: list[str] = []
    try:
        over = await clerk.read(lambda connection: _boots_over(connection, router, current_boot))
        for boot in over:
            step = _Step(router, boot, now_utc_us)
            suspects = await clerk.read(step.find_open)
            for start in range(0, len(suspects), MAX_TRANSFERS):
                some = suspects[start : start + MAX_TRANSFERS]
                closed += await clerk.write(step.close, some)
            await clerk.write(step.mark)
    finally:
        await clerk.close()
    return RecoveryReport(len(over), tuple(closed))


def _boots_over(connection: Connection, router: str, current_boot: str) -> list[str]:
    query = select(boots.c.boot).where(
        boots.c.router == router, boots.c.boot != current_boot, boots.c.recovered_utc_us.is_(None)
    )
    return list(connection.execute(query.order_by(boots.c.started_utc_us)).scalars())


@dataclass(frozen=True, slots=True)
class _Step:
    """The transactions over one boot."""

    router: str
    boot: str
    now_utc_us: int

    def find_open(self, connection: Connection) -> list[str]:
        """Transfers of this boot that were started and may be open: those that have no outcome yet, oldest first."""
        settled = select(outcomes.c.transfer).where(outcomes.c.transfer == facts.c.transfer).exists()
        query = (
            select(facts.c.transfer)
            .where(facts.c.router == self.router, facts.c.boot == self.boot, STARTED, ~settled)
            .order_by(facts.c.utc_us)
        )
        return list(dict.fromkeys(connection.execute(query).scalars()))

    def close(self, connection: Connection, suspects: list[str]) -> list[str]:
        """Close those of `suspects` that are open now; which."""
        seq, digest = self._end_of_chain(connection)
        rows: list[Row] = []
        closed = []
        endings = []
        for history in histories(connection, self.router, self.boot, suspects).values():
            if any(fact.kind is Kind.TRANSFER_CLOSED for fact in history):
                continue
            for fact in self._closing(history, seq):
                _, row = make_row(fact, digest)
                seq, digest = fact.seq, row[-1]
                rows.append(row)
            closed.append(history[0].transfer)
            endings.append((fact.transfer, transfer_closed(fact).counts_as or ""))
        if rows:
            insert_rows(connection, rows)
            settle(connection, endings)
        return closed

    def mark(self, connection: Connection) -> None:
        """Note that nothing of this boot is open any more."""
        this = (boots.c.router == self.router, boots.c.boot == self.boot)
        connection.execute(update(boots).where(*this).values(recovered_utc_us=self.now_utc_us))

    def _end_of_chain(self, connection: Connection) -> tuple[int, bytes]:
        query = select(facts.c.seq, facts.c.digest).where(facts.c.router == self.router, facts.c.boot == self.boot)
        last = connection.execute(query.order_by(facts.c.seq.desc()).limit(1)).one_or_none()
        return (0, CHAIN_START) if last is None else (last.seq, last.digest)

    def _closing(self, history: list[Fact], seq: int) -> tuple[Fact, Fact]:
        last = history[-1]
        interrupted = Fact(
            router=self.router,
            boot=self.boot,
            seq=seq + 1,
            transfer=last.transfer,
            kind=Kind.INTERRUPTED,
            utc_us=self.now_utc_us,
            mono_us=last.mono_us,
            origin=ORIGIN,
            payload=Interrupted(last.seq).as_payload(),
        )
        outcome = decide([*history, interrupted])
        closed = Fact(
            router=self.router,
            boot=self.boot,
            seq=seq + 2,
            transfer=last.transfer,
            kind=Kind.TRANSFER_CLOSED,
            utc_us=self.now_utc_us,
            mono_us=last.mono_us,
            origin=ORIGIN,
            payload=outcome.as_payload(),
        )
        return interrupted, closed
