"""Many transfers of mixed ends, each held against SIPp's own books; then what is left in the router.

Fifty a second, ring-all to five. Four kinds at once, each with a buyer, callees and a dialer of its own: the caller
hangs up early; all five decline; the buyer hangs up; talk past 15 s. A dialer's log says what it saw of every call;
from that alone `expected` says what the books must hold. 40 s after the last transfer nothing of any may be left: late
answers are waited for 32 s (RFC 3261 section 17.1.1.2).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from baton.demo.parties import HOST, free_port
from bench import proc, scenarios, sipp
from bench.rows import Row, exactly, none_of, seen
from bench.sipp import Load, ScenarioLine
from bench.stage import RTP_PORTS, Baton, BenchError, Buyer
from bench.stats import slope
from bench.store import OutcomeRow

RATE = 50
CONNECTED_S = 15.0
LEFT_S = 40.0
SETTLE_S = 60.0
STEADY_S = 60.0  # of load before memory can stand still: what is known of a transfer is kept 40 s, calls last 15
MAX_GROWTH = 0.02  # of resident memory over the last half of the load: flat
_SHOWN = 5  # differences in a note


@dataclass(frozen=True, slots=True)
class Sort:
    """One kind of transfer: how many of fifty, how callee and caller behave. Times in ms."""

    name: str
    of_fifty: int
    first: scenarios.Callee
    others: scenarios.Callee
    talk_ms: int


_RINGS = scenarios.Callee()
_AT_ONCE = scenarios.Callee(decline_ms=20)
SORTS = (
    Sort("short", 25, scenarios.Callee(answer_ms=50), _RINGS, 200),
    Sort("declined", 15, _AT_ONCE, _AT_ONCE, 0),
    Sort("left", 7, scenarios.Callee(answer_ms=50, bye_after_ms=400), _RINGS, 0),
    Sort("long", 3, scenarios.Callee(answer_ms=50), _RINGS, 15_500),
)


@dataclass(slots=True)
class Ground:
    """Baton, the dialers' scenarios by kind, and the names of the callees."""

    baton: Baton
    dialers: dict[str, Path] = field(default_factory=dict)
    callees: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds of load, KiB


async def measure(folder: Path, transfers: int, tell: Callable[[str], None]) -> list[Row]:
    """`transfers` is rounded up to fifties. Raises BenchError where Baton does not come up."""
    fifties = -(-transfers // 50)
    ground = await set_up(folder, SORTS)
    baton = ground.baton
    try:
        await baton.prepare()
        await baton.start()
        await _load(ground, fifties)
        tell(f"soak: {fifties * 50} transfers placed; waiting {LEFT_S:.0f} s for what may be left")
        settled, _ = await asyncio.gather(baton.idle(SETTLE_S), asyncio.sleep(LEFT_S))
        found = await _judge(ground, fifties * 50, settled=settled)
    finally:
        for name in ground.callees:
            await sipp.quit_callee(baton.processes, name)
        await baton.stop()
    invited = [note.call_id for name in ground.callees for note in sipp.read_notes(_log(baton, name))]
    return [*found, *_legs(baton, invited), none_of("breaks in the journal", await baton.journal_problems())]


async def set_up(folder: Path, sorts: Sequence[Sort]) -> Ground:
    """Start the callees of every kind and write the dialers' scenarios; Baton is not started yet."""
    ports = {sort.name: (free_port(), free_port()) for sort in sorts}
    buyers = tuple(Buyer(sort.name, _uris(*ports[sort.name])) for sort in sorts)
    ground = Ground(Baton(folder, buyers))
    place = ground.baton.processes.folder
    for sort in sorts:
        for what, behaviour, port in zip(("first", "others"), (sort.first, sort.others), ports[sort.name], strict=True):
            name = f"{sort.name}-{what}"
            xml = place / f"{name}.xml"
            xml.write_text(scenarios.callee(behaviour))
            await sipp.serve(ground.baton.processes, f"{name}-callee", xml, port)
            ground.callees.append(f"{name}-callee")
        ground.dialers[sort.name] = place / f"{sort.name}.xml"
        ground.dialers[sort.name].write_text(scenarios.dialer(sort.talk_ms))
    return ground


def _uris(first: int, others: int) -> tuple[str, ...]:
    return tuple(f"sip:agent{n}@{HOST}:{port}" for n, port in enumerate((first, *[others] * 4)))


def _log(baton: Baton, callee: str) -> Path:
    return sipp.log_of(baton.processes.folder / f"{callee.removesuffix('-callee')}.xml")


async def _load(ground: Ground, fifties: int) -> None:
    baton = ground.baton
    numbers = sipp.write_numbers(baton.processes.folder / "numbers.csv", 10_000)
    limit_s = fifties * 50 // RATE + 60
    dialers = []
    for sort in SORTS:
        calls, rate = fifties * sort.of_fifty, RATE * sort.of_fifty // 50
        load = Load(ground.dialers[sort.name], sort.name, baton.sip_port, calls, rate, numbers, limit_s)
        dialers.append(sipp.dialed(baton.processes, f"{sort.name}-dialer", load))
    ended = asyncio.gather(*dialers)
    router = baton.router_pid
    clock = asyncio.get_running_loop()
    started = clock.time()
    while not ended.done():
        elapsed = clock.time() - started
        if elapsed < fifties * 50 / RATE:
            ground.memory.append((elapsed, float(proc.rss_kib(router))))
        await asyncio.wait([ended], timeout=1.0)
    await ended
    if baton.router_pid != router:
        raise BenchError(f"the router died under load; see {baton.processes.folder}")


async def _judge(ground: Ground, transfers: int, *, settled: bool) -> list[Row]:
    baton = ground.baton
    books: dict[str, str] = {}
    for name, xml in ground.dialers.items():
        for call_id, notes in sipp.by_call(sipp.read_notes(sipp.log_of(xml))).items():
            books[call_id] = expected(notes) or f"nothing known ({name})"
    outcomes = baton.store.settled()
    difference = compare(books, outcomes)
    assert baton.sink is not None
    failed = sum(one.counts_as == "failed" for one in outcomes)
    verdicts = Counter(one.verdict for one in outcomes)
    found = [
        exactly("transfers in SIPp's books", len(books), transfers),
        none_of("missing from Baton's", len(difference.missing), " ".join(difference.missing[:_SHOWN])),
        none_of("twice in Baton's", len(difference.doubled), " ".join(difference.doubled[:_SHOWN])),
        none_of("in Baton's alone", len(difference.alone), " ".join(difference.alone[:_SHOWN])),
        none_of("another verdict", len(difference.other), "; ".join(difference.other[:_SHOWN])),
        seen("verdicts", len(outcomes), "", ", ".join(f"{count} {name}" for name, count in verdicts.most_common())),
        exactly("e-mails of failed transfers", len(baton.sink.messages), failed),
        none_of("transfers left open", baton.store.open_count(), "" if settled else "and mails were left"),
    ]
    return found + await _left(baton) + _memory(ground.memory)


async def _left(baton: Baton) -> list[Row]:
    ports = [port for port in proc.udp_ports(baton.router_pid) if RTP_PORTS[0] <= port <= RTP_PORTS[1]]
    rows = []
    for name, metric in (
        ("call slots", "baton_call_slots_used"),
        ("pj call objects", "baton_engine_calls"),
        ("legs", "baton_live_legs"),
        ("facts not durable", "baton_journal_backlog_facts"),
    ):
        value = await baton.metric(metric)
        if value is not None:
            rows.append(none_of(f"{name} {LEFT_S:.0f} s after the last", int(value)))
    faults = int(await baton.metric("baton_engine_faults_total") or 0)
    differ = int(await baton.metric("baton_verdict_mismatch_total") or 0)
    return [
        *rows,
        none_of(f"RTP ports {LEFT_S:.0f} s after the last", len(ports)),
        none_of("faults of Baton's own", faults),
        none_of("router and meter of two minds", differ),
    ]


def _memory(samples: Sequence[tuple[float, float]]) -> list[Row]:
    """Resident memory of the router over the last half of the load."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return []
    per_s = slope(half)
    mean = sum(kib for _, kib in half) / len(half)
    growth = per_s * (half[-1][0] - half[0][0]) / mean
    first_s = half[0][0]
    note = f"{100 * growth:.2f} % over {half[-1][0] - first_s:.0f} s; {mean / 1024:.0f} MiB"
    value = per_s / RATE * 1000
    if first_s < STEADY_S:
        return [seen("router's memory, growth", value, "KiB/1,000", f"{note}; too short to judge")]
    return [Row("router's memory, growth", value, "KiB/1,000", "flat: < 2 %", growth < MAX_GROWTH, note=note)]


def _legs(baton: Baton, invited: Sequence[str]) -> list[Row]:
    """The callees' books: who rang, and whether every ring has a record."""
    started = baton.store.started()
    strangers = {call_id for call_id in invited if call_id.rpartition("-")[0] not in started}
    doubled = len(invited) - len(set(invited))
    return [
        exactly("legs that rang", len(set(invited)), 5 * len(started)),
        none_of("legs that rang twice", doubled),
        none_of("legs that rang without a record", len(strangers), " ".join(sorted(strangers)[:_SHOWN])),
    ]


def expected(notes: Sequence[ScenarioLine]) -> str:
    """`verdict/reason` of a call to plain trunks (no buffer) by what its dialer saw; empty where it saw no end."""
    at = {note.what: note.at_s for note in notes}
    refused = [what for what in at if what.startswith("refused-")]
    if refused:
        return "failed/declined" if refused[0] == "refused-486" else refused[0]
    ends = {"left": "short_call/caller_ended", "dropped": "failed/buyer_abandoned"}
    end = next((what for what in ends if what in at), "")
    if "answered" not in at or not end:
        return ""
    return "connected/answered" if at[end] - at["answered"] >= CONNECTED_S else ends[end]


@dataclass(frozen=True, slots=True)
class Difference:
    """Two books held against each other, by the dialer's Call-ID."""

    missing: list[str]
    doubled: list[str]
    alone: list[str]
    other: list[str]


def compare(books: Mapping[str, str], outcomes: Sequence[OutcomeRow]) -> Difference:
    """What SIPp has and Baton has not, and so on."""
    counts = Counter(one.sip_call_id for one in outcomes)
    return Difference(
        missing=[call_id for call_id in books if call_id not in counts],
        doubled=[call_id for call_id, count in counts.items() if count > 1],
        alone=[call_id for call_id in counts if call_id not in books],
        other=[
            f"{one.transfer}: {said}, SIPp: {books[one.sip_call_id]}"
            for one in outcomes
            if one.sip_call_id in books and (said := f"{one.verdict}/{one.reason}") != books[one.sip_call_id]
        ],
    )
