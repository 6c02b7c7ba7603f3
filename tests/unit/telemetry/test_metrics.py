"""The catalogue, series that begin at 0, and serving the sum of several processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from facts.outcome import Reason, Verdict
from telemetry import metrics
from telemetry.metrics import CATALOGUE, Metric, serve_metrics

ROOT = Path(__file__).parents[3]

WANTED = {
    "baton_transfers_total", "baton_live_transfers", "baton_live_legs", "baton_setup_seconds",
    "baton_dialout_to_ringing_seconds", "baton_dialout_to_answer_seconds", "baton_talk_seconds",
    "baton_late_answers_total", "baton_call_slots_used", "baton_call_slots_lingering", "baton_call_slots_max",
    "baton_engine_calls",
    "baton_scrub_total", "baton_scrub_seconds", "baton_suppression_lists", "baton_suppression_entries",
    "baton_loop_lag_seconds", "baton_journal_backlog_facts",
    "baton_journal_commit_seconds", "baton_outbox_depth", "baton_outbox_oldest_seconds", "baton_outbox_dead_total",
    "baton_mail_sent_total", "baton_mail_bounces", "baton_mail_waiting", "baton_chain_heads_missing",
    "baton_mail_templates_failed_total", "baton_mqtt_connected",
    "baton_verdict_mismatch_total", "baton_engine_faults_total",
    "baton_rtp_dropped_total",
    "baton_build_info", "baton_invites_turned_away_total", "baton_sip_dropped_total", "baton_trunk_probes_total",
    "baton_sip_answers_dropped_total", "baton_left_calls_total",
    "baton_sip_connections",
    "baton_trunk_state",
    "baton_billing_steps_total", "baton_billing_trouble", "baton_invoices_overdue", "baton_refunds_due",
    "baton_fanout_spread_seconds", "baton_buffer_remaining_seconds", "baton_buyer_transfers_total",
    "baton_buyer_talk_seconds_total", "baton_buyer_state", "baton_trunk_legs_total",
    "baton_trunk_dialout_to_ringing_seconds", "baton_trunk_dialout_to_answer_seconds", "baton_order_units",
    "baton_settle_lag_seconds", "baton_ledger_newest_timestamp_seconds", "baton_invoices_unpaid",
    "baton_invoices_unpaid_minor", "baton_stream_lag_facts", "baton_stream_lag_seconds",
    "baton_events_published_total", "baton_commands_total", "baton_webhook_attempts_total", "baton_webhook_seconds",
    "baton_webhooks_disabled", "baton_call_slots_free", "baton_draining", "baton_trunk_probe_seconds",
    "baton_suppression_list_version", "baton_suppression_list_imported_timestamp_seconds",
    "baton_journal_lag_seconds", "baton_http_requests_total", "baton_http_request_seconds",
    "baton_http_limited_total", "baton_child_restarts_total", "baton_ready", "baton_process_resident_bytes",
    "baton_process_cpu_seconds_total",
    "baton_credit_requests_open", "baton_credit_oldest_seconds", "baton_reports_issued_total",
}  # fmt: skip


def test_the_catalogue_has_every_metric_with_a_sentence_on_it() -> None:
    assert {metric.name for metric in CATALOGUE} == WANTED
    for metric in CATALOGUE:
        assert metric.help.endswith("."), metric.name
        assert metric.type in ("counter", "gauge", "histogram")


def test_counters_end_in_total_and_durations_in_seconds() -> None:
    for metric in CATALOGUE:
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert metric.type != "histogram" or metric.name.endswith("_seconds")


def test_labels_are_those_of_the_catalogue() -> None:
    by_name = {metric.name: metric for metric in CATALOGUE}
    assert by_name["baton_transfers_total"] == Metric(
        "baton_transfers_total",
        "counter",
        ("verdict", "reason", "counts_as"),
        "Transfers settled, by what they came to.",
    )


def test_the_catalogue_has_each_metric_once() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


FRESH = """
from telemetry import metrics
from prometheus_client import generate_latest
print(generate_latest(metrics.registry()).decode())
"""


def test_closed_sets_are_there_from_the_start_at_0() -> None:
    page = subprocess.run(
        [sys.executable, "-c", FRESH], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.splitlines()
    verdicts = {line.split('verdict="')[1].split('"')[0] for line in page if line.startswith("baton_transfers_total{")}
    reasons = {line.split('reason="')[1].split('"')[0] for line in page if line.startswith("baton_transfers_total{")}
    assert verdicts == {verdict.value for verdict in Verdict}
    assert reasons == {reason.value for reason in Reason}
    for series in (
        'baton_transfers_total{counts_as="failed",reason="declined",verdict="failed"}',
        'baton_outbox_dead_total{channel="mail"}',
        'baton_engine_faults_total{kind="settle"}',
        'baton_child_restarts_total{process="router"}',
        'baton_billing_steps_total{step="tuesday"}',
    ):
        assert f"{series} 0.0" in page


def test_every_kind_of_fault_in_the_code_begins_at_0() -> None:
    found: set[str] = set()
    for folder in ("baton", "book", "facts", "meter", "portal", "router", "suppression"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(re.findall(r'ENGINE_FAULTS\.labels\((?:kind=)?"(\w+)"', path.read_text()))
    begun = {sample.labels["kind"] for family in metrics.ENGINE_FAULTS.collect() for sample in family.samples}
    assert found
    assert found <= begun


def test_metrics_are_served_over_http_and_the_port_is_freed() -> None:
    metrics.BUILD_INFO.labels("test").set(1)
    server = serve_metrics("127.0.0.1", 0)
    port = server.port
    assert 'baton_build_info{version="test"} 1.0' in _get(port)
    server.stop()
    again = serve_metrics("127.0.0.1", port)
    again.stop()


CHILD = """
import os
from telemetry import metrics
metrics.TRANSFERS.labels("failed", "declined", "failed").inc(2)
metrics.LIVE_TRANSFERS.set(3)
metrics.TALK.observe(20)
metrics.LOOP_LAG.set(0.25)
print(os.getpid(), flush=True)
"""

PARENT = """
import sys
from prometheus_client import generate_latest
from telemetry import metrics
for pid in sys.argv[1:]:
    metrics.mark_dead(int(pid))
print(generate_latest(metrics.registry()).decode())
"""


def test_processes_are_added_up_and_the_dead_leave_the_live_gauges(tmp_path: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def run(code: str, *arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout

    pids = [run(CHILD).strip() for _ in range(2)]
    while_alive = run(PARENT)
    assert 'baton_transfers_total{counts_as="failed",reason="declined",verdict="failed"} 4.0' in while_alive
    assert "baton_live_transfers 6.0" in while_alive
    assert "baton_loop_lag_seconds 0.25" in while_alive
    assert "baton_talk_seconds_count 2.0" in while_alive
    one_dead = run(PARENT, pids[0])
    assert "baton_live_transfers 3.0" in one_dead
    assert 'verdict="failed"} 4.0' in one_dead


def test_alone_there_is_nobody_to_mark() -> None:
    metrics.mark_dead(1)


def _get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())
