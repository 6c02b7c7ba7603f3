"""A fresh app for each test."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from baton.suppression_lists import list_store
from meter.store.engine import open_store
from tests.unit.portal.lists.api import (
    Api,
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with nothing in it, to be copied."""
    file = tmp_path_factory.mktemp("store") / "baton.db"

    async def make() -> None:
        await (await open_store(f"sqlite:///{file}")).dispose()

    asyncio.run(make())
    return file


@pytest.fixture
async def api(tmp_path: Path, empty: Path) -> AsyncIterator[Api]:
    structlog.reset_defaults()  # another test may have left logs that go to a stream which is closed
    shutil.copy(empty, tmp_path / "baton.db")
    engine = await open_store(f"sqlite:///{tmp_path / 'baton.db'}")
    one = Api(list_store(engine), tmp_path)
    yield one
    await one.lists.close()
    assert not one.left_behind()
    await one.client.aclose()
    await engine.dispose()
