"""Decides whether a number may be transferred to a buyer: looks up all global lists and the buyer's; fails closed.

`reload` loads what is new and swaps it in at once; calls in progress do not notice. `check` looks only at what is in
memory and takes microseconds. It refuses (`suppression_unavailable`) where any list that applies could not be loaded
and verified, where nothing was loaded yet, where the store could not be asked for longer than `max_age_s`, and where
the number is no phone number: what cannot be looked up cannot be cleared.

What was consulted is named by two digests, of the global lists and of the buyer's, each of one moment. What they stand
for is on record in the store before the first scrub that names them. A person on a global list who has an exemption on
record passes that list, and the evidence says by which exemption.

`Scrub` has the calls that `router.ports.Scrubber` asks for; suppression imports nothing of the router.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from book.lists import NAMED_ONLY, Exemption, ListChange, ListNews, ListVersion
from book.numbers import NumberError, normalise
from facts.answers import ScrubResult
from facts.outcome import Reason
from suppression.index import ListGroup, LoadedList, Probe, make_part
from suppression.loading import fingerprint, load_list
from suppression.ports import ListReader
from suppression.receipt import Claims, Signer

MAX_AGE_S = 60.0  # a list activated elsewhere binds us within this time even when the store is out of reach

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Row:
    """A list in force with all its changes, as the store has it, and as it was loaded."""

    version: ListVersion
    changes: tuple[ListChange, ...]
    loaded: LoadedList
    lapsed: bool = False  # its time has run out
    fingerprint: object = None  # of its file, when it could not be loaded


@dataclass(frozen=True, slots=True)
class State:
    """All lists in force, immutable; replaced as a whole."""

    stamp: int = 0
    rows: Mapping[str, _Row] = field(default_factory=dict)
    shared: ListGroup = field(default_factory=lambda: make_part(()))
    own: Mapping[str, ListGroup] = field(default_factory=dict)
    none: ListGroup = field(default_factory=lambda: make_part(()))  # of a buyer that has no list
    exemptions: Mapping[int, tuple[Exemption, ...]] = field(default_factory=dict)  # by number

    def of(self, buyer: str) -> ListGroup:
        return self.own.get(buyer, self.none)

    def exempt(self, name: str, number: int, buyer: str, now_s: float) -> Exemption | None:
        """Why this person passes a global list all the same."""
        for one in self.exemptions.get(number, ()):
            if one.name == name and one.buyer in (None, buyer) and now_s * 1e6 < one.expires_utc_us:
                return one
        return None

    def look(self, number: int, buyer: str, now_s: float) -> tuple[str, tuple[int, ...]]:
        """(the list that has the number, empty for none; exemptions that were applied)."""
        probe, own = Probe(number), self.of(buyer)
        applied: tuple[int, ...] = ()
        if self.shared.suspect(probe):
            for one in self.shared.hits(probe, now_s):
                exemption = self.exempt(one.name, number, buyer, now_s) if self.exemptions else None
                if exemption is None:
                    return one.name, applied
                applied += (exemption.id,)
        if own.suspect(probe):
            for one in own.hits(probe, now_s):
                return one.name, applied
        return "", applied


class Scrub:
    """Holds the lists in force. `clock` is monotonic seconds, `wall` Unix time in seconds."""

    def __init__(
        self,
        store: ListReader,
        data_dir: Path,
        signer: Signer,
        *,
        mapped: bool = False,
        max_age_s: float = MAX_AGE_S,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._data_dir = data_dir
        self._signer = signer
        self._mapped = mapped
        self._max_age_s = max_age_s
        self._clock = clock
        self._wall = wall
        self._state: State | None = None
        self._kept: set[str] = set()  # digests known to be on record
        self._asked_at = 0.0

    async def reload(self) -> bool:
        """Ask what is new and load it; True where anything changed. Never raises for a damaged list (its buyers are
        refused); raises what the store raises, with the lists before still in place.
        """
        started = self._clock()
        before = self._state or State()
        news: ListNews | None = None
        if await self._store.stamp() != before.stamp:
            news = await self._store.since(before.stamp)
        elif self._state is not None and not await asyncio.to_thread(self._stale, before):
            self._asked_at = started
            return False
        if news is not None and news.anew:  # the store was restored from a copy
            before = State()
            self._kept.clear()
        state = await asyncio.to_thread(self._next, before, news)
        await self._keep(state)
        done = [before, self._state]
        del before
        self._state = state
        self._asked_at = started
        await asyncio.to_thread(done.clear)  # to let go of a national list takes a tenth of a second
        return True

    def check(self, number: str, buyer: str) -> ScrubResult:
        """The verdict for a number in any usual spelling. Never raises."""
        started = time.perf_counter_ns()
        state = self._state
        if state is None or self._clock() - self._asked_at > self._max_age_s:
            return ScrubResult(str(Reason.SUPPRESSION_UNAVAILABLE), took_us=_since(started))
        own = state.of(buyer)
        try:
            wanted = normalise(number)
        except NumberError:
            return _result(state, own, reason=str(Reason.SUPPRESSION_UNAVAILABLE), started_ns=started)
        hit, exempt = state.look(wanted, buyer, self._wall())
        reason = ""
        if hit:
            reason = str(Reason.SUPPRESSED)
        elif state.shared.broken or own.broken:
            reason = str(Reason.SUPPRESSION_UNAVAILABLE)
        return _result(
            state,
            own,
            reason=reason,
            hit=hit,
            started_ns=started,
            number=self._signer.hash_number(wanted),
            exempt=exempt,
        )

    def receipt(self, result: ScrubResult, transfer: str, buyer: str, at_utc_us: int) -> str:
        """A check's result, signed, for the dialer."""
        return self._signer.sign(
            Claims(
                transfer=transfer,
                buyer=buyer,
                reason=result.reason,
                hit=result.hit,
                number=result.number,
                sets=result.sets,
                exempt=result.exempt,
                at_s=at_utc_us // 1_000_000,
            )
        )

    @property
    def state(self) -> State:
        """The lists in force, for batches of numbers. Empty before the first `reload`."""
        return self._state or State()

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of lists in force that cannot be consulted; for metrics and alarms."""
        parts = (self.state.shared, *self.state.own.values())
        return tuple(name for part in parts for name in part.broken)

    @property
    def entries(self) -> int:
        """Of all lists that can be consulted."""
        rows = self.state.rows.values()
        return sum(row.version.count for row in rows if row.loaded.snapshot is not None and not row.lapsed)

    def _stale(self, state: State) -> bool:
        """A list's time has run out, or a file that could not be loaded looks different now."""
        now_s = self._wall()
        return any(self._is_due(row, now_s, retry=False) for row in state.rows.values())

    def _is_due(self, row: _Row, now_s: float, *, retry: bool) -> bool:
        """Whether to load a list again without news of it. `retry`: what could not be loaded, as it looks or not."""
        if _expired(row.version, now_s) is not row.lapsed:
            return True
        return row.loaded.snapshot is None and (
            retry or fingerprint(self._data_dir / row.version.file) != row.fingerprint
        )

    async def _keep(self, state: State) -> None:
        parts = (state.shared, state.none, *state.own.values())
        new = {part.digest: part.document for part in parts if part.digest not in self._kept}
        if new:
            await self._store.keep_sets(new)
            self._kept.update(new)

    def _next(self, before: State, news: ListNews | None) -> State:
        """The state after some news; runs beside the loop."""
        now_s = self._wall()
        rows = dict(before.rows)
        told = _by_name(news)
        again = {name for name, row in rows.items() if self._is_due(row, now_s, retry=True)}
        for name in again | told.keys():
            row = self._row(rows.pop(name, None), told.get(name, _NOTHING), now_s)
            if row is not None:
                rows[name] = row
        exemptions = before.exemptions if news is None else _exemptions(before.exemptions, news)
        return _arranged(before, rows, news.stamp if news is not None else before.stamp, exemptions)

    def _row(self, before: _Row | None, told: _ListChanges, now_s: float) -> _Row | None:
        """The list as it is now; None where it is not in force any more."""
        version = before.version if before is not None else None
        changes = before.changes if before is not None else ()
        for one in sorted(told.versions, key=lambda one: (one.active, one.version)):  # the one in force decides
            if version is None or one.active or one.version >= version.version:
                changes = changes if version is not None and one.version == version.version else ()
                version = one
        if version is None or not version.active:
            return None
        changes += tuple(one for one in told.changes if one.version == version.version)
        file = self._data_dir / version.file
        if version.version == NAMED_ONLY:
            _log.error("suppression_list_not_there", list=version.name, closes=version.buyer or "everybody")
        mark = fingerprint(file)
        loaded = load_list(file, version, changes, before.loaded if before is not None else None, mapped=self._mapped)
        return _Row(version, changes, loaded, _expired(version, now_s), mark if loaded.snapshot is None else None)


@dataclass(slots=True)
class _ListChanges:
    """The news of one list."""

    versions: list[ListVersion] = field(default_factory=list)
    changes: list[ListChange] = field(default_factory=list)


_NOTHING = _ListChanges()


def _by_name(news: ListNews | None) -> dict[str, _ListChanges]:
    told: dict[str, _ListChanges] = {}
    if news is not None:
        for version in news.lists:
            told.setdefault(version.name, _ListChanges()).versions.append(version)
        for change in news.changes:
            told.setdefault(change.name, _ListChanges()).changes.append(change)
    return told


def _expired(version: ListVersion, now_s: float) -> bool:
    return version.expires_utc_us is not None and now_s * 1e6 >= version.expires_utc_us


def _exemptions(before: Mapping[int, tuple[Exemption, ...]], news: ListNews) -> Mapping[int, tuple[Exemption, ...]]:
    after = dict(before)
    for one in news.exemptions:
        others = tuple(other for other in after.pop(one.number, ()) if other.id != one.id)
        kept = others if one.revoked_utc_us is not None else (*others, one)
        if kept:
            after[one.number] = kept
    return after


def _arranged(
    before: State, rows: dict[str, _Row], stamp: int, exemptions: Mapping[int, tuple[Exemption, ...]]
) -> State:
    """Parts are made anew only for those whose lists changed."""
    by_owner: dict[str | None, list[LoadedList]] = {None: []}
    for name in sorted(name for name, row in rows.items() if not row.lapsed):
        by_owner.setdefault(rows[name].version.buyer, []).append(rows[name].loaded)
    shared = _part(before.shared, by_owner.pop(None))
    own = {owner: _part(before.own.get(owner), lists) for owner, lists in by_owner.items() if owner is not None}
    return replace(before, stamp=stamp, rows=rows, shared=shared, own=own, exemptions=exemptions)


def _part(before: ListGroup | None, lists: list[LoadedList]) -> ListGroup:
    if before is not None and before.lists == tuple(lists):
        return before
    return make_part(lists, before)


def _result(
    state: State,
    own: ListGroup,
    *,
    reason: str,
    started_ns: int,
    hit: str = "",
    number: str = "",
    exempt: tuple[int, ...] = (),
) -> ScrubResult:
    lists = (
        f"{state.shared.brief}; {own.brief}" if state.shared.brief and own.brief else state.shared.brief or own.brief
    )
    return ScrubResult(
        reason=reason,
        hit=hit,
        lists=lists,
        sets=(state.shared.digest, own.digest),
        number=number,
        exempt=exempt,
        took_us=_since(started_ns),
    )


def _since(started_ns: int) -> int:
    return (time.perf_counter_ns() - started_ns) // 1000
