"""Pages of health over real HTTP, the signs of processes, what systemd is told, and a child that hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from baton.process import serve, vitals
from baton.process.health import (
    DRAINING,
    HUNG_S,
    OK,
    START_S,
    Board,
    ChildStatus,
    Sign,
    own_sign,
    state_file,
    write_state,
)
from baton.process.notify import Notifier
from baton.process.vitals import Vitals, alive, portal_up, router_checks
from book.problems import ConfigError
from config.settings import Settings, load
from meter.journal.sql.append import JournalWriter
from meter.run import FOLLOWER_S, MeterOptions, _Meter
from meter.store.engine import open_store
from router.router import SPARE_SLOTS, Router
from telemetry import metrics
from tests.world import World, plain

ROOT = Path(__file__).parents[4]
TEXT = '[[listeners]]\nname = "main"\ntransport = "udp"\n[metrics]\nport = 0\n'
WITHIN_S = 30.0  # generous: the machine may be busy


def _settings(folder: Path, text: str = TEXT) -> Settings:
    file = folder / "baton.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, {})


# --- pages -----------------------------------------------------------------------------------------------------------


class _House:
    """Some processes as the board sees them, and its pages over HTTP."""

    def __init__(self) -> None:
        self.signs: dict[str, Sign] = {}
        self.board = Board(lambda: list(self.signs.values()))
        self.server = metrics.serve_metrics("127.0.0.1", 0, self.board.page)

    def say(self, name: str, **checks: str) -> None:
        self.signs[name] = Sign(name, {"process": OK, **checks})

    def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        return httpx.request(method, f"http://127.0.0.1:{self.server.port}{path}", headers=headers, timeout=10)


@pytest.fixture
def house() -> Iterator[_House]:
    one = _House()
    one.say("router", calls=OK, journal=OK)
    one.say("meter", follower=OK)
    yield one
    one.server.stop()


def _said(answer: httpx.Response) -> tuple[int, dict[str, Any]]:
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status_code, answer.json()


def test_all_is_well(house: _House) -> None:
    assert _said(house.get("/live")) == (200, {"status": "live", "hangs": []})
    code, body = _said(house.get("/ready"))
    assert (code, body["status"]) == (200, "ready")
    assert body["checks"]["router.journal"] == OK
    assert _said(house.get("/startup")) == (200, {"status": "started", "waits_for": []})


def test_what_is_out_is_named(house: _House) -> None:
    house.get("/startup")
    house.say("router", calls=OK, journal="full: 100000 facts are not durable")
    code, body = _said(house.get("/ready"))
    assert (code, body["status"]) == (503, "not_ready")
    assert body["checks"]["router.journal"] == "full: 100000 facts are not durable"
    assert house.get("/live").status_code == 200


def test_a_router_that_drains_is_not_ready_and_has_started_all_the_same(house: _House) -> None:
    house.get("/ready")
    house.say("router", calls=DRAINING)
    assert _said(house.get("/ready"))[1]["status"] == "draining"
    assert house.get("/ready").status_code == 503
    assert house.get("/startup").status_code == 200
    house.say("meter", follower="has not followed the journal for 20 s")
    assert house.get("/ready").json()["status"] == "not_ready"


def test_startup_waits_until_each_was_ready_once_if_not_at_one_time(house: _House) -> None:
    house.signs["router"] = Sign("router", {"process": "is starting"})
    house.signs["meter"] = Sign("meter", {"process": "is starting"})
    code, body = _said(house.get("/startup"))
    assert (code, body["waits_for"]) == (503, ["meter", "router"])
    assert body["checks"] == {"router.process": "is starting", "meter.process": "is starting"}
    assert house.get("/ready").json()["status"] == "starting"
    house.say("meter", follower=OK)
    assert house.get("/startup").json()["waits_for"] == ["router"]
    house.say("meter", follower="is away")
    house.say("router", calls=OK)
    assert house.get("/startup").status_code == 200
    house.say("router", calls="no")
    assert house.get("/startup").status_code == 200, "for ever"


def test_a_loop_that_hangs_is_named(house: _House) -> None:
    house.signs["meter"] = own_sign("meter", {"process": OK}, time.monotonic() - HUNG_S - 1)
    assert _said(house.get("/live")) == (503, {"status": "hung", "hangs": ["meter"]})
    code, body = _said(house.get("/ready"))
    assert (code, body["status"]) == (503, "hung")
    assert body["checks"]["meter.process"].startswith("hangs: no sign for ")


def test_metrics_are_negotiated_beside_the_pages_and_other_paths_are_none(house: _House) -> None:
    assert "openmetrics-text" in house.get("/metrics", Accept="application/openmetrics-text").headers["Content-Type"]
    assert house.get("/metrics").headers["Content-Type"].startswith("text/plain")
    assert "baton_ready" in house.get("/metrics").text
    index = house.get("/")
    assert (index.status_code, index.text.count("\n")) == (200, 1)
    for path in ("/metric", "/live/", "/ready/x", "/etc/passwd"):
        assert house.get(path).status_code == 404
    assert house.get("/ready?verbose=1").status_code == 200
    head = house.get("/ready", "HEAD")
    assert (head.status_code, head.content, head.headers["Content-Length"] != "0") == (200, b"", True)
    post = house.get("/ready", "POST")
    assert (post.status_code, post.headers["Allow"]) == (405, "GET, HEAD")


def test_a_board_is_looked_at_by_many_at_once(house: _House) -> None:
    threads = [threading.Thread(target=lambda: [house.board.note() for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert house.board.started


# --- signs of a child ------------------------------------------------------------------------------------------------


def test_a_child_is_up_from_its_first_sign_and_hangs_when_signs_stop(tmp_path: Path) -> None:
    child = ChildStatus("router", tmp_path)
    assert child.sign().checks == {"process": "is not up"}
    child.started(77)
    child.look()
    assert child.sign().checks == {"process": "is starting"}
    write_state(state_file(tmp_path, "router"), 77, {"process": OK})
    child.look()
    assert (child.sign().ready, child.beats) == (True, 1)
    for _ in range(int(HUNG_S)):
        assert not child.sign().hangs
        child.look()
    assert child.sign().hangs
    assert not child.sign().ready
    assert (child.overdue(HUNG_S), child.overdue(HUNG_S + 1), child.overdue(0)) == (True, False, False)
    write_state(state_file(tmp_path, "router"), 77, {"process": OK, "calls": DRAINING})
    child.look()
    assert (child.sign().hangs, child.sign().checks["calls"], child.silent_s) == (False, DRAINING, 0)
    child.ended()
    assert child.sign().checks == {"process": "is not up"}


def test_a_file_of_an_older_child_is_no_sign(tmp_path: Path) -> None:
    child = ChildStatus("router", tmp_path)
    child.started(77)
    write_state(state_file(tmp_path, "router"), 76, {"process": OK})
    child.look()
    assert not child.beats
    state_file(tmp_path, "router").write_bytes(b"{half of i")
    child.look()
    assert (child.beats, child.silent_s) == (0, 2)


def test_a_start_has_more_time_than_a_turn_of_the_loop(tmp_path: Path) -> None:
    child = ChildStatus("router", tmp_path)
    child.started(77)
    for _ in range(int(START_S) - 1):
        child.look()
    assert (child.sign().hangs, child.overdue(15)) == (False, False)
    child.look()
    assert (child.sign().hangs, child.overdue(15)) == (True, True)


def test_a_machine_that_was_paused_makes_no_child_look_hung(tmp_path: Path) -> None:
    child = ChildStatus("router", tmp_path)
    child.started(77)
    write_state(state_file(tmp_path, "router"), 77, {"process": OK})
    child.look()
    child.look(passed_s=3_600)
    assert not child.sign().hangs


def test_a_full_disk_makes_no_child_look_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, child = state_file(tmp_path, "router"), ChildStatus("router", tmp_path)
    child.started(77)
    write_state(file, 77, {"process": OK})
    child.look()
    os.utime(file, ns=(1, 1))
    child.look()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    write_state(file, 77, {"process": OK})
    child.look()
    assert (child.beats, child.silent_s) == (3, 0)


# --- what a process says of itself -----------------------------------------------------------------------------------


class _Writer:
    """The three figures of a journal that health looks at."""

    def __init__(self) -> None:
        self.full, self.backlog, self.lag_s = False, 0, 0.0


def _checks(router: Router, writer: _Writer, own: Vitals) -> Mapping[str, str]:
    return router_checks(router, cast("JournalWriter", writer), own)


def test_a_router_says_what_it_lacks() -> None:
    router, writer, own = World([plain()]).router, _Writer(), Vitals("router")
    assert _checks(router, writer, own)["store"] == "has not answered yet"
    own.done("store")
    assert set(_checks(router, writer, own).values()) == {OK}
    router.draining = True
    assert _checks(router, writer, own)["calls"] == DRAINING
    writer.lag_s, writer.backlog = 3.2, 10
    assert _checks(router, writer, own)["journal"] == "commits fail: the oldest fact has waited for 3 s"
    own.done("commit")
    assert _checks(router, writer, own)["journal"] == "behind: the oldest fact has waited for 3 s"
    writer.full, writer.backlog = True, 100_000
    assert _checks(router, writer, own)["journal"] == "full: 100000 facts are not durable"


@pytest.mark.parametrize(("free", "said"), [(2 + SPARE_SLOTS, OK), (1 + SPARE_SLOTS, "no call slot is free")])
def test_slots_are_out_when_the_smallest_call_would_be_refused(free: int, said: str) -> None:
    router = SimpleNamespace(draining=False, engine=SimpleNamespace(slots=SimpleNamespace(free=free)))
    assert _checks(cast("Router", router), _Writer(), Vitals("router"))["slots"] == said


def test_a_store_that_went_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Vitals("portal")
    own.done("store")
    monkeypatch.setattr(vitals, "STORE_S", -1.0)
    assert own.store() == "has not answered for 0 s"


async def test_what_fails_is_not_noted_as_done() -> None:
    own = Vitals("router")

    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await own.noting("store", fails)()
    assert own.since_s("store") == float("inf")
    await own.noting("store", lambda: asyncio.sleep(0))()
    assert own.since_s("store") < WITHIN_S


def test_a_look_that_fails_is_told_and_is_no_hang(tmp_path: Path) -> None:
    file, child = state_file(tmp_path, "meter"), ChildStatus("meter", tmp_path)
    own = Vitals("meter", file)
    child.started(os.getpid())
    own.up(lambda: {"follower": str(1 // 0)})
    own.beat()
    child.look()
    assert child.sign().checks == {"process": "cannot tell how it is: ZeroDivisionError"}
    assert not child.sign().hangs
    own.up(lambda: {"follower": OK})
    own.beat()
    child.look()
    assert child.sign().checks == {"process": OK, "follower": OK}


async def test_a_meter_says_whether_it_follows(tmp_path: Path) -> None:
    engine = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'baton.db'}")
    meter = _Meter(engine, MeterOptions("", poll_ms=10))
    try:
        assert meter.health() == {"follower": "has not looked into the journal yet"}
        stop = asyncio.Event()
        running = asyncio.create_task(meter.run(stop))
        await _until(lambda: meter.health() == {"follower": OK})
        stop.set()
        await running
        meter._follower.looked_at = time.monotonic() - FOLLOWER_S - 5
        assert meter.health()["follower"].startswith("has not followed the journal for 2")
    finally:
        await engine.dispose()


async def test_a_process_alone_serves_its_own_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken does not keep it from working: it takes another one and says which."""
    monkeypatch.delenv(metrics.MULTIPROCESS_VARIABLE, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served: list[metrics.MetricsServer] = []
        real = metrics.serve_metrics

        def serve_it(*arguments: Any) -> metrics.MetricsServer:
            served.append(real(*arguments))
            return served[-1]

        monkeypatch.setattr(metrics, "serve_metrics", serve_it)
        answers = [True, True]

        async def healthy() -> bool:
            return bool(answers)

        async def run(own: Vitals) -> None:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served[0].port}") as client:
                first = await client.get("/startup")
                assert (first.status_code, first.json()["waits_for"]) == (503, ["portal"])
                asking = portal_up(own, healthy)
                await _until_page(client, "/startup", 200)
                assert (await client.get("/ready")).json()["checks"] == {"portal.process": OK, "portal.store": OK}
                assert 'baton_ready{process="portal"} 1.0' in (await client.get("/metrics")).text
                assert 'baton_process_resident_bytes{process="portal"}' in (await client.get("/metrics")).text
                answers.clear()
                monkeypatch.setattr(vitals, "STORE_S", 0.0)
                await _until_page(client, "/ready", 503)
                assert (await client.get("/live")).status_code == 200
                asking.cancel()

        settings = _settings(tmp_path, TEXT.replace("port = 0", f"port = {port}"))
        await alive("portal", settings, run, supervised=False)
        assert served[0].port != port
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{served[0].port}/live", timeout=2)


async def _until(good: Any) -> None:
    end = time.monotonic() + WITHIN_S
    while not good():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def _until_page(client: httpx.AsyncClient, path: str, code: int) -> None:
    end = time.monotonic() + WITHIN_S
    while (answer := await client.get(path)).status_code != code:
        assert time.monotonic() < end, answer.text
        await asyncio.sleep(0.05)


def test_the_bound_for_a_hung_process_leaves_time_to_be_sure(tmp_path: Path) -> None:
    assert _settings(tmp_path).health.restart_hung_seconds == 15
    assert _settings(tmp_path, TEXT + "[health]\nrestart_hung_seconds = 0\n").health.restart_hung_seconds == 0
    with pytest.raises(ConfigError, match="0 or at least 10"):
        _settings(tmp_path, TEXT + "[health]\nrestart_hung_seconds = 3\n")


# --- systemd ---------------------------------------------------------------------------------------------------------


class _Systemd:
    """The receiving end of NOTIFY_SOCKET, at a path or at an abstract name."""

    def __init__(self, address: str) -> None:
        self.environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000", "WATCHDOG_PID": str(os.getpid())}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_Systemd]:
    one = _Systemd(str(tmp_path / "n.sock") if request.param == "path" else f"@baton-test-{os.getpid()}")
    yield one
    one.close()


def test_systemd_is_told_and_the_children_inherit_nothing_of_it(systemd: _Systemd) -> None:
    notifier = Notifier.of(systemd.environ)
    assert not systemd.environ
    notifier.status("starting:\n router")
    notifier.status("starting: router")
    notifier.ready()
    notifier.reloading()
    notifier.feed()
    notifier.feed()
    notifier.stopping()
    said = systemd.heard()
    assert said[:2] == ["STATUS=starting: router", "READY=1"]
    reloading, microseconds = said[2].split("\n")
    assert reloading == "RELOADING=1"
    assert 0 <= time.monotonic_ns() // 1000 - int(microseconds.removeprefix("MONOTONIC_USEC=")) < WITHIN_S * 1e6
    assert said[3:] == ["WATCHDOG=1", "STOPPING=1"], "fed once in a third of its time"
    time.sleep(0.21)
    notifier.feed()
    assert systemd.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "nonsense"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}])
def test_without_systemd_or_with_another_ones_watchdog_nothing_is_sent(
    environ: dict[str, str], systemd: _Systemd
) -> None:
    notifier = Notifier.of({"NOTIFY_SOCKET": systemd.environ["NOTIFY_SOCKET"], **environ} if environ else {})
    notifier.feed()
    if not environ:
        notifier.ready()
    assert not systemd.heard()


def test_a_receiver_that_is_away_or_slow_stops_nothing_and_hears_of_it_later(systemd: _Systemd, tmp_path: Path) -> None:
    assert not Notifier(str(tmp_path / "nobody"), 1.0).ready()
    assert Notifier().ready(), "nobody is to hear it"
    notifier = Notifier.of(systemd.environ)
    while notifier.ready():
        pass
    assert systemd.heard()
    assert notifier.ready()


# --- a child that hangs ----------------------------------------------------------------------------------------------

BLOCKS = """
import asyncio, faulthandler, sys, time
from pathlib import Path
from baton.process.health import state_file
from baton.process.vitals import Vitals
faulthandler.enable()
async def main():
    vitals = Vitals("router", state_file(Path(sys.argv[1]), "router"))
    vitals.up(lambda: {"calls": "ok"})
    for _ in range(3):
        vitals.beat()
        await asyncio.sleep(0.3)
    blocked()
def blocked():
    time.sleep(600)
asyncio.run(main())
"""


async def test_a_loop_that_blocks_is_seen_unfed_and_aborted(
    tmp_path: Path, systemd: _Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent's own turns, quicker than once a second, on a real child that stops giving signs."""
    monkeypatch.setattr(serve, "BEAT_S", 0.05)
    child = serve._Child("router", 1.0, ChildStatus("router", tmp_path))
    child.process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BLOCKS, str(tmp_path), stderr=subprocess.PIPE, cwd=ROOT
    )
    child.watched.started(child.process.pid)
    stop = asyncio.Event()
    overseer = serve._Overseer([child], Notifier.of(systemd.environ), 6.0, stop)
    turning = asyncio.create_task(overseer.run())
    try:
        heard: list[str] = []
        await _until(lambda: heard.extend(systemd.heard()) or "READY=1" in heard)
        assert "WATCHDOG=1" in heard
        assert overseer.board.page("/ready") == (200, "application/json", _ready())
        await _until(lambda: _code(overseer.board, "/live") == 503)
        assert _code(overseer.board, "/startup") == 200
        await asyncio.sleep(0.3)
        systemd.heard()
        await asyncio.sleep(0.5)
        if child.process.returncode is None and child.watched.sign().hangs:
            assert "WATCHDOG=1" not in systemd.heard()
        assert await asyncio.wait_for(child.process.wait(), WITHIN_S) == -signal.SIGABRT
        assert child.process.stderr is not None
        assert b"in blocked" in await child.process.stderr.read(), "it says where it hung"
    finally:
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
        if child.process.returncode is None:
            child.process.kill()
            await child.process.wait()


def _code(board: Board, path: str) -> int:
    page = board.page(path)
    assert page is not None
    return page[0]


def _ready() -> bytes:
    return b'{"status":"ready","checks":{"serve.process":"ok","router.process":"ok","router.calls":"ok"}}'


async def test_a_parent_that_stops_aborts_nobody(tmp_path: Path) -> None:
    child = serve._Child("router", 1.0, ChildStatus("router", tmp_path))
    child.watched.started(1)
    child.watched.silent_s = 10 * START_S
    stop = asyncio.Event()
    stop.set()
    overseer = serve._Overseer([child], Notifier(), 15.0, stop)
    overseer.stopping()
    overseer._turn()
    assert not child.aborting
    page = overseer.board.page("/ready")
    assert page is not None
    assert (page[0], b'"stopping"' in page[2]) == (503, True)
    assert replace(child.watched.sign(), silent_s=0.0).hangs


def test_the_unit_leaves_more_time_than_baton_takes() -> None:
    """Numbers of the unit against those of the code and of the settings' defaults."""
    lines = (ROOT / "config/systemd/baton.service").read_text(encoding="utf-8").splitlines()
    unit = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    settings = Settings.model_fields
    router, health = cast("Any", settings["router"].annotation), cast("Any", settings["health"].annotation)
    drain_s = router().drain_seconds
    assert int(unit["TimeoutStopSec"]) > drain_s + 15 + serve.PORTAL_STOP_S + serve.METER_STOP_S
    assert int(unit["WatchdogSec"]) > health().restart_hung_seconds + serve.ABORT_S + serve.FIRST_PAUSE_S
    assert (unit["Type"], unit["KillMode"], unit["Restart"]) == ("notify", "mixed", "always")
    assert unit["RestrictAddressFamilies"] == "AF_INET AF_INET6 AF_UNIX AF_NETLINK"
