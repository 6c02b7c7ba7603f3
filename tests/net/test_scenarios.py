"""Every story of `sipp-scenarios/`, over real SIP: one Baton, all at once, as `baton scenarios run` does it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from baton.scenarios import FOLDER, stories_in

pytestmark = [pytest.mark.net, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


async def run(*arguments: str) -> tuple[int | None, bytes, bytes]:
    command = [sys.executable, "-m", "baton", "scenarios", "run", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = await process.communicate()
    return process.returncode, output, errors


async def test_every_story_comes_out_as_its_folder_says(tmp_path: Path) -> None:
    code, output, errors = await run("--json", "--keep", str(tmp_path / "run"))
    assert output, errors.decode()
    result = orjson.loads(output)
    problems = {story["name"]: story["problems"] for story in result["stories"] if not story["ok"]}
    assert problems == {}
    assert result["problems"] == []
    assert code == 0
    playable = [story.name for story in stories_in(ROOT / FOLDER) if not story.entry.pending]
    assert [story["name"] for story in result["stories"]] == playable


async def test_a_story_that_does_not_come_true_fails_the_run(tmp_path: Path) -> None:
    """The same parties, another verdict: the command must say so and end with 1."""
    folder = tmp_path / "stories"
    (folder / "wrong").mkdir(parents=True)
    (folder / "common").symlink_to(ROOT / FOLDER / "common")
    text = (ROOT / FOLDER / "bye-from-caller" / "story.toml").read_text()
    (folder / "wrong" / "story.toml").write_text(text.replace('"short_call"', '"caller_abandoned"'))
    code, output, errors = await run("--folder", str(folder), "--json", "--keep", str(tmp_path / "run"))
    assert output, errors.decode()
    (story,) = orjson.loads(output)["stories"]
    assert code == 1
    assert any("verdict: short_call, expected caller_abandoned" in problem for problem in story["problems"])


async def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    code, _, errors = await run("--folder", str(tmp_path / "nowhere"))
    assert code == 1
    assert "--folder says where the stories are" in errors.decode()
