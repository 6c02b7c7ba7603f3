"""Sends the ends of all chains out of the store once a day: to a file, by e-mail to the operator, and by MQTT.

With them an older copy in the place of the store is noticed (`meter.journal.sql.chain_heads`): by the meter itself,
which
holds the store against the newest file as it starts, and by `baton journal verify --heads FILE`. Days are those of UTC.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.journal.sql.chain_heads import KIND, HeadsError, decoded, keep, missing, newest, of_day
from meter.mail.message import Attachment, Letter
from meter.outbox.delivery import NeverDeliverableError
from meter.store.clerk import Clerk
from meter.store.engine import StoreError, first_line
from meter.store.files import put
from meter.store.pause import pause
from meter.text import texts
from telemetry import metrics

TEMPLATE = "chain_heads"
POLL_S = 60.0
MAX_ATTACHED = 8 << 20  # bytes; more than a thousand buyers and ten thousand boots are

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HeadsOptions:
    """Where the ends go: a folder, and addresses (none: no e-mail)."""

    folder: Path
    to: tuple[str, ...] = ()


class HeadsExport:
    """Runs until told to stop. `clock` gives microseconds UTC."""

    def __init__(
        self,
        engine: AsyncEngine,
        options: HeadsOptions,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        on_mail: Callable[[], None] | None = None,
    ) -> None:
        self._options = options
        self._clerk = Clerk(engine)
        self._clock = clock
        self._on_mail = on_mail or (lambda: None)

    async def run(self, stop: asyncio.Event) -> None:
        """Look every minute. A store or a disk that fails is tried again for ever."""
        checked = False
        while not stop.is_set():
            try:
                if not checked:
                    await self.check()
                    checked = True
                await self.export()
            except (SQLAlchemyError, StoreError, OSError) as error:
                metrics.ENGINE_FAULTS.labels("heads").inc()
                _log.error("chain heads: not exported", error=first_line(error))
            await pause(stop, POLL_S)

    async def check(self) -> list[str]:
        """Hold the store against the newest file that can be read; what it lacks."""
        file, heads = await asyncio.to_thread(self._newest_file)
        found = [] if heads is None else await self._clerk.read(missing, heads)
        metrics.CHAIN_HEADS_MISSING.set(len(found))
        for one in found:
            _log.error("the store lacks what was exported", file=file, what=one)
        return found

    async def export(self) -> str | None:
        """Keep today's ends where that was not done, and see that their file is there; the day, where they are new."""
        now = self._clock()
        day = datetime.fromtimestamp(now // 1_000_000, UTC).date().isoformat()
        is_new = await self._clerk.write(keep, day, now, self._options.to)
        row = await self._clerk.read(newest)
        if row is not None and not self._file(row.day).is_file():
            await asyncio.to_thread(put, self._file(row.day), bytes(row.body))
        if is_new:
            _log.info("chain heads exported", day=day, digest=row.digest if row is not None else "")
            self._on_mail()
        return day if is_new else None

    async def close(self) -> None:
        await self._clerk.close()

    def _file(self, day: str) -> Path:
        return self._options.folder / f"{day}.json"

    def _newest_file(self) -> tuple[str, dict[str, Any] | None]:
        """One that cannot be read is told and passed over: it may have been cut off by a full disk."""
        for file in sorted(self._options.folder.glob("????-??-??.json"), reverse=True):
            try:
                return file.name, decoded(file.read_bytes())
            except HeadsError as error:
                _log.error("chain heads cannot be read", file=file.name, error=str(error))
        return "", None


class HeadsComposer:
    """Makes the letter of one day: order `{"day": DAY, "to": [ADDRESS, ...]}`."""

    async def compose(self, order: Mapping[str, Any], clerk: Clerk) -> Letter:
        """The letter. Raises NeverDeliverableError where nothing was kept of that day, or nobody is to have it."""
        day, to = str(order.get("day", "")), order.get("to")
        body = await clerk.read(lambda connection: of_day(connection, day))
        if body is None or not isinstance(to, list) or not to:
            raise NeverDeliverableError(f"chain heads of {day[:10]!r}: there are none, or nobody is to have them")
        heads = decoded(body)
        file = f"chain-heads-{day}.json"
        attached = (Attachment(file, "application/json", body),) if len(body) <= MAX_ATTACHED else ()
        values = _shown(day, heads, body) | {"file": file if attached else ""}
        return Letter(
            to=tuple(str(one) for one in to),
            subject=texts.render(f"{TEMPLATE}.subject.jinja", values),
            text=texts.render(f"{TEMPLATE}.txt.jinja", values),
            html="",
            attachments=attached,
            message_id=f"{KIND}-{day}.{KIND}",
            date_utc_us=int(datetime.fromisoformat(heads["at"]).timestamp()) * 1_000_000,
        )


def _shown(day: str, heads: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    return {
        "day": day,
        "at": heads["at"],
        "digest": hashlib.sha256(body).hexdigest(),
        "facts": sum(one["seq"] for one in heads["facts"]),
        "postings": sum(one["seq"] for one in heads["ledger"]),
        "documents": heads["documents"],
    }


texts.add_sample(
    TEMPLATE,
    {
        "day": "2026-06-02",
        "at": "2026-06-02T00:01:00+00:00",
        "digest": "ab" * 32,
        "facts": 1_000,
        "postings": 100,
        "documents": {"invoice": 7},
        "file": "chain-heads-2026-06-02.json",
    },
)
