"""Reading whole columns at a time says what reading one cell at a time says, for any text, however it is cut."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from book.numbers import NumberError, normalise
from suppression.kinds import KEY_BYTES, Kind
from suppression.reading import cells
from suppression.reading.reader import Batch, ListFile, ReadOptions, UnreadableError
from suppression.reading.rows import PAD, Scanner, unquote
from tests.spellings import SPELLINGS

DIGITS = "0123456789"
_separator = st.sampled_from(["", "", "", "", " ", "-", ".", "(", ")", "/", "\t", ") ", " - ", "+", "\u00a0", "x"])
_before = st.sampled_from(
    ["", "", "", "+", "1", "+1", "1-", "+1 (", "(", "(+1)", "001", "011", "'", "tel:", "tel:+", " "]
)
_behind = st.sampled_from(["", "", "", "", ".0", ".5", ")", " ", "  ", "\r\n", " ext 5", ";ext=7", ".", '"'])
_nanp = st.from_regex(r"[2-9][0-9]{2}[2-9][0-9]{6}", fullmatch=True)
_foreign = st.sampled_from(["44", "33", "49", "52", "61", "7", "20", "1"])
_digits = st.one_of(
    _nanp,
    _nanp.map(lambda ten: "1" + ten),
    st.tuples(_foreign, st.text(DIGITS, min_size=6, max_size=11)).map("".join),
    st.text(DIGITS, min_size=0, max_size=14),
)


@st.composite
def _spelled(draw: st.DrawFn) -> str:
    """Digits as people write them, and as nobody does."""
    digits = draw(_digits)
    places = draw(st.sets(st.integers(1, 11), max_size=4))
    body = "".join(draw(_separator) + digit if place in places else digit for place, digit in enumerate(digits))
    return draw(_before) + body + draw(_behind)


FORMS = ("{0}{1}{2}", "({0}) {1}-{2}", "{0}-{1}-{2}", "+1{0}{1}{2}", "1{0}{1}{2}", "{0}.{1}.{2}", "{0}{1}{2}.0")
_usual = st.tuples(_nanp, st.sampled_from(FORMS)).map(lambda one: one[1].format(one[0][:3], one[0][3:6], one[0][6:]))
_near = st.tuples(_before, _usual, _behind).map("".join)
_cell = st.one_of(
    *(_usual, _near, _spelled(), _spelled(), st.text(max_size=12), st.text(" \t.+-()/01259", max_size=24)),
    st.sampled_from([text for text, _ in SPELLINGS]),
    st.from_regex(r"[-+]?[0-9]{6,11}\.[0-9]{1,4}", fullmatch=True),  # fractions, and what looks like them
)


def _read(data: bytes, wanted: ReadOptions, *, chunk: int = 1 << 20, name: str = "list") -> list[Batch]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(data)
        with ListFile(file, wanted, chunk=chunk) as opened:
            return list(opened)


def _written(rows: list[list[str]], delimiter: str = ",") -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


def _outcome(text: str, region: str = "US") -> int | str:
    try:
        return normalise(text.strip(), region)
    except NumberError as error:
        return str(error)


def _outcomes(batches: list[Batch]) -> list[int | str]:
    found: list[int | str] = []
    for batch in batches:
        whys = iter(batch.rejects)
        found += [key if ok else next(whys).why for key, ok in zip(batch.keys.tolist(), batch.ok.tolist(), strict=True)]
        assert next(whys, None) is None
        assert not batch.keys[~batch.ok].any()
    return found


@given(st.lists(_cell, max_size=40), st.sampled_from(["US", "US", "CA", "GB", "IT", "AU"]), st.integers(16, 4000))
@settings(max_examples=250)
def test_a_column_of_numbers_reads_as_each_of_its_cells(texts: list[str], region: str, chunk: int) -> None:
    data = _written([["phone", "x"], *([text, "x"] for text in texts)]).encode()
    assert _outcomes(_read(data, ReadOptions("phone", kind=Kind.NUMBER, region=region), chunk=chunk)) == [
        _outcome(text, region) for text in texts
    ]


@given(st.lists(st.text("0123456789+-.() /", min_size=9, max_size=21), min_size=1, max_size=200))
@settings(max_examples=80)
def test_digits_and_punctuation_in_any_order_read_as_each_cell(texts: list[str]) -> None:
    text = np.frombuffer("".join(texts).encode() + PAD, np.uint8)
    ends = np.cumsum([len(one) for one in texts])
    starts = ends - [len(one) for one in texts]
    for home in (True, False):
        read = cells.numbers(text, (starts, ends), home=home)
        for one, key, done in zip(texts, read.keys.tolist(), read.done.tolist(), strict=True):
            # what the quick way does not do is left to `normalise`, and blanks around a cell are trimmed before
            assert not done or key == _outcome(one, "US" if home else "GB")


def test_blanks_that_are_left_do_not_make_another_number() -> None:
    said = " 1212555010.0"  # as if more were trimmed than are the quick way; a float that is no number
    place = (np.array([0]), np.array([len(said)]))
    text = np.frombuffer(said.encode() + PAD, np.uint8)
    assert isinstance(_outcome(said), str)
    assert not cells.numbers(text, place, home=True).done.any()


def test_the_usual_spellings_are_read_the_quick_way() -> None:
    for form in FORMS:
        text = form.format("212", "555", "0100").encode()
        place = (np.array([0]), np.array([len(text)]))
        assert cells.numbers(np.frombuffer(text + PAD, np.uint8), place, home=True).keys.tolist() == [12125550100]


_area = st.one_of(
    st.sampled_from(["212", "712", "999", "199", "21", "", " 212 ", "(212)", "+1212"]), st.text(max_size=4)
)
_seven = st.one_of(
    st.from_regex(r"[0-9]{7}", fullmatch=True),
    st.from_regex(r"[0-9]{3}[-. x/][0-9]{4}", fullmatch=True),
    st.text("0123456789- .", max_size=9),
)


@given(st.lists(st.tuples(_area, _seven), max_size=30), st.sampled_from(["US", "GB"]))
@settings(max_examples=150)
def test_area_and_number_read_as_the_two_together(pairs: list[tuple[str, str]], region: str) -> None:
    data = _written([["phone", "npa", "x"], *([seven, area, "x"] for area, seven in pairs)]).encode()
    wanted = ReadOptions("phone", area_column="npa", kind=Kind.NUMBER, region=region)
    assert _outcomes(_read(data, wanted)) == [
        _outcome(area.strip() + seven.strip(), region) if seven.strip() else "empty" for area, seven in pairs
    ]


@given(
    st.sampled_from([Kind.MD5, Kind.SHA1, Kind.SHA256]),
    st.lists(
        st.tuples(st.binary(max_size=4), st.sampled_from(["", "", "0x", "0X", " ", "'", '"', "0"]), st.integers(0, 9)),
        max_size=20,
    ),
)
@settings(max_examples=100)
def test_a_column_of_digests_reads_as_each_of_its_cells(kind: Kind, made: list[tuple[bytes, str, int]]) -> None:
    texts = []
    for seed, around, change in made:
        digest = hashlib.new(kind, seed).hexdigest()
        forms = (digest, digest.upper(), digest[:-1], digest + "0", digest[:-1] + "g", "", f"{digest}\n")
        texts.append(around + forms[change % len(forms)] + around.strip("0xX"))
    batches = _read(
        _written([["hash", "x"], *([text, "x"] for text in texts)]).encode(), ReadOptions("hash", kind=kind)
    )
    found = [
        key.to_bytes(KEY_BYTES, "big") + bytes(rest) if ok else b""
        for batch in batches
        for key, rest, ok in zip(batch.keys.tolist(), batch.rest, batch.ok, strict=True)  # type: ignore[arg-type]
    ]
    assert found == [_digest(text, kind) for text in texts]


def _digest(text: str, kind: Kind) -> bytes:
    try:
        return cells.digest(text.strip(), kind)
    except cells.CellError:
        return b""


_date = st.one_of(
    st.dates().map(str),
    st.from_regex(r"[0-9]{4}[-./][0-9]{2}-[0-9]{2}", fullmatch=True),
    st.from_regex(r"(19|20|21)[0-9]{2}-[01][0-9]-[0-3][0-9]", fullmatch=True),
    st.from_regex(r"20[12:][0-9:A]-0[1-9:]-[0-2][1-9:]", fullmatch=True),
    st.datetimes().map(str),
    st.text("0123456789-", max_size=10),
)


@given(
    st.lists(_date, max_size=30), st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati"])
)
@settings(max_examples=150)
def test_a_column_of_expiries_reads_as_each_of_its_cells(texts: list[str], zone: str) -> None:
    data = _written([["phone", "until"], *(["2125550100", text] for text in texts)]).encode()
    batches = _read(data, ReadOptions("phone", expires_column="until", zone=zone))
    found = [seconds for batch in batches for seconds in batch.expires.tolist()]  # type: ignore[union-attr]
    assert found == [_expiry(text, zone) or 0 for text in texts]
    endless = [one.line for batch in batches for one in batch.endless]
    assert endless == [line for line, text in enumerate(texts, start=2) if _expiry(text, zone) is None]


def _expiry(text: str, zone: str) -> int | None:
    """None: it cannot be read."""
    try:
        return cells.expiry(text, zone)
    except cells.CellError:
        return None


_part = st.sampled_from(
    ['"a"', '""', '"b""c"', '"d\ne"', '"f\r\ng"', '"h,i"', "jj", "", "1", ",", ",", "\n", "\r\n", "\r"]
)
_csv_text = st.one_of(
    st.lists(_part, max_size=30).map("".join),
    st.text('a",\n\r; ', max_size=40),
    st.lists(st.sampled_from(['"x",', '"y"\n', "z,", '5" pipe,', "\n", 'k\n"', ' "q",', '"r"s,']), max_size=20).map(
        "".join
    ),
)


def _by_csv(text: str) -> list[tuple[int, list[str]]] | None:
    """(line, cells) of the rows that are not empty; None where a quote is left open."""
    whole = text if text.endswith(("\n", "\r")) or not text else text + "\n"
    reader = csv.reader(io.StringIO(whole + "the end\n", newline=""))
    rows, line = [], 1
    for row in reader:
        rows.append((line, row))
        line = reader.line_num + 1
    if rows[-1][1] != ["the end"]:
        return None
    return [one for one in rows[:-1] if one[1]]


def _by_scanner(text: str, sizes: list[int]) -> list[tuple[int, list[str]]] | None:
    scanner = Scanner(",", "here")
    data = text.encode()
    found: list[tuple[int, list[str]]] = []
    taken = b""
    at = turn = 0
    try:
        while at <= len(data):
            size = sizes[turn % len(sizes)]
            rows = scanner.feed(data[at : at + size], last=at + size > len(data))
            at, turn = at + size, turn + 1
            if rows is None:
                continue
            taken += b"".join(rows.data[a:b] for a, b in zip(rows.starts, rows.ends, strict=True))
            columns = [
                [unquote(rows.data[a:b]).decode() for a, b in zip(*one, strict=True)]
                for one in map(rows.column, (0, 1, 2, 5))
            ]
            found += zip(rows.lines.tolist(), map(list, zip(*columns, strict=True)), strict=True)
    except UnreadableError:
        return None
    assert len(taken) <= len(data)
    assert taken.replace(b"\r", b"").replace(b"\n", b"") == data.replace(b"\r", b"").replace(b"\n", b"")
    return found


@given(_csv_text, st.lists(st.integers(1, 64), min_size=1, max_size=3))
@settings(max_examples=800)
def test_rows_are_those_of_the_csv_module(text: str, sizes: list[int]) -> None:
    expected = _by_csv(text)
    if expected is not None:
        wide = [(line, [*row, "", "", "", "", "", ""]) for line, row in expected]
        expected = [(line, [row[0], row[1], row[2], row[5]]) for line, row in wide]
    assert _by_scanner(text, sizes) == expected


def _packed(text: str) -> dict[str, bytes]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("list.csv", text)
    return {
        "csv": text.encode(),
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "utf16": text.encode("utf-16"),
        "utf16be": b"\xfe\xff" + text.encode("utf-16-be"),
        "gz": gzip.compress(text.encode()),
        "gz2": gzip.compress(text[:9].encode()) + gzip.compress(text[9:].encode()),
        "zip": archive.getvalue(),
    }


def _workbook(rows: list[list[str]]) -> bytes:
    book = Workbook()
    for number, row in enumerate(rows, start=1):
        for place, cell in enumerate(row, start=1):
            if cell:
                book.active.cell(number, place, int(cell) if cell.isascii() and cell.isdigit() else cell)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


_plain = st.text("abcd ,;\"'|\u00e9\u4e2d", max_size=8)


@given(st.lists(st.tuples(st.one_of(_usual, _plain), _plain), min_size=1, max_size=12), st.integers(16, 300))
@settings(max_examples=25)
def test_every_form_of_a_file_gives_the_same(pairs: list[tuple[str, str]], chunk: int) -> None:
    rows = [["phone", "name"], *([number, name] for number, name in pairs)]
    forms = _packed(_written(rows))
    forms |= {f"by {mark}": _written(rows, mark).encode() for mark in "\t;|"}
    forms["xlsx"] = _workbook(rows)
    want = [
        (_outcome(number), line) for line, (number, name) in enumerate(pairs, start=2) if number.strip() or name.strip()
    ]
    for name, data in forms.items():
        batches = _read(data, ReadOptions("phone"), chunk=chunk, name=name)
        lines = [line for batch in batches for line in batch.lines.tolist()]
        assert (name, list(zip(_outcomes(batches), lines, strict=True))) == (name, want)


_broken = st.sampled_from(["nobody", "12", "", '"no\r\nbody"', '"\n"', "x" * 70])


@given(
    st.lists(st.tuples(st.one_of(_usual, _broken), st.sampled_from(["y", '"a\nb"', '"a\r\nb\rc"', '""'])), max_size=25),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=25),
    st.integers(8, 200),
)
@settings(max_examples=150)
def test_a_reject_has_the_line_on_which_its_row_begins(
    pairs: list[tuple[str, str]], end: str, gaps: list[int], chunk: int
) -> None:
    text = f"phone,note{end}"
    line = 2
    want = []
    for place, (cell, note) in enumerate(pairs):
        gap = gaps[place % len(gaps)]
        row = f"{cell},{note}x" if note == "y" else f"{cell},{note}"
        text += end * gap + row + end
        line += gap
        said = unquote(cell.encode()).decode().strip()
        if not (said or unquote(note.encode()).strip()):
            pass  # a blank row is no reject
        elif isinstance(_outcome(said), str):
            want.append((line, _outcome(said)))
        line += 1 + len(row.replace("\r\n", "\n").replace("\r", "\n").split("\n")) - 1
    batches = _read(text.encode(), ReadOptions("phone"), chunk=chunk)
    assert [(one.line, one.why) for batch in batches for one in batch.rejects] == want


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: _packed(data.decode())["zip"]], ids=["gz", "zip"])
@given(st.data())
@settings(max_examples=60)
def test_a_file_cut_anywhere_is_never_a_shorter_list(pack: Callable[[bytes], bytes], data: st.DataObject) -> None:
    whole = pack("".join(f"212555{one:04}\n" for one in range(500)).encode())
    cut = data.draw(st.integers(1, len(whole) - 1))
    try:
        batches = _read(whole[:cut], ReadOptions("#1"))
    except UnreadableError:
        return
    assert cut < 4  # too short to be known for what it is
    assert not any(batch.ok.any() for batch in batches)
