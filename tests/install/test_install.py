"""Installed into a clean environment, Baton starts, and brings its data files along."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("baton", "book", "config", "facts", "meter", "portal", "router", "suppression", "telemetry")


def _run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(one) for one in words], cwd=cwd, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment that sees the locked packages of this one, and Baton from a built wheel."""
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    offline = ("--no-deps", "--no-index")
    _run(*pip, "wheel", *offline, "--no-build-isolation", "-w", folder / "wheel", source, cwd=folder)
    (wheel,) = (folder / "wheel").glob("baton-*.whl")
    clean = folder / "clean"
    venv.create(clean, with_pip=False, symlinks=True)
    (site,) = clean.glob("lib/python3.*/site-packages")
    (site / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    target = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", clean / "bin/python")
    _run(*target, "install", *offline, "--ignore-installed", wheel, cwd=folder)
    return clean / "bin"


def test_help_and_version_of_the_installed_command(installed: Path, tmp_path: Path) -> None:
    assert "transfers" in _run(installed / "baton", "--help", cwd=tmp_path)
    assert _run(installed / "baton", "version", cwd=tmp_path).startswith("baton 0.")


def test_it_is_the_installed_copy_that_runs(installed: Path, tmp_path: Path) -> None:
    where = _run(installed / "python", "-c", "import meter; print(meter.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed.parent))


def test_the_wheel_has_the_license_and_says_that_its_packages_are_typed(installed: Path) -> None:
    (site,) = installed.parent.glob("lib/python3.*/site-packages")
    (told,) = site.glob("baton-*.dist-info")
    assert (told / "licenses/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    metadata = (told / "METADATA").read_text(encoding="utf-8")
    assert "License-Expression: GPL-3.0-or-later\n" in metadata
    assert "License-File: LICENSE\n" in metadata
    assert [name for name in PACKAGES if not (site / name / "py.typed").is_file()] == []


def test_every_template_is_part_of_it(installed: Path) -> None:
    (site,) = installed.parent.glob("lib/python3.*/site-packages")
    templates = [file.relative_to(ROOT) for name in PACKAGES for file in (ROOT / name).rglob("*.jinja")]
    assert Path("portal/credits/templates/credit.html.jinja") in templates
    assert [str(file) for file in templates if not (site / file).is_file()] == []


def test_presets_and_migrations_are_part_of_it(installed: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "config/examples/minimal.toml", tmp_path / "baton.toml")
    assert "no problems" in _run(installed / "baton", "check", "baton.toml", cwd=tmp_path)
    assert "buyer acme: added" in _run(installed / "baton", "import", "baton.toml", cwd=tmp_path)
    assert "acme" in _run(installed / "baton", "buyers", "list", cwd=tmp_path)
