"""`baton interactions` and `baton reports` on a store in which acme pays by the minute."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from baton.cli import main as cli
from meter.store.engine import open_store
from tests.store.money_tools import Books
from tests.store.service_tools import report, said, serve

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    file = tmp_path / "baton.db"
    asyncio.run(_fill(file))
    return file


async def _fill(file: Path) -> None:
    engine = await open_store(f"sqlite+aiosqlite:///{file}")
    books = Books(engine)
    await serve(books)
    await report(books, said(customer="+12125550123", text="Dear \x1b[2J Jo"))
    await books.close()
    await engine.dispose()


@pytest.fixture
def run(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    monkeypatch.delenv("BATON_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    def go(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["baton", *map(str, words), "--store", str(store)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        found = capsys.readouterr()
        assert "Traceback" not in found.out + found.err
        return code, found.out, found.err

    yield go
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def _lines(file: Path, *objects: object) -> Path:
    file.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in objects) + "\n")
    return file


def _listed(run: Run) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(run("interactions", "list", "acme", "--json")[1])
    return found


def test_interactions_are_listed_and_shown_with_customers_masked(run: Run) -> None:
    code, out, _ = run("interactions", "list", "acme")
    assert (code, "$3.54" in out, "+12125550123" in out, "***0123" in out) == (0, True, False, True)
    [one] = _listed(run)
    code, out, _ = run("interactions", "show", one["id"])
    assert (code, "\x1b" in out, "3 started increments, $3.54" in out) == (0, False, True)
    assert "+12125550123" in run("interactions", "show", one["id"], "--numbers")[1]
    assert run("interactions", "list", "acme", "--from", "2026-06-03", "--json")[1].strip() == "[]"
    assert len(json.loads(run("interactions", "list", "acme", "--to", "2026-06-03", "--json")[1])) == 1


def test_a_file_is_kept_whole_and_once(run: Run, tmp_path: Path) -> None:
    file = _lines(tmp_path / "day.jsonl", said("a"), "", said("b", kind="chat"))
    code, out, _ = run("interactions", "add", file)
    assert (code, out.count("kept, 3 started increments, $3.54")) == (0, 2)
    assert run("interactions", "add", file)[1].count("was kept before") == 2
    one = tmp_path / "one.json"
    one.write_text(json.dumps(said("c"), indent=2))
    assert [entry["new"] for entry in json.loads(run("interactions", "add", one, "--json")[1])] == [True]
    assert len(_listed(run)) == 4


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([said("a"), said("b", kind="call")], ":2: kind: must be email or chat"),
        ([said("a"), "{"], ":2: is no JSON"),
        ([said("a"), "[]"], ":2: is no JSON object"),
        ([said("a"), said("a", text="other")], ":2: reference: was reported before"),
        ([said("a"), said("b", buyer="nobody")], ":2: buyer: no buyer is called 'nobody'"),
        ([said("a"), said("b", ended_at="2999-01-01T00:00:00Z")], ":2: ended_at: is in the future"),
        ([""], ": there is nothing in it"),
    ],
)
def test_nothing_of_a_file_is_kept_where_one_line_is_wrong(
    run: Run, tmp_path: Path, lines: list[object], fault: str
) -> None:
    code, _, err = run("interactions", "add", _lines(tmp_path / "day.jsonl", *lines))
    assert code == 1
    assert f"day.jsonl{fault}" in err
    assert len(_listed(run)) == 1


def test_every_wrong_line_is_named(run: Run, tmp_path: Path) -> None:
    err = run("interactions", "add", _lines(tmp_path / "day.jsonl", {}, said("a"), {"buyer": "acme"}))[2]
    assert (":1: buyer: is missing" in err, ":3: kind: must be" in err) == (True, True)
    assert run("interactions", "add", tmp_path / "none.jsonl")[0] == 1


def test_quality_control_rates(run: Run) -> None:
    [one] = _listed(run)
    code, out, _ = run("interactions", "rate", one["id"], 4, "--by", "ann", "--words", "calm")
    assert (code, "4 of 5 by quality, ann: calm" in out) == (0, True)
    assert run("interactions", "rate", one["id"], 6, "--by", "ann")[0] == 2
    code, _, err = run("interactions", "rate", "nothing", 4, "--by", "ann")
    assert (code, err) == (1, "baton: id: there is no such interaction\n")


def test_reports_are_run_listed_and_shown(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("reports", "run", "--as-of", "2026-06-03T03:30:00Z")
    assert (code, out) == (0, "2026-06-02 acme: 1 of 1 resolved\n")
    assert run("reports", "run", "--as-of", "2026-06-03T03:30:00Z")[1] == "no report is due\n"
    assert (tmp_path / "reports" / "acme" / "2026-06-02.html").is_file()
    assert "2026-06-02" in run("reports", "list")[1]
    code, out, _ = run("reports", "show", "acme", "2026-06-02", "--format", "csv")
    assert (code, out.count("\r\n") or out.count("\n")) == (0, 2)
    assert "daily report of June 2, 2026" in run("reports", "show", "acme", "2026-06-02", "--format", "html")[1]
    assert json.loads(run("reports", "show", "acme", "2026-06-02")[1])["body"]["resolved"] == 1
    assert run("reports", "show", "acme", "2026-06-03")[0] == 1
    assert run("reports", "run", "--as-of", "2999-01-01")[0] == 2
