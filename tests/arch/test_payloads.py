"""A payload is taken apart in one place (`facts/payloads.py` and what it stands on): others ask its readers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READERS = {"payloads.py", "start_payload.py", "payload_values.py"}
PACKAGES = ("baton", "bench", "meter", "portal", "router", "suppression")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py") if file.name not in READERS)


_ASKED = ("get", "items", "values", "pop")


def _is_payload(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "payload") or (
        isinstance(node, ast.Attribute) and node.attr == "payload"
    )


def _taken_apart(tree: ast.AST) -> Iterator[int]:
    """Lines in which something called a payload is subscripted, asked by `get`, or unfolded."""
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr in _ASKED):
            parts = [node.value]
        elif isinstance(node, ast.Dict):
            parts = [value for key, value in zip(node.keys, node.values, strict=True) if key is None]
        yield from (part.lineno for part in parts if _is_payload(part))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nobody_but_the_readers_takes_a_payload_apart(file: Path) -> None:
    lines = list(_taken_apart(ast.parse(file.read_text(encoding="utf-8"))))
    assert not lines, "read it by facts.payloads; if it is no fact's payload, it has another name"


@pytest.mark.parametrize(
    "text", ["fact.payload.get('by')", "payload['by']", "{**fact.payload, 'a': 1}", "row.payload.items()"]
)
def test_the_test_above_sees(text: str) -> None:
    assert list(_taken_apart(ast.parse(text)))
