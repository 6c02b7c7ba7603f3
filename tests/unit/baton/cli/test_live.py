"""`live`, `availability`, `drain`, `reload` and `portal` as a person meets them; the router is played by the test."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from baton.cli import live as cli_live
from baton.cli import main as cli
from baton.process.control import ControlServer, RefusedError

TEXT = '[[listeners]]\nname = "main"\ntransport = "udp"\n'
LIVE: dict[str, Any] = {
    "router": "baton-1",
    "draining": False,
    "transfers": 2,
    "arrivals": 1,
    "slots_used": 4,
    "slots_max": 1000,
    "trunks": [
        {"name": "acme/pbx", "health": "down", "streak": -4, "took_ms": 12.5},
        {"name": "carrier/own", "health": "up", "streak": 0, "took_ms": None},
    ],
    "live": [
        {
            "transfer": "T1",
            "call_id": "C1",
            "dialer": "west",
            "campaign": "solar\x1b[2J",
            "buyer": "acme",
            "caller": "***0123",
            "phase": "ringing",
            "age_ms": 2500,
            "dialout_ms": 2400,
            "legs": [
                {"leg": 0, "endpoint": "caller", "phase": "ringing", "phase_ms": 2500},
                {"leg": 1, "endpoint": "pbx", "phase": "planned", "phase_ms": None},
            ],
            "next": {"timer": "leg_ring", "leg": 1, "in_ms": 27_600},
        }
    ],
    "arriving": [{"campaign": "solar", "caller": "***0199", "stage": "greeting", "age_ms": 900}],
}


class Played:
    """A control socket served from a thread; each command answers from `says` and is kept in `asked`."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "baton.toml"
        self.config.write_text(TEXT, encoding="utf-8")
        self.says: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self._socket = folder / "data" / "router-baton-1.sock"
        self._socket.parent.mkdir()
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        assert self._ready.wait(5)

    async def _serve(self) -> None:
        server = ControlServer(self._socket, dict.fromkeys(("live", "availability", "drain", "reload"), self._answer))
        await server.start()
        self._ready.set()
        await self._stop.wait()
        await server.close()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        said = self.says[request["do"]]
        if isinstance(said, Exception):
            raise said
        answer: dict[str, Any] = said
        return answer

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)
        self._loop.close()


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    one = Played(tmp_path)
    yield one
    one.close()
    structlog.reset_defaults()


def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["baton", *map(str, words)])
    monkeypatch.delenv("BATON_DEBUG", raising=False)
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return code, said.out + said.err


def test_live_shows_calls_arrivals_and_trunks(
    played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played.says["live"] = LIVE
    code, out = _run(monkeypatch, capsys, "live", played.config)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "router baton-1: taking calls; 2 transfers, 1 arriving, 4 of 1000 slots"
    (row,) = [line for line in lines if line.split()[:1] == ["T1"]]
    assert "\x1b[2J" not in out
    for cell in (
        "acme",
        "west",
        "***0123",
        "2.5 s",
        "2.4 s",
        "caller ringing 2.5 s",
        "leg_ring 1 in 27.6 s",
    ):
        assert cell in row
    assert lines[lines.index(row) + 1].strip() == "pbx planned"
    assert "and 1 more" in out
    assert any("greeting" in line and "0.9 s" in line for line in lines)
    assert any("acme/pbx" in line and "down" in line and "4 bad" in line and "12.5 ms" in line for line in lines)
    assert json.loads(_run(monkeypatch, capsys, "live", played.config, "--json")[1]) == LIVE
    assert played.asked[0] == {"do": "live", "limit": 500}


def test_watch_looks_again_until_it_is_interrupted(
    played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played.says["live"] = LIVE
    looks = iter(range(3))

    def pause() -> None:
        if next(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli_live, "_pause", pause)
    code, out = _run(monkeypatch, capsys, "live", played.config, "--watch")
    assert (code, len(played.asked)) == (0, 3)
    assert "router baton-1" in out


def test_availability_says_why_not_and_exits_with_1(
    played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("availability", "solar", "--config", played.config)
    played.says["availability"] = {"available": True, "reason": "", "refusals": []}
    assert _run(monkeypatch, capsys, *words) == (0, "solar: a buyer would take a call\n")
    refusals = [{"buyer": "acme", "reason": "closed", "detail": "opens at 9"}]
    played.says["availability"] = {"available": False, "reason": "closed", "refusals": refusals}
    assert _run(monkeypatch, capsys, *words) == (1, "solar: no (closed)\n  acme: closed, opens at 9\n")
    code, out = _run(monkeypatch, capsys, *words, "--json")
    assert (code, json.loads(out)["refusals"]) == (1, refusals)


def test_drain_says_what_is_up_and_what_will_be(
    played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played.says["drain"] = {"draining": True, "exit": True, "live": 3}
    code, out = _run(monkeypatch, capsys, "drain", played.config, "--exit", "--within", "60")
    assert (code, out) == (0, "draining, 3 calls up; the router ends with the last, or in 60 s\n")
    assert _run(monkeypatch, capsys, "drain", played.config, "--off")[1] == "taking calls again, 3 calls up\n"
    assert played.asked == [
        {"do": "drain", "on": True, "exit": True, "within_s": 60},
        {"do": "drain", "on": False, "exit": False, "within_s": 0},
    ]
    assert _run(monkeypatch, capsys, "drain", played.config, "--off", "--exit")[0] == 2
    assert _run(monkeypatch, capsys, "drain", played.config, "--within", "60")[0] == 2


def test_reload_names_what_is_in_force_and_what_waits(
    played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played.says["reload"] = {"applied": ["dialers.east"], "needs_restart": ["router.max_calls"]}
    code, out = _run(monkeypatch, capsys, "reload", played.config)
    assert (code, out) == (0, "in force: dialers.east\nneeds a restart: router.max_calls\n")
    played.says["reload"] = RefusedError("baton.toml: nothing was changed", ("line 3: a", "line 4: b"))
    code, out = _run(monkeypatch, capsys, "reload", played.config)
    assert (code, out) == (1, "baton: baton.toml: nothing was changed\n  line 3: a\n  line 4: b\n")


@pytest.mark.parametrize("words", [["live"], ["live", "--watch"], ["drain"], ["reload"]])
def test_without_a_router_there_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    file = tmp_path / "baton.toml"
    file.write_text(TEXT, encoding="utf-8")
    code, out = _run(monkeypatch, capsys, *words, file)
    assert (code, out.count("no router answers at")) == (1, 1)


def test_a_mistake_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATON_CONFIG", raising=False)
    assert "which router? give its configuration file" in _run(monkeypatch, capsys, "live")[1]
    (tmp_path / "baton.toml").write_text(TEXT, encoding="utf-8")
    code, out = _run(monkeypatch, capsys, "portal", "baton.toml")
    assert (code, out) == (1, "baton: baton.toml: has no section [portal]\n")
    assert _run(monkeypatch, capsys, "availability")[0] == 2
