"""How functions are called and named, how long they are, and what comes first: read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "baton",
    "bench",
    "book",
    "config",
    "facts",
    "meter",
    "portal",
    "router",
    "suppression",
    "telemetry",
    "tests",
)
MAX_POSITIONAL = 5  # of a call: more are told apart by their names alone
MAX_FUNCTION = 60  # lines: what fits on a screen
VARIADIC = {
    "Table",
    "select",
    "add_row",
    "pack",
    "Filter",
    "documented",
}  # take any number of the same, or are not ours
LISTENERS = {"_keep", "_keep_log"}  # SQLAlchemy calls its listeners with the table first
HISTORY = "meter/store/migrations/versions"  # migrations are what they were when they ran
RIDDLES = {"one", "other", "found", "said", "who"}  # which noun of the trade, the reader must guess
UNNAMED = (
    "portal/",
    "baton/scenarios/compare.py",
    "baton/scenarios/facts.py",
    "meter/per_minute/interactions.py",
    "meter/settling/watch.py",
    "router/sip/",
    "router/transfer/codes.py",
)
UNSETTLED = ("portal/", "baton/scenarios/books.py", "router/sip/engine.py", "router/sip/legs.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT))


FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
PRODUCT = [file for file in FILES if _name(file).partition("/")[0] not in {"tests", "bench"}]

SETTLED = [file for file in PRODUCT if not _name(file).startswith((HISTORY, *UNSETTLED))]


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _callee(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


@pytest.mark.parametrize("file", [file for file in FILES if HISTORY not in _name(file)], ids=_name)
def test_a_function_fits_on_a_screen(file: Path) -> None:
    long = [
        f"line {node.lineno}: {node.name}"
        for node in _functions(_tree(file))
        if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION
    ]
    assert not long


@pytest.mark.parametrize(
    "file", [file for file in PRODUCT if not _name(file).startswith((HISTORY, *UNSETTLED))], ids=_name
)
def test_a_wide_call_names_its_arguments(file: Path) -> None:
    wide = [
        f"line {node.lineno}: {ast.unparse(node)[:80]}"
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.Call) and len(node.args) > MAX_POSITIONAL and _callee(node) not in VARIADIC
    ]
    assert not wide
