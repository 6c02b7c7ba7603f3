"""How a person reads a list file: cell by cell, with open eyes. Shares no code with what it is held against.

It knows plain Python's `csv`, `gzip`, `zipfile` and XML, and what people call a telephone number. It does not know
which column is meant: whatever looks like a number, anywhere, is `Seen`, with the place where it stands.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
from dataclasses import dataclass, replace
from xml.etree import ElementTree as ET

_SPREADSHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_WHOLE = re.compile(
    r"(?:tel:)?(?:\+|00|011)?[ ]?1?[ .\-]{0,2}\(?([2-9]\d\d)\)?[ .\-/]{0,3}([2-9]\d\d)[ .\-/]?(\d{4})(?:\.0{1,2})?"
    r"(?:[ ,;]*(?:;ext=|ext\.?|x|#)[ ]?\d{1,6})?",
    re.IGNORECASE,
)  # and nothing else in the cell
_INSIDE = re.compile(r"(?<![\d.])(?:\+?1[ .\-]?)?\(?([2-9]\d\d)\)?[ .\-]?([2-9]\d\d)[ .\-]?(\d{4})(?!\d)")


@dataclass(frozen=True, slots=True)
class Seen:
    """A number in a cell. `whole`: the cell holds it and nothing else."""

    member: str  # of an archive, or the sheet of a workbook; the two with a space between
    line: int
    column: int  # from 1
    ten: str
    whole: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands where."""

    member: str
    line: int
    column: int
    text: str


def cells(data: bytes, marks: dict[str, str], member: str = "") -> list[Cell]:
    """All cells of a file that say something. `marks`: what divides cells, by member, as its writer meant it."""
    if data[:2] == b"\x1f\x8b":
        return cells(gzip.decompress(data), marks, member)
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if "[Content_Types].xml" in archive.namelist():
                return _of_workbook(archive, member)
            found = []
            for info in archive.infolist():
                if not info.is_dir():
                    found += cells(archive.read(info), marks, info.filename)
            return found
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return _of_text(data.decode("utf-16"), marks[member], member)
    return _of_text(data.decode("utf-8-sig"), marks[member], member)


def _of_text(text: str, mark: str, member: str) -> list[Cell]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    found = []
    line = 1
    for row in reader:
        found += [Cell(member, line, at, one.strip()) for at, one in enumerate(row, start=1) if one.strip()]
        line = reader.line_num + 1
    return found


def _of_workbook(archive: zipfile.ZipFile, member: str) -> list[Cell]:
    book = ET.fromstring(archive.read("xl/workbook.xml"))
    found: list[Cell] = []
    for number, sheet in enumerate(book.iter(f"{_SPREADSHEET}sheet"), start=1):
        where = f"{member} {sheet.attrib['name']}".strip()
        page = ET.fromstring(archive.read(f"xl/worksheets/sheet{number}.xml"))
        for one in page.iter(f"{_SPREADSHEET}c"):
            said = "".join(one.itertext()).strip()
            letters, digits = re.fullmatch(r"([A-Z]+)(\d+)", one.attrib["r"]).groups()  # type: ignore[union-attr]
            if said:
                found.append(Cell(where, int(digits), ord(letters) - 64, said))
    alone = len({one.member for one in found}) == 1
    return [replace(one, member=member) for one in found] if alone else found  # one sheet needs no name


def sees(all_cells: list[Cell]) -> list[Seen]:
    """What a person would call a telephone number, in these cells."""
    found = []
    for one in all_cells:
        bare = one.text.removeprefix("=").strip("\"'")
        whole = _WHOLE.fullmatch(bare)
        if whole is not None:
            found.append(Seen(one.member, one.line, one.column, "".join(whole.groups()), whole=True))
            continue
        inside = {"".join(hit) for hit in _INSIDE.findall(bare)}
        found += [Seen(one.member, one.line, one.column, ten, whole=False) for ten in sorted(inside)]
    return found


def may_say(text: str) -> set[str]:
    """The North American numbers (E.164) that a person could read out of a cell: no digit added, dropped or changed."""
    bare = text.strip("\"'= ")
    whole = re.fullmatch(r"([+-]?\d+)\.(\d{1,3})", bare)
    if whole is not None:
        bare = whole[1] if not whole[2].strip("0") and whole[1].isdigit() else ""
    power = re.fullmatch(r"(\d)\.?(\d*)E\+?(\d+)", bare, re.IGNORECASE)
    if power is not None:
        bare = power[1] + power[2] if len(power[2]) == int(power[3]) else ""
    found = set()
    for run in re.findall(r"\d+", re.sub(r"[ ()./\-]", "", bare)):
        for prefix in ("", "1", "001", "0111"):
            if run.startswith(prefix) and len(run) == len(prefix) + 10:
                found.add(f"+1{run[len(prefix) :]}")
    return found
