"""Whatever a list file holds is an entry, a reject with its line, or told to be unused: never lost, never guessed."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
from openpyxl import Workbook

from suppression.reading.reader import ColumnError, ListFile, ReadOptions, Reject, UnreadableError, UnusedPart
from suppression.reading.shapes import Layout, PartKind

HOME = [f"+1212555{one:04}" for one in range(100, 130)]
CELL = [f"+1313555{one:04}" for one in range(100, 130)]


class _All:
    """All that comes of a file."""

    def __init__(self, folder: Path, data: bytes | str, wanted: ReadOptions | None = None, name: str = "list") -> None:
        file = folder / name
        file.write_bytes(data.encode() if isinstance(data, str) else data)
        with ListFile(file, wanted or ReadOptions()) as opened:
            self.layouts: tuple[Layout, ...] = opened.layouts
            batches = list(opened)
            self.unused: tuple[UnusedPart, ...] = opened.unused
        self.sure = all(one.sure for one in self.layouts)
        self.columns = [one.column_names for one in self.layouts]
        self.numbers = {f"+{key}" for one in batches for read in one.reads for key in read.keys[read.done].tolist()}
        self.rejects: list[Reject] = [one for batch in batches for one in batch.rejects]
        self.ok = [ok for one in batches for ok in one.ok.tolist()]


def _why(folder: Path, data: bytes | str, wanted: ReadOptions | None = None) -> str:
    with pytest.raises(UnreadableError) as caught:
        _All(folder, data, wanted)
    return str(caught.value)


def _zip(members: dict[str, bytes | str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def _workbook(**sheets: list[list[object]]) -> bytes:
    book = Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def _two_phones(header: str = "home,cell\n", every: int = 3) -> str:
    """A home number in each row, and in some a second one."""
    return header + "".join(
        f"{home},{cell if not at % every else ''}\n" for at, (home, cell) in enumerate(zip(HOME, CELL, strict=True))
    )


# --- several columns


@pytest.mark.parametrize("header", ["home,cell\n", "home,mobile\n", "phone,\n", "a,b\n", ""])
@pytest.mark.parametrize("every", [1, 2, 3, 10, 25])
def test_a_second_telephone_is_asked_for_however_few_have_it(tmp_path: Path, header: str, every: int) -> None:
    found = _All(tmp_path, _two_phones(header, every))
    assert not found.sure
    assert len(found.layouts[0].columns) == 2
    assert found.numbers >= {*HOME, *CELL[::every]}


@pytest.mark.parametrize("said", [("home", "cell"), ("#1", "#2"), ("cell", "home"), ("HOME", "#2")])
def test_all_columns_that_are_said_are_read(tmp_path: Path, said: tuple[str, ...]) -> None:
    found = _All(tmp_path, _two_phones(), ReadOptions(said))
    assert found.sure
    assert found.numbers == {*HOME, *CELL[::3]}
    assert found.rejects == []  # an empty cell beside a number is none
    assert [one for one in found.unused if one.what is PartKind.COLUMN] == []


def test_a_column_that_is_said_alone_is_read_alone_and_the_other_is_told(tmp_path: Path) -> None:
    found = _All(tmp_path, _two_phones(), ReadOptions("home"))
    assert (found.sure, found.numbers) == (True, set(HOME))
    assert UnusedPart(PartKind.COLUMN, "cell", numbers=10, line=2) in found.unused


def test_a_row_with_one_cell_that_cannot_be_read_is_a_reject_and_its_other_number_counts(tmp_path: Path) -> None:
    text = f"home,cell,x\n{HOME[0]},n/a,1\nnone,{CELL[0]},2\n,,3\n,,\nunknown,none,4\n{HOME[1]},,5\n"
    found = _All(tmp_path, text, ReadOptions(("home", "cell")))
    assert found.numbers == {HOME[0], CELL[0], HOME[1]}
    assert found.rejects == [
        Reject(2, "column 'cell': not a phone number"),
        Reject(3, "column 'home': not a phone number"),
        Reject(4, "empty"),
        Reject(6, "column 'home': not a phone number"),
    ]
    assert found.ok == [False, False, False, False, True]


@pytest.mark.parametrize("row", [5, 900, 1_500, 5_000])
@pytest.mark.parametrize("cell", ["(313) 555-0100", "tel:+13135550100", "+44 20 7946 0958", "313-555-0100 ext 5"])
def test_a_column_whose_numbers_begin_late_is_refused_in_the_end(tmp_path: Path, row: int, cell: str) -> None:
    lines = ["phone,note", *(f"{HOME[0]},x" for _ in range(6_000))]
    for at in range(row, row + 3):
        lines[at] = f'{HOME[0]},"{cell}"'
    text = "\n".join(lines)
    if row < 1_000:
        assert not _All(tmp_path, text).sure
    else:
        assert f"line {row + 1}: column 'note' holds numbers too and was not read" in _why(tmp_path, text)
    told = _All(tmp_path, text, ReadOptions("phone")).unused[0]
    assert told == UnusedPart(PartKind.COLUMN, "note", numbers=3, line=row + 1)
    lines[row + 1] = lines[row + 2] = f"{HOME[0]},x"  # one cell is no handful, and told all the same
    assert _All(tmp_path, "\n".join(lines)).unused[0] == UnusedPart(PartKind.COLUMN, "note", numbers=1, line=row + 1)


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("row", [3, 2_000])
def test_a_cell_more_than_the_first_rows_have_is_not_lost(tmp_path: Path, mark: str, row: int) -> None:
    lines = [HOME[0]] * 3_000
    lines[row] = f"{HOME[1]}{mark}{CELL[0]}"
    try:
        found = _All(tmp_path, "\n".join(lines))
    except ColumnError as error:
        assert f"line {row + 1}" in str(error)  # noqa: PT017
        return
    assert not found.sure or found.rejects[0].line == row + 1


@pytest.mark.parametrize("cell", ["2125550198;2125550199", "2125550198 or 2125550199", "2125550199x", "O2125550199"])
def test_a_column_with_numbers_that_cannot_be_read_is_asked_for_too(tmp_path: Path, cell: str) -> None:
    text = "".join(f'"{cell}",{one}\n' for one in HOME[:3])
    found = _All(tmp_path, text)
    assert (found.sure, found.layouts[0].columns, found.layouts[0].doubtful) == (False, (1,), (0,))
    assert found.unused == (UnusedPart(PartKind.COLUMN, "#1", numbers=3, line=1),)
    digests = "".join(f"{one},x{hashlib.sha256(one.encode()).hexdigest()}\n" for one in HOME)
    assert _All(tmp_path, digests).sure


def test_a_delimiter_that_divides_a_row_or_two_is_no_evidence(tmp_path: Path) -> None:
    """A file of tabs in which nothing can be read but one number, and that only where a semicolon divides."""
    text = f"\t+1 1 982 312 7536\t2026-11-30\nBo\t{HOME[0]};{HOME[1]}\t\n"
    assert not _All(tmp_path, text).sure
    assert "has no column #4; it has 3" in _why(tmp_path, text, ReadOptions("#4"))


def test_digests_and_numbers_are_no_list_together(tmp_path: Path) -> None:
    digests = [hashlib.sha256(one.encode()).hexdigest() for one in HOME]
    others = [hashlib.sha256(one.encode()).hexdigest() for one in CELL]
    mixed = "phone,hash\n" + "".join(f"{one},{two}\n" for one, two in zip(HOME, digests, strict=True))
    for wanted in (None, ReadOptions(("phone", "hash"))):
        assert "holds numbers, column 'hash' holds SHA-256 digests; a list has entries of one kind" in _why(
            tmp_path, mixed, wanted
        )
    assert _All(tmp_path, mixed, ReadOptions("phone")).unused[0] == UnusedPart(
        PartKind.COLUMN, "hash", numbers=30, line=2
    )
    two = "a,b\n" + "".join(f"{one},{two}\n" for one, two in zip(digests, others, strict=True))
    assert not _All(tmp_path, two).sure
    assert len(_All(tmp_path, two, ReadOptions(("#1", "#2"), header=True)).numbers) == 60


def test_an_area_code_goes_with_one_column_and_a_pair_of_columns_is_seen(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="one column of seven digits"):
        ReadOptions(("a", "b"), area_column="npa")
    rows = "".join(f"+1212555{one:04},313,555{one:04}\n" for one in range(100, 110))
    assert "may be area codes and seven digits" in _why(tmp_path, "phone,area,line\n" + rows)


# --- members and sheets


PLAIN = "".join(f"{one}\n" for one in HOME)


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ("home,cell\n" + f"{CELL[0]},{CELL[1]}\n" * 3, "unsure"),
        ("order,phone\n" + f"3005550100,{CELL[1]}\n" * 3, "unsure"),
        ("account,name\n" + "3005550100,x\n" * 3, "unsure"),
        ("name,city\n" + "x,y\n" * 3, "no column reads"),
    ],
)
def test_the_layout_of_every_member_is_judged(tmp_path: Path, second: str, why: str) -> None:
    for members in ({"a.csv": "phone,x\n" + f"{HOME[0]},y\n" * 9, "b.csv": second},
                    {"a.csv": second, "b.csv": PLAIN}):  # fmt: skip
        if why == "unsure":
            found = _All(tmp_path, _zip(dict(members)))
            assert [one.sure for one in found.layouts] == ["phone,x" in one or one == PLAIN for one in members.values()]
        else:
            assert why in _why(tmp_path, _zip(dict(members)))


def test_columns_by_place_are_those_of_the_same_name_in_every_member(tmp_path: Path) -> None:
    members = {"a.csv": f"phone,account\n{HOME[0]},3005550100\n", "b.csv": f"account,phone\n3005550101,{CELL[0]}\n"}
    assert _All(tmp_path, _zip(dict(members)), ReadOptions("phone")).numbers == {HOME[0], CELL[0]}
    assert "have other names than in 'a.csv'" in _why(tmp_path, _zip(dict(members)), ReadOptions("#1"))
    members["b.csv"] = f"name\n{CELL[0]}\n"
    assert "member 'b.csv': has no column 'phone'" in _why(tmp_path, _zip(dict(members)), ReadOptions("phone"))


def test_every_member_that_is_not_read_is_named(tmp_path: Path) -> None:
    names = ["b.csv", ".hidden.csv", "__MACOSX/._a.csv", "read.me"]
    data = _zip({"a.csv": PLAIN, "folder/": "", **dict.fromkeys(names, "2125550199\n")})
    found = _All(tmp_path, data, ReadOptions(member="a.csv"))
    assert {one.name for one in found.unused} == set(names)
    assert {one.what for one in found.unused} == {PartKind.MEMBER}


def test_every_sheet_that_holds_numbers_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    remarks: list[list[object]] = [["Ask Bob"], ["before you call"], ["212"]]
    book = _workbook(First=[["Phone"], *([one] for one in HOME)], Second=[[one] for one in CELL], Third=remarks)
    found = _All(tmp_path, book)
    assert (found.sure, found.numbers, found.rejects) == (True, {*HOME, *CELL}, [])
    assert UnusedPart(PartKind.SHEET, "sheet 'Third'") in found.unused
    packed = _All(tmp_path, _zip({"a.xlsx": book, "b.csv": "phone\n2125550199\n"}))
    assert packed.numbers == {*HOME, *CELL, "+12125550199"}
    assert UnusedPart(PartKind.SHEET, "a.xlsx: sheet 'Third'") in packed.unused
    chosen = _All(tmp_path, book, ReadOptions(sheet="Sec*"))
    assert chosen.numbers == set(CELL)
    assert {one.name for one in chosen.unused} == {"sheet 'First'", "sheet 'Third'"}
    assert "no sheet with content that matches 'No'" in _why(tmp_path, book, ReadOptions(sheet="No"))


def test_a_sheet_whose_numbers_nobody_can_tell_is_refused(tmp_path: Path) -> None:
    mixed: list[list[object]] = [["x", "y"], *(["no", one] for one in range(50)), *([one, "z"] for one in CELL[:5])]
    book = _workbook(First=[["Phone"], *([one] for one in HOME)], Second=mixed)
    assert "sheet 'Second': no column reads as numbers" in _why(tmp_path, book)
    two: list[list[object]] = [[one, two] for one, two in zip(HOME, CELL, strict=True)]
    unsure = _All(tmp_path, _workbook(First=[["Phone"], *([one] for one in HOME)], Second=two))
    assert [one.sure for one in unsure.layouts] == [True, False]


def test_two_lines_in_a_cell_are_not_one_number(tmp_path: Path) -> None:
    book = _workbook(Only=[["phone", "name"], ["2125550100", "Jo\nRoe"], ["555-0101\n212", "x"], ["2125550102\n", "y"]])
    found = _All(tmp_path, book, ReadOptions("phone"))
    assert (found.numbers, [one.line for one in found.rejects]) == ({HOME[0], HOME[2]}, [3])


def test_a_formula_without_its_value_is_no_empty_cell(tmp_path: Path) -> None:
    found = _All(tmp_path, _workbook(Only=[["phone"], ["2125550100"], ['="212555"&"0101"'], [None]]))
    assert (found.numbers, [one.line for one in found.rejects]) == ({HOME[0]}, [3])


# --- what stands above


@pytest.mark.parametrize(
    "first",
    ["2125550O99", "O2125550199", "unknown", "n/a", "John Smith", "no phone", "cell 2125550199", "2125550199x", "b",
     "tel 212 555 0199 or 0198", "Mr. 2125550199"],
)  # fmt: skip
@pytest.mark.parametrize("more", ["", ",x"])
def test_a_first_line_that_is_no_certain_header_is_a_reject(tmp_path: Path, first: str, more: str) -> None:
    text = f"{first}{more}\n" + "".join(f"{one}{more}\n" for one in HOME)
    for wanted in (None, ReadOptions("#1")):
        found = _All(tmp_path, text, wanted)
        assert [one.line for one in found.rejects] == [1]
        assert found.numbers == set(HOME)


@pytest.mark.parametrize(
    "name", ["Phone", "Mobile No.", "phone_1", "E.164", "sha256", "Rufnummer", "Cell #", "Home Phone"]
)
def test_a_header_that_is_known_is_told(tmp_path: Path, name: str) -> None:
    found = _All(tmp_path, f"{name}\n{PLAIN}")
    assert (found.rejects, found.unused) == ([], (UnusedPart(PartKind.LINES, f"1, the header: {name!r}"),))


def test_a_header_can_be_said_to_be_there_or_not(tmp_path: Path) -> None:
    assert _All(tmp_path, f"whom to spare\n{PLAIN}", ReadOptions(header=True)).rejects == []
    assert [one.line for one in _All(tmp_path, f"phone\n{PLAIN}", ReadOptions(header=False)).rejects] == [1]
    told = _All(tmp_path, f"2125550199\n{PLAIN}", ReadOptions(header=True))
    assert told.unused[0].numbers == 1
    assert told.numbers == set(HOME)
    assert "without a header a column is counted" in _why(
        tmp_path, f"phone\n{PLAIN}", ReadOptions("phone", header=False)
    )
    both = f"phone,2125550199\n{HOME[0]},x\n"
    assert "line 1 has the name of a column, and a number" in _why(tmp_path, both, ReadOptions("phone"))
    assert _All(tmp_path, both, ReadOptions("phone", header=True)).unused[0].numbers == 1


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line", ["sep={}", '"sep={}"', "SEP={}", "sep={}\r"])
def test_a_line_that_tells_the_delimiter_is_honoured(tmp_path: Path, mark: str, line: str) -> None:
    other = "," if mark != "," else ";"
    text = f"{line.format(mark)}\nname{other} first{mark}phone\nx{other} y{mark}{HOME[0]}\n"
    found = _All(tmp_path, text, ReadOptions("phone"))
    assert found.numbers == {HOME[0]}
    assert found.layouts[0].delimiter == mark
    assert found.unused[0] == UnusedPart(PartKind.LINES, "1, which tells the delimiter")
    assert "says that '^' divides cells" in _why(tmp_path, f"sep=^\nphone^x\n{HOME[0]}^y\n")


def test_lines_above_the_header_are_skipped_when_told_and_named(tmp_path: Path) -> None:
    text = "Do not call\n\nof 2026-11-30, questions: 2125550199\nname,phone\n" + "".join(f"x,{one}\n" for one in HOME)
    found = _All(tmp_path, text, ReadOptions("phone", skip_rows=3))
    assert (found.numbers, found.rejects) == (set(HOME), [])
    assert str(found.unused[0]) == "lines 1 to 3, skipped as told (1 of its cells hold numbers, the first on line 3)"
    assert found.unused[1].name == "4, the header: 'name', 'phone'"
    assert "line 4 has it: are the lines above it to be skipped?" in _why(tmp_path, text, ReadOptions("phone"))
    assert [one.line for one in _All(tmp_path, text, ReadOptions("#2")).rejects][:3] == [1, 3, 4]
    alone = _All(tmp_path, "Title\n2125550199\nphone\n" + PLAIN, ReadOptions(skip_rows=2))
    assert str(alone.unused[0]) == "lines 1 to 2, skipped as told (1 of its cells hold numbers, the first on line 2)"
    assert "50 lines are to be skipped, and it has 30" in _why(tmp_path, PLAIN, ReadOptions(skip_rows=50))
    sheet = _workbook(Only=[["Do not call"], [], ["phone"], *([one] for one in HOME)])
    assert _All(tmp_path, sheet, ReadOptions("phone", skip_rows=2)).numbers == set(HOME)
    both = _All(tmp_path, f"sep=;\nTitle;\nphone;x\n{HOME[0]};y\n", ReadOptions("phone", skip_rows=2))
    assert (both.numbers, len(both.unused)) == ({HOME[0]}, 4)
