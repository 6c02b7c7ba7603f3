"""A fresh app for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from baton.suppression_lists import list_store
from meter.credits.rules import load_reasons
from meter.journal.sql.leads import LeadStore
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from portal.credits.service import CreditsService
from portal.lists.service import ListsService
from suppression.receipt import Signer
from tests.unit.portal.api import Api, no_buyers


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    structlog.reset_defaults()  # another test may have left logs that go to a stream which is closed
    engine = await open_store(f"sqlite:///{tmp_path / 'baton.db'}")
    clerk = Clerk(engine)
    lists = ListsService(
        list_store(engine), tmp_path, Signer(b"k" * 32), no_buyers, keep_versions=2, max_import_bytes=1_000_000
    )
    one = Api(LeadStore(clerk), lists, CreditsService(clerk, load_reasons()))
    yield one
    await one.client.aclose()
    await clerk.close()
    await engine.dispose()
