"""The commands on suppression lists as a person types them, on a real store."""

from __future__ import annotations

import csv
import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.baton.cli.test_main import Run, config, run

__all__ = ["config", "run"]


@pytest.fixture
def book(run: Run, config: Path) -> tuple[str, Path]:
    """An imported book; the option that names it."""
    assert run("import", config)[0] == 0
    return "--config", config


def _list(folder: Path, *lines: str, name: str = "own.csv") -> Path:
    file = folder / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_a_list_lives_from_import_to_restore(run: Run, book: tuple[str, Path], tmp_path: Path) -> None:
    file = _list(tmp_path, "id,Mobile", "1,2125550111", "2,2125550112")
    words = ("suppression", "import", file, "--name", "own", "--buyer", "acme", *book)
    read = "  read: 'Mobile'\n  not read: line 1, the header: 'id', 'Mobile'\n  not read: column 'id'\n"
    assert run(*words, "--dry-run")[1] == "list own: would have 2 numbers, a new list, 0 repeats\n" + read
    assert run(*words)[1] == "list own: version 1 in force, 2 numbers, 0 repeats\n" + read
    assert run(*words)[1] == "list own: version 1 was in force already, 2 numbers, 0 repeats\n" + read
    added = run("suppression", "add", "own", "(212) 555-0113", "2125550111", *book)[1]
    assert added == "list own: version 1.1, 3 numbers\n  1 added, 1 on it before\n"
    removed = run("suppression", "remove", "own", "212.555.0112", *book)[1]
    assert removed == "list own: version 1.2, 2 numbers\n  1 removed\n"
    assert run("suppression", "export", "own", *book)[1] == "entry,expires\n+12125550111,\n+12125550113,\n"
    assert run("suppression", "fold", "own", *book)[1] == "list own: version 2 in force, 2 numbers\n"
    assert run("suppression", "expire", "own", "2099-12-31", *book)[1] == "list own: holds until 2099-12-31\n"
    restored = run("suppression", "restore", "own", "--version", "1", *book)[1]
    assert restored == "list own: version 3.1 in force, of version 1, 2 numbers\n"
    shown = json.loads(run("suppression", "versions", "own", "--json", *book)[1])
    assert [(one["version"], one["active"], one["file_there"]) for one in shown] == [
        (1, False, True),
        (2, False, True),
        (3, True, True),
    ]
    told = json.loads(run("suppression", "log", "own", "--json", *book)[1])
    assert [one["action"] for one in told] == [
        "restore",
        "expiry",
        "fold",
        "edit",
        "edit",
        "unchanged",
        "replace",
    ]
    assert all(one["by"] and one["origin"].startswith("cli:") for one in told)
    stats = json.loads(run("suppression", "stats", "--json", *book)[1])
    assert (len(stats["lists"]), stats["numbers"]) == (2, 3)


def test_what_cannot_be_done_is_said_in_one_line(run: Run, book: tuple[str, Path], tmp_path: Path) -> None:
    for words, message in (
        (("add", "nope", "2125550100"), "no list called 'nope' is in force"),
        (("add", "dnc", "call me"), "entry 1 to be added: not a phone number; nothing was changed"),
        (("restore", "dnc", "--version", "7"), "list 'dnc' has no version 7"),
        (("expire", "dnc", "2001-01-01"), "2001-01-01 is in the past"),
        (("expire", "dnc", "soon"), "'soon' is no date"),
        (("expire", "dnc", "2106-02-07"), "2106-02-07 is later than 2106-02-06"),
        (("versions", "nope"), "there is no list called 'nope'"),
        (("exempt", "x", "--list", "dnc", "--reason", "r", "--expires", "2099-01-01"), "NUMBER: not a phone number"),
        (("revoke", "17"), "no exemption 17 is in force"),
        (("verify-receipt", "abc"), "the receipt is no receipt"),
        (("import", tmp_path / "gone.csv", "--name", "x", "--global"), "gone.csv"),
        (("check", "12"), "NUMBER: not a"),
        (("check", "2125550100", "--buyer", "acmee"), "no buyer is called 'acmee'"),
        (("check", "2125550100", "--store", tmp_path / "gone.db"), "gone.db"),
    ):
        code, out, err = run("suppression", *words, *book)
        assert (code, out) == (2 if words[0] == "check" else 1, "")
        assert err.startswith("baton: ")
        assert message in err
        assert err.count("\n") == 1


def test_an_exemption_on_record_lets_a_person_pass(run: Run, book: tuple[str, Path], tmp_path: Path) -> None:
    run("suppression", "import", _list(tmp_path, "2125550161"), "--name", "national", "--global", *book)
    check = ("suppression", "check", "2125550161", "--buyer", "acme", *book)
    assert "suppressed: on list" in run(*check)[1]
    words = ("suppression", "exempt", "2125550161", "--list", "national", *book)
    assert run(*words, "--reason", "consent 17", "--expires", "2099-01-01")[1] == "exemption 1\n"
    code, out, _ = run(*check)
    assert (code, "may be transferred by exemption 1" in out) == (1, True)
    assert "consent 17" in run("suppression", "exemptions", *book)[1]
    assert run("suppression", "revoke", "1", *book)[1] == "exemption 1: revoked\n"
    assert "suppressed: on list national" in run(*check)[1]
    assert "consent 17" not in run("suppression", "exemptions", *book)[1]
    assert "consent 17" in run("suppression", "exemptions", "--all", *book)[1]


def test_a_file_is_scrubbed_into_three_and_its_receipt_holds(run: Run, book: tuple[str, Path], tmp_path: Path) -> None:
    _list(tmp_path, "2125550111", "2125550112", name="lists.txt")
    run("suppression", "import", tmp_path / "lists.txt", "--name", "own", "--buyer", "acme", *book)
    rows = [
        '7,"Doe, Ann",(212) 555-0111',
        "8,Bo,212-555-0199",
        "",
        "9,=cmd,none",
        '10,"two\nlines",+1 212 555 0112',
        "11,Zoë,2125550198",
    ]
    file = tmp_path / "leads.csv.gz"
    file.write_bytes(gzip.compress(("id,name,phone\r\n" + "\r\n".join(rows)).encode()))
    out = tmp_path / "out"
    code, text, err = run("scrub", file, "--buyer", "acme", "--out", out, *book)
    assert err == ""
    assert (code, text.splitlines()[0]) == (0, "leads.csv.gz: 5 lines for acme")
    assert (out / "leads.csv.gz.clean.csv").read_bytes() == (
        "id,name,phone\n8,Bo,212-555-0199\r\n11,Zoë,2125550198\n".encode()
    )
    with (out / "leads.csv.gz.suppressed.csv").open(newline="", encoding="utf-8") as opened:
        assert list(csv.reader(opened)) == [
            ["id", "name", "phone", "suppressed_by"],
            ["7", "Doe, Ann", "(212) 555-0111", "own"],
            ["10", "two\nlines", "+1 212 555 0112", "own"],
        ]
    assert (out / "leads.csv.gz.unreadable.csv").read_text() == (
        'id,name,phone,reason\n9,=cmd,none,"not a phone number"\n'
    )
    summary = json.loads((out / "leads.csv.gz.summary.json").read_text())
    assert (summary["clean"], summary["suppressed"], summary["unreadable"], summary["by_list"]) == (2, 2, 1, {"own": 2})
    assert summary["header_lines"] == 1
    assert sorted(one.name for one in out.iterdir()) == [
        f"leads.csv.gz.{kind}" for kind in ("clean.csv", "summary.json", "suppressed.csv", "unreadable.csv")
    ]
    code, shown, _ = run("suppression", "verify-receipt", summary["receipt"], *book)
    assert code == 0
    assert shown.startswith("genuine: ")
    assert "consulted own version 1.0" in shown
    forged = summary["receipt"][:-2] + ("AA" if not summary["receipt"].endswith("AA") else "BB")
    assert "was not signed with this key" in run("suppression", "verify-receipt", forged, *book)[2]
    assert json.loads(run("suppression", "log", "--json", *book)[1])[0]["action"] == "scrub"
    assert run("scrub", file, "--buyer", "zeus", *book)[2] == "baton: no buyer is called 'zeus'\n"


def test_nothing_is_scrubbed_while_a_list_is_damaged(run: Run, book: tuple[str, Path], tmp_path: Path) -> None:
    run("suppression", "import", _list(tmp_path, "2125550111"), "--name", "own", "--buyer", "acme", *book)
    for one in tmp_path.rglob("own-*.list"):
        one.write_bytes(one.read_bytes()[:-3])
    leads = _list(tmp_path, "2125550199", name="leads.txt")
    code, _, err = run("scrub", leads, "--buyer", "acme", *book)
    assert (code, "list own: cannot be read, so nobody can be cleared" in err) == (1, True)
    assert not list(tmp_path.glob("leads.txt.*"))
    code, out, _ = run("suppression", "stats", *book)
    assert (code, "False" in out or "no" in out) == (1, True)
    for words in (("2125550199",), ("2125550199", "--buyer", "acme")):
        code, out, err = run("suppression", "check", *words, *book)
        assert (code, out) == (2, "")
        assert "list own: cannot be read" in err


def test_a_check_says_by_its_exit_code_whether_a_number_is_on_a_list(run: Run, book: tuple[str, Path]) -> None:
    assert run("suppression", "check", "2125550100", *book)[0] == 1
    assert run("suppression", "check", "2125550199", *book)[:2] == (0, "on no list\n")
    code, out, _ = run("suppression", "check", "2125550199", "--buyer", "acme", *book)
    assert (code, "may be transferred" in out) == (0, True)


def test_a_receipt_counts_with_the_lists_it_was_signed_for(run: Run, book: tuple[str, Path], tmp_path: Path) -> None:
    file = _list(tmp_path, "2125550199", name="leads.txt")
    done = json.loads(run("scrub", file, "--buyer", "acme", "--json", *book)[1])
    verify = ("suppression", "verify-receipt", done["receipt"], *book)
    assert run(*verify)[0] == 0
    (store,) = tmp_path.rglob("*.db")
    with closing(sqlite3.connect(store)) as opened, opened:
        for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            opened.execute(f'DROP TRIGGER "{name}"')
        opened.execute("UPDATE suppression_sets SET document = ? WHERE digest = ?", (b"[]", done["sets"][0]))
        opened.execute("DELETE FROM suppression_sets WHERE digest = ?", (done["sets"][1],))
    code, shown, _ = run(*verify)
    assert (code, "consulted" in shown) == (1, False)
    assert f"the record of the lists {done['sets'][0]} was CHANGED" in shown
    assert f"the record of the lists {done['sets'][1]} is MISSING" in shown
    told = json.loads(run(*verify, "--json")[1])
    assert (told["lists"], told["changed"], told["missing"]) == ([], done["sets"][:1], done["sets"][1:])
