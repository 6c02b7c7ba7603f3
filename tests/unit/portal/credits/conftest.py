"""A fresh app for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from meter.store.engine import open_store
from tests.store.money_tools import Books
from tests.unit.portal.credits.api import (
    LINKS,
    Api,
    _fill,
)


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    structlog.reset_defaults()  # another test may have left logs that go to a stream which is closed
    engine = await open_store(f"sqlite:///{tmp_path / 'baton.db'}")
    made = Books(engine)
    await _fill(made)
    yield made
    await made.close()
    await engine.dispose()


@pytest.fixture
async def api(books: Books) -> AsyncIterator[Api]:
    one = Api(books, LINKS)
    yield one
    await one.client.aclose()
