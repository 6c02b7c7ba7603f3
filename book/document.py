"""A configuration file as read: TOML laid under the environment, with the place of each value remembered.

`BATON_ROUTER__MAX_CALLS=200` sets `router.max_calls`; `BATON_LISTENERS__0__PORT` and, by the entry's name,
`BATON_CARRIERS__MAIN__PASSWORD` reach into arrays. The environment wins over the file. Variables without a double
underscore (`BATON_CACHE`) are not settings and are left alone.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from pydantic_core import ErrorDetails

from book.problems import ConfigError, Problem
from book.toml_lines import find_lines, line_of

PREFIX = "BATON_"
NEST = "__"
NO_ENTRY = "has no entry"
_TOO_SHORT = re.compile(r"(Tuple|List|Value) should have at least (\d+) items? after validation, not \d+")
BOOK_SECTIONS = ("terms", "buyers", "campaigns", "suppression_lists")
SETTING_ARRAYS = ("listeners", "dialers", "carriers")
_INNER_ARRAYS = ("portal.tokens", "mqtt.commanders")


@dataclass(frozen=True, slots=True)
class Document:
    """The raw tables and where each value came from."""

    file: Path
    raw: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)  # path -> environment variable
    problems: tuple[Problem, ...] = ()  # of the environment itself

    @property
    def base(self) -> Path:
        """Relative paths in the file start at the file's own folder."""
        return self.file.resolve().parent

    def problem(self, path: str, message: str) -> Problem:
        variable = self.variables.get(path, "")
        if not variable and path and line_of(self.lines, path) is None:
            below = (name for where, name in self.variables.items() if where.startswith(f"{path}."))
            variable = next(below, "")
        return Problem(path, message, None if variable else line_of(self.lines, path), variable)

    def from_errors(self, errors: list[ErrorDetails], prefix: str = "") -> list[Problem]:
        """Pydantic's errors with Baton's paths. Inputs are not repeated: they may be secrets."""
        inner = {one["loc"][:size] for one in errors for size in range(len(one["loc"]))}
        # Entries that are wrong are not counted as there: what is wrong with them says enough.
        said = [one for one in errors if not (one["type"] == "too_short" and one["loc"] in inner)]
        return [self.problem(path_of(one["loc"], prefix), message_of(one)) for one in said]

    def entries(self, section: str) -> list[tuple[str, dict[str, Any]]]:
        """(path, table) of each entry of an array of tables; what is not a table is left to validation."""
        array = self.raw.get(section, [])
        if not isinstance(array, list):
            return []
        return [(f"{section}[{at}]", one) for at, one in enumerate(array) if isinstance(one, dict)]


def read(path: Path, environ: Mapping[str, str]) -> Document:
    """Read the file and lay the environment over it. Raises ConfigError: unreadable, not UTF-8, or not TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(path, [Problem("", f"cannot be read: {error.strerror or error}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, [Problem("", f"is not UTF-8 text (byte {error.start})")]) from error
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [Problem("", f"is not valid TOML: {error}", _line_in(str(error)))]) from error
    variables: dict[str, str] = {}
    problems: list[Problem] = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and NEST in name:
            _overlay(raw, name, environ[name], variables, problems)
    return Document(path, raw, find_lines(text), variables, tuple(problems))


def path_of(loc: tuple[int | str, ...], prefix: str = "") -> str:
    """`("listeners", 1, "port")` as `listeners[1].port`."""
    path = prefix
    for part in loc:
        path = f"{path}[{part}]" if isinstance(part, int) else f"{path}.{part}" if path else part
    return path


def message_of(error: ErrorDetails) -> str:
    known = {"missing": "is required", "extra_forbidden": "is not a setting; check the spelling"}
    message = known.get(error["type"], error["msg"])
    if found := _TOO_SHORT.fullmatch(message):
        what = "characters" if found[1] == "Value" else "entry" if found[2] == "1" else "entries"  # a value: a secret
        return f"should have at least {found[2]} {what}"
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _line_in(message: str) -> int | None:
    words = message.replace(",", " ").split()
    return next((int(after) for word, after in itertools.pairwise(words) if word == "line"), None)


def _overlay(raw: dict[str, Any], name: str, value: str, variables: dict[str, str], problems: list[Problem]) -> None:
    """Set one value; a variable that names no entry of an array is a problem, never ignored."""
    segments = name.removeprefix(PREFIX).lower().split(NEST)
    if not all(segments):
        problems.append(Problem(name, "is not the name of a setting", variable=name))
        return
    node: Any = raw
    path = ""
    for at, segment in enumerate(segments):
        last = at == len(segments) - 1
        if isinstance(node, list):
            index = _index(node, segment)
            if index is None or last:
                problems.append(Problem(path, f"{NO_ENTRY} {segment!r}", variable=name))
                return
            path, node = f"{path}[{index}]", node[index]
        elif not isinstance(node, dict):
            problems.append(Problem(path, "is a single value, not a table", variable=name))
            return
        else:
            path = f"{path}.{segment}" if path else segment
            if last:
                node[segment] = _value(value)
                variables[path] = name
                return
            node = node.setdefault(segment, [] if path in SETTING_ARRAYS + BOOK_SECTIONS + _INNER_ARRAYS else {})


def _index(array: list[Any], segment: str) -> int | None:
    """An entry by its number or by its name, in which a variable writes `_` for `-`."""
    if segment.isdigit():
        return int(segment) if int(segment) < len(array) else None
    names = [str(one.get("name", "")).lower().replace("-", "_") if isinstance(one, dict) else "" for one in array]
    return names.index(segment) if segment in names else None


def _value(text: str) -> Any:
    """Lists are written as JSON; anything else is a string that the setting's type reads."""
    if text.startswith("["):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text
