"""A suppression list under any sequence of imports, changes, folds, restores, restarts and kills is a Python set."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from book.lists import Actor
from meter.store.engine import open_store
from meter.suppression_rows.sql.lists import ListRows
from suppression import editing
from suppression.activating import current_base
from suppression.editing import edit, fold, restore
from suppression.importer import Mode, Task, import_file
from suppression.kinds import Kind, digests
from suppression.lookups import rows
from suppression.receipt import Signer
from suppression.scrub import Scrub

ROOT = Path(__file__).parents[2]
UNIVERSE = [12_125_550_100 + at for at in range(12)] + [442_079_460_000 + at for at in range(4)]
SOME = st.frozensets(st.sampled_from(UNIVERSE), min_size=1)
ANN = Actor("ann", "test")


class Lists(RuleBasedStateMachine):
    """One plain list and one hashed one, given the same numbers; a reader that follows, one that starts anew."""

    @initialize(kind=st.sampled_from([Kind.MD5, Kind.SHA1, Kind.SHA256]), often=st.booleans())
    def start(self, kind: Kind, often: bool) -> None:
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(TemporaryDirectory()))
        self._runner = self._stack.enter_context(asyncio.Runner())
        self.kind = kind
        self._often = editing.FOLD_REVISIONS
        editing.FOLD_REVISIONS = 2 if often else self._often
        self.engine = self._do(open_store(f"sqlite+aiosqlite:///{self.folder / 'baton.db'}"))
        self.store = ListRows(self.engine)
        self.wanted: set[int] = set()
        self.versions: dict[int, set[int]] = {}
        self.scrub = self._new_scrub()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def _new_scrub(self) -> Scrub:
        scrub = Scrub(self.store, self.folder, Signer(b"k" * 32))
        self._do(scrub.reload())
        return scrub

    @rule(numbers=SOME, mode=st.sampled_from(list(Mode)))
    def import_(self, numbers: frozenset[int], mode: Mode) -> None:
        if mode is Mode.REMOVE and not self.versions:
            return
        for name, kind in (("plain", Kind.NUMBER), ("hashed", self.kind)):
            file = self.folder / "list.txt"
            entries = [f"+{one}" if kind is Kind.NUMBER else digests(kind, one)[0].hex() for one in numbers]
            file.write_text("\n".join(entries) + "\n", encoding="utf-8")
            self._do(import_file(self.store, self.folder, Task(file, name, None, mode), ANN))
        changed = {Mode.REPLACE: set(numbers), Mode.ADD: self.wanted | numbers, Mode.REMOVE: self.wanted - numbers}
        self.wanted = changed[mode]
        self._note()

    @precondition(lambda self: self.versions)
    @rule(add=SOME, remove=SOME, spelt=st.integers(0, 3))
    def change(self, add: frozenset[int], remove: frozenset[int], spelt: int) -> None:
        add -= remove
        before = self._current()
        for name in ("plain", "hashed"):
            self._do(
                edit(
                    self.store,
                    self.folder,
                    name,
                    add=dict.fromkeys((_spelt(one, spelt) for one in add), 0),
                    remove=[_spelt(one, spelt) for one in remove],
                    actor=ANN,
                )
            )
        self.wanted = self.wanted - remove | add
        self.versions[before] = set(self.wanted)  # it may have been folded into the next one
        self._note()

    @precondition(lambda self: self.versions)
    @rule()
    def folded(self) -> None:
        for name in ("plain", "hashed"):
            self._do(fold(self.store, self.folder, name, ANN))
        self._note()

    @precondition(lambda self: len(self.versions) > 1)
    @rule(data=st.data())
    def restored(self, data: st.DataObject) -> None:
        current = self._current()
        version = data.draw(st.sampled_from(sorted(self.versions)))
        if version == current:
            return
        for name in ("plain", "hashed"):
            self._do(restore(self.store, self.folder, name, version, ANN, drop_changes=True))
        self.wanted = set(self.versions[version])
        self._note()

    @rule()
    def restarted(self) -> None:
        self._do(self.engine.dispose())
        self.engine = self._do(open_store(f"sqlite+aiosqlite:///{self.folder / 'baton.db'}"))
        self.store = ListRows(self.engine)
        self.scrub = self._new_scrub()

    def _current(self) -> int:
        found = self._do(self.store.find("plain"))
        return 0 if found is None else int(found.version)

    def _note(self) -> None:
        self.versions[self._current()] = set(self.wanted)

    @invariant()
    def the_list_is_the_set(self) -> None:
        if not hasattr(self, "scrub"):
            return
        self._do(self.scrub.reload())
        assert self.scrub.broken == ()
        for scrub in (self.scrub, self._new_scrub()):
            both = [set(), set()]
            state = scrub.state
            for number in UNIVERSE:
                hits = {one.name for one in state.shared.hits(_probe(number), 0.0)}
                assert state.shared.suspect(_probe(number)) or not hits
                for at, name in enumerate(("plain", "hashed")):
                    if name in hits:
                        both[at].add(number)
                assert (scrub.check(f"+{number}", "acme").reason == "suppressed") is (number in self.wanted)
            assert both == [self.wanted, self.wanted]
        for name in ("plain", "hashed") if self.versions else ():
            found = self._do(self.store.find(name))
            assert found.count == len(self.wanted)

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            editing.FOLD_REVISIONS = self._often
            self._do(self.engine.dispose())
            self._stack.close()


def _probe(number: int) -> Any:
    from suppression.index import Probe

    return Probe(number)


def _spelt(number: int, how: int) -> str:
    text = str(number)
    if not text.startswith("1"):
        return f"+{text}"
    return (f"+{text}", text, f"({text[1:4]}) {text[4:7]}-{text[7:]}", f"tel:+1-{text[1:4]}-{text[4:]}")[how]


Lists.TestCase.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
test_a_list_is_a_set = Lists.TestCase


CHILD = """
import asyncio, random, sys
from pathlib import Path
from meter.store.engine import open_store
from meter.suppression_rows.sql.lists import ListRows
from suppression import editing
from suppression.editing import edit, fold
from suppression.importer import Mode, Task, import_file
from book.lists import Actor

editing.FOLD_REVISIONS = 4
folder, dice, who = Path(sys.argv[1]), random.Random(int(sys.argv[2])), Actor("child", "test")

async def work():
    store = ListRows(await open_store(f"sqlite+aiosqlite:///{folder / 'baton.db'}"))
    while True:
        numbers = sorted(dice.sample(range(12_125_550_000, 12_125_552_000), dice.randrange(1, 1500)))
        how = dice.choice(["replace", "add", "remove", "more", "less", "fold"])
        if how in ("more", "less"):
            numbers = numbers[:5]
        print("doing", how, *numbers, flush=True)
        if how == "fold":
            await fold(store, folder, "dnc", who)
        elif how == "more":
            await edit(store, folder, "dnc", add={f"+{one}": 0 for one in numbers}, remove=[], who=who)
        elif how == "less":
            await edit(store, folder, "dnc", add={}, remove=[f"+{one}" for one in numbers], who=who)
        else:
            (folder / "list.txt").write_text("".join(f"+{one}\\n" for one in numbers))
            await import_file(store, folder, Task(folder / "list.txt", "dnc", None, Mode(how)), who)
        print("done", flush=True)

asyncio.run(work())
"""


async def _held(folder: Path) -> set[int]:
    engine = await open_store(f"sqlite+aiosqlite:///{folder / 'baton.db'}")
    store = ListRows(engine)
    try:
        scrub = Scrub(store, folder, Signer(b"k" * 32))
        await scrub.reload()
        assert scrub.broken == ()
        held = {int(entry) for entry, _ in rows(await current_base(store, folder, "dnc", must_load=True))}
        for number in (*held, 12_125_560_000):
            assert (scrub.check(f"+{number}", "acme").hit == "dnc") is (number in held)
        found = await store.find("dnc")
        assert found is not None
        assert found.count == len(held)
        return held
    finally:
        await engine.dispose()


def _after(held: set[int], how: str, numbers: set[int]) -> set[int]:
    if how == "replace":
        return numbers
    if how == "fold":
        return held
    return held | numbers if how in ("add", "more") else held - numbers


@pytest.mark.slow
def test_killed_at_any_moment_a_list_is_what_it_was_or_what_it_was_to_be(tmp_path: Path) -> None:
    dice = random.Random(4)
    held = {12_125_550_100}
    (tmp_path / "first.txt").write_text("+12125550100\n")

    async def first() -> None:
        engine = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'baton.db'}")
        await import_file(ListRows(engine), tmp_path, Task(tmp_path / "first.txt", "dnc", None), ANN)
        await engine.dispose()

    asyncio.run(first())
    steps = 0
    for seed in range(10):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, tmp_path, str(seed)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert child.stdout is not None
        first_line = child.stdout.readline()
        assert first_line.startswith("doing"), "the child did not start"
        time.sleep(dice.uniform(0.0, 0.4))
        os.kill(child.pid, signal.SIGKILL)
        lines = [first_line, *child.stdout.read().splitlines()]
        child.stdout.close()
        child.wait()
        before = held
        for line in lines:
            said, *words = line.split()
            if (said == "doing" and len(words) > 1) or words == ["fold"]:
                before, held = held, _after(held, words[0], set(map(int, words[1:])))
                steps += 1
        now = asyncio.run(_held(tmp_path))
        assert now == held if lines[-1].startswith("done") else now in (before, held)
        held = now
    assert steps > 10
