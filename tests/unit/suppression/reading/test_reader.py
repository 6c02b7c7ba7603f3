"""List files as they come: every form, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook
from openpyxl.utils.datetime import CALENDAR_MAC_1904

from suppression.kinds import Kind
from suppression.reading import reader, rows, sheets, sources, workbooks
from suppression.reading.reader import ListFile, ReadOptions, Reject, UnreadableError, UnusedPart
from suppression.reading.shapes import PartKind
from tests.list_files import ONE, ROWS, THREE, TWO, list_file, read_list, why_unreadable, workbook_of, zipped


def _commented(archive: bytes, comment: bytes) -> bytes:
    return archive[:-2] + len(comment).to_bytes(2, "little") + comment


def _patched(workbook: bytes, part: str, old: bytes, new: bytes) -> bytes:
    """A workbook as no usual program writes it."""
    with zipfile.ZipFile(io.BytesIO(workbook)) as archive:
        parts: dict[str, bytes | str] = {name: archive.read(name) for name in archive.namelist()}
    assert old in bytes(parts[part])  # type: ignore[arg-type]
    parts[part] = parts[part].replace(old, new)  # type: ignore[arg-type]
    return zipped(parts)


def _noise(size: int) -> str:
    """Numbers that do not pack well."""
    parts = (np.random.default_rng(7).integers(low, high, size) for low, high in ((200, 999), (200, 999), (1000, 9999)))
    return "".join(f"{area}{exchange}{line}\n" for area, exchange, line in zip(*parts, strict=True))


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
    "zip": zipped(
        {"folder/": "", "folder/list.csv": ROWS, "__MACOSX/list.csv": "2125550199", "folder/.list.csv": "2125550199"}
    ),
    "zip with zeros behind": zipped({"list.csv": ROWS}) + bytes(512),
    "zip with a comment": _commented(zipped({"list.csv": ROWS}), b"made by us"),
    "zip of gz": zipped({"list.csv.gz": gzip.compress(ROWS.encode())}),
    "zip of LZMA": zipped({"list": ROWS}, zipfile.ZIP_LZMA),
    "zip of xlsx": zipped({"list.xlsx": workbook_of([[2125550100], ["(212) 555-0101"], ["2125550102"]])}),
    "xlsx": workbook_of([[2125550100], [2125550101.0], ["2125550102"]]),
    "zip of three": zipped({"a.csv": ROWS[:11], "b.txt": "phone\n2125550101", "c": "x;tel\n;2125550102\n"}),
}


@pytest.mark.parametrize("piece", [1 << 20, 5])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_any_form_is_read(tmp_path: Path, form: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIECE", piece)
    data = FORMS[form]
    raw = data if isinstance(data, bytes) else data.encode()
    result = read_list(list_file(tmp_path, raw, "list"), chunk=piece)
    assert result.keys == [ONE, TWO, THREE]
    assert result.rejects == []
    assert result.checksum == hashlib.sha256(raw).hexdigest()


def test_rows_come_as_they_stand_in_the_file(tmp_path: Path) -> None:
    text = 'id;"Phone";city\r\n\r\n1;"(212) 555-0100";"New\r\nYork"\r\n ; ;\r\n2;;Bonn\r\n3;2125550101;K\xf6ln'.encode(
        "latin-1"
    )
    file = list_file(tmp_path, text)
    result = read_list(file, ReadOptions("phone"))
    assert result.header == b'id;"Phone";city\r\n'
    assert result.layout.header == ("id", "Phone", "city")
    assert (result.layout.delimiter, result.layout.column) == (";", 1)
    assert result.texts == [b'1;"(212) 555-0100";"New\r\nYork"\r\n', b"2;;Bonn\r\n", b"3;2125550101;K\xf6ln"]
    assert result.lines == [3, 6, 7]
    assert result.keys == [ONE, TWO]
    assert result.rejects == [Reject(6, "empty")]


def test_progress_is_told_and_a_file_is_read_once(tmp_path: Path) -> None:
    file = list_file(tmp_path, _noise(500_000))
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
    result = read_list(list_file(tmp_path, gzip.compress(_noise(20_000).encode())), chunk=4_000)
    assert max(len(one.text) for one in result.batches) <= 4_000 + 11 + len(rows.PAD)
    assert len(result.keys) + len(result.rejects) == 20_000


def test_an_empty_file_is_an_empty_list(tmp_path: Path) -> None:
    for data in (b"", b"\n\r\n\n", b"\xef\xbb\xbf", gzip.compress(b""), workbook_of([]), zipped({"list.csv": ""})):
        result = read_list(list_file(tmp_path, data))
        assert (result.batches, result.header, result.layout.sampled) == ([], b"", 0)


def test_what_begins_with_nothing_for_too_long_is_refused(tmp_path: Path) -> None:
    few, many = " ,\n" * 9_000 + "\n" * 100_000, " ,\n" * 11_000
    assert read_list(list_file(tmp_path, few + "x,phone\ny,2125550100\n")).lines == [109_002]
    assert why_unreadable(list_file(tmp_path, many + "x,phone\n")) == "begins with too many blank rows"
    assert why_unreadable(list_file(tmp_path, "\n" * 5_000_000 + "x,phone\n")) == "begins with too many blank rows"


def test_a_header_alone_is_an_empty_list(tmp_path: Path) -> None:
    result = read_list(list_file(tmp_path, "id,Phone,city\n"))
    assert (result.batches, result.layout.column, result.layout.sure) == ([], 1, False)
    assert read_list(list_file(tmp_path, "Phone"), ReadOptions("phone")).header == b"Phone"
    assert "no column reads as numbers" in why_unreadable(list_file(tmp_path, "id,name\n"))


# --- sheets


def test_all_rows_of_the_sheet_that_is_asked_for_are_read(tmp_path: Path) -> None:
    named = [["Name", "Phone", "Until"], ['A, "B"\nC', 2125550100, date(2030, 5, 1)], [], [None, "no"]]
    file = list_file(tmp_path, workbook_of([], [[None, " "]], named, [["2125550199"]]))
    result = read_list(file, ReadOptions("phone", expires_column="until", sheet="List 2"))
    assert result.keys == [ONE]
    assert result.batches[0].expires is not None
    assert result.batches[0].expires[0] == datetime(2030, 5, 2, 4, tzinfo=UTC).timestamp()  # midnight in New York
    assert result.rejects == [Reject(4, "not a phone number")]
    assert result.texts[0] == b'"A, ""B"" C",2125550100,2030-05-01\n'
    assert result.skipped == ("sheet 'List 3'",)


def test_a_sheet_is_not_cut_to_the_size_that_it_claims(tmp_path: Path) -> None:
    book = _patched(workbook_of([["x", 2125550100], ["y", 2125550101]]), "xl/worksheets/sheet1.xml", b"A1:B2", b"A1:A1")
    assert read_list(list_file(tmp_path, book)).keys == [ONE, TWO]


def test_rows_that_a_sheet_leaves_out_count_as_lines(tmp_path: Path) -> None:
    book = workbook_of([[2125550100], [2125550101]])
    moved = _patched(book, "xl/worksheets/sheet1.xml", b'<row r="2"><c r="A2"', b'<row r="70"><c r="A70"')
    assert read_list(list_file(tmp_path, moved)).lines == [1, 70]


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
    book = _patched(workbook_of([["(212) 555-0100"], ["2125550101"]]), part, old, new)
    assert "cannot be read as XLSX" in why_unreadable(list_file(tmp_path, book))


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
    return zipped(
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
    result = read_list(list_file(tmp_path, _by_excel(cells)))
    assert result.keys == [ONE, TWO, THREE]
    assert result.texts[1:] == [b"5,2125550101\n", b"1,2125550102\n"]
    for wrong in ("2", "-1", "x"):
        assert "cannot be read as XLSX" in why_unreadable(
            list_file(tmp_path, _by_excel(cells.replace("<v>0<", f"<v>{wrong}<")))
        )
    entity = '<!DOCTYPE sst [<!ENTITY a "2125550100">]>' + SHARED.replace("Phone", "&a;")
    assert "cannot be read as XLSX " in why_unreadable(list_file(tmp_path, _by_excel(cells, entity)))


def test_days_are_counted_as_the_workbook_counts_them(tmp_path: Path) -> None:
    book = Workbook()
    book.epoch = CALENDAR_MAC_1904
    six = datetime(2030, 5, 1, 6, tzinfo=UTC).replace(tzinfo=None)  # workbooks know no zones
    for row in (["phone", "until"], [2125550100, date(2030, 5, 1)], [2125550101, six]):
        book.active.append(row)
    data = io.BytesIO()
    book.save(data)
    batch = read_list(list_file(tmp_path, data.getvalue()), ReadOptions(expires_column="until")).batches[0]
    assert batch.expires is not None
    ends = [datetime(2030, 5, 2, 4, tzinfo=UTC), datetime(2030, 5, 1, 10, tzinfo=UTC)]
    assert batch.expires.tolist() == [one.timestamp() for one in ends]


def test_a_sheet_that_is_shown_goes_before_one_that_is_not(tmp_path: Path) -> None:
    book = Workbook()
    book.active["A1"], book.active.sheet_state = 2125550199, "hidden"
    book.create_sheet("Shown")["A1"] = 2125550100
    data = io.BytesIO()
    book.save(data)
    result = read_list(list_file(tmp_path, data.getvalue()))
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
    assert read_list(list_file(tmp_path, data.getvalue())).keys == [ONE, TWO]


def test_a_workbook_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = workbook_of([[2125550100]])
    file, packed = list_file(tmp_path, book), list_file(tmp_path, zipped({"a.xlsx": book}), "a.zip")
    monkeypatch.setattr(sheets, "MAX_BYTES", 1_000)
    assert "save the sheet as CSV" in why_unreadable(file)
    monkeypatch.undo()
    monkeypatch.setattr(sheets, "MAX_PART", 100)
    assert "save the sheet as CSV" in why_unreadable(file)
    monkeypatch.undo()
    monkeypatch.setattr(reader, "MAX_BYTES", 1_000)
    assert "save the sheet as CSV" in why_unreadable(packed)


def test_a_tag_without_an_end_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbooks, "MAX_LAG", 1 << 18)
    fitting, endless = ("x" * size for size in (1 << 17, 1 << 19))
    cell = "<row><c t='{}'><v>{}</v></c></row>"
    assert read_list(list_file(tmp_path, _by_excel(cell.format("str", "2125550100") + f"<x y='{fitting}'/>"))).keys == [
        ONE
    ]
    spread = cell.format("str", "2125550100") + cell.format("str", "y" * (1 << 19))  # a long text is no long tag
    assert len(read_list(list_file(tmp_path, _by_excel(spread))).rejects) == 1
    for odd in (f"<x y='{endless}'/>", f"<!--{endless}-->", f"<?x {endless}?>", f"<{endless}/>"):
        assert "cannot be read as XLSX" in why_unreadable(
            list_file(tmp_path, _by_excel(cell.format("str", "2125550100") + odd))
        )


def test_texts_that_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = "<sst>" + "<si><t>(212) 555-0100</t></si>" * 100 + "</sst>"
    file = list_file(tmp_path, _by_excel('<row><c t="s"><v>99</v></c></row>', shared))
    assert read_list(file).keys == [ONE]
    monkeypatch.setattr(workbooks, "MAX_TEXTS_BYTES", 3_000)
    assert "cannot be read as XLSX" in why_unreadable(file)


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
        with ListFile(
            list_file(tmp_path, zipped({"a": "", "b": same, "c": other, "d": same})), ReadOptions("#1")
        ) as opened:
            assert opened.uneven == (() if alike else ("c",))
            assert opened.header_lines == 2 + other.startswith(("phone", '"phone'))


def test_members_are_read_in_order_each_with_its_own_columns(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "b.csv": "phone,name\nnobody,y\n" + "2125550100,x\n" * 4,
        "empty.txt": "",
        "a.tsv": "name\tphone\nx\t2125550101\n",
        "c.xlsx": workbook_of([["Phone"], [2125550102], ["none"]], [["more"]]),
    }
    result = read_list(list_file(tmp_path, zipped(members)))
    assert [one.member for one in result.batches] == ["b.csv", "a.tsv", "c.xlsx: sheet 'List 0'"]
    assert result.keys == [ONE, ONE, ONE, ONE, TWO, THREE]
    assert [(one.member, one.line) for one in result.rejects] == [("b.csv", 2), ("c.xlsx: sheet 'List 0'", 3)]
    assert result.header == b"phone,name\n"
    assert result.unused[-1] == UnusedPart(PartKind.SHEET, "c.xlsx: sheet 'List 1'")


def test_a_member_can_be_asked_for(tmp_path: Path) -> None:
    file = list_file(tmp_path, zipped({"in/a.csv": ROWS, "read.me": "2125550199", "in/b.csv": "2125550150"}))
    assert "'read.me'" in why_unreadable(file)
    result = read_list(file, ReadOptions(member="*.csv"))
    assert (len(result.keys), result.skipped) == (4, ("read.me",))
    alone = read_list(file, ReadOptions(member="read.me"))
    assert ([one.member for one in alone.batches], alone.skipped) == ([""], ("in/a.csv", "in/b.csv"))
    assert "no member that matches '*.xlsx'" in why_unreadable(file, ReadOptions(member="*.xlsx"))


def test_members_of_two_kinds_are_no_list(tmp_path: Path) -> None:
    md5 = hashlib.md5(b"2125550100").hexdigest()
    file = list_file(tmp_path, zipped({"none.csv": "", "a.csv": ROWS, "b.csv": md5}))
    assert why_unreadable(file).startswith("member 'b.csv': holds entries of the kind md5")
    hashed = read_list(list_file(tmp_path, zipped({"none.csv": "", "b.csv": md5})))
    assert (hashed.layout.kind, len(hashed.keys)) == (Kind.MD5, 1)
    late = "hash\n" + "\n" * sources.PIECE + md5  # past what is looked at
    assert len(read_list(list_file(tmp_path, zipped({"late.csv": late, "b.csv": md5}))).keys) == 2


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({}, "no member"),
        ({"a.csv": zipped({"b.csv": ROWS})}, "an archive inside of an archive"),
        ({"a.csv.gz": gzip.compress(gzip.compress(b"1"))}, "packed twice"),
        ({"a.csv.gz": gzip.compress(ROWS.encode())[:-9]}, "cut short"),
        ({"a.csv": ROWS, "b.csv": "x,y\n1,2\n"}, "member 'b.csv': no column reads"),
        ({"a.csv": ROWS, "b.csv": '1\n2\n"3\n'}, "member 'b.csv': line 3: a quote"),
    ],
)
def test_an_archive_with_a_member_that_is_no_list_is_refused(
    tmp_path: Path, members: dict[str, bytes | str], why: str
) -> None:
    assert why in why_unreadable(list_file(tmp_path, zipped(members)))


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.csv": ROWS}, zipfile.ZIP_STORED))
    data[6] |= 1  # the flags of the member
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and of its entry in the directory
    assert "'a.csv' is encrypted" in why_unreadable(list_file(tmp_path, bytes(data)))


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    text = _noise(400_000).encode()
    data = bytearray(zipped({"a.csv": text}, zipfile.ZIP_STORED))
    data[-100_000] ^= 1  # past what is looked at when it is opened
    with (
        ListFile(list_file(tmp_path, bytes(data))) as opened,
        pytest.raises(UnreadableError, match=r"'a\.csv': is damaged"),
    ):
        list(opened)
    packed = bytearray(zipped({"a.csv": ROWS * 9}))
    packed[40:50] = bytes(10)
    assert "damaged" in why_unreadable(list_file(tmp_path, bytes(packed)))


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
    (zipped({"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "content.xml": "<x/>"}), "OpenDocument"),
    (_tar(), "TAR"),
    (gzip.compress(_tar()), "TAR"),
    (gzip.compress(zipped({"a": ROWS})), "packed twice"),
    (b"PK\x03\x04 and no more", "ZIP directory"),
    (workbook_of([[2125550100]])[:-40], "ZIP directory"),
    (
        zipped({"a.csv": ROWS}) + zipped({"b.csv": ROWS}),
        "more than its ZIP directory",
    ),  # readers take the last one alone
    (zipped({"a.csv": ROWS}) + ROWS.encode(), "more than its ZIP directory"),
    (workbook_of([[2125550100]]) + workbook_of([[2125550101]]), "more than its ZIP directory"),
    (zipped({"c.zip": zipped({"a.csv": ROWS}) + zipped({"b.csv": ROWS})}), "may be no list"),
    (zipped({"c.xlsx": workbook_of([[2125550100]]) * 2}), "more than its ZIP directory"),
    (gzip.compress(ROWS.encode())[:-4], "cut short"),
    (gzip.compress(ROWS.encode()) + b"more", "damaged"),
    (gzip.compress(ROWS.encode())[:-8] + bytes(8), "damaged"),
]


@pytest.mark.parametrize(("data", "why"), NO_LISTS, ids=[why for _, why in NO_LISTS])
def test_what_is_no_list_is_said(tmp_path: Path, data: bytes, why: str) -> None:
    assert why in why_unreadable(list_file(tmp_path, data))


def test_a_file_cut_short_in_the_middle_is_refused_when_that_shows(tmp_path: Path) -> None:
    whole = gzip.compress(_noise(1_000_000).encode(), 1)
    with ListFile(list_file(tmp_path, whole[:-1000])) as opened:
        batches = iter(opened)
        assert next(batches).ok.any()
        with pytest.raises(UnreadableError, match="cut short"):
            list(batches)
        with pytest.raises(RuntimeError):
            _ = opened.checksum


def test_a_file_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    assert "No such file" in why_unreadable(tmp_path / "none.csv")
    assert "Is a directory" in why_unreadable(tmp_path)


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
    file = list_file(tmp_path, text)
    assert "line 12: a cell of the row that begins here holds lines that read as rows" in why_unreadable(
        file, ReadOptions(words)
    )


def test_a_list_of_one_column_swallows_no_rows(tmp_path: Path) -> None:
    lines = [f"2125550{n:03d}" for n in range(200)]
    lines[100], lines[104] = f'"{lines[100]}', f'{lines[104]}"'
    assert "line 101: a cell" in why_unreadable(list_file(tmp_path, "\n".join(lines)))


def test_a_note_of_several_lines_is_no_row(tmp_path: Path) -> None:
    note = '"called, and\nasked for 212-555-0199, Joe\r\nor ""Jim"", later\n"'
    result = read_list(list_file(tmp_path, f"note,phone\n{note},2125550100\nx,2125550101\n"))
    assert (result.keys, result.lines) == ([ONE, TWO], [2, 6])


@pytest.mark.parametrize("before", [1, 300_000])
def test_a_quote_left_open_is_said_with_its_line(tmp_path: Path, before: int) -> None:
    text = "2125550100\n" * before
    assert f"line {before + 1}: a quote" in why_unreadable(list_file(tmp_path, text + '"2125550101\n2125550102\n'))
    long = text + '"2125550101\n' + "2125550102\n" * 100_000
    assert f"line {before + 1}: the row that begins here is longer" in why_unreadable(list_file(tmp_path, long * 4))
    assert f"line {before + 1}: the row that begins here is longer" in why_unreadable(
        list_file(tmp_path, long + long[-11:] * 400_000)
    )


@pytest.mark.parametrize("before", [0, 1, 300_000])
@pytest.mark.parametrize("start", ["", '"'])
def test_a_row_too_long_is_said_with_its_line(tmp_path: Path, before: int, start: str) -> None:
    long = start + "x" * rows.MAX_ROW + start + "\n"
    text = "phone,note\n" + "2125550100,x\n" * before
    told = why_unreadable(
        list_file(tmp_path, f"{text}2125550101,{long}" + "2125550100,x\n" * 400_000), ReadOptions("phone")
    )
    assert told.startswith(f"line {before + 2}: the row that begins here is longer than 1 MB")
    fits = start + "x" * (rows.MAX_ROW - 20) + start + "\n"
    assert read_list(list_file(tmp_path, f"{text}2125550101,{fits}"), ReadOptions("phone")).keys[-1] == TWO
