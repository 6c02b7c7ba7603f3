"""Recordings over HTTP: whole and in ranges, to whom they belong, and no way out of their folder."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest

from facts.fact import Kind
from portal.recordings.service import find_below
from tests.facts_builder import Story, connected_story
from tests.portal.house import House, recorded, wav
from tests.store.journal_tools import store

PATH = "/transfers/t-2/recording"
WHOLE = wav()
SIZE = len(WHOLE)


async def test_a_recording_comes_whole_with_its_digest(house: House) -> None:
    for who in ("noc", "acme"):
        found = await house.ask(who, "GET", PATH)
        assert (found.status_code, found.headers["content-type"], found.content) == (200, "audio/wav", WHOLE)
        assert found.headers["accept-ranges"] == "bytes"
        assert found.headers["etag"] == f'"{hashlib.sha256(WHOLE).hexdigest()}"'
        digest = base64.b64encode(hashlib.sha256(WHOLE).digest()).decode()
        assert found.headers["repr-digest"] == f"sha-256=:{digest}:"
        assert found.headers["cache-control"] == "no-store"
    head = await house.ask("acme", "HEAD", PATH)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(SIZE))


@pytest.mark.parametrize(
    ("said", "status", "part", "where"),
    [
        ("bytes=0-43", 206, WHOLE[:44], f"bytes 0-43/{SIZE}"),
        ("bytes=44-", 206, WHOLE[44:], f"bytes 44-{SIZE - 1}/{SIZE}"),
        ("bytes=-100", 206, WHOLE[-100:], f"bytes {SIZE - 100}-{SIZE - 1}/{SIZE}"),
        (f"bytes=100-{SIZE + 5}", 206, WHOLE[100:], f"bytes 100-{SIZE - 1}/{SIZE}"),
        (f"bytes={SIZE}-", 416, None, f"bytes */{SIZE}"),
        ("bytes=9-3", 400, None, None),
        ("seconds=1-2", 400, None, None),
        ("bytes=x-y", 400, None, None),
    ],
)
async def test_a_range_is_heeded(house: House, said: str, status: int, part: bytes | None, where: str | None) -> None:
    found = await house.ask("acme", "GET", PATH, headers={"Range": said})
    assert (found.status_code, found.headers.get("content-range")) == (status, where)
    if part is None:
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json()["status"] == status
    else:
        assert found.content == part
        assert found.headers["content-length"] == str(len(part))


async def test_ranges_and_conditions(house: House) -> None:
    several = await house.ask("acme", "GET", PATH, headers={"Range": "bytes=0-3,8-11"})
    assert (several.status_code, several.headers["content-type"][:20]) == (206, "multipart/byteranges")
    assert b"RIFF" in several.content
    assert b"WAVE" in several.content
    tag = several.headers["etag"]
    same = await house.ask("acme", "GET", PATH, headers={"Range": "bytes=0-3", "If-Range": tag})
    other = await house.ask("acme", "GET", PATH, headers={"Range": f"bytes={SIZE}-", "If-Range": '"another"'})
    assert (same.status_code, same.content) == (206, b"RIFF")
    assert (other.status_code, other.content) == (200, WHOLE)


async def test_to_whom_it_does_not_belong_it_is_not_there(house: House) -> None:
    other, none = await house.ask("best", "GET", PATH), await house.ask("best", "GET", "/transfers/t-9/recording")
    assert (other.status_code, none.status_code) == (404, 404)
    assert other.json()["detail"] == none.json()["detail"]
    assert (await house.ask("west", "GET", PATH)).status_code == 403
    assert (await house.ask("", "GET", PATH)).status_code == 401
    assert (await house.ask("acme", "GET", "/transfers/t-1/recording")).status_code == 404, "it was not recorded"
    assert (await house.ask("acme", "GET", f"{PATH}?part=2")).status_code == 404
    (house.recordings / "2026-06-02" / "t-2.wav").unlink()
    gone = await house.ask("acme", "GET", PATH)
    assert (gone.status_code, gone.json()["detail"]) == (404, "the recording is deleted, or lies elsewhere")


async def test_a_call_that_moved_has_several(house: House) -> None:
    story = recorded(connected_story("t-5"), "2026-06-02/t-5.wav", WHOLE)
    other = wav(0.5)
    recorded(story, "2026-06-02/t-5-2.wav", other)
    story.add(Kind.RECORDED, 61.0, file="2026-06-02/t-5-3.wav", sha256="", bytes=0, audio_ms=0, error="disk full")
    for name, content in (("t-5", WHOLE), ("t-5-2", other)):
        (house.recordings / "2026-06-02" / f"{name}.wav").write_bytes(content)
    await store(house.engine, story, boot="boot-2")
    assert (await house.ask("acme", "GET", "/transfers/t-5/recording")).content == WHOLE
    assert (await house.ask("acme", "GET", "/transfers/t-5/recording?part=2")).content == other
    assert (await house.ask("acme", "GET", "/transfers/t-5/recording?part=3")).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "../secret.wav",
        "2026-06-02/../../secret.wav",
        "link.wav",
        "away/secret.wav",
        "2026-06-02",
        "2026-06-02/notes.txt",
        "loop.wav",
        "a\0b.wav",
        "",
        "pipe.wav",
        "x" * 5_000 + ".wav",
    ],
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "recordings"
    (folder / "2026-06-02").mkdir(parents=True)
    (tmp_path / "secret.wav").write_bytes(WHOLE)
    (folder / "2026-06-02" / "notes.txt").write_bytes(WHOLE)
    (folder / "2026-06-02" / "good.wav").write_bytes(WHOLE)
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    (folder / "away").symlink_to(tmp_path)
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    os.mkfifo(folder / "pipe.wav")
    assert find_below(folder, name) is None
    assert find_below(folder, str(tmp_path / "secret.wav")) is None
    found = find_below(folder, "2026-06-02/good.wav")
    assert found is not None
    assert found[1].st_size == SIZE


async def test_a_fact_that_names_another_file_sends_nothing(house: House) -> None:
    (house.folder / "secret.wav").write_bytes(WHOLE)
    await store(house.engine, recorded(Story("t-6").start(), "../secret.wav", WHOLE), boot="boot-3")
    assert (await house.ask("noc", "GET", "/transfers/t-6/recording")).status_code == 404
