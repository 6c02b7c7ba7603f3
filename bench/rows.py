"""One row of the benchmark: the measured value, its target, and whether it was met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_DIGITS = 3
_WIDTH = 150  # where the output is no terminal


@dataclass(frozen=True, slots=True)
class Row:
    """`met` is None where there is no target. `peer` and `ratio` stand only where there is a yardstick beside us."""

    name: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None
    peer: float | None = None
    ratio: float | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The row as it stands in the file."""
        shown: dict[str, Any] = {
            "name": self.name,
            "value": _round(self.value),
            "unit": self.unit,
            "target": self.target,
            "met": self.met,
        }
        if self.peer is not None:
            shown["peer"] = _round(self.peer)
        if self.ratio is not None:
            shown["ratio"] = _round(self.ratio)
        if self.note:
            shown["note"] = self.note
        return shown


def seen(name: str, value: float, unit: str, note: str = "") -> Row:
    """A measurement without a target."""
    return Row(name, value, unit, note=note)


def at_most(name: str, value: float, limit: float, unit: str, note: str = "") -> Row:
    """A measurement that is as it should be at or under `limit`."""
    return Row(name, value, unit, f"<= {limit:g}", value <= limit, note=note)


def at_least(name: str, value: float, limit: float, unit: str, note: str = "") -> Row:
    """A measurement that is as it should be at or above `limit`."""
    return Row(name, value, unit, f">= {limit:g}", value >= limit, note=note)


def none_of(name: str, value: int, note: str = "") -> Row:
    """A count that must be 0."""
    return Row(name, value, "", "0", value == 0, note=note)


def exactly(name: str, value: float, expected: float, unit: str = "", note: str = "") -> Row:
    """A measurement that must be one value."""
    return Row(name, value, unit, f"{expected:g}", value == expected, note=note)


def write(rows: Sequence[Row], path: Path) -> None:
    """The rows as a JSON list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps([row.as_json() for row in rows], option=orjson.OPT_INDENT_2) + b"\n")


def show(rows: Iterable[Row], console: Console | None = None) -> None:
    """The rows as a table for people."""
    table = Table(box=SIMPLE_HEAD, title="Benchmark", title_justify="left", pad_edge=False)
    for name in ("measured", "value", "unit", "peer", "ratio", "target", "met", "note"):
        table.add_column(name, justify="right" if name in ("value", "peer", "ratio") else "left", overflow="fold")
    for row in rows:
        met = "" if row.met is None else "[green]yes[/]" if row.met else "[bold red]NO[/]"
        numbers = ("" if one is None else f"{_round(one):,}" for one in (row.peer, row.ratio))
        table.add_row(row.name, f"{_round(row.value):,}", row.unit, *numbers, row.target, met, row.note)
    out = console or Console()
    (out if out.is_terminal else Console(width=_WIDTH, file=out.file)).print(table)


def _round(value: float) -> float:
    return value if isinstance(value, int) else round(value, _DIGITS)
