"""Made-up list files, as customers send them, and what reading them must not do: lose a number or make one up.

Each seed makes one file: a table with telephones in one column or several, names, notes, order numbers and damaged
cells, under a header, a title or nothing, in any of the usual forms. It is read as an import reads it and as a person
does (`person`). Whatever the person calls a telephone number is listed; or the file is refused, for nobody can tell; or
the report names where it stands.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from suppression.reading.reader import ListFile, ReadOptions, UnreadableError, UnusedPart
from suppression.reading.shapes import PartKind
from tests.proof.person import Seen, cells, may_say, sees

_CLEAN = ("{a}{b}{c}", "1{a}{b}{c}", "+1{a}{b}{c}", "({a}) {b}-{c}", "{a}-{b}-{c}", "{a}.{b}.{c}", "{a} {b} {c}",
          "1-{a}-{b}-{c}", "+1 ({a}) {b}-{c}", "tel:+1{a}{b}{c}", "{a}{b}{c}.0", "'{a}{b}{c}", "{a}-{b}-{c} ext 12",
          "001{a}{b}{c}", "011 1 {a} {b} {c}", "  {a}{b}{c}  ", '="{a}{b}{c}"', "{a}/{b}/{c}",
          "{a}{b}{c}x7")  # fmt: skip
_DAMAGED = ("{a}{b}O{d}", "{a}{b}{c}x", "{a}{b}{c};{b}{c}", "{a}{b}{c};{a}{b}{d}9", "{a}{b}{c} or {a}{b}{d}1", "{a}{b}",
            "{a}{b}{c}.5", "{a}{b}{d}.0", "{a}{b}{d}.{x}", "3.{a}{b}{x}E9", "2.{b}{d}E+09", "1{a}{b}{d}.{x}",
            "{a},{b},{c}", "{a}{b}{c} ext {a}{b}{c}", "{a}{b}{c},,{a}{b}{c}", "O{a}{b}{c}", "cell {a}{b}{c}",
            "n/a", "none", "", "-",
            "{a}-{b}-****", "unknown", "{a}{b}{c}{x}", "+1 1 {a} {b} {c}", "{b}-{c}")  # fmt: skip
_NAMES = ("Ann Lee", "Smith, John", 'Jim "Jo" Roe', "Zoë", "", "O'Neil", "de la Cruz; Ana", "Bo | Co")
_NOTES = ("", "", "call after 5", "VIP", "see {a}-{b}-{c}", "was {a}{b}{c}, now dead", "2026-11-30", "10:45:01", "a,b")
_HEADERS = {
    "phone": ("Phone", "phone number", "Home Phone", "tel.", "MSISDN", "Number", "contact", "whom to spare", "home"),
    "second": ("cell", "Mobile", "phone 2", "other", "work", "zzz"),
    "name": ("Name", "Customer", "full name"),
    "note": ("Notes", "comment", "remarks!"),
    "order": ("Order", "account no", "ref"),
    "id": ("id", "#", "row"),
}
REFUSED = "refused"
_HEADER_LINES = 5  # a header is on one of these
_TITLES = ("Do not call", "Exported 2026-11-30", "questions: {a}-{b}-{c}", "")


@dataclass(frozen=True, slots=True)
class Made:
    """A file, and what is said of it."""

    data: bytes
    wanted: ReadOptions
    marks: dict[str, str]  # what divides the cells of each member
    told: str  # how it was made


def make(seed: int) -> Made:
    """A file of that seed."""
    return _Maker(random.Random(seed)).file()


class _Maker:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._note: list[str] = []
        self._marks: dict[str, str] = {}

    def file(self) -> Made:
        form = self._rng.choices(("text", "gz", "zip", "xlsx"), (60, 8, 16, 16))[0]
        parts = [self._table() for _ in range(self._rng.choice((1, 1, 2, 3)) if form in {"zip", "xlsx"} else 1)]
        if form == "xlsx":
            data = workbook(parts)
        elif form == "zip":
            inside = [
                (name := f"{at}.{self._pick('csv', 'txt')}", self._text(rows, name)) for at, rows in enumerate(parts)
            ]
            if self._rng.random() < 0.2:
                inside.append(("last.xlsx", workbook([self._table()])))
            data = _zip(inside)
        else:
            text = self._text(parts[0])
            data = gzip.compress(text, 1) if form == "gz" else text
        return Made(data, self._wanted(parts[0]), self._marks, f"{form} {' '.join(self._note)}")

    def _pick(self, *among: str) -> str:
        return self._rng.choice(among)

    def _spell(self, form: str) -> str:
        rng = self._rng
        a, b, c = rng.randint(200, 999), rng.randint(200, 999), rng.randint(0, 9999)
        return form.format(a=a, b=b, c=f"{c:04}", d=f"{c % 1000:03}", x=rng.randint(1, 9))

    def _table(self) -> list[list[str]]:
        """Rows of cells: header and title included."""
        rng = self._rng
        columns = ["phone"]
        for kind, share in (("second", 0.35), ("name", 0.5), ("note", 0.25), ("order", 0.15), ("id", 0.2)):
            if rng.random() < share:
                columns.insert(rng.randint(0, len(columns)), kind)
        if rng.random() < 0.05:
            columns.remove("phone")
        columns = columns or ["note"]
        many = rng.choice((1, 2, 3, 5, 8, 13, 30, 60)) if rng.random() < 0.995 else rng.randint(1_001, 1_300)
        clean = rng.choice(_CLEAN) if rng.random() < 0.5 else ""
        damaged, every, begins = (
            rng.choice((0, 0, 0, 0.05, 0.3)),
            rng.choice((1, 2, 3, 7)),
            rng.choice((0, 0, 0, many - 2)),
        )
        rows = []
        for at in range(many):
            second = at >= begins and not at % every
            rows.append([self._cell(one, clean, damaged, second=second) for one in columns])
            if rng.random() < 0.01:
                rows[-1].append(self._spell(rng.choice(_CLEAN)))
            if rng.random() < 0.01:
                rows.append([])
        if rng.random() < 0.5:
            rows.insert(0, [self._pick(*_HEADERS[one]) for one in columns])
        if rng.random() < 0.08:
            rows[:0] = [[self._spell(rng.choice(_TITLES))] for _ in range(rng.randint(1, 3))]
        self._note.append("/".join(columns))
        return rows

    def _cell(self, kind: str, clean: str, damaged: float, *, second: bool) -> str:
        rng = self._rng
        if kind == "phone" or (kind == "second" and second):
            return self._spell(rng.choice(_DAMAGED) if rng.random() < damaged else clean or rng.choice(_CLEAN))
        if kind == "name":
            return rng.choice(_NAMES)
        if kind == "note":
            return self._spell(rng.choice(_NOTES))
        if kind == "order":
            return str(rng.randint(2_000_000_000, 9_999_999_999)) if rng.random() < 0.7 else f"A-{rng.randint(1, 999)}"
        return str(rng.randint(1, 99_999)) if kind == "id" else ""

    def _text(self, rows: list[list[str]], name: str = "") -> bytes:
        rng = self._rng
        mark, end = self._pick(",", ",", ";", "\t", "|"), self._pick("\n", "\n", "\r\n", "\r")
        self._marks[name] = mark
        text = io.StringIO(newline="")
        quoting = rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        writer = csv.writer(text, delimiter=mark, lineterminator=end, quoting=quoting)
        writer.writerows(rows)
        told = text.getvalue() if rng.random() < 0.9 else text.getvalue().rstrip("\r\n")
        if rng.random() < 0.05:
            told = f"sep={mark}{end}{told}"
        coding = self._pick("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16")
        self._note.append(f"{mark!r} {coding}")
        return told.encode(coding)

    def _wanted(self, rows: list[list[str]]) -> ReadOptions:
        rng = self._rng
        said = rng.random()
        if said < 0.6:
            return ReadOptions()
        width = max(map(len, rows), default=1) or 1
        places = [f"#{one}" for one in rng.sample(range(1, width + 1), rng.randint(1, min(2, width)))]
        if said < 0.85:
            return ReadOptions(tuple(places))
        if said < 0.93:
            return ReadOptions(tuple(places), header=rng.random() < 0.5)
        return ReadOptions(skip_rows=rng.randint(1, 2), header=rng.choice((None, True, False)))


def _zip(members: list[tuple[str, bytes]]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return data.getvalue()


_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = 'xmlns="http://schemas.openxmlformats.org/package/2006/{}"'


def workbook(sheets: list[list[list[str]]]) -> bytes:
    names = "".join(f'<sheet name="S{at}" sheetId="{at}" r:id="r{at}"/>' for at, _ in enumerate(sheets, start=1))
    relations = "".join(
        f'<Relationship Id="r{at}" Type="{_OFFICE}/worksheet" Target="worksheets/sheet{at}.xml"/>'
        for at, _ in enumerate(sheets, start=1)
    )
    members = [
        ("[Content_Types].xml", f"<Types {_PACKAGE.format('content-types')}/>"),
        ("xl/workbook.xml", f'<workbook {_MAIN} xmlns:r="{_OFFICE}"><sheets>{names}</sheets></workbook>'),
        (
            "xl/_rels/workbook.xml.rels",
            f"<Relationships {_PACKAGE.format('relationships')}>{relations}</Relationships>",
        ),
    ]
    for number, rows in enumerate(sheets, start=1):
        lines = (
            f'<row r="{at}">{"".join(_sheet_cell(at, place, one) for place, one in enumerate(row) if one)}</row>'
            for at, row in enumerate(rows, start=1)
        )
        page = f"<worksheet {_MAIN}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        members.append((f"xl/worksheets/sheet{number}.xml", page))
    return _zip([(name, text.encode()) for name, text in members])


def _sheet_cell(line: int, place: int, said: str) -> str:
    where = f'r="{chr(65 + place)}{line}"'
    if said.isascii() and said.isdigit() and len(said) <= 15 and said[0] != "0":
        return f"<c {where}><v>{said}</v></c>"
    return f'<c {where} t="inlineStr"><is><t xml:space="preserve">{escape(said)}</t></is></c>'


def wrong(made: Made, folder: Path) -> list[str]:
    """What reading the file lost, or made up; empty where all is well. `REFUSED` alone: nobody can tell."""
    file = folder / "file"
    file.write_bytes(made.data)
    listed: set[str] = set()
    rejected: set[tuple[str, int]] = set()
    try:
        with ListFile(file, made.wanted) as opened:
            if not all(one.sure for one in opened.layouts):
                return [REFUSED]  # asked, or refused
            for batch in opened:
                rejected |= {(_member(one.member), one.line) for one in batch.rejects}
                for read in batch.reads:
                    listed |= {f"+{key}" for key in read.keys[read.done].tolist()}
            told = opened.unused
    except UnreadableError:
        return [REFUSED]
    table = cells(made.data, made.marks)
    alone = len({one.member for one in table}) <= 1
    written = set().union(*(may_say(one.text) for one in table))
    found = [f"{one} is listed, and nobody wrote it" for one in sorted(listed - written)]
    headers: dict[tuple[str, int], set[str]] = {}
    for one in table:
        if one.line <= _HEADER_LINES:
            headers.setdefault((one.member, one.column), set()).add(one.text)
    for seen in sees(table):
        if f"+1{seen.ten}" in listed or (("" if alone else seen.member), seen.line) in rejected:
            continue
        if not any(_accounts(one, seen, headers, alone=alone) for one in told):
            found.append(f"{seen} is lost")
    return found


def _member(name: str) -> str:
    """As the person says it: the archive's member, and the sheet's title."""
    return name.replace(": sheet ", " ").replace("sheet ", "").replace("'", "")


def _accounts(one: UnusedPart, seen: Seen, headers: dict[tuple[str, int], set[str]], *, alone: bool) -> bool:
    """Whether the report names the place of a number as one that was not taken."""
    if one.what in {PartKind.SHEET, PartKind.MEMBER}:
        return _member(one.name) == seen.member
    if not alone and _member(one.member) != seen.member:
        return False
    if one.what is PartKind.LINES:
        first, _, rest = one.name.partition(",")[0].partition(" to ")
        return int(first) <= seen.line <= int(rest or first) and one.numbers > 0
    named = {f"#{seen.column}", *headers.get((seen.member, seen.column), ())}
    elsewhere = not seen.whole and one.line <= seen.line  # the reader divides by another mark, which nobody has told
    return one.numbers > 0 and (one.name in named or elsewhere)


def play(seeds: range, folder: Path) -> tuple[int, list[str]]:
    """(how many files were read and not refused, what was wrong) of these seeds."""
    read, found = 0, []
    for seed in seeds:
        made = make(seed)
        told = wrong(made, folder)
        if told != [REFUSED]:
            read += 1
            found += [f"seed {seed}, {made.told}, {made.wanted}: {one}" for one in told]
    return read, found
