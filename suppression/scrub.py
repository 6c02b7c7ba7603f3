"""May this number be transferred to this buyer? All lists of the buyer and all global ones, in one call, fail closed.

`reload` loads the lists that are in force and swaps them in at once; calls in progress do not notice. `check` looks
only at what is in memory and takes a few microseconds. It refuses (`suppression_unavailable`) where any list that
applies could not be loaded and verified, where nothing was loaded yet, where the store could not be asked for longer
than `max_age_s`, and where the number is no phone number: what cannot be looked up cannot be cleared.

Dataclasses here have the shape that `router.ports.Scrubber` asks for; suppression imports nothing of the router.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from meter.outcome import Reason
from suppression import snapshot
from suppression.numbers import NumberError, normalise
from suppression.ports import ActiveList, ListStore

MAX_AGE_S = 60.0  # a list activated elsewhere binds us within this time even when the store is out of reach

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ListUsed:
    """One list that a scrub consulted."""

    name: str
    version: int
    checksum: str


@dataclass(frozen=True, slots=True)
class ScrubResult:
    """`reason` is empty (may pass), `suppressed` or `suppression_unavailable`; `hit` the list that has the number."""

    reason: str
    hit: str = ""
    lists: tuple[ListUsed, ...] = ()
    took_us: int = 0


@dataclass(frozen=True, slots=True)
class _Loaded:
    used: ListUsed
    buyer: str | None
    numbers: array[int] | None  # None: could not be loaded; every buyer it applies to is refused


@dataclass(frozen=True, slots=True)
class _Applicable:
    """What applies to one buyer: the evidence, ready made, and the lists to look in."""

    used: tuple[ListUsed, ...] = ()
    lists: tuple[tuple[str, array[int]], ...] = ()
    broken: bool = False


@dataclass(frozen=True, slots=True)
class _Lists:
    """All lists in force, immutable; replaced as a whole."""

    loaded: tuple[_Loaded, ...] = ()
    by_buyer: dict[str, _Applicable] = field(default_factory=dict)
    others: _Applicable = field(default_factory=_Applicable)  # buyers without a list of their own


class Scrub:
    """Holds the lists in force. `clock` is monotonic seconds."""

    def __init__(
        self,
        store: ListStore,
        data_dir: Path,
        *,
        max_age_s: float = MAX_AGE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._data_dir = data_dir
        self._max_age_s = max_age_s
        self._clock = clock
        self._lists: _Lists | None = None
        self._asked_at = 0.0

    async def reload(self) -> bool:
        """Ask which lists are in force and load what is new; True where anything changed. Never raises for a damaged
        list (its buyers are refused); raises what the store raises, with the lists before still in place.
        """
        started = self._clock()
        rows = await self._store.active()
        before = self._lists
        kept = {one.used: one for one in before.loaded if one.numbers is not None} if before is not None else {}
        if before is not None and not _changed(before, rows):
            self._asked_at = started
            return False
        loaded = tuple([await self._load(row, kept.get(_used(row))) for row in rows])
        self._lists = _arrange(loaded)
        self._asked_at = started
        return True

    def check(self, number: str, buyer: str) -> ScrubResult:
        """The verdict for a number in any usual spelling. Never raises."""
        started = time.perf_counter_ns()
        lists = self._lists
        if lists is None or self._clock() - self._asked_at > self._max_age_s:
            return _result(Reason.SUPPRESSION_UNAVAILABLE, "", (), started)
        applicable = lists.by_buyer.get(buyer, lists.others)
        try:
            wanted = normalise(number)
        except NumberError:
            return _result(Reason.SUPPRESSION_UNAVAILABLE, "", applicable.used, started)
        for name, numbers in applicable.lists:
            at = bisect_left(numbers, wanted)
            if at < len(numbers) and numbers[at] == wanted:
                return _result(Reason.SUPPRESSED, name, applicable.used, started)
        reason = Reason.SUPPRESSION_UNAVAILABLE if applicable.broken else ""
        return _result(reason, "", applicable.used, started)

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of lists in force that cannot be consulted; for metrics and alarms."""
        lists = self._lists
        return () if lists is None else tuple(one.used.name for one in lists.loaded if one.numbers is None)

    async def _load(self, row: ActiveList, known: _Loaded | None) -> _Loaded:
        if known is not None:
            return _Loaded(known.used, row.buyer, known.numbers)
        used = _used(row)
        try:
            read = await asyncio.to_thread(snapshot.read, self._data_dir / row.file, row.checksum)
        except snapshot.SnapshotError as error:
            _log.error("suppression_list_unavailable", list=row.name, version=row.version, error=str(error))
            return _Loaded(used, row.buyer, None)
        _log.info("suppression_list_loaded", list=row.name, version=row.version, entries=len(read.numbers))
        return _Loaded(used, row.buyer, read.numbers)


def _used(row: ActiveList) -> ListUsed:
    return ListUsed(row.name, row.version, row.checksum)


def _changed(before: _Lists, rows: Sequence[ActiveList]) -> bool:
    """A list that could not be loaded counts as changed: it is tried again at each reload."""
    now = {(_used(row), row.buyer) for row in rows}
    return now != {(one.used, one.buyer) for one in before.loaded if one.numbers is not None}


def _arrange(loaded: tuple[_Loaded, ...]) -> _Lists:
    owners = {one.buyer for one in loaded if one.buyer is not None}
    return _Lists(
        loaded,
        {owner: _for_buyer(loaded, owner) for owner in owners},
        _for_buyer(loaded, None),
    )


def _for_buyer(loaded: tuple[_Loaded, ...], buyer: str | None) -> _Applicable:
    mine = [one for one in loaded if one.buyer is None or one.buyer == buyer]
    return _Applicable(
        tuple(one.used for one in mine),
        tuple((one.used.name, one.numbers) for one in mine if one.numbers is not None),
        any(one.numbers is None for one in mine),
    )


def _result(reason: str, hit: str, used: tuple[ListUsed, ...], started_ns: int) -> ScrubResult:
    return ScrubResult(str(reason), hit, used, (time.perf_counter_ns() - started_ns) // 1000)
