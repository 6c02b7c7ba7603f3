"""No number that could be dialled and no secret ever reaches a log line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from ipaddress import IPv4Address
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from telemetry.logs import about, configure, mask, mask_event


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call from +12125550123 now", "call from ***0123 now"),
        ("2125550123", "***0123"),
        ("5550123", "***0123"),
        ("555012", "555012"),
        ("sip:+12125550123@carrier.example:5060", "sip:***0123@carrier.example:5060"),
        ("sip:55501@carrier.example", "sip:***5501@carrier.example"),
        ("sips:12345;tag=1", "sips:***2345;tag=1"),
        ("sip:solar@127.0.0.1:5060", "sip:solar@127.0.0.1:5060"),
        ("tel12125550123x", "tel***0123x"),
        ("(212) 555-0123", "***0123"),
        ("212-555-0123 or 212.555.0123", "***0123 or ***0123"),
        ("2026-06-02 14:00:30 192.168.100.200", "2026-06-02 14:00:30 192.168.100.200"),
        ("postgresql://baton:hunter2@db/baton", "postgresql://***@db/baton"),
        ("(212)555-0123", "***0123"),
        ("tel:+1(212)555-0123", "tel:***0123"),
        ("+44-20-7946-0958, 44-20-7946-0958", "***0958, ***0958"),
        ("+33 6 12 34 56 78", "***5678"),
        ("06.12.34.56.78 and 020 7946 0958", "***5678 and ***0958"),
        ("2026-11-22 212-555-0123", "2026-11-22 ***0123"),
        ("212/555/0123 555-0123.", "***0123 ***0123."),
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer ***"),
        ("?password=hunter2&x=1 and whsec_MfKQ9r8=", "?password=***&x=1 and ***"),
        ('{"token": "abc d"}', '{"token": ***}'),
        ("2026-11-22T10:15:00.123456+00:00", "2026-11-22T10:15:00.123456+00:00"),
        ("192.0.2.1:50600 10.20.30.0/24", "192.0.2.1:50600 10.20.30.0/24"),
        ("v120.0.6099.109 ports 10000-20000", "v120.0.6099.109 ports 10000-20000"),
        ("took 500-1000 ms 1.234567 s", "took 500-1000 ms 1.234567 s"),
        ("550e8400-e29b-41d4-a716-4466a5440abc", "550e8400-e29b-41d4-a716-4466a5440abc"),
        ("01jabcdefghijklmnopq-1 22/11/2026", "01jabcdefghijklmnopq-1 22/11/2026"),
    ],
)
def test_numbers_are_masked_to_their_last_four(text: str, masked: str) -> None:
    assert mask(text) == masked


def event(**values: Any) -> dict[str, Any]:
    return dict(mask_event(None, "info", values))


def test_secrets_go_by_the_name_of_their_key_at_any_depth() -> None:
    found = event(
        password="hunter2", link_secret="s", API_TOKEN="t", Authorization="Basic x", smtp={"credentials": ["a", "b"]}
    )
    assert set(found) == {"password", "link_secret", "API_TOKEN", "Authorization", "smtp"}
    assert "hunter2" not in str(found)
    assert found["smtp"] == {"credentials": "***"}


def test_numbers_are_found_in_lists_keys_integers_and_bytes() -> None:
    found = event(
        phones=["+12125550123"], by={"2125550123": 1}, number=12125550123, raw=b"+12125550123", pair=("5550123", None)
    )
    assert "555" not in str(found)
    assert found["number"] == "***0123"


def test_ids_and_times_of_our_own_stay_whole() -> None:
    values = {"transfer": "20260602123456789", "boot": "1234567890", "utc_us": 1_780_408_800_000_000, "seq": 12_345_678}
    assert event(**values) == values


def test_what_is_too_deep_is_hidden() -> None:
    deep: Any = "+12125550123"
    for _ in range(20):
        deep = [deep]
    assert "0123" not in str(event(deep=deep))


@given(st.text(alphabet="0123456789+()-. @:;abcsip", max_size=60))
def test_no_text_keeps_seven_digits_in_a_row(text: str) -> None:
    kept = 0
    for character in mask(text):
        kept = kept + 1 if character.isdigit() else 0
        assert kept < 7 or character not in "0123456789"


_GROUPS = st.tuples(st.integers(200, 999), st.integers(200, 999), st.integers(1_000, 9_999))


@given(_GROUPS, st.sampled_from(["+1 {} {} {}", "+1({}){}-{}", "({}){}-{}", "({}) {}.{}", "{}/{}/{}", "1-{}-{}-{}"]))
def test_a_number_is_masked_however_it_is_written(groups: tuple[int, int, int], form: str) -> None:
    shown = mask(f"from <{form.format(*groups)}>, refused")
    assert sum(map(str.isdigit, shown)) <= 5
    assert shown.endswith(f"***{groups[2]}>, refused")


@given(st.datetimes(), st.ip_addresses(v=4), st.integers(0, 65_535))
def test_times_and_addresses_are_no_numbers(at: datetime, address: IPv4Address, port: int) -> None:
    at = at.replace(year=2000 + at.year % 100)
    for text in (
        at.isoformat(),
        f"{at:%Y-%m-%d %H:%M:%S} {address}:{port}",
        f"{at:%d.%m.%Y}",
        f"{address} {at:%Y/%m/%d}",
    ):
        assert mask(text) == text


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.fixture
def logs() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("logs")
def test_lines_are_json_masked_with_the_exception_inside(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json=True, level="info")
    log = structlog.get_logger()
    log.debug("not shown")
    try:
        fail("caller +12125550123 is odd")
    except ValueError:
        log.exception("it failed", phone="+12125550123", transfer="t-12345678901")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["phone"]) == ("it failed", "error", "***0123")
    assert line["transfer"] == "t-12345678901"
    assert "ValueError: caller ***0123 is odd" in line["exception"]
    assert line["timestamp"].endswith("Z")


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize("as_json", [True, False])
def test_lines_of_other_libraries_are_masked_too(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    configure(json=as_json, level="info")
    try:
        fail("sip:+12125550123@x")
    except ValueError:
        logging.getLogger("aiosmtplib").exception("sending to %s failed", "+12125550123")
    shown = capsys.readouterr().err
    assert "5550123" not in shown
    assert "212555" not in shown  # by itself 555 may be part of the time
    assert "sending to ***0123 failed" in shown
    assert "ValueError" in shown


@pytest.mark.usefixtures("logs")
def test_lines_for_people_are_masked_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json=False, level="warning")
    structlog.get_logger().info("not shown")
    try:
        fail("+12125550123")
    except ValueError:
        structlog.get_logger().exception("odd", phone="+12125550123")
    shown = capsys.readouterr().err
    assert "not shown" not in shown
    assert "odd" in shown
    assert "5550123" not in shown
    assert "212555" not in shown


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(ValueError, match="log level: 'loud' is none of debug, info, warning, error"):
        configure(json=True, level="loud")


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_what_is_logged_within_a_transfer_bears_its_id_and_leg(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json=True, level="info")
    log = structlog.get_logger("sip")
    with about("t-1", 2):
        log.info("one")
        with about("t-2"):
            log.info("two", leg="own")
        log.info("three", transfer="other")
    log.info("four")
    shown = [(line.get("transfer"), line.get("leg")) for line in _lines(capsys)]
    assert shown == [("t-1", 2), ("t-2", "own"), ("other", 2), (None, None)]


def test_parts_have_levels_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json=True, level="warning", levels={"sip": "debug", "meter": "error"}, process="router")
    for name in ("sip", "meter.book.sql.book", "portal"):
        structlog.get_logger(name).debug("debug", of=name)
        structlog.get_logger(name).warning("warning", of=name)
        structlog.get_logger(name).error("error", of=name)
    structlog.get_logger().warning("of the process")
    assert [(line.get("of"), line["event"]) for line in _lines(capsys)] == [
        ("sip", "debug"),
        ("sip", "warning"),
        ("sip", "error"),
        ("meter.book.sql.book", "error"),
        ("portal", "warning"),
        ("portal", "error"),
        (None, "of the process"),
    ]


def test_a_share_is_drawn_by_transfer_and_nothing_that_went_wrong_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(json=True, level="info", sample={"often": 0.25, "never": 0.0})
    log = structlog.get_logger("router")
    for number in range(1_000):
        log.info("often", transfer=f"t-{number}")
        with about(f"t-{number}"):
            log.info("often", again=True)
        log.info("never", transfer=f"t-{number}")
    log.warning("never")
    log.info("other")
    lines = _lines(capsys)
    first = {line["transfer"] for line in lines if line["event"] == "often" and "again" not in line}
    second = {line["transfer"] for line in lines if "again" in line}
    assert first == second
    assert 180 < len(first) < 320
    assert [line["event"] for line in lines if line["event"] != "often"] == ["never", "other"]


def test_a_part_with_a_level_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="loud"):
        configure(json=True, level="info", levels={"sip": "loud"})
