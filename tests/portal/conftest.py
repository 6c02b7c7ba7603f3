"""The portal that most of these tests ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from tests.portal.house import House, open_house


@pytest.fixture(autouse=True)
def _plain_logs() -> None:
    structlog.reset_defaults()  # another test may have left logs that go to a stream which is closed


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as one:
        yield one
