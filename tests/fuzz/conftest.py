"""The station of tests/net."""

from __future__ import annotations

from tests.net.conftest import station

__all__ = ["station"]
