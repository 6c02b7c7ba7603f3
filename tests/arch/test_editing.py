"""The tree keeps `.editorconfig`, and pre-commit runs what `make lint` runs."""

from __future__ import annotations

import configparser
import fnmatch
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def _sections() -> list[tuple[list[str], dict[str, str]]]:
    """(patterns of file names, properties) of each section, in order."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string("[root]\n" + (ROOT / ".editorconfig").read_text(encoding="utf-8"))
    assert parser["root"]["root"] == "true"
    return [(_patterns(name), dict(parser[name])) for name in parser.sections() if name != "root"]


def _patterns(glob: str) -> list[str]:
    """`*.{toml,yaml}` is `*.toml` and `*.yaml`."""
    braces = re.fullmatch(r"([^{]*)\{([^}]*)\}([^{]*)", glob)
    return [braces[1] + word + braces[3] for word in braces[2].split(",")] if braces else [glob]


SECTIONS = _sections()


def _wanted(name: str) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for patterns, properties in SECTIONS:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            wanted.update(properties)
    return wanted


def faults(name: str, content: bytes) -> Iterator[str]:
    """What in a file of text of this name is not as `.editorconfig` wants it."""
    wanted = _wanted(name)
    if wanted["end_of_line"] == "lf" and b"\r" in content:
        yield "ends lines with CR"
    if wanted["insert_final_newline"] == "true" and content and (content[-1:] != b"\n" or content[-2:] == b"\n\n"):
        yield "does not end with one newline"
    lines = content.split(b"\n")
    if wanted["trim_trailing_whitespace"] == "true":
        yield from (f"line {number} ends in blanks" for number, line in enumerate(lines, 1) if line != line.rstrip())
    if wanted["indent_style"] == "space":
        yield from (f"line {number} has a tab" for number, line in enumerate(lines, 1) if b"\t" in line)
    if wanted["indent_style"] == "tab":
        yield from (f"line {number} is indented by blanks" for number, line in enumerate(lines, 1) if line[:1] == b" ")


def _texts() -> Iterator[tuple[Path, bytes]]:
    """Files that git has or would add, but for those that are no text."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        file = ROOT / name
        if name and file.is_file() and b"\0" not in (content := file.read_bytes()):
            content.decode("utf-8")
            yield file, content


def test_the_tree_keeps_the_editorconfig() -> None:
    wrong = {str(file.relative_to(ROOT)): found for file, text in _texts() if (found := list(faults(file.name, text)))}
    assert not wrong


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.py", b"x = 1\r\n"),
        ("a.py", b"x = 1"),
        ("a.py", b"x = 1\n\n"),
        ("a.md", b"two blanks  \n"),
        ("a.toml", b"[a]\n\tb = 1\n"),
        ("Makefile", b"a:\n    echo\n"),
    ],
)
def test_a_file_that_does_not_is_found(name: str, content: bytes) -> None:
    assert list(faults(name, content))


def test_a_recipe_has_tabs_and_a_patch_what_it_changes() -> None:
    assert not list(faults("Makefile", b"a:\n\techo\n"))
    assert not list(faults("a.patch", b" \n+\tx;\n"))


def test_pre_commit_runs_what_make_lint_runs() -> None:
    lint = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "lint"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert local["repo"] == "local"
    assert [hook["entry"] for hook in local["hooks"]] == lint.stdout.splitlines()
    for hook in local["hooks"]:
        assert (hook["language"], hook["pass_filenames"], hook["always_run"]) == ("system", False, True), hook["id"]
