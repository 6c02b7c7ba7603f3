"""The benchmark's arithmetic and its reading of other programs' files. How fast anything is, is asserted nowhere."""

from __future__ import annotations

import math
from email.message import EmailMessage
from pathlib import Path

import orjson
import pytest

from bench import buffer, capture, crash, decliner, peer, proc, rows, scenarios, sipp, soak, stage, stats
from bench.sipp import ScenarioLine
from bench.store import OutcomeRow

# --- statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "percent", "found"),
    [
        ([1.0, 2.0, 3.0, 4.0], 50, 2.0),
        ([4.0, 3.0, 2.0, 1.0], 99, 4.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([7.0], 0, 7.0),
        ([7.0, 8.0], 100, 8.0),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], percent: float, found: float) -> None:
    assert stats.percentile(values, percent) == found


def test_nothing_measured_is_not_a_number() -> None:
    assert math.isnan(stats.percentile([], 50))
    assert math.isnan(stats.median([]))
    assert all(math.isnan(one) for one in stats.bootstrap([]))


def test_the_interval_lies_around_the_median_and_is_the_same_each_time() -> None:
    values = [0.50, 0.52, 0.55, 0.51, 0.49, 0.53, 0.58, 0.50, 0.47, 0.52]
    low, high = stats.bootstrap(values, resamples=2_000)
    assert min(values) <= low <= stats.median(values) <= high <= max(values)
    assert (low, high) == stats.bootstrap(values, resamples=2_000)


def test_the_interval_of_equal_values_is_that_value() -> None:
    assert stats.bootstrap([0.5] * 5, resamples=100) == (0.5, 0.5)


def test_a_slope_is_found_and_a_single_point_has_none() -> None:
    assert stats.slope([(0, 10), (1, 12), (2, 14)]) == pytest.approx(2)
    assert stats.slope([(3, 10), (3, 12)]) == 0


# --- SIPp's files ----------------------------------------------------------------------------------------------------


def test_response_times_are_read_without_the_heading() -> None:
    text = "Date_ms;response_time_ms;rtd_no\n1700000000.123;61.000;1\n1700000000.223;58,5;1\ncut off"
    assert sipp.parse_rtt(text) == [61.0, 58.5]


def test_the_last_screen_counts() -> None:
    screen = (
        "  Successful call        |        5                  |        5                 \n"
        "  Failed call            |        0                  |        1                 \n"
    )
    later = screen.replace("|        5                 \n", "|       12                 \n")
    assert sipp.parse_counts(screen + later) == (12, 1)
    assert sipp.parse_counts("killed") == (0, 0)


def test_log_lines_become_notes_and_a_cut_off_line_is_left_out() -> None:
    lines = [
        "answered 1-77@127.0.0.1 2026-01-02 03:04:05.250000",
        "left 1-77@127.0.0.1 2026-01-02 03:04:20.750000",
        "lef",
    ]
    notes = sipp.by_call(sipp.parse_notes(lines))["1-77@127.0.0.1"]
    assert [note.what for note in notes] == ["answered", "left"]
    assert notes[1].at_s - notes[0].at_s == pytest.approx(15.5)


def test_scenarios_answer_or_decline_as_they_are_told() -> None:
    answers, declines = (
        scenarios.callee(scenarios.Callee(answer_ms=50)),
        scenarios.callee(scenarios.Callee(decline_ms=9)),
    )
    assert "200 OK" in answers
    assert 'timeout="50"' in answers
    assert "486 Busy Here" in declines
    assert 'timeout="200"' in scenarios.dialer(200)


# --- verdicts by SIPp's books ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ([("answered", 0.0), ("left", 0.2)], "short_call/caller_ended"),
        ([("answered", 0.0), ("dropped", 0.4)], "failed/buyer_abandoned"),
        ([("answered", 0.0), ("left", 15.5)], "connected/answered"),
        ([("answered", 0.0), ("dropped", 15.5)], "connected/answered"),
        ([("refused-486", 0.1)], "failed/declined"),
        ([("refused-503", 0.1)], "refused-503"),
        ([("answered", 0.0)], ""),
        ([], ""),
    ],
)
def test_what_a_dialer_saw_says_what_the_books_must_hold(seen: list[tuple[str, float]], verdict: str) -> None:
    assert soak.expected([ScenarioLine(what, "a", at_s) for what, at_s in seen]) == verdict


def _settled(call_id: str, verdict: str = "failed", reason: str = "declined", campaign: str = "declined") -> OutcomeRow:
    return OutcomeRow(f"t-{call_id}", call_id, campaign, verdict, reason, verdict, 100, 0)


def test_two_books_are_held_against_each_other_call_by_call() -> None:
    books = {"a": "failed/declined", "b": "failed/declined", "c": "connected/answered", "d": "failed/declined"}
    outcomes = [_settled("a"), _settled("b"), _settled("b"), _settled("c"), _settled("e")]
    found = soak.compare(books, outcomes)
    assert (found.missing, found.doubled, found.alone) == (["d"], ["b"], ["e"])
    assert found.other == ["t-c: failed/declined, SIPp: connected/answered"]


@pytest.mark.parametrize(
    ("kind", "notes", "interrupted", "allowed"),
    [
        ("long", [("answered", 80.0)], False, {"connected/answered"}),
        ("long", [("answered", 84.8)], True, {"connected/answered", "fault/interrupted"}),
        ("talking", [("answered", 99.0)], True, {"fault/interrupted"}),
        ("ringing", [], True, {"fault/interrupted"}),
        ("declined", [("refused-486", 99.0)], False, {"failed/declined"}),
        ("declined", [("refused-486", 99.0)], True, {"failed/declined"}),  # it was on the disk: no crash can undo it
        ("declined", [("refused-486", 99.9)], True, {"fault/interrupted"}),
        ("declined", [("refused-486", 99.9)], False, {"failed/declined"}),
    ],
)
def test_a_kill_leaves_only_the_verdicts_of_the_table(
    kind: str, notes: list[tuple[str, float]], interrupted: bool, allowed: set[str]
) -> None:
    seen = [ScenarioLine(what, "a", at_s) for what, at_s in notes]
    assert crash.may_be(kind, seen, 100.0, interrupted=interrupted) == allowed


def test_a_mail_is_known_by_its_attachment_and_not_by_its_id() -> None:
    def mail(transfer: str, message_id: str) -> EmailMessage:
        message = EmailMessage()
        message["Message-ID"] = message_id
        message.set_content("text")
        message.add_attachment("a,b", subtype="csv", filename=f"lead-{transfer}.csv")
        return message

    found = crash.by_transfer([mail("t1", "<1@x>"), mail("t1", "<1@x>"), mail("t2", "<2@x>")])
    assert found == {"t1": ["<1@x>", "<1@x>"], "t2": ["<2@x>"]}


# --- the capture and the declining endpoint --------------------------------------------------------------------------


def test_a_capture_is_read_from_first_invite_to_first_final_answer() -> None:
    lines = [
        "100.000000500\t40000\t\tt1-1|t2-1\tINVITE|INVITE\t",
        "100.100000000\t5061\t\tt1-1|t1-1\t\t100|180",
        "100.200000000\t40000\t\tt1-1\tINVITE\t",
        "115.000100000\t5061\t\tt1-1\t\t486",
        "115.100000000\t5061\t\tt1-1\t\t486",
        "115.100500000\t40000\t\tt1-1\tACK\t",
    ]
    found = capture.spans(capture.parse(lines, 5061))
    assert set(found) == {"t1-1"}
    assert found["t1-1"].us == 15_000_100


def test_a_capture_over_udp_has_its_ports_in_the_other_column() -> None:
    lines = ["1.5\t\t40000\tt1-1\tINVITE\t", "2.5\t\t5060\tt1-1\t\t486"]
    assert capture.spans(capture.parse(lines, 5060))["t1-1"].us == 1_000_000


@pytest.mark.parametrize(
    ("wire_us", "verdict", "otherwise"),
    [
        (14_999_999, "within_buffer", False),
        (15_000_000, "failed", False),
        (14_999_999, "failed", True),
        (15_000_000, "within_buffer", True),
    ],
)
def test_the_capture_decides_at_the_bound(wire_us: int, verdict: str, otherwise: bool) -> None:
    one = buffer.Attempt(wire_us, 0, wire_us, verdict, 0, 0)
    assert one.otherwise is otherwise
    assert one.from_bound_ms == pytest.approx(0, abs=0.002)


def test_declines_are_spread_evenly_about_the_bound() -> None:
    found = buffer.delays_s(1_000)
    assert (min(found), max(found)) == pytest.approx((14.9001, 15.0999))
    assert sum(one < 15 for one in found) == 500
    assert found != sorted(found)


def test_a_stream_is_split_into_messages_whatever_the_segments() -> None:
    one = b"ACK sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n"
    two = b"INVITE sip:a SIP/2.0\r\nContent-Length: 4\r\n\r\nbody"
    messages, rest = decliner.split_stream(b"\r\n\r\n" + one + two + two[:-2])
    assert messages == [one, two]
    assert rest == two[:-2]


# --- processes, peer, rows -------------------------------------------------------------------------------------------


def test_cpu_time_counts_children_and_no_name_confuses_it() -> None:
    fields = " ".join(str(n) for n in range(4, 53))  # proc(5): state is field 3, utime field 14
    assert proc.parse_cpu_ticks(f"12 (a) b) S {fields}") == 14 + 15 + 16 + 17


def test_udp_ports_are_read_with_their_inodes() -> None:
    table = "  sl  local_address ...\n 1: 0100007F:4E20 00000000:0000 07 0:0 00:0 0 0 0 4711 2 0 0\n"
    assert proc.parse_udp_table(table) == [(20_000, "4711")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", "# comment\ndeb [signed-by=/k.gpg] http://mirror.example/debian stable main\n"),
        ("sources.list.d/debian.sources", "Types: deb\nURIs: http://mirror.example/debian\nSuites: stable\n"),
    ],
)
def test_the_mirror_is_the_machines_own(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "another.list").write_text("deb http://tools.example/apt stable main\n")
    (tmp_path / name).write_text(text)
    assert peer.mirror(tmp_path) == "http://mirror.example/debian"


def test_without_a_mirror_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(stage.BenchError, match="no Debian archive"):
        peer.mirror(tmp_path)


def test_a_metric_is_summed_over_its_labels_and_only_its_own() -> None:
    page = '# HELP a_b x\na_b{kind="one"} 2.0\na_b{kind="two"} 3.0\na_b_more 9.0\nplain 4.0\n'
    assert stage.parse_metric(page, "a_b") == 5.0
    assert stage.parse_metric(page, "plain") == 4.0
    assert stage.parse_metric(page, "none") is None


def test_rows_have_one_shape_and_a_peer_only_where_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "build" / "bench.json"
    compared = rows.Row("cpu", 5.12345, "ms", "ratio <= 0.6", met=True, peer=10.0, ratio=0.512345)
    rows.write([compared, rows.none_of("lost", 1), rows.seen("calls", 7, "")], file)
    one, two, three = orjson.loads(file.read_bytes())
    assert one == {
        "name": "cpu",
        "value": 5.123,
        "unit": "ms",
        "target": "ratio <= 0.6",
        "met": True,
        "peer": 10.0,
        "ratio": 0.512,
    }
    assert two == {"name": "lost", "value": 1, "unit": "", "target": "0", "met": False}
    assert three["met"] is None
    assert rows.at_most("late", 2, 1, "ms").met is False
    assert rows.exactly("all", 3, 3).met is True
