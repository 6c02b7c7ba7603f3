"""For all tests: random tests print what replays them, and none fails because a busy machine was slow."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("baton", deadline=None, print_blob=True)
settings.load_profile("baton")

TESTS = Path(__file__).parent
# There the product runs in processes of its own, which are not measured, or is only played over and over.
NOT_MEASURED = {"fuzz", "install", "net", "portal", "proof", "props", "sim"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Coverage is paused where it costs time and finds nothing (docs/decisions/091-what-coverage-measures.md)."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in NOT_MEASURED and not item.path.name.startswith("test_engine"):
            item.add_marker(pytest.mark.no_cover)
