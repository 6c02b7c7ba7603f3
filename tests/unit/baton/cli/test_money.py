"""The commands of money, one after the other, as an operator types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from baton.cli import main as cli

CONFIG = """
[[listeners]]
name = "main"
transport = "udp"
port = 0

[operator]
name = "Westlake"
pay_to = ["By wire to Example Bank"]

[billing]
invoice_prefix = "W-"

[[terms]]
name = "contract"
base = "westlake-fulfillment"
unit_price_minor = 4500

[[buyers]]
name = "acme"
title = "Acme Solar"
terms = "contract"
billing_emails = ["bills@acme.example"]
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Type a command; its exit code, standard output and standard error."""
    config = tmp_path / "baton.toml"
    config.write_text(CONFIG, encoding="utf-8")
    monkeypatch.setenv("BATON_CONFIG", str(config))

    def typed(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["baton", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    assert typed("import", config)[0] == 0
    yield typed
    structlog.reset_defaults()


def monday(weeks: int) -> date:
    """The Monday so many weeks from this one."""
    today = datetime.now(UTC).date()
    return today - timedelta(days=today.weekday()) + timedelta(weeks=weeks)


def test_a_week_from_order_to_books_that_verify(run: Run, tmp_path: Path) -> None:
    week = monday(-2)
    assert run("orders", "set", "acme", "--week", week, "--quantity", 200)[0] == 0
    assert run("remedies", "set", "acme", "refund")[0] == 0
    code, out, _ = run("billing", "run", "--dry-run", "--as-of", datetime.now(UTC).date())
    assert (code, "tuesday" in out) == (0, True)
    code, out, err = run("billing", "run")
    assert (code, err) == (0, "")
    assert "W-000001" in out
    assert "1 documents issued" not in out  # its week is over and settled too
    assert "nothing was due" in run("billing", "run")[1]
    code, out, _ = run("invoices", "list", "--json")
    found = {one["number"]: one for one in json.loads(out)}
    assert set(found) == {"W-000001", "ST-000001"}
    assert (found["W-000001"]["total_minor"], found["W-000001"]["open_minor"]) == (837_000, 837_000)
    shown = run("invoices", "show", "W-000001")[1]
    assert "$8,370.00" in shown
    code, out, _ = run("payments", "add", "acme", "8,370.00", "--reference", "wire 1", "--invoice", "W-000001")
    assert (code, out) == (0, "W-000001: $8,370.00, paid in full\n")
    assert run("payments", "add", "acme", "8370", "--reference", "wire 1", "--invoice", "W-000001")[1].endswith(
        "was recorded before\n"
    )
    balances = json.loads(run("ledger", "balances", "acme", "--json")[1])["acme"]
    assert {name: amount for name, amount in balances.items() if amount} == {"cash": 837_000, "prepaid": -837_000}
    pdf = tmp_path / "invoice.pdf"
    assert run("invoices", "get", "W-000001", "--out", pdf)[0] == 0
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert run("invoices", "get", "W-000001", "--format", "html")[1].count("Westlake") >= 1
    code, out, _ = run("journal", "verify")
    assert (code, out.splitlines()[-1]) == (0, "2 postings of 1 buyers, 2 documents, 0 outcomes: whole")


def test_buyers_are_cancelled_with_a_reason_and_their_history_is_shown(run: Run) -> None:
    assert run("buyers", "hold", "acme", "--reason", "a dispute")[0] == 0
    assert run("buyers", "cancel", "acme", "--reason", "moved away")[1] == (
        "acme: on_hold -> cancelled\nnot served: held, cancelled\n"
    )
    rows = json.loads(run("buyers", "history", "acme", "--json")[1])
    assert [(one["before"], one["after"], one["reason"]) for one in rows] == [
        ("active", "on_hold", "a dispute"),
        ("on_hold", "cancelled", "moved away"),
    ]
    assert run("buyers", "history", "nobody")[2] == "baton: no buyer is called 'nobody'\n"


def test_terms_are_told_in_plain_words_by_profile_and_by_buyer(run: Run) -> None:
    by_buyer = run("terms", "show", "acme")[1]
    assert "billed at 93 % of their count" in by_buyer
    assert "A unit costs $45.00." in by_buyer
    assert run("terms", "show", "contract", "--version", 1)[1] == by_buyer
    names = [one["name"] for one in json.loads(run("terms", "list", "--json")[1])]
    assert {"contract", "customer-success", "westlake-fulfillment", "westlake-origination"} <= set(names)
    assert run("terms", "show", "gold")[2] == "baton: there are no terms 'gold'\n"


def test_a_forecast_names_the_order_and_its_remedy(run: Run) -> None:
    assert run("orders", "set", "acme", "--week", monday(0), "--quantity", 70)[0] == 0
    sunday = f"{monday(0) + timedelta(days=6)}T12:00-05:00"
    [found] = json.loads(run("billing", "forecast", "--as-of", sunday, "--json")[1])
    assert (found["buyer"], found["covered"], found["remedy"]) == ("acme", 70, "credit")
    assert found["forecast"]["expected"]["shortfall_counted"] >= 69
    [early] = json.loads(run("billing", "forecast", "--as-of", f"{monday(0)}T12:00-05:00", "--json")[1])
    assert early["forecast"] is None
    assert "acme" in run("billing", "forecast")[1]


def test_rows_go_out_and_in_again(run: Run, tmp_path: Path) -> None:
    week = monday(1)
    assert run("orders", "set", "acme", "--week", week, "--quantity", 5)[0] == 0
    file = tmp_path / "orders.csv"
    assert run("export", "orders", "--out", file)[1] == f"{file}: 1 rows\n"
    rows = tmp_path / "more.csv"
    rows.write_text(f"buyer,week,quantity\nacme,{week},5\nacme,{week + timedelta(weeks=1)},6\n")
    assert run("load", "orders", rows, "--dry-run")[1] == "1 orders would be loaded, 1 were there already\n"
    assert run("load", "orders", rows)[1] == "1 orders loaded, 1 were there already\n"
    assert run("load", "hats", rows)[0] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("payments", "add", "acme", "12.345", "--reference", "x"), "AMOUNT: '12.345' has more digits than USD has"),
        (("payments", "add", "acme", "much", "--reference", "x"), "AMOUNT: 'much' is no amount, such as 9000.00"),
        (("payments", "add", "acme", "9000,00", "--reference", "x"), "AMOUNT: '9000,00' is no amount"),
        (("payments", "add", "acme", "1,5", "--reference", "x"), "AMOUNT: '1,5' is no amount"),
        (("payments", "list", "acmee"), "no buyer is called 'acmee'"),
        (("replay", "--from", "2026-06-01", "--to", "2026-06-08", "--buyer", "acmee"), "no buyer is called 'acmee'"),
        (("export", "orders", "--from", "2026-13-01"), "--from: '2026-13-01' is neither a day nor an instant"),
        (("payments", "add", "nobody", "1", "--reference", "x"), "no buyer is called 'nobody'"),
        (("payments", "add", "acme", "1", "--reference", "x", "--invoice", "W-9"), "there is no document 'W-9'"),
        (("payments", "add", "acme", "0", "--reference", "x"), "amount: 0 is not more than nothing"),
        (("payments", "reverse", "acme", "--reference", "x", "--reason", "y"), "reference: acme has no payment 'x'"),
        (("remedies", "set", "acme", "gold"), "REMEDY: 'gold' is none of refund, credit, make_up"),
        (("remedies", "set", "acme", "refund", "--week", "2020-01-06"), "week: the remedy for the week of 2020-01-06"),
        (("refunds", "sent", "7", "--reference", "x"), "refund: there is no refund 7"),
        (("refunds", "pay-out", "acme", "--reason", "x"), "buyer: acme has no open credits"),
        (("invoices", "cancel", "W-9", "--reason", "x"), "there is no document 'W-9'"),
        (("ledger", "reverse", "t-1:unit", "--reason", "x"), "posting t-1:unit: there is none of that key"),
        (("billing", "run", "--as-of", "2999-01-01"), "--as-of: 2999-01-01 is still to come"),
        (("billing", "run", "--as-of", "soon"), "--as-of: 'soon' is neither a day nor an instant"),
        (("replay", "--from", "2026-06-08", "--to", "2026-06-08"), "--to: 2026-06-08 is not after 2026-06-08"),
        (("export", "passwords"), "'passwords' is none of"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_names_what_is_wrong(run: Run, words: tuple[str, ...], said: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1
