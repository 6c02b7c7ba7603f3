"""The control socket's protocol, and what the router's commands say and report."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from baton.process import control
from baton.process.control import ControlError, ControlServer, NoRouterError, RefusedError, ask, socket_path
from baton.process.router import router_config
from baton.process.router_control import LIVE, Steering, differences, merged
from config.settings import Settings, load
from tests.memory import Script
from tests.world import World, declines, party, plain

TEXT = """
[[listeners]]
name = "main"
transport = "udp"
[[dialers]]
name = "west"
allow = ["192.0.2.0/24"]
[[carriers]]
name = "own"
uri = "sip:{number}@carrier.example"
password = "a-secret-of-the-carrier"
username = "u"
"""


def _settings(folder: Path, text: str = TEXT) -> Settings:
    file = folder / "baton.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, {})


# --- protocol --------------------------------------------------------------------------------------------------------


async def _echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"said": request.get("say", "")}


async def _broken(_request: dict[str, Any]) -> dict[str, Any]:
    raise ZeroDivisionError


async def _no(_request: dict[str, Any]) -> dict[str, Any]:
    raise RefusedError("not today", ("first", "second"))


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    server = ControlServer(tmp_path / "r.sock", {"echo": _echo, "broken": _broken, "no": _no})
    await server.start()
    yield tmp_path / "r.sock"
    await server.close()
    assert not (tmp_path / "r.sock").exists()


async def _lines(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    """The answers to these lines over one connection, until it ends or all are answered."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    answers = []
    for line in lines:
        try:
            writer.write(line)
            await writer.drain()
            answer = await reader.readline()
        except OSError:
            break
        if not answer:
            break
        answers.append(orjson.loads(answer))
    writer.close()
    return answers


async def test_bad_input_gets_an_error_and_the_conversation_goes_on(path: Path) -> None:
    bad = [b"{nonsense\n", b"[1]\n", b"{}\n", b'{"do": ["echo"]}\n', b'{"do": "fly"}\n', b"\xff\xfe\n", b"\n"]
    answers = await _lines(path, *bad, b'{"do": "echo", "say": "still here"}\n')
    assert [one["ok"] for one in answers] == [False] * len(bad) + [True]
    assert "there are broken, echo, no" in answers[4]["error"]
    assert answers[-1] == {"ok": True, "said": "still here"}


async def test_a_request_that_is_too_long_ends_its_connection_alone(path: Path) -> None:
    (answer,) = await _lines(path, b"x" * (control.MAX_REQUEST + 8_192), b'{"do": "echo"}\n')
    assert answer == {"ok": False, "error": f"a request may have {control.MAX_REQUEST} bytes"}
    assert await ask(path, {"do": "echo", "say": "a"}) == {"said": "a"}


async def test_a_fault_in_a_command_is_told_and_kept_from_the_others(path: Path) -> None:
    with pytest.raises(RefusedError, match="it failed to answer: ZeroDivisionError"):
        await ask(path, {"do": "broken"})
    with pytest.raises(RefusedError) as caught:
        await ask(path, {"do": "no"})
    assert caught.value.problems == ("first", "second")
    assert str(caught.value) == "not today\n  first\n  second"


async def test_one_connection_too_many_is_told_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CONNECTIONS", 1)
    _, writer = await asyncio.open_unix_connection(str(path))
    await asyncio.sleep(0.05)
    with pytest.raises(RefusedError, match="more than 1 connections"):
        await ask(path, {"do": "echo"})
    writer.close()
    await asyncio.sleep(0.05)
    assert await ask(path, {"do": "echo", "say": "b"}) == {"said": "b"}


async def test_a_silent_client_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0.05)
    reader, writer = await asyncio.open_unix_connection(str(path))
    assert await asyncio.wait_for(reader.read(), 2) == b""
    writer.close()


async def test_the_socket_is_its_owners_and_replaces_a_stale_one(tmp_path: Path) -> None:
    place = tmp_path / "r.sock"
    dead = control._bind(place)
    dead.close()
    with pytest.raises(NoRouterError, match="no router answers at"):
        await ask(place, {"do": "echo"})
    server = ControlServer(place, {"echo": _echo})
    await server.start()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert await ask(place, {"do": "echo", "say": "c"}) == {"said": "c"}
    await server.close()


async def test_a_server_that_ends_leaves_the_socket_of_the_one_that_came_after_it(tmp_path: Path) -> None:
    """Of two portals, such as while one takes over from the other, the first took the second's socket with it."""
    file = tmp_path / "s.sock"
    first, second = ControlServer(file, {}), ControlServer(file, {"who": _second})
    await first.start()
    await second.start()
    await first.close()
    assert await ask(file, {"do": "who"}) == {"who": "second"}
    await second.close()
    assert not file.exists()


async def _second(_request: dict[str, Any]) -> dict[str, Any]:
    return {"who": "second"}


async def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "r.sock").write_text("a letter")
    with pytest.raises(ControlError, match="something that is no socket"):
        await ControlServer(tmp_path / "r.sock", {}).start()
    assert (tmp_path / "r.sock").read_text() == "a letter"


async def test_a_router_that_says_nothing_is_no_router(tmp_path: Path) -> None:
    held = control._bind(tmp_path / "r.sock")
    held.listen()
    with pytest.raises(NoRouterError, match=r"does not answer within 0\.1 s"):
        await ask(tmp_path / "r.sock", {"do": "echo"}, 0.1)
    held.close()


def test_a_path_too_long_for_a_socket_names_the_setting(tmp_path: Path) -> None:
    settings = _settings(tmp_path, f'{TEXT}[store]\ndata_dir = "/{"d" * 88}"\n')
    with pytest.raises(
        ControlError, match=r"store\.data_dir: .* is 109 bytes long and the path of a socket may have 107"
    ):
        socket_path(settings)
    assert socket_path(_settings(tmp_path)) == tmp_path / "data/router-baton-1.sock"


# --- settings --------------------------------------------------------------------------------------------------------


def test_a_reload_takes_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    now = _settings(tmp_path)
    text = TEXT.replace("192.0.2.0/24", "198.51.100.0/24").replace("a-secret", "another").replace('"udp"', '"tcp"')
    text += '[router]\nmax_calls = 10\nlockout_failures = 9\nname = "other"\n[log]\nlevel = "debug"\n'
    text += '[recording]\nretention_days = 1\ndir = "else"\n[suppression]\nreload_ms = 900\n[metrics]\nport = 1\n'
    wanted = _settings(tmp_path, text)
    new = merged(now, wanted)
    assert differences(now, new) == [
        "router.lockout_failures",
        "dialers.west",
        "carriers.own",
        "log.level",
        "suppression.reload_ms",
        "recording.retention_days",
    ]
    assert differences(new, wanted) == [
        "router.name",
        "router.max_calls",
        "listeners.main",
        "metrics.port",
        "recording.dir",
    ]
    assert differences(merged(new, wanted), wanted) == differences(new, wanted), "still waiting at the next reload"


def test_added_removed_and_reordered_entries_are_named(tmp_path: Path) -> None:
    more = '[[dialers]]\nname = "east"\nallow = ["203.0.113.0/24"]\n'
    one, two = _settings(tmp_path), _settings(tmp_path, TEXT + more)
    assert differences(one, two) == differences(two, one) == ["dialers.east"]
    turned = _settings(tmp_path, more + TEXT)
    assert differences(two, turned) == ["dialers"]
    assert differences(one, _settings(tmp_path, TEXT + "[portal]\n")) == ["portal"]


def test_what_a_running_router_can_take_exists() -> None:
    for section, names in LIVE.items():
        assert section in Settings.model_fields
        inner: Any = Settings.model_fields[section].annotation
        assert names is None or names <= set(inner.model_fields)


# --- commands --------------------------------------------------------------------------------------------------------


class _Steered:
    """A router on a virtual clock, steered by its file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World([plain()])
        self.world.script(party(declines(1_000)))
        self.stopped = 0
        self.applied: list[Settings] = []
        self.steering = Steering(
            folder / "baton.toml",
            _settings(folder),
            self.world.router,
            environ={},
            apply=self._apply,
            stop=self._stop,
        )

    def _apply(self, settings: Settings) -> None:
        self.applied.append(settings)
        self.world.router.configure(router_config(settings))
        self.world.router.admit_parties()

    def _stop(self) -> None:
        self.stopped += 1


async def test_reload_opens_the_doors_to_a_new_dialer(tmp_path: Path) -> None:
    one = _Steered(tmp_path)
    _settings(tmp_path, TEXT + '[[dialers]]\nname = "east"\nallow = ["203.0.113.0/24"]\n[router]\nmax_calls = 4\n')
    assert await one.steering.reload({}) == {"applied": ["dialers.east"], "needs_restart": ["router.max_calls"]}
    assert one.world.engine.networks == ["192.0.2.0/24", "203.0.113.0/24"]
    assert await one.steering.reload({}) == {"applied": [], "needs_restart": ["router.max_calls"]}
    assert one.steering.settings.router.max_calls == 1000


async def test_an_entry_may_go_while_its_variable_is_still_there(tmp_path: Path) -> None:
    east = '[[dialers]]\nname = "east"\nallow = ["203.0.113.0/24"]\nusername = "east"\n'
    one = _Steered(tmp_path)
    one.steering._environ["BATON_DIALERS__EAST__PASSWORD"] = "secret-of-east"
    _settings(tmp_path, TEXT + east + 'password = "of the file"\n')
    assert (await one.steering.reload({}))["applied"] == ["dialers.east"]
    _settings(tmp_path, TEXT)
    told = await one.steering.reload({})
    assert told["applied"] == ["dialers.east"]
    assert [name.partition(" ")[0] for name in told["needs_restart"]] == ["BATON_DIALERS__EAST__PASSWORD"]


async def test_a_file_with_problems_changes_nothing_and_says_all_of_them(tmp_path: Path) -> None:
    one = _Steered(tmp_path)
    (tmp_path / "baton.toml").write_text(TEXT.replace("192.0.2.0/24", "nowhere").replace('"udp"', '"pigeon"'))
    with pytest.raises(RefusedError, match="nothing was changed") as caught:
        await one.steering.reload({})
    assert {"dialers[0].allow[0]", "listeners[0].transport"} <= {one.split(": ")[1] for one in caught.value.problems}
    assert not one.applied
    assert one.steering.settings.listeners[0].transport == "udp"


async def test_drain_refuses_then_takes_again_and_leaves_when_empty(tmp_path: Path) -> None:
    one = _Steered(tmp_path)
    one.world.engine.invite("leads", Script())
    one.world.clock.run_for(100_000)
    assert await one.steering.drain({"on": True}) == {"draining": True, "exit": False, "live": 1}
    assert (await one.steering.availability({"campaign": "leads"}))["reason"] == "draining"
    assert (await one.steering.drain({"on": False}))["draining"] is False
    assert (await one.steering.availability({"campaign": "leads"}))["available"] is True
    await one.steering.drain({"exit": True})
    await asyncio.sleep(0.25)
    assert not one.stopped
    one.world.clock.run_for(60_000_000)
    await asyncio.sleep(0.25)
    assert one.stopped == 1
    assert one.steering.grace_s == 30


async def test_a_drain_that_is_called_off_does_not_leave(tmp_path: Path) -> None:
    one = _Steered(tmp_path)
    one.world.engine.invite("leads", Script())
    await one.steering.drain({"exit": True})
    await one.steering.drain({"on": False})
    one.world.clock.run_for(60_000_000)
    await asyncio.sleep(0.25)
    assert not one.stopped


@pytest.mark.parametrize(
    ("command", "request_", "said"),
    [
        ("drain", {"on": "yes"}, "on: is not true or false"),
        ("drain", {"on": False, "exit": True}, "exit: goes with on = true only"),
        ("drain", {"within_s": 5}, "within_s: goes with exit = true only"),
        ("drain", {"exit": True, "within_s": -1}, "within_s: is not a whole number from 0 to 86400"),
        ("live", {"limit": True}, "limit: is not a whole number"),
        ("availability", {}, "campaign: the name of a campaign is required"),
        ("availability", {"campaign": 7}, "campaign: the name"),
    ],
)
async def test_a_wrong_request_names_its_field(
    tmp_path: Path, command: str, request_: dict[str, Any], said: str
) -> None:
    with pytest.raises(RefusedError, match=said):
        await _Steered(tmp_path).steering.commands[command](request_)


async def test_live_is_bounded_and_can_be_written_as_json(tmp_path: Path) -> None:
    one = _Steered(tmp_path)
    for _ in range(45):
        one.world.engine.invite("leads", Script())
    one.world.clock.run_for(100_000)
    found = await one.steering.live({})
    assert (found["transfers"], len(found["live"]), found["router"]) == (45, 45, "baton-1")
    assert len((await one.steering.live({"limit": 7}))["live"]) == 7
    assert b"+12125550123" not in orjson.dumps(found)
    refused = await one.steering.availability({"campaign": "nobody"})
    assert (refused["available"], refused["reason"]) == (False, "no_buyer")
