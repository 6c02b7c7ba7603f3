"""Settings: what a good file gives, and that a bad one gives every problem at once, each with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from book.problems import ConfigError, Problem
from config.settings import Settings, load, load_running

MINIMAL = """
[[listeners]]
name = "main"
transport = "udp"
port = 5060
"""


def _load(folder: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    file = folder / "baton.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ or {})


def _problems(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        _load(folder, text, environ)
    return list(caught.value.problems)


def test_a_file_with_one_listener_is_enough(tmp_path: Path) -> None:
    settings = _load(tmp_path, MINIMAL)
    assert settings.router.max_calls == 1000
    assert settings.suppression.reload_ms == 500
    assert settings.mail is None
    assert settings.store.data_dir == tmp_path / "data"
    assert settings.store_url == f"sqlite+aiosqlite:///{tmp_path}/data/baton.db"


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    settings = _load(tmp_path, MINIMAL + '[tls]\nca_file = "tls/ca.pem"\n[store]\ndata_dir = "/var/lib/baton"\n')
    assert settings.tls.ca_file == tmp_path / "tls/ca.pem"
    assert settings.store.data_dir == Path("/var/lib/baton")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    text = MINIMAL + '[[carriers]]\nname = "main-line"\nuri = "sip:{number}@carrier.example"\npassword = "old"\n'
    environ = {
        "BATON_LISTENERS__0__PORT": "5070",
        "BATON_CARRIERS__MAIN_LINE__PASSWORD": "fresh",
        "BATON_ROUTER__MAX_CALLS": "50",
        "BATON_DIALERS": "not nested, so no setting",
        "BATON_CACHE": "/somewhere",
    }
    settings = _load(tmp_path, text, environ)
    assert settings.listeners[0].port == 5070
    assert settings.carriers[0].password.get_secret_value() == "fresh"
    assert settings.router.max_calls == 50


def test_a_whole_section_can_come_from_the_environment(tmp_path: Path) -> None:
    environ = {"BATON_MQTT__HOST": "broker", "BATON_MQTT__TLS": "true", "BATON_MQTT__PASSWORD": "s3cret"}
    mqtt = _load(tmp_path, MINIMAL, environ).mqtt
    assert mqtt is not None
    assert (mqtt.host, mqtt.tls) == ("broker", True)


def test_all_problems_come_at_once_with_path_and_line(tmp_path: Path) -> None:
    text = """
[router]
max_calls = 1000
rtp_port_min = 20000
rtp_port_max = 20999

[[listeners]]
name = "a"
transport = "udp"

[[listeners]]
name = "a"
transport = "carrier pigeon"
port = 70000
prot = 1

[[dialers]]
name = "floor"
allow = ["10.0.0.0/8", "10.0.0.1/8"]

[links]
base_url = "http://portal.example"
secret = "short"
"""
    found = {(one.path, one.line) for one in _problems(tmp_path, text)}
    assert found == {
        ("router", 2),
        ("listeners[1].name", 12),
        ("listeners[1].transport", 13),
        ("listeners[1].port", 14),
        ("listeners[1].prot", 15),
        ("dialers[0].allow[1]", 19),
        ("links.base_url", 22),
        ("links.secret", 23),
    }


def test_too_few_rtp_ports_says_how_many_are_needed(tmp_path: Path) -> None:
    (problem,) = _problems(
        tmp_path, MINIMAL + "[router]\nmax_calls = 100\nrtp_port_min = 20000\nrtp_port_max = 20198\n"
    )
    assert problem.message == "rtp_port_min to rtp_port_max is 199 ports; max_calls = 100 needs 200"


def test_exactly_two_ports_per_call_are_enough(tmp_path: Path) -> None:
    settings = _load(tmp_path, MINIMAL + "[router]\nmax_calls = 100\nrtp_port_min = 20000\nrtp_port_max = 20199\n")
    assert settings.router.max_calls == 100


def test_a_problem_from_the_environment_names_the_variable(tmp_path: Path) -> None:
    problems = _problems(tmp_path, MINIMAL, {"BATON_ROUTER__MAX_CALLS": "many", "BATON_NOWHERE__X": "1"})
    assert {(one.path, one.variable) for one in problems} == {
        ("router.max_calls", "BATON_ROUTER__MAX_CALLS"),
        ("nowhere", "BATON_NOWHERE__X"),
    }


def test_a_variable_for_an_entry_that_is_not_there_is_not_ignored(tmp_path: Path) -> None:
    (problem,) = _problems(tmp_path, MINIMAL, {"BATON_LISTENERS__SPARE__PORT": "5070"})
    assert str(problem) == "listeners (from BATON_LISTENERS__SPARE__PORT): has no entry 'spare'"


def test_a_running_baton_leaves_out_the_variable_of_an_entry_that_is_gone(tmp_path: Path) -> None:
    """A token whose secret was in the environment could not be taken away by a reload."""
    token = '[portal]\n[[portal.tokens]]\nname = "noc"\noperator = true\n'
    environ = {"BATON_PORTAL__TOKENS__NOC__SECRET": "n" * 40}
    file = tmp_path / "baton.toml"
    file.write_text(MINIMAL + token)
    settings, gone = load_running(file, environ)
    assert settings.portal is not None
    assert (len(settings.portal.tokens), gone) == (1, ())
    file.write_text(MINIMAL + "[portal]\n")
    settings, gone = load_running(file, environ)
    assert settings.portal is not None
    assert (settings.portal.tokens, gone) == ((), tuple(environ))
    with pytest.raises(ConfigError, match="noc"):
        load(file, environ)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[router\n", "is not valid TOML"),
        ("a = 1\na = 2\n", "line 2"),
        ("[[listeners]]\nname = 'a\n", "not valid TOML"),
    ],
)
def test_broken_toml_is_one_clear_problem(tmp_path: Path, text: str, message: str) -> None:
    (problem,) = _problems(tmp_path, text)
    assert message in str(problem)


def test_a_missing_file_and_one_that_is_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml", {})
    (tmp_path / "bad.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(tmp_path / "bad.toml", {})


@pytest.mark.parametrize(
    ("section", "path", "message"),
    [
        ('[mail]\nhost = "mx"\nsender = "a@b.example"\n', "mail", "needs the section [links]"),
        ('[[carriers]]\nname = "c"\nuri = "sip:main@c.example"\n', "carriers[0].uri", "needs {number}"),
        (
            '[[carriers]]\nname = "c"\nuri = "sip:{number}@c"\ntransport = "tls"\n',
            "carriers[0].transport",
            "tls.ca_file",
        ),
        ('[tls]\nkey_file = "k.pem"\n', "tls", "go together"),
        ("listeners = 3\n", "listeners", "valid tuple"),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, section: str, path: str, message: str) -> None:
    text = section if section.startswith("listeners") else MINIMAL + section
    problems = _problems(tmp_path, text)
    assert [one.path for one in problems] == [path]
    assert message in problems[0].message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('address = "::1"', "IPv6"),
        ('public_address = "sip.example"', "no IPv4 address"),
        ('public_address = "2001:db8::1"', "no IPv4 address"),
    ],
)
def test_a_listener_that_sdp_could_not_name_is_refused(tmp_path: Path, line: str, message: str) -> None:
    problems = _problems(tmp_path, f"{MINIMAL}{line}\n")
    assert any(one.path.startswith("listeners") and message in one.message for one in problems), problems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + 'public_address = "sip.example.com"\n', ["listeners[0]: public_address is no IPv4 address"]),
        (MINIMAL.replace("5060", '5060\naddress = "::1"'), ["listeners[0]: address is IPv6"]),
        ("[router]\n", ["listeners: is required"]),
        ("listeners = []\n", ["listeners: should have at least 1 entry"]),
        (
            MINIMAL + '[[dialers]]\nname = "west"\nallow = ["192.0.2.0/24"]\ncampaigns = []\n',
            ["dialers[0].campaigns: should have at least 1 entry"],
        ),
        (MINIMAL + '[store]\nsecrets_key = "short"\n', ["store.secrets_key: should have at least 32 characters"]),
    ],
)
def test_what_is_too_short_is_said_once_and_in_words(tmp_path: Path, text: str, said: list[str]) -> None:
    """`Value should have at least 32 items after validation, not 5`; and no listener, where the one there was wrong."""
    found = [f"{one.path}: {one.message}" for one in _problems(tmp_path, text)]
    assert len(found) == len(said)
    assert all(one.startswith(start) for one, start in zip(found, said, strict=True)), found


def test_secrets_stay_out_of_errors_and_reprs(tmp_path: Path) -> None:
    text = MINIMAL + '[links]\nbase_url = "https://p.example"\nsecret = "hunter2-hunter2"\n'
    assert "hunter2" not in str(_problems(tmp_path, text)[0])
    good = _load(tmp_path, text.replace("hunter2-hunter2", "hunter2-" * 5))
    assert "hunter2" not in repr(good)


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = _load(tmp_path, MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        settings.router.max_calls = 5  # type: ignore[misc]
