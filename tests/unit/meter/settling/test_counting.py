"""What the meter tells Prometheus of settled transfers, and how far names may fill it."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry

from facts.fact import Fact, Kind
from facts.outcome import decide
from meter.settling.counting import count_settled
from telemetry import metrics
from telemetry.metrics import OTHER, Names


def _value(name: str, **labels: str) -> float:
    registry: CollectorRegistry = metrics.REGISTRY
    return registry.get_sample_value(name, labels) or 0.0


def _facts(*said: tuple[Kind, int | None, int, dict[str, object]]) -> list[Fact]:
    return [
        Fact("r", "b", number, "t1", kind, 1_700_000_000_000_000 + at_ms * 1000, at_ms * 1000, leg=leg, payload=payload)
        for number, (kind, leg, at_ms, payload) in enumerate(said, start=1)
    ]


STARTED = {
    "buyer": "watched",
    "buffer_ms": 15_000,
    "endpoints": [{"leg": 1, "name": "one"}, {"leg": 2, "name": "two"}, {"leg": 3, "name": "three"}],
    "terms": {"talk_connected_ms": 15_000},
}


def test_each_leg_is_counted_once_by_endpoint_and_result() -> None:
    facts = _facts(
        (Kind.TRANSFER_STARTED, None, 0, STARTED),
        (Kind.DIALED, 1, 10, {}),
        (Kind.DIALED, 2, 12, {}),
        (Kind.DIALED, 3, 14, {}),
        (Kind.RINGING, 1, 510, {"code": 180}),
        (Kind.RINGING, 1, 900, {"code": 183}),
        (Kind.LEG_ENDED, 3, 600, {"code": 486, "local": False, "by": "buyer"}),
        (Kind.ANSWERED, 1, 2_010, {}),
        (Kind.ANSWERED_LATE, 2, 2_100, {}),
        (Kind.LEG_ENDED, 2, 2_200, {"code": 200, "local": True}),
        (Kind.ENDED, None, 32_010, {"by": "caller", "cause": "bye"}),
        (Kind.LEG_ENDED, 1, 32_010, {"code": 200, "local": True}),
    )
    before = _value("baton_late_answers_total")
    count_settled("t1", facts, decide(facts), agreed=True)
    results = {
        (trunk, result): _value("baton_trunk_legs_total", trunk=f"watched/{trunk}", result=result)
        for trunk in ("one", "two", "three")
        for result in ("won", "late", "busy", "cancelled", "declined")
    }
    assert {key for key, count in results.items() if count} == {("one", "won"), ("two", "late"), ("three", "busy")}
    assert _value("baton_late_answers_total") == before + 1
    assert _value("baton_trunk_dialout_to_ringing_seconds_sum", trunk="watched/one") == pytest.approx(0.5)
    assert _value("baton_trunk_dialout_to_ringing_seconds_count", trunk="watched/one") == 1
    assert _value("baton_trunk_dialout_to_answer_seconds_sum", trunk="watched/one") == pytest.approx(2.0)
    assert _value("baton_buyer_transfers_total", buyer="watched", counts_as="connected") == 1
    assert _value("baton_buyer_talk_seconds_total", buyer="watched") == pytest.approx(30.0)


def test_what_is_left_of_the_buffer_is_told_of_unanswered_attempts_alone() -> None:
    count, total = "baton_buffer_remaining_seconds_count", "baton_buffer_remaining_seconds_sum"
    before = _value(count), _value(total)
    facts = _facts(
        (Kind.TRANSFER_STARTED, None, 0, STARTED | {"buyer": "left"}),
        (Kind.DIALED, 1, 0, {}),
        (Kind.LEG_ENDED, 1, 4_000, {"code": 603, "local": False, "by": "buyer"}),
        (Kind.ENDED, None, 4_000, {"by": "buyer", "cause": "legs_failed"}),
    )
    count_settled("t1", facts, decide(facts), agreed=True)
    assert _value(count) == before[0] + 1
    assert _value(total) - before[1] == pytest.approx(11.0)
    assert _value("baton_trunk_legs_total", trunk="left/one", result="declined") == 1


def test_a_fact_of_hostile_shape_is_counted_without_a_label_of_its_own() -> None:
    facts = _facts((Kind.TRANSFER_STARTED, None, 0, {"buyer": ["x"], "endpoints": "none"}), (Kind.DIALED, 9, 0, {}))
    before = _value("baton_buyer_transfers_total", buyer=OTHER, counts_as="free")
    count_settled("t1", facts, decide(facts), agreed=True)
    assert _value("baton_buyer_transfers_total", buyer=OTHER, counts_as="free") == before + 1


def test_names_are_bounded_and_give_their_place_back() -> None:
    names = Names(2)
    assert [names.of(name) for name in ("a", "b", "c", "a", "")] == ["a", "b", OTHER, "a", OTHER]
    assert names.keep(["a"]) == {"b"}
    assert names.of("c") == "c"


def test_ten_thousand_buyers_and_trunks_stay_within_the_bound() -> None:
    for number in range(10_000):
        metrics.BUYER_STATE.labels(metrics.BUYERS.of(f"buyer-{number}")).set(math.nan)
        metrics.TRUNK_STATE.labels(metrics.TRUNKS.of(f"buyer-{number}/trunk")).set(math.nan)
    for gauge, most in ((metrics.BUYER_STATE, metrics.MOST_BUYERS), (metrics.TRUNK_STATE, metrics.MOST_TRUNKS)):
        assert len(next(iter(gauge.collect())).samples) <= most + 1
    metrics.BUYERS.keep([])
    metrics.TRUNKS.keep([])


def test_a_process_shows_its_memory_and_cpu() -> None:
    metrics.show_process("test")
    first = _value("baton_process_cpu_seconds_total", process="test")
    sum(range(200_000))
    metrics.show_process("test")
    assert _value("baton_process_resident_bytes", process="test") > 1_000_000
    assert _value("baton_process_cpu_seconds_total", process="test") >= first
