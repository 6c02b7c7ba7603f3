"""The book in the store: import, conflicts, states, terms that come into force, and the snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import Buyer, BuyerState, Campaign, Endpoint, EndpointKind, Srtp, Terms, Transport
from book.sections import BookFile
from meter.book.plan import ImportRefusedError
from meter.book.sql.book import BookSnapshot, BookStore, UnknownBuyerError
from meter.store.engine import StoreError, open_store
from meter.store.schema import buyers

TERMS = Terms(name="acme-2026", unit_price_minor=4500)
ACME = Buyer(
    name="acme",
    title="Acme Homes",
    terms=TERMS,
    endpoints=(
        Endpoint(
            "b", EndpointKind.TRUNK, "sip:a@b.example", transport=Transport.TLS, srtp=Srtp.MANDATORY, password="pw"
        ),
        Endpoint("a", EndpointKind.DID, "+12125550100", carrier="main"),
    ),
    lead_emails=("leads@acme.example",),
)
BOOK = BookFile(terms=(TERMS,), buyers=(ACME,), campaigns=(Campaign("solar", ("acme",)),))
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    opened = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'baton.db'}")
    yield opened
    await opened.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(engine: AsyncEngine, clock: Clock) -> BookStore:
    return BookStore(engine, clock)


async def test_what_goes_in_comes_out(store: BookStore) -> None:
    assert (await store.load()).buyers == {}
    report = await store.import_book(BOOK)
    book = await store.load()
    assert report.added == ("terms acme-2026 version 1", "buyer acme", "campaign solar")
    assert book.version == report.version > 0
    assert book.buyers == {"acme": ACME}
    assert book.campaigns == {"solar": BOOK.campaigns[0]}


async def test_the_same_import_twice_changes_nothing(store: BookStore) -> None:
    first = await store.import_book(BOOK)
    second = await store.import_book(BOOK)
    assert (second.added, second.replaced, second.unchanged) == ((), (), 3)
    assert second.version == first.version


async def test_all_conflicts_are_listed_and_nothing_is_written(store: BookStore) -> None:
    await store.import_book(BOOK)
    before = await store.load()
    endpoints = (replace(ACME.endpoints[0], password="other"), ACME.endpoints[1])
    changed = BookFile(
        terms=(replace(TERMS, unit_price_minor=1),),
        buyers=(replace(ACME, title="Acme", endpoints=endpoints), replace(ACME, name="bolt")),
        campaigns=(Campaign("solar", ("bolt",)),),
    )
    with pytest.raises(ImportRefusedError) as caught:
        await store.import_book(changed)
    assert caught.value.conflicts == (
        "terms acme-2026 version 1: the store has other content in unit_price_minor",
        "buyer acme: the store has other content in title, endpoint b (password)",
        "campaign solar: the store has other content in buyers",
    )
    assert "other content in title" in str(caught.value)
    assert await store.load() == before
    report = await store.import_book(changed, replace=True)
    assert report.added == ("buyer bolt",)
    after = await store.load()
    assert after.version > before.version
    assert after.buyers["acme"].endpoints[0].password == "other"
    assert after.buyers["acme"].terms.unit_price_minor == 1


@pytest.mark.parametrize("field", ["currency", "time_zone"])
async def test_versions_of_a_profile_share_currency_and_zone(store: BookStore, field: str) -> None:
    """A version comes into force on a day to come, when invoices may be open: yen settled dollars."""
    await store.import_book(BOOK)
    other = {"currency": "JPY", "time_zone": "Asia/Tokyo"}
    later = replace(TERMS, version=2, effective_from="2027-01-01", **{field: other[field]})
    with pytest.raises(
        ImportRefusedError, match=f"terms acme-2026 version 2: {field} is {other[field]}, other versions"
    ):
        await store.import_book(BookFile(terms=(later,)), replace=True)


async def test_a_buyer_changes_its_currency_once_nothing_is_open(store: BookStore, engine: AsyncEngine) -> None:
    from book.model import Order
    from meter.book.sql.orders import OrderStore

    await store.import_book(BOOK)
    await OrderStore(engine).set(Order("acme", "2027-01-04", 10), "jo")
    yen = replace(TERMS, name="yen", currency="JPY")
    moved = BookFile(terms=(yen,), buyers=(replace(ACME, terms=yen),))
    with pytest.raises(ImportRefusedError, match="currency cannot go from USD to JPY while there are the order"):
        await store.import_book(moved, replace=True)
    await OrderStore(engine).set(Order("acme", "2027-01-04", 0), "jo")
    assert (await store.import_book(moved, replace=True)).replaced == ("buyer acme",)


async def test_a_new_default_of_what_orders_count_changes_no_contract(tmp_path: Path, store: BookStore) -> None:
    """The presets count what was sent since; who had them before imports the same file again, and keeps its way."""
    from book.sections import load_book
    from book.terms import presets

    own = '[[terms]]\nname = "own"\nbase = "westlake-fulfillment"\n[[buyers]]\nname = "a"\nterms = "own"\n'
    file = tmp_path / "baton.toml"
    file.write_text(own + '[[buyers]]\nname = "b"\nterms = "westlake-origination"\n', encoding="utf-8")
    before = {name: replace(one, order_counts="billed") for name, one in presets().items()}
    await store.import_book(load_book(file, {}, before))
    again = await store.import_book(load_book(file, {}, presets()))
    assert (again.added, again.replaced) == ((), ())
    assert {one.terms.order_counts for one in (await store.load()).buyers.values()} == {"billed"}
    file.write_text(file.read_text(encoding="utf-8").replace('base = "', 'order_counts = "sent"\nbase = "'), "utf-8")
    with pytest.raises(ImportRefusedError, match="terms own version 1: the store has other content in order_counts"):
        await store.import_book(load_book(file, {}, presets()))


@pytest.mark.parametrize("said", ["", 'order_counts = "sent"\n', 'order_counts = "billed"\n'])
async def test_a_new_version_of_a_contract_that_counts_billed_units_says_how_it_counts(
    store: BookStore, tmp_path: Path, said: str
) -> None:
    """Such as a new price: the default has changed since the contract was made, and is not what was agreed."""
    from book.sections import load_book
    from book.terms import presets

    buyer = '[[buyers]]\nname = "a"\nterms = "own"\n'
    first = '[[terms]]\nname = "own"\nbase = "westlake-fulfillment"\n'
    second = f'{first}version = 2\nunit_price_minor = 5000\neffective_from = "2027-01-04"\n{said}'
    file = tmp_path / "baton.toml"
    file.write_text(first + buyer, encoding="utf-8")
    before = {name: replace(one, order_counts="billed") for name, one in presets().items()}
    await store.import_book(load_book(file, {}, before))
    file.write_text(first + second + buyer, encoding="utf-8")
    if said:
        await store.import_book(load_book(file, {}, presets()))
        counts = {one.version: one.order_counts for one in (await store.profiles())[0] if one.name == "own"}
        assert counts == {1: "billed", 2: said.split('"')[1]}
        return
    with pytest.raises(ImportRefusedError, match="own version 2: order_counts: is not said; version 1 counts 'billed'"):
        await store.import_book(load_book(file, {}, presets()), replace=True)


async def test_a_dry_run_tells_and_writes_nothing(store: BookStore) -> None:
    report = await store.import_book(BOOK, dry_run=True)
    assert "buyer acme" in report.added
    assert (await store.load()).buyers == {}


async def test_an_import_never_touches_a_buyers_state(store: BookStore) -> None:
    await store.import_book(BOOK)
    assert (await store.set_buyer_state("acme", BuyerState.ON_HOLD, "jo")).before is BuyerState.ACTIVE
    await store.import_book(BookFile(buyers=(replace(ACME, title="New", state=BuyerState.ACTIVE),)), replace=True)
    acme = (await store.load()).buyers["acme"]
    assert (acme.title, acme.state) == ("New", BuyerState.ON_HOLD)


async def test_a_state_raises_the_version_once(store: BookStore) -> None:
    await store.import_book(BOOK)
    version = await store.version()
    await store.set_buyer_state("acme", BuyerState.PAUSED, "op")
    await store.set_buyer_state("acme", BuyerState.PAUSED, "op")
    assert await store.version() == version + 1


async def test_an_unknown_buyer_and_an_unknown_campaign_target(store: BookStore) -> None:
    with pytest.raises(UnknownBuyerError, match="no buyer is called 'zeus'"):
        await store.set_buyer_state("zeus", BuyerState.PAUSED, "op")
    with pytest.raises(ImportRefusedError, match="campaign x: buyer 'zeus' is not known"):
        await store.import_book(BookFile(campaigns=(Campaign("x", ("zeus",)),)), replace=True)


async def test_new_terms_come_into_force_at_midnight_of_their_zone(store: BookStore, clock: Clock) -> None:
    later = replace(TERMS, version=2, effective_from="2026-06-02", connected_percent=90)
    await store.import_book(replace(BOOK, terms=(TERMS, later)))
    snapshot = BookSnapshot(store, clock)
    assert await snapshot.refresh()
    clock.now = datetime(2026, 6, 2, 3, 59, 59, tzinfo=UTC)  # 23:59:59 in New York
    assert not await snapshot.refresh()
    assert snapshot.book.buyers["acme"].terms == TERMS
    clock.now += timedelta(seconds=1)
    assert await snapshot.refresh()
    assert snapshot.book.buyers["acme"].terms == later
    assert not await snapshot.refresh()


async def test_terms_that_are_not_in_force_yet_refuse_the_buyer(store: BookStore) -> None:
    future = replace(TERMS, effective_from="2026-07-01")
    book = replace(BOOK, terms=(future,), buyers=(replace(ACME, terms=future),))
    with pytest.raises(ImportRefusedError, match="'acme-2026' is in force before 2026-07-01"):
        await store.import_book(book, replace=True)


async def test_the_snapshot_is_empty_then_follows_each_change(store: BookStore, clock: Clock) -> None:
    snapshot = BookSnapshot(store, clock)
    assert snapshot.book.buyers == {}
    await store.import_book(BOOK)
    assert await snapshot.refresh()
    seen = snapshot.book
    assert not await snapshot.refresh()
    assert snapshot.book is seen
    await store.set_buyer_state("acme", BuyerState.PAUSED, "op")
    assert await snapshot.refresh()
    assert snapshot.book.buyers["acme"].state is BuyerState.PAUSED
    assert seen.buyers["acme"].state is BuyerState.ACTIVE


async def test_a_damaged_document_is_refused_by_name(store: BookStore, engine: AsyncEngine) -> None:
    await store.import_book(BOOK)
    async with engine.begin() as connection:
        await connection.execute(update(buyers).values(document=b"{"))
    with pytest.raises(StoreError, match="buyer 'acme': its document in the store cannot be read"):
        await store.load()
