"""Grafana's dashboards without Grafana: their panels read, their queries put to Prometheus, and drawn with matplotlib.

What is drawn is the same data under the same titles, units, thresholds and words; it is no picture of Grafana.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import orjson

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

RATE_INTERVAL = "1m"
_VARIABLE = re.compile(r"label_values\((.+), *(\w+)\)")
_COLUMNS, _COLUMN_IN, _ROW_IN = 24, 0.9, 0.42
_COLOURS = {"green": "#2f9e44", "orange": "#f08c00", "red": "#e03131", "blue": "#1971c2", "text": "#495057"}
_LEGENDS = 9  # lines of a legend; the rest is counted
_BARS = 14
_STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_SECONDS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "us"))


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel as the file has it. `queries`: (expression, legend); a row has none."""

    title: str
    kind: str
    grid: Mapping[str, int]
    queries: tuple[tuple[str, str], ...]
    unit: str
    stack: bool
    steps: tuple[tuple[float | None, str], ...]  # of thresholds: from which value, which colour
    words: Mapping[str, tuple[str, str]]  # for values: text, colour


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard. `variables`: the query of each."""

    name: str
    title: str
    variables: Mapping[str, str]
    panels: tuple[Panel, ...]


@dataclass(slots=True)
class Answer:
    """What Prometheus said to one panel: now, and over the run. `empty`: queries without one of both."""

    panel: Panel
    now: list[tuple[str, float]] = field(default_factory=list)
    lines: list[tuple[str, list[float], list[float]]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


def read(path: Path) -> Board:
    """A dashboard's file."""
    told = orjson.loads(path.read_bytes())
    variables = {one["name"]: one["definition"] for one in told["templating"]["list"] if one["type"] == "query"}
    return Board(path.stem, told["title"], variables, tuple(_panel(one) for one in told["panels"]))


def _panel(told: Mapping[str, Any]) -> Panel:
    defaults = told.get("fieldConfig", {}).get("defaults", {})
    steps = defaults.get("thresholds", {}).get("steps", [])
    words = {
        value: (said["text"], said["color"])
        for mapping in defaults.get("mappings", [])
        for value, said in mapping["options"].items()
    }
    return Panel(
        told["title"],
        told["type"],
        told["gridPos"],
        tuple((one["expr"], one["legendFormat"]) for one in told.get("targets", [])),
        defaults.get("unit", "short"),
        "stacking" in defaults.get("custom", {}),
        tuple((one["value"], one["color"]) for one in steps),
        words,
    )


class Prometheus:
    """Its HTTP API. Raises httpx.HTTPError where it says no."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)

    def close(self) -> None:
        self._client.close()

    def _get(self, path: str, **parameters: Any) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        answer.raise_for_status()
        return answer.json()["data"]

    def ready(self) -> bool:
        try:
            return self._client.get("/-/ready").is_success
        except httpx.HTTPError:
            return False

    def now(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def over(self, expression: str, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        asked = {"query": expression, "start": start_s, "end": end_s, "step": step_s}
        found: list[dict[str, Any]] = self._get("query_range", **asked)["result"]
        return found

    def broken_rules(self) -> list[str]:
        """Names of rules whose last evaluation failed."""
        groups = self._get("rules")["groups"]
        return [rule["name"] for group in groups for rule in group["rules"] if rule.get("lastError")]

    def label_values(self, query: str) -> list[str]:
        """What Grafana's `label_values(series, label)` lists."""
        told = _VARIABLE.fullmatch(query)
        if told is None:
            return []
        found: list[str] = self._get(f"label/{told[2]}/values", **{"match[]": told[1]})
        return found


def ask(prometheus: Prometheus, board: Board, start_s: float, end_s: float, step_s: float) -> list[Answer]:
    """Every query of every panel, as of now and over the run. A variable stands for the first of its values."""
    values = {"__rate_interval": RATE_INTERVAL}
    for name, query in board.variables.items():
        values[name] = next(iter(prometheus.label_values(query)), "")
    answers = []
    for panel in board.panels:
        answer = Answer(panel)
        for written, legend in panel.queries:
            expression = fill(written, values)
            now = [(_legend(legend, one), float(one["value"][1])) for one in prometheus.now(expression)]
            lines = [
                (_legend(legend, one), [float(at) for at, _ in one["values"]], [float(v) for _, v in one["values"]])
                for one in prometheus.over(expression, start_s, end_s, step_s)
            ]
            now = [one for one in now if not math.isnan(one[1])]
            lines = [one for one in lines if not all(math.isnan(v) for v in one[2])]
            answer.now += now
            answer.lines += lines
            if not now or not lines:
                answer.empty.append(expression)
        answers.append(answer)
    return answers


def fill(expression: str, values: Mapping[str, str]) -> str:
    """The expression with its variables replaced, the longest name first."""
    for name in sorted(values, key=len, reverse=True):
        expression = expression.replace("${" + name + "}", values[name]).replace(f"${name}", values[name])
    return expression


def _legend(template: str, target: Mapping[str, Any]) -> str:
    labels = target["metric"]
    return re.sub(r"{{ *(\w+) *}}", lambda found: labels.get(found[1], ""), template)


def shown(value: float, unit: str) -> str:
    """A value as Grafana writes it, roughly."""
    if unit == "percentunit":
        return f"{100 * value:.1f} %"
    scale = {"s": _SECONDS, "bytes": _BYTES}.get(unit, _STEPS)
    size, name = next((one for one in scale if abs(value) >= one[0]), scale[-1] if unit == "bytes" else (1, ""))
    if value == 0:
        name = {"s": "s", "bytes": "B"}.get(unit, "")
    number = f"{value / size:.3g}" if abs(value / size) < 1_000 else f"{value / size:.0f}"
    return f"{number} {name}{'/s' if unit == 'reqps' else ''}".strip()


def draw(board: Board, answers: Sequence[Answer], start_s: float, path: Path) -> None:
    """One picture of the whole dashboard, laid out as in Grafana."""
    height = max(panel.grid["y"] + panel.grid["h"] for panel in board.panels)
    figure = plt.figure(figsize=(_COLUMNS * _COLUMN_IN, (height + 2) * _ROW_IN), facecolor="white")
    figure.suptitle(board.title, x=0.01, y=1 - 0.4 / (height + 2), ha="left", fontsize=16, weight="bold")
    for answer in answers:
        grid = answer.panel.grid
        top = 1 - (grid["y"] + 1.5) / (height + 2)
        left, width = grid["x"] / _COLUMNS, grid["w"] / _COLUMNS
        if answer.panel.kind == "row":
            figure.text(0.01, top - 0.7 / (height + 2), answer.panel.title, fontsize=13, weight="bold", color="#495057")
            continue
        high = grid["h"] / (height + 2)
        under = 0.9 if answer.panel.kind in ("timeseries", "bargauge") else 0.3
        box = (left + 0.03, top - high + under / (height + 2), width - 0.038, high - (under + 1.3) / (height + 2))
        axes = figure.add_axes(box)
        axes.set_title(answer.panel.title, fontsize=10, loc="left", weight="bold")
        _draw(axes, answer, start_s)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _draw(axes: Axes, answer: Answer, start_s: float) -> None:
    if not answer.now and not answer.lines:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color="#e03131", fontsize=14)
        axes.set_axis_off()
    elif answer.panel.kind == "timeseries":
        _draw_lines(axes, answer, start_s)
    elif answer.panel.kind == "bargauge":
        _draw_bars(axes, answer)
    elif answer.panel.kind == "table":
        _draw_table(axes, answer)
    else:
        _draw_stats(axes, answer)


def _draw_lines(axes: Axes, answer: Answer, start_s: float) -> None:
    panel = answer.panel
    filled: list[list[float]] = []
    lines = sorted(answer.lines, key=lambda line: -_last(line[2]))
    if panel.stack:
        moments = sorted({at for _, times, _ in lines for at in times})
        filled = [[_at(line, moment) for moment in moments] for line in lines]
        axes.stackplot([at - start_s for at in moments], filled, labels=[line[0] for line in lines], alpha=0.6)
    else:
        for legend, times, values in lines:
            axes.plot([at - start_s for at in times], values, label=legend, linewidth=1.2)
    heights = [sum(one) for one in zip(*filled, strict=True)] if panel.stack else [v for line in lines for v in line[2]]
    top = max((v for v in heights if math.isfinite(v)), default=0.0)
    for value, colour in panel.steps:
        if value is not None and 0 < value <= 2 * top:
            axes.axhline(value, color=_COLOURS.get(colour, colour), linewidth=1, linestyle="--")
    axes.set_ylim(bottom=-0.03 * (top or 1), top=1.25 * (top or 1))  # so that lines at 0 and at the top are seen
    axes.yaxis.set_major_formatter(lambda value, _: shown(value, panel.unit))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} s")
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    handles, names = axes.get_legend_handles_labels()
    more = len(names) - _LEGENDS
    named = [f"{name or 'value'}: {shown(_last(line[2]), panel.unit)}" for name, line in zip(names, lines, strict=True)]
    title = f"and {more} more" if more > 0 else None
    axes.legend(handles[:_LEGENDS], named[:_LEGENDS], fontsize=6.5, loc="upper left", title=title, framealpha=0.7)


def _last(values: Sequence[float]) -> float:
    return next((value for value in reversed(values) if math.isfinite(value)), 0.0)


def _at(line: tuple[str, list[float], list[float]], moment: float) -> float:
    found = dict(zip(line[1], line[2], strict=True)).get(moment, 0.0)
    return found if math.isfinite(found) else 0.0


def _colour(panel: Panel, value: float) -> str:
    if (word := panel.words.get(f"{value:g}")) is not None:
        return _COLOURS[word[1]]
    colour = "blue"
    for bound, name in panel.steps:
        if bound is None or value >= bound:
            colour = name
    return _COLOURS.get(colour, colour)


def _draw_bars(axes: Axes, answer: Answer) -> None:
    rows = sorted(answer.now, key=lambda one: one[1])[-_BARS:]
    axes.barh(range(len(rows)), [v for _, v in rows], color=[_colour(answer.panel, v) for _, v in rows], alpha=0.55)
    for row, (name, value) in enumerate(rows):
        axes.text(
            0.01,
            row,
            f"{name}  {shown(value, answer.panel.unit)}",
            va="center",
            fontsize=8,
            transform=axes.get_yaxis_transform(),
        )
    axes.set_yticks([])
    axes.set_xlim(left=0, right=1.25 * max((v for _, v in rows), default=1) or 1)
    axes.xaxis.set_major_formatter(lambda value, _: shown(value, answer.panel.unit))
    axes.tick_params(labelsize=7)


def _draw_table(axes: Axes, answer: Answer) -> None:
    axes.set_axis_off()
    rows = [[name, shown(value, answer.panel.unit)] for name, value in sorted(answer.now)][:_BARS]
    axes.table(rows, colLabels=["", "value"], loc="upper left", cellLoc="left", colWidths=[0.3, 0.12])


def _draw_stats(axes: Axes, answer: Answer) -> None:
    """Coloured fields, side by side or in lines of five."""
    axes.set_axis_off()
    found = answer.now[:20]
    across = min(5, len(found))
    down = -(-len(found) // across)
    for place, (name, value) in enumerate(found):
        x, y = (place % across) / across, 1 - (place // across + 1) / down
        colour = _colour(answer.panel, value)
        axes.add_patch(Rectangle((x, y), 0.97 / across, 0.95 / down, color=colour, alpha=0.85))
        word = answer.panel.words.get(f"{value:g}")
        text = word[0] if word is not None else shown(value, answer.panel.unit)
        size = 15 if across <= 2 and down <= 2 else 10
        axes.text(x + 0.48 / across, y + 0.55 / down, text, ha="center", va="center", color="white", fontsize=size)
        axes.text(x + 0.48 / across, y + 0.2 / down, name, ha="center", va="center", color="white", fontsize=6.5)
