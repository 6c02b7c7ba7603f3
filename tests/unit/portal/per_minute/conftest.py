"""A fresh app for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from meter.store.engine import open_store
from tests.store.money_tools import Books
from tests.store.service_tools import serve
from tests.unit.portal.per_minute.api import Api


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    structlog.reset_defaults()  # another test may have left logs that go to a stream which is closed
    engine = await open_store(f"sqlite:///{tmp_path / 'baton.db'}")
    made = Books(engine)
    await serve(made, "acme", "bolt", ask_rating=True)
    yield made
    await made.close()
    await engine.dispose()


@pytest.fixture
async def api(books: Books) -> AsyncIterator[Api]:
    one = Api(books)
    yield one
    await one.client.aclose()
