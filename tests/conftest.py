"""For all tests: random tests print what replays them, and none fails because a busy machine was slow."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("baton", deadline=None, print_blob=True)
settings.load_profile("baton")
