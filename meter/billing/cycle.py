"""The billing cycle: does what is due, in the order of time, and waits for what comes next.

Each task is a transaction of its own and does nothing where it was done; so the cycle may be killed between any two,
run twice at once, or not run for weeks, and comes to the same books (domain, section 6). A task that cannot be done,
such as an order under terms by the minute, is told and tried again with the next look; it holds up no other buyer.

A service week is closed when it has been over for a while and the meter has settled every closing fact there is: what
is not settled then is, by the terms, an adjustment of the next week, but a meter that lags is no reason for one. By
hand or by the clock: while closing facts wait, nothing is done but to hold who has not paid.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing.arithmetic.drafts import Issuer
from meter.billing.sql.documents import BillingRun
from meter.billing.sql.due import LAG_US, DueTask, TaskKind, is_behind, next_boundary, read_signs
from meter.billing.sql.tasks import NotCountedError, TaskResult, due_now, perform
from meter.book.sql.contracts import Contract, read_contracts
from meter.store.clerk import Clerk
from meter.store.engine import StoreError, first_line
from meter.store.pause import pause
from telemetry import metrics

SETTLE_AFTER_US = 3_600_000_000  # of `billing.settle_after_ms`
POLL_S = 5.0
RETRY_S = 5.0
DAY_US = 24 * 3600 * 1_000_000
MAX_PAUSE_S = 0.25
MAX_ROUNDS = 1_000  # of one run: twenty years of weeks

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CycleOptions:
    """The issuer, and how long after its end a week is closed."""

    issuer: Issuer = field(default_factory=Issuer)
    settle_after_us: int = SETTLE_AFTER_US
    gives_way: bool = False  # pauses after each task for as long as it took: others wait for SQLite's one writer


@dataclass(frozen=True, slots=True)
class Trouble:
    """One task that could not be done, and why."""

    task: DueTask
    why: str


@dataclass(slots=True)
class RunReport:
    """The tasks that a run did, and those that could not be done."""

    done: list[TaskResult] = field(default_factory=list)
    trouble: list[Trouble] = field(default_factory=list)
    waits: bool = False  # closed transfers are not counted yet, so nothing was done but to hold who has not paid

    @property
    def documents(self) -> list[str]:
        return [number for one in self.done for number in one.documents]


@dataclass(frozen=True, slots=True)
class _LastLook:
    """At the last look: the version of the book, and when the calendar asks for the next one."""

    book: int
    boundary_us: int


class _Due(Enum):
    """What a look at the clock and a few rows says."""

    NOTHING = "nothing"
    HOLDS = "holds"
    EVERYTHING = "everything"


class Cycle:
    """Runs billing. `clock` gives microseconds UTC."""

    def __init__(
        self,
        engine: AsyncEngine,
        options: CycleOptions | None = None,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        on_documents: Callable[[], None] | None = None,
    ) -> None:
        self._options = options or CycleOptions()
        self._clerk = Clerk(engine)
        self._clock = clock
        self._on_documents = on_documents or (lambda: None)
        self._seen: _LastLook | None = None

    async def run_once(self, as_of_us: int | None = None, *, only: TaskKind | None = None) -> RunReport:
        """Do everything that is due at `as_of_us`, by default now, or only tasks of one kind; what it did. Idempotent.

        `only` is for holds, which depend on no other task: they are all that is done while closing facts wait.
        """
        now = self._clock() if as_of_us is None else as_of_us
        report = RunReport()
        stuck: set[DueTask] = set()
        for _ in range(MAX_ROUNDS):
            if only is None and await self._clerk.read(is_behind, self._counted_by(now)):
                report.waits, only = True, TaskKind.HOLD
            contracts, tasks = await self._clerk.read(due_now, now, self._options.settle_after_us)
            waiting = [task for task in tasks if task not in stuck and only in (None, task.kind)]
            if not waiting:
                break
            # Within a day nothing depends on what another task brings forth; after it, look again.
            for task in (one for one in waiting if one.at_us < waiting[0].at_us + DAY_US):
                stuck.add(task)
                await self._do(task, contracts[task.buyer], now, report)
        if report.documents:
            self._on_documents()
        return report

    def _counted_by(self, now: int) -> int:
        """Until when closing facts have to be counted: also of the time after a day for which a run is done by hand."""
        return max(now, self._clock()) - LAG_US

    async def preview(self, as_of_us: int) -> list[DueTask]:
        """The tasks that are due at an instant; nothing is done."""
        _, tasks = await self._clerk.read(due_now, as_of_us, self._options.settle_after_us)
        return tasks

    async def run(self, stop: asyncio.Event) -> None:
        """Run until told to stop: at each boundary of the calendar, and whenever the book or an invoice asks for it."""
        while not stop.is_set():
            pause_s = POLL_S
            try:
                due = await self._due()
                if due is not _Due.NOTHING:
                    report = await self.run_once(only=TaskKind.HOLD if due is _Due.HOLDS else None)
                    if report.waits:  # it fell behind since the look: what was to be done is not
                        self._seen = None
                    _report_run(report)
            except (SQLAlchemyError, StoreError) as error:
                self._seen = None
                pause_s = RETRY_S
                metrics.ENGINE_FAULTS.labels("billing").inc()
                _log.error("billing failed", error=first_line(error), retry_s=pause_s)
            await pause(stop, pause_s)

    async def close(self) -> None:
        await self._clerk.close()

    async def _due(self) -> _Due:
        """Whether a look is worth it: one number, unless the calendar has moved on."""
        now = self._clock()
        signs = await self._clerk.read(read_signs, now_utc_us=now)
        if signs.is_behind:  # a week is closed once all that is closed is counted
            return _Due.HOLDS if signs.due_us is not None and signs.due_us <= now else _Due.NOTHING
        seen = self._seen
        if seen is not None and seen.book == signs.book and now < min(seen.boundary_us, signs.due_us or now + 1):
            return _Due.NOTHING
        contracts = await self._clerk.read(read_contracts)
        boundary = next_boundary(contracts, now, self._options.settle_after_us)
        self._seen = _LastLook(signs.book, boundary if boundary is not None else now + DAY_US)
        return _Due.EVERYTHING

    async def _do(self, task: DueTask, contract: Contract, now: int, report: RunReport) -> None:
        run = BillingRun(self._options.issuer, now)
        started = time.monotonic()
        try:
            done = await self._clerk.write(perform, task, contract, run, self._counted_by(now))
        except NotCountedError:
            report.waits = True
            return
        except (ValueError, LookupError) as error:
            report.trouble.append(Trouble(task, str(error)))
            return
        if done.documents or done.held:
            report.done.append(done)
        if self._options.gives_way:
            await asyncio.sleep(min(time.monotonic() - started, MAX_PAUSE_S))


def _report_run(report: RunReport) -> None:
    for done in report.done:
        task = done.task
        metrics.BILLING_STEPS.labels(task.kind.name.lower()).inc()
        _log.info(
            "billed", step=task.kind.name.lower(), buyer=task.buyer, period=task.period, documents=list(done.documents)
        )
    for one in report.trouble:
        _log.error("cannot be billed", buyer=one.task.buyer, period=one.task.period, why=one.why)
    metrics.BILLING_TROUBLE.set(len(report.trouble))
