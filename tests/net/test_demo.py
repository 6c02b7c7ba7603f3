"""The demo is a promise: every story as expected, the journal verified, in the JSON that programs read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from baton.demo.stories import STORIES

pytestmark = [pytest.mark.net, pytest.mark.slow]


async def test_every_story_comes_out_as_expected(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "baton", "demo", "--json", "--keep", str(tmp_path / "demo")]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = await process.communicate()
    assert output, errors.decode()
    result = orjson.loads(output)
    problems = {story["name"]: story["problems"] for story in result["stories"] if not story["ok"]}
    assert problems == {}
    assert process.returncode == 0
    assert [story["name"] for story in result["stories"]] == [story.name for story in STORIES]
    assert result["journal"]["ok"]
    wanted = {"name", "verdict", "reason", "attempt_ms", "talk_ms", "expected", "ok"}
    assert all(wanted <= set(story) for story in result["stories"])
    failed = [story for story in result["stories"] if story["counts_as"] == "failed"]
    assert len(result["mails"]) == len(failed)


async def test_a_story_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "baton", "demo", "--only", "nonsense"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert "no such story: nonsense" in errors.decode()
