"""The command line as a person meets it: what it prints, its exit codes, and never a traceback."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from baton.cli import main as cli
from book.addresses import NO_MAIL

EXAMPLES = Path(__file__).parents[4] / "config" / "examples"
BOOK = """
[[listeners]]
name = "main"
transport = "udp"

[[buyers]]
name = "acme"
terms = "westlake-fulfillment"
[[buyers.endpoints]]
name = "pbx"
kind = "trunk"
uri = "sip:a@pbx.example"

[[campaigns]]
name = "solar"
buyers = ["acme"]

[[suppression_lists]]
name = "dnc"
file = "dnc.csv"
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    monkeypatch.delenv("BATON_DEBUG", raising=False)
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    def go(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["baton", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out, said.err

    yield go
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "dnc.csv").write_text("phone\n(212) 555-0100\n", encoding="utf-8")
    file = tmp_path / "baton.toml"
    file.write_text(BOOK, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", ["minimal.toml", "demo.toml"])
def test_the_examples_pass_the_check(run: Run, name: str) -> None:
    code, out, _ = run("check", EXAMPLES / name)
    assert (code, out.splitlines()[-1]) == (0, "no problems")
    warned = [line for line in out.splitlines() if line.startswith("warning")]
    assert warned == [f"warning: mail: {NO_MAIL}"]  # mail needs a secret, which no example can bring


def test_the_demo_example_shows_who_has_a_buffer(run: Run) -> None:
    code, out, _ = run("check", EXAMPLES / "demo.toml", "--json")
    assert code == 0
    assert {one["buyer"]: one["buffer_ms"] for one in json.loads(out)["buyers"]} == {
        "acme": 15000,
        "bolt": 0,
        "coda": 0,
    }


def test_check_prints_every_problem_with_its_place(run: Run, config: Path) -> None:
    text = BOOK.replace('"udp"', '"tls"\nkey_file = "no.pem"\ncertificate_file = "dnc.csv"').replace(
        'dnc.csv"\n', 'gone.csv"\n', 2
    )
    config.write_text(text.replace('buyers = ["acme"]', 'buyers = ["zeus"]'), encoding="utf-8")
    code, out, _ = run("check", config)
    assert code == 1
    assert "problem: line 5: listeners[0].key_file: " in out
    assert "campaigns[0].buyers[0]: 'zeus' is not a [[buyers]] entry" in out
    assert "suppression_lists[0].file: " in out
    code, out, _ = run("check", config, "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (1, False)
    assert {one["path"] for one in found["problems"]} >= {"listeners[0].key_file", "campaigns[0].buyers[0]"}


def test_check_says_what_is_no_pem_file_and_what_is_no_toml(run: Run, config: Path) -> None:
    config.write_text(BOOK + '[tls]\nca_file = "dnc.csv"\n', encoding="utf-8")
    assert "tls.ca_file: " in run("check", config)[1]
    assert "is not a PEM file" in run("check", config)[1]
    config.write_text("[[listeners]\n", encoding="utf-8")
    code, out, _ = run("check", config)
    assert code == 1
    assert "is not valid TOML" in out


def test_check_listens_to_the_prompts(run: Run, config: Path, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
    with wave.open(str(tmp_path / "good.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
    text = BOOK.replace('buyers = ["acme"]', 'buyers = ["acme"]\nearly_answer = true\nmusic_file = "stereo.wav"')
    config.write_text(text.replace('pbx.example"\n', 'pbx.example"\nwhisper_file = "gone.wav"\n'), encoding="utf-8")
    code, out, _ = run("check", config)
    assert code == 1
    assert "campaigns[0].music_file: " in out
    assert "2 channels" in out
    assert "buyers[0].endpoints[0].whisper_file: " in out
    config.write_text(config.read_text().replace("gone.wav", "good.wav").replace("stereo.wav", "good.wav"))
    assert run("check", config)[0] == 0


def test_import_twice_then_pause_and_resume(run: Run, config: Path) -> None:
    code, out, _ = run("import", config, "--dry-run")
    assert (code, "buyer acme: would be added" in out) == (0, True)
    assert "list dnc: would have 1 numbers, a new list" in out
    code, out, _ = run("import", config)
    assert code == 0, out
    assert "list dnc: version 1 in force, 1 numbers" in out
    code, out, _ = run("import", config)
    assert (code, "book version 1, 3 unchanged" in out, "was in force already" in out) == (0, True, True)
    assert run("buyers", "pause", "acme", "--config", config)[:2] == (0, "acme: active -> paused\n")
    assert json.loads(run("buyers", "list", "--config", config, "--json")[1])[0]["state"] == "paused"
    held = run("buyers", "hold", "acme", "--store", config.parent / "data/baton.db")[1]
    assert held == "acme: paused -> on_hold\nnot served: held, paused\n"
    assert run("buyers", "resume", "acme", "--config", config)[1] == "acme: on_hold -> active\n"
    assert run("buyers", "resume", "acme", "--config", config)[1] == "acme: is active already\n"


def test_a_conflicting_import_is_refused_until_it_is_meant(run: Run, config: Path) -> None:
    run("import", config)
    config.write_text(BOOK.replace("pbx.example", "new.example"), encoding="utf-8")
    code, _, err = run("import", config)
    assert code == 1
    assert "import refused, nothing was written" in err
    assert "buyer acme: the store has other content in endpoint pbx (uri)" in err
    code, out, _ = run("import", config, "--replace")
    assert (code, "buyer acme: replaced" in out) == (0, True)


@pytest.mark.parametrize("text", ["account\n2125550111\n", "phone,note\n2125550111,x 212-555-0199 y\n"])
def test_yes_takes_nobody_off_a_list(run: Run, config: Path, tmp_path: Path, text: str) -> None:
    run("import", config)
    file = tmp_path / "accounts.csv"
    file.write_text(text, encoding="utf-8")
    words = ("suppression", "import", file, "--name", "own", "--buyer", "acme", "--config", config)
    code, out, err = run(*words, "--yes", "--json")
    assert (code, json.loads(out)["entries"], ": taken" in err) == (0, 1, True)
    code, _, err = run(*words, "--mode", "remove", "--yes")
    assert (code, "name" in err) == (1, True)
    assert run("suppression", "check", "2125550111", "--buyer", "acme", "--config", config)[0] == 1
    assert run(*words, "--mode", "remove", "--column", "#1", "--header")[0] == 0
    assert run("suppression", "check", "2125550111", "--buyer", "acme", "--config", config)[0] == 0


def test_suppression_from_file_to_verdict(run: Run, config: Path, tmp_path: Path) -> None:
    run("import", config)
    own = tmp_path / "own.csv"
    own.write_text("Mobile\n2125550111\nnot a number\n", encoding="utf-8")
    code, _, err = run(
        "suppression", "import", own, "--name", "own", "--buyer", "acme", "--column", "mobile", "--config", config
    )
    assert (code, "1 of 2 lines rejected, more than 2 %" in err, "line 3 rejected: not a phone number" in err) == (
        1,
        True,
        True,
    )
    own.write_text("Mobile\n2125550111\n", encoding="utf-8")
    words = ("suppression", "import", own, "--name", "own", "--column", "mobile", "--config", config)
    assert run(*words, "--buyer", "acme")[0] == 0
    assert run(*words)[0] == 2
    assert run(*words, "--buyer", "zeus")[2] == "baton: no buyer is called 'zeus'\n"
    listed = json.loads(run("suppression", "list", "--config", config, "--json")[1])
    assert [(one["name"], one["buyer"]) for one in listed] == [("dnc", None), ("own", "acme")]
    check = ("suppression", "check", "--config", config)
    assert run(*check, "tel:+1-212-555-0111", "--buyer", "acme")[:2] == (
        1,
        run(*check, "2125550111", "--buyer", "acme")[1],
    )
    assert "suppressed: on list own" in run(*check, "212.555.0111", "--buyer", "acme")[1]
    assert "on list own (of buyer acme) since" in run(*check, "2125550111")[1]
    code, out, _ = run(*check, "2125550177", "--buyer", "acme")
    assert (code, out.splitlines()[:2]) == (0, ["on no list", "may be transferred"])
    assert run("suppression", "retire", "dnc", "--config", config)[:2] == (0, "list dnc: out of force\n")
    assert run("suppression", "retire", "dnc", "--config", config)[0] == 1


def test_an_empty_store_has_no_transfers_and_a_whole_journal(run: Run, config: Path) -> None:
    run("import", config)
    assert run("transfers", "list", "--config", config, "--json")[:2] == (0, "[]\n")
    assert run("transfers", "show", "nope\x1b[31m", "--config", config)[2].startswith(
        "baton: no transfer has the id 'nope"
    )
    code, out, _ = run("journal", "verify", "--config", config)
    assert (code, out) == (0, "0 facts in 0 chains: whole\n0 postings of 0 buyers, 0 documents, 0 outcomes: whole\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["transfers", "list", "--verdict", "won"], 2, "is none of open, not_attempted"),
        (["transfers", "list", "--since", "yesterday"], 2, "is not a date such as 2026-06-01"),
        (["transfers", "list"], 1, "which store? give --config or --store"),
        (["buyers", "pause"], 2, "BUYER"),
        (["buyers", "pause", "x", "--store", "/none/here.db"], 1, "there is no file /none/here.db"),
        (["import", "/none/here.toml"], 1, "cannot be read: No such file"),
        (["suppression", "import", "x.csv", "--name", "n"], 2, "say either --buyer NAME or --global"),
        (["fly"], 2, "fly"),
    ],
)
def test_a_mistake_gives_one_clear_line(
    *, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATON_CONFIG", raising=False)
    got, _, err = run(*words)
    assert got == code
    assert said in " ".join(err.replace("│", " ").split())


def test_help_and_version_need_no_engine_and_no_store() -> None:
    program = "import sys; sys.modules['pjsua2'] = None; sys.argv[0] = 'baton'; from baton.cli.main import main; main()"
    for word, said in (("--help", "transfers"), ("version", "baton")):
        done = subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, check=True)
        assert said in done.stdout


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; import baton.cli.main\n"
        "heavy = {'sqlalchemy', 'pydantic', 'phonenumbers', 'pjsua2', 'orjson', 'rich.table'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- lists and the book: all or nothing ---

BAD_LISTS = {
    "too many rejects": b"phone\n2125550199\nabc\n",
    "no number": b"phone\nabc\n",
    "empty": b"",
    "header alone": b"phone\n",
    "another column": b"mobile\n2125550199\n",
    "not text": b"\x00\x01\x02\x03" * 50,
    "a damaged zip": b"PK\x03\x04" + b"\x00" * 60,
    "a cut gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03abc",
}


def _verdict(run: Run, config: Path, number: str = "2125550177") -> str:
    return run("suppression", "check", "--config", config, number, "--buyer", "acme")[1]


@pytest.mark.parametrize("content", BAD_LISTS.values(), ids=BAD_LISTS.keys())
@pytest.mark.parametrize("whose", ["", '\nbuyer = "acme"'])
def test_a_list_that_is_refused_refuses_the_whole_import(run: Run, config: Path, content: bytes, whose: str) -> None:
    (config.parent / "own.csv").write_bytes(content)
    entry = f'\n[[suppression_lists]]\nname = "own"\nfile = "own.csv"\ncolumn = "phone"{whose}\n'
    config.write_text(BOOK + entry, encoding="utf-8")
    checked = run("check", config)
    assert (checked[0], "suppression_lists[1].file" in checked[1]) == (1, True)
    code, out, err = run("import", config)
    assert (code, "in force" in out, "nothing was imported" in err, "list own: " in err) == (1, False, True, True)
    assert json.loads(run("buyers", "list", "--config", config, "--json")[1]) == []
    assert json.loads(run("suppression", "list", "--config", config, "--json")[1]) == []
    config.write_text(BOOK, encoding="utf-8")
    assert run("import", config)[0] == 0


def test_check_reads_lists_as_the_import_does(run: Run, config: Path) -> None:
    config.write_text(
        BOOK + '\n[[suppression_lists]]\nname = "own"\nfile = "own.csv"\ncolumn = "phone"\n', encoding="utf-8"
    )
    own = config.parent / "own.csv"
    own.write_text("phone\n2125550199\ncall me\n", encoding="utf-8")
    code, out, _ = run("check", config)
    assert (code, "1 of 2 lines rejected, more than 2 %" in out, "line 3 is rejected" in out) == (1, True, True)
    own.write_text("phone\n" + "2125550199\n" * 98 + "call me\n", encoding="utf-8")
    code, out, _ = run("check", config)
    assert (code, "warning: suppression_lists[1].file" in out, "line 100 is rejected" in out) == (0, True, True)
    assert not (config.parent / "data").exists(), "a check leaves nothing behind"


def test_a_list_that_fails_after_the_book_is_in_closes_whom_it_concerns(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk that is full, or a kill, between the two."""
    import baton.suppression_lists

    once = baton.suppression_lists.import_task

    async def failing(engine: Any, place: Any, task: Any, **more: Any) -> Any:
        if not task.dry_run:
            raise OSError("no space left on device")
        return await once(engine, place, task, **more)

    monkeypatch.setattr(baton.suppression_lists, "import_task", failing)
    assert run("import", config)[0] == 1
    assert [one["buyer"] for one in json.loads(run("buyers", "list", "--config", config, "--json")[1])] == ["acme"]
    assert "may be transferred" not in _verdict(run, config)
    monkeypatch.setattr(baton.suppression_lists, "import_task", once)
    assert "list dnc: version 1 in force" in run("import", config)[1]
    assert "may be transferred" in _verdict(run, config)


def test_a_named_list_that_is_retired_closes_until_it_is_imported_or_unnamed(run: Run, config: Path) -> None:
    run("import", config)
    code, out, err = run("suppression", "retire", "dnc", "--config", config)
    assert (code, out, "the configuration names it" in err) == (0, "list dnc: out of force\n", True)
    assert "may be transferred" not in _verdict(run, config)
    assert run("suppression", "expire", "dnc", "2030-01-01", "--config", config)[0] == 1, "it has no end of its own"
    assert "list dnc: version 2 in force" in run("import", config)[1]
    assert "may be transferred" in _verdict(run, config)
    run("suppression", "retire", "dnc", "--config", config)
    assert run("suppression", "retire", "dnc", "--unname", "--config", config)[:2] == (0, "list dnc: out of force\n")
    assert "may be transferred" in _verdict(run, config)
    assert run("suppression", "retire", "dnc", "--unname", "--config", config)[0] == 1
    history = json.loads(run("suppression", "versions", "dnc", "--config", config, "--json")[1])
    assert [one["version"] for one in history] == [1, 2]
