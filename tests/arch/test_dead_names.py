"""Nothing of the product stands unused: every name of a module is used by the product, not by tests alone.

A name counts as used where another definition of its module reads it, where a module that imports it reads it, where it
is an attribute of an imported module, or where a template, an entry point or a string that is nothing but it has it
(`getattr`, a model named by text). What is decorated is used by who decorates: commands, routes, validators, hooks; but
for decorators that only wrap.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.arch.test_imports import ALLOWED, ROOT

TEMPLATES = {".html", ".txt", ".jinja", ".mako", ".toml", ".xml", ".json"}
WORD = re.compile(r"[A-Za-z_]\w*")
NAMED_BY_TEXT = re.compile(r"[\w.:]+")
WRAPPERS = {"cache", "lru_cache", "contextmanager", "asynccontextmanager", "wraps", "final", "overload"}
USED_ELSEWHERE: dict[str, str] = {}  # "module.name": who uses it, where this test cannot see it


@dataclass
class Module:
    """A module's definitions, each with the names that it reads, and how it calls what it imports."""

    reads: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # "": by no definition
    attributes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    defined: dict[str, int] = field(default_factory=dict)  # name: line
    taken: list[tuple[str, str, str]] = field(default_factory=list)  # module, name, what it is called here


def _names(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
            yield inner.id
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and NAMED_BY_TEXT.fullmatch(inner.value):
            yield from WORD.findall(inner.value)


def _wraps(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called).rpartition(".")[2] in WRAPPERS


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name] if all(_wraps(decorator) for decorator in node.decorator_list) else []
    if isinstance(node, ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]


def _read(path: Path) -> Module:
    return _parsed(path.read_text(encoding="utf-8"))


def _parsed(text: str) -> Module:
    module, tree = Module(), ast.parse(text)
    for statement in tree.body:
        names = [name for name in _defines(statement) if not name.startswith("__")]
        for name in names or [""]:
            module.reads[name].update(_names(statement))
            module.attributes[name] |= {inner.attr for inner in ast.walk(statement) if isinstance(inner, ast.Attribute)}
        module.defined |= dict.fromkeys(names, statement.lineno)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module.taken += [(node.module or "", one.name, one.asname or one.name) for one in node.names]
        elif isinstance(node, ast.Import):
            module.taken += [(one.name, "", one.asname or one.name) for one in node.names]
        elif isinstance(node, ast.Call):  # a module and its name, both as text, for what is imported late
            texts = [one.value for one in node.args[:2] if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            module.taken += [(texts[0], texts[1], texts[1])] if len(texts) == len(node.args[:2]) == 2 else []
    return module


@cache
def _modules() -> dict[str, Module]:
    files = [file for package in ALLOWED for file in sorted((ROOT / package).rglob("*.py"))]
    named = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    return {name: _read(file) for name, file in named.items() if "migrations" not in file.parts}


@cache
def _words() -> set[str]:
    """Words of what is no Python and may name a definition."""
    files = [file for package in ALLOWED for file in (ROOT / package).rglob("*") if file.suffix in TEMPLATES]
    return {word for file in [*files, ROOT / "pyproject.toml"] for word in WORD.findall(file.read_text("utf-8"))}


def _unused(dead: set[tuple[str, str]], modules: dict[str, Module]) -> set[tuple[str, str]]:
    """Definitions that nothing reads which is not itself dead."""
    used: set[tuple[str, str]] = set()
    for name, module in modules.items():
        alive = [one for one in module.reads if (name, one) not in dead]
        attributes = {attribute for one in alive for attribute in module.attributes[one]}
        for one in alive:
            used |= {(name, read) for read in module.reads[one] if read != one}
        read = {word for one in alive for word in module.reads[one]}
        for source, wanted, called in module.taken:
            if called in read or called in attributes:
                used.add((source, wanted))
            used |= {(f"{source}.{wanted}".rstrip("."), attribute) for attribute in attributes}
    defined = {(name, one) for name, module in modules.items() for one in module.defined}
    return {one for one in defined - used if one[1] not in _words() and ".".join(one) not in USED_ELSEWHERE}


def _dead(modules: dict[str, Module]) -> set[tuple[str, str]]:
    dead: set[tuple[str, str]] = set()
    while (more := _unused(dead, modules)) != dead:
        dead = more
    return dead


def test_every_name_of_a_module_is_used_by_the_product() -> None:
    dead = _dead(_modules())
    assert not sorted(f"{name}.{one} (line {_modules()[name].defined[one]})" for name, one in dead)


def test_what_is_allowed_is_there() -> None:
    there = {f"{name}.{one}" for name, module in _modules().items() for one in module.defined}
    assert not set(USED_ELSEWHERE) - there


def test_what_is_dead_is_found() -> None:
    """What calls itself, what only the dead call, what is only wrapped, and a constant."""
    room = """
ZQ_UNUSED = 1
@cache
def zq_wrapped(): ...
def zq_calls_itself(): zq_calls_itself()
def zq_called_by_the_dead(): ...
def zq_dead(): zq_called_by_the_dead()
def zq_used(): ...
@app.command()
def zq_command(): ...
"""
    modules = {"a": _parsed(room), "b": _parsed("from a import zq_used\nzq_used()\n")}
    names = {name for _, name in _dead(modules)}
    assert names == {"ZQ_UNUSED", "zq_wrapped", "zq_calls_itself", "zq_called_by_the_dead", "zq_dead"}
