"""The daily reports of per-minute service, issued each night by midnight (domain, section 9).

A report is issued two minutes after its span ended, once the meter has settled every closing fact there is; at the
latest 25 minutes after it, whatever is still to be settled: that comes with the next one, marked as late. A meter that
was not running catches up in order, and gives the follower ten minutes first.

Row and e-mail are one transaction. The files are written after it, each under a temporary name that is then changed; a
file that is missing is written again with the next look, so a kill at any point leaves no report without its files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing.sql.due import read_signs
from meter.book.sql.contracts import read_contracts
from meter.per_minute.report_letter import page_of
from meter.per_minute.reports import AFTER_US, LATEST_US, MAX_DAYS, csv_of
from meter.per_minute.sql.reports import DAY_US, DueReport, Report, due_reports, issue, issued_since, next_end, read
from meter.store.clerk import Clerk
from meter.store.engine import StoreError, first_line
from meter.store.files import put
from meter.store.pause import pause
from meter.text.links import LinkOptions
from telemetry import metrics

POLL_S = 5.0
RETRY_S = 5.0
LOOK_US = 60 * 1_000_000  # a buyer who is new, and a file that somebody removed, are seen within this
PATIENCE_US = 10 * 60 * 1_000_000  # from the start, for the follower to catch up

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Where the files go: `<folder>/<buyer>/<day>.html` and `.csv`. `link` signs the addresses of interactions."""

    folder: Path
    link: LinkOptions | None = None


class DailyReports:
    """Issues reports. `clock` gives microseconds UTC; `on_mail` is called when e-mails were queued."""

    def __init__(
        self,
        engine: AsyncEngine,
        options: ReportOptions,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        on_mail: Callable[[], None] | None = None,
    ) -> None:
        self._options = options
        self._clerk = Clerk(engine)
        self._clock = clock
        self._on_mail = on_mail or (lambda: None)
        self._began_us = clock()
        self._look_us = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Run until told to stop. A store or a disk that fails is tried again for ever."""
        while not stop.is_set():
            pause_s = POLL_S
            try:
                if self._clock() >= self._look_us:
                    await self._look()
            except (SQLAlchemyError, StoreError, OSError) as error:
                pause_s = RETRY_S
                metrics.ENGINE_FAULTS.labels("reports").inc()
                _log.error("reports failed", error=first_line(error), retry_s=pause_s)
            await pause(stop, pause_s)

    async def run_once(self, as_of_us: int | None = None) -> list[Report]:
        """Issue everything whose span is over at `as_of_us`, by default now, and write its files. Idempotent."""
        now = self._clock() if as_of_us is None else as_of_us
        made = [await self._issue(due, now) for due in await self._clerk.read(due_reports, now_utc_us=now)]
        await self._mend(now)
        return [one for one in made if one is not None]

    async def close(self) -> None:
        await self._clerk.close()

    async def _look(self) -> None:
        now = self._clock()
        waits = False
        behind: bool | None = None
        for due in await self._clerk.read(due_reports, now_utc_us=now):
            if behind is None:
                behind = (await self._clerk.read(read_signs)).is_behind
            if self._is_ripe(due, now, is_behind=behind):
                await self._issue(due, now)
            else:
                waits = True
        await self._mend(now)
        ends = next_end((await self._clerk.read(read_contracts)).values(), now)
        soon = now + LOOK_US if ends is None else min(now + LOOK_US, ends + AFTER_US)
        self._look_us = now if waits else soon

    def _is_ripe(self, due: DueReport, now: int, *, is_behind: bool) -> bool:
        until = due.span.until_us
        if now < until + AFTER_US:
            return False
        return not is_behind or now >= max(until + LATEST_US, self._began_us + PATIENCE_US)

    async def _issue(self, due: DueReport, now: int) -> Report | None:
        """None where it was issued before, or cannot be: that is told, and holds up no other buyer's."""
        try:
            made = await self._clerk.write(issue, due=due, now_utc_us=now)
        except (ValueError, LookupError) as error:
            metrics.ENGINE_FAULTS.labels("reports").inc()
            _log.error("no report", buyer=due.contract.buyer.name, day=str(due.span.day), error=first_line(error))
            return None
        if made is not None:
            metrics.REPORTS_ISSUED.inc()
            _log.info("report issued", buyer=made.buyer, day=made.day)
            self._on_mail()
        return made

    async def _mend(self, now: int) -> None:
        """Write the files that are not there, of the days that are caught up with."""
        since = now - (MAX_DAYS + 1) * DAY_US
        for buyer, day in await self._clerk.read(issued_since, since_us=since):
            if not all(file.is_file() for file in self._files(buyer, day)):
                report = await self._clerk.read(read, buyer=buyer, day=day)
                await asyncio.to_thread(self._write, report)

    def _files(self, buyer: str, day: str) -> tuple[Path, Path]:
        folder = self._options.folder / buyer
        return folder / f"{day}.html", folder / f"{day}.csv"

    def _write(self, report: Report) -> None:
        page, table = self._files(report.buyer, report.day)
        put(page, page_of(report, self._options.link).encode())
        put(table, csv_of(report.body).encode())
