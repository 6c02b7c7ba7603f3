"""Leads in the store: kept once by key, gone once expired, fetched in time or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.journal.sql.leads import PURGE_ROWS, LeadConflictError, LeadFetcher, LeadStore
from meter.store.clerk import Clerk
from meter.store.schema import leads

ANN, BO = b'{"phone":"+12125550123"}', b'{"phone":"+12125550199"}'


class Hands:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.us = 1_000_000_000

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
def store(clerk: Clerk, hands: Hands) -> LeadStore:
    return LeadStore(clerk, hands)


async def test_a_lead_is_there_until_it_expires(store: LeadStore, hands: Hands) -> None:
    lead, new = await store.put(ANN, "west", ttl_s=60)
    assert (new, lead.expires_utc_us - lead.created_utc_us) == (True, 60_000_000)
    assert await store.get(lead.lead_id, "west") == ANN
    assert await store.get("another", "west") is None
    hands.us += 59_999_999
    assert await store.get(lead.lead_id, "west") == ANN
    hands.us += 1
    assert await store.get(lead.lead_id, "west") is None


async def test_the_same_key_keeps_a_lead_once_and_another_lead_under_it_is_refused(store: LeadStore) -> None:
    first, _ = await store.put(ANN, "west", ttl_s=60, key="k")
    again, new = await store.put(ANN, "west", ttl_s=60, key="k")
    assert (again, new) == (first, False)
    with pytest.raises(LeadConflictError):
        await store.put(BO, "west", ttl_s=60, key="k")
    other, new = await store.put(BO, "east", ttl_s=60, key="k")
    assert (new, other.lead_id != first.lead_id) == (True, True)
    assert await store.get(first.lead_id, "west") == ANN


async def test_without_a_key_each_lead_is_another(store: LeadStore) -> None:
    ids = {(await store.put(ANN, "west", ttl_s=60))[0].lead_id for _ in range(3)}
    assert len(ids) == 3


async def test_a_key_is_free_again_once_its_lead_has_expired(store: LeadStore, hands: Hands) -> None:
    first, _ = await store.put(ANN, "west", ttl_s=60, key="k")
    hands.us += 60_000_000
    second, new = await store.put(BO, "west", ttl_s=60, key="k")
    assert (new, await store.get(second.lead_id, "west"), await store.get(first.lead_id, "west")) == (True, BO, None)


async def test_twice_at_once_is_once(engine: AsyncEngine, hands: Hands) -> None:
    clerks = [Clerk(engine) for _ in range(4)]
    done = await asyncio.gather(*(LeadStore(one, hands).put(ANN, "west", ttl_s=60, key="k") for one in clerks))
    assert sum(new for _, new in done) == 1
    assert len({lead.lead_id for lead, _ in done}) == 1
    for one in clerks:
        await one.close()


async def test_purge_deletes_what_has_expired_and_nothing_else(store: LeadStore, clerk: Clerk, hands: Hands) -> None:
    for _ in range(2 * PURGE_ROWS + 5):
        await store.put(ANN, "west", ttl_s=10)
    kept, _ = await store.put(BO, "west", ttl_s=100)
    assert await store.purge() == 0
    hands.us += 10_000_000
    assert await store.purge() == 2 * PURGE_ROWS + 5

    def count(connection: Connection) -> int:
        return connection.execute(select(func.count()).select_from(leads)).scalar_one()

    assert await clerk.read(count) == 1
    assert await store.get(kept.lead_id, "west") == BO


async def _fetched(fetcher: LeadFetcher, lead_id: str, dialer: str = "west") -> bytes | None:
    answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
    fetcher.fetch(lead_id, dialer, answer.set_result)
    assert not answer.done(), "never before fetch returns"
    return await asyncio.wait_for(answer, 5)


async def test_the_router_fetches_a_lead_or_none(engine: AsyncEngine, store: LeadStore, hands: Hands) -> None:
    fetcher = LeadFetcher(Clerk(engine), hands)
    lead, _ = await store.put(ANN, "west", ttl_s=60)
    assert await _fetched(fetcher, lead.lead_id) == ANN
    assert await _fetched(fetcher, "nobody") is None
    assert await _fetched(fetcher, lead.lead_id, "east") is None, "another dialer's"
    hands.us += 60_000_000
    assert await _fetched(fetcher, lead.lead_id) is None
    await fetcher.close()


async def test_a_store_that_is_slow_or_broken_answers_empty_in_time(engine: AsyncEngine, store: LeadStore) -> None:
    lead, _ = await store.put(ANN, "west", ttl_s=60)
    clerk = Clerk(engine)
    fetcher = LeadFetcher(clerk, within_s=0.1)
    slow = asyncio.create_task(clerk.read(lambda _connection: time.sleep(1.5)))
    await asyncio.sleep(0.02)
    assert await _fetched(fetcher, lead.lead_id) == b"", "there may be one: not the same as none"
    assert not slow.done(), "the answer did not wait for the store"
    await slow
    await clerk.close()
    assert await _fetched(fetcher, lead.lead_id) == b""
    await fetcher.close()
