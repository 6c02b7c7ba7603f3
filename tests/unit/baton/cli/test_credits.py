"""`baton credits` on a store that holds billed calls."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from baton.cli import main as cli
from meter.store.engine import open_store
from tests.store.credit_tools import ask, happen
from tests.store.money_tools import Books

Run = Callable[..., tuple[int, str, str]]
NOW = time.time_ns() // 1000
HOUR_US = 3_600_000_000


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Four failed calls of acme's, an hour ago; `t-1` with its outcome."""
    file = tmp_path / "baton.db"
    asyncio.run(_fill(file))
    return file


async def _fill(file: Path) -> None:
    engine = await open_store(f"sqlite+aiosqlite:///{file}")
    books = Books(engine)
    await books.agree("acme")
    await books.deliver("acme", NOW - HOUR_US, 0, 4)
    await happen(books, "t-1", "call-1", "+12125550123")
    await books.close()
    await engine.dispose()


@pytest.fixture
def run(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    monkeypatch.delenv("BATON_DEBUG", raising=False)
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    def go(*words: object) -> tuple[int, str, str]:
        place = () if words[0] == "reasons" else ("--store", str(store))
        monkeypatch.setattr(sys, "argv", ["baton", "credits", *map(str, words), *place])
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


def _ask(run: Run, transfer: str, reason: str = "duplicate") -> tuple[int, str, str]:
    return run("ask", transfer, "--reason", reason, "--words", "had \x1b[2J her", "--by", "clerk")


def _decide(run: Run, request: int, what: str = "--approve", reviewer: str = "Ann") -> tuple[int, str, str]:
    return run("decide", request, what, "--explanation", "as the log says", "--reviewer", reviewer)


def test_a_request_goes_through_the_line(run: Run) -> None:
    assert run("next")[:2] == (1, "no request is open\n")
    code, out, _ = _ask(run, "t-1")
    assert (code, out.splitlines()[0]) == (0, "request 1: open, number 1 in line")
    assert ("\x1b" in out, "+12125550123" in out, "***0123" in out) == (False, False, True)
    assert "request 2: open, number 2 in line" in _ask(run, "t-2")[1]
    code, out, _ = run("next")
    assert ("request 1: open" in out, "baton transfers show t-1" in out) == (True, True)
    code, out, err = _decide(run, 2)
    assert (code, "request: 1 is the oldest open one and is decided first; 2 is number 2 in line" in err) == (1, True)
    code, out, _ = _decide(run, 1)
    assert (code, "request 1: approved" in out, "by Ann: $45.00" in out) == (0, True, True)
    assert "no credit" in _decide(run, 2, "--decline")[1]
    assert "as the log says" in run("show", 2)[1]
    assert run("show", 3)[0] == 1


def test_what_is_no_request_says_why(run: Run) -> None:
    assert "is no call that was billed" in _ask(run, "t-9")[2]
    code, _, err = _ask(run, "t-1", "voicemail")
    assert (code, "a sales opportunity" in err) == (1, True)
    assert "is none of" in _ask(run, "t-1", "nope")[2]
    assert json.loads(run("list", "--json")[1]) == []


def test_a_decision_has_to_be_said(run: Run) -> None:
    _ask(run, "t-1")
    assert run("decide", 1, "--explanation", "x", "--reviewer", "Ann")[0] == 2
    assert json.loads(run("show", 1, "--json")[1])["state"] == "open"


def test_lists_are_by_buyer_and_state_and_mask_numbers(run: Run) -> None:
    for call in ("t-1", "t-2", "t-3"):
        _ask(run, call)
    _decide(run, 1)

    def listed(*words: str) -> list[int]:
        return [one["id"] for one in json.loads(run("list", *words, "--json")[1])]

    assert listed() == [3, 2, 1]
    assert listed("--state", "open") == [2, 3]
    assert listed("--state", "approved") == [1]
    assert listed("--buyer", "bolt") == []
    assert "***0123" in run("list")[1]
    assert "+12125550123" in run("list", "--numbers")[1]


@pytest.mark.parametrize("found", [("--transfer", "t-1"), ("--call-id", "call-1"), ("--caller", "(212) 555-0123")])
def test_a_decision_is_re_reviewed_once_by_another(run: Run, found: tuple[str, str]) -> None:
    words = ("re-review", *found, "--words", "look again")
    assert "there is no request" in run(*words)[2]
    _ask(run, "t-1")
    assert "is not decided yet" in run(*words)[2]
    _decide(run, 1, "--decline")
    assert "request 2, re-review of 1: open, number 1 in line" in run(*words)[1]
    assert "re-reviewed before" in run(*words)[2]
    assert "is another reviewer's" in _decide(run, 2, reviewer="ann")[2]
    assert "by Bo: $45.00" in _decide(run, 2, reviewer="Bo")[1]


def test_a_re_review_is_found_by_one_thing_that_can_be_read(run: Run) -> None:
    assert run("re-review", "--words", "x")[0] == 2
    assert run("re-review", "--words", "x", "--transfer", "t-1", "--caller", "2125550123")[0] == 2
    code, _, err = run("re-review", "--words", "x", "--caller", "12")
    assert (code, "--caller" in err) == (2, True)


def test_ages_fail_where_the_oldest_is_older_than_48_hours(run: Run, store: Path) -> None:
    code, out, _ = run("ages")
    assert (code, out.splitlines()[0]) == (0, "open: 0")
    _ask(run, "t-1")
    _decide(run, 1)
    _ask(run, "t-2")
    code, out, _ = run("ages")
    assert (code, "open: 1, the oldest for 0.0 h, 0 for more than 48 h" in out) == (0, True)
    assert "decided in 30 days: 1, 1 within 24 h, 1 within 48 h" in out
    asyncio.run(_ask_long_ago(store))
    code, out, _ = run("ages", "--json")
    assert (code, json.loads(out)["open_late"]) == (1, 1)


async def _ask_long_ago(store: Path) -> None:
    engine = await open_store(f"sqlite+aiosqlite:///{store}")
    books = Books(engine)
    books._transfers = 100
    [call] = await books.deliver("acme", "2026-06-10 09:00", 0, 1)
    await ask(books, call, "2026-06-11 09:00")
    await books.close()
    await engine.dispose()


def test_reasons_show_what_a_category_may_choose(run: Run, tmp_path: Path) -> None:
    found = json.loads(run("reasons", "--category", "legal", "--json")[1])
    assert (found["has-lawyer"]["valid"], found["voicemail"]["valid"]) == (False, True)
    file = tmp_path / "own.toml"
    file.write_text("[reasons.a]\ntitle = 'Aaa'\n[categories.default]\nreasons = ['a']\n", encoding="utf-8")
    assert "Aaa" in run("reasons", "--file", file)[1]
    file.write_text("[reasons.a]\n", encoding="utf-8")
    code, _, err = run("reasons", "--file", file)
    assert (code, "own.toml" in err) == (1, True)
