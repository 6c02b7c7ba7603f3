"""How functions are called and named, how long they are, and what comes first: read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = ("baton", "book", "config", "facts", "meter", "portal", "router", "suppression", "telemetry")
MAX_POSITIONAL = 5  # of a call: more are told apart by their names alone
MAX_FUNCTION = 60  # lines: what fits on a screen
VARIADIC = {
    "Table",
    "select",
    "add_row",
    "pack",
    "Filter",
    "documented",
    "Services",
}  # any number of the same kind, or not ours
LISTENERS = {"_keep", "_keep_log"}  # SQLAlchemy calls its listeners with the table first
HISTORY = "meter/store/migrations/versions/"  # migrations are what they were when they ran
RIDDLES = {"one", "other", "found", "said", "who"}  # which noun of the trade is meant, the reader would have to guess
WRITTEN_DOWN = {"ClockRow.who", "Recipient.said"}  # a key of the ladder's JSON, a column: they stay what they were
LONG_FUNCTION = 30  # lines: beyond these a variable, too, is named for what it holds

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _trees(*packages: str) -> dict[str, ast.Module]:
    files = sorted(file for package in packages for file in (ROOT / package).rglob("*.py"))
    trees = {str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in files}
    return {name: tree for name, tree in trees.items() if not name.startswith(HISTORY)}


PRODUCT = _trees(*OURS)


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _parameters(function: Function) -> list[ast.arg]:
    arguments = function.args
    starred = [parameter for parameter in (arguments.vararg, arguments.kwarg) if parameter is not None]
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]
    return named[1:] if named and named[0].arg in {"self", "cls"} else named


def _bound(function: Function) -> Iterator[str]:
    """Every name that a function binds in its body: by assignment, in a loop, by `except`, by `match`."""
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name


def _published(tree: ast.AST) -> Iterator[str]:
    """Names of functions and fields."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (
                f"{node.name}.{field.target.id}"
                for field in node.body
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            )


def _is_connection(parameter: ast.arg) -> bool:
    is_typed = parameter.annotation is not None and ast.unparse(parameter.annotation) == "Connection"
    return is_typed or parameter.arg == "connection"


def _callee(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_there_is_something_to_look_at() -> None:
    assert len(PRODUCT) > 300
    assert sum(1 for tree in PRODUCT.values() for _ in _functions(tree)) > 2000


def test_a_function_fits_on_a_screen() -> None:
    long = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in (PRODUCT | _trees("tests", "bench")).items()
        for node in _functions(tree)
        if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION
    ]
    assert not long


def test_a_native_function_fits_on_a_screen() -> None:
    long, count = [], 0
    for file in sorted((ROOT / "scripts/pjsua2").glob("*.i")):
        begun = 0
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if line == "{" or (line.endswith("{") and line[:1].isalpha()):
                begun = number
            elif line.startswith("}") and begun:
                count += 1
                long += [f"{file.name}:{begun}"] if number - begun + 1 > MAX_FUNCTION else []
                begun = 0
    assert count > 150
    assert not long


def test_a_connection_comes_first() -> None:
    late = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in PRODUCT.items()
        for node in _functions(tree)
        if node.name not in LISTENERS and any(map(_is_connection, _parameters(node)[1:]))
    ]
    assert not late


def test_a_parameter_is_a_noun_of_the_trade() -> None:
    riddles = [
        f"{name}:{node.lineno} {node.name}({parameter.arg})"
        for name, tree in PRODUCT.items()
        for node in _functions(tree)
        for parameter in _parameters(node)
        if parameter.arg in RIDDLES
    ]
    assert not riddles


def test_a_variable_of_a_long_function_is_a_noun_of_the_trade() -> None:
    riddles = {
        f"{name}:{function.lineno} {function.name}: {bound}"
        for name, tree in PRODUCT.items()
        for function in _functions(tree)
        if (function.end_lineno or 0) - function.lineno + 1 > LONG_FUNCTION
        for bound in _bound(function)
        if bound in RIDDLES
    }
    assert not riddles


def test_a_function_and_a_field_are_nouns_of_the_trade() -> None:
    published = {named for tree in PRODUCT.values() for named in _published(tree)}
    assert {named for named in published if named.rpartition(".")[2] in RIDDLES} == WRITTEN_DOWN


def test_riddles_are_seen_wherever_they_stand() -> None:
    text = """
def f(a, *found, one=1, **other):
    match a:
        case [said]:
            who = 1
def found(): ...
class C:
    said: str
"""
    first, *_ = _functions(ast.parse(text))
    assert {parameter.arg for parameter in _parameters(first)} >= {"found", "one", "other"}
    assert set(_bound(first)) == {"said", "who"}
    assert {"found", "C.said"} <= set(_published(ast.parse(text)))


def test_a_wide_call_names_its_arguments() -> None:
    wide = [
        f"{name}:{node.lineno} {ast.unparse(node)[:80]}"
        for name, tree in PRODUCT.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and len(node.args) > MAX_POSITIONAL and _callee(node) not in VARIADIC
    ]
    assert not wide
