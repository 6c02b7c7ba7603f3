"""Every room says what it owns, what it does not own, and by which call one enters it; and that call is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.arch.test_names_in_text import is_module

ROOT = Path(__file__).parents[2]
PACKAGES = ("baton", "book", "config", "facts", "meter", "portal", "router", "suppression", "telemetry")
PARTS = {"sql", "templates", "presets", "migrations", "versions"}  # of a room, no rooms themselves
ROOMS = sorted(
    file.parent
    for package in PACKAGES
    for file in (ROOT / package).rglob("__init__.py")
    if file.parent.name not in PARTS
)
NAMED = re.compile(r"`([a-z]\w*(?:\.\w+)*)`")
ENTRY = re.compile(r"\*\*Enter by\*\* `([\w.]+)`: \S")


def _name(room: Path) -> str:
    return str(room.relative_to(ROOT))


@pytest.mark.parametrize("room", ROOMS, ids=_name)
def test_a_room_says_what_it_is(room: Path) -> None:
    text = (room / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {_name(room)}\n")
    assert "**Owns** " in text
    assert "**Does not own** " in text
    entry = ENTRY.search(text)
    assert entry is not None
    module, _, name = entry[1].rpartition(".")
    assert module == _name(room).replace("/", ".") or module.startswith(_name(room).replace("/", ".") + ".")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("room", ROOMS, ids=_name)
def test_what_one_calls_having_entered_is_there(room: Path) -> None:
    """Names beside the entry: of a setting or a command, of a module, or a call of the entry or of the room."""
    told = (room / "README.md").read_text(encoding="utf-8").partition("**Enter by** ")[2]
    entry = told.split("`")[1]
    module, _, name = entry.rpartition(".")
    source = "\n".join(file.read_text(encoding="utf-8") for file in room.rglob("*.py"))
    known = {*dir(getattr(importlib.import_module(module), name)), *re.findall(r"\b(?:def|class) (\w+)", source)}
    lost = [
        call
        for call in set(NAMED.findall(told)) - known
        if not (is_module(call) or is_module(f"{module.rpartition('.')[0]}.{call}"))
        if not any((place / call).exists() for place in (room, room.parent))
    ]
    assert not lost


@pytest.mark.parametrize("room", ROOMS, ids=_name)
def test_a_room_names_only_files_and_rooms_that_are_there(room: Path) -> None:
    text = (room / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w-]+/)*[\w-]+\.py|(?:[\w-]+/)+)`", text)
    assert not [name for name in named if not ((room / name).exists() or (ROOT / name).exists())]


@pytest.mark.parametrize("kind", ["unit", "store"])
def test_tests_stand_in_folders_named_as_the_packages(kind: str) -> None:
    tests = ROOT / "tests" / kind
    folders = {file.parent.relative_to(tests) for file in tests.rglob("test_*.py")} - {Path()}
    besides = {Path("bench")}
    assert folders
    assert not [str(folder) for folder in folders - besides if not (ROOT / folder).is_dir()]
