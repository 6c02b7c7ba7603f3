"""A top-level package is known wherever packages are named, and says that it is typed; the license goes along."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.install import test_install

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WITHOUT = {"tests", "bench"}  # packages that are not installed
PACKAGES = sorted(file.parent.name for file in ROOT.glob("*/__init__.py") if file.parent.name not in WITHOUT)


def test_there_is_something_to_look_at() -> None:
    assert "baton" in PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_every_package_is_installed_typed_and_tested() -> None:
    tools = PROJECT["tool"]
    assert sorted(tools["setuptools"]["packages"]["find"]["include"]) == [f"{package}*" for package in PACKAGES]
    assert sorted(tools["mypy"]["packages"]) == sorted([*PACKAGES, "bench"])
    assert sorted(tools["coverage"]["run"]["source_pkgs"]) == PACKAGES
    assert sorted(test_install.PACKAGES) == PACKAGES


def test_every_package_is_in_the_image() -> None:
    copied = re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted({*copied} - {"scripts"}) == PACKAGES


def test_the_license_is_the_one_that_is_named() -> None:
    assert (PROJECT["project"]["license"], PROJECT["project"]["license-files"]) == ("GPL-3.0-or-later", ["LICENSE"])
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.match(r"\s+GNU GENERAL PUBLIC LICENSE\n\s+Version 3, 29 June 2007\n", text)
    assert "LICENSE" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize(("words", "measured"), [((), True), (("PYTEST_ARGS=tests/arch",), False)])
def test_only_the_whole_of_make_test_is_held_to_the_floor(words: tuple[str, ...], measured: bool) -> None:
    make = ("make", "--no-print-directory", "--dry-run", "test", *words)
    outside = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "PYTEST_ARGS"}}
    told = subprocess.run(make, cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout
    (pytest_line,) = (line for line in told.splitlines() if line.startswith(".venv/bin/pytest"))
    assert ("--cov" in pytest_line.split()) is measured
    assert PROJECT["tool"]["coverage"]["report"]["fail_under"] > 0
    assert not re.search(r"--(?:no-)?cov", PROJECT["tool"]["pytest"]["ini_options"]["addopts"])
