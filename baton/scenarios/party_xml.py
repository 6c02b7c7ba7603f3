"""A party's SIPp scenario, made from its file: `{{> part}}` is another file's text, `{{name}}` a value of the story.

`{{name:default}}` may go without a value; a line that holds nothing but a value that is empty is dropped. What comes
out is plain SIPp XML in the run's folder, where it can be looked at and played by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_PART = re.compile(r"[ \t]*\{\{> ([a-z0-9-]+)\}\}\n?")
_VALUE = re.compile(r"\{\{([a-z][a-z0-9_]*)(?::([^}]*))?\}\}")
_LONE = re.compile(r"^[ \t]*\{\{([a-z][a-z0-9_]*)(?::([^}]*))?\}\}[ \t]*\n", re.MULTILINE)
_DEPTH = 4  # parts within parts; more is a circle


class PartyError(ValueError):
    """A party's file cannot be made into a scenario; the message names the file."""


def render(file: Path, keys: Mapping[str, str | int], common: Mapping[str, str | int], stories: Path) -> str:
    """The scenario. `keys` are the story's, `common` the runner's; parts are below the stories' folder.

    Raises PartyError.
    """
    text = _with_parts(file, file.read_text(encoding="utf-8"), stories / "common" / "parts")
    used = {match.group(1) for match in _VALUE.finditer(text)}
    strangers = set(keys) - used
    if strangers:
        raise PartyError(f"{file}: uses no {', '.join(sorted(strangers))}, which the story gives a value")
    values = {**common, **keys}

    def value_of(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name in values:
            return str(values[name])
        if default is None:
            raise PartyError(f"{file}: needs a value for {name}")
        return str(default)

    text = _LONE.sub(lambda match: "" if not value_of(match) else match.group(), text)
    return _VALUE.sub(value_of, text)


def _with_parts(file: Path, text: str, folder: Path) -> str:
    for _ in range(_DEPTH):
        if not _PART.search(text):
            return text
        text = _PART.sub(lambda match: _part(file, folder / f"{match.group(1)}.xml"), text)
    raise PartyError(f"{file}: its parts hold each other")


def _part(file: Path, part: Path) -> str:
    if not part.is_file():
        raise PartyError(f"{file}: there is no part {part.name} in {part.parent}")
    return part.read_text(encoding="utf-8").rstrip("\n") + "\n"
