"""Sorting, files and look-ups of suppression lists against Python's own sets and dictionaries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suppression import snapshot
from suppression.changes import Change, as_entries, combine, decode, encode
from suppression.index import LoadedList, Probe, find_sorted, finder, make_part
from suppression.kinds import KEY_BYTES, Kind, digests
from suppression.snapshot import Entries, Snapshot, SnapshotError
from suppression.sorting import Collector, Layer, SnapshotRun, Tally, merge

# Near each other (one block), far apart (flat), and around the edges of blocks.
NUMBERS = st.one_of(
    st.integers(12_125_550_000, 12_125_550_200),
    st.integers(12_000_000_000, 19_999_999_999),
    st.integers(1, 999_999_999_999_999),
    st.integers(185_000, 185_010).map(lambda block: block << 16),
    st.integers(185_000, 185_010).map(lambda block: (block << 16) - 1),
)
FEW = st.lists(NUMBERS, max_size=40)
UNTIL = st.sampled_from([0, 0, 1, 1_000, 2**32 - 1])


class Folder:
    """A folder and what is sorted in it."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.path = Path(self._open.enter_context(TemporaryDirectory()))
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    def layer(self, entries: Entries, kind: Kind = Kind.NUMBER, *, removes: bool = False, run: int = 48) -> Layer:
        taken = self._open.enter_context(
            Collector(self.path, kind, expiring=entries.expires is not None, run_bytes=run)
        )
        taken.add(entries)
        return taken.layer(removes=removes)

    def written(self, layers: Sequence[Layer], kind: Kind = Kind.NUMBER, window: int = 5) -> Snapshot:
        extent = snapshot.extent_of(merge(layers, Tally(), window), kind)
        file, checksum = snapshot.write(
            self.path, "x", merge(layers, Tally(), window), extent, kind=kind, source_checksum="s", built_at="b"
        )
        return snapshot.load(file, checksum)


@pytest.fixture
def folder() -> Iterator[Folder]:
    with Folder() as opened:
        yield opened


def _loaded(read: Snapshot, change: Change | None = None, **more: Any) -> LoadedList:
    return LoadedList(
        "x", 1, 0, read.checksum, None, read.kind, read, change or Change(), more.get("expires_s"), finder(read)
    )


@given(st.lists(st.tuples(FEW, st.booleans()), min_size=1, max_size=4), st.integers(8, 100), st.integers(1, 9))
def test_layers_come_to_what_sets_come_to(layers: list[tuple[list[int], bool]], run: int, window: int) -> None:
    model: set[int] = set()
    with Folder() as folder:
        built = []
        for numbers, removes in layers:
            model = model - set(numbers) if removes else model | set(numbers)
            entries = Entries(np.array(numbers, np.uint64))
            built.append(folder.layer(entries, removes=removes, run=run))
        tally = Tally()
        found = [int(one) for part in merge(built, tally, window) for one in part.keys]
    assert found == sorted(model)
    assert tally.count == len(model)
    assert tally.own == len(set(layers[-1][0]))


@given(st.lists(st.lists(st.tuples(NUMBERS, UNTIL), max_size=25), min_size=1, max_size=3), st.integers(1, 9))
def test_of_equal_entries_the_later_layer_wins_and_in_it_the_longest(
    layers: list[list[tuple[int, int]]], window: int
) -> None:
    model: dict[int, int] = {}
    with Folder() as folder:
        built = []
        for rows in layers:
            mine: dict[int, int] = {}
            for number, until in rows:
                longest = max(mine.get(number, -1), until or 2**32)
                mine[number] = longest
            model |= mine
            keys, expires = [one for one, _ in rows], [until for _, until in rows]
            entries = Entries(np.array(keys, np.uint64), None, np.array(expires, np.uint32))
            built.append(folder.layer(entries))
        found = {
            int(key): int(until)
            for part in merge(built, Tally(), window)
            for key, until in zip(part.keys, part.expires if part.expires is not None else (), strict=True)
        }
    assert found == {number: 0 if until == 2**32 else until for number, until in model.items()}


@settings(max_examples=60)
@given(FEW, FEW)
def test_a_file_holds_exactly_its_numbers(numbers: list[int], others: list[int]) -> None:
    with Folder() as folder:
        read = folder.written([folder.layer(Entries(np.array(numbers, np.uint64)))])
        wanted = sorted(set(numbers))
        assert read.entries(0, read.count).keys.tolist() == wanted
        for start in range(0, len(wanted), 3):
            assert read.entries(start, start + 5).keys.tolist() == wanted[start : start + 5]
        find = finder(read)
        asked = sorted({*numbers, *others, *(one + 1 for one in numbers), *(max(0, one - 1) for one in numbers)})
        assert [find(one) >= 0 for one in asked] == [one in set(numbers) for one in asked]
        assert [wanted[find(one)] for one in wanted] == wanted
        assert find_sorted(read, np.array(asked, np.uint64)).tolist() == [one in set(numbers) for one in asked]


def test_dense_numbers_lie_in_blocks_and_sparse_ones_do_not(folder: Folder) -> None:
    dense = np.arange(12_125_550_000, 12_125_650_000, 3, dtype=np.uint64)
    sparse = np.arange(1, 200, dtype=np.uint64) * 70_000
    made = [folder.written([folder.layer(Entries(one), run=1 << 20)], window=1000) for one in (dense, sparse)]
    assert ["lows" in one.sections for one in made] == [True, False]
    assert sum(part.nbytes for part in made[0].sections.values()) < 2.01 * len(dense)
    assert made[0].entries(0, made[0].count).keys.tolist() == dense.tolist()


@settings(max_examples=40)
@given(
    st.sampled_from([Kind.MD5, Kind.SHA1, Kind.SHA256]),
    st.lists(st.tuples(NUMBERS, st.integers(0, 2)), max_size=30),
    FEW,
    st.integers(1, 5),
)
def test_a_hashed_list_agrees_with_a_plain_one(
    kind: Kind, listed: list[tuple[int, int]], others: list[int], window: int
) -> None:
    held = {digests(kind, number)[at % len(digests(kind, number))]: 0 for number, at in listed}
    numbers = {number for number, _ in listed}
    with Folder() as folder:
        read = folder.written([folder.layer(as_entries(held, kind), kind)], kind, window)
        hashed = _loaded(read)
        assert read.count == len(held)
        for number in (*numbers, *others):
            assert hashed.has(Probe(number), 0.0) is (number in numbers)
        part = make_part([hashed])
        hits = {number for number in {*numbers, *others} if list(part.hits(Probe(number), 0.0))}
        assert hits == numbers
        assert hits <= {number for number in {*numbers, *others} if part.suspect(Probe(number))}


@pytest.mark.parametrize("window", [1, 2, 100])
def test_digests_that_share_their_first_bytes_stay_apart(folder: Folder, window: int) -> None:
    prefix = digests(Kind.SHA256, 12_125_550_100)[0][:KEY_BYTES]
    same = [prefix + hashlib.sha256(bytes([at])).digest()[KEY_BYTES:] for at in range(20)]
    wanted = digests(Kind.SHA256, 12_125_550_100)[0]
    without = folder.written([folder.layer(as_entries(same, Kind.SHA256), Kind.SHA256)], Kind.SHA256, window)
    both = folder.written([folder.layer(as_entries([*same, wanted], Kind.SHA256), Kind.SHA256)], Kind.SHA256, window)
    assert (without.count, both.count) == (20, 21)
    assert not _loaded(without).has(Probe(12_125_550_100), 0.0)
    assert _loaded(both).has(Probe(12_125_550_100), 0.0)
    gone = folder.layer(as_entries([wanted], Kind.SHA256), Kind.SHA256, removes=True)
    after = folder.written([Layer((SnapshotRun(both),)), gone], Kind.SHA256, window)
    assert after.count == 20
    assert not _loaded(after).has(Probe(12_125_550_100), 0.0)


@given(st.lists(st.tuples(st.dictionaries(NUMBERS, UNTIL, max_size=6), st.frozensets(NUMBERS, max_size=6)), max_size=5))
def test_changes_one_after_another_are_one_change(changes: list[tuple[dict[int, int], frozenset[int]]]) -> None:
    model: dict[int, int] = dict.fromkeys(range(12125550000, 12125550100), 0)
    whole = combine(decode(encode(Change(add, remove)), Kind.NUMBER) for add, remove in changes)
    wanted = dict(model)
    for add, remove in changes:
        wanted = {number: until for number, until in wanted.items() if number not in remove} | add
    assert {number: until for number, until in model.items() if number not in whole.remove} | whole.add == wanted


@settings(max_examples=60)
@given(
    st.dictionaries(NUMBERS, UNTIL, max_size=20),
    st.dictionaries(NUMBERS, UNTIL, max_size=8),
    st.frozensets(NUMBERS, max_size=8),
    FEW,
    st.sampled_from([0.0, 1.0, 999.0, 1_000.0, 5e9]),
)
def test_a_list_with_changes_is_the_set_with_changes(
    held: dict[int, int], add: dict[int, int], remove: frozenset[int], others: list[int], now_s: float
) -> None:
    change = combine([Change({}, remove), Change(add)])
    with Folder() as folder:
        read = folder.written([folder.layer(as_entries(held, Kind.NUMBER))])
        one = _loaded(read, change)
        part = make_part([one, _loaded(read, Change({}, frozenset(held)))])
        model = {number: until for number, until in held.items() if number not in remove} | add
        for number in {*held, *add, *remove, *others}:
            until = model.get(number)
            wanted = until is not None and (not until or now_s < until)
            assert one.has(Probe(number), now_s) is wanted
            assert one.until(number) == until
            assert [found is one for found in part.hits(Probe(number), now_s)] == [True] * wanted
            assert part.suspect(Probe(number)) or not wanted
        assert one.count_with(change) == len(model)
        asked = np.array(sorted({*held, *add, *others}), np.uint64)
        suspects = set(asked[part.suspects(asked)].tolist())
        assert suspects >= {number for number in asked.tolist() if one.has(Probe(number), now_s)}


@settings(max_examples=80)
@given(st.lists(NUMBERS, min_size=1, max_size=30), st.data())
def test_a_file_with_any_byte_changed_or_cut_is_refused(numbers: list[int], data: st.DataObject) -> None:
    with Folder() as folder:
        entries = Entries(np.array(numbers, np.uint64))
        read = folder.written([folder.layer(entries)])
        (file,) = folder.path.glob("*.list")
        whole = file.read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            file.write_bytes(whole[:at])
        else:
            file.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
        for checksum in ("", read.checksum):
            with pytest.raises(SnapshotError):
                snapshot.load(file, checksum)
