"""Which line of a TOML file gives which setting.

`tomllib` forgets lines. This reader does not parse values; it follows table headers and the keys at the start of a
line, skips what stands inside many-line strings and brackets, and so knows the line of nearly every setting. A setting
inside an inline table is answered with the line of the nearest table around it.
"""

from __future__ import annotations

import re

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|' + r"'[^']*'")
_FENCES = ('"' * 3, "'" * 3)


def find_lines(text: str) -> dict[str, int]:
    """Line numbers (from 1) by path, such as `listeners[1].port`. Never raises; what it cannot follow it leaves out."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    open_brackets = 0
    fence = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        if fence:
            fence = "" if fence in raw else fence
            continue
        header = _HEADER.match(raw) if open_brackets == 0 else None
        if header is not None:
            table = _enter(header.group(2), is_array=header.group(1) == "[[", counts=counts)
            lines.setdefault(table, number)
            continue
        key = _KEY.match(raw) if open_brackets == 0 else None
        if key is not None:
            lines.setdefault(_join(table, ".".join(_parts(key.group(1)))), number)
        fence = _opened_fence(raw)
        bare = _STRING.sub("", raw).split("#", 1)[0]
        opened = sum(bare.count(mark) for mark in "[{") - sum(bare.count(mark) for mark in "]}")
        open_brackets = max(0, open_brackets + opened)
    return lines


def line_of(lines: dict[str, int], path: str) -> int | None:
    """The line of `path`, or of the nearest table around it; None where even that is unknown."""
    while path:
        if path in lines:
            return lines[path]
        path = path[: path.rfind("[")] if path.endswith("]") else path.rpartition(".")[0]
    return None


def _parts(key: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(key)]


def _join(table: str, key: str) -> str:
    return f"{table}.{key}" if table else key


def _enter(name: str, *, is_array: bool, counts: dict[str, int]) -> str:
    """The full path of a table header; an array's header starts its next element."""
    path = ""
    parts = _parts(name)
    for at, part in enumerate(parts):
        path = _join(path, part)
        if is_array and at == len(parts) - 1:
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path += f"[{counts[path] - 1}]"
    return path


def _opened_fence(line: str) -> str:
    for fence in _FENCES:
        if line.count(fence) % 2:
            return fence
    return ""
