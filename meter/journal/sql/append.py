"""The journal: facts in, in one chain per boot, committed in groups.

`append` gives a fact its sequence number and its digest at once and queues it; it does no I/O and never waits. One
background task commits what is queued: `linger_ms` after the first fact, or `admit_linger_ms` where a new transfer
waits to be admitted (up to `admit_pace_ms` after the last commit, in a busy time), so that INVITEs share an fsync; CPU
goes by commits more than by facts. `admit` returns when `transfer_started` is on the disk and reads the buyer's state
in that same transaction: a hold is seen by the very next transfer, and nothing ever rings without a record.
What limits a buyer is counted and reserved there too, and set free with the closing fact
(`meter.journal.sql.admissions`).

When the store fails, nothing is lost and nothing overtakes: the facts stay in memory, in their order, and are tried
again with backoff until the store is back. Who waits to be admitted is refused after `admit_timeout_ms` of that; a
store that is only slow, on a busy machine, is waited for up to `admit_patience_ms`, and the caller decides. From
`max_backlog` facts on, new transfers are refused at once, so what is kept grows only by the facts of calls already up.
A commit whose answer was lost may have been done: the next try looks first which of its facts are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from book.limits import Limits
from facts.answers import Admission
from facts.fact import CHAIN_START, Fact, Kind
from facts.payloads import transfer_closed
from meter.journal.rows import DIGEST, SEQ, UTC_US, Row, insert_rows, make_row
from meter.journal.sql.admissions import Candidate, admit, settle
from meter.store.clerk import Clerk
from meter.store.engine import first_line
from meter.store.schema import boots
from meter.store.schema import facts as facts_table

LINGER_MS = 100  # under load they ride with the next admission; alone, this is what a crash may forget
URGENT_LINGER_MS = 40  # facts that were earned
ADMIT_LINGER_MS = 0  # who comes while a commit is under way shares the next one
ADMIT_PACE_MS = 0  # least time between commits: 20 saved 0.3 ms of CPU a transfer at 100/s and cost 20 ms of set-up p99
ADMIT_TIMEOUT_MS = 2_000  # while the store fails
ADMIT_PATIENCE_MS = 28_000  # while it is only slow; callers give up after 32 s (timer B, RFC 3261 section 17.1.1.2)
MAX_BACKLOG = 100_000  # facts; at 25 a transfer and about 1 kB each: 4,000 transfers, 100 MB
MAX_COMMIT = 500  # facts in one transaction, after an outage: about 5 ms of the write lock
FIRST_RETRY_MS = 50
LAST_RETRY_MS = 2_000  # the backoff doubles up to here and stays: a store that is back is found within two seconds

_URGENT = frozenset({Kind.TALK_REACHED_15S, Kind.TALK_MINUTE, Kind.TRANSFER_CLOSED})

_log = structlog.get_logger()


class JournalRefusedError(RuntimeError):
    """The store did not take `transfer_started`: nothing may ring."""


Answer = Callable[["Admission | None"], None]


@dataclass(slots=True, eq=False)
class _Waiting:
    """A transfer that waits for its first commit; `answer` is called once, with None where the store failed it."""

    seq: int
    candidate: Candidate
    answer: Answer
    since: float  # of the loop's clock
    timeout: asyncio.TimerHandle | None = None


class JournalWriter:
    """The journal of one boot of one router. Every method is called on the event loop's thread."""

    def __init__(
        self,
        clerk: Clerk,
        router: str,
        boot: str,
        *,
        linger_ms: int = LINGER_MS,
        admit_linger_ms: int = ADMIT_LINGER_MS,
        admit_pace_ms: int = ADMIT_PACE_MS,
        admit_timeout_ms: int = ADMIT_TIMEOUT_MS,
        admit_patience_ms: int = ADMIT_PATIENCE_MS,
        max_backlog: int = MAX_BACKLOG,
        on_commit: Callable[[int, float], None] | None = None,
    ) -> None:
        self._clerk = clerk
        self._router = router
        self._boot = boot
        self._linger_s = linger_ms / 1000
        self._admit_linger_s = admit_linger_ms / 1000
        self._admit_pace_s = admit_pace_ms / 1000
        self._admit_timeout_s = admit_timeout_ms / 1000
        self._admit_patience_s = admit_patience_ms / 1000
        self._max_backlog = max_backlog
        self._on_commit = on_commit
        self._seq = 0
        self._digest = CHAIN_START
        self._durable_seq = 0
        self._queue: deque[Row] = deque()  # rows not yet committed, oldest first
        self._waiting: list[_Waiting] = []
        self._limited: set[str] = set()  # transfers that may have a row among the admissions
        self._endings: deque[tuple[int, str, str]] = deque()  # of these: closing fact, transfer, what it counts as
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closing = False
        self._in_doubt = False  # the last commit failed, and may have been done all the same
        self._retry_s = FIRST_RETRY_MS / 1000
        self._loop = asyncio.get_running_loop()
        self._committed_at = self._loop.time() - self._admit_pace_s
        self._task = self._loop.create_task(self._work(), name="journal")

    @classmethod
    async def open(
        cls, engine: AsyncEngine, router: str, boot: str, pid: int, started_utc_us: int, **settings: Any
    ) -> JournalWriter:
        """Register the boot and start its journal; `settings` are the keywords of the constructor.

        Raises JournalRefusedError where the store does not take the boot, or knows one of that name.
        """
        clerk = Clerk(engine)
        row = {"router": router, "boot": boot, "pid": pid, "started_utc_us": started_utc_us}
        try:
            await clerk.write(lambda connection: connection.execute(insert(boots), [row]))
        except SQLAlchemyError as error:
            await clerk.close()
            raise JournalRefusedError(f"boot {boot!r} of router {router!r} was not registered: {error}") from error
        return cls(clerk, router, boot, **settings)

    @property
    def backlog(self) -> int:
        """Facts not yet durable."""
        return self._seq - self._durable_seq

    @property
    def lag_s(self) -> float:
        """Age of the oldest fact that is not durable yet, in seconds; 0 where all are."""
        if not self._queue:
            return 0.0
        utc_us: int = self._queue[0][UTC_US]
        return max(0.0, time.time() - utc_us / 1_000_000)

    @property
    def full(self) -> bool:
        """The backlog has reached its limit: refuse new transfers without writing a fact of them."""
        return self.backlog >= self._max_backlog

    def append(
        self,
        transfer: str,
        kind: Kind,
        *,
        utc_us: int,
        mono_us: int,
        lag_us: int = 0,
        leg: int | None = None,
        payload: dict[str, Any] | None = None,
        origin: str = "router",
    ) -> Fact:
        """Give the fact its sequence number and queue it; committed, in order, within `linger_ms`.

        Raises TypeError for a payload that is not JSON; text that is not Unicode is mended, since the network sent it.
        """
        if self._closing:
            raise JournalRefusedError("the journal is closed")
        fact = Fact(
            router=self._router,
            boot=self._boot,
            seq=self._seq + 1,
            transfer=transfer,
            kind=kind,
            utc_us=utc_us,
            mono_us=mono_us,
            lag_us=lag_us,
            origin=origin,
            leg=leg,
            payload=payload or {},
        )
        fact, row = make_row(fact, self._digest)
        self._seq += 1
        self._digest = row[DIGEST]
        self._queue.append(row)
        if kind is Kind.TRANSFER_CLOSED and transfer in self._limited:
            self._limited.discard(transfer)
            self._endings.append((self._seq, transfer, transfer_closed(fact).counts_as or ""))
        if self._timer is None or kind in _URGENT:
            self._wake_within(min(self._linger_s, URGENT_LINGER_MS / 1000) if kind in _URGENT else self._linger_s)
        return fact

    def ask(self, started: Fact, buyer: str, answer: Answer, limits: Limits | None = None) -> None:
        """Call `answer` when `started` (appended before) is durable; `buyer`'s state is read in the same transaction.

        With `limits` the transfer is held against them there, and counted where it is admitted. An empty `buyer` is not
        checked. None is the answer when the store fails for `admit_timeout_ms`, when the backlog is full,
        and when the journal is closed. Never answers before this returns.
        """
        if self._closing or self.full:
            _log.error("admission refused", transfer=started.transfer, closed=self._closing, backlog=self.backlog)
            self._loop.call_soon(answer, None)
            return
        if limits is not None:
            self._limited.add(started.transfer)
        waiting = _Waiting(started.seq, Candidate(started.transfer, buyer, limits), answer, self._loop.time())
        waiting.timeout = self._loop.call_later(self._admit_timeout_s, self._give_up, waiting)
        self._waiting.append(waiting)
        self._wake_within(self._admit_delay_s())

    def _give_up(self, waiting: _Waiting) -> None:
        """Refuse who has waited too long; where no commit has failed, and the caller is still waiting, go on."""
        waited_s = self._loop.time() - waiting.since
        if not self._in_doubt and waited_s < self._admit_patience_s:
            waiting.timeout = self._loop.call_later(self._admit_timeout_s, self._give_up, waiting)
            return
        self._waiting.remove(waiting)
        _log.error("admission timed out", seq=waiting.seq, after_s=round(waited_s, 3), backlog=self.backlog)
        waiting.answer(None)

    async def admit(self, started: Fact, buyer: str, limits: Limits | None = None) -> Admission:
        """`ask`, for who can wait. Raises JournalRefusedError where the answer is None."""
        future: asyncio.Future[Admission | None] = self._loop.create_future()
        self.ask(started, buyer, lambda admission: None if future.done() else future.set_result(admission), limits)
        admission = await future
        if admission is None:
            closed = "the journal is closed" if self._closing else "the journal's backlog is full"
            refused_at_once = self._closing or self.full
            late = f"the store did not answer within {self._admit_timeout_s:g} s"
            raise JournalRefusedError(closed if refused_at_once else late)
        return admission

    async def close(self) -> None:
        """Commit what is queued and stop; where the store fails, try once more, then raise JournalRefusedError."""
        if self._closing:
            return
        self._closing = True
        self._due.set()
        await self._task
        await self._clerk.close()
        if self.backlog:
            raise JournalRefusedError(f"{self.backlog} facts could not be written before the end")

    def _admit_delay_s(self) -> float:
        """How long an admission waits for others: a little after a quiet time, up to the pace in a busy one."""
        return max(self._admit_linger_s, self._committed_at + self._admit_pace_s - self._loop.time())

    def _wake_within(self, seconds: float) -> None:
        """See to it that the next commit starts within `seconds`; an earlier one stays."""
        if self._due.is_set() or self._in_doubt:
            return
        at = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._due.set)

    async def _work(self) -> None:
        """The one committer: waits to be due, commits, and after an error waits out the backoff."""
        while not self._closing or self._queue:
            await self._due.wait()
            self._due.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if not await self._commit():
                if self._closing:
                    return
                await self._back_off()
            elif len(self._queue) >= MAX_COMMIT:
                self._due.set()
            elif self._queue or self._waiting:
                self._wake_within(self._admit_delay_s() if self._waiting else self._linger_s)

    async def _commit(self) -> bool:
        """One transaction over the oldest facts; whether it was done. Answers those who waited for them."""
        batch = [self._queue[index] for index in range(min(len(self._queue), MAX_COMMIT))]
        last = batch[-1][SEQ] if batch else self._durable_seq
        ready = [one for one in self._waiting if one.seq <= last]
        endings = [(transfer, counts_as) for seq, transfer, counts_as in self._endings if seq <= last]
        candidates = [one.candidate for one in ready]
        if not batch and not ready:
            return True
        begun = time.perf_counter()
        try:
            work = _Commit(self._router, self._boot, batch, candidates, endings, in_doubt=self._in_doubt)
            refusals = await self._clerk.write(work)
        except Exception as error:  # noqa: BLE001 - whatever the store raises, the facts stay and are tried again
            self._in_doubt = True
            _log.error("journal commit failed", facts=len(batch), backlog=self.backlog, error=first_line(error))
            return False
        self._in_doubt = False
        self._retry_s = FIRST_RETRY_MS / 1000
        self._done(len(batch), last, ready, refusals)
        self._tell(len(batch), time.perf_counter() - begun)
        return True

    def _tell(self, count: int, seconds: float) -> None:
        if self._on_commit is None:
            return
        try:
            self._on_commit(count, seconds)
        except Exception:  # noqa: BLE001 - who listens must not stop the journal
            _log.exception("journal: on_commit failed")

    def _done(self, count: int, last: int, ready: list[_Waiting], refusals: dict[str, str]) -> None:
        for _ in range(count):
            self._queue.popleft()
        while self._endings and self._endings[0][0] <= last:
            self._endings.popleft()
        self._durable_seq = last
        self._committed_at = self._loop.time()
        # Who asked while the commit was under way is not in `ready`: the next commit reads that buyer's state.
        still = [one for one in ready if one in self._waiting]
        self._waiting = [one for one in self._waiting if one not in ready]
        for one in still:
            if one.timeout is not None:
                one.timeout.cancel()
            one.answer(Admission(refusals[one.candidate.transfer]))

    async def _back_off(self) -> None:
        with contextlib.suppress(TimeoutError):  # closing sets `_due` and ends the wait
            async with asyncio.timeout(self._retry_s):
                await self._due.wait()
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_MS / 1000)
        self._due.set()


@dataclass(frozen=True, slots=True)
class _Commit:
    """What happens inside the transaction: insert the facts, admit who may be, settle whose closing fact is in."""

    router: str
    boot: str
    batch: list[Row]
    candidates: list[Candidate]
    endings: list[tuple[str, str]]
    in_doubt: bool

    def __call__(self, connection: Connection) -> dict[str, str]:
        rows = _not_there(connection, self.batch) if self.in_doubt and self.batch else self.batch
        if rows:
            insert_rows(connection, rows)
        if not self.endings:
            return admit(connection, self.router, self.boot, self.candidates)
        # What is over makes room for who comes in the same commit; who came and went within it is settled afterwards.
        coming = {one.transfer for one in self.candidates}
        settle(connection, [one for one in self.endings if one[0] not in coming])
        refusals = admit(connection, self.router, self.boot, self.candidates)
        settle(connection, [one for one in self.endings if one[0] in coming])
        return refusals


def _not_there(connection: Connection, batch: list[Row]) -> list[Row]:
    """The rows that an earlier, unanswered commit did not write. Another fact under the same number is an error."""
    router, boot, first, *_ = batch[0]
    there = dict(
        connection.execute(
            select(facts_table.c.seq, facts_table.c.digest).where(
                facts_table.c.router == router,
                facts_table.c.boot == boot,
                facts_table.c.seq.between(first, batch[-1][SEQ]),
            )
        ).all()
    )
    for row in batch:
        if there.get(row[SEQ], row[DIGEST]) != row[DIGEST]:
            raise JournalRefusedError(f"fact {row[SEQ]} of boot {boot!r} was written by somebody else")
    return [row for row in batch if row[SEQ] not in there]
