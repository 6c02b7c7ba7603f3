"""Rows into a batch: the quick way for whole columns first, then one by one the cells that it left."""

from __future__ import annotations

import numpy as np

from config.numbers import NANP_REGIONS, NumberError, normalise
from suppression.kinds import KEY_BYTES, Kind
from suppression.reading import cells
from suppression.reading.cells import CellError, Read
from suppression.reading.rows import Rows, decode, exact, unquote
from suppression.reading.shapes import Batch, Flags, Layout, Reject, Times


def columns(layout: Layout) -> tuple[int, ...]:
    """Those to look for in rows, in the order `batch` expects."""
    return tuple(one for one in (layout.column, layout.area_column, layout.expires_column) if one is not None)


def batch(rows: Rows, layout: Layout, region: str, member: str) -> Batch | None:
    """None where all rows are blank."""
    work = _Work(rows, layout, region)
    read = work.read()
    expires = None if layout.expires_column is None else work.expiries()
    if work.blank:
        keep = np.ones(len(read.keys), np.bool_)
        keep[work.blank] = False
        rows.keep(keep)
        read, expires = _kept(read, expires, keep)
        work.renumber(keep)
    if not len(read.keys):
        return None
    ok = np.ones(len(read.keys), np.bool_)
    refused = sorted(work.why)
    ok[refused] = False
    read.keys[refused] = 0
    return Batch(
        member=member,
        text=rows.text,
        starts=rows.starts,
        ends=rows.ends,
        lines=rows.lines,
        ok=ok,
        keys=read.keys,
        rest=read.rest,
        expires=expires,
        rejects=[Reject(int(rows.lines[at]), work.why[at], member) for at in refused],
    )


def _kept(read: Read, expires: Times | None, keep: Flags) -> tuple[Read, Times | None]:
    rest = None if read.rest is None else read.rest[keep]
    return Read(read.keys[keep], read.done[keep], rest), None if expires is None else expires[keep]


class _Work:
    """On some rows. `why`: of the rows that are rejected, by their place; `blank`: places of rows without content."""

    def __init__(self, rows: Rows, layout: Layout, region: str) -> None:
        self._rows = rows
        self._layout = layout
        self._region = region
        self._known: dict[str, int | str] = {}  # cells of this batch read one by one: what repeats is read once
        self.why: dict[int, str] = {}
        self.blank: list[int] = []

    def read(self) -> Read:
        read = self._quickly()
        for at in np.flatnonzero(~read.done).tolist():
            text = self._text(0, at)
            if text:
                self._slowly(read, at, text)
            elif self._is_blank(at):
                self.blank.append(at)
            else:
                self.why[at] = "empty"
        return read

    def expiries(self) -> Times:
        text, where = self._rows.text, len(self._rows.cells) - 1
        found, done = cells.expiries(text, cells.trim(text, self._rows.cells[where]))
        for at in np.flatnonzero(~done).tolist():
            try:
                found[at] = cells.expiry(self._text(where, at))
            except CellError as error:
                self.why.setdefault(at, str(error))
        return found

    def renumber(self, keep: Flags) -> None:
        """After blank rows were dropped."""
        places = np.cumsum(keep) - 1
        self.why = {int(places[at]): why for at, why in self.why.items()}

    def _quickly(self) -> Read:
        rows, layout = self._rows, self._layout
        main = cells.trim(rows.text, rows.cells[0])
        home = self._region in NANP_REGIONS
        if layout.kind is not Kind.NUMBER:
            return cells.digests(rows.text, main, layout.kind)
        if layout.area_column is not None:
            return cells.registry_numbers(rows.text, cells.trim(rows.text, rows.cells[1]), main, home=home)
        return cells.numbers(rows.text, main, home=home)

    def _slowly(self, read: Read, at: int, text: str) -> None:
        kind = self._layout.kind
        if kind is Kind.NUMBER:
            found = self._number(text if self._layout.area_column is None else self._text(1, at) + text)
            if isinstance(found, str):
                self.why[at] = found
            else:
                read.keys[at] = found
            return
        assert read.rest is not None
        try:
            digest = cells.digest(text, kind)
        except CellError as error:
            self.why[at] = str(error)
            return
        read.keys[at] = int.from_bytes(digest[:KEY_BYTES], "big")
        read.rest[at] = np.frombuffer(digest[KEY_BYTES:], np.uint8)

    def _number(self, text: str) -> int | str:
        """Or why it is none."""
        found = self._known.get(text)
        if found is None:
            try:
                found = normalise(text, self._region)
            except NumberError as error:
                found = str(error)
            self._known[text] = found
        return found

    def _text(self, column: int, at: int) -> str:
        begin, end = self._rows.cells[column]
        return decode(unquote(self._rows.data[begin[at] : end[at]])).strip()

    def _is_blank(self, at: int) -> bool:
        rows = self._rows
        spans = exact(self._layout.delimiter).cells(rows.data, int(rows.starts[at]), int(rows.ends[at]))
        return not any(decode(unquote(rows.data[begin:end])).strip() for begin, end in spans)
