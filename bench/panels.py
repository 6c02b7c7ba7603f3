"""Every panel of every dashboard on a Baton under load, and every alert silent.

Baton runs as an operator runs it, with SIPp on both sides, a mail sink, a broker, the HTTP API and probes; a Prometheus
of its own scrapes it under the repository's rules. Then each panel's queries are asked, as of the end and over the run,
the dashboards are drawn, and what fired is told. Some metrics have nothing to tell in such a run: see `QUIET`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx

from baton.demo.parties import HOST, check_programs, free_port
from bench import boards, scenarios, sipp
from bench.rows import Row, at_least, none_of, seen
from bench.sipp import Load
from bench.stage import Baton, BenchError, Buyer, until

ROOT = Path(__file__).parents[1]
RULES = ROOT / "config" / "prometheus" / "rules"
DASHBOARDS = ROOT / "config" / "dashboards"
SCRAPE_S = 5
PROBE_S = 5
ORDER = 3_000  # units of the first buyer's week: far from filled by 3 a second
SUPPRESSED = 5_000
SETTLE_S = 60.0
_READY_S = 20.0
_ZONE = ZoneInfo("America/New_York")  # of the shipped terms
_TOKEN = "only-for-the-bench-" + "0123456789" * 3

# Metrics that need somebody who is not there in this run.
QUIET = {
    "baton_webhook_seconds_bucket": "no buyer has a webhook",
}
EXPECTED_ALERTS: dict[str, str] = {}  # name: why it fires in this run


@dataclass(frozen=True, slots=True)
class Sort:
    """One kind of transfer, with a buyer of its own name: how many a second, what callees and dialer do. ms."""

    name: str
    rate: int
    first: scenarios.Callee
    others: scenarios.Callee
    talk_ms: int
    suppressed: bool = False


_RINGS = scenarios.Callee()
_BUSY = scenarios.Callee(decline_ms=20)
SORTS = (
    Sort("acme", 3, scenarios.Callee(answer_ms=800), _RINGS, 16_000),
    Sort("bolt", 2, _BUSY, _BUSY, 0),
    Sort("coda", 1, scenarios.Callee(answer_ms=300, bye_after_ms=4_000), _RINGS, 0),
    Sort("dune", 2, scenarios.Callee(answer_ms=2_500), _RINGS, 6_000),
    Sort("elm", 1, scenarios.Callee(answer_ms=50), _RINGS, 500, suppressed=True),
)


@dataclass(slots=True)
class ProbedBaton(Baton):
    """A Baton with probes, a price, a broker and the HTTP API."""

    mqtt_port: int = field(default_factory=free_port)
    portal_port: int = field(default_factory=free_port)

    def _config(self) -> str:
        text = Baton._config(self)  # noqa: SLF001 - a class with slots has no super() of this form
        text = text.replace('kind = "trunk"', f'kind = "trunk"\nprobe_s = {PROBE_S}')
        text = text.replace('terms = "westlake-fulfillment"', 'terms = "bench"')
        return text + (
            f'[mqtt]\nhost = "{HOST}"\nport = {self.mqtt_port}\n[portal]\nport = {self.portal_port}\n'
            f'[[portal.tokens]]\nname = "noc"\nsecret = "{_TOKEN}"\noperator = true\n'
            '[[terms]]\nname = "bench"\nbase = "westlake-fulfillment"\nunit_price_minor = 4500\n'
        )

    async def order(self, buyer: str, units: int) -> None:
        """This week's order of a buyer."""
        today = datetime.now(_ZONE).date()
        week = str(today - timedelta(days=today.weekday()))
        await self._command("orders", "set", buyer, "--week", week, "--quantity", str(units), "--config", "baton.toml")


async def measure(folder: Path, minutes: int, out: Path, tell: Callable[[str], None]) -> list[Row]:
    """Raises BenchError where something does not come up, MissingProgramError where it is not installed."""
    check_programs(("sipp", "prometheus", "mosquitto"))
    ports = {sort.name: (free_port(), free_port()) for sort in SORTS}
    buyers = tuple(Buyer(sort.name, _uris(*ports[sort.name])) for sort in SORTS)
    baton = ProbedBaton(folder, buyers, SUPPRESSED)
    prometheus_port = free_port()
    prometheus = boards.Prometheus(f"http://{HOST}:{prometheus_port}")
    try:
        await _start(baton, ports, prometheus_port)
        if not await until(prometheus.ready, _READY_S):
            raise BenchError(f"prometheus does not come up; see {baton.processes.folder}")
        started = time.time()
        await _load(baton, minutes)
        ended = time.time()
        found = await asyncio.to_thread(_look, prometheus, started, ended, out, tell)
        settled = await baton.metric("baton_transfers_total")
        idle = await baton.idle(SETTLE_S)
    finally:
        prometheus.close()
        for sort in SORTS:
            for what in ("first", "others"):
                await sipp.quit_callee(baton.processes, f"{sort.name}-{what}-callee")
        await baton.stop()
    transfers = minutes * 60 * sum(sort.rate for sort in SORTS)
    left = none_of("transfers or mails left", 0 if idle else 1)
    return [at_least("transfers settled at the last look", settled or 0, 0.8 * transfers, ""), left, *found]


def _uris(first: int, others: int) -> tuple[str, ...]:
    return tuple(f"sip:agent{n}@{HOST}:{port}" for n, port in enumerate((first, others)))


async def _start(baton: ProbedBaton, ports: dict[str, tuple[int, int]], prometheus_port: int) -> None:
    place = baton.processes.folder
    (place / "mosquitto.conf").write_text(f"listener {baton.mqtt_port} {HOST}\nallow_anonymous true\n")
    await baton.processes.start("mosquitto", ["mosquitto", "-c", str(place / "mosquitto.conf")])
    for sort in SORTS:
        for what, behaviour, port in zip(("first", "others"), (sort.first, sort.others), ports[sort.name], strict=True):
            xml = place / f"{sort.name}-{what}.xml"
            xml.write_text(scenarios.callee(behaviour))
            command = [*sipp.callee_command(xml, port), "-aa"]  # -aa: OPTIONS get a 200
            await baton.processes.start(f"{sort.name}-{what}-callee", command)
        (place / f"{sort.name}.xml").write_text(scenarios.dialer(sort.talk_ms))
    await baton.prepare()
    await baton.order(SORTS[0].name, ORDER)
    await baton.start()
    config = place / "prometheus.yml"
    config.write_text(_prometheus_config(baton.metrics_port))
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={place / 'prometheus'}"]
    command += [f"--web.listen-address={HOST}:{prometheus_port}", "--log.level=warn"]
    await baton.processes.start("prometheus", command)


def _prometheus_config(metrics_port: int) -> str:
    """The sample of the repository with another target, the rules where they are, and shorter intervals."""
    text = (RULES.parent / "prometheus.yml").read_text()
    text = text.replace("rules/*.yml", f"{RULES}/*.yml").replace("127.0.0.1:9464", f"{HOST}:{metrics_port}")
    return re.sub(r"(scrape_interval|scrape_timeout|evaluation_interval): \w+", rf"\1: {SCRAPE_S}s", text)


async def _load(baton: ProbedBaton, minutes: int) -> None:
    place = baton.processes.folder
    clean = sipp.write_numbers(place / "numbers.csv", 10_000)
    listed = sipp.write_numbers(place / "listed.csv", SUPPRESSED, first=2_132_000_000)
    dialers = []
    for sort in SORTS:
        numbers = listed if sort.suppressed else clean
        calls = minutes * 60 * sort.rate
        load = Load(place / f"{sort.name}.xml", sort.name, baton.sip_port, calls, sort.rate, numbers, minutes * 60 + 60)
        dialers.append(asyncio.create_task(sipp.dialed(baton.processes, f"{sort.name}-dialer", load)))
    asked = asyncio.create_task(_ask_portal(baton.portal_port))
    # The last look is while calls are up.
    await asyncio.sleep(minutes * 60 - SCRAPE_S)
    asked.cancel()
    for dialer in dialers:
        dialer.add_done_callback(lambda task: task.cancelled() or task.exception())
    if baton.processes.running["prometheus"].returncode is not None:
        raise BenchError(f"prometheus ended; see {place / 'prometheus.log'}")


async def _ask_portal(port: int) -> None:
    """A request a second: lists, availability, events, webhooks, trunks, and one that leads nowhere."""
    headers = {"Authorization": f"Bearer {_TOKEN}"}
    lists = ("/v1/suppression/lists", "/v1/events", "/v1/webhooks", "/v1/trunks")
    paths = (*lists, f"/v1/availability?campaign={SORTS[0].name}", "/v1/nothing")
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", headers=headers, timeout=5) as client:
        turn = 0
        while True:
            try:
                await client.get(paths[turn % len(paths)])
            except httpx.HTTPError:
                await asyncio.sleep(1)  # a portal that is not up shows in the panels
            turn += 1
            await asyncio.sleep(1)


def _look(
    prometheus: boards.Prometheus, started: float, ended: float, out: Path, tell: Callable[[str], None]
) -> list[Row]:
    empty: list[str] = []
    quiet: list[str] = []
    panels = queries = 0
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = boards.read(path)
        answers = boards.ask(prometheus, board, started, ended, SCRAPE_S)
        boards.draw(board, answers, started, out / f"{board.name}.png")
        panels += sum(bool(answer.panel.queries) for answer in answers)
        queries += sum(len(answer.panel.queries) for answer in answers)
        for answer in answers:
            for expression in answer.empty:
                names = set(re.findall(r"\bbaton_\w+", expression))
                name = f"{board.name}: {answer.panel.title}"
                (quiet if names & QUIET.keys() else empty).append(f"{name}: {expression}")
    for alert in empty:
        tell(f"no data: {alert}")
    for alert in quiet:
        tell(f"quiet in this run: {alert}")
    window_s = round(ended - started)
    fired = {
        alert["metric"]["alertname"]
        for alert in prometheus.now(f'max_over_time(ALERTS{{alertstate="firing"}}[{window_s}s])')
    }
    pending = {alert["metric"]["alertname"] for alert in prometheus.now('ALERTS{alertstate="pending"}')}
    broken = prometheus.broken_rules()
    unexpected = sorted(fired - EXPECTED_ALERTS.keys())
    return [
        seen("panels", panels, "", f"{queries} queries, drawn in {out}"),
        none_of("queries without data", len(empty), f"and {len(quiet)} quiet in such a run"),
        none_of("alerts that fired", len(unexpected), " ".join(unexpected)),
        seen("alerts pending at the end", len(pending), "", " ".join(sorted(pending))),
        none_of("rules that failed", len(broken), " ".join(broken)),
    ]
