"""List files for tests: written, packed, read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from openpyxl import Workbook

from suppression.reading.reader import Batch, Layout, ListFile, ReadOptions, UnreadableError

ONE, TWO, THREE = 12125550100, 12125550101, 12125550102
ROWS = "2125550100\n2125550101\n2125550102\n"


def list_file(folder: Path, data: bytes | str, name: str = "list.csv") -> Path:
    file = folder / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def zipped(members: dict[str, bytes | str], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def workbook_of(*sheet_rows: list[list[object]]) -> bytes:
    book = Workbook()
    book.remove(book.active)
    for number, cells in enumerate(sheet_rows):
        sheet = book.create_sheet(f"List {number}")
        for row in cells:
            sheet.append(row)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


class ListRead:
    def __init__(self, opened: ListFile) -> None:
        self.layout: Layout = opened.layout
        self.header = opened.header_bytes
        self.batches: list[Batch] = list(opened)
        self.keys = [key for one in self.batches for key, ok in zip(one.keys.tolist(), one.ok, strict=True) if ok]
        self.rejects = [reject for one in self.batches for reject in one.rejects]
        self.lines = [line for one in self.batches for line in one.lines.tolist()]
        self.texts = [
            bytes(one.text[start:end]) for one in self.batches for start, end in zip(one.starts, one.ends, strict=True)
        ]
        self.checksum = opened.checksum
        self.skipped = opened.skipped
        self.unused = opened.unused


def read_list(file: Path, wanted: ReadOptions | None = None, **options: int) -> ListRead:
    with ListFile(file, wanted or ReadOptions(), **options) as opened:
        return ListRead(opened)


def why_unreadable(file: Path, wanted: ReadOptions | None = None) -> str:
    """Why it cannot be read; the message names the file."""
    with pytest.raises(UnreadableError) as caught:
        read_list(file, wanted)
    assert str(caught.value).startswith(f"{file}: ")
    return str(caught.value).removeprefix(f"{file}: ")
