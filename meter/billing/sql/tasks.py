"""Performs a task of the billing cycle in one transaction."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from meter.billing.arithmetic.months import Month
from meter.billing.sql import months, payments, weeks
from meter.billing.sql.documents import BillingRun
from meter.billing.sql.due import DueTask, TaskKind, due_tasks, is_behind
from meter.book.sql.contracts import Contract, read_contracts


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task that did something: the documents that are new, or the change of state."""

    task: DueTask
    documents: tuple[str, ...] = ()
    held: bool = False


class NotCountedError(ValueError):
    """Closed transfers are not counted yet, so what a week or month comes to is not known."""


def perform(
    connection: Connection, task: DueTask, contract: Contract, run: BillingRun, counted_by_us: int
) -> TaskResult:
    """Perform one task in the caller's write transaction.

    Raises NotCountedError for all but a hold, while facts that closed transfers by `counted_by_us` are not counted.
    """
    if task.kind is TaskKind.HOLD:
        return TaskResult(task, held=payments.hold(connection, task.period, run.now_utc_us))
    if is_behind(connection, counted_by_us):
        raise NotCountedError("closed transfers are not counted yet")
    if task.kind is TaskKind.SETUP:
        return TaskResult(task, tuple(months.set_up(connection, contract, run)))
    if task.kind is TaskKind.MONTH:
        zone = contract.terms_at(task.at_us - 1).time_zone
        return TaskResult(task, tuple(months.invoice_month(connection, contract, Month(task.period, zone), run)))
    work = weeks.close_week if task.kind is TaskKind.SETTLE else weeks.tuesday
    return TaskResult(task, tuple(work(connection, contract, contract.week_from(task.period), run)))


def due_now(connection: Connection, now: int, settle_after_us: int) -> tuple[dict[str, Contract], list[DueTask]]:
    """Every contract, and the tasks that are due by `now`."""
    contracts = read_contracts(connection)
    return contracts, due_tasks(connection, contracts, now, settle_after_us)
