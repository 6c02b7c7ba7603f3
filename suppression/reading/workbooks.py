"""The parts of an XLSX workbook (ECMA-376 part 1, section 18) but the rows: which sheets it has, texts, date formats.

openpyxl knows formats and calendars here, but does not read the file: it builds a tree of every part, leaves out rows
and cells that are not in order, and needs a minute for what takes seconds. The parts are read as streams of tags; no
part may declare a type or an entity, which is what makes small XML large.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, time
from sys import getsizeof
from xml.parsers.expat import ParserCreate, XMLParserType
from zipfile import ZipFile

from openpyxl.styles.numbers import BUILTIN_FORMATS, is_date_format
from openpyxl.utils.datetime import MAC_EPOCH, WINDOWS_EPOCH, from_excel

MAX_TEXT = 1 << 20  # characters of one text; Excel ends at 32,767
MAX_TEXTS_BYTES = 512 << 20  # in memory, of all shared texts
MAX_LAG = 1 << 20  # bytes of one tag: the parser begins it again with each piece, and Excel's are a thousandth of that
_PIECE = 1 << 16  # small, for a short row may have its last cell in the last column
_POINTER = 8  # bytes
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")  # ST_Xstring, ECMA-376 part 1, section 22.9.2.19
_ROOT_RELATIONS = "_rels/.rels"
_Tag = tuple[str, dict[str, str]]


@dataclass(slots=True)
class Workbook:
    """`sheets`: (title, part), those that are shown first; `others`: titles of charts and the like.

    `dates`: for each cell style, whether it shows a date.
    """

    archive: ZipFile
    sheets: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    dates: list[bool] = field(default_factory=list)
    epoch: datetime = WINDOWS_EPOCH

    def date(self, serial: float) -> str | None:
        """A day or a time as ISO text; None where no date has that number: it was a number in the wrong dress."""
        try:
            when = from_excel(serial, self.epoch)
        except (OverflowError, ValueError):
            return None
        if isinstance(when, datetime) and when.time() == time():
            return when.date().isoformat()
        return str(when)


def open_workbook(archive: ZipFile) -> Workbook:
    """Raises what zipfile and expat raise, KeyError where a part is missing, and ValueError."""
    book = Workbook(archive)
    main = next(
        (part for kind, part in _relations(archive, _ROOT_RELATIONS, "").values() if kind == "officeDocument"), ""
    )
    folder, name = posixpath.split(main or "xl/workbook.xml")
    parts = _relations(archive, f"{folder}/_rels/{name}.rels", folder)
    hidden: list[tuple[str, str]] = []
    for tag, its in _tags(archive, f"{folder}/{name}"):
        if tag == "workbookPr" and its.get("date1904") in {"1", "true"}:
            book.epoch = MAC_EPOCH
        if tag == "sheet" and parts[its["id"]][0] == "worksheet":
            shown = its.get("state", "visible") == "visible"
            (book.sheets if shown else hidden).append((its.get("name", ""), parts[its["id"]][1]))
        elif tag == "sheet":
            book.others.append(its.get("name", ""))
    book.sheets += hidden
    if not book.sheets:
        raise ValueError("no sheets: another kind of document")
    for kind, part in parts.values():
        if kind == "sharedStrings":
            book.texts = _texts(archive, part)
        elif kind == "styles":
            book.dates = _dates(archive, part)
    return book


def _relations(archive: ZipFile, part: str, folder: str) -> dict[str, tuple[str, str]]:
    """(last word of its type, part) by id: ECMA-376 part 2, section 6.5."""
    found: dict[str, tuple[str, str]] = {}
    if part not in archive.namelist():
        return found
    for tag, its in _tags(archive, part):
        if tag == "Relationship" and its.get("TargetMode") != "External":
            path = posixpath.normpath(posixpath.join("/" + folder, its["Target"])).lstrip("/")
            found[its["Id"]] = (posixpath.basename(its["Type"]), path)
    return found


def _dates(archive: ZipFile, part: str) -> list[bool]:
    formats: dict[str, str] = {str(number): code for number, code in BUILTIN_FORMATS.items()}
    found: list[bool] = []
    inside = ""
    for tag, its in _tags(archive, part):
        if tag in {"cellXfs", "cellStyleXfs", "cellStyles", "dxfs"}:
            inside = tag
        elif tag == "numFmt":
            formats[its["numFmtId"]] = its["formatCode"]
        elif tag == "xf" and inside == "cellXfs":
            found.append(bool(is_date_format(formats.get(its.get("numFmtId", "0"), ""))))
    return found


def local(name: str) -> str:
    """Without the prefix of its namespace."""
    return name.rpartition(":")[2] if ":" in name else name


def unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text) if "_x" in text else text


def parser() -> XMLParserType:
    made = ParserCreate()
    made.buffer_text = True
    made.StartDoctypeDeclHandler = _refuse
    made.EntityDeclHandler = _refuse
    return made


def _refuse(*_: object) -> None:
    raise ValueError("a workbook declares no types and no entities")


def parsed(archive: ZipFile, part: str, made: XMLParserType) -> Iterator[None]:
    """Piece by piece, so that what the handlers gather can be taken away."""
    fed = 0
    with archive.open(part) as opened:
        while piece := opened.read(_PIECE):
            made.Parse(piece, False)
            fed += len(piece)
            if fed - made.CurrentByteIndex > MAX_LAG:
                raise ValueError("a tag is too long")
            yield
    made.Parse(b"", True)
    yield


def _tags(archive: ZipFile, part: str) -> Iterator[_Tag]:
    made = parser()
    found: list[_Tag] = []

    def start(name: str, its: dict[str, str]) -> None:
        found.append((local(name), {local(key): value for key, value in its.items()}))

    made.StartElementHandler = start
    for _ in parsed(archive, part, made):
        yield from found
        found.clear()


class Text:
    """Gathers the text of `v` and `t` elements, but not of those that tell how it sounds (`rPh`)."""

    __slots__ = ("_parts", "_size", "_sounding", "_taking")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0
        self._taking = self._sounding = False

    def start(self, name: str) -> None:
        if name in {"v", "t"}:
            self._taking = not self._sounding
        elif name == "rPh":
            self._sounding = True

    def end(self, name: str) -> None:
        if name in {"v", "t"}:
            self._taking = False
        elif name == "rPh":
            self._sounding = False

    def data(self, text: str) -> None:
        if self._taking:
            self._parts.append(text)
            self._size += len(text)
            if self._size > MAX_TEXT:
                raise ValueError("a text is too long")

    def take(self) -> str:
        text = self._parts[0] if len(self._parts) == 1 else "".join(self._parts)
        self._parts.clear()
        self._size = 0
        return text


def _texts(archive: ZipFile, part: str) -> list[str]:
    made = parser()
    text = Text()
    found: list[str] = []
    size = 0

    def start(name: str, _: dict[str, str]) -> None:
        text.start(local(name))

    def end(name: str) -> None:
        nonlocal size
        if local(name) == "si":
            found.append(unescaped(text.take()))
            size += getsizeof(found[-1]) + _POINTER
            if size > MAX_TEXTS_BYTES:
                raise ValueError("the texts are too long")
        else:
            text.end(local(name))

    made.StartElementHandler, made.EndElementHandler, made.CharacterDataHandler = start, end, text.data
    for _ in parsed(archive, part, made):
        pass
    return found
