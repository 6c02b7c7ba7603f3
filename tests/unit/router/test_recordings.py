"""Recordings become safe: headers are mended, hashes match, names change last."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import wave
from pathlib import Path

import pytest

from router.recordings import HEADER_BYTES, Recordings


def part(files: Recordings, transfer: str, *, frames: int, extra: bytes = b"", rate: int = 8000) -> str:
    """What a crash leaves: a header that says nothing, and audio."""
    name = files.new(transfer, 1_780_000_000_000_000)
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 2, rate, rate * 4, 4, 16, b"data", 0)
    assert len(head) == HEADER_BYTES
    files.part(name).write_bytes(head + b"\x01\x00\x02\x00" * frames + extra)
    return name


def test_a_recording_is_mended_hashed_and_renamed(tmp_path: Path) -> None:
    files = Recordings(tmp_path)
    name = part(files, "t1", frames=12_000, extra=b"\x01\x00\x02")
    assert name == "2026-05-28/t1.wav"
    assert files.left_over() == [name]
    done = files.finish_now(name)
    raw = (tmp_path / name).read_bytes()
    assert (done.error, done.bytes, done.audio_ms) == ("", HEADER_BYTES + 48_000, 1500)
    assert done.sha256 == hashlib.sha256(raw).hexdigest()
    assert files.left_over() == []
    with wave.open(str(tmp_path / name)) as found:
        assert (found.getnchannels(), found.getnframes()) == (2, 12_000)
    files.close()


@pytest.mark.parametrize("content", [b"", b"RIFF", b"\0" * 100])
def test_what_is_no_recording_stays_and_says_so(tmp_path: Path, content: bytes) -> None:
    files = Recordings(tmp_path)
    name = files.new("t1", 0)
    files.part(name).write_bytes(content)
    assert "not a recording" in files.finish_now(name).error
    assert files.part(name).exists()
    assert not (tmp_path / name).exists()


def test_finishing_goes_on_beside_the_caller(tmp_path: Path) -> None:
    files = Recordings(tmp_path)
    found = []
    for number in range(5):
        files.finish(part(files, f"t{number}", frames=100), found.append)
    files.close()
    assert sorted(one.file for one in found) == [f"2026-05-28/t{n}.wav" for n in range(5)]
    assert not any(one.error for one in found)


def test_retention_deletes_by_age_and_zero_keeps_for_ever(tmp_path: Path) -> None:
    files = Recordings(tmp_path)
    names = [part(files, f"t{n}", frames=10) for n in range(3)]
    for name in names:
        files.finish_now(name)
    old = time.time() - 91 * 86_400
    os.utime(tmp_path / names[0], (old, old))
    assert files.expire(0) == 0
    assert files.expire(90) == 1
    assert [(tmp_path / name).exists() for name in names] == [False, True, True]
