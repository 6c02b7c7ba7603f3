"""Who may import whom (architecture, "The house"), read from the source, imports inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAVES = ("meter.facts", "meter.outcome", "meter.logs", "meter.metrics")
ALLOWED: dict[str, tuple[str, ...]] = {
    "config": ("config",),
    "meter": ("meter", "config"),
    "router": ("router", "config", *LEAVES),
    "suppression": ("suppression", "config", *LEAVES),
    "portal": ("portal", "router", "meter", "suppression", "config"),
    "baton": ("baton", "portal", "router", "meter", "suppression", "config"),
}
CONFINED = {  # library -> the one place where it may be imported
    "pjsua2": "router/sip/",
    "_pjsua2": "router/sip/",
    "sqlalchemy": "meter/store/",
    "alembic": "meter/store/",
    "aiosqlite": "meter/store/",
    "prometheus_client": "meter/metrics.py",
}
# The engine is a handle that others pass along, and its error how they learn that the store failed: neither is SQL.
HANDLES = {("sqlalchemy.ext.asyncio", "AsyncEngine"), ("sqlalchemy.exc", "SQLAlchemyError")}
FILES = sorted(file for package in ALLOWED for file in (ROOT / package).rglob("*.py"))


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; `from meter import facts` counts as `meter.facts`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, one.name) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names = [one.name for one in node.names if (node.module, one.name) not in HANDLES]
            yield from ((node.lineno, _target(node.module or "", one)) for one in names)


def _target(module: str, name: str) -> str:
    path = ROOT / module.replace(".", "/")
    return f"{module}.{name}" if (path / f"{name}.py").is_file() or (path / name / "__init__.py").is_file() else module


def _within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in allowed)


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_a_package_imports_only_those_below_it(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    wrong = [
        f"line {line}: {module}"
        for line, module in _imports(ast.parse(file.read_text(encoding="utf-8")))
        if module.partition(".")[0] in ALLOWED and not _within(module, ALLOWED[package])
    ]
    assert not wrong


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_imports_nothing_of_ours_but_leaves(leaf: str) -> None:
    file = ROOT / (leaf.replace(".", "/") + ".py")
    ours = [one for _, one in _imports(ast.parse(file.read_text(encoding="utf-8"))) if one.partition(".")[0] in ALLOWED]
    assert all(_within(one, LEAVES) for one in ours), ours


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_a_confined_library_stays_in_its_place(file: Path) -> None:
    name = _name(file)
    wrong = [
        f"line {line}: {module}"
        for line, module in _imports(ast.parse(file.read_text(encoding="utf-8")))
        if (library := module.partition(".")[0]) in CONFINED and not name.startswith(CONFINED[library])
    ]
    assert not wrong


@pytest.mark.parametrize("file", sorted((ROOT / "router/sip").rglob("*.py")), ids=_name)
def test_the_engine_is_imported_inside_functions_only(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {node for function in functions for node in ast.walk(function)}
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    eager = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in inside | typing_only
        if any(one.lstrip("_") == "pjsua2" for one in _modules(node))
    ]
    assert not eager


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]
