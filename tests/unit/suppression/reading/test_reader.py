"""List files as they come: every form, what is decided about them, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from openpyxl import Workbook
from openpyxl.utils.datetime import CALENDAR_MAC_1904

from suppression.kinds import KEY_BYTES, Kind
from suppression.reading import reader, rows, sheets, sources, workbooks
from suppression.reading.reader import Batch, Layout, ListFile, Reject, UnreadableError, Unused, Wanted
from suppression.reading.shapes import Part

ONE, TWO, THREE = 12125550100, 12125550101, 12125550102
ROWS = "2125550100\n2125550101\n2125550102\n"


def _file(folder: Path, data: bytes | str, name: str = "list.csv") -> Path:
    file = folder / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def _commented(archive: bytes, comment: bytes) -> bytes:
    return archive[:-2] + len(comment).to_bytes(2, "little") + comment


def _zip(members: dict[str, bytes | str], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def _workbook(*sheet_rows: list[list[object]]) -> bytes:
    book = Workbook()
    book.remove(book.active)
    for number, cells in enumerate(sheet_rows):
        sheet = book.create_sheet(f"List {number}")
        for row in cells:
            sheet.append(row)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def _patched(workbook: bytes, part: str, old: bytes, new: bytes) -> bytes:
    """A workbook as no usual program writes it."""
    with zipfile.ZipFile(io.BytesIO(workbook)) as archive:
        parts: dict[str, bytes | str] = {name: archive.read(name) for name in archive.namelist()}
    assert old in bytes(parts[part])  # type: ignore[arg-type]
    parts[part] = parts[part].replace(old, new)  # type: ignore[arg-type]
    return _zip(parts)


def _noise(size: int) -> str:
    """Numbers that do not pack well."""
    parts = (np.random.default_rng(7).integers(low, high, size) for low, high in ((200, 999), (200, 999), (1000, 9999)))
    return "".join(f"{area}{exchange}{line}\n" for area, exchange, line in zip(*parts, strict=True))


class _Result:
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


def _read(file: Path, wanted: Wanted | None = None, **options: int) -> _Result:
    with ListFile(file, wanted or Wanted(), **options) as opened:
        return _Result(opened)


def _why(file: Path, wanted: Wanted | None = None) -> str:
    """Why it cannot be read; the message names the file."""
    with pytest.raises(UnreadableError) as caught:
        _read(file, wanted)
    assert str(caught.value).startswith(f"{file}: ")
    return str(caught.value).removeprefix(f"{file}: ")


# --- forms


FORMS = {
    "plain": ROWS,
    "no line end at the end": ROWS.rstrip(),
    "CRLF": ROWS.replace("\n", "\r\n"),
    "CR": ROWS.replace("\n", "\r"),
    "UTF-8 with BOM": b"\xef\xbb\xbf" + ROWS.encode(),
    "UTF-16 little": b"\xff\xfe" + ROWS.encode("utf-16-le"),
    "UTF-16 big": b"\xfe\xff" + ROWS.encode("utf-16-be"),
    "gz": gzip.compress(ROWS.encode()),
    "gz of UTF-16": gzip.compress(ROWS.encode("utf-16")),
    "gz in parts": gzip.compress(ROWS[:15].encode()) + gzip.compress(ROWS[15:].encode()),
    "gz with zeros behind": gzip.compress(ROWS.encode()) + bytes(512),
    "zip": _zip(
        {"folder/": "", "folder/list.csv": ROWS, "__MACOSX/list.csv": "2125550199", "folder/.list.csv": "2125550199"}
    ),
    "zip with zeros behind": _zip({"list.csv": ROWS}) + bytes(512),
    "zip with a comment": _commented(_zip({"list.csv": ROWS}), b"made by us"),
    "zip of gz": _zip({"list.csv.gz": gzip.compress(ROWS.encode())}),
    "zip of LZMA": _zip({"list": ROWS}, zipfile.ZIP_LZMA),
    "zip of xlsx": _zip({"list.xlsx": _workbook([[2125550100], ["(212) 555-0101"], ["2125550102"]])}),
    "xlsx": _workbook([[2125550100], [2125550101.0], ["2125550102"]]),
    "zip of three": _zip({"a.csv": ROWS[:11], "b.txt": "phone\n2125550101", "c": "x;tel\n;2125550102\n"}),
}


@pytest.mark.parametrize("piece", [1 << 20, 5])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_any_form_is_read(tmp_path: Path, form: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIECE", piece)
    data = FORMS[form]
    raw = data if isinstance(data, bytes) else data.encode()
    result = _read(_file(tmp_path, raw, "list"), chunk=piece)
    assert result.keys == [ONE, TWO, THREE]
    assert result.rejects == []
    assert result.checksum == hashlib.sha256(raw).hexdigest()


def test_rows_come_as_they_stand_in_the_file(tmp_path: Path) -> None:
    text = 'id;"Phone";city\r\n\r\n1;"(212) 555-0100";"New\r\nYork"\r\n ; ;\r\n2;;Bonn\r\n3;2125550101;K\xf6ln'.encode(
        "latin-1"
    )
    file = _file(tmp_path, text)
    result = _read(file, Wanted("phone"))
    assert result.header == b'id;"Phone";city\r\n'
    assert result.layout.header == ("id", "Phone", "city")
    assert (result.layout.delimiter, result.layout.column) == (";", 1)
    assert result.texts == [b'1;"(212) 555-0100";"New\r\nYork"\r\n', b"2;;Bonn\r\n", b"3;2125550101;K\xf6ln"]
    assert result.lines == [3, 6, 7]
    assert result.keys == [ONE, TWO]
    assert result.rejects == [Reject(6, "empty")]


def test_progress_is_told_and_a_file_is_read_once(tmp_path: Path) -> None:
    file = _file(tmp_path, _noise(500_000))
    with ListFile(file) as opened:
        assert opened.bytes_total == file.stat().st_size
        with pytest.raises(RuntimeError):
            _ = opened.checksum
        batches = iter(opened)
        next(batches)
        assert 0 < opened.bytes_read < opened.bytes_total
        assert sum(len(one.keys) for one in batches) > 100_000
        assert opened.bytes_read == opened.bytes_total
        with pytest.raises(RuntimeError):
            next(iter(opened))


def test_a_batch_holds_a_chunk_at_most(tmp_path: Path) -> None:
    result = _read(_file(tmp_path, gzip.compress(_noise(20_000).encode())), chunk=4_000)
    assert max(len(one.text) for one in result.batches) <= 4_000 + 11 + len(rows.PAD)
    assert len(result.keys) + len(result.rejects) == 20_000


def test_an_empty_file_is_an_empty_list(tmp_path: Path) -> None:
    for data in (b"", b"\n\r\n\n", b"\xef\xbb\xbf", gzip.compress(b""), _workbook([]), _zip({"list.csv": ""})):
        result = _read(_file(tmp_path, data))
        assert (result.batches, result.header, result.layout.sampled) == ([], b"", 0)


def test_what_begins_with_nothing_for_too_long_is_refused(tmp_path: Path) -> None:
    few, many = " ,\n" * 9_000 + "\n" * 100_000, " ,\n" * 11_000
    assert _read(_file(tmp_path, few + "x,phone\ny,2125550100\n")).lines == [109_002]
    assert _why(_file(tmp_path, many + "x,phone\n")) == "begins with too many blank rows"
    assert _why(_file(tmp_path, "\n" * 5_000_000 + "x,phone\n")) == "begins with too many blank rows"


def test_a_header_alone_is_an_empty_list(tmp_path: Path) -> None:
    result = _read(_file(tmp_path, "id,Phone,city\n"))
    assert (result.batches, result.layout.column, result.layout.sure) == ([], 1, False)
    assert _read(_file(tmp_path, "Phone"), Wanted("phone")).header == b"Phone"
    assert "no column reads as numbers" in _why(_file(tmp_path, "id,name\n"))


# --- sheets


def test_all_rows_of_the_sheet_that_is_asked_for_are_read(tmp_path: Path) -> None:
    named = [["Name", "Phone", "Until"], ['A, "B"\nC', 2125550100, date(2030, 5, 1)], [], [None, "no"]]
    file = _file(tmp_path, _workbook([], [[None, " "]], named, [["2125550199"]]))
    result = _read(file, Wanted("phone", expires_column="until", sheet="List 2"))
    assert result.keys == [ONE]
    assert result.batches[0].expires is not None
    assert result.batches[0].expires[0] == datetime(2030, 5, 2, 4, tzinfo=UTC).timestamp()  # midnight in New York
    assert result.rejects == [Reject(4, "not a phone number")]
    assert result.texts[0] == b'"A, ""B"" C",2125550100,2030-05-01\n'
    assert result.skipped == ("sheet 'List 3'",)


def test_a_sheet_is_not_cut_to_the_size_that_it_claims(tmp_path: Path) -> None:
    book = _patched(_workbook([["x", 2125550100], ["y", 2125550101]]), "xl/worksheets/sheet1.xml", b"A1:B2", b"A1:A1")
    assert _read(_file(tmp_path, book)).keys == [ONE, TWO]


def test_rows_that_a_sheet_leaves_out_count_as_lines(tmp_path: Path) -> None:
    book = _workbook([[2125550100], [2125550101]])
    moved = _patched(book, "xl/worksheets/sheet1.xml", b'<row r="2"><c r="A2"', b'<row r="70"><c r="A70"')
    assert _read(_file(tmp_path, moved)).lines == [1, 70]


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("xl/worksheets/sheet1.xml", b'<row r="2"', b'<row r="1"'),
        ("xl/worksheets/sheet1.xml", b'<row r="2"', b'<row r="2000000000"'),
        ("xl/worksheets/sheet1.xml", b'r="A2"', b'r="ZZZ2"'),
        ("xl/worksheets/sheet1.xml", b'r="A2"', b'r="A2"/><c r="A2"'),
        ("xl/worksheets/sheet1.xml", b"</sheetData>", b""),
        ("xl/workbook.xml", b"<sheets>", b"<sheets"),
        ("xl/workbook.xml", b"<sheet ", b"<page "),
    ],
)
def test_a_workbook_that_is_wrong_is_refused(tmp_path: Path, part: str, old: bytes, new: bytes) -> None:
    book = _patched(_workbook([["(212) 555-0100"], ["2125550101"]]), part, old, new)
    assert "cannot be read as XLSX" in _why(_file(tmp_path, book))


SHARED = (
    "<sst><si><t>Phone</t></si>"
    "<si><r><t>(212) </t></r><r><t>555-0100_x000D_</t></r><rPh sb='0' eb='1'><t>two one two</t></rPh></si></sst>"
)


def _by_excel(cells: str, shared: str = SHARED) -> bytes:
    """A workbook as Excel writes it, with its texts in a part of their own."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    packages = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    override = '<Override PartName="/xl/{}.xml" ContentType="' + kind + '.{}+xml"/>'
    parts = (("workbook", "sheet.main"), ("worksheets/sheet1", "worksheet"), ("sharedStrings", "sharedStrings"))
    types = "".join(override.format(*one) for one in parts)
    relation = '<Relationship Id="r{}" Type="' + office + '/{}" Target="{}.xml"/>'
    told = relation.format(1, "worksheet", "worksheets/sheet1") + relation.format(2, "sharedStrings", "sharedStrings")
    return _zip(
        {
            "[Content_Types].xml": f'<Types xmlns="{packages}/content-types">{types}</Types>',
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{packages}/relationships">{told}</Relationships>',
            "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
            '<sheet name="A" sheetId="1" r:id="r1"/></sheets></workbook>',
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>',
            "xl/sharedStrings.xml": shared.replace("<sst>", f'<sst xmlns="{main}">'),
        }
    )


def test_a_workbook_as_excel_writes_it_is_read(tmp_path: Path) -> None:
    cells = (
        '<row r="1"><c r="B1" t="s"><v>0</v></c></row><row r="2"><c r="B2" t="s"><v>1</v></c></row>'
        '<row r="3"><c r="A3"><v>5</v></c><c r="B3"><v>2.125550101E9</v></c></row>'
        '<row r="4"><c r="A4" t="b"><v>1</v></c><c r="B4"><f>B3+1</f><v>2125550102</v></c></row>'
    )
    result = _read(_file(tmp_path, _by_excel(cells)))
    assert result.keys == [ONE, TWO, THREE]
    assert result.texts[1:] == [b"5,2125550101\n", b"1,2125550102\n"]
    for wrong in ("2", "-1", "x"):
        assert "cannot be read as XLSX" in _why(_file(tmp_path, _by_excel(cells.replace("<v>0<", f"<v>{wrong}<"))))
    entity = '<!DOCTYPE sst [<!ENTITY a "2125550100">]>' + SHARED.replace("Phone", "&a;")
    assert "cannot be read as XLSX " in _why(_file(tmp_path, _by_excel(cells, entity)))


def test_days_are_counted_as_the_workbook_counts_them(tmp_path: Path) -> None:
    book = Workbook()
    book.epoch = CALENDAR_MAC_1904
    six = datetime(2030, 5, 1, 6, tzinfo=UTC).replace(tzinfo=None)  # workbooks know no zones
    for row in (["phone", "until"], [2125550100, date(2030, 5, 1)], [2125550101, six]):
        book.active.append(row)
    data = io.BytesIO()
    book.save(data)
    batch = _read(_file(tmp_path, data.getvalue()), Wanted(expires_column="until")).batches[0]
    assert batch.expires is not None
    ends = [datetime(2030, 5, 2, 4, tzinfo=UTC), datetime(2030, 5, 1, 10, tzinfo=UTC)]
    assert batch.expires.tolist() == [one.timestamp() for one in ends]


def test_a_sheet_that_is_shown_goes_before_one_that_is_not(tmp_path: Path) -> None:
    book = Workbook()
    book.active["A1"], book.active.sheet_state = 2125550199, "hidden"
    book.create_sheet("Shown")["A1"] = 2125550100
    data = io.BytesIO()
    book.save(data)
    result = _read(_file(tmp_path, data.getvalue()))
    assert (result.keys, [one.member for one in result.batches]) == (
        [ONE, 12125550199],
        ["sheet 'Shown'", "sheet 'Sheet'"],
    )


def test_a_number_in_the_dress_of_a_date_is_a_number(tmp_path: Path) -> None:
    book = Workbook()
    book.active["A1"] = "2125550100"
    book.active["A2"] = 2125550101  # no date is that late
    book.active["A2"].number_format = "yyyy-mm-dd"
    data = io.BytesIO()
    book.save(data)
    assert _read(_file(tmp_path, data.getvalue())).keys == [ONE, TWO]


def test_a_workbook_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = _workbook([[2125550100]])
    file, packed = _file(tmp_path, book), _file(tmp_path, _zip({"a.xlsx": book}), "a.zip")
    monkeypatch.setattr(sheets, "MAX_BYTES", 1_000)
    assert "save the sheet as CSV" in _why(file)
    monkeypatch.undo()
    monkeypatch.setattr(sheets, "MAX_PART", 100)
    assert "save the sheet as CSV" in _why(file)
    monkeypatch.undo()
    monkeypatch.setattr(reader, "MAX_BYTES", 1_000)
    assert "save the sheet as CSV" in _why(packed)


def test_a_tag_without_an_end_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbooks, "MAX_LAG", 1 << 18)
    fitting, endless = ("x" * size for size in (1 << 17, 1 << 19))
    cell = "<row><c t='{}'><v>{}</v></c></row>"
    assert _read(_file(tmp_path, _by_excel(cell.format("str", "2125550100") + f"<x y='{fitting}'/>"))).keys == [ONE]
    spread = cell.format("str", "2125550100") + cell.format("str", "y" * (1 << 19))  # a long text is no long tag
    assert len(_read(_file(tmp_path, _by_excel(spread))).rejects) == 1
    for odd in (f"<x y='{endless}'/>", f"<!--{endless}-->", f"<?x {endless}?>", f"<{endless}/>"):
        assert "cannot be read as XLSX" in _why(_file(tmp_path, _by_excel(cell.format("str", "2125550100") + odd)))


def test_texts_that_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = "<sst>" + "<si><t>(212) 555-0100</t></si>" * 100 + "</sst>"
    file = _file(tmp_path, _by_excel('<row><c t="s"><v>99</v></c></row>', shared))
    assert _read(file).keys == [ONE]
    monkeypatch.setattr(workbooks, "MAX_TEXTS_BYTES", 3_000)
    assert "cannot be read as XLSX" in _why(file)


# --- archives


def test_members_that_are_unlike_the_others_are_named(tmp_path: Path) -> None:
    same = "phone,x\n2125550100,1\n"
    for other, alike in (
        (same, True),
        ("", True),
        ('"phone",x\r\n', True),
        ("phone,y\n", False),
        ("phone;x\n2125550100;1\n", False),
        ("2125550100,1\n", False),
    ):
        with ListFile(_file(tmp_path, _zip({"a": "", "b": same, "c": other, "d": same})), Wanted("#1")) as opened:
            assert opened.uneven == (() if alike else ("c",))
            assert opened.header_lines == 2 + other.startswith(("phone", '"phone'))


def test_members_are_read_in_order_each_with_its_own_columns(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "b.csv": "phone,name\nnobody,y\n" + "2125550100,x\n" * 4,
        "empty.txt": "",
        "a.tsv": "name\tphone\nx\t2125550101\n",
        "c.xlsx": _workbook([["Phone"], [2125550102], ["none"]], [["more"]]),
    }
    result = _read(_file(tmp_path, _zip(members)))
    assert [one.member for one in result.batches] == ["b.csv", "a.tsv", "c.xlsx: sheet 'List 0'"]
    assert result.keys == [ONE, ONE, ONE, ONE, TWO, THREE]
    assert [(one.member, one.line) for one in result.rejects] == [("b.csv", 2), ("c.xlsx: sheet 'List 0'", 3)]
    assert result.header == b"phone,name\n"
    assert result.unused[-1] == Unused(Part.SHEET, "c.xlsx: sheet 'List 1'")


def test_a_member_can_be_asked_for(tmp_path: Path) -> None:
    file = _file(tmp_path, _zip({"in/a.csv": ROWS, "read.me": "2125550199", "in/b.csv": "2125550150"}))
    assert "'read.me'" in _why(file)
    result = _read(file, Wanted(member="*.csv"))
    assert (len(result.keys), result.skipped) == (4, ("read.me",))
    alone = _read(file, Wanted(member="read.me"))
    assert ([one.member for one in alone.batches], alone.skipped) == ([""], ("in/a.csv", "in/b.csv"))
    assert "no member that matches '*.xlsx'" in _why(file, Wanted(member="*.xlsx"))


def test_members_of_two_kinds_are_no_list(tmp_path: Path) -> None:
    md5 = hashlib.md5(b"2125550100").hexdigest()
    file = _file(tmp_path, _zip({"none.csv": "", "a.csv": ROWS, "b.csv": md5}))
    assert _why(file).startswith("member 'b.csv': holds entries of the kind md5")
    hashed = _read(_file(tmp_path, _zip({"none.csv": "", "b.csv": md5})))
    assert (hashed.layout.kind, len(hashed.keys)) == (Kind.MD5, 1)
    late = "hash\n" + "\n" * sources.PIECE + md5  # past what is looked at
    assert len(_read(_file(tmp_path, _zip({"late.csv": late, "b.csv": md5}))).keys) == 2


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({}, "no member"),
        ({"a.csv": _zip({"b.csv": ROWS})}, "an archive inside of an archive"),
        ({"a.csv.gz": gzip.compress(gzip.compress(b"1"))}, "packed twice"),
        ({"a.csv.gz": gzip.compress(ROWS.encode())[:-9]}, "cut short"),
        ({"a.csv": ROWS, "b.csv": "x,y\n1,2\n"}, "member 'b.csv': no column reads"),
        ({"a.csv": ROWS, "b.csv": '1\n2\n"3\n'}, "member 'b.csv': line 3: a quote"),
    ],
)
def test_an_archive_with_a_member_that_is_no_list_is_refused(
    tmp_path: Path, members: dict[str, bytes | str], why: str
) -> None:
    assert why in _why(_file(tmp_path, _zip(members)))


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    data = bytearray(_zip({"a.csv": ROWS}, zipfile.ZIP_STORED))
    data[6] |= 1  # the flags of the member
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and of its entry in the directory
    assert "'a.csv' is encrypted" in _why(_file(tmp_path, bytes(data)))


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    text = _noise(400_000).encode()
    data = bytearray(_zip({"a.csv": text}, zipfile.ZIP_STORED))
    data[-100_000] ^= 1  # past what is looked at when it is opened
    with (
        ListFile(_file(tmp_path, bytes(data))) as opened,
        pytest.raises(UnreadableError, match=r"'a\.csv': is damaged"),
    ):
        list(opened)
    packed = bytearray(_zip({"a.csv": ROWS * 9}))
    packed[40:50] = bytes(10)
    assert "damaged" in _why(_file(tmp_path, bytes(packed)))


# --- what cannot be read


def _tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("list.csv")
        entry.size = len(ROWS)
        archive.addfile(entry, io.BytesIO(ROWS.encode()))
    return data.getvalue()


NO_LISTS = [
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old or encrypted Excel"),
    (b"%PDF-1.7\n", "a PDF"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!\x1a\x07", "RAR"),
    (bz2.compress(b"1"), "bzip2"),
    (lzma.compress(b"1"), "xz"),
    (b"\x28\xb5\x2f\xfd\x00", "zstd"),
    (b"SQLite format 3\x00", "a database"),
    (b"PAR1\x15", "Parquet"),
    (ROWS.encode("utf-16-le"), "without a mark"),
    (ROWS.encode("utf-16-be"), "without a mark"),
    (ROWS.encode("utf-32"), "UTF-32"),
    (gzip.compress(ROWS.encode("utf-32-le")), "without a mark"),
    (b"\xef\xbb\xbf\n<HTML><table><tr><td>2125550100", "a web page"),
    (b"<!DOCTYPE html>\n<html>", "a web page"),
    (b'<?xml version="1.0"?><Workbook>', "an XML document"),
    (b"MIME-Version: 1.0\r\n", "a web archive"),
    (b"{\\rtf1\\ansi", "a text document"),
    (_zip({"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "content.xml": "<x/>"}), "OpenDocument"),
    (_tar(), "TAR"),
    (gzip.compress(_tar()), "TAR"),
    (gzip.compress(_zip({"a": ROWS})), "packed twice"),
    (b"PK\x03\x04 and no more", "ZIP directory"),
    (_workbook([[2125550100]])[:-40], "ZIP directory"),
    (_zip({"a.csv": ROWS}) + _zip({"b.csv": ROWS}), "more than its ZIP directory"),  # readers take the last one alone
    (_zip({"a.csv": ROWS}) + ROWS.encode(), "more than its ZIP directory"),
    (_workbook([[2125550100]]) + _workbook([[2125550101]]), "more than its ZIP directory"),
    (_zip({"c.zip": _zip({"a.csv": ROWS}) + _zip({"b.csv": ROWS})}), "may be no list"),
    (_zip({"c.xlsx": _workbook([[2125550100]]) * 2}), "more than its ZIP directory"),
    (gzip.compress(ROWS.encode())[:-4], "cut short"),
    (gzip.compress(ROWS.encode()) + b"more", "damaged"),
    (gzip.compress(ROWS.encode())[:-8] + bytes(8), "damaged"),
]


@pytest.mark.parametrize(("data", "why"), NO_LISTS, ids=[why for _, why in NO_LISTS])
def test_what_is_no_list_is_said(tmp_path: Path, data: bytes, why: str) -> None:
    assert why in _why(_file(tmp_path, data))


def test_a_file_cut_short_in_the_middle_is_refused_when_that_shows(tmp_path: Path) -> None:
    whole = gzip.compress(_noise(1_000_000).encode(), 1)
    with ListFile(_file(tmp_path, whole[:-1000])) as opened:
        batches = iter(opened)
        assert next(batches).ok.any()
        with pytest.raises(UnreadableError, match="cut short"):
            list(batches)
        with pytest.raises(RuntimeError):
            _ = opened.checksum


def test_a_file_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    assert "No such file" in _why(tmp_path / "none.csv")
    assert "Is a directory" in _why(tmp_path)


SWALLOWED = {
    "at the beginning of cells": ('"big', '"small'),
    "at the beginning and at the end": ('"big', '10"'),
    "in rows side by side": ('"big', '"small'),
}


@pytest.mark.parametrize("how", SWALLOWED)
@pytest.mark.parametrize("words", [(), ("phone",)])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quotes_that_were_not_meant_swallow_no_rows(tmp_path: Path, how: str, words: tuple[str, ...], end: str) -> None:
    notes = dict.fromkeys(range(40), "z")
    notes[10], notes[11 if "side" in how else 20] = SWALLOWED[how]
    text = end.join(["phone,note", *(f"21255501{n:02d},{note}" for n, note in notes.items()), ""])
    file = _file(tmp_path, text)
    assert "line 12: a cell of the row that begins here holds lines that read as rows" in _why(file, Wanted(words))


def test_a_list_of_one_column_swallows_no_rows(tmp_path: Path) -> None:
    lines = [f"2125550{n:03d}" for n in range(200)]
    lines[100], lines[104] = f'"{lines[100]}', f'{lines[104]}"'
    assert "line 101: a cell" in _why(_file(tmp_path, "\n".join(lines)))


def test_a_note_of_several_lines_is_no_row(tmp_path: Path) -> None:
    note = '"called, and\nasked for 212-555-0199, Joe\r\nor ""Jim"", later\n"'
    result = _read(_file(tmp_path, f"note,phone\n{note},2125550100\nx,2125550101\n"))
    assert (result.keys, result.lines) == ([ONE, TWO], [2, 6])


@pytest.mark.parametrize("before", [1, 300_000])
def test_a_quote_left_open_is_said_with_its_line(tmp_path: Path, before: int) -> None:
    text = "2125550100\n" * before
    assert f"line {before + 1}: a quote" in _why(_file(tmp_path, text + '"2125550101\n2125550102\n'))
    long = text + '"2125550101\n' + "2125550102\n" * 100_000
    assert f"line {before + 1}: the row that begins here is longer" in _why(_file(tmp_path, long * 4))
    assert f"line {before + 1}: the row that begins here is longer" in _why(
        _file(tmp_path, long + long[-11:] * 400_000)
    )


@pytest.mark.parametrize("before", [0, 1, 300_000])
@pytest.mark.parametrize("start", ["", '"'])
def test_a_row_too_long_is_said_with_its_line(tmp_path: Path, before: int, start: str) -> None:
    long = start + "x" * rows.MAX_ROW + start + "\n"
    text = "phone,note\n" + "2125550100,x\n" * before
    told = _why(_file(tmp_path, f"{text}2125550101,{long}" + "2125550100,x\n" * 400_000), Wanted("phone"))
    assert told.startswith(f"line {before + 2}: the row that begins here is longer than 1 MB")
    fits = start + "x" * (rows.MAX_ROW - 20) + start + "\n"
    assert _read(_file(tmp_path, f"{text}2125550101,{fits}"), Wanted("phone")).keys[-1] == TWO


# --- which column


def _layout(folder: Path, text: str, wanted: Wanted | None = None) -> Layout:
    with ListFile(_file(folder, text), wanted or Wanted()) as opened:
        return opened.layout


def _lines(*rows_of: object, times: int = 1) -> str:
    return "".join(f"{row}\n" for row in rows_of for _ in range(times))


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_and_the_column_are_found(tmp_path: Path, mark: str) -> None:
    text = _lines("name,Phone,zip", '"Smith; J",2125550100,10001', '"A|B\tC",(212) 555-0101,10002').replace(",", mark)
    layout = _layout(tmp_path, text.replace(f'"Smith{mark}', '"Smith;'))
    assert (layout.delimiter, layout.column, layout.kind) == (mark, 1, Kind.NUMBER)
    assert layout.header == ("name", "Phone", "zip")
    assert (layout.guessed, layout.sure, layout.sampled, layout.readable) == (True, True, 2, 2)
    assert layout.example == "******0100"


def test_commas_inside_do_not_make_a_comma_file(tmp_path: Path) -> None:
    text = _lines(*(f"Smith, J;212555{one:04};a, b" for one in range(9)))
    assert (_layout(tmp_path, text).delimiter, _layout(tmp_path, text).column) == (";", 1)
    named = _lines("name, first;phone", "Smith, J;2125550100")
    assert _layout(tmp_path, named, Wanted("phone")).delimiter == ";"
    assert _layout(tmp_path, _lines("2125550100;Smith, J", "2125550100;Smith"), Wanted("#1")).delimiter == ";"
    with ListFile(_file(tmp_path, _workbook([["name;phone"], ["x;2125550100"]]))) as opened:
        assert opened.layout.delimiter == ","


def test_a_column_can_be_named_or_counted(tmp_path: Path) -> None:
    text = _lines("Home, WORK ,note", "2125550100,2125550101,2125550102")
    for wanted, column in ((" work", 1), ("#1", 0), ("#3", 2), ("HOME", 0)):
        layout = _layout(tmp_path, text, Wanted(wanted))
        assert (layout.column, layout.guessed, layout.sure, layout.sampled) == (column, False, True, 1)
        assert layout.header == ("Home", "WORK", "note")
    assert _layout(tmp_path, _lines("2125550100,x", "2125550101,y"), Wanted("#1")).header == ()
    assert _layout(tmp_path, _lines("#,x", "2125550101,y"), Wanted("#")).header == ("#", "x")


def test_a_named_column_is_read_though_little_of_it_can_be(tmp_path: Path) -> None:
    layout = _layout(tmp_path, _lines("phone,x", "a,1", "b,2", "2125550100,3"), Wanted("phone"))
    assert (layout.sampled, layout.readable, layout.kind) == (3, 1, Kind.NUMBER)


def test_a_column_that_is_not_there_is_said_without_data(tmp_path: Path) -> None:
    told = _why(_file(tmp_path, _lines("name,2125550199,city", "x,2125550100,y")), Wanted("phone"))
    assert told == "has no column 'phone'; its first line has: 'name', 'city'"
    assert "none that is a name" in _why(_file(tmp_path, _lines("2125550199,1")), Wanted("phone"))
    assert "has 2 columns 'phone': count it" in _why(_file(tmp_path, _lines("Phone,phone")), Wanted("phone"))
    assert _why(_file(tmp_path, _lines("a,b")), Wanted("#3")) == "has no column #3; it has 2"
    assert "no column 'until'" in _why(_file(tmp_path, ROWS), Wanted(expires_column="until"))


def test_one_column_without_a_header_needs_no_name(tmp_path: Path) -> None:
    assert _read(_file(tmp_path, ROWS), Wanted("phone")).keys == [ONE, TWO, THREE]
    assert "no column" in _why(_file(tmp_path, "nobody\n"), Wanted("phone"))


def test_one_column_is_read_whatever_it_holds(tmp_path: Path) -> None:
    layout = _layout(tmp_path, _lines("phone", "a", "b", "2125550100"))
    assert (layout.column, layout.sure, layout.sampled, layout.readable) == (0, False, 3, 1)


ORDERS = [f"300555{one:04},212555{one:04},{one}" for one in range(9)]


def test_all_columns_that_read_as_numbers_are_asked_for_whatever_their_names(tmp_path: Path) -> None:
    for name in ("Mobile", "Cell #", "cust_phone", "tel.", "Telephone", "ANI", "MSISDN", "phone number"):
        layout = _layout(tmp_path, _lines(f"Order number,{name},hotel", *ORDERS))
        assert (layout.columns, layout.column_names, layout.sure) == ((0, 1), ("Order number", name), False)
    assert _layout(tmp_path, _lines("order,number,cancelled", *ORDERS)).columns == (0, 1)


def test_columns_that_cannot_be_told_apart_must_be_named(tmp_path: Path) -> None:
    for text in (_lines("a,b,c", *ORDERS), _lines(*ORDERS)):
        layout = _layout(tmp_path, text)
        assert (layout.columns, layout.sure) == ((0, 1), False)


def test_a_number_beside_a_column_named_phone_is_not_sure(tmp_path: Path) -> None:
    layout = _layout(tmp_path, _lines("order,phone", *(f"300555{one:04},none" for one in range(9))))
    assert (layout.column, layout.sure) == (0, False)


def test_four_in_five_make_a_candidate(tmp_path: Path) -> None:
    good, bad = _lines("2125550100,x", times=8), _lines("no,x", times=2)
    assert _layout(tmp_path, good + bad).readable == 8
    assert "no column reads as numbers or digests in 80 %" in _why(_file(tmp_path, good + bad + "no,x\n"))
    assert _layout(tmp_path, good + _lines(",x", times=90)).sure  # of the cells that are filled


def test_the_first_thousand_rows_decide(tmp_path: Path) -> None:
    layout = _layout(tmp_path, "phone,x\n" + _lines("2125550100,x", times=1_000) + _lines("no,no", times=5_000))
    assert (layout.sampled, layout.readable, layout.sure) == (1_000, 1_000, True)


def test_a_header_has_a_letter_and_is_no_number(tmp_path: Path) -> None:
    assert _layout(tmp_path, _lines("Tel\u00e9fono", "2125550100")).header == ("Tel\u00e9fono",)
    assert _layout(tmp_path, _lines("\u96fb\u8a71", "2125550100")).header == ("\u96fb\u8a71",)
    assert _layout(tmp_path, _lines("---", *ROWS.split())).header == ()
    assert _layout(tmp_path, _lines("1-800-FLOWERS", *ROWS.split())).header == ()
    with ListFile(_file(tmp_path, "T\xe9l,x\n2125550100,y\n".encode("latin-1")), Wanted("T\u00e9l")) as opened:
        assert opened.layout.header == ("T\u00e9l", "x")


def test_the_line_of_a_row_counts_what_stands_before_the_header(tmp_path: Path) -> None:
    result = _read(_file(tmp_path, '\n ,\n"pho\nne",x\n2125550100,y\n'))
    assert (result.lines, result.header) == ([5], b'"pho\nne",x\n')


# --- the registry's form


@pytest.mark.parametrize(
    "form", ["212,555010{}", "212,555-010{}", "212\t555010{}", '"212","555010{}"', " 212 , 555.010{} "]
)
def test_area_code_and_seven_digits_are_known(tmp_path: Path, form: str) -> None:
    result = _read(_file(tmp_path, _lines(*(form.format(one) for one in range(3)))))
    assert result.keys == [ONE, TWO, THREE]
    layout = result.layout
    assert (layout.area_column, layout.column, layout.sure, layout.header) == (0, 1, True, ())
    assert layout.example.endswith("0100")
    assert "212" not in layout.example


def test_the_columns_of_the_registry_can_be_named(tmp_path: Path) -> None:
    text = _lines(
        "city,local,npa",
        "x,5550100,212",
        "y,555-0101,(212)",
        "z,,212",
        "z,123,212",
        "z,5550102,",
        *["x,5550100,212"] * 15,
    )
    for wanted in (Wanted("local", area_column="NPA"), Wanted("#2", area_column="#3"), Wanted(area_column="npa")):
        result = _read(_file(tmp_path, text), wanted)
        assert result.keys == [ONE, TWO, *[ONE] * 15]
        assert [(one.line, one.why.split(":")[0]) for one in result.rejects] == [
            (4, "empty"),
            (5, "not a possible phone number"),
            (6, "not a possible phone number"),
        ]
    assert _read(_file(tmp_path, _lines("Area Code,Number", "212,5550100"))).keys == [ONE]
    assert "no column" in _why(_file(tmp_path, _lines("count,order", "212,5550100")))


# --- values


def test_a_region_is_of_numbers_that_do_not_say_theirs(tmp_path: Path) -> None:
    file = _file(tmp_path, _lines("phone,x", "020 7946 0958,a", "+1 212 555 0100,b", "2125550100,c"))
    assert _read(file, Wanted("phone", region="GB")).keys == [442079460958, ONE, 442125550100]
    with pytest.raises(UnreadableError, match="region 'uk'"):
        Wanted(region="uk")
    with pytest.raises(UnreadableError, match="area codes"):
        Wanted(kind=Kind.MD5, area_column="npa")


def test_rejects_say_why_and_do_not_repeat_the_cell(tmp_path: Path) -> None:
    bad = [
        "555-01999",
        "n/a 7",
        "1" * 70,
        "2\x001\x002\x005\x005\x005\x000\x001\x000\x000\x00",
        "2125550100,2125550101",
    ]
    text = _lines("phone,x", *(f'"{one}",y' for one in bad), ROWS[:10] + ",z")
    result = _read(_file(tmp_path, text), Wanted("phone"))
    assert [one.line for one in result.rejects] == [2, 3, 4, 5, 6]
    assert result.rejects[2].why == "too long for a phone number"
    assert not [one for one in result.rejects if any(map(str.isdigit, one.why))]
    assert result.keys == [ONE]


def test_half_a_character_is_not_passed_over(tmp_path: Path) -> None:
    result = _read(_file(tmp_path, ROWS.encode("utf-16") + b"2"))
    assert (result.keys, [one.line for one in result.rejects]) == ([ONE, TWO, THREE], [4])


def test_more_spellings_than_are_read_at_once_are_read_too(tmp_path: Path) -> None:
    blanks = [(one, two) for one in range(1, 10) for two in range(one + 1, 11)]
    digits = "2125550100"
    cells = [digits[:one] + "-" + digits[one : two - 1] + "." + digits[two - 1 :] for one, two in blanks]
    assert len({len(cell) for cell in cells}) == 1
    assert set(_read(_file(tmp_path, _lines(*cells))).keys) == {ONE}


DIGESTS = [(Kind.MD5, "an MD5", 32), (Kind.SHA1, "a SHA-1", 40), (Kind.SHA256, "a SHA-256", 64)]


@pytest.mark.parametrize(("kind", "label", "size"), DIGESTS)
def test_digests_are_known_by_their_length(tmp_path: Path, kind: Kind, label: str, size: int) -> None:
    whole = [hashlib.new(kind, b"%d" % one).hexdigest() for one in range(5)]
    forms = [whole[0], whole[1].upper(), f"0x{whole[2]}", f'"{whole[3]}"', f" '{whole[4]}' ", "0" * size]
    bad = [whole[0][1:], f"{whole[0][1:]}g", "2125550100"]
    result = _read(_file(tmp_path, _lines("hash,x", *(f"{one},y" for one in [*forms * 3, *bad, ""]))))
    digests = [bytes.fromhex(one) for one in [*whole, "0" * size]] * 3
    assert (result.layout.kind, result.layout.sure) == (kind, True)
    assert result.layout.example == f"{whole[0][:6]}..."
    batch = result.batches[0]
    assert batch.ok.tolist() == [True] * 18 + [False] * 4
    assert batch.keys.tolist() == [*(int.from_bytes(one[:KEY_BYTES], "big") for one in digests), 0, 0, 0, 0]
    assert batch.rest is not None
    assert batch.rest.shape == (22, kind.rest_bytes)
    assert [bytes(one) for one in batch.rest[:18]] == [one[KEY_BYTES:] for one in digests]
    assert [one.why for one in result.rejects] == [*[f"not {label} digest of {size} hex digits"] * 3, "empty"]


def test_a_kind_can_be_said(tmp_path: Path) -> None:
    md5 = hashlib.md5(b"1").hexdigest()
    text = _lines("a,b", *[f"2125550100,{md5}"] * 5)
    assert _layout(tmp_path, text, Wanted(kind=Kind.MD5)).column == 1
    assert _layout(tmp_path, text, Wanted(kind=Kind.NUMBER)).column == 0
    assert "no column reads as sha1s" in _why(_file(tmp_path, text), Wanted(kind=Kind.SHA1))
    assert len(_read(_file(tmp_path, text), Wanted("b", kind=Kind.SHA256)).rejects) == 5


@pytest.mark.parametrize(
    ("cell", "end"),
    [
        ("", None),
        ("2027-02-28", datetime(2027, 3, 1, 5, tzinfo=UTC)),
        (" 2028-02-29 ", datetime(2028, 3, 1, 5, tzinfo=UTC)),
        ("20271231", datetime(2028, 1, 1, 5, tzinfo=UTC)),
        ("2027-07-04", datetime(2027, 7, 5, 4, tzinfo=UTC)),
        ("2027-03-14", datetime(2027, 3, 15, 4, tzinfo=UTC)),  # a day of 23 hours
        ("2027-11-07", datetime(2027, 11, 8, 5, tzinfo=UTC)),  # and one of 25
        (" 2027-11-07  ", datetime(2027, 11, 8, 5, tzinfo=UTC)),
        ("2027-02-28T10:00:00Z", datetime(2027, 2, 28, 10, tzinfo=UTC)),
        ("2027-02-28 10:00", datetime(2027, 2, 28, 15, tzinfo=UTC)),
        ("2027-02-28T10:00:00-05:00", datetime(2027, 2, 28, 15, tzinfo=UTC)),
        ("20270228T1000", datetime(2027, 2, 28, 15, tzinfo=UTC)),
        ("2027-02-28T10", datetime(2027, 2, 28, 15, tzinfo=UTC)),
        ("2027-02-28 10:00:00.000 +0000", datetime(2027, 2, 28, 10, tzinfo=UTC)),
        ("9999-12-31", None),
        ("9999-12-31T23:59", None),
        ("1971-01-01", datetime(1971, 1, 2, 5, tzinfo=UTC)),
    ],
)
def test_an_entry_may_expire(tmp_path: Path, cell: str, end: datetime | None) -> None:
    file = _file(tmp_path, f"phone,until\n2125550100,{cell}\n2125550101,2027-01-01\n")
    batch = _read(file, Wanted(expires_column="until")).batches[0]
    assert batch.expires is not None
    assert batch.expires.dtype == np.uint32
    assert batch.expires[0] == (0 if end is None else end.timestamp())
    assert _read(file).batches[0].expires is None


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "UTC", "America/Havana", "Pacific/Apia"])
def test_a_day_ends_where_its_contract_has_its_zone(tmp_path: Path, zone: str) -> None:
    days = [date(2027, 1, 1) + timedelta(days=one) for one in range(400)]
    text = _lines("phone,until", *(f"2125550100,{day}" for day in days))
    batch = _read(_file(tmp_path, text), Wanted("phone", expires_column="until", zone=zone)).batches[0]
    assert batch.expires is not None
    for day, end in zip(days, batch.expires.tolist(), strict=True):
        last, first = (datetime.fromtimestamp(at, ZoneInfo(zone)).date() for at in (end - 1, end))
        assert (last, first) == (day, day + timedelta(days=1))


@pytest.mark.parametrize(
    "cell",
    [
        "0001-01-01",  # what programs write for no date
        "0001-01-01T00:00:00Z",
        "1753-01-01",
        "1900-01-01",
        "1899-12-30 00:00:00",
        "1970-01-01",
        "2026113012",  # ten digits, and a number in Washington: not 2026-11-30
        "2026-W48",  # a week, of which Monday is not the end
        "2026-W48-1",
        "2026-11-30Z",  # a day in another zone (XML Schema), not a time of day
        "2026-11-30+00:00",
        "2026-11-30-05:00",
        "2026-11-30910",
        "2026-11-30x10:00",
        "20570603112",
        "2046101470151",
        "204310119130803",
    ],
)
def test_an_expiry_is_a_day_or_a_time_or_it_is_for_ever(tmp_path: Path, cell: str) -> None:
    text = _lines("phone,until", f"2125550100,{cell}", "2125550101,2027-01-01")
    batch = _read(_file(tmp_path, text), Wanted("phone", expires_column="until")).batches[0]
    assert batch.expires is not None
    assert batch.expires[0] == 0
    assert [one.line for one in batch.endless] == [2]


def test_a_number_whose_expiry_cannot_be_read_holds_for_ever_and_is_told(tmp_path: Path) -> None:
    text = _lines("phone,until", "2125550100,2027-02-29", ",soon", "2125550101,01/31/2027", " , ", "2125550102,")
    result = _read(_file(tmp_path, text), Wanted("phone", expires_column="until"))
    why = "expiry: not a date such as 2026-01-31, nor an ISO time; kept for ever"
    assert result.rejects == [Reject(3, "empty")]
    assert [one for batch in result.batches for one in batch.endless] == [Reject(2, why), Reject(4, why)]
    assert (result.keys, result.lines) == ([ONE, TWO, THREE], [2, 3, 4, 6])
    assert result.batches[0].expires is not None
    assert result.batches[0].expires.tolist() == [0, 0, 0, 0]
    assert result.batches[0].keys.tolist() == [ONE, 0, TWO, THREE]
