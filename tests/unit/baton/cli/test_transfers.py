"""`transfers` and `journal` on a store that holds facts."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import Connection, insert, update

from baton.cli import main as cli
from facts.fact import CHAIN_START, Fact, Kind
from meter.journal.rows import insert_rows, make_row
from meter.store.engine import open_store
from meter.store.schema import boots, facts
from tests.facts_builder import Story, failed_story


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A failed transfer `t-1`, still to be settled, and an open one `t-2` whose answer holds terminal codes."""
    file = tmp_path / "baton.db"
    told = failed_story().facts
    more = Story("t-2", first_seq=len(told) + 1).start().dial(1)
    more.add(Kind.LEG_ENDED, 1.0, 1, code=486, phrase="\x1b[2J[bold]Busy", by="buyer", local=False, header="")
    asyncio.run(_fill(file, [*told, *more.facts]))
    yield file
    structlog.reset_defaults()


async def _fill(file: Path, told: list[Fact]) -> None:
    engine = await open_store(f"sqlite+aiosqlite:///{file}")
    async with engine.begin() as connection:
        await connection.execute(insert(boots).values(router="r1", boot="boot-1", started_utc_us=1, pid=1))
        await connection.run_sync(_chain, told)
    await engine.dispose()


def _chain(connection: Connection, told: list[Fact]) -> None:
    digest, rows = CHAIN_START, []
    for fact in told:
        made, row = make_row(fact, digest)
        digest = made.digest(digest)
        rows.append(row)
    insert_rows(connection, rows)


def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["baton", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0), capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_show_gives_each_leg_its_times_and_says_why(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = _run(monkeypatch, capsys, "transfers", "show", "t-1", "--store", store)
    assert code == 0
    assert "failed, counted as failed, by row 10 of the table" in out
    (leg,) = [line for line in out.splitlines() if line.split()[:1] == ["desk-1"]]
    assert leg.split() == [
        "desk-1",
        "secure",
        "trunk",
        "0",
        "1,200",
        "8,000",
        "486",
        "Busy",
        "Here,",
        "by",
        "the",
        "buyer",
    ]
    assert "487 Request Terminated, made by us" in out
    assert "+12125550123" not in out


def test_show_as_json_is_the_same_account(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = json.loads(_run(monkeypatch, capsys, "transfers", "show", "t-1", "--store", store, "--json")[1])
    assert (shown["outcome"]["verdict"], shown["outcome"]["attempt_ms"]) == ("failed", 30_000)
    assert [one["ringing_ms"] for one in shown["legs"]] == [1200, 1900]


def test_what_the_network_said_steers_no_terminal(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = _run(monkeypatch, capsys, "transfers", "show", "t-2", "--store", store)[1]
    assert "still open; so far:" in out
    assert "\x1b[2J" not in out
    assert "[bold]Busy" in out


def test_list_shows_open_transfers_with_masked_numbers(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("transfers", "list", "--store", store, "--since", "2026-06-01", "--json")
    rows = json.loads(_run(monkeypatch, capsys, *words)[1])
    assert {(one["transfer"], one["verdict"]) for one in rows} == {("t-1", "open"), ("t-2", "open")}
    assert {one["phone"] for one in rows} == {"***0123"}
    assert json.loads(_run(monkeypatch, capsys, *words, "--numbers")[1])[0]["phone"] == "+12125550123"
    assert json.loads(_run(monkeypatch, capsys, *words, "--buyer", "zeus")[1]) == []
    assert "***0123" in _run(monkeypatch, capsys, *words[:-1])[1]


def test_verify_finds_a_changed_fact(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, capsys, "journal", "verify", "--store", store)[0] == 0

    async def tamper() -> None:
        engine = await open_store(f"sqlite+aiosqlite:///{store}")
        async with engine.begin() as connection:
            await connection.execute(update(facts).where(facts.c.seq == 4).values(mono_us=1))
        await engine.dispose()

    asyncio.run(tamper())
    code, out = _run(monkeypatch, capsys, "journal", "verify", "--store", store)
    assert code == 1
    assert "r1 boot boot-1 fact 4: altered" in out
