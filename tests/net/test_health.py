"""A real `baton serve`: its pages of health, what systemd hears of it, and a router that hangs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from baton.demo.parties import free_port

pytestmark = pytest.mark.net
HOST = "127.0.0.1"
WITHIN_S = 60.0  # for anything: the machine may be busy

CONFIG = """
[router]
name = "test"
max_calls = 20
rtp_address = "127.0.0.1"
rtp_port_min = {rtp}
rtp_port_max = {rtp_last}
drain_seconds = 1
[[listeners]]
name = "main"
transport = "udp"
address = "127.0.0.1"
port = 0
[store]
data_dir = "data"
[metrics]
port = {metrics}
[health]
restart_hung_seconds = 10
[portal]
port = {portal}
[[portal.tokens]]
name = "noc"
secret = "an-operators-token-of-thirty-two-characters"
operator = true
"""


class House:
    """`baton serve` under a systemd that is this test."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "baton.toml"
        self.portal_port = free_port()
        port = free_port()
        rtp = 22_000 + (port % 300) * 100
        self.config.write_text(
            CONFIG.format(rtp=rtp, rtp_last=rtp + 60, metrics=port, portal=self.portal_port), encoding="utf-8"
        )
        self.pages = httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=10)
        self.heard: list[str] = []
        self._log = folder / "serve.log"
        self._systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._systemd.bind(str(folder / "notify.sock"))
        self._systemd.setblocking(False)
        self._environ = {"NOTIFY_SOCKET": str(folder / "notify.sock"), "WATCHDOG_USEC": "3000000"}
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        environ = {**os.environ, **self._environ}
        environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "baton",
                "serve",
                str(self.config),
                stdout=log,
                stderr=log,
                env=environ,
                umask=0o022,
            )

    def listen(self) -> list[str]:
        """All that systemd has heard until now, line by line."""
        while True:
            try:
                self.heard += self._systemd.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.heard

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = self._log.read_text(errors="replace").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [one for one in found if one.get("event") == event]

    async def page(self, path: str) -> tuple[int, dict[str, Any]]:
        answer = await self.pages.get(path)
        return answer.status_code, answer.json()

    async def until(self, path: str, good: Callable[[int, dict[str, Any]], bool]) -> dict[str, Any]:
        """The page once it is good."""
        end, last = time.monotonic() + WITHIN_S, ""
        while time.monotonic() < end:
            self.listen()  # its queue holds ten messages
            try:
                code, body = await self.page(path)
            except httpx.TransportError as error:
                last = repr(error)
            else:
                if good(code, body):
                    return body
                last = f"{code} {body}"
            await asyncio.sleep(0.1)
        raise AssertionError(f"{path}: {last}\n{self._log.read_text(errors='replace')}")

    async def hears(self, line: str, since: int = 0) -> None:
        end = time.monotonic() + WITHIN_S
        while line not in self.listen()[since:]:
            assert time.monotonic() < end, f"{self.heard}\n{self._log.read_text(errors='replace')}"
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), WITHIN_S)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await self.pages.aclose()
        self._systemd.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    one = House(tmp_path)
    yield one
    await one.stop()


async def _baton(*words: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "baton", *map(str, words)]
    done = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await asyncio.wait_for(done.communicate(), WITHIN_S)
    return done.returncode or 0, output.decode()


async def test_from_the_start_through_a_drain_and_a_reload_to_the_end(house: House) -> None:
    with socket.create_server((HOST, house.portal_port)):  # while somebody has its port, the portal cannot start
        await house.start()
        waits = await house.until("/startup", lambda _, body: body["waits_for"] == ["portal"])
        assert waits["status"] == "starting"
        code, body = await house.page("/ready")
        assert (code, body["status"]) == (503, "starting")
        assert body["checks"]["portal.process"] in ("is not up", "is starting")
        assert (body["checks"]["router.calls"], body["checks"]["meter.follower"]) == ("ok", "ok")
        assert (await house.page("/live"))[0] == 200
        assert "READY=1" not in house.listen()
    await house.until("/startup", lambda code, _: code == 200)
    await house.hears("READY=1")
    await house.hears("WATCHDOG=1")
    await house.until("/ready", lambda code, _: code == 200)
    await house.hears("STATUS=ready")

    assert (await _baton("drain", house.config))[0] == 0
    body = await house.until("/ready", lambda code, _: code == 503)
    assert (body["status"], body["checks"]["router.calls"]) == ("draining", "draining")
    assert (await house.page("/startup"))[0] == 200
    assert (await house.page("/live"))[0] == 200
    assert (await _baton("drain", house.config, "--off"))[0] == 0
    await house.until("/ready", lambda code, _: code == 200)

    assert house.process is not None
    heard = len(house.listen())
    house.process.send_signal(signal.SIGHUP)
    await house.hears("RELOADING=1", heard)
    await house.hears("READY=1", heard)
    told = house.heard[heard:]
    assert told.index("RELOADING=1") < told.index("READY=1")
    assert "STOPPING=1" not in told
    assert {one["event"] for one in house.logged("reloaded")} == {"reloaded"}

    data = house.config.parent / "data"
    made = [data, *data.rglob("*")]
    assert {one.name for one in made} >= {"baton.db", "baton.db-wal", "router-test.lock", "portal-test.sock"}
    assert [one.name for one in made if one.lstat().st_mode & 0o077] == [], "whoever starts it, whatever the umask"

    text = (await house.pages.get("/metrics")).text
    for process in ("router", "meter", "portal"):
        assert f'baton_ready{{process="{process}"}} 1.0' in text
    for process in ("router", "meter", "portal", "serve"):
        assert f'baton_process_resident_bytes{{process="{process}"}}' in text

    house.process.terminate()
    assert await asyncio.wait_for(house.process.wait(), WITHIN_S) == 0
    assert "STOPPING=1" in house.listen()


async def test_a_router_that_hangs_is_seen_unfed_and_started_again(house: House) -> None:
    await house.start()
    await house.until("/ready", lambda code, _: code == 200)
    await house.hears("WATCHDOG=1")
    router = next(one["pid"] for one in house.logged("child_started") if one["child"] == "router")
    os.kill(router, signal.SIGSTOP)
    body = await house.until("/live", lambda code, _: code == 503)
    assert body["hangs"] == ["router"]
    heard = len(house.listen())
    code, body = await house.page("/ready")
    if code == 503 and body["status"] == "hung":  # it may have been ended in between
        assert body["checks"]["router.process"].startswith("hangs: no sign for ")
    await house.until("/live", lambda code, _: code == 200)
    silent = house.listen()[heard:]
    assert "WATCHDOG=1" not in silent[: _first(silent, "STATUS=starting", "STATUS=not_ready", "STATUS=ready")]
    await house.until("/ready", lambda code, _: code == 200)
    await house.hears("WATCHDOG=1", heard)

    (hung,) = house.logged("child_hangs")
    assert (hung["child"], hung["pid"]) == ("router", router)
    (died,) = house.logged("child_died")
    assert (died["child"], died["code"]) == ("router", -signal.SIGKILL), "SIGABRT waits for a process that is stopped"
    started = [one["pid"] for one in house.logged("child_started") if one["child"] == "router"]
    assert len(started) == 2
    text = (await house.pages.get("/metrics")).text
    assert 'baton_child_restarts_total{process="router"} 1.0' in text
    assert 'baton_ready{process="router"} 1.0' in text


def _first(lines: list[str], *beginnings: str) -> int:
    """Where the first of these lines is; the end where there is none."""
    return next((at for at, line in enumerate(lines) if line.startswith(beginnings)), len(lines))


@pytest.mark.parametrize("role", ["router", "meter", "portal"])
async def test_a_process_alone_serves_its_own_pages_and_tells_systemd(house: House, role: str) -> None:
    assert (await _baton("import", house.config))[0] == 0
    environ = {**os.environ, **house._environ}
    with house._log.open("ab") as log:
        house.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "baton", role, str(house.config), stdout=log, stderr=log, env=environ
        )
    body = await house.until("/ready", lambda code, _: code == 200)
    assert {name.partition(".")[0] for name in body["checks"]} == {role}
    assert (await house.page("/startup"))[0] == 200
    assert (await house.page("/live"))[0] == 200
    assert f'baton_ready{{process="{role}"}} 1.0' in (await house.pages.get("/metrics")).text
    (served,) = house.logged("metrics_served")
    assert served["process"] == role
    await house.hears("READY=1")
    await house.hears("WATCHDOG=1")
    house.process.terminate()
    assert await asyncio.wait_for(house.process.wait(), WITHIN_S) == 0
