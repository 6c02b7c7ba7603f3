"""Who may import whom (docs/developer.md, "The house"), read from the source, imports inside functions included."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VALUES = ("book", "facts", "telemetry")  # what all may use; none of them imports another package of ours
ALLOWED: dict[str, tuple[str, ...]] = {
    "book": ("book",),
    "facts": ("facts",),
    "telemetry": ("telemetry",),
    "config": ("config", "book"),
    "meter": ("meter", *VALUES),
    "router": ("router", *VALUES),
    "suppression": ("suppression", *VALUES),
    "portal": ("portal", "router", "meter", "suppression", "config.portal", *VALUES),
    "baton": ("baton", "portal", "router", "meter", "suppression", "config", *VALUES),
}
# The order of meter's rooms: a room imports those before it. `run` puts them together.
ROOMS = (
    "store",
    "text",
    "billing.arithmetic",
    "outbox",
    "journal",
    "ledger",
    "book",
    "suppression_rows",
    "events",
    "mail",
    "billing",
    "mqtt",
    "webhooks",
    "credits",
    "per_minute",
    "settling",
    "letters",
    "run",
)
# The portal: `http` is below every noun and imports none; no noun imports another; `app` puts them together.
NOUNS = (
    "availability",
    "buyers",
    "credits",
    "documents",
    "events",
    "health",
    "leads",
    "lists",
    "live",
    "orders",
    "payments",
    "per_minute",
    "recordings",
    "transfers",
    "trunks",
    "webhooks",
)
ROUTER_ROOMS = ("sip", "routing", "transfer")  # likewise
SQL = (
    "meter/store/*.py",
    "meter/store/migrations/*.py",
    "meter/store/migrations/versions/*.py",
    *(f"meter/*/{n}" for n in ("tables.py", "rows.py", "sql.py", "sql/*.py")),
)
CONFINED = {  # library -> the places where it may be imported, as patterns of `Path.match`
    "pjsua2": ("router/sip/*.py",),
    "_pjsua2": ("router/sip/*.py",),
    "sqlalchemy": SQL,
    "sqlite3": SQL,
    "alembic": ("meter/store/*.py", "meter/store/migrations/*.py", "meter/store/migrations/versions/*.py"),
    "aiosqlite": ("meter/store/*.py",),
    "prometheus_client": ("telemetry/*.py",),
}
# The engine is a handle that others pass along, and its error how they learn that the store failed: neither is SQL.
HANDLES = {("sqlalchemy.ext.asyncio", "AsyncEngine"), ("sqlalchemy.exc", "SQLAlchemyError")}
TABLES = ("meter.store.schema", "meter.store.money_schema", "meter.store.integration_schema")
STATEMENT = re.compile(
    r"\s*(?:SELECT\s.*\bFROM\b|INSERT\s+(?:OR\s+\w+\s+)?INTO\b|UPDATE\s+\w+\s+SET\b|DELETE\s+FROM\b"
    r"|CREATE\s+TABLE\b|PRAGMA\s)",
    re.DOTALL,
)
FILES = sorted(file for package in ALLOWED for file in (ROOT / package).rglob("*.py"))


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, that of `import_module` too; `from facts import fact` counts as `facts.fact`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names = [alias.name for alias in node.names if (node.module, alias.name) not in HANDLES]
            yield from ((node.lineno, _target(node.module or "", name)) for name in names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {
            "import_module",
            "__import__",
        }:
            named = [text.value for text in node.args[:1] if isinstance(text, ast.Constant)]
            yield from ((node.lineno, str(module)) for module in named)


def _target(module: str, name: str) -> str:
    path = ROOT / module.replace(".", "/")
    return f"{module}.{name}" if (path / f"{name}.py").is_file() or (path / name / "__init__.py").is_file() else module


def _within(module: str, allowed: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def _module(file: Path) -> str:
    return _name(file).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _room(module: str) -> str | None:
    """The room of meter that a module is in, or None: another package, or meter itself."""
    package, _, rest = module.partition(".")
    found = [room for room in ROOMS if package == "meter" and _within(rest, (room,))]
    return max(found, key=len, default=None)


def circles(imports: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Modules that import each other, however long the way round: strongly connected parts of more than one."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in imports.get(module, ()):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            part = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(part) > 1:
                found.append(sorted(part))

    for module in sorted(imports):
        if module not in index:
            visit(module)
    return found


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 20
    assert {_module(file).partition(".")[0] for file in FILES} == set(ALLOWED)


def test_every_room_of_meter_has_its_place_in_the_order() -> None:
    modules = {_module(file) for file in FILES if _name(file).startswith("meter/")} - {"meter"}
    assert not {module for module in modules if _room(module) is None}
    assert not [room for room in ROOMS if not any(_room(module) == room for module in modules)]


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_a_package_imports_only_those_below_it(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    wrong = [
        f"line {line}: {module}"
        for line, module in _imports(_tree(file))
        if module.partition(".")[0] in ALLOWED and not _within(module, ALLOWED[package])
    ]
    assert not wrong


def test_every_room_of_the_portal_is_known() -> None:
    rooms = {_module(file).split(".")[1] for file in FILES if _module(file).startswith("portal.")}
    assert rooms == {"http", *NOUNS, "app"}


@pytest.mark.parametrize("file", [file for file in FILES if _module(file).startswith("portal.")], ids=_name)
def test_a_noun_of_the_portal_imports_no_other(file: Path) -> None:
    room = _module(file).split(".")[1]
    allowed = {"http", room} if room in NOUNS else {"http", *NOUNS} if room == "app" else {"http"}
    wrong = [
        f"line {line}: {module}"
        for line, module in _imports(_tree(file))
        if module.startswith("portal.") and module.split(".")[1] not in allowed
    ]
    assert not wrong


@pytest.mark.parametrize("file", [file for file in FILES if _room(_module(file))], ids=_name)
def test_a_room_of_meter_imports_only_rooms_before_it(file: Path) -> None:
    place = ROOMS.index(_room(_module(file)) or "")
    wrong = [
        f"line {line}: {module}"
        for line, module in _imports(_tree(file))
        if (room := _room(module)) is not None and ROOMS.index(room) > place
    ]
    assert not wrong


@pytest.mark.parametrize("file", sorted((ROOT / "router").rglob("*.py")), ids=_name)
def test_a_room_of_the_router_imports_only_rooms_before_it(file: Path) -> None:
    """The modules of `router` itself put the rooms together, or are what all of them use."""
    rooms = [f"router.{room}" for room in ROUTER_ROOMS]
    place = next((at for at, room in enumerate(rooms) if _within(_module(file), (room,))), len(rooms))
    wrong = [f"line {line}: {module}" for line, module in _imports(_tree(file)) if _within(module, rooms[place + 1 :])]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {_module(file) for file in FILES}
    imports = {_module(file): {target for _, target in _imports(_tree(file)) if target in modules} for file in FILES}
    assert not circles(imports)


def test_a_circle_would_be_found() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["d"]}) == [["b", "c"]]


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_a_confined_library_stays_in_its_place(file: Path) -> None:
    wrong = [
        f"line {line}: {module}"
        for line, module in _imports(_tree(file))
        if (library := module.partition(".")[0]) in CONFINED and not _stands_in(file, CONFINED[library])
    ]
    assert not wrong


def _stands_in(file: Path, places: Iterable[str]) -> bool:
    return any(file.relative_to(ROOT).match(place) for place in places)


def _statements(tree: ast.AST) -> Iterator[int]:
    """Lines with SQL as text: a statement, or the beginning of one that is put together."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and STATEMENT.match(node.value):
            yield node.lineno


@pytest.mark.parametrize("file", [file for file in FILES if not _stands_in(file, SQL)], ids=_name)
def test_tables_and_statements_stand_where_sql_does(file: Path) -> None:
    """Who has a table can select from it without a library."""
    tree = _tree(file)
    tables = [f"line {line}: {module}" for line, module in _imports(tree) if _within(module, TABLES)]
    assert not tables + [f"line {line}: a statement" for line in _statements(tree)]


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("def f():\n    from meter.credits import rules", "meter.credits.rules"),
        ("if TYPE_CHECKING:\n    from meter.credits.rules import Window", "meter.credits.rules"),
        ("async def f():\n    import meter.run as run", "meter.run"),
        ("from router import transfer", "router.transfer"),
        ("import_module('meter.credits.rules')", "meter.credits.rules"),
        ("importlib.import_module('sqlalchemy')", "sqlalchemy"),
        ("from sqlalchemy.ext.asyncio import AsyncEngine, AsyncConnection", "sqlalchemy.ext.asyncio"),
    ],
)
def test_an_import_is_seen_wherever_it_stands(text: str, module: str) -> None:
    assert [target for _, target in _imports(ast.parse(text))] == [module]


@pytest.mark.parametrize("text", ["'SELECT name FROM buyers'", "f'UPDATE outbox SET {x}'", "'DELETE FROM facts'"])
def test_a_statement_is_seen(text: str) -> None:
    assert list(_statements(ast.parse(text)))


@pytest.mark.parametrize("file", sorted((ROOT / "router/sip").rglob("*.py")), ids=_name)
def test_the_engine_is_imported_inside_functions_only(file: Path) -> None:
    tree = _tree(file)
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
        if any(name.lstrip("_") == "pjsua2" for name in _modules(node))
    ]
    assert not eager


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
