"""What pages, comments and docstrings name is there: our modules and what is in them, files, names in backticks.

Three ways to name something of ours, in Python's docstrings and comments and in every other file of text:

    meter.ledger.accounts     a module, and behind it a name that the module has; or a setting, `portal.tokens`
    scripts/pjsua2/*.i        a file or a folder
    `live_legs`               a name that stands somewhere in code or data, not in other docstrings alone

Left out: the changelog and decisions, which say what was; for names in backticks also what is told to be another's.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from config.settings import Settings
from tests.arch.test_citations import FILES, ROOT

PACKAGES = (
    "baton",
    "book",
    "config",
    "facts",
    "meter",
    "portal",
    "router",
    "suppression",
    "telemetry",
    "bench",
    "tests",
)
# Behind one of ours and a dot: units of systemd, a database's file, and what metrics and logs have for labels.
NO_MODULES = {"baton.service", "baton.toml", "baton.db", "router.process", "router.calls", "router.journal"}
# Paths that only begin as ours do: topics of MQTT, folders of a running Baton.
NO_FILES = re.compile(r"baton/(?:east|[\w-]+/[\w-]+/[\w-]+|\w+/acme|commands/noc)|suppression/receipt\.key")
# Names in backticks of other programs and of data that others send; an ending that many names have.
OTHERS = {"PJ_ASSERT", "executemany", "systemctl", "journalctl", "newaliases", "df"} | {
    "_mono_us",
    "home_phone",
    "firstname",
    "port_1",
    "BATON_PORTAL__TOKENS__WEST__SECRET",
}
MODULE = re.compile(rf"(?<![\w./@:-])(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+(?![\w/-])")
FILE = re.compile(rf"(?<![\w./@:-])(?:{'|'.join((*PACKAGES, 'scripts', 'docs', 'sipp-scenarios'))})(?:/[\w.*-]+)+")
NAME = re.compile(r"`([A-Za-z_]\w*(?:\.\w+)*)(?:\([^`]*\))?`")
WORD = re.compile(r"[A-Za-z_]\w*")

Text = tuple[Path, int, str]


def _documented(node: ast.AST) -> ast.Constant | None:
    """The docstring of a module, class or function."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return None
    match node.body[0]:
        case ast.Expr(value=ast.Constant(value=str()) as text):
            return text
    return None


@cache
def _split() -> tuple[list[Text], set[str]]:
    """Texts for people, by file and line, and every word that stands in code, in data or in a file's name."""
    texts: list[Text] = []
    words = {word for file in FILES for word in WORD.findall(str(file.relative_to(ROOT)))}
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        if file.suffix != ".py":
            texts.append((file, 1, text))
            words |= set() if file.suffix == ".md" else set(WORD.findall(text))
            continue
        documented = [node for node in map(_documented, ast.walk(ast.parse(text))) if node is not None]
        texts += [(file, node.lineno, str(node.value)) for node in documented]
        begins = {(node.lineno, node.col_offset) for node in documented}
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                texts.append((file, token.start[0], token.string))
            elif token.type in {tokenize.NAME, tokenize.STRING} and token.start not in begins:
                words |= set(WORD.findall(token.string))
    history = (ROOT / "CHANGELOG.md", ROOT / "docs/decisions", Path(__file__))
    return [entry for entry in texts if not any(entry[0].is_relative_to(past) for past in history)], words


@cache
def _settings() -> set[str]:
    """`section.name` of every setting."""
    return {
        f"{section}.{name}"
        for section, field in Settings.model_fields.items()
        for model in (field.annotation, *get_args(field.annotation))
        if isinstance(model, type) and issubclass(model, BaseModel)
        for name in model.model_fields
    }


def is_module(name: str) -> bool:
    """Whether a dotted name is a package or module of ours, or begins with a name in one."""
    place, parts = ROOT, name.split(".")
    for at, part in enumerate(parts):
        if (place / part).is_dir():
            place /= part
            continue
        file, rest = (place / f"{part}.py", parts[at + 1 :]) if (place / f"{part}.py").is_file() else (None, parts[at:])
        file = file or place / "__init__.py"
        return not rest or (file.is_file() and re.search(rf"\b{rest[0]}\b", file.read_text("utf-8")) is not None)
    return True


def is_file(name: str, beside: Path) -> bool:
    """Whether a path is there, from the root or beside the file that names it; modules also without their suffix."""
    cut = name.rstrip(".")
    places = (ROOT / cut, ROOT / f"{cut}.py", beside / cut)
    return any(place.exists() for place in places) or ("*" in cut and any(ROOT.glob(cut)))


def lost_modules(text: str) -> Iterator[tuple[int, str]]:
    for named in MODULE.finditer(text):
        if not (named[0] in NO_MODULES | _settings() or is_module(named[0])):
            yield named.start(), named[0]


def lost_files(text: str, beside: Path) -> Iterator[tuple[int, str]]:
    for named in FILE.finditer(text):
        is_decision = re.fullmatch(r"docs/decisions/\d{3}", named[0]) is not None  # held by test_citations.py
        if not (is_decision or NO_FILES.match(named[0]) or is_file(named[0], beside)):
            yield named.start(), named[0]


def lost_names(text: str, words: set[str]) -> Iterator[tuple[int, str]]:
    for named in NAME.finditer(text):
        if set(WORD.findall(named[1])) - words - OTHERS:
            yield named.start(), named[1]


def _shown(entry: Text, place: int, name: str) -> str:
    file, line, text = entry
    return f"{file.relative_to(ROOT)}:{line + text.count(chr(10), 0, place)}: {name}"


def test_there_is_something_to_look_at() -> None:
    texts, words = _split()
    assert len(texts) > 3000
    assert {"TransferShell", "begin", "talk_ms"} <= words
    assert {"router.max_calls", "portal.lead_ttl_s"} <= _settings()


def test_modules_that_are_named_are_there() -> None:
    assert not [_shown(entry, *lost) for entry in _split()[0] for lost in lost_modules(entry[2])]


def test_files_that_are_named_are_there() -> None:
    assert not [_shown(entry, *lost) for entry in _split()[0] for lost in lost_files(entry[2], entry[0].parent)]


def test_names_in_backticks_stand_in_the_code() -> None:
    texts, words = _split()
    prose = [entry for entry in texts if entry[0].suffix in {".py", ".md"}]
    assert not [_shown(entry, *lost) for entry in prose for lost in lost_names(entry[2], words)]


@pytest.mark.parametrize(
    "text",
    [
        "see meter.store.ledger",
        "(`portal.desk.page`)",
        "router.transfer.steps has the rest",
        "meter.ledger.accounts.NoSuchRule",
        "the setting portal.no_such_setting",
    ],
)
def test_a_lost_module_is_found(text: str) -> None:
    assert list(lost_modules(text))


def test_a_lost_file_and_a_lost_name_are_found() -> None:
    assert [name for _, name in lost_files("router/select.py, meter/store/*.py, facts/fact.py", ROOT)] == [
        "router/select.py"
    ]
    assert [name for _, name in lost_names("`begin`, `no_such.begin`, `begin(1)`", {"begin"})] == ["no_such.begin"]


PROGRAM = re.compile(rf"^\s*from ((?:{'|'.join(PACKAGES)})(?:\.\w+)*) import ([\w, *]+)$", re.MULTILINE)


def _imports_in_strings(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of imports in programs that are run as text, in a process of their own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for module, names in PROGRAM.findall(node.value):
                yield from ((node.lineno, module, name.strip()) for name in names.split(",") if name.strip() != "*")


def _is_there(module: str, name: str) -> bool:
    try:
        return hasattr(import_module(module), name) or find_spec(f"{module}.{name}") is not None
    except ModuleNotFoundError:
        return False


def test_a_program_kept_as_text_imports_what_is_there() -> None:
    python = [file for file in FILES if file.suffix == ".py"]
    missing = [
        f"{file.relative_to(ROOT)}:{line}: from {module} import {name}"
        for file in python
        for line, module, name in _imports_in_strings(ast.parse(file.read_text(encoding="utf-8")))
        if not _is_there(module, name)
    ]
    assert not missing


def test_an_import_in_a_text_that_leads_nowhere_is_seen() -> None:
    found = list(_imports_in_strings(ast.parse("PROGRAM = 'import os\\nfrom meter import metrics\\n'")))
    assert found == [(1, "meter", "metrics")]
    assert not _is_there("meter", "metrics")
    assert _is_there("telemetry", "metrics")
