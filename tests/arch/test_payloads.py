"""A payload is taken apart in one place (`facts/payloads.py` and what it stands on): others ask its readers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READERS = {"facts/payloads.py", "facts/start_payload.py", "facts/payload_values.py"}
PACKAGES = ("baton", "bench", "book", "config", "facts", "meter", "portal", "router", "suppression", "telemetry")
FILES = sorted(
    file
    for package in PACKAGES
    for file in (ROOT / package).rglob("*.py")
    if str(file.relative_to(ROOT)) not in READERS
)
_ASKED = {"get", "items", "keys", "values", "pop"}
_COPIES = {"dict", "list", "tuple", "set", "sorted", "iter"}


def _is_payload(node: ast.expr, aliases: set[str]) -> bool:
    return (isinstance(node, ast.Name) and node.id in aliases) or (
        isinstance(node, ast.Attribute) and node.attr == "payload"
    )


def _aliases(tree: ast.AST) -> set[str]:
    """Names that are given a payload, and `payload` itself."""
    aliases, before = {"payload"}, set[str]()
    while aliases != before:
        before = set(aliases)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) or node.value is None:
                continue
            if _is_payload(node.value, aliases):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                aliases |= {target.id for target in targets if isinstance(target, ast.Name)}
    return aliases


def _parts(node: ast.AST) -> list[ast.expr]:
    """What is taken apart here, whatever it is."""
    parts: list[ast.expr] = []
    match node:
        case ast.Attribute(attr=name) if name in _ASKED:
            parts = [node.value]
        case ast.Subscript(value=value, ctx=ast.Load()) | ast.For(iter=value) | ast.comprehension(iter=value):
            parts = [value]
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[value]) | ast.Match(subject=value):
            parts = [value]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            parts = [left, right]
        case ast.Dict():
            parts = [value for key, value in zip(node.keys, node.values, strict=True) if key is None]
        case ast.Call():
            copied = node.args[:1] if isinstance(node.func, ast.Name) and node.func.id in _COPIES else []
            parts = copied + [keyword.value for keyword in node.keywords if keyword.arg is None]
    return parts


def _taken_apart(tree: ast.AST) -> Iterator[int]:
    """Lines in which a payload, or a name that is given one, is subscripted, asked, walked, copied, or unfolded.

    A name is followed within its function, at the head of a module within the module.
    """
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for part in (*functions, tree):
        aliases = _aliases(part) if part is not tree or not functions else {"payload"}
        for node in ast.walk(part):
            yield from (value.lineno for value in _parts(node) if _is_payload(value, aliases))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nobody_but_the_readers_takes_a_payload_apart(file: Path) -> None:
    lines = list(_taken_apart(ast.parse(file.read_text(encoding="utf-8"))))
    assert not lines, "read it by facts.payloads; if it is no fact's payload, it has another name"


@pytest.mark.parametrize(
    "text",
    [
        "fact.payload.get('by')",
        "payload['by']",
        "{**fact.payload, 'a': 1}",
        "row.payload.items()",
        "said = fact.payload\nsaid['by']",
        "def f(fact):\n    first = fact.payload\n    second = first\n    return second.get('by')",
        "if (said := fact.payload): said['by']",
        "'by' in fact.payload",
        "[key for key in fact.payload]",
        "for key in fact.payload: ...",
        "dict(fact.payload)",
        "fact.payload | {'by': 1}",
        "write(**fact.payload)",
        "match fact.payload:\n    case {'by': by}: ...",
    ],
)
def test_the_test_above_sees(text: str) -> None:
    assert list(_taken_apart(ast.parse(text)))


def test_a_payload_that_is_passed_along_is_not_taken_apart() -> None:
    assert not list(_taken_apart(ast.parse("def f(fact):\n    g(fact.payload)\n    return ended(fact)['by']")))
