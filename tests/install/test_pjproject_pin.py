"""The SIP engine is built of one tarball of PJSIP: another is refused before anything of it is unpacked."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "scripts" / "build-pjsua2"
PIN = ROOT / "scripts" / "pjsua2" / "pjproject.pin"
LINES = [line for line in PIN.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
((VERSION, CHECKSUM),) = (line.split() for line in LINES)


def _tarball(folder: Path, *, minor: int, revision: str = "", suffix: str = "") -> Path:
    """A tarball that has of PJSIP the file with its version alone."""
    lines = {"MAJOR": "2", "MINOR": str(minor), "REV": revision, "SUFFIX": suffix}
    text = "".join(f"export PJ_VERSION_{name}  := {value}\n" for name, value in lines.items()).encode()
    path = folder / f"pjproject-{minor}{revision}{suffix}.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        info = tarfile.TarInfo("pjproject/version.mak")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return path


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _find(tmp_path: Path, *words: str, **environment: str | Path) -> subprocess.CompletedProcess[str]:
    settings = {name: str(value) for name, value in environment.items()}
    return subprocess.run(
        [BUILD, *words],
        env={**os.environ, "BATON_CACHE": str(tmp_path / "cache"), **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_pin_is_an_exact_version_and_a_sha_256() -> None:
    assert VERSION == "2.17"
    assert len(bytes.fromhex(CHECKSUM)) == hashlib.sha256().digest_size


@pytest.mark.parametrize("words", [("--tarball",), ()], ids=["asked for alone", "at a build"])
def test_another_tarball_is_refused_and_the_message_says_what_was_expected_what_found_and_what_to_do(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    wrong = _tarball(tmp_path, minor=17)
    refused = _find(tmp_path, *words, PJPROJECT_TARBALL=wrong)
    assert refused.returncode == 1
    assert not refused.stdout
    for part in (f"PJSIP {VERSION}, SHA-256 {CHECKSUM}", f"SHA-256 {_checksum(wrong)}, {wrong}", "PJPROJECT_SHA256"):
        assert part in refused.stderr


def test_a_checksum_given_beside_it_lets_another_packing_of_the_same_version_in(tmp_path: Path) -> None:
    packing = _tarball(tmp_path, minor=17)
    taken = _find(tmp_path, "--tarball", PJPROJECT_TARBALL=packing, PJPROJECT_SHA256=_checksum(packing))
    assert taken.stdout == f"{packing}\n", taken.stderr


@pytest.mark.parametrize(
    ("minor", "revision", "suffix", "version"),
    [(18, "", "", "2.18"), (17, "1", "", "2.17.1"), (17, "", "-dev", "2.17-dev"), (16, "", "", "2.16")],
)
def test_another_version_is_refused_whatever_checksum_is_given(
    tmp_path: Path, minor: int, revision: str, suffix: str, version: str
) -> None:
    other = _tarball(tmp_path, minor=minor, revision=revision, suffix=suffix)
    refused = _find(tmp_path, "--tarball", PJPROJECT_TARBALL=other, PJPROJECT_SHA256=_checksum(other))
    assert refused.returncode == 1
    assert f"PJSIP {version}, {other}" in refused.stderr


def test_a_checksum_that_is_not_the_tarballs_is_refused(tmp_path: Path) -> None:
    tarball = _tarball(tmp_path, minor=17)
    refused = _find(tmp_path, "--tarball", PJPROJECT_TARBALL=tarball, PJPROJECT_SHA256="0" * 64)
    assert refused.returncode == 1
    assert f"SHA-256 {_checksum(tarball)}" in refused.stderr


def test_a_checksum_without_a_tarball_is_refused(tmp_path: Path) -> None:
    refused = _find(tmp_path, "--tarball", PJPROJECT_SHA256="0" * 64)
    assert refused.returncode == 1
    assert "goes with PJPROJECT_TARBALL" in refused.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused = _find(tmp_path, "--tarball", PJPROJECT_TARBALL=tmp_path / "none.tar.xz")
    assert refused.returncode == 1
    assert "no such file" in refused.stderr


def test_what_holds_no_pjsip_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.tar.xz"
    text.write_text("no tarball", encoding="utf-8")
    refused = _find(tmp_path, "--tarball", PJPROJECT_TARBALL=text, PJPROJECT_SHA256=_checksum(text))
    assert refused.returncode == 1
    assert "no version.mak" in refused.stderr
