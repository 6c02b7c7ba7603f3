"""A real store in a file of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.store.engine import open_store
from meter.store.schema import buyers


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'baton.db'}"


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = await open_store(url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def buyers_in(engine: AsyncEngine) -> None:
    """One buyer of every state, named after it."""
    states = ("active", "paused", "on_hold", "cancelled")
    rows = [{"name": state, "state": state, "document": b"{}", "terms_name": "westlake"} for state in states]
    async with engine.begin() as connection:
        await connection.execute(insert(buyers), rows)
