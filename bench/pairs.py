"""Paired load against Asterisk: A B, B A, A B ... with the same dialer and the same callees, ring-all to five.

One endpoint answers after 50 ms, four ring until they are cancelled, the caller talks 200 ms. Baton runs with all it
has: journal on disk, suppression list, meter, mail, metrics; the CPU of its whole process tree is counted, and the
window is closed only when the last transfer is settled, so that the meter's work is in. A ratio of two neighbours in
time holds on a machine whose speed wanders; who goes first changes from pair to pair.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from baton.demo.parties import HOST, free_port
from bench import proc, scenarios, sipp
from bench.peer import Peer
from bench.rows import Row, at_most, none_of, seen
from bench.sipp import Load
from bench.stage import Baton, BenchError, Buyer
from bench.stats import bootstrap, median, percentile

RATES = (50, 100)
ANSWER_MS = 50
TALK_MS = 200
TAIL_S = 2.0  # for both: the ends of the last calls
SETTLE_S = 30.0
CPU_RATIO = 0.6
WORSE = 1.15  # how much a release may cost over the one before
SUPPRESSED = 100_000
NUMBERS = 10_000
WARM_S = 3


@dataclass(frozen=True, slots=True)
class Run:
    """One side of one pair."""

    cpu_ms: float  # per transfer, the whole tree's
    parts_ms: dict[str, float]  # per transfer, by process
    setup_ms: list[float]
    failed: int


@dataclass(slots=True)
class PairedRuns:
    """The pairs at one rate, as they were run."""

    rate: int
    baton: list[Run] = field(default_factory=list)
    peer: list[Run] = field(default_factory=list)


Made = Callable[[Path, tuple[Buyer, ...]], Baton]  # a Baton in this folder, with these buyers


@dataclass(frozen=True, slots=True)
class How:
    """How many pairs, of how many seconds each, at which rates."""

    pairs: int
    seconds: int
    rates: Sequence[int] = RATES


@dataclass(slots=True)
class Field:
    """Both routers and the callees, ready for load."""

    baton: Baton
    peer: Peer | Baton  # Asterisk, or an earlier Baton
    dialer: Path
    numbers: Path
    runs: int = 0


async def measure(
    folder: Path,
    peer_root: Path,
    tell: Callable[[str], None],
    *,
    pairs: int,
    seconds: int,
    rates: Sequence[int] = RATES,
) -> list[Row]:
    """Run everything. Raises BenchError where a side does not come up or Baton leaves something unsettled."""
    ground = await _set_up(folder, peer_root)
    assert isinstance(ground.peer, Peer)
    try:
        await ground.peer.start()
        await ground.baton.prepare()
        await ground.baton.start()
        await _one(ground, baton=True, rate=rates[0], seconds=WARM_S)  # imports, caches and pages of both
        await _one(ground, baton=False, rate=rates[0], seconds=WARM_S)
        found = [await _at_rate(ground, rate, pairs, seconds, tell) for rate in rates]
    finally:
        await ground.peer.stop()
        await ground.baton.stop()
    return [row for one in found for row in rows(one)]


async def against_before(
    folder: Path, python: Path, tell: Callable[[str], None], *, pairs: int, seconds: int, rates: Sequence[int] = RATES
) -> list[Row]:
    """The same load on this Baton and on an earlier one, whose interpreter is `python`."""

    def earlier(place: Path, buyers: tuple[Buyer, ...]) -> Baton:
        return Baton(place, buyers, suppressed=SUPPRESSED, python=python)

    found = await two_batons(folder, ours, earlier, tell, how=How(pairs, seconds, rates))
    return [row for one in found for row in rows_before(one)]


async def two_batons(
    folder: Path, ours: Made, theirs: Made, tell: Callable[[str], None], *, how: How
) -> list[PairedRuns]:
    """The same load on two Batons, side by side, pair by pair. Raises BenchError as `measure` does."""
    ground = await _set_up(folder, None, ours, theirs)
    assert isinstance(ground.peer, Baton)
    try:
        for side in (ground.peer, ground.baton):
            await side.prepare()
            await side.start()
        for baton in (True, False):
            await _one(ground, baton=baton, rate=how.rates[0], seconds=WARM_S)
        return [await _at_rate(ground, rate, how.pairs, how.seconds, tell) for rate in how.rates]
    finally:
        await ground.peer.stop()
        await ground.baton.stop()


def ours(folder: Path, buyers: tuple[Buyer, ...]) -> Baton:
    """The Baton of this tree."""
    return Baton(folder, buyers, suppressed=SUPPRESSED)


async def _set_up(folder: Path, peer_root: Path | None, own: Made = ours, theirs: Made | None = None) -> Field:
    answers_port, rings_port = free_port(), free_port()
    places = (answers_port, *[rings_port] * 4)
    uris = tuple(f"sip:agent{n}@{HOST}:{port}" for n, port in enumerate(places))
    baton = own(folder / "baton", (Buyer("five", uris),))
    parties = baton.processes
    for name, port, what in (
        ("answers", answers_port, scenarios.Callee(answer_ms=ANSWER_MS)),
        ("rings", rings_port, scenarios.Callee()),
    ):
        xml = parties.folder / f"{name}.xml"
        xml.write_text(scenarios.callee(what))
        await sipp.serve(parties, name, xml, port)
    dialer = parties.folder / "dialer.xml"
    dialer.write_text(scenarios.dialer(TALK_MS))
    numbers = sipp.write_numbers(parties.folder / "numbers.csv", NUMBERS)
    peer: Peer | Baton
    if theirs is not None:
        peer = theirs(folder / "other", baton.buyers)
    else:
        assert peer_root is not None
        peer = Peer(peer_root, free_port(), answers_port, rings_port, parties)
    return Field(baton, peer, dialer, numbers)


async def _at_rate(ground: Field, rate: int, pairs: int, seconds: int, tell: Callable[[str], None]) -> PairedRuns:
    found = PairedRuns(rate)
    for pair in range(pairs):
        order = (True, False) if pair % 2 == 0 else (False, True)
        for baton in order:
            (found.baton if baton else found.peer).append(await _one(ground, baton=baton, rate=rate, seconds=seconds))
        ours, theirs = found.baton[-1], found.peer[-1]
        tell(
            f"pairs: {rate}/s, pair {pair + 1}: {ours.cpu_ms:.2f} against {theirs.cpu_ms:.2f} ms of CPU a transfer,"
            f" set-up p99 {percentile(ours.setup_ms, 99):.0f} against {percentile(theirs.setup_ms, 99):.0f} ms"
        )
    return found


async def _one(ground: Field, *, baton: bool, rate: int, seconds: int) -> Run:
    ground.runs += 1
    name = f"run-{ground.runs}"
    place = ground.baton.processes.folder / name
    place.mkdir()
    side = ground.baton if baton else ground.peer
    port = side.sip_port if isinstance(side, Baton) else side.port
    load = Load(ground.dialer, "five", port, rate * seconds, rate, ground.numbers, seconds + 30)
    settled = side.store.settled_count() if isinstance(side, Baton) else 0
    before = proc.cpu_ms(side.pid)
    await sipp.dialed(ground.baton.processes, name, load, place)
    ended = time.monotonic()
    if isinstance(side, Baton) and not await side.idle(SETTLE_S):
        raise BenchError(f"transfers were not settled {SETTLE_S:.0f} s after the last one")
    await asyncio.sleep(max(0.0, TAIL_S - (time.monotonic() - ended)))
    spent = {one: ms - before.get(one, 0.0) for one, ms in proc.cpu_ms(side.pid).items()}
    good, failed = sipp.parse_counts((ground.baton.processes.folder / f"{name}.log").read_text(errors="replace"))
    if isinstance(side, Baton):
        failed = max(failed, load.calls - (side.store.settled_count() - settled))
    parts = {_name(one, side.pid): ms / load.calls for one, ms in spent.items()}
    return Run(
        sum(spent.values()) / load.calls,
        parts,
        sipp.read_rtt(place, ground.dialer.stem),
        max(failed, load.calls - good),
    )


def _name(pid: int, root: int) -> str:
    """Which of Baton's processes: `python -m baton.process.child NAME CONFIG`, or the supervisor."""
    words = proc.command(pid)
    return "supervisor" if pid == root else next((name for name in ("router", "meter") if name in words), "other")


def rows(pairs: PairedRuns) -> list[Row]:
    """What the pairs at one rate come to."""
    ratios = [ours.cpu_ms / theirs.cpu_ms for ours, theirs in zip(pairs.baton, pairs.peer, strict=True)]
    low, high = bootstrap(ratios)
    ratio = median(ratios)
    mean = median([run.cpu_ms for run in pairs.baton]), median([run.cpu_ms for run in pairs.peer])
    parts = ", ".join(
        f"{name} {median([run.parts_ms.get(name, 0.0) for run in pairs.baton]):.2f}" for name in pairs.baton[0].parts_ms
    )
    each = " ".join(f"{one:.2f}" for one in ratios)
    cpu = Row(
        f"CPU a transfer at {pairs.rate}/s",
        mean[0],
        "ms",
        f"ratio <= {CPU_RATIO}",
        ratio <= CPU_RATIO,
        mean[1],
        ratio,
        f"{parts}; {len(ratios)} pairs; ratios {each}; 95 % interval of the median {low:.2f} to {high:.2f}",
    )
    failed = sum(run.failed for run in pairs.baton)
    theirs = sum(run.failed for run in pairs.peer)
    lost = none_of(f"failed transfers at {pairs.rate}/s", failed, f"Asterisk: {theirs}")
    return [cpu, *_setup(pairs), lost]


def rows_before(measured: PairedRuns) -> list[Row]:
    """This Baton's figures over the earlier one's; met unless the 95 % interval lies above the limit."""
    setups = [
        (percentile(ours.setup_ms, 50), percentile(theirs.setup_ms, 50))
        for ours, theirs in zip(measured.baton, measured.peer, strict=True)
        if ours.setup_ms and theirs.setup_ms
    ]
    cpus = [(ours.cpu_ms, theirs.cpu_ms) for ours, theirs in zip(measured.baton, measured.peer, strict=True)]
    lost = none_of(f"failed transfers at {measured.rate}/s", sum(run.failed for run in measured.baton))
    return [
        over(f"{what} at {measured.rate}/s, over the Baton before", pairs, WORSE)
        for what, pairs in (("CPU", cpus), ("set-up p50", setups))
    ] + [lost]


def over(name: str, pairs: Sequence[tuple[float, float]], limit: float) -> Row:
    """The median ratio of pairs; met unless the whole 95 % interval lies above the limit."""
    ratios = [ours / theirs for ours, theirs in pairs]
    low, high = bootstrap(ratios)
    ratio = median(ratios)
    each = " ".join(f"{one:.2f}" for one in ratios)
    return Row(
        name,
        median([ours for ours, _ in pairs]),
        "ms",
        f"ratio <= {limit}",
        low <= limit,
        median([theirs for _, theirs in pairs]),
        ratio,
        f"{len(pairs)} pairs: {each}; 95 % interval of the median {low:.2f} to {high:.2f}",
    )


def _setup(pairs: PairedRuns) -> list[Row]:
    ours = [setup_ms for run in pairs.baton for setup_ms in run.setup_ms]
    theirs = [setup_ms for run in pairs.peer for setup_ms in run.setup_ms]
    name = f"set-up at {pairs.rate}/s"
    differences = [
        percentile(own.setup_ms, 99) - percentile(peer.setup_ms, 99)
        for own, peer in zip(pairs.baton, pairs.peer, strict=True)
    ]
    low, high = bootstrap(differences)
    p50, p99, most = ((percentile(ours, percent), percentile(theirs, percent)) for percent in (50, 99, 100))
    half = f"{ANSWER_MS} ms of it are the callee's"
    return (
        [
            Row(f"{name}, p50", p50[0], "ms", peer=p50[1], ratio=p50[0] / p50[1], note=half),
            Row(
                f"{name}, p99",
                p99[0],
                "ms",
                "<= peer's",
                p99[0] <= p99[1],
                p99[1],
                p99[0] / p99[1],
                f"{len(ours)} calls",
            ),
            Row(f"{name}, longest", most[0], "ms", peer=most[1], ratio=most[0] / most[1]),
            at_most(
                f"{name}, p99 less the peer's", median(differences), 0, "ms", f"pair by pair; {low:.0f} to {high:.0f}"
            ),
        ]
        if ours and theirs
        else [seen(f"{name}, calls answered", len(ours), "")]
    )
