"""The book's sections of a file: what they become, and every way in which entries do not fit together."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from book.hours import Span, parse_hours
from book.model import BuyerState, Endpoint, EndpointKind, Rating, Srtp, Terms, Transport, TrunkPolicy
from book.problems import ConfigError
from book.sections import BookFile, EndpointEntry, TermsEntry, load_book
from book.terms import presets
from book.trunk import TrunkEntry

GOOD = """
[[listeners]]
name = "main"
transport = "udp"

[tls]
ca_file = "ca.pem"

[[carriers]]
name = "main"
uri = "sip:{number}@carrier.example"

[[terms]]
name = "acme-2026"
base = "westlake-origination"
unit_price_minor = 4500
effective_from = 2026-03-01

[[buyers]]
name = "acme"
title = "Acme Homes"
terms = "acme-2026"
lead_emails = ["leads@acme.example"]
[[buyers.endpoints]]
name = "pbx"
kind = "trunk"
uri = "sip:leads@pbx.acme.example:5061"
transport = "tls"
srtp = "mandatory"
password = "s3cret"

[[buyers]]
name = "bolt"
terms = "westlake-fulfillment"
lead_emails = ["leads@bolt.example"]
[[buyers.endpoints]]
name = "desk"
kind = "did"
uri = "+12125550100"
carrier = "main"

[[campaigns]]
name = "solar"
buyers = ["acme", "bolt"]

[[suppression_lists]]
name = "acme-dnc"
buyer = "acme"
file = "dnc.csv"
"""


def _book(folder: Path, text: str, environ: dict[str, str] | None = None) -> BookFile:
    file = folder / "baton.toml"
    file.write_text(text, encoding="utf-8")
    return load_book(file, environ or {}, presets())


def test_a_good_file_becomes_values(tmp_path: Path) -> None:
    book = _book(tmp_path, GOOD)
    acme, bolt = book.buyers
    assert acme.terms == Terms(
        name="acme-2026", connected_percent=88, unit_price_minor=4500, effective_from="2026-03-01"
    )
    assert acme.state is BuyerState.ACTIVE
    assert acme.endpoints == (
        Endpoint(
            name="pbx",
            kind=EndpointKind.TRUNK,
            uri="sip:leads@pbx.acme.example:5061",
            transport=Transport.TLS,
            srtp=Srtp.MANDATORY,
            password="s3cret",
        ),
    )
    assert acme.endpoints[0].secure
    assert not bolt.endpoints[0].secure
    assert [one.name for one in book.terms] == ["westlake-fulfillment", "acme-2026"]
    assert book.campaigns[0].buyers == ("acme", "bolt")
    assert book.suppression_lists[0].file == tmp_path / "dnc.csv"
    assert book.warnings == ()


def test_a_password_can_come_from_the_environment(tmp_path: Path) -> None:
    book = _book(tmp_path, GOOD, {"BATON_BUYERS__ACME__ENDPOINTS__PBX__PASSWORD": "fresh"})
    assert book.buyers[0].endpoints[0].password == "fresh"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            'buyers = ["acme", "bolt"]',
            'buyers = ["acme", "zeus"]',
            "campaigns[0].buyers[1]: 'zeus' is not a [[buyers]]",
        ),
        ('buyers = ["acme", "bolt"]', 'buyers = ["acme", "acme"]', "campaigns[0].buyers[1]: 'acme' is named twice"),
        (
            'carrier = "main"',
            'carrier = "other"',
            "buyers[1].endpoints[0].carrier: 'other' is not a [[carriers]] entry",
        ),
        ('carrier = "main"', "", "buyers[1].endpoints[0]: a did needs a carrier"),
        ('name = "bolt"', 'name = "acme"', "buyers[1].name: 'acme' is used twice"),
        ("+12125550100", "2125550100", "buyers[1].endpoints[0]: uri of a did must be a number in E.164"),
        ("+12125550100", "+121255501", "buyers[1].endpoints[0]: uri of a did must be a number in E.164"),
        (
            'ca_file = "ca.pem"',
            "",
            "buyers[0].endpoints[0].transport: tls with a verified certificate needs tls.ca_file",
        ),
        ("leads@acme.example", "leads@acme", "buyers[0].lead_emails[0]: is not an e-mail address"),
        ("leads@acme.example", "a@b.example\\nBcc: c@d.example", "buyers[0].lead_emails[0]: is not an e-mail address"),
        (
            'title = "Acme Homes"',
            'time_zone = "America/Springfield"',
            "buyers[0].time_zone: 'America/Springfield' is not",
        ),
        ('terms = "acme-2026"', 'terms = "acme"', "buyers[0].terms: 'acme' is neither a preset"),
        ('base = "westlake-origination"', 'base = "eastlake"', "terms[0].base: 'eastlake' is no preset"),
        ('name = "acme-2026"', 'name = "westlake-fulfillment"', "terms[0].name: 'westlake-fulfillment' is a preset"),
        ("2026-03-01", "2026-13-01x", "is not valid TOML"),
        ("effective_from = 2026-03-01", 'effective_from = "1 March"', "terms[0].effective_from: is not a date"),
        ('buyer = "acme"', 'buyer = "zeus"', "suppression_lists[0].buyer: 'zeus' is not a [[buyers]] entry"),
        (
            "sip:leads@pbx.acme.example:5061",
            "pbx.acme.example",
            "buyers[0].endpoints[0]: uri of a trunk must be a SIP URI",
        ),
        ('title = "Acme Homes"', 'tittle = "Acme"', "buyers[0].tittle: is not a setting; check the spelling"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        _book(tmp_path, GOOD.replace(old, new, 1))
    assert any(problem in str(one) for one in caught.value.problems), caught.value


def test_one_bad_buyer_hides_no_other_problem(tmp_path: Path) -> None:
    text = GOOD.replace('kind = "trunk"', 'kind = "tunk"').replace("+12125550100", "911").replace('"solar"', '"So lar"')
    with pytest.raises(ConfigError) as caught:
        _book(tmp_path, text)
    assert [one.path for one in caught.value.problems] == [
        "buyers[0].endpoints[0].kind",
        "buyers[1].endpoints[0]",
        "campaigns[0].name",
    ]


def test_a_did_listed_by_two_buyers_is_a_warning(tmp_path: Path) -> None:
    text = GOOD + '\n[[buyers]]\nname = "coda"\nterms = "westlake-fulfillment"\n[[buyers.endpoints]]\nname = "desk"\n'
    book = _book(tmp_path, text + 'kind = "did"\nuri = "+12125550100"\ncarrier = "main"\n')
    messages = [str(one) for one in book.warnings]
    assert any("buyers[2].endpoints[0].uri: this number is listed by buyer 'bolt' too" in one for one in messages)


def test_a_dialer_s_campaign_that_the_file_does_not_have_is_a_warning(tmp_path: Path) -> None:
    """A slip there makes every call of that dialer a 403. In a file without a book it is not known."""
    dialer = '\n[[dialers]]\nname = "west"\nallow = ["192.0.2.0/24"]\ncampaigns = ["solar", "solr"]\n'
    messages = [str(one) for one in _book(tmp_path, GOOD + dialer).warnings]
    assert [one.partition(": ")[2] for one in messages] == [
        "dialers[0].campaigns: there is no campaign 'solr' in this file"
    ]
    assert _book(tmp_path, dialer).warnings == ()


def test_presets_are_the_contracts_of_the_domain() -> None:
    found = presets()
    assert list(found) == ["customer-success", "westlake-fulfillment", "westlake-origination"]
    assert found["westlake-fulfillment"].connected_percent == 93
    assert found["westlake-origination"].connected_percent == 88
    minute = found["customer-success"]
    assert minute.rating is Rating.MINUTE
    assert (minute.minute_price_minor, minute.minute_increment_ms) == (118, 60_000)
    assert (minute.setup_fee_minor, minute.concurrent_lines) == (95_000, 3)


@pytest.mark.parametrize(("entry", "value"), [(TermsEntry, Terms), (EndpointEntry, Endpoint)])
def test_an_entry_has_the_fields_and_defaults_of_its_value(entry: type, value: type) -> None:
    trunk = TrunkEntry.model_fields if value is Endpoint else {}
    known = {name: one for name, one in entry.model_fields.items() if name not in trunk}  # type: ignore[attr-defined]
    of_entry = {name: one.default for name, one in known.items() if name not in ("base", "password")}
    of_value = {one.name: one.default for one in fields(value) if one.name not in ("password", "policy")}
    of_entry = {name: "" if one is None else one for name, one in of_entry.items()}
    assert of_entry.keys() == of_value.keys()
    for name, default in of_value.items():
        if name not in ("name", "kind", "uri"):
            assert of_entry[name] == default


def test_a_trunk_entry_says_all_that_a_trunk_policy_knows() -> None:
    said = TrunkEntry.model_validate({}).to_policy()
    assert said == TrunkPolicy()
    assert {one.name for one in fields(TrunkPolicy)} == set(TrunkEntry.model_fields)


@pytest.mark.parametrize(
    ("text", "days", "start", "end"),
    [
        ("mon-fri 09:00-12:30", {0, 1, 2, 3, 4}, 540, 750),
        ("Sat 10:00-24:00", {5}, 600, 1440),
        ("fri-mon 22:00-02:00", {4, 5, 6, 0}, 1320, 120),
    ],
)
def test_opening_hours_are_read(text: str, days: set[int], start: int, end: int) -> None:
    assert parse_hours(text) == Span(frozenset(days), start, end)


@pytest.mark.parametrize("text", ["", "mon 9-17", "mon-xyz 09:00-10:00", "mon 24:00-24:00", "mon 09:60-10:00"])
def test_other_ways_to_write_hours_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"mon|past"):
        parse_hours(text)
