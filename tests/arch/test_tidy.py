"""House rules that no linter knows: sizes, no to-do notes, nothing of one machine in the files, pages up to date."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import typer

from baton.cli.main import app
from baton.cli.reference import pages

ROOT = Path(__file__).parents[2]
MAX_COLUMNS = 120
MAX_LINES = 700  # of Python and of native code, tests too: long enough that nothing is cut apart to fit
TEXT = {
    ".py",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".xml",
    ".html",
    ".jinja",
    ".i",
    ".h",
    ".conf",
    ".json",
    ".ini",
    ".mako",
}
NAMES = {"Makefile", "Dockerfile", "bootstrap", "build-pjsua2", "lock", "run", "requirements.lock", ".gitignore"}
UNBOUND = {".md", ".json", ".xml", ".html", ".lock", ".i", ".h"}  # tables, data and C may have long lines
# Written apart, so that this file does not find itself.
NOTES = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX" + r"\b")))
MACHINE = re.compile(
    r"/(?:work|home|Users)/[\w.-]+/|/root/|(?:py" r"pi|files\.python" r"hosted)\.org|--(?:extra-)?index-url \S"
)


def _tracked() -> list[Path]:
    """Files that git has or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    files = [ROOT / one for one in listed.stdout.decode().split("\0") if one]
    return sorted(file for file in files if file.is_file() and (file.suffix in TEXT or file.name in NAMES))


FILES = _tracked()
PAGES = pages(typer.main.get_command(app))
CODE = [file for file in FILES if file.suffix == ".py"]


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def test_there_is_something_to_look_at() -> None:
    assert len(CODE) > 40


def test_no_line_is_too_long() -> None:
    long = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in FILES
        if file.suffix not in UNBOUND and file.name not in {"build-pjsua2", "bootstrap"}
        for number, line in enumerate(_lines(file), start=1)
        if len(line) > MAX_COLUMNS
    ]
    assert not long


def test_no_file_has_grown_too_big() -> None:
    sources = [file for file in FILES if file.suffix in {".py", ".i", ".h"}]
    big = {str(file.relative_to(ROOT)): count for file in sources if (count := len(_lines(file))) > MAX_LINES}
    assert not big


def test_there_are_no_notes_to_self() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in FILES
        if file.name != "requirements.lock"
        for number, line in enumerate(_lines(file), start=1)
        if NOTES.search(line)
    ]
    assert not found


def test_nothing_of_one_machine_is_in_the_files() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in FILES
        if file != Path(__file__)
        for number, line in enumerate(_lines(file), start=1)
        if MACHINE.search(line)
    ]
    assert not found


def test_no_except_catches_everything_namelessly() -> None:
    bare = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in CODE
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert not bare


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file in CODE
        if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        and file.read_text(encoding="utf-8").strip()
    ]
    assert not silent


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_reference_page_is_up_to_date(name: str) -> None:
    page = ROOT / "docs" / "reference" / name
    assert page.read_text(encoding="utf-8") == PAGES[name], "run `baton docs`"


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in FILES
        if page.suffix == ".md"
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_every_top_level_folder_explains_itself() -> None:
    folders = {file.relative_to(ROOT).parts[0] for file in FILES if len(file.relative_to(ROOT).parts) > 1}
    mute = []
    for name in sorted(folders - {".ci"}):
        package = ROOT / name / "__init__.py"
        told = package.is_file() and bool(ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))))
        if not told and not (ROOT / name / "README.md").is_file():
            mute.append(name)
    assert not mute


def test_scripts_are_executable_and_stop_at_the_first_error() -> None:
    for script in (*(ROOT / "scripts").iterdir(), ROOT / ".ci/run"):
        if script.is_file() and script.suffix == "":
            assert script.stat().st_mode & 0o111, script
            assert "set -euo pipefail" in script.read_text(encoding="utf-8"), script
            subprocess.run(["bash", "-n", script], check=True)
