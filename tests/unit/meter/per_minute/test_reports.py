"""The daily report: its span on days of 23, 24 and 25 hours, what it says, and how it reads."""

from __future__ import annotations

import csv
import io
from datetime import date
from typing import Any

import pytest

from book.model import Channel
from meter.per_minute.interactions import RatingKind
from meter.per_minute.reports import ReportRows, body_of, csv_of, day_of, html_of, shown, span_of
from meter.per_minute.sql.interactions import Interaction, RatingRow
from tests.store.money_tools import at

ZONE = "America/New_York"
HOUR_US = 3_600_000_000
ABOUT = {"buyer": "acme", "title": "Acme <b>", "locale": "en_US", "zone": ZONE, "currency": "USD"}
EVIL = '"><script>alert(1)</script>'


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-06-02", 24), ("2026-03-08", 23), ("2026-03-09", 24), ("2026-11-01", 25), ("2026-11-02", 24)],
)
def test_a_span_has_the_hours_of_its_day(day: str, hours: int) -> None:
    span = span_of(date.fromisoformat(day), ZONE)
    assert (span.until_us - span.from_us) / HOUR_US == hours
    assert span.until_us == at(f"{day} 23:30")


def test_spans_follow_one_another_and_an_instant_is_in_one() -> None:
    for day in ("2026-03-08", "2026-11-01", "2026-06-30"):
        span = span_of(date.fromisoformat(day), ZONE)
        assert [str(day_of(moment, ZONE)) for moment in (span.from_us, span.until_us - 1)] == [day, day]
        assert day_of(span.until_us, ZONE) > span.day
        assert day_of(span.from_us - 1, ZONE) < span.day


def one(name: str, kind: Channel = Channel.EMAIL, rating: int = 0, **more: Any) -> Interaction:
    """An interaction of the morning, two minutes of work, three from coming in to the end."""
    began = at("2026-06-02 10:00")
    values: dict[str, Any] = {
        "reference": name,
        "agent": "ann",
        "customer": "jo@example.org",
        "received_utc_us": began,
        "started_utc_us": began + 60_000_000,
        "ended_utc_us": began + 180_000_000,
        "handled_ms": 120_000,
        "resolved": True,
        "ring_to_answer_ms": None,
        "longest_hold_ms": 0,
        "text": "",
        "recording": "",
        "increments": 2,
        "amount_minor": 236,
        "currency": "USD",
        "created_utc_us": began,
    }
    rated = (RatingRow(name, RatingKind.CALLER, rating, "", "link", began),) if rating else ()
    return Interaction(id=name, buyer="acme", kind=kind, ratings=rated, **{**values, **more})


def body(*found: Interaction, late: tuple[Interaction, ...] = (), rated: tuple[Interaction, ...] = ()) -> Any:
    return body_of(span_of(date(2026, 6, 2), ZONE), ABOUT, ReportRows(found, late, rated))


def test_it_says_what_was_resolved_how_fast_how_well_and_at_what_cost() -> None:
    mine, open_one = one("m-1", rating=5), one("m-2", resolved=False, amount_minor=118, increments=1)
    call = one("t-1", Channel.CALL, 2, ring_to_answer_ms=13_000, ended_utc_us=at("2026-06-02 10:05"))
    made = body(mine, open_one, call, rated=(mine, call))
    assert (made["interactions"], made["resolved"], made["late"]) == (3, 2, 0)
    assert made["average_resolution_ms"] == 240_000, "three and five minutes from coming in to the end"
    assert made["average_rating_x100"] == 350
    assert made["cost"] == [{"currency": "USD", "minor": 590}]
    assert [(level["met"], level["of"]) for level in made["levels"]] == [(0, 1), (1, 1), (2, 2)]
    read = shown(made, lambda name: f"https://x.example/{name}")
    assert (read["cost"], read["rating"], read["resolution"], read["resolved"]) == ("$5.90", "3.50", "4:00", "2")
    assert [rating["link"] for rating in read["ratings"]] == ["https://x.example/m-1", "https://x.example/t-1"]


def test_a_day_without_anything_is_told_too() -> None:
    made = body()
    assert (made["average_resolution_ms"], made["average_rating_x100"], made["cost"][0]["minor"]) == (None, None, 0)
    page = html_of(made)
    assert "There were no interactions." in page
    assert "none was rated" in page
    assert "$0.00" in page


def test_what_was_told_late_is_marked() -> None:
    made = body(one("m-1"), late=(one("m-0"),))
    assert (made["interactions"], made["late"], made["cost"][0]["minor"]) == (2, 1, 472)
    assert [(entry["id"], entry["late"]) for entry in made["list"]] == [("m-1", False), ("m-0", True)]
    assert "told to us after" in html_of(made)


def test_two_currencies_are_not_added_up() -> None:
    made = body(one("m-1"), one("m-2", currency="CAD", amount_minor=100))
    assert made["cost"] == [{"currency": "CAD", "minor": 100}, {"currency": "USD", "minor": 236}]


def test_hostile_text_is_escaped_and_no_formula() -> None:
    made = body(one("m-1", reference="=cmd()"), one(EVIL, rating=1), rated=(one(EVIL, rating=1),))
    page = html_of(made)
    assert "<script" not in page
    assert "Acme <b>" not in page
    rows = list(csv.DictReader(io.StringIO(csv_of(made))))
    assert rows[0]["reference"] == "'=cmd()"
    assert rows[0]["amount_minor"] == "236"
    assert rows[0]["received_utc"] == "2026-06-02T14:00:00Z"
