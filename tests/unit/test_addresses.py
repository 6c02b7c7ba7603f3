"""A buyer that failed transfers are charged to, and that nobody can write to, is told of before its first order."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from baton import cli
from config.addresses import NO_MAIL, address_warnings
from config.book import Buyer, Rating, Terms
from config.check import check
from meter.terms import presets

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "config/examples").glob("*.toml"))
SOME, NONE = ("a@acme.example",), ()
Run = Callable[..., tuple[int, str, str]]

LISTENER = '[[listeners]]\nname = "main"\ntransport = "udp"\nport = 0\n'
MAIL = """
[mail]
host = "smtp.example"
sender = "leads@operator.example"
[links]
base_url = "https://baton.example"
secret = "a secret of enough length, for links"
"""


@pytest.mark.parametrize(("leads", "billing"), list(itertools.product((SOME, NONE), repeat=2)))
@pytest.mark.parametrize("rating", Rating)
def test_each_buyer_is_told_of_what_cannot_reach_it(
    rating: Rating, leads: tuple[str, ...], billing: tuple[str, ...]
) -> None:
    """By the minute there are no failed units; documents go to `billing_emails`, else to `lead_emails`."""
    buyer = Buyer("acme", "Acme", Terms("x", rating=rating), lead_emails=leads, billing_emails=billing)
    wanted = ["lead_emails"] if rating is Rating.UNIT and not leads else []
    wanted += ["billing_emails"] if not (leads or billing) else []
    assert [field for field, _ in address_warnings(buyer)] == wanted


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_every_shipped_example_has_somewhere_for_leads_to_go(file: Path) -> None:
    found = check(file, {}, presets())
    assert found.problems == ()
    assert found.book.buyers
    assert [str(one) for one in found.warnings if "emails" in one.path] == []
    assert [one.message for one in found.warnings] == [NO_MAIL]  # the file says so beside [mail]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Type a command; its exit code, standard output and standard error."""

    def typed(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["baton", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return typed


def book(*, mail: bool, leads: bool, terms: str = "westlake-fulfillment") -> str:
    emails = 'lead_emails = ["a@acme.example"]\n' if leads else ""
    buyer = f'[[buyers]]\nname = "acme"\nterms = "{terms}"\n{emails}'
    return LISTENER + (MAIL if mail else "") + buyer


TERMS = ("westlake-fulfillment", "customer-success")


def words(said: tuple[int, str, str]) -> str:
    return f"{said[1]} {said[2]}"


@pytest.mark.parametrize("case", list(itertools.product((True, False), (True, False), TERMS)), ids=str)
def test_check_import_and_order_all_say_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[bool, bool, str]
) -> None:
    """The same is said wherever a buyer or an order comes from: by file, by command, by a file of orders."""
    mail, leads, terms = case
    config = tmp_path / "baton.toml"
    config.write_text(book(mail=mail, leads=leads, terms=terms), encoding="utf-8")
    monkeypatch.setenv("BATON_CONFIG", str(config))
    week = "2031-06-02"
    orders = tmp_path / "orders.csv"
    orders.write_text(f"buyer,week,quantity,make_up\nacme,{week},5,0\n", encoding="utf-8")
    by_unit = terms != "customer-success"
    said = {
        "check": words(run("check", config)),
        "check --json": json.dumps(json.loads(run("check", config, "--json")[1])["warnings"]),
        "import --dry-run": words(run("import", config, "--dry-run")),
        "import": words(run("import", config)),
        "orders set": words(run("orders", "set", "acme", "--week", week, "--quantity", 5)),
        "load orders": words(run("load", "orders", orders)),
    }
    for what, text in said.items():
        plain = " ".join(text.split())
        assert ("failed transfers are charged, and their leads wait" in plain) == (by_unit and not leads), what
        assert ("there is no section [mail]" in plain) == (by_unit and not mail), what
        assert ("invoices wait until there is one, and put nobody on hold" in plain) == (not leads), what


def test_the_environment_of_these_tests_configures_nothing() -> None:
    assert not [name for name in os.environ if name.startswith(("BATON_MAIL", "BATON_BUYERS"))]
