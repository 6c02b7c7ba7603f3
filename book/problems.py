"""The problems of a configuration file as values: all at once, each with its path and line.

A problem names the path of the setting as a person would write it (`listeners[1].port`) and, where it can be told, the
line of the file or the environment variable that gave it. Secrets are never repeated in a message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `path` is empty where the file as a whole is meant."""

    path: str
    message: str
    line: int | None = None
    variable: str = ""  # the environment variable that set it

    def __str__(self) -> str:
        place = self.path or "file"
        if self.variable:
            place += f" (from {self.variable})"
        elif self.line is not None:
            place = f"line {self.line}: {place}"
        return f"{place}: {self.message}"


class ConfigError(Exception):
    """The configuration cannot be used. Carries all problems, in the order of the file."""

    def __init__(self, file: Path, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda one: (one.line or 0, one.path)))
        lines = "\n".join(f"  {one}" for one in self.problems)
        count = len(self.problems)
        super().__init__(f"{file}: {count} problem{'s' if count != 1 else ''}\n{lines}")
