"""A whole file scrubbed: every line in one file and no other, as it stands; and no file where that cannot be said."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path

import numpy as np
import orjson
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from book.lists import Actor
from book.numbers import NumberError, normalise
from meter.store.engine import open_store
from meter.suppression_rows.sql.lists import ListRows
from suppression import importer
from suppression.activating import ListRefusedError
from suppression.batch import BatchRefusedError, Job, Summary, each_line, scrub_file
from suppression.importer import Task, import_file
from suppression.index import LoadedList, finder, make_part
from suppression.kinds import Kind
from suppression.reading.reader import ReadOptions
from suppression.receipt import Signer
from suppression.scrub import Scrub, State
from suppression.snapshot import Entries, extent_of, load, write

ANN = Actor("ann", "test")
SIGNER = Signer(b"k" * 32)
LISTED = range(12_125_550_000, 12_125_550_050)
KINDS = ("clean", "suppressed", "unreadable")


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[ListRows]:
    engine = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'baton.db'}")
    yield ListRows(engine)
    await engine.dispose()


@pytest_asyncio.fixture
async def state(store: ListRows, tmp_path: Path) -> State:
    file = tmp_path / "dnc.csv"
    file.write_text("phone\n" + "".join(f"+{one}\n" for one in LISTED))
    await import_file(store, tmp_path, Task(file, "dnc", None), ANN)
    scrub = Scrub(store, tmp_path, SIGNER)
    await scrub.reload()
    return scrub.state


@pytest.fixture
def scrubbed(state: State, tmp_path: Path) -> Callable[..., tuple[Summary, dict[str, bytes]]]:
    def go(data: bytes, name: str = "in.csv", column: str = "phone") -> tuple[Summary, dict[str, bytes]]:
        file = tmp_path / name
        file.write_bytes(data)
        done = scrub_file(state, SIGNER, Job(file, "acme", tmp_path / "out", ReadOptions(column)))
        return done, {kind: (tmp_path / "out" / f"{name}.{kind}.csv").read_bytes() for kind in KINDS}

    return go


Scrubbed = Callable[..., tuple[Summary, dict[str, bytes]]]
_ends = st.sampled_from(["\n", "\r\n", "\r"])
_number = st.one_of(
    st.integers(0, 99).map(lambda one: f"212555{one:04}"), st.sampled_from(["abc", "", "999", "+44 20 7946 0000"])
)
_note = st.sampled_from(["", "x", '"a\nb"', '"a,b"', '"c\r\nd"', '"e\rf"', 'z"q', '""', '"\n"', '"he said ""hi"""'])
_row = st.tuples(_number, _note)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_every_row_is_in_one_file_byte_for_byte(data: st.DataObject) -> None:
    rows = data.draw(st.lists(_row, min_size=1, max_size=12))
    ends = data.draw(st.lists(_ends, min_size=1, max_size=3))
    text = "id,phone,note" + ends[0]
    wanted: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for place, (number, note) in enumerate(rows):
        row = f"{place},{number},{note}"
        wanted[_verdict(number)].append(row)
        text += row + ends[place % len(ends)]
    if data.draw(st.booleans()):
        text = text.removesuffix(ends[(len(rows) - 1) % len(ends)])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "in.csv"
        file.write_bytes(text.encode())
        done = scrub_file(_state(), SIGNER, Job(file, "acme", Path(folder), ReadOptions("phone")))
        got = {kind: (Path(folder) / f"in.csv.{kind}.csv").read_bytes().decode() for kind in KINDS}
    assert (done.lines, done.header_lines) == (len(rows), 1)
    for kind in KINDS:
        assert _rows(got[kind], kind) == wanted[kind]


def _verdict(number: str) -> str:
    try:
        return "suppressed" if normalise(number) in LISTED else "clean"
    except NumberError:
        return "unreadable"


def _rows(text: str, kind: str) -> list[str]:
    """Without the header, line ends and what was added; a row ends outside of quotes. Its place begins each row."""
    found: list[str] = []
    row = ""
    inside = False
    for mark in text:
        opens = mark == '"' and (inside or row.endswith((",", '"')))  # elsewhere it is a mark like any other
        inside ^= opens
        if mark in "\r\n" and not inside:
            if row:
                found.append(row)
            row = ""
        else:
            row += mark
    assert not row
    assert found[0] == "id,phone,note" + {"clean": "", "suppressed": ",suppressed_by", "unreadable": ",reason"}[kind]
    if kind == "suppressed":
        assert all(one.endswith(",dnc") for one in found[1:])
    return found[1:] if kind == "clean" else [_without_last(one) for one in found[1:]]


def _without_last(row: str) -> str:
    return row.rpartition(',"')[0] if row.endswith('"') else row.rpartition(",")[0]


@cache
def _state() -> State:
    """One list, without a store."""
    entries = [Entries(np.array(LISTED, np.uint64))]
    with tempfile.TemporaryDirectory() as folder:
        extent = extent_of(entries, Kind.NUMBER)
        read = load(*write(Path(folder), "dnc", entries, extent, kind=Kind.NUMBER, source_checksum="s", built_at="b"))
    one = LoadedList("dnc", 1, 0, read.checksum, None, Kind.NUMBER, read, find=finder(read))
    return State(shared=make_part([one]))


def test_rows_that_end_with_cr_are_not_cut_at_an_lf_within_quotes(scrubbed: Scrubbed) -> None:
    _, got = scrubbed(b'phone,name,address\r2125550111,Ann,x\r2125550001,Bob,"1 Main St\nApt 4"\r')
    assert got["suppressed"] == b'phone,name,address,suppressed_by\n2125550001,Bob,"1 Main St\nApt 4",dnc\n'
    assert got["clean"] == b"phone,name,address\n2125550111,Ann,x\r"


def _zip(file: Path, *members: str) -> bytes:
    with zipfile.ZipFile(file, "w") as archive:
        for place, member in enumerate(members):
            archive.writestr(f"{place}.csv", member)
    return file.read_bytes()


def test_members_that_agree_are_scrubbed_as_one(scrubbed: Scrubbed, tmp_path: Path) -> None:
    packed = _zip(tmp_path / "z", "phone,x\n2125550111,1", "phone,x\n2125550112,2\n2125550001,3\n")
    done, got = scrubbed(packed, "in.zip")
    assert (done.header_lines, done.clean, done.suppressed) == (2, 2, 1)
    assert got["clean"] == b"phone,x\n2125550111,1\n2125550112,2\n"
    assert "  header      2 (not looked up)" in list(each_line(done))


@pytest.mark.parametrize(
    "other", ["x,phone\n2,2125550112\n", "phone;x\n2125550112;2\n", "phone,y\n2125550112,2\n", "phone\n2125550112\n"]
)
def test_members_that_differ_are_refused_by_name(scrubbed: Scrubbed, tmp_path: Path, other: str) -> None:
    packed = _zip(tmp_path / "z", "phone,x\n2125550111,1\n", other)
    with pytest.raises(BatchRefusedError, match=r"'1\.csv' are unlike"):
        scrubbed(packed, "in.zip")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_name_that_is_no_text_is_made_one(scrubbed: Scrubbed, tmp_path: Path) -> None:
    name = os.fsdecode(b"lead\xff.csv")
    done, _ = scrubbed(b"phone\n2125550111\n", name)
    assert done.file == "lead?.csv"
    told = orjson.loads((tmp_path / "out" / f"{name}.summary.json").read_bytes())
    assert told["checksums"]["lead?.csv.clean.csv"] == hashlib.sha256(b"phone\n2125550111\n").hexdigest()
    assert SIGNER.verify_document(told["receipt"])["sha256"] == told["checksums"]
    assert told["took_ms"] == done.took_ms


def test_a_summary_takes_the_place_of_a_link_and_is_the_last_to_appear(
    scrubbed: Scrubbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    other = tmp_path / "precious"
    other.write_text("precious")
    (tmp_path / "out" / "in.csv.summary.json").symlink_to(other)
    order: list[str] = []
    rename = Path.replace

    def replace(one: Path, target: Path) -> Path:
        order.append(target.name)
        return rename(one, target)

    monkeypatch.setattr(Path, "replace", replace)
    scrubbed(b"phone\n2125550111\n")
    assert other.read_text() == "precious"
    assert order == [*(f"in.csv.{kind}.csv" for kind in KINDS), "in.csv.summary.json"]
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == sorted(order)


# --- files made to fill a disk


async def test_a_file_that_is_no_list_is_not_read_to_its_end(
    store: ListRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "MANY_REJECTS", 10)
    file = tmp_path / "in.csv"
    file.write_text("phone\n" + "x\n" * 5_000_000)
    with pytest.raises(ListRefusedError, match=r"of the first .* is it the right column") as caught:
        await import_file(store, tmp_path, Task(file, "in", None, options=ReadOptions("phone")), ANN)
    assert caught.value.report is not None
    assert caught.value.report.lines < 3_000_000
    monkeypatch.setattr(importer, "MANY_REJECTS", 10_000)
    file.write_text("phone\n2125550100\n" + "x\n" * 1_000)
    for percent, why in ((2.0, "1000 of 1001"), (99.0, "1000 of 1001")):
        with pytest.raises(ListRefusedError, match=why):
            await import_file(
                store, tmp_path, Task(file, "in", None, options=ReadOptions("phone"), reject_percent=percent), ANN
            )


async def test_rejects_past_a_million_are_counted(
    store: ListRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "MAX_REJECTS_LISTED", 3)
    monkeypatch.setattr(importer, "MANY_REJECTS", 1)
    file = tmp_path / "in.csv"
    rejects = tmp_path / "rejects.csv"
    for bad, last in ((3, "4,not a phone number"), (7, "5,the first of 4 more that are not listed")):
        file.write_text("phone\n" + "x\n" * bad + "2125550100\n")
        task = Task(file, "in", None, options=ReadOptions("phone"), reject_percent=100, rejects_file=rejects)
        done = await import_file(store, tmp_path, task, ANN)
        assert done.report.rejected == bad
        assert rejects.read_text().splitlines()[-1] == f",{last},"
        assert len(rejects.read_text().splitlines()) == min(bad, 4) + 1
