"""Which columns of a list file are read, and what their cells say."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from suppression.kinds import KEY_BYTES, Kind
from suppression.reading.reader import Layout, ListFile, ReadOptions, Reject, UnreadableError
from tests.list_files import ONE, ROWS, THREE, TWO, list_file, read_list, why_unreadable, workbook_of

# --- which column


def _layout(folder: Path, text: str, wanted: ReadOptions | None = None) -> Layout:
    with ListFile(list_file(folder, text), wanted or ReadOptions()) as opened:
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
    assert _layout(tmp_path, named, ReadOptions("phone")).delimiter == ";"
    assert _layout(tmp_path, _lines("2125550100;Smith, J", "2125550100;Smith"), ReadOptions("#1")).delimiter == ";"
    with ListFile(list_file(tmp_path, workbook_of([["name;phone"], ["x;2125550100"]]))) as opened:
        assert opened.layout.delimiter == ","


def test_a_column_can_be_named_or_counted(tmp_path: Path) -> None:
    text = _lines("Home, WORK ,note", "2125550100,2125550101,2125550102")
    for wanted, column in ((" work", 1), ("#1", 0), ("#3", 2), ("HOME", 0)):
        layout = _layout(tmp_path, text, ReadOptions(wanted))
        assert (layout.column, layout.guessed, layout.sure, layout.sampled) == (column, False, True, 1)
        assert layout.header == ("Home", "WORK", "note")
    assert _layout(tmp_path, _lines("2125550100,x", "2125550101,y"), ReadOptions("#1")).header == ()
    assert _layout(tmp_path, _lines("#,x", "2125550101,y"), ReadOptions("#")).header == ("#", "x")


def test_a_named_column_is_read_though_little_of_it_can_be(tmp_path: Path) -> None:
    layout = _layout(tmp_path, _lines("phone,x", "a,1", "b,2", "2125550100,3"), ReadOptions("phone"))
    assert (layout.sampled, layout.readable, layout.kind) == (3, 1, Kind.NUMBER)


def test_a_column_that_is_not_there_is_said_without_data(tmp_path: Path) -> None:
    told = why_unreadable(list_file(tmp_path, _lines("name,2125550199,city", "x,2125550100,y")), ReadOptions("phone"))
    assert told == "has no column 'phone'; its first line has: 'name', 'city'"
    assert "none that is a name" in why_unreadable(list_file(tmp_path, _lines("2125550199,1")), ReadOptions("phone"))
    assert "has 2 columns 'phone': count it" in why_unreadable(
        list_file(tmp_path, _lines("Phone,phone")), ReadOptions("phone")
    )
    assert why_unreadable(list_file(tmp_path, _lines("a,b")), ReadOptions("#3")) == "has no column #3; it has 2"
    assert "no column 'until'" in why_unreadable(list_file(tmp_path, ROWS), ReadOptions(expires_column="until"))


def test_one_column_without_a_header_needs_no_name(tmp_path: Path) -> None:
    assert read_list(list_file(tmp_path, ROWS), ReadOptions("phone")).keys == [ONE, TWO, THREE]
    assert "no column" in why_unreadable(list_file(tmp_path, "nobody\n"), ReadOptions("phone"))


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
    assert "no column reads as numbers or digests in 80 %" in why_unreadable(list_file(tmp_path, good + bad + "no,x\n"))
    assert _layout(tmp_path, good + _lines(",x", times=90)).sure  # of the cells that are filled


def test_the_first_thousand_rows_decide(tmp_path: Path) -> None:
    layout = _layout(tmp_path, "phone,x\n" + _lines("2125550100,x", times=1_000) + _lines("no,no", times=5_000))
    assert (layout.sampled, layout.readable, layout.sure) == (1_000, 1_000, True)


def test_a_header_has_a_letter_and_is_no_number(tmp_path: Path) -> None:
    assert _layout(tmp_path, _lines("Tel\u00e9fono", "2125550100")).header == ("Tel\u00e9fono",)
    assert _layout(tmp_path, _lines("\u96fb\u8a71", "2125550100")).header == ("\u96fb\u8a71",)
    assert _layout(tmp_path, _lines("---", *ROWS.split())).header == ()
    assert _layout(tmp_path, _lines("1-800-FLOWERS", *ROWS.split())).header == ()
    with ListFile(list_file(tmp_path, "T\xe9l,x\n2125550100,y\n".encode("latin-1")), ReadOptions("T\u00e9l")) as opened:
        assert opened.layout.header == ("T\u00e9l", "x")


def test_the_line_of_a_row_counts_what_stands_before_the_header(tmp_path: Path) -> None:
    result = read_list(list_file(tmp_path, '\n ,\n"pho\nne",x\n2125550100,y\n'))
    assert (result.lines, result.header) == ([5], b'"pho\nne",x\n')


# --- the registry's form


@pytest.mark.parametrize(
    "form", ["212,555010{}", "212,555-010{}", "212\t555010{}", '"212","555010{}"', " 212 , 555.010{} "]
)
def test_area_code_and_seven_digits_are_known(tmp_path: Path, form: str) -> None:
    result = read_list(list_file(tmp_path, _lines(*(form.format(one) for one in range(3)))))
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
    for wanted in (
        ReadOptions("local", area_column="NPA"),
        ReadOptions("#2", area_column="#3"),
        ReadOptions(area_column="npa"),
    ):
        result = read_list(list_file(tmp_path, text), wanted)
        assert result.keys == [ONE, TWO, *[ONE] * 15]
        assert [(one.line, one.why.split(":")[0]) for one in result.rejects] == [
            (4, "empty"),
            (5, "not a possible phone number"),
            (6, "not a possible phone number"),
        ]
    assert read_list(list_file(tmp_path, _lines("Area Code,Number", "212,5550100"))).keys == [ONE]
    assert "no column" in why_unreadable(list_file(tmp_path, _lines("count,order", "212,5550100")))


# --- values


def test_a_region_is_of_numbers_that_do_not_say_theirs(tmp_path: Path) -> None:
    file = list_file(tmp_path, _lines("phone,x", "020 7946 0958,a", "+1 212 555 0100,b", "2125550100,c"))
    assert read_list(file, ReadOptions("phone", region="GB")).keys == [442079460958, ONE, 442125550100]
    with pytest.raises(UnreadableError, match="region 'uk'"):
        ReadOptions(region="uk")
    with pytest.raises(UnreadableError, match="area codes"):
        ReadOptions(kind=Kind.MD5, area_column="npa")


def test_rejects_say_why_and_do_not_repeat_the_cell(tmp_path: Path) -> None:
    bad = [
        "555-01999",
        "n/a 7",
        "1" * 70,
        "2\x001\x002\x005\x005\x005\x000\x001\x000\x000\x00",
        "2125550100,2125550101",
    ]
    text = _lines("phone,x", *(f'"{one}",y' for one in bad), ROWS[:10] + ",z")
    result = read_list(list_file(tmp_path, text), ReadOptions("phone"))
    assert [one.line for one in result.rejects] == [2, 3, 4, 5, 6]
    assert result.rejects[2].why == "too long for a phone number"
    assert not [one for one in result.rejects if any(map(str.isdigit, one.why))]
    assert result.keys == [ONE]


def test_half_a_character_is_not_passed_over(tmp_path: Path) -> None:
    result = read_list(list_file(tmp_path, ROWS.encode("utf-16") + b"2"))
    assert (result.keys, [one.line for one in result.rejects]) == ([ONE, TWO, THREE], [4])


def test_more_spellings_than_are_read_at_once_are_read_too(tmp_path: Path) -> None:
    blanks = [(one, two) for one in range(1, 10) for two in range(one + 1, 11)]
    digits = "2125550100"
    cells = [digits[:one] + "-" + digits[one : two - 1] + "." + digits[two - 1 :] for one, two in blanks]
    assert len({len(cell) for cell in cells}) == 1
    assert set(read_list(list_file(tmp_path, _lines(*cells))).keys) == {ONE}


DIGESTS = [(Kind.MD5, "an MD5", 32), (Kind.SHA1, "a SHA-1", 40), (Kind.SHA256, "a SHA-256", 64)]


@pytest.mark.parametrize(("kind", "label", "size"), DIGESTS)
def test_digests_are_known_by_their_length(tmp_path: Path, kind: Kind, label: str, size: int) -> None:
    whole = [hashlib.new(kind, b"%d" % one).hexdigest() for one in range(5)]
    forms = [whole[0], whole[1].upper(), f"0x{whole[2]}", f'"{whole[3]}"', f" '{whole[4]}' ", "0" * size]
    bad = [whole[0][1:], f"{whole[0][1:]}g", "2125550100"]
    result = read_list(list_file(tmp_path, _lines("hash,x", *(f"{one},y" for one in [*forms * 3, *bad, ""]))))
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
    assert _layout(tmp_path, text, ReadOptions(kind=Kind.MD5)).column == 1
    assert _layout(tmp_path, text, ReadOptions(kind=Kind.NUMBER)).column == 0
    assert "no column reads as sha1s" in why_unreadable(list_file(tmp_path, text), ReadOptions(kind=Kind.SHA1))
    assert len(read_list(list_file(tmp_path, text), ReadOptions("b", kind=Kind.SHA256)).rejects) == 5


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
    file = list_file(tmp_path, f"phone,until\n2125550100,{cell}\n2125550101,2027-01-01\n")
    batch = read_list(file, ReadOptions(expires_column="until")).batches[0]
    assert batch.expires is not None
    assert batch.expires.dtype == np.uint32
    assert batch.expires[0] == (0 if end is None else end.timestamp())
    assert read_list(file).batches[0].expires is None


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "UTC", "America/Havana", "Pacific/Apia"])
def test_a_day_ends_where_its_contract_has_its_zone(tmp_path: Path, zone: str) -> None:
    days = [date(2027, 1, 1) + timedelta(days=one) for one in range(400)]
    text = _lines("phone,until", *(f"2125550100,{day}" for day in days))
    batch = read_list(list_file(tmp_path, text), ReadOptions("phone", expires_column="until", zone=zone)).batches[0]
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
    batch = read_list(list_file(tmp_path, text), ReadOptions("phone", expires_column="until")).batches[0]
    assert batch.expires is not None
    assert batch.expires[0] == 0
    assert [one.line for one in batch.endless] == [2]


def test_a_number_whose_expiry_cannot_be_read_holds_for_ever_and_is_told(tmp_path: Path) -> None:
    text = _lines("phone,until", "2125550100,2027-02-29", ",soon", "2125550101,01/31/2027", " , ", "2125550102,")
    result = read_list(list_file(tmp_path, text), ReadOptions("phone", expires_column="until"))
    why = "expiry: not a date such as 2026-01-31, nor an ISO time; kept for ever"
    assert result.rejects == [Reject(3, "empty")]
    assert [one for batch in result.batches for one in batch.endless] == [Reject(2, why), Reject(4, why)]
    assert (result.keys, result.lines) == ([ONE, TWO, THREE], [2, 3, 4, 6])
    assert result.batches[0].expires is not None
    assert result.batches[0].expires.tolist() == [0, 0, 0, 0]
    assert result.batches[0].keys.tolist() == [ONE, 0, TWO, THREE]
