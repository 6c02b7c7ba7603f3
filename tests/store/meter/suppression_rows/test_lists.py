"""Suppression lists in the store: who wins, what a reader learns and when, and a log that only grows."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, column, event, insert, select, table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import meter.store.engine
from book.lists import Actor, ListLogEntry, ListVersion, NewVersion, StaleError
from book.lists import StaleError as StoreStaleError
from meter.store.clerk import Clerk
from meter.store.engine import _parse, open_store, prepare
from meter.store.schema import suppression_lists
from meter.suppression_rows.sql.lists import ListRows
from suppression.ports import ListStore

ANN = Actor("ann", "cli:desk")
BO = Actor("bo", "api:192.0.2.7")
NUMBER = 12125550199
HOUR_US = 3_600_000_000


class Hands:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.us = 1_000_000_000_000

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
async def clerk(engine: AsyncEngine) -> AsyncIterator[Clerk]:
    clerk = Clerk(engine)
    yield clerk
    await clerk.close()


@pytest.fixture
def store(engine: AsyncEngine, clerk: Clerk, hands: Hands) -> ListRows:
    return ListRows(engine, clerk, clock=hands)


def _version(name: str = "dnc", file: str = "a", **others: Any) -> NewVersion:
    checksum = hashlib.sha256(file.encode()).hexdigest()
    values: dict[str, Any] = {
        "name": name,
        "buyer": None,
        "kind": "number",
        "file": f"suppression/{file}",
        "checksum": checksum,
        "source": f"{file}.csv",
        "source_checksum": "5" * 64,
        "entries": 10,
        "count": 10,
    }
    return NewVersion(**{**values, **others})


async def _activate(
    store: ListRows, new: NewVersion, expect: tuple[int, int] | None = None, action: str = "import"
) -> ListVersion:
    return await store.activate(new, ANN, action=action, expect=expect, detail={})


async def _seen(store: ListRows) -> tuple[object, ...]:
    """All that a refused change must leave alone."""
    rows = [await store.history(name) for name in ("dnc", "own")]
    return await store.stamp(), rows, await store.changes("dnc", 1), await store.log(), await store.exemptions()


def _after(state: str, document: bytes) -> str:
    return hashlib.sha256(state.encode() + b"\n" + document).hexdigest()


def test_it_is_the_store_that_suppression_asks_for(store: ListRows) -> None:
    wanted: ListStore = store
    assert {one for one in dir(ListStore) if not one.startswith("_")} <= set(dir(wanted))


# Versions


async def test_a_new_store_has_a_stamp_and_no_lists(store: ListRows) -> None:
    assert await store.stamp() > 0, "0 is who knows nothing"
    news = await store.since(0)
    assert (news.stamp, news.lists, news.changes, news.exemptions) == (await store.stamp(), (), (), ())
    assert await store.find("dnc") is None


async def test_activating_replaces_the_version_before_at_once(store: ListRows, hands: Hands) -> None:
    first = await _activate(store, _version(file="a"))
    assert first == ListVersion(
        name="dnc",
        version=1,
        revision=0,
        state=first.checksum,
        buyer=None,
        kind="number",
        file="suppression/a",
        checksum=hashlib.sha256(b"a").hexdigest(),
        source="a.csv",
        source_checksum="5" * 64,
        entries=10,
        count=10,
        active=True,
        expires_utc_us=None,
        imported_utc_us=hands.us,
        imported_by="ann",
        based_on=None,
        stamp=await store.stamp(),
    )
    assert await store.find("dnc") == first
    hands.us += HOUR_US
    new = _version(file="b", kind="sha256", entries=7, count=7, expires_utc_us=hands.us + 1)
    second = await _activate(store, new, (1, 0))
    assert (second.version, second.kind, second.expires_utc_us) == (2, "sha256", hands.us + 1)
    assert second.stamp == await store.stamp() > first.stamp
    old, now = await store.history("dnc")
    assert (old.active, old.stamp, now) == (False, second.stamp, second)
    assert await store.active() == (second,)


async def test_a_version_may_begin_with_a_change(store: ListRows) -> None:
    row = await _activate(store, _version(change=b"+1", count=11))
    assert (row.revision, row.entries, row.count) == (1, 10, 11)
    assert row.state == _after(row.checksum, b"+1")
    (change,) = await store.changes("dnc", 1)
    assert (change.revision, change.document, change.state) == (1, b"+1", row.state)
    assert (change.by, change.origin, change.stamp) == ("ann", "cli:desk", row.stamp)
    assert await store.find("dnc") == row


async def test_each_change_is_chained_to_the_state_before(store: ListRows, hands: Hands) -> None:
    row = await _activate(store, _version())
    documents = [b"+%d" % number for number in range(12)]  # more than nine: revisions are numbers
    state = row.checksum
    for revision, document in enumerate(documents, start=1):
        hands.us += 1
        state = _after(state, document)
        row = await store.change("dnc", document, 10 + revision, BO, action="add", expect=(1, revision - 1))
        assert (row.version, row.revision, row.state, row.count, row.entries) == (1, revision, state, 10 + revision, 10)
        assert row.stamp == await store.stamp()
    assert await store.find("dnc") == row
    found = await store.changes("dnc", 1)
    assert [(one.revision, one.document) for one in found] == list(enumerate(documents, start=1))
    assert (found[-1].state, found[-1].at_utc_us, found[-1].by) == (state, hands.us, "bo")
    assert await store.changes("dnc", 2) == ()


async def test_who_goes_by_what_is_no_longer_in_force_is_told_so(store: ListRows) -> None:
    with pytest.raises(StaleError):
        await _activate(store, _version(), (1, 0))
    with pytest.raises(StaleError, match="none is in force, not version 1 revision 0 is"):
        await store.change("dnc", b"+1", 11, ANN, action="add", expect=(1, 0))
    await _activate(store, _version())
    await store.change("dnc", b"+1", 11, ANN, action="add", expect=(1, 0))
    before = await _seen(store)
    for expect in (None, (1, 0), (1, 2), (2, 1)):
        with pytest.raises(StaleError, match="version 1 revision 1 is in force"):
            await _activate(store, _version(file="b"), expect)
    for expect in ((1, 0), (1, 2), (2, 1)):
        with pytest.raises(StaleError):
            await store.change("dnc", b"+2", 12, ANN, action="add", expect=expect)
    assert await _seen(store) == before


async def test_the_stale_error_is_the_stores_own_unless_another_is_asked_for(engine: AsyncEngine) -> None:
    with pytest.raises(StoreStaleError):
        await _activate(ListRows(engine), _version(), (1, 0))


async def test_a_list_does_not_change_hands_not_even_once_retired(store: ListRows) -> None:
    await _activate(store, _version("dnc", buyer="acme"))
    await _activate(store, _version("own"))
    await store.retire("own", ANN)
    before = await _seen(store)
    told = r"list 'dnc' is of buyer 'acme'; a list does not change hands, choose another name"
    for buyer in (None, "bolt"):
        with pytest.raises(ValueError, match=told):
            await _activate(store, _version("dnc", buyer=buyer), (1, 0))
    with pytest.raises(ValueError, match="list 'own' is global; a list does not change hands"):
        await _activate(store, _version("own", buyer="acme"))
    assert await _seen(store) == before


async def test_what_cannot_go_on_the_log_is_not_done(store: ListRows) -> None:
    before = await _seen(store)
    with pytest.raises(TypeError):
        await store.activate(_version(), ANN, action="import", expect=None, detail={"file": object()})
    assert await _seen(store) == before


async def test_a_retired_list_is_out_of_force_and_its_versions_count_on(store: ListRows) -> None:
    await _activate(store, _version())
    stamp = await store.stamp()
    assert await store.retire("dnc", ANN)
    assert await store.find("dnc") is None
    (row,) = (await store.since(stamp)).lists
    assert (row.version, row.active, row.stamp) == (1, False, await store.stamp())
    assert not await store.retire("dnc", ANN)
    assert not await store.retire("other", ANN)
    assert (await _activate(store, _version())).version == 2


async def test_the_expiry_of_a_whole_list_is_set_and_cleared(store: ListRows) -> None:
    row = await _activate(store, _version())
    assert await store.extend("dnc", 77, BO)
    (set_,) = (await store.since(row.stamp)).lists
    assert (set_.expires_utc_us, set_.state, set_.revision, set_.active) == (77, row.state, 0, True)
    assert await store.extend("dnc", None, BO)
    (cleared,) = (await store.since(set_.stamp)).lists
    assert (cleared.expires_utc_us, cleared.stamp) == (None, await store.stamp())
    assert not await store.extend("other", 77, BO)
    logged = await store.log("dnc", 2)
    assert [(one.action, one.before, one.after) for one in logged] == 2 * [("expiry", 10, 10)]
    assert [(one.detail["before_utc_us"], one.detail["expires_utc_us"]) for one in logged] == [(77, None), (None, 77)]


# The log


async def test_the_log_says_who_did_what_with_counts_before_and_after(store: ListRows, hands: Hands) -> None:
    await store.activate(_version(), ANN, action="import", expect=None, detail={"rejected": 3})
    await store.change("dnc", b"+1", 12, BO, action="add", expect=(1, 0))
    await _activate(store, _version(file="b", count=20, change=b"-1"), (1, 1), "append")
    await store.retire("dnc", BO)
    rows = await store.log("dnc")
    assert [(one.action, one.version, one.revision, one.before, one.after) for one in rows] == [
        ("retire", 2, 1, 20, None),
        ("append", 2, 1, 12, 20),
        ("add", 1, 1, 10, 12),
        ("import", 1, 0, None, 10),
    ]
    first = rows[-1]
    assert first == ListLogEntry(
        first.id, hands.us, "dnc", "import", "ann", "cli:desk", 1, 0, None, 10, {"rejected": 3}
    )
    assert [(one.by, one.origin) for one in rows[:1]] == [("bo", "api:192.0.2.7")]


async def test_refusals_and_scrubs_are_on_the_log_and_no_news(store: ListRows) -> None:
    stamp = await store.stamp()
    await store.refused("No list's name! " * 8, ANN, action="import", detail={"why": "too many rejects"})
    await store.log_scrub("", BO, {"numbers": 5000, "hits": 12})
    scrub, refused = await store.log()
    assert (refused.action, refused.detail, refused.after) == ("import", {"why": "too many rejects"}, None)
    assert (scrub.name, scrub.action, scrub.by, scrub.detail["hits"]) == ("", "scrub", "bo", 12)
    assert await store.stamp() == stamp


async def test_the_log_is_newest_first_up_to_a_limit(store: ListRows) -> None:
    for number in range(7):
        await store.log_scrub("dnc" if number % 2 else "own", ANN, {"number": number})
    assert [one.detail["number"] for one in await store.log(limit=3)] == [6, 5, 4]
    assert [one.detail["number"] for one in await store.log("dnc")] == [5, 3, 1]
    assert [one.detail["number"] for one in await store.log("dnc", 2)] == [5, 3]
    assert await store.log("other") == ()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE suppression_log SET detail = detail",
        "DELETE FROM suppression_log",
        "DELETE FROM suppression_log WHERE id = 1",
        "INSERT OR REPLACE INTO suppression_log SELECT * FROM suppression_log",
    ],
)
async def test_the_database_itself_refuses_to_change_the_log(
    store: ListRows, engine: AsyncEngine, statement: str
) -> None:
    await store.log_scrub("dnc", ANN, {})
    before = await store.log()
    with pytest.raises(DBAPIError, match="append-only"):
        async with engine.begin() as connection:
            await connection.execute(text(statement))
    assert await store.log() == before
    await store.log_scrub("dnc", ANN, {})
    assert len(await store.log()) == 2


# Exemptions


async def test_an_exemption_is_valid_until_it_expires_or_is_revoked(store: ListRows, hands: Hands) -> None:
    list_ = await _activate(store, _version())
    until = hands.us + HOUR_US
    one = await store.exempt("dnc", NUMBER, buyer="acme", reason="signed 3 May", expires_utc_us=until, actor=BO)
    assert (one.name, one.number, one.buyer, one.reason) == ("dnc", NUMBER, "acme", "signed 3 May")
    assert (one.expires_utc_us, one.added_utc_us, one.added_by, one.origin) == (until, hands.us, "bo", BO.origin)
    assert (one.revoked_utc_us, one.stamp) == (None, await store.stamp())
    two = await store.exempt("dnc", NUMBER, buyer=None, reason="asked us to", expires_utc_us=until + 1, actor=ANN)
    assert two.id != one.id
    assert await store.exemptions() == (one, two)
    assert (await store.since(list_.stamp)).exemptions == (one, two)
    hands.us = until
    assert await store.exemptions() == (two,)
    assert await store.revoke(two.id, BO)
    assert not await store.revoke(two.id, BO)
    assert not await store.revoke(999, BO)
    assert await store.exemptions() == ()
    _, revoked = await store.exemptions(active_only=False)
    assert (revoked.revoked_utc_us, revoked.revoked_by) == (until, "bo")
    assert two.stamp < revoked.stamp <= await store.stamp()
    assert (await store.since(two.stamp)).exemptions == (revoked,)
    assert (await store.since(0)).exemptions == (one,)


async def test_only_a_number_on_a_global_list_in_force_is_exempt_and_for_a_reason(
    store: ListRows, hands: Hands
) -> None:
    await _activate(store, _version("dnc"))
    await _activate(store, _version("own", buyer="acme"))
    await _activate(store, _version("old"))
    await store.retire("old", ANN)
    before = await _seen(store)
    later = hands.us + 1
    for name, reason, until, told in (
        ("own", "why", later, "not a global list in force"),
        ("old", "why", later, "not a global list in force"),
        ("none", "why", later, "not a global list in force"),
        ("dnc", "", later, "needs a reason"),
        ("dnc", " \n", later, "needs a reason"),
        ("dnc", "why", hands.us, "must expire in the future"),
    ):
        with pytest.raises(ValueError, match=told):
            await store.exempt(name, NUMBER, buyer=None, reason=reason, expires_utc_us=until, actor=ANN)
    assert await _seen(store) == before
    await store.exempt("dnc", NUMBER, buyer=None, reason="why", expires_utc_us=later, actor=ANN)


async def test_the_log_does_not_say_who_is_exempt(store: ListRows, hands: Hands) -> None:
    await _activate(store, _version())
    one = await store.exempt("dnc", NUMBER, buyer=None, reason=f"{NUMBER} rang", expires_utc_us=hands.us + 1, actor=ANN)
    await store.revoke(one.id, BO)
    revoked, exempt, _ = await store.log("dnc")
    assert (revoked.action, exempt.action) == ("revoke_exemption", "exempt")
    for row in (revoked, exempt):
        assert (row.detail["exemption"], row.detail["number"]) == (one.id, "*******0199")
        assert str(NUMBER) not in str(row)


# What a reader learns


async def test_a_reader_learns_all_that_is_in_force_and_then_what_is_new(store: ListRows, hands: Hands) -> None:
    await _activate(store, _version("dnc"))
    await store.change("dnc", b"old", 11, ANN, action="add", expect=(1, 0))
    await _activate(store, _version("own", buyer="acme", change=b"x"))
    await _activate(store, _version("dnc", file="b"), (1, 1))
    await store.change("dnc", b"+1", 11, ANN, action="add", expect=(2, 0))
    await store.change("dnc", b"+2", 12, ANN, action="add", expect=(2, 1))
    await _activate(store, _version("gone"))
    await store.retire("gone", ANN)
    all_ = await store.since(0)
    assert all_.stamp == await store.stamp()
    assert [(one.name, one.version) for one in all_.lists] == [("dnc", 2), ("own", 1)]
    assert [(one.name, one.version, one.document) for one in all_.changes] == [
        ("dnc", 2, b"+1"),
        ("dnc", 2, b"+2"),
        ("own", 1, b"x"),
    ]
    nothing = await store.since(all_.stamp)
    assert (nothing.stamp, nothing.lists, nothing.changes, nothing.exemptions) == (all_.stamp, (), (), ())
    await store.change("own", b"y", 12, ANN, action="add", expect=(1, 1))
    await store.change("dnc", b"+3", 13, ANN, action="add", expect=(2, 2))
    await _activate(store, _version("dnc", file="c"), (2, 3))
    news = await store.since(all_.stamp)
    assert [(one.name, one.version, one.active) for one in news.lists] == [
        ("dnc", 2, False),
        ("dnc", 3, True),
        ("own", 1, True),
    ]
    assert [(one.name, one.document) for one in news.changes] == [("own", b"y")], "of versions in force only"


async def test_without_a_clerk_the_answers_are_the_same(engine: AsyncEngine, store: ListRows) -> None:
    await _activate(store, _version(change=b"x"))
    plain = ListRows(engine)
    assert await plain.since(0) == await store.since(0)
    assert (await plain.stamp(), await plain.active()) == (await store.stamp(), await store.active())


async def test_two_versions_of_one_list_in_force_are_impossible(store: ListRows, engine: AsyncEngine) -> None:
    await _activate(store, _version())
    await _activate(store, _version(file="b"), (1, 0))
    with pytest.raises(DBAPIError):
        async with engine.begin() as connection:
            await connection.execute(suppression_lists.update().values(active=True))


async def test_of_two_with_the_same_expectation_exactly_one_wins(url: str, store: ListRows) -> None:
    await _activate(store, _version())
    engines = [await open_store(url) for _ in range(4)]
    stores = [ListRows(one) for one in engines]
    for version in range(1, 6):
        done = await asyncio.gather(
            *(_activate(one, _version(file=f"{version}"), (version, 0)) for one in stores), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in done) == ["ListVersion"] + 3 * ["StaleError"]
    for revision in range(5):
        done = await asyncio.gather(
            *(one.change("dnc", b"+", 1, ANN, action="add", expect=(6, revision)) for one in stores),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in done) == ["ListVersion"] + 3 * ["StaleError"]
    assert len(await store.log()) == 11
    for one in engines:
        await one.dispose()


class _Reader:
    """Polls as a router does, and keeps what it was told."""

    def __init__(self, store: ListRows) -> None:
        self._store = store
        self.stamp = 0
        self.lists: dict[tuple[str, int], ListVersion] = {}
        self.changes: dict[tuple[str, int], list[bytes]] = {}
        self.exempt: set[int] = set()
        self.looks = 0

    async def look(self) -> None:
        news = await self._store.since(self.stamp)
        rows = (*news.lists, *news.changes, *news.exemptions)
        assert all(self.stamp < one.stamp <= news.stamp for one in rows)
        self.looks += news.stamp > self.stamp
        self.stamp = news.stamp
        self.lists |= {(one.name, one.version): one for one in news.lists}
        for change in news.changes:
            self.changes.setdefault((change.name, change.version), []).append(change.document)
            assert len(self.changes[change.name, change.version]) == change.revision, "none missed, none twice"
        for one in self.in_force:
            assert len(self.changes.get((one.name, one.version), ())) == one.revision, "of one moment"
        self.exempt |= {one.id for one in news.exemptions if one.revoked_utc_us is None}
        self.exempt -= {one.id for one in news.exemptions if one.revoked_utc_us is not None}

    @property
    def in_force(self) -> list[ListVersion]:
        return sorted((one for one in self.lists.values() if one.active), key=lambda one: one.name)


async def _change_shared(store: ListRows, document: bytes) -> None:
    while (shared := await store.find("shared")) is not None:
        try:
            await store.change("shared", document, 3, ANN, action="add", expect=(shared.version, shared.revision))
        except StoreStaleError:
            continue
        return


async def _write_much(url: str, name: str, hands: Hands) -> int:
    """Changes of every kind, one list shared with the others; how many transactions took a stamp."""
    engine = await open_store(url)
    store = ListRows(engine, clock=hands)
    done = 0
    for turn in range(4):
        at = await store.find(name)
        await _activate(store, _version(name, file=f"{turn}"), None if at is None else (at.version, at.revision))
        row = await store.change(name, b"a", 1, ANN, action="add", expect=(turn + 1, 0))
        await store.change(name, b"b", 2, ANN, action="add", expect=(row.version, row.revision))
        one = await store.exempt(
            "shared", NUMBER + turn, buyer=None, reason="why", expires_utc_us=hands.us + 1, actor=ANN
        )
        await _change_shared(store, name.encode())
        done += 5
        if turn % 2:
            done += await store.revoke(one.id, ANN)
    await engine.dispose()
    return done


async def _stamps(url: str) -> int:
    engine = await open_store(url)
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT count(*) FROM suppression_stamps"))
        many = int(found.scalar_one())
    await engine.dispose()
    return many


async def test_a_reader_beside_four_writers_misses_nothing(url: str, store: ListRows, hands: Hands) -> None:
    await _activate(store, _version("shared"))
    before = await _stamps(url)
    reader = _Reader(store)
    writers = asyncio.gather(*(_write_much(url, f"list-{number}", hands) for number in range(4)))
    while not writers.done():
        await reader.look()
    await reader.look()
    assert reader.stamp == await store.stamp()
    assert await _stamps(url) == before + sum(await writers)
    assert reader.looks > 10, "it did look in between"
    whole = await store.since(0)
    assert tuple(reader.in_force) == whole.lists
    for one in whole.lists:
        documents = [change.document for change in await store.changes(one.name, one.version)]
        assert reader.changes[one.name, one.version] == documents
    assert sum(len(reader.changes[one.name, one.version]) for one in whole.lists) == 16 + 4 * 2
    assert reader.exempt == {one.id for one in whole.exemptions}
    assert len(reader.exempt) == 8


# Descriptions of lists, files, migration


async def test_sets_are_kept_once_and_few_at_a_time(store: ListRows, engine: AsyncEngine) -> None:
    commits: list[Connection] = []
    event.listen(engine.sync_engine, "commit", commits.append)
    documents = {f"{number:064x}": b"%d" % number for number in range(101)}
    stamp = await store.stamp()
    await store.keep_sets(documents)
    assert len(commits) == 3, "50 rows at a time"
    assert await store.sets(documents) == documents
    some = f"{1:064x}"
    await store.keep_sets({some: b"another", "f" * 64: b"new"})
    assert await store.sets([some, "f" * 64, "e" * 64]) == {some: b"1", "f" * 64: b"new"}
    assert len(commits) == 4
    assert await store.stamp() == stamp
    assert await store.log() == ()


async def test_sets_that_are_on_record_cost_no_write(store: ListRows, engine: AsyncEngine) -> None:
    await store.keep_sets({"f" * 64: b"known"})
    async with engine.begin() as other:
        await other.execute(text("UPDATE suppression_state SET stamp = stamp"))
        async with asyncio.timeout(5):
            await store.keep_sets({"f" * 64: b"known"})
            await store.keep_sets({})


async def test_routers_may_keep_the_same_sets_at_once(url: str, store: ListRows) -> None:
    engines = [await open_store(url) for _ in range(4)]
    documents = {f"{number:064x}": b"%d" % number for number in range(120)}
    for turn in range(3):
        some = dict(list(documents.items())[: 40 * (turn + 1)])
        turned = [dict(list(some.items())[:: 1 - 2 * (at % 2)]) for at in range(4)]
        await asyncio.gather(*(ListRows(one).keep_sets(it) for one, it in zip(engines, turned, strict=True)))
    assert await store.sets(documents) == documents
    for one in engines:
        await one.dispose()


async def test_the_files_of_old_versions_may_go_but_none_that_is_kept(store: ListRows) -> None:
    for version, file in enumerate(("a", "b", "c", "b")):  # the fourth restores the second
        await _activate(store, _version("dnc", file=file), (version, 0) if version else None)
    assert [one.version for one in await store.prunable(0)] == [1, 3], "the second's file is in force"
    await _activate(store, _version("dnc", file="d"), (4, 0))
    await _activate(store, _version("own", file="own-1", buyer="acme"))
    await store.retire("own", ANN)
    assert [(one.name, one.version, one.file) for one in await store.prunable(1)] == [
        ("dnc", 1, "suppression/a"),
        ("dnc", 2, "suppression/b"),
        ("dnc", 3, "suppression/c"),
        ("dnc", 4, "suppression/b"),
    ]
    assert [one.version for one in await store.prunable(2)] == [1, 3], "the second's file is the fourth's"
    assert [one.version for one in await store.prunable(3)] == [1]
    assert await store.prunable(5) == ()
    versions = [(one.name, one.version) for one in await store.prunable(0)]
    assert versions == [("dnc", 1), ("dnc", 2), ("dnc", 3), ("dnc", 4), ("own", 1)]
    assert await store.files() == {f"suppression/{one}" for one in ("a", "b", "c", "d", "own-1")}


_OLD = table(
    "suppression_lists",
    *(column(one) for one in ("name", "version", "buyer", "file", "checksum", "source_checksum")),
    *(column(one) for one in ("entries", "active", "imported_utc_us", "imported_by")),
)
_OLD_ROWS = [
    ("dnc", 1, None, "suppression/a", "a" * 64, "1" * 64, 10, False, 5, "ann"),
    ("dnc", 2, None, "suppression/b", "b" * 64, "2" * 64, 20, True, 6, "bo"),
    ("own", 1, "acme", "suppression/c", "c" * 64, "3" * 64, 0, True, 7, "cy"),
]


def _migrate(connection: Connection, move: Any, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(meter.store.engine.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    move(config, revision)


async def test_lists_of_an_older_store_are_still_in_force(url: str, hands: Hands) -> None:
    old = create_async_engine(_parse(url))
    prepare(old.sync_engine)
    async with old.begin() as connection:
        await connection.run_sync(_migrate, command.upgrade, "0003")
        names = [one.name for one in _OLD.columns]
        await connection.execute(insert(_OLD), [dict(zip(names, row, strict=True)) for row in _OLD_ROWS])
    await old.dispose()
    engine = await open_store(url)
    store = ListRows(engine, clock=hands)
    kept = (*await store.history("dnc"), *await store.history("own"))
    assert [tuple(getattr(one, name) for name in names) for one in kept] == _OLD_ROWS
    for one in kept:
        assert (one.kind, one.revision, one.state, one.count) == ("number", 0, one.checksum, one.entries)
        assert (one.source, one.expires_utc_us, one.stamp) == ("", None, 1)
    assert (await store.since(0)).lists == kept[1:]
    row = await _activate(store, _version(file="d"), (2, 0))
    assert row.version == 3
    assert row.stamp > 1
    assert [(one.before, one.after) for one in await store.log()] == [(20, 10)]
    await engine.dispose()


async def test_going_back_to_the_older_store_keeps_the_lists(engine: AsyncEngine, store: ListRows) -> None:
    await _activate(store, _version(change=b"x", count=11))
    async with engine.begin() as connection:
        await connection.run_sync(_migrate, command.downgrade, "0003")
        (row,) = (await connection.execute(select(_OLD))).all()
        await connection.run_sync(_migrate, command.upgrade, "0004")
    assert tuple(row[:2]) == ("dnc", 1)
    (found,) = await store.active()
    assert (found.version, found.revision, found.state, found.count) == (1, 0, found.checksum, 10)


async def test_a_stamp_that_was_never_given_out_gets_everything_anew(store: ListRows) -> None:
    await _activate(store, _version("one"))
    seen = await store.stamp()
    await _activate(store, _version("two"))
    assert [one.name for one in (await store.since(seen)).lists] == ["two"]
    for strange in (seen - 1, seen + 2**40):
        news = await store.since(strange)
        assert (news.anew, [one.name for one in news.lists]) == (True, ["one", "two"])
    assert not (await store.since(seen)).anew


async def test_a_version_can_keep_the_expiry_that_its_list_has(store: ListRows, hands: Hands) -> None:
    await _activate(store, _version(expires_utc_us=hands.us + 5))
    kept = await _activate(store, _version(file="b", keep_expiry=True, based_on=1, expires_utc_us=None), (1, 0))
    assert (kept.expires_utc_us, kept.based_on) == (hands.us + 5, 1)
    assert (await store.history("dnc"))[1] == kept
    own = await _activate(store, _version(file="c", expires_utc_us=None), (2, 0))
    assert (own.expires_utc_us, own.based_on) == (None, None)
