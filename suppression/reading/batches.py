"""Rows into a batch: the quick way for whole columns first, then one by one the cells that it left."""

from __future__ import annotations

import numpy as np

from book.numbers import NANP_REGIONS, NumberError, normalise
from suppression.kinds import KEY_BYTES, Kind
from suppression.reading import cells
from suppression.reading.cells import CellError
from suppression.reading.rows import Rows, decode, exact, unquote
from suppression.reading.shapes import Batch, ColumnRead, Flags, Layout, ReadOptions, Reject, Spans, Times


def batch(rows: Rows, layout: Layout, options: ReadOptions, member: str) -> Batch | None:
    """None where all rows are blank."""
    work = _Work(rows, layout, options)
    reads = [work.read(column) for column in layout.columns]
    work.sort_out_empty()
    expires = None if layout.expires_column is None else work.expiries(layout.expires_column)
    if work.blank:
        keep = np.ones(len(rows.starts), np.bool_)
        keep[work.blank] = False
        rows.keep(keep)
        reads = [_kept(read, keep) for read in reads]
        expires = None if expires is None else expires[keep]
        work.silent = work.silent[keep]
        work.renumber(keep)
    if not len(rows.starts):
        return None
    ok = np.ones(len(rows.starts), np.bool_)
    refused = sorted(work.why)
    ok[refused] = False
    return Batch(
        member=member,
        text=rows.text,
        starts=rows.starts,
        ends=rows.ends,
        lines=rows.lines,
        ok=ok,
        reads=tuple(reads),
        expires=expires,
        silent=None if expires is None else work.silent,
        rejects=[Reject(int(rows.lines[at]), work.why[at], member) for at in refused],
        endless=[Reject(int(rows.lines[at]), why, member) for at, why in work.endless.items() if work.has_entry(at)],
    )


def _kept(read: ColumnRead, keep: Flags) -> ColumnRead:
    return ColumnRead(read.keys[keep], read.done[keep], None if read.rest is None else read.rest[keep])


class _Work:
    """On some rows. `why`: of the rows that are rejected, by their place; `blank`: places of rows without content."""

    def __init__(self, rows: Rows, layout: Layout, options: ReadOptions) -> None:
        self._rows = rows
        self._layout = layout
        self._options = options
        self._known: dict[str, int | str] = {}  # cells of this batch read one by one: what repeats is read once
        self._filled = np.zeros(len(rows.starts), np.bool_)  # rows with something in a column that is read
        self._done = np.zeros(len(rows.starts), np.bool_)  # rows with an entry
        self.why: dict[int, str] = {}
        self.endless: dict[int, str] = {}
        self.blank: list[int] = []
        self.silent = np.ones(len(rows.starts), np.bool_)  # rows whose expiry is empty

    def read(self, column: int) -> ColumnRead:
        spans = self._rows.column(column)
        read, filled = self._quickly(spans)
        if read.done.all():
            self._filled = self._done = read.done
            return read
        for at in np.flatnonzero(filled & ~read.done).tolist():
            text = self._text(spans, at)
            if text:
                self._slowly(read, at, text, column)
            else:
                filled[at] = False
        self._filled = self._filled | filled
        self._done = self._done | read.done
        return read

    def sort_out_empty(self) -> None:
        """Rows that have nothing in any column that is read: blank ones, and others."""
        if self._filled.all():
            return
        for at in np.flatnonzero(~self._filled).tolist():
            if self._is_blank(at):
                self.blank.append(at)
            else:
                self.why[at] = "empty"

    def expiries(self, column: int) -> Times:
        text, spans = self._rows.text, self._rows.column(column)
        begin, end = cells.trim(text, spans)
        found, done = cells.expiries(text, (begin, end), self._options.zone)
        self.silent = begin >= end
        for at in np.flatnonzero(~done).tolist():
            said = self._text(spans, at)
            self.silent[at] = not said
            try:
                found[at] = cells.expiry(said, self._options.zone)
            except CellError as error:
                self.endless[at] = f"{error}; kept for ever"
        return found

    def has_entry(self, at: int) -> bool:
        return bool(self._done[at])

    def renumber(self, keep: Flags) -> None:
        """After blank rows were dropped."""
        places = np.cumsum(keep) - 1
        self.why = {int(places[at]): why for at, why in self.why.items()}
        self.endless = {int(places[at]): why for at, why in self.endless.items() if keep[at]}
        self._done = self._done[keep]

    def _quickly(self, spans: Spans) -> tuple[ColumnRead, Flags]:
        """(what could be read, which cells are filled)."""
        rows, layout = self._rows, self._layout
        main = cells.trim(rows.text, spans)
        home = self._options.region in NANP_REGIONS
        filled = main[0] < main[1]
        if layout.kind is not Kind.NUMBER:
            return cells.digests(rows.text, main, layout.kind), filled
        if layout.area_column is not None:
            areas = cells.trim(rows.text, rows.column(layout.area_column))
            return cells.registry_numbers(rows.text, areas, main, home=home), filled
        return cells.numbers(rows.text, main, home=home), filled

    def _slowly(self, read: ColumnRead, at: int, text: str, column: int) -> None:
        kind = self._layout.kind
        if kind is Kind.NUMBER:
            area = self._layout.area_column
            found = self._number(text if area is None else self._text(self._rows.column(area), at) + text)
            if isinstance(found, str):
                self._refuse(at, found, column)
            else:
                read.keys[at] = found
                read.done[at] = True
            return
        assert read.rest is not None
        try:
            digest = cells.digest(text, kind)
        except CellError as error:
            self._refuse(at, str(error), column)
            return
        read.keys[at] = int.from_bytes(digest[:KEY_BYTES], "big")
        read.rest[at] = np.frombuffer(digest[KEY_BYTES:], np.uint8)
        read.done[at] = True

    def _refuse(self, at: int, why: str, column: int) -> None:
        which = f"column {self._layout.name(column)!r}: " if len(self._layout.columns) > 1 else ""
        self.why.setdefault(at, f"{which}{why}")

    def _number(self, text: str) -> int | str:
        """Or why it is none."""
        found = self._known.get(text)
        if found is None:
            try:
                found = normalise(text, self._options.region)
            except NumberError as error:
                found = str(error)
            self._known[text] = found
        return found

    def _text(self, spans: Spans, at: int) -> str:
        begin, end = spans
        return decode(unquote(self._rows.data[begin[at] : end[at]])).strip()

    def _is_blank(self, at: int) -> bool:
        rows = self._rows
        spans = exact(self._layout.delimiter).cells(rows.data, int(rows.starts[at]), int(rows.ends[at]))
        return not any(decode(unquote(rows.data[begin:end])).strip() for begin, end in spans)
