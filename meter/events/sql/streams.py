"""Follows the journal: each follower's cursors, and the facts after them.

The journal is its own queue of events (decision 080): a follower has a cursor per (router, boot) and reads the durable
facts after it. The cursor moves when the facts were dealt with, so what a crash interrupts is told again, and nothing
is left out. A closing fact is handed over once its transfer is settled, with the outcome, and never before.

A follower begins at the end of the journal as it is when it is first begun: who configures a broker after a year does
not get a year.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from facts.fact import Fact, Kind
from meter.journal.rows import execute_bare, read_row
from meter.journal.sql.reading import histories
from meter.store.integration_schema import stream_cursors, streams
from meter.store.schema import boots, facts, outcomes

Boot = tuple[str, str]  # router, boot
LIMIT = 200  # facts of interest in one look
SCAN = 2_000  # facts of any kind
_ALL = f"SELECT {', '.join(facts.c.keys())} FROM facts"  # noqa: S608 - names of columns


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """The rows after a follower's cursors. `facts` are in order per boot; `before`: earlier facts of new transfers."""

    facts: list[Fact] = field(default_factory=list)
    before: dict[str, list[Fact]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)  # rows, by transfer
    ends: dict[Boot, int] = field(default_factory=dict)  # where the cursors are once all of it is dealt with
    over: frozenset[Boot] = frozenset()  # boots that will never have more
    more: bool = False  # there is more already


def begin(connection: Connection, stream: str, now_utc_us: int) -> None:
    """Register a follower; all that is in the journal by now is behind it. Does nothing where it is registered."""
    if not _insert_new(connection, streams, {"name": stream, "since_utc_us": now_utc_us}):
        return
    for router, boot in connection.execute(select(boots.c.router, boots.c.boot)).all():
        this = (facts.c.router == router, facts.c.boot == boot)
        last = connection.execute(select(func.max(facts.c.seq)).where(*this)).scalar() or 0
        _insert_new(connection, stream_cursors, {"stream": stream, "router": router, "boot": boot, "seq": last})


def cursors(connection: Connection, stream: str) -> dict[Boot, int]:
    """The cursors of a follower; a boot without one is read from its beginning."""
    mine = stream_cursors.c.stream == stream
    query = select(stream_cursors.c.router, stream_cursors.c.boot, stream_cursors.c.seq).where(mine)
    return {(router, boot): seq for router, boot, seq in connection.execute(query)}


@dataclass(frozen=True, slots=True)
class Reader:
    """One look at the journal after `at`: at most `limit` facts of `kinds`. `over`: boots known to have no more.

    `among`: the boots that are looked at, in this order, and whether each is over; None: all of them. `span`: sequence
    numbers of a boot that are looked at at most, of interest or not.
    """

    kinds: Collection[Kind]
    at: Mapping[Boot, int]
    over: Collection[Boot] = ()
    known: Collection[str] = ()  # transfers whose earlier facts are not needed
    limit: int = LIMIT
    among: Sequence[tuple[str, str, bool]] | None = None
    span: int = SCAN

    def __call__(self, connection: Connection) -> StreamBatch:
        found = StreamBatch()
        over: set[Boot] = set()
        more = False
        for router, boot, is_over in self._boots(connection):
            room = self.limit - len(found.facts)
            if room <= 0:
                more = True
                break
            key, at = (router, boot), self.at.get((router, boot), 0)
            some, end, cut = self._of_boot(connection, key, at, room)
            some, settled, waits = _until_unsettled(connection, some)
            if waits is not None:
                end, cut = waits - 1, False
            more = more or cut or len(some) >= room
            found.facts.extend(some)
            found.outcomes.update(settled)
            found.before.update(self._earlier(connection, key, at, some))
            if end > at:
                found.ends[key] = end
            if is_over and waits is None and not cut and len(some) < room:
                over.add(key)
        return StreamBatch(
            facts=found.facts,
            before=found.before,
            outcomes=found.outcomes,
            ends=found.ends,
            over=frozenset(over),
            more=more,
        )

    def _boots(self, connection: Connection) -> Sequence[tuple[str, str, bool]]:
        wanted = read_boots(connection) if self.among is None else self.among
        return [one for one in wanted if one[:2] not in self.over]

    def _of_boot(self, connection: Connection, key: Boot, at: int, room: int) -> tuple[list[Fact], int, bool]:
        """(facts of interest, the last sequence number that was looked at, whether `span` bounded the look)."""
        last = _last(connection, key)
        if last <= at or not self.kinds:
            return [], max(at, last), False
        bound = min(last, at + self.span)
        some = [read_row(row) for row in _between(connection, key, (at, bound), self.kinds, room)]
        return some, some[-1].seq if len(some) >= room else bound, bound < last

    def _earlier(self, connection: Connection, key: Boot, at: int, some: Sequence[Fact]) -> dict[str, list[Fact]]:
        fresh = {fact.transfer for fact in some if fact.kind is Kind.TRANSFER_STARTED}
        unknown = [one for one in {fact.transfer for fact in some} - fresh if one not in self.known]
        if not unknown:
            return {}
        found = histories(connection, *key, unknown)
        return {transfer: [fact for fact in all_ if fact.seq <= at] for transfer, all_ in found.items()}


def read_boots(connection: Connection) -> list[tuple[str, str, bool]]:
    """All boots, the oldest first, and whether each is over: closed, and recovered from where it had to be."""
    query = select(boots.c.router, boots.c.boot, boots.c.recovered_utc_us).order_by(boots.c.started_utc_us)
    return [(router, boot, recovered is not None) for router, boot, recovered in connection.execute(query)]


def _last(connection: Connection, key: Boot) -> int:
    """The last sequence number of a boot; 0: it has no facts."""
    if (
        connection.dialect.name == "sqlite"
    ):  # past SQLAlchemy, as in meter.journal.sql.reading: this is asked all the time
        [(last,)] = execute_bare(connection, "SELECT max(seq) FROM facts WHERE router = ? AND boot = ?", key)
    else:
        this = (facts.c.router == key[0], facts.c.boot == key[1])
        last = connection.execute(select(func.max(facts.c.seq)).where(*this)).scalar()
    return last or 0


def _between(
    connection: Connection, key: Boot, span: tuple[int, int], kinds: Collection[Kind], most: int
) -> Sequence[Sequence[Any]]:
    """A boot's facts of these kinds, after the first and up to the second sequence number."""
    names = [kind.value for kind in kinds]
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(names))
        where = f"router = ? AND boot = ? AND seq > ? AND seq <= ? AND kind IN ({marks})"
        return execute_bare(connection, f"{_ALL} WHERE {where} ORDER BY seq LIMIT ?", (*key, *span, *names, most))
    this = (facts.c.router == key[0], facts.c.boot == key[1], facts.c.seq > span[0], facts.c.seq <= span[1])
    return connection.execute(
        select(facts).where(*this, facts.c.kind.in_(names)).order_by(facts.c.seq).limit(most)
    ).all()


def _until_unsettled(
    connection: Connection, some: list[Fact]
) -> tuple[list[Fact], dict[str, dict[str, Any]], int | None]:
    """The facts before the first closing one whose outcome is not there yet, the outcomes, and where that one is."""
    closing = [fact.transfer for fact in some if fact.kind is Kind.TRANSFER_CLOSED]
    if not closing:
        return some, {}, None
    rows = connection.execute(select(outcomes).where(outcomes.c.transfer.in_(closing))).mappings()
    settled = {row["transfer"]: {str(name): value for name, value in row.items()} for row in rows}
    for index, fact in enumerate(some):
        if fact.kind is Kind.TRANSFER_CLOSED and fact.transfer not in settled:
            return some[:index], settled, fact.seq
    return some, settled, None


def move(connection: Connection, stream: str, ends: Mapping[Boot, int]) -> None:
    """Move cursors; never backwards."""
    for (router, boot), seq in ends.items():
        key = {"stream": stream, "router": router, "boot": boot}
        this = [stream_cursors.c[name] == value for name, value in key.items()]
        moved = connection.execute(
            update(stream_cursors).where(*this, stream_cursors.c.seq < seq).values(seq=seq)
        ).rowcount
        if not moved:
            _insert_new(connection, stream_cursors, {**key, "seq": seq})


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a follower is behind: facts of any kind after its cursors, and when the oldest of them happened."""

    facts: int
    oldest_utc_us: int | None


def lag(connection: Connection, at: Mapping[Boot, int], over: Collection[Boot]) -> Lag:
    """How far a follower that is at `at` is behind; `over`: boots known to have no more."""
    count, oldest = 0, None
    for router, boot in connection.execute(select(boots.c.router, boots.c.boot)).all():
        if (router, boot) in over:
            continue
        seq = at.get((router, boot), 0)
        this = (facts.c.router == router, facts.c.boot == boot, facts.c.seq > seq)
        last = _last(connection, (router, boot))
        if last <= seq:
            continue
        count += last - seq
        first = connection.execute(select(facts.c.utc_us).where(*this).order_by(facts.c.seq).limit(1)).scalar_one()
        oldest = first if oldest is None else min(oldest, first)
    return Lag(count, oldest)


def _insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless it is there; whether it was inserted."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return bool(connection.execute(dialect.insert(table).values(**row).on_conflict_do_nothing()).rowcount)
