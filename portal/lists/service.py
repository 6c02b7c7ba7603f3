"""What the routes for suppression lists call: imports one after the other, and who is on which list since when.

All that takes long is done beside the event loop. Imports take turns, for each takes a core and up to a gigabyte. The
lists are loaded for look-ups at the first of them; from then on a look-up asks the store what is new, as a router does.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import structlog

from book.lists import Actor, ListVersion
from book.model import DEFAULT_TIME_ZONE
from book.numbers import to_e164
from facts.answers import ScrubResult
from meter.suppression_rows.sql.lists import ListRows
from portal.http.problems import ProblemError
from portal.http.services import Service
from portal.http.uploads import sweep
from suppression.activating import FOLDER, ListRefusedError
from suppression.editing import prune
from suppression.importer import ImportResult, Task, import_file
from suppression.index import Probe
from suppression.lookups import ListMatch, since_when
from suppression.receipt import Signer
from suppression.scrub import Scrub

UPLOADS = "uploads"  # in the folder of the lists
MAX_UPLOADS = 8  # at once, each up to the largest size
MAX_UPLOADS_OF_ONE = 4  # of these with one token
MAX_LOOKING = 2  # requests at once that read a list from disk
TURN_S = 60.0  # for an import to get its turn
LOOKING_S = 20.0
STOP_S = 3.0  # at the end, for imports under way
IMPORT_S = 3600.0  # for an import; a national list takes minutes, what is packed to fill disks takes longer
MAX_REJECTS_BYTES = 64 << 20  # about two million rejected lines
MAX_REJECTS_TOLD = 1000

_log = structlog.get_logger("portal")


class BusyError(ProblemError):
    """Others are served before; the message says what is under way."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message, headers={"Retry-After": "30"})


@dataclass(frozen=True, slots=True)
class Checked:
    """The lists that have a number; the verdict, where it was asked for a buyer."""

    on: list[ListMatch]
    unavailable: tuple[str, ...]  # lists that apply and cannot be consulted
    verdict: ScrubResult | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that was not read. `member`: of an archive of several."""

    line: int
    why: str
    member: str


class ListsService(Service):
    """`buyers` are the names of those in the book; `zone` is that of a buyer's terms."""

    title = "service for lists"

    def __init__(
        self,
        store: ListRows,
        data_dir: Path,
        signer: Signer,
        buyers: Callable[[], Awaitable[Collection[str]]],
        *,
        keep_versions: int,
        max_import_bytes: int,
        zone: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        self.store = store
        self.data_dir = data_dir.resolve()
        self.signer = signer
        self.max_import_bytes = max_import_bytes
        self.uploads = self.data_dir / FOLDER / UPLOADS
        self._buyers = buyers
        self._zone = zone
        self._keep_versions = keep_versions
        self._uploading: list[str] = []  # the tokens
        self._running: dict[asyncio.Task[tuple[ImportResult, list[Rejected]]], _Watch] = {}
        self._turn = asyncio.Lock()
        self._looking = asyncio.Semaphore(MAX_LOOKING)
        self._reloading = asyncio.Lock()
        self._scrub = Scrub(store, self.data_dir, signer, mapped=True)

    async def is_buyer(self, name: str) -> bool:
        return name in await self._buyers()

    async def zone(self, buyer: str | None) -> str:
        """The time zone in which the days of a list end: that of its buyer's terms; `buyer` None: a global list."""
        return DEFAULT_TIME_ZONE if buyer is None or self._zone is None else await self._zone(buyer)

    async def newest(self, name: str) -> ListVersion | None:
        """The newest version of a list, in force or not; its buyer owns the name."""
        history = await self.store.history(name)
        return history[-1] if history else None

    @contextlib.contextmanager
    def room(self, token: str) -> Iterator[None]:
        """A place for one upload. Raises BusyError."""
        if len(self._uploading) >= MAX_UPLOADS or self._uploading.count(token) >= MAX_UPLOADS_OF_ONE:
            raise BusyError("as many imports as there is room for are under way")
        self._uploading.append(token)
        try:
            yield
        finally:
            self._uploading.remove(token)

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """A turn for what reads whole lists from disk. Raises BusyError."""
        try:
            async with asyncio.timeout(LOOKING_S):
                await self._looking.acquire()
        except TimeoutError as error:
            raise BusyError("other requests read lists from disk") from error
        try:
            yield
        finally:
            self._looking.release()

    async def import_file(self, task: Task, actor: Actor) -> tuple[ImportResult, list[Rejected]]:
        """Import when the turn comes; the task must have a file of rejects. Raises BusyError, ListRefusedError.

        Who is cancelled does not wait for the end of it: the import stops by itself, as far as it has not come to be
        activated, keeps its turn until then, and deletes the folder of the file.
        """
        assert task.rejects_file is not None
        watch = _Watch(task.rejects_file)
        doing = asyncio.create_task(self._import(task, actor, watch))
        self._running[doing] = watch
        doing.add_done_callback(self._ended)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            watch.stopped = True
            raise

    async def close(self) -> None:
        """Stop imports, and wait for those that can be stopped at once."""
        for watch in self._running.values():
            watch.stopped = True
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=STOP_S)

    async def _import(self, task: Task, actor: Actor, watch: _Watch) -> tuple[ImportResult, list[Rejected]]:
        try:
            async with self._my_turn():
                done = await import_file(self.store, self.data_dir, task, actor, progress=watch.progress)
                if done.changed:
                    await prune(self.store, self.data_dir, self._keep_versions)
            return done, await self.rejects(watch.rejects_file)
        finally:
            if watch.stopped:  # the request, whose file it was, may be gone
                await asyncio.to_thread(shutil.rmtree, task.file.parent, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_S):
                await self._turn.acquire()
        except TimeoutError as error:
            raise BusyError("another import is under way") from error
        try:
            yield
        finally:
            self._turn.release()

    def _ended(self, doing: asyncio.Task[tuple[ImportResult, list[Rejected]]]) -> None:
        watch = self._running.pop(doing)
        error = None if doing.cancelled() else doing.exception()
        if watch.stopped and error is not None:
            _log.warning("import_stopped", kind=type(error).__name__)

    @staticmethod
    async def rejects(file: Path) -> list[Rejected]:
        """The first lines that were rejected."""
        return await asyncio.to_thread(_rejects, file)

    async def check(self, number: int, buyer: str | None) -> Checked:
        """The lists, all or those that apply to `buyer`, that have an E.164 number. Raises BusyError."""
        async with self.looking():
            async with self._reloading:
                await self._scrub.reload()
            state, now_s = self._scrub.state, time.time()
            verdict = None if buyer is None else self._scrub.check(to_e164(number), buyer)
            rows = [state.rows[name] for name in sorted(state.rows)]
            applying = [held for held in rows if buyer is None or held.version.buyer in (None, buyer)]
            probe = Probe(number)
            hits = await asyncio.to_thread(lambda: [held for held in applying if held.loaded.has(probe, now_s)])
            on = [
                await since_when(
                    self.store, self.data_dir, held.version, changes=held.changes, loaded=held.loaded, probe=probe
                )
                for held in hits
            ]
        broken = tuple(held.version.name for held in applying if held.loaded.snapshot is None)
        return Checked(on, broken, verdict)

    async def sweep(self) -> None:
        """Delete uploads that a killed process has left behind."""
        gone = await asyncio.to_thread(sweep, self.uploads)
        if gone:
            _log.info("uploads_swept", count=gone)

    def public(self, text: str) -> str:
        """A message without the folders of this machine."""
        own = re.escape(f"{self.uploads}/") + "[^/]+/"
        return re.sub(own, "", text).replace(f"{self.data_dir}/", "")


class _Watch:
    """Ends an import that takes too long, that fills the disk with rejects, or that nobody waits for any more."""

    def __init__(self, rejects_file: Path) -> None:
        self.stopped = False
        self.rejects_file = rejects_file
        self._until = time.monotonic() + IMPORT_S

    def progress(self, _read: int, _total: int, _lines: int) -> None:
        """Called between two pieces of the file, in another thread."""
        if self.stopped:
            raise ListRefusedError("the import was broken off")
        if time.monotonic() > self._until:
            raise ListRefusedError(f"the import took longer than {IMPORT_S:g} s: split the file")
        with contextlib.suppress(FileNotFoundError):
            if self.rejects_file.stat().st_size > MAX_REJECTS_BYTES:
                raise ListRefusedError("millions of lines were rejected: is it the right column?")


def _rejects(file: Path) -> list[Rejected]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            rows = islice((row for row in csv.DictReader(opened) if not row["kept"]), MAX_REJECTS_TOLD)
            return [Rejected(int(row["line"]), row["reason"], row["member"]) for row in rows]
    except FileNotFoundError:
        return []
