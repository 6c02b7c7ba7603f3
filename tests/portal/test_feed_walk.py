"""Walking the feed, whatever happens meanwhile: each event once, in the order of its transfer, as one fold makes them.

Boots of several routers begin by clocks that lie, write, die, are recovered; outcomes are settled at any time. A walker
asks for pages of any size in between, keeps nothing but the text of its position, and rests for as long as it likes.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

import meter.events.sql.feed
from facts.fact import CHAIN_START, Kind
from meter.events.model import Event, Events
from meter.events.sql.feed import Position, TooManyBootsError, UnknownPositionError, position_at, read_batch
from meter.journal.rows import insert_rows, make_row, read_row
from meter.journal.sql.recovery import recover
from meter.settling.follower import Follower
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.store.schema import boots, facts, outcomes
from portal.events.service import MAX_POSITION, EventsService, View, read_position, write_position
from portal.http.stream_limit import StreamLimit
from portal.http.tokens import Scope, Token
from tests.facts_builder import MONO_0, UTC_0, connected_story, failed_story

OPERATOR = View(Token("noc", "", Scope.OPERATOR))
ACME = View(Token("acme", "", Scope.BUYER, "acme"))
ROUTERS = ("r1", "r2", "r3")
BUYERS = ("acme", "best", "acme", "cole", "dune")


class Journal:
    """Routers that write into a real store, fact by fact."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine, self.clerk = engine, Clerk(engine)
        self.chains: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.up: dict[str, str] = {}  # router -> its boot that runs
        self.pending: dict[str, list[Any]] = {}  # facts that a running boot has still to write
        self.count = 0

    async def boot(self, router: str, clock_s: int) -> None:
        """The router starts again; what it had open is closed."""
        await self.stop(router)
        self.count += 1
        name = f"boot-{self.count}"
        row = {"router": router, "boot": name, "pid": 1, "started_utc_us": UTC_0 + clock_s * 1_000_000}
        await self.clerk.write(lambda connection: connection.execute(insert(boots), [row]))
        self.up[router], self.pending[router], self.chains[router, name] = name, [], (0, CHAIN_START)

    async def stop(self, router: str) -> None:
        if self.up.pop(router, None) is not None:
            await recover(self.engine, router, now_utc_us=UTC_0 + 10**9)

    async def write(self, router: str, many: int, order: int = 0) -> None:
        """The next facts of the router's transfers; there are always two or three up."""
        if router not in self.up:
            await self.boot(router, 0)
        key, pending = (router, self.up[router]), self.pending[router]
        seq, digest = self.chains[key]
        rows = []
        for step in range(many):
            while len(pending) < 3:
                self.count += 1
                make = connected_story if self.count % 2 else failed_story
                pending.append(list(make(f"t-{self.count}", buyer=BUYERS[self.count % len(BUYERS)]).facts))
            story = pending[(order + step * 7) % 3]
            fact = replace(story.pop(0), router=key[0], boot=key[1], seq=seq + 1)
            if not story:
                pending.remove(story)
            _, row = make_row(fact, digest)
            seq, digest = fact.seq, row[-1]
            rows.append(row)
        self.chains[key] = seq, digest
        await self.clerk.write(lambda connection: insert_rows(connection, rows))

    async def settle(self) -> None:
        follower = Follower(self.engine)
        await follower.catch_up()
        await follower.close()

    async def whole(self) -> list[Event]:
        """All events, by one fold over the whole journal, boot after boot."""
        return await self.clerk.read(_fold)

    async def close(self) -> None:
        await self.clerk.close()


def _fold(connection: Connection) -> list[Event]:
    settled = {row["transfer"]: dict(row) for row in connection.execute(select(outcomes)).mappings()}
    events = Events()
    rows = connection.execute(select(facts).order_by(facts.c.router, facts.c.boot, facts.c.seq))
    made = [events.fold(fact, settled.get(fact.transfer)) for fact in map(read_row, rows)]
    return [event for event in made if event is not None]


class Walker:
    """Keeps the text of its position, and what it has seen."""

    def __init__(self, clerk: Clerk, view: View, start: str = "") -> None:
        self.clerk, self.view, self.position = clerk, view, start
        self.seen: list[dict[str, Any]] = []

    async def page(self, limit: int) -> bool:
        """One page, by a portal that knows nothing of the ones before; whether there is more."""
        feed = EventsService(self.clerk, StreamLimit())
        start = read_position(self.position, "cursor") or Position()
        found = await feed.page(start, limit, self.view)
        assert len(found.events) <= limit
        self.seen += found.events
        self.position = write_position(found.position)
        assert len(self.position) <= MAX_POSITION
        return found.more

    async def rest(self, limit: int = 100) -> None:
        for _ in range(10_000):
            if not await self.page(limit):
                return
        raise AssertionError("it comes to no end")


def _by_transfer(payloads: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in payloads:
        found.setdefault(one["transfer"], []).append(one)
    return found


def _holds(walker: Walker, whole: list[Event]) -> None:
    wanted = _by_transfer([walker.view.shown(event) for event in whole if walker.view.sees(event)])
    assert _by_transfer(walker.seen) == wanted
    ids = [one["id"] for one in walker.seen]
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that is made once and copied for each example."""
    path = tmp_path_factory.mktemp("template") / "baton.db"

    async def make() -> None:
        engine = await open_store(f"sqlite:///{path}")
        await engine.dispose()

    asyncio.run(make())
    return path


_router = st.sampled_from(ROUTERS)
_step = st.one_of(
    st.tuples(st.just("write"), _router, st.integers(1, 40), st.integers(0, 2)),
    st.tuples(st.just("page"), st.integers(0, 2), st.integers(1, 30)),
    st.tuples(st.just("boot"), _router, st.integers(-100_000, 100_000)),
    st.tuples(st.just("stop"), _router),
    st.tuples(st.just("settle")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_step, min_size=5, max_size=40), st.integers(1, 60), st.integers(1, 400))
def test_each_event_comes_once_and_in_order_whatever_happens_meanwhile(
    template: Path, steps: list[tuple[Any, ...]], last: int, span: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(meter.events.sql.feed, "SPAN", span)
        shutil.copy(template, folder)
        asyncio.run(_walk(Path(folder) / template.name, steps, last))


async def _walk(path: Path, steps: list[tuple[Any, ...]], last: int) -> None:
    engine = await open_store(f"sqlite:///{path}")
    journal, clerk = Journal(engine), Clerk(engine)
    of_outcomes = View(OPERATOR.token, frozenset({"outcome"}))
    walkers = [Walker(clerk, view) for view in (OPERATOR, ACME, of_outcomes)]
    try:
        for what, *how in steps:
            if what == "page":
                await walkers[how[0]].page(how[1])
            else:
                await getattr(journal, what)(*how)
        await journal.settle()
        for router in ROUTERS:
            await journal.stop(router)
        await journal.settle()
        whole = await journal.whole()
        for walker in walkers:
            await walker.rest(last)
            _holds(walker, whole)
            at = read_position(walker.position, "cursor")
            assert at is not None
            assert not at.at, "all boots are over: the position names none of them"
    finally:
        await clerk.close()
        await journal.close()
        await engine.dispose()


@pytest.fixture
async def journal(template: Path, tmp_path: Path) -> Any:
    shutil.copy(template, tmp_path)
    engine = await open_store(f"sqlite:///{tmp_path / template.name}")
    found = Journal(engine)
    yield found
    await found.close()
    await engine.dispose()


async def test_a_position_of_weeks_ago_goes_on_through_many_boots_and_stays_small(journal: Journal) -> None:
    walker = Walker(journal.clerk, OPERATOR)
    await journal.write("r1", 30)
    await walker.page(7)
    old = walker.position
    for number in range(60):
        await journal.boot(ROUTERS[number % 2], -number * 3_600)
        await journal.write(ROUTERS[number % 2], 12)
    await journal.settle()
    await walker.rest(50)
    assert len(walker.position) < 300
    again = Walker(journal.clerk, OPERATOR, old)
    again.seen = walker.seen[:7]
    await again.rest(3)
    assert _by_transfer(again.seen) == _by_transfer(walker.seen)
    await journal.stop("r1")
    await journal.stop("r2")
    await journal.settle()
    for one in (walker, again):
        await one.rest()
        _holds(one, await journal.whole())


async def test_an_outcome_waits_for_its_settlement_and_holds_up_its_own_boot_alone(journal: Journal) -> None:
    walker = Walker(journal.clerk, View(OPERATOR.token, frozenset({"outcome"})))
    await journal.write("r1", 60)
    await journal.write("r2", 2)
    await walker.rest()
    assert walker.seen == []
    both = Walker(journal.clerk, OPERATOR)
    await both.rest()
    assert {one["router"] for one in both.seen} == {"r1", "r2"}
    await journal.settle()
    await walker.rest()
    assert len(walker.seen) > 2


async def test_whose_own_are_few_is_given_a_position_that_moves(journal: Journal) -> None:
    """5,000 facts of others: no request looks at more than it may, and each gets on."""
    for _ in range(10):
        await journal.write("r1", 500)
    await journal.settle()
    walker = Walker(journal.clerk, View(Token("none", "", Scope.BUYER, "nobody")))
    positions = [walker.position]
    feed_reads = 0
    while await walker.page(100):
        positions.append(walker.position)
        feed_reads += 1
    assert walker.seen == []
    assert 1 <= feed_reads == len(set(positions)) - 1
    feed = EventsService(journal.clerk, StreamLimit())
    await feed.page(Position(), 100, walker.view)
    assert feed.reads == 10


async def test_facts_of_no_interest_are_bounded_too(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    await journal.boot("r1", 0)
    story = connected_story("t-1").facts
    minutes = [replace(story[-3], kind=Kind.TALK_MINUTE, payload={"minutes": number}) for number in range(400)]
    journal.pending["r1"] = [[*story[:5], *minutes, *story[5:]]]
    monkeypatch.setattr(meter.events.sql.feed, "SPAN", 50)
    while journal.pending["r1"] and len(journal.pending["r1"][0]) > 1:
        journal.pending["r1"] = [journal.pending["r1"][0], [story[0]] * 999, [story[0]] * 999]
        await journal.write("r1", 1)
    batch = await journal.clerk.read(read_batch, Position())
    assert (len(batch.events), batch.more, batch.position.at) == (4, True, (("r1", "boot-1", 50),))
    batch = await journal.clerk.read(read_batch, batch.position)
    assert (len(batch.events), batch.more, batch.position.at) == (0, True, (("r1", "boot-1", 100),))


async def test_it_begins_at_the_end_or_at_a_time(journal: Journal) -> None:
    await journal.write("r1", 40)
    await journal.boot("r2", 0)
    await journal.write("r2", 40)
    await journal.boot("r2", 50)
    await journal.settle()
    end = await journal.clerk.read(position_at, None)
    walker = Walker(journal.clerk, OPERATOR, write_position(end))
    await walker.rest()
    assert walker.seen == []
    await journal.write("r2", 1)
    await journal.boot("r3", -9_999)
    await journal.write("r3", 1)
    await walker.rest()
    assert [(one["event"], one["router"]) for one in walker.seen] == [("started", "r2"), ("started", "r3")]
    everything = Walker(journal.clerk, OPERATOR, write_position(await journal.clerk.read(position_at, 0)))
    await everything.rest()
    _holds(everything, [one for one in await journal.whole() if one.kind != "outcome" or one.fields.get("verdict")])


async def test_a_time_within_a_boot_is_found_to_the_fact(journal: Journal) -> None:
    await journal.boot("r1", 0)
    story = connected_story("t-1").facts
    journal.pending["r1"] = [[replace(fact, utc_us=UTC_0 + number * 100, mono_us=MONO_0) for number, fact in
                              enumerate(story * 9)], [story[0]] * 99, [story[0]] * 99]  # fmt: skip
    for _ in range(50):
        journal.pending["r1"][1:] = [[story[0]] * 99, [story[0]] * 99]
        await journal.write("r1", 1)
    for at_us, seq in ((0, 0), (1, 1), (100, 1), (101, 2), (4_900, 49), (4_901, 50), (9_999, 50)):
        found = await journal.clerk.read(position_at, UTC_0 + at_us)
        assert found.at == ((("r1", "boot-1", seq),) if seq else ()), at_us


@pytest.mark.parametrize(
    "position",
    [
        Position(("r1", "boot-9")),
        Position(("r9", "boot-1")),
        Position(None, (("r1", "boot-1", 1),)),
        Position(("r1", "boot-1"), (("r2", "boot-2", 1),)),
        Position(("r1", "boot-1"), (("r1", "boot-7", 1),)),
    ],
)
async def test_a_position_of_another_journal_is_refused(journal: Journal, position: Position) -> None:
    await journal.write("r1", 5)
    await journal.write("r2", 5)
    with pytest.raises(UnknownPositionError):
        await journal.clerk.read(read_batch, position)


async def test_more_routers_than_a_position_can_name_are_told_of_and_nothing_is_skipped(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter.events.sql.feed, "MAX_BOOTS", 2)
    for router in ROUTERS:
        await journal.write(router, 3)
    walker = Walker(journal.clerk, OPERATOR)
    with pytest.raises(TooManyBootsError):
        await walker.rest()
    await journal.stop("r1")
    await journal.settle()
    await walker.rest()
    assert {one["router"] for one in walker.seen} == set(ROUTERS)
