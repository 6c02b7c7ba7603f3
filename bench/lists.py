"""Suppression at national scale: a registry of 250 million numbers, thousands of lists beside it, whole files scrubbed.

Each measurement runs in a process of its own on one core, so that its memory and its CPU time are its own. Rates are
lines by second of CPU, for a second on the clock belongs to whoever else is on the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from bench.rows import Row, at_least, at_most, seen
from bench.stage import BenchError
from bench.stats import median, percentile
from book.lists import Actor, NewVersion
from meter.store.engine import open_store
from meter.suppression_rows.sql.lists import ListRows
from suppression import snapshot
from suppression.batch import Job, scrub_file
from suppression.importer import Task, import_file
from suppression.kinds import Kind
from suppression.loading import open_snapshot
from suppression.receipt import Signer
from suppression.scrub import Scrub
from suppression.snapshot import Entries

NUMBERS = 250_000_000
LINES_MORE = 1.0485  # lines by distinct number, for the numbers are drawn at random
AREAS = 350  # area codes in use
BATCH_LINES = 10_000_000
BATCH_LISTED = 0.25  # of the lines, beside those that chance put on the list
OWN_LISTS = 50
OWN_NUMBERS = 10_000
BUYERS = 10_000
LOOKS = 50_000
ROUNDS = 5  # the median of their percentiles counts
_PIECE = 2_000_000
_KEY = b"k" * 32


async def measure(folder: Path, tell: Callable[[str], None], numbers: int = NUMBERS, buyers: int = BUYERS) -> list[Row]:
    """All of it; `folder` is new and takes some 15 bytes a number while it runs."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    registry, leads = folder / "registry.csv", folder / "leads.csv"
    tell(f"  writing {numbers:,} numbers")
    await asyncio.to_thread(_write_registry, registry, int(numbers * LINES_MORE))
    await asyncio.to_thread(_write_leads, leads, registry, min(BATCH_LINES, numbers))
    tell("  importing them")
    rows = _import_rows(await _apart("import", folder, registry))
    registry.unlink()
    tell("  scrubbing a file")
    rows += _batch_rows(await _apart("batch", folder, leads))
    tell(f"  {OWN_LISTS} lists of one buyer")
    await _apart("own", folder)
    rows += _look_rows(await _apart("look", folder), f"with {OWN_LISTS} lists of the buyer")
    tell(f"  {buyers:,} lists of {OWN_NUMBERS:,} numbers")
    await _apart("many", folder, buyers)
    crowded = await _apart("look", folder)
    rows += _look_rows(crowded, f"and {buyers:,} lists of others")
    rows.append(at_most("lists: memory with all of them loaded", crowded["rss_mb"], 3072, "MB"))
    return rows


async def _apart(what: str, *words: object) -> dict[str, float]:
    """One measurement in a process of its own on one core. Raises BenchError."""
    core = min(os.sched_getaffinity(0))
    process = await asyncio.create_subprocess_exec(
        *("taskset", "-c", str(core), sys.executable, "-m", "bench.lists", what, *map(str, words)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate()
    if process.returncode:
        raise BenchError(f"lists: {what}: {complained.decode(errors='replace')[-500:]}")
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def _import_rows(measured: dict[str, float]) -> list[Row]:
    note = f"{measured['lines']:,.0f} lines of CSV in random order, {measured['entries']:,.0f} distinct"
    each = measured["file_bytes"] / measured["entries"]
    return [
        at_least("lists: import", measured["lines"] / measured["cpu_s"], 2e6, "lines/CPU s", note),
        at_most("lists: memory of an import", measured["rss_mb"], 1024, "MB", "at its highest"),
        at_most("lists: on disk", each, 2.2, "bytes/number"),
    ]


def _batch_rows(measured: dict[str, float]) -> list[Row]:
    note = f"{measured['lines']:,.0f} lines, {measured['suppressed']:,.0f} of them suppressed"
    return [at_least("lists: scrub of a file", measured["lines"] / measured["cpu_s"], 1e6, "lines/CPU s", note)]


def _look_rows(measured: dict[str, float], what: str) -> list[Row]:
    each = measured["list_mb"] * 2**20 / measured["entries"]
    rows = [
        _middle(measured, what),
        at_most(
            f"lists: scrub p99, {what}", measured["p99_us"], 50, "us", f"{LOOKS:,} numbers at random, {ROUNDS} rounds"
        ),
        seen(f"lists: start, {what}", measured["start_s"], "s", f"{measured['lists']:,.0f} lists, files warm"),
    ]
    if measured["lists"] <= OWN_LISTS + 1:
        rows.append(
            at_most("lists: start of the national list, warm", measured["alone_s"], 2, "s", "read and verified")
        )
        rows.append(at_most("lists: in memory", each, 2.2, "bytes/number", "what loading it adds to the process"))
    return rows


def _middle(measured: dict[str, float], what: str) -> Row:
    name, note = f"lists: scrub p50, {what}", "verdict, evidence and receipt"
    if measured["lists"] <= OWN_LISTS + 1:
        return at_most(name, measured["p50_us"], 15, "us", note)
    return seen(name, measured["p50_us"], "us", note)


def _write_registry(file: Path, lines: int) -> None:
    dice = np.random.default_rng(7)
    areas = np.sort(dice.choice(np.arange(201, 990), AREAS, replace=False))
    with file.open("wb") as out:
        out.write(b"phone\n")
        for at in range(0, lines, _PIECE):
            many = min(_PIECE, lines - at)
            area, exchange = areas[dice.integers(0, AREAS, many)], dice.integers(200, 1000, many)
            out.write(_spelt(area * 10_000_000 + exchange * 10_000 + dice.integers(0, 10_000, many)))


def _write_leads(file: Path, registry: Path, lines: int) -> None:
    """A quarter from the registry, the others at random."""
    dice = np.random.default_rng(11)
    listed = int(lines * BATCH_LISTED)
    with registry.open("rb") as known:
        known.readline()
        rows = np.frombuffer(known.read(11 * listed), np.uint8).reshape(-1, 11)
    others = lines - listed
    area, exchange = dice.integers(201, 990, others), dice.integers(200, 1000, others)
    drawn = _spelt(area * 10_000_000 + exchange * 10_000 + dice.integers(0, 10_000, others))
    whole = np.concatenate([rows, np.frombuffer(drawn, np.uint8).reshape(-1, 11)])
    dice.shuffle(whole)
    file.write_bytes(b"phone\n" + whole.tobytes())


def _spelt(numbers: Any) -> bytes:
    digits = np.empty((len(numbers), 11), np.uint8)
    digits[:, 10] = ord("\n")
    for at in range(9, -1, -1):
        digits[:, at] = ord("0") + numbers % 10
        numbers = numbers // 10
    return digits.tobytes()


# What follows runs in the processes.


async def _import(folder: Path, file: str) -> dict[str, float]:
    store = await _store(folder)
    cpu = time.process_time()
    done = await import_file(store, folder, Task(Path(file), "national", None), Actor("bench", "bench"))
    cpu = time.process_time() - cpu
    (row,) = await store.active()
    size = (folder / row.file).stat().st_size
    return {"cpu_s": cpu, "lines": done.report.lines, "entries": done.entries, "rss_mb": _rss(), "file_bytes": size}


async def _batch(folder: Path, file: str) -> dict[str, float]:
    scrub, _ = await _loaded(folder, mapped=True)
    cpu = time.process_time()
    done = scrub_file(scrub.state, Signer(_KEY), Job(Path(file), "acme", folder / "out"))
    return {"cpu_s": time.process_time() - cpu, "lines": done.lines, "suppressed": done.suppressed}


async def _own(folder: Path) -> dict[str, float]:
    store = await _store(folder)
    for at in range(OWN_LISTS):
        await _small_list(store, folder, f"acme-{at:02}", "acme", at)
    return {}


async def _many(folder: Path, buyers: str) -> dict[str, float]:
    store = await _store(folder)
    for at in range(int(buyers)):
        await _small_list(store, folder, f"buyer-{at:05}-own", f"buyer-{at:05}", 1_000 + at)
    return {}


async def _small_list(store: ListRows, folder: Path, name: str, buyer: str, seed: int) -> None:
    dice = np.random.default_rng(seed)
    area, exchange = dice.integers(201, 990, OWN_NUMBERS), dice.integers(200, 1000, OWN_NUMBERS)
    numbers = np.unique(10_000_000_000 + area * 10_000_000 + exchange * 10_000 + dice.integers(0, 10_000, OWN_NUMBERS))
    entries = [Entries(numbers.astype(np.uint64))]
    extent = snapshot.extent_of(entries, Kind.NUMBER)
    file, checksum = snapshot.write(
        folder / "suppression", name, entries, extent, kind=Kind.NUMBER, source_checksum="0", built_at=str(seed)
    )
    count = extent.count
    new = NewVersion(name, buyer, "number", str(file.relative_to(folder)), checksum, "bench", "0", count, count)
    await store.activate(new, Actor("bench", "bench"), action="replace", expect=None, detail={})


async def _look(folder: Path) -> dict[str, float]:
    alone_s, list_mb, entries = await _alone(folder)
    scrub, start_s = await _loaded(folder, mapped=False)
    dice = random.Random(3)
    asked = [
        f"+1{dice.randrange(201, 990)}{dice.randrange(200, 1000)}{dice.randrange(10_000):04}" for _ in range(LOOKS)
    ]
    rounds = [_timed(scrub, asked[at::ROUNDS]) for at in range(ROUNDS)]  # others are on the machine too
    return {
        "p50_us": median([percentile(took, 50) for took in rounds]),
        "p99_us": median([percentile(took, 99) for took in rounds]),
        "start_s": start_s,
        "alone_s": alone_s,
        "list_mb": list_mb,
        "entries": entries,
        "lists": len(scrub.state.rows),
        "rss_mb": _rss(),
    }


def _timed(scrub: Scrub, asked: Sequence[str]) -> list[float]:
    """Microseconds of each look-up with its receipt."""
    took = []
    for number in asked:
        started = time.perf_counter_ns()
        result = scrub.check(number, "acme")
        scrub.receipt(result, "01890a5d-ac96-774b-bcce-b302099a8057", "acme", 1_795_317_952_283_887)
        took.append((time.perf_counter_ns() - started) / 1e3)
    return took


async def _alone(folder: Path) -> tuple[float, float, int]:
    """Seconds to open the national list, MB that it adds to the process, its numbers; it is let go again."""
    row = await (await _store(folder)).find("national")
    assert row is not None
    before, started = _rss_now(), time.perf_counter()
    opened = open_snapshot(folder / row.file, row)
    return time.perf_counter() - started, _rss_now() - before, opened.count


async def _store(folder: Path) -> ListRows:
    return ListRows(await open_store(f"sqlite+aiosqlite:///{folder / 'baton.db'}"))


async def _loaded(folder: Path, *, mapped: bool) -> tuple[Scrub, float]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    store = await _store(folder)
    await store.keep_sets({})
    scrub = Scrub(store, folder, Signer(_KEY), mapped=mapped)
    started = time.perf_counter()
    await scrub.reload()
    return scrub, time.perf_counter() - started


def _rss() -> float:
    """The most memory this process has had, MB."""
    status = Path("/proc/self/status").read_text()  # getrusage would begin with what the parent had
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _rss_now() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


_PARTS: dict[str, Callable[..., Coroutine[Any, Any, dict[str, float]]]] = {
    "import": _import,
    "batch": _batch,
    "own": _own,
    "many": _many,
    "look": _look,
}


async def _part(what: str, folder: str, *words: str) -> None:
    print(json.dumps(await _PARTS[what](Path(folder), *words)), flush=True)
    os._exit(0)  # the store's thread and half a gigabyte of lists need no good-bye


if __name__ == "__main__":
    asyncio.run(_part(*sys.argv[1:]))
